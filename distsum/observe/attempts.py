"""Each task's attempts folded from a job's events: who made them, why, when and how they ended (no clock of its own).

A task with one attempt that has gone well takes some 40 bytes (``usual_attempts``), so that a million of them can be
kept; of any other task each attempt is kept for itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from distsum.messages import (
    BackupStarted,
    FailureKind,
    Heartbeat,
    HelperAdded,
    JobFailed,
    JobStarted,
    JobSucceeded,
    NodeReopened,
    TaskFailed,
    TaskId,
    TaskStarted,
    TaskSucceeded,
    WorkerLost,
)
from distsum.observe.states import TaskPlaces
from distsum.observe.usual_attempts import End, Record, UsualAttempts, Why
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from distsum.observe.snapshot import PhaseWork


NEVER: Final = 0
ONCE: Final = 1
AGAIN: Final = 2
"""More than once, or with help."""
BACKED_UP: Final = 3
_EARLIEST_SECONDS: Final = 2.0
"""How long an attempt has run before its progress tells when it will be done."""
_STALE_SECONDS: Final = 6.0
"""Progress that was told so long ago tells nothing any more."""
REASONS_KEPT: Final = 10_000
"""Of failures. Of more only the kind is kept, so that a job in which all goes wrong does not fill the memory."""
_REASON_LENGTH: Final = 500


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a task.

    Attributes:
        task: What it makes, or helps to make.
        number: Its number; where a broker hands a lost worker's task out again, that keeps its number.
        worker: Who makes it.
        why: Why it was begun.
        began_seconds: When, by the clock of whoever folds; None where nobody has told.
        ended_seconds: When it ended; None while it runs.
        end: How it ended.
        failure: What was wrong with one that has failed.
        reason: The same in the words of who told it, harmless to show; empty where they are not kept.
        child: The one child of the node that it makes, for the others; None where it makes the node.
        bytes_read: What it has read, as far as told.
        objects_read: Inputs or partials it has opened, of one that is done. Children that it found stored save some.
        objects_stored: Partials and ranges of the result it has written, of one that is done.
        reused: Whether it found its partial stored already.
    """

    task: TaskId
    number: int
    worker: str
    why: Why
    began_seconds: float | None
    ended_seconds: float | None
    end: End
    failure: FailureKind | None = None
    reason: str = ""
    child: int | None = None
    bytes_read: int = 0
    objects_read: int = 0
    objects_stored: int = 0
    reused: bool = False

    @property
    def when(self) -> float:
        """When it began; where that was not told, when it ended."""
        return (self.ended_seconds or 0.0) if self.began_seconds is None else self.began_seconds


class Spans(NamedTuple):
    """When attempts ran, as arrays with one entry an attempt, in no order.

    Attributes:
        worker: int32, places in ``AttemptTable.workers``.
        phase: uint8, from 1.
        began_seconds: float64; NaN where that was not told.
        ended_seconds: float64; NaN of one that runs.
        unusual: bool, whether it is of an unusual task.
        done: bool, whether it has done what it was begun for.
    """

    worker: NDArray[np.int32]
    phase: NDArray[np.uint8]
    began_seconds: NDArray[np.float64]
    ended_seconds: NDArray[np.float64]
    unusual: NDArray[np.bool_]
    done: NDArray[np.bool_]


