"""What a message carries through a broker that others may write to, and what is refused on arrival (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from distsum.messages import PROTOCOL, encode
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

APPLICATION: Final = "distsum"
CONTENT_TYPE: Final = "application/msgpack"
PROTOCOL_HEADER: Final = "protocol"
DELIVERIES_HEADER: Final = "deliveries"
"""How often a dead-lettered task was handed out, where a worker says so and not the broker."""
MAX_MESSAGE_BYTES: Final = 8 << 20
"""A longer message is not one of ours. RabbitMQ 4 itself takes no more than 16 MiB unless told otherwise."""


class MessageTooLongError(Exception):
    """A message is longer than the other side takes."""


class RefusedError(Exception):
    """What arrived is none of our messages; the text says why."""


@dataclass(frozen=True)
class Envelope:
    """A message as bytes, with what the receiver checks before it reads them.

    Attributes:
        body: The message.
        kind: Its type's name, for people who look at a queue.
        application: Who wrote it.
        headers: The protocol it is written in.
    """

    body: bytes
    kind: str
    application: str = APPLICATION
    headers: Mapping[str, Any] = field(default_factory=lambda: {PROTOCOL_HEADER: PROTOCOL})


def seal(message: msgspec.Struct) -> Envelope:
    """Put a message into an envelope.

    Raises:
        MessageTooLongError: The other side would refuse it.
    """
    body = encode(message)
    kind = type(message).__name__
    if len(body) > MAX_MESSAGE_BYTES:
        raise MessageTooLongError(
            f"a {kind} of {len(body)} bytes is longer than the {MAX_MESSAGE_BYTES} a broker takes"
        )
    return Envelope(body, kind)


def unseal(envelope: Envelope, decoder: msgspec.msgpack.Decoder[Any]) -> Any:
    """Return the message in an envelope that came from outside.

    Args:
        envelope: What arrived; its fields may hold anything.
        decoder: Knows the messages of this channel.

    Raises:
        RefusedError: It is none of this channel's messages.
    """
    if envelope.application != APPLICATION:
        raise RefusedError(f"its sender is not {APPLICATION} but {printable(envelope.application, 40)!r}")
    protocol = envelope.headers.get(PROTOCOL_HEADER)
    if type(protocol) is not int:
        raise RefusedError("it does not say its protocol")
    if protocol != PROTOCOL:
        raise RefusedError(
            f"protocol {protocol}, and protocol {PROTOCOL} is spoken here; use one version of distsum everywhere"
        )
    if len(envelope.body) > MAX_MESSAGE_BYTES:
        raise RefusedError(f"{len(envelope.body)} bytes, and at most {MAX_MESSAGE_BYTES} are taken")
    try:
        return decoder.decode(envelope.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(f"no message of this channel: {printable(str(error), 200)}") from error
