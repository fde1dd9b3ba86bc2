"""What a screen tells where most is found stored, others helped, or workers are too slow to finish anything."""

from __future__ import annotations

import pytest

from distsum.messages import (
    BackupStarted,
    Effort,
    Heartbeat,
    JobStarted,
    TaskFailed,
    TaskId,
    TaskReturned,
    TaskStarted,
    TaskSucceeded,
    WorkerFreed,
    WorkerJoined,
)
from distsum.observe.fold import JobTally
from distsum.observe.snapshot import PhaseWork
from distsum.observe.states import BACKUP
from distsum.observe.view import JobFold
from tests.property.test_history import EVIDENCE

SIZE = 1_000_000


def folded(tasks):
    work = (PhaseWork(tasks, tasks, tasks * SIZE),)
    fold = JobFold(JobTally(work, str), work, "/o", 0.0)
    for name in ("fast", "slow"):
        fold.take(WorkerJoined(name, "host", 7, "1", 1, 0, 0.0), 0.0)
    fold.take(JobStarted("job", "mean", tasks, (tasks,), (0,)), 0.0)
    return fold


def done(place, size, seconds, *, reused=False):
    effort = Effort(size, 0, 1, 0, 0.0, seconds, 0.0, 0.0, 0)
    return TaskSucceeded("fast", TaskId("job", 1, 0, place), 1, (), reused=reused, receipt=b"", effort=effort)


def slow_rate(fold, now):
    (slow,) = (each.status for each in fold.view(now).workers if each.status.worker == "slow")
    assert slow.bytes_read > 0
    return slow.bytes_per_second


def slowed():
    fold = folded(20)
    task = TaskId("job", 1, 0, 0)
    fold.take(TaskStarted("slow", task, 1), 0.0)
    for second in range(1, 17):
        fold.take(TaskStarted("fast", TaskId("job", 1, 0, second), 1), second - 1.0)
        fold.take(done(second, SIZE, 1.0), float(second))
        fold.take(Heartbeat("slow", task, second * SIZE // 20, 1, 0, second / 20), float(second))
    return fold, task


def test_a_worker_that_has_not_finished_anything_has_a_rate_by_its_progress():
    fold, _ = slowed()
    assert 0 < slow_rate(fold, 16.0) < SIZE / 10


def test_a_worker_whose_attempts_were_all_given_up_for_a_copy_has_a_rate():
    fold, task = slowed()
    fold.take(WorkerFreed("slow", task, 0), 16.5)  # as the tracker tells of one that was called back
    (slow,) = (each.status for each in fold.view(17.0).workers if each.status.worker == "slow")
    assert 0 < slow.bytes_per_second < SIZE / 10


def test_a_job_of_which_most_is_found_stored_is_not_said_to_take_as_long_as_if_nothing_were():
    fold = folded(1000)
    for place in range(900):
        now = 0.01 * place
        fold.take(TaskStarted("fast", TaskId("job", 1, 0, place), 1), now)
        fold.take(done(place, SIZE if place % 90 == 0 else 0, 0.01, reused=place % 90 != 0), now + 0.005)
    (phase,) = fold.view(9.0).snapshot.phases
    assert (phase.bytes_done, phase.bytes_left, phase.bytes_read) == (10 * SIZE, 100 * SIZE, 10 * SIZE)
    told = fold.view(9.0).estimate
    assert told.seconds == pytest.approx(1.0, rel=0.2), "a hundred tasks, of which a hundredth of a second each"


def test_all_of_a_task_is_done_though_helpers_have_read_a_part_of_it_and_what_failed_has_to_be_read_again():
    fold = folded(4)
    helped, failed = TaskId("job", 1, 0, 0), TaskId("job", 1, 0, 1)
    for task in (helped, failed):
        fold.take(TaskStarted("fast", task, 1), 0.0)
    fold.take(done(0, SIZE // 4, 1.0), 1.0)
    fold.take(Heartbeat("fast", failed, SIZE // 2, 1, 0, 0.5), 1.0)
    (phase,) = fold.view(1.0).snapshot.phases
    assert (phase.bytes_done, phase.bytes_read) == (SIZE + SIZE // 2, SIZE // 4 + SIZE // 2)
    fold.take(TaskFailed("fast", failed, "storage", "lost its disk", attempt=0, bytes_read=SIZE // 2), 1.5)
    assert fold.view(2.0).snapshot.phases[0].bytes_done == SIZE


def test_what_a_copy_has_read_stays_when_the_task_comes_back_from_a_worker_that_froze():
    fold = folded(4)
    task = TaskId("job", 1, 0, 0)
    fold.take(TaskStarted("slow", task, 1), 0.0)
    fold.take(BackupStarted(task, 9, "fast", 0, "slow", "silent", EVIDENCE), 7.0)
    fold.take(TaskStarted("fast", task, 1, 9), 7.1)
    fold.take(Heartbeat("fast", task, SIZE // 2, attempt=9, progress=0.5), 8.0)
    fold.take(TaskReturned(task, 1), 9.0)
    (phase,) = fold.view(9.0).snapshot.phases
    assert (phase.running, phase.bytes_done) == (1, SIZE // 2)
    assert fold.view(9.0).states[0].counts()[BACKUP] == 1
