"""The task tracker: workers, the tasks that are out, and what happened to each attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from distsum import __version__
from distsum.actors.actor import BROKER, MASTER, WORKERS, phase_address
from distsum.messages import (
    PROTOCOL,
    CancelJob,
    CancelTask,
    CheckLeases,
    DismissWorker,
    Heartbeat,
    Introduce,
    KillWorker,
    OfferTask,
    PauseWorker,
    ResumeWorker,
    RunTask,
    Shutdown,
    SlotsChanged,
    TaskBlocked,
    TaskDeadLettered,
    TaskFailed,
    TaskGaveUp,
    TaskId,
    TaskRetried,
    TaskReturned,
    TaskSettled,
    TaskStarted,
    TaskSucceeded,
    TellWorker,
    WorkerJoined,
    WorkerLost,
    WorkerPaused,
    WorkerRefused,
    WorkerResumed,
)

if TYPE_CHECKING:
    from distsum.actors.actor import Context


class TrackerSettings(msgspec.Struct, frozen=True):
    """What the tracker may be told.

    Attributes:
        tasks_queued_per_worker: Tasks kept at the broker for each worker beyond the one it runs. Few, so that each is
            decided late; not none, so that no worker waits for a round trip.
        max_attempts: How often a task may fail, or take its worker down, before its job fails.
        lease_seconds: Silence after which a worker counts as lost.
        retry_storage: Whether a failure to read or write is tried again: on other hosts it may not come back, on one
            machine it would.
        quarantine_failures: Failed attempts in a row, of two tasks or more, after which a worker is paused if others
            have done some meanwhile: what fails everywhere is no worker's fault.
        first_attempt: Where attempts are counted from. Where workers outlive the master it must be above all numbers
            that an earlier one has given (the time in nanoseconds is), so that what they still say of its attempts is
            told apart: the result that those wrote to may be another one.
        version: What workers must be: others might add differently, or not understand.
    """

    tasks_queued_per_worker: int = 1
    max_attempts: int = 4
    lease_seconds: float = 20.0
    retry_storage: bool = False
    quarantine_failures: int = 3
    first_attempt: int = 1
    version: str = __version__


class _Worker(msgspec.Struct):
    """A worker that has joined."""

    host: str
    heard_seconds: float
    running: tuple[TaskId, int] | None = None
    paused: bool = False
    dismissed: str | None = None
    failures: list[TaskId] = []
    failing_since: int = 0


class _Task(msgspec.Struct):
    """A task that is out: the number of its first attempt, and those that have not ended: one or more."""

    work: bytes
    first: int
    attempts: set[int]
    failures: int = 0


class TaskTracker:
    """Keeps a short queue at the broker, and settles every task once.

    The broker hands tasks to workers, takes them back from lost ones and counts deliveries; the tracker decides how
    many are out, what is tried again, and what is given up.
    """

    def __init__(self, context: Context, settings: TrackerSettings) -> None:
        self._context = context
        self._settings = settings
        self._workers: dict[str, _Worker] = {}
        self._tasks: dict[TaskId, _Task] = {}
        self._taking = 0
        self._slots = 0
        self._successes = 0
        self._next_attempt = settings.first_attempt
        context.set_timer(settings.lease_seconds / 4, CheckLeases())

    def receive(self, message: msgspec.Struct) -> None:
        """Take one message."""
        match message:
            case OfferTask():
                task = self._tasks[message.task] = _Task(message.work, self._next_attempt, set())
                self._publish(message.task, task)
            case TaskSucceeded():
                self._succeeded(message)
            case TaskStarted():
                self._started(message)
            case Heartbeat():
                self._beat(message)
            case TaskFailed():
                self._failed(message)
            case TaskReturned():
                self._context.emit(message)
            case TaskDeadLettered():
                self._dead_lettered(message)
            case WorkerJoined():
                self._join(message)
            case WorkerLost():
                self._lose(message)
            case PauseWorker():
                self._pause(message.worker, message.reason, quarantined=False)
            case ResumeWorker():
                self._resume(message.worker)
            case DismissWorker():
                self._dismiss(message)
            case CancelJob():
                self._cancel(message.job)
            case CheckLeases():
                self._check_leases()
        self._tell_slots()

    def check(self) -> None:
        """Raise AssertionError where the state contradicts itself; called by simulations after each message."""
        settings = self._settings
        assert self._taking == sum(not worker.paused for worker in self._workers.values())
        assert self._slots == max(1, self._taking) * (1 + settings.tasks_queued_per_worker)
        assert all(task.attempts and task.failures < settings.max_attempts for task in self._tasks.values())
        assert all(worker.paused for worker in self._workers.values() if worker.dismissed is not None)

    def _tell_slots(self) -> None:
        """Keep the queue as long as the settings say: with no worker yet, one task waits for the first."""
        slots = max(1, self._taking) * (1 + self._settings.tasks_queued_per_worker)
        if slots != self._slots:
            self._slots = slots
            self._context.send(MASTER, SlotsChanged(slots))

    # Workers ----------------------------------------------------------------------------------------------------------

    def _join(self, message: WorkerJoined) -> None:
        reason = None
        if message.protocol != PROTOCOL:
            reason = f"it speaks protocol {message.protocol}, and this service protocol {PROTOCOL}"
        elif message.version != self._settings.version:
            reason = f"it is distsum {message.version}, and this service {self._settings.version}"
        if reason is not None:
            self._context.emit(WorkerRefused(message.worker, message.host, reason))
            self._context.send(WORKERS, TellWorker(message.worker, Shutdown(f"refused: {reason}; install the same")))
            return
        if (known := self._workers.get(message.worker)) is not None and known.paused:
            # It has only lost its connection for a while.
            self._context.send(WORKERS, PauseWorker(message.worker, "still paused"))
            known.heard_seconds = self._context.now()
            return
        self._taking += known is None
        self._workers[message.worker] = _Worker(message.host, self._context.now())
        self._context.emit(message)

    def _lose(self, message: WorkerLost) -> None:
        if (known := self._workers.pop(message.worker, None)) is not None:
            self._taking -= not known.paused
        self._context.emit(message)

    def _heard(self, worker: str, running: tuple[TaskId, int] | None) -> None:
        if (known := self._workers.get(worker)) is not None:
            known.heard_seconds = self._context.now()
            known.running = running
            if running is None and known.dismissed is not None:
                self._context.send(WORKERS, TellWorker(worker, Shutdown(known.dismissed)))

    def _beat(self, message: Heartbeat) -> None:
        if message.worker not in self._workers:
            # It works for a master that has ended, or was given up too early.
            self._context.send(WORKERS, TellWorker(message.worker, Introduce()))
            return
        self._heard(message.worker, (message.task, message.attempt) if message.task is not None else None)
        if message.task is not None:
            self._call_back_unwanted(message.worker, message.task, message.attempt)
        self._context.emit(message)

    def _call_back_unwanted(self, worker: str, task: TaskId, attempt: int) -> None:
        """Stop an attempt for a job of which nothing is out: it has ended, and that did not reach the worker.

        It may just have taken the task, or have been cut off. Where the job does go on (it waits for others, or is
        being taken over), the attempt is made again.
        """
        if task not in self._tasks and not any(each.job == task.job for each in self._tasks):
            self._context.send(WORKERS, TellWorker(worker, CancelTask(task, attempt)))

    def _pause(self, worker: str, reason: str, *, quarantined: bool) -> None:
        if (known := self._workers.get(worker)) is not None and not known.paused:
            known.paused = True
            self._taking -= 1
            self._context.send(WORKERS, PauseWorker(worker, reason))
            self._context.emit(WorkerPaused(worker, reason, quarantined))

    def _resume(self, worker: str) -> None:
        if (known := self._workers.get(worker)) is not None and known.paused:
            known.paused = False
            self._taking += 1
            known.dismissed = None
            known.failures = []
            self._context.send(WORKERS, ResumeWorker(worker))
            self._context.emit(WorkerResumed(worker))

    def _dismiss(self, message: DismissWorker) -> None:
        self._pause(message.worker, message.reason, quarantined=False)
        if (known := self._workers.get(message.worker)) is not None:
            known.dismissed = message.reason
            self._heard(message.worker, known.running)

    def _judge(self, worker: str, task: TaskId, reason: str) -> None:
        """Pause a worker whose attempts fail one after the other, as long as another one goes on."""
        known = self._workers.get(worker)
        if known is None:
            return
        if not known.failures:
            known.failing_since = self._successes
        known.failures.append(task)
        enough = len(known.failures) >= self._settings.quarantine_failures and len(set(known.failures)) > 1
        others_succeed = self._successes > known.failing_since
        if enough and others_succeed and self._taking > (not known.paused):
            told = f"{len(known.failures)} attempts failed in a row, the last with: {reason}"
            self._pause(worker, told, quarantined=True)

    def _cancel(self, job: str) -> None:
        for task in [task for task in self._tasks if task.job == job]:
            del self._tasks[task]
        for name, worker in self._workers.items():
            if worker.running is not None and worker.running[0].job == job:
                self._context.send(WORKERS, TellWorker(name, CancelTask(*worker.running)))

    # Tasks ------------------------------------------------------------------------------------------------------------

    def _publish(self, task_id: TaskId, task: _Task) -> None:
        """Queue a new attempt."""
        attempt = self._next_attempt
        self._next_attempt += 1
        task.attempts.add(attempt)
        self._context.send(BROKER, RunTask(task_id, task.work, attempt=attempt))

    def _started(self, message: TaskStarted) -> None:
        self._heard(message.worker, (message.task, message.attempt))
        task = self._tasks.get(message.task)
        if task is not None and message.attempt in task.attempts:
            self._context.emit(message)
        elif task is None:
            self._call_back_unwanted(message.worker, message.task, message.attempt)

    def _succeeded(self, message: TaskSucceeded) -> None:
        self._heard(message.worker, None)
        self._successes += 1
        if (worker := self._workers.get(message.worker)) is not None:
            worker.failures = []
        task = self._tasks.get(message.task)
        if task is None or message.attempt < task.first:
            # A second success: the same bytes are stored, and nothing is to do. Or one from before the job came again,
            # whose range of the result may have been written before that was begun anew.
            return
        self._settle(message.task)
        self._context.emit(message)
        self._context.send(MASTER, message)
        self._context.send(phase_address(message.task.job, message.task.phase), message)

    def _settle(self, task: TaskId) -> bool:
        if self._tasks.pop(task, None) is None:
            return False
        self._context.send(MASTER, TaskSettled(task.job))
        return True

    def _failed(self, message: TaskFailed) -> None:
        self._heard(message.worker, None)
        task = self._tasks.get(message.task)
        if task is None or message.attempt not in task.attempts:
            return  # told twice, or settled since
        task.attempts.remove(message.attempt)
        if message.kind == "cancelled":
            # Not by us: its worker leaves.
            self._publish(message.task, task)
            return
        self._context.emit(message)
        if message.kind == "blocked":
            self._settle(message.task)
            self._context.send(
                phase_address(message.task.job, message.task.phase), TaskBlocked(message.task, message.missing)
            )
            return
        task.failures += 1
        may_pass = message.kind == "error" or (message.kind == "storage" and self._settings.retry_storage)
        if may_pass:
            self._judge(message.worker, message.task, message.reason)
        if may_pass and task.failures < self._settings.max_attempts:
            self._context.emit(TaskRetried(message.task, message.worker, task.failures + 1, message.reason))
            self._publish(message.task, task)
            return
        self._settle(message.task)
        self._context.send(MASTER, TaskGaveUp(message.task, message.kind, message.reason, message.index))

    def _dead_lettered(self, message: TaskDeadLettered) -> None:
        if self._settle(message.task):
            reason = f"its worker ended during each of {message.deliveries} deliveries, so it is not tried again"
            self._context.send(MASTER, TaskGaveUp(message.task, "abandoned", reason))

    def _check_leases(self) -> None:
        now = self._context.now()
        lease = self._settings.lease_seconds
        for name, worker in self._workers.items():
            silent = now - worker.heard_seconds
            if silent > lease:
                worker.heard_seconds = now
                self._context.send(WORKERS, KillWorker(name, f"no heartbeat for {silent:.0f} s"))
        self._context.set_timer(lease / 4, CheckLeases())
