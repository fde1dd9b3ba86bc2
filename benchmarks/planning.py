"""Are the planner's rates those of this machine, does it choose well, and what do ten million inputs cost it?

Three tables. The rates that a plan is reckoned with, measured here, against the defaults in ``distsum/planning.py``:
they need only be right relative to each other. Then what the planner chose, against the fastest of all partitions that
it could have chosen. Last, planning ten million inputs in a process of its own: seconds of its CPU, and its peak memory
against 1 GiB. Their names are made up, and behind every name the same real file is looked at, so that each costs what
pinning a file costs; ``stat_s`` is what the kernel alone takes for that.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from os import fsencode, stat
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import middle, report
from distsum.embedded import run
from distsum.generate import generate
from distsum.inputs import expand
from distsum.jobs import Job
from distsum.manifest import Input
from distsum.messages import Effort, RunTask, TaskId
from distsum.paths import collected_sorted
from distsum.planning import Rates
from distsum.preparation import plan, prepare
from distsum.request import Options
from distsum.stores.local import LocalStore
from distsum.tree import Tree
from distsum.worker.process import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from distsum.stores.local import LocalReader

ROUNDS = 3
MANY = 10_000_000
NAME = b"/data/ensemble/r42/member-%010d.npy"
MEASURED = [name for name in Rates.__struct_fields__ if name != "waiting_share"]
STEP = 7_654_321
"""Shares no divisor with a power of ten, so that its multiples scatter the names as a folder's listing does."""


# The rates ------------------------------------------------------------------------------------------------------------


def made(folder: Path, name: str, files: int, count: int, kind: str = "npy") -> list[bytes]:
    """Make the inputs of a case, read them once, and return their paths."""
    generate(folder / name, files=files, count=count, format=kind)
    paths = sorted(folder.joinpath(name).iterdir())
    for path in paths:
        path.read_bytes()
    return [fsencode(path) for path in paths]


def folded(paths: list[bytes], folder: Path, options: Options) -> list[Effort]:
    """Fold a job's tasks one after the other in this process, and return what each phase took."""
    from distsum.worker.attempt import Attempt
    from distsum.worker.folding import JobFolder

    store = LocalStore()
    output = fsencode(folder / "out.npy")
    prepared = prepare("mean", paths, output, options, store)
    job = Job(prepared.record, prepared.manifest, store)
    job.store_inputs()
    job.begin()
    spec = job.spec
    tree = Tree(files=spec.files, fan_in=spec.fan_in, exponent=spec.exponent)
    folder_of_tasks = JobFolder(store, spec, lambda: 0)
    efforts = []
    for phase in range(1, tree.phases + 1):
        tasks = [
            TaskId(spec.job, phase, tile, index) for tile in range(spec.tiles) for index in range(tree.tasks(phase))
        ]
        each = [folder_of_tasks.fold(Attempt(RunTask(task, b"")), 0.0).effort for task in tasks]
        efforts.append(Effort(*(sum(values) for values in zip(*map(plain, each), strict=True))))
    folder_of_tasks.close()
    job.abort()
    shutil.rmtree(spec.work)
    return efforts


def plain(effort: Effort) -> tuple[float, ...]:
    """Return the fields of an effort."""
    return tuple(getattr(effort, name) for name in effort.__struct_fields__)


def rates(folder: Path) -> Rates:
    """Measure what ``Rates`` holds, each the median of some rounds."""
    large = made(folder, "large", 40, 2_000_000)
    text = made(folder, "text", 40, 100_000, "text")
    middling = made(folder, "middling", 75, 1_000_000)
    small = made(folder, "small", 4_000, 10)
    found: dict[str, list[float]] = {name: [] for name in MEASURED}
    for _ in range(ROUNDS):
        (first,) = folded(large, folder, Options(partition=125))
        found["read_bytes_per_second"].append(first.bytes_read / (first.reading_seconds + first.adding_seconds))
        (first,) = folded(text, folder, Options(partition=125))
        found["parse_bytes_per_second"].append(first.bytes_read / (first.reading_seconds + first.adding_seconds))
        first, second, _ = folded(middling, folder, Options(partition=5, tiles=1))
        found["write_bytes_per_second"].append(first.bytes_written / first.storing_seconds)
        found["partial_read_bytes_per_second"].append(
            second.bytes_read / (second.reading_seconds + second.adding_seconds)
        )
        first, _ = folded(small, folder, Options(partition=625))
        found["object_seconds"].append((first.reading_seconds + first.adding_seconds) / first.objects_read)
        seconds, tasks, requests = ran(small, folder, 5)
        fewer_seconds, fewer_tasks, fewer_requests = ran(small, folder, 625)
        opening = (requests - fewer_requests) * found["object_seconds"][-1]
        found["task_seconds"].append((seconds - fewer_seconds - opening) / (tasks - fewer_tasks))
        found["start_seconds"].append(ran(small[:5], folder, 5)[0])
    return Rates(**{name: middle(values) for name, values in found.items()})


def ran(paths: Sequence[bytes], folder: Path, partition: int, workers: int = 1) -> tuple[float, int, int]:
    """Run a job with real workers; return its seconds, its tasks, and the objects it opened and wrote."""
    options = Options(partition=partition, workers=workers, force=True, digest=False)
    report = plan(paths, "mean", options)
    chosen = report.candidates[report.chosen]
    return run("mean", paths, fsencode(folder / "out.npy"), options).seconds, chosen.tasks, chosen.requests


