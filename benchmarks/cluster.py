"""What does the service cost over RabbitMQ and S3? Against obstore, Dask, a bare message loop, and more hosts.

Everything is on this machine: a RabbitMQ node and a SeaweedFS server started for it, so their own work shares the cores
with ours and with that of the peers. Whole processes, which find workers already up, the runs of a case taking turns,
medians. ``reach`` is the ratio that the project set itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import cluster_bare
from benchmarks.cluster_hosts import hosts
from benchmarks.measure import interleaved, middle, report
from benchmarks.single_machine import compile_all, python
from tests.stack.processes import Tether, tail
from tests.stack.running import BUCKET, servers, start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stack.processes import Starter

DISTSUM = [sys.executable, "-m", "distsum"]
FILES = 100
COUNT = 2_000_000
ROUNDS = 3
TASK_FILES = 8_000
MEMORY_FILES = 4_000_000
TASK_WORKERS = 4
READY_SECONDS = 60.0

OBSTORE = """
import asyncio, io, sys, time
from collections import deque
import numpy as np
from obstore.store import S3Store

async def main(bucket, prefix, out):
    store = S3Store(bucket, client_options={"allow_http": True})
    names = sorted(each["path"] for page in store.list(prefix) for each in page)
    async def numbers(name):
        data = await (await store.get_async(name)).bytes_async()
        header = np.lib.format.read_magic(head := io.BytesIO(memoryview(data)[:4096])) and \\
            np.lib.format.read_array_header_1_0(head)
        return np.frombuffer(data, header[2], offset=head.tell())
    waiting = deque()
    total = None
    for name in names:
        waiting.append(asyncio.ensure_future(numbers(name)))
        if len(waiting) == 5:
            values = await waiting.popleft()
            total = np.array(values) if total is None else np.add(total, values, out=total)
    while waiting:
        values = await waiting.popleft()
        total = np.array(values) if total is None else np.add(total, values, out=total)
    total /= len(names)
    np.save(result := io.BytesIO(), total)
    await store.put_async(out, result.getvalue())

began = time.perf_counter()
asyncio.run(main(*sys.argv[1:]))
print(time.perf_counter() - began, flush=True)
import os; os._exit(0)  # its threads have been seen to abort the interpreter where that ends properly
"""
"""One process that streams the objects, five at once, and adds them in order."""

DASK = """
import io, sys
import dask, dask.array as da, numpy as np, s3fs
from dask.distributed import Client

def load(path):
    import io, numpy as np, s3fs
    return np.load(io.BytesIO(s3fs.S3FileSystem().cat_file(path)))

def main(bucket, prefix, out, scheduler, count):
    files = s3fs.S3FileSystem()
    names = sorted(files.ls(f"{bucket}/{prefix}"))
    with Client(scheduler_file=scheduler):
        arrays = [da.from_delayed(dask.delayed(load)(name), (int(count),), "f8") for name in names]
        mean = da.stack(arrays).mean(0, split_every=5).compute()
    np.save(result := io.BytesIO(), mean)
    files.pipe_file(f"{bucket}/{out}", result.getvalue())

main(*sys.argv[1:])
"""
"""Dask as one would write it: an array from each object, and their mean, by workers that read through s3fs."""


CLIENT = """
import sys, time
from distsum.brokers.address import BrokerAddress
from distsum.inputs import expand
from distsum.request import Options
from distsum.service.rabbitmq import connect
from distsum.stores.routing import RoutingStore
import os
bucket, rounds = sys.argv[1:]
with connect(BrokerAddress.parse(os.environ["DISTSUM_BROKER"]), RoutingStore(), 20.0) as client:
    for _ in range(int(rounds) + 1):
        began = time.perf_counter()
        inputs = expand([f"s3://{bucket}/in/*.npy"])
        options = Options(force=True, digest=True)
        client.wait(client.submit_job("mean", inputs, f"s3://{bucket}/ours.npy".encode(), options))
        print(time.perf_counter() - began)
"""
"""A client that goes on: the first job, with which it connects, does not count."""
SAME = """
import io, sys
import numpy as np
from obstore.store import S3Store
store = S3Store(sys.argv[1], client_options={"allow_http": True})
first, *others = (np.load(io.BytesIO(store.get(name).bytes())) for name in sys.argv[2:])
for other in others:
    np.testing.assert_allclose(other, first, rtol=1e-12)
