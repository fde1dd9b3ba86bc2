"""``distsum mean … --fleet``: workers are brought up for one job, and let go after it."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.command import wait_until
from tests.fleetcontrol import INPUTS, OUTPUT, worker_pids

if TYPE_CHECKING:
    from distsum.stores.s3 import S3Store
    from tests.fleetcontrol import Control
    from tests.rabbitmq import Node

pytestmark = pytest.mark.timeout(300)  # wheels are downloaded once, which may be slow
MEAN = ("mean", INPUTS, "-o", OUTPUT, "-p", "5", "--force", "--json", "--fleet", "fleet.toml")


def test_a_job_that_was_interrupted_goes_on_with_the_same_command_and_a_master_of_its_own(
    control: Control, rabbitmq: Node, s3_store: S3Store, expected: bytes, result
) -> None:
    store = "s3://tests/fleet-own"
    host = control.hosts[0]
    control.write(hosts={host.address: ""}, store=store)
    before = host.home.joinpath(".distsum").exists()
    with rabbitmq.vhost() as vhost:
        address, _, _ = control.environment["DISTSUM_BROKER"].rpartition("/")
        broker = {"DISTSUM_BROKER": f"{address}/{vhost}"}
        with control.started("mean.log", *MEAN, **broker) as process:
            wait_until(lambda: "1 worker of the fleet ready" in control.said("mean.log"), "a worker", 120)
            host.slow_down("1mbit")
            try:
                wait_until(lambda: next(iter(s3_store.list(f"{store}/partials".encode())), None), "a partial")
                process.send_signal(signal.SIGINT)
                assert process.wait(60) == 130
            finally:
                host.speed_up()
        before_said = control.said("mean.log")
        assert "is stored; the same command goes on with it" in before_said
        assert not host.processes()
        done = control.run(*MEAN, **broker)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["tasks_reused"] > 0
    first, second = (re.findall(r"distsum: job (\w+) of", said) for said in (before_said, done.stderr))
    assert len(first) == 1
    assert second == first, "the job that was stored, and no other beside it"
    assert "76 tasks" in done.stderr, "told as of any run"
    assert result() == expected
    assert not host.processes()
    assert host.home.joinpath(".distsum").exists() == before, "what was installed before stays, and nothing else"


def test_workers_take_no_job_that_is_planned_for_more_memory_than_they_have(control: Control, expected: bytes) -> None:
    host = control.hosts[0]
    control.write(hosts={host.address: ""})
    assert not control.told("up", "--detach")[host.address]["fault"]
    (before,) = worker_pids(host)
    control.write(hosts={host.address: 'memory = "16MiB"'})
    assert "drain and stop 1 worker that had amqp://" in control.told("plan")[host.address]["actions"][0]
    assert worker_pids(host) == [before]
    assert control.told("up", "--detach")[host.address]["actions"][1] == "start 1 worker"
    assert worker_pids(host) != [before]
    refused = control.run("submit", "mean", INPUTS, "-o", OUTPUT, "-p", "5", "--force", "--wait")
    assert refused.returncode == 1, refused.stderr
    assert "MiB a worker, and this one has 16.0 MiB; submit it with --memory 16MiB, or give" in refused.stderr
    planned = control.run(*MEAN)
    assert planned.returncode == 2, planned.stderr
    assert "planned for 16.0 MiB a worker, as fleet.toml says" in planned.stderr
    assert "--memory 16.0 MiB is too little" in planned.stderr


def test_what_ran_before_goes_on_and_a_job_that_fails_gives_its_exit_code(control: Control, expected: bytes) -> None:
    running, borrowed = control.hosts[:2]
    control.write(hosts={running.address: "", borrowed.address: ""})
    control.told("up", "--detach", "--host", running.address)
    before = worker_pids(running)
    bad = control.run("mean", "s3://tests/fleet-nothing-*", "-o", OUTPUT, "--force", "--fleet", "fleet.toml")
    assert bad.returncode == 2, bad.stderr
    assert "start 1 worker" not in bad.stderr, "what is wrong by its names is told before hosts are asked"
    refused = control.run(*MEAN, "--speculation", "multiplier=2")
    assert refused.returncode == 2, refused.stderr
    assert "a service's master says what is done about stragglers" in refused.stderr
    text = control.home / "bad.txt"
    text.write_text("1\nx\n")
    failed = control.run("mean", str(text), "-o", str(control.home / "bad.npy"), "--fleet", "fleet.toml")
    assert failed.returncode == 1, failed.stderr
    assert "2 workers of the fleet ready" in failed.stderr
    assert str(text) in failed.stderr
    assert worker_pids(running) == before
    assert not borrowed.processes()
