"""A fleet over SSH as a person runs it: hosts of their own with OpenSSH, and RabbitMQ and S3 between them."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest
from distsum.provision.environment import pack

from tests import hosts as test_hosts
from tests.command import wait_until
from tests.fleetcontrol import COUNT, addresses, states, worker_pids
from tests.s3server import SECRET_KEY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fleetcontrol import Control
    from tests.rabbitmq import Node

pytestmark = pytest.mark.timeout(300)  # wheels are downloaded once, which may be slow


def test_up_brings_workers_to_fresh_hosts_and_a_second_up_changes_nothing(control: Control, rabbitmq: Node) -> None:
    planned = control.told("plan")
    assert [planned[host.address]["actions"][2] for host in control.hosts] == ["start 1 worker"] * COUNT
    assert not any(host.files() - {".ssh", ".ssh/authorized_keys"} for host in control.hosts), "looking changes nothing"

    first = control.told("up", "--detach")
    assert [states(first[host.address]) for host in control.hosts] == [["ready"]] * COUNT
    assert all(first[host.address]["uploaded_bytes"] > 1 << 20 for host in control.hosts)
    before = [host.files() for host in control.hosts]
    again = control.told("up", "--detach")
    assert not again["changed"]
    assert "nothing to change" in again["said"]
    assert [again[host.address]["workers"] for host in control.hosts] == [
        first[host.address]["workers"] for host in control.hosts
    ]
    assert [host.files() for host in control.hosts] == before

    assert "enters the broker with distsum" in control.run("fleet", "exec-check").stdout
    control.write(store="s3://no-such-bucket/fleet")
    assert control.run("fleet", "exec-check").stderr.count("there is no such bucket") == COUNT
    control.write()
    _no_secret_is_seen(control, rabbitmq)


def _no_secret_is_seen(control: Control, rabbitmq: Node) -> None:
    """Look where other users of a host can: at arguments and files; the environment of a process is its user's."""
    host = control.hosts[0]
    arguments = host.run("ps", "-e", "-ww", "-o", "args=")
    assert "distsum.provision.supervisor" in arguments
    assert "distsum.worker.remote" in arguments
    files = b"".join(
        path.read_bytes()
        for path in host.home.rglob("*")
        if path.is_file() and not path.is_symlink() and "environments" not in path.parts and "wheels" not in path.parts
    )
    users = {each["name"]: each["tags"] for each in rabbitmq.management("GET", "/api/users")}
    assert not users[f"distsum-fleet.lab.{host.address}"], "a user of its own that administrates nothing"
    for secret in (SECRET_KEY, rabbitmq.password):
        assert secret not in arguments
        assert secret.encode() not in files
    (pid,) = worker_pids(host)
    assert host.run("stat", "-c", "%a %U", f"/proc/{pid}/environ").split()[0] == "400"
    assert host.run("stat", "-c", "%a", f"/home/{test_hosts.USER}/.distsum").strip() == "700"


def test_a_job_gives_the_same_bits_while_the_fleet_is_scaled(control: Control, expected: bytes, result) -> None:
    control.told("up", "--detach")
    job = control.submit()
    grown = control.told("scale", "9", "--drain-seconds", "30")
    assert sorted(len(grown[each]["workers"]) for each in addresses(grown)) == [2, 2, 2, 3]
    assert not control.told("plan", "--host", control.hosts[1].address)["changed"], "all share the number, not it alone"
    shrunk = control.told("scale", "2", "--drain-seconds", "30")
    assert sorted(len(shrunk[each]["workers"]) for each in addresses(shrunk)) == [0, 0, 1, 1]
    assert not control.told("up", "--detach")["changed"], "the number counts for up as well"
    last = control.hosts[-1].address
    own = control.told("scale", "2", "--host", last)
    assert addresses(own) == [last]
    assert states(own[last]) == ["ready"] * 2
    assert not control.told("plan")["changed"], "a number of its own, beside that of all"
    assert control.waited(job)["retries"] == 0, "workers were drained, not cut off"
    assert result() == expected
    assert control.told("scale", "file")["changed"]


