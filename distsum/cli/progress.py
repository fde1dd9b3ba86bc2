"""How a run is shown on stderr: lines on a terminal that change in place, or now and then a line for a log."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final, Self

from distsum.cli import streams
from distsum.observe.ledger import totals_words
from distsum.wording import counted, digits, printable, size_unit, size_words, time_words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from distsum.observe.snapshot import PhaseProgress, Snapshot
    from distsum.request import SkippedInput, Summary

_BAR: Final = 6
_HEADINGS: Final = ("", "", "tasks", "read", "files/s", "rate", "ETA")
_WIDTHS: Final = (-8, 11, 11, 12, 7, 9, 9)
"""Columns on a terminal, negative where the text stands on the left: what the largest numbers take, within 80."""
_SPARED: Final = (4, 2, 5)
"""Columns that a narrow terminal goes without, in this order: files a second, tasks, the rate."""
_LOG_SECONDS: Final = 10.0
_LINE_SECONDS: Final = 0.1
_SKIPPED_SHOWN: Final = 20
_UNKNOWN: Final = "-"


def count_words(count: float) -> str:
    """Return a number of things in at most 5 characters up to 999 millions.

    >>> [count_words(count) for count in (0, 7, 9999, 12_345, 999_950, 1e7)]
    ['0', '7', '9,999', '12.3k', '1.00M', '10.0M']
    """
    if round(count) < 10_000:
        return f"{count:,.0f}"
    unit, factor = next(each for each in _COUNT_UNITS if count / each[1] < 999.5 or each == _COUNT_UNITS[-1])
    return f"{digits(count / factor)}{unit}"


def short_time_words(seconds: float) -> str:
    """Return a time in at most 6 characters, exact enough for what is only an estimate.

    >>> [short_time_words(seconds) for seconds in (0.42, 9.96, 99.4, 99.6, 3560, 7322, 200_000, 1e12)]
    ['0.4 s', '10 s', '99 s', '2 min', '59 min', '2.0 h', '2.3 d', '>999 d']
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if round(seconds) < 100:
        return f"{seconds:.0f} s"
    for unit, factor, most in (("min", 60, 59.5), ("h", 3600, 47.95), ("d", 86_400, 999.5)):
        if (amount := seconds / factor) < most:
            return f"{amount:.1f} {unit}" if unit != "min" and amount < 99.95 else f"{amount:.0f} {unit}"
    return ">999 d"


def phase_line(phase: PhaseProgress, elapsed: float) -> str:
    """Return one phase in one line for a log, of at most 80 characters: tasks, bytes, rates, and the time left."""
    tasks, read, files, rate, left = _cells(phase, elapsed)
    if phase.finished_seconds is None:
        left = f"ETA {left}"
    return f"phase {phase.phase}  {tasks} task{'s' * (phase.tasks != 1)}  {read}  {files} files/s  {rate}  {left}"


def snapshot_lines(snapshot: Snapshot, width: int = 80) -> list[str]:
    """Return a job's lines for a terminal: a table of phases, and the workers.

    Args:
        snapshot: What to show.
        width: Columns of the terminal; with less than 80 it goes without some columns of the table.
    """
    places = list(range(len(_WIDTHS)))
    for spared in _SPARED:
        if sum(abs(_WIDTHS[place]) + 2 for place in places) - 2 > width:
            places.remove(spared)
    rows = [_HEADINGS]
    for phase in snapshot.phases:
        share = _share(phase)
        filled = int(share * _BAR)
        bar = f"{'█' * filled}{'░' * (_BAR - filled)} {int(share * 100):3}%"
        rows.append((f"phase {phase.phase}", bar, *_cells(phase, snapshot.elapsed_seconds)))
    lines = ["  ".join(_padded(row[place], _WIDTHS[place]) for place in places).rstrip() for row in rows]
    unusual = []
    if snapshot.workers_lost:
        unusual.append(f"{snapshot.workers_lost:,} lost")
    if snapshot.retries:
        unusual.append(f"{counted(snapshot.retries, 'attempt')} repeated")
    if snapshot.backups.started:
        unusual.append(counted(snapshot.backups.started, "backup"))
    lines.append(", ".join([counted(snapshot.workers, "worker"), *unusual]))
    return lines


def _cells(phase: PhaseProgress, elapsed: float) -> tuple[str, str, str, str, str]:
    """Return a phase's tasks, bytes, files a second, bytes a second, and the time that is left or that it took.

    What an earlier run, or an earlier master, has stored counts as done, and as read while the phase is under way, as
    on the screen; rates, and what a finished phase has read, are of this run.
    """
    finished = phase.finished_seconds is not None
    done, all_tasks = (phase.unneeded + count for count in (phase.done, phase.tasks))
    tasks = count_words(all_tasks) if finished else f"{count_words(done)}/{count_words(all_tasks)}"
    read = size_words(phase.bytes_read)
    if not finished:
        sizes = [phase.bytes_before + size for size in (phase.bytes_done, phase.bytes_total)]
        unit, factor = size_unit(sizes[1])
        read = "/".join(f"{digits(size / factor)}" for size in sizes) + f" {unit}"
    if phase.started_seconds is None:
        return tasks, read, _UNKNOWN, _UNKNOWN, _UNKNOWN
    end = elapsed if phase.finished_seconds is None else phase.finished_seconds
    seconds = max(end - phase.started_seconds, 1e-3)
    rate = phase.bytes_read / seconds
    # Tiles and running attempts read parts of files, so bytes tell how many whole files that comes to.
    files = phase.files_total * phase.bytes_done / phase.bytes_total / seconds if phase.bytes_total else 0.0
    left = _UNKNOWN
    if finished:
        left = f"in {short_time_words(seconds)}"
    elif phase.bytes_settled:
        left = short_time_words(phase.bytes_left / phase.bytes_settled * seconds)
    return tasks, read, count_words(files) if files >= 9.95 else f"{files:.1f}", f"{size_words(rate)}/s", left


