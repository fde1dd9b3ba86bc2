"""The nodes inside a task: folding them, storing sums on the way, and taking those that are stored."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Final

from distsum.errors import PartialError
from distsum.messages import Skipped
from distsum.partials import children_uri, partial_uri
from distsum.tree import levels_above, split
from distsum.worker.checkpoints import Checkpoints, beginnings, highest, under_way

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from distsum.manifest import GrowingKey, ManifestReader, NodeKeys
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


class NodeFold:
    """One attempt's way through the children of a node: a task's, or one of the nodes directly below that.

    Every range here is one of children, [start, stop): inputs in the first phase, nodes of the phase below in others.

    Args:
        parts: What is folded with.
        attempt: The attempt.
        keys: Keys of the tile's nodes.
        children: The node's children.
        numbers: The tile, as a range of indices.

    Attributes:
        children: The node's children.
        skipped: The inputs left out so far, counted from the node's first input.
    """

    def __init__(
        self, parts: Parts, attempt: Attempt, keys: NodeKeys, children: tuple[int, int], numbers: tuple[int, int]
    ) -> None:
        self.skipped: list[Skipped] = []
        self._parts = parts
        self._attempt = attempt
        self._keys = keys
        self._phase = attempt.task.phase
        self.children = children
        self._first, self._last = children
        self._numbers = numbers
        self._origin = self.inputs(*children)[0]
        self._folder = children_uri(parts.spec.work, parts.spec.job)
        self._direct = dict(split(*children, parts.spec.fan_in))
        self._stored: dict[tuple[int, int], bytes] = {}
        self._replaced: list[tuple[int, int]] = []
        self._known: dict[int, int] = {}
        self._checkpoints: Checkpoints
        self._looked: float

    def inputs(self, start: int, stop: int) -> tuple[int, int]:
        """Return the range of inputs that some children cover."""
        tree = self._parts.tree
        return tree.inputs(self._phase - 1, start)[0], tree.inputs(self._phase - 1, stop - 1)[1]

    def key(self, start: int, stop: int) -> str:
        """Return the key of the node over some children."""
        return self._keys.key(self._parts.manifest.pieces(*self.inputs(start, stop)))

    def nested_uri(self, key: str) -> bytes:
        """Return where a node inside a task is stored."""
        return self._folder + b"/" + key.encode()

    def run(self) -> PartialHead | None:
        """Fold the node into the accumulators, from what is stored of it where others may have been at it before.

        Who makes one child for others looks now and then whether one of them has stored it meanwhile. Its head is then
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
        self._looked = perf_counter()
        self._checkpoints = Checkpoints(self._parts.spec.exponent, self._looked)
        low, high = self._numbers
        accumulators.reset(high - low, self._finish_nested)
        if attempt.resume:
            self._list_stored()
        readers = self._open(self._first)
        try:
            while (at := self._first + accumulators.position) < self._last:
                attempt.check()
                if attempt.child is not None and (head := self._made_by_another()) is not None:
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
        attempt.progress = 1.0
        return None

    # Children ---------------------------------------------------------------------------------------------------------

    def _open(self, start: int) -> Generator[Reader | None]:
        """Return readers of the children from ``start`` on, without those that known stored nodes cover."""
        runs = list(self._runs(start))
        if self._phase == 1:
            entries = itertools.chain.from_iterable(itertools.starmap(self._parts.manifest.inputs, runs))
            return self._parts.inputs.open_all(entries, *self._numbers)
        uris = [self._child_uri(child) for run in runs for child in range(*run)]
        return self._parts.partials.open_all(uris)

    def _runs(self, start: int) -> Iterator[tuple[int, int]]:
        for low, high in sorted(self._known.items()):
            if start < low:
                yield start, low
            start = max(start, high)
        if start < self._last:
            yield start, self._last

    def _child_uri(self, child: int) -> bytes:
        return partial_uri(self._parts.spec.work, self.key(child, child + 1))

    def _add(self, child: int, reader: Reader | None) -> None:
        if self._phase > 1:
            self._add_partial(child, reader)
            return
        assert reader is not None
        reason = self._parts.inputs.add(child, reader, *self._numbers, self._attempt)
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
            head = self._parts.partials.merge(reader, self._attempt, weight=1)
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
        """Return the head of this node, a child that a helper makes, if it is stored; looked for now and then."""
        if (now := perf_counter()) - self._looked < self._parts.spec.checkpoint_seconds:
            return None
        self._looked = now
        return self._parts.partials.head(self.nested_uri(self.key(*self.children)), self._attempt)

    def _list_stored(self) -> None:
        """Find the sums inside the node that are stored."""
        names = {name.decode() for name in self._parts.store.list(self._folder) if _KEY.fullmatch(name)}
        if not names:
            return
        growing: dict[int, GrowingKey] = {}
        children, fan_in = self._last - self._first, self._parts.spec.fan_in
        for child, pieces in enumerate(self._identities()):
            if child % fan_in == 0:
                growing[child] = self._keys.growing()
            for piece in pieces:
                for each in growing.values():
                    each.add(piece)
            position = child + 1
            for start in beginnings(position, children, fan_in):
                if position - start < children and (key := growing[start].key()) in names:
                    self._stored[self._first + start, self._first + position] = self.nested_uri(key)
            # Those go on whose node does.
            going = {0, *(position - position % fan_in**level for level in range(1, levels_above(children, fan_in)))}
            growing = {start: each for start, each in growing.items() if start in going}
        self._known = dict(self._stored_within(self._first, self._last))

    def _identities(self) -> Iterator[Iterable[bytes]]:
        """Yield the packed records of each child's inputs."""
        manifest = self._parts.manifest
        if self._phase == 1:
            return ((record,) for record in manifest.records(*self.children))
        return (manifest.pieces(*self.inputs(child, child + 1)) for child in range(*self.children))

    def _stored_within(self, start: int, stop: int) -> Iterable[tuple[int, int]]:
        return highest(each for each in self._stored if start <= each[0] and each[1] <= stop)

    def _take(self, start: int, stop: int) -> bool:
        """Read a stored sum in place of its children; return whether it was there, and whole.

        Where it begins all levels below it are empty, so it is read straight into the lowest one's planes.
        """
        uri = self._stored.get((start, stop)) or self.nested_uri(self.key(start, stop))
        head = self._parts.partials.load(uri, self._attempt)
        if head is None:
            self._stored.pop((start, stop), None)
            return False
        self._stored[start, stop] = uri
        self._checkpoints.cover(1, perf_counter())
        for index, (low, high) in enumerate(self._direct.items()):
            if start <= low and high <= stop:
                self._attempt.taken.append(index)
        self._attempt.taken_share += (stop - start) / (self._last - self._first)
        self._close(start, head, stop - start)
        self._attempt.advance(self._parts.accumulators.position)
        return True

    def _finish_nested(self, level: int) -> None:
        """Store a child of the node that is whole now, if others look for such."""
        stop = self._first + self._parts.accumulators.position
        start = stop - self._parts.spec.fan_in**level
        if self._attempt.shared and self._direct.get(start) == stop < self._last:
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
        while (due := checkpoints.due(least, parts.partials.storing_seconds)) is not None:
            start, stop = under_way(position, due, parts.spec.fan_in)
            self._store(self._first + start, self._first + stop, *parts.accumulators.nested(due))
            checkpoints.store(due, perf_counter())

    def _store(self, start: int, stop: int, planes: list[Array], inputs: int) -> None:
        """Store a sum, and remove those that the last one replaced.

        Those that this one replaces stay until the next is stored, since who begins now may be about to read them. So
        do a node's children until the node is stored, for those who begin further on.
        """
        parts, attempt = self._parts, self._attempt
        began, stored_before = perf_counter(), attempt.storing_seconds
        low, high = (place - self._origin for place in self.inputs(start, stop))
        skipped = tuple(Skipped(each.index - low, each.reason) for each in self.skipped if low <= each.index < high)
        uri = self.nested_uri(self.key(start, stop))
        parts.partials.store(uri, planes, inputs, skipped, attempt)
        self._stored[start, stop] = uri
        self._remove(self._replaced)
        self._replaced = [
            each
            for each in self._stored
            if start <= each[0] and each[1] <= stop and each != (start, stop) and self._direct.get(each[0]) != each[1]
        ]
        took = perf_counter() - began
        # With its key, which may take a hash over many names of inputs.
        parts.partials.storing_seconds = took
        attempt.storing_seconds = stored_before + took
        attempt.checkpoint_seconds += took

    def _remove(self, nodes: Iterable[tuple[int, int]]) -> None:
        for node in nodes:
            # One that was found damaged is removed already.
            if (uri := self._stored.pop(node, None)) is not None:
                self._parts.store.delete(uri)

    def remove_stored(self) -> None:
        """Remove the sums inside the node that this attempt has stored, or found: the node itself is stored now.

        Raises:
            StorageError: One cannot be removed.
        """
        if not self._stored:
            return
        began = perf_counter()
        self._remove(list(self._stored))
        took = perf_counter() - began
        self._attempt.storing_seconds += took
        self._attempt.checkpoint_seconds += took
