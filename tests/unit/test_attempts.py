"""Which attempts there were at a task, why each was begun, and how it ended."""

from __future__ import annotations

import math
import tracemalloc

import msgspec
import pytest

from distsum.messages import (
    BackupStarted,
    Effort,
    Heartbeat,
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
from distsum.observe.attempts import AttemptTable
from distsum.observe.snapshot import PhaseWork
from tests.property.test_history import EVIDENCE

EFFORT = Effort(1000, 10, 7, 2, 0.1, 0.2, 0.3, 0.4, 5)
TASK, OTHER = TaskId("job", 1, 0, 1), TaskId("job", 1, 0, 2)
STARTED = JobStarted("job", "mean", 20, (4, 1), (0, 0))
ENDED = JobSucceeded("job", 20, (), ())


def started(worker="w1", task=TASK, attempt=1, delivery=1, child=None):
    return TaskStarted(worker, task, delivery, attempt, child)


def succeeded(worker="w1", task=TASK, attempt=1, *, reused=False, child=None):
    return TaskSucceeded(worker, task, 1, (), reused, b"", EFFORT, attempt, child)


def failed(kind, worker="w1", task=TASK, attempt=1, bytes_read=0):
    return TaskFailed(worker, task, kind, "why", attempt=attempt, bytes_read=bytes_read)


def backup(worker="w2", attempt=2, helpers=()):
    return BackupStarted(TASK, attempt, worker, 1, "w1", "slow_attempt", EVIDENCE, helpers)


def fold(*events):
    """Fold events of which each happened a second after the one before it."""
    table = AttemptTable((PhaseWork(4, 20, 400), PhaseWork(1, 4, 80)))
    for now, event in enumerate([STARTED, *events]):
        table.take(event, float(now))
    return table


def told(table, task=TASK):
    """Return what matters most of each attempt at a task."""
    return [(each.worker, each.why, each.began_seconds, each.ended_seconds, each.end) for each in table.attempts(task)]


def test_a_usual_attempt_is_told_with_what_it_did():
    (attempt,) = fold(started(), Heartbeat("w1", TASK, 7, attempt=1), succeeded(reused=True)).attempts(TASK)
    assert (attempt.task, attempt.number, attempt.worker, attempt.why) == (TASK, 1, "w1", "first")
    assert (attempt.began_seconds, attempt.ended_seconds, attempt.end) == (1.0, 3.0, "done")
    assert (attempt.bytes_read, attempt.objects_read, attempt.objects_stored, attempt.reused) == (1000, 7, 2, True)


def test_one_that_runs_tells_how_far_it_is():
    table = fold(started(), Heartbeat("w1", TASK, 70, attempt=1))
    assert told(table) == [("w1", "first", 1.0, None, "running")]
    assert table.attempts(TASK)[0].bytes_read == 70
    assert told(table, OTHER) == []
    assert list(table.unusual()) == []


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (
            [failed("storage", bytes_read=5), started("w2", attempt=2), succeeded("w2", attempt=2)],
            [("w1", "first", 1.0, 2.0, "failed"), ("w2", "retry", 3.0, 4.0, "done")],
        ),
        (
            [WorkerLost("w1", "gone"), started("w2", delivery=2), succeeded("w2")],
            [("w1", "first", 1.0, 2.0, "lost"), ("w2", "retry", 3.0, 4.0, "done")],
        ),
        (
            [
                started("w2", delivery=2),
                succeeded("w2"),
                WorkerLost("w1", "gone"),
            ],  # the broker knew before it was told
            [("w1", "first", 1.0, 2.0, "lost"), ("w2", "retry", 2.0, 3.0, "done")],
        ),
        (
            [backup(), started("w2", attempt=2), succeeded("w2", attempt=2)],
            [("w1", "first", 1.0, 4.0, "cancelled"), ("w2", "backup", 3.0, 4.0, "done")],
        ),
        (
            [backup(), started("w2", attempt=2), succeeded("w1")],
            [("w1", "first", 1.0, 4.0, "done"), ("w2", "backup", 3.0, 4.0, "cancelled")],
        ),
        (
            [started("w3", attempt=3, child=4), succeeded("w3", attempt=3, child=4), succeeded("w1")],
            [("w1", "first", 1.0, 4.0, "done"), ("w3", "share", 2.0, 3.0, "done")],
        ),
        (
            [succeeded(), NodeReopened(TASK, stored=True), started("w2", attempt=2), succeeded("w2", attempt=2)],
            [("w1", "first", 1.0, 2.0, "done"), ("w2", "again", 4.0, 5.0, "done")],
        ),
        (
            [started("w1", OTHER, 2), started("w2", attempt=3)],  # the worker has handed the first back
            [("w1", "first", 1.0, 2.0, "cancelled"), ("w2", "retry", 3.0, 4.0, "cancelled")],
        ),
        (
            [Heartbeat("w1", None, 0)],
            [("w1", "first", 1.0, 2.0, "cancelled")],
        ),
        (
            [started("w1", delivery=2)],  # it was cut off, and got the task again
            [("w1", "first", 1.0, 2.0, "lost"), ("w1", "retry", 2.0, 3.0, "cancelled")],
        ),
    ],
)
def test_each_attempt_at_an_unusual_task_is_told_with_its_reason_and_its_end(events, expected):
    table = fold(started(), *events, ENDED)
    assert told(table) == expected
    assert next(task for task, _ in table.unusual()) == TASK


