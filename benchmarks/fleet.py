"""How long does a fleet take to be up, what is uploaded, and what do ten times as many hosts cost?

Fresh and prepared hosts are network namespaces on this machine with an OpenSSH server each, so the installations of all
share its cores, and the network is as fast as memory. The many are simulated (``fleet_hosts``).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh

from benchmarks import fleet_hosts
from benchmarks.measure import middle, report
from tests import hosts as namespaces
from tests import rabbitmq
from tests.fleetcontrol import COUNT, Control
from tests.relay import Relay
from tests.stack.processes import free_ports
from tests.stack.rabbitmq import USER as OPERATOR

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY = (10, 100)
DELAYS = (0.0, 0.3)
"""What an answer of a simulated host takes: nothing, so that only this machine's own work counts, or what Python takes
to start on a host."""
ROUNDS = 3
REACH = 3.0


def main() -> None:
    """Print one row for each case."""
    rows = hosts()
    with tempfile.TemporaryDirectory() as folder:
        for delay in DELAYS:
            rows += simulated(Path(folder), delay)
    report("fleet", rows)


def hosts() -> list[dict[str, object]]:
    """Return what bringing up real hosts takes; nothing where there can be none."""
    reason = namespaces.impossible() or ", ".join(namespaces.missing_packages())
    if reason or not rabbitmq.installed():
        print(f"real hosts left out: they take root, OpenSSH, iptables and RabbitMQ; {reason}")
        return []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        node = stack.enter_context(rabbitmq.running_node())
        vhost = stack.enter_context(node.vhost())
        network = stack.enter_context(namespaces.network(folder))
        network.boot(COUNT)
        relay = stack.enter_context(contextlib.closing(Relay(network.address, ("127.0.0.1", node.amqp_port))))
        home = folder / "home"
        home.mkdir()
        address = f"amqp://{OPERATOR}:{node.password}@{network.address}:{relay.port}/{vhost}"
        management = f"http://{OPERATOR}:{node.password}@127.0.0.1:{node.management_port}"
        variables = {"DISTSUM_BROKER": address, "DISTSUM_MANAGEMENT": management}
        control = Control(home, network, _places(folder) | variables)
        control.write(store=None)
        prepared = control.run("broker", "setup")
        assert prepared.returncode == 0, prepared.stderr
        control.told("plan")  # gathers the wheels, once for each version
        rows = []
        for case in (f"{COUNT} fresh hosts", f"{COUNT} prepared hosts", f"{COUNT} hosts that are up"):
            began = time.perf_counter()
            told = control.told("up", "--detach")
            seconds = time.perf_counter() - began
            uploaded = sum(told[host.address]["uploaded_bytes"] for host in control.hosts)
            rows.append(_row(case, seconds, uploaded=f"{uploaded / COUNT / 2**20:.1f} MiB a host"))
            if "fresh" in case:
                control.told("drain", "--drain-seconds", "0")
        control.told("down", "--drain-seconds", "0")
    return rows


def simulated(folder: Path, delay: float) -> list[dict[str, object]]:
    """Return what bringing up more and more simulated hosts takes, medians of runs that take turns."""
    seconds: dict[int, list[float]] = {count: [] for count in MANY}
    for _ in range(ROUNDS):
        for count in MANY:
            seconds[count].append(_simulated_up(folder, count, delay))
    few, many = (middle(seconds[count]) for count in MANY)
    case = f"{{}} simulated hosts, {delay:g} s an answer"
    return [
        _row(case.format(MANY[0]), few),
        _row(case.format(MANY[1]), many, against=f"{MANY[0]} hosts", ratio=many / few, reach=f"<= {REACH:g}"),
    ]


def _simulated_up(folder: Path, count: int, delay: float) -> float:
    (port,) = free_ports(1)
    for name in ("host_key", "key"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(folder / name)
        key.write_public_key(folder / f"{name}.pub")
    home = folder / "home"
    home.joinpath(".ssh").mkdir(parents=True, exist_ok=True)
    public = folder.joinpath("host_key.pub").read_text(encoding="ascii")
    known = "".join(f"[{fleet_hosts.PREFIX}{number}]:{port} {public}" for number in range(1, count + 1))
    home.joinpath(".ssh", "known_hosts").write_text(known, encoding="ascii")
    home.joinpath("fleet.toml").write_text(
        f'user = "anybody"\nkeys = ["{folder}/key"]\nport = {port}\nworkers = 2\nmemory = "64MiB"\n'
        f'broker = "amqp://nobody@broker.invalid/none"\n[[hosts]]\nname = "{fleet_hosts.PREFIX}[1-{count}]"\n',
        encoding="ascii",
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DISTSUM_")}
    environment |= _places(folder) | {"HOME": str(home)}
    command = [sys.executable, "-m", "distsum", "fleet"]
    with _serving(count, port, folder, delay):
        _run([*command, "plan", "--json"], home, environment)
        began = time.perf_counter()
        told = _run([*command, "up", "--detach", "--json"], home, environment)
        seconds = time.perf_counter() - began
    ready = [each for each in told["hosts"] if len(each["workers"]) == 2]
    assert len(ready) == count, told
    return seconds


@contextlib.contextmanager
def _serving(count: int, port: int, folder: Path, delay: float) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.fleet_hosts", str(count), str(port), str(folder), str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.stdin.close()


def _run(command: list[str], home: Path, environment: dict[str, str]) -> Any:
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _places(folder: Path) -> dict[str, str]:
    """Return variables that keep what a fleet keeps here in a folder; what pip has downloaded is shared."""
    return {
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PIP_CACHE_DIR": os.path.expanduser("~/.cache/pip"),
    }


def _row(
    case: str,
    seconds: float,
    *,
    uploaded: str = "-",
    against: str = "-",
    ratio: float | str = "-",
    reach: str = "report",
) -> dict[str, object]:
    return {
        "case": case,
        "seconds": seconds,
        "uploaded": uploaded,
        "against": against,
        "ratio": ratio,
        "reach": reach,
    }