import os; os._exit(0)
"""
"""All have computed the same thing, up to the order of additions."""
JOIN = """
import sys
from dask.distributed import Client
Client(scheduler_file=sys.argv[1]).wait_for_workers(2, timeout=60)
"""


@dataclass
class Cluster:
    """What runs: where everything is written and who starts processes; the environment reaches both servers."""

    place: Path
    starter: Starter
    environment: dict[str, str]
    started: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list)

    def start(self, kind: str, *arguments: str, within: tuple[str, ...] = ()) -> None:
        """Start one of our commands in the background, perhaps by another command."""
        log = self.place / f"{kind}{len(self.started)}.log"
        self.start_other(kind, [*within, *DISTSUM, *arguments], log)

    def start_other(self, kind: str, command: list[str], log: Path) -> None:
        """Start any command in the background."""
        self.started.append((kind, self.starter(command, self.environment, self.place, log)))

    def of(self, kind: str) -> list[subprocess.Popen[bytes]]:
        """Return the processes of a kind."""
        return [process for each, process in self.started if each == kind]

    def run(self, *command: str) -> str:
        """Run a command that must succeed; return what it printed."""
        done = subprocess.run(
            command, env=self.environment, cwd=self.place, capture_output=True, text=True, check=False
        )
        if done.returncode:
            logs = "\n".join(tail(path) for path in sorted(self.place.glob("*.log")))
            raise RuntimeError(f"{' '.join(command[:6])} ended with {done.returncode}: {done.stderr[-2000:]}\n{logs}")
        return done.stdout

    def asked(self, *arguments: str) -> list[dict]:
        """Return what one of our commands prints as JSON."""
        return json.loads(self.run(*DISTSUM, *arguments, "--json"))


@contextlib.contextmanager
def cluster(host: str = "127.0.0.1") -> Iterator[Cluster]:
    """Give both servers; they, all processes and all data are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="distsum-bench-") as name, Tether() as tether:
        made = servers(Path(name), tether, host)
        start(made)
        told = made.describe()
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "DISTSUM_"))}
        clean |= {"PYTHONPATH": str(Path(__file__).parents[1])}
        try:
            with Tether() as processes:
                yield Cluster(Path(name), processes, clean | told.environment)
        finally:
            for socket in told.sockets:
                Path(socket).unlink(missing_ok=True)


def await_workers(made: Cluster, count: int) -> None:
    """Wait until so many workers are idle."""
    deadline = time.monotonic() + READY_SECONDS
    while sum(each["state"] == "idle" for each in made.asked("workers")) != count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"no {count} workers: " + "\n".join(tail(path) for path in made.place.glob("*.log")))
        time.sleep(0.2)