def test_what_is_wrong_with_one_host_is_told_and_the_others_go_on(control: Control) -> None:
    good, changed, unknown, pythonless = control.hosts
    nobody = f"{control.network.address.rpartition('.')[0]}.250"
    tiny, limited = control.network.boot(2, home_size="40m")
    limited.folder.joinpath("authorized_keys").write_text("")
    keys = control.network.known_hosts().splitlines()
    other = next(line for line in keys if line.startswith(f"{good.address} ")).partition(" ")[2]
    control.known_hosts.write_text(
        "\n".join(line for line in keys if line.split()[0] not in {changed.address, unknown.address})
        + f"\n{changed.address} {other}\n"
    )
    control.write(
        hosts={
            good.address: "",
            changed.address: "",
            unknown.address: "",
            pythonless.address: 'python = "/usr/bin/python3.6"',
            nobody: "",
            tiny.address: "",
            limited.address: 'memory = "90TiB"',
        }
    )
    told = control.told("up", "--detach", code=1)
    assert states(told[good.address]) == ["ready"]
    expected = {
        changed.address: "its host key is not the one that is known (SHA256:",
        unknown.address: "its host key is not known: SHA256:",
        pythonless.address: "needs Python 3.11 or later; there is none of /usr/bin/python3.6; install it, or set",
        nobody: f"cannot be reached at {nobody}: ",
        tiny.address: "free in /home/worker, and the environment takes",
        limited.address: "lower workers or memory",
    }
    for address, words in expected.items():
        assert words in told[address]["fault"]
        assert f"distsum: {address}: " in told["said"]
    assert told[nobody]["unreachable"]
    assert not any("distsum" in name for name in tiny.files()), "nothing is left where nothing fits"

    trusted = control.told("plan", "--trust-new", "--host", unknown.address, "--host", changed.address, code=1)
    assert trusted[unknown.address]["fault"] is None
    assert "its host key is not the one that is known" in trusted[changed.address]["fault"], "consent is for new keys"
    assert control.told("plan", "--host", unknown.address)[unknown.address]["fault"] is None, "it was pinned"


def test_workers_end_with_the_command_that_holds_them_also_when_it_is_killed(control: Control) -> None:
    with control.started("up.log", "fleet", "up") as process:
        wait_until(lambda: "ready: holding 4 workers" in control.said("up.log"), "workers")
        assert all(len(worker_pids(host)) == 1 for host in control.hosts)
        process.kill()
        process.wait()
        wait_until(lambda: not any(worker_pids(host) for host in control.hosts), "their end")
        wait_until(lambda: not any(host.processes() for host in control.hosts), "the end of their supervisors")
    with control.started("again.log", "fleet", "up") as process:
        wait_until(lambda: "ready: holding 4 workers" in control.said("again.log"), "workers")
        process.terminate()
        assert process.wait(30) == 0
        assert not any(host.processes() for host in control.hosts), "they are gone before the command is"


def test_detached_workers_of_a_command_that_is_killed_are_found_again(control: Control) -> None:
    hosts = control.hosts[:2]
    control.write(hosts=dict.fromkeys((host.address for host in hosts), ""))
    with control.started("up.log", "fleet", "up", "--detach") as process:
        wait_until(lambda: all(worker_pids(host) for host in hosts), "workers")
        process.kill()
    before = [worker_pids(host) for host in hosts]

    def are_ready() -> bool:
        told = control.told("status")
        return all(states(told[host.address]) == ["ready"] and told[host.address]["detached"] for host in hosts)

    wait_until(are_ready, "the workers")
    assert not control.told("up", "--detach")["changed"], "nor is anything else missing"
    assert [worker_pids(host) for host in hosts] == before


