"""The canonical summation tree: the one thing that fixes the bits of a result (pure).

A tree of fan-in R over F inputs has nodes (level, index). Level 0 are the inputs; node (l, i) covers the inputs
[i * R**l, min(F, (i + 1) * R**l)), and its value is the left fold, in order, of its children's values. A node with one
child is that child. The root is at level ceil(log_R F).

A *partition* P = R**k cuts the tree into *phases*: a task of phase j makes one node of level j * k from its at most P
descendants of level (j - 1) * k. The partition decides who computes what; it never touches the bits.

The depth of the additions bounds the error: an element passes through at most (R - 1) * levels additions, see
Higham, "The accuracy of floating point summation", SIAM J. Sci. Comput. 14 (1993), 783-799.
"""

from __future__ import annotations

import msgspec

from distsum.errors import PlanError


def levels_above(width: int, fan_in: int) -> int:
    """Return ceil(log_R width): how many levels lie above ``width`` nodes.

    >>> [levels_above(width, 5) for width in (1, 2, 5, 6, 25, 26)]
    [0, 1, 1, 2, 2, 3]
    """
    levels = 0
    while width > 1:
        width = -(-width // fan_in)
        levels += 1
    return levels


def partition_exponent(partition: int, fan_in: int) -> int:
    """Return k of the partition R**k.

    Raises:
        PlanError: The partition is no power of the fan-in; the nearest two are named.

    >>> partition_exponent(125, 5)
    3
    >>> partition_exponent(30, 5)
    Traceback (most recent call last):
    distsum.errors.PlanError: partition 30 is not a power of the fan-in 5; the nearest are 25 and 125
    """
    power, exponent = fan_in, 1
    while power < partition:
        power *= fan_in
        exponent += 1
    if power == partition:
        return exponent
    below = power // fan_in
    nearest = f"{power}" if below < fan_in else f"{below} and {power}"
    verb = "nearest is" if below < fan_in else "nearest are"
    raise PlanError(f"partition {partition} is not a power of the fan-in {fan_in}; the {verb} {nearest}")


def carries(position: int, fan_in: int) -> int:
    """Return how many levels are complete once the input at ``position`` has been added, as an odometer carries.

    >>> [carries(position, 5) for position in (0, 3, 4, 5, 24)]
    [0, 0, 1, 0, 2]
    """
    done = position + 1
    count = 0
    while done % fan_in == 0:
        done //= fan_in
        count += 1
    return count


def split(start: int, stop: int, fan_in: int) -> tuple[tuple[int, int], ...]:
    """Return the children of the node over [start, stop), one level below it, as ranges; none where they are single.

    >>> split(0, 26, 5), split(25, 26, 5), split(0, 5, 5)
    (((0, 25), (25, 26)), (), ())
    """
    levels = levels_above(stop - start, fan_in)
    if levels < 2:
        return ()
    span = fan_in ** (levels - 1)
    return tuple((low, min(stop, low + span)) for low in range(start, stop, span))


class Tree(msgspec.Struct, frozen=True):
    """The tree over ``files`` inputs, cut into phases of ``fan_in ** exponent`` (all counts positive).

    >>> tree = Tree(files=130, fan_in=5, exponent=2)
    >>> tree.phases, [tree.width(phase) for phase in (0, 1, 2)], tree.inputs(1, 5)
    (2, [130, 6, 1], (125, 130))
    """

    files: int
    fan_in: int
    exponent: int

    @property
    def levels(self) -> int:
        """Level of the root."""
        return levels_above(self.files, self.fan_in)

    @property
    def phases(self) -> int:
        """Number of phases; at least one, so that a single input is still converted and written."""
        return max(1, -(-self.levels // self.exponent))

    @property
    def partition(self) -> int:
        """The most children of a task."""
        return int(self.fan_in**self.exponent)

    @property
    def depth(self) -> int:
        """The most additions that one element passes through."""
        return (self.fan_in - 1) * self.levels

    def width(self, phase: int) -> int:
        """Nodes that a phase makes; phase 0 are the inputs themselves."""
        return -(-self.files // int(self.partition**phase))

    def inputs(self, phase: int, index: int) -> tuple[int, int]:
        """Range of inputs that a node covers: [start, stop)."""
        span = self.partition**phase
        return index * span, min(self.files, (index + 1) * span)

    def children(self, phase: int, index: int) -> tuple[int, int]:
        """Range of nodes of the phase below that a task folds: [start, stop)."""
        return index * self.partition, min(self.width(phase - 1), (index + 1) * self.partition)

    def splits(self, phase: int, index: int) -> tuple[tuple[int, int], ...]:
        """Return the children of a task's node in the canonical tree, one level below it.

        Each is a range of nodes of the phase below, as in ``children``, so that several workers may each make one.
        There are none where those nodes are the task's children themselves, as with a partition that is the fan-in.

        >>> tree = Tree(files=130, fan_in=5, exponent=2)
        >>> tree.splits(1, 0), tree.splits(1, 5), Tree(files=130, fan_in=5, exponent=1).splits(1, 0)
        (((0, 5), (5, 10), (10, 15), (15, 20), (20, 25)), (), ())
        """
        return split(*self.children(phase, index), self.fan_in)

    def passes_through(self, phase: int, index: int) -> bool:
        """Whether a node above the first phase has one child, and so is that child: no task makes it.

        >>> tree = Tree(files=26 * 5 + 1, fan_in=5, exponent=1)
        >>> [tree.passes_through(2, index) for index in range(tree.width(2))]
        [False, False, False, False, False, False]
        >>> Tree(files=26, fan_in=5, exponent=1).passes_through(2, 1)
        True
        """
        start, stop = self.children(phase, index)
        return phase > 1 and stop - start == 1

    def tasks(self, phase: int) -> int:
        """Tasks of a phase for one tile: its nodes less the one that passes through."""
        width = self.width(phase)
        return width - self.passes_through(phase, width - 1)

    def partials_read(self, phase: int) -> int:
        """Partials that the tasks of a phase above the first fold, for one tile.

        >>> [Tree(files=26, fan_in=5, exponent=1).partials_read(phase) for phase in (2, 3)]
        [5, 2]
        """
        return self.width(phase - 1) - (self.width(phase) - self.tasks(phase))

    def maker(self, phase: int, index: int) -> tuple[int, int]:
        """Return the phase and index of the task that makes a node.

        >>> tree = Tree(files=26, fan_in=5, exponent=1)
        >>> tree.maker(2, 0), tree.maker(2, 1)
        ((2, 0), (1, 5))
        """
        while self.passes_through(phase, index):
            phase, index = phase - 1, self.children(phase, index)[0]
        return phase, index

    def tasks_below(self, phase: int, index: int) -> tuple[tuple[int, int], ...]:
        """Return the tasks that make the children of a node, in order; none where those are the inputs themselves.

        >>> Tree(files=26, fan_in=5, exponent=1).tasks_below(3, 0)
        ((2, 0), (1, 5))
        """
        if phase <= 1:
            return ()
        return tuple(self.maker(phase - 1, child) for child in range(*self.children(phase, index)))
