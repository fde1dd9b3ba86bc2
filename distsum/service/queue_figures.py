"""What the broker tells of its queues: by the connection that the master has, and more by the management API.

The management API is for people, and may be slow, gone, or somebody else's: the master waits for it only a moment, asks
only once at a time, and goes on without.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from distsum.brokers.management import Management
from distsum.errors import UnreachableError
from distsum.service import messages as channel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distsum.brokers.address import BrokerAddress
    from distsum.brokers.rabbitmq import RabbitBroker

log = logging.getLogger(__name__)

_CALL_SECONDS: Final = 2.0
_WAIT_SECONDS: Final = 2.5
_AGAIN_SECONDS: Final = 5.0
"""RabbitMQ gathers what its management API tells so often, unless told otherwise, and each question costs it dear."""
_KEPT_SECONDS: Final = 2 * _AGAIN_SECONDS
"""For so long an answer counts while there is no newer one."""
_COLUMNS: Final = ("messages_unacknowledged", "message_stats.redeliver")


class QueueFigures:
    """Figures of the shared queues (see ``ServiceBroker``).

    Args:
        broker: Tells what is ready, and how many consume it.
        vhost: Its virtual host.
        management: The management API, if it may be asked.
    """

    def __init__(self, broker: RabbitBroker, vhost: str, management: BrokerAddress | None = None) -> None:
        self._broker = broker
        self._vhost = vhost
        self._api = Management(management, _CALL_SECONDS) if management is not None else None
        self._asking: asyncio.Future[Mapping[str, Any]] | None = None
        self._asked = -_AGAIN_SECONDS
        self._known: Mapping[str, Any] = {}
        self._known_since: float | None = None
        self._fault: str | None = None

    @property
    def redelivered(self) -> int:
        """Tasks that were started after they had come back from a worker."""
        return self._broker.redelivered

    @property
    def ahead_seconds(self) -> dict[str, float]:
        """How far workers' clocks are ahead of this one, where that is known."""
        return self._broker.ahead_seconds

    @property
    def management(self) -> str | None:
        """Where people can look closer."""
        return self._api.page if self._api is not None else None

    @property
    def management_fault(self) -> str | None:
        """Why the last question to the management API was not answered; None if it was, or none was asked."""
        return self._fault

    async def queues(self) -> tuple[channel.Queue, ...]:
        """Return how many messages wait where.

        Raises:
            UnreachableError: The connection to the broker is lost at the moment.
        """
        counts = await self._broker.counts()
        more = await self._more(tuple(counts))
        return tuple(
            channel.Queue(
                name,
                ready,
                _count(more.get(name), "messages_unacknowledged"),
                consumers,
                _redelivered(more.get(name)),
            )
            for name, (ready, consumers) in counts.items()
        )

    async def _more(self, names: tuple[str, ...]) -> Mapping[str, Any]:
        """Return what the management API tells of each queue, by name; nothing where it tells nothing in time."""
        if self._api is None:
            return {}
        now = time.monotonic()
        if self._asking is None and now - self._asked >= _AGAIN_SECONDS:
            self._asked = now
            self._asking = self._ask(self._api, names)
        if (asking := self._asking) is not None:
            is_known = self._known_since is not None and now - self._known_since < _KEPT_SECONDS
            # Where the last answer is not old, nobody waits for the next one.
            await asyncio.wait({asking}, timeout=0 if is_known else _WAIT_SECONDS)
            if asking.done():
                if self._asking is asking:  # or else somebody else has taken it
                    self._asking = None
                    self._take(asking)
            elif not is_known:
                self._known = {}
                self._tell(f"{self._api.page}: no answer within {_WAIT_SECONDS:g} s")
        return self._known

    def _take(self, answered: asyncio.Future[Mapping[str, Any]]) -> None:
        try:
            self._known, self._known_since = answered.result(), time.monotonic()
        except UnreachableError as error:
            self._known, self._known_since = {}, None
            self._tell(str(error))
        else:
            self._tell(None)

    def _ask(self, api: Management, names: tuple[str, ...]) -> asyncio.Future[Mapping[str, Any]]:
        """Ask in a thread that does not keep the process from ending, as those of the loop's own pool would."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Mapping[str, Any]] = loop.create_future()
        # An answer that comes after its time is nobody's, and so is its error.
        answered.add_done_callback(lambda done: done.cancelled() or done.exception())

        def ask() -> None:
            outcome: Mapping[str, Any] | BaseException
            try:
                outcome = {name: found for name in names if isinstance(found := self._queue(api, name), dict)}
            except Exception as error:  # noqa: BLE001 - told to whoever waits for the answer
                outcome = error
            try:
                loop.call_soon_threadsafe(_settle, answered, outcome)
            except RuntimeError:
                log.debug("the master has ended before the management API answered")

        threading.Thread(target=ask, name="management API", daemon=True).start()
        return answered

    def _queue(self, api: Management, name: str) -> Any:
        return api.get("queues", self._vhost, name, columns=_COLUMNS)

    def _tell(self, fault: str | None) -> None:
        """Log the first of several faults, and their end."""
        if fault is not None and self._fault is None:
            log.warning("the management API tells nothing of queues: %s", fault)
        elif fault is None and self._fault is not None:
            log.info("the management API tells of queues again")
        self._fault = fault


def _settle(answered: asyncio.Future[Mapping[str, Any]], outcome: Mapping[str, Any] | BaseException) -> None:
    if answered.done():
        return
    if isinstance(outcome, BaseException):
        answered.set_exception(outcome)
    else:
        answered.set_result(outcome)


def _redelivered(told: Any) -> int | None:
    """Return how often messages of a queue were redelivered: RabbitMQ leaves that out of its figures until one was."""
    if _count(told, "messages_unacknowledged") is None:
        return None
    return _count(told.get("message_stats"), "redeliver") or 0


def _count(table: object, name: str) -> int | None:
    """Return a count out of an answer, which may be anybody's."""
    found = table.get(name) if isinstance(table, dict) else None
    return found if type(found) is int and found >= 0 else None
