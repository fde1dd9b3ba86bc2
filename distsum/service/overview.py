"""Views of a service as a whole, made on the side of its master."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import TYPE_CHECKING, Final

from distsum import __version__
from distsum.errors import DistsumError
from distsum.service.view import MasterStatus, ServiceView
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from distsum.observe.workers import WorkerStatus
    from distsum.service.messages import JobStatus, Queues
    from distsum.service.view import FleetStatus

FRAME_SECONDS: Final = 0.5
_QUEUES_SECONDS: Final = 1.0
"""Between two questions to the broker."""


class Overview:
    """What is known of a service.

    Args:
        work: URI of the folder of jobs and partials.
        jobs: Returns the last jobs that have ended, and all that have not, as far as they are remembered.
        workers: Returns the workers.
        queues: Asks the broker.
        fleet: Returns how the master's own fleet stands.
    """

    def __init__(
        self,
        work: bytes,
        jobs: Callable[[], tuple[JobStatus, ...]],
        workers: Callable[[], tuple[WorkerStatus, ...]],
        queues: Callable[[], Awaitable[Queues]],
        fleet: Callable[[], FleetStatus | None],
    ) -> None:
        self._jobs = jobs
        self._workers = workers
        self._ask_queues = queues
        self._fleet = fleet
        self._asking: asyncio.Future[Queues] | None = None
        self._asked = 0.0
        self._queues: Queues | None = None
        self._master = MasterStatus(
            version=__version__,
            host=printable(socket.gethostname(), 200),
            pid=os.getpid(),
            work=printable(work),
            began_seconds=time.time(),
        )

    async def look(self) -> ServiceView:
        """Return a view of this moment; of the queues that of a moment ago, since a broker may take its time."""
        self._take_queues()
        return ServiceView(
            jobs=self._jobs(),
            workers=self._workers(),
            queues=self._queues,
            master=self._master,
            fleet=self._fleet(),
        )

    def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()

    def _take_queues(self) -> None:
        now = time.monotonic()
        if self._asking is None:
            if now - self._asked >= _QUEUES_SECONDS:
                self._asked = now
                self._asking = asyncio.ensure_future(self._ask_queues())
        elif self._asking.done():
            asking, self._asking = self._asking, None
            try:
                self._queues = asking.result()
            except DistsumError:
                self._queues = None
