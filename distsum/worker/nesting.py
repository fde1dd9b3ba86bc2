"""The nodes inside a task: folding them, storing some on the way, and taking those that are stored."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Final

from distsum.errors import PartialError
from distsum.messages import Skipped
from distsum.partials import children_uri, partial_uri
from distsum.tree import split
from distsum.worker.checkpoints import Checkpoints, is_due, stored_within

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from distsum.manifest import ManifestReader, NodeKeys
    from distsum.messages import JobSpec
    from distsum.partials import PartialHead
    from distsum.stores.base import Reader, Store
    from distsum.tree import Tree
    from distsum.worker.accumulators import Accumulators
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
        self._stored: set[str] = set()
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
        if attempt.resume and self._direct:
            self._list_stored()
        readers = self._open(self._first)
        try:
            while (at := self._first + accumulators.position) < self._last:
                attempt.check()
                if attempt.child is not None and (head := self._made_by_another()) is not None:
                    return head
                if (stop := self._known.pop(at, None)) is not None:
                    if not self._take(at, stop):
                        # It was damaged. Perhaps nodes inside it are stored as well, which it hid.
                        self._known.update(self._stored_below(at, stop))
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
        self._parts.accumulators.close(0 if reason is not None else 1)

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
        self._parts.accumulators.close(head.inputs, span)

    # Nodes on the way -------------------------------------------------------------------------------------------------

    def _made_by_another(self) -> PartialHead | None:
        """Return the head of this node, a child that a helper makes, if it is stored; looked for now and then."""
        if (now := perf_counter()) - self._looked < self._parts.spec.checkpoint_seconds:
            return None
        self._looked = now
        return self._parts.partials.head(self.nested_uri(self.key(*self.children)), self._attempt)

    def _list_stored(self) -> None:
        names = self._parts.store.list(self._folder)
        self._stored = {name.decode() for name in names if _KEY.fullmatch(name)}
        if self._stored:
            self._known = dict(self._stored_below(self._first, self._last))

    def _stored_below(self, start: int, stop: int) -> Iterable[tuple[int, int]]:
        return stored_within(start, stop, self._parts.spec.fan_in, lambda *node: self.key(*node) in self._stored)

    def _take(self, start: int, stop: int) -> bool:
        """Read a stored node in place of its children; return whether it was there, and whole.

        Where it begins all levels below it are empty, so it is read straight into the lowest one's planes.
        """
        key = self.key(start, stop)
        head = self._parts.partials.load(self.nested_uri(key), self._attempt)
        if head is None:
            self._stored.discard(key)
            return False
        self._checkpoints.cover(perf_counter())
        if self._direct.get(start) == stop:
            self._attempt.taken.append([*self._direct].index(start))
        self._close(start, head, stop - start)
        self._attempt.advance(self._parts.accumulators.position)
        return True

    def _finish_nested(self, level: int) -> None:
        """Store a node that is whole now, if making it again would cost more than storing it."""
        parts, attempt = self._parts, self._attempt
        began = perf_counter()
        lost = self._checkpoints.finish(level, began)
        stop = self._first + parts.accumulators.position
        start = stop - parts.spec.fan_in**level
        if stop == self._last:
            return  # With it the node that this is about is whole, and that one is stored.
        wanted = attempt.shared and self._direct.get(start) == stop
        if not wanted and not is_due(lost, parts.spec.checkpoint_seconds, parts.partials.storing_seconds):
            self._checkpoints.leave(level, lost)
            return
        stored_before = attempt.storing_seconds
        planes, inputs = parts.accumulators.nested(level)
        offset = self.inputs(start, stop)[0] - self._origin
        skipped = tuple(Skipped(each.index - offset, each.reason) for each in self.skipped if each.index >= offset)
        parts.partials.store(self.nested_uri(self.key(start, stop)), planes, inputs, skipped, attempt)
        ended = perf_counter()
        # With its key, which may take a hash over many names of inputs.
        parts.partials.storing_seconds = ended - began
        attempt.storing_seconds = stored_before + ended - began
        attempt.checkpoint_seconds += ended - began
        self._checkpoints.cover(ended)
