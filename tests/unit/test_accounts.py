"""Where each worker's time went, folded from events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from distsum.brokers.base import LEFT
from distsum.messages import (
    Effort,
    Heartbeat,
    JobSucceeded,
    TaskFailed,
    TaskId,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
    WorkerLost,
)
from distsum.observe.accounts import _GONE_KEPT, WorkerAccounts

if TYPE_CHECKING:
    from distsum.request import WorkerAccount

END = JobSucceeded("job", 1, (), ())


def task(index: int) -> TaskId:
    return TaskId("job", 1, 0, index)


def joined(name: str = "w", start_seconds: float = 0.5) -> WorkerJoined:
    return WorkerJoined(name, "h", 7, "v", 1, baseline_bytes=0, start_seconds=start_seconds)


def started(index: int, name: str = "w") -> TaskStarted:
    return TaskStarted(name, task(index), 1, attempt=index)


def succeeded(index: int, *spent: float, name: str = "w", child: int | None = None) -> TaskSucceeded:
    reading, adding, storing = spent
    effort = Effort(0, 0, 0, 0, 99.0, reading, adding, storing, 0)
    return TaskSucceeded(name, task(index), 1, (), False, b"", effort, attempt=index, child=child)


def folded(*events: tuple[float, Any]) -> dict[str, WorkerAccount]:
    accounts = WorkerAccounts()
    for now, event in events:
        accounts.take(event, now)
    return {account.worker: account for account in accounts.accounts(1000.0)}


def test_all_time_from_joining_to_the_jobs_end_is_in_one_kind_or_another() -> None:
    (account,) = folded(
        (1.0, joined()),
        (3.0, started(1)),
        (7.0, succeeded(1, 2.0, 1.0, 0.5)),
        (8.0, started(2)),
        (10.0, succeeded(2, 0.5, 1.0, 0.5)),
        (16.0, END),
    ).values()
    assert account.tasks == 2
    spent = {"starting": 0.5, "waiting": 9.5, "reading": 2.5, "adding": 2.0, "storing": 1.0, "discarded": 0.0}
    assert account.seconds == spent
    assert sum(spent.values()) - spent["starting"] == 15.0


@pytest.mark.parametrize(
    ("end", "seconds"),
    [
        ((6.0, TaskFailed("w", task(1), "error", "no", attempt=1)), 4.0),
        ((7.0, Heartbeat("w", None, 0)), 5.0),
        ((8.0, started(2)), 6.0),
        ((9.0, Heartbeat("w", task(3), 0, attempt=3)), 7.0),
        ((10.0, WorkerLost("w", "gone")), 8.0),
        ((11.0, END), 9.0),
    ],
    ids=["failed", "idle", "another", "another by its heartbeat", "lost", "the end"],
)
def test_an_attempt_without_a_result_is_discarded_until_its_worker_does_something_else(end, seconds) -> None:
    account = folded((0.0, joined()), (2.0, started(1)), end)["w"]
    assert account.seconds["discarded"] == seconds
    assert account.seconds["waiting"] >= 2.0


def test_a_failure_that_is_told_after_the_next_attempt_has_begun_ends_only_its_own() -> None:
    first, following = (TaskFailed("w", task(each), "storage", "why", attempt=each) for each in (20, 26))
    begun = (0.0, joined()), (1.0, started(20)), (3.0, started(26))
    (account,) = folded(*begun, (4.0, first), (9.0, following), (10.0, END)).values()
    assert account.seconds["discarded"] == (3.0 - 1.0) + (9.0 - 3.0)


def test_a_result_that_a_heartbeat_or_its_own_start_has_overtaken_counts_once() -> None:
    account = folded(
        (0.0, joined()),
        (1.0, started(1)),
        (5.0, Heartbeat("w", None, 0)),
        (5.1, succeeded(1, 3.0, 0.0, 0.0)),
        (5.2, started(1)),
        (5.3, Heartbeat("w", task(1), 7, attempt=1)),
        (10.0, END),
    )["w"]
    assert (account.seconds["discarded"], account.seconds["reading"], account.tasks) == (0.0, 3.0, 1)
    assert account.seconds["waiting"] == 7.0


@pytest.mark.parametrize("busy", [True, False])
def test_the_time_of_a_worker_that_has_vanished_ends_when_it_was_last_heard(*, busy: bool) -> None:
    heard = (12.0, Heartbeat("w", task(1), 5, attempt=1) if busy else Heartbeat("w", None, 0))
    events = [(0.0, joined()), *([(2.0, started(1))] if busy else []), heard]
    lost = WorkerLost("w", "no heartbeat for 25 s", silent_seconds=25.0)
    account = folded(*events, (37.0, lost), (60.0, END))["w"]
    assert account.seconds["waiting"] == (2.0 if busy else 12.0)
    assert account.seconds["discarded"] == (10.0 if busy else 0.0)
    # A job that has begun meanwhile had nothing of it; and who was told to leave was there until it did.
    assert folded((30.0, joined()), (37.0, lost), (60.0, END))["w"].seconds["waiting"] == 0.0
    left = WorkerLost("w", LEFT, silent_seconds=1.5)
    assert folded((0.0, joined()), (12.0, left), (60.0, END))["w"].seconds["waiting"] == 12.0


def test_a_child_made_for_others_is_work_and_no_task() -> None:
    account = folded((0.0, joined()), (1.0, started(1)), (5.0, succeeded(1, 1.0, 1.0, 1.0, child=2)), (6.0, END))["w"]
    assert (account.tasks, account.seconds["adding"], account.seconds["discarded"]) == (0, 1.0, 0.0)


def test_a_worker_that_joins_twice_or_comes_back_is_there_only_while_it_is() -> None:
    account = folded((0.0, joined()), (1.0, joined()), (2.0, WorkerLost("w", "silent")), (7.0, joined()), (10.0, END))[
        "w"
    ]
    assert (account.seconds["starting"], account.seconds["waiting"]) == (0.5, 5.0)
    unknown = folded((4.0, started(1, "x")), (5.0, succeeded(1, 1.0, 0.0, 0.0, name="x")), (7.0, END))["x"]
    assert unknown.seconds["waiting"] == 2.0, "of one that nobody has told of"


def test_many_that_are_gone_are_put_together_and_nothing_is_lost() -> None:
    accounts = WorkerAccounts()
    count = _GONE_KEPT + 20
    for number in range(count):
        name = f"w{number:05}"
        accounts.take(joined(name), 0.0)
        accounts.take(started(number, name), 1.0)
        accounts.take(succeeded(number, 1.0, 0.0, 0.0, name=name), 2.0)
        accounts.take(WorkerLost(name, "ended"), 3.0)
    found = accounts.accounts(5.0)
    assert len(found) == _GONE_KEPT + 1
    assert (found[-1].worker, found[-1].tasks) == ("20 others", 20)
    assert sum(account.tasks for account in found) == count
    assert accounts.seconds(5.0)["waiting"] == 2.0 * count


def test_an_attempt_under_way_is_not_yet_called_waiting_or_discarded() -> None:
    accounts = WorkerAccounts()
    accounts.take(joined(), 0.0)
    accounts.take(started(1), 4.0)
    assert accounts.seconds(9.0) | {"starting": 0.0} == dict.fromkeys(accounts.seconds(9.0), 0.0) | {"waiting": 4.0}
