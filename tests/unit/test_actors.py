"""The actors, one message at a time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from distsum.actors.actor import BROKER, CLIENT, MASTER, TRACKER, WORKERS
from distsum.actors.master import MasterSettings
from distsum.actors.phase import STORED, UNNEEDED, WAITING
from distsum.actors.task_tracker import TrackerSettings
from distsum.messages import (
    PROTOCOL,
    CancelJob,
    CancelTask,
    ChangePriority,
    DismissWorker,
    Heartbeat,
    Introduce,
    JobFailed,
    JobQueued,
    JobStarted,
    JobSucceeded,
    KillWorker,
    PauseWorker,
    ResumeWorker,
    RunTask,
    Shutdown,
    SubmitJob,
    TaskDeadLettered,
    TaskFailed,
    TaskId,
    TaskRetried,
    TaskStarted,
    WorkerFreed,
    WorkerLost,
    WorkerPaused,
    WorkerRefused,
    WorkersCannotStart,
)
from tests.stepping import SteppingSystem, joined, nothing_stored, published, spec, succeeded, system_with, told


def test_the_queue_at_the_broker_is_kept_short() -> None:
    system = system_with(spec(1000, exponent=1), workers=3)
    assert len(published(system)) == 6
    system.tell(TRACKER, succeeded(TaskId("job", 1, 0, 0)))
    assert published(system) == [TaskId("job", 1, 0, 6)]


def test_one_task_waits_for_the_first_worker() -> None:
    system = SteppingSystem()
    job = spec(1000)
    system.tell(MASTER, SubmitJob(job, nothing_stored(job)))
    assert published(system) == []
    system.tell(TRACKER, joined())
    assert published(system) == [TaskId("job", 1, 0, 0), TaskId("job", 1, 0, 1)]


def test_a_task_is_ready_when_its_own_children_are_stored_and_comes_before_lower_phases() -> None:
    system = system_with(spec(50), workers=1)
    seen = published(system)
    for index in range(6):
        system.tell(TRACKER, succeeded(TaskId("job", 1, 0, index)))
        seen += published(system)
    assert TaskId("job", 2, 0, 0) in seen
    assert TaskId("job", 1, 0, 9) not in seen


def test_the_job_ends_with_the_last_phase_and_a_receipt_from_each_tile() -> None:
    job = spec(5, tiles=3)
    system = system_with(job, workers=4)
    tasks = published(system)
    assert tasks == [TaskId("job", 1, tile, 0) for tile in range(3)]
    for task in reversed(tasks):
        assert system.take(CLIENT) == []
        system.tell(TRACKER, succeeded(task, inputs=5, receipt=b"r%d" % task.tile))
    assert system.take(CLIENT) == [JobSucceeded("job", 5, (), (b"r0", b"r1", b"r2"))]


def test_a_second_success_changes_nothing() -> None:
    system = system_with(spec(25), workers=4)
    first = TaskId("job", 1, 0, 0)
    system.tell(TRACKER, succeeded(first))
    published(system)
    events = len(system.events)
    system.tell(TRACKER, succeeded(first, worker="w2"))
    assert published(system) == []
    assert system.events[events:] == [WorkerFreed("w2", first, 1)]


def test_a_node_with_one_child_is_no_task() -> None:
    # Phase 2 of 26 files has the nodes 0-4 and 5 alone; the second passes through to phase 3.
    system = system_with(spec(26), workers=10)
    started = next(event for event in system.events if isinstance(event, JobStarted))
    assert started.tasks == (6, 1, 1)
    tasks = published(system)
    assert len(tasks) == 6
    for task in tasks:
        system.tell(TRACKER, succeeded(task))
    assert published(system) == [TaskId("job", 2, 0, 0)]
    system.tell(TRACKER, succeeded(TaskId("job", 2, 0, 0)))
    assert published(system) == [TaskId("job", 3, 0, 0)]


def test_stored_nodes_and_what_is_below_them_are_not_made_again() -> None:
    states = (bytes([UNNEEDED] * 5 + [STORED] + [WAITING] * 4), bytes([STORED, WAITING]), bytes([WAITING]))
    system = system_with(spec(50), workers=20, states=states)
    assert published(system) == [TaskId("job", 1, 0, index) for index in (6, 7, 8, 9)]


def test_a_blocked_task_waits_until_its_lost_children_are_made_again() -> None:
    system = system_with(spec(25), workers=10)
    tasks = published(system)
    for task in tasks:
        system.tell(TRACKER, succeeded(task))
    top = TaskId("job", 2, 0, 0)
    assert published(system) == [top]
    system.tell(TRACKER, TaskFailed("w1", top, "blocked", "damaged", missing=(1, 3)))
    again = published(system)
    assert again == [TaskId("job", 1, 0, 1), TaskId("job", 1, 0, 3)]
    system.tell(TRACKER, succeeded(again[0]))
    assert published(system) == []
    system.tell(TRACKER, succeeded(again[1]))
    assert published(system) == [top]


def test_a_lost_node_whose_own_children_were_never_made_has_them_made() -> None:
    states = (bytes([UNNEEDED] * 25 + [STORED] * 5), bytes([STORED] * 5 + [WAITING]), bytes([WAITING] * 2), bytes(1))
    job = spec(150)
    system = system_with(job, workers=20, states=states)
    ready = published(system)
    assert TaskId("job", 3, 0, 0) in ready
    system.tell(TRACKER, TaskFailed("w1", TaskId("job", 3, 0, 0), "blocked", "gone", missing=(2,)))
    assert published(system) == [TaskId("job", 1, 0, index) for index in range(10, 15)]


def test_a_failure_that_may_pass_is_tried_again_and_in_the_end_given_up() -> None:
    system = system_with(spec(25))
    order = next(message for message in system.take(BROKER) if isinstance(message, RunTask))
    task = order.task
    assert not order.resume, "nothing of it can be stored"
    for attempt in range(2, 5):
        system.tell(TRACKER, TaskFailed("w1", task, "error", "OSError: flaky"))
        (again,) = [message for message in system.take(BROKER) if isinstance(message, RunTask)]
        assert (again.task, again.resume) == (task, True), "it starts from what was stored"
        assert any(isinstance(event, TaskRetried) and event.attempt == attempt for event in system.events)
    system.tell(TRACKER, TaskFailed("w1", task, "error", "OSError: flaky"))
    assert system.take(CLIENT) == [JobFailed("job", "error", "OSError: flaky", task)]


@pytest.mark.parametrize("kind", ["bad_input", "input_changed", "inexact", "storage"])
def test_a_failure_that_cannot_pass_fails_the_job_at_once(kind: Any) -> None:
    system = system_with(spec(25))
    task = published(system)[0]
    system.tell(TRACKER, TaskFailed("w1", task, kind, "because", index=3))
    assert system.take(CLIENT) == [JobFailed("job", kind, "because", task, 3)]
    assert any(isinstance(message, CancelJob) for message in system.take(BROKER))
    system.tell(TRACKER, succeeded(task))
    assert system.take(CLIENT) == []


def test_a_dead_lettered_task_fails_the_job_by_name() -> None:
    system = system_with(spec(25), workers=4)
    task = published(system)[0]
    system.tell(TRACKER, TaskDeadLettered(task, 4))  # its workers ended so soon that nothing was heard of it
    (failure,) = system.take(CLIENT)
    assert (failure.kind, failure.task) == ("abandoned", task)
    assert "4 deliveries" in failure.reason


def test_a_task_that_freezes_its_workers_is_given_up_though_they_vanished() -> None:
    system = system_with(spec(25), workers=5)
    task = published(system)[0]
    for number in range(1, 5):
        system.tell(TRACKER, TaskStarted(f"w{number}", task, number, attempt=1))
        system.advance(10.0)
        if number < 4:  # of the last it is told after the task
            system.tell(TRACKER, WorkerLost(f"w{number}", "fell silent"))
    system.tell(TRACKER, TaskDeadLettered(task, 4))
    (failure,) = system.take(CLIENT)
    assert (failure.kind, failure.task) == ("abandoned", task)


def test_a_task_that_was_handed_from_one_cut_off_worker_to_the_next_is_not_given_up() -> None:
    system = system_with(spec(25), workers=5)
    task = published(system)[0]
    system.tell(TRACKER, TaskStarted("w1", task, 1, attempt=1))
    system.advance(10.0)
    system.tell(TRACKER, WorkerLost("w1", "fell silent"))  # the others have not been missed yet
    for again in range(2, 5):
        system.tell(TRACKER, TaskDeadLettered(task, 4))
        assert published(system) == [task]
        assert system.take(CLIENT) == []
        (told,) = (event for event in system.events if isinstance(event, TaskRetried) and event.attempt == again)
        assert "had lost the broker by then" in told.reason
    system.tell(TRACKER, TaskDeadLettered(task, 4))
    (failure,) = system.take(CLIENT)
    assert failure.kind == "abandoned", "not without end"


def test_workers_that_cannot_start_fail_every_job() -> None:
    system = system_with(spec(25))
    system.tell(MASTER, WorkersCannotStart("no numpy"))
    assert system.take(CLIENT) == [JobFailed("job", "error", "no numpy")]


def test_a_silent_worker_is_ended_and_one_that_beats_is_not() -> None:
    system = system_with(spec(25), workers=2)
    for _ in range(10):
        system.advance(4.0)
        system.tell(TRACKER, Heartbeat("w1", None, 0))
    killed = [message for message in system.take(WORKERS) if isinstance(message, KillWorker)]
    assert {message.worker for message in killed} == {"w2"}
    assert "no heartbeat for 2" in killed[0].reason


def test_a_lost_worker_makes_the_queue_shorter() -> None:
    system = system_with(spec(1000), workers=3)
    assert len(published(system)) == 6
    system.tell(TRACKER, WorkerLost("w3", "ended"))
    system.tell(TRACKER, succeeded(TaskId("job", 1, 0, 0)))
    assert published(system) == []


def test_a_higher_priority_goes_first_and_equals_share() -> None:
    system = SteppingSystem(TrackerSettings(tasks_queued_per_worker=0))
    for job, priority in (("a", 0), ("b", 0), ("c", 1)):
        described = spec(20, job=job)
        system.tell(MASTER, SubmitJob(described, nothing_stored(described), priority))
    for number in range(4):
        system.tell(TRACKER, joined(f"w{number}"))
    assert [task.job for task in published(system)] == ["c"] * 4
    for index in range(4):
        system.tell(TRACKER, succeeded(TaskId("c", 1, 0, index)))
    shared = published(system)
    assert [task.job for task in shared] == ["a", "b", "a", "b"]
    system.tell(TRACKER, succeeded(shared[0]))
    assert published(system) == [TaskId("c", 2, 0, 0)]


def test_cancelling_a_job_frees_its_slots_for_the_others() -> None:
    system = SteppingSystem(TrackerSettings(tasks_queued_per_worker=0))
    first, second = spec(50, job="a"), spec(50, job="b")
    system.tell(TRACKER, joined())
    system.tell(MASTER, SubmitJob(first, nothing_stored(first), priority=1))
    assert [task.job for task in published(system)] == ["a"]
    system.tell(MASTER, SubmitJob(second, nothing_stored(second)))
    assert published(system) == []
    system.tell(MASTER, CancelJob("a"))
    assert [task.job for task in published(system)] == ["b"]
    assert system.take(CLIENT) == [JobFailed("a", "cancelled", "cancelled")]


def test_an_attempt_of_an_unknown_task_is_ignored() -> None:
    system = system_with(spec(25))
    events = len(system.events)
    system.tell(TRACKER, TaskStarted("w1", TaskId("old", 1, 0, 0), 1))
    system.tell(TRACKER, TaskFailed("w1", TaskId("old", 1, 0, 0), "error", "late"))
    assert system.events[events:] == [WorkerFreed("w1", TaskId("old", 1, 0, 0), 0)]
    assert system.take(CLIENT) == []


def test_cancelling_a_job_calls_back_what_workers_run_of_it() -> None:
    system = SteppingSystem()
    for job in (spec(50, job="a"), spec(50, job="b")):
        system.tell(MASTER, SubmitJob(job, nothing_stored(job)))
    mine, other = TaskId("a", 1, 0, 0), TaskId("b", 1, 0, 0)
    for worker, task in (("w1", mine), ("w2", other), ("w3", None)):
        system.tell(TRACKER, joined(worker))
        if task is not None:
            system.tell(TRACKER, TaskStarted(worker, task, 1))
    system.tell(MASTER, CancelJob("a"))
    assert told(system) == [("w1", CancelTask(mine, 1))]
    system.events.clear()
    # Who looks at workers sees at once that this one is free.
    system.tell(TRACKER, TaskFailed("w1", mine, "cancelled", "cancelled", attempt=1))
    assert system.events == [WorkerFreed("w1", mine, 1)]
    system.events.clear()
    system.tell(TRACKER, succeeded(mine, attempt=1))
    assert system.events == [WorkerFreed("w1", mine, 1)]


def test_jobs_beyond_the_limit_wait_in_order_and_priority_passes_them() -> None:
    system = SteppingSystem(master=MasterSettings(running_jobs=2))
    system.tell(TRACKER, joined())
    for name, priority in (("a", 0), ("b", 0), ("c", 0), ("d", 0), ("e", 1)):
        job = spec(5, job=name)
        system.tell(MASTER, SubmitJob(job, nothing_stored(job), priority))
    started = [event.job for event in system.events if isinstance(event, JobStarted)]
    queued = [event.job for event in system.events if isinstance(event, JobQueued)]
    assert (started, queued) == (["a", "b", "e"], ["c", "d"])
    system.tell(MASTER, CancelJob("c"))
    assert JobFailed("c", "cancelled", "cancelled") in system.take(CLIENT)
    system.tell(TRACKER, succeeded(TaskId("a", 1, 0, 0)))
    assert [event.job for event in system.events if isinstance(event, JobStarted)] == ["a", "b", "e"]
    system.tell(TRACKER, succeeded(TaskId("e", 1, 0, 0)))
    assert [event.job for event in system.events if isinstance(event, JobStarted)] == ["a", "b", "e", "d"]


def test_a_waiting_job_whose_priority_is_raised_starts() -> None:
    system = SteppingSystem(master=MasterSettings(running_jobs=1))
    for name in "abc":
        job = spec(5, job=name)
        system.tell(MASTER, SubmitJob(job, nothing_stored(job)))
    system.tell(MASTER, ChangePriority("c", 5))
    assert [event.job for event in system.events if isinstance(event, JobStarted)] == ["a", "c"]
    system.tell(MASTER, ChangePriority("unknown", 5))


def test_a_job_that_is_submitted_twice_runs_once() -> None:
    system = system_with(spec(25))
    system.tell(MASTER, SubmitJob(spec(25), nothing_stored(spec(25))))
    assert sum(isinstance(event, JobStarted) for event in system.events) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"protocol": PROTOCOL + 1}, f"protocol {PROTOCOL + 1}"), ({"version": "0.0.7"}, "distsum 0.0.7")],
)
def test_a_worker_of_another_version_is_refused_with_the_reason_on_both_sides(changes: Any, reason: str) -> None:
    system = system_with(spec(25), workers=0)
    system.tell(TRACKER, msgspec.structs.replace(joined("stranger"), **changes))
    ((worker, message),) = told(system)
    assert worker == "stranger"
    assert isinstance(message, Shutdown)
    assert reason in message.reason
    (event,) = [event for event in system.events if isinstance(event, WorkerRefused)]
    assert reason in event.reason
    assert published(system) == [TaskId("job", 1, 0, 0), TaskId("job", 1, 0, 1)], "no slot was opened for it"


def fail(system: SteppingSystem, worker: str, index: int, kind: Any = "error") -> None:
    system.tell(TRACKER, TaskFailed(worker, TaskId("job", 1, 0, index), kind, "OSError: no such device"))


def test_a_worker_that_fails_again_and_again_is_quarantined_and_can_be_resumed() -> None:
    system = system_with(spec(500), workers=2)
    for index in (0, 1):
        fail(system, "w1", index)
    system.tell(TRACKER, succeeded(TaskId("job", 1, 0, 4), worker="w1"))
    for index in (2, 3):
        fail(system, "w1", index)
    system.tell(TRACKER, succeeded(TaskId("job", 1, 0, 5), worker="w2"))
    assert system.take(WORKERS) == [], "a success in between sets the count back"
    fail(system, "w1", 1)
    (paused,) = system.take(WORKERS)
    assert isinstance(paused, PauseWorker)
    assert paused.worker == "w1"
    (event,) = [event for event in system.events if isinstance(event, WorkerPaused)]
    assert event.quarantined
    assert "no such device" in event.reason
    published(system)
    before = system.actors[MASTER]._slots
    system.tell(TRACKER, ResumeWorker("w1"))
    assert system.take(WORKERS) == [ResumeWorker("w1")]
    assert system.actors[MASTER]._slots == 2 * before


def test_one_bad_task_quarantines_nobody_and_the_last_worker_is_never_paused() -> None:
    system = system_with(spec(500), workers=2)
    for _ in range(3):
        fail(system, "w1", 0)
    assert not any(isinstance(event, WorkerPaused) and event.quarantined for event in system.events)
    system = system_with(spec(500), workers=1)
    for index in (0, 1, 0, 1):
        fail(system, "w1", index)
    assert system.take(WORKERS) == []


def test_what_fails_everywhere_is_no_workers_fault() -> None:
    system = system_with(spec(500), workers=3)
    for index in range(4):
        for worker in ("w1", "w2", "w3"):
            fail(system, worker, index)
    assert system.take(WORKERS) == []


def test_storage_failures_are_tried_again_only_where_another_host_may_do_better() -> None:
    system = SteppingSystem(TrackerSettings(retry_storage=True))
    system.tell(TRACKER, joined())
    job = spec(25)
    system.tell(MASTER, SubmitJob(job, nothing_stored(job)))
    task = published(system)[0]
    fail(system, "w1", 0, "storage")
    assert published(system) == [task]


def refuse(system: SteppingSystem, worker: str, task: TaskId, place: str = "/data") -> None:
    system.tell(TRACKER, TaskFailed(worker, task, "not_served", "because", place=place))


def test_a_task_that_a_worker_may_not_do_is_handed_on_until_all_that_take_tasks_have_refused() -> None:
    system = system_with(spec(500), workers=4)
    task = published(system)[0]
    system.tell(TRACKER, PauseWorker("w4", "asked for"))
    system.take(WORKERS)
    for worker in ("w1", "w1", "w1", "w1", "w1", "w2"):
        refuse(system, worker, task)
        assert published(system) == [task], "however often one worker gets it"
    assert system.take(CLIENT) == []
    refuse(system, "w3", task)
    assert system.take(CLIENT) == [JobFailed("job", "not_served", "because", task)]


def test_who_may_not_go_to_a_place_is_known_for_all_tasks_of_a_job_but_not_of_other_places_or_jobs() -> None:
    system = system_with(spec(500), workers=2)
    first, second, *_ = published(system)
    refuse(system, "w1", first)
    refuse(system, "w2", second, "/other")
    assert system.take(CLIENT) == []
    system.tell(MASTER, SubmitJob(spec(500, job="next"), nothing_stored(spec(500))))
    refuse(system, "w2", second)
    assert [failure.job for failure in system.take(CLIENT)] == ["job"]
    (task, *_) = published(system)[-4:]
    assert task.job == "next"
    refuse(system, "w2", task)
    assert system.take(CLIENT) == []
    system.tell(TRACKER, succeeded(task, worker="w1"))


def test_a_worker_that_refuses_is_not_held_to_be_faulty() -> None:
    system = system_with(spec(500), workers=2)
    for task in published(system):
        refuse(system, "w1", task)
    assert system.take(WORKERS) == []


def test_a_dismissed_worker_leaves_when_its_task_is_done() -> None:
    system = system_with(spec(500), workers=2)
    task = TaskId("job", 1, 0, 0)
    system.tell(TRACKER, TaskStarted("w1", task, 1))
    system.tell(TRACKER, DismissWorker("w1", "drained"))
    (paused,) = system.take(WORKERS)
    assert paused == PauseWorker("w1", "drained")
    system.tell(TRACKER, succeeded(task))
    assert told(system) == [("w1", Shutdown("drained"))]
    system.tell(TRACKER, DismissWorker("w2", "drained"))
    assert told(system) == [("w2", Shutdown("drained"))], "an idle one leaves at once"
    system.tell(TRACKER, DismissWorker("unknown", "drained"))


def test_a_paused_worker_that_reconnects_stays_paused() -> None:
    system = system_with(spec(500), workers=2)
    system.tell(TRACKER, PauseWorker("w1", "asked for"))
    system.take(WORKERS)
    system.tell(TRACKER, joined("w1"))
    assert [type(message) for message in system.take(WORKERS)] == [PauseWorker]


def quarantine(system: SteppingSystem, worker: str, good: str, first: int = 0) -> None:
    for index in (first, first + 1):
        fail(system, worker, index)
    system.tell(TRACKER, succeeded(TaskId("job", 1, 0, first + 3), worker=good))
    fail(system, worker, first + 2)
    assert quarantines(system) == [worker]


def quarantines(system: SteppingSystem) -> list[str]:
    """Return who was quarantined since the last call."""
    events, system.events[:] = list(system.events), []
    return [event.worker for event in events if isinstance(event, WorkerPaused) and event.quarantined]


def pauses(system: SteppingSystem) -> list[Any]:
    return [message for message in system.take(WORKERS) if isinstance(message, PauseWorker | ResumeWorker)]


def test_a_quarantine_outlives_the_connection_until_the_worker_is_resumed() -> None:
    system = system_with(spec(500), workers=2)
    quarantine(system, "w1", "w2")
    (before,) = pauses(system)
    for _ in range(2):
        system.tell(TRACKER, WorkerLost("w1", "is gone from the broker"))
        system.tell(TRACKER, joined("w1"))
        assert pauses(system) == [before]
        assert quarantines(system) == ["w1"], "whoever looks sees it again"
    system.tell(TRACKER, ResumeWorker("w1"))
    system.tell(TRACKER, WorkerLost("w1", "is gone from the broker"))
    system.tell(TRACKER, joined("w1"))
    assert pauses(system) == [ResumeWorker("w1")]


def test_a_worker_that_is_resumed_while_it_is_away_takes_tasks_when_it_comes_back() -> None:
    system = system_with(spec(500), workers=2)
    quarantine(system, "w1", "w2")
    system.tell(TRACKER, WorkerLost("w1", "is gone from the broker"))
    system.take(WORKERS)
    system.tell(TRACKER, ResumeWorker("w1"))
    assert pauses(system) == [ResumeWorker("w1")], "the broker may not know that it is away"
    system.tell(TRACKER, msgspec.structs.replace(joined("w1"), paused="it failed", quarantined=True))
    assert pauses(system) == [ResumeWorker("w1")], "it does not know yet"
    assert quarantines(system) == []


def test_failures_before_a_connection_was_lost_count_afterwards() -> None:
    system = system_with(spec(500), workers=2)
    for index in (0, 1):
        fail(system, "w1", index)
    system.tell(TRACKER, WorkerLost("w1", "is gone from the broker"))
    system.tell(TRACKER, succeeded(TaskId("job", 1, 0, 3), worker="w2"))
    system.tell(TRACKER, joined("w1"))
    assert quarantines(system) == []
    fail(system, "w1", 2)
    assert quarantines(system) == ["w1"]


@pytest.mark.parametrize("quarantined", [True, False])
def test_a_new_master_keeps_what_an_earlier_one_has_paused(quarantined: Any) -> None:
    system = system_with(spec(500), workers=1)
    system.tell(TRACKER, msgspec.structs.replace(joined("w2"), paused="so it was", quarantined=quarantined))
    assert pauses(system) == [PauseWorker("w2", "so it was", quarantined)]
    assert WorkerPaused("w2", "so it was", quarantined) in system.events
    system.tell(TRACKER, ResumeWorker("w2"))
    assert pauses(system) == [ResumeWorker("w2")]


def test_what_one_worker_alone_fails_again_and_again_fails_no_job_and_others_try_it_first() -> None:
    system = system_with(spec(500), workers=3)
    task = published(system)[0]
    for _ in range(3):
        fail(system, "w1", 0)
        assert published(system) == [task]
    assert system.take(CLIENT) == []
    (rests,) = pauses(system)
    assert (rests.worker, rests.rests, rests.quarantined) == ("w1", True, False)
    assert rests.told.reason == "", "a master that comes after knows nothing of it"
    system.tell(TRACKER, TaskStarted("w2", task, 1))
    assert pauses(system) == [ResumeWorker("w1")]
    system.tell(TRACKER, succeeded(task, worker="w2"))
    assert system.take(CLIENT) == []


def test_what_fails_on_every_worker_is_given_up() -> None:
    system = system_with(spec(500), workers=2)
    for worker in ("w1", "w1", "w2", "w1"):
        fail(system, worker, 0)
        assert system.take(CLIENT) == []
    fail(system, "w2", 0)
    ((failure),) = system.take(CLIENT)
    assert (failure.kind, failure.task) == ("error", TaskId("job", 1, 0, 0))


def test_the_workers_of_one_host_count_once_while_others_could_try_it() -> None:
    system = system_with(spec(500), workers=6)
    system.tell(TRACKER, msgspec.structs.replace(joined("other"), host="other"))
    for worker in ("w1", "w2", "w3", "w4", "w5", "w6"):
        fail(system, worker, 0)
    assert system.take(CLIENT) == []
    assert pauses(system) == [], "a task that is at fault itself must not stop a host"
    system.tell(TRACKER, PauseWorker("other", "asked for"))
    for worker in ("w1", "w2", "w3"):
        assert system.take(CLIENT) == []
        fail(system, worker, 0)
    assert [failure.task for failure in system.take(CLIENT)] == [TaskId("job", 1, 0, 0)]


def test_a_task_that_fails_on_one_host_without_end_is_given_up_though_others_never_try_it() -> None:
    system = system_with(spec(500), workers=30)
    system.tell(TRACKER, msgspec.structs.replace(joined("other"), host="other"))
    for number in range(1, 18):
        assert system.take(CLIENT) == []
        fail(system, f"w{number}", 0)
    assert [failure.task for failure in system.take(CLIENT)] == [TaskId("job", 1, 0, 0)]


@pytest.mark.parametrize("how", ["lost", "paused", "cancelled"])
def test_nobody_waits_for_others_to_try_a_task_that_cannot_or_need_not(how: str) -> None:
    system = system_with(spec(500), workers=2)
    for _ in range(2):
        fail(system, "w1", 0)
    assert len(pauses(system)) == 1
    message = {
        "lost": WorkerLost("w2", "ended"),
        "paused": PauseWorker("w2", "asked for"),
        "cancelled": CancelJob("job"),
    }[how]
    system.tell(MASTER if how == "cancelled" else TRACKER, message)
    assert ResumeWorker("w1") in pauses(system)


def test_one_that_lets_others_go_first_can_be_paused_for_good() -> None:
    system = system_with(spec(500), workers=2)
    task = TaskId("job", 1, 0, 0)
    for _ in range(2):
        fail(system, "w1", 0)
    system.tell(TRACKER, PauseWorker("w1", "asked for"))
    system.take(WORKERS)
    system.tell(TRACKER, TaskStarted("w2", task, 1))
    assert pauses(system) == []
    assert WorkerPaused("w1", "asked for", quarantined=False) in system.events


def test_one_that_is_lost_while_it_lets_others_go_first_takes_tasks_when_it_is_back() -> None:
    system = system_with(spec(500), workers=2)
    for _ in range(2):
        fail(system, "w1", 0)
    assert len(pauses(system)) == 1
    system.tell(TRACKER, WorkerLost("w1", "no heartbeat"))
    assert pauses(system) == [ResumeWorker("w1")], "the broker may not know that it is away, and pause it again"
    system.tell(TRACKER, joined("w1"))
    assert pauses(system) == []
    assert not system.actors[TRACKER]._workers["w1"].paused


def test_a_task_that_only_one_who_lets_others_go_first_may_do_waits_for_it() -> None:
    system = system_with(spec(500), workers=2)
    _, second, *_ = published(system)
    for _ in range(2):
        fail(system, "w1", 0)
    refuse(system, "w2", second)
    assert system.take(CLIENT) == []


def test_a_failure_that_is_told_twice_counts_once() -> None:
    system = system_with(spec(25))
    task = published(system)[0]
    failure = TaskFailed("w1", task, "error", "OSError: flaky", attempt=1)
    for _ in range(4):
        system.tell(TRACKER, failure)
    assert published(system) == [task]
    assert system.take(CLIENT) == []


def test_an_attempt_that_its_worker_hands_back_is_made_again_and_is_no_failure() -> None:
    system = system_with(spec(25))
    task = published(system)[0]
    for _ in range(5):
        system.tell(TRACKER, TaskFailed("w1", task, "cancelled", "the worker leaves"))
        assert published(system) == [task]
    assert not any(isinstance(event, TaskRetried) for event in system.events)


def test_what_was_done_before_a_job_came_again_does_not_count() -> None:
    job = spec(5)
    system = system_with(job)
    root = published(system)[0]
    before = system.attempts[root]
    system.tell(MASTER, CancelJob("job"))
    system.tell(MASTER, SubmitJob(job, nothing_stored(job)))
    assert published(system) == [root]
    system.take(CLIENT)
    old = msgspec.structs.replace(succeeded(root), attempt=before)
    system.tell(TRACKER, old)
    assert system.take(CLIENT) == [], "its range of the result was written before that was begun anew"
    system.tell(TRACKER, succeeded(root))
    assert [type(message) for message in system.take(CLIENT)] == [JobSucceeded]


def test_attempts_are_counted_from_where_the_settings_say() -> None:
    system = SteppingSystem(TrackerSettings(first_attempt=1000))
    job = spec(25)
    system.tell(MASTER, SubmitJob(job, nothing_stored(job)))
    system.tell(TRACKER, joined())
    assert [message.attempt for message in system.take(BROKER)] == [1000, 1001]


def test_a_worker_that_nobody_knows_is_asked_who_it_is() -> None:
    system = system_with(spec(25), workers=1)
    events = len(system.events)
    system.tell(TRACKER, Heartbeat("w9", None, 0))
    assert told(system) == [("w9", Introduce())]
    assert len(system.events) == events
    system.tell(TRACKER, Heartbeat("w1", None, 0))
    assert told(system) == []
