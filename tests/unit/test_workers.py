"""The table of workers, folded from events."""

from __future__ import annotations

from typing import Any

import msgspec

from distsum.brokers.base import LEFT
from distsum.messages import (
    Effort,
    Heartbeat,
    TaskFailed,
    TaskId,
    TaskStarted,
    TaskSucceeded,
    WorkerFreed,
    WorkerJoined,
    WorkerLost,
    WorkerPaused,
    WorkerRefused,
    WorkerResumed,
)
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


def test_a_worker_is_idle_when_it_has_ended_what_nobody_waits_for_but_not_when_it_is_at_another_task() -> None:
    freed = WorkerFreed("w", TASK, 1)
    (idle,) = folded(joined("w"), TaskStarted("w", TASK, 1), freed).values()
    (busy,) = folded(joined("w"), TaskStarted("w", TaskId("j", 1, 0, 9), 1), freed).values()
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
