"""Questions of clients to the deciding process and its answers, as bytes, through a RabbitMQ broker.

A question may be asked twice, where its answer did not arrive, so every question must be harmless to repeat. One that
nobody answers in time is dropped by the broker.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import secrets
import threading
from typing import TYPE_CHECKING, Final

from distsum.brokers.amqp import NoSuchQueueError, Session, SessionLostError, backoff_seconds, open_session
from distsum.brokers.envelope import APPLICATION, MAX_MESSAGE_BYTES, PROTOCOL_HEADER, Envelope, RefusedError
from distsum.brokers.refusal import refuse
from distsum.brokers.topology import EVENTS_EXCHANGE, JOBS_CHANNEL
from distsum.errors import ServiceError, UnreachableError, UsageError
from distsum.messages import PROTOCOL
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from distsum.brokers.address import BrokerAddress
    from distsum.brokers.amqp import Delivery
    from distsum.brokers.topology import RequestChannel

    Answer = Callable[[bytes], Awaitable[bytes]]

log = logging.getLogger(__name__)

_REPLY_HEADER: Final = "reply"
_NUMBER_HEADER: Final = "number"
_REASON_HEADER: Final = "reason"
_ASKED_AT_ONCE: Final = 50
_LONGEST_ATTEMPT_SECONDS: Final = 10.0
"""After this a question is asked again, should it have been lost with a process."""


class RequestServer:
    """Answers what clients ask, and tells those who look what is different.

    Args:
        address: The virtual host; its queues exist.
        answers: For each channel what takes a question and returns the answer, both encoded. It raises ``RefusedError``
            where that is no question of this channel's: then the client is told, and it is put among what was refused.
            What else it raises is a fault, told to the client.
        on_failure: Told when nothing can be answered any more; a lost connection is none, and is made again.
    """

    def __init__(
        self,
        address: BrokerAddress,
        answers: Mapping[RequestChannel, Answer],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._address = address
        self._answers = answers
        self._on_failure = on_failure
        self._runner: asyncio.Task[None] | None = None
        self._session: Session | None = None
        self._draw = random.Random()  # noqa: S311 - spreads reconnections, and keeps no secret

    async def start(self) -> None:
        """Begin to answer.

        Raises:
            UnreachableError: The broker does not answer, or does not let us in.
        """
        session = await self._connect()
        self._runner = asyncio.create_task(self._run(session))

    async def close(self) -> None:
        """Answer no more."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait({self._runner})

    async def tell(self, key: str, frame: bytes) -> bool:
        """Tell those who look; return whether it was sent. Nobody waits for what a broker cannot take just now."""
        session = self._session
        if session is None or session.is_lost or await session.is_blocked():
            return False
        try:
            await session.publish_unconfirmed(EVENTS_EXCHANGE, key, Envelope(frame, "Frame"))
        except SessionLostError:
            return False
        return True

    async def _connect(self) -> Session:
        session = await open_session(self._address, "distsum master (requests)")

        def taking(channel: RequestChannel) -> Callable[[Delivery], Awaitable[None]]:
            async def on_request(delivery: Delivery) -> None:
                await self._take(session, channel, delivery)

            return on_request

        try:
            for channel in self._answers:
                await session.consume(channel.queue, taking(channel), prefetch=_ASKED_AT_ONCE)
        except (SessionLostError, NoSuchQueueError) as error:
            await session.close()
            raise UnreachableError(f"{self._address}: {str(error) or 'its queues are gone'}") from None
        except BaseException:
            await session.close()
            raise
        self._session = session
        return session

    async def _run(self, session: Session) -> None:
        try:
            while True:
                try:
                    reason = await session.wait_lost()
                finally:
                    await session.close()
                log.warning("%s: the connection for requests was lost (%s); connecting again", self._address, reason)
                session = await self._reconnect()
        except Exception as error:  # noqa: BLE001 - whoever runs the server decides what follows
            self._on_failure(error)

    async def _reconnect(self) -> Session:
        for attempt in itertools.count():
            await asyncio.sleep(backoff_seconds(attempt, self._draw))
            try:
                return await self._connect()
            except UnreachableError as error:
                log.warning("%s; trying again", error)
        raise AssertionError  # the count has no end

    async def _take(self, session: Session, channel: RequestChannel, delivery: Delivery) -> None:
        headers = delivery.envelope.headers
        reply, number = headers.get(_REPLY_HEADER), headers.get(_NUMBER_HEADER)
        # An answer goes to a client's queue, and nowhere else that a stranger may name.
        if not isinstance(reply, str) or not channel.is_reply_queue(reply) or type(number) is not int:
            nowhere = "it does not say where its answer should go"
            await refuse(session, delivery, channel.queue, _fault(delivery.envelope) or nowhere)
            return
        told: dict[str, int | str] = {_NUMBER_HEADER: number, PROTOCOL_HEADER: PROTOCOL}
        body, refused = b"", ""
        if (reason := _fault(delivery.envelope)) is not None:
            refused = told[_REASON_HEADER] = reason
        else:
            try:
                body = await self._answers[channel](delivery.envelope.body)
            except RefusedError as error:
                refused = told[_REASON_HEADER] = str(error)
            except Exception:
                log.exception("a request could not be answered")
                told[_REASON_HEADER] = "this is a fault in distsum; the master's log says more"
        # Where the client has gone, nobody misses the answer.
        await session.publish(channel.exchange, reply, Envelope(body, "Reply", headers=told), persistent=False)
        if refused:
            await refuse(session, delivery, channel.queue, refused)
        else:
            await delivery.acknowledge()


