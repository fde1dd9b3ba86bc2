"""The Python interface: ``distsum.mean`` and its kin, for scripts and notebooks."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Unpack

from distsum.arguments import RunOptions, dtype_of, here_of, one_of, options_of, paths_of, whole
from distsum.errors import InterruptedRunError
from distsum.request import DEFAULT_FAN_IN, FormatName, OnBadInput, ReductionName
from distsum.results import mapped

if TYPE_CHECKING:
    from distsum.arguments import Inputs, Name
    from distsum.planning import PlanReport
    from distsum.results import Array
    from distsum.verification import Verification


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
    from distsum.preparation import plan as planned

    chosen = options_of(options)
    here_of(options)  # which no plan depends on, and which may be wrong all the same
    return planned(paths_of(inputs, chosen.format), reduction, chosen)


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
        paths_of(inputs, format),
        reduction=reduction,
        sample=whole("sample", sample),
        seed=whole("seed", seed),
        fan_in=whole("fan_in", fan_in),
        format=format,
        dtype=dtype_of("dtype", dtype),
        out_dtype=dtype_of("out_dtype", out_dtype),
        skip_bad=one_of("on_bad_input", on_bad_input, "fail", "skip") == "skip",
    )


def _reduced(reduction: ReductionName, inputs: Inputs, output: Name | None, **given: Unpack[RunOptions]) -> Array:
    from distsum.embedded import run

    options = options_of(given)
    speculation, history = here_of(given)
    paths = paths_of(inputs, options.format)
    if output is not None:
        path = os.fsencode(output)
        return mapped(run(reduction, paths, path, options, speculation=speculation, history=history), path)
    with tempfile.TemporaryDirectory(prefix="distsum-") as folder:
        written = os.fsencode(os.path.join(folder, "result.npy"))
        try:
            run(reduction, paths, written, options, speculation=speculation, history=history)
        except InterruptedRunError:
            if options.work_dir is not None:
                raise
            raise InterruptedRunError(
                "interrupted; what was done is not kept, as there is neither an output nor a work_dir to keep it by"
            ) from None
        import numpy as np

        array: Array = np.load(os.fsdecode(written), allow_pickle=False)
        return array
