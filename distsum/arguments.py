"""What the Python functions take, checked and turned into what the engine takes."""

from __future__ import annotations

import operator
import os
from typing import TYPE_CHECKING, TypedDict, TypeVar

from distsum.dtypes import ACCEPTED, parse_dtype
from distsum.errors import ConfigurationError
from distsum.request import FormatName, OnBadInput, Options
from distsum.wording import parse_byte_size, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Name = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    Inputs = Name | Iterable[Name]

Choice = TypeVar("Choice", bound=str)


class JobOptions(TypedDict, total=False):
    """Options of a job wherever it runs, each with the meaning of the command line's option of that name.

    Attributes:
        workers: Worker processes; None for one per usable CPU. Of a service: how many to plan for; None for those that
            it has.
        partition: Files a task adds, a power of ``fan_in``; None for the planner's choice.
        fan_in: Children of a node of the canonical tree (5); the only option here that decides the last bits.
        tiles: Index ranges that the arrays are cut into; None for the planner's choice.
        max_open_files: Inputs that a worker holds open at once (5).
        memory: What a worker may take over its imports: bytes, or text such as ``"512MiB"``.
        keep_partials: Whether partials stay, for a later job over some of the same inputs (False).
        format: Format of the inputs (``"auto"``: by the first one's suffix).
        dtype: dtype of raw inputs: text, a numpy type or a ``numpy.dtype``.
        out_dtype: dtype of the result; None for the accumulator's.
        on_bad_input: ``"fail"``, or ``"skip"`` to leave bad inputs out.
        force: Whether an existing output is replaced (False).
    """

    workers: int | None
    partition: int | None
    fan_in: int
    tiles: int | None
    max_open_files: int
    memory: int | str
    keep_partials: bool
    format: FormatName
    dtype: object
    out_dtype: object
    on_bad_input: OnBadInput
    force: bool


class RunOptions(JobOptions, total=False):
    """Options of a run on this machine: those of every job, and its work folder.

    Attributes:
        work_dir: Folder of partials; None for the output's path with ``.distsum`` appended.
    """

    work_dir: Name | None


def options_of(given: RunOptions, kind: type[JobOptions] = RunOptions, *, digest: bool = False) -> Options:
    """Return what the engine takes.

    Args:
        given: What was given.
        kind: What may be given.
        digest: Whether the result's SHA-256 is computed.

    Raises:
        TypeError: There is no option of that name.
        ConfigurationError: A value is not acceptable.
    """
    unknown = given.keys() - kind.__annotations__.keys()
    if unknown:
        known = ", ".join(kind.__annotations__)
        raise TypeError(f"there is no option {min(unknown)!r}; there are {known}")
    defaults = Options()
    return Options(
        workers=_whole_or_none("workers", given.get("workers")),
        partition=_whole_or_none("partition", given.get("partition")),
        fan_in=whole("fan_in", given.get("fan_in", defaults.fan_in)),
        tiles=_whole_or_none("tiles", given.get("tiles")),
        max_open_files=whole("max_open_files", given.get("max_open_files", defaults.max_open_files)),
        memory_bytes=_memory(given.get("memory", defaults.memory_bytes)),
        work_dir=_work_dir(given.get("work_dir")),
        keep_partials=_switch("keep_partials", given.get("keep_partials", defaults.keep_partials)),
        format=given.get("format", defaults.format),
        dtype=dtype_of("dtype", given.get("dtype")),
        out_dtype=dtype_of("out_dtype", given.get("out_dtype")),
        on_bad_input=one_of("on_bad_input", given.get("on_bad_input", defaults.on_bad_input), "fail", "skip"),
        force=_switch("force", given.get("force", defaults.force)),
        digest=digest,
    )


def whole(name: str, value: object) -> int:
    """Return a whole number of any type, numpy's too, as an int; the engine checks its range."""
    try:
        return operator.index(value)  # type: ignore[arg-type]  # this is how it is found out
    except TypeError:
        raise _unacceptable(name, value, "must be a whole number") from None


def _whole_or_none(name: str, value: object) -> int | None:
    return None if value is None else whole(name, value)


def _switch(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _unacceptable(name, value, "must be True or False")
    return value


def one_of(name: str, value: Choice, *choices: Choice) -> Choice:
    """Return a value that must be one of some."""
    if value not in choices:
        raise _unacceptable(name, value, f"must be {' or '.join(map(repr, choices))}")
    return value


def _memory(value: object) -> int:
    try:
        return parse_byte_size(value if isinstance(value, str) else str(whole("memory", value)))
    except ValueError:
        raise _unacceptable("memory", value, "must be bytes, or a size such as '512MiB'") from None


def _work_dir(value: Name | None) -> str | None:
    if value is None:
        return None
    path = os.fsdecode(value)
    if not path or "\0" in path:
        raise _unacceptable("work_dir", value, "must name a folder")
    return path


def _unacceptable(name: str, value: object, what: str) -> ConfigurationError:
    return ConfigurationError(f"{name} {printable(repr(value), 80)}: {what}")


def dtype_of(name: str, dtype: object) -> str | None:
    """Return a dtype, given as text, as a type such as ``numpy.float32`` or as ``numpy.dtype``, as ``dtype.str``."""
    if dtype is None:
        return None
    text = dtype
    if not isinstance(dtype, str):
        import numpy as np

        try:
            text = np.dtype(dtype).str  # type: ignore[call-overload]  # whatever numpy takes
        except TypeError:
            raise _unacceptable(name, dtype, f"is no dtype; accepted are {ACCEPTED}") from None
    try:
        return parse_dtype(str(text))
    except ValueError:
        raise _unacceptable(name, dtype, f"cannot be reduced; accepted are {ACCEPTED}") from None


def paths_of(inputs: Inputs, format: str) -> Sequence[bytes]:
    """Return the paths that inputs name, in the documented order."""
    from distsum.inputs import expand

    single = isinstance(inputs, str | bytes | os.PathLike)
    return expand([inputs] if single else list(inputs), format=format)  # type: ignore[list-item, arg-type]  # told apart
