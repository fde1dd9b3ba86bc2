"""What the lists of a service say of its jobs, workers and queues (pure: no Textual, no clock)."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Final, Literal

from distsum.brokers.topology import DEAD, REFUSED, REQUESTS, RESULTS, TASKS, VIEWS
from distsum.observe.ledger import task_words
from distsum.observe.workers import GONE, SILENT_SECONDS
from distsum.service.messages import ENDED, JobState
from distsum.wording import counted, printable, size_words

from .cells import fitted
from .figures import labelled, stored_words, task_counts, traced_line
from .lines import SLOW, Line, Role, Span, clock_words, has_begun, share_read, usual_rate
from .table_lines import Cell, Column, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from distsum.observe.workers import WorkerState, WorkerStatus
    from distsum.service.messages import JobStatus, Queue, Queues
    from distsum.service.view import FleetStatus, ServiceView

_Stand = JobState | Literal["waiting"]
"""How a job stands: ``waiting`` is one under way of which no worker has begun a task yet."""
_JOB_SIGNS: Final[dict[_Stand, tuple[str, Role]]] = {
    "queued": ("·", "dim"),
    "waiting": ("·", "dim"),
    "running": ("▶", "strong"),
    "finishing": ("▶", "strong"),
    "succeeded": ("✓", "good"),
    "failed": ("!", "bad"),
    "cancelled": ("✗", "warn"),
}
_STATE_ORDER: Final = ("running", "finishing", "waiting", "queued", "failed", "cancelled", "succeeded")
JOB_COLUMNS: Final = (
    Column("state", 11),
    Column("job", 12),
    Column("what", 17, rank=3, grows=2),
    Column("done", 12, rank=1, grows=1),
    Column("left or ended", 14, rank=2, right=True),
    Column("prio", 5, rank=4, right=True),
    Column("result", 18, rank=5, grows=3),
)
_WORKER_SIGNS: Final[dict[WorkerState, tuple[str, Role]]] = {
    "idle": ("·", "dim"),
    "busy": ("▶", "good"),
    "paused": ("‖", "warn"),
    "quarantined": ("!", "warn"),
    "left": ("-", "dim"),
    "lost": ("!", "bad"),
    "refused": ("✗", "bad"),
}
_WORKER_ORDER: Final = ("quarantined", "paused", "busy", "idle", "refused", "lost", "left")
WORKER_COLUMNS: Final = (
    Column("state", 13),
    Column("worker", 12, grows=1, middle=True),
    Column("host", 10, rank=4, grows=1, middle=True),
    Column("there", 5, rank=7, right=True),
    Column("task", 26, rank=3, grows=2),
    Column("tasks", 5, rank=5, right=True),
    Column("failed", 6, rank=8, right=True),
    Column("rate", 10, rank=1, right=True),
    Column("memory", 8, rank=6, right=True),
    Column("version", 9, rank=9),
    Column("heard", 6, rank=2, right=True),
)
QUEUE_COLUMNS: Final = (
    Column("queue", 20, grows=1),
    Column("ready", 8, right=True),
    Column("the last minute", 16, rank=1, grows=2, right=True),
    Column("unacked", 8, rank=2, right=True),
    Column("redelivered", 11, rank=4, right=True),
    Column("consumers", 9, rank=3, right=True),
)
_QUEUE_WORDS: Final = {
    TASKS: "tasks that no worker has yet; unacked ones are being done",
    RESULTS: "what workers have said, and the master has not read yet",
    DEAD: "tasks that took their workers down as often as is allowed; the master fails their jobs",
    REQUESTS: "what clients have asked, and the master has not answered yet",
    VIEWS: "what those have asked who only look",
    REFUSED: "messages that were none of distsum's, or damaged, kept for people; RabbitMQ's page shows why",
}
TRACE_SECONDS: Final = 60


# Jobs -----------------------------------------------------------------------------------------------------------------


def share_of(status: JobStatus) -> float:
    """Return what part of a job is done, from 0 to 1, as its own screen has it; 1 only of one that has succeeded."""
    if status.state == "succeeded":
        return 1.0
    return share_read(status.snapshot.phases) if status.snapshot is not None else 0.0


def seconds_left(status: JobStatus) -> float | None:
    """Return how long a job will take still, at its mean rate since its first task; None where that cannot be told."""
    snapshot = status.snapshot
    if status.state != "running" or snapshot is None or not snapshot.phases:
        return None
    began = snapshot.phases[0].started_seconds
    settled = sum(phase.bytes_settled for phase in snapshot.phases)
    left = sum(phase.bytes_left for phase in snapshot.phases)
    if began is None or settled <= 0 or snapshot.elapsed_seconds <= began:
        return None
    return left * (snapshot.elapsed_seconds - began) / settled


def job_rows(jobs: Sequence[JobStatus], now: float) -> list[Row]:
    """Return the jobs, those first that are under way, as they come; then the others, the last that ended first.

    Args:
        jobs: As ``ServiceView`` has them.
        now: In seconds of the Unix epoch.
    """
    under_way = [each for each in jobs if each.state not in ENDED]
    ended = sorted((each for each in jobs if each.state in ENDED), key=lambda each: -(each.ended_seconds or 0.0))
    under_way.sort(key=lambda each: _STATE_ORDER.index(_stand(each)))
    return [_job_row(each, now) for each in (*under_way, *ended)]


def _stand(status: JobStatus) -> _Stand:
    snapshot = status.snapshot
    waits = status.state == "running" and snapshot is not None and snapshot.phases and not has_begun(snapshot.phases)
    return "waiting" if waits else status.state


def _job_row(status: JobStatus, now: float) -> Row:
    stand = _stand(status)
    sign, role = _JOB_SIGNS[stand]
    share = share_of(status)
    untold = status.state in {"failed", "cancelled"}
    return Row(
        status.job,
        (
            Cell(f"{sign} {stand}", _STATE_ORDER.index(stand), role),
            Cell(printable(status.job, 80)),
            Cell(_what(status)),
            Cell("-", share, "dim") if untold else Cell(f"{int(share * 100):3}%", share, share=share),
            _when(status, now),
            Cell(f"{status.priority:,}", status.priority, "strong" if status.priority else "dim"),
            Cell(printable(status.output)),
        ),
        job_details(status, now),
    )


def _what(status: JobStatus) -> str:
    return f"{printable(status.reduction, 20)} of {counted(status.files, 'file')}"


def _when(status: JobStatus, now: float) -> Cell:
    if status.ended_seconds is not None:
        ago = max(0.0, now - status.ended_seconds)
        return Cell(f"{clock_words(ago)} ago", 1e15 + ago, "dim")
    left = seconds_left(status)
    if left is None:
        return Cell("finishing" if status.state == "finishing" else "-", 1e14, "dim")
    return Cell(f"about {clock_words(left)}", left)


def job_words(status: JobStatus) -> str:
    """Return which job it is, for a question or an answer."""
    return f"job {printable(status.job, 80)} ({_what(status)} to {printable(status.output, 200)})"


def job_details(status: JobStatus, now: float) -> tuple[str, ...]:
    """Return what else there is to be said of a job, in lines."""
    came = f"came {_moment(status.submitted_seconds)}, {clock_words(max(0.0, now - status.submitted_seconds))} ago"
    first = f"{job_words(status)}; {came}"
    snapshot = status.snapshot
    if status.state == "failed":
        return f"! {printable(status.reason or 'it is not told why', 2000)}", first
    if status.summary is not None:
        summary = status.summary
        read = f"{size_words(summary.bytes_read)} read in {clock_words(summary.seconds)}"
        lost = f" and {summary.workers_lost:,} that {'was' if summary.workers_lost == 1 else 'were'} lost"
        by = f"{counted(summary.workers, 'worker')}{lost if summary.workers_lost else ''}"
        return f"{read} by {by}; ended {_moment(status.ended_seconds or 0.0)}", first
    if status.ended_seconds is not None:
        reason = f": {printable(status.reason, 2000)}" if status.reason else ""
        return f"{status.state} {_moment(status.ended_seconds)}{reason}", first
    if snapshot is None or status.state == "queued":
        return "waits for jobs of a higher priority, or that came before it", first
    counts = task_counts(snapshot.phases)
    done = f"{counts.done:,} of {counted(counts.tasks, 'task')} done"
    if _stand(status) == "waiting":
        why = "no worker has been free for it yet" if snapshot.workers else "there is no worker"
        return f"{done}, and none has begun: {why}", first
    words = f"{done}, {counts.running:,} running on {counted(snapshot.workers, 'worker')}"
    if stored := stored_words(counts):
        words += f"; of them {stored}"
    if snapshot.retries:
        words += f"; {counted(snapshot.retries, 'attempt')} repeated"
    if snapshot.backups.started:
        words += f"; {counted(snapshot.backups.started, 'backup')}"
    return words, first


def _moment(epoch_seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch_seconds))


def state_counts(states: Iterable[str], order: Sequence[str]) -> str:
    """Return how many there are in each state.

    >>> state_counts(["busy", "idle", "busy"], ("busy", "idle", "lost"))
    '2 busy, 1 idle'
    """
    counts = Counter(states)
    return ", ".join(f"{counts[state]:,} {state}" for state in order if counts[state])


def overview_line(view: ServiceView | None, now: float, width: int) -> Line:
    """Return who serves, and what there is, in a line."""
    if view is None:
        return (Span(fitted("distsum ▸ waiting for the master's first word", width), "dim"),)
    master = view.master
    stands = (_stand(each) for each in view.jobs if each.state not in ENDED)
    jobs = state_counts(stands, _STATE_ORDER) or "no job under way"
    there = [each for each in view.workers if each.state not in GONE]
    workers = counted(len(there), "worker") if there else "no worker"
    if hosts := len({each.host for each in there}):
        workers += f" on {counted(hosts, 'host')}"
    up = clock_words(max(0.0, now - master.began_seconds))
    where = f"distsum {printable(master.version, 20)} on {printable(master.host, 60)}, up {up}"
    where += f", work in {printable(master.work)}"
    left = f"distsum ▸ {jobs} · {workers}"
    if len(left) >= width - 8:
        return (Span(fitted(left, width), "strong"),)
    return Span(left, "strong"), Span(fitted(f" · {where}", width - len(left)), "dim")


# Workers --------------------------------------------------------------------------------------------------------------


def worker_rows(workers: Sequence[WorkerStatus], now: float) -> list[Row]:
    """Return the workers: those first that want a look, then by name, and those last that are gone."""
    on_host = Counter(each.host for each in workers if each.state not in GONE)
    looked = {"quarantined": 0, "paused": 0} | dict.fromkeys(GONE, 2)

    def key(each: WorkerStatus) -> tuple[int, float, str]:
        rank = 0 if is_silent(each, now) else looked.get(each.state, 1)
        return rank, -each.heard_seconds if rank == 2 else 0.0, each.worker

    usual = usual_rate(workers)
    return [_worker_row(each, on_host[each.host], usual, now) for each in sorted(workers, key=key)]


def is_silent(each: WorkerStatus, now: float) -> bool:
    """Whether a worker that is not gone has said nothing for longer than is usual."""
    return each.state not in GONE and now - each.heard_seconds > SILENT_SECONDS


def _worker_row(each: WorkerStatus, on_host: int, usual: float, now: float) -> Row:
    sign, role = _WORKER_SIGNS[each.state]
    heard = max(0.0, now - each.heard_seconds)
    silent = is_silent(each, now)
    slow = each.state not in GONE and 0.0 < each.bytes_per_second < SLOW * usual
    rate = f"{'!' if slow else ''}{size_words(each.bytes_per_second)}/s" if each.bytes_per_second else "-"
    if silent:
        sign, role = "!", "bad"
    task = f"{printable(each.task.job, 12)} {task_words(each.task)}" if each.task is not None else ""
    return Row(
        each.worker,
        (
            Cell(f"{sign} {each.state}", _WORKER_ORDER.index(each.state), role),
            Cell(printable(each.worker, 80)),
            Cell(printable(each.host, 80)),
            Cell(f"{on_host:,}" if on_host else "-", on_host, "dim"),
            Cell(task),
            Cell(f"{each.tasks:,}", each.tasks),
            Cell(f"{each.failures:,}", each.failures, "bad" if each.failures else "dim"),
            Cell(rate, each.bytes_per_second, "warn" if slow else "plain"),
            Cell(size_words(each.resident_bytes), each.resident_bytes),
            Cell(printable(each.version, 40), each.version, "dim"),
            Cell(clock_words(heard), heard, "bad" if silent else "dim"),
        ),
        _worker_details(each, on_host, usual, now),
    )


def _worker_details(each: WorkerStatus, on_host: int, usual: float, now: float) -> tuple[str, ...]:
    first = f"{printable(each.worker, 80)}: process {each.pid} on {printable(each.host, 80)}"
    if each.version:
        first += f", distsum {printable(each.version, 40)}"
    if each.state not in GONE:
        there = f"one of {on_host:,} workers there" if on_host > 1 else "the only worker there"
        first += f", {there}; known for {clock_words(max(0.0, now - each.joined_seconds))}"
    read = "no task done yet"
    if each.tasks:
        read = f"{size_words(each.bytes_read)} read; a task took {size_words(each.peak_bytes)} at most"
        read += f"; it waited for bytes {each.reading_share:.0%} of its time"
        if usual and each.bytes_per_second:
            read += f"; {each.bytes_per_second / usual:.2f}x the median rate"
    if each.reason:
        return f"{each.state}: {printable(each.reason, 2000)}", first
    if is_silent(each, now):
        return f"! nothing was heard of it for {clock_words(now - each.heard_seconds)}, as if it was frozen", first
    return first, read


def workers_there(workers: Sequence[WorkerStatus]) -> int:
    """Return how many workers are not gone."""
    return sum(each.state not in GONE for each in workers)


def fleet_words(fleet: FleetStatus | None) -> str:
    """Return how many workers a master's fleet is to have; nothing of a master without one."""
    if fleet is None:
        return ""
    if not fleet.held:
        return "the master's fleet is not held; its log says why"
    return "its fleet is looked at" if fleet.wanted is None else f"{fleet.wanted:,} asked of the fleet"


