"""What every broker does. A new broker is added to ``cases`` and passes all of this.

A case gives a started broker and workers' channels to it; workers run in threads, as real ones do.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import itertools
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from distsum.brokers.address import BrokerAddress
from distsum.brokers.base import Broker, ChannelClosedError, WorkerChannel
from distsum.brokers.envelope import APPLICATION, MAX_MESSAGE_BYTES, PROTOCOL_HEADER
from distsum.brokers.framing import SocketChannel
from distsum.brokers.local import LocalBroker
from distsum.brokers.rabbitmq import RabbitBroker
from distsum.brokers.rabbitmq_worker import RabbitWorkerChannel
from distsum.brokers.topology import REFUSED, RESULTS
from distsum.messages import (
    PROTOCOL,
    CancelTask,
    Effort,
    Heartbeat,
    PauseTasks,
    RunTask,
    Shutdown,
    TaskDeadLettered,
    TaskFailed,
    TaskId,
    TaskReturned,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
    WorkerLost,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.rabbitmq import Node

DEADLINE_SECONDS = 20.0
EFFORT = Effort(0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0)


def task(index: int) -> TaskId:
    return TaskId("job", 1, 0, index)


class TestWorker:
    """A worker's side of a channel, its blocking calls in threads."""

    __test__ = False

    def __init__(self, name: str, channel: WorkerChannel, close: Callable[[], None]) -> None:
        self.name = name
        self.channel = channel
        self.close = close

    async def join(self) -> None:
        await asyncio.to_thread(
            self.channel.report,
            WorkerJoined(self.name, host="h", pid=1, version="v", protocol=1, baseline_bytes=0, start_seconds=0.0),
        )

    async def receive(self) -> Any:
        return await asyncio.wait_for(asyncio.to_thread(self.channel.receive), DEADLINE_SECONDS)

    async def succeed(self, done: TaskId, attempt: int = 0) -> None:
        result = TaskSucceeded(self.name, done, 1, (), reused=False, receipt=b"", effort=EFFORT, attempt=attempt)
        await asyncio.to_thread(self.channel.finish, result)


