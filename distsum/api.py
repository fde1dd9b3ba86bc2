"""The Python interface: ``distsum.mean`` and its kin, for scripts and notebooks."""

from __future__ import annotations

import builtins
import contextlib
import io
import operator
import os
import tempfile
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

from distsum.actors.speculation import SpeculationSettings
from distsum.actors.speculation_words import parse_speculation, speculation_settings
from distsum.dtypes import ACCEPTED, parse_dtype
from distsum.errors import ConfigurationError, InterruptedRunError
from distsum.request import DEFAULT_FAN_IN, FormatName, OnBadInput, Options, ReductionName
from distsum.stores.routing import RoutingStore, is_remote
from distsum.wording import parse_byte_size, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from distsum.planning import PlanReport
    from distsum.request import Summary
    from distsum.verification import Verification

    Name = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    Inputs = Name | Iterable[Name]
    Array = npt.NDArray[Any]

Choice = TypeVar("Choice", bound=str)


class RunOptions(TypedDict, total=False):
    """Options of a run, each with the meaning of the command line's option of that name.

    Attributes:
        workers: Worker processes; None for one per usable CPU.
        partition: Files a task adds, a power of ``fan_in``; None for the planner's choice.
        fan_in: Children of a node of the canonical tree (5); the only option here that decides the last bits.
        tiles: Index ranges that the arrays are cut into; None for the planner's choice.
        max_open_files: Inputs that a worker holds open at once (5).
        memory: What a worker may take over its imports: bytes, or text such as ``"512MiB"``.
        work_dir: Folder of partials; None for the output's path with ``.distsum`` appended.
        keep_partials: Whether partials stay, for a later job over some of the same inputs (False).
        format: Format of the inputs (``"auto"``: by the first one's suffix).
        dtype: dtype of raw inputs: text, a numpy type or a ``numpy.dtype``.
        out_dtype: dtype of the result; None for the accumulator's.
        on_bad_input: ``"fail"``, or ``"skip"`` to leave bad inputs out.
        force: Whether an existing output is replaced (False).
        speculation: When slow tasks get a second worker: text such as ``"quantile=0.75,multiplier=1.2"``, a mapping of
            such keys, or ``"none"``, as False; None for the default.
        history: A file to store everything that happens in; None for none.
    """

    workers: int | None
    partition: int | None
    fan_in: int
    tiles: int | None
    max_open_files: int
    memory: int | str
    work_dir: Name | None
    keep_partials: bool
    format: FormatName
    dtype: object
    out_dtype: object
    on_bad_input: OnBadInput
    force: bool
    speculation: str | Mapping[str, Any] | bool | None
    history: Name | None


def mean(inputs: Inputs, output: Name | None = None, **options: Unpack[RunOptions]) -> Array:
    """Return the mean at every index of many files.

    Args:
        inputs: A path, folder, pattern or ``@manifest``, or several. The order of additions is the command line's:
            everything but manifests sorted by path in byte order, then the manifests' paths as they stand.
        output: Where the result is written (.npy, .raw or .txt by its suffix); None returns it in memory, and keeps
            partials in a temporary folder, unless ``work_dir`` says otherwise.
        **options: See ``RunOptions``.

    Returns:
        The result in the shape of the inputs, in float64 or complex128 unless ``out_dtype`` says otherwise: an array
        in memory, or a read-only memory map of an output that is .npy or .raw and on a disk.

    Raises:
        UsageError: What was asked for cannot be done; nothing was changed.
        JobError: The job failed, for example at a bad input; what is stored stays in the work folder.
        InterruptedRunError: Ctrl-C, or SIGTERM in the main thread; the same call goes on from what is stored.
        TypeError: There is no such option.

    It blocks until the result is there, and may be called from any thread, several at a time, and where an event loop
    runs, as in a notebook.
    """
    return _reduced("mean", inputs, output, **options)


def sum(inputs: Inputs, output: Name | None = None, **options: Unpack[RunOptions]) -> Array:
    """Return the sum at every index of many files; see ``mean`` for arguments and errors.

    Sums of bool and integers are exact, as int64 or uint64; one that does not fit raises InexactError.
    """
    return _reduced("sum", inputs, output, **options)