def _share(phase: PhaseProgress) -> float:
    """Return what part of a phase is done; by bytes, so that a phase of a few long tasks moves, too."""
    if phase.done >= phase.tasks:
        return 1.0
    under_way = phase.bytes_done / phase.bytes_total if phase.bytes_total else 0.0
    todo = phase.tasks - phase.reused
    done = phase.unneeded + max(phase.done, phase.reused + todo * under_way)
    return min(0.99, done / (phase.unneeded + phase.tasks))


_COUNT_UNITS: Final = (("k", 10**3), ("M", 10**6), ("G", 10**9))


def _padded(text: str, width: int) -> str:
    return text.ljust(-width) if width < 0 else text.rjust(width)


def summary_lines(summary: Summary) -> list[str]:
    """Return what a finished job is summed up in."""
    files = summary.files - len(summary.skipped)
    plan = summary.plan
    rate = size_words(summary.bytes_read / max(summary.seconds, 1e-3))
    numbers = f"{counted(files, 'file')} of {counted(summary.count, 'number')}"
    lines = [
        f"{summary.reduction} of {numbers}",
        f"written to {printable(summary.output)}",
        f"{size_words(summary.bytes_read)} read in {time_words(summary.seconds)} ({rate}/s) by "
        f"{counted(summary.workers, 'worker')}",
        f"P = {plan.partition:,}, {counted(plan.tiles, 'tile')}, {counted(plan.phases, 'phase')}, "
        f"{counted(summary.tasks, 'task')}",
    ]
    if summary.tasks_reused:
        lines.append(f"stored already: {counted(summary.tasks_reused, 'task')}")
    if summary.retries:
        lines.append(f"repeated: {counted(summary.retries, 'attempt')}")
    if summary.backups.started:
        lines += totals_words(summary.backups, summary.bytes_read).split("; ", 1)
    if summary.workers_lost:
        lines.append(f"lost: {counted(summary.workers_lost, 'worker')}")
    if (busy := summary.busy_share) is not None:
        lines.append(f"workers were busy with this job for {busy:.0%} of their time")
    return lines + skipped_lines(summary.skipped, summary.files)


def skipped_lines(skipped: Sequence[SkippedInput], files: int) -> list[str]:
    """Return which inputs of how many were left out, and why."""
    if not skipped:
        return []
    lines = [f"left out {counted(len(skipped), 'bad input')} of {files:,}:"]
    lines += [f"  {printable(each.uri, 1000)}: {printable(each.reason, 1000)}" for each in skipped[:_SKIPPED_SHOWN]]
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
        self._on_terminal = on_terminal(quiet=quiet)
        self._last: Snapshot | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None and self._last is not None:
            # What stays on the screen is how far each phase came, and not how many workers there were in the end.
            self._update(snapshot_lines(self._last, self._live.console.width)[:-1])
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

        self._last = snapshot
        if self._live is None:
            self._live = Live(console=Console(stderr=True, highlight=False), auto_refresh=False)
            self._live.start()
        for note in self._new_notes(snapshot):
            self._live.console.print(Text(note))
        self._update(snapshot_lines(snapshot, self._live.console.width))

    def _update(self, lines: list[str]) -> None:
        from rich.text import Text

        self._live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)

    def _log(self, snapshot: Snapshot) -> None:
        lines = self._new_notes(snapshot)
        for phase in snapshot.phases:
            if phase.finished_seconds is not None and phase.phase not in self._phases_told:
                self._phases_told.add(phase.phase)
                lines.append(phase_line(phase, snapshot.elapsed_seconds))
        if snapshot.elapsed_seconds >= self._next_line and not snapshot.finished:
            self._next_line = snapshot.elapsed_seconds + _LOG_SECONDS
            under_way = [phase for phase in snapshot.phases if phase.running]
            lines += [phase_line(phase, snapshot.elapsed_seconds) for phase in under_way]
            if not under_way:
                lines.append(f"no task is under way; {snapshot_lines(snapshot)[-1]}")
        for line in lines:
            streams.say(line)

    def _new_notes(self, snapshot: Snapshot) -> list[str]:
        new = snapshot.notes_total - self._told
        self._told = snapshot.notes_total
        shown = min(new, len(snapshot.notes))
        lines = [printable(note, 1000) for note in snapshot.notes[len(snapshot.notes) - shown :]]
        return [f"{counted(new - shown, 'earlier note')} left out", *lines] if new > shown else lines


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
