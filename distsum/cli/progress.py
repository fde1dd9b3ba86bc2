"""How a run is shown on stderr: lines on a terminal that change in place, or now and then a line for a log."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final, Self

from distsum.wording import printable

if TYPE_CHECKING:
    from types import TracebackType

    from distsum.observe.snapshot import PhaseProgress, Snapshot
    from distsum.request import Summary

_BAR: Final = 24
_LOG_SECONDS: Final = 10.0
_SKIPPED_SHOWN: Final = 20


def size_words(size: float) -> str:
    """Return bytes in decimal units, as disks and networks are rated.

    >>> size_words(1_600_128_000), size_words(999)
    ('1.60 GB', '999 B')
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}" if size >= 100 else f"{size:.2f} {unit}"


def time_words(seconds: float) -> str:
    """Return a time as people say it.

    >>> time_words(0.42), time_words(75), time_words(7322)
    ('0.4 s', '1 min 15 s', '2 h 02 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def phase_line(phase: PhaseProgress, elapsed: float) -> str:
    """Return one phase in one line: a bar, tasks, bytes, rates and what is left."""
    share = phase.done / phase.tasks if phase.tasks else 1.0
    if phase.bytes_total:
        share = max(share, min(1.0, phase.bytes_read / phase.bytes_total)) if phase.done < phase.tasks else 1.0
    filled = int(share * _BAR)
    parts = [
        f"phase {phase.phase}  {'█' * filled}{'░' * (_BAR - filled)} {share:4.0%}",
        f"{phase.done:,}/{phase.tasks:,} tasks",
        f"{size_words(phase.bytes_read)} of {size_words(phase.bytes_total)}",
    ]
    if phase.started_seconds is not None:
        end = phase.finished_seconds if phase.finished_seconds is not None else elapsed
        seconds = max(end - phase.started_seconds, 1e-3)
        rate = phase.bytes_read / seconds
        what = "files" if phase.phase == 1 else "partials"
        parts.append(f"{phase.files_read / seconds:,.0f} {what}/s")
        parts.append(f"{rate / 1e9:.2f} GB/s")
        if phase.finished_seconds is not None:
            parts.append(time_words(seconds))
        elif rate > 0:
            parts.append(f"ETA {time_words(max(0, phase.bytes_total - phase.bytes_read) / rate)}")
    return "  ".join(parts)


def snapshot_lines(snapshot: Snapshot) -> list[str]:
    """Return a job's lines: one a phase, and what is unusual about its workers."""
    lines = [phase_line(phase, snapshot.elapsed_seconds) for phase in snapshot.phases]
    unusual = []
    if snapshot.workers_lost:
        unusual.append(f"{snapshot.workers_lost} lost")
    if snapshot.retries:
        unusual.append(f"{snapshot.retries} attempts repeated")
    workers = f"{snapshot.workers} worker{'s' * (snapshot.workers != 1)}"
    lines.append(", ".join([workers, *unusual]))
    return lines


def summary_lines(summary: Summary) -> list[str]:
    """Return what a finished job is summed up in."""
    files = summary.files - len(summary.skipped)
    plan = summary.plan
    rate = summary.bytes_read / max(summary.seconds, 1e-3) / 1e9
    plural = {
        "tile": "s" * (plan.tiles != 1),
        "phase": "s" * (plan.phases != 1),
        "worker": "s" * (summary.workers != 1),
    }
    lines = [
        f"{summary.reduction} of {files:,} files of {summary.count:,} numbers written to {printable(summary.output)}",
        f"{size_words(summary.bytes_read)} read in {time_words(summary.seconds)} "
        f"({rate:.2f} GB/s) by {summary.workers} worker{plural['worker']}; "
        f"P = {plan.partition}, {plan.tiles} tile{plural['tile']}, {plan.phases} phase{plural['phase']}, "
        f"{summary.tasks:,} tasks",
    ]
    unusual = []
    if summary.tasks_reused:
        unusual.append(f"{summary.tasks_reused:,} tasks were stored already")
    if summary.retries:
        unusual.append(f"{summary.retries:,} attempts were repeated")
    if summary.workers_lost:
        unusual.append(f"{summary.workers_lost:,} workers were lost")
    if unusual:
        lines.append("; ".join(unusual))
    if summary.skipped:
        lines.append(f"left out {len(summary.skipped):,} bad inputs of {summary.files:,}:")
        lines += [f"  {each.uri}: {each.reason}" for each in summary.skipped[:_SKIPPED_SHOWN]]
        if len(summary.skipped) > _SKIPPED_SHOWN:
            lines.append(f"  and {len(summary.skipped) - _SKIPPED_SHOWN:,} more, all in the output of --json")
    return lines


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
        terminal = sys.stderr.isatty() and os.environ.get("TERM") not in {None, "", "dumb"}
        self._on_terminal = terminal and not quiet

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
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
        for note in self._new_notes(snapshot):
            self._live.console.print(Text(note))
        text = Text("\n".join(snapshot_lines(snapshot)), no_wrap=True, overflow="ellipsis")
        self._live.update(text, refresh=True)

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
        for line in lines:
            print(line, file=sys.stderr, flush=True)

    def _new_notes(self, snapshot: Snapshot) -> list[str]:
        new = snapshot.notes_total - self._told
        self._told = snapshot.notes_total
        return [printable(note, 1000) for note in snapshot.notes[len(snapshot.notes) - new :]] if new else []
