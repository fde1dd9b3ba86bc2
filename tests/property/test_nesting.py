"""The laws of nodes inside tasks: whichever are stored, the bits stay, and what is stored is not made again."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from distsum.partials import decode_head, head_bytes
from distsum.request import Options
from distsum.worker import checkpoints, nesting
from distsum.worker.attempt import TaskCancelledError
from tests.foldedtasks import Tasks
from tests.property.test_bits import canonical, numbers
from tests.reference import reference_reduce

if TYPE_CHECKING:
    from collections.abc import Iterator


@st.composite
def jobs(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "files": draw(st.integers(2, 60)),
        "count": draw(st.integers(0, 12)),
        "fan_in": draw(st.sampled_from([2, 3, 5])),
        "exponent": draw(st.integers(1, 4)),
        "tiles": draw(st.integers(1, 3)),
        "ahead": draw(st.integers(1, 5)),
        "suffix": draw(st.sampled_from([".npy", ".npy", ".raw", ".txt"])),
        "dtype": draw(st.sampled_from(["<f8", ">f4", "<i4", "<c16"])),
        "reduction": draw(st.sampled_from(["mean", "sum", "max"])),
        "bad": draw(st.sampled_from([0.0, 0.3])),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


def made(job: dict[str, Any], folder: Path, checkpoint_seconds: float = math.inf) -> tuple[Tasks, bytes]:
    """Write a job's inputs, some of them bad; return it with the bytes that its result must have."""
    draw = np.random.default_rng(job["seed"])
    text = job["suffix"] == ".txt"
    dtype = "<f8" if text else job["dtype"]
    reduction = "sum" if dtype[1] == "c" and job["reduction"] == "max" else job["reduction"]
    arrays: list[Any] = []
    paths = [folder / f"{index:03}{job['suffix']}" for index in range(job["files"])]
    for index, path in enumerate(paths):
        array = numbers(draw, dtype, job["count"])
        if text:
            path.write_text("".join(f"{number!r}\n" for number in array.tolist()))
        elif job["suffix"] == ".raw":
            path.write_bytes(array.tobytes())
        else:
            np.save(path, array)
        if index and draw.random() < job["bad"]:
            path.write_bytes(path.read_bytes() + b"7 x")
            array = None
        arrays.append(array)
    options = Options(
        partition=job["fan_in"] ** job["exponent"],
        fan_in=job["fan_in"],
        tiles=1 if text else job["tiles"],
        max_open_files=job["ahead"],
        dtype=dtype if job["suffix"] == ".raw" else None,
        on_bad_input="skip" if job["bad"] else "fail",
    )
    tasks = Tasks(paths, folder / "out.npy", options, reduction, checkpoint_seconds)
    np.save(folder / "expected.npy", canonical(reference_reduce(arrays, job["fan_in"], reduction), reduction))
    return tasks, (folder / "expected.npy").read_bytes()


def inside(node: tuple[int, int], task: tuple[int, int]) -> bool:
    return task[0] <= node[0] and node[1] <= task[1] and node != task


