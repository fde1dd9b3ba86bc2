"""Slices: ranges of a node's numbers that several workers may each make, where its children are too few for that.

Every number of a node is folded by itself, from the numbers at its own index. So a node that is put together from
slices has the same bits, whoever made each. A partial has a digest of each of its planes' slices, so that one can be
read and checked alone (pure).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from distsum.messages import JobSpec

SLICES: Final = 8
"""As many workers at the most make a node together."""

LEAST_NUMBERS: Final = 1 << 14
"""In a slice: shorter ones cost more in requests than they save."""

_ALIGNMENT: Final = 1 << 10


def slices(numbers: int) -> tuple[tuple[int, int], ...]:
    """Return the slices of so many numbers, as ranges [start, stop); none of too few numbers.

    >>> slices(200_000)[0], slices(200_000)[-1], len(slices(200_000)), slices(100_000)
    ((0, 25600), (179200, 200000), 8, ())
    """
    if numbers < SLICES * LEAST_NUMBERS:
        return ()
    length = -(-numbers // (SLICES * _ALIGNMENT)) * _ALIGNMENT
    return tuple((start, min(numbers, start + length)) for start in range(0, numbers, length))


def node_slices(spec: JobSpec, phase: int, tile: int) -> tuple[tuple[int, int], ...]:
    """Return the slices of a node, counted from its tile's first number.

    There are none of the first phase where an input can only be read as a whole.
    """
    start, stop = spec.tile(tile)
    return slices(stop - start) if phase > 1 or spec.ranged else ()
