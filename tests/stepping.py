"""A system that runs the real actors one message at a time on a clock of its own, with the invariants checked."""

from __future__ import annotations

import heapq
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from distsum.actors.actor import BROKER, CLIENT, MASTER, TRACKER, WORKERS
from distsum.actors.master import Master, MasterSettings
from distsum.actors.phase import Phase
from distsum.actors.task_tracker import TaskTracker, TrackerSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.actors.actor import Actor, ActorFactory


class SteppingSystem:
    """Mailboxes, timers and a clock that only ``advance`` moves; gateways collect what they are sent."""

    def __init__(self, settings: TrackerSettings | None = None, master: MasterSettings | None = None) -> None:
        self.events: list[Any] = []
        self.sent: dict[str, list[Any]] = {BROKER: [], WORKERS: [], CLIENT: []}
        self.actors: dict[str, Actor] = {}
        self.clock = 0.0
        self._mail: deque[tuple[str, Any]] = deque()
        self._timers: list[tuple[float, int, str, Any]] = []
        self._count = 0
        self.spawn(MASTER, partial(Master, settings=master or MasterSettings()))
        self.spawn(TRACKER, partial(TaskTracker, settings=settings or TrackerSettings()))

    def spawn(self, address: str, factory: ActorFactory) -> None:
        assert address not in self.actors
        self.actors[address] = factory(_Context(self, address))

    def stop(self, address: str) -> None:
        self.actors.pop(address, None)

    def deliver(self, address: str, message: Any) -> None:
        self._mail.append((address, message))

    def set_timer(self, address: str, seconds: float, message: Any) -> None:
        self._count += 1
        heapq.heappush(self._timers, (self.clock + seconds, self._count, address, message))

    def run(self) -> None:
        """Deliver until all mailboxes are empty, checking the phases' invariants after each message."""
        while self._mail:
            address, message = self._mail.popleft()
            if address in self.sent:
                self.sent[address].append(message)
            elif (actor := self.actors.get(address)) is not None:
                actor.receive(message)
                if isinstance(actor, Phase | Master):
                    actor.check()

    def tell(self, address: str, message: Any) -> None:
        """Deliver a message and all that follows from it."""
        self.deliver(address, message)
        self.run()

    def advance(self, seconds: float) -> None:
        """Move the clock, firing the timers on the way."""
        end = self.clock + seconds
        while self._timers and self._timers[0][0] <= end:
            self.clock, _, address, message = heapq.heappop(self._timers)
            self.tell(address, message)
        self.clock = end

    def take(self, address: str) -> list[Any]:
        """Return what a gateway was sent since the last call."""
        messages, self.sent[address] = self.sent[address], []
        return messages


class _Context:
    def __init__(self, system: SteppingSystem, address: str) -> None:
        self.send: Callable[[str, Any], None] = system.deliver
        self.set_timer = partial(system.set_timer, address)
        self.now: Callable[[], float] = lambda: system.clock
        self.emit = system.events.append
        self.spawn = system.spawn
        self.stop = system.stop
