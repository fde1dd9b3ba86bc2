"""The nodes inside a task: folding them, storing sums on the way, and taking those that are stored."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Final, NamedTuple

from distsum.dtypes import itemsize
from distsum.errors import DiskFullError, PartialError, StorageError
from distsum.manifest import NodeKeys
from distsum.messages import Skipped
from distsum.partials import children_uri, partial_uri, range_context
from distsum.slices import node_slices
from distsum.tree import split
from distsum.worker.checkpoints import WORK_FOR_STORING, Checkpoints, StoringTimes, highest, sums, under_way

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from distsum.manifest import ManifestReader
    from distsum.messages import JobSpec
    from distsum.partials import PartialHead
    from distsum.stores.base import Reader, Store
    from distsum.tree import Tree
    from distsum.worker.accumulators import Accumulators, Array
    from distsum.worker.adding import InputAdder
    from distsum.worker.attempt import Attempt
    from distsum.worker.partial_io import PartialIO

_KEY: Final = re.compile(rb"[0-9a-f]{64}")


class ChildrenMissingError(Exception):
    """Children's partials are missing or damaged: their indices in the phase below."""

    def __init__(self, missing: tuple[int, ...]) -> None:
        super().__init__(missing)
        self.missing = missing


@dataclass(frozen=True)
class Parts:
    """What all tasks of one job are folded with."""

    store: Store
    spec: JobSpec
    tree: Tree
    manifest: ManifestReader
    accumulators: Accumulators
    inputs: InputAdder
    partials: PartialIO
    times: StoringTimes


class _Slice(NamedTuple):
    """A slice of a node: where it lies or would, and its planes, none where it was read from there."""

    uri: bytes
    inputs: int
    skipped: tuple[Skipped, ...]
    planes: list[Array]


