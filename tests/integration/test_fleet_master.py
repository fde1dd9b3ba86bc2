"""``distsum master --fleet``: a master that holds workers on other hosts, and changes their number while jobs run."""

from __future__ import annotations

import contextlib
import json
import signal
from typing import TYPE_CHECKING

import pytest

from distsum.brokers.address import BrokerAddress
from distsum.service.view import ServiceView
from distsum.service.viewer import Viewer
from tests.command import wait_until
from tests.fleetcontrol import worker_pids

if TYPE_CHECKING:
    from tests.fleetcontrol import Control
    from tests.rabbitmq import Node

pytestmark = pytest.mark.timeout(300)  # wheels are downloaded once, which may be slow


def asked_of_the_fleet(environment: dict[str, str]) -> int | None:
    """Return how many workers those who look see that the fleet is to have."""
    with contextlib.closing(Viewer(BrokerAddress.parse(environment["DISTSUM_BROKER"]), ServiceView)) as viewer:
        viewer.start()
        wait_until(lambda: viewer.service.view is not None, "a view")
        fleet = viewer.service.view.fleet
        return fleet.wanted if fleet is not None and fleet.held else None


def test_workers_come_and_go_while_a_job_runs_and_leave_with_their_master(
    control: Control, rabbitmq: Node, expected: bytes, result
) -> None:
    hosts = control.hosts[:2]
    store = "s3://tests/fleet-master"
    control.write(hosts=dict.fromkeys((host.address for host in hosts), ""), store=store)
    with rabbitmq.vhost() as vhost:
        address, _, _ = control.environment["DISTSUM_BROKER"].rpartition("/")
        broker = {"DISTSUM_BROKER": f"{address}/{vhost}"}

        def there() -> int:
            listed = json.loads(control.run("workers", "--json", **broker).stdout.splitlines()[-1])
            return sum(each["state"] in {"idle", "busy"} for each in listed)

        def scale(total: int) -> None:
            done = control.run("workers", "--scale", str(total), "--json", **broker)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout) == {"wanted": total}

        master = ("master", "--work-dir", store, "--fleet", "fleet.toml")
        with control.started("master.log", *master, **broker) as process:
            wait_until(lambda: "2 workers of the fleet ready" in control.said("master.log"), "two workers", 120)
            assert asked_of_the_fleet(broker) == 2
            for host in hosts:
                host.slow_down("1mbit")
            try:
                job = control.submit(**broker)
                wait_until(lambda: "busy" in control.run("workers", "--json", **broker).stdout, "a task under way")
                scale(4)
                wait_until(lambda: there() == 4, "four workers", 60)
                assert [len(worker_pids(host)) for host in hosts] == [2, 2]
                scale(1)
                state = json.loads(control.run("status", job, "--json", **broker).stdout)["state"]
                assert state == "running", "else nothing was scaled under it"
            finally:
                for host in hosts:
                    host.speed_up()
            wait_until(lambda: there() == 1, "one worker", 60)
            assert asked_of_the_fleet(broker) == 1
            scale(0)
            wait_until(lambda: there() == 0, "no worker", 60)
            scale(2)
            waited = control.run("wait", job, "--json", **broker)
            assert waited.returncode == 0, waited.stderr
            assert json.loads(waited.stdout.splitlines()[-1])["retries"] == 0, (
                "workers finish their tasks before they go"
            )
            assert result() == expected
            wait_until(lambda: there() == 2, "two workers again", 60)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    said = control.said("master.log")
    assert said.count("add 1 worker to 1") == 2, "one on each host"
    assert "brought up again" not in said, "no host was connected anew"
    assert not any(host.processes() for host in hosts)


def test_a_standby_holds_no_worker_and_brings_the_fleet_up_when_it_takes_over(control: Control, rabbitmq: Node) -> None:
    host = control.hosts[0]
    store = "s3://tests/fleet-standby"
    control.write(hosts={host.address: ""}, store=store)
    master = ("master", "--work-dir", store, "--fleet", "fleet.toml")
    ready = "1 worker of the fleet ready"
    with rabbitmq.vhost() as vhost:
        address, _, _ = control.environment["DISTSUM_BROKER"].rpartition("/")
        broker = {"DISTSUM_BROKER": f"{address}/{vhost}"}
        with control.started("first.log", *master, **broker) as first:
            wait_until(lambda: ready in control.said("first.log"), "a worker", 120)
            before = worker_pids(host)
            with control.started("second.log", *master, **broker) as second:
                wait_until(lambda: "serving" in control.said("second.log"), "a standby")
                # In the time that this takes, a standby that held the fleet would have told of it.
                assert control.run("workers", "--scale", "2", **broker).returncode == 0
                wait_until(lambda: "2 ready" in control.said("first.log"), "a second worker", 60)
                assert host.address not in control.said("second.log")
                assert "of the fleet" not in control.said("second.log")
                first.kill()
                wait_until(lambda: ready in control.said("second.log"), "a worker of the standby", 90)
                wait_until(lambda: len(pids := worker_pids(host)) == 1 and pids != before, "its own worker", 90)
                second.send_signal(signal.SIGTERM)
                assert second.wait(60) == 0
    assert not host.processes()
