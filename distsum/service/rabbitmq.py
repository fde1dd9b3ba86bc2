"""The service over RabbitMQ: a master that serves a virtual host, and clients that ask it."""

from __future__ import annotations

import asyncio
import logging
import random
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from distsum.brokers.amqp import backoff_seconds
from distsum.brokers.envelope import RefusedError
from distsum.brokers.rabbitmq import RabbitBroker
from distsum.brokers.rabbitmq_requests import RequestClient, RequestServer
from distsum.brokers.topology import JOBS_CHANNEL, VIEWS_CHANNEL
from distsum.errors import BrokerBusyError, DistsumError, SupersededError, UnreachableError, UsageError
from distsum.service import messages as channel
from distsum.service.client import ServiceClient
from distsum.service.queue_figures import QueueFigures
from distsum.service.scaling import Scaling
from distsum.service.server import Service, note_fault
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.actors.master import MasterSettings
    from distsum.actors.speculation import SpeculationSettings
    from distsum.brokers.address import BrokerAddress
    from distsum.observe.metrics import Metrics
    from distsum.stores.base import Store

log = logging.getLogger(__name__)

_ASKED_SECONDS: Final = 3.0
"""For so long a master that waits for its turn waits for an answer of the one that serves, before it asks again."""


async def serve(
    address: BrokerAddress,
    store: Store,
    work: bytes,
    *,
    on_ready: Callable[[], None],
    master: MasterSettings | None = None,
    speculation: SpeculationSettings | None = None,
    management: BrokerAddress | None = None,
    metrics: Metrics | None = None,
    scaling: Scaling | None = None,
) -> None:
    """Serve a virtual host until cancelled; where another master does so, wait until it is gone.

    A master holds the virtual host as long as its connection lasts. Should another have served before it is connected
    again, it begins anew.

    Args:
        address: The virtual host.
        store: Where jobs, partials, inputs and results lie.
        work: URI of the folder of jobs and partials.
        on_ready: Told when workers and clients are served.
        master: Settings of the master actor.
        speculation: What is done about stragglers; None for the default.
        management: The broker's management API, which tells more of its queues.
        metrics: Figures to keep.
        scaling: A fleet that is held while workers and clients are served, and let go before that ends.

    Raises:
        UnreachableError: There is no broker, or it does not let us in.
        BrokerBusyError: Another master serves, whose jobs are in another folder.
        StorageError: The work folder cannot be read.
    """
    draw = random.Random()  # noqa: S311 - spreads reconnections, and keeps no secret
    failures = 0
    begun = False
    while True:
        try:
            await _serve_term(
                address, store, work, on_ready, master, speculation, management, metrics, scaling or Scaling()
            )
        except SupersededError as error:
            # What this process believes of jobs and workers is out of date, so it begins anew: it waits for its turn,
            # and then takes over what is stored.
            log.warning("%s; beginning anew", error)
            begun = True
            failures = 0
        except UnreachableError as error:
            if not begun:
                raise
            log.warning("%s; trying again", error)
            failures += 1
        await asyncio.sleep(backoff_seconds(failures, draw))


