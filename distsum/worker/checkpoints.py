"""Which nodes inside a long task are stored on the way, and which stored ones another attempt starts from (pure).

A task folds the nested nodes of the canonical tree, and each is whole at some moment, just before it is carried into
the one above. Stored then, it need never be made again: not after a crash, and not by a backup attempt.

A node's key alone says what it holds, whoever stored it and at whatever height: it hashes the inputs' identities in
order, and all else that bytes depend on (see ``manifest.NodeKeys``). The tree over a list of inputs is the same
wherever that list lies in a larger tree, since nodes are aligned: node (l, i) begins at a multiple of R**l, so that the
carries within it fall where they would if its first input were the first of all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from distsum.tree import split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORK_FOR_STORING: Final = 25.0
"""Times what storing a node takes that making it must have taken: then storing costs 4 % at the most."""


class Checkpoints:
    """How long the nodes that are under way have taken, without what stored descendants cover.

    Work on a node that is not stored may still be lost with the node above, so it adds up there.

    Args:
        levels: Levels that a task folds.
        now: Seconds of a steady clock.
    """

    def __init__(self, levels: int, now: float) -> None:
        self._uncovered = [0.0] * (levels + 1)
        self._since = now

    def finish(self, level: int, now: float) -> float:
        """End the node of a level, which ends those below it as well; return the seconds that would be lost with it."""
        lost = now - self._since + sum(self._uncovered[:level])
        self._uncovered[:level] = [0.0] * level
        self._since = now
        return lost

    def leave(self, level: int, lost_seconds: float) -> None:
        """Note that the node of a level that has just ended is not stored."""
        self._uncovered[level] += lost_seconds

    def cover(self, now: float) -> None:
        """Note that nothing since the last call can be lost: a node was stored, or a stored one read."""
        self._since = now


def is_due(lost_seconds: float, least_seconds: float, storing_seconds: float) -> bool:
    """Whether a finished node is to be stored.

    Args:
        lost_seconds: What would be lost with it.
        least_seconds: Less is not worth a request.
        storing_seconds: What storing is likely to take: as long as the last time.

    >>> is_due(3.0, 3.0, 0.1), is_due(3.0, 3.0, 0.2), is_due(2.9, 3.0, 0.0)
    (True, False, False)
    """
    return lost_seconds >= max(least_seconds, WORK_FOR_STORING * storing_seconds)


def stored_within(
    start: int, stop: int, fan_in: int, is_stored: Callable[[int, int], bool]
) -> Iterator[tuple[int, int]]:
    """Yield, in order, the highest stored nodes below the node over [start, stop), as ranges.

    >>> list(stored_within(0, 30, 5, lambda low, high: (low, high) in {(5, 10), (5, 6), (25, 30)}))
    [(5, 10), (25, 30)]
    """
    for low, high in split(start, stop, fan_in):
        if is_stored(low, high):
            yield low, high
        else:
            yield from stored_within(low, high, fan_in, is_stored)
