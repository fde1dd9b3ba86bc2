"""One node of a tree and its children: which are told of, by which way one comes to each, and what that costs."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsum.messages import JobQueued, JobStarted, TaskFailed, TaskId, TaskRetried, TaskStarted, WorkerLost
from distsum.observe import attempts
from distsum.observe.fold import JobTally
from distsum.observe.snapshot import PhaseWork
from distsum.observe.subtree import (
    ATTEMPTS_TOLD,
    CHILDREN_TOLD,
    child_at,
    children_of,
    exists,
    leaves_of,
    node_above,
    path_of,
    place_in,
)
from distsum.observe.view import JobFold
from distsum.tree import Tree

MILLION = Tree(files=5_000_000, fan_in=5, exponent=1)
SMALL = Tree(files=26, fan_in=5, exponent=1)
HOSTILE = b"/in/\x1b[31m[bold]\xe2\x80\xae\n" + b"x" * 4096 + b".npy"


def work_of(tree):
    return tuple(PhaseWork(tree.tasks(phase), 1, 1) for phase in range(1, tree.phases + 1))


def fold_of(tree, *events, uri_of=lambda index: b"/in/%d.npy" % index):
    """Return a fold of a job over a tree, told of its start and of events, a second apart."""
    work = work_of(tree)
    fold = JobFold(JobTally(work, uri_of), work, "/o", 0.0, tree=tree)
    begin = JobStarted("job", "mean", tree.files, tuple(each.tasks for each in work), (0,) * len(work))
    for now, event in enumerate([begin, *events]):
        fold.take(event, float(now))
    return fold


trees = st.builds(Tree, files=st.integers(1, 700), fan_in=st.integers(2, 6), exponent=st.integers(1, 3))


def some_task(tree, data):
    """Return a task, often the last of its phase: there nodes pass through."""
    phase = data.draw(st.integers(1, tree.phases))
    last = tree.tasks(phase) - 1
    return TaskId("job", phase, 0, data.draw(st.just(last) | st.integers(0, last)))


@given(trees, st.data())
def test_each_child_leads_back_to_its_node_and_each_node_is_a_child_of_the_one_above(tree, data):
    task = some_task(tree, data)
    path = path_of(tree, task)
    assert path[0] == TaskId("job", tree.phases, 0, 0)
    assert path[-1] == task
    for above, below in itertools.pairwise(path):
        assert exists(tree, above)
        assert node_above(tree, below) == above
        assert child_at(tree, above, place_in(tree, above, below)) == below


@given(trees, st.data())
def test_the_children_of_a_node_stand_on_the_same_leaves_as_the_node(tree, data):
    task = some_task(tree, data)
    if task.phase == 1:
        assert list(leaves_of(tree, task)) == [task.index]
        assert list(children_of(tree, task)) == list(range(*tree.inputs(1, task.index)))
        return
    children = [child_at(tree, task, place) for place in range(len(children_of(tree, task)))]
    assert [leaf for child in children for leaf in leaves_of(tree, child)] == list(leaves_of(tree, task))


def test_only_children_that_are_wanted_are_named_however_many_there_are():
    wide = Tree(files=5**9, fan_in=5, exponent=9)
    asked = []

    def uri_of(index):
        asked.append(index)
        return b"/in/%d.npy" % index

    fold = fold_of(wide, uri_of=uri_of)
    detail = fold.detail(TaskId("job", 1, 0, 0), 1_000_000, 3)
    assert [child.name for child in detail.children] == [f"/in/{1_000_000 + place}.npy" for place in range(3)]
    assert (detail.first, asked) == (1_000_000, [1_000_000, 1_000_001, 1_000_002])
    assert len(fold.detail(TaskId("job", 1, 0, 0), 0, 10**9).children) == CHILDREN_TOLD


@pytest.mark.parametrize(("first", "count"), [(-5, -5), (10**12, 5), (0, 0)])
def test_what_is_asked_beyond_the_children_is_none_of_them(first, count):
    assert fold_of(SMALL).detail(TaskId("job", 1, 0, 0), first, count).children == ()


def test_a_child_tells_who_makes_it_and_one_that_is_no_task_of_its_phase_by_whom_it_is_made():
    fold = fold_of(SMALL, TaskStarted("w1", TaskId("job", 1, 0, 5), 1, 7))
    top = fold.detail(TaskId("job", 3, 0, 0), 0, 10)
    assert [(child.phase, child.index, child.worker) for child in top.children] == [(2, 0, ""), (1, 5, "w1")]
    assert (top.children[1].attempts, top.children[1].began_seconds, top.children[1].ended_seconds) == (1, 1.0, None)


def test_a_name_from_outside_is_harmless_and_short():
    detail = fold_of(SMALL, uri_of=lambda _index: HOSTILE).detail(TaskId("job", 1, 0, 0), 0, 1)
    (child,) = detail.children
    assert child.name.isprintable()
    assert len(child.name) < 400
    assert "more" in child.name, "how much was cut is told"


def test_of_very_many_attempts_the_last_are_told_and_how_many_were_before():
    task = TaskId("job", 1, 0, 0)
    events = []
    for number in range(ATTEMPTS_TOLD + 20):
        events += [
            TaskStarted("w1", task, 1, number),
            TaskFailed("w1", task, "storage", f"reason {number}", attempt=number),
            TaskRetried(task, "w1", number + 1, "why"),
        ]
    detail = fold_of(SMALL, *events).detail(task, 0, 0)
    assert (len(detail.attempts), detail.attempts_cut) == (ATTEMPTS_TOLD, 20)
    assert detail.attempts[-1].reason == f"reason {ATTEMPTS_TOLD + 19}"


def test_words_of_failures_are_harmless_and_kept_only_so_often(monkeypatch):
    monkeypatch.setattr(attempts, "REASONS_KEPT", 1)
    tasks = [TaskId("job", 1, 0, index) for index in range(2)]
    fold = fold_of(SMALL, *(TaskFailed("w1", task, "storage", HOSTILE.decode(), attempt=1) for task in tasks))
    first, second = (fold.detail(task, 0, 0).attempts[0] for task in tasks)
    assert first.reason.isprintable()
    assert 0 < len(first.reason) < 600
    assert (second.reason, second.failure) == ("", "storage")


def test_a_job_that_waits_keeps_no_room_for_its_tasks():
    work = work_of(MILLION)
    tracemalloc.start()
    try:
        fold = JobFold(JobTally(work, str), work, "/o", 0.0, tree=MILLION)
        before = tracemalloc.get_traced_memory()[0]
        fold.take(JobQueued("job", 0), 0.0)
        fold.take(WorkerLost("w1", "gone"), 1.0)
        assert fold.detail(TaskId("job", 1, 0, 999_999), 0, 5).attempts == ()
        assert tracemalloc.get_traced_memory()[0] - before < 1_000_000
    finally:
        tracemalloc.stop()


def test_of_a_tree_that_is_not_known_attempts_are_told_nevertheless():
    task = TaskId("job", 1, 0, 0)
    work = work_of(SMALL)
    fold = JobFold(JobTally(work, str), work, "/o", 0.0)
    fold.take(JobStarted("job", "mean", 26, tuple(each.tasks for each in work), (0,) * len(work)), 0.0)
    fold.take(TaskStarted("w1", task, 1, 1), 1.0)
    detail = fold.detail(task, 0, 5)
    assert (detail.tree, detail.children, len(detail.attempts)) == (None, (), 1)
