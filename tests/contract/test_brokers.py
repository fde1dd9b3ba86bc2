"""What every broker does. A new broker is added to ``cases`` and passes all of this.

A case gives a started broker and workers' channels to it; workers run in threads, as real ones do.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

import pytest

from distsum.brokers.base import ChannelClosedError
from distsum.brokers.framing import SocketChannel
from distsum.brokers.local import LocalBroker
from distsum.messages import (
    CancelTask,
    Effort,
    Heartbeat,
    RunTask,
    Shutdown,
    TaskDeadLettered,
    TaskId,
    TaskReturned,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
    WorkerLost,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

DEADLINE_SECONDS = 20.0
EFFORT = Effort(0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0)


def task(index: int) -> TaskId:
    return TaskId("job", 1, 0, index)


class TestWorker:
    """A worker's side of a channel, its blocking calls in threads."""

    __test__ = False

    def __init__(self, name: str, channel: SocketChannel, close: Callable[[], None]) -> None:
        self.name = name
        self.channel = channel
        self.close = close

    def join(self) -> None:
        self.channel.report(
            WorkerJoined(self.name, host="h", pid=1, version="v", protocol=1, baseline_bytes=0, start_seconds=0.0)
        )

    async def receive(self) -> Any:
        return await asyncio.wait_for(asyncio.to_thread(self.channel.receive), DEADLINE_SECONDS)

    def succeed(self, done: TaskId) -> None:
        self.channel.finish(TaskSucceeded(self.name, done, 1, (), reused=False, receipt=b"", effort=EFFORT))


