"""``just stack`` and ``just demo-cluster``, by what the recipes run: a stack starts, serves, and leaves nothing."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from distsum.brokers.address import BrokerAddress
from distsum.brokers.management import Management
from distsum.stores.routing import RoutingStore
from tests.command import wait_until
from tests.stack import processes, rabbitmq, running
from tests.stack.processes import Identity, listens

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


def command(folder: Path, *action: str) -> list[str]:
    return [sys.executable, "-m", "tests.stack", "--folder", str(folder), *action]


def stack(folder: Path, *action: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *action),
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def variables(printed: str) -> dict[str, str]:
    """Return what a shell sets that is told what `just stack` prints."""
    words = [shlex.split(line) for line in printed.splitlines()]
    assert words[0][0] == "unset"
    assert {each[0] for each in words[1:]} == {"export"}
    return dict(each[1].split("=", 1) for each in words[1:])


def processes_of(folder: Path) -> list[int]:
    """Return the processes whose environment names a folder: those of a stack, whoever started them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if os.fsencode(folder) in path.read_bytes():
                found.append(int(path.parent.name))
    return found


@pytest.fixture(scope="module")
def installed(missing_service) -> None:
    if not rabbitmq.installed():
        missing_service(f"there is no RabbitMQ; install it with `{rabbitmq.INSTALL}`")


@pytest.fixture(scope="module")
def folder(installed, tmp_path_factory) -> Iterator[Path]:
    """Give the folder of a stack that runs, and that is ended in any case."""
    where = tmp_path_factory.mktemp("stack") / "it"
    done = stack(where, "up")
    assert done.returncode == 0, done.stderr
    try:
        yield where
    finally:
        done = stack(where, "down")
        assert done.returncode == 0, done.stderr


def test_a_stack_answers_on_both_urls_and_a_second_start_says_the_same(folder, monkeypatch):
    before = processes_of(folder)
    again = stack(folder, "up")
    assert again.returncode == 0
    assert "runs already" in again.stderr
    # RabbitMQ starts one for a moment now and then, to look at the disk.
    wait_until(lambda: set(processes_of(folder)) <= set(before), "the end of all others")
    told = variables(again.stdout)
    assert told == running.read(folder).environment
    assert folder.stat().st_mode & 0o777 == 0o700  # since passwords are in it
    broker = BrokerAddress.parse(told["DISTSUM_BROKER"])
    assert listens(broker.host, broker.port)
    management = Management(BrokerAddress.parse(told["DISTSUM_MANAGEMENT"], "--management"))
    assert management.get("vhosts", broker.vhost)["name"] == running.VHOST
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with contextlib.closing(RoutingStore()) as store:
        store.preflight(f"s3://{running.BUCKET}".encode())


def test_the_demo_gives_the_bytes_of_a_local_run_and_removes_what_it_made(folder, monkeypatch):
    before = processes_of(folder)
    done = stack(folder, "demo", "--files", "30", "--count", "1000")
    assert done.returncode == 0, done.stderr
    assert "its bytes are the same" in done.stderr
    assert "within the bound" in done.stderr
    assert "workers reading" in done.stderr
    # RabbitMQ starts one for a moment now and then, to look at the disk.
    wait_until(lambda: set(processes_of(folder)) <= set(before), "the end of all others")
    assert left_by_demos(folder, monkeypatch) == []


def test_a_demo_that_is_interrupted_removes_what_it_made(folder, monkeypatch, tmp_path):
    before = processes_of(folder)
    with open(tmp_path / "said", "wb") as said:
        process = subprocess.Popen(
            command(folder, "demo", "--files", "30", "--count", "1000"), cwd=ROOT, stdout=said, stderr=said
        )
    try:
        wait_until(lambda: "have joined" in (tmp_path / "said").read_text() or process.poll() is not None, "workers")
        assert len(processes_of(folder)) > len(before)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, (tmp_path / "said").read_text()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    # RabbitMQ starts one for a moment now and then, to look at the disk.
    wait_until(lambda: set(processes_of(folder)) <= set(before), "the end of all others")
    assert left_by_demos(folder, monkeypatch) == []


def left_by_demos(folder: Path, monkeypatch) -> list[object]:
    """Return what is in the bucket and which virtual hosts there are, beyond what a new stack has."""
    state = running.read(folder)
    for name, value in state.s3.items():
        monkeypatch.setenv(name, value)
    with contextlib.closing(RoutingStore()) as store:
        objects = list(store.list(f"s3://{running.BUCKET}".encode()))
        uploads = list(store.begun(f"s3://{running.BUCKET}".encode()))
    vhosts = [each["name"] for each in rabbitmq.call_management(state.management, "GET", "/api/vhosts")]
    return [*objects, *uploads, *(name for name in vhosts if name != running.VHOST)]


def test_ending_a_stack_leaves_nothing(folder):
    state = running.read(folder)
    assert len(processes_of(folder)) > len(state.processes) == 3  # RabbitMQ has helpers of its own
    assert any(Path(socket).exists() for socket in state.sockets)
    done = stack(folder, "down")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not processes_of(folder), "the end of all processes")
    assert not folder.exists()
    assert not any(Path(socket).exists() for socket in state.sockets)
    assert "no stack runs" in stack(folder, "down").stderr


def test_a_start_that_is_interrupted_leaves_nothing(installed, tmp_path):
    where = tmp_path / "stack"
    process = subprocess.Popen(command(where, "up"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(processes_of(where)) >= 3, "its processes")
        process.terminate()
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
        stack(where, "down")
    # What a script was just starting when it was ended ends of itself.
    wait_until(lambda: not processes_of(where), "the end of all processes")
    assert not where.exists()


def test_without_rabbitmq_the_command_that_installs_it_is_told(tmp_path):
    done = stack(tmp_path / "stack", "up", PATH=os.path.dirname(sys.executable))
    assert done.returncode == 1
    assert done.stderr == f"stack: there is no RabbitMQ; install it with `{rabbitmq.INSTALL}`\n"
    assert list(tmp_path.iterdir()) == []


def test_only_the_process_that_was_started_is_ended():
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            identity = processes.identify(process.pid)
            assert processes.runs(identity)
            for other in (
                Identity(identity.pid, identity.started - 1, identity.boot),
                Identity(identity.pid, identity.started, "another start of the machine"),
            ):
                processes.end([other])
                assert not processes.runs(other)
                assert process.poll() is None
            processes.end([identity])
            assert process.wait(10) == -signal.SIGKILL
            assert not processes.runs(identity)
        finally:
            process.kill()
