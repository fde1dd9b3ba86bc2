"""The service over RabbitMQ: a master that serves a virtual host, and clients that ask it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from distsum.brokers.rabbitmq import RabbitBroker
from distsum.brokers.rabbitmq_requests import RequestClient, RequestServer
from distsum.errors import UnreachableError
from distsum.service import messages as channel
from distsum.service.client import ServiceClient
from distsum.service.server import Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.actors.master import MasterSettings
    from distsum.actors.task_tracker import TrackerSettings
    from distsum.brokers.address import BrokerAddress
    from distsum.stores.base import Store


async def serve(
    address: BrokerAddress,
    store: Store,
    work: bytes,
    *,
    on_ready: Callable[[], None],
    master: MasterSettings | None = None,
    tracker: TrackerSettings | None = None,
) -> None:
    """Serve a virtual host until cancelled; where another master does so, wait until it is gone.

    Args:
        address: The virtual host.
        store: Where jobs, partials, inputs and results lie.
        work: URI of the folder of jobs and partials.
        on_ready: Told when workers and clients are served.
        master: Settings of the master actor.
        tracker: Settings of the tracker.

    Raises:
        UnreachableError: There is no broker, or it does not let us in.
        StorageError: The work folder cannot be read.
    """
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(error: BaseException) -> None:
        if not failed.done():
            failed.set_exception(error)

    broker = RabbitBroker(address, fail, lock_seconds=None)
    service = Service(store, work, broker, _Figures(broker), master, tracker)

    async def answer(question: bytes) -> bytes:
        try:
            request = channel.REQUEST.decode(question)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return msgspec.msgpack.encode(channel.Refused(f"this is no request: {error}"))
        return msgspec.msgpack.encode(await service.answer(request))

    server = RequestServer(address, answer, fail)
    try:
        await service.start()
        await server.start()
        on_ready()
        ended = asyncio.ensure_future(service.wait())
        try:
            await asyncio.wait({ended, failed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        for each in (failed, ended):
            if each.done() and not each.cancelled():
                each.result()
    finally:
        await server.close()
        await service.close()


def connect(address: BrokerAddress, store: Store, patience_seconds: float) -> ServiceClient:
    """Return a client of a virtual host's service; nothing is asked yet."""
    return ServiceClient(RabbitTransport(address), store, patience_seconds)


class RabbitTransport:
    """Requests as bytes through a virtual host; connected when the first one is asked."""

    def __init__(self, address: BrokerAddress) -> None:
        self._client = RequestClient(address)

    def ask(self, request: channel.AnyRequest, seconds: float) -> channel.AnyReply:
        answer = self._client.ask(msgspec.msgpack.encode(request), seconds)
        try:
            reply: channel.AnyReply = channel.REPLY.decode(answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UnreachableError(f"the master's answer is none that this version knows: {error}") from None
        return reply

    def close(self) -> None:
        self._client.close()


class _Figures:
    """What the broker tells of its queues."""

    def __init__(self, broker: RabbitBroker) -> None:
        self._broker = broker

    async def queues(self) -> tuple[channel.Queue, ...]:
        counts = await self._broker.counts()
        return tuple(channel.Queue(name, ready, None, consumers) for name, (ready, consumers) in counts.items())

    @property
    def redelivered(self) -> int:
        return self._broker.redelivered

    @property
    def management(self) -> str | None:
        return None
