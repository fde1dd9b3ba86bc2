"""Events told as lines of a log, with the job, task, attempt and worker that each concerns (pure)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from distsum.brokers.base import LEFT
from distsum.logs import concerning, task_words
from distsum.messages import (
    BackupDeclined,
    BackupEnded,
    BackupStarted,
    HelperAdded,
    HelperDeclined,
    JobFailed,
    JobQueued,
    JobStarted,
    JobSucceeded,
    LoserStopped,
    NodeReopened,
    SpeculationSwitched,
    TaskFailed,
    TaskRetried,
    TaskReturned,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
    WorkerLost,
    WorkerPaused,
    WorkerRefused,
    WorkerResumed,
)
from distsum.wording import counted, printable

if TYPE_CHECKING:
    import msgspec

    from distsum.messages import TaskId


class Line(NamedTuple):
    """A line: how much it matters, as ``logging`` counts, its words, and what it concerns."""

    level: int
    words: str
    concerns: dict[str, str | None]


class _Attempt(NamedTuple):
    number: int
    worker: str


class Narrator:
    """Remembers which attempt of a task was the last to be heard of, for the events that do not say so."""

    def __init__(self) -> None:
        self._attempts: dict[TaskId, _Attempt] = {}

    def line_of(self, event: msgspec.Struct) -> Line | None:
        """Return the line that tells of an event; None if it is worth none.

        What is usual while a job goes on is told to those who debug.
        """
        match event:
            case TaskStarted() | TaskSucceeded() | TaskFailed() | TaskRetried() | TaskReturned() | NodeReopened():
                return self._of_task(event)
            case BackupStarted() | BackupEnded() | BackupDeclined() | HelperAdded() | HelperDeclined() | LoserStopped():
                return _of_backup(event)
            case WorkerJoined() | WorkerLost() | WorkerRefused() | WorkerPaused() | WorkerResumed():
                return _of_worker(event)
            case JobQueued() | JobStarted() | JobSucceeded() | JobFailed():
                return self._of_job(event)
            case SpeculationSwitched():
                what = "get backups again" if event.on else "get no more backups"
                words = f"stragglers of job {event.job} {what}: asked for by a person"
                return Line(logging.INFO, words, concerning(job=event.job))
        return None

    def _of_task(
        self, event: TaskStarted | TaskSucceeded | TaskFailed | TaskRetried | TaskReturned | NodeReopened
    ) -> Line:
        task = event.task
        if isinstance(event, TaskStarted | TaskSucceeded | TaskFailed):
            last = self._attempts[task] = _Attempt(event.attempt, event.worker)
        else:
            last = self._attempts.get(task, _Attempt(0, getattr(event, "worker", "")))
        concerns = concerning(task=task, attempt=last.number, worker=last.worker or None)
        what = task_words(getattr(event, "child", None))
        match event:
            case TaskStarted():
                return Line(logging.DEBUG, f"{what} begins; it is delivery {event.delivery}", concerns)
            case TaskSucceeded():
                if event.child is None:
                    del self._attempts[task]
                how = "was stored already" if event.reused else "is done"
                return Line(logging.DEBUG, f"{what} {how}", concerns)
            case TaskFailed(kind="cancelled"):
                return Line(logging.INFO, f"the attempt at {what} is called back", concerns)
            case TaskFailed():
                level = logging.INFO if event.kind in {"blocked", "not_served"} else logging.WARNING
                return Line(level, f"{what} failed: {event.kind}: {printable(event.reason, 2000)}", concerns)
            case TaskRetried():
                why = "" if event.worker else f": {event.reason}"  # otherwise its worker has told just before
                words = f"the task is handed out again, now for attempt {event.attempt}{why}"
                return Line(logging.INFO if event.worker else logging.WARNING, words, concerns)
            case TaskReturned():
                words = f"its worker is gone, and the task back in the queue after delivery {event.deliveries}"
                return Line(logging.WARNING, words, concerns)
            case NodeReopened():
                what = "is missing or damaged" if event.stored else "is wanted after all"
                return Line(logging.INFO, f"the task is to be done again, since its partial {what}", concerns)

    def _of_job(self, event: JobQueued | JobStarted | JobSucceeded | JobFailed) -> Line:
        task = event.task if isinstance(event, JobFailed) else None
        last = self._attempts.get(task) if task is not None else None
        number, worker = last if last is not None else (0, None)
        concerns = concerning(job=event.job, task=task, attempt=number, worker=worker)
        match event:
            case JobQueued():
                return Line(logging.INFO, f"job {event.job} waits for its turn, priority {event.priority}", concerns)
            case JobStarted():
                words = f"{event.reduction} of {counted(event.files, 'file')} in {counted(sum(event.tasks), 'task')}"
                if stored := sum(event.reused):
                    words += f", {stored:,} of them stored already"
                return Line(logging.INFO, f"job {event.job} begins: {words}", concerns)
        self._attempts = {task: last for task, last in self._attempts.items() if task.job != event.job}
        if isinstance(event, JobSucceeded):
            return Line(logging.INFO, f"job {event.job} has all of its tasks done", concerns)
        if event.kind == "cancelled":
            return Line(logging.INFO, f"job {event.job} is cancelled", concerns)
        words = f"job {event.job} failed: {event.kind}: {printable(event.reason, 2000)}"
        return Line(logging.WARNING, words, concerns)


def _of_backup(
    event: BackupStarted | BackupEnded | BackupDeclined | HelperAdded | HelperDeclined | LoserStopped,
) -> Line:
    concerns = concerning(task=event.task, attempt=event.attempt, worker=event.worker)
    match event:
        case BackupStarted():
            evidence = event.evidence
            words = (
                f"the task gets a backup on {event.worker}: {event.reason}, {evidence.elapsed_seconds:.1f} s on "
                f"{event.of_worker} in attempt {event.of_attempt}, {evidence.done} of {evidence.tasks} tasks done"
            )
            return Line(logging.INFO, words, concerns)
        case HelperAdded():
            words = f"{event.worker} idles and makes part {event.child} of the task's node for the backup"
            return Line(logging.INFO, words, concerns)
        case HelperDeclined():
            words = f"{event.worker} idles and does not make part {event.child} for the backup: others come to it soon"
            return Line(logging.DEBUG, words, concerns)
        case BackupEnded():
            words = f"the backup {event.outcome} after {event.took_seconds:.1f} s, {event.wasted_bytes:,} bytes wasted"
            return Line(logging.INFO, words, concerns)
        case LoserStopped():
            words = f"the attempt has stopped {event.took_seconds:.1f} s after it was called back"
            return Line(logging.DEBUG, words, concerns)
    return Line(logging.DEBUG, f"a straggler ({event.suspicion}) gets no backup: {event.reason}", concerns)


def _of_worker(event: WorkerJoined | WorkerLost | WorkerRefused | WorkerPaused | WorkerResumed) -> Line:
    name = event.worker
    concerns = concerning(worker=name)
    match event:
        case WorkerJoined():
            words = f"worker {name} joined from {printable(event.host)}, process {event.pid}"
            return Line(logging.INFO, words, concerns)
        case WorkerLost(reason=reason) if reason == LEFT:
            return Line(logging.INFO, f"worker {name} has left", concerns)
        case WorkerLost():
            return Line(logging.WARNING, f"worker {name} is lost: {printable(event.reason, 1000)}", concerns)
        case WorkerRefused():
            words = f"worker {name} from {printable(event.host)} is refused: {printable(event.reason, 1000)}"
            return Line(logging.WARNING, words, concerns)
        case WorkerPaused():
            what = "quarantined" if event.quarantined else "paused"
            return Line(logging.WARNING, f"worker {name} is {what}: {printable(event.reason, 1000)}", concerns)
    return Line(logging.INFO, f"worker {name} takes tasks again", concerns)
