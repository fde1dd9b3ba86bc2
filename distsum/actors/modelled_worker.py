"""A worker that computes nothing: how long it takes, what it says, and everything that may happen to it."""

from __future__ import annotations

import math
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
    PauseTasks,
    RunTask,
    ShareTask,
    Shutdown,
    TaskFailed,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
)
from distsum.slices import node_slices

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from distsum.actors.modelled_broker import Channel, ModelledBroker
    from distsum.actors.modelled_store import ModelledStore
    from distsum.actors.simulated import SimulatedSystem
    from distsum.messages import TaskId

BYTES_PER_SECOND = 100_000_000
"""What a worker of speed 1 reads."""
_HARDLY_BEGUN = 1e-6
"""Seconds of work that rounding may make of none."""
_WORK_FOR_STORING = 25.0
"""As that of ``worker.checkpoints``."""


class WorkerModel(msgspec.Struct, frozen=True):
    """How a worker behaves.

    Attributes:
        host: Where it runs.
        speed: Seconds of work that it does in a second.
        start_seconds: From its process's start until it joins.
        heartbeat_seconds: Time between heartbeats.
        object_seconds: What opening or storing an object takes, however fast it computes.
        object_spread: How many times as long it may take longer, by chance.
        failures: Share of its attempts that fail in a way that may pass.
        failure_kind: As what they are told.
        reconnect_seconds: What it takes to connect again once it can.
        checkpoint_seconds: As soon as it has done so much of a task that is not stored, it stores that.
    """

    host: str
    speed: float = 1.0
    start_seconds: float = 0.5
    heartbeat_seconds: float = 2.0
    object_seconds: float = 0.001
    object_spread: float = 0.0
    failures: float = 0.0
    failure_kind: FailureKind = "error"
    reconnect_seconds: float = 1.0
    checkpoint_seconds: float = 3.0


class Holding(msgspec.Struct, frozen=True):
    """What an attempt under way takes of a worker's memory: inputs that are open, and accumulators of one tile."""

    open_files: int
    accumulators: int