def rate_rows(measured: Rates) -> list[dict[str, object]]:
    """Return measured rates beside the defaults."""
    rows: list[dict[str, object]] = []
    for name in MEASURED:
        ours, default = getattr(measured, name), getattr(Rates(), name)
        rows.append({"rate": name, "measured": ours, "default": default, "ratio": ours / default, "reach": "report"})
    return rows


# What is chosen -------------------------------------------------------------------------------------------------------


def choices(folder: Path) -> list[dict[str, object]]:
    """Run every partition of some workloads, and compare the one that is chosen with the fastest."""
    rows = []
    for case, files, count, kind in (
        ("5,000 npy x 1,000", 5_000, 1_000, "npy"),
        ("500 npy x 50,000", 500, 50_000, "npy"),
        ("60 npy x 2 M", 60, 2_000_000, "npy"),
        ("300 text x 10,000", 300, 10_000, "text"),
    ):
        paths = made(folder, case, files, count, kind)
        report = plan(paths, "mean", Options())
        seconds: dict[int, list[float]] = {each.partition: [] for each in report.candidates}
        for _ in range(ROUNDS):
            for partition, times in seconds.items():
                times.append(ran(paths, folder, partition, workers=report.workers)[0])
        chosen = report.candidates[report.chosen]
        ours = middle(seconds[chosen.partition])
        best = min(seconds, key=lambda each: middle(seconds[each]))
        rows.append(
            {
                "case": case,
                "chosen_P": chosen.partition,
                "ours_s": ours,
                "fastest_P": best,
                "theirs_s": middle(seconds[best]),
                "ratio": ours / middle(seconds[best]),
                "estimate_s": chosen.seconds,
                "reach": "report",
            }
        )
        shutil.rmtree(folder / case)
    return rows


# Ten million inputs ---------------------------------------------------------------------------------------------------


class NamedStore(LocalStore):
    """Has a file behind every name: always the same."""

    def __init__(self, real: bytes) -> None:
        self._real = real

    def identify(self, uri: bytes) -> Input:
        """Look at the file, and return it under the name."""
        found = super().identify(self._real)
        return Input(uri, found.size, found.version)

    def open_input(self, entry: Input, offset: int = 0, size: int = 0, *, head: int = 0, hold: int = 0) -> LocalReader:
        """Open the file."""
        return super().open_input(Input(self._real, entry.size, entry.version), offset, size, head=head, hold=hold)


def names(count: int) -> Iterator[bytes]:
    """Yield made-up paths of 40 bytes, in order."""
    for index in range(count):
        yield NAME % index


def plan_names(count: int, manifest: str, real: str) -> None:
    """Plan so many made-up names, and print what it took as JSON. The peak is this process's, so it is to be its own.

    Args:
        count: How many: a power of ten.
        manifest: A file that lists them; without one they come unsorted, as a folder lists its files.
        real: The file behind each.
    """
    before = resident_bytes("VmHWM")
    began = time.process_time()
    if manifest:
        paths = expand("@" + manifest)
    else:
        paths = collected_sorted(NAME % (index * STEP % count) for index in range(count))
    listed = time.process_time()
    prepared = prepare("mean", paths, b"out.npy", Options(), NamedStore(fsencode(real)))
    told = {
        "listing_seconds": listed - began,
        "planning_seconds": time.process_time() - listed,
        "peak_bytes": resident_bytes("VmHWM"),
        "bytes_per_input": (resident_bytes("VmHWM") - before) / count,
        "files": len(prepared.manifest),
        "in_order": paths[0] == NAME % 0 and paths[count // 2] == NAME % (count // 2),
    }
    print(json.dumps(told))


def planned_apart(count: int, manifest: str, real: str) -> dict[str, float]:
    """Run ``plan_names`` in a process of its own, and return what it told."""
    code = f"from benchmarks.planning import plan_names; plan_names({count}, {manifest!r}, {real!r})"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def many(folder: Path) -> list[dict[str, object]]:
    """Plan ten million inputs, from a manifest and as from a folder."""
    (real,) = made(folder, "real", 1, 1_000)
    listing = folder / "list.txt"
    with open(listing, "wb") as file:
        file.writelines(name + b"\n" for name in names(MANY))
    kernel = stat_seconds(real) * MANY
    rows: list[dict[str, object]] = []
    for case, manifest in (("a manifest", str(listing)), ("a folder, unsorted", "")):
        told = planned_apart(MANY, manifest, real.decode())
        rows.append(
            {
                "case": f"{MANY:,} inputs from {case}",
                "against": "1 GiB",
                "listing_s": told["listing_seconds"],
                "planning_s": told["planning_seconds"],
                "stat_s": kernel,
                "bytes_per_input": told["bytes_per_input"],
                "peak_GiB": told["peak_bytes"] / 2**30,
                "ratio": told["peak_bytes"] / 2**30,
                "reach": 1.0,
            }
        )
    return rows


def stat_seconds(path: bytes) -> float:
    """Return what looking at one file takes: the part of planning that no program is spared."""
    rounds = 100_000
    began = time.process_time()
    for _ in range(rounds):
        stat(path)
    return (time.process_time() - began) / rounds


def main() -> None:
    """Measure, and print the tables."""
    with tempfile.TemporaryDirectory(prefix="distsum-bench-") as name:
        report("planning_rates", rate_rows(rates(Path(name))))
    with tempfile.TemporaryDirectory(prefix="distsum-bench-") as name:
        report("planning_choice", choices(Path(name)))
    with tempfile.TemporaryDirectory(prefix="distsum-bench-") as name:
        report("planning_many", many(Path(name)))


if __name__ == "__main__":
    main()
