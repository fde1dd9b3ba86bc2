"""Slices of tiles and planes, with inputs left out; and what of them is lost, read twice or tried again."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from distsum.actors.actor import TRACKER, WORKERS
from distsum.errors import StorageError
from distsum.messages import Heartbeat, HelperAdded, TaskFailed, TaskStarted
from distsum.partials import children_uri
from distsum.request import Options
from distsum.slices import LEAST_NUMBERS, SLICES, node_slices
from distsum.stores.local import LocalStore
from distsum.worker.attempt import TaskCancelledError
from distsum.worker.folding import JobFolder
from tests.foldedtasks import Tasks
from tests.reference import reference_reduce
from tests.stepping import joined, spec, succeeded, system_with
from tests.unit.test_backups import asked, assigned, stragglers, task_in_slices

if TYPE_CHECKING:
    from pathlib import Path

LEAST = SLICES * LEAST_NUMBERS


def make(
    folder: Path, count: int, files: int, reduction: str = "mean", dtype: str = "<f8", name: str = "out", **options: Any
) -> Tasks:
    paths = [folder / f"{index:03}.npy" for index in range(files)]
    for index, path in enumerate(paths):
        if not path.exists():
            np.save(path, np.random.default_rng(index).integers(0, 1 << 40, count).astype(dtype))
    chosen = Options(**({"partition": 5, "tiles": 1, "work_dir": str(folder / f"{name}.work")} | options))
    return Tasks(paths, folder / f"{name}.npy", chosen, reduction, checkpoint_seconds=0.0)


def by_slices(tasks: Tasks, made: tuple[int, ...] = (7, 2)) -> bytes:
    for phase in range(1, tasks.tree.phases + 1):
        nodes = [(tile, index) for tile in range(tasks.spec.tiles) for index in range(tasks.tree.tasks(phase))]
        sliced = [each for each in nodes if node_slices(tasks.spec, phase, each[0])]
        for (tile, index), child in itertools.product(sliced, made):
            assert not tasks.fold(tasks.attempt(phase, tile, index, child=child, sliced=True)).reused
        for tile, index in nodes:
            attempt = tasks.attempt(phase, tile, index, sliced=(tile, index) in sliced, resume=True)
            tasks.fold(attempt)
            assert attempt.taken == (sorted(made) if (tile, index) in sliced else [])
    return tasks.result()


def stored(tasks: Tasks) -> list[bytes]:
    folder = children_uri(tasks.spec.work, tasks.spec.job)
    return sorted(folder + b"/" + name for name in tasks.store.list(folder))


def damage(path: bytes, place: int = -8) -> None:
    with open(path, "r+b") as file:
        file.seek(place, os.SEEK_END)
        byte = file.read(1)
        file.seek(place, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("more", [0, LEAST - 1, LEAST + 3], ids=["equal", "the last has none", "the last is shorter"])
def test_slices_of_every_tile_are_its_own(tmp_path, more: int) -> None:
    count = 2 * (LEAST + 1024) + more
    tiles = 3 if more else 2
    tasks = make(tmp_path, count, 6, tiles=tiles)
    inputs = [np.load(path) for path in sorted(tmp_path.glob("0*.npy"))]
    assert by_slices(tasks)[128:] == reference_reduce(inputs, 5, "mean").tobytes()


@pytest.mark.parametrize("plane", [0, 1])
def test_a_slice_of_partials_is_checked_in_every_plane(tmp_path, plane: int) -> None:
    tasks = make(tmp_path, LEAST, 6, "sum", "<i8")
    for index in range(2):
        tasks.fold(tasks.attempt(index=index))
    damage(tasks.partial(1, 0, 0), -8 - (1 - plane) * 8 * LEAST)
    with pytest.raises(Exception, match="0"):
        tasks.fold(tasks.attempt(2, child=7, sliced=True))
    assert not os.path.exists(tasks.partial(1, 0, 0))


@pytest.mark.parametrize("cut", [0, 3, 7])
def test_a_partial_that_is_read_as_a_whole_is_checked_in_every_slice(tmp_path, cut: int) -> None:
    tasks = make(tmp_path, LEAST, 6)
    for index in range(2):
        tasks.fold(tasks.attempt(index=index))
    damage(tasks.partial(1, 0, 1), -8 - 8 * LEAST_NUMBERS * (7 - cut))
    with pytest.raises(Exception, match="1"):
        tasks.fold(tasks.attempt(2))


def test_a_partial_of_inputs_that_are_all_left_out_has_no_slices_and_is_none_the_less_whole(tmp_path) -> None:
    tasks = make(tmp_path, LEAST, 11, on_bad_input="skip", name="expected")
    for index in range(5, 10):
        (tmp_path / f"{index:03}.npy").write_bytes(b"no array")
    expected = make(tmp_path, LEAST, 11, on_bad_input="skip", name="expected2").fold_all()
    assert by_slices(make(tmp_path, LEAST, 11, on_bad_input="skip")) == expected
    tasks.close()


def test_what_was_left_out_before_another_has_stored_the_slice_is_not_told_twice(tmp_path) -> None:
    make(tmp_path, LEAST, 5, name="first")
    (tmp_path / "001.npy").write_bytes(b"no array")
    tasks = make(tmp_path, LEAST, 5, on_bad_input="skip", max_open_files=1)
    tasks.store_nested([(0, 0, 1)])
    other = JobFolder(LocalStore(), tasks.spec, lambda: 0)
    opened = []

    def store_it(uri: bytes) -> None:
        opened.append(uri)
        if len(opened) == 3:
            tasks.store.on_open = lambda uri: None
            other.fold(tasks.attempt(child=0, sliced=True), 0.0)

    tasks.store.on_open = store_it
    attempt = tasks.attempt(sliced=True, resume=True)
    result = tasks.fold(attempt)
    assert attempt.taken == [0]
    assert [each.index for each in result.skipped] == [1]
    other.close()


def test_progress_goes_on_within_a_slice(tmp_path) -> None:
    tasks = make(tmp_path, LEAST, 5, max_open_files=1)
    attempt = tasks.attempt(sliced=True, resume=True)
    seen: list[float] = []
    tasks.store.on_open = lambda uri: seen.append(attempt.progress)
    tasks.fold(attempt)
    assert seen == pytest.approx([number / 40 for number in range(40)])


def test_nodes_above_files_that_can_only_be_read_as_a_whole_have_slices(tmp_path) -> None:
    for index in range(6):
        (tmp_path / f"{index}.txt").write_text("".join(f"{number * (index + 1)}\n" for number in range(LEAST)))
    paths = [tmp_path / f"{index}.txt" for index in range(6)]
    tasks = Tasks(paths, tmp_path / "out.npy", Options(partition=5))
    for index in range(2):
        tasks.fold(tasks.attempt(index=index))
    assert not tasks.fold(tasks.attempt(2, child=3, sliced=True)).reused
    attempt = tasks.attempt(2, sliced=True, resume=True)
    tasks.fold(attempt)
    assert attempt.taken == [3]


def test_a_damaged_slice_that_cannot_be_removed_is_made_anew_once(tmp_path) -> None:
    tasks = make(tmp_path, LEAST, 5)
    tasks.fold(tasks.attempt(child=5, sliced=True))
    damage(stored(tasks)[0])

    def refuse(uri: bytes) -> None:
        raise StorageError("access denied")

    tasks.store.on_delete = refuse
    attempt = tasks.attempt(sliced=True, resume=True)
    opened = []

    def count(uri: bytes) -> None:
        opened.append(uri)
        if len(opened) > 200:
            attempt.cancelled.set()

    tasks.store.on_open = count
    try:
        tasks.fold(attempt)
    except TaskCancelledError:
        pytest.fail("the slice is begun again and again")


def test_slices_that_a_copy_has_made_are_not_lost_with_it(tmp_path) -> None:
    tasks = make(tmp_path, LEAST, 5)
    tasks.folder._parts.times.note(1 << 24, 1e-6)
    attempt = tasks.attempt(sliced=True, resume=True)
    tasks.store.on_open = lambda uri: attempt.cancelled.set() if attempt.progress >= 0.8 else None
    with pytest.raises(TaskCancelledError):
        tasks.fold(attempt)
    assert stored(tasks), "nothing is stored of four fifths of a node"


def test_of_a_partial_no_more_is_asked_for_than_its_slice(tmp_path) -> None:
    tasks = make(tmp_path, 8 * LEAST, 6)
    for index in range(2):
        tasks.fold(tasks.attempt(index=index))
    sizes = []
    open_all = tasks.store.open_all
    tasks.store.open_all = lambda uris, size, ahead: (sizes.append(size), open_all(uris, size, ahead))[1]
    tasks.fold(tasks.attempt(2, child=7, sliced=True))
    assert max(sizes) <= 4096, "the beginning of a partial is fetched, of which the last slice is wanted"


@pytest.mark.parametrize("kind", ["storage", "not_served", "bad_input"])
def test_a_helper_that_fails_is_not_given_the_same_part_every_second(kind: Any) -> None:
    system, task, first, started = task_in_slices(workers=4, progress=0.05)
    system.tell(TRACKER, TaskStarted(started.worker, task, 1, started.attempt))
    for second in range(20):
        for worker, order in assigned(system):
            if order.child is not None:
                failed = TaskFailed(
                    worker, task, kind, "no", attempt=order.attempt, child=order.child, place="s3://x", index=3
                )
                system.tell(TRACKER, TaskStarted(worker, task, 1, order.attempt, order.child))
                system.tell(TRACKER, failed)
        system.advance(1.0)
        beats = (("w1", first, 0.05), (started.worker, started.attempt, 0.005 * (second + 1)))
        for worker, attempt, progress in beats:
            system.tell(TRACKER, Heartbeat(worker, task, 1000, attempt=attempt, progress=progress))
        for number in range(2, 5):
            if f"w{number}" != started.worker:
                system.tell(TRACKER, Heartbeat(f"w{number}", None, 0))
    added = sum(isinstance(event, HelperAdded) for event in system.events)
    assert added <= 8, f"{added} times somebody was asked to help who had just failed to"
    system.take(WORKERS)


def test_who_may_not_do_a_task_is_not_asked_again_to_copy_it() -> None:
    system, task, _, started = task_in_slices(workers=4, progress=0.05)
    system.tell(TRACKER, TaskStarted(started.worker, task, 1, started.attempt))
    system.tell(TRACKER, TaskFailed(started.worker, task, "not_served", "no", attempt=started.attempt, place="s3://x"))
    system.tell(TRACKER, joined("w5"))
    system.take(WORKERS)
    again = asked(system, task).started
    assert again is not None
    assert (started.worker, again.worker) == ("w2", "w5")


def test_an_attempt_whose_inputs_have_all_but_arrived_is_no_straggler() -> None:
    system = system_with(spec(50), workers=12)
    first, second = stragglers(system)
    for task, number, worker in ((first, 9, "w9"), (second, 10, "w10")):
        beat = Heartbeat(worker, task, 1000, attempt=number, progress=0.9, added=0.1)
        system.tell(TRACKER, beat)
    system.advance(1.0)
    assert assigned(system) == [], "by what is in its sums it would take nine times as long as it has taken"


def test_what_has_arrived_counts_in_what_is_told_but_for_the_last_hundredth(tmp_path) -> None:
    tasks = make(tmp_path, LEAST, 5, max_open_files=1)
    attempt = tasks.attempt()
    seen = []
    arrived = itertools.cycle([24 * LEAST, 0, 400 * LEAST])

    def look(uri: bytes) -> None:
        seen.append(attempt.beat("w", 7, next(arrived)))

    tasks.store.on_open = look
    tasks.fold(attempt)
    looks = [each for each in seen if each.bytes_read > 1000]  # the others are before the first input
    assert [(each.added, each.progress) for each in looks[:3]] == [(0.0, 0.6), (0.2, 0.6), (0.4, 0.99)]
    assert attempt.expected_bytes == 5 * 8 * LEAST
    assert attempt.beat("w", 7, 0).progress == 1.0


def test_who_was_taken_for_a_straggler_and_was_none_is_not_known_to_be_slow() -> None:
    system = system_with(spec(50), workers=12)
    first, _ = stragglers(system)
    system.tell(TRACKER, Heartbeat("w9", first, 1000, attempt=9, progress=0.05))
    system.advance(0.3)
    system.tell(TRACKER, Heartbeat("w9", first, 1010, attempt=9, progress=0.18))
    system.advance(1.0)
    assert first in {message.task for _, message in assigned(system)}
    system.tell(TRACKER, succeeded(first, worker="w9", attempt=9))
    slowness = system.actors[TRACKER]._workers["w9"].slowness
    assert slowness is not None
    assert slowness < 4.0, "it took some 2.3 s for what takes 1 s, and is held to what it was expected to take"
