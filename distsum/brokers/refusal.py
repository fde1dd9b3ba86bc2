"""Where what is no message of ours goes: to a queue for people, with the reason, so that it harms nobody again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from distsum.brokers.envelope import Envelope
from distsum.brokers.topology import DEAD_EXCHANGE, REFUSED

if TYPE_CHECKING:
    from distsum.brokers.amqp import Delivery, Session

log = logging.getLogger(__name__)

_BODY_KEPT: Final = 4096


async def refuse(session: Session, delivery: Delivery, where: str, reason: str) -> None:
    """Put a copy of what arrived, cut to its beginning, among what was refused; then acknowledge it.

    Raises:
        SessionLostError: The session ended; it will arrive again.
    """
    log.warning("a message in %s was refused: %s", where, reason)
    await bury(session, delivery, REFUSED, {"reason": reason, "from": where, "bytes": len(delivery.envelope.body)})


async def bury(session: Session, delivery: Delivery, key: str, headers: dict[str, Any]) -> None:
    """Move a message to one of the queues of dead letters, with headers that tell why.

    Raises:
        SessionLostError: The session ended; it will arrive again.
    """
    envelope = delivery.envelope
    body = envelope.body if key != REFUSED else envelope.body[:_BODY_KEPT]
    await session.publish(DEAD_EXCHANGE, key, Envelope(body, envelope.kind, envelope.application, headers))
    await delivery.acknowledge()