class AttemptTable:
    """All attempts of a job, kept up to date from its events; an event costs some microseconds.

    Events of tasks before the job's start, which are of an earlier run, and of tasks that the plan does not have are
    passed over. What is asked for must be asked for between two events.

    Args:
        work: What each phase takes, by the plan.
    """

    def __init__(self, work: tuple[PhaseWork, ...]) -> None:
        self._places = TaskPlaces(work)
        self._usual = UsualAttempts(self._places.total)
        self._unusual: dict[int, list[Record]] = {}
        self._backups: set[int] = set()
        self._helpers: dict[int, set[str]] = {}
        self._reopened: set[int] = set()
        self._workers: dict[str, int] = {}
        self._names: list[str] = []
        self._running: dict[int, tuple[int, int]] = {}
        """What each worker runs: a place and a number."""
        self._progress: dict[int, tuple[tuple[int, int], float, float]] = {}
        """What each worker ran when it was last heard of, the share of that which was done, and when that was."""
        self._took: dict[int, tuple[int, float]] = {}
        """How many tasks of each phase were made, and the seconds that this took in all."""
        self._left: dict[int, tuple[int, int, float]] = {}
        """What it ran before, and when it did something else: that it has done that may be told a moment later."""
        self._reasons_left = REASONS_KEPT
        self._job: str | None = None

    def take(self, event: msgspec.Struct, now: float) -> None:
        """Count one event that happened ``now`` seconds after the clock began."""
        match event:
            case TaskStarted() | TaskSucceeded() | TaskFailed() | Heartbeat(task=TaskId()):
                assert event.task is not None
                place = self._places.place(event.task)
                if place is not None and self._job is not None:
                    self._take_attempt(event, place, now)
            case Heartbeat():
                if (worker := self._workers.get(event.worker)) is not None:
                    self._leave(worker, now)
            case BackupStarted() | HelperAdded() | NodeReopened():
                place = self._places.place(event.task)
                if place is not None and self._job is not None:
                    self._take_reason(event, place)
            case JobStarted():
                self._job = event.job
            case WorkerLost():
                if (worker := self._workers.get(event.worker)) is not None:
                    self._lose(worker, now, "lost")
            case JobSucceeded() | JobFailed():
                for worker in {*self._running, *self._left}:
                    self._lose(worker, now, "cancelled")

    # Queries ----------------------------------------------------------------------------------------------------------

    @property
    def workers(self) -> tuple[str, ...]:
        """All that have made an attempt, in the order in which they were first heard of."""
        return tuple(self._names)

    def attempts(self, task: TaskId) -> tuple[Attempt, ...]:
        """Return the attempts at a task in the order in which they began; none of a task that the plan lacks."""
        place = self._places.place(task)
        return () if place is None else self._attempts_at(place)

    def unusual(self) -> Iterator[tuple[TaskId, tuple[Attempt, ...]]]:
        """Yield the tasks that took more than one attempt, or another end than being done, in their order."""
        for place in sorted(self._unusual):
            yield self._places.task(self._job or "", place), self._attempts_at(place)

    def left_seconds(self, now: float, *, copied: bool = False) -> tuple[float, ...]:
        """Return how long each task under way will take still if its attempts go on as they have.

        Of several attempts the first to be done counts, and where stragglers are ``copied`` it is no longer than a task
        of that phase takes on average. It is infinite where no progress tells.
        """
        found: dict[int, float] = {}
        for worker in self._running:
            place, left = self._left_by(worker, now)
            if copied and left < math.inf:
                tasks, seconds = self._took.get(self._places.task("", place).phase, (0, 0.0))
                left = min(left, seconds / tasks) if tasks else left
            found[place] = min(left, found.get(place, math.inf))
        return tuple(found.values())

    def time_line(self, worker: str, since_seconds: float = 0.0, until_seconds: float = math.inf) -> list[Attempt]:
        """Return what a worker did between two moments, in the order of time; of a million tasks in milliseconds.

        An attempt whose beginning was not told is where it ended.
        """
        if (number := self._workers.get(worker)) is None:
            return []
        import numpy as np  # a master folds attempts and never looks at them as arrays

        usual = self._usual.columns()
        began = np.where(np.isnan(usual.began_seconds), usual.ended_seconds, usual.began_seconds)
        there = (usual.worker == number) & (began <= until_seconds) & ~(usual.ended_seconds < since_seconds)
        found = [attempt for place in usual.place[there].tolist() for attempt in self._attempts_at(place)]
        for place, records in self._unusual.items():
            for record in records:
                if record.worker == number:
                    attempt = self._attempt(place, record)
                    if attempt.when <= until_seconds and not record.ended_seconds < since_seconds:
                        found.append(attempt)
        return sorted(found, key=lambda attempt: attempt.when)

    def spans(self) -> Spans:
        """Return when every attempt ran."""
        import numpy as np

        usual = self._usual.columns()
        others = [(place, each) for place, records in self._unusual.items() for each in records]
        places = np.append(usual.place, np.array([place for place, _ in others], dtype=np.int64))
        return Spans(
            worker=np.append(usual.worker, np.array([each.worker for _, each in others], dtype=np.int32)),
            phase=self._places.phases()[places],
            began_seconds=np.append(usual.began_seconds, [each.began_seconds for _, each in others]),
            ended_seconds=np.append(usual.ended_seconds, [each.ended_seconds for _, each in others]),
            unusual=np.repeat([False, True], [usual.place.size, len(others)]),
            done=np.append(~np.isnan(usual.ended_seconds), np.array([each.end == "done" for _, each in others], bool)),
        )

    def kinds(self, phase: int) -> NDArray[np.uint8]:
        """Return for each task of a phase, by its place in that, how it was attempted: one of the kinds below."""
        import numpy as np

        kinds = np.zeros(self._places.total, dtype=np.uint8)
        kinds[self._usual.columns().place] = ONCE
        for place, records in self._unusual.items():
            if any(each.why == "backup" for each in records):
                kinds[place] = BACKED_UP
            elif records:
                kinds[place] = ONCE if len(records) == 1 else AGAIN
        return kinds[self._places.begin(phase) : self._places.begin(phase + 1)]

    def _left_by(self, worker: int, now: float) -> tuple[int, float]:
        """Return the place of what a worker runs, and how long that will take still by its progress."""
        place, number = running = self._running[worker]
        told_of, progress, told = self._progress.get(worker, (running, 0.0, 0.0))
        if told_of != running or not 0.0 < progress < 1.0 or now - told > _STALE_SECONDS or self._helpers.get(place):
            return place, math.inf  # With helpers it goes faster than it has.
        record = self._usual.record(place) or self._find(place, worker, number)
        if record is None or record.child is not None or not told - record.began_seconds >= _EARLIEST_SECONDS:
            return place, math.inf
        return place, max(0.0, (told - record.began_seconds) * (1.0 - progress) / progress - (now - told))

    def _attempts_at(self, place: int) -> tuple[Attempt, ...]:
        if (records := self._unusual.get(place)) is None:
            record = self._usual.record(place)
            records = [] if record is None else [record]
        return tuple(sorted((self._attempt(place, each) for each in records), key=lambda attempt: attempt.when))

    def _attempt(self, place: int, record: Record) -> Attempt:
        return Attempt(
            task=self._places.task(self._job or "", place),
            number=record.number,
            worker=self._names[record.worker],
            why=record.why,
            began_seconds=_told(record.began_seconds),
            ended_seconds=_told(record.ended_seconds),
            end=record.end,
            failure=record.failure,
            reason=record.reason,
            child=record.child,
            bytes_read=record.bytes_read,
            objects_read=record.objects_read,
            objects_stored=record.objects_stored,
            reused=record.reused,
        )

    # Events -----------------------------------------------------------------------------------------------------------

    def _take_attempt(
        self, event: TaskStarted | TaskSucceeded | TaskFailed | Heartbeat, place: int, now: float
    ) -> None:
        worker = self._known_worker(event.worker)
        if worker in self._left and not isinstance(event, TaskSucceeded):
            self._end_left(worker)
        match event:
            case TaskStarted():
                self._begin(place, worker, event, now)
            case TaskSucceeded():
                self._succeed(place, worker, event, now)
            case TaskFailed():
                self._fail(place, worker, event, now)
            case Heartbeat():
                self._beat(place, worker, event, now)

    def _take_reason(self, event: BackupStarted | HelperAdded | NodeReopened, place: int) -> None:
        self._make_unusual(place)
        if isinstance(event, NodeReopened):
            self._reopened.add(place)
        elif isinstance(event, HelperAdded):
            self._helpers.setdefault(place, set()).add(event.worker)
        else:
            self._backups.add(event.attempt)
            self._helpers.setdefault(place, set()).update(event.helpers)

    def _begin(self, place: int, worker: int, event: TaskStarted, now: float) -> None:
        number, again = event.attempt, event.delivery > 1
        if self._usual.is_kept(place, worker, number):
            if not again:
                return  # told twice
            self._make_unusual(place)
        known = self._find(place, worker, number)
        if known is not None:
            if known.delivery >= event.delivery:
                return  # likewise
            if known.end == "running":
                known.close(now, "lost")  # It was cut off, and has got the same task again.
        elif self._running.get(worker, (place, number)) != (place, number):
            self._leave(worker, now)
        if again and event.child is None:
            self._take_back(place, number, now)
        self._running[worker] = place, number
        if event.child is not None or again or not self._usual.begin(place, worker, number, now):
            self._add(place, worker, number, now, event.child, event.delivery)

    def _take_back(self, place: int, number: int, now: float) -> None:
        """End attempts of that number: who made them has lost its connection, since it is handed out anew."""
        for record in self._make_unusual(place):
            if record.number == number and record.end == "running" and record.child is None:
                record.close(now, "lost")
                self._forget_running(place, record.worker, number)

    def _add(
        self, place: int, worker: int, number: int, began: float, child: int | None = None, delivery: int = 1
    ) -> Record:
        """Keep one more attempt at an unusual task."""
        records = self._make_unusual(place)
        why: Why = "first"
        if child is not None:
            why = "share"
        elif number in self._backups:
            why = "backup"
        elif delivery > 1 or any(each.why != "share" for each in records):
            why = "again" if place in self._reopened else "retry"
        if child is None:
            self._reopened.discard(place)
        record = Record(number, worker, why, began, child=child, delivery=delivery)
        records.append(record)
        return record

    def _beat(self, place: int, worker: int, event: Heartbeat, now: float) -> None:
        self._progress[worker] = (place, event.attempt), event.progress, now
        if self._usual.is_kept(place, worker, event.attempt):
            self._usual.read(place, event.bytes_read)
            return
        record = self._find(place, worker, event.attempt)
        if record is None:
            if self._is_done(place) or event.worker in self._helpers.get(place, ()):
                return  # It is not wanted any more; or it makes a child, and this does not tell which.
            # That it has begun got lost on the way.
            assert event.task is not None
            self._begin(place, worker, TaskStarted(event.worker, event.task, 1, event.attempt), now)
            self._beat(place, worker, event, now)
        elif record.end == "running":
            record.bytes_read = event.bytes_read

    def _is_done(self, place: int) -> bool:
        """Whether a task is done, and is not to be done again."""
        if self._usual.is_done(place):
            return True
        records = self._unusual.get(place, ())
        return place not in self._reopened and any(each.end == "done" and each.child is None for each in records)

    def _succeed(self, place: int, worker: int, event: TaskSucceeded, now: float) -> None:
        number = event.attempt
        self._forget_running(place, worker, number)
        if event.child is None and not event.reused:
            tasks, seconds = self._took.get(event.task.phase, (0, 0.0))
            self._took[event.task.phase] = tasks + 1, seconds + event.effort.busy_seconds
        if self._usual.is_kept(place, worker, number) or (
            event.child is None and self._usual.begin(place, worker, number, math.nan)
        ):
            self._usual.succeed(place, event, now)
            return
        record = self._find(place, worker, number)
        if record is None:
            record = self._add(place, worker, number, math.nan, event.child)
        # Also of one that has ended: it may have been given up too early.
        record.succeed(event, now)
        if event.child is None:
            self._call_back(place, now)

    def _call_back(self, place: int, now: float) -> None:
        """End all attempts at a task that is done: nobody wants them any more."""
        for record in self._unusual[place]:
            if record.end == "running":
                left = self._left.get(record.worker)
                ended = left[2] if left is not None and left[:2] == (place, record.number) else now
                record.close(ended, "cancelled")
                self._forget_running(place, record.worker, record.number)
        self._helpers.pop(place, None)

    def _fail(self, place: int, worker: int, event: TaskFailed, now: float) -> None:
        self._forget_running(place, worker, event.attempt)
        self._make_unusual(place)
        record = self._find(place, worker, event.attempt)
        if record is None:
            record = self._add(place, worker, event.attempt, math.nan, event.child)
        record.close(now, "cancelled" if event.kind == "cancelled" else "failed")
        record.failure, record.bytes_read = event.kind, max(record.bytes_read, event.bytes_read)
        if event.kind != "cancelled" and self._reasons_left:
            self._reasons_left -= 1
            record.reason = printable(event.reason, _REASON_LENGTH)

    # Workers ----------------------------------------------------------------------------------------------------------

    def _known_worker(self, name: str) -> int:
        if (worker := self._workers.get(name)) is None:
            worker = self._workers[name] = len(self._names)
            self._names.append(name)
        return worker

    def _forget_running(self, place: int, worker: int, number: int) -> None:
        """Note that an attempt is over."""
        if self._running.get(worker) == (place, number):
            del self._running[worker]
        if worker in self._left and self._left[worker][:2] == (place, number):
            del self._left[worker]

    def _leave(self, worker: int, now: float) -> None:
        """A worker does something else than it did."""
        if (running := self._running.pop(worker, None)) is not None:
            self._end_left(worker)
            self._left[worker] = *running, now

    def _end_left(self, worker: int) -> None:
        """End what a worker has left: that it is done would have been told by now."""
        if (left := self._left.pop(worker, None)) is not None:
            self._close(worker, *left, "cancelled")

    def _lose(self, worker: int, now: float, end: End) -> None:
        """End all that a worker runs: it is no more, or nobody wants it."""
        self._end_left(worker)
        if (running := self._running.pop(worker, None)) is not None:
            self._close(worker, *running, now, end)

    def _close(self, worker: int, place: int, number: int, now: float, end: End) -> None:
        self._make_unusual(place)
        record = self._find(place, worker, number)
        if record is not None and record.end == "running":
            record.close(now, end)

    def _make_unusual(self, place: int) -> list[Record]:
        """Keep each attempt at a task for itself from now on."""
        if (records := self._unusual.get(place)) is None:
            record = self._usual.take_out(place)
            records = self._unusual[place] = [] if record is None else [record]
        return records

    def _find(self, place: int, worker: int, number: int) -> Record | None:
        """Return the last attempt at an unusual task of that worker and number."""
        for record in reversed(self._unusual.get(place, ())):
            if record.worker == worker and record.number == number:
                return record
        return None


def _told(seconds: float) -> float | None:
    return None if math.isnan(seconds) else seconds
