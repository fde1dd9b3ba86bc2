"""``distsum verify``: how far a result is from the exact one."""

from __future__ import annotations

import json as json_module
import os
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from distsum.cli.options import Inputs, Json, RunFlags, paths_of, plain, settings_of, whole_number
from distsum.request import ReductionName
from distsum.wording import printable

if TYPE_CHECKING:
    from distsum.verification import Verification

Result = Annotated[str, Parameter(name="RESULT", help="What a job has written.")]


def verify(
    result: Result,
    /,
    *inputs: Inputs,
    reduction: Annotated[ReductionName, Parameter(help="What the result is.")] = "mean",
    sample: Annotated[str, Parameter(help="Indices to check.")] = "1000",
    seed: Annotated[str, Parameter(help="Of the draw of indices.")] = "0",
    fan_in: Annotated[str | None, Parameter(help="Fan-in the result was made with. [default: 5]")] = None,
    format: Annotated[str | None, Parameter(help="Format of the inputs. [default: by the suffix]")] = None,
    dtype: Annotated[str | None, Parameter(help="dtype of raw inputs.")] = None,
    out_dtype: Annotated[str | None, Parameter(help="dtype of a raw or text result.")] = None,
    on_bad_input: Annotated[str | None, Parameter(help="skip: leave bad inputs out, as the job did.")] = None,
    json: Json = False,
) -> int:
    """Read random indices of all inputs again, add them exactly, and compare; exit code 1 beyond the proven bound."""
    from distsum.verification import verify as verified

    flags = RunFlags(fan_in=fan_in, format=format, dtype=dtype, out_dtype=out_dtype, on_bad_input=on_bad_input)  # type: ignore[arg-type]  # checked with all settings
    settings = settings_of(flags)
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
    )
    if json:
        print(json_module.dumps(plain(found)))
    else:
        print("\n".join(verification_lines(found)))
    return 0 if found.ok else 1


def verification_lines(found: Verification) -> list[str]:
    """Return what a check found, in words."""
    verdict = "within the bound" if found.ok else "BEYOND THE BOUND"
    lines = [
        f"{found.reduction} of {found.files:,} files, checked exactly at {found.indices:,} of {found.count:,} indices: "
        f"{verdict}",
        f"largest error {found.largest_ulp:.3g} ulp, {found.largest_bound_ratio:.3g} of its bound ({found.bound})",
    ]
    if found.worst_index is not None:
        lines.append(f"at index {found.worst_index}: found {found.found}, exact {found.exact}")
    if found.skipped:
        lines.append(
            f"left out {len(found.skipped)} bad inputs: {', '.join(printable(s.uri) for s in found.skipped[:5])}"
        )
    return lines
