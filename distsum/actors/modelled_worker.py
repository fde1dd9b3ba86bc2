"""A worker that computes nothing: how long it takes, what it says, and everything that may happen to it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from distsum import __version__
from distsum.actors.modelled_store import MissingChildrenError
from distsum.messages import (
    PROTOCOL,
    CancelTask,
    Effort,
    FailureKind,
    Heartbeat,
    Introduce,
    RunTask,
    Shutdown,
    TaskFailed,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from distsum.actors.modelled_broker import Channel, ModelledBroker
    from distsum.actors.modelled_store import ModelledStore
    from distsum.actors.simulated import SimulatedSystem
    from distsum.messages import TaskId

BYTES_PER_SECOND = 100_000_000
"""What a worker of speed 1 reads."""


class WorkerModel(msgspec.Struct, frozen=True):
    """How a worker behaves.

    Attributes:
        host: Where it runs.
        speed: Seconds of work that it does in a second.
        start_seconds: From its process's start until it joins.
        heartbeat_seconds: Time between heartbeats.
        object_seconds: What opening or storing an object takes, however fast it computes.
        failures: Share of its attempts that fail in a way that may pass.
        failure_kind: As what they are told.
        reconnect_seconds: What it takes to connect again once it can.
    """

    host: str
    speed: float = 1.0
    start_seconds: float = 0.5
    heartbeat_seconds: float = 2.0
    object_seconds: float = 0.001
    failures: float = 0.0
    failure_kind: FailureKind = "error"
    reconnect_seconds: float = 1.0


class _Attempt:
    """The task a worker works on: seconds of work in all, done up to a moment."""

    __slots__ = ("as_of", "done", "fails", "message", "ticket", "total")

    def __init__(self, message: RunTask, total: float, now: float, *, fails: bool) -> None:
        self.message = message
        self.total = total
        self.fails = fails
        self.done = 0.0
        self.as_of = now
        self.ticket = 0


class ModelledWorker:
    """One worker process, which lives until it crashes, leaves or is told to.

    Args:
        name: Its name at the broker.
        model: How it behaves.
        system: Where it lives.
        broker: What it takes tasks from.
        store: Where partials lie.
        work_seconds: Says for a task what a worker of speed 1 takes for it.
        draw: Where its chances come from.
        on_end: Told when its process has ended.

    Attributes:
        frozen: Whether it is stopped (as by SIGSTOP): it does nothing, and does not know.
        attempts: Attempts begun.
        failed: How many of its attempts failed of themselves, by task.
        busy_seconds: Time with an attempt under way.
    """

    def __init__(
        self,
        name: str,
        model: WorkerModel,
        system: SimulatedSystem,
        broker: ModelledBroker,
        store: ModelledStore,
        work_seconds: Callable[[TaskId], float],
        draw: random.Random,
        on_end: Callable[[ModelledWorker], None],
    ) -> None:
        self.name = name
        self.model = model
        self.frozen = False
        self.gone = False
        self.attempts = 0
        self.busy_seconds = 0.0
        self.failed: dict[TaskId, int] = {}
        self._system = system
        self._broker = broker
        self._store = store
        self._work_seconds = work_seconds
        self._draw = draw
        self._on_end = on_end
        self._speed = model.speed
        self._partitioned = False
        self._leaving = False
        self._channel: Channel | None = None
        self._attempt: _Attempt | None = None
        self._finishing = False
        self._waiting: deque[RunTask] = deque()
        self._inbox: list[tuple[Channel, msgspec.Struct]] = []
        self._undelivered: list[TaskSucceeded | TaskFailed] = []
        system.after(model.start_seconds, self._connect)
        # Not all of them at the same moment.
        system.after(model.start_seconds + model.heartbeat_seconds * draw.random(), self._beat)

    # What befalls it --------------------------------------------------------------------------------------------------

    def crash(self) -> None:
        """End at once, in the middle of whatever it does."""
        if self.gone:
            return
        self.gone = True
        self._attempt = None
        self._waiting.clear()
        if self._channel is not None:
            self._broker.break_off(self._channel)
        self._on_end(self)

    def vanish(self) -> None:
        """End with its host: nobody closes its channel, so a server only notices the silence."""
        if self._channel is not None:
            self._broker.cut(self._channel)
        self.crash()

    def freeze(self) -> None:
        """Stop, until ``thaw``."""
        if self.gone or self.frozen:
            return
        self._account()
        self.frozen = True
        self._reschedule()
        if self._channel is not None:
            self._broker.fall_silent(self._channel)

    def thaw(self) -> None:
        """Go on as if nothing had been."""
        if self.gone or not self.frozen:
            return
        self._account()
        self.frozen = False
        self._reschedule()
        inbox, self._inbox = self._inbox, []
        for channel, message in inbox:
            self.receive(channel, message)
        if self._channel is None:
            self._system.after(self.model.reconnect_seconds, self._connect)

    def set_speed(self, speed: float) -> None:
        """Work faster or slower from now on."""
        self._account()
        self._speed = speed
        self._reschedule()

    def partition(self) -> None:
        """Lose touch with the broker, though not with the store, until ``heal``."""
        self._partitioned = True
        if self._channel is not None:
            self._broker.cut(self._channel)

    def heal(self) -> None:
        """Reach the broker again: by the old channel, if nobody has noticed."""
        self._partitioned = False
        if self._channel is not None:
            self._broker.mend(self._channel)
        else:
            self._system.after(self.model.reconnect_seconds, self._connect)

    def leave(self, *, hand_back: bool) -> None:
        """Finish what it has, or hand it back, and go."""
        self._leaving = True
        if hand_back and self._attempt is not None and not self._finishing and not self.frozen:
            self._end(self._failure(self._attempt.message, "cancelled", "the worker leaves"))
        if self._attempt is None and not self._waiting and not self.frozen:
            self.crash()

    # What the broker calls --------------------------------------------------------------------------------------------

    def receive(self, channel: Channel, message: msgspec.Struct) -> None:
        """Take a message."""
        if self.gone or channel is not self._channel:
            return
        if self.frozen:
            self._inbox.append((channel, message))
            return
        match message:
            case RunTask():
                self._waiting.append(message)
                self._begin_next()
            case CancelTask():
                self._cancel(message)
            case Introduce():
                self._broker.join(channel, self._introduction())
            case Shutdown():
                self.crash()

    def disconnected(self, channel: Channel) -> None:
        """The broker has given up a channel: what came by it is handed to others now, and what runs goes on."""
        if channel is not self._channel:
            return
        self._channel = None
        self._waiting.clear()
        if not self.gone and not self.frozen and not self._partitioned:
            self._system.after(self.model.reconnect_seconds, self._connect)

    def not_delivered(self, result: TaskSucceeded | TaskFailed) -> None:
        """A result did not get through; it is sent again by the next channel."""
        self._undelivered.append(result)

    # What it does -----------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self.gone or self.frozen or self._partitioned or self._channel is not None:
            return
        channel = self._channel = self._broker.connect(self)
        self._broker.join(channel, self._introduction())
        undelivered, self._undelivered = self._undelivered, []
        for result in undelivered:
            self._broker.finish(channel, result)

    def _introduction(self) -> WorkerJoined:
        return WorkerJoined(
            self.name,
            host=self.model.host,
            pid=1,
            version=__version__,
            protocol=PROTOCOL,
            baseline_bytes=0,
            start_seconds=self.model.start_seconds,
        )

    def _beat(self) -> None:
        if self.gone:
            return
        if not self.frozen and self._channel is not None:
            self._account()
            attempt = self._attempt
            task, number = (attempt.message.task, attempt.message.attempt) if attempt is not None else (None, 0)
            self._broker.report(self._channel, Heartbeat(self.name, task, self._bytes_read(), attempt=number))
        self._system.after(self.model.heartbeat_seconds, self._beat)

    def _cancel(self, message: CancelTask) -> None:
        if (attempt := self._attempt) is None or self._finishing:
            return
        running = attempt.message
        if (running.task, running.attempt) == (message.task, message.attempt):
            self._end(self._failure(running, "cancelled", "cancelled"))

    def _failure(self, message: RunTask, kind: FailureKind, reason: str, missing: tuple[int, ...] = ()) -> TaskFailed:
        return TaskFailed(self.name, message.task, kind, reason, missing=missing, attempt=message.attempt)

    def _begin_next(self) -> None:
        if self._attempt is not None or not self._waiting:
            return
        message = self._waiting.popleft()
        task = message.task
        self.attempts += 1
        total = self.model.object_seconds
        fails = False
        if not self._store.is_stored(task) and not self._store.missing(task):
            work = self._work_seconds(task)
            fails = self.model.failures > 0.0 and self._draw.random() < self.model.failures
            total += work * self._draw.random() if fails else work
        self._attempt = _Attempt(message, total, self._system.clock, fails=fails)
        if self._channel is not None:
            self._broker.report(self._channel, TaskStarted(self.name, task, message.delivery, message.attempt))
        self._reschedule()

    def _account(self) -> None:
        """Bring the work done up to now."""
        if (attempt := self._attempt) is not None:
            elapsed = self._system.clock - attempt.as_of
            self.busy_seconds += elapsed
            if not self.frozen:
                attempt.done += elapsed * self._speed
            attempt.as_of = self._system.clock

    def _reschedule(self) -> None:
        """Put the end of the attempt on the agenda; one that was there before has an old ticket, and counts no more."""
        attempt = self._attempt
        if attempt is None or self._finishing:
            return
        attempt.ticket += 1
        if not self.frozen and self._speed > 0:
            left = max(0.0, attempt.total - attempt.done) / self._speed
            self._system.after(left, self._worked, attempt, attempt.ticket)

    def _worked(self, attempt: _Attempt, ticket: int) -> None:
        """Store the node, or fail; the report of it is another step, before which the worker may die."""
        if attempt is not self._attempt or ticket != attempt.ticket:
            return
        self._account()
        task = attempt.message.task
        if task in self._store.poison:
            self.crash()
            return
        if attempt.fails:
            self.failed[task] = self.failed.get(task, 0) + 1
            self._end(self._failure(attempt.message, self.model.failure_kind, "OSError: flaky"))
            return
        try:
            covered, reused = self._store.make(task)
        except MissingChildrenError as error:
            self._end(self._failure(attempt.message, "blocked", "partials are missing", error.missing))
            return
        self._finishing = True
        read = 0 if reused else self._bytes_read()
        effort = Effort(read, 0, 1, 1, 0.0, attempt.total, 0.0, 0.0, 0)
        receipt = b"%d" % task.tile
        inputs, number = covered.stop - covered.start, attempt.message.attempt
        result = TaskSucceeded(self.name, task, inputs, (), reused, receipt, effort, number)
        self._system.after(self.model.object_seconds, self._stored, attempt, result)

    def _stored(self, attempt: _Attempt, result: TaskSucceeded) -> None:
        if attempt is not self._attempt:
            return
        if self.frozen:
            self._system.after(self.model.heartbeat_seconds, self._stored, attempt, result)
            return
        self._end(result)

    def _end(self, result: TaskSucceeded | TaskFailed) -> None:
        self._account()
        self._attempt = None
        self._finishing = False
        if self._channel is not None:
            self._broker.finish(self._channel, result)
        else:
            self._undelivered.append(result)
        self._begin_next()
        if self._leaving and self._attempt is None:
            self.crash()

    def _bytes_read(self) -> int:
        return int(min(self._attempt.done, self._attempt.total) * BYTES_PER_SECOND) if self._attempt is not None else 0
