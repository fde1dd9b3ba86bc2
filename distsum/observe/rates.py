"""Bytes in slices of time, what is left at that rate, and how a worker has spent the last of them (pure, no clock)."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import msgspec

from distsum.messages import Heartbeat, TaskFailed, TaskId, TaskStarted, TaskSucceeded

SLICE_SECONDS: Final = 0.5
SLICES: Final = 120
"""A minute."""
_QUIET_SLICES: Final = 6
"""Slices without a byte, after which what goes on is not what went on before."""
_FEWEST: Final = 4
"""Full slices that a rate needs before an end is foretold from it."""

LaneMark = str
"""How a worker spent a slice: a digit from 0 (idle) to 8 (busy all the time), or one of the letters below."""
BACKUP_MARK: Final = "b"
FAILED_MARK: Final = "f"
LANE_SLICES: Final = 16


class Slices:
    """Amounts by slices of time, of which the last are kept."""

    def __init__(self) -> None:
        self._amounts: deque[float] = deque(maxlen=SLICES)
        self._last = -1

    def add(self, amount: float, now: float) -> None:
        """Add an amount to the slice that ``now`` lies in; one that is too old is counted to the oldest kept."""
        self._move(now)
        place = min(0, int(now / SLICE_SECONDS) - self._last) - 1
        self._amounts[max(place, -len(self._amounts))] += amount

    def per_second(self, now: float) -> tuple[float, ...]:
        """Return the rates of the full slices before ``now``, oldest first."""
        self._move(now)
        return tuple(amount / SLICE_SECONDS for amount in list(self._amounts)[:-1])

    def _move(self, now: float) -> None:
        number = int(now / SLICE_SECONDS)
        if number - self._last > SLICES:
            self._amounts.clear()
            self._last = number - SLICES
        while self._last < number:
            self._amounts.append(0.0)
            self._last += 1


class Estimate(msgspec.Struct, frozen=True):
    """How long something will take still, and by how much that may be wrong."""

    seconds: float
    margin_seconds: float

    @property
    def is_rough(self) -> bool:
        """Whether it may be wrong by as much as it is, so that the margin tells nothing."""
        return self.margin_seconds >= self.seconds > 0.0


def is_quiet(rates: tuple[float, ...]) -> bool:
    """Whether nothing has been done of late."""
    return not any(rates[-_QUIET_SLICES:])


def estimate(left: float, rates: tuple[float, ...], under_way: tuple[float, ...] = ()) -> Estimate | None:
    """Return when an amount will be done, if rates go on as they have of late; None where that cannot be told.

    The margin is two standard errors of the mean rate, so that about 19 of 20 such means lie within. Slices that follow
    one another are alike, so a quarter of them are counted as independent.

    It will not be done before what is under way; where that is later than the rates tell, the margin is at least the
    difference. Where nothing has been done of late, what is under way and tells no end may take any time.

    Args:
        left: The amount.
        rates: Amounts a second in slices of equal length, the last one last.
        under_way: Seconds that each task under way will take still; infinite where that is not known.

    >>> estimate(100.0, (10.0,) * 8)
    Estimate(seconds=10.0, margin_seconds=0.0)
    >>> estimate(100.0, (0.0, 20.0) * 4).margin_seconds > 9
    True
    >>> estimate(100.0, (10.0,)), estimate(100.0, (0.0,) * 8)
    (None, None)
    >>> estimate(100.0, (10.0,) * 8, (2.0, 16.0, math.inf))
    Estimate(seconds=16.0, margin_seconds=6.0)
    """
    recent = rates[-SLICES // 2 :]
    if len(recent) < _FEWEST:
        return None
    mean = math.fsum(recent) / len(recent)
    if mean <= 0.0 or (math.inf in under_way and is_quiet(rates)):
        return None
    variance = math.fsum((rate - mean) ** 2 for rate in recent) / (len(recent) - 1)
    error = math.sqrt(variance / max(1.0, len(recent) / 4))
    by_rate = left / mean
    seconds = max(by_rate, *(each for each in under_way if each < math.inf), 0.0)
    return Estimate(seconds, max(2 * error / mean * by_rate, seconds - by_rate))


class ByteRates:
    """Bytes read and written by all attempts, by when that was told.

    ``settled`` is what was read and what was found stored: how fast a job comes to its end.
    """

    def __init__(self) -> None:
        self.read = Slices()
        self.settled = Slices()
        self.written = Slices()
        self._told: dict[str, tuple[TaskId, int, int]] = {}

    def take(self, event: msgspec.Struct, now: float) -> None:
        """Count one event."""
        match event:
            case Heartbeat(task=TaskId()):
                assert event.task is not None
                self._take_read(event.worker, event.task, event.attempt, event.bytes_read, now)
                self._told[event.worker] = event.task, event.attempt, event.bytes_read
            case TaskSucceeded():
                self._end(event, event.effort.bytes_read, now)
                self.written.add(event.effort.bytes_written, now)
            case TaskFailed():
                self._end(event, event.bytes_read, now)

    def _end(self, event: TaskSucceeded | TaskFailed, size: int, now: float) -> None:
        self._take_read(event.worker, event.task, event.attempt, size, now)
        if self._told.get(event.worker, ())[:2] == (event.task, event.attempt):
            del self._told[event.worker]  # What it has read of another attempt since may have been told first.

    def _take_read(self, worker: str, task: TaskId, attempt: int, size: int, now: float) -> None:
        last = self._told.get(worker)
        before = last[2] if last is not None and last[:2] == (task, attempt) else 0
        self.read.add(max(0, size - before), now)
        self.settled.add(max(0, size - before), now)


class Lanes:
    """How each worker has spent the last slices of time.

    An attempt is busy time from its start to its end. A slice in which an attempt failed or a backup ran has the letter
    of that, since the worst wins.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}

    def take(self, event: msgspec.Struct, now: float, *, backup: bool = False) -> None:
        """Count one event; ``backup`` says that the attempt it tells of is one."""
        match event:
            case TaskStarted():
                self._lane(event.worker).start(event.task, event.attempt, now, backup=backup)
            case Heartbeat():
                lane = self._lane(event.worker)
                if event.task is None:
                    lane.end(now)
                elif not lane.is_at(event.task, event.attempt):
                    lane.start(event.task, event.attempt, now, backup=backup)
            case TaskSucceeded() | TaskFailed():
                lane = self._lane(event.worker)
                if lane.is_at(event.task, event.attempt):  # That another has begun may have been told first.
                    lane.end(now)
                if isinstance(event, TaskFailed) and event.kind not in {"cancelled", "blocked", "not_served"}:
                    lane.mark(now, FAILED_MARK)

    def lose(self, worker: str) -> None:
        """Forget a worker that is gone."""
        self._lanes.pop(worker, None)

    def lane(self, worker: str, now: float) -> str:
        """Return a worker's lane, a mark for each of the last slices, oldest first; empty of one never heard."""
        lane = self._lanes.get(worker)
        return "" if lane is None else lane.marks(now)

    def _lane(self, worker: str) -> _Lane:
        if (lane := self._lanes.get(worker)) is None:
            lane = self._lanes[worker] = _Lane()
        return lane


