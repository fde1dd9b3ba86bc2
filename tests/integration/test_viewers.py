"""Views of a running service over RabbitMQ: whoever comes, whenever, sees what there is, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
from typing import TYPE_CHECKING

import aio_pika
import msgspec
import numpy as np
import pytest
from distsum.tui.remote import RemoteSource

from distsum.brokers.address import BrokerAddress
from distsum.brokers.topology import EVENTS_EXCHANGE, job_events
from distsum.messages import TaskId
from distsum.observe.history import History
from distsum.observe.player import Player
from distsum.observe.states import DONE, RUNNING
from distsum.service.messages import GetNode
from distsum.service.rabbitmq import RabbitTransport
from distsum.service.view import ServiceView
from distsum.service.viewer import Viewer
from distsum.stores.local import LocalStore
from distsum.stores.routing import RoutingStore
from tests.command import distsum, wait_until
from tests.servicecommands import client_of, master, worker
from tests.straggling import Hold

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distsum.service.messages import JobStatus
    from tests.rabbitmq import Node

FILES = 60
TASKS = (12, 3, 1)
HELD = 7
"""The task of phase 1 that waits before an input until it is let go on."""


class UnderWay:
    """A service with a job that is done but for what waits for one of its inputs."""

    def __init__(self, folder: Path, environment: dict[str, str], hold: Hold, job: str) -> None:
        self.folder = folder
        self.environment = environment
        self.hold = hold
        self.job = job
        self.address = BrokerAddress.parse(environment["DISTSUM_BROKER"])

    @contextlib.contextmanager
    def viewer(self) -> Iterator[Viewer]:
        """Give a viewer that has the job's picture."""
        made = Viewer(self.address, ServiceView)
        try:
            made.start()
            made.follow(self.job)
            wait_until(lambda: made.job.view is not None, "a picture")
            yield made
        finally:
            made.close()

    def finish(self) -> JobStatus:
        """Let the job go on to its end."""
        self.hold.release()
        with client_of(self.environment) as client:
            client.wait(self.job, 60)
            return client.status(self.job)


@pytest.fixture
def under_way(tmp_path: Path, rabbitmq: Node, vhost: str) -> Iterator[UnderWay]:
    environment = {"DISTSUM_BROKER": rabbitmq.url(vhost), "DISTSUM_SPECULATION": "policy=none"}
    folder = tmp_path / "in"
    folder.mkdir()
    draw = np.random.default_rng(6)
    for index in range(FILES):
        np.save(folder / f"{index:03}.npy", draw.standard_normal(30))
    hold = Hold(tmp_path / "plant", f"/{5 * HELD + 2:03}.npy", first=False)
    with master(tmp_path, environment), worker(tmp_path, environment | hold.environment):
        arguments = ("submit", "mean", str(folder), "-o", str(tmp_path / "out.npy"), "-p", "5", "--tiles", "1")
        done = distsum(*arguments, env=environment)
        assert done.returncode == 0, done.stderr
        made = UnderWay(tmp_path, environment, hold, done.stdout.strip())
        with client_of(environment) as client:
            wait_until(lambda: phases(client.status(made.job).snapshot) == [11, 2, 0], "all that can be done")
        yield made


def phases(snapshot) -> list[int]:
    return [phase.done for phase in snapshot.phases] if snapshot is not None else []


def states(view) -> list[bytes]:
    return [phase.states for phase in view.states]


def test_who_comes_in_the_middle_sees_all_there_is_and_then_every_change(under_way):
    with under_way.viewer() as viewer:
        view = viewer.job.view
        assert phases(view.snapshot) == [11, 2, 0]
        first = bytearray([DONE] * 12)
        first[HELD] = RUNNING
        assert states(view)[0] == bytes(first)
        assert sorted(states(view)[1]) == [0, DONE, DONE]
        assert len(view.workers) == 2
        assert viewer.connection().state == "connected"
        under_way.finish()
        wait_until(lambda: viewer.job.view.snapshot.finished, "the end")
        last = viewer.job.view
    reader = LocalStore().open(os.fsencode(under_way.folder / "work" / "jobs" / under_way.job / "history"))
    with reader:
        player = Player(History(reader))
        player.seek(player.end_seconds)
        while not player.step():
            pass
        again = player.view()
    assert states(last) == states(again) == [bytes([DONE] * count) for count in TASKS]
    assert msgspec.structs.replace(last.snapshot, elapsed_seconds=0.0) == msgspec.structs.replace(
        again.snapshot, elapsed_seconds=0.0
    )
    assert last.ledger == again.ledger
    assert last.log == again.log


