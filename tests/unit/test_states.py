"""The state of every task, followed through its events, and drawn as few cells of which the worst state wins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distsum.messages import (
    BackupEnded,
    BackupStarted,
    Effort,
    Evidence,
    Heartbeat,
    JobFailed,
    NodeReopened,
    TaskFailed,
    TaskId,
    TaskRetried,
    TaskReturned,
    TaskStarted,
    TaskSucceeded,
)
from distsum.observe.snapshot import PhaseWork
from distsum.observe.states import (
    BACKUP,
    DONE,
    FAILED,
    NAMES,
    QUEUED,
    RUNNING,
    WAITING,
    TaskStates,
    aggregate,
    tasks_per_cell,
)

TASK = TaskId("job", 1, 0, 3)
EVIDENCE = Evidence(
    elapsed_seconds=3.0,
    mean_seconds=1.0,
    left_seconds=9.0,
    copy_seconds=1.0,
    progress=0.2,
    slowness=None,
    silent_seconds=0.0,
    done=3,
    tasks=4,
)
EFFORT = Effort(1000, 10, 7, 1, 0.1, 0.2, 0.3, 0.4, 5)

START = TaskStarted("w1", TASK, 1, attempt=1)
DOES = TaskSucceeded("w1", TASK, 1, (), reused=False, receipt=b"", effort=EFFORT, attempt=1)
COPY = BackupStarted(TASK, 2, "w2", 1, "w1", "slow_attempt", EVIDENCE)
BEATS = Heartbeat("w1", TASK, 10, attempt=1)


def failed(kind):
    return TaskFailed("w1", TASK, kind, "why", attempt=1)


def copy_ended(outcome):
    return BackupEnded(TASK, 2, "w2", outcome, 1.0, 0.0, 0)


def followed(*events):
    """Return the state of the task after some events; no other task may have changed."""
    states = TaskStates((PhaseWork(5, 25, 100), PhaseWork(1, 5, 10)))
    for event in events:
        states.take(event)
    first, second = states.phases()
    assert set(first.states[:3] + first.states[4:] + second.states) == {WAITING}
    return first.states[3]


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], WAITING),
        ([START], RUNNING),
        ([BEATS], RUNNING),
        ([START, DOES], DONE),
        ([DOES], DONE),
        ([START, DOES, BEATS], DONE),
        ([START, DOES, failed("cancelled")], DONE),
        ([START, failed("storage")], FAILED),
        ([START, failed("storage"), TaskRetried(TASK, "w1", 2, "why")], QUEUED),
        ([START, failed("storage"), TaskRetried(TASK, "w1", 2, "why"), START], RUNNING),
        ([START, failed("blocked")], WAITING),
        ([START, failed("not_served")], QUEUED),
        ([START, TaskReturned(TASK, 1)], QUEUED),
        ([START, COPY], BACKUP),
        ([START, COPY, TaskReturned(TASK, 1)], BACKUP),
        ([START, COPY, copy_ended("lost"), TaskReturned(TASK, 1)], QUEUED),
        ([START, COPY, BEATS], BACKUP),
        ([START, COPY, failed("storage")], BACKUP),
        ([START, COPY, copy_ended("lost")], RUNNING),
        ([START, COPY, copy_ended("lost"), failed("storage")], FAILED),
        ([START, COPY, DOES, copy_ended("won")], DONE),
        ([START, COPY, copy_ended("won"), DOES], DONE),
        ([START, DOES, NodeReopened(TASK, stored=True)], WAITING),
        ([START, JobFailed("job", "bad_input", "why", TASK)], FAILED),
        ([START, JobFailed("job", "bad_input", "why", TASK), failed("cancelled")], FAILED),
        ([START, JobFailed("job", "cancelled", "why", TASK)], RUNNING),
        ([TaskStarted("w1", TASK, 1, child=2)], WAITING),
        ([TaskStarted("w1", TaskId("job", 1, 0, 5), 1)], WAITING),
        ([TaskStarted("w1", TaskId("job", 3, 0, 0), 1)], WAITING),
        ([TaskStarted("w1", TaskId("job", 1, 1, 0), 1)], WAITING),
    ],
)
def test_a_task_is_in_the_state_that_its_events_tell(events, state):
    assert NAMES[followed(*events)] == NAMES[state]


def test_tasks_of_tiles_lie_one_tile_after_the_other():
    states = TaskStates((PhaseWork(10, 50, 100), PhaseWork(2, 10, 10)))
    states.take(TaskStarted("w", TaskId("job", 1, 1, 2), 1))
    states.take(TaskStarted("w", TaskId("job", 2, 1, 0), 1))
    assert [list(phase.states) for phase in states.phases()] == [[0] * 7 + [RUNNING, 0, 0], [0, RUNNING]]


def test_what_was_done_before_is_given():
    states = TaskStates((PhaseWork(3, 15, 100), PhaseWork(1, 3, 10)), (bytes([DONE, 0, DONE]),))
    first, second = states.phases()
    assert first.counts() == (1, 2, 0, 0, 0, 0)
    assert second.states == bytes(1)


def test_a_copy_of_the_states_does_not_change_afterwards():
    states = TaskStates((PhaseWork(5, 25, 100), PhaseWork(1, 5, 10)))
    before = states.phases()
    states.take(START)
    assert before[0].states == bytes(5)
    with pytest.raises(ValueError, match="read-only"):
        before[0].array()[0] = 1


STATES = arrays(np.uint8, st.integers(0, 300), elements=st.integers(0, len(NAMES) - 1))


@given(STATES, st.integers(1, 80))
def test_a_cell_has_the_worst_state_of_its_tasks(states, each):
    cells = aggregate(states, each)
    assert cells.tolist() == [max(states[low : low + each]) for low in range(0, len(states), each)]


@given(st.integers(0, 999_999), st.integers(1, 20_000))
def test_one_failure_among_a_million_is_seen_whatever_the_number_of_cells(place, cells):
    states = np.ones(1_000_000, dtype=np.uint8)
    states[place] = FAILED
    each = tasks_per_cell(states.size, cells)
    found = aggregate(states, each)
    assert found.size <= cells
    assert np.flatnonzero(found == FAILED).tolist() == [place // each]
