"""The accumulators of a task: one set of planes a level of the canonical tree, carried like an odometer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from distsum.tree import carries

if TYPE_CHECKING:
    import numpy.typing as npt

    from distsum.reductions import Reduction

    Array = npt.NDArray[Any]


class Accumulators:
    """Folds a node's children in order with one accumulator a level, whatever their number.

    Children go into the lowest level. When R of them are complete that level's value is carried into the next, and so
    on; an empty level takes the value by swapping, which is the tree's rule that a node with one child is that child.
    A skipped child leaves nothing, and keeps its place.

    Args:
        reduction: What is kept.
        planes: dtypes of its planes.
        length: The most numbers that a node has.
        levels: Levels that a task folds (at least 1).
        fan_in: R.
    """

    def __init__(self, reduction: Reduction, planes: tuple[str, ...], length: int, levels: int, fan_in: int) -> None:
        self._reduction = reduction
        self._fan_in = fan_in
        self._whole = [[np.empty(length, plane) for plane in planes] for _ in range(levels)]
        self._levels = self._whole
        self._counts = [0] * levels
        self._position = 0

    def reset(self, length: int) -> None:
        """Begin a node of so many numbers."""
        self._levels = [[plane[:length] for plane in planes] for planes in self._whole]
        self._counts = [0] * len(self._whole)
        self._position = 0

    @property
    def empty(self) -> bool:
        """Whether the lowest level holds nothing, so that the next child fills it."""
        return not self._counts[0]

    @property
    def lowest(self) -> list[Array]:
        """Planes of the lowest level, for a child that is read straight into them."""
        return self._levels[0]

    def add(self, start: int, values: Array) -> None:
        """Add a block of an input that begins at ``start``; the input's other blocks must follow before ``close``."""
        planes = [plane[start : start + len(values)] for plane in self._levels[0]]
        if self._counts[0]:
            self._reduction.add(planes, self._counts[0], values)
        else:
            self._reduction.first(planes, values)

    def merge(self, start: int, others: list[Array], count: int) -> None:
        """Add a block of a partial of ``count`` inputs."""
        planes = [plane[start : start + len(other)] for plane, other in zip(self._levels[0], others, strict=True)]
        self._reduction.merge(planes, self._counts[0], others, count)

    def close(self, count: int) -> None:
        """End a child that held ``count`` inputs (0 for one that was skipped), and carry what is complete."""
        self._counts[0] += count
        for level in range(min(carries(self._position, self._fan_in), len(self._levels) - 1)):
            self._carry(level)
        self._position += 1

    def top(self) -> tuple[list[Array], int]:
        """Fold what is left; return the node's planes and the number of inputs in them."""
        for level in range(len(self._levels) - 1):
            self._carry(level)
        return self._levels[-1], self._counts[-1]

    def _carry(self, level: int) -> None:
        count, above = self._counts[level], self._counts[level + 1]
        if not count:
            return
        if above:
            self._reduction.merge(self._levels[level + 1], above, self._levels[level], count)
        else:
            self._levels[level], self._levels[level + 1] = self._levels[level + 1], self._levels[level]
        self._counts[level + 1] += count
        self._counts[level] = 0