class LocalCase:
    """A local broker with workers on socket pairs."""

    def __init__(self) -> None:
        self.broker = LocalBroker(delivery_limit=3)
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        self._workers: list[TestWorker] = []

    async def start(self) -> None:
        await self.broker.start(self.heard.put_nowait)

    def connect(self) -> TestWorker:
        name = f"w{len(self._workers) + 1}"
        ours, endpoint = socket.socketpair()
        self.broker.attach(name, ours)
        worker = TestWorker(name, SocketChannel(endpoint), endpoint.close)
        self._workers.append(worker)
        return worker

    async def expect(self, kind: type) -> Any:
        """Return the next message of a kind, passing over others."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                message = await self.heard.get()
                if isinstance(message, kind):
                    return message

    async def close(self) -> None:
        await self.broker.close()
        for worker in self._workers:
            with contextlib.suppress(OSError):
                worker.close()


cases = [LocalCase]


@contextlib.asynccontextmanager
async def started(case: type[LocalCase]) -> AsyncIterator[LocalCase]:
    made = case()
    await made.start()
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture(params=cases)
def case(request: pytest.FixtureRequest) -> type[LocalCase]:
    chosen: type[LocalCase] = request.param
    return chosen


def test_a_task_reaches_one_worker_and_the_next_comes_only_after_its_result(case: type[LocalCase]) -> None:
    async def body() -> None:
        async with started(case) as made:
            worker = made.connect()
            for index in range(3):
                made.broker.publish(RunTask(task(index), b"/work"))
            worker.join()
            for index in range(3):
                message = await worker.receive()
                assert message == RunTask(task(index), b"/work", delivery=1)
                waiting = asyncio.create_task(worker.receive())
                worker.channel.report(TaskStarted(worker.name, task(index), 1))
                assert (await made.expect(TaskStarted)).task == task(index)
                assert not waiting.done()
                worker.succeed(task(index))
                assert (await made.expect(TaskSucceeded)).task == task(index)
                if index < 2:
                    assert await waiting == RunTask(task(index + 1), b"/work", delivery=1)
                    worker.succeed(task(index + 1))
                    await made.expect(TaskSucceeded)
                    break
                waiting.cancel()

    asyncio.run(body())


def test_tasks_are_shared_among_the_workers_that_have_joined(case: type[LocalCase]) -> None:
    async def body() -> None:
        async with started(case) as made:
            silent, *workers = [made.connect() for _ in range(3)]
            for worker in workers:
                worker.join()
                await made.expect(WorkerJoined)
            made.broker.publish(RunTask(task(0), b"/work"))
            made.broker.publish(RunTask(task(1), b"/work"))
            messages = [await worker.receive() for worker in workers]
            assert {message.task for message in messages} == {task(0), task(1)}
            made.broker.send(silent.name, Shutdown())
            assert isinstance(await silent.receive(), Shutdown)

    asyncio.run(body())


def test_a_lost_workers_task_goes_to_another_with_its_delivery_counted(case: type[LocalCase]) -> None:
    async def body() -> None:
        async with started(case) as made:
            first = made.connect()
            first.join()
            made.broker.publish(RunTask(task(0), b"/work"))
            assert (await first.receive()).delivery == 1
            first.close()
            assert (await made.expect(WorkerLost)).worker == first.name
            assert await made.expect(TaskReturned) == TaskReturned(task(0), 1)
            second = made.connect()
            second.join()
            assert await second.receive() == RunTask(task(0), b"/work", delivery=2)

    asyncio.run(body())


def test_a_task_that_loses_every_worker_is_dead_lettered_at_the_limit(case: type[LocalCase]) -> None:
    async def body() -> None:
        async with started(case) as made:
            made.broker.publish(RunTask(task(0), b"/work"))
            for delivery in (1, 2, 3):
                worker = made.connect()
                worker.join()
                assert (await worker.receive()).delivery == delivery
                worker.close()
            assert await made.expect(TaskDeadLettered) == TaskDeadLettered(task(0), 3)
            last = made.connect()
            last.join()
            made.broker.publish(RunTask(task(1), b"/work"))
            assert (await last.receive()).task == task(1)

    asyncio.run(body())


def test_a_result_that_was_sent_before_the_worker_ended_counts(case: type[LocalCase]) -> None:
    async def body() -> None:
        async with started(case) as made:
            worker = made.connect()
            worker.join()
            made.broker.publish(RunTask(task(0), b"/work"))
            await worker.receive()
            worker.succeed(task(0))
            worker.close()
            assert (await made.expect(TaskSucceeded)).task == task(0)
            await made.expect(WorkerLost)
            assert made.heard.empty()

    asyncio.run(body())


def test_messages_to_one_worker_and_to_all(case: type[LocalCase]) -> None:
    async def body() -> None:
        async with started(case) as made:
            one, other = made.connect(), made.connect()
            made.broker.send(one.name, CancelTask(task(7)))
            made.broker.broadcast(Shutdown())
            assert await one.receive() == CancelTask(task(7))
            assert [type(await worker.receive()) for worker in (one, other)] == [Shutdown, Shutdown]
            made.broker.send("nobody", Shutdown())

    asyncio.run(body())


def test_purged_tasks_are_not_handed_out(case: type[LocalCase]) -> None:
    async def body() -> None:
        async with started(case) as made:
            made.broker.publish(RunTask(task(0), b"/work"))
            made.broker.publish(RunTask(TaskId("other", 1, 0, 0), b"/work"))
            made.broker.purge("job")
            worker = made.connect()
            worker.join()
            assert (await worker.receive()).task.job == "other"

    asyncio.run(body())


def test_a_paused_worker_finishes_and_gets_no_more_until_it_is_resumed(case: type[LocalCase]) -> None:
    async def body() -> None:
        async with started(case) as made:
            paused, idle = made.connect(), made.connect()
            for worker in (paused, idle):
                worker.join()
                await made.expect(WorkerJoined)
            made.broker.publish(RunTask(task(0), b"/work"))
            assert (await paused.receive()).task == task(0)
            for worker in (paused, idle):
                made.broker.pause(worker.name)
            paused.succeed(task(0))
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
            made.broker.pause("nobody")
            made.broker.resume("nobody")

    asyncio.run(body())


def test_closing_ends_the_workers_channels(case: type[LocalCase]) -> None:
    async def body() -> None:
        async with started(case) as made:
            worker = made.connect()
            await made.broker.close()
            with pytest.raises(ChannelClosedError):
                await worker.receive()
            with pytest.raises(ChannelClosedError):
                worker.channel.report(Heartbeat(worker.name, None, 0))

    asyncio.run(body())


@pytest.mark.parametrize(
    "garbage",
    [b"\x03\0\0\0abc", b"\xff\xff\xff\xff", b"\x01\0\0\0\xc0", b"\x0c\0\0\0\x81\xa4type\xa5Other"],
    ids=["no msgpack", "a huge frame", "nothing", "a foreign message"],
)
def test_what_is_no_message_loses_only_the_worker_that_sent_it(case: type[LocalCase], garbage: bytes) -> None:
    async def body() -> None:
        async with started(case) as made:
            bad, good = made.connect(), made.connect()
            good.join()
            await made.expect(WorkerJoined)
            bad.channel._socket.sendall(garbage)
            lost = await made.expect(WorkerLost)
            assert lost.worker == bad.name
            assert "no message" in lost.reason
            made.broker.publish(RunTask(task(0), b"/work"))
            assert (await good.receive()).task == task(0)

    asyncio.run(body())


def test_a_long_message_arrives_whole(case: type[LocalCase]) -> None:
    async def body() -> None:
        async with started(case) as made:
            worker = made.connect()
            worker.join()
            made.broker.publish(RunTask(task(0), b"w" * 3_000_000))
            assert len((await worker.receive()).work) == 3_000_000

    asyncio.run(body())
