"""What does it cost to be watched? A job with nobody looking and with five, and a first look at a million tasks.

Whole runs differ by a tenth on a machine that a job keeps busy, so the two are told apart within a job: five viewers
look for some seconds, and do not for as long, by turns, and what counts is how many tasks are done meanwhile. Viewers
are on machines of their own where a service is in earnest. Here they share the cores with it, so their process runs
where a core is idle, as far as the system can see to that, and draws nothing: ``distsum top`` takes its views the same
way. What each process spent of a processor is told too. A look at a million tasks is from the start of connecting to
the first view, at a job under way that nobody has looked at before.

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
from statistics import mean, stdev
from typing import TYPE_CHECKING, NamedTuple

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
from distsum.service.messages import GetJob, Job
from distsum.service.rabbitmq import RabbitTransport
from distsum.service.view import ServiceView
from distsum.service.viewer import Viewer
from tests.stack.running import BUCKET

if TYPE_CHECKING:
    from benchmarks.cluster import Cluster

FILES, COUNT = 40_000, 5_000
VIEWERS = 5
PAIRS = 40
WINDOW_SECONDS = 6.0
SETTLE_SECONDS = 0.7
LEAVES = 1_000_000
LARGE_FILES, LARGE_TILES = 5_000, 1_000
LOOKS = 5
READY_SECONDS = 120.0

LOOK = """
import os, sys, time
from distsum.brokers.address import BrokerAddress
from distsum.service.view import ServiceView
from distsum.service.viewer import Viewer
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

class Counting(Viewer):
    taken = 0

    def _take_frame(self, followed, frame):
        self.taken += 1
        super()._take_frame(followed, frame)

address = BrokerAddress.parse(os.environ["DISTSUM_BROKER"])
while job := sys.stdin.readline().strip():
    viewers = [Counting(address, ServiceView) for _ in range(int(sys.argv[1]))]
    for viewer in viewers:
        viewer.start()
    while any(viewer.service.view is None for viewer in viewers):
        time.sleep(0.01)
    for viewer in viewers:
        viewer.follow(job)
    while any(viewer.job.view is None and viewer.job.ended is None for viewer in viewers):
        time.sleep(0.01)
    print("ready", flush=True)
    began = time.monotonic()
    sys.stdin.readline()
    seconds = time.monotonic() - began
    taken = sum(viewer.taken for viewer in viewers) / seconds / len(viewers)
    for viewer in viewers:
        viewer.close()
    print("away", taken, flush=True)
"""
"""Viewers that follow the service and the job that a line of the input names, up to the next line."""

TIDY = """
import sys, time
from distsum.stores.routing import RoutingStore
store = RoutingStore()
while list(store.list(sys.argv[1].encode())):
    time.sleep(0.1)
store.close()
"""
"""A master removes the partials of a job when it has told of its end; the next job would be done with those."""


class Onlookers:
    """Viewers that look, and do not, when told to."""

    def __init__(self, made: Cluster, count: int) -> None:
        command = python(LOOK, str(count))
        self.process = subprocess.Popen(
            command, env=made.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def turn(self, answer: str, job: str) -> list[str]:
        """Have them look at a job or not, and wait until they do; return what else they say.

        Raises:
            RuntimeError: They have ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{job}\n")
        self.process.stdin.flush()
        told, *more = self.process.stdout.readline().split() or [""]
        if told != answer:
            raise RuntimeError(f"those who look said {told!r} and not {answer!r}")
        return more

    def close(self) -> None:
        """End their process."""
        self.process.kill()
        self.process.wait()


