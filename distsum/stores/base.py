"""What a store is. Its contract is ``tests/contract/test_stores.py``, which every store passes.

Stores are called from threads that may wait: the folding thread of a worker, or ``asyncio.to_thread`` in the process
that plans. Objects are written whole or not at all, except an output, which is put together from ranges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

import msgspec

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from distsum.latency import Latencies
    from distsum.manifest import Input

    Buffer = bytes | bytearray | memoryview


class StoreInterruptedError(Exception):
    """What a store was waited for is not wanted any more; see ``Store.heed``."""


class Aged(msgspec.Struct, frozen=True):
    """An object by its name relative to the folder it was found in, and the time since it was written."""

    name: bytes
    size: int
    age_seconds: float


class Begun(msgspec.Struct, frozen=True):
    """An output that was begun and is not finished: its final name, its handle, and the time since it was begun."""

    final: bytes
    output: bytes
    age_seconds: float


class Reader(Protocol):
    """An opened object; a ``formats.base.Source`` that can be closed."""

    @property
    def uri(self) -> bytes:
        """Path or URI."""
        ...

    @property
    def size(self) -> int:
        """Bytes in the object."""
        ...

    def read_into(self, buffers: list[memoryview], offset: int) -> int:
        """Fill the buffers from ``offset`` on; fewer bytes are returned only where the object ends.

        Raises:
            StorageError: Reading failed.
        """
        ...

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset`` on."""
        ...

    def check_unchanged(self) -> None:
        """Make sure that what was read belongs to the pinned version.

        A store whose every read is pinned has nothing to look at, and does not raise.

        Raises:
            InputChangedError: The object changed while it was open.
        """
        ...

    def close(self) -> None:
        """Let go of the object."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Store(Protocol):
    """A place that holds objects by URI (``bytes``: a path is not always text)."""

    @property
    def client_bytes(self) -> int:
        """Memory that the store's code took when it was first used, which counts as imports."""
        ...

    @property
    def arrived_bytes(self) -> int:
        """What of opened objects has arrived over a network, and was not read yet."""
        ...

    def take_latencies(self) -> Latencies:
        """Return how long a server took to answer since this was last asked; nothing where none is asked."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...

    def heed(self, interruption: threading.Event | None) -> None:
        """From now on give up whatever would have to be waited for once this event is set; None for nothing.

        Then what waits for a server, in whichever thread, raises StoreInterruptedError within a fraction of a second,
        and so does what would ask it for more. What is being sent is sent to its end, and a call to the kernel ends by
        itself. The store stays usable: as soon as it heeds another event, or none, everything is as before.
        """
        ...

    def preflight(self, uri: bytes) -> None:
        """Make sure that what the URI lies in can be reached.

        Raises:
            UnreachableError: It cannot; the message says why in one line.
        """
        ...

    def identify(self, uri: bytes) -> Input:
        """Return an input with its size and version.

        Raises:
            InputListError: There is no such file, or it is not one that can be read.
        """
        ...

    def open_input(self, entry: Input, offset: int = 0, size: int = 0, *, head: int = 0, hold: int = 0) -> Reader:
        """Open an input that must still be what the manifest says.

        Args:
            entry: The input.
            offset: Where the range begins that will be read, from its beginning to its end.
            size: Its bytes.
            head: Bytes from the input's beginning that will be read before that.
            hold: Bytes of it that may be in memory before they are read.

        Raises:
            InputChangedError: It is gone, or its size or version differ. Where the store would have to ask a server,
                this is raised when the input is first read.
            StorageError: It cannot be opened; likewise.
        """
        ...

    def identify_all(self, uris: Iterable[bytes]) -> Iterator[Input]:
        """Yield what ``identify`` returns for each, in order; cheaper than one at a time where a server is asked."""
        ...

    def open(self, uri: bytes) -> Reader | None:
        """Open an object as it is now; None if there is none."""
        ...

    def open_all(self, uris: Sequence[bytes], size: int, ahead: int) -> Iterator[Reader | None]:
        """Yield what ``open`` returns for each, in order, while up to ``ahead`` of them are opened.

        A reader is closed by whoever gets it. ``size`` is what is read of each, from its beginning.
        """
        ...

    def exists(self, uri: bytes) -> bool:
        """Whether there is an object."""
        ...

    def written_seconds(self, uri: bytes) -> float | None:
        """Return when an object was written, by the clock of the store, in seconds of the Unix epoch; None if gone."""
        ...

    def put(self, uri: bytes, buffers: Sequence[Buffer]) -> int:
        """Store an object whole, in place of one that may be there; return its bytes.

        Raises:
            StorageError: It cannot be stored; nothing of it is visible then.
        """
        ...

    def delete(self, uri: bytes) -> None:
        """Remove an object; nothing happens if there is none."""
        ...

    def withdraw(self, uri: bytes, folder: bytes) -> None:
        """Remove an object that was put below a folder, and the folders between them that are empty then."""
        ...

    def delete_all(self, prefix: bytes, kept: set[bytes]) -> None:
        """Remove what is below a folder but for these names relative to it, and then the folder if it is empty."""
        ...

    def lock(self, folder: bytes) -> AbstractContextManager[object]:
        """Hold a folder, made if it is not there, until the context ends.

        Raises:
            WorkDirBusyError: Another run holds it.
            OutputError: It cannot be made.
        """
        ...

    def list(self, prefix: bytes) -> Iterator[bytes]:
        """Yield the names of the objects under a folder, relative to it, in no order; nothing if there is none."""
        ...

    def aged(self, folder: bytes) -> Iterator[Aged]:
        """Yield the objects below a folder with their ages, by the clock of the store."""
        ...

    def begun(self, folder: bytes) -> Iterator[Begun]:
        """Yield the outputs below a folder that are not finished."""
        ...

    def least_range(self, final: bytes, size: int) -> int:
        """Return the least bytes that a range of an output of ``size`` bytes has, but for the last one."""
        ...

    def create_output(self, final: bytes, size: int) -> bytes:
        """Make room for an output of ``size`` bytes, and return its handle; nothing is visible under its name yet.

        Raises:
            StorageError: There is no room, or no permission.
        """
        ...

    def write_range(self, output: bytes, offset: int, buffers: Iterable[Buffer]) -> bytes:
        """Write a range of the output of a handle; return a receipt that ``commit_output`` wants back.

        The buffers are taken one at a time, so that a generator keeps memory bounded.

        Raises:
            StorageError: It cannot be written.
        """
        ...

    def commit_output(self, output: bytes, final: bytes, receipts: Sequence[bytes], *, replace: bool) -> None:
        """Make a complete output durable, and visible under its final name at once.

        Raises:
            OutputError: There is an object of that name now, and ``replace`` is False.
            StorageError: It cannot be done.
        """
        ...

    def abort_output(self, output: bytes) -> None:
        """Remove what was written of an output that will not be finished; nothing happens if it is gone.

        Raises:
            StorageError: It cannot be removed.
        """
        ...
