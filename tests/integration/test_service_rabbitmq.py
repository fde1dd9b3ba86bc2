"""The service as its users run it: master, workers and clients are processes, with RabbitMQ between them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from distsum.generate import generate
from tests.command import alive, distsum, wait_until
from tests.relay import Relay
from tests.servicecommands import asked, client_of, master, slot_processes, worker
from tests.straggling import Hold

if TYPE_CHECKING:
    from pathlib import Path

    from distsum.stores.s3 import S3Store
    from tests.rabbitmq import Node

FILES = 120


@pytest.fixture
def environment(rabbitmq: Node, vhost: str) -> dict[str, str]:
    return {"DISTSUM_BROKER": rabbitmq.url(vhost)}


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    draw = np.random.default_rng(6)
    for index in range(FILES):
        np.save(folder / f"{index:03}.npy", draw.standard_normal(3000))
    return folder


@pytest.fixture
def expected(inputs: Path, tmp_path: Path) -> bytes:
    done = distsum("mean", str(inputs), "-o", str(tmp_path / "expected.npy"), "--quiet")
    assert done.returncode == 0, done.stderr
    return (tmp_path / "expected.npy").read_bytes()


def test_a_job_runs_from_submission_to_the_same_bytes(
    tmp_path: Path, environment: dict[str, str], inputs: Path, expected: bytes
) -> None:
    out = tmp_path / "out.npy"
    with master(tmp_path, environment, "--no-speculation"), worker(tmp_path, environment):
        done = distsum("submit", "mean", str(inputs), "-o", str(out), "-p", "5", env=environment)
        assert done.returncode == 0, done.stderr
        job = done.stdout.strip()
        told = asked(environment, "wait", job)
        assert out.read_bytes() == expected
        assert (told["files"], told["tasks"], told["attempts"], told["retries"]) == (FILES, 30, 30, 0)
        assert asked(environment, "status", job)["state"] == "succeeded"
        (listed,) = asked(environment, "jobs")
        assert (listed["job"], listed["state"]) == (job, "succeeded")
        assert [each["state"] for each in asked(environment, "workers")] == ["idle", "idle"]
        shown_jobs = ""
        for arguments in (["status", job], ["jobs"], ["workers"]):
            shown = distsum(*arguments, env=environment)
            assert (shown.returncode, shown.stderr) == (0, "")
            assert job in shown.stdout or arguments == ["workers"]
            assert "--limit" not in shown.stdout
            shown_jobs = shown.stdout if arguments == ["jobs"] else shown_jobs
        assert distsum("jobs", "--limit", "1", env=environment).stdout == shown_jobs
        shown = distsum("jobs", "--limit", "0", env=environment)
        assert shown.stdout.splitlines()[-1] == "more have ended; --limit N lists the last N of them"
        assert asked(environment, "jobs", "--limit", "0") == []
        assert "--limit" in distsum("jobs", "--limit", "-1", env=environment).stderr
        again = distsum("submit", "mean", str(inputs), "-o", str(out), env=environment)
        assert again.returncode == 2
        assert "--force" in again.stderr
        assert distsum("status", "nonsense", env=environment).returncode == 2
    names = {path.name for path in (tmp_path / "work").rglob("*") if path.is_file()}
    assert names == {"serving", "record", "ticket", "committing", "outcome", "history"}


def test_a_jobs_stragglers_are_told_of_while_it_runs_and_from_its_history_when_it_has_ended(
    tmp_path: Path, environment: dict[str, str], inputs: Path, expected: bytes
) -> None:
    hold = Hold(tmp_path / "plant", "/077.npy", first=False)
    # Of tasks that take milliseconds some take long by chance, and who did them would be given no copy.
    with (
        master(tmp_path, environment | {"DISTSUM_SPECULATION": "slow=1000"}),
        worker(tmp_path, environment | hold.environment),
    ):
        done = distsum(
            "submit",
            "mean",
            str(inputs),
            "-o",
            str(tmp_path / "out.npy"),
            "-p",
            "5",
            "--keep-partials",
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        job = done.stdout.strip()
        ask = ("status", job, "--stragglers")
        wait_until(lambda: asked(environment, *ask)["totals"]["started"], "a backup")
        (racing,) = [each for each in asked(environment, *ask)["entries"] if each["kind"] == "backup"]
        assert (racing["outcome"], racing["task"]) == (None, [job, 1, 0, 15])
        shown = distsum(*ask, env=environment).stdout
        assert f"phase 1 task 15  {racing['of_worker']} -> {racing['worker']}  " in shown
        assert "1 backup = 1 racing" in shown
        assert "1 backup" in distsum("status", job, env=environment).stdout
        hold.release()
        told = asked(environment, "wait", job)
        assert (tmp_path / "out.npy").read_bytes() == expected
        assert told["retries"] == 0
        assert told["backups"]["won"] + told["backups"]["lost"] == told["backups"]["started"] == 1
        assert sum(account["tasks"] for account in told["worker_accounts"]) == 30
        report = asked(environment, *ask)
        assert report["totals"] == told["backups"]
        assert report["remark"] is None
        (entry,) = [each for each in report["entries"] if each["kind"] == "backup"]
        assert entry["outcome"] in {"won", "lost"}
        assert entry["evidence"] == racing["evidence"]
    stored = tmp_path / "work" / "jobs" / job / "history"
    replayed = distsum("status", "--history", str(stored), "--stragglers", "--json")
    assert json.loads(replayed.stdout) == report, "without a master, and without a broker"


def test_a_running_task_gets_a_backup_at_once_when_a_person_asks_and_is_refused_another_one(
    tmp_path: Path, environment: dict[str, str], inputs: Path, expected: bytes
) -> None:
    hold = Hold(tmp_path / "plant", "/077.npy", first=False)
    with (
        master(tmp_path, environment | {"DISTSUM_SPECULATION": "none"}),
        worker(tmp_path, environment | hold.environment),
    ):
        out = tmp_path / "out.npy"
        done = distsum("submit", "mean", str(inputs), "-o", str(out), "-p", "5", env=environment)
        assert done.returncode == 0, done.stderr
        job = done.stdout.strip()
        wait_until(lambda: hold.met, "a worker that is held up")
        wait_until(lambda: {each["state"] for each in asked(environment, "workers")} == {"idle", "busy"}, "an idle one")
        status = asked(environment, "status", job)
        assert status["snapshot"]["speculation"] is False
        assert "its stragglers get no backups" in distsum("status", job, env=environment).stdout
        refused = {"99": "has no task 99; its tasks are 0 to ", "14": "phase 1 task 14 of job .* is not under way"}
        for task, reason in refused.items():
            told = distsum("backup", job, "1", task, env=environment)
            assert told.returncode == 2
            assert re.search(reason, told.stderr)
        begun = asked(environment, "backup", job, "1", "15")
        names = {each["worker"] for each in asked(environment, "workers")}
        assert {begun["worker"], begun["of_worker"]} == names
        named = {"job": job, "phase": 1, "task": 15, "tile": 0, "helpers": []}
        assert {key: value for key, value in begun.items() if "worker" not in key} == named
        wait_until(lambda: {each["state"] for each in asked(environment, "workers")} == {"busy"}, "its start")
        again = distsum("backup", job, "1", "15", env=environment)
        assert (again.returncode, again.stdout) == (2, "")
        assert f"phase 1 task 15 of job {job} runs twice already" in again.stderr
        hold.release()
        assert asked(environment, "wait", job)["backups"]["started"] == 1
        assert out.read_bytes() == expected
        (entry,) = asked(environment, "status", job, "--stragglers")["entries"]
        assert (entry["reason"], entry["worker"], entry["of_worker"]) == ("asked", begun["worker"], begun["of_worker"])
        assert entry["outcome"] in {"won", "lost"}
        said = distsum("status", job, "--stragglers", env=environment).stdout
        assert f"phase 1 task 15  {entry['of_worker']} -> {entry['worker']}  asked for by a person, " in said
        assert "is not running" in distsum("backup", job, "1", "15", env=environment).stderr


def test_submit_wait_follows_the_job_and_ends_as_it_does(
    tmp_path: Path, environment: dict[str, str], inputs: Path, expected: bytes
) -> None:
    with master(tmp_path, environment), worker(tmp_path, environment):
        told = asked(environment, "submit", "mean", str(inputs), "-o", str(tmp_path / "out.npy"), "--wait")
        assert told["output"] == str(tmp_path / "out.npy")
        assert (tmp_path / "out.npy").read_bytes() == expected
        done = distsum("submit", "max", str(inputs), "-o", str(tmp_path / "max.npy"), "--wait", env=environment)
        assert {each["output"]: each["job"] for each in asked(environment, "jobs")}[str(tmp_path / "max.npy")] == (
            done.stdout.strip()
        )
        with open(inputs / "077.npy", "r+b") as file:
            file.truncate(1000)
        done = distsum("submit", "sum", str(inputs), "-o", str(tmp_path / "sum.npy"), "--wait", env=environment)
        assert done.returncode == 1
        assert "077.npy" in done.stderr


def test_a_job_all_of_which_lies_in_s3_gives_the_bytes_of_a_local_run(
    tmp_path: Path, environment: dict[str, str], s3_store: S3Store, s3_prefix: bytes
) -> None:
    place = s3_prefix.decode()
    for folder in (f"{place}/in", str(tmp_path / "in")):
        generate(folder, files=FILES, count=3000, distribution="normal")
    local = tmp_path / "local.npy"
    assert distsum("mean", str(tmp_path / "in"), "-o", str(local), "--quiet").returncode == 0
    before = set(tmp_path.rglob("*"))
    # With a slash at the end, which is no part of the folder's name; and what is slow by chance is not done twice.
    serving = master(tmp_path, environment, "--no-speculation", work=f"{place}/scratch/")
    with serving, worker(tmp_path, environment):
        arguments = ["submit", "mean", f"{place}/in/*.npy", "-o", f"{place}/out.npy", "-p", "5"]
        submitted = distsum(*arguments, env=environment)
        assert submitted.returncode == 0, submitted.stderr
        told = asked(environment, "wait", submitted.stdout.strip())
        assert (told["output"], told["files"], told["tasks"], told["attempts"]) == (f"{place}/out.npy", FILES, 30, 30)
        again = distsum(*arguments, env=environment)
        assert (again.returncode, "exists; use --force" in again.stderr) == (2, True)
        missing = distsum("submit", "mean", f"{place}/in", "-o", "s3://no-such-bucket/out.npy", env=environment)
        assert (missing.returncode, "no such bucket" in missing.stderr) == (3, True)
        assert [each["state"] for each in asked(environment, "jobs")] == ["succeeded"]
    with s3_store.open(s3_prefix + b"/out.npy") as reader:
        content = reader.read(0, reader.size)
    assert content == local.read_bytes()
    assert told["digest"] == hashlib.sha256(content).hexdigest()
    left = {os.path.basename(name) for name in s3_store.list(s3_prefix + b"/scratch")}
    assert left == {b"serving", b"record", b"ticket", b"committing", b"outcome", b"history"}
    assert list(s3_store.begun(s3_prefix)) == []
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "master.log", tmp_path / "worker.log"}


def test_a_master_whose_work_folder_cannot_be_reached_says_so_in_one_line(
    environment: dict[str, str], s3_environment: dict[str, str]
) -> None:
    done = distsum("master", "--work-dir", "s3://no-such-bucket/scratch", env=environment)
    assert done.returncode == 3
    assert done.stderr.splitlines()[1:] == ["distsum: cannot use s3://no-such-bucket: there is no such bucket"]


def test_an_id_that_is_none_is_told_in_one_line(tmp_path: Path, environment: dict[str, str]) -> None:
    with master(tmp_path, environment):
        for name, words in [("../x", "there is no job ../x"), (os.fsdecode(b"\xff"), r"\xff is not UTF-8")]:
            done = distsum("status", name, env=environment)
            assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
            assert words in done.stderr


def test_without_a_master_or_a_broker_it_says_so_in_one_line(tmp_path: Path, environment: dict[str, str]) -> None:
    done = distsum("jobs", env=environment)
    assert done.returncode == 3
    assert "no master answers" in done.stderr
    password = environment["DISTSUM_BROKER"].split(":")[2].split("@")[0]
    nowhere = {"DISTSUM_BROKER": "amqp://u:s3cr3t-canary@127.0.0.1:1/v"}
    for arguments in (["jobs"], ["worker", "--slots", "1"], ["master", "--work-dir", str(tmp_path)]):
        done = distsum(*arguments, env=nowhere)
        assert done.returncode == 3, done.stderr
        assert "127.0.0.1:1" in done.stderr
        assert "s3cr3t-canary" not in done.stderr
    done = distsum("jobs", env={"DISTSUM_BROKER": ""})
    assert done.returncode == 2
    assert password not in done.stderr


def test_a_master_does_not_wait_for_the_turn_of_one_whose_jobs_are_elsewhere(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    with master(tmp_path, environment):
        done = distsum("master", "--work-dir", str(tmp_path / "elsewhere"), env=environment)
    assert done.returncode == 2
    assert f"served by a master whose jobs are in {tmp_path}/work, and this one has {tmp_path}/elsewhere" in done.stderr


def test_workers_that_are_sent_away_from_the_command_line_do_not_come_back(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    with master(tmp_path, environment), worker(tmp_path, environment) as process:
        wait_until(lambda: len(asked(environment, "workers")) == 2, "workers")
        one, other = (each["worker"] for each in asked(environment, "workers"))
        assert asked(environment, "workers", "--drain", one) == {"drain": one}
        wait_until(lambda: states(environment)[one] == "left", "that it leaves")
        assert asked(environment, "workers", "--shutdown", other) == {"shutdown": other}
        assert process.wait(20) == 0, "the last one ends the command"
        wait_until(lambda: states(environment) == {one: "left", other: "left"}, "their end, and no others")


def states(environment: dict[str, str]) -> dict[str, str]:
    return {each["worker"]: each["state"] for each in asked(environment, "workers")}


class Door(Relay):
    """Lets new connections in only while it is open; those that are there stay."""

    is_open = True

    async def carry(self, *ends: Any) -> None:
        if self.is_open:
            await super().carry(*ends)


def test_a_slot_that_was_not_let_in_for_a_while_is_filled_again(
    tmp_path: Path, rabbitmq: Node, environment: dict[str, str]
) -> None:
    door = Door("127.0.0.1", ("127.0.0.1", rabbitmq.amqp_port))
    through = environment["DISTSUM_BROKER"].replace(f":{rabbitmq.amqp_port}/", f":{door.port}/")
    with master(tmp_path, environment), client_of(environment) as client:

        def states() -> list[str]:
            return sorted(each.state for each in client.workers())

        try:
            with worker(tmp_path, {"DISTSUM_BROKER": through}) as process:
                log = tmp_path / "worker.log"
                wait_until(lambda: states() == ["idle"] * 2, "workers")
                for times in (1, 2):
                    door.is_open = False
                    os.kill(slot_processes(process)[0], signal.SIGKILL)
                    wait_until(
                        lambda times=times: log.read_text().count("does RabbitMQ run there") >= times, "refusals"
                    )
                    door.is_open = True
                    wait_until(lambda times=times: states() == ["idle"] * 2 + ["lost"] * times, "another")
                process.terminate()
                assert process.wait(20) == 0
        finally:
            door.close()


def test_a_drained_worker_leaves_and_none_survives_its_parent(tmp_path: Path, environment: dict[str, str]) -> None:
    with master(tmp_path, environment):
        with worker(tmp_path, environment) as process:
            wait_until(lambda: len(asked(environment, "workers")) == 2, "workers")
            process.terminate()
            assert process.wait(20) == 0
        wait_until(lambda: {each["state"] for each in asked(environment, "workers")} == {"left"}, "their end")
        with worker(tmp_path, environment) as process:
            wait_until(lambda: len(asked(environment, "workers")) == 4, "workers")
            pids = slot_processes(process)
            process.kill()
            process.wait()
            wait_until(lambda: not any(map(alive, pids)), "their end", 2.0)
