from __future__ import annotations

import typing

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from distsum.messages import (
    BackupDeclined,
    BackupEnded,
    BackupStarted,
    Effort,
    FailureKind,
    HelperAdded,
    HelperDeclined,
    JobFailed,
    TaskFailed,
    TaskId,
    TaskRetried,
    TaskReturned,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
    WorkerLost,
    WorkerRefused,
)
from distsum.observe.metrics import Metrics
from tests.unit.test_narrator import EVIDENCE

EFFORT = Effort(100, 50, 1, 1, 4.0, 0.25, 0.5, 0.25, 1)


def samples(metrics):
    text = generate_latest(metrics.registry).decode()
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def success(task, **changes):
    return TaskSucceeded("w", task, 1, (), **({"reused": False, "receipt": b"", "effort": EFFORT} | changes))


def test_events_are_counted():
    metrics = Metrics()
    task = TaskId("j", 1, 0, 0)
    for event in (
        TaskStarted("w", task, 1, 1),
        TaskFailed("w", task, "error", "broken", attempt=1, bytes_read=7),
        TaskRetried(task, "w", 2, "broken"),
        TaskReturned(task, 1),
        success(task),
        success(task, child=2),
        success(TaskId("j", 2, 0, 0), reused=True),
        JobFailed("k", "abandoned", "killed its workers"),
        WorkerJoined("w", "h", 1, "v", 1, 0, 1.5),
        WorkerLost("w", "left"),
        WorkerLost("v", "no heartbeat"),
        WorkerRefused("u", "h", "old"),
        BackupStarted(task, 2, "v", 1, "w", "slow_attempt", EVIDENCE),
        BackupDeclined(task, 1, "w", "slow_attempt", "cap", EVIDENCE),
        BackupEnded(task, 2, "v", "won", 1.0, 3.0, 70),
        HelperAdded(task, 2, "x", 4, 12.0, 2.0),
        HelperAdded(task, 2, "x", 3, 8.0, 2.0),
        HelperDeclined(task, 2, "x", 2, 1.2, 2.0),
    ):
        metrics.take(event)
    metrics.job_ended("failed")
    found = samples(metrics)
    expected = {
        "distsum_attempts_total": 1,
        "distsum_tasks_total error": 1,
        "distsum_tasks_total computed": 1,
        "distsum_tasks_total child": 1,
        "distsum_tasks_total reused": 1,
        "distsum_tasks_total abandoned": 1,
        "distsum_retries_total failed": 1,
        "distsum_retries_total returned": 1,
        "distsum_read_bytes_total": 307,
        "distsum_written_bytes_total": 150,
        "distsum_task_seconds_count 1": 1,
        "distsum_task_seconds_sum 1": 1.0,
        "distsum_task_seconds_count 2": 1,
        "distsum_worker_seconds_total waiting": 12.0,
        "distsum_worker_seconds_total starting": 1.5,
        "distsum_workers_gone_total left": 1,
        "distsum_workers_gone_total lost": 1,
        "distsum_workers_gone_total refused": 1,
        "distsum_backups_started_total": 1,
        "distsum_backups_ended_total won": 1,
        "distsum_backups_declined_total cap": 1,
        "distsum_helpers_total added": 2,
        "distsum_helpers_total declined": 1,
        "distsum_backup_saved_seconds_total": 3.0,
        "distsum_backup_wasted_bytes_total": 70,
        "distsum_jobs_ended_total failed": 1,
        "distsum_serving": 0,
    }
    assert {name: found.get(name) for name in expected} == expected


def test_many_jobs_workers_and_phases_make_no_more_series_than_few():
    metrics, few = Metrics(), Metrics()
    for number in range(200):
        for each in (metrics, few) if number < 20 else (metrics,):
            task = TaskId(f"job{number}", 1 + number % 30, number, number)
            each.take(success(task))
            each.take(WorkerLost(f"w{number}", f"reason {number}"))
            for kind in typing.get_args(FailureKind):
                each.take(TaskFailed(f"w{number}", task, kind, f"reason {number}"))
    assert samples(metrics).keys() == samples(few).keys()


def test_two_masters_in_one_process_count_apart():
    one, other = Metrics(), Metrics()
    one.job_ended("succeeded")
    assert samples(one)["distsum_jobs_ended_total succeeded"] == 1
    assert samples(other)["distsum_jobs_ended_total succeeded"] == 0
