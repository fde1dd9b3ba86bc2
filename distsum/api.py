"""The Python interface: ``distsum.mean`` and its kin, for scripts and notebooks."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import tempfile
from typing import TYPE_CHECKING, TypedDict, Unpack

from distsum.dtypes import parse_dtype
from distsum.errors import ConfigurationError
from distsum.request import (
    DEFAULT_FAN_IN,
    DEFAULT_MAX_OPEN_FILES,
    DEFAULT_MEMORY_BYTES,
    FormatName,
    OnBadInput,
    Options,
    ReductionName,
)
from distsum.stores.routing import RoutingStore, is_remote
from distsum.wording import parse_byte_size

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import numpy.typing as npt

    from distsum.planning import PlanReport
    from distsum.verification import Verification

    Name = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    Inputs = Name | Iterable[Name]
    Array = npt.NDArray[np.generic]


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


def mean(inputs: Inputs, output: Name | None = None, **options: Unpack[RunOptions]) -> Array:
    """Return the mean at every index of many files.

    Args:
        inputs: A path, folder, pattern or ``@manifest``, or several. The order of additions is the command line's:
            everything but manifests sorted by path in byte order, then the manifests' paths as they stand.
        output: Where the result is written (.npy, .raw or .txt by its suffix); None keeps it in memory.
        **options: See ``RunOptions``.

    Returns:
        The result in the shape of the inputs, in float64 or complex128 unless ``out_dtype`` says otherwise: an array
        in memory, or a read-only memory map of an output that is .npy or .raw and on a disk.

    Raises:
        UsageError: What was asked for cannot be done; nothing was changed.
        JobError: The job failed, for example at a bad input; what is stored stays in the work folder.
        InterruptedRunError: Ctrl-C or SIGTERM; the same call goes on from what is stored.
        TypeError: There is no such option.
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
    dtype: str | None = None,
    out_dtype: str | None = None,
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
        sample=sample,
        seed=seed,
        fan_in=fan_in,
        format=format,
        dtype=_dtype("dtype", dtype),
        out_dtype=_dtype("out_dtype", out_dtype),
        skip_bad=on_bad_input == "skip",
    )


def _reduced(reduction: ReductionName, inputs: Inputs, output: Name | None, **given: Unpack[RunOptions]) -> Array:
    from distsum.embedded import run

    options = _options(given)
    paths = _paths(inputs, options.format)
    if output is not None:
        written = os.fsencode(output)
        run(reduction, paths, written, options)
        return _mapped(written, options, reduction, paths)
    with tempfile.TemporaryDirectory(prefix="distsum-") as folder:
        written = os.fsencode(os.path.join(folder, "result.npy"))
        run(reduction, paths, written, options)
        import numpy as np

        with open(written, "rb") as file:
            array: Array = np.load(file, allow_pickle=False)
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
    if given.get("on_bad_input", "fail") not in {"fail", "skip"}:
        raise ConfigurationError(f"on_bad_input {given['on_bad_input']!r}: must be 'fail' or 'skip'")
    memory = given.get("memory", DEFAULT_MEMORY_BYTES)
    try:
        memory_bytes = parse_byte_size(str(memory))
    except ValueError as error:
        raise ConfigurationError(f"memory {memory!r}: {error}") from None
    work_dir = given.get("work_dir")
    return Options(
        workers=given.get("workers"),
        partition=given.get("partition"),
        fan_in=given.get("fan_in", DEFAULT_FAN_IN),
        tiles=given.get("tiles"),
        max_open_files=given.get("max_open_files", DEFAULT_MAX_OPEN_FILES),
        memory_bytes=memory_bytes,
        work_dir=None if work_dir is None else os.fsdecode(work_dir),
        keep_partials=given.get("keep_partials", False),
        format=given.get("format", "auto"),
        dtype=_dtype("dtype", given.get("dtype")),
        out_dtype=_dtype("out_dtype", given.get("out_dtype")),
        on_bad_input=given.get("on_bad_input", "fail"),
        force=given.get("force", False),
        digest=False,
    )


def _dtype(name: str, dtype: object) -> str | None:
    """Return a dtype, given as text, as a type such as ``numpy.float32`` or as ``numpy.dtype``, as ``dtype.str``."""
    if dtype is None:
        return None
    if isinstance(dtype, str):
        text = dtype
    else:
        import numpy as np

        text = np.dtype(dtype).str  # type: ignore[call-overload]  # whatever numpy takes
    try:
        return parse_dtype(text)
    except ValueError as error:
        raise ConfigurationError(f"{name}: {error}") from None


def _paths(inputs: Inputs, format: str) -> list[bytes]:
    from distsum.inputs import expand

    single = isinstance(inputs, str | bytes | os.PathLike)
    return expand([inputs] if single else list(inputs), format=format)  # type: ignore[list-item, arg-type]  # told apart


def _content(uri: bytes) -> bytes:
    """Return a whole object."""
    with contextlib.closing(RoutingStore()) as store:
        entry = store.identify(uri)
        with store.open_input(entry, 0, entry.size) as reader:
            return reader.read(0, entry.size)


def _mapped(path: bytes, options: Options, reduction: ReductionName, paths: list[bytes]) -> Array:
    """Return a written result without reading it, where its format can be mapped."""
    import numpy as np

    from distsum.embedded import plan as planned
    from distsum.formats.registry import by_suffix
    from distsum.reductions import REDUCTIONS

    found = by_suffix(path)
    if is_remote(path):
        content = _content(path)
        if found is not None and found.name == "npy":
            loaded: Array = np.load(io.BytesIO(content), allow_pickle=False)
            return loaded
        dtype = options.out_dtype or REDUCTIONS[reduction].result(planned(paths, reduction, options).dtype)
        if found is not None and found.name == "raw":
            return np.frombuffer(content, dtype)
        return np.loadtxt(io.BytesIO(content), dtype=dtype, ndmin=1)
    name = os.fsdecode(path)
    if found is not None and found.name == "npy":
        mapped: Array = np.load(name, mmap_mode="r", allow_pickle=False)
        return mapped
    report = planned(paths, reduction, options)
    dtype = options.out_dtype or REDUCTIONS[reduction].result(report.dtype)
    if found is not None and found.name == "raw":
        return np.memmap(name, dtype=dtype, mode="r") if os.path.getsize(path) else np.empty(0, dtype)
    return np.loadtxt(name, dtype=dtype, ndmin=1)