@given(
    job=jobs(),
    stored=st.floats(0, 1),
    damaged=st.sampled_from([0.0, 0.0, 0.3, 1.0]),
    share=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_whichever_nodes_are_stored_the_bits_stay_and_only_the_others_are_made(
    job: dict[str, Any], stored: float, damaged: float, share: float
) -> None:
    assume(job["count"] or job["suffix"] != ".raw" or not job["bad"])
    with tempfile.TemporaryDirectory() as name:
        tasks, expected = made(job, Path(name))
        draw = np.random.default_rng(job["seed"])
        tree, spec = tasks.tree, tasks.spec
        nodes = [(tile, *node) for tile in range(spec.tiles) for node in tasks.nodes() if draw.random() < stored]
        tasks.store_nested(nodes)
        sound = []
        for node in nodes:
            path = os.fsdecode(tasks.nested(*node))
            content = bytearray(Path(path).read_bytes())
            if draw.random() >= damaged:
                sound.append(node)
                continue
            # In its numbers, or where it has none, in what tells that it is a partial; or cut short.
            # The end of a head is padding, of which nothing depends.
            numbers = decode_head(bytes(content[: head_bytes(bytes(content[:256]))])).numbers
            content[-1 if numbers else 0] ^= 1 << draw.integers(8)
            Path(path).write_bytes(content if draw.integers(2) else content[: draw.integers(len(content))])
        for phase in range(1, tree.phases + 1):
            span = tree.partition ** (phase - 1)
            for tile in range(spec.tiles):
                for index in range(tree.tasks(phase)):
                    tasks.store.opened.clear()
                    attempt = tasks.attempt(phase, tile, index, resume=True)
                    attempt.shared = draw.random() < share
                    tasks.fold(attempt)
                    assert attempt.progress == 1.0
                    here = [
                        node[1:] for node in sound if node[0] == tile and inside(node[1:], tree.inputs(phase, index))
                    ]
                    low, high = tree.children(phase, index)
                    if phase == 1:
                        covered = {each for node in here for each in range(*node)}
                        assert set(tasks.opened_inputs()) == set(range(low, high)) - covered
                        continue
                    several = [node for node in here if node[0] % span == 0 and node[1] - node[0] > span]
                    covered = {each // span for node in several for each in range(*node)}
                    read = {
                        child
                        for child in range(low, high)
                        if tasks.partial(phase - 1, tile, child) in tasks.store.opened
                    }
                    # A node that has but one child is that child, and may have been read as either.
                    alone = {child for child in range(low, high) if tree.inputs(phase - 1, child) in here}
                    assert set(range(low, high)) - covered - alone <= read <= set(range(low, high)) - covered
        assert tasks.result() == expected
        tasks.close()


def changed_sum(position: int, fan_in: int) -> tuple[int, int]:
    """Return the sum that a child goes into, as a range of children that ends with it."""
    span = 1
    while position % (span * fan_in) == 0:
        span *= fan_in
    return position - position % (span * fan_in), position


@given(job=jobs())
def test_what_is_stored_on_the_way_are_the_nodes_over_the_same_inputs(job: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patched:
        eager, expected = made(job, Path(name), checkpoint_seconds=0.0)
        # Each is due as soon as it has changed.
        patched.setattr(checkpoints, "WORK_FOR_STORING", 0.0)
        assert eager.fold_all() == expected
        tree = eager.tree
        inner = {uri: content for uri, content in eager.store.contents.items() if b"/children/" in uri}
        stored = set()
        for tile in range(eager.spec.tiles):
            for phase in range(1, tree.phases + 1):
                for index in range(tree.tasks(phase)):
                    first, last = tree.children(phase, index)
                    # With the last child the task's node is whole itself.
                    for position in range(1, last - first):
                        low, high = (first + each for each in changed_sum(position, eager.spec.fan_in))
                        node = tree.inputs(phase - 1, low)[0], tree.inputs(phase - 1, high - 1)[1]
                        stored.add((tile, *node))
        assert {eager.nested(*node) for node in stored} == inner.keys()
        # Of those that one had replaced and those it had at the end nothing is left.
        assert eager.stored_names() == set()
        eager.store_nested(sorted(stored))
        assert inner == {uri: Path(os.fsdecode(uri)).read_bytes() for uri in inner}
        eager.close()


@given(
    job=jobs(),
    cuts=st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=3),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    least=st.sampled_from([0.0, 1.0, 10.0]),
)
def test_wherever_an_attempt_is_cut_the_next_one_reads_only_what_is_not_stored(
    job: dict[str, Any], cuts: list[tuple[int, bool]], share: float, least: float
) -> None:
    assume(job["count"] or job["suffix"] != ".raw" or not job["bad"])
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patched:
        tasks, expected = made(job, Path(name), checkpoint_seconds=least)
        draw = np.random.default_rng(job["seed"])
        clock = itertools.accumulate(draw.choice([0.0, 0.1, 1.0, 4.0]) for _ in itertools.count())
        patched.setattr(nesting, "perf_counter", lambda: next(clock))
        patched.setattr(checkpoints, "WORK_FOR_STORING", 0.5)
        tree, spec = tasks.tree, tasks.spec
        bad = {index for index, path in enumerate(tasks.paths) if Path(os.fsdecode(path)).read_bytes().endswith(b"7 x")}
        for phase in range(1, tree.phases + 1):
            for tile, index in itertools.product(range(spec.tiles), range(tree.tasks(phase))):
                if phase == 1:
                    assert not tasks.stored_sums(tile, tree.inputs(phase, index))
                for checks, removes in cuts:
                    # Also one that has not removed what it had replaced.
                    tasks.store.removes = removes
                    cut = tasks.attempt(phase, tile, index, resume=bool(draw.integers(2)))
                    cut.shared = draw.random() < share
                    left = iter(range(checks))
                    patched.setattr(cut, "check", lambda left=left: ended(left))
                    with contextlib.suppress(TaskCancelledError):
                        tasks.fold(cut)
                tasks.store.removes = True
                done = os.path.exists(tasks.partial(phase, tile, index))
                stored = tasks.stored_sums(tile, tree.inputs(phase, index)) if phase == 1 else set()
                tasks.store.opened.clear()
                result = tasks.fold(tasks.attempt(phase, tile, index, resume=True))
                assert [each.index for each in result.skipped] == [
                    each for each in range(*tree.inputs(phase, index)) if each in bad
                ]
                if phase == 1 and not done:
                    covered = {each for low, high in stored for each in range(low, high)}
                    assert tasks.opened_inputs() == [
                        each for each in range(*tree.inputs(1, index)) if each not in covered
                    ]
                    assert not tasks.stored_sums(tile, tree.inputs(1, index))
        assert tasks.result() == expected
        tasks.close()


def ended(left: Iterator[int]) -> None:
    if next(left, None) is None:
        raise TaskCancelledError
