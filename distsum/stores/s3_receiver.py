"""The rest of a body, received straight into the memory where it is wanted.

aiohttp passes a body on in pieces that it copies several times, which took half of a reader's time. So once an answer's
headers are there, its connection is given another protocol until the body's last byte: asyncio then writes into memory
that this protocol names (``asyncio.BufferedProtocol``), also under TLS. Then aiohttp has its connection back, and keeps
it for the next request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from aiohttp import ClientResponse


class Room(Protocol):
    """Memory that a body is received into."""

    def room(self) -> memoryview:
        """Return what may be filled next; it is empty where nothing may be."""
        ...

    def fill(self, size: int) -> bool:
        """Take note that so many bytes of it were filled; return whether more may come."""
        ...


class Receiver(asyncio.BufferedProtocol):
    """Receives the rest of one answer's body, from ``begin`` until ``ended`` is done.

    Args:
        response: The answer, of whose body aiohttp holds nothing any more.
        target: Where the bytes go; there is room.
        size: Bytes that are still to come.

    Attributes:
        ended: Done when the last byte is there, or the connection is gone.
        arrived: Bytes so far.
    """

    def __init__(self, response: ClientResponse, target: Room, size: int) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.arrived = 0
        self._content = response.content
        self._target = target
        self._size = size
        connection = response.connection
        if connection is None or connection.protocol is None or connection.transport is None:
            raise ConnectionResetError
        self._usual: Any = connection.protocol
        self._transport: asyncio.Transport = connection.transport
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._waited_seconds = 0.0

    @property
    def waited_seconds(self) -> float:
        """Time in which bytes were waited for: not while there was no room for any."""
        now = self._loop.time()
        return self._waited_seconds + (now - self._since if self._since is not None else 0.0)

    def begin(self) -> None:
        """Receive from now on."""
        self._since = self._loop.time()
        self._transport.set_protocol(self)
        self._transport.resume_reading()

    def resume(self) -> None:
        """Go on, since there is room again."""
        if self._since is None and not self.ended.done():
            self._since = self._loop.time()
            self._transport.resume_reading()

    def leave(self) -> None:
        """Break the connection off where the rest is not wanted any more: nobody waits for a server to say goodbye."""
        if not self.ended.done():
            self._transport.set_protocol(self._usual)
            self._transport.abort()
            self.ended.cancel()

    # What asyncio calls -----------------------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go."""
        return self._target.room()[: self._size - self.arrived]

    def buffer_updated(self, nbytes: int) -> None:
        """Take note of bytes that came."""
        self.arrived += nbytes
        more = self._target.fill(nbytes)
        if self.arrived == self._size:
            self._transport.set_protocol(self._usual)
            self._content.feed_eof()  # with which the connection is free for the next request
            self.ended.set_result(None)
        elif not more:
            self._waited_seconds = self.waited_seconds
            self._since = None
            self._transport.pause_reading()

    def eof_received(self) -> bool | None:
        """Close the connection: the server has."""
        closing: bool | None = self._usual.eof_received()
        return closing

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell aiohttp, too, which counts its connections."""
        self._usual.connection_lost(exc)
        if not self.ended.done():
            self.ended.set_result(None)

    def pause_writing(self) -> None:
        """Pass it on: it is about the request."""
        self._usual.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on: it is about the request."""
        self._usual.resume_writing()
