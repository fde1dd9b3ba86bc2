"""What the Submit screen says: its fields, the plan, and the command that would do the same (pure: no Textual)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from distsum.cli.plan import report_lines
from distsum.cli.wanted import REDUCTIONS, command_line
from distsum.wording import printable

from .cells import cut_lines, fitted, wrapped
from .lines import Line, Span, clock_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distsum.cli.wanted import Wanted
    from distsum.planning import PlanReport


class Field(NamedTuple):
    """A field of the form.

    Attributes:
        name: That of ``Wanted`` or of an option in it.
        label: What stands before it: the name of the option or argument, by which messages call it.
        hint: What stands in it while it is empty; empty of an option, where what counts without it stands there.
        choices: What it may be; none where it is a text.
    """

    name: str
    label: str
    hint: str = ""
    choices: tuple[str, ...] = ()


ROWS: Final[tuple[tuple[Field, ...], ...]] = (
    (Field("reduction", "reduction", choices=REDUCTIONS), Field("priority", "priority", "0")),
    (Field("inputs", "inputs", "files, folders or patterns, also s3://BUCKET/KEY, or @LIST"),),
    (Field("output", "output", "the result, here or in S3: .npy, .raw or .txt"),),
    (Field("partition", "partition"), Field("tiles", "tiles")),
    (Field("memory", "memory"), Field("fan_in", "fan-in")),
    (
        Field("format", "format", choices=("auto", "npy", "raw", "text")),
        Field("on_bad_input", "on-bad-input", choices=("fail", "skip")),
    ),
    (Field("dtype", "dtype", "of raw inputs: f8, >i4"), Field("out_dtype", "out-dtype")),
    (Field("force", "force", choices=("no", "yes")),),
)
"""The fields, some side by side where there is room."""
FIELDS: Final = {field.name: field for row in ROWS for field in row}
IDLE: Final = (
    "Enter shows what would run: files, tasks, memory and bytes. Nothing is submitted by that.",
    "",
    "What has no field here is an option of the command below, or set by distsum.toml or DISTSUM_*.",
)
LEGEND: Final = (
    "Enter plans, and submits what the plan is of. Names that hold blanks are quoted. Names start from the folder that "
    "`distsum top` was started in; "
    "inputs, result and the service's work must lie where this machine and the workers reach them."
)


def command_lines(wanted: Wanted, width: int, most: int) -> list[Line]:
    """Return the command that would do the same, in at most so many lines; what is cut is told."""
    words = f"$ {printable(command_line(wanted), 10_000)}"
    return [(Span(line, "dim"),) for line in cut_lines(words, width, most)]


def plan_lines(report: PlanReport, width: int, *, stale: bool) -> list[Line]:
    """Return a plan in the words of ``distsum plan``; ``stale`` is one of something else than is written now."""
    lines: list[Line] = []
    for text in report_lines(report, max(20, width)):
        chosen = text.lstrip().startswith("→")
        lines.append((Span(text, "dim" if stale else "strong" if chosen else "plain"),))
    return lines


def wrapped_lines(words: Sequence[str], width: int, *, bad: bool = False) -> list[Line]:
    """Return paragraphs as lines."""
    return [(Span(line, "bad" if bad else "plain"),) for each in words for line in wrapped(each, max(8, width))]


def doing_words(what: str, seconds: float) -> str:
    """Return what goes on, for how long, and how it is stopped."""
    return f"{what}, {clock_words(seconds)}; escape stops it"


def title_line(folder: str, width: int) -> Line:
    """Return what the screen is for, and where names start from."""
    left = "distsum ▸ a new job"
    return Span(fitted(left, width), "strong"), Span(
        fitted(f" · names without a folder are in {printable(folder)}", max(0, width - len(left))), "dim"
    )
