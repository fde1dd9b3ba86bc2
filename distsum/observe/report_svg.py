"""The drawings of a report as inline SVG: the tree with what became of its tasks, and the workers' time line (pure).

Whatever a job's size, a drawing stays within some hundreds of kilobytes: what does not fit is put together, and how
many share a cell or a row is part of what is returned.
"""

from __future__ import annotations

import html
import math
import re
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from distsum.observe.ledger import duration_words, task_words
from distsum.observe.report import DONE_AGAIN, FATES, NEVER_DONE
from distsum.observe.states import aggregate, tasks_per_cell
from distsum.wording import counted, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from distsum.messages import TaskId
    from distsum.observe.attempts import Attempt
    from distsum.observe.report import JobReport

WIDTH: Final = 1000
_CELL: Final = 10
_MOST_CELLS: Final = 3000
"""Of a phase: 30 rows."""
_MOST_NAMED: Final = 400
"""Cells of a phase that say which tasks they are."""
_MOST_ATTEMPTS: Final = 3000
"""Attempts that are drawn each for itself."""
_MOST_ROWS: Final = 120
_MOST_LABELLED: Final = 40
_LABELLED_TALL: Final = 10
"""A row that is taller has its name beside it."""
_SLICES: Final = 290
_LEVELS: Final = 8
_FATE_SIGNS: Final = {DONE_AGAIN: "↻", DONE_AGAIN + 1: "↯", NEVER_DONE: "!"}
WORDS_OF_WHY: Final = {
    "first": "first attempt",
    "retry": "another attempt",
    "again": "made again, since its partial was missing or damaged",
    "backup": "backup",
    "share": "one part, to help others",
}


class Drawing(NamedTuple):
    """An SVG element, and what is to be said of it: how many share a cell or a row, and what is left out."""

    svg: str
    said: str


def text(name: str, limit: int = 300) -> str:
    """Return a text from outside as it may stand in HTML, in an element or a quoted attribute."""
    return html.escape(printable(name, limit))


# The tree -------------------------------------------------------------------------------------------------------------


