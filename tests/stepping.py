"""The simulated system with gateways that collect: for tests that say themselves what workers and brokers do."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from distsum.actors.actor import BROKER, CLIENT, MASTER, TRACKER, WORKERS
from distsum.actors.master import Master, MasterSettings
from distsum.actors.simulated import SimulatedSystem
from distsum.actors.task_tracker import TaskTracker, TrackerSettings
from distsum.messages import CancelTask, RunTask, TaskId


class SteppingSystem(SimulatedSystem):
    """A master and a tracker; what they send to the outside is kept until it is taken."""

    def __init__(self, settings: TrackerSettings | None = None, master: MasterSettings | None = None) -> None:
        super().__init__()
        self.events: list[Any] = []
        self.attempts: dict[TaskId, int] = {}
        self.on_event = self.events.append
        self.sent: dict[str, list[Any]] = {BROKER: [], WORKERS: [], CLIENT: []}
        for address in self.sent:
            self.gateway(address, partial(self._collect, address))
        self.spawn(MASTER, partial(Master, settings=master or MasterSettings()))
        self.spawn(TRACKER, partial(TaskTracker, settings=settings or TrackerSettings()))

    def tell(self, address: str, message: Any) -> None:
        """Deliver a message and all that follows from it; what is said of a task is said of its latest attempt."""
        if getattr(message, "attempt", None) == 0 and not isinstance(message, CancelTask):
            message = msgspec.structs.replace(message, attempt=self.attempts.get(message.task, 0))
        super().tell(address, message)

    def take(self, address: str) -> list[Any]:
        """Return what a gateway was sent since the last call."""
        messages, self.sent[address] = self.sent[address], []
        return messages

    def _collect(self, address: str, message: Any) -> None:
        if isinstance(message, RunTask):
            self.attempts[message.task] = message.attempt
        self.sent[address].append(message)