class _Lane:
    def __init__(self) -> None:
        self._busy: dict[int, float] = {}
        self._letters: dict[int, str] = {}
        self._since: float | None = None
        self._attempt: tuple[TaskId, int] | None = None
        self._backup = False

    def is_at(self, task: TaskId, attempt: int) -> bool:
        return self._since is not None and self._attempt == (task, attempt)

    def start(self, task: TaskId, attempt: int, now: float, *, backup: bool) -> None:
        self.end(now)
        self._since, self._attempt, self._backup = now, (task, attempt), backup

    def end(self, now: float) -> None:
        if self._since is not None:
            self._fill(self._busy, self._letters, now)
            self._since = None
            oldest = int(now / SLICE_SECONDS) - LANE_SLICES
            for kept in (self._busy, self._letters):
                if len(kept) > 2 * LANE_SLICES:
                    for number in [number for number in kept if number < oldest]:
                        del kept[number]

    def mark(self, now: float, letter: str) -> None:
        self._letters[int(now / SLICE_SECONDS)] = letter

    def marks(self, now: float) -> str:
        busy, letters = dict(self._busy), dict(self._letters)
        if self._since is not None:
            self._fill(busy, letters, now)
        last = int(now / SLICE_SECONDS)
        told = []
        for number in range(max(0, last - LANE_SLICES + 1), last + 1):
            length = SLICE_SECONDS if number < last else max(1e-9, now - last * SLICE_SECONDS)
            share = min(1.0, busy.get(number, 0.0) / length)
            told.append(letters.get(number) or str(math.ceil(share * 8 - 1e-9)))
        return "".join(told)

    def _fill(self, busy: dict[int, float], letters: dict[int, str], now: float) -> None:
        """Add the time of the attempt under way to the slices that it lies in."""
        assert self._since is not None
        last = int(now / SLICE_SECONDS)
        began = max(self._since, (last - LANE_SLICES) * SLICE_SECONDS)
        for number in range(int(began / SLICE_SECONDS), last + 1):
            start, stop = max(began, number * SLICE_SECONDS), min(now, (number + 1) * SLICE_SECONDS)
            busy[number] = busy.get(number, 0.0) + max(0.0, stop - start)
            if self._backup and letters.get(number) is None:
                letters[number] = BACKUP_MARK
