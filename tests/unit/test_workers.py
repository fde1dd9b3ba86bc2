"""The table of workers, folded from events."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from distsum.brokers.base import LEFT
from distsum.messages import (
    BackupDeclined,
    Effort,
    Evidence,
    Heartbeat,
    JobFailed,
    JobStarted,
    TaskFailed,
    TaskId,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
    WorkerFreed,
    WorkerJoined,
    WorkerLost,
    WorkerPaused,
    WorkerRefused,
    WorkerResumed,
)
from distsum.observe.fold import JobTally
from distsum.observe.snapshot import PhaseWork
from distsum.observe.view import JobFold
from distsum.observe.workers import WorkerStatus, WorkerTable

TASK = TaskId("job", 1, 0, 0)


def joined(name: str) -> WorkerJoined:
    return WorkerJoined(name, f"host-of-{name}", 7, "v", 1, baseline_bytes=50, start_seconds=0.0)


def succeeded(name: str, size: int, seconds: float, peak: int = 0) -> TaskSucceeded:
    effort = Effort(size, 0, 1, 0, 5.0, seconds, 0.0, 0.0, peak)
    return TaskSucceeded(name, TASK, 1, (), reused=False, receipt=b"", effort=effort)


def folded(*events: Any) -> dict[str, WorkerStatus]:
    table = WorkerTable()
    for second, event in enumerate(events):
        table.take(event, float(second))
    return {status.worker: status for status in table.statuses()}


def test_a_worker_is_busy_while_it_has_a_task_and_its_bytes_grow() -> None:
    (busy,) = folded(joined("w"), TaskStarted("w", TASK, 1), Heartbeat("w", TASK, 300, 80)).values()
    assert (busy.state, busy.task, busy.bytes_read, busy.resident_bytes) == ("busy", TASK, 300, 80)
    assert (busy.host, busy.pid, busy.joined_seconds, busy.heard_seconds) == ("host-of-w", 7, 0.0, 2.0)


def test_what_part_of_its_time_a_worker_waits_for_bytes_is_told_with_its_version() -> None:
    effort = Effort(100, 0, 1, 0, waiting_seconds=9.0, reading_seconds=3.0, adding_seconds=0.5, storing_seconds=0.5,
                    peak_bytes=1)  # fmt: skip
    done = TaskSucceeded("w", TASK, 1, (), reused=False, receipt=b"", effort=effort)
    (status,) = folded(joined("w"), done).values()
    assert (status.reading_share, status.version) == (0.75, "v")


def test_rates_and_counts_come_from_what_is_done() -> None:
    (idle,) = folded(
        joined("w"),
        TaskStarted("w", TASK, 1),
        Heartbeat("w", TASK, 300, 80),
        succeeded("w", 1000, 2.0, peak=9),
        succeeded("w", 3000, 2.0, peak=5),
        TaskFailed("w", TASK, "error", "no"),
        TaskFailed("w", TASK, "cancelled", "not wanted"),
    ).values()
    assert (idle.state, idle.tasks, idle.failures, idle.bytes_read) == ("idle", 2, 1, 4000)
    assert (idle.bytes_per_second, idle.peak_bytes) == (1000.0, 9)


def test_what_keeps_a_worker_from_working_is_told_with_its_reason() -> None:
    found = folded(
        *(joined(name) for name in "abcdf"),
        WorkerPaused("a", "asked for", quarantined=False),
        WorkerPaused("b", "3 failures", quarantined=True),
        WorkerPaused("c", "asked for", quarantined=False),
        WorkerResumed("c"),
        WorkerLost("d", "no heartbeat"),
        WorkerRefused("e", "far", "version 0"),
        WorkerLost("e", "left because it was refused"),
        WorkerLost("unknown", "never seen"),
        WorkerLost("f", LEFT),
    )
    assert {name: (status.state, status.reason) for name, status in found.items()} == {
        "a": ("paused", "asked for"),
        "b": ("quarantined", "3 failures"),
        "c": ("idle", None),
        "d": ("lost", "no heartbeat"),
        "e": ("refused", "version 0"),
        "f": ("left", None),
    }


@pytest.mark.parametrize(
    "end",
    [
        msgspec.structs.replace(succeeded("w", 100, 1.0), task=TaskId("job", 1, 0, 20), attempt=20),
        TaskFailed("w", TaskId("job", 1, 0, 20), "storage", "why", attempt=20),
        WorkerFreed("w", TaskId("job", 1, 0, 20), 20),
        WorkerFreed("w", TaskId("job", 1, 0, 26), 20),
    ],
)
def test_a_worker_stays_busy_where_its_next_task_is_told_of_before_the_end_of_the_last(end: Any) -> None:
    last, following = TaskId("job", 1, 0, 20), TaskId("job", 1, 0, 26)
    starts = TaskStarted("w", last, 1, attempt=20), TaskStarted("w", following, 1, attempt=26)
    (busy,) = folded(joined("w"), *starts, end).values()
    assert (busy.state, busy.task) == ("busy", following)
    beat = Heartbeat("w", following, 300, attempt=26)
    (reading,) = folded(joined("w"), *starts, beat, end).values()
    assert reading.bytes_read == 300 + (100 if isinstance(end, TaskSucceeded) else 0)


def test_a_worker_is_idle_when_it_has_ended_what_nobody_waits_for_but_not_when_it_is_at_another_task() -> None:
    freed = WorkerFreed("w", TASK, 1)
    (idle,) = folded(joined("w"), TaskStarted("w", TASK, 1, 1), freed).values()
    (busy,) = folded(joined("w"), TaskStarted("w", TaskId("j", 1, 0, 9), 1, 1), freed).values()
    assert (idle.state, busy.state) == ("idle", "busy")


def test_only_the_last_of_those_that_are_gone_are_kept() -> None:
    table = WorkerTable()
    for number in range(60):
        table.take(joined(f"w{number:02}"), 0.0)
        table.take(WorkerLost(f"w{number:02}", "ended"), 0.0)
    table.take(joined("w59"), 1.0)
    names = [status.worker for status in table.statuses()]
    assert names == [f"w{number:02}" for number in range(10, 60)]
    assert {status.worker: status.state for status in table.statuses()}["w59"] == "idle"


def test_a_status_survives_the_way_to_a_client() -> None:
    (status,) = folded(joined("w")).values()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(status), type=WorkerStatus) == status


def test_what_is_decided_about_a_worker_is_no_word_from_it() -> None:
    evidence = Evidence(
        elapsed_seconds=7.0, mean_seconds=None, left_seconds=None, copy_seconds=None, progress=0.0, slowness=None,
        silent_seconds=7.0, done=0, tasks=1,
    )  # fmt: skip
    told = BackupDeclined(TASK, 1, "w", "silent", "no_idle_worker", evidence)
    (status,) = folded(joined("w"), TaskStarted("w", TASK, 1), told, TaskRetried(TASK, 1, "w", "lost")).values()
    assert status.heard_seconds == 1.0


def test_what_is_found_stored_says_nothing_of_how_fast_a_worker_is() -> None:
    stored = msgspec.structs.replace(succeeded("w", 80_000, 0.0001), reused=True)
    (status,) = folded(joined("w"), stored).values()
    assert (status.tasks, status.bytes_read, status.bytes_per_second) == (1, 80_000, 0.0)
    (status,) = folded(joined("w"), stored, succeeded("w", 600, 1.0)).values()
    (alone,) = folded(joined("w"), succeeded("w", 600, 1.0)).values()
    assert status.bytes_per_second == alone.bytes_per_second > 0.0


WORK = (PhaseWork(500, 2500, 2_500_000), PhaseWork(100, 500, 500_000))


def fold(*events: Any, gaps: bool = False) -> JobFold:
    """Return a fold of a job of which an earlier run has stored much, told of its start and of events."""
    made = JobFold(JobTally(WORK, str), WORK, "/o", 0.0, gaps=gaps)
    begin = JobStarted("job", "mean", 2500, (150, 30), (50, 0))
    for second, event in enumerate([begin, joined("w"), *events]):
        made.take(event, float(second))
    return made


def test_a_worker_that_is_silent_at_a_task_of_the_job_says_for_how_long_also_when_that_has_ended() -> None:
    begun = TaskStarted("w", TASK, 1)
    assert [each.silent_seconds for each in fold(begun).view(8.0).workers] == [0]
    assert [each.silent_seconds for each in fold(begun).view(9.5).workers] == [7]
    beats = Heartbeat("w", TASK, 300, 80)
    assert [each.silent_seconds for each in fold(begun, beats).view(8.5).workers] == [0]
    ended = fold(begun)
    ended.take(JobFailed("job", "bad_input", "cut short"), 30.0)
    assert [each.silent_seconds for each in ended.view(999.0).workers] == [28]


def test_that_a_worker_is_lost_is_told_once_with_the_first_reason_until_it_joins_again() -> None:
    lost = WorkerLost("w", "no heartbeat for 24 s"), WorkerLost("w", "is gone from the broker")
    words = [line.words for line in fold(*lost).view(9.0).log if "lost" in line.words]
    assert words == ["worker w is lost: no heartbeat for 24 s"]
    words = [line.words for line in fold(*lost, joined("w"), lost[0]).view(9.0).log if "lost" in line.words]
    assert len(words) == 2


def test_no_silence_is_told_of_who_is_not_heard_by_the_job_or_where_events_are_missing() -> None:
    begun = TaskStarted("w", TASK, 1)
    assert [each.silent_seconds for each in fold().view(99.0).workers] == [0], "it idles"
    elsewhere = Heartbeat("w", TaskId("other", 1, 0, 0), 300, 80)
    assert [each.silent_seconds for each in fold(begun, elsewhere).view(99.0).workers] == [0]
    assert [each.silent_seconds for each in fold(begun, gaps=True).view(99.0).workers] == [0]


def test_what_an_earlier_run_has_stored_is_known_of_each_phase() -> None:
    first, second = fold().view(2.0).snapshot.phases
    assert (first.unneeded, first.reused, first.bytes_total, first.bytes_before) == (350, 50, 500_000, 2_000_000)
    assert (second.unneeded, second.bytes_total, second.bytes_before) == (70, 150_000, 350_000)