def cpu_seconds(pid: int) -> float:
    """Return what a process has used of a processor so far."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def broker_pid(made: Cluster) -> int:
    """Return the process of the RabbitMQ node that was started for this run.

    Raises:
        RuntimeError: There is none, or more than one.
    """
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_node = b"beam.smp" in place.joinpath("cmdline").read_bytes()
            if is_node and os.fsencode(made.place) in place.joinpath("environ").read_bytes():
                found.append(int(place.name))
    if len(found) != 1:
        raise RuntimeError(f"{len(found)} processes of RabbitMQ in {made.place}")
    return found[0]


class Window(NamedTuple):
    """What went on for some seconds: tasks done, shares of a processor by who spent them, and views that each took."""

    rate: float
    spent: dict[str, float]
    views: float = 0.0


def windows(made: Cluster) -> dict[int, list[Window]]:
    """Run jobs, with nobody looking and with viewers by turns; return what went on, by the number of viewers."""
    folder = f"s3://{BUCKET}/in"
    made.run(*DISTSUM, "generate", folder, "--files", str(FILES), "--count", str(COUNT), "--quiet")
    made.start("master", "master", "--work-dir", f"s3://{BUCKET}/scratch")
    made.run(*DISTSUM, "jobs")  # which waits for it
    made.start("worker", "worker", "--slots", "2")
    await_workers(made, 2)
    submit = [*DISTSUM, "submit", "mean", f"{folder}/*.npy", "-o", f"s3://{BUCKET}/out.npy", "-p", "5"]
    submit += ["--tiles", "1", "--force"]
    seen: dict[int, list[Window]] = {0: [], VIEWERS: []}
    address = BrokerAddress.parse(made.environment["DISTSUM_BROKER"])
    with (
        contextlib.closing(Onlookers(made, VIEWERS)) as onlookers,
        contextlib.closing(RabbitTransport(address)) as transport,
    ):
        (master,) = made.of("master")
        pids = {"master": master.pid, "broker": broker_pid(made), "viewers": onlookers.process.pid}
        turn = 0
        while min(map(len, seen.values())) < PAIRS:
            made.run(*python(TIDY, f"s3://{BUCKET}/scratch/partials"))
            job = made.run(*submit).strip()
            while True:
                viewers = (0, VIEWERS, VIEWERS, 0)[turn % 4]  # so that a slow spell meets both alike
                if viewers:
                    onlookers.turn("ready", job)
                time.sleep(SETTLE_SECONDS)
                window = one_window(transport, job, pids)
                if viewers:
                    (views,) = onlookers.turn("away", job)
                    window = window and window._replace(views=float(views))
                if window is None:
                    break
                seen[viewers].append(window)
                turn += 1
            made.run(*DISTSUM, "wait", job)
    return seen


def one_window(transport: RabbitTransport, job: str, pids: dict[str, int]) -> Window | None:
    """Wait a while; return what went on, None where the job was over before the end of that."""
    before, began = tasks_done(transport, job), time.monotonic()
    spent = {name: -cpu_seconds(pid) for name, pid in pids.items()}
    time.sleep(WINDOW_SECONDS)
    after, ended = tasks_done(transport, job), time.monotonic()
    if before is None or after is None:
        return None
    seconds = ended - began
    shares = {name: (each + cpu_seconds(pids[name])) / seconds for name, each in spent.items()}
    return Window((after - before) / seconds, shares)


def tasks_done(transport: RabbitTransport, job: str) -> int | None:
    """Return how many tasks of a job are done; None where it has ended."""
    answer = transport.ask(GetJob(job), READY_SECONDS)
    if not isinstance(answer, Job):
        raise RuntimeError(f"the master answered {answer!r}")
    snapshot = answer.status.snapshot
    return None if snapshot is None else sum(phase.done for phase in snapshot.phases)


def watched_rows(made: Cluster) -> list[dict[str, object]]:
    """Return what is told of a job that is watched, against one that is not."""
    seen = windows(made)
    pairs = list(zip(seen[0], seen[VIEWERS], strict=False))
    ratios = [alone.rate / watched.rate for alone, watched in pairs]
    error = stdev(ratios) / len(ratios) ** 0.5
    alone, watched = (mean(each.rate for each in seen[count]) for count in (0, VIEWERS))
    case = f"{FILES:,} files over RabbitMQ and S3, {VIEWERS} viewers"
    note = f"mean of {len(ratios)} pairs of {WINDOW_SECONDS:g} s, +- {error:.3f}; median {middle(ratios):.3f}"
    rows = [row(f"{case}: seconds for 1,000 tasks", 1e3 / watched, 1e3 / alone, 1.02, note)]
    for name in seen[0][0].spent:
        with_them, without = (mean(each.spent[name] for each in seen[count]) for count in (VIEWERS, 0))
        told = f"{with_them:.3f} and not {without:.3f} s a second"
        if name == "viewers":
            told += f"; each took {mean(each.views for each in seen[VIEWERS]):.1f} views a second"
        case = f"what goes to the {name} of a processor for that"
        rows.append(row(case, with_them - without, 1.0, None if name == "viewers" else 0.02, told))
    return rows


def row(case: str, measured: float, limit: float, reach: float | None, note: str) -> dict[str, object]:
    """Return one row of the table; ``reach`` is None of what is only told."""
    columns = {"case": case, "seconds": measured, "against_s": limit, "ratio": measured / limit}
    return columns | {"reach": "" if reach is None else f"<= {reach:g}", "note": note}


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
