"""Attempts kept in little room are those that a fold finds that keeps everything as it is told."""

from __future__ import annotations

import math
import random
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from distsum.messages import (
    BackupStarted,
    Effort,
    Heartbeat,
    HelperAdded,
    JobFailed,
    JobStarted,
    JobSucceeded,
    NodeReopened,
    TaskFailed,
    TaskId,
    TaskStarted,
    TaskSucceeded,
    WorkerLost,
)
from distsum.observe.attempts import AttemptTable
from distsum.observe.history import History
from distsum.observe.snapshot import PhaseWork
from tests.property.test_history import EVIDENCE, drawn_run
from tests.recorded import Stored, recorded

WORK = (PhaseWork(6, 30, 600), PhaseWork(2, 6, 100))
NAMES = ("w1", "w2", "w3")


class Naive:
    """Every attempt as a dict in one list, which is gone through for each event."""

    def __init__(self):
        self.attempts = []
        self.backups = set()
        self.reopened = set()
        self.helpers = {}
        self.current = {}

    def of(self, task):
        return [each for each in self.attempts if each["task"] == task]

    def find(self, event):
        found = [
            each for each in self.of(event.task) if (each["worker"], each["number"]) == (event.worker, event.attempt)
        ]
        return found[-1] if found else None

    def unwanted(self, event):
        done = any(each["end"] == "done" and each["child"] is None for each in self.of(event.task))
        return (done and event.task not in self.reopened) or event.worker in self.helpers.get(event.task, ())

    def leave(self, worker, now, end):
        if (running := self.current.pop(worker, None)) is not None and running["end"] == "running":
            running.update(end=end, ended=now)

    def add(self, event, began, child=None, delivery=1):
        whole = [each for each in self.of(event.task) if each["why"] != "share"]
        why = "retry" if whole or delivery > 1 else "first"
        if child is not None:
            why = "share"
        elif event.attempt in self.backups:
            why = "backup"
        elif event.task in self.reopened and why == "retry":
            why = "again"
        if child is None:
            self.reopened.discard(event.task)
        attempt = {"task": event.task, "number": event.attempt, "worker": event.worker, "why": why, "began": began}
        attempt |= {"ended": None, "end": "running", "failure": None, "child": child, "read": 0, "delivery": delivery}
        attempt |= {"opened": 0, "stored": 0, "reused": False}
        self.attempts.append(attempt)
        return attempt

    def succeed(self, event, now):
        known = self.find(event) or self.add(event, None, event.child)
        effort = event.effort
        known.update(end="done", ended=now, read=effort.bytes_read, reused=event.reused)
        known.update(opened=effort.objects_read, stored=effort.objects_written)
        if event.child is None:
            self.helpers.pop(event.task, None)
            for other in self.of(event.task):
                if other["end"] == "running":
                    other.update(end="cancelled", ended=now)

    def take(self, event, now):
        match event:
            case TaskStarted():
                known = self.find(event)
                if known is not None and known["delivery"] >= event.delivery:
                    return
                if known is not None and known["end"] == "running":
                    known.update(end="lost", ended=now)
                self.leave(event.worker, now, "cancelled")
                self.current[event.worker] = self.add(event, now, event.child, event.delivery)
            case Heartbeat(task=None):
                self.leave(event.worker, now, "cancelled")
            case Heartbeat():
                known = self.find(event)
                if known is None and not self.unwanted(event):
                    self.take(TaskStarted(event.worker, event.task, 1, event.attempt), now)
                    known = self.find(event)
                if known is not None and known["end"] == "running":
                    known["read"] = event.bytes_read
            case TaskSucceeded():
                self.succeed(event, now)
            case TaskFailed():
                known = self.find(event) or self.add(event, None, event.child)
                end = "cancelled" if event.kind == "cancelled" else "failed"
                known.update(end=end, ended=now, failure=event.kind, read=max(known["read"], event.bytes_read))
            case BackupStarted():
                self.backups.add(event.attempt)
                self.helpers.setdefault(event.task, set()).update(event.helpers)
            case HelperAdded():
                self.helpers.setdefault(event.task, set()).add(event.worker)
            case NodeReopened():
                self.reopened.add(event.task)
            case WorkerLost():
                self.leave(event.worker, now, "lost")
            case JobSucceeded() | JobFailed():
                for worker in list(self.current):
                    self.leave(worker, now, "cancelled")


