"""What does a straggler cost a real service? Four workers, of which one is slowed, freezes or dies in mid-job.

Each worker is a host: a network namespace on one bridge, with a name of its own. All have the same limited link, which
is what decides how long a task takes, so that they do not compete for the cores of this machine. The slow one has a
tenth of that link, or (by a cgroup) a tenth of the processor time that the others were seen to use. What freezes or
dies does so when two fifths of the healthy makespan are over, and is not back before the job has ended.

The rows are told as ratios to what four and what three healthy workers took in the same run. ``reach`` is what the
project set itself. All of it takes some twenty minutes; a job that takes far too long ends it, with the logs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cluster_hosts import HUB, can_be_made, limit_link, namespaces
from benchmarks.measure import report
from distsum.request import BUSY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.cluster import Cluster

MEGABITS = 30.0
SIZES = {"small": (300, 100_000), "large": (20, 1_000_000)}
"""Files and numbers in each: of the small ones, and of large ones whose tasks take long though they add only five."""
JOBS = (("small", 25), ("small", 5), ("large", 5))
"""Which files, and the partition."""
UNHELPED = (("small", 25),)
"""Those that are run without speculation, too: it takes a minute a case."""
WARMING_FILES = 25
MOST_SECONDS = 300
MOST_BUSY_SECONDS = 900
SLOWER = 10.0
STRIKES_AT = 0.4
REACH = 1.35

BUSY_FILES = 5_000
BUSY_COUNT = 40_000
BUSY_WORKERS = 2
BUSY_REACH = 0.95

_PERIOD_SECONDS = 0.2
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass
class Workers:
    """One worker on each host, by the host's place."""

    made: Cluster
    hub: str
    names: list[str]
    processes: dict[int, subprocess.Popen[bytes]]

    def start(self, count: int) -> None:
        """Start those that are not there, and end those that are too many; wait until all are known."""
        from benchmarks.cluster import await_workers

        for place in [place for place in self.processes if place >= count]:
            self.end(place)
        for place in range(count):
            if place not in self.processes:
                name = f"host{place + 1}"
                self.made.start("worker", "worker", "--slots", "1", within=entering(self.names[place], name))
                self.processes[place] = self.made.started[-1][1]
        await_workers(self.made, count)

    def tree(self, place: int) -> list[int]:
        """Return the process that was started for a host, and those that it has started."""
        pid = self.processes[place].pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return [pid, *map(int, children)]

    def signal(self, place: int, number: signal.Signals) -> None:
        """Send all processes of a host a signal."""
        for pid in self.tree(place):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self, place: int) -> None:
        """Take a host's worker away, whatever state it is in."""
        self.signal(place, signal.SIGKILL)
        self.processes.pop(place).wait()

    def processor_seconds(self, place: int) -> float:
        """Return what the processes of a host have used of a processor."""
        ticks = 0
        for pid in self.tree(place):
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def entering(namespace: str, host: str) -> tuple[str, ...]:
    """Return the command that runs another one on a host: in its network, and with its name."""
    # Not by `ip netns exec`, in which cgroups are not to be seen.
    naming = 'echo "$0" > /proc/sys/kernel/hostname && exec "$@"'
    return ("nsenter", f"--net=/run/netns/{namespace}", "unshare", "--uts", "sh", "-c", naming, host)


# What goes wrong ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def slow_network(workers: Workers, _usual: float) -> Iterator[None]:
    """Limit the first host's link to a tenth."""
    limit_link(workers.hub, workers.names, 0, MEGABITS / SLOWER)
    try:
        yield
    finally:
        limit_link(workers.hub, workers.names, 0, MEGABITS)


