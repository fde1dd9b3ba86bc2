"""The deciding process's side of a RabbitMQ broker; ``rabbitmq_worker`` is the other (see ``topology`` for the queues).

The process publishes tasks, consumes results, dead letters and telemetry, and knows its workers by what they say and by
whether their own queues are there. When its session ends it makes another, and publishes again what was not confirmed:
a task that arrives twice is done once and reused once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from distsum.brokers.amqp import (
    LockedError,
    NoSuchQueueError,
    Session,
    SessionLostError,
    backoff_seconds,
    open_session,
)
from distsum.brokers.envelope import DELIVERIES_HEADER, Envelope, RefusedError, seal, unseal
from distsum.brokers.local import DELIVERY_LIMIT
from distsum.brokers.refusal import refuse
from distsum.brokers.topology import (
    CONTROL_EXCHANGE,
    DEAD,
    EVERY_WORKER,
    EXCHANGES,
    HEARTBEATS,
    LOCK,
    RESULTS,
    TASKS,
    TASKS_EXCHANGE,
    TELEMETRY_ARGUMENTS,
    TELEMETRY_EXCHANGE,
    is_worker_name,
    queues,
    worker_key,
)
from distsum.errors import BrokerBusyError, StorageError, SupersededError, UnreachableError
from distsum.messages import (
    FROM_WORKER_RESULTS,
    FROM_WORKER_TELEMETRY,
    RUN_TASK,
    Introduce,
    PauseTasks,
    Ping,
    ResumeTasks,
    RunTask,
    TaskDeadLettered,
    TaskFailed,
    TaskId,
    TaskReturned,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
    WorkerLost,
)
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import msgspec

    from distsum.brokers.address import BrokerAddress
    from distsum.brokers.amqp import Delivery
    from distsum.brokers.base import Deliver
    from distsum.messages import ToWorker

log = logging.getLogger(__name__)

LOCK_SECONDS: Final = 40.0
"""Within this the broker notices that the process before us is gone, however it went: a few missed heartbeats."""
_RECONNECTION_SECONDS: Final = 15.0
"""After a new session, workers have this long to come back before they are missed."""
_PREFETCH: Final = 200
_UNCONFIRMED: Final = 256
_FLUSH_SECONDS: Final = 5.0


@dataclass(eq=False)
class _Outgoing:
    """A message that is not confirmed yet."""

    exchange: str
    key: str
    envelope: Envelope
    task: TaskId | None = None
    worker: str | None = None


@dataclass(frozen=True)
class _Purge:
    """Stands in the queue of outgoing messages where tasks are to be dropped."""


@dataclass
class _Task:
    """A published task that nobody has answered for."""

    message: RunTask
    worker: str | None = None
    delivery: int = 0


class RabbitBroker:
    """Serves one virtual host as its only deciding process (see ``Broker``).

    Args:
        address: The virtual host.
        on_failure: Told when the broker can be served no longer; a lost connection is none, and is made again.
        delivery_limit: How often a task is handed out before it is dead-lettered.
        lock_seconds: How long ``start`` waits for another process to let go of the virtual host; None is for ever.
        ping_seconds: A worker that says nothing for so long is asked for.
        on_held: Told False when the connection is lost, and with it the virtual host: another process may serve it at
            once. Told True when it is ours again.
        still_ours: Asked before that whether nobody else has served it meanwhile. If somebody has, what we believe is
            out of date, and ``on_failure`` is told ``SupersededError``. Without it nobody else is expected.
        may_wait: Asked while another process serves the virtual host, until it has answered True; what it raises ends
            the waiting, and is raised by ``start``.

    Attributes:
        was_connected: Whether the broker has been there.
    """

    def __init__(
        self,
        address: BrokerAddress,
        on_failure: Callable[[BaseException], None],
        *,
        delivery_limit: int = DELIVERY_LIMIT,
        lock_seconds: float | None = LOCK_SECONDS,
        ping_seconds: float = 3.0,
        on_held: Callable[[bool], None] | None = None,
        still_ours: Callable[[], Awaitable[bool]] | None = None,
        may_wait: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self._address = address
        self._on_failure = on_failure
        self._on_held = on_held or (lambda _: None)
        self._still_ours = still_ours
        self._may_wait = may_wait
        self._delivery_limit = delivery_limit
        self._lock_seconds = lock_seconds
        self._ping_seconds = ping_seconds
        self._loop = asyncio.get_running_loop()
        self._deliver: Deliver | None = None
        self._runner: asyncio.Task[None] | None = None
        self._serving: Session | None = None
        self._closing = False
        self._outbox: list[_Outgoing | _Purge] = []
        self._unconfirmed: dict[int, _Outgoing] = {}
        self._numbers = itertools.count()
        self._wake = asyncio.Event()
        self._flushed = asyncio.Event()
        self._tasks: dict[TaskId, _Task] = {}
        self._workers: dict[str, float] = {}  # and when each was last heard
        self._joined: set[str] = set()
        self._paused: dict[str, PauseTasks] = {}
        self._ahead: dict[str, float] = {}
        self._redelivered = 0
        self.was_connected = False
        self._session: Session
        self._draw = random.Random()  # noqa: S311 - spreads reconnections, and keeps no secret

    async def start(self, deliver: Deliver) -> None:
        """Begin to deliver; see ``Broker``. What an earlier process left in the queues is dropped.

        Raises:
            UnreachableError: The broker does not answer, or does not let us in.
            BrokerBusyError: Another process serves this virtual host.
        """
        self._deliver = deliver
        session = await open_session(self._address, "distsum master")
        self.was_connected = True
        try:
            await self._take_lock(session)
            await session.declare(EXCHANGES, queues(self._delivery_limit))
            for queue in (TASKS, RESULTS, DEAD):
                await session.purge(queue)
            await self._prepare(session)
        except SessionLostError as error:
            await session.close()
            raise UnreachableError(f"{self._address}: {error}") from None
        except BaseException:
            await session.close()
            raise
        self._session = session
        self._runner = asyncio.create_task(self._run(session))

    def publish(self, message: RunTask) -> None:
        """Queue a task; see ``Broker``."""
        self._tasks[message.task] = _Task(message)
        self._put_task(message)

    def send(self, worker: str, message: ToWorker) -> None:
        """Send to one worker; see ``Broker``."""
        if isinstance(message, Introduce):
            self._joined.discard(worker)  # so that what it answers is told
        self._send_control(worker, message)

    def assign(self, worker: str, message: RunTask) -> None:
        """Hand a task to one worker, through its own queue; see ``Broker``."""
        self._send_control(worker, message)

    def broadcast(self, message: ToWorker) -> None:
        """Send to all workers; see ``Broker``."""
        self._put(_Outgoing(CONTROL_EXCHANGE, EVERY_WORKER, seal(message)))

    def pause(self, worker: str, why: PauseTasks, /) -> None:
        """Hand no more tasks to a worker; see ``Broker``."""
        self._paused[worker] = why
        self._send_control(worker, why)

    def resume(self, worker: str) -> None:
        """Hand tasks to a paused worker again; see ``Broker``."""
        self._paused.pop(worker, None)
        self._send_control(worker, ResumeTasks())

    def purge(self, job: str) -> None:
        """Drop a job's queued tasks; see ``Broker``.

        RabbitMQ can only drop all that waits in a queue. So where some of the job's tasks may be waiting, all are
        dropped, and those of other jobs are published again; the queue is kept short, so they are few.
        """
        waiting = [task for task, held in self._tasks.items() if task.job == job and held.worker is None]
        self._tasks = {task: held for task, held in self._tasks.items() if task.job != job}
        unsent = {each.task for each in self._outbox if isinstance(each, _Outgoing)}
        self._outbox = [
            each for each in self._outbox if isinstance(each, _Purge) or each.task is None or each.task.job != job
        ]
        if set(waiting) - unsent:
            self._put(_Purge())

    async def counts(self) -> dict[str, tuple[int, int]]:
        """Return, for each shared queue, how many messages are ready and how many consumers it has.

        Raises:
            UnreachableError: The connection is lost at the moment.
        """
        session = self._session
        try:
            return {queue.name: await session.counts(queue.name) for queue in queues(self._delivery_limit)}
        except (SessionLostError, NoSuchQueueError) as error:
            raise UnreachableError(f"{self._address}: {str(error) or 'a queue is gone'}") from None

    @property
    def redelivered(self) -> int:
        """Tasks that were started after they had come back from a worker."""
        return self._redelivered

    @property
    def ahead_seconds(self) -> dict[str, float]:
        """How far the clocks of workers are ahead of this one, to about a second, by what they have said."""
        return dict(self._ahead)

    async def close(self) -> None:
        """Let go of the virtual host, so that another process may serve it; workers stay. See ``Broker``."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        if not runner.done():
            self._wake.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_SECONDS):
                    await self._flushed.wait()
            # By the loss of the session, which nothing can swallow, or by cancelling the search for one.
            self._closing = True
            if self._serving is not None:
                self._serving.lose("closed")
            else:
                runner.cancel()
        await asyncio.wait({runner})

    # The session ------------------------------------------------------------------------------------------------------

    async def _run(self, session: Session) -> None:
        """Serve one session after the other until cancelled, or until that cannot go on."""
        try:
            while True:
                self._serving = session
                try:
                    reason = await self._serve(session)
                finally:
                    await session.close()
                if self._closing:
                    return
                self._serving = None
                self._on_held(False)
                log.warning("%s: the connection was lost (%s); connecting again", self._address, reason)
                session = await self._reconnect()
                log.warning("%s: connected again", self._address)
                self._on_held(True)
        except ExceptionGroup as errors:
            self._on_failure(errors.exceptions[0])
        except Exception as error:  # noqa: BLE001 - whoever runs the broker decides what follows
            self._on_failure(error)

    async def _serve(self, session: Session) -> str:
        """Publish and watch until the session ends; return why it did."""
        self._session = session
        # What may not have arrived is published again, before anything newer.
        self._outbox[:0] = [self._unconfirmed[number] for number in sorted(self._unconfirmed)]
        self._unconfirmed.clear()
        self._wake.set()
        reason = ""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(session, group))
                group.create_task(self._watch(session))
                raise SessionLostError(await session.wait_lost())
        except* SessionLostError as lost:
            reason = str(lost.exceptions[0])
        return reason

    async def _reconnect(self) -> Session:
        for attempt in itertools.count():
            await asyncio.sleep(backoff_seconds(attempt, self._draw))
            try:
                session = await open_session(self._address, "distsum master")
            except UnreachableError as error:
                log.warning("%s; trying again", error)
                continue
            try:
                await self._retake_lock(session)
                await session.declare(EXCHANGES, queues(self._delivery_limit))
                await self._prepare(session)
            except (SessionLostError, StorageError) as error:
                log.warning("%s: %s; trying again", self._address, error)
                await session.close()
            except BaseException:
                await session.close()
                raise
            else:
                return session
        raise AssertionError  # the count has no end

    async def _take_lock(self, session: Session) -> None:
        deadline = None if self._lock_seconds is None else self._loop.time() + self._lock_seconds
        waiting = settled = False
        while True:
            try:
                await session.declare_own(LOCK)
            except LockedError:
                if deadline is not None and self._loop.time() >= deadline:
                    raise BrokerBusyError(
                        f"{self._address} is served by another process; end that one first, or use another virtual host"
                    ) from None
            else:
                return
            if not waiting:
                waiting = True
                log.warning("%s is served by another process; waiting for its end", self._address)
            if self._may_wait is not None and not settled:
                settled = await self._may_wait()
            await asyncio.sleep(min(1.0, (self._lock_seconds or 4.0) / 4))

    async def _retake_lock(self, session: Session) -> None:
        """Take the virtual host again, unless another process serves it now or has done so since.

        Raises:
            SupersededError: It does or has, or our own lost connection still counts, which cannot be told apart.
        """
        if self._still_ours is None:
            await self._take_lock(session)
            return
        try:
            await session.declare_own(LOCK)
        except LockedError:
            ours = False
        else:
            ours = await self._still_ours()
        if not ours:
            raise SupersededError(f"{self._address} was served by another process meanwhile")

    async def _prepare(self, session: Session) -> None:
        """Consume, and ask the workers that are there to say so."""
        telemetry = f"distsum.telemetry.{secrets.token_hex(4)}"
        await session.declare_own(telemetry, TELEMETRY_EXCHANGE, (HEARTBEATS,), TELEMETRY_ARGUMENTS)

        async def on_result(delivery: Delivery) -> None:
            await self._take_result(session, delivery)

        async def on_dead(delivery: Delivery) -> None:
            await self._take_dead(session, delivery)

        async def on_telemetry(delivery: Delivery) -> None:
            await self._take_telemetry(session, delivery)

        await session.consume(RESULTS, on_result, prefetch=_PREFETCH)
        await session.consume(DEAD, on_dead, prefetch=_PREFETCH)
        await session.consume(telemetry, on_telemetry, prefetch=None)
        await self._check_consumers(session)
        await session.publish(CONTROL_EXCHANGE, EVERY_WORKER, seal(Introduce()), persistent=False)
        for worker, why in self._paused.items():
            # It may not have arrived, or be one that ends when a worker introduces itself.
            await session.publish(CONTROL_EXCHANGE, worker_key(worker), seal(why), persistent=False)
        missed = self._loop.time() + _RECONNECTION_SECONDS
        self._workers = dict.fromkeys(self._workers, missed)

    async def _check_consumers(self, session: Session) -> None:
        """End a session whose consumers the broker has forgotten, as has been seen after reconnections."""
        for queue in (RESULTS, DEAD):
            if not await session.consumers(queue):
                session.lose(f"nobody consumes {queue}")

    # What goes out ----------------------------------------------------------------------------------------------------

    def _send_control(self, worker: str, message: msgspec.Struct) -> None:
        self._put(_Outgoing(CONTROL_EXCHANGE, worker_key(worker), seal(message), worker=worker))

    def _put_task(self, message: RunTask) -> None:
        self._put(_Outgoing(TASKS_EXCHANGE, TASKS, seal(message), task=message.task))

    def _put(self, outgoing: _Outgoing | _Purge) -> None:
        self._outbox.append(outgoing)
        self._flushed.clear()
        self._wake.set()

    async def _pump(self, session: Session, group: asyncio.TaskGroup) -> None:
        """Publish what is to go out, in order, many at a time."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox and len(self._unconfirmed) < _UNCONFIRMED:
                if isinstance(self._outbox[0], _Purge):
                    if self._unconfirmed:
                        break  # What was published before may not arrive after.
                    self._outbox.pop(0)
                    await self._purge_queue(session)
                    continue
                outgoing = self._outbox.pop(0)
                assert isinstance(outgoing, _Outgoing)
                number = next(self._numbers)
                self._unconfirmed[number] = outgoing
                group.create_task(self._publish(session, number, outgoing))
            if not self._outbox and not self._unconfirmed:
                self._flushed.set()

    async def _publish(self, session: Session, number: int, outgoing: _Outgoing) -> None:
        arrived = await session.publish(
            outgoing.exchange, outgoing.key, outgoing.envelope, persistent=outgoing.task is not None
        )
        if not arrived and outgoing.task is not None:
            session.lose(f"the queue {TASKS} is gone")  # A new session makes it again, and this is published again.
            return
        del self._unconfirmed[number]
        self._wake.set()
        if not arrived and outgoing.worker is not None:
            self._lose_worker(outgoing.worker, "is gone from the broker")

    async def _purge_queue(self, session: Session) -> None:
        try:
            await session.purge(TASKS)
        except SessionLostError:
            self._outbox.insert(0, _Purge())
            raise
        unsent = {each.task for each in self._outbox if isinstance(each, _Outgoing)}
        for held in self._tasks.values():
            if held.worker is None and held.message.task not in unsent:
                self._put_task(held.message)

    # What comes in ----------------------------------------------------------------------------------------------------

    async def _take_result(self, session: Session, delivery: Delivery) -> None:
        try:
            message = _from_worker(delivery.envelope, FROM_WORKER_RESULTS)
        except RefusedError as error:
            await refuse(session, delivery, RESULTS, str(error))
            return
        if isinstance(message, WorkerLost):
            self._lose_worker(message.worker, message.reason)
        else:
            self._hear(message.worker)
            if isinstance(message, TaskSucceeded | TaskFailed):
                self._take_off(message)
            if not isinstance(message, WorkerJoined) or message.worker not in self._joined:
                self._tell(message)
            if isinstance(message, WorkerJoined):
                self._joined.add(message.worker)
                self._match_pause(message)
        await delivery.acknowledge()

    def _match_pause(self, message: WorkerJoined) -> None:
        """Tell a worker that has been away again whether it is paused."""
        if (why := self._paused.get(message.worker)) is not None:
            self._send_control(message.worker, why)

    def _take_off(self, message: TaskSucceeded | TaskFailed) -> None:
        """Forget a task that is done, or the attempt at it that the queue has handed out; not for one assigned."""
        held = self._tasks.get(message.task)
        done = isinstance(message, TaskSucceeded) and message.child is None
        if held is not None and (done or held.message.attempt == message.attempt):
            del self._tasks[message.task]

    async def _take_telemetry(self, session: Session, delivery: Delivery) -> None:
        try:
            message = _from_worker(delivery.envelope, FROM_WORKER_TELEMETRY)
        except RefusedError as error:
            await refuse(session, delivery, TELEMETRY_EXCHANGE, str(error))
            return
        self._hear(message.worker)
        if delivery.sent_seconds is not None:
            # It is told in whole seconds, cut: so half a second more is the best guess.
            self._ahead[message.worker] = delivery.sent_seconds + 0.5 - time.time()
        held = self._tasks.get(message.task) if message.task is not None else None
        if held is not None and held.message.attempt == message.attempt:
            if isinstance(message, TaskStarted):
                self._begun(held, message)
            elif held.worker is None:
                held.worker = message.worker
        self._tell(message)

    def _begun(self, held: _Task, message: TaskStarted) -> None:
        """Take note of who has a task. Who had it before has lost its connection, though none may have told so yet."""
        self._redelivered += message.delivery > 1
        if message.delivery < held.delivery:
            return  # told late by who had it before
        if held.worker is not None and message.delivery > max(1, held.delivery):
            self._tell(TaskReturned(held.message.task, message.delivery - 1))
        held.worker, held.delivery = message.worker, message.delivery

    async def _take_dead(self, session: Session, delivery: Delivery) -> None:
        try:
            message = unseal(delivery.envelope, RUN_TASK)
        except RefusedError as error:
            await refuse(session, delivery, DEAD, str(error))
            return
        held = self._tasks.pop(message.task, None)
        if held is not None:
            deliveries = delivery.envelope.headers.get(DELIVERIES_HEADER)
            count = deliveries if type(deliveries) is int else self._delivery_limit
            self._tell(TaskDeadLettered(message.task, count))
        await delivery.acknowledge()

    def _tell(self, message: msgspec.Struct) -> None:
        assert self._deliver is not None
        self._deliver(message)  # type: ignore[arg-type]  # every caller passes a member of the union

    # Workers ----------------------------------------------------------------------------------------------------------

    def _hear(self, worker: str) -> None:
        self._workers[worker] = max(self._loop.time(), self._workers.get(worker, 0.0))

    async def _watch(self, session: Session) -> None:
        """Ask for workers that say nothing: a message to one whose queue is gone comes back."""
        ping = seal(Ping())
        while True:
            await asyncio.sleep(self._ping_seconds)
            silent = self._loop.time() - self._ping_seconds
            for worker in [worker for worker, heard in self._workers.items() if heard <= silent]:
                key = worker_key(worker)
                if not await session.publish(CONTROL_EXCHANGE, key, ping, persistent=False, expiration_seconds=1.0):
                    self._lose_worker(worker, "is gone from the broker")
            await self._check_consumers(session)

    def _lose_worker(self, worker: str, reason: str) -> None:
        self._workers.pop(worker, None)
        self._ahead.pop(worker, None)
        self._paused.pop(worker, None)
        if worker not in self._joined:
            return
        self._joined.remove(worker)
        self._tell(WorkerLost(worker, reason))
        for held in self._tasks.values():
            if held.worker == worker:
                held.worker = None
                self._tell(TaskReturned(held.message.task, held.delivery))


def _from_worker(envelope: Envelope, decoder: msgspec.msgpack.Decoder[Any]) -> Any:
    """Return what a worker says, which has a name that it can be answered by.

    Raises:
        RefusedError: It is none of this channel's messages, or from nobody.
    """
    message = unseal(envelope, decoder)
    if not is_worker_name(message.worker):
        raise RefusedError(f"no worker is called {printable(message.worker, 40)!r}")
    return message
