"""Workers that are told which places they serve, and messages that would lead them elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

import aio_pika
import numpy as np
import pytest

import distsum as api
from distsum.brokers.envelope import seal
from distsum.brokers.topology import REFUSED, TASKS, TASKS_EXCHANGE
from distsum.client import Client
from distsum.errors import RemoteJobError
from distsum.generate import generate
from distsum.messages import RunTask, TaskId
from distsum.request import Options
from distsum.results import content_of
from tests.command import DEADLINE_SECONDS, distsum, wait_until
from tests.inprocess import InProcessRun
from tests.servicecommands import master, slot_processes, worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rabbitmq import Node

FILES = 30


@pytest.fixture
def environment(rabbitmq: Node, vhost: str) -> dict[str, str]:
    return {"DISTSUM_BROKER": rabbitmq.url(vhost)}


@pytest.fixture
def client(environment: dict[str, str]) -> Iterator[Client]:
    with Client(environment["DISTSUM_BROKER"]) as client:
        yield client


def write(folder: Path) -> list[Path]:
    folder.mkdir(parents=True)
    draw = np.random.default_rng(9)
    paths = [folder / f"{index:02}.npy" for index in range(FILES)]
    for path in paths:
        np.save(path, draw.standard_normal(500))
    return paths


def locally(inputs: Path, output: Path) -> bytes:
    api.mean(inputs, output)
    return output.read_bytes()


def ended(client: Client, inputs: Path | str, output: Path | str) -> Any:
    """Submit a job, and return how it ended."""
    job = client.submit("mean", inputs, output, partition=5)
    with contextlib.suppress(RemoteJobError):
        client.wait(job, DEADLINE_SECONDS)
    return client.status(job)


def test_a_task_goes_to_a_worker_that_serves_its_place_and_the_other_is_not_blamed(
    tmp_path: Path, environment: dict[str, str], client: Client
) -> None:
    write(tmp_path / "data" / "in")
    (tmp_path / "other").mkdir()
    expected = locally(tmp_path / "data" / "in", tmp_path / "expected.npy")
    data = tmp_path / "data"
    with (
        master(tmp_path, environment, work=str(data / "work")),
        worker(tmp_path, environment, "--serve", str(tmp_path / "other"), slots=1) as elsewhere,
    ):
        wait_until(lambda: len(client.workers()) == 1, "the worker that may not")
        pids = slot_processes(elsewhere)
        with worker(tmp_path, environment, "--serve", str(tmp_path / "other"), "--serve", str(data), slots=1):
            wait_until(lambda: len(client.workers()) == 2, "the worker that may")
            assert ended(client, data / "in", data / "out.npy").state == "succeeded"
            wait_until(lambda: {each.state for each in client.workers()} == {"idle"}, "their rest")
            assert {each.failures for each in client.workers()} == {0}
        assert slot_processes(elsewhere) == pids
    assert (data / "out.npy").read_bytes() == expected


def test_where_no_worker_serves_a_place_the_job_fails_by_name_and_the_next_one_runs(
    tmp_path: Path, environment: dict[str, str], client: Client
) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    write(data / "in")
    write(other / "in")
    (data / "in" / "link.npy").symlink_to(other / "in" / "07.npy")
    places = f"{data / 'in'},{data / 'work'}"
    (data / "work").mkdir()
    with (
        master(tmp_path, environment, work=str(data / "work")),
        worker(tmp_path, environment | {"DISTSUM_SERVE": places}, slots=2) as process,
    ):
        wait_until(lambda: len(client.workers()) == 2, "workers")
        pids = slot_processes(process)
        for inputs, output, named in (
            (other / "in", data / "in" / "out.npy", f"{other}/in/"),
            (data / "in", data / "in" / "out.npy", data / "in" / "link.npy"),
            (data / "work" / ".." / ".." / "other" / "in", data / "in" / "out.npy", "other/in/"),
            (data / "in", other / "out.npy", other / ".out.npy"),
        ):
            found = ended(client, inputs, output)
            assert (found.state, found.exit_code) == ("failed", 1)
            assert str(named) in found.reason
            assert "--serve" in found.reason
            assert not output.exists()
        assert not list(other.glob(".*")), "nothing is left of an output"
        (data / "in" / "link.npy").unlink()
        assert ended(client, data / "in", data / "in" / "good.npy").state == "succeeded"
        assert slot_processes(process) == pids
        wait_until(lambda: {each.state for each in client.workers()} == {"idle"}, "their rest")


def test_a_prefix_in_s3_is_served_and_what_begins_like_it_is_not(
    tmp_path: Path, environment: dict[str, str], client: Client, s3_prefix: bytes, s3_environment: dict[str, str]
) -> None:
    place = s3_prefix.decode()
    for folder in (f"{place}/data/in", f"{place}/data-too/in", str(tmp_path / "in")):
        generate(folder, files=FILES, count=500, distribution="normal")
    expected = locally(tmp_path / "in", tmp_path / "expected.npy")
    with (
        master(tmp_path, environment, work=f"{place}/data/work"),
        worker(tmp_path, environment, "--serve", f"{place}/data/", slots=1),
    ):
        assert ended(client, f"{place}/data/in", f"{place}/data/out.npy").state == "succeeded"
        for inputs, output in ((f"{place}/data-too/in", f"{place}/data/b.npy"), (f"{place}/data/in", f"{place}/c.npy")):
            found = ended(client, inputs, output)
            assert found.state == "failed"
            assert "lies outside" in found.reason
    assert content_of(f"{place}/data/out.npy".encode()) == expected


def test_a_worker_with_a_place_that_is_none_does_not_start(environment: dict[str, str], tmp_path: Path) -> None:
    for place in (str(tmp_path / "missing"), "s3://", "s3://b/../c", ""):
        done = distsum("worker", "--slots", "1", "--serve", place, env=environment)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "--serve" in done.stderr


@pytest.mark.parametrize("limited", ["limited", "unlimited"])
def test_tasks_that_lead_astray_harm_neither_worker_nor_master(
    tmp_path: Path, environment: dict[str, str], client: Client, rabbitmq: Node, vhost: str, limited: str
) -> None:
    inputs = write(tmp_path / "data" / "in")
    # All of a job, as somebody could lay it out who may write elsewhere and to the queue.
    victim = tmp_path / "victim"
    victim.mkdir()
    planted = InProcessRun(inputs, victim / "out.npy", Options(work_dir=str(victim / "work")))
    planted.job.begin()
    before = sorted(victim.rglob("*"))
    works = [
        b"file:///etc",
        b"../../",
        b"/proc/self/fd/0",
        b"a\0b",
        b"/a\0b",
        b"\xff\xfe",
        b"",
        b"s3:",
        b"/" + b"x" * (1 << 20),
        b"/x" * (1 << 19),
        *((b"s3://", b"s3://no-such-bucket\0/a", b"s3:///a", b"s3://b/" + b"x" * (1 << 20)) if limited else ()),
        *((os.fsencode(victim / "work"), os.fsencode(tmp_path / "data" / ".." / "victim" / "work"))),
    ]
    hostile = [RunTask(TaskId("x", 1, 0, 0), work) for work in works]
    hostile += [RunTask(TaskId(job, 1, 0, 0), b"/tmp") for job in ("../../etc", "a\0b", "x" * (1 << 20), "")]
    hostile.append(RunTask(TaskId(planted.spec.job, 1, 0, 0), os.fsencode(victim / "work")))
    if limited == "unlimited":
        hostile.pop()

    async def publish() -> None:
        async with await aio_pika.connect(rabbitmq.url(vhost), timeout=10) as connection:
            channel = await connection.channel(on_return_raises=True)
            exchange = await channel.get_exchange(TASKS_EXCHANGE, ensure=False)
            for task in hostile:
                sealed = seal(task)
                message = aio_pika.Message(
                    sealed.body, headers=dict(sealed.headers), app_id=sealed.application, type=sealed.kind
                )
                await exchange.publish(message, TASKS)

    places = ["--serve", str(tmp_path / "data")] if limited == "limited" else []
    work = str(tmp_path / "data" / "work")
    with (
        master(tmp_path, environment, work=work) as serving,
        worker(tmp_path, environment, *places, slots=1) as process,
    ):
        wait_until(lambda: len(client.workers()) == 1, "a worker")
        pids = slot_processes(process)
        asyncio.run(publish())
        # It waits behind all of them, at the only worker.
        assert ended(client, tmp_path / "data" / "in", tmp_path / "data" / "out.npy").state == "succeeded"
        assert slot_processes(process) == pids
        assert serving.poll() is None
        wait_until(lambda: client.workers()[0].state == "idle", "its rest")
        (told,) = client.workers()
        assert (told.state, told.failures) == ("idle", 0)
        assert rabbitmq.depth(vhost, REFUSED) == 0
        log = (tmp_path / "worker.log").read_text()
        assert "Traceback" not in log
        assert " ERROR " not in log
    assert sorted(victim.rglob("*")) == before
    assert (tmp_path / "data" / "out.npy").read_bytes() == locally(
        str(tmp_path / "data" / "in"), tmp_path / "again.npy"
    )
