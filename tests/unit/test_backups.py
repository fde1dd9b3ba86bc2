"""What the tracker does about stragglers, one message at a time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from distsum.actors.actor import CLIENT, MASTER, TRACKER, WORKERS
from distsum.actors.speculation import SpeculationSettings
from distsum.actors.task_tracker import TrackerSettings
from distsum.messages import (
    AssignTask,
    BackupAnswered,
    BackupDeclined,
    BackupEnded,
    BackupStarted,
    BackUpTask,
    CancelJob,
    CancelTask,
    Effort,
    Heartbeat,
    HelperAdded,
    HelperDeclined,
    LoserStopped,
    RunTask,
    ShareTask,
    SpeculationSwitched,
    SubmitJob,
    SwitchSpeculation,
    TaskFailed,
    TaskId,
    TaskStarted,
    TaskSucceeded,
    TellWorker,
    WorkerLost,
)
from distsum.slices import LEAST_NUMBERS, SLICES
from tests.stepping import EFFORT, SteppingSystem, joined, nothing_stored, published, spec, succeeded, system_with, told


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
    system.advance(0.01)
    system.tell(TRACKER, Heartbeat("w9", first, 1010, attempt=9, progress=0.101))
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
    (begun,) = [event for event in started if event.task == first]
    assert begun.evidence.left_seconds is not None
    assert 0.5 <= ended.took_seconds < 1.5
    assert ended.saved_seconds == pytest.approx(begun.evidence.left_seconds - ended.took_seconds)
    system.tell(TRACKER, succeeded(second, worker="w10", attempt=10))
    outcomes = [event.outcome for event in system.events if isinstance(event, BackupEnded)]
    assert outcomes == ["won", "lost"]


def test_the_clock_of_an_attempt_starts_when_it_begins_and_not_when_it_is_queued() -> None:
    system = system_with(spec(50), workers=12)
    tasks = published(system)[:10]
    system.advance(30.0)  # all wait
    for number, task in enumerate(tasks, start=1):
        system.tell(TRACKER, Heartbeat(f"w{number}", None, 0))
        system.tell(TRACKER, TaskStarted(f"w{number}", task, 1, attempt=number))
    system.advance(1.0)
    for number, task in enumerate(tasks[:8], start=1):
        system.tell(TRACKER, succeeded(task, worker=f"w{number}", attempt=number))
    system.take(WORKERS)
    system.advance(0.1)
    assert assigned(system) == [], "1.1 s are less than 1.2 times the mean"
    assert not [event for event in system.events if isinstance(event, BackupStarted | BackupDeclined)]
    for number, task in enumerate(published(system), start=1):  # of the next phase, so that nothing waits
        attempt = system.attempts[task]
        system.tell(TRACKER, TaskStarted(f"w{number}", task, 1, attempt=attempt))
        system.tell(TRACKER, succeeded(task, worker=f"w{number}", attempt=attempt))
    system.advance(1.0)
    started = [event for event in system.events if isinstance(event, BackupStarted)]
    assert {event.task for event in started} == set(tasks[8:])
    assert all(1.2 < event.evidence.elapsed_seconds <= 2.1 for event in started)
    assert all(event.evidence.mean_seconds == 1.0 for event in started)


def test_no_copy_goes_to_a_worker_for_which_a_task_waits_in_the_queue() -> None:
    system = system_with(spec(50), workers=12)
    first, second = stragglers(system)
    system.tell(MASTER, SubmitJob(spec(50, job="next"), nothing_stored(spec(50))))
    waiting = published(system)
    assert len(waiting) == 10, "as many as there are workers that idle"
    system.advance(1.0)
    assert assigned(system) == []
    declined = [event for event in system.events if isinstance(event, BackupDeclined)]
    assert {(event.task, event.reason) for event in declined} == {(first, "no_idle_worker"), (second, "no_idle_worker")}
    for worker, task in zip([*(f"w{number}" for number in range(1, 9)), "w11"], waiting, strict=False):
        system.tell(TRACKER, Heartbeat("w12", None, 0))
        system.tell(TRACKER, TaskStarted(worker, task, 1, attempt=system.attempts[task]))
        system.advance(0.2)
        assert assigned(system) == [], "one that idles is left for each task that waits"
    system.tell(MASTER, CancelJob("next"))
    system.advance(1.0)
    assert [worker for worker, _ in assigned(system)] == ["w12"]


def test_a_copy_whose_worker_has_fallen_silent_keeps_no_other_from_being_made() -> None:
    system = SteppingSystem(TrackerSettings(speculation=SpeculationSettings(max_share=0.0)))  # one at a time
    for number in range(1, 13):
        system.tell(TRACKER, joined(f"w{number}"))
    system.tell(MASTER, SubmitJob(spec(50), nothing_stored(spec(50))))
    at_work = dict(zip(("w9", "w10"), stragglers(system), strict=True))
    system.advance(1.0)
    ((silent, order),) = assigned(system)
    system.tell(TRACKER, TaskStarted(silent, order.task, 1, attempt=order.attempt))
    copies = []
    for _ in range(8):
        for number in range(1, 13):
            if (name := f"w{number}") != silent:
                system.tell(TRACKER, Heartbeat(name, at_work.get(name), 0, attempt=number))
        system.advance(1.0)
        copies.append(len(assigned(system)))
    assert copies == [0, 0, 0, 0, 0, 0, 1, 0], "6 s are a silence"


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


def test_copies_end_with_a_job_that_is_cancelled_and_are_called_back() -> None:
    system = system_with(spec(50), workers=12)
    stragglers(system)
    system.advance(1.0)
    copies = {(worker, CancelTask(order.task, order.attempt)) for worker, order in assigned(system)}
    assert len(copies) == 2
    system.tell(MASTER, CancelJob("job"))
    assert copies <= set(told(system))
    ended = [event for event in system.events if isinstance(event, BackupEnded)]
    assert [(event.outcome, event.saved_seconds) for event in ended] == [("cancelled", 0.0)] * 2


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


def task_in_slices(workers: int, progress: float) -> tuple[SteppingSystem, TaskId, int, BackupStarted]:
    """Have a task copied that slices share, the only one; return its first attempt's number, and its backup."""
    system = SteppingSystem(TrackerSettings(retry_storage=True))
    for number in range(1, workers + 1):
        system.tell(TRACKER, joined(f"w{number}"))
    length = SLICES * LEAST_NUMBERS
    job = msgspec.structs.replace(spec(5), count=length, tile_length=length, ranged=True)
    system.tell(MASTER, SubmitJob(job, nothing_stored(job)))
    (task,) = published(system)
    first = system.attempts[task]
    system.tell(TRACKER, TaskStarted("w1", task, 1, attempt=first))
    system.advance(5.0)
    for number in range(2, workers + 1):
        system.tell(TRACKER, Heartbeat(f"w{number}", None, 0))
    system.tell(TRACKER, Heartbeat("w1", task, 1000, attempt=first, progress=progress))
    started = asked(system, task).started
    assert started is not None
    return system, task, first, started