def large(made: Cluster) -> list[dict[str, object]]:
    """100 objects of 2 M numbers: a job of the service against one process, and against Dask."""
    made.run(*DISTSUM, "generate", f"s3://{BUCKET}/in", "--files", str(FILES), "--count", str(COUNT), "--quiet")
    made.start("master", "master", "--work-dir", f"s3://{BUCKET}/work")
    made.run(*DISTSUM, "jobs")  # which waits for it
    made.start("worker", "worker", "--slots", "2")
    await_workers(made, 2)
    scheduler = str(made.place / "scheduler.json")
    common = ["--no-dashboard", "--scheduler-file", scheduler]
    for kind, options in (("scheduler", ["--port", "0"]), ("worker", ["--nworkers", "2", "--nthreads", "1"])):
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options, "--host", "127.0.0.1", *common]
        made.start_other(f"dask {kind}", command, made.place / f"dask-{kind}.log")
    made.run(*python(JOIN, scheduler))
    ours = [
        "submit",
        "mean",
        f"s3://{BUCKET}/in/*.npy",
        "-o",
        f"s3://{BUCKET}/ours.npy",
        "--force",
        "--wait",
        "--quiet",
    ]
    runs = {
        "distsum": [*DISTSUM, *ours],
        "obstore": python(OBSTORE, BUCKET, "in", "obstore.npy"),
        "Dask": python(DASK, BUCKET, "in", "dask.npy", scheduler, str(COUNT)),
    }
    seconds = interleaved(runs, ROUNDS, environment=made.environment)
    name = f"{FILES} x {COUNT / 1e6:g} M from S3, 2 workers"
    submitted, streamed, bare = [], [], []
    for _ in range(2):
        submitted += [float(line) for line in made.run(*python(CLIENT, BUCKET, "2")).splitlines()[1:]]
        streamed += [float(made.run(*runs["obstore"])) for _ in range(2)]
        bare += [cluster_bare.seconds(BUCKET, "in/", made.environment) for _ in range(2)]
    made.run(*python(SAME, BUCKET, "ours.npy", "obstore.npy", "dask.npy", "bare.npy"))
    within = row(
        f"{name}, submit to result", "its loop alone", middle(submitted), middle(streamed), 1.4, "without start-up"
    )
    bound = row(
        "two processes of aiobotocore and numpy alone", "the same", middle(bare), middle(streamed), "", "a bound"
    )
    words = {"obstore": ("one process, obstore, 5 at once", 1.4), "Dask": ("Dask distributed + s3fs", 0.35)}
    middles = {each: middle(taken) for each, taken in seconds.items()}
    told = json.loads(made.run(*DISTSUM, *ours, "--json").splitlines()[-1])
    inside = f"{told['seconds']:.3g} s of it inside the service"
    rows = [row(name, words[peer][0], middles["distsum"], middles[peer], words[peer][1], inside) for peer in words]
    return [within, bound, *rows]


def row(case: str, peer: str, ours: float, theirs: float, reach: object, note: str = "") -> dict[str, object]:
    """Return one row of the table."""
    columns = {"case": case, "against": peer, "ours_s": ours, "theirs_s": theirs, "ratio": ours / theirs}
    return columns | {"reach": reach, "note": note}


def tasks(made: Cluster) -> list[dict[str, object]]:
    """Empty tasks: how many go through the queues, what they cost the master, and what it remembers."""
    broker = made.environment["DISTSUM_BROKER"]
    command = [sys.executable, "-m", "benchmarks.cluster_tasks"]
    ours, theirs = [], []
    for _ in range(3):
        ours.append(json.loads(made.run(*command, "serve", broker, str(TASK_FILES), str(TASK_WORKERS))))
        theirs.append(json.loads(made.run(*command, "bare", broker, str(ours[-1]["tasks"]), str(TASK_WORKERS))))
    rates = [middle([each["tasks"] / each["seconds"] for each in runs]) for runs in (ours, theirs)]
    costs = [middle([each["cpu_seconds"] / each["tasks"] * 1e3 for each in runs]) for runs in (ours, theirs)]
    alone = json.loads(made.run(*command, "decide", str(MEMORY_FILES)))
    kept = alone["peak_bytes"] / alone["tasks"]  # bytes a task are MB a million
    acting = alone["cpu_seconds"] / alone["tasks"] * 1e3
    case = f"{ours[0]['tasks']:,} empty tasks, {TASK_WORKERS} workers"
    columns = ("case", "against", "ours_s", "theirs_s", "ratio", "reach", "note")
    lines = [
        (case, "a bare loop of aio-pika", *(middle([e["seconds"] for e in runs]) for runs in (ours, theirs)),
         rates[0] / rates[1], ">= 0.6", f"{rates[0]:.0f} tasks/s, the loop {rates[1]:.0f}"),
        ("master's CPU for a task", "1 ms", costs[0] / 1e3, 1e-3, costs[0], "aim: 1",
         f"{acting:.2g} ms in actors; the loop takes {costs[1]:.2g} ms"),
        (f"master's memory, {alone['tasks']:,} tasks", "200 MB a million", 0.0, 0.0, kept / 200, "aim: 1",
         f"{kept:.3g} MB a million"),
    ]  # fmt: skip
    return [dict(zip(columns, line, strict=True)) for line in lines]


def main() -> None:
    """Run all cases, and print one table."""
    compile_all()
    with cluster() as made:
        rows = large(made)
    with cluster() as made:
        rows += tasks(made)
    report("cluster", rows + hosts())


if __name__ == "__main__":
    main()
