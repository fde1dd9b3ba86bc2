"""A job over RabbitMQ: the real actors and broker in this process, workers in processes of their own."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from distsum.actors.actor import BROKER, CLIENT, MASTER, TRACKER, WORKERS
from distsum.actors.master import Master, MasterSettings
from distsum.actors.system import AsyncioSystem
from distsum.actors.task_tracker import TaskTracker, TrackerSettings
from distsum.brokers.rabbitmq import RabbitBroker
from distsum.embedded import prepare
from distsum.jobs import Job
from distsum.messages import (
    AssignTask,
    CancelJob,
    JobSpec,
    JobSucceeded,
    RunTask,
    Shutdown,
    SubmitJob,
    TaskSettled,
    TaskSucceeded,
    TellWorker,
    WorkerJoined,
    WorkerLost,
)
from distsum.stores.local import LocalStore
from distsum.worker.launch import worker_environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.brokers.address import BrokerAddress
    from distsum.request import Options

DEADLINE_SECONDS = 40.0


class Cluster:
    """A master for one job, and its workers.

    Args:
        address: Where the broker is.
        inputs: Files of the job.
        output: Its result, under whose temporary name it stays.
        options: How the job is cut.
        plant: A folder of modules that workers import first.

    Attributes:
        succeeded: How many successes of each task the tracker let through.
        settled: How many tasks have been settled.
        heard: What the broker delivered, by type.
        workers: Processes, by name.
        joined: The names of those that have joined and are not lost.
    """

    def __init__(
        self, address: BrokerAddress, inputs: list[bytes], output: Path, options: Options, plant: Path | None = None
    ) -> None:
        self.address = address
        self._path = sys.path if plant is None else [str(plant), *sys.path]
        self.store = LocalStore()
        self.prepared = prepare("mean", inputs, os.fsencode(output), options, self.store)
        self.job = Job(self.prepared.record, self.prepared.manifest, self.store)
        self.succeeded: Counter[Any] = Counter()
        self.settled = 0
        self.heard: Counter[type] = Counter()
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.joined: set[str] = set()
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        self.job.store_inputs()
        self.job.begin()
        self.finished: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.system = AsyncioSystem(self._take_event, self._fail)
        self.broker = RabbitBroker(self.address, self._fail, ping_seconds=0.5)
        self.system.gateway(BROKER, self._to_broker)
        self.system.gateway(WORKERS, self._to_workers)
        self.system.gateway(CLIENT, self._to_client)
        self.system.spawn(MASTER, self._master)
        self.system.spawn(TRACKER, partial(TaskTracker, settings=TrackerSettings(lease_seconds=1e6)))
        await self.broker.start(self._deliver)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.system.close()
        self.broker.broadcast(Shutdown())
        await self.broker.close()
        for process in self.workers.values():
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()

    @property
    def spec(self) -> JobSpec:
        """The job as its workers know it."""
        return self.job.spec

    def start_worker(self) -> str:
        """Start a worker process as ``distsum worker`` does, and return its name."""
        name = f"w{next(self._numbers)}"
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "distsum.worker.remote", name, "0.2", str(time.time())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=worker_environment(os.environ, self._path),
        )
        assert process.stdin is not None
        process.stdin.write(self.address.uri().encode() + b"\n")
        process.stdin.flush()
        self.workers[name] = process
        return name

    def submit(self) -> None:
        self.system.deliver(MASTER, SubmitJob(self.spec, self.job.stored_states()))

    async def result(self) -> bytes:
        """Wait for the job's success, and return the bytes of its result."""
        outcome = await asyncio.wait_for(asyncio.shield(self.finished), DEADLINE_SECONDS)
        assert isinstance(outcome, JobSucceeded), outcome
        return Path(os.fsdecode(self.spec.output)).read_bytes()  # noqa: ASYNC240 - nothing else goes on now

    async def wait_until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_SECONDS} s"
            if self.finished.done():
                self.finished.result()
            await asyncio.sleep(0.01)

    async def wait_for_successes(self, count: int) -> None:
        await self.wait_until(lambda: len(self.succeeded) >= count, f"{count} tasks")

    def _master(self, context: Any) -> Any:
        master = Master(context, MasterSettings())

        class Watched:
            def receive(_, message: Any) -> None:  # noqa: N805 - self is the cluster
                self.settled += isinstance(message, TaskSettled)
                master.receive(message)

        return Watched()

    def _take_event(self, event: Any) -> None:
        if isinstance(event, TaskSucceeded):
            self.succeeded[event.task] += 1

    def _deliver(self, message: Any) -> None:
        self.heard[type(message)] += 1
        if isinstance(message, WorkerJoined):
            self.joined.add(message.worker)
        elif isinstance(message, WorkerLost):
            self.joined.remove(message.worker)
        self.system.deliver(TRACKER, message)

    def _to_broker(self, message: Any) -> None:
        if isinstance(message, RunTask):
            self.broker.publish(message)
        elif isinstance(message, CancelJob):
            self.broker.purge(message.job)

    def _to_workers(self, message: Any) -> None:
        if isinstance(message, TellWorker):
            self.broker.send(message.worker, message.message)
        elif isinstance(message, AssignTask):
            self.broker.assign(message.worker, message.message)

    def _to_client(self, message: Any) -> None:
        if not self.finished.done():
            self.finished.set_result(message)

    def _fail(self, error: BaseException) -> None:
        if not self.finished.done():
            self.finished.set_exception(error)
