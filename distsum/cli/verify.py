"""``distsum verify``: how far a result is from the exact one."""

from __future__ import annotations

import json as json_module
import os
import time
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from distsum.cli import streams
from distsum.cli.options import FileName, Inputs, Json, RunFlags, as_given, paths_of, plain, settings_of, whole_number
from distsum.cli.progress import Line, on_terminal, skipped_lines
from distsum.request import ReductionName
from distsum.wording import counted

if TYPE_CHECKING:
    from distsum.verification import Verification

Result = Annotated[FileName, Parameter(name="RESULT", converter=as_given, help="What a job has written.")]


def verify(
    result: Result,
    /,
    *inputs: Inputs,
    reduction: Annotated[ReductionName, Parameter(metavar="NAME", help="What the result is.")] = "mean",
    sample: Annotated[str, Parameter(metavar="N", help="How many indices to check.")] = "1000",
    seed: Annotated[str, Parameter(metavar="S", help="Of the draw of indices.")] = "0",
    fan_in: Annotated[
        str | None, Parameter(metavar="R", help="Fan-in that the result was made with. [default: 5]")
    ] = None,
    format: Annotated[
        Literal["auto", "npy", "raw", "text"] | None,
        Parameter(metavar="FORMAT", help="Format of the inputs. [default: by the suffix]"),
    ] = None,
    dtype: Annotated[str | None, Parameter(metavar="DTYPE", help="dtype of raw inputs.")] = None,
    out_dtype: Annotated[str | None, Parameter(metavar="DTYPE", help="dtype of a raw or text result.")] = None,
    on_bad_input: Annotated[
        Literal["fail", "skip"] | None,
        Parameter(metavar="WHAT", help="Stop at a bad input, or leave it out as the job did. [default: fail]"),
    ] = None,
    json: Json = False,
) -> int:
    """Read random indices of all inputs again, add them exactly, and compare; exit code 1 beyond the proven bound."""
    from distsum.verification import verify as verified

    settings = settings_of(
        RunFlags(fan_in=fan_in, format=format, dtype=dtype, out_dtype=out_dtype, on_bad_input=on_bad_input)
    )

    def show(done: int, total: int) -> None:
        line.show(f"read {done:,} of {total:,} files", time.perf_counter())

    with Line(shown=on_terminal(quiet=settings.quiet)) as line:
        found = verified(
            os.fsencode(result),
            paths_of(inputs, settings),
            reduction=reduction,
            sample=whole_number("--sample", sample, 1),
            seed=whole_number("--seed", seed),
            fan_in=settings.fan_in,
            format=settings.format,
            dtype=settings.dtype,
            out_dtype=settings.out_dtype,
            skip_bad=settings.on_bad_input == "skip",
            progress=show,
        )
    if json:
        streams.emit(json_module.dumps(plain(found)))
    else:
        streams.emit("\n".join(verification_lines(found)))
    return 0 if found.ok else 1


def verification_lines(found: Verification) -> list[str]:
    """Return what a check found, in words."""
    verdict = "within the bound" if found.ok else "BEYOND THE BOUND"
    lines = [
        f"{found.reduction} of {counted(found.files, 'file')}: {verdict}",
        f"checked exactly at {found.indices:,} of {counted(found.count, 'index', 'indices')}",
        f"largest error {found.largest_ulp:.3g} ulp, {found.largest_bound_ratio:.3g} of its bound",
        f"bound: {found.bound}",
    ]
    if found.worst_index is not None:
        lines.append(f"worst at index {found.worst_index}: found {found.found}, exact {found.exact}")
    return lines + skipped_lines(found.skipped, found.files + len(found.skipped))