def phase_map(report: JobReport, phase: int) -> Drawing:
    """Return the map of a phase's tasks, in their order, each cell as bad as the worst of them."""
    fates = report.fates[phase - 1]
    each = tasks_per_cell(fates.size, _MOST_CELLS)
    cells = aggregate(fates, each)
    columns = WIDTH // _CELL
    unusual = np.flatnonzero((cells >= DONE_AGAIN) & (cells != NEVER_DONE - 1))
    failed = np.flatnonzero(cells == NEVER_DONE)
    named = {int(place) for place in np.concatenate([failed, unusual])[:_MOST_NAMED]}
    about = _attempts_by_cell(report, phase, each, named)
    parts: list[str] = []
    for fate in range(len(FATES)):
        places = [place for place in np.flatnonzero(cells == fate).tolist() if place not in named]
        if places:
            parts.append(f'<path class="f{fate}" d="{"".join(_square(place, columns) for place in places)}"/>')
    for place in sorted(named):
        fate = int(cells[place])
        x, y = place % columns * _CELL, place // columns * _CELL
        sign = _FATE_SIGNS.get(fate, "")
        parts.append(
            f"<g><title>{html.escape(_cell_words(report, phase, place, each, fate, about.get(place, ())))}</title>"
            f'<path class="f{fate}" d="{_square(place, columns)}"/>'
            f'<text class="s{fate}" x="{x + 4.5}" y="{y + 8}">{sign}</text></g>'
        )
    height = max(1, -(-cells.size // columns)) * _CELL
    told = ", ".join(
        f"{int(count):,} {name}"
        for name, count in zip(FATES, np.bincount(fates, minlength=len(FATES)), strict=True)
        if count
    )
    said = told if each == 1 else f"{told}; {each:,} tasks share a cell, which shows the worst of them"
    wide = min(columns, cells.size) * _CELL
    label = html.escape(f"Phase {phase}: {said}")
    return Drawing(
        f'<svg class="map" role="img" aria-label="{label}" viewBox="0 0 {wide} {height}" '
        f'style="width:{100 * wide / WIDTH:g}%;min-width:{0.64 * wide:.0f}px">{"".join(parts)}</svg>',
        said,
    )


def _square(place: int, columns: int) -> str:
    return f"M{place % columns * _CELL} {place // columns * _CELL}h9v9h-9z"


def _attempts_by_cell(
    report: JobReport, phase: int, each: int, named: set[int]
) -> dict[int, list[tuple[TaskId, tuple[Attempt, ...]]]]:
    found: dict[int, list[tuple[TaskId, tuple[Attempt, ...]]]] = {}
    width = report.header.work[phase - 1].tasks // report.header.work[-1].tasks
    for task, attempts in report.attempts.unusual():
        if task.phase == phase and (place := (task.tile * width + task.index) // each) in named and len(attempts) > 1:
            found.setdefault(place, []).append((task, attempts))
    return found


def _cell_words(
    report: JobReport,
    phase: int,
    place: int,
    each: int,
    fate: int,
    about: Iterable[tuple[TaskId, tuple[Attempt, ...]]],
) -> str:
    size = report.fates[phase - 1].size
    first, last = place * each, min(size, (place + 1) * each) - 1
    lines = [f"phase {phase}, task {first:,}" if first == last else f"phase {phase}, tasks {first:,} to {last:,}"]
    lines[0] += f": {FATES[fate]}"
    for task, attempts in list(about)[:3]:
        lines += [f"{task_words(task)}: {attempt_words(attempt)}" for attempt in attempts[:4]]
    return "\n".join(lines)


def attempt_words(attempt: Attempt) -> str:
    """Return an attempt in a sentence, harmless to show."""
    ended, began = attempt.ended_seconds, attempt.began_seconds
    when = ", begun at an unknown time" if began is None else f" from {duration_words(began)}"
    took = "" if began is None or ended is None else f" after {duration_words(ended - began)}"
    how = attempt.end if attempt.failure is None else f"{attempt.end} ({attempt.failure})"
    return f"{WORDS_OF_WHY[attempt.why]} on {printable(attempt.worker, 60)}{when}, {how}{took}"


# The time line --------------------------------------------------------------------------------------------------------


class _Frame(NamedTuple):
    """Where a time line's parts go: left of ``gutter`` names stand, and a row is ``tall``."""

    workers: tuple[str, ...]
    each: int
    tall: int
    gutter: int
    end_seconds: float

    @property
    def rows(self) -> int:
        return -(-len(self.workers) // self.each)

    @property
    def height(self) -> int:
        return self.rows * self.tall

    def x(self, seconds: float) -> float:
        return self.gutter + seconds * (WIDTH - self.gutter) / max(self.end_seconds, 1e-9)


def time_line(report: JobReport) -> Drawing:
    """Return when each worker made its attempts; of many workers and attempts, how busy they were."""
    workers = tuple(sorted(report.attempts.workers, key=natural))
    each = max(1, -(-len(workers) // _MOST_ROWS))
    tall = 16 if len(workers) <= _MOST_LABELLED else 6
    longest = max(len(_short(name)) for name in workers) if tall > _LABELLED_TALL else 12
    frame = _Frame(workers, each, tall, 12 + 7 * longest, report.end_seconds)
    spans = report.attempts.spans()
    said = [f"{counted(spans.worker.size, 'attempt')} by {counted(len(workers), 'worker')}"]
    if each > 1:
        said.append(f"a row is {counted(each, 'worker')}, put together")
    parts = _axis(frame)
    all_drawn = each == 1 and spans.worker.size <= _MOST_ATTEMPTS
    if untold := int(np.isnan(spans.began_seconds).sum()):
        told = counted(untold, "attempt whose beginning", "attempts whose beginnings")
        said.append(f"{told} nobody has told: {'drawn at the end of each' if all_drawn else 'counted as no time'}")
    if all_drawn:
        drawn = [attempt for name in workers for attempt in report.attempts.time_line(name)]
    else:
        said.append("the stronger the colour, the busier; attempts at unusual tasks are drawn over it")
        parts.append(_business(report, frame))
        drawn = [attempt for _, attempts in report.attempts.unusual() for attempt in attempts]
        if len(drawn) > _MOST_ATTEMPTS:
            said.append(f"of {len(drawn):,} of them the first {_MOST_ATTEMPTS:,}")
            drawn = drawn[:_MOST_ATTEMPTS]
    places = {name: place // each for place, name in enumerate(workers)}
    parts += [_bar(attempt, places[attempt.worker], frame) for attempt in drawn]
    parts += _labels(frame)
    words = "; ".join(said)
    return Drawing(
        f'<svg class="line" role="img" aria-label="{html.escape(words)}" viewBox="0 0 {WIDTH} {frame.height + 24}">'
        f"{''.join(parts)}</svg>",
        words,
    )


def natural(name: str) -> list[tuple[int, str]]:
    """Return by what names are put in order so that ``w2`` comes before ``w10``.

    >>> sorted(["w10", "w2", "v"], key=natural)
    ['v', 'w2', 'w10']
    """
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]{1,18})", name)]


def _axis(frame: _Frame) -> list[str]:
    step = _tick_seconds(frame.end_seconds / 8)
    parts = []
    for number in range(int(frame.end_seconds / step) + 1):
        x = frame.x(number * step)
        parts.append(f'<path class="tick" d="M{x:.1f} 0v{frame.height + 4}"/>')
        if x < WIDTH - 20:
            words = _tick_words(number * step, step)
            parts.append(f'<text class="axis" x="{x:.1f}" y="{frame.height + 17}">{words}</text>')
    return parts


def _tick_seconds(least: float) -> float:
    """Return a round time that is at least so long.

    >>> _tick_seconds(0.3), _tick_seconds(7), _tick_seconds(70), _tick_seconds(4000)
    (0.5, 10.0, 120, 7200)
    """
    if least <= 30:
        power = 10.0 ** math.floor(math.log10(max(least, 1e-6)))
        return float(next(times * power for times in (1, 2, 5, 10) if times * power >= least * 0.999))
    rounds = (60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200)
    return next((each for each in rounds if each >= least), 86400 * math.ceil(least / 86400))


def _tick_words(seconds: float, step: float) -> str:
    if step < 1:
        return f"{seconds:.{max(0, -math.floor(math.log10(step)))}f} s"
    return f"{seconds:.0f} s" if step < 60 else duration_words(seconds) if seconds else "0"


def _business(report: JobReport, frame: _Frame) -> str:
    """Return how busy the workers of each row were in each slice of time, in eight steps."""
    levels = np.ceil(busy_shares(report, frame.workers, frame.each) * _LEVELS - 1e-9).clip(0, _LEVELS).astype(np.uint8)
    paths: dict[int, list[str]] = {}
    wide = (WIDTH - frame.gutter) / _SLICES
    for row in range(frame.rows):
        edges = np.flatnonzero(np.diff(levels[row].astype(np.int16), prepend=-1, append=-1))
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            if level := int(levels[row, start]):
                y = row * frame.tall + frame.tall / 2
                paths.setdefault(level, []).append(f"M{frame.gutter + start * wide:g} {y:g}h{(stop - start) * wide:g}")
    look = f'class="busy" stroke-width="{frame.tall - 1}"'
    return "".join(
        f'<path {look} stroke-opacity="{level / _LEVELS:g}" d="{"".join(moves)}"/>'
        for level, moves in sorted(paths.items())
    )


def busy_shares(report: JobReport, workers: tuple[str, ...], each: int) -> NDArray[np.float64]:
    """Return the share of each slice of the job's time in which workers made attempts.

    Args:
        report: Of the job.
        workers: All of them, in the order of rows.
        each: Workers that share a row.

    Returns:
        2-d float64, a row for each row and 290 columns.
    """
    spans = report.attempts.spans()
    told = ~np.isnan(spans.began_seconds)
    places = {name: place for place, name in enumerate(workers)}
    row = np.array([places[name] for name in report.attempts.workers], dtype=np.int64)[spans.worker[told]] // each
    began = spans.began_seconds[told]
    ended = np.where(np.isnan(spans.ended_seconds), report.end_seconds, spans.ended_seconds)[told]
    edges = np.linspace(0.0, max(report.end_seconds, 1e-9), _SLICES + 1)
    rows = -(-len(workers) // each)
    shares = np.zeros((rows, _SLICES))
    order = np.argsort(row, kind="stable")
    bounds = np.searchsorted(row[order], np.arange(rows + 1))
    for number in range(rows):
        mine = order[bounds[number] : bounds[number + 1]]
        in_row = min(each, len(workers) - number * each)
        busy = _passed(began[mine], edges) - _passed(ended[mine], edges)
        shares[number] = np.diff(busy) / (np.diff(edges) * in_row)
    return shares.clip(0.0, 1.0)


def _passed(moments: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each edge the sum over all earlier moments of the time since then."""
    moments = np.sort(moments)
    sums = np.concatenate([[0.0], np.cumsum(moments)])
    before = np.searchsorted(moments, edges)
    passed: NDArray[np.float64] = before * edges - sums[before]
    return passed


def _bar(attempt: Attempt, row: int, frame: _Frame) -> str:
    ended = frame.end_seconds if attempt.ended_seconds is None else attempt.ended_seconds
    began = ended if attempt.began_seconds is None else attempt.began_seconds
    wide = max(frame.x(ended) - frame.x(began) - 0.4, 0.8)
    kind = "usual" if attempt.why == "first" else attempt.why
    parity = " even" if attempt.task.phase % 2 == 0 else ""
    end = "" if attempt.end in {"done", "running"} else " ended"
    words = html.escape(f"{task_words(attempt.task)}: {attempt_words(attempt)}")
    return (
        f'<rect class="{kind}{parity}{end}" x="{frame.x(began):.1f}" y="{row * frame.tall + 1}" width="{wide:.1f}" '
        f'height="{frame.tall - 2}"><title>{words}</title></rect>'
    )


def _labels(frame: _Frame) -> list[str]:
    parts = []
    for row in range(frame.rows):
        names = frame.workers[row * frame.each : (row + 1) * frame.each]
        words = text(names[0], 60) if len(names) == 1 else f"{text(names[0], 60)} to {text(names[-1], 60)}"
        y = row * frame.tall
        if frame.tall > _LABELLED_TALL:
            parts.append(
                f'<text class="name" x="{frame.gutter - 6}" y="{y + frame.tall - 4}">{html.escape(_short(names[0]))}'
                f"<title>{words}</title></text>"
            )
        else:
            parts.append(
                f'<rect class="hit" x="0" y="{y}" width="{frame.gutter}" height="{frame.tall}">'
                f"<title>{words}</title></rect>"
            )
    if frame.tall <= _LABELLED_TALL:
        parts.append(f'<text class="name" x="{frame.gutter - 6}" y="12">{counted(len(frame.workers), "worker")}</text>')
    return parts


def _short(name: str) -> str:
    shown = printable(name)
    return shown if len(shown) <= 18 else f"{shown[:8]}…{shown[-9:]}"
