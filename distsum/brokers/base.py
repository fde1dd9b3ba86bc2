"""What a broker is. Its contract is ``tests/contract/test_brokers.py``, which every broker passes.

Delivery is at least once: a task is acknowledged by its result; a lost worker's task is handed out again, a bounded
number of times; then it is dead-lettered. Lost, late and doubled messages cost time, never correctness: the store is
the truth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.messages import FromBroker, FromWorker, PauseTasks, RunTask, TaskFailed, TaskSucceeded, ToWorker

    Deliver = Callable[[FromWorker | FromBroker], None]


LEFT: Final = "left"
"""The reason why a worker is lost that has left as it should."""


class ChannelClosedError(Exception):
    """The other side of a worker's channel is gone, or the worker has left.

    Args:
        exit_code: What the worker's process should end with.
    """

    def __init__(self, exit_code: int = 0) -> None:
        super().__init__()
        self.exit_code = exit_code


class Broker(Protocol):
    """The deciding process's side. All calls are made on its event loop and return at once.

    What it delivers, beside what workers say: ``WorkerLost`` for a worker that has joined and whose channel is gone,
    ``TaskReturned`` for a task that such a worker had said to have started (once, and before another is told to have
    started it, though the first may not be missed yet), and ``TaskDeadLettered``.
    """

    async def start(self, deliver: Deliver) -> None:
        """Begin to deliver what workers and channels say. Tasks that an earlier process has queued are dropped.

        Raises:
            UnreachableError: There is no broker where it was said to be.
            BrokerBusyError: Another process serves it.
        """
        ...

    def publish(self, message: RunTask) -> None:
        """Queue a task for the next free worker."""
        ...

    def assign(self, worker: str, message: RunTask) -> None:
        """Hand a task to one worker, past the queue; until it has answered it is handed none from there.

        The task is not handed out again: when the worker is lost, so is this attempt. A purge does not call it back.
        """
        ...

    def send(self, worker: str, message: ToWorker) -> None:
        """Send a message to one worker; it is dropped if that one is gone."""
        ...

    def broadcast(self, message: ToWorker) -> None:
        """Send a message to every worker there is."""
        ...

    def pause(self, worker: str, why: PauseTasks, /) -> None:
        """Hand no more tasks to a worker; it keeps the one it has."""
        ...

    def resume(self, worker: str) -> None:
        """Hand tasks to a paused worker again."""
        ...

    def purge(self, job: str) -> None:
        """Drop a job's queued tasks; those that workers run are not called back."""
        ...

    async def close(self) -> None:
        """Let go of all channels, when what was sent is on its way."""
        ...


class WorkerChannel(Protocol):
    """A worker's side. ``receive`` is called by one thread, the others by any."""

    def receive(self) -> ToWorker:
        """Wait for the next message.

        A task comes only to a worker that has joined, and from the queue only when the last is finished.

        Raises:
            ChannelClosedError: The other side is gone for good.
        """
        ...

    def report(self, message: FromWorker) -> None:
        """Say something that may be lost without harm; but ``WorkerJoined`` arrives.

        Raises:
            ChannelClosedError: The other side is gone for good.
        """
        ...

    def finish(self, result: TaskSucceeded | TaskFailed) -> None:
        """Deliver a task's result, and acknowledge the task only then.

        Raises:
            ChannelClosedError: The other side is gone for good; the task is handed to another worker.
        """
        ...
