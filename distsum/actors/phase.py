"""A phase: the nodes of one level of one job, and which of them can be made now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from distsum.actors.actor import MASTER, TRACKER, phase_address
from distsum.messages import (
    CountPhase,
    JobSpec,
    NodeReopened,
    NodesLost,
    NodeStored,
    OfferTask,
    PhaseCompleted,
    StartPhase,
    TakeTasks,
    TaskBlocked,
    TaskId,
    TasksReady,
    TaskSucceeded,
)
from distsum.slices import node_slices
from distsum.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable

    import msgspec

    from distsum.actors.actor import Context

WAITING: Final = 0
"""Some child is not stored yet."""
READY: Final = 1
"""All children are stored; nobody works on it."""
ISSUED: Final = 2
"""With the tracker."""
STORED: Final = 3
"""The node is stored."""
UNNEEDED: Final = 4
"""Not stored, and not needed: the node above it is stored."""

_CHILD_STORED: Final = b"\x01"
_WAITING_IS_READY: Final = bytes.maketrans(bytes([WAITING]), bytes([READY]))
_IS_SETTLED: Final = bytes(state in {STORED, UNNEEDED} for state in range(256))


def states_from_store(tree: Tree, tiles: int, is_stored: Callable[[int, int, int], bool]) -> tuple[bytes, ...]:
    """Return the states of a job that begins, one byte a node and phase, tile by tile.

    The last phase always has something to do, since it writes the result: where its partial is stored it is READY.
    Nothing below a stored node is needed.

    Args:
        tree: The job's tree.
        tiles: The job's tiles.
        is_stored: Whether the node (tile, phase, index) is stored; asked only where it matters.
    """
    states = [bytearray(tree.width(phase) * tiles) for phase in range(1, tree.phases + 1)]
    for tile in range(tiles):
        needed = bytearray(b"\1")
        for phase in range(tree.phases, 0, -1):
            width = tree.width(phase)
            below = bytearray(tree.width(phase - 1))
            for index in range(width):
                number = tile * width + index
                if not needed[index]:
                    states[phase - 1][number] = UNNEEDED
                elif is_stored(tile, phase, index):
                    states[phase - 1][number] = STORED if phase < tree.phases else READY
                else:
                    start, stop = tree.children(phase, index)
                    below[start:stop] = b"\1" * (stop - start)
            needed = below
    return tuple(map(bytes, states))


def without_passing(states: bytes, tree: Tree, phase: int) -> bytes:
    """Return the states of the nodes that tasks make: all but the last one of a tile, where that passes through."""
    width = tree.width(phase)
    if not tree.passes_through(phase, width - 1):
        return states
    return b"".join(states[start : start + width - 1] for start in range(0, len(states), width))


def nothing_to_do(tree: Tree, states: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return one byte a task for each phase: 1 for those that are stored or not needed when a job begins, else 0."""
    return tuple(
        without_passing(each, tree, phase).translate(_IS_SETTLED) for phase, each in enumerate(states, start=1)
    )


