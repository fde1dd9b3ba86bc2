"""A service in a thread of the test's process, with real worker processes on a local broker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from distsum.brokers.local import LocalBroker
from distsum.errors import UnreachableError
from distsum.service import messages as channel
from distsum.service.client import ServiceClient
from distsum.service.server import Service
from distsum.stores.local import LocalStore
from distsum.worker.pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Serving:
    """A master and its workers. ``kill`` ends it as a crash would: nothing more is stored, no job is told.

    Attributes:
        client: A client of it.
    """

    def __init__(self, work: Path, workers: int = 2, **settings: Any) -> None:
        work.mkdir(exist_ok=True)
        self._work = os.fsencode(work)
        self._workers = workers
        self._settings = settings
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self.error: BaseException | None = None
        self._thread.start()
        assert self._ready.wait(30)
        self.client = ServiceClient(self, LocalStore(), patience_seconds=20.0)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        broker = LocalBroker()
        self.pool = WorkerPool(broker, self._workers, lambda _: None)
        self.service = Service(LocalStore(), self._work, broker, _Figures(), **self._settings)
        self.pool.start()
        try:
            await self.service.start()
            self._ready.set()
            done, _ = await asyncio.wait(
                {asyncio.ensure_future(self.service.wait()), asyncio.ensure_future(self._stop.wait())},
                return_when=asyncio.FIRST_COMPLETED,
            )
            self.error = next(iter(done)).exception()
        finally:
            self._ready.set()
            await self.service.close()
            await self.pool.close()

    def ask(self, request: channel.AnyRequest, seconds: float) -> channel.AnyReply:
        """Carry a request, as bytes, to the service."""
        if not self._thread.is_alive():
            raise UnreachableError("no master")
        decoded = channel.REQUEST.decode(msgspec.msgpack.encode(request))
        answer = asyncio.run_coroutine_threadsafe(self.service.answer(decoded), self._loop).result(seconds)
        return channel.REPLY.decode(msgspec.msgpack.encode(answer))

    def close(self) -> None:
        """End it in peace; what has failed in it is raised here."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self.error is not None:
            raise self.error


class _Figures:
    """What a local broker has to say of queues: nothing."""

    redelivered = 0
    management = None

    async def queues(self) -> tuple[channel.Queue, ...]:
        return ()


@contextlib.contextmanager
def serving(work: Path, workers: int = 2, **settings: Any) -> Iterator[Serving]:
    """Give a running service."""
    made = Serving(work, workers, **settings)
    try:
        yield made
    finally:
        made.close()
