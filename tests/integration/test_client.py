"""Jobs that a service does as if they were done here: ``distsum mean --broker``, and ``distsum.Client``."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

import distsum as api
from tests.command import distsum, started, wait_until
from tests.servicecommands import master, worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rabbitmq import Node

FILES = 40
SUMMARY_OF_THE_RUN = {
    "backups",
    "worker_accounts",
    "seconds",
    "attempts",
    "bytes_written",
    "peak_worker_bytes",
    "workers",
}
"""Fields of which two runs of a job may differ."""


class Service(NamedTuple):
    url: str
    folder: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def service(rabbitmq: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A master and two workers that all tests share; each works in files of its own."""
    folder = tmp_path_factory.mktemp("service")
    with rabbitmq.vhost() as vhost:
        url = rabbitmq.url(vhost)
        environment = {"DISTSUM_BROKER": url}
        with master(folder, environment), worker(folder, environment), api.Client(url) as client:
            wait_until(lambda: len(client.workers()) == 2, "workers")
            yield Service(url, folder, environment)


@pytest.fixture
def client(service: Service) -> Iterator[api.Client]:
    with api.Client(service.url) as client:
        yield client


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    draw = np.random.default_rng(8)
    for index in range(FILES):
        np.save(folder / f"{index:02}.npy", draw.standard_normal((30, 40)))
    return folder


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """Inputs of a job that is not done before somebody has looked at it."""
    folder = tmp_path / "slow"
    folder.mkdir()
    np.save(tmp_path / "large.npy", np.zeros(2_000_000))
    for index in range(300):
        os.link(tmp_path / "large.npy", folder / f"{index:03}.npy")
    return folder


def told(done: Any) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# The command ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "min", "max"])
def test_a_service_gives_the_bytes_and_the_object_of_a_run_here(
    tmp_path: Path, service: Service, inputs: Path, reduction: str
) -> None:
    cut = ["-p", "5", "--tiles", "2", "--json"]
    here = told(distsum(reduction, str(inputs), "-o", "here.npy", *cut, cwd=tmp_path))
    # Relative names are those of the folder that one stands in.
    done = distsum(reduction, os.path.relpath(inputs, tmp_path), "-o", "there.npy", *cut, "--broker", service.url,
                   cwd=tmp_path)  # fmt: skip
    there = told(done)
    content = (tmp_path / "there.npy").read_bytes()
    assert content == (tmp_path / "here.npy").read_bytes()
    assert there["digest"] == here["digest"] == hashlib.sha256(content).hexdigest()
    assert list(there) == list(here)
    assert there.pop("output") == str(tmp_path / "there.npy")
    assert here.pop("output") == str(tmp_path / "here.npy")
    for name in SUMMARY_OF_THE_RUN:
        assert type(there.pop(name)) is type(here.pop(name))
    assert there == here
    lines = done.stderr.splitlines()
    assert lines[0].startswith("job ")
    assert f"{reduction} of {FILES} files of 1,200 numbers" in lines
    assert service.url.split(":")[2].split("@")[0] not in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["here.npy", "there.npy"]


