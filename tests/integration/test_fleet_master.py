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
    from tests.hosts import SshHost
    from tests.rabbitmq import Node

pytestmark = pytest.mark.timeout(300)  # wheels are downloaded once, which may be slow


def asked_of_the_fleet(environment: dict[str, str]) -> int | None:
    """Return how many workers those who look see that the fleet is to have."""
    with contextlib.closing(Viewer(BrokerAddress.parse(environment["DISTSUM_BROKER"]), ServiceView)) as viewer:
        viewer.start()
        wait_until(lambda: viewer.service.view is not None, "a view")
        fleet = viewer.service.view.fleet
        return fleet.wanted if fleet is not None and fleet.held else None


def in_vhost(control: Control, vhost: str) -> dict[str, str]:
    """Return variables that lead to another virtual host of the same broker."""
    address, _, _ = control.environment["DISTSUM_BROKER"].rpartition("/")
    return {"DISTSUM_BROKER": f"{address}/{vhost}?heartbeat=4"}


class Asked:
    """Asks a master of a virtual host for workers, and counts those it has on some hosts."""

    def __init__(self, control: Control, broker: dict[str, str], hosts: list[SshHost]) -> None:
        self._control = control
        self._broker = broker
        self._hosts = hosts

    def scale(self, total: int | None) -> None:
        word = "file" if total is None else str(total)
        done = self._control.run("workers", "--scale", word, "--json", **self._broker)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"wanted": total}

    def there(self) -> int:
        """Return how many workers take tasks."""
        listed = json.loads(self._control.run("workers", "--json", **self._broker).stdout.splitlines()[-1])
        return sum(each["state"] in {"idle", "busy"} for each in listed)

    def pids(self) -> list[list[int]]:
        return [worker_pids(host) for host in self._hosts]

    def counts(self) -> list[int]:
        return [len(each) for each in self.pids()]


def test_workers_come_and_go_while_a_job_runs_and_leave_with_their_master(
    control: Control, rabbitmq: Node, expected: bytes, result
) -> None:
    hosts = control.hosts[:2]
    store = "s3://tests/fleet-master"
    control.write(hosts=dict.fromkeys((host.address for host in hosts), ""), store=store)
    with rabbitmq.vhost() as vhost:
        broker = in_vhost(control, vhost)
        asked = Asked(control, broker, hosts)
        with control.started("master.log", "master", "--work-dir", store, "--fleet", "fleet.toml", **broker) as process:
            wait_until(lambda: "2 workers of the fleet ready" in control.said("master.log"), "two workers", 120)
            assert asked_of_the_fleet(broker) == 2
            for host in hosts:
                host.slow_down("1mbit")
            try:
                job = control.submit(**broker)
                wait_until(lambda: "busy" in control.run("workers", "--json", **broker).stdout, "a task under way")
                asked.scale(4)
                wait_until(lambda: asked.there() == 4, "four workers", 60)
                assert asked.counts() == [2, 2]
                asked.scale(1)
                state = json.loads(control.run("status", job, "--json", **broker).stdout)["state"]
                assert state == "running", "else nothing was scaled under it"
            finally:
                for host in hosts:
                    host.speed_up()
            wait_until(lambda: asked.there() == 1, "one worker", 60)
            assert asked_of_the_fleet(broker) == 1
            asked.scale(0)
            wait_until(lambda: asked.there() == 0, "no worker", 60)
            asked.scale(None)
            waited = control.run("wait", job, "--json", **broker)
            assert waited.returncode == 0, waited.stderr
            assert json.loads(waited.stdout.splitlines()[-1])["retries"] == 0, (
                "workers finish their tasks before they go"
            )
            assert result() == expected
            wait_until(lambda: asked.there() == 2, "as many as the file says", 60)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    said = control.said("master.log")
    assert said.count("add 1 worker to 1") == 2, "one on each host"
    assert "brought up again" not in said, "no host was connected anew"
    assert not any(host.processes() for host in hosts)