# Queues ---------------------------------------------------------------------------------------------------------------


class QueueTraces:
    """How many messages were ready in each queue, once a second for the last minute."""

    def __init__(self) -> None:
        self._traces: dict[str, deque[float]] = {}
        self._second: int | None = None

    def take(self, queues: Queues | None, now: float) -> None:
        """Note what is ready, unless that was done in this second; ``now`` is in seconds of any clock."""
        if queues is None or int(now) == self._second:
            return
        self._second = int(now)
        for queue in queues.queues:
            self._traces.setdefault(queue.name, deque(maxlen=TRACE_SECONDS)).append(float(queue.ready))

    def of(self, name: str) -> tuple[float, ...]:
        """Return those of a queue, oldest first."""
        return tuple(self._traces.get(name, ()))


def queue_rows(queues: Queues, traces: QueueTraces) -> list[Row]:
    """Return the queues, in the order in which the master tells them."""
    return [_queue_row(each, traces.of(each.name)) for each in queues.queues]


def _queue_row(queue: Queue, trace: tuple[float, ...]) -> Row:
    bad = queue.name in {DEAD, REFUSED} and queue.ready > 0
    unattended = queue.ready > 0 and queue.consumers == 0 and queue.name != REFUSED
    role: Role = "bad" if bad else "plain"
    return Row(
        queue.name,
        (
            Cell(f"{'! ' if bad else ''}{printable(queue.name, 80)}", queue.name, role),
            Cell(f"{queue.ready:,}", queue.ready, "bad" if bad else "strong" if queue.ready else "dim"),
            Cell("", trace[-1] if trace else 0.0, "bad" if bad else "good", trace=trace),
            _figure(queue.unacknowledged),
            _figure(queue.redelivered),
            Cell(f"{queue.consumers:,}", queue.consumers, "warn" if unattended else "plain"),
        ),
        (_QUEUE_WORDS.get(queue.name, "") + ("; nobody takes from it" if unattended else ""),),
    )


