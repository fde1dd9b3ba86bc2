"""Many paths in little memory: packed in blocks, and sorted in runs that are merged (pure).

Ten million paths of 40 bytes are 900 MB as a list. Neighbours in a sorted list share most of their bytes, so that here
they are 30 MB where they count up, and 200 MB where they are random, for a microsecond or two a path. A list that is
short stays one.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, Final, overload

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MOST_LISTED: Final = 1 << 17
"""Paths that are kept as a list: what is sorted at once, and what never costs more than some 15 MB."""
_BLOCK: Final = 1 << 12
_SEPARATOR: Final = b"\0"
"""What no path holds."""


class PackedPaths(Sequence[bytes]):
    """A sequence of paths, to go through from its beginning; one in the middle costs unpacking its block."""

    def __init__(self, paths: Iterable[bytes]) -> None:
        """Pack the paths, none of which holds a NUL byte, in the order given."""
        import zlib  # for many paths only

        self._blocks: list[bytes] = []
        self._length = 0
        iterator = iter(paths)
        while block := list(islice(iterator, _BLOCK)):
            self._blocks.append(zlib.compress(_SEPARATOR.join(block), 1))
            self._length += len(block)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            yield from _unpacked(block)

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        """Return a path, or a list of some."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(self._length)[index]
        return _unpacked(self._blocks[place // _BLOCK])[place % _BLOCK]


def collected(paths: Iterable[bytes]) -> Sequence[bytes]:
    """Return the paths in the order given."""
    iterator = iter(paths)
    first = list(islice(iterator, MOST_LISTED))
    more = list(islice(iterator, 1))
    return PackedPaths(chain(first, more, iterator)) if more else first


def collected_sorted(paths: Iterable[bytes]) -> Sequence[bytes]:
    """Return the paths in plain byte order.

    >>> collected_sorted([b"b", b"a/c", b"B", b"a"])
    [b'B', b'a', b'a/c', b'b']
    """
    runs: list[Sequence[bytes]] = []
    iterator = iter(paths)
    while run := list(islice(iterator, MOST_LISTED)):
        run.sort()
        if len(run) < MOST_LISTED and not runs:
            return run
        runs.append(PackedPaths(run))
    if not runs:
        return []
    runs.sort(key=lambda each: each[0])
    if all(before[-1] <= after[0] for before, after in pairwise(runs)):
        # As where a folder is listed in order: nothing is left to merge.
        return runs[0] if len(runs) == 1 else PackedPaths(chain.from_iterable(runs))
    return PackedPaths(heapq.merge(*runs))


def _unpacked(block: bytes) -> list[bytes]:
    import zlib

    return zlib.decompress(block).split(_SEPARATOR)
