"""The S3 server of the tests, with keys that nothing else knows, so that they are found wherever they are told."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.stack import seaweedfs
from tests.stack.processes import Tether, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["ACCESS_KEY", "SECRET_KEY", "S3Server", "free_ports", "running"]

ACCESS_KEY = "CANARYACCESSKEY00001"
SECRET_KEY = "canarySecretKey/wJalrXUtnFEMI+K7MDENG"


class S3Server(seaweedfs.S3Server):
    """A running server; ``environment`` is what reaches it."""

    @staticmethod
    def installed() -> bool:
        return seaweedfs.program() is not None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End the server, as a crash would; ``start`` brings it back."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[S3Server]:
    """Give a server that is gone afterwards."""
    with Tether() as tether:
        server = S3Server(folder, tether, bucket="tests", keys=(ACCESS_KEY, SECRET_KEY))
        try:
            server.start()
            yield server
        finally:
            for socket in server.sockets:
                socket.unlink(missing_ok=True)