def test_a_node_with_too_few_children_is_shared_by_slices_among_all_who_idle() -> None:
    system, task, _, started = task_in_slices(workers=11, progress=0.5)
    sent = system.take(WORKERS)
    orders = {each.message.child: each.message for each in sent if isinstance(each, AssignTask)}
    assert sorted(orders, key=lambda child: -1 if child is None else child) == [None, *range(1, SLICES)]
    assert all(order.sliced and order.resume for order in orders.values())
    assert len(started.helpers) == SLICES - 1
    assert not any(isinstance(each, TellWorker) and isinstance(each.message, ShareTask) for each in sent), (
        "it makes none"
    )
    # The copy takes them all but the first.
    made = tuple(range(1, SLICES))
    system.tell(TRACKER, TaskStarted(started.worker, task, 1, started.attempt))
    for worker, order in zip(started.helpers, (orders[child] for child in reversed(made)), strict=True):
        system.tell(TRACKER, TaskStarted(worker, task, 1, order.attempt, order.child))
        told = succeeded(task, worker=worker, attempt=order.attempt, child=order.child, effort=effort(100))
        system.tell(TRACKER, told)
    share = len(made) / SLICES
    won = succeeded(task, worker=started.worker, attempt=started.attempt, taken=made, taken_share=share)
    system.tell(TRACKER, won)
    (ended,) = over(system)
    assert (ended.outcome, ended.children) == ("won", SLICES - 1)


def test_a_node_of_few_numbers_is_copied_as_a_whole() -> None:
    system = SteppingSystem()
    for number in range(1, 5):
        system.tell(TRACKER, joined(f"w{number}"))
    job = msgspec.structs.replace(spec(5), ranged=True)
    system.tell(MASTER, SubmitJob(job, nothing_stored(job)))
    (task,) = published(system)
    system.tell(TRACKER, TaskStarted("w1", task, 1, attempt=system.attempts[task]))
    system.advance(5.0)
    for number in range(2, 5):
        system.tell(TRACKER, Heartbeat(f"w{number}", None, 0))
    assert asked(system, task).started is not None
    ((_, order),) = assigned(system)
    assert (order.child, order.sliced) == (None, False)


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
    made = [("w1", system.attempts[task], 0.2), (started.worker, started.attempt, 0.02)]
    for _ in range(4):  # the first gets on no more
        system.advance(2.0)
        for worker, attempt, progress in made + [(name, each.attempt, 0.0) for name, each in helpers]:
            read = 1000 if progress else 0
            system.tell(TRACKER, Heartbeat(worker, task, read, attempt=attempt, progress=progress))
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
    second = succeeded(task, worker=worker, attempt=given.message.attempt, child=2, effort=effort(500))
    system.tell(TRACKER, second)
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


@pytest.mark.parametrize(
    ("share", "read", "wasted"),
    [
        (0.0, 5000, 1000),  # it took nothing
        (0.1, 4500, 500),  # 500 of the 5,000 that all is
        (0.2, 4000, 0),
        (0.5, 2500, 0),  # more than the loser has told of so far
    ],
)
def test_a_loser_has_not_read_in_vain_what_the_winner_took_of_it(share: float, read: int, wasted: int) -> None:
    system, task, started, _ = shared_task()
    own = effort(read)
    won = succeeded(task, worker=started.worker, attempt=started.attempt, effort=own, taken_share=share)
    system.tell(TRACKER, won)
    (ended,) = over(system)
    assert (ended.outcome, ended.wasted_bytes) == ("won", wasted)
    last = TaskFailed("w1", task, "cancelled", "cancelled", attempt=system.attempts[task], bytes_read=3000)
    system.tell(TRACKER, last)
    more = [event.more_bytes for event in system.events if isinstance(event, LoserStopped)]
    assert more == [3000 - max(1000, round(share * 5000))]


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
