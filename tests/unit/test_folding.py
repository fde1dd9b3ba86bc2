"""One task and those who help with it, on real files."""

from __future__ import annotations

import itertools
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pytest

from distsum.errors import BadInputError, DiskFullError, StorageError
from distsum.formats.base import Layout
from distsum.formats.text import TextFormat
from distsum.manifest import GrowingKey
from distsum.messages import RunTask, TaskId
from distsum.partials import spec_uri
from distsum.request import Options
from distsum.stores.base import StoreInterruptedError
from distsum.stores.local import LocalStore
from distsum.worker import checkpoints, nesting, partial_io
from distsum.worker.adding import BadChildError
from distsum.worker.attempt import Attempt, TaskCancelledError, WatchedSource
from distsum.worker.checkpoints import StoringTimes
from distsum.worker.folding import JobFolder, NoSuchChildError
from distsum.worker.nesting import ChildrenMissingError
from distsum.worker.process import Worker
from tests.foldedtasks import Tasks
from tests.reference import reference_reduce
from tests.sources import MemorySource

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def arrays(tmp_path: Path) -> list[Any]:
    made = [np.random.default_rng(index).standard_normal(40) for index in range(125 + 26)]
    for index, array in enumerate(made):
        np.save(tmp_path / f"{index:03}.npy", array)
    return made


@pytest.fixture
def job(tmp_path: Path, arrays: list[Any]) -> Callable[..., Tasks]:
    def make(files: int = 125, partition: int = 125, checkpoint_seconds: float = math.inf, **options: Any) -> Tasks:
        paths = [tmp_path / f"{index:03}.npy" for index in range(files)]
        chosen = Options(**({"partition": partition, "tiles": 1} | options))
        return Tasks(paths, tmp_path / "out.npy", chosen, checkpoint_seconds=checkpoint_seconds)

    return make


def expected(arrays: list[Any], tmp_path: Path) -> bytes:
    np.save(tmp_path / "expected.npy", reference_reduce(arrays, 5, "mean"))
    return (tmp_path / "expected.npy").read_bytes()


def test_short_tasks_store_nothing_on_the_way(job) -> None:
    tasks = job(checkpoint_seconds=3.0)
    result = tasks.fold(tasks.attempt())
    assert not [uri for uri in tasks.store.put_uris if b"/children/" in uri]
    assert result.effort.checkpoint_seconds == 0.0
    assert result.effort.objects_written == 2


def test_what_sums_on_the_way_cost_is_told_as_a_part_of_storing(job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "WORK_FOR_STORING", 0.0)
    tasks = job(checkpoint_seconds=0.0)
    effort = tasks.fold(tasks.attempt()).effort
    stored = [uri for uri in tasks.store.put_uris if b"/children/" in uri]
    # With each input but the last, that sum which it is in then.
    assert len(stored) == 124
    assert len(stored) + 2 == effort.objects_written
    assert 0 < effort.checkpoint_seconds < effort.storing_seconds
    assert effort.bytes_written == sum(len(tasks.store.contents[uri]) for uri in stored) + os.path.getsize(
        tasks.partial(1, 0, 0)
    ) + os.path.getsize(tasks.spec.output)


def test_sums_that_are_replaced_are_removed_one_later_and_the_rest_with_the_task(
    job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "WORK_FOR_STORING", 0.0)
    tasks = job(checkpoint_seconds=0.0)
    most = 0

    def look(uri: bytes) -> None:
        nonlocal most
        stored = tasks.stored_sums(0, (0, 125))
        most = max(most, len(stored))
        # The children of the task's node are left for others.
        of_use = set(checkpoints.highest(stored)) | {(0, 25)}
        position = max((stop for _, stop in stored), default=0)
        last = set(checkpoints.highest(each for each in stored if each[1] < position))
        assert stored <= of_use | last

    tasks.store.on_open = look
    tasks.fold(tasks.attempt())
    # One a level, those that one of them has just replaced, and the first child.
    assert 3 <= most <= 7
    assert tasks.stored_names() == set()


