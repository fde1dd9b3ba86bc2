"""Long tasks that are cut off in the middle, with real processes: what was stored on the way is not made again."""

from __future__ import annotations

import functools
import itertools
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from distsum import preparation
from distsum.embedded import run
from distsum.errors import TaskAbandonedError
from distsum.manifest import NodeKeys
from distsum.messages import JobSpec
from distsum.partials import node_context
from distsum.preparation import prepare
from distsum.request import Options
from distsum.stores.local import LocalStore
from tests.reference import reference_reduce

if TYPE_CHECKING:
    from pathlib import Path

FILES, COUNT = 125, 500
INPUT_BYTES, PARTIAL_BYTES = 128 + 8 * COUNT, 256 + 8 * COUNT

PLANT = """
import os, shutil, signal, sys, time
if "distsum.worker" in sys.orig_argv:
    def watch(event, arguments):
        name = arguments[0] if event == "open" else b""
        if not isinstance(name, bytes) or b"/runs/" not in name:
            return
        time.sleep(0.01)  # so that a sum takes many times what storing it does
        if name.endswith(b"100.npy") and os.path.exists({mark!r}):
            {first}
            shutil.copytree({work!r}, {copy!r}, dirs_exist_ok=True)
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
"""
"""A worker that is ended at the 101st input; what it has stored by then is copied."""


@pytest.fixture
def arrays(tmp_path: Path) -> list[Any]:
    (tmp_path / "runs").mkdir()
    made = [np.random.default_rng(index).standard_normal(COUNT) for index in range(FILES)]
    for index, array in enumerate(made):
        np.save(tmp_path / "runs" / f"{index:03}.npy", array)
    return made


@pytest.fixture
def inputs(tmp_path: Path, arrays: list[Any]) -> list[bytes]:
    return [os.fsencode(tmp_path / "runs" / f"{index:03}.npy") for index in range(FILES)]


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the mark that makes a worker end; sums are stored on the way as soon as that pays."""
    mark = tmp_path / "mark"
    mark.touch()
    (tmp_path / "plant").mkdir()
    (tmp_path / "plant" / "sitecustomize.py").write_text(
        PLANT.format(
            mark=str(mark),
            first=f"os.path.exists({str(tmp_path / 'always')!r}) or os.unlink({str(mark)!r})",
            work=str(tmp_path / "work"),
            copy=str(tmp_path / "copy"),
        )
    )
    monkeypatch.syspath_prepend(tmp_path / "plant")
    monkeypatch.setattr(preparation, "JobSpec", functools.partial(JobSpec, checkpoint_seconds=0.0))
    return mark


def stored(inputs: list[bytes], tmp_path: Path, options: Options) -> list[tuple[int, int]]:
    """Return the highest sums that were stored inside the only task when its worker ended, as ranges of inputs."""
    prepared = prepare("mean", inputs, os.fsencode(tmp_path / "out.npy"), options, LocalStore())
    keys = NodeKeys(node_context(prepared.record.spec, 0))
    children = {path.name for path in (tmp_path / "copy").rglob("children/*")}
    ranges = itertools.combinations(range(FILES + 1), 2)
    found = [each for each in ranges if keys.key([prepared.manifest.records(*each)]) in children]
    highest = [
        (low, high)
        for low, high in found
        if not any(other[0] <= low and high <= other[1] for other in found if other != (low, high))
    ]
    assert highest, "100 inputs take far longer than storing a sum"
    return highest


def read_by_the_next(nodes: list[tuple[int, int]]) -> int:
    """Return the bytes that an attempt reads which starts from some nodes."""
    covered = sum(high - low for low, high in nodes)
    return (FILES - covered) * INPUT_BYTES + len(nodes) * PARTIAL_BYTES


@pytest.mark.parametrize("fan_in", [5, FILES])
def test_a_worker_that_is_killed_in_a_long_task_is_followed_by_one_that_reads_only_the_rest(
    inputs, arrays, tmp_path, planted, fan_in: int
) -> None:
    options = Options(partition=FILES, fan_in=fan_in, tiles=1, workers=1, work_dir=str(tmp_path / "work"))
    summary = run("mean", inputs, os.fsencode(tmp_path / "out.npy"), options)
    assert not planted.exists()
    assert (summary.tasks, summary.workers_lost) == (1, 1)
    assert np.load(tmp_path / "out.npy").tobytes() == reference_reduce(arrays, fan_in, "mean").tobytes()
    assert summary.bytes_read == read_by_the_next(stored(inputs, tmp_path, options))
    assert not (tmp_path / "work").exists()


def test_a_run_that_failed_in_a_long_task_goes_on_within_it(inputs, arrays, tmp_path, planted) -> None:
    (tmp_path / "always").touch()
    options = Options(partition=FILES, tiles=1, workers=1, work_dir=str(tmp_path / "work"), keep_partials=True)
    output = os.fsencode(tmp_path / "out.npy")
    with pytest.raises(TaskAbandonedError):
        run("mean", inputs, output, options)
    nodes = stored(inputs, tmp_path, options)
    (folder,) = (tmp_path / "work" / "jobs").glob("*/children")
    assert len(list(folder.iterdir())) >= len(nodes)
    planted.unlink()
    summary = run("mean", inputs, output, options)
    assert summary.attempts == 1
    assert summary.bytes_read == read_by_the_next(nodes)
    assert np.load(tmp_path / "out.npy").tobytes() == reference_reduce(arrays, 5, "mean").tobytes()
    # Of what is kept, these are of no use any more.
    left = {
        path.parent.parent.name for path in (tmp_path / "work").rglob("*") if path.is_file() and path.name != "lock"
    }
    assert left == {"partials"}
