"""The asyncio system: mailboxes, timers and gateways for actors in one process."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    import msgspec

    from distsum.actors.actor import Actor, ActorFactory

    Handler = Callable[[msgspec.Struct], None]

_BATCH: Final = 256
"""Messages received before other callbacks of the loop get their turn: a few milliseconds."""


class AsyncioSystem:
    """Delivers messages in order, one at a time, on the running loop.

    Args:
        on_event: Told of every event that an actor emits.
        on_error: Told when an actor raised: the system stops delivering, since a half-changed actor may not go on.
    """

    def __init__(self, on_event: Handler, on_error: Callable[[BaseException], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._mail: deque[tuple[str, msgspec.Struct]] = deque()
        self._handlers: dict[str, Handler] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self._on_event = on_event
        self._on_error = on_error
        self._scheduled = False
        self._stopped = False

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
        actor: Actor = factory(_AsyncioContext(self, address))
        self._handlers[address] = actor.receive

    def stop(self, address: str) -> None:
        """Take an actor away."""
        self._handlers.pop(address, None)

    def deliver(self, address: str, message: msgspec.Struct) -> None:
        """Put a message into a mailbox; for gateways and for actors alike."""
        self._mail.append((address, message))
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self._loop.call_soon(self._drain)

    def close(self) -> None:
        """Stop delivering, and drop all timers."""
        self._stopped = True
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _drain(self) -> None:
        self._scheduled = False
        for _ in range(_BATCH):
            if self._stopped or not self._mail:
                return
            address, message = self._mail.popleft()
            handler = self._handlers.get(address)
            if handler is None:
                continue
            try:
                handler(message)
            except Exception as error:  # noqa: BLE001 - whatever an actor raises ends the run, and is told
                self.close()
                self._on_error(error)
                return
        self._scheduled = True
        self._loop.call_soon(self._drain)

    def set_timer(self, address: str, seconds: float, message: msgspec.Struct) -> None:
        """Deliver a message after so many seconds."""

        def fire() -> None:
            self._timers.discard(handle)
            self.deliver(address, message)

        handle = self._loop.call_later(seconds, fire)
        self._timers.add(handle)

    def now(self) -> float:
        """Seconds on the loop's clock."""
        return self._loop.time()

    def emit(self, event: msgspec.Struct) -> None:
        """Tell the viewers."""
        self._on_event(event)


class _AsyncioContext:
    """One actor's view of the system."""

    def __init__(self, system: AsyncioSystem, address: str) -> None:
        self.send = system.deliver
        self.set_timer = partial(system.set_timer, address)
        self.now = system.now
        self.emit = system.emit
        self.spawn = system.spawn
        self.stop = system.stop
