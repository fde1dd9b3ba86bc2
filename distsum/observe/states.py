"""The state of every task of a job, one byte each, and many of them drawn as few cells: the worst state wins (pure)."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import msgspec

from distsum.messages import (
    BackupEnded,
    BackupStarted,
    Heartbeat,
    JobFailed,
    NodeReopened,
    TaskFailed,
    TaskId,
    TaskRetried,
    TaskReturned,
    TaskStarted,
    TaskSucceeded,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from distsum.observe.snapshot import PhaseWork

WAITING: Final = 0
"""Nobody has begun it."""
DONE: Final = 1
"""Its node is stored, or is not needed, since the one above it is stored."""
QUEUED: Final = 2
"""It is back in the queue: its worker was lost, or an attempt failed in a way that may pass."""
RUNNING: Final = 3
BACKUP: Final = 4
"""It runs on a second worker, too."""
FAILED: Final = 5
"""An attempt failed, and it has not been handed out again."""
NAMES: Final = ("waiting", "done", "queued", "running", "backup", "failed")
"""The states by their numbers: the larger one wins where several share a cell."""

_HANDED_BACK: Final = frozenset({"cancelled", "not_served"})


class PhaseStates(msgspec.Struct, frozen=True):
    """All tasks of a phase at one moment, one byte each, tile by tile.

    Attributes:
        phase: 1 for the phase that reads the inputs.
        states: A byte a task.
        tiles: Into how many equal parts, one a tile, they fall.
    """

    phase: int
    states: bytes
    tiles: int = 1

    def array(self) -> NDArray[np.uint8]:
        """Return them as an array that cannot be written, without a copy."""
        import numpy as np  # a master folds states and never looks at them as an array

        return np.frombuffer(self.states, dtype=np.uint8)

    def counts(self) -> tuple[int, ...]:
        """Return how many tasks are in each state, as in ``NAMES``."""
        import numpy as np

        return tuple(np.bincount(self.array(), minlength=len(NAMES)).tolist())


def tasks_per_cell(tasks: int, cells: int) -> int:
    """Return how many tasks share a cell, so that so many cells are enough; at least 1.

    >>> tasks_per_cell(1_000_000, 4_000), tasks_per_cell(4_001, 4_000), tasks_per_cell(7, 4_000)
    (250, 2, 1)
    """
    return max(1, -(-tasks // max(1, cells)))


def aggregate(states: NDArray[np.uint8], each: int) -> NDArray[np.uint8]:
    """Return the worst state of every ``each`` tasks in turn; the last cell may have fewer.

    Args:
        states: 1-d, a byte a task.
        each: Tasks that share a cell.

    >>> aggregate(PhaseStates(1, bytes([1, 1, 5, 0, 0, 0, 3])).array(), 3).tolist()
    [5, 0, 3]
    """
    import numpy as np

    if each == 1 or not states.size:
        return states
    whole = states.size // each * each
    if each <= _FEW:
        # A reduction over a short last axis is slow: numpy begins anew for each of its rows.
        cells = states[:whole:each].copy()
        for place in range(1, each):
            np.maximum(cells, states[place:whole:each], out=cells)
    else:
        cells = np.maximum.reduceat(states[:whole], np.arange(0, whole, each)) if whole else states[:0]
    return cells if whole == states.size else np.append(cells, states[whole:].max())


_FEW: Final = 32


class TaskPlaces:
    """Where each task of a job stands in a list of all: phase by phase, and in a phase tile by tile.

    Args:
        work: What each phase takes, by the plan. The last phase has one task a tile.

    Attributes:
        total: Tasks of all phases.
        tiles: Tiles of each phase.

    >>> from distsum.observe.snapshot import PhaseWork
    >>> places = TaskPlaces((PhaseWork(6, 30, 0), PhaseWork(2, 6, 0)))
    >>> places.place(TaskId("job", 1, 1, 2)), places.place(TaskId("job", 2, 1, 0)), places.place(TaskId("job", 1, 0, 3))
    (5, 7, None)
    >>> places.task("job", 5), places.task("job", 7)
    (TaskId(job='job', phase=1, tile=1, index=2), TaskId(job='job', phase=2, tile=1, index=0))
    """

    def __init__(self, work: tuple[PhaseWork, ...]) -> None:
        self.tiles = work[-1].tasks if work else 1
        self._widths = [each.tasks // self.tiles for each in work]
        self._begins = list(accumulate((each.tasks for each in work), initial=0))
        self.total = self._begins[-1]

    def place(self, task: TaskId) -> int | None:
        """Return a task's place; None of one that the plan does not have."""
        if not 1 <= task.phase <= len(self._widths):
            return None
        width = self._widths[task.phase - 1]
        if not (0 <= task.index < width and 0 <= task.tile < self.tiles):
            return None
        return self._begins[task.phase - 1] + task.tile * width + task.index

    def begin(self, phase: int) -> int:
        """Return the place of a phase's first task."""
        return self._begins[phase - 1]

    def task(self, job: str, place: int) -> TaskId:
        """Return the task at a place."""
        phase = bisect_right(self._begins, place)
        return TaskId(job, phase, *divmod(place - self._begins[phase - 1], self._widths[phase - 1]))

    def phases(self) -> NDArray[np.uint8]:
        """Return the phase of each place."""
        import numpy as np

        return np.repeat(np.arange(1, len(self._widths) + 1, dtype=np.uint8), np.diff(self._begins))


