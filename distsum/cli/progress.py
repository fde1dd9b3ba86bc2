"""How a run is shown on stderr: lines on a terminal that change in place, or now and then a line for a log."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final, Self

from distsum.cli import streams
from distsum.wording import counted, printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from distsum.observe.snapshot import PhaseProgress, Snapshot
    from distsum.request import SkippedInput, Summary

_SHORTEST_BAR: Final = 6
_LONGEST_BAR: Final = 24
_LOG_SECONDS: Final = 10.0
_SKIPPED_SHOWN: Final = 20
_LINE_SECONDS: Final = 0.1

_Cells = tuple[str, ...]
_LEAST_WIDTHS: Final = (7, 4, 0, 15, 12, 9, 8)
"""Of the cells of a phase's line, so that the columns stand still while the numbers in them change."""
_SPARED: Final = (2, 4, 5)
"""Columns that a narrow terminal goes without, in this order: tasks, files a second, GB a second."""


def size_words(size: float) -> str:
    """Return bytes in decimal units, as disks and networks are rated, with three digits.

    >>> size_words(1_600_128_000), size_words(80_290_000), size_words(999), size_words(999_999)
    ('1.60 GB', '80.3 MB', '999 B', '1.00 MB')
    """
    unit = ""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} B" if unit == "B" else f"{_three_digits(size)} {unit}"


def _three_digits(number: float) -> str:
    return f"{number:.2f}" if number < 9.995 else f"{number:.1f}" if number < 99.95 else f"{number:,.0f}"


def time_words(seconds: float) -> str:
    """Return a time as people say it.

    >>> time_words(0.42), time_words(75), time_words(7322)
    ('0.4 s', '1 min 15 s', '2 h 02 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def phase_lines(phases: Sequence[PhaseProgress], elapsed: float, width: int | None = None) -> list[str]:
    """Return one line a phase: how far it is, its bytes and rates, and how long it took or will take.

    Args:
        phases: What to show.
        elapsed: Seconds since the job's start.
        width: Columns of the terminal: the lines are aligned, fit into it, and have a bar. None for lines of a log.
    """
    rows = [_cells(phase, elapsed) for phase in phases]
    if width is None:
        return ["  ".join(cell for cell in row if cell) for row in rows]
    places = list(range(len(_LEAST_WIDTHS)))
    widths = [max([least, *(len(row[place]) for row in rows)]) for place, least in enumerate(_LEAST_WIDTHS)]
    spared = list(_SPARED)
    while (room := width - sum(widths[place] + 2 for place in places)) < _SHORTEST_BAR and spared:
        places.remove(spared.pop(0))
    bar = max(0, min(_LONGEST_BAR, room))
    lines = []
    for phase, row in zip(phases, rows, strict=True):
        filled = int(_share(phase) * bar)
        cells = [row[place].rjust(widths[place]) for place in places]
        cells[0] = row[0].ljust(widths[0])
        cells[-1] = row[-1]
        lines.append("  ".join([cells[0], "█" * filled + "░" * (bar - filled), *cells[1:]]).rstrip()[:width])
    return lines


def _share(phase: PhaseProgress) -> float:
    if phase.done >= phase.tasks:
        return 1.0
    by_bytes = phase.bytes_read / phase.bytes_total if phase.bytes_total else 0.0
    return max(phase.done / phase.tasks, min(1.0, by_bytes))


def _cells(phase: PhaseProgress, elapsed: float) -> _Cells:
    share = _share(phase)
    # Never 100 % before it is so.
    cells = [f"phase {phase.phase}", f"{int(share * 100):3}%", f"{phase.done:,}/{phase.tasks:,} tasks"]
    if phase.finished_seconds is not None:
        cells.append(size_words(phase.bytes_read))
    else:
        done, total = size_words(phase.bytes_read), size_words(phase.bytes_total)
        number, unit = done.split()
        cells.append(f"{number if total.endswith(' ' + unit) else done} of {total}")
    if phase.started_seconds is None:
        return (*cells, "", "", "")
    end = phase.finished_seconds if phase.finished_seconds is not None else elapsed
    seconds = max(end - phase.started_seconds, 1e-3)
    rate = phase.bytes_read / seconds
    cells += [f"{phase.files_read / seconds:,.0f} files/s", f"{rate / 1e9:.2f} GB/s"]
    if phase.finished_seconds is not None:
        return (*cells, time_words(seconds))
    return (*cells, f"ETA {_eta_words(max(0, phase.bytes_total - phase.bytes_read) / rate)}" if rate else "")


def _eta_words(seconds: float) -> str:
    """Return a time that is only an estimate, in one unit."""
    for unit, size, most in (("s", 1, 99.5), ("min", 60, 99.5)):
        if seconds / size < most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:,.0f} h"


def worker_line(snapshot: Snapshot) -> str:
    """Return what is to be said of a job's workers."""
    words = [counted(snapshot.workers, "worker")]
    if snapshot.workers_lost:
        words.append(f"{snapshot.workers_lost:,} lost")
    if snapshot.retries:
        words.append(f"{counted(snapshot.retries, 'attempt')} repeated")
    return ", ".join(words)