def test_a_worker_that_crashes_is_started_anew_and_shown(control: Control) -> None:
    host = control.hosts[0]
    control.told("up", "--detach", "--host", host.address)
    (pid,) = worker_pids(host)
    host.run("kill", "-9", str(pid))

    def is_back() -> bool:
        (worker,) = control.told("status", "--host", host.address)[host.address]["workers"]
        return bool(worker["state"] == "ready" and worker["crashes"] == 1 and worker["reason"] == "SIGKILL")

    wait_until(is_back, "another worker")
    shown = control.run("fleet", "status", "--host", host.address).stdout
    assert "has ended 1 time unasked, last with SIGKILL" in shown
    log = control.run("fleet", "logs", "--host", host.address).stdout
    assert f"{host.address}: " in log
    assert "ended with SIGKILL; another is started" in log


def test_hosts_that_do_not_reach_the_broker_work_through_a_tunnel(control: Control) -> None:
    host = control.hosts[1]
    host.run("iptables", "-I", "OUTPUT", "-p", "tcp", "--syn", "-d", control.network.address, "-j", "REJECT")
    try:
        fault = control.told("up", "--detach", "--host", host.address, code=1)[host.address]["fault"]
        assert fault.count("does not reach") == 2, "neither the broker nor the store"
        assert "tunnel = true" in fault
        control.write(hosts={host.address: "tunnel = true"})
        refused = control.run("fleet", "up", "--detach")
        assert refused.returncode == 2
        assert "a tunnel lasts as long as the command that holds it" in refused.stderr
        with control.started("tunnel.log", "fleet", "up") as process:
            wait_until(lambda: "ready: holding 1 worker" in control.said("tunnel.log"), "a worker")
            assert control.working(host)
            process.terminate()
            assert process.wait(30) == 0
    finally:
        host.run("iptables", "-F", "OUTPUT")


def test_an_upgrade_moves_workers_at_work_host_by_host_and_goes_back_where_it_fails(
    control: Control, expected: bytes, result, tmp_path: Path
) -> None:
    chosen = control.hosts[:2]
    control.write(hosts=dict.fromkeys((host.address for host in chosen), ""))
    before = control.told("scale", "3")
    assert [len(before[host.address]["workers"]) for host in chosen] == [2, 1]
    newer, broken = _changed(tmp_path / "newer", ""), _changed(tmp_path / "broken", "raise SystemExit('broken')")

    waiting = control.told("up", "--detach", PYTHONPATH=newer)
    assert all("`distsum fleet upgrade` moves them" in waiting[host.address]["actions"][0] for host in chosen)
    failed = control.told("upgrade", code=1, PYTHONPATH=broken)
    assert "was put back to environment" in failed[chosen[0].address]["fault"]
    assert "left as it was" in failed[chosen[1].address]["fault"]
    after = control.told("status")
    for host in chosen:
        assert after[host.address]["environment"] == before[host.address]["environment"]
        assert states(after[host.address]) == states(before[host.address])

    for host in chosen:
        host.slow_down("2mbit")
    try:
        job = control.submit()
        done = control.told("upgrade", PYTHONPATH=newer)
    finally:
        for host in chosen:
            host.speed_up()
    assert control.waited(job)["retries"] == 0, "workers were drained, not cut off"
    assert result() == expected
    for host in chosen:
        assert done[host.address]["environment"] not in {None, before[host.address]["environment"]}
        assert states(done[host.address]) == states(before[host.address])
        assert 0 < done[host.address]["uploaded_bytes"] < 1 << 20, "one wheel is another"
        assert len(list(host.home.joinpath(".distsum", "environments").iterdir())) == 1, "old ones are pruned"


def _changed(folder: Path, line: str) -> str:
    """Return a folder with distsum as it runs here, but for a line at the begin of what a worker runs."""
    folder.mkdir()
    with zipfile.ZipFile(pack(str(folder))) as wheel:
        wheel.extractall(folder)
    module = folder / "distsum" / "worker" / "remote.py"
    module.write_text(module.read_text().replace("import logging\n", f"import logging  # {folder.name}\n{line}\n", 1))
    return str(folder)
