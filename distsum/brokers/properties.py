"""Has the AMQP library read any message that a broker hands out, also one whose properties cannot be read.

Whoever may publish chooses them: a time in the year 292,278,994, bytes that are not UTF-8, a table within a thousand
tables. The library takes each for a broken connection, or forgets the message unacknowledged. As the broker hands it
out again, to the next connection and the next process, one such message would keep everybody from working for good.
"""

from __future__ import annotations

from typing import Final

from pamqp.commands import Basic
from pamqp.header import ContentHeader

UNREADABLE: Final = "(unreadable properties)"
"""Stands for the sender of such a message, which thus is refused as one that is not from distsum."""
_DELIVERY_MODES: Final = (None, 1, 2)

_read_strictly = ContentHeader.unmarshal


def read_any_properties() -> None:
    """Change how the library reads the properties of messages; again, that changes nothing.

    It has no other place for this: neither a hook nor an argument.
    """
    ContentHeader.unmarshal = _read  # type: ignore[method-assign, assignment]  # see above


def _read(header: ContentHeader, data: bytes) -> None:
    """Read the header of a message's content. Its length comes first, so the body is found in any case."""
    try:
        _read_strictly(header, data)
        readable = header.properties.delivery_mode in _DELIVERY_MODES
    except Exception:  # noqa: BLE001 - whatever it is, it was chosen by whoever has sent the message
        readable = False
    if not readable:
        header.properties = Basic.Properties(app_id=UNREADABLE)
