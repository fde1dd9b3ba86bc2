"""``distsum doctor`` looks at real brokers, stores, masters and workers, and says of each what is wrong with it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from distsum.brokers.address import BrokerAddress
from distsum.brokers.topology import VIEWER_PERMISSIONS, WORKER_PERMISSIONS
from distsum.generate import generate
from distsum.service.diagnosis import Check, diagnose, exit_code
from distsum.service.doctor import examine
from distsum.stores.routing import RoutingStore
from distsum.worker.launch import SENT_AWAY
from tests.command import distsum, wait_until
from tests.servicecommands import client_of, master, worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rabbitmq import Node

OTHER_VERSION = "import distsum; distsum.__version__ = '9.9.9'"
OTHER_PROTOCOL = "import distsum.messages; distsum.messages.PROTOCOL = 99"
BROKEN_DISK = """
from distsum.errors import StorageError
from distsum.worker import folding
def fold(*_arguments, **_options): raise StorageError("the disk of this machine is broken")
folding.JobFolder.fold = fold
"""


@pytest.fixture
def environment(rabbitmq: Node, vhost: str) -> dict[str, str]:
    return {"DISTSUM_BROKER": rabbitmq.url(vhost)}


def examined(environment: dict[str, str], work: bytes | None = None) -> tuple[int, dict[str, Check]]:
    """Return the exit code and the checks by name, as the command would tell them."""
    broker, management = environment.get("DISTSUM_BROKER"), environment.get("DISTSUM_MANAGEMENT")
    with closing(RoutingStore()) as store:
        found = examine(
            None if broker is None else BrokerAddress.parse(broker),
            None if management is None else BrokerAddress.parse(management, "--management"),
            store,
            work,
        )
    checks = diagnose(found)
    if broker is not None:
        assert BrokerAddress.parse(broker).password not in str(checks)
    return exit_code(checks), {check.name: check for check in checks}


def states(checks: dict[str, Check]) -> dict[str, str]:
    return {name: check.state for name, check in checks.items()}


@contextlib.contextmanager
def changed(program: str, module: str, *arguments: str, environment: dict[str, str], log: Path) -> Iterator[Any]:
    """Run the program of a module after a change of some module that it uses."""
    start = f"import runpy, sys\n{program}\nsys.argv[1:] = {list(arguments)}\n"
    start += f"runpy.run_module({module!r}, run_name='__main__')"
    with open(log, "ab") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", start],
            env=dict(os.environ) | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
    assert process.stdin is not None
    process.stdin.write(environment["DISTSUM_BROKER"].encode() + b"\n")
    process.stdin.flush()
    try:
        yield process
    finally:
        process.stdin.close()
        if process.poll() is None:
            process.kill()
        process.wait()


def slot(name: str) -> tuple[str, ...]:
    """Return the arguments of a worker process."""
    return name, "0.5", str(time.time())


def test_a_service_that_is_well_has_no_fault_and_a_paused_worker_is_told(
    tmp_path: Path, environment: dict[str, str], rabbitmq: Node
) -> None:
    environment |= {"DISTSUM_MANAGEMENT": rabbitmq.management_url}
    (tmp_path / "work").mkdir()
    with (
        master(tmp_path, environment),
        worker(tmp_path, environment, slots=1),
        client_of(environment) as client,
    ):
        wait_until(client.workers, "a worker")
        wait_until(lambda: "3 clocks" in examined(environment)[1]["clocks"].found, "the first words of a worker")
        code, checks = examined(environment)
        assert code == 0
        assert states(checks) == dict.fromkeys(
            (
                "broker",
                "permissions",
                "management",
                "alarm",
                "limits",
                "master",
                "store",
                "clocks",
                "versions",
                "workers",
                "queues",
            ),
            "ok",
        )
        assert "RabbitMQ 3." in checks["broker"].found or "RabbitMQ 4." in checks["broker"].found
        assert "30 min" in checks["limits"].found
        assert str(tmp_path / "work") in checks["store"].found
        assert not list((tmp_path / "work").glob("doctor*"))

        (name,) = [each.worker for each in client.workers()]
        client.command_worker(name, "pause")
        wait_until(lambda: client.workers()[0].state == "paused", "its pause")
        code, checks = examined(environment)
        assert (code, checks["workers"].state, checks["paused"].state) == (1, "failed", "warning")
        assert name in checks["paused"].found
        assert "--resume" in checks["paused"].remedy

        done = distsum("doctor", "--json", env=environment)
        told = json.loads(done.stdout)
        assert (done.returncode, told["exit_code"], done.stderr) == (1, 1, "")
        assert {each["name"]: each["state"] for each in told["checks"]} == states(checks)

        elsewhere = {"DISTSUM_MANAGEMENT": "http://a:b@127.0.0.1:1"}
        done = distsum("doctor", "--work-dir", str(tmp_path), env=environment | elsewhere)
        lines = done.stdout.splitlines()
        assert all(line.split()[0] in {"ok", "warning", "failed"} for line in lines)
        shown = {line.split()[1]: line for line in lines}
        assert shown["management"].startswith("warning")
        assert shown["master"].startswith("warning"), "the folder given here is another one"
        assert str(tmp_path / "work") in shown["master"]


def test_workers_that_are_refused_or_quarantined_are_told_with_the_reason(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    generate(str(tmp_path / "in"), files=120, count=1000)
    log = tmp_path / "workers.log"
    remote = "distsum.worker.remote"
    with (
        master(tmp_path, environment),
        changed(OTHER_VERSION, remote, *slot("old"), environment=environment, log=log) as old,
        changed(BROKEN_DISK, remote, *slot("broken"), environment=environment, log=log),
        worker(tmp_path, environment, slots=1),
        client_of(environment) as client,
    ):
        assert old.wait(30) == SENT_AWAY
        wait_until(lambda: len(client.workers()) == 3, "all workers")
        arguments = ("mean", str(tmp_path / "in"), "-o", str(tmp_path / "out.npy"), "-p", "5")
        done = distsum("submit", *arguments, "--wait", env=environment)
        assert done.returncode == 0, done.stderr
        code, checks = examined(environment)
    assert code == 0, "the service goes on"
    assert checks["versions"].state == "warning"
    assert "old: it is distsum 9.9.9" in checks["versions"].found
    assert checks["quarantined"].state == "warning"
    assert "broken" in checks["quarantined"].found
    assert "the disk of this machine is broken" in checks["quarantined"].found
    assert checks["workers"].found == "1 idle, 1 quarantined"


def test_a_master_of_another_version_or_protocol_is_told(tmp_path: Path, rabbitmq: Node) -> None:
    for program, name, words in (
        (OTHER_VERSION, "versions", "the master is distsum 9.9.9"),
        (OTHER_PROTOCOL, "permissions", "speaks another protocol"),
    ):
        with rabbitmq.vhost() as vhost:
            environment = {"DISTSUM_BROKER": rabbitmq.url(vhost)}
            log = tmp_path / f"{name}.log"
            arguments = ("master", "--work-dir", str(tmp_path / "work"))
            with changed(program, "distsum", *arguments, environment=environment, log=log) as process:
                wait_until(lambda: "ready" in log.read_text().split() or process.poll() is not None, "a master")  # noqa: B023 - called at once, in the same round
                code, checks = examined(environment)
        assert (code, checks[name].state) == (1, "failed")
        assert words in checks[name].found
        assert "everywhere" in checks[name].remedy


def test_a_broker_that_cannot_be_entered_is_told_and_the_store_is_looked_at_all_the_same(
    tmp_path: Path, environment: dict[str, str], rabbitmq: Node, vhost: str
) -> None:
    for address, words in (
        (rabbitmq.url(vhost, password="wr0ng-canary"), "check the password"),
        (rabbitmq.url("no-such-vhost"), "no virtual host no-such-vhost"),
        ("amqp://u:p4ssw0rd-canary@127.0.0.1:1/v", "does RabbitMQ run there"),
    ):
        code, checks = examined({"DISTSUM_BROKER": address}, os.fsencode(tmp_path))
        assert (code, checks["broker"].state, checks["store"].state) == (3, "failed", "ok")
        assert words in checks["broker"].found + checks["broker"].remedy
        assert "canary" not in str(checks)
    assert os.listdir(tmp_path) == []


def test_a_virtual_host_without_a_master_permissions_or_peace_is_told(
    tmp_path: Path, environment: dict[str, str], rabbitmq: Node, vhost: str, s3_prefix: bytes
) -> None:
    code, checks = examined(environment)
    assert (code, checks["permissions"].state, checks["master"].state) == (1, "warning", "failed")
    assert "distsum broker setup" in checks["permissions"].remedy
    with master(tmp_path, environment):
        pass  # It makes the queues, and is killed.
    wait_until(lambda: "none serves" in examined(environment)[1]["master"].found, "its end")
    code, checks = examined(environment)
    assert (code, checks["permissions"].state, checks["master"].state) == (1, "ok", "failed")
    assert "`distsum master`" in checks["master"].remedy
    assert checks["store"].state == "warning", "no work folder is known without a master"

    rabbitmq.publish(vhost, "distsum.refused", b"what nobody understands")
    rabbitmq.publish(vhost, "distsum.dead", b"what killed its workers")
    code, checks = examined(environment, s3_prefix + b"/work")
    assert (checks["dead"].state, checks["refused"].state) == ("warning", "warning")
    assert checks["store"].state == "ok"
    assert "a second run is kept out" in checks["store"].found
    code, checks = examined(environment, b"s3://no-such-bucket/work")
    assert (code, checks["store"].state, checks["permissions"].state) == (3, "failed", "ok")
    assert "there is no such bucket" in checks["store"].found

    nothing = dict.fromkeys(("configure", "write", "read"), "^$")
    for permissions, state, words in (
        (nothing, "failed", "neither master, client nor worker"),
        (WORKER_PERMISSIONS, "ok", "may do what workers do, and no more"),
        (VIEWER_PERMISSIONS, "ok", "may look, and change nothing"),
    ):
        user = f"user-of-{vhost}"
        rabbitmq.management("PUT", f"/api/users/{user}", {"password": "p4ssw0rd", "tags": ""})
        try:
            rabbitmq.management("PUT", f"/api/permissions/{vhost}/{user}", dict(permissions))
            code, checks = examined({"DISTSUM_BROKER": rabbitmq.url(vhost, user, "p4ssw0rd")})
        finally:
            rabbitmq.management("DELETE", f"/api/users/{user}")
        assert (code, checks["permissions"].state) == (1, state), checks
        assert words in checks["permissions"].found


def test_a_broker_short_of_disk_is_told_with_and_without_the_management_api(
    tmp_path: Path, environment: dict[str, str], rabbitmq: Node
) -> None:
    with master(tmp_path, environment):
        rabbitmq.control("set_disk_free_limit", "1000000GB")
        try:
            code, checks = examined(environment)
            assert (code, checks["publishing"].state, checks["master"].state) == (1, "failed", "failed")
            assert "it takes no messages" in checks["publishing"].found
            api = {"DISTSUM_MANAGEMENT": rabbitmq.management_url}
            wait_until(lambda: "short of disk" in str(examined(environment | api)[1]), "the API's word")
        finally:
            rabbitmq.control("set_disk_free_limit", "10MB")


def test_a_store_is_looked_at_without_a_broker(tmp_path: Path) -> None:
    code, checks = examined({}, os.fsencode(tmp_path))
    assert (code, states(checks)["store"], states(checks)["broker"]) == (0, "ok", "warning")
    code, checks = examined({}, os.fsencode(tmp_path / "missing"))
    assert (code, states(checks)["store"]) == (0, "warning")
    assert not (tmp_path / "missing").exists()
    done = distsum("doctor")
    assert (done.returncode, "DISTSUM_BROKER" in done.stderr) == (2, True)