def summary_lines(summary: Summary) -> list[str]:
    """Return what a finished job is summed up in."""
    files = summary.files - len(summary.skipped)
    plan = summary.plan
    rate = summary.bytes_read / max(summary.seconds, 1e-3) / 1e9
    lines = [
        f"{summary.reduction} of {counted(files, 'file')} of {counted(summary.count, 'number')}",
        f"written to {printable(summary.output)}",
        f"{size_words(summary.bytes_read)} read in {time_words(summary.seconds)} ({rate:.2f} GB/s) by "
        f"{counted(summary.workers, 'worker')}",
        f"P = {plan.partition:,}, {counted(plan.tiles, 'tile')}, {counted(plan.phases, 'phase')}, "
        f"{counted(summary.tasks, 'task')}",
    ]
    if summary.tasks_reused:
        lines.append(f"{counted(summary.tasks_reused, 'task')} had been stored by an earlier run")
    if summary.retries:
        lines.append(f"{counted(summary.retries, 'attempt')} repeated")
    if summary.workers_lost:
        lines.append(f"{counted(summary.workers_lost, 'worker')} lost and replaced")
    return lines + skipped_lines(summary.skipped, summary.files)


def skipped_lines(skipped: Sequence[SkippedInput], files: int) -> list[str]:
    """Return which inputs of how many were left out, and why."""
    if not skipped:
        return []
    lines = [f"left out {counted(len(skipped), 'bad input')} of {files:,}:"]
    lines += [f"  {each.uri}: {each.reason}" for each in skipped[:_SKIPPED_SHOWN]]
    if len(skipped) > _SKIPPED_SHOWN:
        lines.append(f"  and {len(skipped) - _SKIPPED_SHOWN:,} more, all in the output of --json")
    return lines


def on_terminal(*, quiet: bool) -> bool:
    """Whether lines on stderr can be changed in place, and are wanted."""
    return not quiet and sys.stderr.isatty() and os.environ.get("TERM") not in {None, "", "dumb"}


class Progress:
    """Shows snapshots as they come; a context manager, so that the terminal is left in order.

    On a terminal the lines change in place, by rich, which is imported then only. Elsewhere a phase is a line when it
    ends, and every ten seconds there is one.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._live: Any = None
        self._told = 0
        self._phases_told: set[int] = set()
        self._next_line = _LOG_SECONDS
        self._last: Snapshot | None = None
        self._on_terminal = on_terminal(quiet=quiet)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None and self._last is not None:
            # What stays on the screen is how far each phase came, and not what was true of a moment.
            self._update(phase_lines(self._last.phases, self._last.elapsed_seconds, self._live.console.width))
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Draw one snapshot."""
        if self._quiet or not snapshot.phases:
            return
        if self._on_terminal:
            self._draw(snapshot)
        else:
            self._log(snapshot)

    def _draw(self, snapshot: Snapshot) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        if self._live is None:
            self._live = Live(console=Console(stderr=True, highlight=False), auto_refresh=False)
            self._live.start()
        self._last = snapshot
        for note in self._new_notes(snapshot):
            self._live.console.print(Text(note))
        lines = phase_lines(snapshot.phases, snapshot.elapsed_seconds, self._live.console.width)
        self._update([*lines, worker_line(snapshot)])

    def _update(self, lines: list[str]) -> None:
        from rich.text import Text

        self._live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)

    def _log(self, snapshot: Snapshot) -> None:
        lines = self._new_notes(snapshot)
        for phase in snapshot.phases:
            if phase.finished_seconds is not None and phase.phase not in self._phases_told:
                self._phases_told.add(phase.phase)
                lines += phase_lines([phase], snapshot.elapsed_seconds)
        if snapshot.elapsed_seconds >= self._next_line and not snapshot.finished:
            self._next_line = snapshot.elapsed_seconds + _LOG_SECONDS
            under_way = [phase for phase in snapshot.phases if phase.running]
            lines += phase_lines(under_way, snapshot.elapsed_seconds)
        for line in lines:
            streams.say(line)

    def _new_notes(self, snapshot: Snapshot) -> list[str]:
        new = snapshot.notes_total - self._told
        self._told = snapshot.notes_total
        return [printable(note, 1000) for note in snapshot.notes[len(snapshot.notes) - new :]] if new else []


class Line:
    """One line on a terminal that changes in place, and is gone at the end; a context manager.

    Args:
        shown: False for a line that is never shown.
    """

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def show(self, text: str, now: float) -> None:
        """Show a text, unless the last one is only a moment old.

        Args:
            text: Short enough for any terminal.
            now: Seconds by any clock.
        """
        if self._shown and now >= self._next:
            self._next = now + _LINE_SECONDS
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
