"""A store that holds no numbers: of each partial only which inputs are in it, and whether it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from distsum.actors.phase import states_from_store
from distsum.messages import TaskId
from distsum.tree import Tree

if TYPE_CHECKING:
    from distsum.messages import JobSpec


class Covered(msgspec.Struct, frozen=True):
    """A partial, or a range of the result: it holds the inputs [start, stop), each once and in order."""

    start: int
    stop: int


class MissingChildrenError(Exception):
    """Children are not there, or were found damaged: their indices in the phase below."""

    def __init__(self, missing: tuple[int, ...]) -> None:
        super().__init__(missing)
        self.missing = missing


class ModelledStore:
    """Partials and results of jobs.

    Attributes:
        partials: What is stored, by the task that makes it.
        damaged: Those whose content does not agree with their digest; found by whoever reads them whole.
        poison: Tasks that take down whoever works on them.
        results: What each tile's range of a job's result holds.
        children: Children inside tasks that are stored, by task.
        sums: How many of its files, or partials, each task's stored sums hold from the first on (None), and likewise
            those of one child of its node, by its number.
        errors: Share of attempts that fail now since the store does not do what it is asked.
        slowness: How many times as long as usual it takes for what it is asked now.
    """

    def __init__(self) -> None:
        self.partials: dict[TaskId, Covered] = {}
        self.damaged: set[TaskId] = set()
        self.poison: set[TaskId] = set()
        self.results: dict[str, dict[int, Covered]] = {}
        self.children: dict[TaskId, set[int]] = {}
        self.sums: dict[TaskId, dict[int | None, int]] = {}
        self.errors = 0.0
        self.slowness = 1.0
        self._specs: dict[str, JobSpec] = {}
        self._trees: dict[str, Tree] = {}

    def describe(self, spec: JobSpec) -> None:
        """Take note of a job that begins; there is nothing in its result yet."""
        self.results.pop(spec.job, None)
        self._specs[spec.job] = spec
        self._trees[spec.job] = Tree(files=spec.files, fan_in=spec.fan_in, exponent=spec.exponent)

    def spec(self, job: str) -> JobSpec:
        """Return a job's description."""
        return self._specs[job]

    def tree(self, job: str) -> Tree:
        """Return a job's tree."""
        return self._trees[job]

    def states(self, spec: JobSpec) -> tuple[bytes, ...]:
        """Return what is stored of a job, as its master takes it."""

        def is_stored(tile: int, phase: int, index: int) -> bool:
            return self._key(TaskId(spec.job, phase, tile, index)) in self.partials

        return states_from_store(self._trees[spec.job], spec.tiles, is_stored)

    def is_stored(self, task: TaskId) -> bool:
        """Whether a worker finds the task's partial there when it begins (and, at the root, reads it whole)."""
        return task in self.partials and not (task in self.damaged and self._at_root(task))

    def missing(self, task: TaskId) -> tuple[int, ...]:
        """Return the children of a task that are not there."""
        if task.phase == 1:
            return ()
        tree = self._trees[task.job]
        return tuple(index for index in range(*tree.children(task.phase, task.index)) if not self._has(task, index))

    def make(self, task: TaskId) -> tuple[Covered, bool]:
        """Fold a task as a worker does; return what it holds, and whether its partial was there already.

        Raises:
            MissingChildrenError: Children must be made again.
        """
        at_root = self._at_root(task)
        if at_root and task in self.damaged:
            self.lose(task)
        covered = self.partials.get(task)
        reused = covered is not None
        if covered is None:
            covered = self._folded(task)
            self.partials[task] = covered
            self.children.pop(task, None)
            self.sums.pop(task, None)
        if at_root:
            self.results.setdefault(task.job, {})[task.tile] = covered
        return covered, reused

    def lose(self, task: TaskId) -> None:
        """Remove a partial."""
        self.partials.pop(task, None)
        self.damaged.discard(task)

    def _folded(self, task: TaskId) -> Covered:
        tree = self._trees[task.job]
        if task.phase == 1:
            return Covered(*tree.inputs(1, task.index))
        if missing := self.missing(task):
            raise MissingChildrenError(missing)
        start = stop = tree.inputs(task.phase, task.index)[0]
        for index in range(*tree.children(task.phase, task.index)):
            key = self._key(TaskId(task.job, task.phase - 1, task.tile, index))
            if key in self.damaged:
                self.lose(key)
                raise MissingChildrenError((index,))
            child = self.partials[key]
            assert child.start == stop, f"{key} holds {child}, where {stop} was to follow"
            stop = child.stop
        return Covered(start, stop)

    def _has(self, task: TaskId, child: int) -> bool:
        return self._key(TaskId(task.job, task.phase - 1, task.tile, child)) in self.partials

    def _at_root(self, task: TaskId) -> bool:
        return task.phase == self._trees[task.job].phases

    def _key(self, node: TaskId) -> TaskId:
        """Return the task that makes a node: a node that passes through is its child."""
        tree = self._trees[node.job]
        phase, index = node.phase, node.index
        while tree.passes_through(phase, index):
            index = tree.children(phase, index)[0]
            phase -= 1
        return node if phase == node.phase else TaskId(node.job, phase, node.tile, index)