def min(inputs: Inputs, output: Name | None = None, **options: Unpack[RunOptions]) -> Array:
    """Return the smallest number at every index of many files; see ``mean`` for arguments and errors.

    NaN wins, a zero is +0.0, integers come as int64 or uint64, and complex inputs are refused with UsageError.
    """
    return _reduced("min", inputs, output, **options)


def max(inputs: Inputs, output: Name | None = None, **options: Unpack[RunOptions]) -> Array:
    """Return the largest number at every index of many files; as ``min``, see ``mean`` for arguments and errors."""
    return _reduced("max", inputs, output, **options)


def plan(inputs: Inputs, reduction: ReductionName = "mean", **options: Unpack[RunOptions]) -> PlanReport:
    """Return what would run, before it runs: the candidates with their costs, which is taken, and why.

    Args:
        inputs: As for ``mean``.
        reduction: What would be computed.
        **options: See ``RunOptions``.

    Raises:
        UsageError: What was asked for cannot be done.
        JobError: An input is bad, by its size or as the first one.
    """
    from distsum.embedded import plan as planned

    chosen = _options(options)
    return planned(_paths(inputs, chosen.format), reduction, chosen)


def verify(
    result: Name,
    inputs: Inputs,
    *,
    reduction: ReductionName = "mean",
    sample: int = 1000,
    seed: int = 0,
    fan_in: int = DEFAULT_FAN_IN,
    format: FormatName = "auto",
    dtype: object = None,
    out_dtype: object = None,
    on_bad_input: OnBadInput = "fail",
) -> Verification:
    """Compare a result with the exact one at random indices; see ``distsum.verification.verify`` for the arguments.

    Raises:
        UsageError: A value is not acceptable, or an input is missing.
        BadInputError: An input or the result is damaged.
        VerificationError: The result is not of the inputs' shape. One beyond its bound is told by ``ok``, not raised.
    """
    from distsum.verification import verify as verified

    return verified(
        os.fsencode(result),
        _paths(inputs, format),
        reduction=reduction,
        sample=_whole("sample", sample),
        seed=_whole("seed", seed),
        fan_in=_whole("fan_in", fan_in),
        format=format,
        dtype=_dtype("dtype", dtype),
        out_dtype=_dtype("out_dtype", out_dtype),
        skip_bad=_one_of("on_bad_input", on_bad_input, "fail", "skip") == "skip",
    )


def _reduced(reduction: ReductionName, inputs: Inputs, output: Name | None, **given: Unpack[RunOptions]) -> Array:
    from distsum.embedded import run

    options = _options(given)
    speculation = _speculation(given.get("speculation"))
    history = given.get("history")
    recorded = None if history is None else os.fsencode(history)
    paths = _paths(inputs, options.format)
    if output is not None:
        path = os.fsencode(output)
        return _mapped(run(reduction, paths, path, options, speculation=speculation, history=recorded), path)
    with tempfile.TemporaryDirectory(prefix="distsum-") as folder:
        written = os.fsencode(os.path.join(folder, "result.npy"))
        try:
            run(reduction, paths, written, options, speculation=speculation, history=recorded)
        except InterruptedRunError:
            if options.work_dir is not None:
                raise
            raise InterruptedRunError(
                "interrupted; what was done is not kept, as there is neither an output nor a work_dir to keep it by"
            ) from None
        import numpy as np

        array: Array = np.load(os.fsdecode(written), allow_pickle=False)
        return array


def _options(given: RunOptions) -> Options:
    """Return what the engine takes.

    Raises:
        TypeError: There is no option of that name.
        ConfigurationError: A value is not acceptable.
    """
    unknown = given.keys() - RunOptions.__annotations__.keys()
    if unknown:
        known = ", ".join(RunOptions.__annotations__)
        raise TypeError(f"there is no option {builtins.min(unknown)!r}; there are {known}")
    defaults = Options()
    return Options(
        workers=_whole_or_none("workers", given.get("workers")),
        partition=_whole_or_none("partition", given.get("partition")),
        fan_in=_whole("fan_in", given.get("fan_in", defaults.fan_in)),
        tiles=_whole_or_none("tiles", given.get("tiles")),
        max_open_files=_whole("max_open_files", given.get("max_open_files", defaults.max_open_files)),
        memory_bytes=_memory(given.get("memory", defaults.memory_bytes)),
        work_dir=_work_dir(given.get("work_dir")),
        keep_partials=_switch("keep_partials", given.get("keep_partials", defaults.keep_partials)),
        format=given.get("format", defaults.format),
        dtype=_dtype("dtype", given.get("dtype")),
        out_dtype=_dtype("out_dtype", given.get("out_dtype")),
        on_bad_input=_one_of("on_bad_input", given.get("on_bad_input", defaults.on_bad_input), "fail", "skip"),
        force=_switch("force", given.get("force", defaults.force)),
        digest=False,
    )


