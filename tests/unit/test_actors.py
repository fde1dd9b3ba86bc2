"""The actors, one message at a time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from distsum import __version__
from distsum.actors.actor import BROKER, CLIENT, MASTER, TRACKER, WORKERS
from distsum.actors.master import MasterSettings
from distsum.actors.phase import STORED, UNNEEDED, WAITING
from distsum.actors.speculation import SpeculationSettings
from distsum.actors.task_tracker import TrackerSettings
from distsum.messages import (
    PROTOCOL,
    AssignTask,
    BackupAnswered,
    BackupEnded,
    BackupStarted,
    BackUpTask,
    CancelJob,
    CancelTask,
    ChangePriority,
    DismissWorker,
    Effort,
    Heartbeat,
    HelperAdded,
    HelperDeclined,
    Introduce,
    JobFailed,
    JobQueued,
    JobSpec,
    JobStarted,
    JobSucceeded,
    KillWorker,
    LoserStopped,
    PauseWorker,
    ResumeWorker,
    RunTask,
    ShareTask,
    Shutdown,
    SpeculationSwitched,
    SubmitJob,
    SwitchSpeculation,
    TaskDeadLettered,
    TaskFailed,
    TaskId,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
    TellWorker,
    WorkerFreed,
    WorkerJoined,
    WorkerLost,
    WorkerPaused,
    WorkerRefused,
    WorkersCannotStart,
)
from distsum.tree import Tree
from tests.stepping import SteppingSystem

EFFORT = Effort(0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0)


def spec(files: int, *, job: str = "job", exponent: int = 1, tiles: int = 1, fan_in: int = 5) -> JobSpec:
    return JobSpec(
        job=job,
        reduction="mean",
        files=files,
        count=10 * tiles,
        fan_in=fan_in,
        exponent=exponent,
        tile_length=10,
        format="npy",
        dtype="<f8",
        shape=(10 * tiles,),
        fortran=False,
        offset=128,
        header=b"",
        on_bad_input="fail",
        max_open_files=5,
        hold_bytes=1 << 20,
        buffer_bytes=1 << 20,
        work=b"/work",
        output=b"/out",
        output_format="npy",
        output_dtype="<f8",
        output_header=bytes(128),
        output_number_bytes=8,
    )


def nothing_stored(job: JobSpec) -> tuple[bytes, ...]:
    tree = Tree(files=job.files, fan_in=job.fan_in, exponent=job.exponent)
    return tuple(bytes(tree.width(phase) * job.tiles) for phase in range(1, tree.phases + 1))


def joined(name: str = "w1") -> WorkerJoined:
    return WorkerJoined(
        name, host="h", pid=1, version=__version__, protocol=PROTOCOL, baseline_bytes=0, start_seconds=0.0
    )


def succeeded(task: TaskId, worker: str = "w1", **changes: Any) -> TaskSucceeded:
    fields: dict[str, Any] = {"inputs": 1, "skipped": (), "reused": False, "receipt": b"", "effort": EFFORT}
    return TaskSucceeded(worker=worker, task=task, **(fields | changes))


def system_with(job: JobSpec, *, workers: int = 1, states: tuple[bytes, ...] | None = None) -> SteppingSystem:
    system = SteppingSystem(TrackerSettings(tasks_queued_per_worker=1, max_attempts=4, lease_seconds=20.0))
    for number in range(1, workers + 1):
        system.tell(TRACKER, joined(f"w{number}"))
    system.tell(MASTER, SubmitJob(job, nothing_stored(job) if states is None else states))
    return system


def published(system: SteppingSystem) -> list[TaskId]:
    return [message.task for message in system.take(BROKER) if isinstance(message, RunTask)]


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
    task = published(system)[0]
    for attempt in range(2, 5):
        system.tell(TRACKER, TaskFailed("w1", task, "error", "OSError: flaky"))
        assert published(system) == [task]
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
    system = system_with(spec(25))
    task = published(system)[0]
    system.tell(TRACKER, TaskDeadLettered(task, 4))
    (failure,) = system.take(CLIENT)
    assert (failure.kind, failure.task) == ("abandoned", task)
    assert "4 deliveries" in failure.reason


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


def told(system: SteppingSystem) -> list[tuple[str, Any]]:
    """Return what workers were told directly."""
    return [(each.worker, each.message) for each in system.take(WORKERS) if isinstance(each, TellWorker)]


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
    for index in (0, 1):
        fail(system, "w1", index)
    system.tell(TRACKER, succeeded(TaskId("job", 1, 0, 5), worker="w2"))
    assert system.take(WORKERS) == [], "a success in between sets the count back"
    fail(system, "w1", 2)
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
    assert system.take(WORKERS) == []
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


def stragglers(system: SteppingSystem) -> tuple[TaskId, TaskId]:
    """Have eight of ten tasks of a phase done in a second each, and return the two that go on."""
    tasks = published(system)[:10]
    for number, task in enumerate(tasks, start=1):
        system.tell(TRACKER, TaskStarted(f"w{number}", task, 1, attempt=number))
    system.advance(1.0)
    for number, task in enumerate(tasks[:8], start=1):
        system.tell(TRACKER, succeeded(task, worker=f"w{number}", attempt=number))
    for number, task in enumerate(published(system), start=1):  # of the next phase, so that nothing waits
        attempt = system.attempts[task]
        system.tell(TRACKER, TaskStarted(f"w{number}", task, 1, attempt=attempt))
        system.tell(TRACKER, succeeded(task, worker=f"w{number}", attempt=attempt))
    system.take(WORKERS)
    return tasks[8], tasks[9]


def assigned(system: SteppingSystem) -> list[tuple[str, RunTask]]:
    sent = system.take(WORKERS)
    return [(each.worker, each.message) for each in sent if isinstance(each, AssignTask)]


def test_a_straggler_is_given_to_an_idle_worker_too_and_the_loser_is_called_back() -> None:
    system = system_with(spec(50), workers=12)
    first, second = stragglers(system)
    system.tell(TRACKER, Heartbeat("w9", first, 1000, attempt=9, progress=0.1))
    system.advance(1.0)
    backups = {message.task: (worker, message) for worker, message in assigned(system)}
    assert backups.keys() == {first, second}
    worker, order = backups[first]
    assert worker not in {"w9", "w10"}
    assert order.resume
    started = [event for event in system.events if isinstance(event, BackupStarted)]
    assert {(event.task, event.of_worker, event.reason) for event in started} == {
        (first, "w9", "slow_rate"),
        (second, "w10", "slow_attempt"),
    }
    system.tell(TRACKER, TaskStarted(worker, first, 1, attempt=order.attempt))
    system.advance(0.5)
    assert assigned(system) == [], "there is a copy of each"
    system.tell(TRACKER, succeeded(first, worker=worker, attempt=order.attempt))
    assert ("w9", CancelTask(first, 9)) in told(system)
    (ended,) = [event for event in system.events if isinstance(event, BackupEnded)]
    assert (ended.outcome, ended.worker, ended.attempt) == ("won", worker, order.attempt)
    assert ended.wasted_bytes > 0
    assert ended.saved_seconds is not None
    assert ended.saved_seconds > 0
    system.tell(TRACKER, succeeded(second, worker="w10", attempt=10))
    outcomes = [event.outcome for event in system.events if isinstance(event, BackupEnded)]
    assert outcomes == ["won", "lost"]


def test_a_backup_that_is_lost_with_its_worker_is_moot_and_the_straggler_goes_on() -> None:
    system = system_with(spec(50), workers=12)
    first, _ = stragglers(system)
    system.advance(1.0)
    worker = next(worker for worker, message in assigned(system) if message.task == first)
    system.tell(TRACKER, WorkerLost(worker, "ended"))
    (ended,) = [event for event in system.events if isinstance(event, BackupEnded)]
    assert (ended.task, ended.outcome) == (first, "moot")
    assert published(system) == [], "its first attempt is still under way"
    system.tell(TRACKER, succeeded(first, worker="w9", attempt=9))
    assert any(isinstance(event, TaskSucceeded) and event.task == first for event in system.events)


def test_what_two_backups_of_one_task_have_wasted_is_told_once() -> None:
    system = system_with(spec(50), workers=12)
    first, _ = stragglers(system)
    system.advance(1.0)
    ((worker, order),) = [each for each in assigned(system) if each[1].task == first]
    system.tell(TRACKER, TaskStarted(worker, first, 1, attempt=order.attempt))
    system.advance(3.0)
    ((other, again),) = [each for each in assigned(system) if each[1].task == first]
    system.tell(TRACKER, TaskStarted(other, first, 1, attempt=again.attempt))
    for name, attempt in (("w9", 9), (worker, order.attempt), (other, again.attempt)):
        system.tell(TRACKER, Heartbeat(name, first, 1000, attempt=attempt, progress=0.1))
    system.tell(TRACKER, succeeded(first, worker=other, attempt=again.attempt))
    ended = {event.attempt: event for event in system.events if isinstance(event, BackupEnded)}
    assert {attempt: event.outcome for attempt, event in ended.items()} == {order.attempt: "lost", again.attempt: "won"}
    assert sum(event.wasted_bytes for event in ended.values()) == 2000


def test_a_copy_is_taken_back_from_a_worker_that_the_queue_has_given_another_task_and_goes_to_the_next() -> None:
    system = system_with(spec(50), workers=12)
    first, _ = stragglers(system)
    system.advance(1.0)
    worker, order = next(each for each in assigned(system) if each[1].task == first)
    settled = TaskId("job", 1, 0, 0)
    system.tell(TRACKER, Heartbeat(worker, settled, 0, attempt=1))
    assert told(system) == [], "what is late tells nothing"
    system.tell(MASTER, SubmitJob(spec(5, job="next"), nothing_stored(spec(5))))
    (other,) = published(system)
    system.tell(TRACKER, TaskStarted(worker, other, 1, attempt=system.attempts[other]))
    assert told(system) == [(worker, CancelTask(first, order.attempt))]
    (ended,) = [event for event in system.events if isinstance(event, BackupEnded)]
    assert (ended.attempt, ended.outcome, ended.wasted_bytes) == (order.attempt, "moot", 0)
    system.advance(0.1)
    ((another, again),) = assigned(system)
    assert again.task == first
    assert another not in {worker, "w9", "w10"}
    system.tell(TRACKER, TaskFailed(worker, first, "cancelled", "cancelled", attempt=order.attempt))
    system.tell(TRACKER, succeeded(first, worker=another, attempt=again.attempt))
    assert [event.outcome for event in system.events if isinstance(event, BackupEnded)] == ["moot", "won"]
    assert published(system) == []


def test_what_the_queue_may_have_given_to_a_frozen_worker_is_copied_and_none_goes_there() -> None:
    system = system_with(spec(5), workers=3)
    (task,) = published(system)
    for _ in range(6):
        system.advance(1.0)
        for worker in ("w2", "w3"):
            system.tell(TRACKER, Heartbeat(worker, None, 0))
    assert assigned(system) == []
    system.advance(1.5)
    ((worker, order),) = assigned(system)
    assert worker in {"w2", "w3"}
    (started,) = [event for event in system.events if isinstance(event, BackupStarted)]
    assert (started.reason, started.of_worker, started.evidence.progress) == ("silent", "w1", 0.0)
    assert started.evidence.silent_seconds > 6.0
    system.tell(TRACKER, succeeded(task, worker=worker, attempt=order.attempt))
    (ended,) = [event for event in system.events if isinstance(event, BackupEnded)]
    assert ended.outcome == "won"


def test_what_waits_in_the_queue_is_not_copied_as_long_as_all_who_could_take_it_are_heard() -> None:
    system = system_with(spec(5), workers=3)
    for _ in range(20):
        system.advance(1.0)
        for worker in ("w1", "w2", "w3"):
            system.tell(TRACKER, Heartbeat(worker, None, 0))
    assert assigned(system) == []


def test_without_speculation_nothing_is_copied() -> None:
    settings = TrackerSettings(speculation=SpeculationSettings(policy="none"))
    system = SteppingSystem(settings)
    for number in range(1, 13):
        system.tell(TRACKER, joined(f"w{number}"))
    system.tell(MASTER, SubmitJob(spec(50), nothing_stored(spec(50))))
    stragglers(system)
    system.advance(30.0)
    assert assigned(system) == []


def test_a_job_whose_speculation_is_switched_off_gets_no_backups_until_it_is_switched_on() -> None:
    system = system_with(spec(50), workers=12)
    stragglers(system)
    system.tell(TRACKER, SwitchSpeculation("job", on=False))
    system.tell(TRACKER, SwitchSpeculation("job", on=False))
    system.advance(1.5)
    assert assigned(system) == []
    system.tell(TRACKER, SwitchSpeculation("job", on=True))
    system.advance(1.0)
    assert assigned(system)
    switched = [event for event in system.events if isinstance(event, SpeculationSwitched)]
    assert switched == [SpeculationSwitched("job", on=False), SpeculationSwitched("job", on=True)]


def test_switching_the_speculation_of_one_job_concerns_no_other_and_ends_with_the_job() -> None:
    system = system_with(spec(50), workers=12)
    system.tell(TRACKER, SwitchSpeculation("another", on=False))
    stragglers(system)
    system.advance(1.0)
    assert assigned(system)
    system.tell(TRACKER, SwitchSpeculation("job", on=False))
    system.tell(MASTER, CancelJob("job"))
    system.tell(TRACKER, SwitchSpeculation("job", on=False))
    switched = [event for event in system.events if isinstance(event, SpeculationSwitched)]
    assert switched == [SpeculationSwitched("job", on=False)]


def asked(system: SteppingSystem, task: TaskId) -> BackupAnswered:
    """Ask for a backup of a task, and return the answer."""
    system.tell(TRACKER, BackUpTask(task, 7))
    (answer,) = [message for message in system.take(CLIENT) if isinstance(message, BackupAnswered)]
    assert answer.request == 7
    return answer


def one_running(workers: int = 3, speculation: SpeculationSettings | None = None) -> tuple[SteppingSystem, TaskId]:
    """Have the only task of a job run on the first of some workers, for a second."""
    system = SteppingSystem(TrackerSettings(speculation=speculation or SpeculationSettings()))
    for number in range(1, workers + 1):
        system.tell(TRACKER, joined(f"w{number}"))
    system.tell(MASTER, SubmitJob(spec(5), nothing_stored(spec(5))))
    (task,) = published(system)
    system.tell(TRACKER, TaskStarted("w1", task, 1, attempt=system.attempts[task]))
    system.advance(1.0)
    return system, task


@pytest.mark.parametrize("policy", ["guarded", "none"])
def test_a_task_is_given_to_an_idle_worker_at_once_when_a_person_asks(policy: Any) -> None:
    system, task = one_running(speculation=SpeculationSettings(policy=policy))
    system.tell(TRACKER, SwitchSpeculation("job", on=False))
    answer = asked(system, task)
    ((worker, order),) = assigned(system)
    assert (worker in {"w2", "w3"}, order.task, order.resume) == (True, task, True)
    (started,) = [event for event in system.events if isinstance(event, BackupStarted)]
    assert answer.started == started
    assert (started.reason, started.worker, started.of_worker) == ("asked", worker, "w1")
    assert started.evidence.elapsed_seconds == 1.0
    system.tell(TRACKER, succeeded(task, worker=worker, attempt=order.attempt))
    assert ("w1", CancelTask(task, system.attempts[task])) in told(system)
    assert [event.outcome for event in system.events if isinstance(event, BackupEnded)] == ["won"]


def test_a_backup_that_a_person_asks_for_is_refused_with_the_reason() -> None:
    system, task = one_running(workers=2)
    assert "is not under way" in (asked(system, TaskId("job", 1, 0, 1)).refusal or "")
    assert "is not under way" in (asked(system, TaskId("another", 1, 0, 0)).refusal or "")
    assert asked(system, task).started is not None
    assert asked(system, task).refusal == "runs twice already"
    alone, task = one_running(workers=1)
    assert asked(alone, task).refusal == "runs on w1 alone, but no other worker is idle"
    waiting = system_with(spec(5), workers=1)
    assert asked(waiting, published(waiting)[0]).refusal == "has not begun: it waits for a worker"
    assert not any(isinstance(event, BackupStarted) for event in alone.events + waiting.events)


def test_an_asked_backup_goes_to_another_host_if_one_idles_and_else_to_the_same() -> None:
    system = SteppingSystem()
    for name, host in (("w1", "h1"), ("w2", "h1"), ("w3", "h2")):
        system.tell(TRACKER, msgspec.structs.replace(joined(name), host=host))
    system.tell(MASTER, SubmitJob(spec(5), nothing_stored(spec(5))))
    (task,) = published(system)
    system.tell(TRACKER, TaskStarted("w1", task, 1, attempt=system.attempts[task]))
    first = asked(system, task).started
    assert first is not None
    assert first.worker == "w3"
    system.tell(TRACKER, WorkerLost("w3", "ended"))
    second = asked(system, task).started
    assert second is not None
    assert second.worker == "w2"
    assert [event.outcome for event in system.events if isinstance(event, BackupEnded)] == ["moot"]


def effort(bytes_read: int) -> Effort:
    return msgspec.structs.replace(EFFORT, bytes_read=bytes_read)


def shared_task() -> tuple[SteppingSystem, TaskId, BackupStarted, list[tuple[str, RunTask]]]:
    """Have a task of five children copied that would take long; return its backup, and what its two helpers got."""
    system = SteppingSystem()
    for number in range(1, 5):
        system.tell(TRACKER, joined(f"w{number}"))
    system.tell(MASTER, SubmitJob(spec(25, exponent=2), nothing_stored(spec(25, exponent=2))))
    (task,) = published(system)
    system.tell(TRACKER, TaskStarted("w1", task, 1, attempt=system.attempts[task]))
    system.advance(5.0)
    for worker in ("w2", "w3", "w4"):
        system.tell(TRACKER, Heartbeat(worker, None, 0))
    system.tell(TRACKER, Heartbeat("w1", task, 1000, attempt=system.attempts[task], progress=0.2))
    started = asked(system, task).started
    assert started is not None
    assert len(started.helpers) == 2
    helpers = [each for each in assigned(system) if each[1].child is not None]
    for worker, order in helpers:
        system.tell(TRACKER, TaskStarted(worker, task, 1, order.attempt, order.child))
    system.take(WORKERS)
    return system, task, started, helpers


def over(system: SteppingSystem) -> list[BackupEnded]:
    return [event for event in system.events if isinstance(event, BackupEnded)]


def test_a_backup_has_helped_if_another_attempt_took_what_was_made_for_it_and_what_nobody_took_is_in_vain() -> None:
    system, task, started, helpers = shared_task()
    for worker, order in helpers:
        done = succeeded(task, worker=worker, attempt=order.attempt, child=order.child, effort=effort(300))
        system.tell(TRACKER, done)
    taken = helpers[0][1].child
    assert taken is not None
    system.tell(TRACKER, succeeded(task, worker="w1", attempt=system.attempts[task], taken=(taken,)))
    (ended,) = over(system)
    assert (ended.attempt, ended.outcome, ended.children) == (started.attempt, "helped", 2)
    assert ended.wasted_bytes == 300
    assert ended.saved_seconds is not None
    assert ended.saved_seconds > 0.0


def test_a_helper_that_has_made_its_child_is_given_the_next_one_and_that_is_told() -> None:
    system, task, started, helpers = shared_task()
    system.tell(TRACKER, TaskStarted(started.worker, task, 1, started.attempt))
    system.advance(2.0)
    for worker, attempt, progress in (("w1", system.attempts[task], 0.2), (started.worker, started.attempt, 0.02)):
        system.tell(TRACKER, Heartbeat(worker, task, 1000, attempt=attempt, progress=progress))
    worker, order = helpers[0]
    assert [each.child for _, each in helpers] == [4, 3]
    system.tell(TRACKER, succeeded(task, worker=worker, attempt=order.attempt, child=order.child, effort=effort(300)))
    system.take(WORKERS)
    system.advance(0.1)
    sent = system.take(WORKERS)
    (given,) = [each for each in sent if isinstance(each, AssignTask)]
    assert (given.worker, given.message.task, given.message.child, given.message.resume) == (worker, task, 2, True)
    assert not any(isinstance(each.message, ShareTask) for each in sent), "who makes the node was told already"
    (told,) = [event for event in system.events if isinstance(event, HelperAdded)]
    assert (told.task, told.attempt, told.worker, told.child) == (task, started.attempt, worker, 2)
    # What it makes is counted for the backup that it helps.
    made = succeeded(task, worker=worker, attempt=given.message.attempt, child=2, effort=effort(500))
    system.tell(TRACKER, made)
    system.tell(TRACKER, succeeded(task, worker="w1", attempt=system.attempts[task], taken=(2,)))
    (ended,) = over(system)
    assert (ended.outcome, ended.children, ended.wasted_bytes) == ("helped", 2, 300 + 1000)


def test_that_a_worker_idles_and_does_not_help_is_told_once_for_each_child() -> None:
    system, task, started, (helper, _) = shared_task()
    system.tell(TRACKER, TaskStarted(started.worker, task, 1, started.attempt))

    def beat(progress: float) -> None:
        for worker, attempt, done in (("w1", system.attempts[task], 0.2), (started.worker, started.attempt, progress)):
            system.tell(TRACKER, Heartbeat(worker, task, 1000, attempt=attempt, progress=done))

    system.advance(2.0)
    beat(0.39)
    worker, order = helper
    system.tell(TRACKER, succeeded(task, worker=worker, attempt=order.attempt, child=order.child, effort=effort(300)))
    for _ in range(5):
        system.advance(1.0)
        system.tell(TRACKER, Heartbeat(worker, None, 0))
        beat(0.39)
    told = [event for event in system.events if isinstance(event, HelperDeclined | HelperAdded)]
    assert [type(event) for event in told] == [HelperDeclined, HelperAdded], "the copy gets on no more, so it is helped"
    for event in told:
        assert (event.task, event.attempt, event.worker, event.child) == (task, started.attempt, worker, 2)
    assert told[0].gain_times == 1.5
    assert told[0].reached_seconds is not None
    assert told[0].reached_seconds <= 1.5 * told[0].takes_seconds


def test_a_backup_has_lost_if_nobody_took_what_was_made_for_it() -> None:
    system, task, _, ((worker, order), (other, another)) = shared_task()
    system.tell(TRACKER, succeeded(task, worker=worker, attempt=order.attempt, child=order.child, effort=effort(300)))
    system.tell(TRACKER, succeeded(task, worker="w1", attempt=system.attempts[task]))
    (ended,) = over(system)
    assert (ended.outcome, ended.wasted_bytes, ended.saved_seconds) == ("lost", 300, 0.0)
    failed = TaskFailed(other, task, "cancelled", "cancelled", attempt=another.attempt, child=another.child)
    system.tell(TRACKER, msgspec.structs.replace(failed, bytes_read=70))
    assert [event.more_bytes for event in system.events if isinstance(event, LoserStopped)] == [70]


def test_what_a_loser_has_read_since_it_last_told_is_counted_when_it_has_stopped() -> None:
    system, task, started, helpers = shared_task()
    attempt = system.attempts[task]
    system.tell(TRACKER, succeeded(task, worker=started.worker, attempt=started.attempt))
    (ended,) = over(system)
    assert (ended.outcome, ended.wasted_bytes) == ("won", 1000)
    system.advance(0.3)
    for _ in range(2):
        system.tell(TRACKER, TaskFailed("w1", task, "cancelled", "cancelled", attempt=attempt, bytes_read=1250))
    (stopped,) = [event for event in system.events if isinstance(event, LoserStopped)]
    assert (stopped.attempt, stopped.worker, stopped.backup, stopped.more_bytes) == (
        attempt,
        "w1",
        started.attempt,
        250,
    )
    assert stopped.took_seconds == pytest.approx(0.3)
    assert len(helpers) == 2


def test_a_loser_has_not_read_in_vain_what_the_winner_took_of_it() -> None:
    system, task, started, _ = shared_task()
    system.tell(TRACKER, succeeded(task, worker=started.worker, attempt=started.attempt, taken=(0,)))
    (ended,) = over(system)
    assert (ended.outcome, ended.wasted_bytes) == ("won", 0)


def test_a_copy_is_taken_back_from_a_worker_that_does_not_answer_and_goes_to_the_next() -> None:
    system, task = one_running()
    started = asked(system, task).started
    assert started is not None
    (other,) = {"w2", "w3"} - {started.worker}
    assigned(system)
    for _ in range(5):  # half a silence, and then a look
        system.advance(1.0)
        for worker in ("w1", other):
            running = task if worker == "w1" else None
            system.tell(TRACKER, Heartbeat(worker, running, 0, attempt=system.attempts[task] if running else 0))
    (ended,) = over(system)
    assert (ended.attempt, ended.outcome) == (started.attempt, "moot")
    again = asked(system, task).started
    assert again is not None
    assert again.worker == other
    for _ in range(5):
        system.tell(TRACKER, Heartbeat(other, None, 0))  # it is heard, and what it began got lost on the way
        system.tell(TRACKER, Heartbeat("w1", task, 0, attempt=system.attempts[task]))
        system.advance(1.0)
    assert len(over(system)) == 1
