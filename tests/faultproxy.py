"""A proxy in front of a real HTTP server that does to some answers what networks and busy servers do."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from tests.relay import Relay

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator


class Hold:
    """Keeps requests back until it lets them go; ``held`` lists those that came. Made by ``FaultProxy.hold``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._over = asyncio.Event()
        self._dropped = False
        self.held: list[Request] = []

    def release(self) -> None:
        """Let them go on, and all that come later."""
        self._loop.call_soon_threadsafe(self._over.set)

    def drop(self) -> None:
        """Close their connections: whoever has sent them is gone."""
        self._dropped = True
        self.release()

    async def wait(self, request: Request) -> bool:
        """Return, when it is over, whether the request goes on."""
        self.held.append(request)
        await self._over.wait()
        return not self._dropped


class Fault(NamedTuple):
    """What happens to one answer.

    Attributes:
        status: Answered instead of asking the server; 0 to ask it.
        code: The error code that goes with the status.
        cut: Bytes of the body after which the connection is closed.
        stall: Bytes of the body after which nothing more comes.
        drip_seconds: Time between single bytes of the body after ``stall`` bytes; 0 for a full stop.
        lose_answer: Whether the request is carried out and the connection closed without an answer.
        flip: The byte of the body of which one bit is turned, where the body is that long.
        hold: Keeps the request from the server.
        hold_answer: Keeps the answer of the server, which has carried the request out.
        headers: More headers of the answer.
    """

    status: int = 0
    code: str = ""
    cut: int | None = None
    stall: int | None = None
    drip_seconds: float = 0.0
    lose_answer: bool = False
    flip: int | None = None
    hold: Hold | None = None
    hold_answer: Hold | None = None
    headers: tuple[str, ...] = ()


class Request(NamedTuple):
    """One request, as far as a fault may depend on it; ``port`` is that of the client."""

    method: str
    target: str
    headers: dict[str, str]
    number: int
    port: int = 0


Choice = "Callable[[Request], Fault | None]"


class FaultProxy(Relay):
    """Listens on a port of its own. ``choose`` picks a fault for each request; ``requests`` lists those that came."""

    def __init__(self, upstream: str, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname is not None
        assert parts.port is not None
        self.choose: Callable[[Request], Fault | None] = lambda request: None
        self.requests: list[Request] = []
        self.flipped = 0
        self.open_bodies = self.most_open_bodies = 0
        self._let_go = asyncio.Event()
        super().__init__("127.0.0.1", (parts.hostname, parts.port), tls)
        self.endpoint = f"http://127.0.0.1:{self.port}" if tls is None else f"https://localhost:{self.port}"

    def let_go(self) -> None:
        """Close the connections that stall, now and from now on."""
        self._loop.call_soon_threadsafe(self._let_go.set)

    def hold(self) -> Hold:
        """Make what keeps requests or answers back, as faults may ask it to."""
        return Hold(self._loop)

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
        request = Request(method, target, headers, len(self.requests), writer.get_extra_info("peername")[1])
        self.requests.append(request)
        fault = self.choose(request) or Fault()
        if fault.hold is not None and not await fault.hold.wait(request):
            return False
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
        if fault.lose_answer or (fault.hold_answer is not None and not await fault.hold_answer.wait(request)):
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
        if fault.flip is not None and fault.flip < size:
            self.flipped += 1
            await _copy(answers, writer, fault.flip)
            writer.write(bytes([(await answers.readexactly(1))[0] ^ 1]))
            size -= fault.flip + 1
        await _copy(answers, writer, size)
        return True


class Line(Relay):
    """A way to a TCP port of this machine, on a port of its own, that can be cut and mended."""

    def __init__(self, port: int) -> None:
        self._is_cut = False
        super().__init__("127.0.0.1", ("127.0.0.1", port))

    def cut(self) -> None:
        """End all connections, and let no new one through."""
        self._is_cut = True
        self.break_off()

    def mend(self) -> None:
        """Let connections through again."""
        self._is_cut = False

    async def carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> None:
        """Carry a connection on unless the line is cut."""
        if not self._is_cut:
            await super().carry(reader, writer, answers, upstream)


@contextlib.contextmanager
def in_front_of(upstream: str, tls: ssl.SSLContext | None = None) -> Iterator[FaultProxy]:
    """Give a proxy that is gone afterwards; with TLS it is called ``localhost``."""
    proxy = FaultProxy(upstream, tls)
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
