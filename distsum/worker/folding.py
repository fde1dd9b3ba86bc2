"""One task: fold a node's children in the order of the canonical tree, store it, and at the root write the result."""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from distsum.errors import BadInputError, InexactError, PartialError
from distsum.formats.agreement import disagreement
from distsum.formats.base import Layout
from distsum.formats.registry import by_name
from distsum.manifest import ManifestReader, NodeKeys
from distsum.messages import Effort, JobSpec, Skipped, TaskId
from distsum.partials import (
    PartialHead,
    decode_head,
    head_bytes,
    manifest_uri,
    node_context,
    partial_uri,
    spec_uri,
)
from distsum.reductions import REDUCTIONS, cast
from distsum.tree import Tree, levels_above
from distsum.worker.accumulators import Accumulators

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from distsum.stores.base import Reader, Store

    Array = npt.NDArray[Any]

_FIRST_HEAD_BYTES = 256


class TaskCancelledError(Exception):
    """The task's result is not wanted any more."""


class ChildrenMissingError(Exception):
    """Children's partials are missing or damaged: their indices in the phase below."""

    def __init__(self, missing: tuple[int, ...]) -> None:
        super().__init__(missing)
        self.missing = missing


class BadChildError(Exception):
    """An input that fails the job, with its index in the job's list."""

    def __init__(self, index: int, error: BadInputError) -> None:
        super().__init__(index, error)
        self.index = index
        self.error = error


class TaskResult(msgspec.Struct, frozen=True):
    """What a task made; see ``messages.TaskSucceeded``."""

    inputs: int
    skipped: tuple[Skipped, ...]
    reused: bool
    receipt: bytes
    effort: Effort


