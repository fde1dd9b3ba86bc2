"""A fleet whose hosts, connections and disks fail, with workers at work."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.command import wait_until
from tests.fleetcontrol import states, worker_pids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fleetcontrol import Control

pytestmark = pytest.mark.timeout(300)  # wheels are downloaded once, which may be slow
OLD_PYTHON = "#!/bin/sh\ncase $1 in -V) echo Python 3.9.2 ;; *) exit 1 ;; esac\n"


def test_workers_are_brought_up_again_through_a_new_tunnel_when_an_ssh_server_has_died(
    control: Control, expected: bytes, result
) -> None:
    host = control.hosts[1]
    host.run("iptables", "-I", "OUTPUT", "-p", "tcp", "--syn", "-d", control.network.address, "-j", "REJECT")
    control.write(hosts={host.address: "tunnel = true"})
    try:
        with control.started("held.log", "fleet", "up") as process:
            wait_until(lambda: "ready: holding 1 worker" in control.said("held.log"), "a worker", 120)
            (before,) = worker_pids(host)
            host.slow_down("1mbit")
            job = control.submit()
            host.end_sshd()
            wait_until(lambda: not worker_pids(host), "the end of what was held")
            host.speed_up()
            assert "they are brought up again" in control.said("held.log")
            host.start_sshd()
            wait_until(lambda: worker_pids(host), "another worker")
            assert worker_pids(host) != [before]
            control.waited(job)
            assert result() == expected
            process.terminate()
            assert process.wait(30) == 0
        assert not host.processes()
    finally:
        host.run("iptables", "-F", "OUTPUT")


def test_what_keeps_a_host_from_working_is_told_with_a_remedy_and_leaves_no_half_environment(control: Control) -> None:
    good, old = control.hosts[:2]
    full, fuller = (control.network.boot(1, home_size=f"800m,nr_inodes={inodes}")[0] for inodes in (700, 40))
    control.know_all()
    python = old.home / "python3"
    python.write_text(OLD_PYTHON)
    python.chmod(0o755)
    pythonless = 'python = "/home/worker/python3"'
    control.write(hosts={good.address: "", old.address: pythonless, full.address: "", fuller.address: ""})
    told = control.told("up", "--detach", code=1)
    assert states(told[good.address]) == ["ready"]
    old_fault, full_fault = told[old.address]["fault"], told[full.address]["fault"]
    assert "needs Python 3.11 or later; there only /home/worker/python3 is Python 3.9.2; install it" in old_fault
    assert "No space left on device" in full_fault
    assert "make room" in full_fault
    assert "\n" not in full_fault
    assert not list(full.home.glob(".distsum/environments/*"))
    assert "cannot take the wheels" in told[fuller.address]["fault"]
    wheels = [path.name for path in fuller.home.glob(".distsum/wheels/*")]
    assert wheels
    assert not [name for name in wheels if "." in name], "none that is not whole"
    python.unlink()
    control.write(hosts={full.address: ""})
    assert control.told("down", "--host", full.address)["changed"]
    assert full.files() == {".ssh", ".ssh/authorized_keys"}


def test_workers_that_the_broker_refuses_are_told_of_and_leave_nothing_running(control: Control) -> None:
    host = control.hosts[0]
    wrong = control.environment["DISTSUM_BROKER"].replace("@", "-not@", 1)
    variables = {"DISTSUM_BROKER": wrong, "DISTSUM_MANAGEMENT": None}
    told = control.told("up", "--detach", "--host", host.address, code=1, **variables)
    assert "its workers have ended; the log ends with" in told[host.address]["fault"]
    assert "refuse" in told[host.address]["fault"]
    assert not host.processes()


@pytest.fixture(scope="module")
def fleet(ground: Control) -> Iterator[Control]:
    """Give a fleet that is up, with a worker on each host."""
    ground.write()
    ground.told("up", "--detach")
    yield ground
    ground.told("drain", "--drain-seconds", "0")


def test_a_host_with_a_slow_network_is_a_straggler_whose_task_another_does_as_well(
    fleet: Control, expected: bytes, result
) -> None:
    slow = fleet.hosts[0]
    # Ten seconds for a task: it cannot be done before its backup, not even where a first one came to nothing, since
    # the broker had handed its worker another task at the same moment.
    slow.slow_down("64kbit")
    try:
        job = fleet.submit()
        fleet.waited(job)
    finally:
        slow.speed_up()
    assert result() == expected
    told = fleet.run("status", job, "--stragglers", "--json").stdout.splitlines()[-1]
    report = json.loads(told)
    assert report["totals"]["won"] >= 1, told
    assert slow.address.replace(".", "-") in json.dumps(report["entries"])


def test_a_job_goes_on_without_a_host_that_is_cut_off_and_its_worker_is_back_when_the_host_is(
    fleet: Control, expected: bytes, result
) -> None:
    host = fleet.hosts[0]
    wait_until(lambda: fleet.working(host), "its worker")
    (before,) = worker_pids(host)
    host.slow_down("256kbit")
    job = fleet.submit()
    host.cut_off()
    try:
        fleet.waited(job)
    finally:
        host.reconnect()
        host.speed_up()
    assert result() == expected
    wait_until(lambda: fleet.working(host), "its worker", 90)
    assert worker_pids(host) == [before], "the same one: it was not told to end"


def test_detached_workers_do_not_need_the_ssh_server(fleet: Control, expected: bytes, result) -> None:
    host = fleet.hosts[0]
    (before,) = worker_pids(host)
    host.end_sshd()
    try:
        told = fleet.told("status", "--host", host.address, code=1)[host.address]
        fleet.waited(fleet.submit())
    finally:
        host.start_sshd()
    assert f"has no SSH server at {host.address}; start sshd" in told["fault"]
    assert result() == expected

    def is_back() -> bool:
        done = fleet.run("fleet", "status", "--host", host.address, "--json")
        return done.returncode == 0 and states(json.loads(done.stdout.splitlines()[-1])["hosts"][0]) == ["ready"]

    wait_until(is_back, "the host")
    assert worker_pids(host) == [before]
