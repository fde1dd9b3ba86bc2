"""A proxy in front of a real HTTP server that does to some answers what networks and busy servers do."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from tests.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Fault(NamedTuple):
    """What happens to one answer.

    Attributes:
        status: Answered instead of asking the server; 0 to ask it.
        code: The error code that goes with the status.
        cut: Bytes of the body after which the connection is closed.
        stall: Bytes of the body after which nothing more comes.
        drip_seconds: Time between single bytes of the body after ``stall`` bytes; 0 for a full stop.
        lose_answer: Whether the request is carried out and the connection closed without an answer.
        headers: More headers of the answer.
    """

    status: int = 0
    code: str = ""
    cut: int | None = None
    stall: int | None = None
    drip_seconds: float = 0.0
    lose_answer: bool = False
    headers: tuple[str, ...] = ()


class Request(NamedTuple):
    """One request, as far as a fault may depend on it."""

    method: str
    target: str
    headers: dict[str, str]
    number: int


Choice = "Callable[[Request], Fault | None]"


class FaultProxy(Relay):
    """Listens on a port of its own. ``choose`` picks a fault for each request; ``requests`` lists those that came."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname is not None
        assert parts.port is not None
        self.choose: Callable[[Request], Fault | None] = lambda request: None
        self.requests: list[Request] = []
        self.open_bodies = self.most_open_bodies = 0
        self._let_go = asyncio.Event()
        super().__init__("127.0.0.1", (parts.hostname, parts.port))
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def let_go(self) -> None:
        """Close the connections that stall, now and from now on."""
        self._loop.call_soon_threadsafe(self._let_go.set)

    async def carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> None:
        """Pass on requests until one side has enough."""
        while await self._exchange(reader, writer, answers, upstream):
            pass

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> bool:
        """Pass on one request and its answer; return whether the connection can be used again."""
        head = await reader.readuntil(b"\r\n\r\n")
        first, headers = _parsed(head)
        method, target, _ = first.split(" ", 2)
        request = Request(method, target, headers, len(self.requests))
        self.requests.append(request)
        fault = self.choose(request) or Fault()
        if fault.status:
            if "expect" in headers:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await _copy(reader, None, int(headers.get("content-length", 0)))
            body = f"<Error><Code>{fault.code}</Code><Message>told</Message></Error>".encode()
            lines = [f"HTTP/1.1 {fault.status} Fault", f"Content-Length: {len(body)}", *fault.headers, "", ""]
            writer.write("\r\n".join(lines).encode() + (b"" if method == "HEAD" else body))
            await writer.drain()
            return True
        if "expect" in headers:
            # The client holds its body back until it is told to go on; the signature does not cover this line.
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = re.sub(rb"(?i)\r\nexpect:[^\r]*", b"", head)
        upstream.write(head)
        await _copy(reader, upstream, int(headers.get("content-length", 0)))
        head = await answers.readuntil(b"\r\n\r\n")
        first, answered = _parsed(head)
        if fault.lose_answer:
            return False
        writer.write(head)
        if method == "HEAD" or first.split(" ")[1] in {"204", "304"}:
            await writer.drain()
            return True
        if "chunked" in answered.get("transfer-encoding", ""):
            while size := int(line := await _line(answers, writer), 16):
                await _copy(answers, writer, size + 2)
            await _copy(answers, writer, 2)
            assert line
            return True
        self.open_bodies += method == "GET"
        self.most_open_bodies = max(self.most_open_bodies, self.open_bodies)
        try:
            return await self._pass_body(answers, writer, int(answered.get("content-length", 0)), fault)
        finally:
            self.open_bodies -= method == "GET"

    async def _pass_body(
        self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int, fault: Fault
    ) -> bool:
        if fault.cut is not None:
            await _copy(answers, writer, min(size, fault.cut))
            writer.close()  # after what was written has gone out
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return False
        if fault.stall is not None:
            await _copy(answers, writer, min(size, fault.stall))
            for _ in range(size - fault.stall):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._let_go.wait(), fault.drip_seconds or 3600)
                    return False
                await _copy(answers, writer, 1)
            return True
        await _copy(answers, writer, size)
        return True


@contextlib.contextmanager
def in_front_of(upstream: str) -> Iterator[FaultProxy]:
    """Give a proxy that is gone afterwards."""
    proxy = FaultProxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()


def _parsed(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, {name.lower(): value.strip() for name, _, value in pairs}


async def _line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    line = await reader.readline()
    writer.write(line)
    return line


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None, size: int) -> None:
    while size:
        data = await reader.read(min(size, 1 << 16))
        if not data:
            raise asyncio.IncompleteReadError(b"", size)
        size -= len(data)
        if writer is not None:
            writer.write(data)
            await writer.drain()