def test_a_failure_is_told_with_its_kind_and_what_was_read_for_nothing():
    (attempt,) = fold(started(), failed("bad_input", bytes_read=12)).attempts(TASK)
    assert (attempt.end, attempt.failure, attempt.bytes_read) == ("failed", "bad_input", 12)


def test_a_result_that_is_told_after_what_its_worker_did_next_is_no_unusual_thing():
    table = fold(started(), started("w1", OTHER, 2), succeeded(), succeeded("w1", OTHER, 2), ENDED)
    assert told(table) == [("w1", "first", 1.0, 3.0, "done")]
    assert list(table.unusual()) == []


def test_an_attempt_whose_beginning_was_lost_on_the_way_is_told_all_the_same():
    table = fold(succeeded(), Heartbeat("w2", OTHER, 9, attempt=2))
    assert told(table) == [("w1", "first", None, 1.0, "done")]
    assert told(table, OTHER) == [("w2", "first", 2.0, None, "running")]
    assert [each.task for each in table.time_line("w1", 0.5, 1.5)] == [TASK]
    assert table.time_line("w1", 1.5) == []


def test_a_heartbeat_of_a_helper_or_of_one_called_back_begins_no_attempt():
    helped = fold(started(), backup(helpers=("w3",)), Heartbeat("w3", TASK, 9, attempt=3))
    assert told(helped) == [("w1", "first", 1.0, None, "running")]
    done = fold(started(), succeeded(), Heartbeat("w2", TASK, 9, attempt=2))
    assert told(done) == [("w1", "first", 1.0, 2.0, "done")]


def test_what_an_earlier_run_did_and_what_the_plan_lacks_is_passed_over():
    table = AttemptTable((PhaseWork(4, 20, 400), PhaseWork(1, 4, 80)))
    table.take(started(), 0.0)
    table.take(STARTED, 1.0)
    for task in (TaskId("job", 0, 0, 0), TaskId("job", 3, 0, 0), TaskId("job", 1, 0, 4), TaskId("job", 1, 1, 0)):
        table.take(started(task=task), 2.0)
        assert table.attempts(task) == ()
    assert table.workers == ()
    assert table.attempts(TASK) == ()


def test_numbers_of_another_master_are_kept_apart():
    far = 1_700_000_000_000_000_000
    table = fold(
        started(attempt=far), succeeded(attempt=far), started("w2", OTHER, 1), succeeded("w2", OTHER, 1), ENDED
    )
    assert [each.number for each in table.attempts(TASK)] == [far]
    assert [(each.number, each.end) for each in table.attempts(OTHER)] == [(1, "done")]


def test_a_failed_job_calls_back_what_runs():
    assert told(fold(started(), JobFailed("job", "error", "why"))) == [("w1", "first", 1.0, 2.0, "cancelled")]


