"""Events folded into a table of the workers (no terminal, no clock of its own)."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from distsum.brokers.base import LEFT
from distsum.messages import (
    Heartbeat,
    TaskFailed,
    TaskId,
    TaskStarted,
    TaskSucceeded,
    WorkerFreed,
    WorkerJoined,
    WorkerLost,
    WorkerPaused,
    WorkerRefused,
    WorkerResumed,
)

WorkerState = Literal["idle", "busy", "paused", "quarantined", "left", "lost", "refused"]
GONE: Final = frozenset({"left", "lost", "refused"})
"""Workers in these states do not come back under their names: one that left was told to, or its process was ended."""
SILENT_SECONDS: Final = 6.0
"""A worker tells every 2 s or more often that it is there: one that does not for so long wants a look."""
_GONE_KEPT: Final = 50
"""Workers that are gone and still shown, so that it can be seen why."""


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker.

    Attributes:
        worker: Its name.
        host: Where it runs.
        pid: Its process there; 0 if it never joined.
        version: Of distsum that it runs.
        state: What it does.
        reason: Why it is paused, lost or refused.
        task: What it works on.
        tasks: Tasks it has done.
        failures: Attempts of it that failed.
        bytes_read: Bytes it has read, those of its running task included.
        bytes_per_second: Of the tasks that it has done, but for those that it found stored.
        reading_share: What part of that time it waited for bytes, from 0 to 1.
        resident_bytes: Its memory, when last heard.
        peak_bytes: The most that one of its tasks took over its imports.
        joined_seconds: When it joined, on the clock of whoever folds.
        heard_seconds: When it was last heard of.
    """

    worker: str
    host: str
    pid: int
    state: WorkerState
    reason: str | None = None
    task: TaskId | None = None
    version: str = ""
    tasks: int = 0
    failures: int = 0
    bytes_read: int = 0
    bytes_per_second: float = 0.0
    reading_share: float = 0.0
    resident_bytes: int = 0
    peak_bytes: int = 0
    joined_seconds: float = 0.0
    heard_seconds: float = 0.0


class _Tally(msgspec.Struct):
    host: str
    pid: int
    joined_seconds: float
    heard_seconds: float
    resident_bytes: int
    version: str
    paused: WorkerState | None = None
    gone: WorkerState | None = None
    reason: str | None = None
    task: TaskId | None = None
    attempt: int = 0
    tasks: int = 0
    failures: int = 0
    bytes_done: int = 0
    bytes_running: int = 0
    bytes_lost: int = 0
    lost_seconds: float = 0.0
    began_seconds: float = 0.0
    told_seconds: float = 0.0
    bytes_timed: int = 0
    busy_seconds: float = 0.0
    reading_seconds: float = 0.0
    peak_bytes: int = 0

    @property
    def rate(self) -> float:
        """Bytes a second while it works, also at what was called back: the slowest may never finish anything."""
        size, seconds = self.bytes_timed + self.bytes_lost, self.busy_seconds + self.lost_seconds
        if not seconds and self.task is not None:
            size, seconds = self.bytes_running, self.told_seconds - self.began_seconds
        return size / seconds if seconds > 0.0 else 0.0

    def begin(self, task: TaskId, attempt: int, now: float) -> None:
        """Take note that it has begun an attempt."""
        self.task, self.attempt, self.bytes_running = task, attempt, 0
        self.began_seconds = self.told_seconds = now

    def lose(self, task: TaskId, attempt: int, size: int, now: float) -> None:
        """Take note that an attempt is over without a result, and what it had read until when."""
        if (self.task, self.attempt) == (task, attempt) and size:
            self.bytes_lost += size
            self.lost_seconds += now - self.began_seconds
        self.end(task, attempt)

    def end(self, task: TaskId, attempt: int) -> None:
        """Take note that an attempt is over; that the worker has begun another may have been told first."""
        if (self.task, self.attempt) == (task, attempt):
            self.task, self.bytes_running = None, 0


