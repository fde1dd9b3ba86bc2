"""How many workers each host is to have, where the hosts share them: known when every host has said what it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from .planning import spread
from .state import Scaled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .fleetfile import Host

AS_IN_FILE: Final = Scaled()


class Shares:
    """What the hosts share, on an event loop.

    Args:
        everyone: All hosts of the fleet, also those that a command does not mean.
        scaled: How many workers are wanted, where the file does not say.

    Attributes:
        changed: Set when the numbers have changed; who waits for the next change takes the new one that is there then.
    """

    def __init__(self, everyone: Sequence[Host], scaled: Scaled = AS_IN_FILE) -> None:
        self._everyone = everyone
        self._scaled = scaled
        self._by_file: dict[str, int] = {}
        self._counted: set[str] = set()
        self._complete = asyncio.Event()
        self.changed = asyncio.Event()

    @property
    def are_shared(self) -> bool:
        """Whether the hosts share a number, so that each must be asked before any is known."""
        return self._scaled.workers is not None

    @property
    def total(self) -> int | None:
        """How many workers the hosts are to have together; None before each was looked at."""
        if self._scaled.workers is not None:
            return self._scaled.workers
        return sum((self._by_file | self._scaled.hosts).values()) if self._complete.is_set() else None

    def resize(self, total: int | None) -> None:
        """Have another number in all; None is what the file says of each host."""
        self._scaled = Scaled(total)
        self._change()

    def note(self, host: Host, workers: int | None) -> None:
        """Note how many a host would have by the file, or that it cannot have any; the first number counts.

        When all are known, those who wait for their number go on. Where one comes later, the others have its part.
        """
        late = workers is not None and host.name not in self._by_file and host.name in self._counted
        if workers is not None:
            self._by_file.setdefault(host.name, workers)
        self._counted.add(host.name)
        if len(self._counted) == len(self._everyone):
            self._complete.set()
        if late and self.are_shared:
            self._change()

    async def of(self, host: Host, by_file: int) -> int:
        """Return how many a host is to have that would have so many by the file, and was noted."""
        if host.name in self._scaled.hosts:
            return self._scaled.hosts[host.name]
        if self.are_shared:
            await self._complete.wait()
        if self._scaled.workers is None:
            return by_file
        known = {each.name: self._by_file[each.name] for each in self._everyone if each.name in self._by_file}
        return spread(self._scaled.workers, known)[host.name]

    def unasked(self, asked: Sequence[Host]) -> list[Host]:
        """Return the hosts that share a number, but for some."""
        names = {host.name for host in asked}
        return [host for host in self._everyone if host.name not in names] if self.are_shared else []

    def _change(self) -> None:
        before, self.changed = self.changed, asyncio.Event()
        before.set()