def _figure(number: int | None) -> Cell:
    return Cell("?", -1, "dim") if number is None else Cell(f"{number:,}", number, "dim" if not number else "plain")


def shared_queue_lines(queues: Queues, traces: QueueTraces, width: int) -> list[Line]:
    """Return what is known of the queue of tasks, for the screen of a job whose tasks are in it with all others."""
    known = {each.name: each for each in queues.queues}
    tasks, dead = known.get(TASKS), known.get(DEAD)
    if tasks is None:
        return []
    parts = [] if tasks.unacknowledged is None else [f"{tasks.unacknowledged:,} unacked"]
    parts.append(f"{queues.redelivered:,} redelivered")
    if dead is not None:
        parts.append(f"{dead.ready:,} dead")
    first = traced_line("queue", f"{tasks.ready:,} ready", traces.of(TASKS), width)
    role: Role = "warn" if dead is not None and dead.ready else "plain"
    return [first, *labelled("", f"of all jobs {', '.join(parts)}", width, role)]


def queue_words(queues: Queues) -> tuple[str, ...]:
    """Return what is to be known of all queues: tasks that came back, and where to look closer."""
    words = [f"{counted(queues.redelivered, 'task')} started again after they came back, since the master began"]
    if queues.management_fault is not None:
        words.append(f"“?”: the management API tells nothing: {printable(queues.management_fault, 500)}")
    elif queues.management is None:
        words.append("“?”: only RabbitMQ's management API knows; `distsum master --management` names it")
    if queues.management is not None:
        words.append(f"o opens {printable(queues.management, 200)}")
    return tuple(words)
