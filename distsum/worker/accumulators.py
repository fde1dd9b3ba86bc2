"""The accumulators of a task: one set of planes a level of the canonical tree, carried like an odometer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from distsum.tree import carries

if TYPE_CHECKING:
    from collections.abc import Callable

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
        self._finished: Callable[[int], None] = _ignore

    def reset(self, length: int, finished: Callable[[int], None] | None = None, *, start: int = 0) -> None:
        """Begin a node of so many numbers, or a slice of one.

        Args:
            length: The numbers.
            finished: Called with the level of each nested node that is whole, while ``nested`` gives it. Of those that
                become whole with the same child it is the highest, which holds the others.
            start: Where the slice begins in the node. What lies before and after it stays as it is.
        """
        self._finished = finished or _ignore
        self._levels = [[plane[start : start + length] for plane in planes] for planes in self._whole]
        self._counts = [0] * len(self._whole)
        self._position = 0

    def joined(self, length: int) -> list[Array]:
        """Return the planes of a node of which each slice was made, of at most R children.

        Those all go into the lowest level, and are carried from there by swapping.
        """
        return [plane[:length] for plane in self._whole[0]]

    @property
    def empty(self) -> bool:
        """Whether the lowest level holds nothing, so that the next child fills it."""
        return not self._counts[0]

    @property
    def lowest(self) -> list[Array]:
        """Planes of the lowest level, for a child that is read straight into them."""
        return self._levels[0]

    @property
    def position(self) -> int:
        """Children that are in the node so far."""
        return self._position

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

    def nested(self, level: int) -> tuple[list[Array], int]:
        """Return the planes of the node of a level (from 1) that is under way, and the number of inputs in them."""
        return self._levels[level - 1], self._counts[level - 1]

    def close(self, count: int, span: int = 1) -> int:
        """End a child that held ``count`` inputs (0 for one that was skipped), and carry what is complete.

        Args:
            count: The inputs in it.
            span: Children that it stands for: a stored node takes the place of all that it was made of, from its
                beginning. The levels below it are empty then, so that it is carried up by swapping.

        Returns:
            The level of the node under way (from 1) that the child is in now, and all that was in those below.
        """
        self._counts[0] += count
        self._position += span
        whole = min(carries(self._position - 1, self._fan_in), len(self._levels) - 1)
        if whole:
            for level in range(whole - 1):
                self._carry(level)
            if self._fan_in**whole > span:
                self._finished(whole)
            self._carry(whole - 1)
        return whole + 1

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


def _ignore(level: int) -> None:
    """Do nothing with a nested node."""