class _Attempt:
    """The task a worker works on: seconds of work in all, done up to a moment.

    ``ends`` says after how much work each child of the node is finished, or each slice, and ``whole`` how much there is
    without a failure.
    ``passed`` are the children that were found stored, ``taken`` is the work of which what was stored has relieved it.
    A file, or a partial, takes ``each``, after ``overhead``; as many of the ``finished`` ones would be lost as are more
    than ``kept``; none of a slice are stored. ``taken_share`` of all was found stored, and the work of a slice is the
    share that was ``unstored`` when it began.
    """

    __slots__ = (
        "as_of",
        "began",
        "child",
        "done",
        "each",
        "ends",
        "fails",
        "kept",
        "message",
        "overhead",
        "passed",
        "shared",
        "taken",
        "taken_share",
        "ticket",
        "total",
        "unstored",
        "whole",
    )

    def __init__(self, message: RunTask, whole: float, total: float, ends: tuple[float, ...], now: float) -> None:
        self.message = message
        self.whole = whole
        self.total = total
        self.ends = ends
        self.fails = False
        self.done = 0.0
        self.overhead = self.each = 0.0
        self.kept = 0
        self.taken = self.taken_share = 0.0
        self.unstored = 1.0
        self.passed: tuple[int, ...] = ()
        self.began = self.as_of = now
        self.shared = message.resume or message.delivery > 1
        self.child = 0
        self.ticket = 0

    @property
    def progress(self) -> float:
        return min(1.0, self.done / self.whole) if self.whole else 0.0

    @property
    def finished(self) -> int:
        return max(0, int((min(self.done, self.whole) - self.overhead) / self.each + 1e-6)) if self.each else 0

    def jump(self, done: float) -> None:
        """Go past what others have made, and stored."""
        before = self.finished
        self.taken += done - self.done
        self.taken_share += (done - max(self.done, self.overhead)) / (self.whole - self.overhead) * self.unstored
        self.done = done
        self.kept += self.finished - before

    @property
    def bytes_read(self) -> int:
        return max(0, int((min(self.done, self.total) - self.taken) * BYTES_PER_SECOND))


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
        paused: What it was told when it was paused; None where it takes tasks.
        holds: What is held for attempts, by their numbers.
        failed: How many of its attempts failed of themselves, by task.
        busy_seconds: Time with an attempt under way.
        worked_seconds: Work done, in seconds of a worker of speed 1.
        committed_seconds: The work that the nodes took which it was the first to store.
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
        self.worked_seconds = 0.0
        self.committed_seconds = 0.0
        self.paused: PauseTasks | None = None
        self.holds: dict[int, Holding] = {}
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
        self._unwanted: set[int] = set()
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
        self._account()  # what it has stored until now is there
        self.gone = True
        self._attempt = None
        self.holds.clear()
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
            case ShareTask():
                self._share(message)
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
        self._unwanted.clear()
        if not self.gone and not self.frozen and not self._partitioned:
            self._system.after(self.model.reconnect_seconds, self._connect)

    def not_delivered(self, result: TaskSucceeded | TaskFailed) -> None:
        """A result did not get through; it is sent again by the next channel."""
        self._undelivered.append(result)

    # What it does -----------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self.gone or self.frozen or self._partitioned or self._channel is not None:
            return
        introduction = self._introduction()
        channel = self._channel = self._broker.connect(self)
        self._broker.join(channel, introduction)
        undelivered, self._undelivered = self._undelivered, []
        for result in undelivered:
            self._broker.finish(channel, result)

    def _introduction(self) -> WorkerJoined:
        if self.paused is not None and not self.paused.reason:
            self.paused = None  # it only rests, of which another master knows nothing
        told = self.paused or PauseTasks()
        return WorkerJoined(
            self.name,
            host=self.model.host,
            pid=1,
            version=__version__,
            protocol=PROTOCOL,
            baseline_bytes=0,
            start_seconds=self.model.start_seconds,
            paused=told.reason,
            quarantined=told.quarantined,
        )

    def _beat(self) -> None:
        if self.gone:
            return
        if not self.frozen and self._channel is not None:
            self._account()
            beat = Heartbeat(self.name, None, 0)
            if (attempt := self._attempt) is not None:
                message = attempt.message
                beat = Heartbeat(
                    self.name,
                    message.task,
                    attempt.bytes_read,
                    attempt=message.attempt,
                    progress=attempt.progress,
                )
            self._broker.report(self._channel, beat)
        self._system.after(self.model.heartbeat_seconds, self._beat)

    def _cancel(self, message: CancelTask) -> None:
        wanted = message.task, message.attempt
        self._unwanted |= {each.attempt for each in self._waiting if (each.task, each.attempt) == wanted}
        if (attempt := self._attempt) is None or self._finishing:
            return
        running = attempt.message
        if (running.task, running.attempt) == wanted:
            self._end(self._failure(running, "cancelled", "cancelled"))

    def _share(self, message: ShareTask) -> None:
        attempt = self._attempt
        if attempt is not None and (attempt.message.task, attempt.message.attempt) == (message.task, message.attempt):
            self._account()
            attempt.shared = True
            self._reschedule()

    def _failure(self, message: RunTask, kind: FailureKind, reason: str, missing: tuple[int, ...] = ()) -> TaskFailed:
        self._account()
        running = self._attempt
        read = running.bytes_read if running is not None and running.message.attempt == message.attempt else 0
        return TaskFailed(
            self.name,
            message.task,
            kind,
            reason,
            missing=missing,
            attempt=message.attempt,
            child=message.child,
            bytes_read=read,
        )

    def _begin_next(self) -> None:
        if self._attempt is not None or not self._waiting:
            return
        message = self._waiting.popleft()
        if message.attempt in self._unwanted:
            self._unwanted.remove(message.attempt)
            self._report(self._failure(message, "cancelled", "cancelled"))
            self._begin_next()
            return
        task = message.task
        self.attempts += 1
        attempt = self._attempt = self._new_attempt(message)
        self._hold(message)
        if self._channel is not None:
            started = TaskStarted(self.name, task, message.delivery, message.attempt, message.child)
            self._broker.report(self._channel, started)
        self._take_sums(attempt)
        self._take_stored(attempt)
        self._reschedule()

    def _hold(self, message: RunTask) -> None:
        """Open the first inputs of an attempt, and make room for its sums."""
        task = message.task
        spec, tree = self._store.spec(task.job), self._store.tree(task.job)
        first, last = tree.children(task.phase, task.index)
        self.holds[message.attempt] = Holding(
            min(spec.max_open_files, last - first), max(1, min(tree.exponent, tree.levels))
        )

    def _object_seconds(self) -> float:
        """Return what the next request to the store takes."""
        model = self.model
        usual = model.object_seconds * self._store.slowness
        return usual * (1.0 + model.object_spread * self._draw.random()) if model.object_spread else usual

    def _new_attempt(self, message: RunTask) -> _Attempt:
        task = message.task
        overhead = self._object_seconds()
        now = self._system.clock
        made = message.child in self._store.children.get(task, ())
        if made or self._store.is_stored(task) or self._store.missing(task):
            return _Attempt(message, overhead, overhead, (), now)
        work = self._work_seconds(task)
        tree = self._store.tree(task.job)
        first, last = tree.children(task.phase, task.index)
        splits = tree.splits(task.phase, task.index)
        each, unstored = work / (last - first), 1.0
        if message.sliced:
            # What the one who made it as a whole has stored holds a part of each slice.
            unstored -= min(self._store.sums.get(task, {}).get(None, 0), last - first - 1) / (last - first)
            count = len(node_slices(self._store.spec(task.job), task.phase, task.tile))
            work, each = work * unstored, 0.0
            splits, first, last = tuple((place, place + 1) for place in range(count)), 0, count
        if message.child is not None:
            low, high = splits[message.child]
            work *= (high - low) / (last - first)
            splits = ()
        ends = tuple(overhead + work * (high - first) / (last - first) for _, high in splits)
        fails = self.model.failures > 0.0 and self._draw.random() < self.model.failures
        whole = overhead + work
        total = overhead + work * self._draw.random() if fails else whole
        attempt = _Attempt(message, whole, total, ends, now)
        attempt.fails = fails
        attempt.overhead, attempt.each = overhead, each
        attempt.unstored, attempt.taken_share = unstored, 1.0 - unstored
        return attempt

    def _take_sums(self, attempt: _Attempt) -> None:
        """Begin after what earlier attempts have stored, if it may be that there were any."""
        message = attempt.message
        if not (attempt.shared or message.child is not None) or not attempt.each:
            return
        kept = self._store.sums.get(message.task, {}).get(message.child, 0)
        if kept:
            attempt.jump(attempt.overhead + kept * attempt.each)
        while attempt.child < len(attempt.ends) and attempt.done >= attempt.ends[attempt.child] - _HARDLY_BEGUN:
            attempt.passed += (attempt.child,)
            attempt.child += 1

    def _take_stored(self, attempt: _Attempt) -> None:
        """Go past the children that others have stored, from where the attempt stands, if it looks for such."""
        if not attempt.shared:
            return
        stored = self._store.children.get(attempt.message.task, set())
        while attempt.child < len(attempt.ends) and attempt.child in stored:
            start = attempt.ends[attempt.child - 1] if attempt.child else 0.0
            if attempt.done > start + _HARDLY_BEGUN:
                return  # it is in the middle of this one, and makes it to the end
            attempt.jump(attempt.ends[attempt.child])
            attempt.passed += (attempt.child,)
            attempt.child += 1

    def _store_children(self, attempt: _Attempt) -> None:
        """Store the children that are finished, if others look for them."""
        while attempt.child < len(attempt.ends) and attempt.done >= attempt.ends[attempt.child] - 1e-9:
            if attempt.shared and not attempt.message.sliced:
                self._store.children.setdefault(attempt.message.task, set()).add(attempt.child)
            attempt.child += 1

    def _store_sums(self, attempt: _Attempt) -> None:
        """Store what is finished whenever so much of it would be lost that it is worth it."""
        if not attempt.each:
            return
        least = max(self.model.checkpoint_seconds, _WORK_FOR_STORING * self.model.object_seconds)
        several = max(1, math.ceil(least * self._speed / attempt.each - 1e-6))
        times = (attempt.finished - attempt.kept) // several
        if times > 0 and attempt.done < attempt.whole:
            attempt.kept += times * several
            sums = self._store.sums.setdefault(attempt.message.task, {})
            sums[attempt.message.child] = max(attempt.kept, sums.get(attempt.message.child, 0))

    def _account(self) -> None:
        """Bring the work done up to now."""
        if (attempt := self._attempt) is not None:
            elapsed = self._system.clock - attempt.as_of
            self.busy_seconds += elapsed
            if not self.frozen:
                attempt.done += elapsed * self._speed
                self.worked_seconds += elapsed * self._speed
                self._store_children(attempt)
                self._store_sums(attempt)
            attempt.as_of = self._system.clock

    def _reschedule(self) -> None:
        """Put the end of the attempt on the agenda; one that was there before has an old ticket, and counts no more."""
        attempt = self._attempt
        if attempt is None or self._finishing:
            return
        attempt.ticket += 1
        if not self.frozen and self._speed > 0:
            left = max(0.0, attempt.total - attempt.done) / self._speed
            if attempt.shared and attempt.child < len(attempt.ends):
                # At the beginning of each child it looks whether others have stored that one.
                left = min(left, max(0.0, attempt.ends[attempt.child] - attempt.done) / self._speed)
            self._system.after(left, self._worked, attempt, attempt.ticket)

    def _worked(self, attempt: _Attempt, ticket: int) -> None:
        """Store the node, or fail; the report of it is another step, before which the worker may die."""
        if attempt is not self._attempt or ticket != attempt.ticket:
            return
        self._account()
        task = attempt.message.task
        self._take_stored(attempt)
        if attempt.done < attempt.total - 1e-9:
            self._reschedule()
            return
        if task in self._store.poison:
            self.crash()
            return
        kind: FailureKind | None = self.model.failure_kind if attempt.fails else None
        if self._store.errors > 0.0 and self._draw.random() < self._store.errors:
            kind = "storage"
        if kind is not None:
            self.failed[task] = self.failed.get(task, 0) + 1
            self._end(self._failure(attempt.message, kind, "OSError: flaky"))
            return
        if (child := attempt.message.child) is not None:
            self._store.children.setdefault(task, set()).add(child)
            self._store.sums.get(task, {}).pop(child, None)
            self._finishing = True
            self._system.after(self._object_seconds(), self._stored, attempt, self._success(attempt, 0, reused=False))
            return
        try:
            covered, reused = self._store.make(task)
        except MissingChildrenError as error:
            self._end(self._failure(attempt.message, "blocked", "partials are missing", error.missing))
            return
        self._finishing = True
        self.committed_seconds += (
            0.0 if reused else attempt.overhead + (attempt.whole - attempt.overhead) / attempt.unstored
        )
        inputs = covered.stop - covered.start
        result = self._success(attempt, inputs, reused=reused)
        self._system.after(self._object_seconds(), self._stored, attempt, result)

    def _success(self, attempt: _Attempt, inputs: int, *, reused: bool) -> TaskSucceeded:
        message = attempt.message
        read = 0 if reused else attempt.bytes_read
        effort = Effort(read, 0, 1, 1, 0.0, self._system.clock - attempt.began, 0.0, 0.0, 0)
        receipt = b"%d" % message.task.tile
        return TaskSucceeded(
            worker=self.name,
            task=message.task,
            inputs=inputs,
            skipped=(),
            reused=reused,
            receipt=receipt,
            effort=effort,
            attempt=message.attempt,
            child=message.child,
            taken=attempt.passed,
            taken_share=attempt.taken_share,
        )

    def _stored(self, attempt: _Attempt, result: TaskSucceeded) -> None:
        if attempt is not self._attempt:
            return
        if self.frozen:
            self._system.after(self.model.heartbeat_seconds, self._stored, attempt, result)
            return
        self._end(result)

    def _report(self, result: TaskSucceeded | TaskFailed) -> None:
        if self._channel is not None:
            self._broker.finish(self._channel, result)
        else:
            self._undelivered.append(result)

    def _end(self, result: TaskSucceeded | TaskFailed) -> None:
        self._account()
        self._attempt = None
        self.holds.pop(result.attempt, None)
        self._finishing = False
        self._report(result)
        self._begin_next()
        if self._leaving and self._attempt is None:
            self.crash()
