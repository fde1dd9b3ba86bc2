"""Events folded into snapshots of one job (no terminal, no clock of its own)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from distsum.brokers.base import LEFT
from distsum.latency import Latencies
from distsum.messages import (
    BackupEnded,
    BackupStarted,
    Heartbeat,
    JobFailed,
    JobStarted,
    JobSucceeded,
    NodeReopened,
    Skipped,
    SpeculationSwitched,
    TaskFailed,
    TaskId,
    TaskRetried,
    TaskReturned,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
    WorkerLost,
)
from distsum.observe.accounts import WorkerAccounts
from distsum.observe.ledger import BackupEntry, Ledger, LedgerReport, entry_words, task_words
from distsum.observe.snapshot import PhaseProgress, PhaseWork, Snapshot
from distsum.wording import counted, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    import msgspec

_NOTES: Final = 200


class _PhaseTally:
    """Counts of one phase."""

    def __init__(self, tasks: int, reused: int, work: PhaseWork) -> None:
        self.tasks = tasks
        self.done = self.reused = reused
        self.found = 0
        self.work = work
        self.bytes_read = 0
        self.started_seconds: float | None = None
        self.finished_seconds: float | None = None

    def to_do(self, amount: int) -> int:
        """Return this run's share of an amount that the whole phase takes."""
        return amount * (self.tasks - self.reused) // self.work.tasks

    @property
    def task_bytes(self) -> int:
        """Bytes that a task reads on average, by the plan."""
        return self.work.bytes // self.work.tasks

    def bytes_done(self, running: int) -> int:
        """Return what need not be read any more of this run; ``running`` is what is read of tasks under way."""
        to_do = self.to_do(self.work.bytes)
        return min(to_do, self.work.bytes * (self.done - self.reused) // self.work.tasks + running)


class JobTally:
    """Everything a display or a summary says of a job, counted from its events.

    Args:
        work: What each phase takes, by the plan.
        uri_of: Tells the path or URI of an input, by its index in the job's list.
        speculation: Whether stragglers get backups when it begins; None if that is not known.

    Attributes:
        ledger: Backups of stragglers.
        accounts: The time of workers.
        latencies: How long a server took to answer workers.
    """

    def __init__(
        self, work: tuple[PhaseWork, ...], uri_of: Callable[[int], bytes], *, speculation: bool | None = None
    ) -> None:
        self._work = work
        self._speculation = speculation
        self._uri_of = uri_of
        self._phases: list[_PhaseTally] = []
        self._running: dict[TaskId, dict[int, int]] = {}
        self._attempts: dict[TaskId, int] = {}
        self._backups: set[int] = set()
        self._workers: set[str] = set()
        self._gone: set[str] = set()
        self._job = ""
        self._reduction = ""
        self._files = 0
        self._finished = False
        self._notes: deque[str] = deque(maxlen=_NOTES)
        self._notes_total = 0
        self._skipped: set[int] = set()
        self._told_skips = 0
        self.ledger = Ledger()
        self._earlier_bytes = 0
        self._earlier_seconds = 0.0
        self.accounts = WorkerAccounts()
        self.latencies = Latencies()
        self.attempts = 0
        self.retries = 0
        self.returned = 0
        self.workers_lost = 0
        self.computed = 0
        self.bytes_read = 0
        self.bytes_written = 0
        self.objects = 0
        self.succeeded = 0
        self.peak_worker_bytes = 0

    def describe(self, job: str, reduction: str, files: int) -> None:
        """Take note of what the job is, before it has begun: a history may tell no more."""
        self._job, self._reduction, self._files = job, reduction, files

    def carry_on(self, earlier: LedgerReport, began_seconds: float) -> None:
        """Begin with an earlier master's ledger; ``began_seconds`` is when the clock of what follows began."""
        self.ledger.carry_on(earlier, began_seconds - earlier.began_seconds)
        self._earlier_bytes = earlier.bytes_read
        self._earlier_seconds = earlier.seconds_until(began_seconds)

    def take(self, event: msgspec.Struct, now: float) -> None:
        """Count one event that happened ``now`` seconds after the job's start."""
        self.accounts.take(event, now)
        self._take_backup(event, now)
        match event:
            case JobStarted():
                self._job, self._reduction, self._files = event.job, event.reduction, event.files
                counts = zip(event.tasks, event.reused, self._work, strict=True)
                self._phases = [_PhaseTally(*each) for each in counts]
            case TaskStarted():
                self._start(event, now)
            case Heartbeat():
                running = self._running.get(event.task) if event.task is not None else None
                if running is not None and event.attempt in running:
                    running[event.attempt] = event.bytes_read
            case TaskSucceeded():
                self._take_effort(event)
                if event.child is None:
                    self._succeed(event, now)
            case TaskFailed():
                self._running.get(event.task, {}).pop(event.attempt, None)
            case TaskRetried():
                self._note(f"{task_words(event.task)} failed on {event.worker} and is tried again: {event.reason}")
            case TaskReturned():
                running = self._running.pop(event.task, {})  # Copies of it go on: no queue has handed them out.
                if copies := {attempt: size for attempt, size in running.items() if attempt in self._backups}:
                    self._running[event.task] = copies
                self.returned += 1
                self._note(
                    f"the worker at {task_words(event.task)} is gone, and the task back in the queue after delivery "
                    f"{event.deliveries}"
                )
            case NodeReopened():
                self._reopen(event)
            case SpeculationSwitched():
                self._speculation = event.on
            case WorkerJoined():
                self._workers.add(event.worker)
                self._gone.discard(event.worker)
            case WorkerLost():
                self._lose(event.worker, event.reason)
            case JobSucceeded() | JobFailed():
                self._finished = True

    def snapshot(self, now: float) -> Snapshot:
        """Return the picture ``now`` seconds after the job's start."""
        running = [0] * (len(self._phases) + 1)
        bytes_running = [0] * (len(self._phases) + 1)
        bytes_done = [0] * (len(self._phases) + 1)
        for task, attempts in self._running.items():
            running[task.phase] += len(attempts)
            bytes_running[task.phase] += sum(attempts.values())
            bytes_done[task.phase] += min(max(attempts.values(), default=0), self._phases[task.phase - 1].task_bytes)
        return Snapshot(
            job=self._job,
            reduction=self._reduction,
            files=self._files,
            elapsed_seconds=now,
            phases=tuple(
                PhaseProgress(
                    phase=number,
                    tasks=phase.tasks,
                    done=phase.done,
                    reused=phase.reused,
                    found=phase.found,
                    running=running[number],
                    files_total=phase.to_do(phase.work.files),
                    bytes_total=phase.to_do(phase.work.bytes),
                    bytes_read=phase.bytes_read + bytes_running[number],
                    bytes_done=phase.bytes_done(bytes_done[number]),
                    started_seconds=phase.started_seconds,
                    finished_seconds=phase.finished_seconds,
                    tasks_planned=phase.work.tasks,
                    bytes_planned=phase.work.bytes,
                )
                for number, phase in enumerate(self._phases, start=1)
            ),
            workers=len(self._workers),
            workers_lost=self.workers_lost,
            retries=self.retries,
            notes=tuple(self._notes),
            notes_total=self._notes_total,
            finished=self._finished,
            backups=self.ledger.totals(),
            returned=self.returned,
            speculation=self._speculation,
            bytes_read=self.bytes_read,
            bytes_written=self.bytes_written,
        )

    def input_name(self, index: int) -> str:
        """Return the path or URI of an input, harmless to show."""
        return printable(self._uri_of(index))

    def ledger_report(self, began_seconds: float, remark: str | None = None) -> LedgerReport:
        """Return the ledger as it is now; ``began_seconds`` is when the job's clock began, in the Unix epoch."""
        return LedgerReport(
            totals=self.ledger.totals(),
            entries=self.ledger.entries,
            cut=self.ledger.cut,
            bytes_read=self._earlier_bytes + self.bytes_read,
            began_seconds=began_seconds,
            remark=remark,
            earlier_seconds=self._earlier_seconds,
        )

    def phase_seconds(self) -> tuple[float, ...]:
        """Seconds from each phase's first attempt to its last result; 0 for a phase with nothing to do."""
        return tuple(
            (phase.finished_seconds or phase.started_seconds) - phase.started_seconds
            if phase.started_seconds is not None
            else 0.0
            for phase in self._phases
        )

    def _take_backup(self, event: msgspec.Struct, now: float) -> None:
        if isinstance(entry := self.ledger.take(event, now), BackupEntry):
            self._note(entry_words(entry))
        if isinstance(event, BackupStarted):
            self._backups.add(event.attempt)
        elif isinstance(event, BackupEnded):
            self._backups.discard(event.attempt)
            self._running.get(event.task, {}).pop(event.attempt, None)

    def _start(self, event: TaskStarted, now: float) -> None:
        if event.child is not None:
            return  # it helps with a task, and is none of its attempts
        phase = self._phases[event.task.phase - 1]
        if phase.started_seconds is None:
            phase.started_seconds = now
        self._running.setdefault(event.task, {})[event.attempt] = 0
        self.attempts += 1
        if event.attempt in self._backups:
            return
        earlier = self._attempts.get(event.task, 0)
        self._attempts[event.task] = earlier + 1
        self.retries += earlier > 0

    def _succeed(self, event: TaskSucceeded, now: float) -> None:
        phase = self._phases[event.task.phase - 1]
        self._running.pop(event.task, None)
        if not self._attempts.pop(event.task, 0):
            # Its start was lost on the way, or is late, and then nobody's any more.
            self.attempts += 1
            if phase.started_seconds is None:
                phase.started_seconds = now
        phase.done += 1
        phase.bytes_read += event.effort.bytes_read
        phase.reused += event.reused
        phase.found += event.reused
        if phase.done == phase.tasks:
            phase.finished_seconds = now
        self.succeeded += 1
        self.computed += not event.reused
        self._note_skips(event.skipped)

    def _lose(self, worker: str, reason: str) -> None:
        """Count a worker that is gone, once: first it is not heard, and then the broker misses it, too."""
        self._workers.discard(worker)
        if reason == LEFT or worker in self._gone:
            return
        self._gone.add(worker)
        self.workers_lost += 1
        self._note(f"worker {worker} was lost: {reason}")

    def _take_effort(self, event: TaskSucceeded) -> None:
        effort = event.effort
        if effort.latencies.counts:
            self.latencies = self.latencies.plus(effort.latencies)
        self.bytes_read += effort.bytes_read
        self.bytes_written += effort.bytes_written
        self.objects += effort.objects_read + effort.objects_written
        self.peak_worker_bytes = max(self.peak_worker_bytes, effort.peak_bytes)

    def _note_skips(self, skipped: tuple[Skipped, ...]) -> None:
        """Tell of bad inputs whenever they have doubled: a note for each would be a flood, and the end lists them."""
        self._skipped.update(each.index for each in skipped)
        if len(self._skipped) >= max(1, 2 * self._told_skips):
            self._told_skips = len(self._skipped)
            last = skipped[-1]
            self._note(
                f"{counted(len(self._skipped), 'bad input')} left out so far, such as "
                f"{printable(self._uri_of(last.index))}: {last.reason}"
            )

    def _reopen(self, event: NodeReopened) -> None:
        phase = self._phases[event.task.phase - 1]
        phase.finished_seconds = None
        if not event.stored:
            phase.tasks += 1
            return
        phase.done -= 1
        phase.reused = min(phase.reused, phase.done)
        phase.found = min(phase.found, phase.reused)
        self._note(f"the partial of {task_words(event.task)} was missing or damaged, and is made again")

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._notes_total += 1