def test_what_a_dead_worker_left_is_removed_by_who_makes_its_task(job) -> None:
    tasks = job()
    tasks.store_nested([(0, 0, 25), (0, 25, 45), (0, 25, 30), (0, 31, 32), (0, 50, 75)])
    (left,) = tasks.stored_names() - {tasks.key(0, *node) for node in [(0, 25), (25, 45), (25, 30), (50, 75)]}
    tasks.fold(tasks.attempt(resume=True))
    assert tasks.stored_names() == {left}, "nothing begins in the middle of five inputs, so nobody would look for that"


@pytest.mark.parametrize("fan_in", [5, 125])
def test_an_attempt_starts_from_sums_that_are_no_whole_nodes(job, arrays, tmp_path, fan_in: int) -> None:
    tasks = job(fan_in=fan_in)
    sums = [(0, 75), (75, 95), (95, 98)] if fan_in == 5 else [(0, 98)]
    tasks.store_nested([(0, *each) for each in sums])
    attempt = tasks.attempt(resume=True)
    result = tasks.fold(attempt)
    assert tasks.opened_inputs() == list(range(98, 125))
    assert result.effort.objects_read == 27 + len(sums)
    assert attempt.taken == ([0, 1, 2] if fan_in == 5 else [])
    np.save(tmp_path / "expected.npy", reference_reduce(arrays[:125], fan_in, "mean"))
    assert tasks.result() == (tmp_path / "expected.npy").read_bytes()