class NodeFold:
    """One attempt's way through the children of a node: a task's, one of the nodes directly below that, or a slice.

    Every range here is one of children, [start, stop): inputs in the first phase, nodes of the phase below in others.

    Args:
        parts: What is folded with.
        attempt: The attempt.
        children: The node's children.
        only: The slice of the node that is made; all of it if None.

    Attributes:
        children: The node's children.
        skipped: The inputs left out so far, counted from the node's first input.
    """

    def __init__(self, parts: Parts, attempt: Attempt, children: tuple[int, int], only: int | None = None) -> None:
        self.skipped: list[Skipped] = []
        self._parts = parts
        self._attempt = attempt
        self._phase = attempt.task.phase
        self._only = only
        tile = attempt.task.tile
        start, stop = parts.spec.tile(tile)
        self._keys = self._own_keys = NodeKeys(range_context(parts.spec, (start, stop)))
        self._numbers = (0, stop - start) if only is None else node_slices(parts.spec, self._phase, tile)[only]
        self._range = start + self._numbers[0], start + self._numbers[1]
        if only is not None:
            self._own_keys = NodeKeys(range_context(parts.spec, self._range))
        self.children = children
        self._first, self._last = children
        self._origin = self.inputs(*children)[0]
        self._folder = children_uri(parts.spec.work, parts.spec.job)
        self._direct = dict(split(*children, parts.spec.fan_in))
        self._stored: dict[tuple[int, int], bytes] = {}
        self._replaced: list[tuple[int, int]] = []
        # A slice is stored once it is whole, by who makes it for others, or has made more that would be lost.
        self._stores = only is None
        self._looks = attempt.child is not None or only is not None
        self._listed = False
        self._stored_slices: list[bytes] = []
        self._known: dict[int, int] = {}
        self._checkpoints: Checkpoints
        self._began: float
        self._bytes_before: int
        self._looked: float

    def inputs(self, start: int, stop: int) -> tuple[int, int]:
        """Return the range of inputs that some children cover."""
        tree = self._parts.tree
        return tree.inputs(self._phase - 1, start)[0], tree.inputs(self._phase - 1, stop - 1)[1]

    @property
    def expected_bytes(self) -> int:
        """What is read of all children where nothing of them is stored; 0 where that is not known."""
        spec = self._parts.spec
        if self._phase == 1 and not spec.ranged:
            return 0
        dtypes = (spec.dtype,) if self._phase == 1 else self._parts.partials.planes
        low, high = self._range
        return (self._last - self._first) * (high - low) * sum(map(itemsize, dtypes))

    def own_key(self) -> str:
        """Return the key of what is made."""
        return self._own_keys.key(self._parts.manifest.pieces(*self.inputs(*self.children)))

    def _key(self, start: int, stop: int) -> str:
        """Return the key of the whole node over some children."""
        return self._keys.key(self._parts.manifest.pieces(*self.inputs(start, stop)))

    def nested_uri(self, key: str) -> bytes:
        """Return where a node inside a task is stored."""
        return self._folder + b"/" + key.encode()

    def run(self) -> PartialHead | None:
        """Fold the node into the accumulators, from what is stored of it where others may have been at it before.

        Who makes one part for others looks now and then whether one of them has stored it meanwhile. Its head is then
        returned, and what the accumulators hold is of no use. None is returned of a node that was made.

        Raises:
            BadChildError: An input is bad, and the job does not skip such.
            InputChangedError: An input is not what the job's list pins.
            ChildrenMissingError: Partials of the phase below must be made again.
            StorageError: Reading or storing failed.
            TaskCancelledError: The attempt is cancelled.
        """
        attempt, accumulators = self._attempt, self._parts.accumulators
        attempt.begin(self._last - self._first)
        self._began = self._looked = perf_counter()
        self._bytes_before = attempt.bytes_read
        self._checkpoints = Checkpoints(self._parts.spec.exponent, self._looked)
        self.reset()
        if attempt.resume:
            self._list_stored()
            self._known = dict(self._stored_within(self._first, self._last))
        readers = self._open(self._first)
        try:
            while (at := self._first + accumulators.position) < self._last:
                attempt.check()
                if self._looks and (head := self._made_by_another()) is not None:
                    return head
                if (stop := self._known.pop(at, None)) is not None:
                    if not self._take(at, stop):
                        # It was damaged, or is replaced by now. Perhaps sums inside it are stored, too, which it hid.
                        self._known.update(self._stored_within(at, stop))
                        readers.close()
                        readers = self._open(at)
                    continue
                stop = self._direct.get(at)
                if stop is not None and (attempt.resume or attempt.shared) and self._take(at, stop):
                    # Others have made it since, so what was opened of it is of no use.
                    self._known = {place: end for place, end in self._known.items() if place >= stop}
                    readers.close()
                    readers = self._open(stop)
                    continue
                began = perf_counter()
                reader = next(readers)
                attempt.reading_seconds += perf_counter() - began
                self._add(at, reader)
        finally:
            readers.close()
        attempt.end_slice()
        return None

    def top(self) -> tuple[list[Array], int]:
        """Fold what is left of a node that was made; return its planes, and how many inputs are in it."""
        began = perf_counter()
        planes, inputs = self._parts.accumulators.top()
        self._attempt.adding_seconds += perf_counter() - began
        return planes, inputs

    def reset(self) -> None:
        """Begin with empty accumulators."""
        low, high = self._numbers
        self._parts.accumulators.reset(high - low, self._finish_nested, start=low)

    def run_sliced(self) -> tuple[list[Array], int]:
        """Make the node slice by slice, but for those that others have stored; return its planes and its inputs.

        Raises:
            StorageError: Also where slices differ in what was left out.
            Others: As ``run``.
        """
        attempt, accumulators = self._attempt, self._parts.accumulators
        cuts = node_slices(self._parts.spec, self._phase, attempt.task.tile)
        if attempt.resume:
            self._list_stored()
        made: set[tuple[int, tuple[Skipped, ...]]] = set()
        unstored: list[_Slice] = []
        lost_seconds, lost_bytes = 0.0, 0
        for number in range(len(cuts)):
            began, read_before = perf_counter(), attempt.bytes_read
            attempt.begin_slice(number, len(cuts))
            fold = NodeFold(self._parts, attempt, self.children, number)
            fold._listed, fold._stored = self._listed, self._stored
            found = self._make_slice(fold, number)
            made.add((found.inputs, found.skipped))
            if found.planes:
                unstored.append(found)
                lost_seconds += perf_counter() - began
                lost_bytes += attempt.bytes_read - read_before
            if self._stores and number + 1 < len(cuts) and self._is_due(len(unstored), lost_seconds, lost_bytes):
                self._store_slices(unstored)
                unstored, lost_seconds, lost_bytes = [], 0.0, 0
        if len(made) > 1:
            raise StorageError("slices of a node differ in what was left out of them; run the same command again")
        inputs, skipped = made.pop()
        self.skipped = list(skipped)
        return accumulators.joined(cuts[-1][1]), inputs

    def _make_slice(self, fold: NodeFold, number: int) -> _Slice:
        """Take a slice, or make it."""
        attempt, partials = self._attempt, self._parts.partials
        uri = self.nested_uri(fold.own_key())
        while True:
            attempt.check()
            fold.reset()
            attempt.begin(1)
            if (head := partials.load(uri, attempt)) is not None:
                attempt.taken.append(number)
                attempt.take(1)
                attempt.advance(1)
                self._stored_slices.append(uri)
                return _Slice(uri, head.inputs, head.skipped, [])
            share = attempt.taken_share
            if fold.run() is None:
                planes, inputs = fold.top()
                return _Slice(uri, inputs, tuple(fold.skipped), planes)
            # Another has stored it meanwhile, so that what was taken for it is of no use. It is not looked for again,
            # for the case that it is damaged and cannot be removed.
            attempt.taken_share = share
            fold.skipped, fold._looks = [], False

    def _is_due(self, slices: int, lost_seconds: float, lost_bytes: int) -> bool:
        """Whether slices are to be stored: as for sums, storing takes 4 % of what would be lost at the most."""
        least, parts = self._parts.spec.checkpoint_seconds, self._parts
        if not slices or lost_seconds < least:
            return False
        byte_seconds = lost_seconds / lost_bytes if lost_bytes else 0.0
        storing = slices * parts.times.expected(parts.partials.whole_bytes(), least, byte_seconds)
        return lost_seconds >= WORK_FOR_STORING * storing

    def _store_slices(self, slices: Iterable[_Slice]) -> None:
        """Store slices for who comes after this attempt; if one cannot be stored, store no more."""
        parts, attempt = self._parts, self._attempt
        for each in slices:
            began, written_before = perf_counter(), attempt.bytes_written
            try:
                parts.partials.store(each.uri, each.planes, each.inputs, each.skipped, attempt)
            except StorageError as error:
                self._stores = False  # what others have stored is of use for the slices that are left
                self._attempt.warn(f"no more slices are stored of this task, which goes on without them: {error}")
                return
            self._stored_slices.append(each.uri)
            took = perf_counter() - began
            parts.times.note(attempt.bytes_written - written_before, took)
            attempt.checkpoint_seconds += took

    # Children ---------------------------------------------------------------------------------------------------------

    def _open(self, start: int) -> Generator[Reader | None]:
        """Return readers of the children from ``start`` on, without those that known stored nodes cover."""
        runs = list(self._runs(start))
        if self._phase == 1:
            entries = itertools.chain.from_iterable(itertools.starmap(self._parts.manifest.inputs, runs))
            return self._parts.inputs.open_all(entries, *self._range)
        uris = [self._child_uri(child) for run in runs for child in range(*run)]
        return self._parts.partials.open_all(uris, self._only)

    def _runs(self, start: int) -> Iterator[tuple[int, int]]:
        for low, high in sorted(self._known.items()):
            if start < low:
                yield start, low
            start = max(start, high)
        if start < self._last:
            yield start, self._last

    def _child_uri(self, child: int) -> bytes:
        return partial_uri(self._parts.spec.work, self._key(child, child + 1))

    def _add(self, child: int, reader: Reader | None) -> None:
        if self._phase > 1:
            self._add_partial(child, reader)
            return
        assert reader is not None
        reason = self._parts.inputs.add(child, reader, *self._range, self._attempt)
        if reason is not None:
            self.skipped.append(Skipped(child - self._origin, reason))
        self._finish_child(self._parts.accumulators.close(0 if reason is not None else 1))

    def _add_partial(self, child: int, reader: Reader | None) -> None:
        if reader is None:
            # Name all that are missing at once, so that they are made again at once.
            rest = itertools.chain.from_iterable(itertools.starmap(range, self._runs(child + 1)))
            exists = self._parts.store.exists
            raise ChildrenMissingError((child, *(other for other in rest if not exists(self._child_uri(other)))))
        try:
            head = self._parts.partials.merge(reader, self._attempt, weight=1, only=self._only)
        except PartialError as error:
            self._parts.store.delete(self._child_uri(child))
            raise ChildrenMissingError((child,)) from error
        self._close(child, head, 1)

    def _close(self, start: int, head: PartialHead, span: int) -> None:
        offset = self.inputs(start, start + span)[0] - self._origin
        self.skipped.extend(Skipped(offset + each.index, each.reason) for each in head.skipped)
        self._finish_child(self._parts.accumulators.close(head.inputs, span))

    # Nodes on the way -------------------------------------------------------------------------------------------------

    def _made_by_another(self) -> PartialHead | None:
        """Return the head of what is made if another has stored it meanwhile, as helpers may; looked for at times."""
        if (now := perf_counter()) - self._looked < self._parts.spec.checkpoint_seconds:
            return None
        self._looked = now
        return self._parts.partials.head(self.nested_uri(self.own_key()), self._attempt)

    def _list_stored(self) -> None:
        """Find the sums inside the node that are stored, unless that is done."""
        if self._listed:
            return
        self._listed = True
        names = {name.decode() for name in self._parts.store.list(self._folder) if _KEY.fullmatch(name)}
        if not names:
            return
        children = self._last - self._first
        for start, stop, key in sums(self._identities(), children, self._parts.spec.fan_in, self._keys.growing):
            if key in names:
                self._stored[self._first + start, self._first + stop] = self.nested_uri(key)

    def _identities(self) -> Iterator[Iterable[bytes]]:
        """Yield the packed records of each child's inputs, unless the attempt is cancelled meanwhile."""
        manifest = self._parts.manifest
        if self._phase == 1:
            for record in manifest.records(*self.children):
                self._attempt.check()
                yield (record,)
            return
        for child in range(*self.children):
            yield map(self._checked, manifest.pieces(*self.inputs(child, child + 1)))

    def _checked(self, piece: bytes) -> bytes:
        self._attempt.check()
        return piece

    def _stored_within(self, start: int, stop: int) -> Iterable[tuple[int, int]]:
        return highest(each for each in self._stored if start <= each[0] and each[1] <= stop)

    def _take(self, start: int, stop: int) -> bool:
        """Read a stored sum in place of its children; return whether it was there, and whole.

        Where it begins all levels below it are empty, so it is read straight into the lowest one's planes.
        """
        uri = self._stored.get((start, stop)) or self.nested_uri(self._key(start, stop))
        head = self._parts.partials.load(uri, self._attempt, self._only)
        if head is None:
            self._stored.pop((start, stop), None)
            return False
        self._stored[start, stop] = uri
        self._checkpoints.cover(1, perf_counter())
        for index, (low, high) in enumerate(self._direct.items()):
            if start <= low and high <= stop:
                self._attempt.taken.append(index)
        self._attempt.take(stop - start)
        self._close(start, head, stop - start)
        self._attempt.advance(self._parts.accumulators.position)
        return True

    def _finish_nested(self, level: int) -> None:
        """Store a child of the node that is whole now, if others look for such."""
        stop = self._first + self._parts.accumulators.position
        start = stop - self._parts.spec.fan_in**level
        if self._stores and self._attempt.shared and self._direct.get(start) == stop < self._last:
            self._store(start, stop, *self._parts.accumulators.nested(level))
            self._checkpoints.cover(level + 1, perf_counter())

    def _finish_child(self, level: int) -> None:
        """Store the sums under way of which too much would be lost; with the last child the node is whole itself."""
        parts, checkpoints = self._parts, self._checkpoints
        checkpoints.close(level, perf_counter())
        position = parts.accumulators.position
        if self._first + position == self._last:
            return
        least = parts.spec.checkpoint_seconds
        while self._stores and (due := checkpoints.due(least, self._storing_seconds)) is not None:
            start, stop = under_way(position, due, parts.spec.fan_in)
            self._store(self._first + start, self._first + stop, *parts.accumulators.nested(due))
            checkpoints.store(due, perf_counter())

    def _storing_seconds(self) -> float:
        """Return what storing a sum is likely to take."""
        parts = self._parts
        read = self._attempt.bytes_read - self._bytes_before
        byte_seconds = (perf_counter() - self._began) / read if read else 0.0
        return parts.times.expected(parts.partials.whole_bytes(), parts.spec.checkpoint_seconds, byte_seconds)

    def _store(self, start: int, stop: int, planes: list[Array], inputs: int) -> None:
        """Store a sum, and remove those that the last one replaced; if it cannot be stored, store no more of them.

        Those that this one replaces stay until the next is stored, since who begins now may be about to read them. So
        do a node's children until the node is stored, for those who begin further on.
        """
        parts, attempt = self._parts, self._attempt
        began, stored_before, written_before = perf_counter(), attempt.storing_seconds, attempt.bytes_written
        low, high = (place - self._origin for place in self.inputs(start, stop))
        skipped = tuple(Skipped(each.index - low, each.reason) for each in self.skipped if low <= each.index < high)
        uri = self.nested_uri(self._key(start, stop))
        try:
            parts.partials.store(uri, planes, inputs, skipped, attempt)
        except StorageError as error:
            self._give_up(error)
        else:
            self._stored[start, stop] = uri
            self._remove(self._replaced)
            self._replaced = [
                each
                for each in self._stored
                if start <= each[0]
                and each[1] <= stop
                and each != (start, stop)
                and self._direct.get(each[0]) != each[1]
            ]
            # With its key, which may take a hash over many names of inputs.
            parts.times.note(attempt.bytes_written - written_before, perf_counter() - began)
        took = perf_counter() - began
        attempt.storing_seconds = stored_before + took
        attempt.checkpoint_seconds += took

    def _give_up(self, error: StorageError) -> None:
        """Store no more sums, since one could not be: the task is done without.

        Whoever helps, and waits for a child of the node, makes that as well. Where the disk is full, what is stored of
        what is in the accumulators goes, since others need the room for what must be stored. What is still to be read
        stays, as does everything where the fault is another one: then a later attempt may start from it.
        """
        self._stores = False
        self._attempt.warn(f"no more sums are stored inside this task, which goes on without them: {error}")
        if isinstance(error, DiskFullError):
            done = self._first + self._parts.accumulators.position
            self._remove([each for each in self._stored if each[1] <= done])

    def _remove(self, nodes: Iterable[tuple[int, int]]) -> None:
        """Remove sums; those that cannot be go with the job."""
        # One that was found damaged is removed already.
        uris = [uri for node in nodes if (uri := self._stored.pop(node, None)) is not None]
        self._delete(uris)

    def _delete(self, uris: Iterable[bytes]) -> None:
        try:
            for uri in uris:
                self._parts.store.delete(uri)
        except StorageError as error:
            # Where one cannot be removed others cannot, and each may take as long as a server is waited for. So no more
            # are stored, either, which would be as many as the task has children.
            self._stores = False
            self._attempt.warn(f"sums that were stored inside this task stay until its job has ended: {error}")

    def remove_stored(self) -> None:
        """Remove what of the node this attempt has stored, or found stored: the node itself is stored now.

        What others need for another slice stays.
        """
        if self._only is not None or (not self._stored and not self._stored_slices):
            return
        began = perf_counter()
        self._remove(list(self._stored))
        self._delete(self._stored_slices)
        self._stored_slices = []
        took = perf_counter() - began
        self._attempt.storing_seconds += took
        self._attempt.checkpoint_seconds += took

    def make_room(self) -> None:
        """Remove the sums inside the node, and if it is a task's, those in all tasks of the job: all can do without.

        What others are still writing has another name, and is left to them.
        """
        self.remove_stored()
        if self._attempt.child is None:
            names = [name for name in self._parts.store.list(self._folder) if _KEY.fullmatch(name)]
            self._delete(self._folder + b"/" + name for name in names)
