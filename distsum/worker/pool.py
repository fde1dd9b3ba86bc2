"""Worker processes of this machine: started, replaced when they end unasked, and ended with the run."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from distsum.messages import FromBroker, FromWorker, WorkerJoined, WorkerLost, WorkersCannotStart

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.brokers.local import LocalBroker

_STILLBIRTHS: Final = 3
"""Workers that end before they join, one after the other, before the run gives up."""
_THREAD_VARIABLES: Final = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerPool:
    """Keeps a number of worker processes running on a local broker.

    Args:
        broker: What they attach to.
        count: How many.
        heartbeat_seconds: Time between their heartbeats.
        tell: Told when workers cannot be started.
    """

    def __init__(
        self, broker: LocalBroker, count: int, heartbeat_seconds: float, tell: Callable[[WorkersCannotStart], None]
    ) -> None:
        self._broker = broker
        self._count = count
        self._heartbeat_seconds = heartbeat_seconds
        self._tell = tell
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._joined: set[str] = set()
        self._stillbirths = 0
        self._closing = False

    def start(self) -> None:
        """Start the processes that are missing."""
        while len(self._processes) < self._count:
            self._start_one()

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

    def _start_one(self) -> None:
        name, endpoint = self._broker.attach()
        with endpoint:
            self._processes[name] = subprocess.Popen(
                worker_command(endpoint.fileno(), name, self._heartbeat_seconds),
                pass_fds=(endpoint.fileno(),),
                env=worker_environment(os.environ, sys.path),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

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


def worker_command(descriptor: int, name: str, heartbeat_seconds: float) -> list[str]:
    """Return the command line of a worker; ``-P`` keeps a ``numpy.py`` in the current folder out of it."""
    return [
        sys.executable,
        "-P",
        "-m",
        "distsum.worker",
        str(descriptor),
        name,
        str(heartbeat_seconds),
        f"{time.time():.6f}",
    ]


def worker_environment(environment: os._Environ[str] | dict[str, str], path: list[str]) -> dict[str, str]:
    """Return the environment of a worker: one thread for each numerical library, and modules from where we have them.

    A worker is one of many, so libraries that would start a thread a core only cost start-up and memory.
    """
    ours = dict.fromkeys(_THREAD_VARIABLES, "1")
    return dict(environment) | ours | {"PYTHONPATH": os.pathsep.join(entry for entry in path if entry)}


def exit_words(status: int) -> str:
    """Return how a process ended, in words.

    >>> exit_words(-9), exit_words(1)
    ('SIGKILL', 'exit code 1')
    """
    if status >= 0:
        return f"exit code {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
