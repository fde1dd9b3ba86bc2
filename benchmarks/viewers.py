"""What does it cost to be watched? Jobs with nobody looking and with five, and a first look at a million tasks.

The runs of both kinds take turns; medians. Viewers are on machines of their own where a service is in earnest. Here
they share the cores with it, so their process has the lowest priority, and draws nothing: ``distsum top`` takes its
views the same way. A look at a million tasks is from the
start of connecting to the first view, at a job under way that nobody has looked at before.

Wanted: a run time within 2 % of that with nobody looking, and a first look within a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from benchmarks.cluster import DISTSUM, await_workers, cluster
from benchmarks.measure import middle, report
from benchmarks.single_machine import compile_all, python
from distsum.brokers.address import BrokerAddress
from distsum.observe.feed import FeedReader, FeedWriter
from distsum.observe.fold import JobTally
from distsum.observe.snapshot import PhaseWork
from distsum.observe.states import DONE, RUNNING, PhaseStates
from distsum.observe.view import JobFold, JobView
from distsum.service.view import ServiceView
from distsum.service.viewer import Viewer
from tests.stack.running import BUCKET

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.cluster import Cluster

FILES, COUNT = 2_000, 5_000
VIEWERS = 5
ROUNDS = 10
LEAVES = 1_000_000
LARGE_FILES, LARGE_TILES = 5_000, 1_000
LOOKS = 5
READY_SECONDS = 120.0

LOOK = """
import os, sys, time
from distsum.brokers.address import BrokerAddress
from distsum.service.messages import ENDED
from distsum.service.view import ServiceView
from distsum.service.viewer import Viewer
os.nice(19)
viewers = [Viewer(BrokerAddress.parse(os.environ["DISTSUM_BROKER"]), ServiceView) for _ in range(int(sys.argv[1]))]
for viewer in viewers:
    viewer.start()
while any(viewer.service.view is None for viewer in viewers):
    time.sleep(0.01)
print("ready", flush=True)
while True:
    for viewer in viewers:
        under_way = [each.job for each in viewer.service.view.jobs if each.state not in ENDED]
        viewer.follow(under_way[0] if under_way else None)
    time.sleep(0.1)
"""
"""Viewers that follow the service, and whichever job is under way."""


TIDY = """
import sys, time
from distsum.stores.routing import RoutingStore
store = RoutingStore()
while list(store.list(sys.argv[1].encode())):
    time.sleep(0.1)
store.close()
"""
"""A master removes the partials of a job when it has told of its end; the next job would be done with those."""


@contextlib.contextmanager
def looking(made: Cluster, count: int) -> Iterator[None]:
    """Have so many viewers look."""
    if not count:
        yield
        return
    process = subprocess.Popen(python(LOOK, str(count)), env=made.environment, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError("the viewers did not come to look")
        yield
    finally:
        process.kill()
        process.wait()


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """Return what a process has used of a processor so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watched(made: Cluster) -> tuple[dict[int, list[float]], dict[int, list[float]], int]:
    """Run a job again and again, with nobody looking and with viewers, by turns.

    Returns:
        By the number of viewers: the seconds that each run took, and those that the master spent of a processor. And
        how many tasks it has.
    """
    folder = f"s3://{BUCKET}/in"
    made.run(*DISTSUM, "generate", folder, "--files", str(FILES), "--count", str(COUNT), "--quiet")
    made.start("master", "master", "--work-dir", f"s3://{BUCKET}/scratch")
    made.run(*DISTSUM, "jobs")  # which waits for it
    made.start("worker", "worker", "--slots", "2")
    await_workers(made, 2)
    (master,) = made.of("master")
    submit = [*DISTSUM, "submit", "mean", f"{folder}/*.npy", "-o", f"s3://{BUCKET}/out.npy", "-p", "5"]
    submit += ["--tiles", "1", "--force", "--wait", "--json", "--quiet"]
    seconds: dict[int, list[float]] = {0: [], VIEWERS: []}
    cpu: dict[int, list[float]] = {0: [], VIEWERS: []}
    told = {}
    for turn in range(2 * ROUNDS + 2):
        viewers = (0, VIEWERS, VIEWERS, 0)[turn % 4]  # so that what comes and goes meets both alike
        made.run(*python(TIDY, f"s3://{BUCKET}/scratch/partials"))
        with looking(made, viewers):
            before = cpu_seconds(master)
            told = json.loads(made.run(*submit).splitlines()[-1])
        if told["tasks_reused"]:
            raise RuntimeError(f"{told['tasks_reused']} tasks were done already")
        if turn >= 2:  # The first of each warms up.
            seconds[viewers].append(told["seconds"])
            cpu[viewers].append(cpu_seconds(master) - before)
    return seconds, cpu, told["tasks"]


