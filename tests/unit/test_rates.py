"""Bytes by slices of time, the end that they foretell, and the lanes of workers."""

from __future__ import annotations

import math

import pytest

from distsum.messages import Effort, Heartbeat, TaskFailed, TaskId, TaskStarted, TaskSucceeded, WorkerJoined
from distsum.observe.rates import BACKUP_MARK, FAILED_MARK, LANE_SLICES, SLICES, ByteRates, Lanes, Slices, estimate

TASK = TaskId("job", 1, 0, 0)


def done(size, written=0, attempt=1):
    effort = Effort(size, written, 1, 0, 0.0, 1.0, 0.0, 0.0, 0)
    return TaskSucceeded("w", TASK, 1, (), reused=False, receipt=b"", effort=effort, attempt=attempt)


def test_amounts_are_told_a_second_without_the_slice_under_way():
    slices = Slices()
    for amount, now in ((10, 0.1), (20, 0.4), (30, 0.6), (40, 1.7)):
        slices.add(amount, now)
    assert slices.per_second(1.9) == (60.0, 60.0, 0.0)
    assert slices.per_second(2.0) == (60.0, 60.0, 0.0, 80.0)


@pytest.mark.parametrize("later", [60.0, 61.0, 1e6, 1e9])
def test_only_the_last_slices_are_kept_however_long_nothing_happens(later):
    slices = Slices()
    slices.add(10, 0.1)
    slices.add(5, later)
    rates = slices.per_second(later + 0.5)
    assert len(rates) == SLICES - 1
    assert rates[-1] == 10.0
    assert sum(rates) == 10.0


def test_bytes_are_counted_once_though_heartbeats_tell_of_them_before_the_end():
    rates = ByteRates()
    rates.take(TaskStarted("w", TASK, 1, attempt=1), 0.0)
    rates.take(Heartbeat("w", TASK, 100, attempt=1), 0.2)
    rates.take(Heartbeat("w", TASK, 300, attempt=1), 0.7)
    rates.take(done(500, written=7), 1.2)
    rates.take(Heartbeat("w", TASK, 50, attempt=2), 1.7)
    rates.take(TaskFailed("w", TASK, "storage", "why", attempt=2, bytes_read=80), 1.9)
    assert [rate / 2 for rate in rates.read.per_second(2.0)] == [100, 200, 200, 80]
    assert [rate / 2 for rate in rates.written.per_second(2.0)] == [0, 0, 7, 0]


JOINED = WorkerJoined("w", "h", 7, "v", 1, baseline_bytes=0, start_seconds=0.0)
NEXT = TaskId("job", 1, 0, 26)


@pytest.mark.parametrize("end", [done(120, attempt=20), TaskFailed("w", TASK, "storage", "why", attempt=20)])
def test_bytes_are_counted_once_where_the_next_attempt_is_told_of_before_the_end_of_the_last(end):
    rates = ByteRates()
    begun = TaskStarted("w", TASK, 1, attempt=20), TaskStarted("w", NEXT, 1, attempt=26)
    for event in (JOINED, *begun, Heartbeat("w", NEXT, 300, attempt=26), end):
        rates.take(event, 0.2)
    rates.take(Heartbeat("w", NEXT, 310, attempt=26), 0.7)
    assert rates.read.per_second(1.0)[-1] / 2 == 10


def test_an_end_is_foretold_with_a_margin_that_grows_with_how_much_rates_vary():
    steady, wild = estimate(1000.0, (9.0, 11.0) * 20), estimate(1000.0, (1.0, 19.0) * 20)
    assert steady.seconds == wild.seconds == pytest.approx(100.0)
    assert 0 < steady.margin_seconds < wild.margin_seconds < 100.0
    assert not wild.is_rough
    hardly = estimate(1000.0, (0.0, 0.0, 0.0, 40.0))
    assert hardly.seconds == pytest.approx(100.0)
    assert hardly.margin_seconds > 100.0, "told as it is, and not cut to what would look well"
    assert hardly.is_rough


def test_an_end_is_not_foretold_before_that_of_what_is_under_way():
    by_rate = estimate(1000.0, (9.0, 11.0) * 20)
    assert estimate(1000.0, (9.0, 11.0) * 20, (3.0, math.inf, 99.0)) == by_rate
    late = estimate(1000.0, (9.0, 11.0) * 20, (300.0, 3.0))
    assert (late.seconds, late.margin_seconds) == pytest.approx((300.0, 200.0)), "by as much as the two ways differ"
    barely = estimate(1000.0, (9.0, 11.0) * 20, (by_rate.seconds + 0.1,))
    assert barely.margin_seconds == by_rate.margin_seconds


def test_no_end_is_foretold_where_nothing_is_read_and_what_is_under_way_tells_none():
    busy, quiet = (10.0,) * 20 + (0.0,) * 5, (10.0,) * 20 + (0.0,) * 6
    assert estimate(1.0, quiet, (3.0, math.inf)) is None
    assert estimate(1.0, busy, (3.0, math.inf)).seconds == 3.0
    assert estimate(1.0, quiet, (3.0,)).seconds == 3.0
    assert estimate(1.0, quiet).seconds < 1.0, "tasks wait for workers"


def lane(*events, now):
    lanes = Lanes()
    for seconds, event, *backup in events:
        lanes.take(event, seconds, backup=bool(backup))
    return lanes.lane("w", now)


START = TaskStarted("w", TASK, 1, attempt=1)


def test_a_lane_shows_how_much_of_each_slice_a_worker_was_busy():
    assert lane((0.25, START), (1.0, done(1)), now=1.9) == "4800"
    assert lane((0.0, START), now=0.9) == "88", "an attempt under way counts up to now"
    assert lane(now=3.0) == ""


def test_a_lane_marks_backups_and_failures():
    failed = TaskFailed("w", TASK, "storage", "why", attempt=1)
    assert lane((0.0, START, "backup"), (0.8, done(1)), now=1.4) == f"{BACKUP_MARK}{BACKUP_MARK}0"
    assert lane((0.0, START), (0.8, failed), now=1.4) == f"8{FAILED_MARK}0"
    called_back = TaskFailed("w", TASK, "cancelled", "another was sooner", attempt=1)
    assert lane((0.0, START), (1.0, called_back), now=1.4) == "880"


def test_a_lane_has_a_mark_for_each_of_the_last_slices_however_long_an_attempt_takes():
    assert lane((0.0, START), now=1e6 + 0.2) == "8" * LANE_SLICES
    assert lane((0.0, START), (999.0, done(1)), now=1e6 + 0.2) == "0" * LANE_SLICES


@pytest.mark.parametrize("end", [done(1, attempt=20), TaskFailed("w", TASK, "cancelled", "why", attempt=20)])
def test_a_lane_stays_busy_where_the_next_attempt_is_told_of_before_the_end_of_the_last(end):
    first, following = TaskStarted("w", TASK, 1, attempt=20), TaskStarted("w", NEXT, 1, attempt=26)
    assert lane((0.0, JOINED), (0.0, first), (1.0, following), (1.0, end), now=2.9) == "888888"
    beat = Heartbeat("w", NEXT, 1, attempt=26)
    assert lane((0.0, first), (1.0, beat), (1.0, end), now=2.9) == "888888", "its start got lost"
