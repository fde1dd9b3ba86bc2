"""Worker processes of this machine: started, replaced when they end unasked, and ended with the run."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Final

from distsum.messages import FromBroker, FromWorker, WorkerJoined, WorkerLost, WorkersCannotStart
from distsum.worker.launch import Launched, exit_words, launch, take_early

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from distsum.brokers.local import LocalBroker

_STILLBIRTHS: Final = 3
"""Workers that end before they join, one after the other, before the run gives up."""


class WorkerPool:
    """Keeps a number of worker processes running on a local broker.

    Args:
        broker: What they attach to.
        count: How many.
        tell: Told when workers cannot be started.
    """

    def __init__(self, broker: LocalBroker, count: int, tell: Callable[[WorkersCannotStart], None]) -> None:
        self._broker = broker
        self._count = count
        self._tell = tell
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._joined: set[str] = set()
        self._stillbirths = 0
        self._closing = False

    def start(self) -> None:
        """Start the processes that are missing, but for those that the command started early."""
        for launched in take_early(self._count - len(self._processes)):
            self._add(launched)
        while len(self._processes) < self._count:
            self._add(launch())

    def observe(self, message: FromWorker | FromBroker) -> None:
        """Take note of who has joined, and replace who is lost."""
        if isinstance(message, WorkerJoined):
            self._joined.add(message.worker)
            self._stillbirths = 0
        elif isinstance(message, WorkerLost) and not self._closing:
            self._replace(message.worker)

    def kill(self, worker: str) -> None:
        """End a worker that does not answer; its channel then breaks, and it is replaced."""
        if (process := self._processes.get(worker)) is not None:
            process.kill()

    async def close(self) -> None:
        """End all workers, and wait until they are gone. What they have half done was never visible."""
        self._closing = True
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            while process.poll() is None:  # noqa: ASYNC110 - the kernel has no event for us, and a kill takes a moment
                await asyncio.sleep(0.002)
        self._processes.clear()

    def _add(self, launched: Launched) -> None:
        self._processes[launched.name] = launched.process
        self._broker.attach(launched.name, launched.endpoint)

    def _replace(self, worker: str) -> None:
        process = self._processes.pop(worker, None)
        if process is None:
            return
        # The channel is broken, so the process has ended or is of no use any more.
        process.kill()
        status = process.wait()
        if worker not in self._joined:
            self._stillbirths += 1
            if self._stillbirths >= _STILLBIRTHS and self._joined:
                return  # Those that are there carry on with fewer.
            if self._stillbirths >= _STILLBIRTHS:
                self._tell(
                    WorkersCannotStart(
                        f"{self._stillbirths} worker processes ended before they were ready, the last with "
                        f"{exit_words(status)}; what they printed is above. Does {sys.executable} import distsum?"
                    )
                )
                return
        self._joined.discard(worker)
        self.start()