class TaskStates:
    """The states of a job's tasks, kept up to date from its events; an event costs about a microsecond.

    Args:
        work: What each phase takes, by the plan. The last phase has one task a tile.
        done: For each phase one byte a task, by its place: ``DONE`` for those that need nothing done in this run.
    """

    def __init__(self, work: tuple[PhaseWork, ...], done: Iterable[bytes] = ()) -> None:
        self._places = TaskPlaces(work)
        self._states = [bytearray(each.tasks) for each in work]
        self._backups: dict[TaskId, set[int]] = {}
        for states, given in zip(self._states, done, strict=False):
            states[:] = given

    def take(self, event: msgspec.Struct) -> None:
        """Follow one event; what is told of a task that the plan does not have is passed over."""
        match event:
            case TaskStarted(child=None) | Heartbeat(task=TaskId()):
                assert event.task is not None
                place = self._place(event.task)
                if place is not None and place[0][place[1]] in {WAITING, QUEUED, FAILED}:
                    self._set(event.task, RUNNING)
            case TaskSucceeded(child=None):
                self._backups.pop(event.task, None)
                self._set(event.task, DONE)
            case TaskFailed(child=None):
                self._fail(event)
            case TaskRetried() | TaskReturned():
                if not self._backups.get(event.task):  # else another attempt of it goes on
                    self._set(event.task, QUEUED, unless=(DONE,))
            case NodeReopened():
                self._backups.pop(event.task, None)
                self._set(event.task, WAITING)
            case BackupStarted():
                self._backups.setdefault(event.task, set()).add(event.attempt)
                self._set(event.task, BACKUP, unless=(DONE,))
            case BackupEnded():
                self._end_backup(event)
            case JobFailed(task=TaskId()):
                assert event.task is not None
                if event.kind != "cancelled":
                    self._set(event.task, FAILED)

    def mark(self, task: TaskId) -> None:
        """Take a task for one that has begun."""
        self._set(task, RUNNING)

    def phases(self) -> tuple[PhaseStates, ...]:
        """Return a copy of all states; a million tasks take some 50 microseconds."""
        return tuple(
            PhaseStates(number, bytes(states), self._places.tiles)
            for number, states in enumerate(self._states, start=1)
        )

    def _fail(self, event: TaskFailed) -> None:
        if self._backups.get(event.task):
            return  # another attempt of it goes on
        if event.kind == "blocked":
            self._set(event.task, WAITING, unless=(DONE, FAILED))
        elif event.kind in _HANDED_BACK:
            self._set(event.task, QUEUED, unless=(DONE, FAILED))
        else:
            self._set(event.task, FAILED, unless=(DONE,))

    def _end_backup(self, event: BackupEnded) -> None:
        racing = self._backups.get(event.task, set())
        racing.discard(event.attempt)
        if not racing:
            self._backups.pop(event.task, None)
            place = self._place(event.task)
            if place is not None and place[0][place[1]] == BACKUP:
                self._set(event.task, RUNNING)

    def _set(self, task: TaskId, state: int, unless: tuple[int, ...] = ()) -> None:
        if (place := self._place(task)) is not None and place[0][place[1]] not in unless:
            place[0][place[1]] = state

    def _place(self, task: TaskId) -> tuple[bytearray, int] | None:
        place = self._places.place(task)
        return None if place is None else (self._states[task.phase - 1], place - self._places.begin(task.phase))
