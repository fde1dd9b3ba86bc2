"""Messages over a stream socket: four bytes of length, then msgpack."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from distsum.brokers.base import ChannelClosedError
from distsum.messages import TO_WORKER, encode

if TYPE_CHECKING:
    import socket

    import msgspec

    from distsum.messages import FromWorker, TaskFailed, TaskSucceeded, ToWorker

MAX_FRAME_BYTES: Final = 64 << 20
"""A longer frame is not one of ours. The longest are results that list skipped inputs."""


class FrameError(Exception):
    """The bytes of a stream are no frames."""


def frame(message: msgspec.Struct) -> bytes:
    """Return a message as a frame.

    Raises:
        FrameError: It is too long to be taken on the other side.
    """
    body = encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a message of {len(body)} bytes is longer than {MAX_FRAME_BYTES}")
    return len(body).to_bytes(4, "little") + body


class Deframer:
    r"""Cuts a stream of bytes into frames' bodies.

    >>> deframer = Deframer()
    >>> deframer.feed(bytes([2, 0, 0, 0, 7])), deframer.feed(bytes([8, 1, 0, 0, 0, 9]))
    ([], [b'\x07\x08', b'\t'])
    """

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes as they came; return the bodies that are now whole.

        Raises:
            FrameError: A frame says that it is longer than any of ours.
        """
        self._pending += data
        bodies = []
        start = 0
        while len(self._pending) - start >= 4:
            size = int.from_bytes(self._pending[start : start + 4], "little")
            if size > MAX_FRAME_BYTES:
                raise FrameError(f"a frame of {size} bytes is longer than {MAX_FRAME_BYTES}")
            if len(self._pending) - start < 4 + size:
                break
            bodies.append(bytes(self._pending[start + 4 : start + 4 + size]))
            start += 4 + size
        del self._pending[:start]
        return bodies


class SocketChannel:
    """A worker's side of a local broker (``WorkerChannel``); a result is its own acknowledgement."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over a connected, blocking stream socket."""
        self._socket = connection
        self._deframer = Deframer()
        self._ready: list[bytes] = []
        self._lock = threading.Lock()

    def receive(self) -> ToWorker:
        """Wait for the next message; see ``WorkerChannel``."""
        while not self._ready:
            try:
                data = self._socket.recv(1 << 16)
            except OSError as error:
                raise ChannelClosedError from error
            if not data:
                raise ChannelClosedError
            self._ready = self._deframer.feed(data)
        message: ToWorker = TO_WORKER.decode(self._ready.pop(0))
        return message

    def report(self, message: FromWorker) -> None:
        """Send a message; see ``WorkerChannel``."""
        data = frame(message)
        try:
            with self._lock:
                self._socket.sendall(data)
        except OSError as error:
            raise ChannelClosedError from error

    def finish(self, result: TaskSucceeded | TaskFailed) -> None:
        """Send a result; see ``WorkerChannel``."""
        self.report(result)
