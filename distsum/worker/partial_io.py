"""Partials between the store and the accumulators: read, checked and added in blocks, and written from the planes."""

from __future__ import annotations

import hashlib
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from distsum.errors import PartialError, StorageError
from distsum.partials import PartialHead, decode_head, head_bytes
from distsum.worker.attempt import TaskCancelledError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import numpy.typing as npt

    from distsum.messages import Skipped
    from distsum.stores.base import Reader, Store
    from distsum.worker.accumulators import Accumulators
    from distsum.worker.attempt import Attempt
    from distsum.worker.checkpoints import StoringTimes

    Array = npt.NDArray[Any]

_FIRST_HEAD_BYTES: Final = 256


class PartialIO:
    """Reads and writes the partials of one job.

    Args:
        store: Where they lie.
        accumulators: What they are added to, and written from.
        planes: dtypes of their planes.
        buffer: What is read into before it is added; not used where nothing is there yet to add to.
        ahead: Partials that are opened at once.
        work: The work folder.
        description: URI of the job's description, which is there as long as the job goes on.
        times: Told how long storing takes.

    Attributes:
        planes: As given.
    """

    def __init__(
        self,
        store: Store,
        accumulators: Accumulators,
        planes: tuple[str, ...],
        buffer: npt.NDArray[np.uint8],
        ahead: int,
        work: bytes,
        description: bytes,
        times: StoringTimes,
    ) -> None:
        self._store = store
        self._work = work
        self._description = description
        self._accumulators = accumulators
        self.planes = planes
        self._buffer = buffer
        self._ahead = ahead
        self._times = times

    def open_all(self, uris: Sequence[bytes], only: int | None = None) -> Generator[Reader | None]:
        """Yield readers of partials in order, None for one that is missing; the next ones are opened meanwhile.

        Args:
            uris: Where they are.
            only: The slice of them that is wanted; all of them if None.
        """
        yield from self._store.open_all(uris, self._fetched_bytes(only), self._ahead)

    def _fetched_bytes(self, only: int | None) -> int:
        """Return what is fetched at once of a partial: of one of which a slice is wanted only the head."""
        return self.whole_bytes() if only is None else _FIRST_HEAD_BYTES

    def head(self, uri: bytes, attempt: Attempt) -> PartialHead | None:
        """Return the head of a stored partial, None if there is none; a damaged one is deleted.

        Its numbers are not read: whoever adds them checks them.
        """
        (reader,) = self._store.open_all([uri], _FIRST_HEAD_BYTES, 1)
        if reader is None:
            return None
        with reader:
            try:
                return self._read_head(reader, attempt)[0]
            except PartialError:
                self._discard(uri, attempt)
                return None

    def load(self, uri: bytes, attempt: Attempt, only: int | None = None) -> PartialHead | None:
        """Read a stored partial into the lowest accumulator, which is empty; None if it is missing, or damaged.

        A damaged one is deleted, and what was read of it is as good as nothing: the accumulator is still empty.

        Args:
            uri: Where it is.
            attempt: Whose account it goes to.
            only: The slice of it that is read; all of it if None.
        """
        (reader,) = self._store.open_all([uri], self._fetched_bytes(only), 1)
        if reader is None:
            return None
        try:
            return self.merge(reader, attempt, only=only)
        except PartialError:
            self._discard(uri, attempt)
            return None

    def _discard(self, uri: bytes, attempt: Attempt) -> None:
        """Remove a damaged partial, if that can be done: whoever reads it finds that it is damaged."""
        try:
            self._store.delete(uri)
        except StorageError as error:
            attempt.warn(f"a damaged partial stays: {error}")

    def merge(self, reader: Reader, attempt: Attempt, weight: int = 0, only: int | None = None) -> PartialHead:
        """Add a partial to the lowest accumulator, and close it.

        Args:
            reader: The partial.
            attempt: Whose account it goes to.
            weight: Children that it stands for in the attempt's progress while it is read.
            only: The slice of it that is added; all of it if None.

        Raises:
            PartialError: It is damaged; then the accumulator is of no use, unless it was empty.
            TaskCancelledError: The attempt is cancelled.
        """
        accumulators = self._accumulators
        began = perf_counter()
        with reader:
            head, offset = self._read_head(reader, attempt)
            wanted = range(len(head.cuts)) if only is None or not head.numbers else range(only, only + 1)
            cuts = head.cuts[wanted.start : wanted.stop]
            numbers = sum(stop - start for start, stop in cuts)
            if numbers not in {0, len(accumulators.lowest[0])} or len(cuts) != len(wanted):
                raise PartialError("another number of numbers")
            sizes = [np.dtype(plane).itemsize for plane in head.planes]
            straight = accumulators.empty
            block = len(self._buffer) // (16 * len(sizes)) * 16 // max(sizes)
            done = 0
            attempt.reading_seconds += perf_counter() - began
            for cut, (low, high) in zip(wanted, cuts, strict=True):
                digests = [hashlib.sha256() for _ in sizes]
                for start in range(low, high, block):
                    attempt.check()
                    began = perf_counter()
                    length = min(block, high - start)
                    blocks = []
                    place = offset
                    used = 0
                    for plane, (size, digest) in enumerate(zip(sizes, digests, strict=True)):
                        if straight:
                            target = accumulators.lowest[plane][done : done + length]
                        else:
                            target = self._buffer[used : used + length * size].view(head.planes[plane])
                            used += length * size
                        view = target.view(np.uint8).data
                        attempt.bytes_read += reader.read_into([view], place + start * size)
                        digest.update(view)
                        place += head.numbers * size
                        blocks.append(target)
                    read = perf_counter()
                    attempt.reading_seconds += read - began
                    if not straight:
                        accumulators.merge(done, blocks, head.inputs)
                    done += length
                    if weight:
                        attempt.advance(accumulators.position + weight * done / numbers)
                    attempt.adding_seconds += perf_counter() - read
                found = tuple(digest.digest() for digest in digests)
                if found != head.digests[cut * len(sizes) : (cut + 1) * len(sizes)]:
                    raise PartialError("its digest does not agree with its content")
        return head

    def store(
        self, uri: bytes, planes: list[Array], inputs: int, skipped: tuple[Skipped, ...], attempt: Attempt
    ) -> None:
        """Store the node that these planes hold.

        Args:
            uri: Where.
            planes: Its planes, which mean nothing if ``inputs`` is 0.
            inputs: Inputs in it.
            skipped: Those left out, counted from its first input.
            attempt: Whose account it goes to.

        Raises:
            DiskFullError: There is no room for it.
            StorageError: It cannot be stored.
            TaskCancelledError: The attempt is cancelled, or its job has ended.
        """
        attempt.check()
        began = perf_counter()
        head = PartialHead(inputs, len(planes[0]) if inputs else 0, self.planes, skipped)
        views = [plane.view(np.uint8).data for plane in planes] if head.numbers else []
        parts = [plane[start:stop] for start, stop in head.cuts for plane in planes]
        digests = tuple(hashlib.sha256(part.view(np.uint8).data).digest() for part in parts)
        head = msgspec.structs.replace(head, digests=digests).sealed()
        size = self._store.put(uri, [head.encoded(), *views])
        attempt.bytes_written += size
        if self._removed_as_late(uri, attempt):
            raise TaskCancelledError
        attempt.objects_written += 1
        took = perf_counter() - began
        self._times.note(size, took)
        attempt.storing_seconds += took

    def _removed_as_late(self, uri: bytes, attempt: Attempt) -> bool:
        """Remove what was just stored if the job has ended, also where the attempt is cancelled; return whether it was.

        When a job has ended its description is removed first, and then what was stored for it. So what was stored while
        the description was still there is removed with the rest.
        """
        self._store.heed(None)
        try:
            if self._store.exists(self._description):
                return False
            # With what it lies in: a sweep sees no folder that is empty.
            self._store.withdraw(uri, self._work)
            return True
        finally:
            self._store.heed(attempt.cancelled)

    def whole_bytes(self) -> int:
        """Return the bytes of a partial of this tile, unless inputs were skipped."""
        numbers = len(self._accumulators.lowest[0])
        return _FIRST_HEAD_BYTES + numbers * sum(np.dtype(plane).itemsize for plane in self.planes)

    def _read_head(self, reader: Reader, attempt: Attempt) -> tuple[PartialHead, int]:
        """Return an opened partial's head and its length, checked against the partial's size and the job."""
        start = reader.read(0, _FIRST_HEAD_BYTES)
        length = head_bytes(start)
        if length > len(start):
            start = reader.read(0, length)
        head = decode_head(start)
        if head.planes != self.planes or length + head.data_bytes != reader.size:
            raise PartialError("another size or other planes")
        attempt.objects_read += 1
        attempt.bytes_read += length
        return head, length
