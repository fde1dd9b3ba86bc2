"""What is left of a fleet when it has gone: nothing, host by host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fleetcontrol import COUNT

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
