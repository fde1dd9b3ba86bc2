"""What the tracker knows of workers and attempts, and which of it a look for stragglers counts."""

from __future__ import annotations

import math
from typing import Any

import pytest

from distsum.actors.actor import TRACKER
from distsum.actors.attempts import MOST_PLACES, Attempt, Backup, Known, KnownWorker, OutTask, PhaseFigures, Rates
from distsum.actors.speculation import Durations, SpeculationSettings
from distsum.messages import TaskId, TaskStarted
from tests.stepping import published, spec, succeeded, system_with

SILENCE = SpeculationSettings().silence_seconds


def worker(name: str, **fields: Any) -> KnownWorker:
    return KnownWorker(f"host of {name}", **fields)


def known(workers: dict[str, KnownWorker], **fields: Any) -> Known:
    return Known(workers, fields.pop("tasks", {}), fields.pop("phases", {}), Rates(), **fields)


def test_a_worker_that_was_not_heard_for_half_a_silence_is_given_no_copy() -> None:
    workers = {"lately": worker("lately", heard_seconds=7.1), "before": worker("before", heard_seconds=6.9)}
    assert [each.worker for each in known(workers).idle(10.0, SILENCE)] == ["lately"]


def test_as_many_idle_workers_as_tasks_wait_in_the_queue_are_given_no_copy() -> None:
    workers = {name: worker(name, heard_seconds=10.0) for name in ("w1", "w2", "w3")}
    for queued, free in ((0, 3), (2, 1), (3, 0), (7, 0)):
        assert len(known(workers, queued=queued).idle(10.0, SILENCE)) == free


@pytest.mark.parametrize(("heard_seconds", "counted"), [(9.0, 1), (3.9, 0)])
def test_a_backup_on_a_worker_that_has_frozen_keeps_no_other_from_beginning(heard_seconds: float, counted: int) -> None:
    task = TaskId("job", 1, 0, 0)
    workers = {"slow": worker("slow", heard_seconds=10.0), "copying": worker("copying", heard_seconds=heard_seconds)}
    attempts = {1: Attempt(worker="slow"), 2: Attempt(worker="copying")}
    out = OutTask(b"work", 1, False, 0, False, attempts, backups={2: Backup("copying", 0.0, None)})
    seen = known(workers, tasks={task: out}, phases={("job", 1): PhaseFigures(9, 0, Durations())}, backups=1)
    assert seen.view(10.0, [], youngest_seconds=0.5, silence_seconds=SILENCE).backups == counted


def test_tasks_of_milliseconds_make_no_worker_slow() -> None:
    for took, slowness in ((0.01, None), (2.0, pytest.approx(20.0, rel=0.2))):
        system = system_with(spec(50), workers=12)
        for number, task in enumerate(published(system)[:10], start=1):
            system.tell(TRACKER, TaskStarted(f"w{number}", task, 1))
            system.advance(took if number == 9 else took / 20)
            system.tell(TRACKER, succeeded(task, worker=f"w{number}"))
        tracker: Any = system.actors[TRACKER]
        assert tracker._known.workers["w9"].slowness == slowness


def told(*beats: tuple[float, float], resumed: bool = False) -> float | None:
    """Return the rate of an attempt that began at 0 s and told of its progress at some moments."""
    attempt = Attempt()
    attempt.begin("w", 0.0, resumed=resumed)
    for now, progress in beats:
        attempt.tell(progress, progress, 0, now)
    return attempt.rate


def test_a_rate_is_measured_over_a_fourth_of_what_the_attempt_takes() -> None:
    assert told((2.0, 0.1)) is None
    assert told((2.0, 0.1), (4.0, 0.2)) == pytest.approx(0.05)
    # While buffers fill that nobody sees, little seems to be done between two heartbeats.
    assert told((2.0, 0.16), (3.0, 0.18)) == pytest.approx(0.06)
    # It takes some 20 s, of which 5 s count: a moment's pause says little, and those that last are seen.
    steady = [(float(second), second / 20) for second in range(2, 11, 2)]
    assert told(*steady, (12.0, 0.5)) == pytest.approx(0.2 / 6)
    assert told(*steady, (12.0, 0.5), (14.0, 0.5), (16.0, 0.5)) == 0.0


def test_one_that_begins_from_what_is_stored_is_measured_from_then_on() -> None:
    assert told((2.0, 0.8), (4.0, 0.81), resumed=True) == pytest.approx(0.005)


@pytest.mark.parametrize("healthy_seconds", [20.0, 100.0, 600.0])
@pytest.mark.parametrize("slower", [20.0, math.inf])
def test_that_a_long_attempt_has_become_slow_is_known_after_a_fourth_of_it(
    healthy_seconds: float, slower: float
) -> None:
    attempt = Attempt()
    attempt.begin("w", 0.0, resumed=False)
    progress = now = 0.0
    while now < 1.2 * healthy_seconds:
        now += 0.5
        progress += 0.5 / healthy_seconds / (1.0 if progress < 0.9 else slower)
        attempt.tell(progress, progress, 0, now)
        assert len(attempt.places) <= MOST_PLACES
    assert attempt.rate is not None
    assert attempt.rate <= 1.1 / healthy_seconds / slower


def test_what_has_all_arrived_and_is_being_added_does_not_stand_still() -> None:
    attempt = Attempt()
    attempt.begin("w", 0.0, resumed=False)
    for beat in range(1, 20):
        attempt.tell(0.99, beat / 20, 0, float(beat))
    assert attempt.rate == pytest.approx(0.05)


def test_a_part_is_given_up_when_two_have_failed_it_and_not_for_those_who_may_not_make_it() -> None:
    task = OutTask(b"work", 1, False, 5, False, {})
    task.fail_part("w1", 3, refuses=True)
    task.fail_part("w2", 3, refuses=True)
    task.fail_part("w3", 3, refuses=False)
    assert task.given_up == frozenset()
    task.fail_part("w4", 3, refuses=False)
    assert task.given_up == {3}
    assert task.unhelpful == {"w1", "w2", "w3", "w4"}
