"""A fleet's workers for as long as one job takes: what ``distsum mean … --fleet`` asks for, by an entry point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from distsum.errors import UsageError
from distsum.wording import printable

from .control import Control, read_fleet
from .rollout import Release

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.brokers.address import BrokerAddress
    from distsum.config import Settings

    from .rollout import Report, Rollout

DRAIN_SECONDS: Final = 300.0
"""How long workers may take to finish what they do for other jobs."""


class Loan:
    """The workers of a fleet's file, brought up for a job, and gone after it.

    Hosts are left as they were found: workers that ran before go on, what was installed before stays, and where there
    was nothing nothing is left.

    Args:
        file: The fleet's file.
        settings: Where the broker is, if the file does not say, and its management API.
        broker_given: Whether the settings' broker counts more than the file's.
        say: Tells a person something.
        resizable: Whether their number may change, so that hosts without workers are held, too.

    Attributes:
        broker: Where the workers find their tasks.
        store: URI or folder that all of them reach.
        memory_bytes: What each may take over its imports.

    Raises:
        ConfigurationError: The file cannot be read, or is not acceptable.
        UsageError: It names no broker or store, and nothing else does.
    """

    def __init__(
        self, file: str, settings: Settings, say: Callable[[str], None], *, broker_given: bool, resizable: bool = False
    ) -> None:
        fleet = read_fleet(file)
        self._hosts = fleet.hosts
        self._resizable = resizable
        self._say = say
        self._control = Control(
            fleet,
            fleet.hosts,
            settings,
            broker_given=broker_given,
            drain_seconds=DRAIN_SECONDS,
            trust_new=False,
            say=self._say_of,
        )
        broker = self._control.broker
        if broker is None:
            raise UsageError(f"no broker is named; set broker in {printable(file)}, or DISTSUM_BROKER")
        if fleet.store is None:
            raise UsageError(f"{printable(file)} names no store; a job keeps its partials there, so set store")
        self.broker: BrokerAddress = broker
        self.store: str = fleet.store
        self.memory_bytes = min(host.memory_bytes for host in fleet.hosts)
        self._release = Release()
        self._rollout: Rollout | None = None
        self._scaled = False
        self._total: int | None = None

    @property
    def wanted(self) -> int | None:
        """How many workers there are to be in all; None before the hosts have said how many they are for."""
        return self._total if self._total is not None or self._rollout is None else self._rollout.wanted

    async def hold(self, on_ready: Callable[[int], None]) -> None:
        """Bring the hosts up, and hold their workers until they are released; cancelling ends them at once.

        Args:
            on_ready: Told how many workers are ready, when every host has them or has said why not.
        """
        first: dict[str, Report] = {}

        def take(report: Report) -> None:
            if report.host in first:
                return
            first[report.host] = report
            if report.fault is not None:
                self._say_of(report.host, report.fault)
            if len(first) == len(self._hosts):
                on_ready(sum(worker.state == "ready" for each in first.values() for worker in each.workers))

        async with self._control.rollout(starts=True, on_report=take) as rollout:
            self._rollout = rollout
            if self._scaled:
                rollout.resize(self._total)
            await rollout.hold(self._release, resizable=self._resizable)
            if rollout.fresh:
                for report in await rollout.down(rollout.fresh):
                    if report.fault is not None:
                        self._say_of(report.host, f"{report.fault}; run `distsum fleet down`")

    def release(self, *, at_once: bool) -> None:
        """Let the hosts go, from the event loop that holds them.

        Args:
            at_once: Whether tasks at hand need not be finished.
        """
        self._release.at_once = at_once
        self._release.set()

    def scale(self, total: int | None) -> None:
        """Begin to have another number of workers in all, from the event loop that holds them.

        Args:
            total: How many; hosts share them in proportion to the file, and those too many finish their tasks. None is
                what the file says of each.
        """
        self._scaled = True
        self._total = total
        if self._rollout is not None:
            self._rollout.resize(total)

    def _say_of(self, host: str, words: str) -> None:
        self._say(f"{printable(host)}: {printable(words, 2000)}")
