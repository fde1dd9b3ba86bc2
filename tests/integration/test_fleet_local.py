"""A fleet of one host, this machine, by an SSH server of the tests: where there can be no hosts of their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests import hosts as test_hosts
from tests import sshd as local_sshd
from tests.command import COMMAND, wait_until
from tests.command import environment as command_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rabbitmq import Node
    from tests.sshd import LocalSshd

pytestmark = [
    pytest.mark.timeout(300),  # wheels are downloaded
    pytest.mark.skipif(test_hosts.impossible() is None, reason="test_fleet.py tests the same and more on hosts"),
]


@pytest.fixture
def server(tmp_path: Path, missing_service: Any) -> Iterator[LocalSshd]:
    if not os.path.exists(local_sshd.PROGRAM):
        missing_service(f"there is no OpenSSH server; install it with `{local_sshd.INSTALL}`")
    folder = tmp_path / "sshd"
    folder.mkdir()
    with local_sshd.running(folder) as made:
        yield made


def test_a_host_is_brought_up_works_and_is_left_as_it_was(
    tmp_path: Path, server: LocalSshd, rabbitmq: Node, vhost: str
) -> None:
    home = tmp_path / "home"
    home.joinpath(".ssh").mkdir(parents=True)
    home.joinpath(".ssh", "known_hosts").write_text(server.known)
    home.joinpath("fleet.toml").write_text(
        f'memory = "64MiB"\nworkers = 2\n[[hosts]]\nname = "127.0.0.1"\nport = {server.port}\nuser = "{server.user}"\n'
        f'keys = ["{server.key}"]\n'
    )
    environment = command_environment(
        {
            "HOME": str(home),
            "DISTSUM_BROKER": rabbitmq.url(vhost),
            "DISTSUM_MANAGEMENT": f"http://operator:{rabbitmq.password}@127.0.0.1:{rabbitmq.management_port}",
            "XDG_STATE_HOME": str(tmp_path / "state"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        }
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    inputs = tmp_path / "in"
    inputs.mkdir()
    for value in range(30):
        np.save(inputs / f"{value:02}.npy", np.random.default_rng(value).standard_normal(100))
    run("mean", str(inputs), "-o", "expected.npy")
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(tmp_path / "log", "wb"))
        command = [*COMMAND, "master", "--work-dir", str(tmp_path / "work")]
        master = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        stack.callback(master.wait)
        stack.callback(master.kill)
        wait_until(lambda: "ready" in tmp_path.joinpath("log").read_text().split(), "a master")
        stack.callback(run, "fleet", "down", "--drain-seconds", "0")
        run("fleet", "up", "--detach")
        assert "nothing to change" in run("fleet", "up", "--detach").stderr
        run("submit", "mean", str(inputs), "-o", "out.npy", "--wait")
        assert (home / "out.npy").read_bytes() == (home / "expected.npy").read_bytes()
        told = json.loads(run("fleet", "down", "--json").stdout)
        assert told["hosts"][0]["proof"] == ["no process", "no file of the fleet", "no user at the broker", "no queue"]
        assert list(server.home.iterdir()) == []
