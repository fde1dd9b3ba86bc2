"""What actors and workers may hold at a time, so that nothing grows with the files or with how long a job takes."""

from __future__ import annotations

from collections import Counter, deque
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from distsum.actors.actor import MASTER, TRACKER
from distsum.actors.attempts import MOST_PLACES
from distsum.actors.phase import Phase
from distsum.actors.speculation import Durations
from distsum.messages import TaskId
from distsum.planning import BUFFER_BYTES, Limits, Workload, plan_candidates, rates

if TYPE_CHECKING:
    from distsum.actors.master import Master
    from distsum.actors.modelled_worker import ModelledWorker
    from distsum.actors.simulated_cluster import SimulatedCluster
    from distsum.actors.task_tracker import TaskTracker
    from distsum.messages import JobSpec

_TILE_NUMBERS: Final = 1 << 20
"""In the plans that workers are held to, so that an accumulator weighs more than what is kept in reserve."""
_NUMBER_BYTES: Final = 8
_WAITING: Final = 2
"""Attempts that wait at a worker: one from the queue, and one that it was handed past it."""
_WORKER_ENTRIES: Final = 11
"""The worker itself; its running, assigned and failing tasks, two of each; the task that it lets others try first; the
three numbers of what its attempt was expected to take."""
_COUNTED_EVERY: Final = 50
"""Looks, and whenever a job has ended, since to count takes as long as all that is looked at else."""


