"""Logs of several hosts followed by one command: hosts of their own with OpenSSH; the tests write the logs."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
from distsum.provision.supervisor import cut_log

from tests import hosts as test_hosts
from tests.command import wait_until
from tests.fleetcontrol import Control

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.hosts import Network, SshHost

FOLDER = ".distsum/fleets/lab@{}"


def write(host: SshHost, text: str) -> None:
    folder = host.home / FOLDER.format(host.address)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log", "a", encoding="utf-8") as log:
        log.write(text)


def cut(host: SshHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a log anew as its supervisor does."""
    folder = host.home / FOLDER.format(host.address)
    with monkeypatch.context() as there, open(folder / "log", "ab") as log:
        there.chdir(folder)
        cut_log(log.fileno(), 0)


@pytest.fixture
def reader(network: Network, tmp_path: Path) -> Iterator[Control]:
    """Give a machine that reads the logs of two hosts."""
    home = tmp_path / "home"
    home.mkdir()
    made = Control(home, network, {"XDG_STATE_HOME": str(tmp_path / "state")})
    made.hosts = made.hosts[:2]
    made.write()
    for host in made.hosts:
        write(host, f"old of {host.name}\nlast of {host.name}\n")
    yield made
    for host in made.hosts:
        host.run("rm", "-rf", f"/home/{test_hosts.USER}/.distsum")


def told(reader: Control, host: SshHost) -> list[str]:
    """Return the lines that were told of a host."""
    prefix = f"{host.address}: "
    return [line.removeprefix(prefix) for line in reader.said("logs").splitlines() if line.startswith(prefix)]


def test_logs_are_followed_through_a_cut_and_an_absence_of_a_host_until_ctrl_c(
    reader: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, away = reader.hosts
    with reader.started("logs", "fleet", "logs", "--follow", "--lines", "1") as process:
        wait_until(lambda: all(f"last of {host.name}" in told(reader, host) for host in reader.hosts), "last lines")
        write(here, "distsum-like words\nbefore the cut\n")
        cut(here, monkeypatch)
        write(here, "after\n")
        wait_until(lambda: "after" in told(reader, here), "what came after the cut")

        away.end_sshd()
        write(away, "while away\n")
        cut(away, monkeypatch)
        write(away, "and cut\n")
        write(here, "meanwhile\n")
        wait_until(lambda: "meanwhile" in told(reader, here), "lines of the other")
        wait_until(lambda: "followed again when it is back" in reader.said("logs"), "words of the host that is away")
        away.start_sshd()
        wait_until(lambda: "and cut" in told(reader, away), "the host", 60)
        write(away, "back\n")
        wait_until(lambda: "back" in told(reader, away), "what comes now")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert "Traceback" not in reader.said("logs")
    lines = [line for line in told(reader, away) if "followed again" not in line]
    assert lines == [f"last of {away.name}", "while away", "and cut", "back"], "each once, none lost"
    expected = [f"last of {here.name}", "distsum-like words", "before the cut", "after", "meanwhile"]
    assert told(reader, here) == expected


def test_each_line_is_an_object_for_programs_with_the_reports_last(reader: Control) -> None:
    here, other = reader.hosts
    write(here, 'and "quoted"\n')
    done = reader.run("fleet", "logs", "--json", "--lines", "2", "--host", here.address)
    assert done.returncode == 0, done.stderr
    *lines, reports = map(json.loads, done.stdout.splitlines())
    said = [f"last of {here.name}", 'and "quoted"']
    assert lines == [{"host": here.address, "line": line} for line in said]
    assert [each["host"] for each in reports["hosts"]] == [here.address]
    told = reader.told("logs")
    assert {here.address, other.address} <= told.keys()
    assert not told["changed"]


def test_why_a_log_cannot_be_shown_is_told(reader: Control) -> None:
    here, other = reader.hosts
    here.run("chmod", "0", f"/home/{test_hosts.USER}/{FOLDER.format(here.address)}/log")
    reader.write(hosts={here.address: "", other.address: 'python = "/usr/bin/python3.6"'})
    done = reader.run("fleet", "logs")
    assert done.returncode == 1
    assert f"distsum: {here.address}: " in done.stderr
    assert "Permission denied" in done.stderr
    assert f"distsum: {other.address}: needs Python 3.11 or later; there is none of /usr/bin/python3.6" in done.stderr
