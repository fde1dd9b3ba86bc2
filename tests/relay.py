"""What carries connections on to another server, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


class Relay:
    """Listens on an address, and carries each connection on as it comes; a subclass may do more with it.

    Args:
        address: Where to listen.
        upstream: Where the other server is.
        tls: What those who connect are to speak, if that is TLS.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, address: str, upstream: tuple[str, int], tls: ssl.SSLContext | None = None) -> None:
        self._upstream = upstream
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, address, 0, ssl=tls), self._loop
        ).result(10)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop listening, and break all connections off."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def break_off(self) -> None:
        """Break all connections off, and go on listening."""
        self._loop.call_soon_threadsafe(self._cancel)

    async def carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> None:
        """Carry one connection on, to its end."""
        await asyncio.gather(_copy(reader, upstream), _copy(answers, writer))
        for each in (upstream, writer):
            await each.wait_closed()  # with what was written last

    async def _stop(self) -> None:
        self._server.close()
        self._cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        upstream: asyncio.StreamWriter | None = None
        try:
            answers, upstream = await asyncio.open_connection(*self._upstream)
            await self.carry(reader, writer, answers, upstream)
        except (OSError, asyncio.IncompleteReadError):
            pass  # One side has gone, which is what a relay is there for.
        except asyncio.CancelledError:
            pass  # The test is over. Let the streams close quietly.
        finally:
            self._tasks.discard(task)
            for each in (writer, upstream):
                if each is not None:
                    each.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy to the end of one direction, and tell the other side of it."""
    try:
        while piece := await reader.read(1 << 18):
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass  # the other direction may still have something to carry
    finally:
        writer.close()
