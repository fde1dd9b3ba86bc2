"""A master's own fleet: workers on other hosts, held as long as it serves, and as many as clients ask for."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from distsum.errors import DistsumError
from distsum.service import messages as channel
from distsum.service.view import FleetStatus
from distsum.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

MOST_WORKERS: Final = 10_000
"""More than any fleet has; a number beyond it is a slip."""


class Fleet(Protocol):
    """Workers on other hosts, held once.

    Attributes:
        wanted: How many there are to be in all; None where that is not known yet.
    """

    @property
    def wanted(self) -> int | None: ...

    async def hold(self, on_ready: Callable[[int], None]) -> None:
        """Bring them up, tell how many are ready, and hold them until they are released; cancelling ends them."""
        ...

    def release(self, *, at_once: bool) -> None:
        """Let them go, with their tasks at hand finished or not."""
        ...

    def scale(self, total: int | None) -> None:
        """Begin to have so many in all, or as the file says; those too many finish their tasks."""
        ...


class Scaling:
    """Holds a fleet while this master serves, and only then: one that waits for its turn has none.

    Args:
        make: Gives a fleet that was not held yet, for each time that this master serves; None where it has none.
    """

    def __init__(self, make: Callable[[], Fleet] | None = None) -> None:
        self._make = make
        self._fleet: Fleet | None = None
        self._holding: asyncio.Task[None] | None = None

    @property
    def has_fleet(self) -> bool:
        """Whether there is one, held or not."""
        return self._make is not None

    def begin(self, total: int | None = None) -> None:
        """Begin to bring the workers up; from the event loop, when clients and workers are served.

        Args:
            total: How many in all; None where nobody has asked for a number.
        """
        if self._make is None:
            return
        try:
            self._fleet = self._make()
        except DistsumError as error:  # its file was changed since the start; jobs go on
            log.error("the fleet cannot be held: %s", error)  # noqa: TRY400 - no fault of ours
            return
        if total is not None:
            log.info("the fleet is to have %s, as a client has asked", counted(total, "worker"))
            self._fleet.scale(total)
        self._holding = asyncio.create_task(self._hold(self._fleet))

    async def end(self) -> None:
        """Let the workers finish their tasks, and let them go; cancelling this ends them at once."""
        fleet, holding = self._fleet, self._holding
        self._fleet = self._holding = None
        if fleet is None or holding is None:
            return
        if not holding.done():
            log.info("the fleet's workers finish their tasks, and are let go")
        fleet.release(at_once=False)
        await holding  # cancelling this wait cancels the task, too

    def status(self) -> FleetStatus | None:
        """Return how many workers there are to be; None of a master without a fleet."""
        if self._make is None:
            return None
        held = self._holding is not None and not self._holding.done()
        return FleetStatus(held=held, wanted=self._fleet.wanted if held and self._fleet is not None else None)

    def refusal(self, request: channel.ScaleWorkers) -> channel.Refused | None:
        """Return why there cannot be another number of workers, or None if there can."""
        if self._make is None:
            return channel.Refused("the master has no fleet; start it with --fleet FILE, or use `distsum fleet scale`")
        total = request.total
        if total is not None and not 0 <= total <= MOST_WORKERS:
            return channel.Refused(f"{total} workers: the number must be from 0 to {MOST_WORKERS:,}")
        if self._fleet is None or self._holding is None or self._holding.done():
            return channel.Refused("the master holds no host of its fleet now; its log says why")
        return None

    def scale(self, request: channel.ScaleWorkers) -> None:
        """Begin to have another number of workers, which is stored; a fleet that is held no more is left as it is."""
        if self._fleet is None:
            return
        words = "as many workers as its file says" if request.total is None else counted(request.total, "worker")
        log.info("the fleet is to have %s, as a client asks", words)
        self._fleet.scale(request.total)

    async def _hold(self, fleet: Fleet) -> None:
        try:
            await fleet.hold(lambda ready: log.info("%s of the fleet ready", counted(ready, "worker")))
        except DistsumError as error:
            # Jobs go on with workers that came by other ways.
            log.error("the fleet is not held any more: %s", error)  # noqa: TRY400 - no fault of ours