def test_only_the_option_sends_a_job_to_the_service(tmp_path: Path, service: Service, inputs: Path) -> None:
    nowhere = {"DISTSUM_BROKER": "amqp://nobody:secret@127.0.0.1:1/v"}
    (tmp_path / "distsum.toml").write_text(f"broker = {json.dumps(nowhere['DISTSUM_BROKER'])}\n")
    for environment in (nowhere, {}):
        done = distsum("mean", str(inputs), "-o", "here.npy", "--force", cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
    done = distsum("mean", str(inputs), "-o", "there.npy", "--broker", service.url, cwd=tmp_path, env=nowhere)
    assert done.returncode == 0, done.stderr
    done = distsum("mean", str(inputs), "-o", "x.npy", f"--broker={nowhere['DISTSUM_BROKER']}", cwd=tmp_path)
    assert done.returncode == 3
    assert "secret" not in done.stderr


def test_a_job_there_ends_with_the_exit_code_and_the_words_of_one_here(
    tmp_path: Path, service: Service, inputs: Path
) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    for path in inputs.iterdir():
        (bad / path.name).write_bytes(path.read_bytes())
    content = bytearray((bad / "07.npy").read_bytes())
    content[20:30] = b"nonsense!!"
    (bad / "07.npy").write_bytes(content)
    (tmp_path / "there.npy").write_bytes(b"mine")
    for code, arguments in (
        (1, [str(bad), "-o", "out.npy"]),
        (2, [str(inputs), "-o", "there.npy"]),
        (2, [str(inputs), "-o", "~/out.npy"]),
        (2, ["~/in", "-o", "out.npy"]),
        (2, [str(inputs), "-o", "out.npy", "-p", "7"]),
        (3, [str(inputs), "-o", "s3://no-such-bucket/out.npy"]),
    ):
        environment = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"} if code == 3 else {}
        here = distsum("mean", *arguments, cwd=tmp_path, env=environment)
        there = distsum("mean", *arguments, "--broker", service.url, cwd=tmp_path, env=environment)
        assert (here.returncode, there.returncode) == (code, code), there.stderr
        said = there.stderr.splitlines()[-1].removesuffix(f" (on {socket.gethostname()})")
        assert said == here.stderr.splitlines()[-1]
    assert (tmp_path / "there.npy").read_bytes() == b"mine"
    skipping = ["--on-bad-input", "skip", "--force", "--json", "-p", "5"]
    here = told(distsum("mean", str(bad), "-o", "out.npy", *skipping, cwd=tmp_path))
    there = told(distsum("mean", str(bad), "-o", "out.npy", *skipping, "--broker", service.url, cwd=tmp_path))
    assert there["skipped"] == here["skipped"]
    assert there["digest"] == here["digest"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_that_is_followed_no_more_goes_on_and_is_named(
    tmp_path: Path, service: Service, client: api.Client, slow: Path, number: signal.Signals
) -> None:
    output = tmp_path / "out.npy"
    arguments = ["mean", str(slow), "-o", str(output), "--tiles", "1", "--broker", service.url]
    with started(*arguments) as process:
        wait_until(lambda: [each for each in client.jobs() if each.output == str(output)], "the job")
        (status,) = [each for each in client.jobs() if each.output == str(output)]
        assert process.stderr is not None
        assert process.stderr.readline().startswith(f"job {status.job} of amqp://")
        process.send_signal(number)
        said = process.stderr.read()
        assert process.wait(20) == 130
    assert f"job {status.job} goes on" in said
    assert f"distsum status {status.job}" in said
    assert f"distsum cancel {status.job}" in said
    assert "Traceback" not in said
    assert "Task was destroyed" not in said
    assert client.status(status.job).state == "running"
    client.cancel(status.job)
    with pytest.raises(api.JobCancelledError):
        client.wait(status.job, 30)


def test_what_is_set_for_runs_here_is_not_asked_of_a_service(tmp_path: Path, service: Service, inputs: Path) -> None:
    (tmp_path / "distsum.toml").write_text('work-dir = "mine"\nworkers = 1\npartition = 5\n')
    arguments = ["mean", str(inputs), "-o", "out.npy", "--json", "--broker", service.url]
    done = told(distsum(*arguments, cwd=tmp_path))
    assert (done["workers"], done["plan"]["partition"]) == (2, 5)
    assert not (tmp_path / "mine").exists()
    done = told(distsum(*arguments, "--force", "--workers", "7", "-p", "auto", cwd=tmp_path))
    assert done["workers"] == 2, "an option tells for how many to plan, and the service has those that it has"


def test_a_work_folder_that_is_not_on_this_machine_is_said_before_anything_is_written(
    tmp_path: Path, service: Service, inputs: Path
) -> None:
    work, away = service.folder / "work", service.folder / "away"
    work.rename(away)
    try:
        done = distsum("mean", str(inputs), "-o", str(tmp_path / "out.npy"), "--broker", service.url)
        assert done.returncode == 2
        assert f"keeps its work in {work}, which is not on this machine" in done.stderr
        assert not work.exists()
    finally:
        away.rename(work)


# The client -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "min", "max"])
def test_a_client_returns_what_the_function_of_that_name_returns(
    tmp_path: Path, service: Service, client: api.Client, inputs: Path, reduction: str
) -> None:
    expected = getattr(api, reduction)(inputs)
    found = getattr(client, reduction)([inputs / "*.npy"])
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())
    assert found.flags.writeable
    mapped = getattr(client, reduction)(inputs, tmp_path / "out.raw", out_dtype=np.float32, partition=5)
    assert isinstance(mapped, np.memmap)
    assert (mapped == expected.astype(np.float32)).all()
    assert list((service.folder / "work" / "results").iterdir()) == []


def test_a_client_submits_follows_and_looks_after_jobs_and_workers(
    tmp_path: Path, client: api.Client, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    workers = [each.worker for each in client.workers()]
    for name in workers:
        client.command_worker(name, "pause")
    wait_until(lambda: {each.state for each in client.workers()} == {"paused"}, "a pause")
    job = client.submit("mean", inputs, "out.npy", priority=3)
    other = client.submit("max", inputs, "other.npy", fan_in=7)
    assert {each.job for each in client.jobs()} >= {job, other}
    assert client.status(job).priority == 3
    client.set_priority(job, 4)
    assert client.status(job).priority == 4
    with pytest.raises(TimeoutError, match="it goes on"):
        client.wait(job, 0)
    client.cancel(other)
    with pytest.raises(api.JobCancelledError):
        client.wait(other, 30)
    assert client.queues().queues
    for name in workers:
        client.command_worker(name, "resume")
    seen: list[Any] = []
    assert client.wait(job, 60, seen.append).output == str(tmp_path / "out.npy")
    assert seen[-1].state == "succeeded"


def test_a_client_raises_what_the_command_line_tells(tmp_path: Path, client: api.Client, inputs: Path) -> None:
    (tmp_path / "there.npy").touch()
    for expected, call in (
        (api.OutputError, lambda: client.mean(inputs, tmp_path / "there.npy")),
        (api.InputListError, lambda: client.submit("mean", tmp_path / "nothing", tmp_path / "out.npy")),
        (api.PlanError, lambda: client.mean(inputs, partition=7)),
        (api.UsageError, lambda: client.submit("median", inputs, tmp_path / "out.npy")),
        (api.ConfigurationError, lambda: client.mean(inputs, workers="two")),
        (api.ConfigurationError, lambda: client.mean(inputs, priority=0.5)),
        (api.ServiceError, lambda: client.status("nonsense")),
        (api.ServiceError, lambda: client.cancel("nonsense")),
    ):
        with pytest.raises(api.UsageError) as caught:
            call()
        assert type(caught.value) is expected
    with pytest.raises(TypeError, match="there is no option 'work_dir'; there are workers,"):
        client.mean(inputs, work_dir=tmp_path)
    (tmp_path / "bad").mkdir()
    for index in range(3):
        (tmp_path / "bad" / f"{index}.npy").write_bytes((inputs / f"{index:02}.npy").read_bytes())
    with open(tmp_path / "bad" / "2.npy", "r+b") as file:
        file.write(b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', ")
    with pytest.raises(api.RemoteJobError, match=r"2\.npy") as failed:
        client.mean(tmp_path / "bad")
    assert failed.value.exit_code == 1


@pytest.mark.parametrize(
    ("broker", "words"),
    [
        ("", "broker : does not begin with amqp://"),
        ("http://ada:s3cret@h", "broker http://h: does not begin with amqp://"),
        ("amqp://ada:s3cret@/v", "names no host"),
        (None, "broker None: must be a text"),
        (b"amqp://h", "must be a text"),
    ],
)
def test_an_address_that_is_none_is_refused_by_name_and_without_its_password(broker: Any, words: str) -> None:
    with pytest.raises(api.UsageError) as caught:
        api.Client(broker)
    assert words in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_client_reads_no_settings(monkeypatch: pytest.MonkeyPatch, service: Service) -> None:
    monkeypatch.setenv("DISTSUM_BROKER", service.url)
    with pytest.raises(TypeError, match="broker"):
        api.Client()
    with api.Client("amqp://127.0.0.1:1/v", patience_seconds=1.0) as nobody, pytest.raises(api.UnreachableError):
        nobody.jobs()


def test_a_client_works_where_an_event_loop_runs_and_from_several_threads(client: api.Client, inputs: Path) -> None:
    expected = client.mean(inputs).tobytes()

    async def notebook() -> bytes:
        return client.mean(inputs).tobytes()

    assert asyncio.run(notebook()) == expected
    with ThreadPoolExecutor(3) as threads:
        assert {each.tobytes() for each in threads.map(client.mean, [inputs] * 3)} == {expected}


def test_a_client_that_is_closed_says_so_and_leaves_no_thread_and_no_file(service: Service) -> None:
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    client = api.Client(service.url)
    assert client.jobs(1) is not None
    client.close()
    client.close()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, files)
    with pytest.raises(api.UsageError, match="this client is closed"):
        client.jobs()


SCRIPT = """
import sys, distsum
folder, output, url = sys.argv[1:]
client = distsum.Client(url)
print("ready", flush=True)
try:
    client.mean(folder, output or None, tiles=1)
except distsum.InterruptedRunError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("kept", ["with an output", "in memory"])
def test_an_interrupted_wait_ends_in_an_error_and_only_a_job_with_an_output_goes_on(
    tmp_path: Path, service: Service, client: api.Client, slow: Path, kept: str
) -> None:
    output = str(tmp_path / "out.npy") if kept == "with an output" else ""
    before = {each.job for each in client.jobs()}

    def job() -> Any:
        return next((each for each in client.jobs() if each.job not in before and each.state == "running"), None)

    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(slow), output, service.url], stdout=subprocess.PIPE, text=True
    )
    try:
        wait_until(job, "the job")
        name = job().job
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[0]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert name in said
    if output:
        assert client.status(name).state == "running"
        client.cancel(name)
    with pytest.raises(api.JobCancelledError):
        client.wait(name, 30)
    assert list((service.folder / "work" / "results").glob("*")) == []
