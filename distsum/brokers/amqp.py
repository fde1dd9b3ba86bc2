"""A session with a RabbitMQ virtual host: one connection that publishes and one that consumes, which end together.

The only module that imports aio-pika. What that raises when a session ends, in any call, is SessionLostError here. A
session is never mended, but replaced by a new one: that leaves nothing half recovered to reason about.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from distsum.brokers.envelope import CONTENT_TYPE, Envelope
from distsum.brokers.tls import tls_context
from distsum.errors import UnreachableError, UsageError
from distsum.wording import printable

try:
    import aio_pika
    from aiormq.exceptions import (
        AMQPError,
        ChannelAccessRefused,
        ChannelLockedResource,
        ChannelNotFoundEntity,
        ChannelPreconditionFailed,
        DeliveryError,
        ProbableAuthenticationError,
    )
    from aiormq.exceptions import PublishError as ReturnedError

    from distsum.brokers.properties import read_any_properties
except ModuleNotFoundError as error:
    raise UsageError(f"RabbitMQ needs {error.name}, which is not installed; pip install 'distsum[rabbitmq]'") from error

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage

    from distsum.brokers.address import BrokerAddress
    from distsum.brokers.topology import Queue

log = logging.getLogger(__name__)
read_any_properties()
for _name in ("aio_pika", "aiormq"):
    # What they log is what they raise as well, with tracebacks; we say it in our words.
    logging.getLogger(_name).setLevel(logging.CRITICAL)

CONNECT_SECONDS: Final = 10.0
CALL_SECONDS: Final = 15.0
CONFIRM_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 3.0
_BACKOFF_LONGEST_SECONDS: Final = 10.0
_Answer = TypeVar("_Answer")
_LIBRARY_ERRORS: Final = (AMQPError, OSError, TimeoutError, RuntimeError)
"""What aio-pika raises on purpose; a channel in the wrong state is a RuntimeError there."""


class SessionLostError(Exception):
    """The session has ended, for the reason that the text gives."""


class LockedError(Exception):
    """Another connection has an exclusive queue of this name."""


class NoSuchQueueError(Exception):
    """There is no such queue or exchange yet."""


def backoff_seconds(attempt: int, draw: random.Random) -> float:
    """Return how long to wait before an attempt to connect, counted from 0: longer each time, and never alike.

    Many workers lose one broker at the same moment, and must not all come back at the same moment ("full jitter", after
    M. Brooker, Exponential Backoff And Jitter).
    """
    longest: float = min(_BACKOFF_LONGEST_SECONDS, 0.5 * 2 ** min(attempt, 10))
    return draw.uniform(0.05, longest)


class Delivery:
    """A message as it arrived.

    Attributes:
        envelope: What it holds.
        sent_seconds: When it was sent by the clock of its sender, in whole seconds of the Unix epoch, if that is told.
        returns: How often it came back from a consumer before.
    """

    def __init__(self, message: AbstractIncomingMessage) -> None:
        headers = dict(message.headers)
        self.envelope = Envelope(message.body, message.type or "", message.app_id or "", headers)
        # RabbitMQ 4 tells the two apart; whichever says more is the cautious one.
        self.sent_seconds = message.timestamp.timestamp() if message.timestamp is not None else None
        self.returns = max(_count(headers.get("x-delivery-count")), _count(headers.get("x-acquired-count")))
        self._message = message

    async def acknowledge(self, *, with_earlier: bool = False) -> None:
        """Tell the broker that it is done with; where that comes too late, it is handed out again.

        Args:
            with_earlier: So is all that its consumer was given before it.
        """
        if self._message.processed:
            return  # It is of a queue that wants no acknowledgements.
        with contextlib.suppress(*_LIBRARY_ERRORS):
            await self._message.ack(multiple=with_earlier)

    async def give_back(self) -> None:
        """Tell the broker to hand it to another; one that cannot be told any more does so by itself."""
        with contextlib.suppress(*_LIBRARY_ERRORS):
            await self._message.nack(requeue=True)


class Session:
    """Two connections and their channels; made by ``open_session``."""

    def __init__(self, address: BrokerAddress, publishing: AbstractConnection, consuming: AbstractConnection) -> None:
        self._address = address
        self._publishing = publishing
        self._consuming = consuming
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._fault: BaseException | None = None
        self._exchanges: dict[tuple[str, bool], AbstractExchange] = {}
        self._counting: AbstractChannel | None = None
        self._counting_lock = asyncio.Lock()
        self._channels: list[AbstractChannel] = []
        self._confirmed: AbstractChannel
        self._unconfirmed: AbstractChannel
        self._asking: AbstractChannel

    async def open_channels(self) -> None:
        """Open what every session needs; called once."""
        for connection in (self._publishing, self._consuming):
            connection.close_callbacks.add(self._on_close)
        self._confirmed = self._channel_of(self._publishing, on_return_raises=True)
        self._unconfirmed = self._channel_of(self._publishing, publisher_confirms=False)
        self._asking = self._channel_of(self._consuming)
        for channel in (self._confirmed, self._unconfirmed, self._asking):
            await self._open(channel)

    @property
    def is_lost(self) -> bool:
        """Whether the session has ended."""
        return self._lost.done()

    @property
    def broker_version(self) -> str:
        """The version that the broker says it has; empty if it says none."""
        transport = self._consuming.transport
        told = transport.connection.server_properties.get("version", "") if transport is not None else ""
        return printable(told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told), 40)

    async def wait_lost(self) -> str:
        """Return when the session has ended, with the reason.

        Raises:
            BaseException: What a consumer of ours raised.
        """
        reason = await asyncio.shield(self._lost)
        if self._fault is not None:
            raise self._fault
        return reason

    def lose(self, reason: str) -> None:
        """End the session: whoever waits for it is told."""
        if not self._lost.done():
            self._lost.set_result(reason)

    async def close(self) -> None:
        """Close both connections, as far as they can be."""
        self.lose("closed")
        await _quietly(_closed((self._publishing, self._consuming), self._channels))

    async def publish(
        self,
        exchange: str,
        key: str,
        envelope: Envelope,
        *,
        persistent: bool = True,
        expiration_seconds: float | None = None,
    ) -> bool:
        """Publish a message, and wait until the broker has it. Return False if there is no queue that takes it.

        Raises:
            SessionLostError: The session ended; the message may or may not have arrived.
        """
        target = await self._exchange(exchange, confirmed=True)
        call = asyncio.ensure_future(
            target.publish(_message(envelope, persistent, expiration_seconds), key, mandatory=True)
        )
        try:
            ends: set[asyncio.Future[Any]] = {call, self._lost}
            while not (await asyncio.wait(ends, timeout=CONFIRM_SECONDS, return_when="FIRST_COMPLETED"))[0]:
                if not await self.is_blocked():
                    self.lose(f"a message was not confirmed within {CONFIRM_SECONDS:.0f} s")
                    break
                log.warning("%s takes no messages now: it is short of memory or disk", self._address)
        finally:
            _abandon(call)
        try:
            self._outcome(call)
        except ReturnedError:
            return False
        except DeliveryError:
            self.lose("the broker did not take a message")
            raise SessionLostError("the broker did not take a message") from None
        return True

    async def publish_unconfirmed(self, exchange: str, key: str, envelope: Envelope) -> None:
        """Publish a message that may be lost.

        Raises:
            SessionLostError: The session ended.
        """
        target = await self._exchange(exchange, confirmed=False)
        await self._call(target.publish(_message(envelope, False, None), key, mandatory=False))

    async def consume(
        self, queue: str, take: Callable[[Delivery], Awaitable[None]], *, prefetch: int | None
    ) -> Consumer:
        """Have a queue's messages taken, at most ``prefetch`` unacknowledged ones, or as many as come if None.

        Messages are taken in order up to the first time that ``take`` waits. What it raises ends the session.

        Raises:
            SessionLostError: The session ended.
            NoSuchQueueError: There is no such queue.
        """
        channel = self._channel_of(self._consuming)
        await self._open(channel)

        async def on_message(message: AbstractIncomingMessage) -> None:
            try:
                await take(Delivery(message))
            except SessionLostError as error:
                self.lose(str(error))
            except Exception as error:  # noqa: BLE001 - whoever waits for the session raises it
                self._fault = error
                self.lose(f"{type(error).__name__} in a consumer")

        if prefetch is not None:
            await self._call(channel.set_qos(prefetch_count=prefetch))
        source = await self._call(channel.get_queue(queue, ensure=False))
        tag = await self._call(source.consume(on_message, no_ack=prefetch is None))
        return Consumer(self, channel, queue, tag)

    async def declare(self, exchanges: Mapping[str, str], queues: tuple[Queue, ...]) -> None:
        """Make the shared exchanges and queues, where they are not there.

        Raises:
            SessionLostError: The session ended.
            UnreachableError: They cannot be made, or are there and different.
        """
        for name, kind in exchanges.items():
            await self._call(self._asking.declare_exchange(name, kind, durable=True))
        for queue in queues:
            made = await self._call(
                self._asking.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments))
            )
            await self._call(made.bind(queue.exchange, queue.key))

    async def declare_own(
        self,
        name: str,
        exchange: str | None = None,
        keys: tuple[str, ...] = (),
        arguments: Mapping[str, Any] | None = None,
        *,
        auto_delete: bool = False,
    ) -> None:
        """Make a queue that ends with this session, and with ``auto_delete`` as soon as nobody consumes it any more.

        Raises:
            SessionLostError: The session ended.
            LockedError: Another session has a queue of this name.
        """
        channel = self._channel_of(self._consuming)
        await self._open(channel, fatal=False)
        try:
            made = await self._call(
                channel.declare_queue(
                    name, exclusive=True, auto_delete=auto_delete, arguments=dict(arguments) if arguments else None
                )
            )
            for key in keys:
                assert exchange is not None
                await self._call(made.bind(exchange, key))
        finally:
            await _quietly(channel.close())

    async def purge(self, queue: str) -> None:
        """Drop all that waits in a queue.

        Raises:
            SessionLostError: The session ended.
        """
        source = await self._call(self._asking.get_queue(queue, ensure=False))
        await self._call(source.purge())

    async def consumers(self, queue: str) -> int:
        """Return how many consumers a queue has; see ``counts``."""
        return (await self.counts(queue))[1]

    async def counts(self, queue: str) -> tuple[int, int]:
        """Return how many messages are ready in a queue, and how many consumers it has.

        Raises:
            SessionLostError: The session ended.
            NoSuchQueueError: There is no such queue.
        """
        async with self._counting_lock:
            # It is asked every second, and to open a channel and close it costs the broker more than the question.
            if self._counting is None or self._counting.is_closed:
                self._counting = self._channel_of(self._consuming)
                await self._open(self._counting, fatal=False)
            try:
                found = await self._call(self._counting.declare_queue(queue, passive=True))
            except BaseException:
                channel, self._counting = self._counting, None  # The broker closes it where there is no such queue.
                await _quietly(channel.close())
                raise
        result = found.declaration_result
        return result.message_count or 0, result.consumer_count or 0

    async def call(self, awaitable: Awaitable[_Answer]) -> _Answer:
        """Await a call of the library within the time that any call may take; used by ``Consumer``."""
        return await self._call(awaitable)

    def _channel_of(self, connection: AbstractConnection, **options: bool) -> AbstractChannel:
        """Return a new channel, not open yet.

        Raises:
            SessionLostError: The session ended. The library would raise a RuntimeError, and at once: not in a call.
        """
        if self.is_lost:
            raise SessionLostError(self._lost.result())
        return connection.channel(**options)

    async def _open(self, channel: AbstractChannel, *, fatal: bool = True) -> None:
        await self._call(channel.initialize())
        self._channels = [each for each in self._channels if not each.is_closed] + [channel]
        if fatal:
            channel.close_callbacks.add(self._on_close)
            underlay = await channel.get_underlay_channel()
            underlay.on_consumer_cancel_callbacks.add(self._on_cancel)

    async def _exchange(self, name: str, *, confirmed: bool) -> AbstractExchange:
        found = self._exchanges.get((name, confirmed))
        if found is None:
            channel = self._confirmed if confirmed else self._unconfirmed
            found = await self._call(channel.get_exchange(name, ensure=False))
            self._exchanges[name, confirmed] = found
        return found

    async def _call(self, awaitable: Awaitable[_Answer]) -> _Answer:
        call = asyncio.ensure_future(awaitable)
        try:
            done, _ = await asyncio.wait({call}, timeout=CALL_SECONDS)
        finally:
            _abandon(call)
        if not done:
            self.lose(f"the broker did not answer within {CALL_SECONDS:.0f} s")
        return self._outcome(call)

    def _outcome(self, call: asyncio.Future[_Answer]) -> _Answer:
        """Return what a call of the library gave, or raise what it means.

        The library cancels calls of ours when a connection closes. Such a cancellation is not one of this task, which
        is why calls are tasks of their own.
        """
        error = call.exception() if call.done() and not call.cancelled() else None
        if error is None and call.done() and not call.cancelled():
            return call.result()
        if isinstance(error, DeliveryError):
            raise error
        if isinstance(error, ChannelLockedResource):
            raise LockedError
        if isinstance(error, ChannelNotFoundEntity):
            raise NoSuchQueueError
        if isinstance(error, ChannelAccessRefused | ChannelPreconditionFailed):
            raise UnreachableError(f"{self._address}: {_explain(error, self._address)}")
        if error is not None and not isinstance(error, _LIBRARY_ERRORS):
            raise error
        if error is not None:
            self.lose(_words(error, self._address))
        self.lose("the connection was closed")
        raise SessionLostError(self._lost.result())

    async def is_blocked(self) -> bool:
        """Whether the broker takes no messages now, since it is short of memory or disk."""
        transport = self._publishing.transport
        if transport is None or self._lost.done():
            return False
        try:
            async with asyncio.timeout(0):
                await transport.ready()
        except TimeoutError:
            return True
        return False

    def _on_close(self, _sender: object, error: BaseException | None = None) -> None:
        self.lose(_words(error, self._address))

    def _on_cancel(self, frame: object) -> None:
        self.lose(f"the broker took away a queue that is consumed here ({getattr(frame, 'consumer_tag', '')})")


class Consumer:
    """What takes the messages of one queue."""

    def __init__(self, session: Session, channel: AbstractChannel, queue: str, tag: str) -> None:
        self._session = session
        self._channel = channel
        self._queue = queue
        self._tag = tag

    async def cancel(self) -> None:
        """Take no more; what was delivered may still be acknowledged.

        Raises:
            SessionLostError: The session ended.
        """
        source = await self._session.call(self._channel.get_queue(self._queue, ensure=False))
        await self._session.call(source.cancel(self._tag))


async def open_session(address: BrokerAddress, name: str) -> Session:
    """Connect to a broker.

    Args:
        address: Where, and as whom.
        name: What the broker's own pages call the two connections.

    Raises:
        UnreachableError: It does not answer, or does not let us in.
    """
    connections: list[AbstractConnection] = []
    reason = ""
    try:
        for purpose in ("publishes", "consumes"):
            connections.append(await _connect(address, f"{name} ({purpose})"))  # noqa: PERF401 - the first is closed if the second fails
        session = Session(address, *connections)
        await session.open_channels()
    except SessionLostError as error:
        reason = str(error)
    except _LIBRARY_ERRORS as error:
        reason = _explain(error, address)
    except BaseException:
        await _quietly(_closed(connections))
        raise
    else:
        return session
    await _quietly(_closed(connections))
    # Raised here and not above: an error of the library would come along as the context, and its frames hold the
    # password.
    raise UnreachableError(f"{address}: {reason}")


async def _connect(address: BrokerAddress, name: str) -> AbstractConnection:
    return await aio_pika.connect(
        host=address.host,
        port=address.port,
        login=address.user,
        password=address.password,
        virtualhost=address.vhost,
        ssl=address.tls,
        ssl_context=tls_context(address),
        timeout=CONNECT_SECONDS,
        heartbeat=address.heartbeat_seconds,
        client_properties={"connection_name": name},
    )


def _message(envelope: Envelope, persistent: bool, expiration_seconds: float | None) -> aio_pika.Message:  # noqa: FBT001 - called here only
    return aio_pika.Message(
        envelope.body,
        headers=dict(envelope.headers),
        content_type=CONTENT_TYPE,
        type=envelope.kind,
        app_id=envelope.application,
        expiration=expiration_seconds,
        timestamp=time.time(),
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT if persistent else aio_pika.DeliveryMode.NOT_PERSISTENT,
    )


def _explain(error: BaseException, address: BrokerAddress) -> str:
    """Return what hinders a connection, and what to do, in one line."""
    cause = error.__cause__
    if isinstance(error, ProbableAuthenticationError):
        return f"the user {printable(address.user)} was refused; check the password, and where that user may come from"
    if isinstance(error, ChannelAccessRefused):
        return f"{_words(error, address)}; `distsum broker setup` gives the permissions"
    if isinstance(error, ChannelPreconditionFailed):
        return f"{_words(error, address)}; delete what another version of distsum made, or use another virtual host"
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_SECONDS:.0f} s; is it the right host and port, and the way open?"
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = printable(cause.verify_message.rstrip("."))
        return f"its certificate is not accepted ({why}); does ?cacertfile= name the right authority, and the host fit?"
    if isinstance(cause, ssl.SSLError):
        return (
            f"TLS failed ({cause.reason}); is TLS spoken at port {address.port}, and the certificate we showed right?"
        )
    if "Connection.Close" in str(error):
        # The library drops the text that says which.
        vhost = printable(address.vhost)
        return (
            f"there is no virtual host {vhost}, or {printable(address.user)} may not use it; see `distsum broker setup`"
        )
    if isinstance(cause, OSError) and not isinstance(cause, ConnectionResetError):
        return f"{cause.strerror or _words(error, address)}; does RabbitMQ run there?"
    return f"{_words(error, address)}; does RabbitMQ run there, and speak {'TLS' if address.tls else 'plain AMQP'}?"


def _words(error: BaseException | None, address: BrokerAddress) -> str:
    """Return what an error of the library says, on one line and without the password."""
    if error is None or isinstance(error, asyncio.CancelledError):
        return "the connection was closed"
    said = " ".join(str(argument) for argument in error.args) or type(error).__name__
    return printable(address.censored(said))


def _count(value: object) -> int:
    """Return a count from a header, which anyone may have written."""
    return value if type(value) is int and value > 0 else 0


def _abandon(call: asyncio.Future[Any]) -> None:
    """Let go of a call that perhaps nobody waits for any more, and of the error that it ends with."""
    call.cancel()
    call.add_done_callback(lambda done: done.cancelled() or done.exception())


async def _closed(connections: Sequence[AbstractConnection], channels: Sequence[AbstractChannel] = ()) -> None:
    """Close connections. Return when their channels know it, too: the loop may end then, and tears off what is left."""
    await asyncio.gather(*(connection.close() for connection in connections), return_exceptions=True)
    await asyncio.gather(*(channel.closed() for channel in channels))


async def _quietly(closing: Awaitable[Any]) -> None:
    """Wait a little for something to close; when it cannot be closed properly it is closed already, or soon.

    Cancelled, it still waits: the library's closing, when it is interrupted, waits for an event that never comes.
    """
    loop = asyncio.get_running_loop()
    call = asyncio.ensure_future(closing)
    deadline = loop.time() + CLOSE_SECONDS
    cancelled: asyncio.CancelledError | None = None
    while not call.done() and loop.time() < deadline:
        try:
            await asyncio.wait({call}, timeout=deadline - loop.time())
        except asyncio.CancelledError as error:
            cancelled = error
    if not call.done():
        _abandon(call)
        # The first cancellation must have arrived before another may: two at once count as one.
        await asyncio.sleep(0)
    elif not call.cancelled() and (fault := call.exception()) is not None:
        log.debug("closing: %r", fault)
    if cancelled is not None:
        raise cancelled