def test_a_node_is_told_of_to_who_asks_also_when_the_job_has_ended_since(under_way):
    def ask(task, count=9):
        return viewer.begin_look(GetNode(task, 0, count), 10.0).result(20.0)

    job = under_way.job
    with under_way.viewer() as viewer:
        held = ask(TaskId(job, 1, 0, HELD)).detail
        assert [child.name for child in held.children] == [
            str(under_way.folder / "in" / f"{index:03}.npy") for index in range(5 * HELD, 5 * HELD + 5)
        ]
        assert [(each.end, each.why) for each in held.attempts] == [("running", "first")]
        above = ask(TaskId(job, 2, 0, HELD // 5)).detail
        assert [(child.phase, child.index, child.attempts) for child in above.children] == [
            (1, index, 1) for index in range(5, 10)
        ]
        assert above.attempts == ()
        assert "no task 99" in ask(TaskId(job, 1, 0, 99)).reason
        assert "there is no job nonsense" in ask(TaskId("nonsense", 1, 0, 0)).reason
        under_way.finish()
        wait_until(lambda: viewer.job.view.snapshot.finished, "the end")
        (attempt,) = ask(TaskId(job, 1, 0, HELD)).detail.attempts
        assert (attempt.end, attempt.objects_read) == ("done", 5)
    viewer = Viewer(under_way.address, ServiceView)
    try:
        viewer.start()
        wait_until(lambda: "play it" in getattr(ask(TaskId(job, 1, 0, HELD)), "reason", ""), "that it is let go of", 30)
    finally:
        viewer.close()


def test_two_viewers_are_told_once_and_see_the_same(under_way):
    with under_way.viewer() as one:
        stream = one.job.reader.stream
        with under_way.viewer() as other:
            assert other.job.reader.stream == stream
            number = one.job.reader.number
            under_way.finish()
            for viewer in (one, other):
                wait_until(lambda viewer=viewer: viewer.job.view.snapshot.finished, "the end")
            assert one.job.reader.stream == other.job.reader.stream == stream
            assert one.job.reader.number > number
            # After its end nothing changes, so both have the very last.
            assert states(one.job.view) == states(other.job.view)
            assert one.job.view.account == other.job.view.account


def test_who_looks_too_slowly_loses_frames_and_catches_up_and_the_run_does_not_wait(under_way, rabbitmq, vhost):
    with under_way.viewer() as viewer:
        halt = threading.Event()
        viewer._loop.call_soon_threadsafe(halt.wait, 60.0)
        try:
            publish(under_way.address, job_events(under_way.job), [b"noise %d" % number for number in range(200)])
            assert under_way.finish().state == "succeeded"
            assert not viewer.job.view.snapshot.finished
            assert 0 < max(waiting(rabbitmq, vhost)) <= 50 + 8, "the queue has no limit"
        finally:
            halt.set()
        wait_until(lambda: viewer.job.view.snapshot.finished, "the end")
        assert states(viewer.job.view) == [bytes([DONE] * count) for count in TASKS]


def waiting(node: Node, vhost: str) -> list[int]:
    """Return how many frames wait for each viewer, those that it has and has not acknowledged included."""
    listed = node.control("list_queues", "-q", "-p", vhost, "name", "messages").split()
    return [int(listed[place + 1]) for place, name in enumerate(listed) if name.startswith("distsum.viewer.")]


def publish(address: BrokerAddress, key: str, bodies: list[bytes]) -> None:
    """Tell all who look what is none of ours."""

    async def put() -> None:
        async with await aio_pika.connect(address.uri(), timeout=10) as connection:
            exchange = await (await connection.channel()).get_exchange(EVENTS_EXCHANGE)
            for body in bodies:
                message = aio_pika.Message(body, app_id="distsum", headers={"protocol": 2}, type="Frame")
                await exchange.publish(message, key, timeout=10)

    asyncio.run(put())


def test_a_broker_that_is_away_is_told_and_what_was_seen_stays_until_it_is_back(under_way, rabbitmq):
    with under_way.viewer() as viewer:
        source = RemoteSource(viewer, lambda: RabbitTransport(under_way.address), RoutingStore, read_only=True)
        rabbitmq.control("stop_app")
        try:
            wait_until(lambda: viewer.connection().state == "lost", "that it is told")
            told = viewer.connection()
            assert source.notice().count("again") == 1, "that it is tried is told once"
            assert "127.0.0.1" in told.words
            assert under_way.address.password not in told.words
            assert phases(viewer.job.view.snapshot) == [11, 2, 0]
            aged = told.heard_seconds
            wait_until(lambda: viewer.connection().heard_seconds > aged + 0.2, "that it gets older")
        finally:
            rabbitmq.control("start_app")
            rabbitmq.control("await_startup")
        wait_until(lambda: viewer.connection().state == "connected", "the broker")
        under_way.finish()
        wait_until(lambda: viewer.job.view.snapshot.finished, "the end")
        assert viewer.connection().replaced_seconds is None or viewer.connection().state == "connected"


def test_a_master_that_is_replaced_is_told_and_the_new_one_is_followed(under_way):
    work = str(under_way.folder / "work")
    with under_way.viewer() as viewer:
        stream = viewer.job.reader.stream
        assert viewer.connection().replaced_seconds is None
        kill_master(under_way)
        wait_until(lambda: viewer.connection().state == "silent", "that it is told")
        assert "master" in viewer.connection().words
        assert viewer.job.view.snapshot.phases[0].done == 11
        with master(under_way.folder, under_way.environment, name="other", work=work):
            wait_until(lambda: viewer.job.reader.stream != stream, "the new master")
            assert viewer.connection().state == "connected"
            assert viewer.connection().replaced_seconds is not None
            # What was stored is done, also for who has only heard the new one.
            assert states(viewer.job.view)[0].count(DONE) == 11
            under_way.finish()
            wait_until(lambda: viewer.job.view.snapshot.finished, "the end")


def kill_master(under_way: UnderWay) -> None:
    """Kill the master as a power cut would."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
                if b"master" in words and os.fsencode(under_way.folder / "work") in words:
                    os.kill(int(entry), 9)


def test_the_service_as_a_whole_is_seen_too(under_way):
    with under_way.viewer() as viewer:
        wait_until(lambda: viewer.service.view is not None, "a picture of the service")
        view = viewer.service.view
        assert [(each.job, each.state) for each in view.jobs] == [(under_way.job, "running")]
        assert sorted(each.state for each in view.workers) == ["busy", "idle"]
        assert view.master.work == str(under_way.folder / "work")
        wait_until(lambda: viewer.service.view.queues is not None, "the queues")
        assert {each.name.split(".")[1] for each in viewer.service.view.queues.queues} >= {"tasks", "results", "views"}
        under_way.finish()
        wait_until(lambda: viewer.service.view.jobs[0].state == "succeeded", "the end")
        assert viewer.service.view.jobs[0].summary is not None
        with client_of(under_way.environment) as client:
            assert viewer.service.view.jobs == client.jobs()


def test_of_a_job_that_has_ended_or_never_was_that_is_told(under_way):
    under_way.finish()
    for job, look in ((under_way.job, "ended"), ("nonsense", "refused")):
        viewer = Viewer(under_way.address, ServiceView)
        try:
            viewer.start()
            viewer.follow(job)
            wait_until(lambda viewer=viewer, look=look: getattr(viewer.job, look) is not None, look)
            assert viewer.job.view is None
        finally:
            viewer.close()
    assert "there is no job nonsense" in viewer.job.refused


def test_what_is_followed_no_longer_leaves_nothing_at_the_broker(under_way, rabbitmq, vhost):
    def followed() -> list[str]:
        listed = rabbitmq.management("GET", f"/api/queues/{vhost}?columns=name")
        return [each["name"] for each in listed if re.fullmatch(r"distsum\.viewer\.[0-9a-f]+", each["name"])]

    with under_way.viewer() as viewer:
        wait_until(lambda: len(followed()) == 2, "a queue for the service and one for the job")
        for odd in ("#", "a.b", "x" * 300, "*", "..", "\x1b[31m"):
            viewer.follow(odd)
            assert "there is no job" in viewer.job.refused
        wait_until(lambda: len(followed()) == 1, "the end of the job's queue")
        viewer.follow(under_way.job)
        wait_until(lambda: viewer.job.view is not None, "a picture")
        viewer.follow(None)
        wait_until(lambda: len(followed()) == 1, "the end of the job's queue")
        assert viewer.connection().state == "connected"
    wait_until(lambda: not followed(), "the end of all")


def test_what_nobody_looks_at_is_not_told(under_way):
    assert listen(under_way.address, "#", 1.0) == []
    with under_way.viewer():
        assert listen(under_way.address, job_events(under_way.job), 1.0)


def listen(address: BrokerAddress, key: str, seconds: float) -> list[bytes]:
    """Return what is told to those who look within some time."""
    heard: list[bytes] = []

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        heard.append(message.body)

    async def listen() -> None:
        async with await aio_pika.connect(address.uri(), timeout=10) as connection:
            queue = await (await connection.channel()).declare_queue(exclusive=True)
            await queue.bind(EVENTS_EXCHANGE, key)
            await queue.consume(take, no_ack=True)
            await asyncio.sleep(seconds)

    asyncio.run(listen())
    return heard
