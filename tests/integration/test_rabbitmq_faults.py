"""What goes wrong between a master, a RabbitMQ node and workers, and what then: nothing lost, nothing settled twice.

Real parts throughout. Each fault strikes a running job, whose result must have the bits of an undisturbed one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aio_pika
import numpy as np
import pytest

from distsum.brokers.address import BrokerAddress
from distsum.brokers.topology import RESULTS, RESULTS_EXCHANGE, TASKS, TASKS_EXCHANGE
from distsum.messages import TaskReturned, TaskStarted, TaskSucceeded, WorkerJoined, WorkerLost
from distsum.request import Options
from tests.cluster import DEADLINE_SECONDS, Cluster
from tests.rabbitmq import running_node
from tests.reference import reference_reduce

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.rabbitmq import Node

    Fault = Callable[[Cluster], Awaitable[Any]]

FILES = 1500
TASKS_OF_JOB = 300 + 60 + 12 + 3 + 1


@pytest.fixture(scope="module")
def node(missing_service) -> Iterator[Node]:
    """A node of this module's own, which faults strike."""
    from tests.rabbitmq import INSTALL, installed

    if not installed():
        missing_service(f"there is no RabbitMQ; install it with `{INSTALL}`")
    with running_node() as made:
        yield made


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Small files: with P = 5 they make hundreds of tasks, so that there is always something under way."""
    folder = tmp_path_factory.mktemp("many")
    arrays, paths = [], []
    for index in range(FILES):
        arrays.append(np.random.default_rng(index).standard_normal(300))
        paths.append(os.fsencode(folder / f"{index:05}.npy"))
        np.save(folder / f"{index:05}.npy", arrays[-1])
    return paths, reference_reduce(arrays, 5, "mean").tobytes()


@pytest.fixture
def plant(tmp_path):
    """A module that makes workers slow while a file ``slow`` lies beside it, so that no job ends before its fault."""
    folder = tmp_path / "plant"
    folder.mkdir()
    folder.joinpath("slow").touch()
    (folder / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        f"SLOW = {str(folder / 'slow')!r}\n"
        "def watch(event, arguments):\n"
        "    if event == 'open' and isinstance(arguments[0], bytes) and arguments[0].endswith(b'.npy'):\n"
        "        if os.path.exists(SLOW):\n"
        "            time.sleep(0.05)\n"
        "sys.addaudithook(watch)\n"
    )
    return folder


@pytest.fixture
def run(node: Node, many, plant, tmp_path, caplog):
    """Run a job with two workers, have a fault strike it, and check all that must hold afterwards."""
    caplog.set_level(logging.WARNING)
    paths, expected = many

    async def body(vhost: str, fault: Fault) -> Cluster:
        address = BrokerAddress.parse(node.url(vhost))
        async with Cluster(address, paths, tmp_path / "out.npy", Options(partition=5), plant) as cluster:
            for _ in range(2):
                cluster.start_worker()
            await cluster.wait_until(lambda: cluster.heard[WorkerJoined] == 2, "both workers")
            cluster.submit()
            await cluster.wait_for_successes(20)
            await fault(cluster)
            assert not cluster.finished.done(), "the fault came too late to be one"
            plant.joinpath("slow").unlink()
            result = await cluster.result()
            assert result[len(cluster.spec.output_header) :] == expected
            assert len(cluster.succeeded) == cluster.settled == TASKS_OF_JOB
            assert set(cluster.succeeded.values()) == {1}
            await asyncio.to_thread(wait_until_empty, vhost)
        return cluster

    def wait_until_empty(vhost: str) -> None:
        deadline = 200
        while True:
            rows = node.control("--quiet", "--vhost", vhost, "list_queues", "--no-table-headers", "name", "messages")
            left = [row for row in rows.splitlines() if not row.endswith("\t0")]
            if not left:
                return
            deadline -= 1
            assert deadline, left

    def start(fault: Fault) -> Cluster:
        with node.vhost() as vhost:
            return asyncio.run(body(vhost, fault))

    return start


async def close_connections(node: Node, vhost: str, count: int) -> None:
    """Close connections to a virtual host by the management API, which sees new ones only after a while."""

    def close() -> int:
        closed = 0
        for each in node.management("GET", f"/api/vhosts/{vhost}/connections"):
            with contextlib.suppress(OSError):  # gone since
                node.management("DELETE", f"/api/connections/{quote(each['name'], safe='')}")
                closed += 1
        return closed

    async with asyncio.timeout(DEADLINE_SECONDS):
        while count > 0:
            count -= await asyncio.to_thread(close)


def test_workers_that_are_killed_give_their_tasks_to_others(run):
    draw = random.Random(3)

    async def kill_workers(cluster: Cluster) -> None:
        for killed in range(1, 6):
            await cluster.wait_for_successes(len(cluster.succeeded) + 10)
            cluster.workers[draw.choice(sorted(cluster.joined))].kill()
            cluster.start_worker()
            await cluster.wait_until(lambda killed=killed: cluster.heard[WorkerLost] == killed, "the loss")

    cluster = run(kill_workers)
    assert cluster.heard[WorkerLost] == 5
    assert cluster.heard[TaskReturned] <= 5
    assert cluster.heard[TaskStarted] >= TASKS_OF_JOB


def test_a_broker_that_is_stopped_and_started_goes_on(run, node):
    async def stop_and_start(cluster: Cluster) -> None:
        await asyncio.to_thread(node.control, "stop_app")
        before = len(cluster.succeeded)
        await asyncio.to_thread(node.control, "start_app")
        await asyncio.to_thread(node.await_ready)
        await cluster.wait_for_successes(before + 1)

    run(stop_and_start)


def test_a_broker_that_is_killed_and_started_goes_on(run, node):
    async def kill_and_start(cluster: Cluster) -> None:
        await asyncio.to_thread(node.kill)
        before = len(cluster.succeeded)
        await asyncio.to_thread(node.start)
        await cluster.wait_for_successes(before + 1)

    run(kill_and_start)


def test_connections_that_are_closed_are_made_again(run, node):
    async def close_all(cluster: Cluster) -> None:
        # Each of the three sides has two, and gives up the other when one is closed.
        await close_connections(node, cluster.address.vhost, 3)
        await cluster.wait_for_successes(len(cluster.succeeded) + 10)

    run(close_all)


def test_every_message_may_arrive_twice(run, node):
    copies = {"count": 0}

    async def copy_everything(cluster: Cluster) -> None:
        connection = await aio_pika.connect(cluster.address.uri(), timeout=10)
        channel = await connection.channel()

        def copier(queue: str):
            async def copy(message: aio_pika.abc.AbstractIncomingMessage) -> None:
                copies["count"] += 1
                properties = {"headers": message.headers, "app_id": message.app_id, "type": message.type}
                await channel.default_exchange.publish(aio_pika.Message(message.body, **properties), queue)

            return copy

        for exchange, queue in ((TASKS_EXCHANGE, TASKS), (RESULTS_EXCHANGE, RESULTS)):
            copied = await channel.declare_queue(exclusive=True)
            await copied.bind(exchange, queue)
            await copied.consume(copier(queue), no_ack=True)
        cluster.finished.add_done_callback(lambda _: asyncio.ensure_future(connection.close()))

    cluster = run(copy_everything)
    # Nearly all tasks were published twice, so nearly all succeeded more than once; the tracker let each through once.
    assert copies["count"] > TASKS_OF_JOB
    assert cluster.heard[TaskSucceeded] > 2 * TASKS_OF_JOB * 0.9


def test_a_broker_without_disk_space_makes_everybody_wait(run, node):
    async def raise_an_alarm(cluster: Cluster) -> None:
        await asyncio.to_thread(node.control, "set_disk_free_limit", "1000000GB")
        # What was under way when the alarm was raised may still arrive; then nothing does.
        before = -1
        while before != len(cluster.succeeded):
            before = len(cluster.succeeded)
            await asyncio.to_thread(node.control, "status", "--quiet")
        await asyncio.to_thread(node.control, "set_disk_free_limit", "10MB")
        await cluster.wait_for_successes(before + 1)

    run(raise_an_alarm)
