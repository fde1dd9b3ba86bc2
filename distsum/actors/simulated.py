"""The simulated system: the same actors on a virtual clock, one message at a time, with their invariants checked.

Between actors messages keep the order in which they were sent, as on the asyncio system. What comes from outside
(workers, brokers, stores: ``actors.modelled``) is put on an agenda, ordered by the virtual clock; whoever puts it there
draws the delays from a seed. So a run is repeated to the last message by its seed.
"""

from __future__ import annotations

import heapq
from collections import deque
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import msgspec

    from distsum.actors.actor import Actor, ActorFactory

    Handler = Callable[[msgspec.Struct], None]

_TRACE: Final = 60
"""Messages that are remembered for the report of a failure."""


class SimulatedSystem:
    """Mailboxes, timers and an agenda on a clock that only ``step`` moves.

    Args:
        checking: Whether every actor checks itself after each message, and the last messages are remembered.
        replacements: Classes that are spawned in place of others: a simulation plants faults with them.

    Attributes:
        clock: Seconds since the simulation's start.
        actors: Who is at which address.
        delivered: Messages that actors have received.
        trace: The last of them: when, to whom, what.
        on_quiet: Called whenever all mailboxes have become empty, if ``checking``.
        on_event: Told of every event that an actor emits.
    """

    def __init__(self, *, checking: bool = True, replacements: Mapping[type, type] | None = None) -> None:
        self.clock = 0.0
        self.actors: dict[str, Actor] = {}
        self.delivered = 0
        self.trace: deque[tuple[float, str, msgspec.Struct]] = deque(maxlen=_TRACE)
        self.on_quiet: Callable[[], None] = _nothing
        self.on_event: Handler = _ignore
        self._checking = checking
        self._replacements = dict(replacements or {})
        self._handlers: dict[str, Handler] = {}
        self._mail: deque[tuple[str, msgspec.Struct]] = deque()
        self._agenda: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._numbers: Iterator[int] = count()
        self._lives = 0

    def gateway(self, address: str, handler: Handler) -> None:
        """Put a plain function at an address."""
        self._handlers[address] = handler

    def spawn(self, address: str, factory: ActorFactory) -> None:
        """Put a new actor at an address.

        Raises:
            ValueError: The address is taken.
        """
        if address in self._handlers:
            raise ValueError(f"there is an actor at {address!r} already")
        if isinstance(factory, partial) and factory.func in self._replacements:
            factory = partial(self._replacements[factory.func], *factory.args, **factory.keywords)
        actor = factory(_SimulatedContext(self, address))
        self.actors[address] = actor
        self._handlers[address] = partial(self._receive_checked, address, actor) if self._checking else actor.receive

    def stop(self, address: str) -> None:
        """Take an actor away; what is on its way to it is dropped."""
        self._handlers.pop(address, None)
        self.actors.pop(address, None)

    def stop_all(self) -> None:
        """End as a killed process does: actors, timers and messages between them are gone, gateways stay."""
        for address in list(self.actors):
            self.stop(address)
        self._mail.clear()
        self._lives += 1

    def deliver(self, address: str, message: msgspec.Struct) -> None:
        """Put a message into a mailbox; for gateways and for actors alike."""
        self._mail.append((address, message))

    def set_timer(self, address: str, seconds: float, message: msgspec.Struct) -> None:
        """Deliver a message after so many seconds, unless all actors are stopped before."""
        self.after(seconds, self._fire, self._lives, address, message)

    def now(self) -> float:
        """Seconds since the simulation's start."""
        return self.clock

    def emit(self, event: msgspec.Struct) -> None:
        """Tell of an event."""
        self.on_event(event)

    def at(self, moment: float, action: Callable[..., object], *arguments: Any) -> None:
        """Put an action on the agenda; those of one moment happen in the order in which they were put there."""
        heapq.heappush(self._agenda, (max(moment, self.clock), next(self._numbers), action, arguments))

    def after(self, seconds: float, action: Callable[..., object], *arguments: Any) -> None:
        """Put an action on the agenda, so many seconds from now."""
        heapq.heappush(self._agenda, (self.clock + seconds, next(self._numbers), action, arguments))

    def settle(self) -> None:
        """Deliver until all mailboxes are empty."""
        mail, handlers = self._mail, self._handlers
        while mail:
            address, message = mail.popleft()
            handler = handlers.get(address)
            if handler is not None:
                self.delivered += 1
                handler(message)
        if self._checking:
            self.on_quiet()

    def tell(self, address: str, message: msgspec.Struct) -> None:
        """Deliver a message and all that follows from it at once."""
        self._mail.append((address, message))
        self.settle()

    def next_moment(self) -> float | None:
        """When the next action is due; None with an empty agenda."""
        return self._agenda[0][0] if self._agenda else None

    def step(self) -> None:
        """Do what is next on the agenda, and deliver all that follows from it at that moment."""
        self.clock, _, action, arguments = heapq.heappop(self._agenda)
        action(*arguments)
        if self._mail:
            self.settle()

    def advance(self, seconds: float) -> None:
        """Do all that is due in so many seconds."""
        end = self.clock + seconds
        while self._agenda and self._agenda[0][0] <= end:
            self.step()
        self.clock = end

    def _fire(self, life: int, address: str, message: msgspec.Struct) -> None:
        if life == self._lives:
            self._mail.append((address, message))

    def _receive_checked(self, address: str, actor: Actor, message: msgspec.Struct) -> None:
        self.trace.append((self.clock, address, message))
        actor.receive(message)
        actor.check()


class _SimulatedContext:
    """One actor's view of the system."""

    def __init__(self, system: SimulatedSystem, address: str) -> None:
        self.send = system.deliver
        self.set_timer = partial(system.set_timer, address)
        self.now = system.now
        self.emit = system.emit
        self.spawn = system.spawn
        self.stop = system.stop


def _nothing() -> None:
    """Do nothing."""


def _ignore(event: msgspec.Struct) -> None:
    """Take an event that nobody listens to."""
