"""What does it cost to store sums inside a long task on the way? One task, with and without, in turns.

``reach`` is what the project set itself: storing may take a twentieth at the most. ``often`` stores a sum as soon as
what is new in it has taken 25 times what storing one does, however short that is, which is the most that it ever costs.
One task has many short inputs, and one a fan-in that is its partition, so that no node inside it is whole before it
ends. Where other processes disturb the times, the share in the task's own account is the better figure.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from os import fsencode
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.measure import middle, report
from distsum.jobs import Job
from distsum.messages import RunTask, TaskId
from distsum.partials import children_uri
from distsum.preparation import prepare
from distsum.request import Options
from distsum.stores.local import LocalStore
from distsum.tree import levels_above
from distsum.worker.attempt import Attempt
from distsum.worker.folding import JobFolder

_ROUNDS = 5
_CASES = {"without": math.inf, "every 3 s": 3.0, "often": 0.0}


def main() -> None:
    """Run the cases, and print one row for each."""
    with tempfile.TemporaryDirectory(prefix="distsum-bench-") as name:
        rows = [
            *_measured(Path(name), files=3_125, count=250_000),
            *_measured(Path(name), files=625, count=2_000_000),
            *_measured(Path(name), files=625, count=2_000_000, fan_in=625),
            *_measured(Path(name), files=78_125, count=1_000),
        ]
    report("checkpoints", rows)


def _measured(place: Path, files: int, count: int, fan_in: int = 5) -> list[dict[str, object]]:
    """Fold one task of so many inputs, all of which are links to a few files in the page cache."""
    folder = place / f"{files}-{fan_in}"
    folder.mkdir()
    for number in range(5):
        np.save(folder / f"{number}.npy", np.random.default_rng(number).standard_normal(count))
    paths = []
    for index in range(files):
        path = folder / f"link{index:05}.npy"
        path.hardlink_to(folder / f"{index % 5}.npy")
        paths.append(fsencode(path))
    store = LocalStore()
    output = fsencode(folder / "out.npy")
    levels = levels_above(files, fan_in)
    options = Options(partition=fan_in**levels, fan_in=fan_in, tiles=1, memory_bytes=1 << 30)
    prepared = prepare("mean", paths, output, options, store)
    job = Job(prepared.record, prepared.manifest, store)
    job.store_inputs()
    job.begin()
    seconds: dict[str, list[float]] = {case: [] for case in _CASES}
    processor: dict[str, list[float]] = {case: [] for case in _CASES}
    shares: dict[str, list[float]] = {case: [] for case in _CASES}
    stored: dict[str, list[float]] = {case: [] for case in _CASES}
    # Each as a worker that has done tasks of the job before, and so knows what storing takes.
    folders = {
        case: JobFolder(store, msgspec.structs.replace(job.spec, checkpoint_seconds=least), lambda: 0)
        for case, least in _CASES.items()
    }
    for _ in range(_ROUNDS):
        for case, folded in folders.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            effort = folded.fold(Attempt(RunTask(TaskId(job.spec.job, 1, 0, 0), job.spec.work)), 0.0).effort
            took = time.perf_counter() - began
            processor[case].append(time.process_time() - began_cpu)
            seconds[case].append(took)
            shares[case].append(effort.checkpoint_seconds / took)
            stored[case].append(effort.objects_written - 2)  # beside the task's partial and the result
            store.delete_all(children_uri(job.spec.work, job.spec.job), set())
            store.delete_all(job.spec.work + b"/partials", set())
    for folded in folders.values():
        folded.close()
    job.abort()
    shutil.rmtree(folder)
    return [
        {
            "case": f"{files:,} npy x {count:,}, R = {fan_in}",
            "sums stored": case,
            "count": middle(stored[case]),
            "seconds": middle(seconds[case]),
            "ratio": middle(seconds[case]) / middle(seconds["without"]),
            "ratio of CPU": middle(processor[case]) / middle(processor["without"]),
            "share in the account": middle(shares[case]),
            "reach": 1.05,
        }
        for case in _CASES
    ]


if __name__ == "__main__":
    main()
