"""What is left of a fleet when it has gone: nothing, host by host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from distsum.provision.users import Users

from distsum.brokers.address import BrokerAddress
from tests.command import together, wait_until
from tests.fleetcontrol import COUNT, INPUTS, OUTPUT, states, worker_pids

if TYPE_CHECKING:
    from tests.fleetcontrol import Control
    from tests.rabbitmq import Node

pytestmark = pytest.mark.timeout(300)  # wheels are downloaded once, which may be slow


def test_down_leaves_nothing(control: Control, rabbitmq: Node) -> None:
    control.told("up", "--detach")
    assert all(host.processes() for host in control.hosts)
    told = control.told("down")
    proof = ["no process", "no file of the fleet", "no user at the broker", "no queue"]
    assert [told[host.address]["proof"] for host in control.hosts] == [proof] * COUNT
    assert [host.processes() for host in control.hosts] == [set()] * COUNT
    assert [host.files() for host in control.hosts] == [{".ssh", ".ssh/authorized_keys"}] * COUNT
    users = [each["name"] for each in rabbitmq.management("GET", "/api/users")]
    assert not [user for user in users if "fleet" in user]
    queues = [each["name"] for each in rabbitmq.management("GET", "/api/queues")]
    assert not [queue for queue in queues if "lab-" in queue]
    assert not (control.home.parent / "state" / "distsum" / "fleets" / "lab").exists()
    assert not control.told("down")["changed"], "a second one has nothing to do"
    checked = control.told("exec-check", code=1)
    assert checked[control.hosts[0].address]["fault"] == "nothing is installed there; run `distsum fleet up`"


def test_two_commands_at_once_bring_up_one_fleet(control: Control) -> None:
    hosts = control.hosts[:1]
    control.write(hosts=dict.fromkeys((host.address for host in hosts), ""))
    control.told("down")
    calls = {name: lambda: control.told("up", "--detach") for name in ("first", "second")}
    for told in together(calls).values():
        assert [states(told[host.address]) for host in hosts] == [["ready"]]
    assert all(len(worker_pids(host)) == 1 for host in hosts)
    wheels = [path.name for host in hosts for path in host.home.glob(".distsum/wheels/*")]
    assert wheels
    assert not [name for name in wheels if "." in name], "what the slower one brought as well is gone"
    for host in hosts:
        host.run("kill", "-9", *map(str, worker_pids(host)))

    def are_back() -> bool:
        told = control.told("status")
        return all(states(told[host.address]) == ["ready"] for host in hosts)

    wait_until(are_back, "others in their place, with a password that still counts")


def test_down_looks_for_queues_of_its_own_host_only(control: Control, rabbitmq: Node) -> None:
    vhost = control.environment["DISTSUM_BROKER"].rpartition("/")[2].partition("?")[0]
    broker = BrokerAddress.parse(control.environment["DISTSUM_BROKER"])
    users = Users(broker, BrokerAddress.parse(control.environment["DISTSUM_MANAGEMENT"], "--management"))
    mine, other = "distsum.worker.lab-node-0a1b2c3d.x", "distsum.worker.lab-node-2-0a1b2c3d.x"
    for queue in (mine, other):
        rabbitmq.management("PUT", f"/api/queues/{vhost}/{queue}", {"durable": False})
    try:
        assert users.queues("lab-node") == [mine]
        assert users.queues("lab-node-2") == [other]
    finally:
        for queue in (mine, other):
            rabbitmq.management("DELETE", f"/api/queues/{vhost}/{queue}")


def test_a_job_on_a_fresh_host_leaves_nothing_there(control: Control, expected: bytes, result, rabbitmq: Node) -> None:
    host = control.hosts[0]
    control.told("down", "--host", host.address)
    control.write(hosts={host.address: ""})
    done = control.run("mean", INPUTS, "-o", OUTPUT, "--force", "--fleet", "fleet.toml")
    assert done.returncode == 0, done.stderr
    assert result() == expected
    assert not host.processes()
    assert host.files() == {".ssh", ".ssh/authorized_keys"}
    users = [each["name"] for each in rabbitmq.management("GET", "/api/users")]
    assert f"distsum-fleet.lab.{host.address}" not in users