def watched_rows(made: Cluster) -> list[dict[str, object]]:
    """Return what is told of a job that is watched, against one that is not."""
    seconds, cpu, tasks = watched(made)
    case = f"{tasks:,} tasks over RabbitMQ and S3, {VIEWERS} viewers"
    ratios = [one / other for one, other in zip(seconds[VIEWERS], seconds[0], strict=True)]
    usual, spent = middle(seconds[0]), middle(cpu[VIEWERS]) - middle(cpu[0])
    pairs = f"pairs from {min(ratios):.3f} to {max(ratios):.3f}"
    share = f"{middle(cpu[VIEWERS]):.3g} s and not {middle(cpu[0]):.3g} s of CPU"
    return [
        row(f"{case}: run time", middle(seconds[VIEWERS]), usual, 1.02, pairs),
        row("what the master spends on that, of the run time", spent, usual, 0.02, share),
    ]


def row(case: str, measured: float, limit: float, reach: float, note: str) -> dict[str, object]:
    """Return one row of the table."""
    columns = {"case": case, "seconds": measured, "against_s": limit, "ratio": measured / limit}
    return columns | {"reach": f"<= {reach:g}", "note": note}


def first_looks(made: Cluster) -> list[dict[str, object]]:
    """Look at a job of a million tasks that is under way, again and again as if for the first time."""
    with tempfile.TemporaryDirectory(prefix="distsum-bench-") as folder:
        made.run(*DISTSUM, "generate", f"{folder}/in", "--files", str(LARGE_FILES), "--count", "1000", "--quiet")
        made.start("master", "master", "--work-dir", f"{folder}/work")
        made.run(*DISTSUM, "jobs")
        made.start("worker", "worker", "--slots", "1")
        await_workers(made, 1)
        arguments = [
            "submit",
            "mean",
            f"{folder}/in",
            "-o",
            f"{folder}/out.npy",
            "-p",
            "5",
            "--tiles",
            str(LARGE_TILES),
        ]
        job = made.run(*DISTSUM, *arguments).strip()
        deadline = time.monotonic() + READY_SECONDS
        while not done_of(made, job):
            if time.monotonic() > deadline:
                raise RuntimeError("the job of a million tasks does not begin")
            time.sleep(0.5)
        taken = []
        tasks = 0
        for _ in range(LOOKS):
            began = time.perf_counter()
            viewer = Viewer(BrokerAddress.parse(made.environment["DISTSUM_BROKER"]), ServiceView)
            viewer.follow(job)
            viewer.start()
            while viewer.job is None or viewer.job.view is None:
                if time.perf_counter() - began > READY_SECONDS:
                    raise RuntimeError("there is nothing to see of the job of a million tasks")
                time.sleep(0.001)
            taken.append(time.perf_counter() - began)
            tasks = len(viewer.job.view.states[0].states)
            viewer.close()
        note = f"{min(taken):.2f} to {max(taken):.2f} s, with connecting"
        made.run(*DISTSUM, "cancel", job)
        return [row(f"first look at {tasks:,} tasks under way", middle(taken), 1.0, 1.0, note)]


def done_of(made: Cluster, job: str) -> int:
    """Return how many tasks of a job are done."""
    snapshot = json.loads(made.run(*DISTSUM, "status", job, "--json"))["snapshot"]
    return sum(phase["done"] for phase in snapshot["phases"]) if snapshot else 0


def frames() -> list[dict[str, object]]:
    """Make and take frames of a million tasks in states that cannot be packed well, and of some that have changed."""
    work = (PhaseWork(LEAVES, LEAVES, LEAVES),)
    empty = JobFold(JobTally(work, str), work, "/out.npy", 0.0).view(0.0)
    chance = np.random.default_rng(1)
    states = chance.integers(0, 2, LEAVES, dtype=np.uint8) * DONE

    def view() -> JobView:
        return msgspec.structs.replace(empty, states=(PhaseStates(1, states.tobytes()),))

    writer = FeedWriter("s.1", view())
    reader: FeedReader[JobView] = FeedReader(JobView)
    making, taking, sizes = [], [], []
    for number in range(21):
        if number:
            states[chance.integers(0, LEAVES, 100)] = RUNNING
        newest = view()
        began = time.perf_counter()
        frame = writer.step(newest) if number else writer.picture()
        making.append(time.perf_counter() - began)
        assert frame is not None
        began = time.perf_counter()
        reader.take(frame)
        taking.append(time.perf_counter() - began)
        sizes.append(len(frame))
    assert reader.view == writer.view
    first = f"{sizes[0]:,} bytes, taken in {1e3 * taking[0]:.1f} ms"
    later = f"{middle(sizes[1:]):,.0f} bytes, taken in {1e3 * middle(taking[1:]):.1f} ms"
    return [
        row("their picture, states at random", making[0], 1.0, 0.1, first),
        row("what is different after 100 changes, of 0.1 s", middle(making[1:]), 0.1, 0.02, later),
    ]


def main() -> None:
    """Run all cases, and print one table."""
    compile_all()
    with cluster() as made:
        rows = watched_rows(made)
    with cluster() as made:
        rows += first_looks(made)
    report("viewers", rows + frames())


if __name__ == "__main__":
    main()
