"""A RabbitMQ broker that is served within a test, and workers' channels to it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from distsum.brokers.rabbitmq import RabbitBroker
from distsum.brokers.rabbitmq_worker import RabbitWorkerChannel
from distsum.messages import Effort, TaskId, TaskSucceeded, WorkerJoined

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from distsum.brokers.address import BrokerAddress

DEADLINE_SECONDS = 30.0
EFFORT = Effort(0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0)


def task(index: int) -> TaskId:
    return TaskId("job", 1, 0, index)


class Serving:
    """A broker that is served, and what it has delivered."""

    def __init__(self, address: BrokerAddress, **settings: Any) -> None:
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        self.failures: list[BaseException] = []
        self.broker = RabbitBroker(address, self.failures.append, **({"ping_seconds": 0.2} | settings))
        self._channels: list[RabbitWorkerChannel] = []
        self._address = address

    async def expect(self, kind: type) -> Any:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                message = await self.heard.get()
                if isinstance(message, kind):
                    return message

    async def worker(self, name: str, address: BrokerAddress | None = None, **settings: Any) -> RabbitWorkerChannel:
        channel = RabbitWorkerChannel(address or self._address, name, **settings)
        await asyncio.to_thread(channel.open)
        self._channels.append(channel)
        await asyncio.to_thread(channel.report, joined(name))
        return channel

    async def close(self) -> None:
        await self.broker.close()
        for channel in self._channels:
            await asyncio.to_thread(channel.close)


@contextlib.asynccontextmanager
async def serving(address: BrokerAddress, **settings: Any) -> AsyncIterator[Serving]:
    made = Serving(address, **settings)
    await made.broker.start(made.heard.put_nowait)
    try:
        yield made
        assert made.failures == []
    finally:
        await made.close()


def joined(name: str) -> WorkerJoined:
    return WorkerJoined(name, host="h", pid=1, version="v", protocol=1, baseline_bytes=0, start_seconds=0.0)


def success(name: str, done: TaskId) -> TaskSucceeded:
    return TaskSucceeded(name, done, 1, (), reused=False, receipt=b"", effort=EFFORT)


async def receive(channel: RabbitWorkerChannel) -> Any:
    return await asyncio.wait_for(asyncio.to_thread(channel.receive), DEADLINE_SECONDS)