def _fault(envelope: Envelope) -> str | None:
    if envelope.application != APPLICATION:
        return f"its sender is not {APPLICATION}"
    if envelope.headers.get(PROTOCOL_HEADER) != PROTOCOL:
        asked = printable(str(envelope.headers.get(PROTOCOL_HEADER)), 40)
        return f"the master speaks protocol {PROTOCOL}, and this client {asked}; use one version of distsum everywhere"
    if len(envelope.body) > MAX_MESSAGE_BYTES:
        return f"it has {len(envelope.body)} bytes, and at most {MAX_MESSAGE_BYTES} are taken"
    return None


class Questions:
    """Asks the deciding process within one session; made by ``open_questions``.

    Attributes:
        session: The session, which whoever has made this closes.
    """

    def __init__(self, session: Session, channel: RequestChannel) -> None:
        self.session = session
        self._channel = channel
        self._queue = channel.reply_queue(secrets.token_hex(8))
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}

    async def open(self) -> None:
        """Make the queue of answers; called once."""
        await self.session.declare_own(self._queue, self._channel.exchange, (self._queue,))
        await self.session.consume(self._queue, self._take, prefetch=_ASKED_AT_ONCE)

    async def ask(self, question: bytes, seconds: float) -> bytes:
        """Return the answer to a question, which is asked once.

        Raises:
            SessionLostError: The session ended.
            NoSuchQueueError: Nobody was ever there to be asked.
            TimeoutError: Nobody answers in time.
            ServiceError: The question is refused.
        """
        number = next(self._numbers)
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answered
        headers = {PROTOCOL_HEADER: PROTOCOL, _REPLY_HEADER: self._queue, _NUMBER_HEADER: number}
        envelope = Envelope(question, "Request", headers=headers)
        lost = asyncio.ensure_future(self.session.wait_lost())
        try:
            arrived = await self.session.publish(
                self._channel.exchange, self._channel.queue, envelope, persistent=False, expiration_seconds=seconds
            )
            if not arrived:
                raise NoSuchQueueError
            await asyncio.wait((answered, lost), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if answered.done():
                return answered.result()
            if lost.done():
                raise SessionLostError(lost.result())
            raise TimeoutError
        finally:
            lost.cancel()
            del self._waiting[number]

    async def _take(self, delivery: Delivery) -> None:
        envelope = delivery.envelope
        await delivery.acknowledge()
        number = envelope.headers.get(_NUMBER_HEADER)
        answered = self._waiting.get(number) if isinstance(number, int) else None
        if answered is None or answered.done():
            return  # the answer to a question that was asked again
        reason = envelope.headers.get(_REASON_HEADER)
        if reason is not None:
            answered.set_exception(ServiceError(f"refused: {printable(str(reason), 1000)}"))
        else:
            answered.set_result(envelope.body)


async def open_questions(address: BrokerAddress, name: str, channel: RequestChannel) -> Questions:
    """Connect, to ask.

    Args:
        address: The virtual host.
        name: What the broker's own pages call the connections.
        channel: Which way to ask.

    Raises:
        UnreachableError: The broker does not answer, or does not let us in.
        SessionLostError: The session has ended meanwhile.
        NoSuchQueueError: Nobody was ever there to be asked.
    """
    session = await open_session(address, name)
    try:
        made = Questions(session, channel)
        await made.open()
    except BaseException:
        await session.close()
        raise
    return made


class RequestClient:
    """Asks the deciding process; its event loop runs in a thread of its own.

    Args:
        address: The virtual host.
    """

    def __init__(self, address: BrokerAddress) -> None:
        self._address = address
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="distsum requests", daemon=True)
        self._questions: Questions | None = None
        self._was_connected = False
        self._asking: set[asyncio.Task[bytes]] = set()
        self._connecting = asyncio.Lock()
        self._draw = random.Random()  # noqa: S311 - spreads reconnections, and keeps no secret
        self._thread.start()

    def ask(self, question: bytes, seconds: float) -> bytes:
        """Return the answer to a question; safe to call from any thread.

        Raises:
            UnreachableError: There is no broker, it does not let us in, or nobody answers in time.
            ServiceError: The question is refused.
            UsageError: The client is closed.
        """
        if self._loop.is_closed():
            raise UsageError(f"{self._address}: this client is closed; make another")
        return self._run(self._ask(question, seconds))

    def close(self) -> None:
        """Let go of the connection. Questions whose caller was interrupted are asked no more."""
        if self._loop.is_closed():
            return
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, body: Coroutine[None, None, bytes]) -> bytes:
        return asyncio.run_coroutine_threadsafe(body, self._loop).result()

    async def _close(self) -> bytes:
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        if self._questions is not None:
            await self._questions.session.close()
        return b""

    async def _ask(self, question: bytes, seconds: float) -> bytes:
        task = asyncio.current_task()
        assert task is not None
        self._asking.add(task)
        try:
            return await self._ask_until(question, seconds)
        finally:
            self._asking.discard(task)

    async def _ask_until(self, question: bytes, seconds: float) -> bytes:
        deadline = self._loop.time() + seconds
        reason = f"{self._address}: no master answers within {seconds:g} s; start one there with `distsum master`"
        for attempt in itertools.count():
            left = deadline - self._loop.time()
            if left <= 0:
                break
            try:
                questions = await self._connected()
                # A broker that is short of memory or disk takes no question, and says so to nobody.
                async with asyncio.timeout(left):
                    return await questions.ask(question, min(left, _LONGEST_ATTEMPT_SECONDS))
            except SessionLostError:
                self._was_connected = True  # also if it was lost before it was of use: the address is right
                continue
            except TimeoutError:
                continue
            except NoSuchQueueError:
                pass  # No master was ever here, or it is starting.
            except UnreachableError as error:
                if not self._was_connected:
                    raise  # Who asks for the first time may have written the address wrong.
                reason = f"{error} (tried again for {seconds:g} s)"
            await asyncio.sleep(min(left, backoff_seconds(attempt, self._draw)))
        raise UnreachableError(reason)

    async def _connected(self) -> Questions:
        async with self._connecting:
            if self._questions is not None and not self._questions.session.is_lost:
                return self._questions
            if self._questions is not None:
                await self._questions.session.close()
                self._questions = None
            self._questions = await open_questions(self._address, "distsum client", JOBS_CHANNEL)
            self._was_connected = True
            return self._questions
