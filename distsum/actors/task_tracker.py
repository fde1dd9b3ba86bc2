"""The task tracker: workers, the tasks that are out, and what happened to each attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from distsum.actors.actor import BROKER, MASTER, WORKERS, phase_address
from distsum.messages import (
    CancelJob,
    CheckLeases,
    Heartbeat,
    KillWorker,
    NodeRecomputed,
    OfferTask,
    RunTask,
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
    WorkerJoined,
    WorkerLost,
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
    """

    tasks_queued_per_worker: int = 1
    max_attempts: int = 4
    lease_seconds: float = 20.0


class _Worker(msgspec.Struct):
    """A worker that has joined."""

    host: str
    heard_seconds: float
    task: TaskId | None = None


class _Task(msgspec.Struct):
    """A task that is out."""

    work: bytes
    failures: int = 0
    attempts: int = 0


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
        self._slots = 0
        context.set_timer(settings.lease_seconds / 4, CheckLeases())

    def receive(self, message: msgspec.Struct) -> None:
        """Take one message."""
        match message:
            case OfferTask():
                self._tasks[message.task] = _Task(message.work)
                self._context.send(BROKER, RunTask(message.task, message.work))
            case TaskSucceeded():
                self._succeeded(message)
            case TaskStarted():
                self._started(message)
            case Heartbeat():
                self._heard(message.worker, message.task)
                self._context.emit(message)
            case TaskFailed():
                self._failed(message)
            case TaskReturned():
                self._context.emit(message)
            case TaskDeadLettered():
                self._dead_lettered(message)
            case WorkerJoined():
                self._workers[message.worker] = _Worker(message.host, self._context.now())
                self._context.emit(message)
            case WorkerLost():
                self._workers.pop(message.worker, None)
                self._context.emit(message)
            case CancelJob():
                for task in [task for task in self._tasks if task.job == message.job]:
                    del self._tasks[task]
            case CheckLeases():
                self._check_leases()
        self._tell_slots()

    def _tell_slots(self) -> None:
        """Keep the queue as long as the settings say: with no worker yet, one task waits for the first."""
        slots = max(1, len(self._workers)) * (1 + self._settings.tasks_queued_per_worker)
        if slots != self._slots:
            self._slots = slots
            self._context.send(MASTER, SlotsChanged(slots))

    def _heard(self, worker: str, task: TaskId | None) -> None:
        if (known := self._workers.get(worker)) is not None:
            known.heard_seconds = self._context.now()
            known.task = task

    def _started(self, message: TaskStarted) -> None:
        self._heard(message.worker, message.task)
        if (task := self._tasks.get(message.task)) is not None:
            task.attempts += 1
            self._context.emit(message)

    def _succeeded(self, message: TaskSucceeded) -> None:
        self._heard(message.worker, None)
        if not self._settle(message.task):
            # A second success, of an attempt that was thought lost: the same bytes are stored, and nothing is to do.
            return
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
        if task is None or message.kind == "cancelled":
            return
        self._context.emit(message)
        if message.kind == "blocked":
            self._settle(message.task)
            self._context.emit(NodeRecomputed(message.task))
            self._context.send(
                phase_address(message.task.job, message.task.phase), TaskBlocked(message.task, message.missing)
            )
            return
        task.failures += 1
        if message.kind == "error" and task.failures < self._settings.max_attempts:
            self._context.emit(TaskRetried(message.task, message.worker, task.failures + 1, message.reason))
            self._context.send(BROKER, RunTask(message.task, task.work))
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