def plain(attempt):
    """Return an attempt of the table as the naive fold keeps it."""
    return {
        "task": attempt.task,
        "number": attempt.number,
        "worker": attempt.worker,
        "why": attempt.why,
        "began": attempt.began_seconds,
        "ended": attempt.ended_seconds,
        "end": attempt.end,
        "failure": attempt.failure,
        "child": attempt.child,
        "read": attempt.bytes_read,
        "opened": attempt.objects_read,
        "stored": attempt.objects_stored,
        "reused": attempt.reused,
    }


def assert_same(found, expected):
    """Compare all but for what a float32 cannot hold of how long an attempt took."""
    assert len(found) == len(expected)
    for mine, other in zip(map(plain, found), expected, strict=True):
        ended, told = mine.pop("ended"), other["ended"]
        assert mine == {name: value for name, value in other.items() if name not in {"ended", "delivery"}}
        assert (ended is None) == (told is None)
        assert ended is None or math.isclose(ended, told, rel_tol=1e-6, abs_tol=1e-6)


def when(attempt):
    return attempt["ended"] if attempt["began"] is None else attempt["began"]


def compare(work, log):
    """Fold a log both ways, and compare all that can be asked for."""
    table, naive = AttemptTable(work), Naive()
    started = False
    for now, event in log:
        started = started or isinstance(event, JobStarted)
        table.take(event, now)
        if started or not isinstance(getattr(event, "task", None), TaskId):
            naive.take(event, now)
    tasks = sorted({each["task"] for each in naive.attempts})
    for task in tasks:
        assert_same(table.attempts(task), sorted(naive.of(task), key=when))
    unusual = dict(table.unusual())
    assert list(unusual) == sorted(unusual, key=lambda task: (task.phase, task.tile, task.index))
    for task, attempts in unusual.items():
        assert attempts == table.attempts(task)
    for task in tasks:
        attempts = naive.of(task)
        usual = len(attempts) == 1 and attempts[0]["why"] == "first" and attempts[0]["end"] == "done"
        assert usual or task in unusual
    names = {each["worker"] for each in naive.attempts}
    assert names <= set(table.workers)
    end = log[-1][0]
    for name in names:
        mine = [each for each in naive.attempts if each["worker"] == name]
        found = table.time_line(name)
        assert [each.when for each in found] == sorted(each.when for each in found)
        assert sorted(map(repr, found)) == sorted(
            repr(each) for task in tasks for each in table.attempts(task) if each.worker == name
        )
        assert len(found) == len(mine)
        since, until = end * 0.3, end * 0.6
        there = [each for each in mine if when(each) <= until and (each["ended"] is None or each["ended"] >= since)]
        assert len(table.time_line(name, since, until)) == len(there)
    spans = table.spans()
    assert {len(column) for column in spans} == {len(naive.attempts)}
    got = sorted(zip([table.workers[number] for number in spans.worker], spans.phase.tolist(), strict=True))
    assert got == sorted((each["worker"], each["task"].phase) for each in naive.attempts)
    running = sum(each["end"] == "running" for each in naive.attempts)
    assert math.isclose(
        sum(seconds for seconds in spans.ended_seconds.tolist() if not math.isnan(seconds)),
        sum(each["ended"] for each in naive.attempts if each["ended"] is not None),
        rel_tol=1e-5,
        abs_tol=1e-5,
    )
    assert sum(map(math.isnan, spans.ended_seconds.tolist())) == running
    return table, naive


