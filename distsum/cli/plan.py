"""``distsum plan``: what would run, before it runs."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from distsum.cli.options import NO_FLAGS, Inputs, Json, RunFlags, options_of, paths_of, plain, settings_of
from distsum.cli.progress import size_words, time_words
from distsum.request import ReductionName
from distsum.wording import byte_size

if TYPE_CHECKING:
    from distsum.planning import Candidate, PlanReport

_COLUMNS = ("", "P", "tiles", "phases", "tasks", "read", "written", "requests", "per worker", "estimate")


def plan(
    *inputs: Inputs,
    reduction: Annotated[ReductionName, Parameter(help="What would be computed.")] = "mean",
    flags: RunFlags = NO_FLAGS,
    json: Json = False,
) -> None:
    """Show the ways in which a job could run, what each costs, and which would be taken."""
    from distsum.embedded import plan as planned

    settings = settings_of(flags)
    report = planned(paths_of(inputs, settings), reduction, options_of(settings, force=False, digest=False))
    if json:
        print(json_module.dumps(plain(report)))
    else:
        print("\n".join(report_lines(report)))


def report_lines(report: PlanReport) -> list[str]:
    """Return a plan as an aligned table with the chosen row marked, and why."""
    rows = [_COLUMNS, *(_row(each, index == report.chosen) for index, each in enumerate(report.candidates))]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    lines = [
        f"{report.files:,} {report.format} files of {report.count:,} numbers, {report.dtype}, shape {report.shape}: "
        f"{size_words(report.input_bytes)}",
        f"{report.workers} workers, each within {byte_size(report.memory_bytes)}",
        "",
    ]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += ["", f"chosen (→): {report.reason}", *report.notes]
    return lines


def _row(candidate: Candidate, chosen: bool) -> tuple[str, ...]:  # noqa: FBT001 - a column of the table
    fits = "" if candidate.fits else " (too much)"
    return (
        "→" if chosen else "",
        f"{candidate.partition:,}",
        f"{candidate.tiles:,}",
        f"{candidate.phases}",
        f"{candidate.tasks:,}",
        size_words(candidate.bytes_read),
        size_words(candidate.bytes_written),
        f"{candidate.requests:,}",
        byte_size(candidate.worker_bytes) + fits,
        time_words(candidate.seconds),
    )
