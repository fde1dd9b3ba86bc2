"""Nodes that are made slice by slice, by one worker or several, on real files."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from distsum.errors import StorageError
from distsum.messages import Skipped
from distsum.partials import children_uri
from distsum.reductions import REDUCTIONS
from distsum.request import Options
from distsum.slices import LEAST_NUMBERS, SLICES, slices
from distsum.stores.local import LocalStore
from distsum.worker.attempt import TaskCancelledError
from distsum.worker.folding import JobFolder, NoSuchChildError
from tests.foldedtasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COUNT = SLICES * LEAST_NUMBERS + 1_000
FILES = 27


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("slices")
    for index in range(FILES):
        np.save(made / f"{index:03}.npy", np.random.default_rng(index).standard_normal(COUNT).astype(np.float32))
    return made


@pytest.fixture
def job(tmp_path: Path, folder: Path) -> Callable[..., Tasks]:
    def make(files: int = 5, reduction: str = "mean", **options: Any) -> Tasks:
        paths = [tmp_path / f"{index:03}.npy" for index in range(files)]
        for path in paths:
            if not path.exists():
                os.link(folder / path.name, path)
        chosen = Options(**({"partition": 5, "tiles": 1} | options))
        number = len(list(tmp_path.glob("out*")))
        return Tasks(paths, tmp_path / f"out{number}.npy", chosen, reduction, checkpoint_seconds=0.0)

    return make


@pytest.fixture
def expected(tmp_path: Path, job: Callable[..., Tasks]) -> Callable[..., bytes]:
    def fold(files: int = 5, reduction: str = "mean", **options: Any) -> bytes:
        return job(files, reduction, work_dir=tmp_path / "expected-work", **options).fold_all()

    return fold


def replace(path: Path, content: bytes) -> None:
    path.unlink()  # it is a link to what other tests have, too
    path.write_bytes(content)


def slice_uris(tasks: Tasks) -> list[bytes]:
    folder = children_uri(tasks.spec.work, tasks.spec.job)
    return sorted(folder + b"/" + name for name in tasks.store.list(folder))


@pytest.mark.parametrize("numbers", [0, 1, SLICES * LEAST_NUMBERS - 1])
def test_few_numbers_have_no_slices(numbers: int) -> None:
    assert slices(numbers) == ()


@pytest.mark.parametrize("more", [0, 1, 1_023, 1_025, 8_191, 8_193, 12_345_678])
def test_slices_cover_all_numbers_in_order_and_are_as_many_as_there_may_be(more: int) -> None:
    numbers = SLICES * LEAST_NUMBERS + more
    cuts = slices(numbers)
    assert len(cuts) == SLICES
    assert [cuts[0][0], *(stop for _, stop in cuts)] == [*(start for start, _ in cuts), numbers]
    assert all(stop > start for start, stop in cuts)


@pytest.mark.parametrize("reduction", list(REDUCTIONS))
@pytest.mark.parametrize("partition", [5, 25])
def test_a_job_whose_nodes_are_made_by_slices_has_the_same_bytes(job, expected, reduction: str, partition: int) -> None:
    """Of every node some slices are made by helpers, each starting anew, and the rest by who makes the whole."""
    made = job(27, reduction, partition=partition)
    sliced = 0
    for phase in range(1, made.tree.phases + 1):
        for index in range(made.tree.tasks(phase)):
            if made.tree.splits(phase, index):
                made.fold(made.attempt(phase, index=index))
                continue
            sliced += 1
            for child in (7, 6, 3):
                result = made.fold(made.attempt(phase, index=index, child=child, sliced=True))
                low, high = made.tree.inputs(phase, index)
                assert (result.inputs, result.reused, result.receipt) == (high - low, False, b"")
                assert made.fold(made.attempt(phase, index=index, child=child, sliced=True)).reused
            assert len(slice_uris(made)) == 3
            attempt = made.attempt(phase, index=index, sliced=True, resume=True)
            assert not made.fold(attempt).reused
            assert attempt.taken == [3, 6, 7]
            assert attempt.taken_share == pytest.approx(3 / 8)
            assert attempt.progress == 1.0
            assert slice_uris(made) == []
    assert sliced == {5: 6 + 1 + 1, 25: 1 + 1}[partition]
    assert made.result() == expected(27, reduction)


def test_slices_are_read_as_such_and_the_rest_of_an_input_is_not(job) -> None:
    tasks = job()
    result = tasks.fold(tasks.attempt(child=3, sliced=True))
    low, high = slices(COUNT)[3]
    headers = 5 * tasks.spec.offset
    assert result.effort.bytes_read == headers + 5 * 4 * (high - low)
    assert result.effort.bytes_written < 8 * (high - low) + 1024


def test_slices_of_partials_are_read_and_checked_as_such(job, expected, tmp_path) -> None:
    tasks = job(27)
    for index in range(6):
        tasks.fold(tasks.attempt(index=index))
    result = tasks.fold(tasks.attempt(2, child=3, sliced=True))
    low, high = slices(COUNT)[3]
    assert result.effort.bytes_read == pytest.approx(5 * 8 * (high - low), rel=0.01)
    # Another slice is damaged: that does not matter to this one, and is found by who makes that.
    damaged = tasks.partial(1, 0, 2)
    size = os.path.getsize(damaged)
    with open(damaged, "r+b") as file:
        file.seek(size - 8)
        file.write(b"\xff" * 4)
    assert not tasks.fold(tasks.attempt(2, child=2, sliced=True)).reused
    with pytest.raises(Exception, match="2"):
        tasks.fold(tasks.attempt(2, child=7, sliced=True))
    assert not os.path.exists(damaged)
    tasks.fold(tasks.attempt(index=2))
    assert tasks.fold_all(sliced=True, resume=True) == expected(27)


def test_sums_that_a_straggler_has_stored_are_used_by_slices(job, expected) -> None:
    tasks = job()
    tasks.store_nested([(0, 0, 3)])
    attempt = tasks.attempt(child=7, sliced=True)
    tasks.fold(attempt)
    assert attempt.taken_share == pytest.approx(3 / 5)
    assert set(tasks.opened_inputs()) == {3, 4}
    tasks.store.opened.clear()
    attempt = tasks.attempt(sliced=True, resume=True)
    tasks.fold(attempt)
    assert set(tasks.opened_inputs()) == {3, 4}
    assert attempt.taken == [7]
    assert attempt.taken_share == pytest.approx(1 / 8 + 7 / 8 * 3 / 5)
    assert tasks.result() == expected()
    assert slice_uris(tasks) == [], "what the straggler had stored goes as well"


@pytest.mark.parametrize("place", [30, -8])
def test_a_damaged_slice_and_a_damaged_sum_are_made_again(job, expected, place: int) -> None:
    tasks = job()
    tasks.store_nested([(0, 0, 2)])
    tasks.fold(tasks.attempt(child=5, sliced=True))
    for path in slice_uris(tasks):
        with open(path, "r+b") as file:
            content = bytearray(file.read())
            content[place] ^= 1
            file.seek(0)
            file.write(content)
    attempt = tasks.attempt(sliced=True, resume=True)
    tasks.fold(attempt)
    assert attempt.taken == []
    assert tasks.result() == expected()


def test_who_comes_to_a_slice_that_is_stored_meanwhile_takes_it(job, expected) -> None:
    tasks = job()
    other = JobFolder(LocalStore(), tasks.spec, lambda: 0)
    opened = itertools.count()

    def store_it(uri: bytes) -> None:
        if next(opened) == 7 * 5 + 4:  # in the midst of the last slice
            tasks.store.on_open = lambda uri: None
            other.fold(tasks.attempt(child=7, sliced=True), 0.0)

    tasks.store.on_open = store_it
    attempt = tasks.attempt(sliced=True, resume=True)
    tasks.fold(attempt)
    assert attempt.taken == [7]
    assert attempt.taken_share == pytest.approx(1 / 8)
    assert tasks.result() == expected()
    assert slice_uris(tasks) == []
    other.close()


def test_progress_goes_from_slice_to_slice_and_never_falls(job) -> None:
    tasks = job()
    tasks.fold(tasks.attempt(child=7, sliced=True))
    attempt = tasks.attempt(sliced=True, resume=True)
    seen: list[float] = []
    tasks.store.on_open = lambda uri: seen.append(attempt.progress)
    tasks.fold(attempt)
    assert seen == sorted(seen)
    assert {k / 8 for k in range(7)} <= set(seen)
    assert attempt.progress == 1.0


def test_inputs_that_are_left_out_are_left_out_of_every_slice(job, expected, tmp_path) -> None:
    tasks = job(on_bad_input="skip")
    replace(tmp_path / "002.npy", b"no array")
    tasks = job(on_bad_input="skip", work_dir=tmp_path / "new")
    tasks.fold(tasks.attempt(child=6, sliced=True))
    result = tasks.fold(tasks.attempt(sliced=True, resume=True))
    assert result.inputs == 4
    assert [each.index for each in result.skipped] == [2]
    assert tasks.result() == expected(on_bad_input="skip")


def test_slices_that_differ_in_what_is_left_out_make_no_node(job, tmp_path) -> None:
    tasks = job(on_bad_input="skip")
    replace(tmp_path / "002.npy", b"no array")
    tasks = job(on_bad_input="skip", work_dir=tmp_path / "new")
    tasks.fold(tasks.attempt(child=6, sliced=True))
    (uri,) = slice_uris(tasks)
    parts = tasks.folder._parts
    length = slices(COUNT)[6][1] - slices(COUNT)[6][0]
    parts.partials.store(uri, [np.zeros(length)], 4, (Skipped(3, "another one"),), tasks.attempt())
    with pytest.raises(StorageError, match="slices of a node differ"):
        tasks.fold(tasks.attempt(sliced=True, resume=True))
    assert not os.path.exists(tasks.partial(1, 0, 0))


def test_who_is_called_back_between_slices_ends(job) -> None:
    tasks = job()
    attempt = tasks.attempt(sliced=True, resume=True)
    tasks.store.on_open = lambda uri: attempt.cancelled.set() if attempt.progress >= 0.5 else None
    with pytest.raises(TaskCancelledError):
        tasks.fold(attempt)
    assert attempt.progress < 0.65
    assert not os.path.exists(tasks.partial(1, 0, 0))


@pytest.mark.parametrize("child", [-1, 8])
def test_a_slice_that_there_is_not_is_refused(job, child: int) -> None:
    tasks = job()
    with pytest.raises(NoSuchChildError, match=f"child {child} .* that has 8"):
        tasks.fold(tasks.attempt(child=child, sliced=True))


def test_what_cannot_be_read_by_ranges_is_made_as_a_whole(tmp_path) -> None:
    paths = [tmp_path / f"{index}.txt" for index in range(3)]
    for index, path in enumerate(paths):
        path.write_text("".join(f"{number * (index + 1)}\n" for number in range(COUNT)))
    tasks = Tasks(paths, tmp_path / "out.npy", Options(partition=5))
    with pytest.raises(NoSuchChildError, match="has 0"):
        tasks.fold(tasks.attempt(child=0, sliced=True))
    tasks.fold(tasks.attempt(sliced=True, resume=True))
    assert np.array_equal(np.load(os.fsdecode(tasks.spec.output)), np.arange(COUNT) * 2.0)


@pytest.mark.parametrize("reduction", list(REDUCTIONS))
@pytest.mark.parametrize("numbers", [1, COUNT])
def test_a_partial_takes_no_more_than_was_planned(job, reduction: str, numbers: int, tmp_path) -> None:
    from distsum.planning import partial_head_bytes

    for index in range(2):
        np.save(tmp_path / f"i{index}.npy", np.arange(numbers, dtype=np.int32))
    paths = [tmp_path / f"i{index}.npy" for index in range(2)]
    tasks = Tasks(paths, tmp_path / "out.npy", Options(partition=5, keep_partials=True), reduction)
    tasks.fold_all()
    planes = sum(np.dtype(plane).itemsize for plane in REDUCTIONS[reduction].planes("<i4"))
    size = os.path.getsize(tasks.partial(1, 0, 0))
    assert partial_head_bytes(numbers) - 512 <= size - numbers * planes <= partial_head_bytes(numbers)