@contextlib.contextmanager
def slow_processor(workers: Workers, usual: float) -> Iterator[None]:
    """Give the first host a tenth of the share of a processor that it was seen to use."""
    name = f"distsum-bench-{os.getpid()}"
    period = round(_PERIOD_SECONDS * 1e6)
    quota = max(1_000, round(usual / SLOWER * period))  # which is the least that the kernel takes
    second = (_CGROUPS / "cgroup.controllers").exists()
    group = (_CGROUPS if second else _CGROUPS / "cpu") / name
    group.mkdir()
    try:
        if second:
            (group / "cpu.max").write_text(f"{quota} {period}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(period))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        for pid in workers.tree(0):
            (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        workers.end(0)
        while (group / "cgroup.procs").read_text(encoding="ascii"):
            time.sleep(0.05)
        group.rmdir()


def cgroups_limit() -> bool:
    """Whether a cgroup can limit processor time; if not, say so."""
    first = _CGROUPS / "cpu" / "cpu.cfs_quota_us"
    second = _CGROUPS / "cgroup.subtree_control"
    if first.parent.is_dir() and os.access(first.parent, os.W_OK):
        return True
    if second.exists() and "cpu" in second.read_text(encoding="ascii").split() and os.access(_CGROUPS, os.W_OK):
        return True
    print("a slow processor left out: no cgroup can be made here that limits processor time", file=sys.stderr)
    return False


def freeze(workers: Workers) -> None:
    """Stop all processes of the first host."""
    workers.signal(0, signal.SIGSTOP)


def kill(workers: Workers) -> None:
    """Kill all processes of the first host."""
    workers.end(0)


# Runs -----------------------------------------------------------------------------------------------------------------


def run(
    workers: Workers,
    partition: int,
    *,
    source: str,
    after_seconds: float = 0.0,
    strike: Callable[[Workers], None] | None = None,
    most_seconds: int = MOST_SECONDS,
) -> dict[str, Any]:
    """Run a job; return its summary, with ``sha256`` of its result. ``strike`` strikes in its midst."""
    from benchmarks.cluster import BUCKET, DISTSUM

    place, made = f"s3://{BUCKET}", workers.made
    options = ["--force", "--quiet", "--partition", str(partition), "--tiles", "1"]
    job = made.run(*DISTSUM, "submit", "mean", f"{place}/{source}/*.npy", "-o", f"{place}/out.npy", *options).strip()
    if strike is not None:
        time.sleep(after_seconds)
        strike(workers)
    printed = made.run(*DISTSUM, "wait", job, "--json", "--quiet", "--timeout", str(most_seconds))
    return json.loads(printed.splitlines()[-1]) | {"sha256": _digest(made, f"{place}/out.npy")}


def _digest(made: Cluster, uri: str) -> str:
    code = (
        "import hashlib, sys\nfrom distsum.stores.routing import RoutingStore\n"
        "store = RoutingStore()\nreader = store.open(sys.argv[1].encode())\n"
        "print(hashlib.sha256(reader.read(0, reader.size)).hexdigest())\nreader.close()\nstore.close()\n"
    )
    return made.run(sys.executable, "-c", code, uri).strip()


def measure(
    workers: Workers, source: str, partition: int, usual: dict[tuple[str, int], tuple[float, float]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run all cases with some files and one partition; yield each with its summary.

    ``usual`` holds for these the seconds and the share of a processor where nothing is wrong; it is measured only
    if it is not there.
    """
    workers.start(4)
    run(workers, 5, source="warming")  # which loads what every process needs once
    if (source, partition) not in usual:
        used = workers.processor_seconds(1)
        healthy = run(workers, partition, source=source)
        seconds = healthy["seconds"]
        usual[source, partition] = seconds, (workers.processor_seconds(1) - used) / seconds
        yield "4 healthy", healthy
        workers.start(3)
        yield "3 healthy", run(workers, partition, source=source)
    seconds, share = usual[source, partition]
    slow: dict[str, Callable[[Workers, float], contextlib.AbstractContextManager[None]]] = {
        "network 10x slow": slow_network,
        "processor 10x slow": slow_processor,
    }
    for case, slowed in slow.items():
        if slowed is slow_processor and not cgroups_limit():
            continue
        workers.start(4)
        with slowed(workers, share):
            yield case, run(workers, partition, source=source)
    for case, strike in {"frozen": freeze, "killed": kill}.items():
        workers.start(4)
        yield case, run(workers, partition, source=source, after_seconds=STRIKES_AT * seconds, strike=strike)
        if 0 in workers.processes:
            workers.end(0)


def busy(workers: Workers) -> dict[str, Any]:
    """Run a thousand equal tasks, and those that add their results; return the summary."""
    workers.start(BUSY_WORKERS)
    return run(workers, 5, source="many", most_seconds=MOST_BUSY_SECONDS)


def within(hub: str, names: list[str]) -> dict[str, Any]:
    """Inside the hub: run everything; return summaries by partition, speculation and case, and that of equal tasks."""
    from benchmarks.cluster import BUCKET, DISTSUM, cluster

    found: dict[str, Any] = {"runs": []}
    usual: dict[tuple[str, int], tuple[float, float]] = {}
    with cluster(HUB) as made:
        sizes = SIZES | {"warming": (WARMING_FILES, SIZES["small"][1]), "many": (BUSY_FILES, BUSY_COUNT)}
        for folder, (files, count) in sizes.items():
            size = ["--files", str(files), "--count", str(count)]
            made.run(*DISTSUM, "generate", f"s3://{BUCKET}/{folder}", *size, "--quiet")
        for speculation in (True, False):
            options = [] if speculation else ["--no-speculation"]
            made.start("master", "master", "--work-dir", f"s3://{BUCKET}/work", *options)
            master = made.started[-1][1]
            made.run(*DISTSUM, "jobs")  # which waits for it
            workers = Workers(made, hub, names, {})
            for source, partition in JOBS if speculation else UNHELPED:
                for case, summary in measure(workers, source, partition, usual):
                    words = {"files": source, "partition": partition, "speculation": speculation, "case": case}
                    found["runs"].append(words | summary)
                    said = f"{summary['seconds']:.1f} s, {summary['backups']}"
                    print(", ".join(map(str, words.values())), said, file=sys.stderr, flush=True)
            if speculation:
                found["busy"] = busy(workers)
            for place in list(workers.processes):
                workers.end(place)
            master.terminate()
            master.wait()
    return found


def rows(found: dict[str, Any]) -> list[dict[str, object]]:
    """Return the table."""
    runs = found["runs"]
    assert len({(each["files"], each["sha256"]) for each in runs}) == len(SIZES), "other bits"
    healthy = {
        (each["files"], each["partition"], each["case"]): each["seconds"]
        for each in runs
        if each["speculation"] and each["case"].endswith("healthy")
    }
    lines: list[dict[str, object]] = []
    for each in runs:
        four, three = (healthy[each["files"], each["partition"], f"{count} healthy"] for count in (4, 3))
        backups = each["backups"]
        wasted = backups["wasted_bytes"]
        struck = not each["case"].endswith("healthy") and each["speculation"]
        lines.append(
            {
                "files": each["files"],
                "P": each["partition"],
                "speculation": "yes" if each["speculation"] else "no",
                "one worker": each["case"],
                "seconds": each["seconds"],
                "x 4 healthy": each["seconds"] / four,
                "x 3 healthy": each["seconds"] / three,
                "reach": f"<= {REACH}" if struck else "report",
                "backups": f"{backups['started']} ({backups['won']} won)",
                "read in vain": f"{100 * wasted / max(1, wasted + each['bytes_read']):.1f} %",
            }
        )
    return lines


def busy_rows(found: dict[str, Any]) -> list[dict[str, object]]:
    """Return a row for the time of workers that have a thousand equal tasks to do."""
    summary = found["busy"]
    spent: Counter[str] = Counter()
    for account in summary["worker_accounts"]:
        spent.update(account["seconds"])
    # A worker's start is no part of the job.
    busy_share = sum(spent[kind] for kind in BUSY) / sum(spent[kind] for kind in spent if kind != "starting")
    return [
        {
            "case": f"{summary['tasks']:,} tasks, {BUSY_WORKERS} workers",
            "seconds": summary["seconds"],
            "seconds a task": BUSY_WORKERS * summary["seconds"] / summary["tasks"],
            "busy": busy_share,
            "reach": f">= {BUSY_REACH}",
            "account": ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in spent.items()),
        }
    ]


def main() -> None:
    """Make the hosts, run everything on them, and print both tables."""
    if not can_be_made():
        return
    with namespaces(4, MEGABITS) as (hub, names):
        command = [
            "nsenter",
            f"--net=/run/netns/{hub}",
            sys.executable,
            "-m",
            "benchmarks.stragglers_real",
            hub,
            *names,
        ]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    report("stragglers_real", rows(found))
    report("workers_busy", busy_rows(found))


if __name__ == "__main__":
    print(json.dumps(within(sys.argv[1], sys.argv[2:])))