@settings(max_examples=50)
@given(st.integers(0, 2**32))
def test_attempts_of_a_job_of_the_real_actors(seed):
    run, log = drawn_run(seed)
    compare(run.work, log)


@cache
def recorded_log():
    history = History(Stored(recorded()))
    return history.header.work, list(history.events())


def test_attempts_of_a_job_with_slow_lost_and_failing_workers():
    _, naive = compare(*recorded_log())
    found = {(each["why"], each["end"]) for each in naive.attempts}
    assert {
        ("first", "done"),
        ("first", "cancelled"),
        ("first", "failed"),
        ("retry", "done"),
        ("backup", "done"),
    } <= found


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.floats(0.05, 1.0))
def test_attempts_at_any_moment_of_it_and_where_results_are_told_late(seed, share):
    work, log = recorded_log()
    draw = random.Random(seed)
    log = log[: max(5, int(len(log) * share))]
    late = {}
    told = []
    for now, event in log:
        told.append((now, event))
        worker = getattr(event, "worker", None)
        if isinstance(event, TaskStarted) and worker in late:
            told.append((now, late.pop(worker)))
        elif isinstance(event, TaskSucceeded) and event.child is None and draw.random() < 0.2:
            late[worker] = told.pop()[1]
    told += [(log[-1][0], event) for event in late.values()]
    # What was left and is not told of any more counts as cancelled at once here, in the table a moment later.
    told.append(
        (log[-1][0], JobFailed(log[-1][1].job if isinstance(log[-1][1], JobStarted) else "7f3a", "failed", "x"))
    )
    compare(work, told)


def drawn_event(draw):
    task = TaskId("job", draw.randint(1, 3), draw.randint(0, 2), draw.randint(0, 4))
    worker, number = draw.choice(NAMES), draw.choice([0, 1, 2, 3, 2**62, -(2**40)])
    child = draw.choice([None, None, 1])
    effort = Effort(draw.randint(0, 2**50), 10, draw.choice([7, 2**40]), 1, 0.1, 0.2, 0.3, 0.4, 5)
    return draw.choice(
        [
            TaskStarted(worker, task, draw.randint(1, 3), number, child),
            TaskSucceeded(worker, task, 1, (), draw.random() < 0.1, b"", effort, number, child),
            TaskFailed(
                worker, task, draw.choice(["cancelled", "storage", "blocked"]), "r", attempt=number, child=child
            ),
            Heartbeat(worker, draw.choice([None, task]), draw.randint(0, 99), attempt=number),
            WorkerLost(worker, "gone"),
            NodeReopened(task, draw.random() < 0.5),
            BackupStarted(task, number, worker, 1, "w1", "silent", EVIDENCE, helpers=("w3",)),
            JobStarted("job", "mean", 30, (6, 2), (0, 0)),
        ]
    )


@given(st.integers(0, 2**32))
def test_whatever_is_told_no_attempt_is_made_up_and_each_is_found_by_its_task_and_its_worker(seed):
    draw = random.Random(seed)
    table = AttemptTable(WORK)
    told = set()
    table.take(JobStarted("job", "mean", 30, (6, 2), (0, 0)), 0.0)
    for now in range(draw.randint(0, 60)):
        event = drawn_event(draw)
        table.take(event, float(now))
        if hasattr(event, "worker") and getattr(event, "task", None) is not None:
            told.add((event.worker, event.task, event.attempt))
    tasks = [TaskId("job", 1, tile, index) for tile in (0, 1) for index in range(3)]
    tasks += [TaskId("job", 2, tile, 0) for tile in (0, 1)]
    attempts = [each for task in tasks for each in table.attempts(task)]
    assert {(each.worker, each.task, each.number) for each in attempts} <= told
    assert all((each.ended_seconds is None) == (each.end == "running") for each in attempts)
    by_worker = [each for name in table.workers for each in table.time_line(name)]
    assert sorted(map(repr, by_worker)) == sorted(map(repr, attempts))
    assert len(table.spans().worker) == len(attempts)