def _whole(name: str, value: object) -> int:
    """Return a whole number of any type, numpy's too, as an int; the engine checks its range."""
    try:
        return operator.index(value)  # type: ignore[arg-type]  # this is how it is found out
    except TypeError:
        raise _unacceptable(name, value, "must be a whole number") from None


def _whole_or_none(name: str, value: object) -> int | None:
    return None if value is None else _whole(name, value)


def _switch(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _unacceptable(name, value, "must be True or False")
    return value


def _one_of(name: str, value: Choice, *choices: Choice) -> Choice:
    if value not in choices:
        raise _unacceptable(name, value, f"must be {' or '.join(map(repr, choices))}")
    return value


def _memory(value: object) -> int:
    try:
        return parse_byte_size(value if isinstance(value, str) else str(_whole("memory", value)))
    except ValueError:
        raise _unacceptable("memory", value, "must be bytes, or a size such as '512MiB'") from None


def _work_dir(value: Name | None) -> str | None:
    if value is None:
        return None
    path = os.fsdecode(value)
    if not path or "\0" in path:
        raise _unacceptable("work_dir", value, "must name a folder")
    return path


def _speculation(value: object) -> SpeculationSettings:
    if value is None or value is True:
        return SpeculationSettings()
    if value is False:
        return SpeculationSettings(policy="none")
    try:
        if isinstance(value, str):
            return parse_speculation(value)
        return speculation_settings(dict(value))  # type: ignore[call-overload]  # this is how it is found out
    except ValueError as error:
        raise _unacceptable("speculation", value, str(error)) from None
    except TypeError:
        raise _unacceptable("speculation", value, "must be text, a mapping, True or False") from None


def _unacceptable(name: str, value: object, what: str) -> ConfigurationError:
    return ConfigurationError(f"{name} {printable(repr(value), 80)}: {what}")


def _dtype(name: str, dtype: object) -> str | None:
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


def _paths(inputs: Inputs, format: str) -> Sequence[bytes]:
    from distsum.inputs import expand

    single = isinstance(inputs, str | bytes | os.PathLike)
    return expand([inputs] if single else list(inputs), format=format)  # type: ignore[list-item, arg-type]  # told apart


def _content(uri: bytes) -> bytes:
    """Return a whole object."""
    with contextlib.closing(RoutingStore()) as store:
        entry = store.identify(uri)
        with store.open_input(entry, 0, entry.size) as reader:
            return reader.read(0, entry.size)


def _mapped(summary: Summary, path: bytes) -> Array:
    """Return a written result, without reading it where its format can be mapped."""
    import numpy as np

    from distsum.formats.registry import by_suffix

    name = os.fsdecode(path)
    found = by_suffix(path)
    content = io.BytesIO(_content(path)) if is_remote(path) else None
    if found is not None and found.name == "npy":
        loaded: Array
        if content is not None:
            loaded = np.load(content, allow_pickle=False)
        else:
            loaded = np.load(name, mmap_mode="r", allow_pickle=False)
        return loaded
    if not summary.count:
        return np.empty(summary.shape, summary.dtype)
    if found is not None and found.name == "raw" and content is None:
        return np.memmap(name, dtype=summary.dtype, mode="r", shape=summary.shape, order=summary.order)
    numbers: Array
    if found is not None and found.name == "raw" and content is not None:
        numbers = np.frombuffer(content.getbuffer(), summary.dtype)
    else:
        numbers = np.loadtxt(content or name, dtype=summary.dtype, ndmin=1)
    return numbers.reshape(summary.shape, order=summary.order)