class MemoryBound:
    """Holds a cluster to what it may take of memory.

    A worker holds one attempt, with as many open inputs as the job allows, and what its plan says. The tracker holds
    the workers, the tasks that are out and the attempts at them; the master its jobs; a phase a byte for each node and
    one for each child.

    Args:
        cluster: The cluster.
    """

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._planned: dict[str, int] = {}
        self._looks = 0
        self._jobs = 0

    def check(self) -> None:
        """Raise AssertionError where somebody holds too much."""
        actors = self._cluster.system.actors
        for worker in self._cluster.living():
            self._check_worker(worker)
        tracker, master = actors[TRACKER], actors[MASTER]
        if not self._looks % _COUNTED_EVERY or len(master._jobs) < self._jobs:
            self._check_assigned(tracker)
            self._check_tracker(tracker)
            self._check_master(master)
            for actor in actors.values():
                if isinstance(actor, Phase):
                    _check_phase(actor)
        self._jobs = len(master._jobs)
        self._looks += 1

    def _check_worker(self, worker: ModelledWorker) -> None:
        if not worker.holds:
            return
        assert worker._attempt is not None, f"{worker.name} holds {worker.holds}, and works on nothing"
        spec = self._cluster.specs[worker._attempt.message.task.job]
        files = sum(held.open_files for held in worker.holds.values())
        assert files <= spec.max_open_files, f"{worker.name} has {files} files open, of {spec.max_open_files}"
        accumulators = sum(held.accumulators for held in worker.holds.values())
        taken = accumulators * _TILE_NUMBERS * _NUMBER_BYTES + len(worker.holds) * BUFFER_BYTES
        planned = self._planned_bytes(spec)
        assert taken <= planned, f"{worker.name} takes {taken:,} bytes, where {planned:,} were planned"
        waiting = {message.attempt for message in worker._waiting} - worker._unwanted
        assert len(waiting) <= _WAITING, f"{len(waiting)} attempts wait at {worker.name}"

    def _planned_bytes(self, spec: JobSpec) -> int:
        if spec.job not in self._planned:
            numbers = _TILE_NUMBERS * (spec.count // spec.tile_length)
            workload = Workload(
                files=spec.files,
                count=numbers,
                item_bytes=_NUMBER_BYTES,
                header_bytes=spec.offset,
                input_bytes=spec.files * numbers * _NUMBER_BYTES,
                plane_bytes=_NUMBER_BYTES,
                ranged=True,
            )
            limits = Limits(1, 1 << 50, spec.fan_in, spec.fan_in**spec.exponent, spec.count // spec.tile_length)
            (candidate,) = plan_candidates(workload, limits, rates(inputs_remote=False, work_remote=False))
            assert candidate.tile_length == _TILE_NUMBERS
            self._planned[spec.job] = candidate.worker_bytes
        return self._planned[spec.job]

    def _check_assigned(self, tracker: TaskTracker) -> None:
        """A worker is handed one attempt at a time past the queue."""
        assigned = Counter(
            attempt.assigned
            for task in tracker._tasks.values()
            for attempt in task.attempts.values()
            if attempt.assigned is not None
        )
        for name, count in assigned.items():
            assert count == 1, f"{name} was handed {count} attempts past the queue"

    def _check_tracker(self, tracker: TaskTracker) -> None:
        workers, tasks = len(tracker._workers), len(tracker._tasks)
        losers = Counter(loser.worker for loser in tracker._losers.values())
        for name, count in losers.items():
            assert name in tracker._workers, f"{name} is gone, and is waited for"
            assert count <= _WAITING + 1, f"{name} is to give up {count} attempts"
        assert len(tracker._absent) <= len(self._cluster.workers) - workers
        for task_id, task in tracker._tasks.items():
            assert len(task.failed_on) <= task.failures + task.repeats, f"{task_id} knows more failures than there were"
            for number, _ in task.declined:
                assert number in task.attempts, f"of {task_id} it is remembered what has ended long ago"
        # Each task has an attempt from the queue, and each worker one more at the most; each of these may be told of in
        # some words, was at some places before, and is made in as many children as a node has.
        children = max((spec.fan_in for spec in self._cluster.specs.values()), default=0)
        attempts = tasks + workers
        most = workers * (_WORKER_ENTRIES + _WAITING + 1) + tasks + attempts * (3 + 4 + 3 * MOST_PLACES + 3 * children)
        most += 2 * len(tracker._known.phases)
        # Of those that are gone: each with its failing tasks. And of each task who has failed it, or to help with it.
        most += (1 + 2) * len(tracker._absent) + sum(
            len(task.failed_on) + len(task.unhelpful) + len(task.given_up) for task in tracker._tasks.values()
        )
        found = entries(tracker)
        assert found <= most, f"the tracker holds {found} things for {workers} workers and {tasks} tasks, over {most}"

    def _check_master(self, master: Master) -> None:
        shapes = [self._cluster.specs[name] for name in (*master._jobs, *master._waiting)]
        most = sum(4 + self._cluster.store.tree(spec.job).phases + spec.tiles + 1 for spec in shapes)
        waiting = sum(len(message.states) for message in master._waiting.values())
        found = entries(master)
        assert found <= most + waiting, f"the master holds {found} things for {len(shapes)} jobs, over {most}"


def _check_phase(phase: Phase) -> None:
    nodes, children = phase._spec.tiles * phase._width, phase._spec.tiles * phase._width_below
    assert len(phase._states) == nodes, "a phase holds more than a byte for each node"
    assert len(phase._children) == (children if phase._phase > 1 else 0), "a phase holds more than a byte a child"
    held = entries(phase)
    assert not held, f"a phase holds {held} things beside its bytes"


def entries(actor: object) -> int:
    """Return how many things an actor's containers hold, and the containers in those; bytes count as nothing."""
    return sum(_count(value) for name, value in vars(actor).items() if name not in _NOT_HELD)


_NOT_HELD: Final = {"_context", "_settings", "_spec", "_tree"}
_PLAIN: Final = (str, bytes, bytearray, int, float, NoneType, TaskId, Durations)


def _count(value: Any) -> int:
    if isinstance(value, _PLAIN):
        return 0
    if isinstance(value, dict):
        return len(value) + sum(map(_count, value.values()))
    if isinstance(value, list | tuple | set | frozenset | deque):
        return len(value) + sum(map(_count, value))
    if isinstance(value, msgspec.Struct):
        return sum(_count(getattr(value, name)) for name in value.__struct_fields__)
    return entries(value)
