from __future__ import annotations

import logging

from distsum.brokers.base import LEFT
from distsum.logs import FIELDS
from distsum.messages import (
    BackupDeclined,
    BackupEnded,
    BackupStarted,
    Effort,
    Evidence,
    Heartbeat,
    HelperAdded,
    HelperDeclined,
    JobFailed,
    JobStarted,
    NodeReopened,
    TaskFailed,
    TaskId,
    TaskRetried,
    TaskReturned,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
    WorkerLost,
    WorkerPaused,
)
from distsum.observe.narrator import Narrator

TASK = TaskId("j", 1, 0, 3)
EFFORT = Effort(1, 1, 1, 1, 0.0, 0.0, 0.0, 0.0, 1)
EVIDENCE = Evidence(
    elapsed_seconds=9.0,
    mean_seconds=1.0,
    left_seconds=None,
    copy_seconds=None,
    progress=0.1,
    slowness=None,
    silent_seconds=0.0,
    done=29,
    tasks=30,
)


def told(*events):
    narrator = Narrator()
    return [narrator.line_of(event) for event in events]


def concerns(line):
    return tuple(line.concerns[name] for name in FIELDS)


def test_what_concerns_a_task_names_job_attempt_and_worker_also_where_the_event_does_not():
    lines = told(
        TaskStarted("w", TASK, 1, 11),
        TaskReturned(TASK, 1),
        TaskStarted("v", TASK, 2, 11),
        TaskFailed("v", TASK, "error", "broken", attempt=11),
        TaskRetried(TASK, "v", 2, "broken"),
        TaskStarted("v", TASK, 1, 12),
        TaskFailed("v", TASK, "blocked", "partials are missing", attempt=12),
        NodeReopened(TASK, stored=True),
        TaskSucceeded("v", TASK, 1, (), reused=False, receipt=b"", effort=EFFORT, attempt=13),
        BackupStarted(TASK, 14, "x", 13, "v", "slow_attempt", EVIDENCE),
        HelperAdded(TASK, 14, "y", 3, 12.0, 2.0),
        HelperDeclined(TASK, 14, "y", 2, 1.2, 2.0),
        BackupEnded(TASK, 14, "x", "won", 1.0, None, 5),
        BackupDeclined(TASK, 13, "v", "slow_attempt", "cap", EVIDENCE),
    )
    assert [concerns(line) for line in lines] == [
        ("j", "1/0/3", "11", "w"),
        ("j", "1/0/3", "11", "w"),
        ("j", "1/0/3", "11", "v"),
        ("j", "1/0/3", "11", "v"),
        ("j", "1/0/3", "11", "v"),
        ("j", "1/0/3", "12", "v"),
        ("j", "1/0/3", "12", "v"),
        ("j", "1/0/3", "12", "v"),
        ("j", "1/0/3", "13", "v"),
        ("j", "1/0/3", "14", "x"),
        ("j", "1/0/3", "14", "y"),
        ("j", "1/0/3", "14", "y"),
        ("j", "1/0/3", "14", "x"),
        ("j", "1/0/3", "13", "v"),
    ]


def test_what_is_usual_is_for_those_who_debug_and_what_is_wrong_is_a_warning():
    levels = {
        type(event).__name__: line.level
        for event in (
            TaskStarted("w", TASK, 1, 1),
            TaskFailed("w", TASK, "error", "broken", attempt=1),
            JobStarted("j", "mean", 5, (1,), (0,)),
            WorkerJoined("w", "h", 1, "v", 1, 0, 0.0),
            WorkerLost("w", "gone"),
            WorkerPaused("w", "3 failures", quarantined=True),
            JobFailed("j", "error", "broken", TASK),
        )
        if (line := Narrator().line_of(event)) is not None
    }
    assert levels == {
        "TaskStarted": logging.DEBUG,
        "TaskFailed": logging.WARNING,
        "JobStarted": logging.INFO,
        "WorkerJoined": logging.INFO,
        "WorkerLost": logging.WARNING,
        "WorkerPaused": logging.WARNING,
        "JobFailed": logging.WARNING,
    }
    assert Narrator().line_of(Heartbeat("w", None, 0)) is None


def test_a_job_that_goes_on_says_how_many_of_its_tasks_are_stored_already():
    new, again = (Narrator().line_of(JobStarted("j", "mean", 2_500, (100, 4), stored)) for stored in ((0, 0), (20, 3)))
    assert new is not None
    assert again is not None
    assert new.words == "job j begins: mean of 2,500 files in 104 tasks"
    assert again.words == f"{new.words}, 23 of them stored already"


def test_nothing_is_remembered_of_a_job_that_has_ended():
    narrator = Narrator()
    narrator.line_of(TaskStarted("w", TASK, 1, 1))
    line = narrator.line_of(JobFailed("j", "error", "broken", TASK))
    assert line is not None
    assert concerns(line) == ("j", "1/0/3", "1", "w")
    assert narrator._attempts == {}


def test_what_was_meant_to_end_is_no_failure_and_no_loss():
    lines = told(
        TaskStarted("w", TASK, 1, 11),
        TaskFailed("w", TASK, "cancelled", "cancelled", attempt=11),
        JobFailed("j", "cancelled", "cancelled"),
        WorkerLost("w", LEFT),
        JobFailed("k", "storage", "S3 is away"),
        WorkerLost("v", "no heartbeat"),
    )
    assert [(line.level, line.words) for line in lines if line.level > logging.DEBUG] == [
        (logging.INFO, "the attempt at the task is called back"),
        (logging.INFO, "job j is cancelled"),
        (logging.INFO, "worker w has left"),
        (logging.WARNING, "job k failed: storage: S3 is away"),
        (logging.WARNING, "worker v is lost: no heartbeat"),
    ]
