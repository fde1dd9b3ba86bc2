"""The vocabulary of actors.

An actor holds its state and acts only through its context: it sends messages, sets timers, reads the clock and emits
events. It never waits and does no I/O, so one message is one step, and a step can be repeated by a test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import msgspec

MASTER: Final = "master"
TRACKER: Final = "tracker"
BROKER: Final = "broker"
WORKERS: Final = "workers"
CLIENT: Final = "client"
"""Addresses. The last three are gateways: adapters that do what an actor may not."""


def phase_address(job: str, phase: int) -> str:
    """Return the address of a job's phase (1 for the one that reads the inputs)."""
    return f"{job}/{phase}"


class Actor(Protocol):
    """Something that takes one message at a time."""

    def receive(self, message: msgspec.Struct) -> None:
        """Take one message: change state, act through the context, return."""
        ...

    def check(self) -> None:
        """Raise AssertionError where the state contradicts itself; called by simulations after each message."""
        ...


class Context(Protocol):
    """The only way an actor touches the world."""

    def send(self, address: str, message: msgspec.Struct) -> None:
        """Put a message into the mailbox of an address; it is received after this step."""
        ...

    def set_timer(self, seconds: float, message: msgspec.Struct) -> None:
        """Receive this message after so many seconds."""
        ...

    def now(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def emit(self, event: msgspec.Struct) -> None:
        """Tell viewers and the history."""
        ...

    def spawn(self, address: str, factory: ActorFactory) -> None:
        """Put a new actor at an address."""
        ...

    def stop(self, address: str) -> None:
        """Take the actor at an address away; messages still on their way to it are dropped."""
        ...


class ActorFactory(Protocol):
    """Makes an actor for a context of its own."""

    def __call__(self, context: Context) -> Actor:
        """Return the actor."""
        ...
