"""What is taken for a straggler, and what is done about it: a function of numbers."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from distsum.actors.speculation import (
    Decision,
    Decline,
    Durations,
    Idle,
    PhaseView,
    Running,
    SpeculationSettings,
    StartBackup,
    View,
    decide,
    default_settings,
)
from distsum.messages import TaskId

SETTINGS = SpeculationSettings()


def finished(*seconds: float) -> Durations:
    durations = Durations()
    for each in seconds:
        durations.add(each)
    return durations


def running(index: int = 0, **changes: Any) -> Running:
    fields: dict[str, Any] = {
        "task": TaskId("job", 1, 0, index),
        "attempt": 100 + index,
        "worker": f"w{index}",
        "hosts": frozenset({f"h{index}"}),
        "elapsed_seconds": 1.0,
    }
    return Running(**(fields | changes))


def decisions(
    *attempts: Running,
    tasks: int = 100,
    done: int = 80,
    durations: Durations | None = None,
    idle: int = 1,
    settings: SpeculationSettings = SETTINGS,
    **changes: Any,
) -> tuple[Decision, ...]:
    phase = PhaseView(tasks=tasks, done=done, durations=durations or finished(*[1.0] * done), running=attempts)
    fields: dict[str, Any] = {
        "phases": [phase],
        "idle": [Idle(f"i{number}", f"idle{number}") for number in range(idle)],
        "workers": 100,
        "hosts": 100,
    }
    return decide(View(**(fields | changes)), settings)


def test_an_attempt_beyond_the_multiple_of_the_mean_is_copied_once_enough_of_its_phase_is_done() -> None:
    slow = running(elapsed_seconds=1.21 * 2, progress=0.01)
    durations = finished(*[2.0] * 76)
    (copied,) = decisions(slow, done=76, durations=durations)
    assert isinstance(copied, StartBackup)
    assert (copied.worker, copied.reason) == ("i0", "slow_attempt")
    assert (copied.evidence.mean_seconds, copied.evidence.done, copied.evidence.tasks) == (2.0, 76, 100)
    assert (copied.evidence.limit_times, copied.evidence.limit_seconds) == (1.2, 2.4)
    assert (copied.evidence.gain_times, copied.evidence.most_backups) == (1.5, 25)
    assert decisions(slow, done=75, durations=durations, idle=0) == (), "exactly three quarters are not more"
    assert decisions(running(elapsed_seconds=2.39), done=76, durations=durations) == ()


def test_what_is_nearly_done_is_not_copied_and_that_is_told_with_its_numbers() -> None:
    (declined,) = decisions(running(elapsed_seconds=2.3, progress=0.91))
    assert isinstance(declined, Decline)
    assert (declined.suspicion, declined.reason) == ("slow_attempt", "ends_sooner")
    assert declined.evidence.left_seconds == pytest.approx(2.3 / 0.91 * 0.09)
    assert declined.evidence.copy_seconds == 1.0


def test_no_attempt_is_a_straggler_before_the_least_time() -> None:
    short = finished(*[0.01] * 80)
    assert decisions(running(elapsed_seconds=0.4), durations=short) == ()
    assert len(decisions(running(elapsed_seconds=0.6), durations=short)) == 1


def test_a_copy_never_goes_to_a_host_where_the_task_runs_unless_there_is_no_other() -> None:
    slow = running(elapsed_seconds=9.0, hosts=frozenset({"idle0"}))
    (declined,) = decisions(slow)
    assert isinstance(declined, Decline)
    assert declined.reason == "same_host"
    (copied,) = decisions(slow, idle=2)
    assert isinstance(copied, StartBackup)
    assert copied.worker == "i1"
    assert isinstance(decisions(slow, hosts=1)[0], StartBackup)


def test_no_copy_goes_to_a_worker_known_to_be_slow_and_the_fastest_is_taken() -> None:
    slow = running(elapsed_seconds=9.0)
    idle = [Idle("crawls", "x", 5.0), Idle("usual", "y", 1.0), Idle("quick", "z", 0.5)]
    phase = PhaseView(tasks=100, done=80, durations=finished(*[1.0] * 80), running=[slow])
    view = View(phases=[phase], idle=idle, workers=100, hosts=100)
    assert [each.worker for each in decide(view, SETTINGS) if isinstance(each, StartBackup)] == ["quick"]
    (declined,) = decide(msgspec.structs.replace(view, idle=idle[:1]), SETTINGS)
    assert isinstance(declined, Decline)
    assert declined.reason == "no_idle_worker"


def test_each_of_many_copies_goes_to_the_best_worker_that_is_left_and_none_is_looked_at_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    idle = [Idle(f"i{each}", f"h{each % 7}", 0.5 + each * 37 % 60 / 40, each * 11 % 13 / 10) for each in range(60)]
    attempts = [running(each, elapsed_seconds=9.0, hosts=frozenset({f"h{each % 7}"})) for each in range(40)]
    settings = SpeculationSettings(max_share=1.0, quantile=0.5)
    expected, free = [], list(idle)
    for attempt in attempts:
        best = min((each for each in free if each.host not in attempt.hosts), key=lambda each: each.rank)
        free.remove(best)
        expected.append((attempt.task, best.worker))
    ranked = []
    rank = Idle.rank.fget
    monkeypatch.setattr(Idle, "rank", property(lambda each: ranked.append(each) or rank(each)))
    phase = PhaseView(tasks=100, done=60, durations=finished(*[1.0] * 60), running=attempts)
    found = decide(View(phases=[phase], idle=idle, workers=100, hosts=100), settings)
    assert [(each.running.task, each.worker) for each in found if isinstance(each, StartBackup)] == expected
    assert len(ranked) == len(idle)


def test_the_most_urgent_comes_first_and_the_cap_ends_it() -> None:
    attempts = [running(index, elapsed_seconds=2.0 + index, progress=0.1) for index in range(4)]
    found = decisions(*attempts, idle=4, workers=8)
    assert [type(each) for each in found] == [StartBackup, StartBackup, Decline, Decline]
    assert [each.running.elapsed_seconds for each in found] == [5.0, 4.0, 3.0, 2.0]
    assert {each.reason for each in found if isinstance(each, Decline)} == {"cap"}
    assert all(isinstance(each, Decline) for each in decisions(*attempts, idle=4, workers=8, backups=2))


def test_a_worker_that_falls_silent_is_copied_whatever_is_done() -> None:
    frozen = running(elapsed_seconds=7.0, silent_seconds=6.5, progress=0.99)
    (copied,) = decisions(frozen, done=1, durations=finished(10.0))
    assert isinstance(copied, StartBackup)
    assert (copied.reason, copied.evidence.left_seconds) == ("silent", None)
    assert (copied.evidence.limit_times, copied.evidence.limit_seconds) == (None, 6.0)
    assert decisions(running(silent_seconds=5.5), done=1, durations=finished(10.0)) == ()


def test_while_others_idle_a_slow_worker_and_a_slow_rate_are_copied_without_waiting_for_the_phase() -> None:
    early: dict[str, Any] = {"done": 10, "durations": finished(*[1.0] * 10)}
    known = running(elapsed_seconds=0.1, slowness=8.0)
    crawling = running(elapsed_seconds=0.9, progress=0.05, rate=0.05)
    for attempt, reason, limit in ((known, "slow_worker", None), (crawling, "slow_rate", 2.0)):
        (copied,) = decisions(attempt, **early)
        assert isinstance(copied, StartBackup)
        assert copied.reason == reason
        assert (copied.evidence.limit_times, copied.evidence.limit_seconds) == (2.0, limit)
        assert decisions(attempt, **early, idle=0) == ()
    assert decisions(running(elapsed_seconds=0.9, progress=0.6), **early) == ()
    brief = early | {"durations": finished(*[0.01] * 10)}
    assert decisions(known, **brief) == (), "it costs a few hundredths of a second"


@pytest.mark.parametrize(("tasks", "done"), [(3, 2), (2, 1), (4, 3), (1, 0)])
def test_small_phases_and_the_last_task_get_help_though_no_share_of_them_says_much(tasks: int, done: int) -> None:
    slow = running(elapsed_seconds=3.0, progress=0.05, bytes_read=50)
    durations = finished(*[1.0] * done)
    # With nothing finished in the phase, what workers read elsewhere tells what is usual: 1000 bytes take a second.
    (copied,) = decisions(slow, tasks=tasks, done=done, durations=durations, bytes_per_second=1000.0)
    assert isinstance(copied, StartBackup)


@pytest.mark.parametrize(("tasks", "done"), [(3, 1), (3, 2), (4, 3)])
def test_of_a_small_phase_and_for_its_last_task_the_rule_waits_for_no_share(tasks: int, done: int) -> None:
    untold = running(elapsed_seconds=3.0)  # with no progress, so that nothing but the rule speaks against it
    (copied,) = decisions(untold, tasks=tasks, done=done)
    assert isinstance(copied, StartBackup)
    assert (copied.reason, copied.evidence.limit_times) == ("slow_attempt", 1.2)
    assert decisions(untold, tasks=tasks + 3, done=done) == (), "of more tasks not enough are done"


def test_a_task_is_copied_again_only_when_every_attempt_at_it_is_a_straggler_and_not_without_end() -> None:
    first = running(0, elapsed_seconds=9.0, progress=0.01, copies=1)
    second = running(0, attempt=200, worker="w9", elapsed_seconds=5.0, progress=0.01, copies=1)
    healthy = msgspec.structs.replace(second, elapsed_seconds=0.5, progress=0.5)
    assert decisions(first, healthy, idle=3) == ()
    assert len(decisions(first, second, idle=3)) == 1
    twice = [msgspec.structs.replace(each, copies=2) for each in (first, second)]
    third = msgspec.structs.replace(second, attempt=300, copies=2)
    assert decisions(*twice, third, idle=3) == ()


def test_idle_workers_share_what_is_left_of_a_stragglers_node_the_last_children_first() -> None:
    slow = running(elapsed_seconds=20.0, progress=0.25, splits=5)
    durations = finished(*[10.0] * 80)
    (copied,) = decisions(slow, idle=8, durations=durations)
    assert isinstance(copied, StartBackup)
    assert [child for _, child in copied.helpers] == [4, 3, 2], "it works on child 1, which the copy makes, too"
    assert len({copied.worker, *(worker for worker, _ in copied.helpers)}) == 4
    (alone,) = decisions(slow, idle=1, durations=durations)
    assert isinstance(alone, StartBackup)
    assert alone.helpers == ()


def test_progress_that_is_stale_is_not_believed() -> None:
    stalled = running(elapsed_seconds=10.0, progress=0.5, progress_seconds=4.0)
    assert stalled.left_seconds(1.0) == pytest.approx(2.0)
    assert stalled.left_seconds(1.0, stale_seconds=3.0) == 10.0
    assert running(elapsed_seconds=3.0, progress=0.5, rate=0.0).left_seconds(1.0) == math.inf


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("none", 0), ("bare", 4), ("spark", 3), ("late", 1), ("mapreduce", 4)],
)
def test_other_policies_are_what_their_systems_do(policy: Any, expected: int) -> None:
    settings = SpeculationSettings(policy=policy, multiplier=1.5 if policy == "spark" else 1.2)
    attempts = [running(index, elapsed_seconds=1.3 + 0.3 * index, progress=0.9) for index in range(4)]
    found = decisions(*attempts, tasks=84, done=80, idle=9, settings=settings)
    assert len([each for each in found if isinstance(each, StartBackup)]) == expected


def copied(*attempts: Running, policy: Any, **changes: Any) -> list[int]:
    """Return which tasks a policy copies."""
    found = decisions(*attempts, settings=default_settings(policy), idle=9, **changes)
    return [each.running.task.index for each in found if isinstance(each, StartBackup)]


def test_spark_goes_by_the_median_and_copies_nothing_that_has_run_for_less_than_a_tenth_of_a_second() -> None:
    skewed = finished(*[1.0] * 75, *[20.0] * 5)  # their mean is over 2 s
    attempts = [running(0, elapsed_seconds=1.3), running(1, elapsed_seconds=1.7)]
    assert copied(*attempts, policy="spark", durations=skewed) == [1]
    assert copied(*attempts, policy="bare", durations=skewed) == []
    assert copied(*attempts, policy="spark", durations=skewed, tasks=107) == [], (
        "80 of 107 are less than three quarters"
    )
    short = finished(*[0.01] * 80)
    attempts = [running(0, elapsed_seconds=0.09), running(1, elapsed_seconds=0.11)]
    assert copied(*attempts, policy="spark", durations=short) == [1]


def test_late_copies_the_slowest_quarter_by_its_rate_up_to_a_tenth_of_the_workers() -> None:
    attempts = [running(index, elapsed_seconds=2.0, progress=0.5 + 0.01 * (index * 7 % 12)) for index in range(12)]
    assert copied(*attempts, policy="late") == [0, 7, 2], "those with the least progress, the longest time left first"
    assert copied(*attempts, policy="late", workers=20) == [0, 7]
    unknown = [running(index, elapsed_seconds=9.0) for index in range(12, 20)]
    assert copied(*attempts, *unknown, policy="late") == [0, 7, 2], "of the others no rate is known"
    just_found = running(0, elapsed_seconds=0.0, progress=0.5)  # its start was lost, and it tells how far it is
    assert copied(just_found, policy="late") == [0]


def test_mapreduce_copies_what_is_under_way_when_nothing_of_its_phase_waits() -> None:
    attempts = [running(index, elapsed_seconds=0.2) for index in range(3)]
    assert sorted(copied(*attempts, policy="mapreduce", tasks=83)) == [0, 1, 2]
    assert copied(*attempts, policy="mapreduce", tasks=84) == []


def test_quantiles_of_durations_are_within_five_percent_whatever_their_size() -> None:
    durations = finished(*[0.001 * 1.01**number for number in range(1000)])
    assert durations.quantile_seconds(0.5) == pytest.approx(0.001 * 1.01**500, rel=0.06)
    assert finished().quantile_seconds(0.5) == finished().mean_seconds == 0.0


def test_of_equally_fast_workers_a_copy_goes_to_the_one_that_was_heard_last() -> None:
    # One that has vanished a moment ago looks idle until its silence is noticed.
    idle = [Idle("gone", "h", silent_seconds=1.9), Idle("here", "h", 1.1, 0.2), Idle("slower", "h", 1.6, 0.0)]
    slow = running(elapsed_seconds=3.0)
    phase = PhaseView(tasks=100, done=90, durations=finished(*[1.0] * 90), running=[slow])
    (decision,) = decide(View(phases=[phase], idle=idle, workers=9, hosts=9), SETTINGS)
    assert isinstance(decision, StartBackup)
    assert decision.worker == "here"


def test_of_two_or_three_attempts_one_is_slow_by_the_fastest_where_nobody_has_finished_anything() -> None:
    nothing: dict[str, Any] = {"tasks": 3, "done": 0, "durations": Durations()}
    fast = running(1, elapsed_seconds=4.0, progress=0.2, bytes_read=200)
    slow = running(2, elapsed_seconds=4.0, progress=0.01, rate=0.0025, bytes_read=10)
    (decision,) = decisions(fast, slow, **nothing)
    assert isinstance(decision, StartBackup)
    assert (decision.running, decision.reason) == (slow, "slow_rate")
    assert decision.evidence.copy_seconds == pytest.approx(20.0)
    assert decisions(slow, **nothing) == (), "there is nothing to compare it with"
    leaping = msgspec.structs.replace(fast, progress=0.9, copies=1)
    assert decisions(leaping, running(3, elapsed_seconds=4.0, progress=0.2, bytes_read=200), **nothing) == ()


def test_a_node_that_is_smaller_than_the_others_makes_none_of_them_slow() -> None:
    nothing: dict[str, Any] = {"tasks": 3, "done": 0, "durations": Durations()}
    small = running(1, elapsed_seconds=4.0, progress=0.5, bytes_read=200)
    whole = running(2, elapsed_seconds=4.0, progress=0.2, bytes_read=200)
    assert decisions(small, whole, **nothing) == ()
    crawling = running(2, elapsed_seconds=4.0, progress=0.02, rate=0.005, bytes_read=20)
    assert len(decisions(small, crawling, **nothing)) == 1


def test_how_far_an_attempt_is_the_first_time_it_tells_does_not_make_it_slow() -> None:
    early: dict[str, Any] = {"done": 10, "durations": finished(*[4.0] * 10)}
    # It took 0.7 s to open its files, say, and has told once, at 0.8 s.
    first = running(elapsed_seconds=0.9, progress_seconds=0.1, progress=0.01)
    assert decisions(first, **early) == ()
    again = msgspec.structs.replace(first, elapsed_seconds=1.4, progress_seconds=0.1, progress=0.15, rate=0.28)
    assert decisions(again, **early) == ()
    crawling = msgspec.structs.replace(again, progress=0.02, rate=0.02)
    late = msgspec.structs.replace(first, elapsed_seconds=1.2)  # told first when a copy would have done a fourth
    unheard = msgspec.structs.replace(first, elapsed_seconds=8.1, progress_seconds=7.3)
    for slow in (crawling, late, unheard):
        (copied,) = decisions(slow, **early)
        assert isinstance(copied, StartBackup), slow


def test_what_has_just_begun_is_not_told_of_when_no_worker_can_copy_it() -> None:
    known = running(elapsed_seconds=0.0, slowness=8.0)
    others = [running(index, elapsed_seconds=3.0, slowness=20.0) for index in (1, 2)]
    taken, told = decisions(known, *others, idle=1, done=10, durations=finished(*[1.0] * 10))
    assert isinstance(taken, StartBackup)
    assert isinstance(told, Decline)
    assert {taken.running, told.running} == set(others)


def test_what_an_attempt_has_told_in_its_first_moment_says_nothing_of_rates() -> None:
    nothing: dict[str, Any] = {"tasks": 9, "done": 0, "durations": Durations()}

    def begun(index: int, told_seconds: float, progress: float) -> Running:
        times = {"elapsed_seconds": 2.0, "progress_seconds": 2.0 - told_seconds}
        return running(index, **times, progress=progress, rate=progress / told_seconds, bytes_read=10**6)

    # Heartbeats that were sent 10 ms after the beginning, of which the tracker has heard 9 ms later.
    early = [begun(index, 0.001, 0.0005) for index in range(1, 4)]
    usual = [begun(index, 1.0, 0.05) for index in range(4, 6)]
    assert decisions(*early, *usual, **nothing) == ()
    assert len(decisions(*(begun(index, 1.0, 0.5) for index in range(1, 4)), *usual, idle=2, **nothing)) == 2
