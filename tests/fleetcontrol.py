"""The machine that a fleet is run from, and what its commands tell."""

from __future__ import annotations

import contextlib
import json
import subprocess
from typing import TYPE_CHECKING, Any

from tests import hosts as test_hosts
from tests.command import COMMAND
from tests.command import environment as command_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.hosts import Network, SshHost

COUNT = 4
WORK = "s3://tests/fleet"
INPUTS = "s3://tests/fleet-in"
OUTPUT = "s3://tests/fleet-out.npy"


class Control:
    """The machine that a fleet is run from: a home folder of its own, and a fleet.toml.

    Args:
        home: The home folder.
        network: The hosts' network.
        environment: Variables of every command.
    """

    def __init__(self, home: Path, network: Network, environment: dict[str, str]) -> None:
        self.home = home
        self.network = network
        self.hosts = network.hosts[:COUNT]
        self.environment = environment | {"HOME": str(home)}
        self.known_hosts = home / ".ssh" / "known_hosts"
        self.known_hosts.parent.mkdir()
        self.know_all()

    def know_all(self) -> None:
        self.known_hosts.write_text(self.network.known_hosts())

    def write(self, name: str = "fleet.toml", hosts: dict[str, str] | None = None, store: str | None = WORK) -> None:
        """Write a file of these hosts, each with lines of its own; without any, of all."""
        keys = f'user = "{test_hosts.USER}"\nkeys = ["{self.network.key}"]\nmemory = "64MiB"\nworkers = 1'
        lines = ['name = "lab"', keys, "" if store is None else f'store = "{store}"']
        for address, more in (hosts or dict.fromkeys((host.address for host in self.hosts), "")).items():
            lines += ["[[hosts]]", f'name = "{address}"', more]
        self.home.joinpath(name).write_text("\n".join(lines) + "\n")

    def run(self, *arguments: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; variables that are None are not set."""
        variables = self.environment | environment
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.home,
            env=command_environment({name: value for name, value in variables.items() if value is not None}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def told(self, *arguments: str, code: int = 0, **environment: str | None) -> dict[str, Any]:
        """Run a command of the fleet; return each host's report by its address, and what it said under ``said``."""
        done = self.run("fleet", *arguments, "--json", **environment)
        assert done.returncode == code, done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        return {each["host"]: each for each in told["hosts"]} | {"changed": told["changed"], "said": done.stderr}

    @contextlib.contextmanager
    def started(self, log: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command until the end of the block; what it says goes to a file in the home folder."""
        with open(self.home / log, "wb") as said:
            process = subprocess.Popen(
                [*COMMAND, *arguments],
                cwd=self.home,
                env=command_environment(self.environment | environment),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def submit(self, *arguments: str, **environment: str) -> str:
        """Submit the mean of the inputs in tasks of five; return the job's id."""
        done = self.run("submit", "mean", INPUTS, "-o", OUTPUT, "-p", "5", "--force", *arguments, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def waited(self, job: str) -> dict[str, Any]:
        """Wait for a job; return its summary."""
        done = self.run("wait", job, "--json")
        assert done.returncode == 0, done.stderr
        summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return summary

    def working(self, host: SshHost) -> bool:
        """Whether the master counts on a worker of a host."""
        name = host.address.replace(".", "-")
        listed = json.loads(self.run("workers", "--json").stdout.splitlines()[-1])
        return any(name in each["worker"] and each["state"] in {"idle", "busy"} for each in listed)

    def said(self, log: str) -> str:
        return self.home.joinpath(log).read_text(errors="replace")


def addresses(told: dict[str, Any]) -> list[str]:
    return [each for each in told if each not in {"changed", "said"}]


def states(report: dict[str, Any]) -> list[str]:
    return [worker["state"] for worker in report["workers"]]


def worker_pids(host: SshHost) -> list[int]:
    """Return the processes of a host's workers, as the host counts."""
    lines = host.run("ps", "-e", "-ww", "-o", "pid=,args=").splitlines()
    return [int(line.split()[0]) for line in lines if "distsum.worker.remote" in line]