async def _serve_term(
    address: BrokerAddress,
    store: Store,
    work: bytes,
    on_ready: Callable[[], None],
    master: MasterSettings | None,
    speculation: SpeculationSettings | None,
    management: BrokerAddress | None,
    metrics: Metrics | None,
    scaling: Scaling,
) -> None:
    """Serve until cancelled, or until another process may have served meanwhile.

    Raises:
        SupersededError: It may have, or the broker was lost before this process had its turn.
        UnreachableError: There is no broker, or it does not let us in.
    """
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    failed.add_done_callback(note_fault)

    def fail(error: BaseException) -> None:
        if not failed.done():
            failed.set_exception(error)
        else:
            log.warning("while this master ends: %s", error)

    def held(is_held: bool) -> None:  # noqa: FBT001 - called by the broker only
        service.set_serving(is_held)

    async def still_ours() -> bool:
        return await service.still_serves()

    broker = RabbitBroker(
        address,
        fail,
        lock_seconds=None,
        on_held=held,
        still_ours=still_ours,
        may_wait=partial(_serves_the_same, address, work),
    )
    figures = QueueFigures(broker, address.vhost, management)

    async def tell(key: str, frame: bytes) -> bool:
        return await server.tell(key, frame)

    service = Service(store, work, broker, figures, master, speculation, metrics, tell, scaling)

    answers = {
        JOBS_CHANNEL: partial(_answer, service, channel.REQUEST),
        VIEWS_CHANNEL: partial(_answer, service, channel.LOOK_REQUEST),
    }
    server = RequestServer(address, answers, fail)
    try:
        try:
            await service.start()
            await server.start()
        except UnreachableError as error:
            if not broker.was_connected:
                raise
            # It has waited for its turn, perhaps for days, and the broker was started again.
            raise SupersededError(str(error)) from None
        if metrics is not None:
            metrics.attach(service.gauges)
        fleet_size = await service.fleet_size()
        on_ready()
        scaling.begin(fleet_size)
        ended = asyncio.ensure_future(service.wait())
        try:
            await asyncio.wait({ended, failed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        for each in (failed, ended):
            if each.done() and not each.cancelled():
                each.result()
    finally:
        failed.cancel()  # Nobody waits for it any more, also where it was this process that was asked to end.
        if metrics is not None:
            metrics.detach()
        try:
            await scaling.end()  # while what the workers still finish is taken
        finally:
            await server.close()
            await service.close()


async def _answer(service: Service, decoder: msgspec.msgpack.Decoder[channel.AnyRequest], question: bytes) -> bytes:
    """Return the service's answer to a question.

    Raises:
        RefusedError: It is none that the decoder knows.
    """
    try:
        request = decoder.decode(question)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(f"this is no request: {printable(str(error), 200)}") from None
    return msgspec.msgpack.encode(await service.answer(request))


async def _serves_the_same(address: BrokerAddress, work: bytes) -> bool:
    """Whether the master that serves is known to keep its jobs where we do; False where it does not answer.

    Raises:
        BrokerBusyError: It keeps them elsewhere. In its place we would know none of the jobs that it has accepted.
    """
    answer = await asyncio.to_thread(_ask_once, address, channel.Diagnose())
    if not isinstance(answer, channel.Diagnosis):
        return False
    if answer.work != work:
        raise BrokerBusyError(
            f"{address} is served by a master whose jobs are in {printable(answer.work)}, and this one has "
            f"{printable(work)}, where none of them is; give the same --work-dir, or another virtual host"
        )
    return True


def _ask_once(address: BrokerAddress, request: channel.AnyRequest) -> channel.AnyReply | None:
    transport = RabbitTransport(address)
    try:
        return transport.ask(request, _ASKED_SECONDS)
    except DistsumError as error:
        log.debug("the master that serves %s does not answer: %s", address, error)
        return None
    finally:
        transport.close()


def connect(address: BrokerAddress, store: Store, patience_seconds: float) -> ServiceClient:
    """Return a client of a virtual host's service; nothing is asked yet."""
    return ServiceClient(RabbitTransport(address), store, patience_seconds)


class RabbitTransport:
    """Requests as bytes through a virtual host; connected when the first one is asked."""

    def __init__(self, address: BrokerAddress) -> None:
        self._client = RequestClient(address)

    def ask(self, request: channel.AnyRequest, seconds: float) -> channel.AnyReply:
        try:
            question = msgspec.msgpack.encode(request)
        except UnicodeEncodeError as error:
            raise UsageError(f"{printable(error.object)} is not UTF-8, as every id of a job or worker is") from None
        answer = self._client.ask(question, seconds)
        try:
            reply: channel.AnyReply = channel.REPLY.decode(answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UnreachableError(f"the master's answer is none that this version knows: {error}") from None
        return reply

    def close(self) -> None:
        self._client.close()
