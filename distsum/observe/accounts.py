"""Each worker's time by what it was spent on, folded from events (no clock of its own)."""

from __future__ import annotations

from typing import Final

import msgspec

from distsum.brokers.base import LEFT
from distsum.messages import (
    Heartbeat,
    JobFailed,
    JobSucceeded,
    TaskFailed,
    TaskId,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
    WorkerLost,
)
from distsum.request import BUSY, WorkerAccount

KINDS: Final = ("starting", "waiting", *BUSY, "discarded")
_GONE_KEPT: Final = 1000
"""Workers that are gone and have an account of their own; older ones are put together."""


class _Tally(msgspec.Struct):
    """A worker. ``joined_seconds`` is None while it is gone; ``running`` is an attempt and when it began.

    ``dropped`` is the attempt that was over last, and what of it was discarded: its result may have been overtaken.
    """

    joined_seconds: float | None
    present_seconds: float = 0.0
    running: tuple[TaskId, int, float] | None = None
    dropped: tuple[TaskId, int, float] | None = None
    tasks: int = 0
    starting: float = 0.0
    reading: float = 0.0
    adding: float = 0.0
    storing: float = 0.0
    discarded: float = 0.0

    def drop(self, now: float) -> None:
        """The attempt under way has ended without a result."""
        if self.running is not None:
            task, attempt, began = self.running
            took = max(0.0, now - began)
            self.dropped = task, attempt, took
            self.discarded += took
            self.running = None

    def leave(self, now: float) -> None:
        self.drop(now)
        if self.joined_seconds is not None:
            self.present_seconds += max(0.0, now - self.joined_seconds)
            self.joined_seconds = None

    def seconds(self, now: float) -> dict[str, float]:
        present = self.present_seconds
        if self.joined_seconds is not None:
            # What an attempt under way has taken is not known yet to be of use or not.
            until = now if self.running is None else self.running[2]
            present += max(0.0, until - self.joined_seconds)
        busy = self.reading + self.adding + self.storing
        waiting = max(0.0, present - busy - self.discarded)
        spent = (self.starting, waiting, self.reading, self.adding, self.storing, self.discarded)
        return dict(zip(KINDS, spent, strict=True))


class WorkerAccounts:
    """The time of all workers of a job.

    A worker's time begins when it joins and ends when it leaves or the job ends; that of a lost one when it was last
    heard, since who vanishes with its host is missed only half a minute later. What it has measured itself of its
    tasks is reading, adding and storing; attempts of which nothing came are discarded, from their start to when their
    worker is known to do something else; everything else is called waiting: the worker has no task of this job, but
    perhaps one of another.
    """

    def __init__(self) -> None:
        self._workers: dict[str, _Tally] = {}
        self._gone: dict[str, None] = {}
        self._others = 0
        self._others_tasks = 0
        self._others_seconds = dict.fromkeys(KINDS, 0.0)
        self._ended_seconds: float | None = None

    def take(self, event: msgspec.Struct, now: float) -> None:
        """Count one event."""
        if self._ended_seconds is not None:
            return
        match event:
            case WorkerJoined():
                self._join(event, now)
            case WorkerLost():
                if (tally := self._workers.get(event.worker)) is not None:
                    tally.leave(now if event.reason == LEFT else now - event.silent_seconds)
                    self._gone[event.worker] = None
                    self._forget(now)
            case TaskStarted():
                _begin(self._known(event.worker, now), event.task, event.attempt, now)
            case Heartbeat():
                tally = self._known(event.worker, now)
                if event.task is None:
                    tally.drop(now)
                else:
                    _begin(tally, event.task, event.attempt, now)
            case TaskSucceeded():
                _succeed(self._known(event.worker, now), event)
            case TaskFailed():
                tally = self._known(event.worker, now)
                if tally.running is not None and tally.running[:2] == (event.task, event.attempt):
                    tally.drop(now)  # Of another attempt that has begun since may have been told first.
            case JobSucceeded() | JobFailed():
                for tally in self._workers.values():
                    tally.leave(now)
                self._ended_seconds = now

    def accounts(self, now: float) -> tuple[WorkerAccount, ...]:
        """Return the account of each worker by ``now``, in the order of their names."""
        found = [WorkerAccount(name, tally.tasks, tally.seconds(now)) for name, tally in sorted(self._workers.items())]
        if self._others:
            found.append(WorkerAccount(f"{self._others:,} others", self._others_tasks, self._others_seconds))
        return tuple(found)

    def seconds(self, now: float) -> dict[str, float]:
        """Return the sum of all accounts."""
        total = dict.fromkeys(KINDS, 0.0)
        for account in self.accounts(now):
            for kind, seconds in account.seconds.items():
                total[kind] += seconds
        return total

    def _join(self, event: WorkerJoined, now: float) -> None:
        tally = self._workers.get(event.worker)
        if tally is None:
            self._workers[event.worker] = _Tally(now, starting=event.start_seconds)
        elif tally.joined_seconds is None:
            # It was given up too early.
            tally.joined_seconds = now
            self._gone.pop(event.worker, None)

    def _known(self, worker: str, now: float) -> _Tally:
        """Return a worker's tally; nobody may have told that it joined."""
        if (tally := self._workers.get(worker)) is None:
            tally = self._workers[worker] = _Tally(now)
        return tally

    def _forget(self, now: float) -> None:
        while len(self._gone) > _GONE_KEPT:
            name = next(iter(self._gone))
            del self._gone[name]
            tally = self._workers.pop(name)
            self._others += 1
            self._others_tasks += tally.tasks
            for kind, seconds in tally.seconds(now).items():
                self._others_seconds[kind] += seconds


def _begin(tally: _Tally, task: TaskId, attempt: int, now: float) -> None:
    if tally.running is not None and tally.running[:2] == (task, attempt):
        return
    if tally.dropped is not None and tally.dropped[:2] == (task, attempt):
        return  # a heartbeat or start that the result has overtaken
    tally.drop(now)
    if tally.joined_seconds is not None:
        tally.running = task, attempt, now


def _succeed(tally: _Tally, event: TaskSucceeded) -> None:
    done = event.task, event.attempt
    if tally.running is not None and tally.running[:2] == done:
        tally.running = None
    elif tally.dropped is not None and tally.dropped[:2] == done:
        tally.discarded -= tally.dropped[2]
    tally.dropped = *done, 0.0
    tally.tasks += event.child is None
    tally.reading += event.effort.reading_seconds
    tally.adding += event.effort.adding_seconds
    tally.storing += event.effort.storing_seconds
