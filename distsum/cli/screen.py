"""``--tui``: a run on a screen. What draws is found by an entry point, and imported only then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

from cyclopts import Parameter

from distsum.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.brokers.address import BrokerAddress
    from distsum.cli.kept_log import KeptLog
    from distsum.embedded import Stop
    from distsum.helm import Helm
    from distsum.observe.snapshot import Snapshot
    from distsum.observe.view import OnView
    from distsum.request import Summary

ENTRY_POINTS: Final = "distsum.screen"
"""Entry point group of screens: ``tui`` shows a run, and ``master`` a service. distsum's own are in ``distsum.tui``."""

OnScreen = Annotated[
    bool,
    Parameter(
        name="--tui",
        negative=(),
        show_default=False,
        help="Show the run on a screen. q leaves it, and asks whether the run shall go on.",
    ),
]


OnMasterScreen = Annotated[
    bool,
    Parameter(
        name="--tui",
        negative=(),
        show_default=False,
        help="Show the service on a screen, log lines too. q leaves it, and asks whether the master shall go on.",
    ),
]


class ShowRun(Protocol):
    """Runs a job in a thread while its screen is shown, and goes on without when somebody has left that."""

    def __call__(
        self, run: Callable[[OnView, Stop, Helm], Summary], on_snapshot: Callable[[Snapshot], None]
    ) -> Summary:
        """Return what the run returns, or raise what it raises."""


def on_screen() -> ShowRun:
    """Return what shows a run, once it is sure that it can.

    Raises:
        UsageError: There is no terminal, or what draws is not installed.
    """
    show: ShowRun = _prepared("tui")
    return show


class ShowMaster(Protocol):
    """Runs a master in a thread while the screen of its service is shown, and goes on without when that was left."""

    def __call__(self, run: Callable[[Stop], None], address: BrokerAddress, log: KeptLog) -> None:
        """Return when the master has ended, or raise what it raises.

        Args:
            run: Serves until it is asked to stop.
            address: What it serves.
            log: What it says, which is released when the screen is gone.
        """


def master_on_screen() -> ShowMaster:
    """Return what shows a master's service, once it is sure that it can.

    Raises:
        UsageError: There is no terminal, or what draws is not installed.
    """
    show: ShowMaster = _prepared("master")
    return show


def _prepared(name: str) -> Any:
    from importlib.metadata import entry_points  # slow to import

    found = next(iter(entry_points(group=ENTRY_POINTS, name=name)), None)
    if found is None:
        raise UsageError("--tui: no screen is installed; install distsum anew, or leave --tui out")
    return found.load()()
