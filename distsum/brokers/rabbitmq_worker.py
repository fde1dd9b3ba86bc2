"""A worker's side of a RabbitMQ broker: blocking calls for the worker's threads, over an event loop in another.

A task is acknowledged after its result is confirmed. While a worker is cut off it goes on with its task, and delivers
the result when it is back; the broker has handed the task to another by then, which finds the partial stored.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import logging
import queue
import random
import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from distsum import __version__
from distsum.brokers.amqp import NoSuchQueueError, SessionLostError, backoff_seconds, open_session
from distsum.brokers.base import LEFT, ChannelClosedError
from distsum.brokers.envelope import (
    DELIVERIES_HEADER,
    PROTOCOL_HEADER,
    Envelope,
    MessageTooLongError,
    RefusedError,
    seal,
    unseal,
)
from distsum.brokers.local import DELIVERY_LIMIT
from distsum.brokers.refusal import bury, refuse
from distsum.brokers.topology import (
    CONTROL_EXCHANGE,
    DEAD,
    EVERY_WORKER,
    HEARTBEATS,
    RESULTS,
    RESULTS_EXCHANGE,
    TASKS,
    TELEMETRY_EXCHANGE,
    is_worker_name,
    worker_key,
    worker_queue,
)
from distsum.errors import DistsumError, UnreachableError
from distsum.messages import (
    PROTOCOL,
    RUN_TASK,
    TO_WORKER_CONTROL,
    Introduce,
    PauseTasks,
    Ping,
    ResumeTasks,
    RunTask,
    TaskFailed,
    TaskId,
    WorkerJoined,
    WorkerLost,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from distsum.brokers.address import BrokerAddress
    from distsum.brokers.amqp import Consumer, Delivery, Session
    from distsum.messages import FromWorker, TaskSucceeded, ToWorker

log = logging.getLogger(__name__)

RECONNECT_SECONDS: Final = 300.0
"""A worker that finds no broker for so long leaves."""
_TELEMETRY_KEPT: Final = 100
_CHECK_SECONDS: Final = 20.0


@dataclass
class _Held:
    """The task that the worker has, and what acknowledges it."""

    task: TaskId
    attempt: int
    delivery: Delivery


class RabbitWorkerChannel:
    """One worker's channel (see ``WorkerChannel``).

    Args:
        address: The virtual host.
        name: The worker's name, unlike that of any other worker there is: letters, digits, ``-`` and ``_``.
        delivery_limit: As of the broker. RabbitMQ counts deliveries itself, but not in all of its versions those that
            end with the connection; so a task beyond the limit is dead-lettered here as well.
        reconnect_seconds: How long to look for a lost broker before the channel closes.
    """

    def __init__(
        self,
        address: BrokerAddress,
        name: str,
        *,
        delivery_limit: int = DELIVERY_LIMIT,
        reconnect_seconds: float = RECONNECT_SECONDS,
    ) -> None:
        if not is_worker_name(name):
            raise ValueError(f"{name!r} cannot name a worker")
        self._address = address
        self._name = name
        self._delivery_limit = delivery_limit
        self._reconnect_seconds = reconnect_seconds
        self._inbox: queue.SimpleQueue[ToWorker | None] = queue.SimpleQueue()
        self._opened: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._serve_thread, name=f"broker of {name}", daemon=True)
        self._closed = False
        self._exit_code = 0
        self._draw = random.Random()  # noqa: S311 - spreads reconnections, and keeps no secret
        # What follows belongs to the loop's thread.
        self._loop: asyncio.AbstractEventLoop
        self._main: asyncio.Task[None]
        self._changed: asyncio.Condition
        self._taking: asyncio.Lock
        self._drained: asyncio.Event
        self._telemetry: asyncio.Queue[FromWorker]
        self._ended = False
        self._serving: Session | None = None
        self._session: Session | None = None
        self._consuming: Session | None = None
        self._consumer: Consumer | None = None
        self._joined: WorkerJoined | None = None
        self._held: _Held | None = None
        self._assigned: set[int] = set()
        self._paused: PauseTasks | None = None

    # Calls from any thread --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect; returns when messages to this worker arrive.

        Raises:
            UnreachableError: There is no broker, it does not let us in, or nobody has set it up.
        """
        self._thread.start()
        self._opened.result()

    def receive(self) -> ToWorker:
        """Wait for the next message; see ``WorkerChannel``."""
        message = self._inbox.get()
        if message is None:
            self._inbox.put(None)
            raise self._closing_error()
        return message

    def report(self, message: FromWorker) -> None:
        """Say something; see ``WorkerChannel``. ``WorkerJoined`` is said again to whoever has not heard it."""
        if isinstance(message, WorkerJoined):
            self._wait(self._join(message))
            return
        self._call(self._offer_telemetry, message)

    def finish(self, result: TaskSucceeded | TaskFailed) -> None:
        """Deliver a result, however long that takes, and then acknowledge its task; see ``WorkerChannel``."""
        self._wait(self._finish(result))

    def drain(self) -> None:
        """Take no more tasks; the channel closes when the task at hand is finished. Safe in a signal handler."""
        with contextlib.suppress(ChannelClosedError):
            self._call(self._drained.set)

    def close(self) -> None:
        """Close the connections; a task that is not finished goes to another worker."""
        if self._thread.ident is None:
            return
        with contextlib.suppress(ChannelClosedError):
            self._call(self._end)
        self._thread.join()

    def _call(self, function: Any, *arguments: Any) -> None:
        if self._closed:
            raise self._closing_error()
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop has ended since
            raise self._closing_error() from None

    def _closing_error(self) -> ChannelClosedError:
        return ChannelClosedError(self._exit_code)

    def _wait(self, body: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine on the loop and wait for its end."""
        try:
            if self._closed:
                raise self._closing_error()
            future = asyncio.run_coroutine_threadsafe(body, self._loop)
        except (ChannelClosedError, RuntimeError):
            body.close()
            raise self._closing_error() from None
        while True:
            try:
                future.result(timeout=1.0)
            except TimeoutError:
                # The loop may have ended just before it would have taken the coroutine.
                if not self._thread.is_alive():
                    raise self._closing_error() from None
            except concurrent.futures.CancelledError:
                raise self._closing_error() from None
            else:
                return

    # The loop's thread ------------------------------------------------------------------------------------------------

    def _serve_thread(self) -> None:
        try:
            asyncio.run(self._run())
        except asyncio.CancelledError:
            pass  # closed
        except DistsumError as error:
            if self._opened.done():
                log.error("%s; leaving", error)  # noqa: TRY400 - it is no fault of ours, and says all
                self._exit_code = error.exit_code
            else:
                self._opened.set_exception(error)
        except Exception as error:
            if self._opened.done():
                log.exception("this is a fault in distsum; leaving")
                self._exit_code = DistsumError.exit_code
            else:
                self._opened.set_exception(error)
        finally:
            self._closed = True
            if not self._opened.done():
                self._opened.set_exception(self._closing_error())
            self._inbox.put(None)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Condition()
        self._taking = asyncio.Lock()
        self._drained = asyncio.Event()
        self._telemetry = asyncio.Queue(_TELEMETRY_KEPT)
        task = asyncio.current_task()
        assert task is not None
        self._main = task
        session = await self._connect()
        self._opened.set_result(None)
        while True:
            self._serving = session
            try:
                reason = await self._serve(session)
            finally:
                self._session = self._consuming = self._consumer = None
                await session.close()
            if self._ended:
                return
            self._serving = None
            log.warning("%s: the connection was lost (%s); connecting again", self._address, reason)
            session = await self._reconnect()
            log.warning("%s: connected again", self._address)

    def _end(self) -> None:
        """End for good: by the loss of the session, which nothing can swallow, or by cancelling the search for one."""
        if self._ended:
            return
        self._ended = True
        if self._serving is not None:
            self._serving.lose("the channel is closed")
        else:
            self._main.cancel()

    async def _connect(self) -> Session:
        session = await open_session(self._address, f"distsum worker {self._name}")
        own = worker_queue(self._name, secrets.token_hex(4))

        async def on_control(delivery: Delivery) -> None:
            await self._take_control(session, delivery)

        try:
            await session.declare_own(own, CONTROL_EXCHANGE, (worker_key(self._name), EVERY_WORKER))
            await session.consume(own, on_control, prefetch=_TELEMETRY_KEPT)
            await session.consumers(TASKS)
            if not await session.consumers(own):
                raise SessionLostError(f"nobody consumes {own}")
        except NoSuchQueueError:
            await session.close()
            raise UnreachableError(
                f"{self._address}: nothing is set up there for distsum {__version__} (protocol {PROTOCOL}); start a "
                "master of this version, or run `distsum broker setup`"
            ) from None
        except SessionLostError as error:
            await session.close()
            raise UnreachableError(f"{self._address}: {error}") from None
        except BaseException:
            await session.close()
            raise
        return session

    async def _reconnect(self) -> Session:
        deadline = self._loop.time() + self._reconnect_seconds
        for attempt in itertools.count():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff_seconds(attempt, self._draw)):
                    await self._drained.wait()
                    if self._free:
                        raise asyncio.CancelledError  # nothing is left to do
                    await asyncio.sleep(backoff_seconds(attempt, self._draw))
            try:
                return await self._connect()
            except UnreachableError as error:
                log.warning("%s; trying again", error)
                if self._loop.time() > deadline:
                    raise
        raise AssertionError  # the count has no end

    async def _serve(self, session: Session) -> str:
        """Serve until the session ends; return why it did."""
        reason = ""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send_telemetry(session))
                group.create_task(self._begin(session))
                group.create_task(self._check(session))
                group.create_task(self._drain())
                raise SessionLostError(await session.wait_lost())
        except* SessionLostError as lost:
            reason = str(lost.exceptions[0])
        return reason

    async def _begin(self, session: Session) -> None:
        """Say who we are and take tasks, if that was said before on another session; and let waiting calls go on."""
        await self._introduce(session)
        async with self._changed:
            self._session = session
            self._changed.notify_all()
        await self._take_tasks(session)

    async def _check(self, session: Session) -> None:
        """End a session whose consumer of tasks the broker has forgotten."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            if self._consumer is not None and not await session.consumers(TASKS):
                session.lose(f"nobody consumes {TASKS}")

    # To the process ---------------------------------------------------------------------------------------------------

    async def _join(self, message: WorkerJoined) -> None:
        self._joined = message
        session = await self._current()
        # If the session ends meanwhile, the next one introduces us.
        with contextlib.suppress(SessionLostError):
            await self._introduce(session)
            await self._take_tasks(session)

    async def _introduce(self, session: Session) -> None:
        if self._joined is None:
            return
        told = self._joined
        if self._paused is not None and self._paused.reason:
            told = msgspec.structs.replace(told, paused=self._paused.reason, quarantined=self._paused.quarantined)
        else:
            self._paused = None  # Whoever hears this may not be who asked for it.
        await session.publish(RESULTS_EXCHANGE, RESULTS, seal(told))

    def _offer_telemetry(self, message: FromWorker) -> None:
        # A full queue means that the broker is away; what is old then is worth less than nothing.
        with contextlib.suppress(asyncio.QueueFull):
            self._telemetry.put_nowait(message)

    async def _send_telemetry(self, session: Session) -> None:
        while not self._telemetry.empty():
            self._telemetry.get_nowait()  # of the time before this session
        while True:
            message = await self._telemetry.get()
            await session.publish_unconfirmed(TELEMETRY_EXCHANGE, HEARTBEATS, seal(message))

    async def _finish(self, result: TaskSucceeded | TaskFailed) -> None:
        try:
            envelope = seal(result)
        except MessageTooLongError as error:
            # Only the list of skipped inputs has no bound.
            reason = f"the result cannot be sent: {error}; are there very many bad inputs?"
            envelope = seal(TaskFailed(result.worker, result.task, "storage", reason, attempt=result.attempt))
        await self._deliver(envelope)
        held = self._held
        if result.attempt in self._assigned:
            self._assigned.remove(result.attempt)
        elif held is not None and (held.task, held.attempt) == (result.task, result.attempt):
            await held.delivery.acknowledge()
            self._held = None
        if self._drained.is_set():
            await self._leave_if_free()
        elif self._session is not None:
            with contextlib.suppress(SessionLostError):
                await self._take_tasks(self._session)

    async def _deliver(self, envelope: Envelope) -> None:
        while True:
            session = await self._current()
            try:
                if await session.publish(RESULTS_EXCHANGE, RESULTS, envelope):
                    return
            except SessionLostError:
                pass
            else:
                session.lose(f"the queue {RESULTS} is gone")  # until whoever set it up makes it again
            await asyncio.sleep(0)

    async def _current(self) -> Session:
        """Wait until there is a session that has not ended."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._session is not None and not self._session.is_lost)
            assert self._session is not None
            return self._session

    async def _drain(self) -> None:
        await self._drained.wait()
        await self._stop_taking()
        await self._leave_if_free()

    @property
    def _free(self) -> bool:
        """Whether nothing waits for our answer."""
        return self._held is None and not self._assigned

    async def _leave_if_free(self) -> None:
        if not self._free:
            return
        with contextlib.suppress(SessionLostError):
            if self._session is not None:
                await self._session.publish(RESULTS_EXCHANGE, RESULTS, seal(WorkerLost(self._name, LEFT)))
        self._end()

    # From the process -------------------------------------------------------------------------------------------------

    async def _take_tasks(self, session: Session) -> None:
        """Consume tasks, unless we do, may not yet, or still work on one that an earlier session brought."""
        async with self._taking:
            may = self._joined is not None and self._paused is None and not self._drained.is_set()
            if not (may and self._free) or self._consuming is session:
                return
            self._consuming = session

            async def on_task(delivery: Delivery) -> None:
                await self._take_task(session, delivery)

            self._consumer = await session.consume(TASKS, on_task, prefetch=1)

    async def _take_task(self, session: Session, delivery: Delivery) -> None:
        if self._drained.is_set() or self._paused is not None or self._assigned:
            await delivery.give_back()
            return
        try:
            message = unseal(delivery.envelope, RUN_TASK)
        except RefusedError as error:
            await refuse(session, delivery, TASKS, str(error))
            return
        number = delivery.returns + 1
        if number > self._delivery_limit:
            await bury(session, delivery, DEAD, {PROTOCOL_HEADER: PROTOCOL, DELIVERIES_HEADER: delivery.returns})
            return
        self._held = _Held(message.task, message.attempt, delivery)
        self._inbox.put(msgspec.structs.replace(message, delivery=number))

    async def _take_control(self, session: Session, delivery: Delivery) -> None:
        try:
            message = unseal(delivery.envelope, TO_WORKER_CONTROL)
        except RefusedError as error:
            await refuse(session, delivery, CONTROL_EXCHANGE, str(error))
            return
        await delivery.acknowledge()
        match message:
            case Introduce():
                await self._introduce(session)
                await self._take_tasks(session)
            case PauseTasks():
                self._paused = message
                await self._stop_taking()
            case ResumeTasks():
                self._paused = None
                await self._take_tasks(session)
            case Ping():
                pass
            case RunTask():
                await self._take_assigned(message)
            case _:
                self._inbox.put(message)

    async def _take_assigned(self, message: RunTask) -> None:
        """Take a task that is for us alone, and until it is answered none from the queue, which others could do."""
        if message.attempt in self._assigned:
            return  # published again, since its confirmation got lost
        self._assigned.add(message.attempt)
        self._inbox.put(message)
        await self._stop_taking()

    async def _stop_taking(self) -> None:
        async with self._taking:
            consumer, self._consumer, self._consuming = self._consumer, None, None
            if consumer is not None:
                await consumer.cancel()
