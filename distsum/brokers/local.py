"""The broker without a server: a queue in this process, and a socket pair to each worker."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from distsum.brokers.framing import Deframer, FrameError, frame
from distsum.messages import (
    FROM_WORKER,
    RunTask,
    TaskDeadLettered,
    TaskFailed,
    TaskReturned,
    TaskSucceeded,
    WorkerJoined,
    WorkerLost,
)

if TYPE_CHECKING:
    import socket

    from distsum.brokers.base import Deliver
    from distsum.messages import PauseTasks, ToWorker

DELIVERY_LIMIT: Final = 4


class _Connection:
    """One worker's end: what is on its way to it, and the tasks it has not answered for."""

    def __init__(self, name: str, endpoint: socket.socket) -> None:
        self.name = name
        self.endpoint = endpoint
        self.deframer = Deframer()
        self.outgoing = bytearray()
        self.joined = False
        self.paused = False
        self.task: RunTask | None = None
        self.assigned: set[int] = set()


class LocalBroker:
    """Hands each task to one joined worker at a time (see ``Broker``).

    Args:
        delivery_limit: How often a task is handed out before it is dead-lettered.
    """

    def __init__(self, delivery_limit: int = DELIVERY_LIMIT) -> None:
        self._loop = asyncio.get_running_loop()
        self._delivery_limit = delivery_limit
        self._deliver: Deliver | None = None
        self._queue: deque[RunTask] = deque()
        self._connections: dict[str, _Connection] = {}
        self._idle: deque[str] = deque()

    async def start(self, deliver: Deliver) -> None:
        """Begin to deliver; see ``Broker``."""
        self._deliver = deliver

    def attach(self, name: str, endpoint: socket.socket) -> None:
        """Take over our end of a new worker's channel."""
        endpoint.setblocking(False)
        connection = _Connection(name, endpoint)
        self._connections[name] = connection
        self._loop.add_reader(endpoint, self._read, connection)

    def publish(self, message: RunTask) -> None:
        """Queue a task; see ``Broker``."""
        self._queue.append(message)
        self._hand_out()

    def assign(self, worker: str, message: RunTask) -> None:
        """Hand a task to one worker; see ``Broker``."""
        if (connection := self._connections.get(worker)) is not None:
            connection.assigned.add(message.attempt)
            if worker in self._idle:
                self._idle.remove(worker)
            self._write(connection, message)

    def send(self, worker: str, message: ToWorker) -> None:
        """Send to one worker; see ``Broker``."""
        if (connection := self._connections.get(worker)) is not None:
            self._write(connection, message)

    def broadcast(self, message: ToWorker) -> None:
        """Send to all workers; see ``Broker``."""
        for connection in list(self._connections.values()):
            self._write(connection, message)

    def pause(self, worker: str, _why: PauseTasks, /) -> None:
        """Hand no more tasks to a worker; see ``Broker``. It is not told: it lives no longer than this broker."""
        if (connection := self._connections.get(worker)) is not None:
            connection.paused = True
            if worker in self._idle:
                self._idle.remove(worker)

    def resume(self, worker: str) -> None:
        """Hand tasks to a paused worker again; see ``Broker``."""
        connection = self._connections.get(worker)
        if connection is not None and connection.paused:
            connection.paused = False
            self._make_idle(connection)
            self._hand_out()

    def purge(self, job: str) -> None:
        """Drop a job's queued tasks; see ``Broker``."""
        self._queue = deque(message for message in self._queue if message.task.job != job)

    def detach(self, worker: str, reason: str) -> None:
        """Forget a worker that ended, and put back its task; called too when its channel breaks."""
        connection = self._connections.pop(worker, None)
        if connection is None:
            return
        self._loop.remove_reader(connection.endpoint)
        self._loop.remove_writer(connection.endpoint)
        connection.endpoint.close()
        if worker in self._idle:
            self._idle.remove(worker)
        self._tell(WorkerLost(worker, reason))
        if (message := connection.task) is not None:
            if message.delivery >= self._delivery_limit:
                self._tell(TaskDeadLettered(message.task, message.delivery))
            else:
                self._queue.appendleft(msgspec.structs.replace(message, delivery=message.delivery + 1))
                self._tell(TaskReturned(message.task, message.delivery))
        self._hand_out()

    async def close(self) -> None:
        """Close every channel: workers leave when theirs does. See ``Broker``."""
        for connection in self._connections.values():
            self._loop.remove_reader(connection.endpoint)
            self._loop.remove_writer(connection.endpoint)
            connection.endpoint.close()
        self._connections.clear()
        self._idle.clear()
        self._queue.clear()

    def _tell(self, message: msgspec.Struct) -> None:
        if self._deliver is not None:
            self._deliver(message)  # type: ignore[arg-type]  # every caller passes a member of the union

    def _make_idle(self, connection: _Connection) -> None:
        busy = connection.task is not None or connection.assigned
        if connection.joined and not connection.paused and not busy and connection.name not in self._idle:
            self._idle.append(connection.name)

    def _hand_out(self) -> None:
        while self._queue and self._idle:
            connection = self._connections[self._idle.popleft()]
            message = self._queue.popleft()
            connection.task = message
            self._write(connection, message)

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.endpoint.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.detach(connection.name, "ended")
            return
        try:
            for body in connection.deframer.feed(data):
                self._take(connection, FROM_WORKER.decode(body))
        except (FrameError, msgspec.DecodeError) as error:
            self.detach(connection.name, f"sent what is no message: {error}")

    def _take(self, connection: _Connection, message: msgspec.Struct) -> None:
        if isinstance(message, WorkerJoined):
            connection.joined = True
            self._make_idle(connection)
        elif isinstance(message, TaskSucceeded | TaskFailed):
            held = connection.task
            if held is not None and (held.task, held.attempt) == (message.task, message.attempt):
                connection.task = None
            connection.assigned.discard(message.attempt)
            self._make_idle(connection)
        self._tell(message)
        self._hand_out()

    def _write(self, connection: _Connection, message: ToWorker) -> None:
        connection.outgoing += frame(message)
        self._flush(connection)

    def _flush(self, connection: _Connection) -> None:
        try:
            while connection.outgoing:
                sent = connection.endpoint.send(connection.outgoing)
                del connection.outgoing[:sent]
        except BlockingIOError:
            self._loop.add_writer(connection.endpoint, self._flush, connection)
            return
        except OSError:
            # The reader is told too, and puts the task back; doing it here would change the queue under its caller.
            connection.outgoing.clear()
        self._loop.remove_writer(connection.endpoint)
