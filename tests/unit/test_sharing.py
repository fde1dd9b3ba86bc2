"""Who is given which child of a node that several workers make: a function of numbers."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from distsum.actors.sharing import AddHelper, DeclineHelper, helpers_to_add, open_children
from distsum.actors.speculation import (
    Durations,
    Idle,
    PhaseView,
    Running,
    SpeculationSettings,
    StartBackup,
    View,
    decide,
)
from distsum.messages import TaskId

SETTINGS = SpeculationSettings()
COPY_SECONDS = 10.0


def attempt(
    progress: float, rate: float | None, *, index: int = 0, begun: tuple[int, ...] = (), **changes: Any
) -> Running:
    """Return an attempt at a node of five children that is shared; a copy takes 10 s, and so 2 s for a child."""
    fields: dict[str, Any] = {
        "task": TaskId("job", 1, 0, index),
        "attempt": 100 + index,
        "worker": f"w{index}",
        "hosts": frozenset({f"h{index}"}),
        "elapsed_seconds": 5.0,
        "copies": 1,
        "splits": 5,
        "backup": 200 + index,
    }
    return Running(progress=progress, rate=rate, begun=frozenset(begun), **(fields | changes))


def added(*attempts: Running, idle: int = 1, copy_seconds: float = COPY_SECONDS) -> list[AddHelper]:
    return [each for each in decided(*attempts, idle=idle, copy_seconds=copy_seconds) if isinstance(each, AddHelper)]


def decided(*attempts: Running, idle: int, copy_seconds: float = COPY_SECONDS) -> list[AddHelper | DeclineHelper]:
    workers = [Idle(f"i{number}", f"idle{number}") for number in range(idle)]
    return list(helpers_to_add(attempts, copy_seconds, workers, SETTINGS))


def test_who_idles_later_is_given_the_last_child_that_nobody_has_begun() -> None:
    crawling, copy = attempt(0.1, 0.01, begun=(4,)), attempt(0.2, 0.1, begun=(4,))
    (helper,) = added(crawling, copy)
    assert (helper.backup, helper.worker, helper.child) == (200, "i0", 3)
    assert helper.takes_seconds == pytest.approx(2.0)
    assert helper.reached_seconds == pytest.approx(4.0), "the copy makes 1 and 2 before it comes to 3"


def test_slices_are_open_that_lie_before_no_copy_however_far_the_straggler_is() -> None:
    """It makes none, so that none is made where it stands; that it comes to its end soon is another matter."""
    straggler = attempt(0.8, 0.001, meets=False, splits=8)
    assert open_children([straggler]) == [7, 6, 5, 4, 3, 2, 1]
    assert open_children([straggler, attempt(0.3, 0.1, splits=8)]) == [7, 6, 5, 4, 3]
    (helper,) = added(straggler)
    assert (helper.child, helper.takes_seconds) == (7, COPY_SECONDS / 8)
    # A twentieth of a copy's time is left: it is done before anybody has made a slice.
    assert added(attempt(0.95, 0.1, meets=False, splits=8)) == []
    assert added(attempt(0.7, 0.1, meets=False, splits=8)) != []


def test_several_are_given_different_children_and_no_child_is_given_that_would_be_made_twice() -> None:
    copy = attempt(0.0, 0.1)
    assert [each.child for each in added(copy, idle=9)] == [4, 3, 2], "it comes to 1 as soon as that could be made"
    assert [each.child for each in added(attempt(0.0, 0.1, begun=(4, 3)), idle=9)] == [2]
    assert added(attempt(0.0, 0.1, begun=(4, 3, 2)), idle=9) == []
    # A child that others make is passed, and takes nobody any time.
    (late,) = added(attempt(0.0, 0.1, begun=(1, 3)), idle=9)
    assert (late.child, late.reached_seconds) == (4, pytest.approx(4.0))


def test_where_others_come_to_a_child_soon_that_is_told_of_the_worker_that_would_have_made_it() -> None:
    near, nearer = attempt(0.0, 0.1, begun=(4, 3, 2), index=1), attempt(0.7, 0.1, index=2)
    first, second = decided(near, nearer, idle=3)
    assert isinstance(first, DeclineHelper)
    assert (first.task.index, first.backup, first.worker, first.child) == (1, 201, "i2", 1)
    assert (first.reached_seconds, first.takes_seconds) == (pytest.approx(2.0), pytest.approx(2.0))
    # One a node: to the children before that one they come sooner still.
    assert isinstance(second, DeclineHelper)
    assert (second.task.index, second.worker, second.child, second.reached_seconds) == (2, "i2", 4, pytest.approx(1.0))
    *given, declined = decided(attempt(0.0, 0.1), idle=9)
    assert [type(each) for each in given] == [AddHelper] * 3
    assert isinstance(declined, DeclineHelper)
    assert declined.worker not in {each.worker for each in given}


def test_where_nobody_idles_or_nothing_is_open_nobody_is_declined() -> None:
    assert decided(attempt(0.0, 0.1, begun=(4, 3, 2)), idle=0) == []
    assert [type(each) for each in decided(attempt(0.0, 0.1), idle=3)] == [AddHelper] * 3
    assert decided(attempt(0.9, 0.1), idle=3) == []


def test_what_was_told_a_while_ago_counts_from_then() -> None:
    assert added(attempt(0.2, 0.1, begun=(4,), progress_seconds=0.9))
    assert added(attempt(0.2, 0.1, begun=(4,), progress_seconds=1.1)) == []


def test_a_silent_attempt_comes_to_no_child_and_one_that_makes_none_neither() -> None:
    for still in (attempt(0.3, 0.1, silent_seconds=7.0), attempt(0.3, 0.0)):
        (helper, *_) = added(still)
        assert (helper.child, helper.reached_seconds) == (4, None)
    moving = attempt(0.3, 0.1)
    assert added(attempt(0.3, 0.0), moving) == added(moving)


def test_progress_that_has_leapt_over_what_others_made_makes_no_attempt_faster_than_is_usual() -> None:
    assert added(attempt(0.2, 5.0, begun=(4,))) == added(attempt(0.2, 0.1, begun=(4,)))


def test_a_slow_worker_and_a_short_task_and_one_that_is_not_shared_are_left_alone() -> None:
    slow = [Idle("crawls", "x", 3.0)]
    phase = PhaseView(tasks=9, done=8, durations=finished(8), running=[attempt(0.0, 0.1)])
    view = View(phases=[phase], idle=slow, workers=10, hosts=10)
    assert decide(view, SETTINGS) == ()
    assert added(attempt(0.0, 1.0), copy_seconds=1.0) == []
    assert added(attempt(0.0, 0.1, backup=None, copies=0)) == []
    assert added(attempt(0.0, 0.1, splits=0)) == []


def test_what_has_only_arrived_tells_how_fast_an_attempt_is_and_not_where() -> None:
    copy = attempt(0.9, 0.1, begun=(4,), added=0.1)
    (helper,) = added(copy)
    assert helper.child == 3, "it is at child 0, of which it has added half"
    assert helper.reached_seconds == pytest.approx(5.0), "half of child 0, and those between, of 2 s each"


def test_where_nothing_has_finished_the_fastest_attempt_tells_what_a_child_takes() -> None:
    (helper,) = added(attempt(0.05, 0.001), attempt(0.2, 0.05), copy_seconds=0.0)
    assert (helper.child, helper.takes_seconds) == (4, pytest.approx(4.0))
    assert added(attempt(0.0, None), copy_seconds=0.0) == [], "nothing is known at all"


def test_the_node_that_takes_longest_still_goes_first() -> None:
    near, far = attempt(0.4, 0.1, index=1), attempt(0.0, 0.1, index=2)
    assert [(each.task.index, each.child) for each in added(near, far, idle=4)] == [(2, 4), (2, 3), (2, 2), (1, 4)]


def test_a_second_copy_shares_no_child_that_helpers_of_the_first_make() -> None:
    crawling = attempt(0.1, 0.001, begun=(4, 2), copies=0, elapsed_seconds=30.0)
    phase = PhaseView(tasks=10, done=9, durations=finished(9), running=[crawling])
    idle = [Idle(f"i{number}", f"idle{number}") for number in range(9)]
    started, *others = decide(View(phases=[phase], idle=idle, workers=20, hosts=20), SETTINGS)
    assert isinstance(started, StartBackup)
    assert [child for _, child in started.helpers] == [3, 1]
    assert others == [], "what is shared out now is not given away a second time"


def test_no_worker_is_given_two_things() -> None:
    attempts = [attempt(0.1, 0.001, index=index, elapsed_seconds=30.0) for index in range(3)]
    attempts.append(msgspec.structs.replace(attempts[0], task=TaskId("job", 1, 0, 9), backup=None, copies=0))
    phase = PhaseView(tasks=20, done=16, durations=finished(16), running=attempts)
    idle = [Idle(f"i{number}", f"idle{number}") for number in range(7)]
    given: list[str] = []
    for each in decide(View(phases=[phase], idle=idle, workers=40, hosts=40), SETTINGS):
        if isinstance(each, StartBackup):
            given += [each.worker, *(worker for worker, _ in each.helpers)]
        elif isinstance(each, AddHelper):
            given.append(each.worker)
    assert len(given) == len(set(given)) == 7


def test_a_child_is_open_that_lies_before_nobody_and_that_no_helper_has() -> None:
    assert open_children([attempt(0.1, None, begun=(3,)), attempt(0.25, None, begun=(3,))]) == [4, 2]
    assert open_children([attempt(1.0, None)]) == []
    assert math.isinf(attempt(0.5, 0.0).left_seconds(1.0))


def finished(count: int) -> Durations:
    durations = Durations()
    for _ in range(count):
        durations.add(COPY_SECONDS)
    return durations