def test_a_million_usual_tasks_take_some_40_bytes_each():
    work = (PhaseWork(1_000_000, 5_000_000, 0), PhaseWork(1, 1_000_000, 0))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        table = AttemptTable(work)
        table.take(STARTED, 0.0)
        for index in range(0, 1_000_000, 50):
            task = TaskId("job", 1, 0, index)
            table.take(started(f"w{index % 40}", task, index + 1), index / 1e4)
            table.take(succeeded(f"w{index % 40}", task, index + 1), index / 1e4 + 3)
        each = (tracemalloc.get_traced_memory()[0] - before) / 1_000_000
    finally:
        tracemalloc.stop()
    assert each < 40
    assert list(table.unusual()) == []
    assert len(table.spans().worker) == 20_000


def left_seconds(*events, now, copied=False):
    table = AttemptTable((PhaseWork(4, 20, 0), PhaseWork(1, 4, 0)))
    table.take(STARTED, 0.0)
    for seconds, event in events:
        table.take(event, seconds)
    return table.left_seconds(now, copied=copied)


def beat(progress, worker="w1", task=TASK, attempt=1):
    return Heartbeat(worker, task, 100, attempt=attempt, progress=progress)


def test_what_is_left_of_a_task_is_told_by_how_far_it_has_come():
    begun = (1.0, started()), (5.0, beat(0.5)), (17.0, beat(0.8))
    assert left_seconds(*begun, now=17.0) == pytest.approx((4.0,))
    assert left_seconds(*begun, now=19.0) == pytest.approx((2.0,)), "it goes on between two heartbeats"
    assert left_seconds(*begun, now=22.0) == (0.0,)
    assert left_seconds(*begun, (20.0, succeeded()), now=20.0) == ()
    assert left_seconds(*begun, (18.0, started("w2", OTHER, 2)), now=18.0) == pytest.approx((3.0, math.inf))


@pytest.mark.parametrize(
    "events",
    [
        [],
        [(9.0, beat(0.0))],
        [(2.9, beat(0.5))],
        [(9.0, beat(1.0))],
        [(3.9, beat(0.5))],
        [(1.0, backup(helpers=("w3",))), (9.0, beat(0.5))],
    ],
    ids=["unheard", "nothing done", "too early", "storing", "silent", "helped"],
)
def test_where_no_progress_tells_what_is_left_it_may_be_any_time(events):
    assert left_seconds((1.0, started()), *events, now=10.0) == (math.inf,)


def test_of_several_attempts_at_a_task_the_first_to_be_done_counts():
    racing = (1.0, started()), (4.0, backup()), (5.0, started("w2", TASK, 2))
    slow, fast = beat(0.25), beat(0.75, "w2", TASK, 2)
    assert left_seconds(*racing, (9.0, slow), now=9.0) == pytest.approx((24.0,)), "as far as known"
    both = *racing, (9.0, fast), (9.0, slow)
    assert left_seconds(*both, now=9.0) == pytest.approx((4.0 / 3,))
    assert left_seconds(*both, (9.0, WorkerLost("w2", "killed")), now=9.0) == pytest.approx((24.0,))


def test_where_stragglers_are_copied_a_task_takes_no_longer_than_is_usual_in_its_phase():
    slow = (1.0, started()), (5.0, beat(0.1))
    assert left_seconds(*slow, now=5.0, copied=True) == pytest.approx((36.0,)), "what is usual is not known yet"
    looked = msgspec.structs.replace(EFFORT, reading_seconds=0.0)
    stored = msgspec.structs.replace(succeeded("w3", OTHER, 2, reused=True), effort=looked)
    usual = [(6.0, succeeded("w2", TaskId("job", 1, 0, 3), 3)), (6.0, stored)]
    other_phase = (6.0, succeeded("w3", TaskId("job", 2, 0, 0), 4))
    assert left_seconds(*slow, other_phase, now=6.0, copied=True) == pytest.approx((35.0,))
    assert left_seconds(*slow, *usual, now=6.0) == pytest.approx((35.0,))
    assert left_seconds(*slow, *usual, now=6.0, copied=True) == pytest.approx((EFFORT.busy_seconds,))
    assert left_seconds((1.0, started()), *usual, now=6.0, copied=True) == (math.inf,)