def test_a_bad_input_that_comes_after_a_sum_is_not_in_it(job, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in (7, 27):
        (tmp_path / f"{index:03}.npy").write_bytes(b"x")
    tasks = job(on_bad_input="skip")
    # That of the first 25 inputs is stored when 28 are finished.
    due = iter([None] * 27 + [3])
    monkeypatch.setattr(checkpoints.Checkpoints, "due", lambda *_: next(due, None))
    attempt = tasks.attempt()
    tasks.store.on_open = lambda uri: attempt.cancelled.set() if uri.endswith(b"050.npy") else None
    with pytest.raises(TaskCancelledError):
        tasks.fold(attempt)
    assert tasks.stored_sums(0, (0, 125)) == {(0, 25)}
    result = tasks.fold(tasks.attempt(resume=True))
    assert [each.index for each in result.skipped] == [7, 27]
    assert result.inputs == 123


def test_a_sum_that_was_replaced_meanwhile_is_made_again_from_what_is_left(
    job, arrays, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = job()
    tasks.store_nested([(0, 0, 25), (0, 25, 45), (0, 25, 30)])
    open_all = tasks.store.open_all

    def open_all_and_remove(uris: list[bytes], size: int, ahead: int) -> Any:
        yield from open_all(uris, size, ahead)
        if uris == [tasks.nested(0, 0, 25)]:
            os.unlink(tasks.nested(0, 25, 45))

    monkeypatch.setattr(tasks.store, "open_all", open_all_and_remove)
    tasks.fold(tasks.attempt(resume=True))
    assert tasks.opened_inputs() == list(range(30, 125))
    assert tasks.result() == expected(arrays[:125], tmp_path)


class Unused:
    """A channel of a worker that is not run."""

    def receive(self) -> NoReturn:
        raise AssertionError

    def report(self, message: object) -> NoReturn:
        raise AssertionError

    def finish(self, result: object) -> NoReturn:
        raise AssertionError


class Clock:
    """A clock on which nothing takes time but opening inputs and storing partials."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tasks: Tasks, input_seconds: float, put_seconds: float) -> None:
        self.now = 0.0
        self._input_seconds = input_seconds
        self._put_seconds = put_seconds
        for module in (nesting, partial_io):
            monkeypatch.setattr(module, "perf_counter", lambda: self.now)
        self.watch(tasks)

    def watch(self, tasks: Tasks) -> None:
        tasks.store.on_open = lambda uri: self._pass(self._input_seconds)
        tasks.store.on_put = lambda uri, size: self._pass(self._put_seconds)

    def _pass(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("fan_in", [5, 125])
@pytest.mark.parametrize("seconds", [3.0, 4.5, 12.0, 60.0, 600.0])
def test_sums_cost_less_than_a_twentieth_of_the_first_task_that_a_worker_does(
    job, monkeypatch: pytest.MonkeyPatch, seconds: float, fan_in: int
) -> None:
    tasks = job(checkpoint_seconds=3.0, fan_in=fan_in)
    Clock(monkeypatch, tasks, seconds / 125, 0.24)
    effort = tasks.fold(tasks.attempt()).effort
    assert effort.checkpoint_seconds <= 0.05 * seconds
    # The first one is worth it after 5 s.
    assert (effort.checkpoint_seconds > 0) == (seconds > 5)


@pytest.mark.parametrize("put_seconds", [0.01, 2.0])
def test_a_worker_knows_from_the_job_before_what_storing_takes(
    job, monkeypatch: pytest.MonkeyPatch, put_seconds: float
) -> None:
    before, tasks = job(files=5, partition=5), job(checkpoint_seconds=3.0)
    clock = Clock(monkeypatch, before, 0.1, put_seconds)
    times = StoringTimes()
    JobFolder(before.store, before.spec, lambda: 0, times).fold(before.attempt(), 0.0)
    clock.watch(tasks)
    effort = JobFolder(tasks.store, tasks.spec, lambda: 0, times).fold(tasks.attempt(), 0.0).effort
    # A task of 12.5 s, in which one that takes 2 s is never worth it, and one that takes 0.01 s after 3 s.
    assert (effort.checkpoint_seconds == 0) == (put_seconds == 2.0)


def test_a_worker_keeps_what_storing_takes_as_long_as_its_work_folder_is_the_same(job, tmp_path) -> None:
    store = LocalStore()
    worker = Worker("w", Unused(), store, 1.0, 0.0)
    known = []
    for folder in ("one", "one", "two"):
        tasks = job(files=5, work_dir=str(tmp_path / folder))
        known.append(worker._job_folder(tasks.attempt(first_attempt=len(known)))._parts.times)
    assert known[0] is known[1]
    assert known[1] is not known[2]


class Disk:
    """A disk with room for some partials of 40 numbers in the work folder, for sums and nodes alike."""

    def __init__(self, tasks: Tasks, partials: int) -> None:
        self.refused: list[bytes] = []
        self._tasks = tasks
        self._bytes = partials * (256 + 40 * 8)
        tasks.store.on_put = self._put

    def _put(self, uri: bytes, size: int) -> None:
        work = os.fsdecode(self._tasks.spec.work)
        used = sum(path.stat().st_size for path in Path(work).rglob("*") if re.fullmatch("[0-9a-f]{64}", path.name))
        if used + size > self._bytes:
            self.refused.append(uri)
            raise DiskFullError("the disk is full")


def watched(attempt: Attempt) -> list[str]:
    """Return a list that takes the attempt's warnings."""
    warnings: list[str] = []
    attempt.warn = warnings.append
    return warnings


@pytest.mark.parametrize("room", [1, 2, 3, 4])
def test_where_the_disk_is_full_a_task_is_done_without_sums_on_the_way(
    job, arrays, tmp_path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(checkpoints, "WORK_FOR_STORING", 0.0)
    tasks = job(checkpoint_seconds=0.0)
    disk = Disk(tasks, room)
    attempt = tasks.attempt()
    warnings = watched(attempt)
    tasks.fold(attempt)
    assert [os.path.dirname(uri) for uri in disk.refused] == [os.path.dirname(tasks.nested(0, 0, 5))]
    assert [warning.endswith(": the disk is full") for warning in warnings] == [True]
    # Those that were stored go when they take the room.
    assert tasks.stored_names() == set()
    assert tasks.result() == expected(arrays[:125], tmp_path)


def test_sums_that_are_still_to_be_read_stay_where_the_disk_is_full(job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "WORK_FOR_STORING", 0.0)
    tasks = job(checkpoint_seconds=0.0)
    tasks.store_nested([(0, 0, 25), (0, 50, 75)])
    disk = Disk(tasks, 2)
    seen = []
    tasks.store.on_open = lambda uri: seen.append(tasks.stored_sums(0, (0, 75))) if uri.endswith(b"040.npy") else None
    tasks.fold(tasks.attempt(resume=True))
    assert len(disk.refused) == 1
    assert seen == [{(50, 75)}]
    assert tasks.opened_inputs() == [*range(25, 50), *range(75, 125)]


def test_a_tasks_node_has_the_room_that_sums_in_other_tasks_take(job, arrays, tmp_path) -> None:
    tasks = job(partition=25)
    tasks.store_nested([(0, 25, 45), (0, 50, 70)])
    unfinished = tasks.nested(0, 0, 25) + b".tmp1234"
    tasks.store.put(unfinished, [b"what another is about to store"])
    disk = Disk(tasks, 2)
    tasks.fold(tasks.attempt())
    assert disk.refused == [tasks.partial(1, 0, 0)]
    assert list(tasks.store.list(os.path.dirname(unfinished))) == [os.path.basename(unfinished)]
    assert os.path.exists(tasks.partial(1, 0, 0))


def test_a_childs_node_takes_no_room_of_what_others_have_stored(job) -> None:
    tasks = job()
    tasks.store_nested([(0, 0, 25), (0, 50, 75)])
    Disk(tasks, 2)
    with pytest.raises(DiskFullError):
        tasks.fold(tasks.attempt(child=1))
    assert tasks.stored_sums(0, (0, 75)) == {(0, 25), (50, 75)}


def test_after_another_fault_sums_that_are_stored_stay_for_the_next_attempt(
    job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "WORK_FOR_STORING", 0.0)
    tasks = job(checkpoint_seconds=0.0)

    def put(uri: bytes, size: int) -> None:
        if len(tasks.store.put_uris) == 30:
            raise StorageError("503 SlowDown")

    tasks.store.on_put = put
    attempt = tasks.attempt()
    warnings = watched(attempt)
    tasks.store.on_open = lambda uri: attempt.cancelled.set() if uri.endswith(b"050.npy") else None
    with pytest.raises(TaskCancelledError):
        tasks.fold(attempt)
    assert len(tasks.store.put_uris) == 30
    assert [warning.endswith(": 503 SlowDown") for warning in warnings] == [True]
    assert (0, 25) in tasks.stored_sums(0, (0, 50))


@pytest.mark.parametrize("end", ["children", "partial"])
def test_a_worker_that_comes_back_after_its_job_has_ended_leaves_no_empty_folder(
    job, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(checkpoints, "WORK_FOR_STORING", 0.0)
    tasks = job(checkpoint_seconds=0.0 if end == "children" else math.inf)
    outcome = os.path.dirname(spec_uri(tasks.spec.work, tasks.spec.job)) + b"/outcome"

    def put(uri: bytes, size: int) -> None:
        tasks.store.on_put = lambda uri, size: None
        tasks.store.delete_all(tasks.spec.work, set())
        tasks.store.put(outcome, [b"how it ended"])

    tasks.store.on_put = put
    with pytest.raises(TaskCancelledError):
        tasks.fold(tasks.attempt())
    assert [path for path in Path(os.fsdecode(tasks.spec.work)).rglob("*") if path.name != "lock"] == [
        Path(os.fsdecode(each))
        for each in (os.path.dirname(os.path.dirname(outcome)), os.path.dirname(outcome), outcome)
    ]


@pytest.mark.parametrize("phase", [1, 2])
def test_who_is_called_back_while_it_looks_for_sums_ends(job, monkeypatch: pytest.MonkeyPatch, phase: int) -> None:
    tasks = job(files=125, partition=125 if phase == 1 else 25)
    tasks.store_nested([(0, 0, 25)])
    attempt = tasks.attempt(phase, resume=True)
    seen = []

    def add(key: GrowingKey, piece: bytes) -> None:
        seen.append(piece)
        attempt.cancelled.set()

    # The node's own key is made before.
    listed = tasks.store.list

    def list_and_watch(prefix: bytes) -> Any:
        monkeypatch.setattr(GrowingKey, "add", add)
        return listed(prefix)

    monkeypatch.setattr(tasks.store, "list", list_and_watch)
    with pytest.raises(TaskCancelledError):
        tasks.fold(attempt)
    assert len(seen) == 1
    assert tasks.store.opened == []


def test_who_is_called_back_while_a_sum_is_stored_ends(job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "WORK_FOR_STORING", 0.0)
    tasks = job(checkpoint_seconds=0.0)

    def put(uri: bytes, size: int) -> None:
        raise StoreInterruptedError

    tasks.store.on_put = put
    with pytest.raises(StoreInterruptedError):
        tasks.fold(tasks.attempt())
    assert max(tasks.opened_inputs()) == 4


@pytest.mark.parametrize("least", [0.0, math.inf])
def test_sums_that_cannot_be_removed_fail_no_task(
    job, arrays, tmp_path, monkeypatch: pytest.MonkeyPatch, least: float
) -> None:
    monkeypatch.setattr(checkpoints, "WORK_FOR_STORING", 0.0)
    tasks = job(checkpoint_seconds=least)

    def delete(uri: bytes) -> None:
        raise StorageError("read-only")

    tasks.store.on_delete = delete
    attempt = tasks.attempt()
    attempt.shared = least > 0
    warnings = watched(attempt)
    tasks.fold(attempt)
    assert {warning.partition(": ")[2] for warning in warnings} == {"read-only"}
    # Without removing, no more than a few are stored.
    assert len(tasks.stored_names()) == (4 if least else 3)
    assert tasks.result() == expected(arrays[:125], tmp_path)


def test_a_damaged_sum_that_cannot_be_removed_is_made_again(job, arrays, tmp_path) -> None:
    tasks = job()
    tasks.store_nested([(0, 25, 50)])
    path = os.fsdecode(tasks.nested(0, 25, 50))
    os.truncate(path, os.path.getsize(path) - 1)

    def delete(uri: bytes) -> None:
        raise StorageError("read-only")

    tasks.store.on_delete = delete
    attempt = tasks.attempt(resume=True)
    warnings = watched(attempt)
    tasks.fold(attempt)
    assert warnings
    assert tasks.result() == expected(arrays[:125], tmp_path)


def test_helpers_make_what_a_task_that_they_share_could_not_store(job, arrays, tmp_path) -> None:
    tasks = job()
    disk = Disk(tasks, 1)
    attempt = tasks.attempt()
    attempt.shared = True
    warnings = watched(attempt)
    helper = JobFolder(LocalStore(), tasks.spec, lambda: 0)
    done = []

    def during(uri: bytes) -> None:
        if uri.endswith(b"/090.npy"):
            done.append(helper.fold(tasks.attempt(child=1), 0.0).reused)
            done.append(helper.fold(tasks.attempt(child=4), 0.0).reused)

    tasks.store.on_open = during
    result = tasks.fold(attempt)
    assert done == [False, False]
    assert result.effort.objects_read == 100 + 1
    assert len(warnings) == len([uri for uri in disk.refused if b"/children/" in uri]) == 1
    assert tasks.result() == expected(arrays[:125], tmp_path)


def test_what_it_takes_to_learn_that_a_node_is_stored_is_told_as_reading(job) -> None:
    tasks = job(partition=25)
    tasks.fold(tasks.attempt())
    again = tasks.fold(tasks.attempt())
    assert again.reused
    assert again.effort.reading_seconds > 0.0


def test_an_attempt_that_need_not_look_does_not(job) -> None:
    tasks = job()
    tasks.store_nested([(0, 0, 25)])
    assert tasks.fold(tasks.attempt()).effort.objects_read == 125


@pytest.mark.parametrize("changes", [{"resume": True}, {"delivery": 2}])
def test_an_attempt_that_others_may_have_been_at_starts_from_what_is_stored(
    job, arrays, tmp_path, changes: dict[str, Any]
) -> None:
    tasks = job()
    tasks.store_nested([(0, 0, 25), (0, 30, 35)])
    result = tasks.fold(tasks.attempt(**changes))
    assert tasks.opened_inputs() == [*range(25, 30), *range(35, 125)]
    assert (result.inputs, result.reused) == (125, False)
    assert tasks.result() == expected(arrays[:125], tmp_path)


def test_what_is_stored_inside_a_damaged_node_is_still_used(job, arrays, tmp_path) -> None:
    tasks = job()
    tasks.store_nested([(0, 25, 50), (0, 30, 35)])
    path = os.fsdecode(tasks.nested(0, 25, 50))
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 1)
    tasks.fold(tasks.attempt(resume=True))
    assert set(tasks.opened_inputs()) == {*range(30), *range(35, 125)}
    assert not os.path.exists(path)
    assert tasks.result() == expected(arrays[:125], tmp_path)


def test_a_child_that_was_taken_is_not_stored_again(job) -> None:
    tasks = job()
    tasks.store_nested([(0, 25, 50)])
    attempt = tasks.attempt(resume=True)
    attempt.shared = True
    tasks.fold(attempt)
    stored = [uri for uri in tasks.store.put_uris if b"/children/" in uri]
    assert stored == [tasks.nested(0, low, low + 25) for low in (0, 50, 75)]
    assert attempt.taken == [1], "the bytes of whoever made it were not read in vain"


def test_children_that_helpers_make_are_put_together_to_the_same_bytes(job, arrays, tmp_path) -> None:
    tasks = job(files=151)
    for phase, index in ((1, 0), (1, 1), (2, 0)):
        children = range(len(tasks.tree.splits(phase, index)))
        for child in reversed(children):
            result = tasks.fold(tasks.attempt(phase, index=index, child=child))
            low, high = tasks.tree.splits(phase, index)[child]
            assert (result.inputs, result.reused, result.receipt) == (high - low, False, b"")
            assert tasks.fold(tasks.attempt(phase, index=index, child=child)).reused
            assert not os.path.exists(tasks.partial(phase, 0, index))
        tasks.store.opened.clear()
        whole = tasks.fold(tasks.attempt(phase, index=index, resume=True))
        assert not whole.reused
        assert tasks.opened_inputs() == []
    # The second task's children are 25 inputs and a single one; the last has the two tasks' nodes alone, and none.
    assert [len(tasks.tree.splits(*node)) for node in ((1, 0), (1, 1), (2, 0))] == [5, 2, 0]
    assert tasks.result() == expected(arrays, tmp_path)


def test_children_of_a_higher_phase_are_made_of_partials(job, arrays, tmp_path) -> None:
    tasks = job(files=151, partition=25)
    for index in range(tasks.tree.tasks(1)):
        tasks.fold(tasks.attempt(index=index))
    for child in range(2):
        tasks.store.opened.clear()
        tasks.fold(tasks.attempt(2, child=child))
        assert tasks.opened_inputs() == []
    tasks.store.opened.clear()
    tasks.fold(tasks.attempt(2, resume=True))
    read = {tasks.partial(1, 0, index) for index in range(7)} & set(tasks.store.opened)
    assert read == set()
    assert tasks.result() == expected(arrays, tmp_path)


def test_a_helper_starts_from_what_is_stored_inside_its_child(job) -> None:
    tasks = job()
    tasks.store_nested([(0, 30, 35)])
    tasks.fold(tasks.attempt(child=1))
    assert tasks.opened_inputs() == [*range(25, 30), *range(35, 50)]


def test_a_helper_ends_where_another_has_stored_its_child_meanwhile(job) -> None:
    tasks = job(checkpoint_seconds=0.0)

    def store_it(uri: bytes) -> None:
        if uri.endswith(b"/032.npy"):
            tasks.store.on_open = lambda uri: None
            tasks.store_nested([(0, 25, 50)])  # which forgets what was opened before

    tasks.store.on_open = store_it
    result = tasks.fold(tasks.attempt(child=1))
    assert (result.inputs, result.reused) == (25, True)
    assert tasks.opened_inputs() == [32]


@pytest.mark.parametrize("child", [-1, 5])
def test_a_child_that_there_is_not_is_refused(job, child: int) -> None:
    tasks = job()
    with pytest.raises(NoSuchChildError, match=f"child {child} .* that has 5"):
        tasks.fold(tasks.attempt(child=child))


def test_a_bad_input_of_a_child_is_named_by_its_place_in_the_jobs_list(job, tmp_path) -> None:
    tasks = job()
    path = tmp_path / "060.npy"
    before = path.stat()
    path.write_bytes(b"x" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(BadChildError) as caught:
        tasks.fold(tasks.attempt(child=2))
    assert caught.value.index == 60
    assert isinstance(caught.value.error, BadInputError)


def test_a_childs_missing_partials_are_named(job) -> None:
    tasks = job(files=151, partition=25)
    for index in (0, 2, 4, 6):
        tasks.fold(tasks.attempt(index=index))
    with pytest.raises(ChildrenMissingError) as caught:
        tasks.fold(tasks.attempt(2, child=0))
    assert caught.value.missing == (1, 3)


def test_partials_that_a_stored_node_holds_may_be_missing(job, arrays, tmp_path) -> None:
    tasks = job(files=151, partition=25)
    for index in range(tasks.tree.tasks(1)):
        tasks.fold(tasks.attempt(index=index))
    tasks.fold(tasks.attempt(2, child=0))
    for index in range(5):
        os.unlink(tasks.partial(1, 0, index))
    tasks.fold(tasks.attempt(2, resume=True))
    assert tasks.result() == expected(arrays, tmp_path)


def test_who_shares_a_task_stores_each_child_at_once_and_takes_those_that_others_made(job, arrays, tmp_path) -> None:
    tasks = job()
    helper = JobFolder(LocalStore(), tasks.spec, lambda: 0)
    attempt = tasks.attempt()

    def during(uri: bytes) -> None:
        index = int(os.path.basename(uri)[:3])
        if index == 40:
            attempt.shared = True
        if index == 90:
            # Input 90 is opened while one before it is added: child 4 is made in the middle of child 3.
            helper.fold(tasks.attempt(child=4), 0.0)

    tasks.store.on_open = during
    result = tasks.fold(attempt)
    assert [uri for uri in tasks.store.put_uris if b"/children/" in uri] == [
        tasks.nested(0, low, low + 25) for low in (25, 50, 75)
    ]
    # Some of it was opened ahead, and none was added.
    assert result.effort.objects_read == 100 + 1
    assert result.effort.checkpoint_seconds > 0
    assert tasks.stored_names() == set()
    assert tasks.result() == expected(arrays[:125], tmp_path)


def test_progress_counts_what_is_in_the_sums_and_never_falls(job) -> None:
    tasks = job()
    tasks.store_nested([(0, 0, 25), (0, 50, 75)])
    path = os.fsdecode(tasks.nested(0, 50, 75))
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 1)
    attempt = tasks.attempt(resume=True)
    seen: list[float] = []
    tasks.store.on_open = lambda uri: seen.append(attempt.progress)
    tasks.fold(attempt)
    assert seen == sorted(seen)
    assert attempt.progress == 1.0
    # The stored node counts as soon as it is taken; then five inputs are opened before the first one is added.
    assert seen[:7] == [25 / 125] * 5 + [26 / 125, 27 / 125]


def test_progress_goes_on_within_an_input(tmp_path) -> None:
    np.save(tmp_path / "a.npy", np.ones(1_000_000))
    tasks = Tasks([tmp_path / "a.npy"], tmp_path / "out.npy", Options(tiles=1))
    attempt = tasks.attempt()
    seen: list[float] = []
    original = attempt.advance

    def advance(children: float) -> None:
        original(children)
        seen.append(attempt.progress)

    attempt.advance = advance
    tasks.fold(attempt)
    assert len(seen) == 8
    assert all(low < high for low, high in itertools.pairwise(seen))


def test_a_cancelled_attempt_reads_nothing_more_and_stores_nothing(job) -> None:
    tasks = job()
    attempt = tasks.attempt()
    tasks.store.on_open = lambda uri: attempt.cancelled.set() if uri.endswith(b"050.npy") else None
    with pytest.raises(TaskCancelledError):
        tasks.fold(attempt)
    assert max(tasks.opened_inputs()) <= 50
    assert not os.path.exists(tasks.partial(1, 0, 0))
    assert 0 < attempt.bytes_read < 50 * 500
    tasks.store.on_open = lambda uri: None
    assert tasks.fold(tasks.attempt()).inputs == 125


def test_a_parser_that_gives_no_number_for_long_ends_with_its_attempt() -> None:
    content = b"# nothing but comment " * 100_000 + b"\n1\n"
    source = MemorySource(content)
    attempt = Attempt(RunTask(TaskId("job", 1, 0, 0), b""))

    class Reader(MemorySource):
        def read_into(self, buffers: list[memoryview], offset: int) -> int:
            attempt.cancelled.set()
            return source.read_into(buffers, offset)

    watched = WatchedSource(Reader(content), attempt)
    buffer = memoryview(bytearray(1 << 20))
    with pytest.raises(TaskCancelledError):
        list(TextFormat().blocks(watched, Layout("<f8", (1,)), buffer))
    assert len(source.asked) == 1
    assert attempt.bytes_read == 1 << 20