class WorkerTable:
    """What there is to say of each worker, counted from events."""

    def __init__(self) -> None:
        self._workers: dict[str, _Tally] = {}
        self._gone: list[str] = []

    def take(self, event: msgspec.Struct, now: float) -> None:
        """Count one event."""
        if isinstance(event, WorkerJoined):
            tally = _Tally(event.host, event.pid, now, now, event.baseline_bytes, event.version)
            self._workers[event.worker] = tally
        elif isinstance(event, WorkerRefused):
            self._workers[event.worker] = _Tally(event.host, 0, now, now, 0, "")
            self._leave(event.worker, "refused", event.reason)
        elif (worker := getattr(event, "worker", None)) in self._workers:
            self._update(self._workers[worker], event, now)

    def statuses(self) -> tuple[WorkerStatus, ...]:
        """Return all workers by name, and the last that are gone."""
        return tuple(_status(name, tally) for name, tally in sorted(self._workers.items()))

    def is_gone(self, worker: str) -> bool:
        """Whether it is known of a worker that it is gone."""
        return worker in self._workers and self._workers[worker].gone is not None

    def active(self) -> list[str]:
        """Return the names of those that are there."""
        return [each.worker for each in self.statuses() if each.state not in GONE]

    def _update(self, tally: _Tally, event: msgspec.Struct, now: float) -> None:
        match event:
            case TaskStarted():
                tally.begin(event.task, event.attempt, now)
            case Heartbeat():
                if event.task is not None and (tally.task, tally.attempt) != (event.task, event.attempt):
                    tally.begin(event.task, event.attempt, now)
                tally.task, tally.bytes_running, tally.told_seconds = event.task, event.bytes_read, now
                tally.resident_bytes = event.resident_bytes
            case TaskSucceeded():
                effort = event.effort
                tally.end(event.task, event.attempt)
                tally.tasks += event.child is None
                tally.bytes_done += effort.bytes_read
                if not event.reused:  # To look at what is stored takes no time, and tells nothing of how fast it works.
                    tally.bytes_timed += effort.bytes_read
                    tally.busy_seconds += effort.busy_seconds
                    tally.reading_seconds += effort.reading_seconds
                tally.peak_bytes = max(tally.peak_bytes, effort.peak_bytes)
            case TaskFailed():
                tally.lose(event.task, event.attempt, event.bytes_read, now)
                tally.failures += event.kind not in {"cancelled", "blocked", "not_served"}
            case WorkerFreed():
                tally.lose(event.task, event.attempt, tally.bytes_running, tally.told_seconds)
            case WorkerPaused():
                tally.paused = "quarantined" if event.quarantined else "paused"
                tally.reason = event.reason
                return
            case WorkerResumed():
                tally.paused = tally.reason = None
                return
            case WorkerLost():
                if tally.gone is None:  # One that was refused leaves, too, and why is what a person should see.
                    left = event.reason == LEFT
                    self._leave(event.worker, "left" if left else "lost", None if left else event.reason)
                return
            case _:
                return  # what was decided about it, such as a backup of a silent one, is no word from it
        tally.heard_seconds = now

    def _leave(self, worker: str, state: WorkerState, reason: str | None) -> None:
        tally = self._workers[worker]
        tally.gone, tally.reason, tally.task = state, reason, None
        self._gone.append(worker)
        for old in self._gone[:-_GONE_KEPT]:
            if (kept := self._workers.get(old)) is not None and kept.gone is not None:
                del self._workers[old]
        del self._gone[:-_GONE_KEPT]


def _status(name: str, tally: _Tally) -> WorkerStatus:
    return WorkerStatus(
        worker=name,
        host=tally.host,
        pid=tally.pid,
        version=tally.version,
        state=tally.gone or tally.paused or ("idle" if tally.task is None else "busy"),
        reason=tally.reason,
        task=tally.task,
        tasks=tally.tasks,
        failures=tally.failures,
        bytes_read=tally.bytes_done + tally.bytes_lost + tally.bytes_running,
        bytes_per_second=tally.rate,
        reading_share=tally.reading_seconds / tally.busy_seconds if tally.busy_seconds else 0.0,
        resident_bytes=tally.resident_bytes,
        peak_bytes=tally.peak_bytes,
        joined_seconds=tally.joined_seconds,
        heard_seconds=tally.heard_seconds,
    )
