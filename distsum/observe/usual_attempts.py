"""The one attempt at each usual task, in arrays: some 40 bytes a task (no clock)."""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from distsum.messages import FailureKind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from distsum.messages import TaskSucceeded

Why = Literal["first", "retry", "again", "backup", "share"]
"""Why an attempt was begun. ``retry``: one before it failed, or its worker was lost. ``again``: the partial that one
had stored was missing or damaged. ``backup``: it copies a straggler. ``share``: it makes one child, to help others."""
End = Literal["running", "done", "failed", "lost", "cancelled"]
"""How it ended. ``cancelled`` is one that was called back since it was not wanted any more, or handed back."""


class Record(msgspec.Struct):
    """An attempt as it is kept; see ``attempts.Attempt``. NaN stands for a moment that was not told, or not yet.

    ``worker`` is a number, and ``delivery`` counts how often the broker had handed it out.
    """

    number: int
    worker: int
    why: Why
    began_seconds: float
    ended_seconds: float = math.nan
    end: End = "running"
    failure: FailureKind | None = None
    reason: str = ""
    child: int | None = None
    bytes_read: int = 0
    objects_read: int = 0
    objects_stored: int = 0
    reused: bool = False
    delivery: int = 1

    def close(self, now: float, end: End) -> None:
        """Note how it ended."""
        self.ended_seconds, self.end = now, end

    def succeed(self, event: TaskSucceeded, now: float) -> None:
        """Note what it has done."""
        self.close(now, "done")
        effort = event.effort
        self.reused, self.bytes_read = event.reused, effort.bytes_read
        self.objects_read, self.objects_stored = effort.objects_read, effort.objects_written


class Columns(NamedTuple):
    """When the attempts at usual tasks ran, as arrays with an entry for each of them."""

    place: NDArray[np.int64]
    worker: NDArray[np.int32]
    began_seconds: NDArray[np.float64]
    ended_seconds: NDArray[np.float64]


_NOT_BEGUN: Final = 0
_RUNNING: Final = 1
_DONE: Final = 2
_REUSED: Final = 3
"""Done, and its partial was stored already."""
_TAKEN_OUT: Final = 4
_MOST_INT: Final = 2**31 - 1


class UsualAttempts:
    """The first attempt at each task, as long as that is all there is to say of it.

    Args:
        tasks: How many there are; they are named by their places.
    """

    def __init__(self, tasks: int) -> None:
        self._state = bytearray(tasks)
        self._worker = array("i", bytes(tasks * 4))
        self._number = array("i", bytes(tasks * 4))
        self._began = array("d", bytes(tasks * 8))
        self._took = array("f", bytes(tasks * 4))  # Of one whose beginning was not told: when it ended.
        self._bytes_read = array("q", bytes(tasks * 8))
        self._objects_read = array("i", bytes(tasks * 4))
        self._objects_stored = array("i", bytes(tasks * 4))
        self._first_number: int | None = None

    def begin(self, place: int, worker: int, number: int, now: float) -> bool:
        """Keep an attempt that has begun; return False where it cannot be kept here."""
        offset = self._offset(number)
        if self._state[place] != _NOT_BEGUN or offset is None:
            return False
        self._state[place] = _RUNNING
        self._worker[place], self._number[place], self._began[place] = worker, offset, now
        return True

    def is_kept(self, place: int, worker: int, number: int) -> bool:
        """Whether that attempt is kept here."""
        return (
            _NOT_BEGUN < self._state[place] < _TAKEN_OUT
            and self._worker[place] == worker
            and self._offset(number) == self._number[place]
        )

    def is_done(self, place: int) -> bool:
        """Whether a usual task is done."""
        return self._state[place] in {_DONE, _REUSED}

    def read(self, place: int, bytes_read: int) -> None:
        """Note what the attempt that is kept has read, if it still runs."""
        if self._state[place] == _RUNNING:
            self._bytes_read[place] = bytes_read

    def succeed(self, place: int, event: TaskSucceeded, now: float) -> None:
        """Note what the attempt that is kept has done."""
        began = self._began[place]
        self._state[place] = _REUSED if event.reused else _DONE
        self._took[place] = now if math.isnan(began) else now - began
        self._bytes_read[place] = event.effort.bytes_read
        self._objects_read[place] = min(event.effort.objects_read, _MOST_INT)
        self._objects_stored[place] = min(event.effort.objects_written, _MOST_INT)

    def record(self, place: int) -> Record | None:
        """Return the attempt that is kept; None where there is none."""
        state = self._state[place]
        if state in {_NOT_BEGUN, _TAKEN_OUT}:
            return None
        assert self._first_number is not None
        began = self._began[place]
        record = Record(self._first_number + self._number[place], self._worker[place], "first", began)
        record.bytes_read = self._bytes_read[place]
        if state != _RUNNING:
            record.close(self._took[place] + (0.0 if math.isnan(began) else began), "done")
            record.reused = state == _REUSED
            record.objects_read, record.objects_stored = self._objects_read[place], self._objects_stored[place]
        return record

    def take_out(self, place: int) -> Record | None:
        """Return the attempt that is kept, and keep none of that task from now on."""
        record = self.record(place)
        self._state[place] = _TAKEN_OUT
        return record

    def columns(self) -> Columns:
        """Return a copy of when they ran."""
        import numpy as np  # a master keeps attempts and never looks at them as arrays

        state = np.frombuffer(self._state, dtype=np.uint8)
        place = np.flatnonzero((state > _NOT_BEGUN) & (state < _TAKEN_OUT))
        began = np.frombuffer(self._began, dtype=np.float64)[place]
        ended = np.where(np.isnan(began), 0.0, began) + np.frombuffer(self._took, dtype=np.float32)[place].astype(
            np.float64
        )
        ended[state[place] == _RUNNING] = np.nan
        return Columns(place, np.frombuffer(self._worker, dtype=np.int32)[place], began, ended)

    def _offset(self, number: int) -> int | None:
        """Return an attempt's number as it is kept; None where it is too far from the first one's."""
        if self._first_number is None:
            self._first_number = number
        offset = number - self._first_number
        return offset if -_MOST_INT <= offset <= _MOST_INT else None