class Case(abc.ABC):
    """A broker, and ways to make workers' channels to it."""

    broker: Broker

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        self.workers: list[TestWorker] = []

    @abc.abstractmethod
    async def start(self) -> None: ...

    @abc.abstractmethod
    async def connect(self) -> TestWorker: ...

    @abc.abstractmethod
    async def wait_until_queued(self) -> None:
        """Wait until what was published lies in the queue."""

    @abc.abstractmethod
    async def end_channel(self, worker: TestWorker) -> None:
        """Take the other side of a worker's channel away."""

    @abc.abstractmethod
    async def send_garbage(self, worker: TestWorker, body: bytes | None) -> None:
        """Write what is no message where this worker's messages go; None stands for more than a message may have."""

    @abc.abstractmethod
    async def expect_refusal(self, worker: TestWorker) -> None:
        """Wait until the broker has refused it, and said so."""

    async def expect(self, kind: type) -> Any:
        """Return the next message of a kind, passing over others."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                message = await self.heard.get()
                if isinstance(message, kind):
                    return message

    async def close(self) -> None:
        await self.broker.close()
        for worker in self.workers:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(worker.close)


class LocalCase(Case):
    """A local broker with workers on socket pairs."""

    broker: LocalBroker

    async def start(self) -> None:
        self.broker = LocalBroker(delivery_limit=3)
        await self.broker.start(self.heard.put_nowait)

    async def connect(self) -> TestWorker:
        name = f"w{len(self.workers) + 1}"
        ours, endpoint = socket.socketpair()
        self.broker.attach(name, ours)
        worker = TestWorker(name, SocketChannel(endpoint), endpoint.close)
        self.workers.append(worker)
        return worker

    async def wait_until_queued(self) -> None:
        pass  # it does at once

    async def end_channel(self, worker: TestWorker) -> None:
        await self.broker.close()

    async def send_garbage(self, worker: TestWorker, body: bytes | None) -> None:
        frame = b"\xff\xff\xff\xff" if body is None else len(body).to_bytes(4, "little") + body
        worker.channel._socket.sendall(frame)

    async def expect_refusal(self, worker: TestWorker) -> None:
        lost = await self.expect(WorkerLost)
        assert lost.worker == worker.name
        assert "no message" in lost.reason


class RabbitCase(Case):
    """A virtual host of a real node."""

    def __init__(self, node: Node, vhost: str) -> None:
        super().__init__()
        self.node = node
        self.vhost = vhost
        self.address = BrokerAddress.parse(node.url(vhost))
        self._numbers = itertools.count(1)

    async def start(self) -> None:
        self.broker = RabbitBroker(self.address, self.heard.put_nowait, delivery_limit=3, ping_seconds=0.2)
        await self.broker.start(self.heard.put_nowait)

    async def connect(self) -> TestWorker:
        name = f"w{next(self._numbers)}"
        channel = RabbitWorkerChannel(self.address, name)
        await asyncio.to_thread(channel.open)
        worker = TestWorker(name, channel, channel.close)
        self.workers.append(worker)
        return worker

    async def wait_until_queued(self) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self.broker._flushed.wait()

    async def end_channel(self, worker: TestWorker) -> None:
        await asyncio.to_thread(worker.channel.close)

    async def send_garbage(self, worker: TestWorker, body: bytes | None) -> None:
        envelope = {"app_id": APPLICATION, "headers": {PROTOCOL_HEADER: PROTOCOL}}
        body = b"x" * (MAX_MESSAGE_BYTES + 1) if body is None else body
        await asyncio.to_thread(self.node.publish, self.vhost, RESULTS, body, **envelope)

    async def expect_refusal(self, worker: TestWorker) -> None:
        (refused,) = await asyncio.to_thread(self.node.take, self.vhost, REFUSED, 1)
        headers = refused["properties"]["headers"]
        assert "no message" in headers["reason"] or "at most" in headers["reason"]
        assert headers["from"] == RESULTS


@contextlib.asynccontextmanager
async def started(case: Callable[[], Case]) -> AsyncIterator[Case]:
    made = case()
    await made.start()
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture(params=[LocalCase, RabbitCase])
def case(request: pytest.FixtureRequest) -> Callable[[], Case]:
    if request.param is LocalCase:
        return LocalCase
    return partial(RabbitCase, request.getfixturevalue("rabbitmq"), request.getfixturevalue("vhost"))


def test_a_task_reaches_one_worker_and_the_next_comes_only_after_its_result(case: Callable[[], Case]) -> None:
    async def body() -> None:
        async with started(case) as made:
            worker = await made.connect()
            for index in range(3):
                made.broker.publish(RunTask(task(index), b"/work"))
            await worker.join()
            for index in range(3):
                assert await worker.receive() == RunTask(task(index), b"/work", delivery=1)
                waiting = asyncio.create_task(worker.receive())
                worker.channel.report(TaskStarted(worker.name, task(index), 1))
                assert (await made.expect(TaskStarted)).task == task(index)
                assert not waiting.done()
                made.broker.send(worker.name, CancelTask(task(index)))
                assert await waiting == CancelTask(task(index))
                await worker.succeed(task(index))
                assert (await made.expect(TaskSucceeded)).task == task(index)

    asyncio.run(body())


def test_tasks_are_shared_among_the_workers_that_have_joined(case: Callable[[], Case]) -> None:
    async def body() -> None:
        async with started(case) as made:
            silent, *workers = [await made.connect() for _ in range(3)]
            for worker in workers:
                await worker.join()
                await made.expect(WorkerJoined)
            made.broker.publish(RunTask(task(0), b"/work"))
            made.broker.publish(RunTask(task(1), b"/work"))
            messages = [await worker.receive() for worker in workers]
            assert {message.task for message in messages} == {task(0), task(1)}
            made.broker.send(silent.name, Shutdown())
            assert isinstance(await silent.receive(), Shutdown)

    asyncio.run(body())


def test_a_lost_workers_task_goes_to_another_with_its_delivery_counted(case: Callable[[], Case]) -> None:
    async def body() -> None:
        async with started(case) as made:
            first = await made.connect()
            await first.join()
            made.broker.publish(RunTask(task(0), b"/work"))
            assert (await first.receive()).delivery == 1
            first.channel.report(TaskStarted(first.name, task(0), 1))
            await made.expect(TaskStarted)
            await asyncio.to_thread(first.close)
            assert (await made.expect(WorkerLost)).worker == first.name
            assert await made.expect(TaskReturned) == TaskReturned(task(0), 1)
            second = await made.connect()
            await second.join()
            assert await second.receive() == RunTask(task(0), b"/work", delivery=2)

    asyncio.run(body())


def test_that_a_task_came_back_is_told_once_and_before_another_is_told_to_have_begun_it(
    case: Callable[[], Case],
) -> None:
    async def body() -> None:
        async with started(case) as made:
            first, second = await made.connect(), await made.connect()
            await first.join()
            made.broker.publish(RunTask(task(0), b"/work"))
            await first.receive()
            first.channel.report(TaskStarted(first.name, task(0), 1))
            first.channel.report(Heartbeat(first.name, task(0), 5))
            await made.expect(Heartbeat)
            await second.join()
            await made.expect(WorkerJoined)
            await asyncio.to_thread(first.close)
            assert await second.receive() == RunTask(task(0), b"/work", delivery=2)
            second.channel.report(TaskStarted(second.name, task(0), 2))
            second.channel.report(Heartbeat(second.name, task(0), 5))
            told: list[Any] = []
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not {WorkerLost, Heartbeat} <= {type(each) for each in told}:
                    told.append(await made.heard.get())
            assert [each for each in told if isinstance(each, TaskReturned)] == [TaskReturned(task(0), 1)]
            assert told.index(TaskReturned(task(0), 1)) < told.index(TaskStarted(second.name, task(0), 2))

    asyncio.run(body())


def test_a_task_that_loses_every_worker_is_dead_lettered_at_the_limit(case: Callable[[], Case]) -> None:
    async def body() -> None:
        async with started(case) as made:
            made.broker.publish(RunTask(task(0), b"/work"))
            for delivery in (1, 2, 3):
                worker = await made.connect()
                await worker.join()
                assert (await worker.receive()).delivery == delivery
                await asyncio.to_thread(worker.close)
            assert await made.expect(TaskDeadLettered) == TaskDeadLettered(task(0), 3)
            last = await made.connect()
            await last.join()
            made.broker.publish(RunTask(task(1), b"/work"))
            assert (await last.receive()).task == task(1)

    asyncio.run(body())


def test_a_result_that_was_sent_before_the_worker_ended_counts(case: Callable[[], Case]) -> None:
    async def body() -> None:
        async with started(case) as made:
            worker = await made.connect()
            await worker.join()
            made.broker.publish(RunTask(task(0), b"/work"))
            await worker.receive()
            await worker.succeed(task(0))
            await asyncio.to_thread(worker.close)
            assert (await made.expect(TaskSucceeded)).task == task(0)
            await made.expect(WorkerLost)
            assert made.heard.empty()

    asyncio.run(body())


def test_messages_to_one_worker_and_to_all(case: Callable[[], Case]) -> None:
    async def body() -> None:
        async with started(case) as made:
            one, other = await made.connect(), await made.connect()
            made.broker.send(one.name, CancelTask(task(7)))
            made.broker.broadcast(Shutdown())
            assert await one.receive() == CancelTask(task(7))
            assert [type(await worker.receive()) for worker in (one, other)] == [Shutdown, Shutdown]
            made.broker.send("nobody", Shutdown())

    asyncio.run(body())


@pytest.mark.parametrize("queued", [False, True], ids=["at once", "when they are queued"])
def test_purged_tasks_are_not_handed_out(case: Callable[[], Case], *, queued: bool) -> None:
    async def body() -> None:
        async with started(case) as made:
            for index in range(3):
                made.broker.publish(RunTask(task(index), b"/work"))
                made.broker.publish(RunTask(TaskId("other", 1, 0, index), b"/work"))
            if queued:
                await made.wait_until_queued()
            made.broker.purge("job")
            worker = await made.connect()
            await worker.join()
            for index in range(3):
                message = await worker.receive()
                assert message == RunTask(TaskId("other", 1, 0, index), b"/work", delivery=1)
                await worker.succeed(message.task)
            made.broker.publish(RunTask(task(9), b"/work"))
            assert (await worker.receive()).task == task(9)

    asyncio.run(body())


def test_a_paused_worker_finishes_and_gets_no_more_until_it_is_resumed(case: Callable[[], Case]) -> None:
    async def body() -> None:
        async with started(case) as made:
            paused, idle = await made.connect(), await made.connect()
            for worker in (paused, idle):
                await worker.join()
                await made.expect(WorkerJoined)
            made.broker.publish(RunTask(task(0), b"/work"))
            assert (await paused.receive()).task == task(0)
            for worker in (paused, idle):
                made.broker.pause(worker.name, PauseTasks("asked for"))
            await paused.succeed(task(0))
            await made.expect(TaskSucceeded)
            made.broker.publish(RunTask(task(1), b"/work"))
            made.broker.send(paused.name, CancelTask(task(7)))
            assert await paused.receive() == CancelTask(task(7)), "what is said to it still arrives"
            made.broker.resume(idle.name)
            made.broker.resume(idle.name)
            assert (await idle.receive()).task == task(1)
            made.broker.publish(RunTask(task(2), b"/work"))
            made.broker.resume(paused.name)
            assert (await paused.receive()).task == task(2)
            made.broker.pause("nobody", PauseTasks("asked for"))
            made.broker.resume("nobody")

    asyncio.run(body())


def test_an_assigned_task_reaches_its_worker_which_gets_none_from_the_queue_until_it_has_answered(case) -> None:
    async def body() -> None:
        async with started(case) as made:
            chosen, other = await made.connect(), await made.connect()
            await chosen.join()
            await made.expect(WorkerJoined)
            made.broker.assign(chosen.name, RunTask(task(7), b"/work", attempt=70))
            assert await chosen.receive() == RunTask(task(7), b"/work", attempt=70)
            made.broker.publish(RunTask(task(0), b"/work", attempt=1))
            made.broker.send(chosen.name, CancelTask(task(8)))
            assert await chosen.receive() == CancelTask(task(8)), "the queue's task comes only after the answer"
            await chosen.succeed(task(7), 70)
            assert (await made.expect(TaskSucceeded)).attempt == 70
            assert (await chosen.receive()).attempt == 1
            await chosen.succeed(task(0), 1)
            await other.join()
            await made.expect(WorkerJoined)
            for index in (1, 2):
                made.broker.publish(RunTask(task(index), b"/work", attempt=1 + index))
            both = [await worker.receive() for worker in (chosen, other)]
            assert {message.attempt for message in both} == {2, 3}

    asyncio.run(body())


def test_an_assigned_task_is_lost_with_its_worker_and_what_it_copied_is_not(case) -> None:
    async def body() -> None:
        async with started(case) as made:
            first, second = await made.connect(), await made.connect()
            await first.join()
            made.broker.publish(RunTask(task(0), b"/work", attempt=1))
            assert (await first.receive()).attempt == 1
            first.channel.report(TaskStarted(first.name, task(0), 1, attempt=1))
            await made.expect(TaskStarted)
            await second.join()
            await made.expect(WorkerJoined)
            made.broker.assign(second.name, RunTask(task(0), b"/work", attempt=2))
            assert (await second.receive()).attempt == 2
            second.channel.report(TaskStarted(second.name, task(0), 1, attempt=2))
            await made.expect(TaskStarted)
            await asyncio.to_thread(second.close)
            assert (await made.expect(WorkerLost)).worker == second.name
            await asyncio.to_thread(first.close)
            assert (await made.expect(WorkerLost)).worker == first.name
            assert await made.expect(TaskReturned) == TaskReturned(task(0), 1)
            third = await made.connect()
            await third.join()
            assert await third.receive() == RunTask(task(0), b"/work", delivery=2, attempt=1)
            assert made.heard.qsize() == 1, "the assigned attempt is told as returned"
            made.broker.assign("nobody", RunTask(task(0), b"/work", attempt=3))

    asyncio.run(body())


def test_a_backup_that_fails_takes_nothing_from_the_queue(case) -> None:
    async def body() -> None:
        async with started(case) as made:
            worker = await made.connect()
            await worker.join()
            await made.expect(WorkerJoined)
            made.broker.assign(worker.name, RunTask(task(0), b"/work", attempt=2))
            assert (await worker.receive()).attempt == 2
            made.broker.publish(RunTask(task(0), b"/work", attempt=1))
            made.broker.publish(RunTask(TaskId("other", 1, 0, 0), b"/work", attempt=3))
            await made.wait_until_queued()
            failed = TaskFailed(worker.name, task(0), "error", "no", attempt=2)
            made.broker.purge("other")
            await asyncio.to_thread(worker.channel.finish, failed)
            await made.expect(TaskFailed)
            assert (await worker.receive()).attempt == 1

    asyncio.run(body())


def test_a_task_that_a_worker_runs_is_not_called_back_by_a_purge(case: Callable[[], Case]) -> None:
    async def body() -> None:
        async with started(case) as made:
            worker = await made.connect()
            await worker.join()
            made.broker.publish(RunTask(task(0), b"/work"))
            await worker.receive()
            worker.channel.report(TaskStarted(worker.name, task(0), 1))
            await made.expect(TaskStarted)
            made.broker.purge("job")
            await worker.succeed(task(0))
            assert (await made.expect(TaskSucceeded)).task == task(0)

    asyncio.run(body())


def test_a_channel_whose_other_side_is_gone_is_closed(case: Callable[[], Case]) -> None:
    async def body() -> None:
        async with started(case) as made:
            worker = await made.connect()
            await made.end_channel(worker)
            for _ in range(2):
                with pytest.raises(ChannelClosedError):
                    await worker.receive()
            with pytest.raises(ChannelClosedError):
                worker.channel.report(Heartbeat(worker.name, None, 0))
            with pytest.raises(ChannelClosedError):
                await worker.join()
            with pytest.raises(ChannelClosedError):
                await worker.succeed(task(0))

    asyncio.run(body())


@pytest.mark.parametrize(
    "garbage",
    [b"abc", None, b"\xc0", b"\x81\xa4type\xa5Other"],
    ids=["no msgpack", "too long", "nothing", "a foreign message"],
)
def test_what_is_no_message_is_refused_and_harms_no_other_worker(
    case: Callable[[], Case], garbage: bytes | None
) -> None:
    async def body() -> None:
        async with started(case) as made:
            bad, good = await made.connect(), await made.connect()
            await good.join()
            await made.expect(WorkerJoined)
            await made.send_garbage(bad, garbage)
            await made.expect_refusal(bad)
            made.broker.publish(RunTask(task(0), b"/work"))
            assert (await good.receive()).task == task(0)
            await good.succeed(task(0))
            assert (await made.expect(TaskSucceeded)).task == task(0)

    asyncio.run(body())


def test_a_long_message_arrives_whole(case: Callable[[], Case]) -> None:
    async def body() -> None:
        async with started(case) as made:
            worker = await made.connect()
            await worker.join()
            made.broker.publish(RunTask(task(0), b"w" * 3_000_000))
            assert len((await worker.receive()).work) == 3_000_000

    asyncio.run(body())