class JobFolder:
    """Folds the tasks of one job, one at a time, in buffers that are made once.

    Args:
        store: Where everything lies.
        spec: The job.
        peak_bytes: Tells the worker's peak memory, for its report.
    """

    def __init__(self, store: Store, spec: JobSpec, peak_bytes: Callable[[], int]) -> None:
        self._store = store
        self._spec = spec
        self._peak_bytes = peak_bytes
        self._tree = Tree(files=spec.files, fan_in=spec.fan_in, exponent=spec.exponent)
        self._format = by_name(spec.format)
        self._reduction = REDUCTIONS[spec.reduction]
        self._planes = self._reduction.planes(spec.dtype)
        self._layout = Layout(spec.dtype, spec.shape, spec.fortran, spec.offset, spec.header)
        length = min(spec.tile_length, spec.count)
        levels = max(1, min(spec.exponent, levels_above(spec.files, spec.fan_in)))
        self._accumulators = Accumulators(self._reduction, self._planes, length, levels, spec.fan_in)
        self._buffer = np.empty(spec.buffer_bytes, np.uint8)
        self._bytes = self._buffer.data
        self._header = memoryview(bytearray(spec.offset))
        skipping_text = spec.on_bad_input == "skip" and not self._format.ranged
        self._staging = np.empty(length, np.float64) if skipping_text else None
        source = store.open(manifest_uri(spec.work, spec.job))
        if source is None:
            raise PartialError(f"job {spec.job} has no list of inputs in its work folder")
        self._manifest_source = source
        self._manifest = ManifestReader(source)
        self._cancelled = False
        self._clear()

    @property
    def bytes_read(self) -> int:
        """Bytes that the running task has read so far; safe to read from another thread."""
        return self._bytes_read

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called for the running task."""
        return self._cancelled

    def cancel(self) -> None:
        """Make the running task raise TaskCancelledError at its next block; safe to call from another thread."""
        self._cancelled = True

    def close(self) -> None:
        """Let go of the list of inputs."""
        self._manifest_source.close()

    def _clear(self) -> None:
        self._cancelled = False
        self._bytes_read = 0
        self._bytes_written = 0
        self._objects_read = 0
        self._objects_written = 0
        self._reading_seconds = 0.0
        self._adding_seconds = 0.0
        self._storing_seconds = 0.0

    def fold(self, task: TaskId, waiting_seconds: float) -> TaskResult:
        """Make a task's node, unless it is stored already, and at the root write its range of the result.

        Raises:
            BadChildError: An input is bad, and the job does not skip such.
            InputChangedError: An input is not what the job's list pins.
            ChildrenMissingError: Partials of the phase below must be made again.
            InexactError: The result must be exact and does not fit.
            StorageError: Reading or writing failed.
            TaskCancelledError: ``cancel`` was called.
        """
        self._clear()
        with np.errstate(all="ignore"):  # NaN, infinities and overflow are results here, not faults.
            return self._fold(task, waiting_seconds)

    def _fold(self, task: TaskId, waiting_seconds: float) -> TaskResult:
        start, stop = self._spec.tile(task.tile)
        keys = NodeKeys(node_context(self._spec, task.tile))
        first, last = self._tree.inputs(task.phase, task.index)
        uri = partial_uri(self._spec.work, keys.key(self._manifest.pieces(first, last)))
        at_root = task.phase == self._tree.phases
        self._accumulators.reset(stop - start)
        stored = self._load_stored(uri, read=at_root)
        if stored is None:
            if task.phase == 1:
                skipped = self._fold_inputs(first, last, start, stop)
            else:
                skipped = self._fold_partials(task, keys)
            began = perf_counter()
            planes, inputs = self._accumulators.top()
            self._adding_seconds += perf_counter() - began
            self._store_partial(uri, planes, inputs, skipped, stop - start)
        else:
            inputs, skipped = stored.inputs, stored.skipped
            planes = self._accumulators.lowest
        if skipped and self._spec.on_bad_input == "fail":
            # The partial comes from a run that skipped bad inputs; this one was told to stop at them.
            worst = min(skipped, key=lambda each: each.index)
            uri_at_fault = next(self._manifest.inputs(first + worst.index, first + worst.index + 1)).uri
            raise BadChildError(first + worst.index, BadInputError(uri_at_fault, worst.reason))
        receipt = self._write_result(planes, inputs, start) if at_root and inputs else b""
        return TaskResult(
            inputs=inputs,
            skipped=tuple(Skipped(first + each.index, each.reason) for each in skipped),
            reused=stored is not None,
            receipt=receipt,
            effort=Effort(
                self._bytes_read,
                self._bytes_written,
                self._objects_read,
                self._objects_written,
                waiting_seconds,
                self._reading_seconds,
                self._adding_seconds,
                self._storing_seconds,
                self._peak_bytes(),
            ),
        )

    # Inputs -----------------------------------------------------------------------------------------------------------

    def _fold_inputs(self, first: int, last: int, start: int, stop: int) -> tuple[Skipped, ...]:
        """Fold inputs in order, holding at most ``max_open_files`` open: the next ones are being read ahead."""
        ranged = self._format.ranged
        itemsize = np.dtype(self._spec.dtype).itemsize
        offset = self._spec.offset + start * itemsize if ranged and start else 0
        head = self._spec.offset if offset else 0
        entries = self._manifest.inputs(first, last)
        opened: deque[Reader] = deque()
        skipped: list[Skipped] = []
        index = first
        try:
            while True:
                began = perf_counter()
                while len(opened) < self._spec.max_open_files and (entry := next(entries, None)) is not None:
                    ahead = self._spec.offset + stop * itemsize - offset if ranged else entry.size
                    opened.append(self._store.open_input(entry, offset, ahead, head=head, hold=self._spec.hold_bytes))
                self._reading_seconds += perf_counter() - began
                if not opened:
                    return tuple(skipped)
                reader = opened.popleft()
                try:
                    if ranged:
                        self._add_ranged(reader, start, stop)
                    else:
                        self._add_parsed(reader)
                    reader.check_unchanged()
                    self._accumulators.close(1)
                except BadInputError as error:
                    # What a torn write left is not a bad input: ask first whether it is still the same one.
                    reader.check_unchanged()
                    if self._spec.on_bad_input == "fail":
                        raise BadChildError(index, error) from error
                    skipped.append(Skipped(index - first, error.reason))
                    self._accumulators.close(0)
                finally:
                    reader.close()
                self._objects_read += 1
                index += 1
        finally:
            for reader in opened:
                reader.close()

    def _add_ranged(self, reader: Reader, start: int, stop: int) -> None:
        began = perf_counter()
        layout = self._layout
        chunk = len(self._bytes) // 16 * 16
        itemsize = np.dtype(layout.dtype).itemsize
        same_size = reader.size == layout.offset + layout.data_bytes
        size = min(chunk, (stop - start) * itemsize)
        if same_size and start == 0:
            # The usual case for many small files: one read for the header and the first block.
            got = reader.read_into([self._header, self._bytes[:size]], 0)
            self._bytes_read += got
            have = size if got == layout.offset + size else -1
        else:
            self._bytes_read += reader.read_into([self._header], 0) if layout.offset else 0
            have = 0
        if not same_size or self._header != layout.header:
            layout = self._other_layout(reader)
            itemsize = np.dtype(layout.dtype).itemsize
            have = 0
        self._reading_seconds += perf_counter() - began
        position = start
        while position < stop:
            if self._cancelled:
                raise TaskCancelledError
            began = perf_counter()
            size = min(chunk, (stop - position) * itemsize)
            if have != size:
                self._read_fully(reader, size, layout.offset + position * itemsize)
            have = 0
            values = self._buffer[:size].view(layout.dtype)
            read = perf_counter()
            self._accumulators.add(position - start, values)
            position += len(values)
            done = perf_counter()
            self._reading_seconds += read - began
            self._adding_seconds += done - read

    def _read_fully(self, reader: Reader, size: int, offset: int) -> None:
        got = reader.read_into([self._bytes[:size]], offset)
        self._bytes_read += got
        if got < size:
            reader.check_unchanged()
            raise BadInputError(reader.uri, f"ends at byte {offset + got}, where {size - got} more were expected")

    def _other_layout(self, reader: Reader) -> Layout:
        """Return the layout of an input whose header is not the first one's to the byte."""
        layout = self._format.layout(reader, self._spec.dtype if self._spec.format == "raw" else None)
        apart = disagreement(layout, self._layout, self._reduction)
        if apart is not None:
            raise BadInputError(reader.uri, apart)
        return layout

    def _add_parsed(self, reader: Reader) -> None:
        """Add an input that can only be parsed from its beginning.

        Where bad inputs are skipped its numbers wait until the last one is known to be good.
        """
        position = 0
        began = perf_counter()
        for values in self._format.blocks(reader, self._layout, self._bytes):
            if self._cancelled:
                raise TaskCancelledError
            read = perf_counter()
            self._reading_seconds += read - began
            if self._staging is None:
                self._accumulators.add(position, values)
            else:
                self._staging[position : position + len(values)] = values
            position += len(values)
            began = perf_counter()
            self._adding_seconds += began - read
        self._reading_seconds += perf_counter() - began
        self._bytes_read += reader.size
        if self._staging is not None:
            self._accumulators.add(0, self._staging)

    # Partials ---------------------------------------------------------------------------------------------------------

    def _fold_partials(self, task: TaskId, keys: NodeKeys) -> tuple[Skipped, ...]:
        """Fold the children's partials in order; a damaged one is deleted, and named with all that are missing."""
        first, last = self._tree.children(task.phase, task.index)
        origin = self._tree.inputs(task.phase, task.index)[0]
        uris = []
        for child in range(first, last):
            low, high = self._tree.inputs(task.phase - 1, child)
            uris.append((low - origin, partial_uri(self._spec.work, keys.key(self._manifest.pieces(low, high)))))
        skipped: list[Skipped] = []
        names = [uri for _, uri in uris]
        readers = self._store.open_all(names, self._partial_bytes(), self._spec.max_open_files)
        began = perf_counter()
        for place, reader in enumerate(readers):
            self._reading_seconds += perf_counter() - began
            if reader is None:
                # Name all that are missing at once, so that they are made again at once.
                rest = range(place + 1, len(names))
                raise ChildrenMissingError(
                    (first + place, *(first + p for p in rest if not self._store.exists(names[p])))
                )
            try:
                head = self._merge_partial(reader)
            except PartialError as error:
                self._store.delete(names[place])
                raise ChildrenMissingError((first + place,)) from error
            skipped.extend(Skipped(uris[place][0] + each.index, each.reason) for each in head.skipped)
            self._accumulators.close(head.inputs)
            began = perf_counter()
        return tuple(skipped)

    def _partial_bytes(self) -> int:
        """Bytes of a partial of this tile, unless inputs were skipped."""
        numbers = len(self._accumulators.lowest[0])
        return _FIRST_HEAD_BYTES + numbers * sum(np.dtype(plane).itemsize for plane in self._planes)

    def _open_partial(self, reader: Reader) -> tuple[PartialHead, int]:
        """Check an opened partial's head against its size and the job; it is closed if it does not agree."""
        try:
            start = reader.read(0, _FIRST_HEAD_BYTES)
            length = head_bytes(start)
            if length > len(start):
                start = reader.read(0, length)
            head = decode_head(start)
            if head.planes != self._planes or length + head.data_bytes != reader.size:
                raise PartialError("another size or other planes")
        except BaseException:
            reader.close()
            raise
        self._objects_read += 1
        self._bytes_read += length
        return head, length

    def _merge_partial(self, reader: Reader) -> PartialHead:
        """Add a partial, and close it."""
        began = perf_counter()
        head, offset = self._open_partial(reader)
        with reader:
            if head.numbers not in {0, len(self._accumulators.lowest[0])}:
                raise PartialError("another number of numbers")
            digests = [hashlib.sha256() for _ in head.planes]
            sizes = [np.dtype(plane).itemsize for plane in head.planes]
            straight = self._accumulators.empty
            block = len(self._bytes) // (16 * len(sizes)) * 16 // max(sizes)
            for start in range(0, head.numbers, block):
                if self._cancelled:
                    raise TaskCancelledError
                numbers = min(block, head.numbers - start)
                blocks = []
                place = offset
                used = 0
                for plane, (size, digest) in enumerate(zip(sizes, digests, strict=True)):
                    if straight:
                        target = self._accumulators.lowest[plane][start : start + numbers]
                    else:
                        target = self._buffer[used : used + numbers * size].view(head.planes[plane])
                        used += numbers * size
                    view = target.view(np.uint8).data
                    self._bytes_read += reader.read_into([view], place + start * size)
                    digest.update(view)
                    place += head.numbers * size
                    blocks.append(target)
                read = perf_counter()
                self._reading_seconds += read - began
                if not straight:
                    self._accumulators.merge(start, blocks, head.inputs)
                began = perf_counter()
                self._adding_seconds += began - read
        self._reading_seconds += perf_counter() - began
        if head.expected_digest([digest.digest() for digest in digests]) != head.digest:
            raise PartialError("its digest does not agree with its content")
        return head

    def _load_stored(self, uri: bytes, *, read: bool) -> PartialHead | None:
        """Return the head of this node's own partial if it is stored; its planes too, where the result needs them.

        One that is only passed on is not read: whoever folds it checks it.
        """
        (reader,) = self._store.open_all([uri], self._partial_bytes() if read else _FIRST_HEAD_BYTES, 1)
        if reader is None:
            return None
        try:
            if read:
                return self._merge_partial(reader)
            head, _ = self._open_partial(reader)
        except PartialError:
            self._store.delete(uri)
            return None
        reader.close()
        return head

    def _store_partial(
        self, uri: bytes, planes: list[Array], inputs: int, skipped: tuple[Skipped, ...], length: int
    ) -> None:
        began = perf_counter()
        views = [plane.view(np.uint8).data for plane in planes] if inputs and length else []
        head = PartialHead(inputs, length if inputs else 0, self._planes, skipped)
        digests = [hashlib.sha256(view).digest() for view in views] or [hashlib.sha256().digest()] * len(planes)
        head = msgspec.structs.replace(head, digest=head.expected_digest(digests))
        self._bytes_written += self._store.put(uri, [head.encoded(), *views])
        if not self._store.exists(spec_uri(self._spec.work, self._spec.job)):
            # The job has ended meanwhile, and its partials were removed, or are about to be. The description goes
            # before them, so one that was stored while it was still there is removed by whoever removes the others.
            self._store.delete(uri)
            raise TaskCancelledError
        self._objects_written += 1
        self._storing_seconds += perf_counter() - began

    # The result -------------------------------------------------------------------------------------------------------

    def _write_result(self, planes: list[Array], inputs: int, start: int) -> bytes:
        began = perf_counter()
        header = self._spec.output_header
        # The header goes with the first numbers: a store may not take a range as short as it is alone.
        offset = len(header) + start * self._spec.output_number_bytes if start else 0
        content: Iterator[bytes | memoryview] = self._encoded(planes, inputs, start)
        if not start:
            content = itertools.chain((header,), content)
            self._bytes_written += len(header)
        receipt = self._store.write_range(self._spec.output, offset, content)
        self._objects_written += 1
        self._storing_seconds += perf_counter() - began
        return receipt

    def _encoded(self, planes: list[Array], inputs: int, start: int) -> Iterator[bytes | memoryview]:
        output = by_name(self._spec.output_format)
        dtype = np.dtype(self._spec.output_dtype)
        # A quarter of the buffer, since finishing and encoding take copies of their own.
        block = max(1, self._spec.buffer_bytes // (4 * max(16, self._spec.output_number_bytes)))
        for low in range(0, len(planes[0]), block):
            part = [plane[low : low + block] for plane in planes]
            try:
                values = cast(self._reduction.finish(part, inputs), dtype)
            except InexactError as error:
                raise InexactError(start + low + error.position, error.reason) from error
            encoded = output.encode(values)
            self._bytes_written += len(encoded)
            yield encoded