def test_a_host_that_comes_late_has_its_part_and_workers_that_do_not_end_keep_nothing_from_going_on(
    control: Control, rabbitmq: Node
) -> None:
    hosts = control.hosts[:2]
    store = "s3://tests/fleet-late"
    control.write(hosts=dict.fromkeys((host.address for host in hosts), ""), store=store)
    with rabbitmq.vhost() as vhost:
        broker = in_vhost(control, vhost)
        asked = Asked(control, broker, hosts)
        hosts[1].end_sshd()
        with control.started("master.log", "master", "--work-dir", store, "--fleet", "fleet.toml", **broker) as process:
            try:
                wait_until(lambda: "1 worker of the fleet ready" in control.said("master.log"), "a worker", 120)
                asked.scale(2)
                wait_until(lambda: asked.counts() == [2, 0], "both on the host that is there")
            finally:
                hosts[1].start_sshd()
            wait_until(lambda: asked.counts() == [1, 1] and asked.there() == 2, "one on each", 90)

            frozen = asked.pids()
            for host, (pid,) in zip(hosts, frozen, strict=True):
                host.run("kill", "-STOP", str(pid))
            asked.scale(0)
            wait_until(lambda: control.said("master.log").count("drain 1 of 1 worker") == 2, "workers on their way")
            asked.scale(2)
            wait_until(lambda: asked.counts() == [2, 2], "others beside those that do not end", 30)

            process.send_signal(signal.SIGTERM)
            wait_until(lambda: asked.pids() == frozen, "the end of those who can")
            assert process.poll() is None, "it waits for the others"
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    wait_until(lambda: not any(host.processes() for host in hosts), "the end of all")


def test_a_standby_holds_no_worker_and_brings_the_fleet_up_when_it_takes_over(control: Control, rabbitmq: Node) -> None:
    host = control.hosts[0]
    store = "s3://tests/fleet-standby"
    control.write(hosts={host.address: ""}, store=store)
    master = ("master", "--work-dir", store, "--fleet", "fleet.toml")

    def others(before: list[int]) -> bool:
        pids = worker_pids(host)
        return len(pids) == 2 and not set(pids) & set(before)

    with rabbitmq.vhost() as vhost:
        broker = in_vhost(control, vhost)
        with control.started("first.log", *master, **broker) as first:
            wait_until(lambda: "1 worker of the fleet ready" in control.said("first.log"), "a worker", 120)
            with control.started("second.log", *master, **broker) as second:
                wait_until(lambda: "serving" in control.said("second.log"), "a standby")
                # In the time that this takes, a standby that held the fleet would have told of it.
                assert control.run("workers", "--scale", "2", **broker).returncode == 0
                wait_until(lambda: "2 ready" in control.said("first.log"), "a second worker", 60)
                assert host.address not in control.said("second.log")
                assert "of the fleet" not in control.said("second.log")

                before = worker_pids(host)
                first.send_signal(signal.SIGSTOP)
                wait_until(lambda: "2 workers of the fleet ready" in control.said("second.log"), "the standby", 90)
                assert worker_pids(host) == before, "it has found them, and leaves them to whoever holds them"
                first.send_signal(signal.SIGCONT)
                wait_until(lambda: "beginning anew" in control.said("first.log"), "that it was superseded", 60)
                wait_until(lambda: others(before), "as many workers of the standby", 90)
                assert "are let go" in control.said("first.log")

                before = worker_pids(host)
                second.kill()
                wait_until(lambda: others(before), "as many workers of the first", 90)
                first.send_signal(signal.SIGTERM)
                assert first.wait(60) == 0
    assert not host.processes()


def test_a_fleet_of_another_virtual_host_is_refused_at_once(control: Control) -> None:
    uri = control.environment["DISTSUM_BROKER"].rpartition("/")[0]
    file = control.home / "fleet.toml"
    file.write_text(f'broker = "{uri}/elsewhere"\n{file.read_text()}')
    done = control.run("master", "--work-dir", "s3://tests/fleet-elsewhere", "--fleet", "fleet.toml")
    assert done.returncode == 2
    assert "its workers would go to amqp://operator@" in done.stderr
    assert "set the same virtual host in both" in done.stderr
