"""Empty tasks through RabbitMQ: by the service's own actors and broker, and by a bare loop of aio-pika.

Each runs as a process of its own, ``python -m benchmarks.cluster_tasks WHAT ...``, and so does each of its workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from distsum import __version__
from distsum.actors.actor import BROKER, CLIENT, MASTER, TRACKER, WORKERS
from distsum.actors.master import Master, MasterSettings
from distsum.actors.simulated_cluster import simulated_job
from distsum.actors.system import AsyncioSystem
from distsum.actors.task_tracker import TaskTracker, TrackerSettings
from distsum.brokers.address import BrokerAddress
from distsum.machine import resident_bytes
from distsum.messages import (
    PROTOCOL,
    Effort,
    RunTask,
    SubmitJob,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
)
from distsum.observe.fold import JobTally, PhaseWork
from distsum.observe.workers import WorkerTable
from distsum.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable

EFFORT = Effort(1, 1, 1, 1, 0.0, 0.0, 0.0, 0.0, 0)
WINDOW = 256
BARE_TASKS, BARE_RESULTS = "bare.tasks", "bare.results"
BODY = bytes(200)


# By the service -------------------------------------------------------------------------------------------------------


class Deciding:
    """The actors of a service and what it counts, with one job; everything else is a gateway.

    Args:
        files: Inputs of the job, five a task.
        to_broker: Takes what goes out.
    """

    def __init__(self, files: int, to_broker: Callable[[Any], None]) -> None:
        self.spec = simulated_job("job", files)
        tree = Tree(files=files, fan_in=5, exponent=1)
        counts = [tree.width(phase) for phase in range(1, tree.phases + 1)]
        self.tasks = sum(counts)
        self._states = tuple(bytes(count) for count in counts)
        self._tally = JobTally(tuple(PhaseWork(count, count, count) for count in counts), lambda _: b"")
        self._workers = WorkerTable()
        self.finished: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.system = AsyncioSystem(self._take_event, self.fail)
        self.system.gateway(BROKER, to_broker)
        self.system.gateway(WORKERS, lambda _: None)
        self.system.gateway(CLIENT, self._end)
        self.system.spawn(MASTER, partial(Master, settings=MasterSettings()))
        settings = TrackerSettings(retry_storage=True, first_attempt=time.time_ns())
        self.system.spawn(TRACKER, partial(TaskTracker, settings=settings))

    def submit(self) -> None:
        """Begin."""
        self.system.deliver(MASTER, SubmitJob(self.spec, self._states))

    def _take_event(self, event: Any) -> None:
        self._workers.take(event, time.time())
        self._tally.take(event, time.perf_counter())

    def _end(self, message: Any) -> None:
        if not self.finished.done():
            self.finished.set_result(message)

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        if not self.finished.done():
            self.finished.set_exception(error)


def joined(name: str) -> WorkerJoined:
    """Return how a worker introduces itself."""
    return WorkerJoined(
        name, host=name, pid=1, version=__version__, protocol=PROTOCOL, baseline_bytes=0, start_seconds=0.0
    )


def succeeded(name: str, message: RunTask) -> TaskSucceeded:
    """Return the result of an empty task."""
    return TaskSucceeded(name, message.task, 5, (), False, b"", EFFORT, message.attempt)


async def serve(uri: str, files: int, workers: int) -> dict[str, float]:
    """Run a job of empty tasks by worker processes; return its seconds, and what this process took."""
    from distsum.brokers.rabbitmq import RabbitBroker

    there: set[str] = set()
    everybody = asyncio.Event()
    broker: RabbitBroker

    def to_broker(message: Any) -> None:
        if isinstance(message, RunTask):
            broker.publish(message)

    def deliver(message: Any) -> None:
        if isinstance(message, WorkerJoined):
            there.add(message.worker)
            if len(there) == workers:
                everybody.set()
        deciding.system.deliver(TRACKER, message)

    deciding = Deciding(files, to_broker)
    broker = RabbitBroker(BrokerAddress.parse(uri), deciding.fail)
    await broker.start(deliver)
    with started(workers, "worker", uri):
        await asyncio.wait_for(everybody.wait(), 60)
        began, cpu = time.perf_counter(), time.process_time()
        deciding.submit()
        await deciding.finished
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    await broker.close()
    return {"tasks": deciding.tasks, "seconds": seconds, "cpu_seconds": cpu}


def work(uri: str, name: str) -> None:
    """Answer tasks with success, as fast as they come, in the way that a worker does."""
    from distsum.brokers.base import ChannelClosedError
    from distsum.brokers.rabbitmq_worker import RabbitWorkerChannel

    channel = RabbitWorkerChannel(BrokerAddress.parse(uri), name)
    channel.open()
    channel.report(joined(name))
    with contextlib.suppress(ChannelClosedError):
        while True:
            message = channel.receive()
            if isinstance(message, RunTask):
                channel.report(TaskStarted(name, message.task, message.delivery, message.attempt))
                channel.finish(succeeded(name, message))


async def decide(files: int) -> dict[str, float]:
    """Run a job of empty tasks with no broker at all: what the actors take, and the memory that they keep."""
    free: list[RunTask] = []

    def to_broker(message: Any) -> None:
        if isinstance(message, RunTask):
            free.append(message)
            if len(free) == 1:
                loop.call_soon(answer)

    def answer() -> None:
        tasks, free[:] = list(free), []
        for number, message in enumerate(tasks):
            name = f"w{number % 8}"
            deciding.system.deliver(TRACKER, TaskStarted(name, message.task, 1, message.attempt))
            deciding.system.deliver(TRACKER, succeeded(name, message))

    loop = asyncio.get_running_loop()
    deciding = Deciding(files, to_broker)
    for number in range(8):
        deciding.system.deliver(TRACKER, joined(f"w{number}"))
    before, cpu = resident_bytes("VmRSS"), time.process_time()
    deciding.submit()
    await deciding.finished
    cpu = time.process_time() - cpu
    return {"tasks": deciding.tasks, "cpu_seconds": cpu, "peak_bytes": resident_bytes("VmHWM") - before}


# By a bare loop -------------------------------------------------------------------------------------------------------


async def bare(uri: str, tasks: int, workers: int) -> dict[str, float]:
    """Publish messages to a quorum queue and consume the replies: what any program over aio-pika does, and no more."""
    import aio_pika

    connection = await aio_pika.connect(uri)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=WINDOW)
    for name in (BARE_TASKS, BARE_RESULTS):
        await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})
    with started(workers, "bare-worker", uri):
        queue = await channel.get_queue(BARE_RESULTS, ensure=False)
        finished = asyncio.Event()
        room = asyncio.Semaphore(2 * workers)  # as many tasks out as the tracker has: one at a worker, one waiting
        left = tasks

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            nonlocal left
            await message.ack()
            room.release()
            left -= 1
            if not left:
                finished.set()

        began, cpu = time.perf_counter(), time.process_time()
        await queue.consume(take)
        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                await room.acquire()
                message = aio_pika.Message(BODY, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                group.create_task(channel.default_exchange.publish(message, BARE_TASKS))
        await finished.wait()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    for name in (BARE_TASKS, BARE_RESULTS):
        await channel.queue_delete(name)
    await connection.close()
    return {"tasks": tasks, "seconds": seconds, "cpu_seconds": cpu}


async def bare_work(uri: str, _name: str) -> None:
    """Reply to messages: take one, publish its reply, wait for the confirmation, acknowledge."""
    import aio_pika

    connection = await aio_pika.connect(uri)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=1)
    queue = await channel.get_queue(BARE_TASKS, ensure=False)

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        reply = aio_pika.Message(message.body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(reply, BARE_RESULTS)
        await message.ack()

    await queue.consume(take)
    await asyncio.Event().wait()


@contextlib.contextmanager
def started(count: int, what: str, uri: str) -> Any:
    """Run worker processes until the end of the block."""
    command = [sys.executable, "-m", "benchmarks.cluster_tasks", what, uri]
    processes = [subprocess.Popen([*command, f"w{number}"]) for number in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """Do what the command line says, and print what it took as JSON."""
    what, *arguments = sys.argv[1:]
    match what:
        case "serve":
            print(json.dumps(asyncio.run(serve(arguments[0], int(arguments[1]), int(arguments[2])))))
        case "bare":
            print(json.dumps(asyncio.run(bare(arguments[0], int(arguments[1]), int(arguments[2])))))
        case "decide":
            print(json.dumps(asyncio.run(decide(int(arguments[0])))))
        case "worker":
            work(*arguments)
        case _:
            asyncio.run(bare_work(*arguments))


if __name__ == "__main__":
    main()
