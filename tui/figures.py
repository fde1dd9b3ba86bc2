"""What the pane of figures says: tasks, bytes, what was done again, and the time of workers (pure: no Textual)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from distsum.observe.states import QUEUED
from distsum.wording import counted, size_words

from .cells import wrapped
from .lines import BLOCKS, Line, Role, Span, clock_words, rate_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from distsum.latency import Latencies
    from distsum.observe.snapshot import PhaseProgress, Snapshot
    from distsum.observe.view import JobView

_ACCOUNT_WORDS: Final = {"waiting": "not at job"}
"""What the parts of workers' time are called, where not by their own names."""


class TaskCounts(NamedTuple):
    """Tasks of all phases: those that are done, all there are, and those of which attempts run now.

    Of those that are done, there was nothing to do for those ``before`` this run, and those ``found`` were stored
    meanwhile, as a worker saw that came to them.
    """

    done: int
    tasks: int
    running: int
    before: int
    found: int


def task_counts(phases: Sequence[PhaseProgress]) -> TaskCounts:
    """Return how many tasks of all phases there are, and how they stand."""
    unneeded = sum(phase.unneeded for phase in phases)
    done, tasks, running, reused, found = (
        sum(getattr(phase, name) for phase in phases) for name in ("done", "tasks", "running", "reused", "found")
    )
    return TaskCounts(unneeded + done, unneeded + tasks, running, unneeded + reused - found, found)


def stored_words(counts: TaskCounts) -> str:
    """Return how many of the tasks that are done took no work, and since when; nothing where all did.

    >>> stored_words(TaskCounts(9, 20, 0, before=5, found=2)), stored_words(TaskCounts(9, 20, 0, before=0, found=2))
    ('5 before this run, 2 stored when begun', '2 stored when begun')
    """
    before = f"{counts.before:,} before this run" if counts.before else ""
    found = f"{counts.found:,} stored when begun" if counts.found else ""
    return ", ".join(filter(None, (before, found)))


def io_lines(view: JobView, width: int, shared: Sequence[Line] = ()) -> list[Line]:
    """Return what goes through: tasks, bytes a second, what was done again, and what the workers' time went into.

    Args:
        view: Knows it.
        width: Columns.
        shared: What is known of the queue that the job's tasks are in with those of all others.
    """
    snapshot = view.snapshot
    counts = task_counts(snapshot.phases)
    at_end = " at its end" if snapshot.finished and counts.running else ""
    stored = stored_words(counts)
    lines: list[Line] = [
        (Span("tasks ", "dim"), Span(f"{counts.done:,}/{counts.tasks:,} done, {counts.running:,} running{at_end}")),
        *(labelled("", f"of them {stored}", width) if stored else []),
        *shared,
        *_queue_lines(view, width, shared=bool(shared)),
        _rate_line("read ", view.read_rates, snapshot, _bytes_read(snapshot), width),
        _rate_line("write", view.write_rates, snapshot, snapshot.bytes_written, width),
    ]
    again: list[Span] = [Span("again ", "dim"), Span(f"{counted(snapshot.retries, 'attempt')} at tasks")]
    if snapshot.workers_lost:
        again.append(Span(f", {counted(snapshot.workers_lost, 'worker')} lost", "bad"))
    lines.append(tuple(again))
    if view.latencies.counts:
        lines += _latency_lines(view.latencies, width)
    return lines + _account_lines(view.account, width, counts.running)


def _queue_lines(view: JobView, width: int, *, shared: bool) -> list[Line]:
    """Return which tasks of the job are in the queue again; nothing of a job that has ended."""
    snapshot = view.snapshot
    if snapshot.finished or not snapshot.phases:
        return []
    again = sum(phase.states.count(QUEUED) for phase in view.states)
    words = f"{'of this job ' if shared else ''}{again:,} queued again"
    if snapshot.returned:
        words += f", {snapshot.returned:,} redelivered"
    label = "" if shared else "queue"
    return labelled(label, words, width)


