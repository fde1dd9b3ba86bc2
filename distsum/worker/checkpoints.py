"""Which sums inside a long task are stored on the way, and which stored ones another attempt starts from (pure).

A task has one sum under way at each level of the canonical tree: that of level 1 goes into that of level 2 as soon as
R children are in it, and so on, as an odometer carries. At any moment these sums hold all that was done. Each is a node
by itself, over the children that are in it so far: a left fold of the first ones is what the tree over their inputs
alone is. So any of them can be stored under its own name, and read again in place of its children.

A node's key alone says what it holds, whoever stored it and at whatever height: it hashes the inputs' identities in
order, and all else that bytes depend on (see ``manifest.NodeKeys``). The tree over a list of inputs is the same
wherever that list lies in a larger tree, since nodes are aligned: node (l, i) begins at a multiple of R**l, so that the
carries within it fall where they would if its first input were the first of all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from distsum.tree import levels_above

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from distsum.manifest import GrowingKey

WORK_FOR_STORING: Final = 25.0
"""Times what storing a sum takes that making what is new in it must have taken: then it costs 4 % at the most."""

UNKNOWN_STORING: Final = 1 / 15
"""What storing is taken to take where nothing tells, as a part of the least work that is worth it: with 3 s, 0.2 s. So
the first sum of a worker waits for 5 s of work, and costs 4 % if it takes as long as that. Who expects more loses more
with a worker that is new, as all are that come and go."""

_MOST_NEW_BYTES: Final = 1 << 16


class StoringTimes:
    """What storing a partial took the last time, by which a worker tells what it will take; kept from job to job."""

    def __init__(self) -> None:
        self._bytes = 0
        self._seconds: float | None = None

    def note(self, size: int, seconds: float) -> None:
        """Note what storing one of so many bytes took."""
        self._bytes, self._seconds = size, seconds

    def expected(self, size: int, least_seconds: float, byte_seconds: float) -> float:
        """Return what storing one is likely to take.

        A smaller one than the last takes no longer than that, and of a larger one what is more is not known: each byte
        of it is taken to take as long as reading and adding one.

        Args:
            size: Its bytes.
            least_seconds: Less work than this is not worth a request.
            byte_seconds: What reading a byte and adding it took so far.
        """
        unknown = UNKNOWN_STORING * least_seconds
        more = max(0, size - self._bytes) * byte_seconds
        if self._seconds is None:
            return max(unknown, more)
        if size < self._bytes:
            return min(self._seconds, max(unknown, self._seconds * size / self._bytes))
        return self._seconds + more


class Checkpoints:
    """How long what is in the sums under way has taken, without what is stored of it.

    Args:
        levels: Levels that a task folds; that of the lowest sum is 1.
        now: Seconds of a steady clock.

    Attributes:
        lost_seconds: Work that would be lost now, but for that on a child that is not finished.
    """

    def __init__(self, levels: int, now: float) -> None:
        self.lost_seconds = 0.0
        self._unstored = [0.0] * (levels + 1)
        self._since = now

    def close(self, level: int, now: float) -> None:
        """Note that a child is finished, and that with it the sums below this level went into that of the level."""
        took = now - self._since
        self.lost_seconds += took
        self._unstored[level] += took
        if level > 1:
            self._unstored[level] += sum(self._unstored[:level])
            self._unstored[:level] = [0.0] * level
        self._since = now

    def cover(self, level: int, now: float) -> None:
        """Note that nothing in the sums below this level can be lost, nor the time since: it was stored, or read."""
        self._unstored[:level] = [0.0] * level
        self.lost_seconds = sum(self._unstored)
        self._since = now

    def due(self, least_seconds: float, storing_seconds: Callable[[], float]) -> int | None:
        """Return the level of the sum that is to be stored now: the one with the most work that is not; None for none.

        Args:
            least_seconds: Less than this in all is not worth a request.
            storing_seconds: Returns what storing one is likely to take.
        """
        if self.lost_seconds < least_seconds:
            return None  # nearly always, and this is asked after every child
        most = max(self._unstored)
        return self._unstored.index(most) if most and most >= WORK_FOR_STORING * storing_seconds() else None

    def store(self, level: int, now: float) -> None:
        """Note that a sum is stored, and that the time which that took is no work."""
        self._unstored[level] = 0.0
        self.lost_seconds = sum(self._unstored)
        self._since = now


def under_way(position: int, level: int, fan_in: int) -> tuple[int, int]:
    """Return the range of children, of a node's first ``position`` ones, that are in the sum of a level.

    >>> [under_way(32, level, 5) for level in (1, 2, 3)], under_way(50, 3, 5)
    ([(30, 32), (25, 30), (0, 25)], (0, 50))
    """
    below = fan_in ** (level - 1)
    return position - position % (below * fan_in), position - position % below


def sums(
    identities: Iterable[Iterable[bytes]], children: int, fan_in: int, begin: Callable[[], GrowingKey]
) -> Iterator[tuple[int, int, str]]:
    """Yield every sum that may be stored inside a node: where it begins and ends, and its key.

    That of the lowest level changes with each child, and so does its key. Those above change with every R children, or
    fewer, and take what is new at once: there are many inputs, and to go through all levels for each of them takes
    longer than hashing. Over the first of its children a sum is what the one below it is, so it begins as a copy of it.

    Args:
        identities: What each child's inputs are, as packed records.
        children: How many the node has.
        fan_in: R.
        begin: Begins a key.

    >>> from distsum.manifest import NodeKeys
    >>> found = sums([[b"an input"]] * 7, 7, 3, NodeKeys(b"").growing)
    >>> [(start, stop) for start, stop, _ in found]
    [(0, 1), (0, 2), (0, 3), (3, 4), (3, 5), (3, 6), (0, 6), (6, 7)]
    """
    if children < 2:
        return
    spans = [fan_in**level for level in range(levels_above(children, fan_in) + 1)]
    growing = [begin() for _ in spans[1:]]
    first = 0
    above: list[int] = []
    new: list[bytes] = []
    new_bytes = 0
    for child, pieces in enumerate(identities):
        if child % fan_in == 0:
            first = child
            growing[0] = begin()
            # Of those above, the ones that hold more than the one below.
            above = [level for level in range(1, len(growing)) if first % spans[level + 1] >= spans[level]]
        for piece in pieces:
            growing[0].add(piece)
            new.append(piece)
            new_bytes += len(piece)
        position = child + 1
        whole = position % fan_in == 0 or position == children
        if whole or new_bytes >= _MOST_NEW_BYTES:
            added = b"".join(new)
            for level in above:
                growing[level].add(added)
            new.clear()
            new_bytes = 0
        if position - first < children:
            yield first, position, growing[0].key()
        if not whole:
            continue
        for level in range(1, len(growing)):
            if position % spans[level] and position < children:
                break
            start = child // spans[level + 1] * spans[level + 1]
            if level not in above:
                growing[level] = growing[level - 1].copy()
            elif position - start < children:
                yield start, position, growing[level].key()


def highest(stored: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield, in order, the stored sums that lie in no other one. Of any two that meet, one lies in the other.

    >>> list(highest([(25, 45), (0, 25), (50, 52), (0, 10), (50, 75), (25, 30)]))
    [(0, 25), (25, 45), (50, 75)]
    """
    end = 0
    for start, stop in sorted(stored, key=lambda each: (each[0], -each[1])):
        if start >= end:
            yield start, stop
            end = stop
