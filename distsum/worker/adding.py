"""Inputs into the accumulators: opened ahead, read or parsed in blocks, and added."""

from __future__ import annotations

from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from distsum.errors import BadInputError
from distsum.formats.agreement import disagreement
from distsum.formats.base import Layout
from distsum.formats.registry import by_name
from distsum.reductions import REDUCTIONS
from distsum.worker.attempt import WatchedSource

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    import numpy.typing as npt

    from distsum.manifest import Input
    from distsum.messages import JobSpec
    from distsum.stores.base import Reader, Store
    from distsum.worker.accumulators import Accumulators
    from distsum.worker.attempt import Attempt

    Array = npt.NDArray[Any]


class BadChildError(Exception):
    """An input that fails the job, with its index in the job's list."""

    def __init__(self, index: int, error: BadInputError) -> None:
        super().__init__(index, error)
        self.index = index
        self.error = error


class InputAdder:
    """Adds inputs of one job, or ranges of them.

    Args:
        store: Where they lie.
        spec: The job.
        accumulators: What they are added to.
        buffer: What is read into.
    """

    def __init__(self, store: Store, spec: JobSpec, accumulators: Accumulators, buffer: npt.NDArray[np.uint8]) -> None:
        self._store = store
        self._spec = spec
        self._accumulators = accumulators
        self._buffer = buffer
        self._bytes = buffer.data
        self._format = by_name(spec.format)
        self._reduction = REDUCTIONS[spec.reduction]
        self._layout = Layout(spec.dtype, spec.shape, spec.fortran, spec.offset, spec.header)
        self._header = memoryview(bytearray(spec.offset))
        skipping_text = spec.on_bad_input == "skip" and not self._format.ranged
        self._staging = np.empty(min(spec.tile_length, spec.count), np.float64) if skipping_text else None

    def open_all(self, entries: Iterable[Input], start: int, stop: int) -> Generator[Reader]:
        """Yield readers of inputs in order, with at most ``max_open_files`` open: the next ones are read ahead."""
        spec = self._spec
        ranged = self._format.ranged
        itemsize = np.dtype(spec.dtype).itemsize
        offset = spec.offset + start * itemsize if ranged and start else 0
        head = spec.offset if offset else 0
        left = iter(entries)
        opened: deque[Reader] = deque()
        try:
            while True:
                while len(opened) < spec.max_open_files and (entry := next(left, None)) is not None:
                    ahead = spec.offset + stop * itemsize - offset if ranged else entry.size
                    opened.append(self._store.open_input(entry, offset, ahead, head=head, hold=spec.hold_bytes))
                if not opened:
                    return
                yield opened.popleft()
        finally:
            for reader in opened:
                reader.close()

    def add(self, index: int, reader: Reader, start: int, stop: int, attempt: Attempt) -> str | None:
        """Add the numbers [start, stop) of an input, and close it; return why it is left out, if it is.

        Raises:
            BadChildError: It is bad, and the job does not skip such.
            InputChangedError: It is not what the job's list pins.
            StorageError: Reading failed.
            TaskCancelledError: The attempt is cancelled.
        """
        try:
            if self._format.ranged:
                self._add_ranged(reader, start, stop, attempt)
            else:
                self._add_parsed(reader, attempt)
            reader.check_unchanged()
        except BadInputError as error:
            # What a torn write left is not a bad input: ask first whether it is still the same one.
            reader.check_unchanged()
            if self._spec.on_bad_input == "fail":
                raise BadChildError(index, error) from error
            return error.reason
        finally:
            reader.close()
            attempt.objects_read += 1
        return None

    def _add_ranged(self, reader: Reader, start: int, stop: int, attempt: Attempt) -> None:
        began = perf_counter()
        layout = self._layout
        chunk = len(self._bytes) // 16 * 16
        itemsize = np.dtype(layout.dtype).itemsize
        same_size = reader.size == layout.offset + layout.data_bytes
        size = min(chunk, (stop - start) * itemsize)
        if same_size and start == 0:
            # The usual case for many small files: one read for the header and the first block.
            got = reader.read_into([self._header, self._bytes[:size]], 0)
            attempt.bytes_read += got
            have = size if got == layout.offset + size else -1
        else:
            attempt.bytes_read += reader.read_into([self._header], 0) if layout.offset else 0
            have = 0
        if not same_size or self._header != layout.header:
            layout = self._other_layout(reader, attempt)
            itemsize = np.dtype(layout.dtype).itemsize
            have = 0
        attempt.reading_seconds += perf_counter() - began
        position = start
        while position < stop:
            attempt.check()
            began = perf_counter()
            size = min(chunk, (stop - position) * itemsize)
            if have != size:
                self._read_fully(reader, size, layout.offset + position * itemsize, attempt)
            have = 0
            values = self._buffer[:size].view(layout.dtype)
            read = perf_counter()
            self._accumulators.add(position - start, values)
            position += len(values)
            attempt.advance(self._accumulators.position + (position - start) / (stop - start))
            done = perf_counter()
            attempt.reading_seconds += read - began
            attempt.adding_seconds += done - read

    def _read_fully(self, reader: Reader, size: int, offset: int, attempt: Attempt) -> None:
        got = reader.read_into([self._bytes[:size]], offset)
        attempt.bytes_read += got
        if got < size:
            reader.check_unchanged()
            raise BadInputError(reader.uri, f"ends at byte {offset + got}, where {size - got} more were expected")

    def _other_layout(self, reader: Reader, attempt: Attempt) -> Layout:
        """Return the layout of an input whose header is not the first one's to the byte."""
        raw_dtype = self._spec.dtype if self._spec.format == "raw" else None
        layout = self._format.layout(WatchedSource(reader, attempt), raw_dtype)
        apart = disagreement(layout, self._layout, self._reduction)
        if apart is not None:
            raise BadInputError(reader.uri, apart)
        return layout

    def _add_parsed(self, reader: Reader, attempt: Attempt) -> None:
        """Add an input that can only be parsed from its beginning.

        Where bad inputs are skipped its numbers wait until the last one is known to be good.
        """
        position = 0
        began = perf_counter()
        source = WatchedSource(reader, attempt)
        for values in self._format.blocks(source, self._layout, self._bytes):
            attempt.check()
            read = perf_counter()
            attempt.reading_seconds += read - began
            if self._staging is None:
                self._accumulators.add(position, values)
            else:
                self._staging[position : position + len(values)] = values
            position += len(values)
            attempt.advance(self._accumulators.position + position / self._layout.count)
            began = perf_counter()
            attempt.adding_seconds += began - read
        attempt.reading_seconds += perf_counter() - began
        if self._staging is not None:
            self._accumulators.add(0, self._staging)