def labelled(label: str, words: str, width: int, role: Role = "plain") -> list[Line]:
    """Return words beside a label of at most five characters, folded where they are too long."""
    folded = wrapped(words, max(1, width - 6))
    return [(Span(f"{label if place == 0 else '':6}", "dim"), Span(each, role)) for place, each in enumerate(folded)]


def _account_lines(account: Mapping[str, float], width: int, running: int) -> list[Line]:
    """Return what the workers' time went into, as far as it shows.

    Discarded stands first, and the rest by size: a low pane cuts the last line, and that is to be the least of them.
    """
    spent = {kind: seconds for kind, seconds in account.items() if kind != "starting"}
    total = sum(spent.values())
    if total <= 0:
        return []
    if running and total == spent["waiting"]:
        # What attempts under way take is counted when they end: until then it would seem as if nobody did anything.
        return [(Span("time of workers: told when a task ends", "dim"),)]
    shares = {kind: round(100 * seconds / total) for kind, seconds in spent.items()}
    shown = [kind for kind in spent if (spent[kind] if kind == "discarded" else shares[kind])]
    lines: list[Line] = [(Span("time of workers", "dim"),)]
    for kind in sorted(shown, key=lambda kind: (kind != "discarded", -shares[kind])):
        bar = "▬" * round(spent[kind] / total * max(0, width - 18))
        role: Role = "warn" if kind in {"waiting", "discarded"} else "good"
        lines.append((Span(f" {_ACCOUNT_WORDS.get(kind, kind):<10} {shares[kind]:3}% "), Span(bar, role)))
    return lines


def _latency_lines(latencies: Latencies, width: int) -> list[Line]:
    """Return how long the server took to begin its answers: half of them, and all but a hundredth."""
    half, most = (_short_words(latencies.quantile_seconds(share)) for share in (0.5, 0.99))
    again = counted(latencies.retries, "request")
    first, *rest = wrapped(f"S3 p50 {half} p99 {most}, {again} again", max(4, width))
    role: Role = "warn" if latencies.retries else "plain"
    return [(Span(first[:3], "dim"), Span(first[3:], role)), *((Span(f"   {each}", role),) for each in rest)]


def _short_words(seconds: float) -> str:
    return f"{1000 * seconds:.0f}ms" if seconds < 1.0 else clock_words(seconds)


def _bytes_read(snapshot: Snapshot) -> int:
    """Return what has been read, also by attempts under way; of a job that has ended, by those that did something."""
    return snapshot.bytes_read if snapshot.finished else sum(phase.bytes_read for phase in snapshot.phases)


def _rate_line(name: str, rates: Sequence[float], snapshot: Snapshot, size: int, width: int) -> Line:
    """Return how fast bytes go through now; of a job that has ended, how fast they did on average."""
    if not snapshot.finished:
        return traced_line(name, rate_words(rates, size), rates, width)
    if not size:
        return Span(f"{name} ", "dim"), Span("   nothing")
    return traced_line(name, f"{size_words(size / max(snapshot.elapsed_seconds, 1e-3))}/s", rates, width, "mean ")


def traced_line(name: str, told: str, values: Sequence[float], width: int, what: str = "") -> Line:
    """Return a figure, what it is where that is not of now, and how it was until now."""
    trace = sparkline(values, max(0, width - 18 - len(what)))
    return Span(f"{name} ", "dim"), Span(f"{told:>10} "), Span(what, "dim"), Span(trace, "good")


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the last values as blocks, as high as their share of the largest of them.

    >>> sparkline([0, 1, 4, 8], 3)
    '▁▄█'
    """
    shown = values[-width:] if width else ()
    most = max(shown, default=0.0)
    if most <= 0:
        return BLOCKS[1] * len(shown)
    return "".join(BLOCKS[max(1, round(value / most * 8))] for value in shown)
