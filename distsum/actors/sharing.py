"""Who makes which child of a straggler's node, so that several workers make it together (pure).

Where its children are too few, slices of its numbers stand for them: so they do here, wherever a child is spoken of.

A copy begins in front and the first attempt goes on where it is; that one makes no slices, so that only copies meet
those of others. Helpers make the children that nobody has begun, from
the last one down, so that the others meet what they have made. Each makes one. Who idles later, or has made one, is
given the next, as long as it would have made that well before somebody else comes to it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from distsum.messages import TaskId

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from distsum.actors.speculation import Idle, Running, SpeculationSettings


class _Helper(msgspec.Struct, frozen=True):
    """A worker that idles, and a child that it could make of a node that a backup shares already.

    Attributes:
        task: Whose node that is.
        backup: The number of the backup that is helped.
        worker: Who would make the child.
        child: Which one.
        reached_seconds: After which one that makes the node would come to that child; None where none is heard.
        takes_seconds: What a worker takes for it.
    """

    task: TaskId
    backup: int
    worker: str
    child: int
    reached_seconds: float | None
    takes_seconds: float


class AddHelper(_Helper, frozen=True):
    """Have it make the child."""


class DeclineHelper(_Helper, frozen=True):
    """Have it make no child of that node, since others come to the last one, and so to all of them, too soon."""


def able(idle: Iterable[Idle], settings: SpeculationSettings) -> list[Idle]:
    """Return the workers that may help: those that are not known to be slow."""
    return [each for each in idle if each.slowness is None or each.slowness < settings.slow]


def is_worth_sharing(copy_seconds: float | None, settings: SpeculationSettings) -> bool:
    """Whether a node that a copy takes so long for is shared; None and 0 where that is not known."""
    return not copy_seconds or copy_seconds > 2 * settings.min_seconds


def open_children(attempts: Sequence[Running]) -> list[int]:
    """Return the children of a task's node that nobody has begun, the last ones first.

    Args:
        attempts: Those at the node itself, one or more.
    """
    # On which one works now, or will when it has begun.
    first = max((int(each.place * each.splits) for each in attempts if each.meets), default=0)
    taken = attempts[0].begun | attempts[0].given_up
    return [child for child in range(attempts[0].splits - 1, first, -1) if child not in taken]


def helper_among(idle: Sequence[Idle], running: Running) -> int | None:
    """Return where the last of some idle workers is that has not failed to help with a task; None where all have."""
    places = range(len(idle) - 1, -1, -1)
    return next((place for place in places if idle[place].worker not in running.unhelpful), None)


def helpers_to_add(
    running: Iterable[Running], copy_seconds: float, idle: list[Idle], settings: SpeculationSettings
) -> Iterator[AddHelper | DeclineHelper]:
    """Give idle workers children of nodes that are shared already; they are taken from ``idle``, the last ones first.

    A node goes first that takes longest still. A child is given away only if whoever makes the node would come to it
    after ``gain`` times what it takes: later it would be made twice. Where it is not, that is told of the worker that
    it would have gone to.

    Args:
        running: Attempts at tasks of a phase.
        copy_seconds: What a copy of such a task takes; 0 where that is not known.
        idle: Workers that may help.
        settings: The guards.
    """
    shared: dict[TaskId, list[Running]] = {}
    for each in running:
        if each.backup is not None and each.splits:
            shared.setdefault(each.task, []).append(each)
    ways = [_Way(attempts, copy_seconds, settings) for attempts in shared.values()]
    for way in sorted(ways, key=lambda each: (-each.left_seconds, each.task)):
        if not way.takes_seconds or not is_worth_sharing(copy_seconds, settings):
            continue
        for child in way.open:
            if (place := helper_among(idle, way.first)) is None:
                break
            helper = idle[place]
            reached = way.reached_seconds(child)
            if reached <= settings.gain * way.takes_seconds:
                yield DeclineHelper(way.task, way.backup, helper.worker, child, reached, way.takes_seconds)
                break
            del idle[place]
            told = None if math.isinf(reached) else reached
            yield AddHelper(way.task, way.backup, helper.worker, child, told, way.takes_seconds)


class _Way:
    """How far the attempts at a node are, and how fast.

    Args:
        attempts: Those at the node itself.
        copy_seconds: What a copy takes; 0 where that is not known, and the fastest of these tells it.
        settings: When a worker is silent.
    """

    def __init__(self, attempts: Sequence[Running], copy_seconds: float, settings: SpeculationSettings) -> None:
        heard = [each for each in attempts if each.silent_seconds <= settings.silence_seconds]
        first, splits = attempts[0], attempts[0].splits
        assert first.backup is not None
        # One that stands still was faster before.
        paces = [each.progress_rate or each.progress / max(each.told_seconds, 1e-9) for each in heard]
        usual = copy_seconds or min((1.0 / pace for pace in paces if pace > 0), default=0.0)
        self.first, self.task, self.backup, self.open = first, first.task, first.backup, open_children(attempts)
        self.takes_seconds = usual / splits
        self._splits = splits
        self._unmade = [child for child in range(splits) if child not in first.begun]
        self._ways = [
            (each.place * splits, self._child_seconds(each), each.progress_seconds, each.meets) for each in heard
        ]
        self.left_seconds = self.reached_seconds(splits)

    def _child_seconds(self, running: Running) -> float:
        """Return what an attempt takes for a child: by its progress no less than is usual, since that leaps as well."""
        usual = max(running.slowness or 1.0, 1.0) * self.takes_seconds
        if running.progress_rate <= 0.0:
            return math.inf if running.rate is not None else usual
        return max(1.0 / (running.progress_rate * running.splits), self.takes_seconds)

    def reached_seconds(self, child: int) -> float:
        """Return after which time the first of them would come to a child, past those that others make."""
        found = math.inf
        for place, child_seconds, told_seconds, meets in self._ways:
            between = int(place) + 1 - place + sum(int(place) < each < child for each in self._unmade)
            if not meets:
                between = self._splits - place  # it makes all of it, and each child is of use until it has ended
            found = min(found, max(0.0, between * child_seconds - told_seconds))
        return found
