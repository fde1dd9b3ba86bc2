"""Do more hosts give more, where each has the same bandwidth? Hosts are network namespaces on one bridge.

``python -m benchmarks.cluster_hosts`` runs inside the hub's namespace, where the bridge is, RabbitMQ, S3 and the
master; ``hosts`` makes the namespaces and runs it there. Each host's link is limited both ways by a token bucket.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MEGABITS = 100
FILES = 25
COUNT = 4_000_000
HOSTS = (1, 2, 4)
NETWORK = "10.213.7"
HUB = f"{NETWORK}.1"
PREFIX = "distsum-bench"


def hosts() -> list[dict[str, object]]:
    """Return one row for each number of hosts; none where namespaces cannot be made."""
    if not can_be_made():
        return []
    with namespaces(max(HOSTS), MEGABITS) as (hub, names):
        command = ["ip", "netns", "exec", hub, sys.executable, "-m", "benchmarks.cluster_hosts", *names]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds = {int(count): taken for count, taken in json.loads(done.stdout.splitlines()[-1]).items()}
    alone = seconds[1]
    size = FILES * COUNT * 8
    return [
        {
            "case": f"{FILES} x {COUNT / 1e6:g} M from S3, {count} hosts of {MEGABITS} Mbit/s",
            "against": f"1 host x {count}",
            "ours_s": taken,
            "theirs_s": alone / count,
            "ratio": alone / count / taken,
            "reach": ">= 0.9" if count == max(HOSTS) else "report",
            "note": f"{size / taken / count * 8e-6:.3g} Mbit/s a host",
        }
        for count, taken in seconds.items()
    ]


def can_be_made() -> bool:
    """Whether there can be namespaces; if not, say why."""
    if os.geteuid() == 0 and shutil.which("ip") and shutil.which("tc"):
        return True
    print("hosts of limited bandwidth left out: they take root, and ip and tc (apt-get install iproute2)")
    return False


@contextlib.contextmanager
def namespaces(count: int, megabits: float) -> Iterator[tuple[str, list[str]]]:
    """Make a hub with a bridge, and hosts with a limited link to it; all of it is gone afterwards."""
    hub = f"{PREFIX}-{os.getpid()}"
    names = [f"{hub}-{number}" for number in range(1, count + 1)]
    made = []
    try:
        for name in (hub, *names):
            ip("netns", "add", name)
            made.append(name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        ip("-n", hub, "address", "add", f"{HUB}/24", "dev", "bridge")
        ip("-n", hub, "link", "set", "bridge", "up")
        for number, name in enumerate(names, 1):
            port = f"port{number}"
            ip("-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", hub, "link", "set", port, "master", "bridge", "up")
            ip("-n", name, "address", "add", f"{NETWORK}.{10 + number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            limit_link(hub, names, number - 1, megabits, "add")
        yield hub, names
    finally:
        for name in reversed(made):
            ip("netns", "delete", name)


def limit_link(hub: str, names: list[str], place: int, megabits: float, what: str = "change") -> None:
    """Limit a host's link both ways."""
    limit = ("rate", f"{megabits:g}mbit", "burst", "256kb", "latency", "50ms")
    for where, device in ((hub, f"port{place + 1}"), (names[place], "eth0")):
        run("tc", "-n", where, "qdisc", what, "dev", device, "root", "tbf", *limit)


def ip(*arguments: str) -> None:
    """Run ``ip``."""
    run("ip", *arguments)


def run(*command: str) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def main() -> None:
    """Inside the hub: run the job with each number of hosts, and print the seconds as JSON."""
    from benchmarks.cluster import BUCKET, DISTSUM, await_workers, cluster

    names = sys.argv[1:]
    seconds = {}
    with cluster(HUB) as made:
        place = f"s3://{BUCKET}"
        made.run(*DISTSUM, "generate", f"{place}/in", "--files", str(FILES), "--count", str(COUNT), "--quiet")
        made.start("master", "master", "--work-dir", f"{place}/work")
        made.run(*DISTSUM, "jobs")  # which waits for it
        for count in HOSTS:
            for name in names[len(made.of("worker")) : count]:
                made.start("worker", "worker", "--slots", "1", within=("ip", "netns", "exec", name))
            await_workers(made, count)
            command = [*DISTSUM, "submit", "mean", f"{place}/in/*.npy", "-o", f"{place}/out.npy", "--force", "--wait"]
            told = json.loads(made.run(*command, "--quiet", "--json").splitlines()[-1])
            # As the master counts them: from the job's acceptance to its visible result.
            seconds[count] = told["seconds"]
            print(f"{count} hosts: {told['seconds']:.1f} s, {told['plan']}", file=sys.stderr)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