class Phase:
    """One byte of state a node, and one for each child: whether it is stored.

    A task is ready as soon as its own children are stored; there is no barrier between phases.

    Args:
        context: Its way to act.
        spec: The job.
        phase: 1 for the phase that reads the inputs.
        states: One byte a node, tile by tile, as found in the store: WAITING, STORED, UNNEEDED, or READY for a root
            that is stored and has only its range of the result to write.
        below: The states of the phase below; empty for phase 1.
        resume: Whether child nodes inside its tasks may be stored.
    """

    def __init__(
        self, context: Context, spec: JobSpec, phase: int, states: bytes, below: bytes, *, resume: bool = False
    ) -> None:
        self._context = context
        self._spec = spec
        self._phase = phase
        self._resume = resume
        self._tree = Tree(files=spec.files, fan_in=spec.fan_in, exponent=spec.exponent)
        self._width = self._tree.width(phase)
        self._width_below = self._tree.width(phase - 1)
        self._states = bytearray(states)
        self._children = bytearray(state == STORED for state in below)
        self._open = len(states) - states.count(STORED) - states.count(UNNEEDED)
        self._ready = states.count(READY)
        self._cursor = 0
        self._complete = False

    def receive(self, message: msgspec.Struct) -> None:
        """Take one message."""
        match message:
            case TaskSucceeded():
                self._store(message.task.tile, message.task.index)
            case NodeStored():
                self._child_stored(message.tile, message.index)
            case TakeTasks():
                self._offer(message.count)
            case TaskBlocked():
                self._block(message.task, message.missing)
            case NodesLost():
                for index in message.indices:
                    self._lose(message.tile, index)
            case StartPhase():
                self._start()
        if not self._open and not self._complete:
            self._complete = True
            self._context.send(MASTER, PhaseCompleted(self._spec.job, self._phase))

    def check(self) -> None:
        """Raise AssertionError where the counts and the states disagree; called by simulations after each message."""
        states = self._states
        assert self._open == len(states) - states.count(STORED) - states.count(UNNEEDED)
        assert self._ready == states.count(READY)
        assert states.find(READY) in {-1, *range(self._cursor, len(states))}

    def _start(self) -> None:
        if self._phase == 1:
            self._states = self._states.translate(_WAITING_IS_READY)
            self._ready = self._states.count(READY)
        elif _CHILD_STORED in self._children:
            for number in range(len(self._states)):
                if self._states[number] == WAITING:
                    self._consider(*divmod(number, self._width))
        if self._ready:
            self._context.send(MASTER, TasksReady(self._spec.job, self._phase, self._ready))

    def _consider(self, tile: int, index: int) -> None:
        """Make a waiting node ready if its children are stored; a node that passes through is stored with its child."""
        if self._phase > 1:
            start, stop = self._tree.children(self._phase, index)
            base = tile * self._width_below
            if self._children.count(_CHILD_STORED, base + start, base + stop) < stop - start:
                return
            if self._tree.passes_through(self._phase, index):
                self._store(tile, index)
                return
        number = tile * self._width + index
        self._states[number] = READY
        self._ready += 1
        self._cursor = min(self._cursor, number)

    def _announce(self, tile: int, index: int) -> None:
        """Reconsider one node, and tell the master if that made a task ready."""
        before = self._ready
        self._consider(tile, index)
        if self._ready > before:
            self._context.send(MASTER, TasksReady(self._spec.job, self._phase, 1))

    def _offer(self, count: int) -> None:
        for _ in range(count):
            number = self._states.find(READY, self._cursor)
            self._states[number] = ISSUED
            self._ready -= 1
            self._cursor = number
            tile, index = divmod(number, self._width)
            task = TaskId(self._spec.job, self._phase, tile, index)
            splits = len(self._tree.splits(self._phase, index)) if self._tree.exponent > 1 else 0
            slices = 0 if splits else len(node_slices(self._spec, self._phase, tile))
            offer = OfferTask(task, self._spec.work, self._resume, splits or slices, sliced=slices > 0)
            self._context.send(TRACKER, offer)

    def _store(self, tile: int, index: int) -> None:
        number = tile * self._width + index
        if self._states[number] == STORED:
            return
        # It waited for its child and passes through, or was issued: what is ready or unneeded nobody makes.
        self._open -= 1
        self._states[number] = STORED
        if self._phase < self._tree.phases:
            self._context.send(phase_address(self._spec.job, self._phase + 1), NodeStored(tile, index))

    def _child_stored(self, tile: int, index: int) -> None:
        self._children[tile * self._width_below + index] = 1
        parent = index // self._tree.partition
        if self._states[tile * self._width + parent] == WAITING:
            self._announce(tile, parent)

    def _block(self, task: TaskId, missing: tuple[int, ...]) -> None:
        """Take back a task whose children have gone, and have those made again."""
        number = task.tile * self._width + task.index
        self._states[number] = WAITING
        for child in missing:
            self._children[task.tile * self._width_below + child] = 0
        # All that are not known to be stored: below a root that was, nobody has asked for the others yet.
        if not self._ask_for_children(task.tile, task.index):
            self._announce(task.tile, task.index)

    def _ask_for_children(self, tile: int, index: int) -> bool:
        """Have those children of a node made that are not known to be stored; return whether there are any."""
        start, stop = self._tree.children(self._phase, index)
        base = tile * self._width_below
        absent = tuple(child for child in range(start, stop) if not self._children[base + child])
        if absent:
            self._context.send(phase_address(self._spec.job, self._phase - 1), NodesLost(tile, absent))
        return bool(absent)

    def _lose(self, tile: int, index: int) -> None:
        number = tile * self._width + index
        state = self._states[number]
        if state not in {STORED, UNNEEDED}:
            return
        self._states[number] = WAITING
        self._open += 1
        self._complete = False
        if self._tree.passes_through(self._phase, index):
            # It is its child, so the child's partial is the one that is gone.
            start, _ = self._tree.children(self._phase, index)
            self._children[tile * self._width_below + start] = 0
        else:
            task = TaskId(self._spec.job, self._phase, tile, index)
            self._context.emit(NodeReopened(task, stored=state == STORED))
            more = (0, -1) if state == STORED else (1, 0)
            self._context.send(TRACKER, CountPhase(self._spec.job, self._phase, *more))
        if self._phase > 1 and self._ask_for_children(tile, index):
            return
        self._announce(tile, index)
