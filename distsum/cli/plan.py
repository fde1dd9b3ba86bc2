"""``distsum plan``: what would run, before it runs."""

from __future__ import annotations

import json as json_module
import os
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from distsum.cli import streams
from distsum.cli.options import (
    NO_FLAGS,
    FileName,
    Force,
    Inputs,
    Json,
    RunFlags,
    as_given,
    options_of,
    paths_of,
    plain,
    settings_of,
)
from distsum.request import ReductionName
from distsum.wording import byte_size, counted, size_words, time_words

if TYPE_CHECKING:
    from distsum.planning import Candidate, PlanReport

_COLUMNS = ("", "P", "tiles", "phases", "tasks", "read", "written", "requests", "per worker", "estimate")


def plan(
    *inputs: Inputs,
    output: Annotated[
        FileName | None,
        Parameter(
            name=["--output", "-o"],
            metavar="OUT",
            converter=as_given,
            help="The result that would be written. [default: an .npy file]",
        ),
    ] = None,
    reduction: Annotated[ReductionName, Parameter(metavar="NAME", help="What would be computed.")] = "mean",
    flags: RunFlags = NO_FLAGS,
    force: Force = False,
    json: Json = False,
) -> None:
    """Show the ways in which a job could run, what each costs, and which would be taken."""
    from distsum.preparation import plan as planned

    settings = settings_of(flags)
    report = planned(
        paths_of(inputs, settings),
        reduction,
        options_of(settings, force=force, digest=False),
        None if output is None else os.fsencode(output),
    )
    if json:
        streams.emit(json_module.dumps(plain(report)))
    else:
        streams.emit("\n".join(report_lines(report, streams.columns(sys.stdout))))


def report_lines(report: PlanReport, width: int | None = None) -> list[str]:
    """Return a plan as an aligned table with the chosen row marked, and why.

    Args:
        report: The plan.
        width: Columns of the terminal that it should fit into; None for none.
    """
    rows = [_COLUMNS, *(_row(each, index == report.chosen) for index, each in enumerate(report.candidates))]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    gap = " " if width is not None and sum(widths) + 2 * len(widths) - 2 > width else "  "
    words = [
        f"{counted(report.files, report.format + ' file')} of {counted(report.count, 'number')}, {report.dtype}, "
        f"shape {report.shape}: {size_words(report.input_bytes)}",
        f"{counted(report.workers, 'worker')}, each within {byte_size(report.memory_bytes)}",
    ]
    table = [gap.join(cell.rjust(size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in rows]
    reasons = [f"chosen (→): {report.reason}"]
    if not all(each.fits for each in report.candidates):
        reasons.append(f"✗: takes more than {byte_size(report.memory_bytes)} a worker")
    lines = [*words, "", *table, "", *reasons, *report.notes]
    return [part for line in lines for part in ([line] if line in table else streams.wrapped(line, width))]


def _row(candidate: Candidate, chosen: bool) -> tuple[str, ...]:  # noqa: FBT001 - a column of the table
    return (
        "→" if chosen else "" if candidate.fits else "✗",
        f"{candidate.partition:,}",
        f"{candidate.tiles:,}",
        f"{candidate.phases}",
        f"{candidate.tasks:,}",
        size_words(candidate.bytes_read),
        size_words(candidate.bytes_written),
        f"{candidate.requests:,}",
        byte_size(candidate.worker_bytes),
        time_words(candidate.seconds),
    )
