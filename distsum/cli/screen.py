"""``--tui``: a run on a screen. What draws is found by an entry point, and imported only then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Protocol

from cyclopts import Parameter

from distsum.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.embedded import Stop
    from distsum.observe.snapshot import Snapshot
    from distsum.observe.view import OnView
    from distsum.request import Summary

ENTRY_POINTS: Final = "distsum.screen"
"""Entry point group of what runs a job on a screen; distsum's own is ``distsum.tui``."""

OnScreen = Annotated[
    bool,
    Parameter(
        name="--tui",
        negative=(),
        show_default=False,
        help="Show the run on a screen. q leaves it, and asks whether the run shall go on.",
    ),
]


class ShowRun(Protocol):
    """Runs a job in a thread while its screen is shown, and goes on without when somebody has left that."""

    def __call__(self, run: Callable[[OnView, Stop], Summary], on_snapshot: Callable[[Snapshot], None]) -> Summary:
        """Return what the run returns, or raise what it raises."""


def on_screen() -> ShowRun:
    """Return what shows a run, once it is sure that it can.

    Raises:
        UsageError: There is no terminal, or what draws is not installed.
    """
    from importlib.metadata import entry_points  # slow to import

    found = next(iter(entry_points(group=ENTRY_POINTS)), None)
    if found is None:
        raise UsageError("--tui: no screen is installed; install distsum anew, or leave --tui out")
    prepare = found.load()
    show: ShowRun = prepare()
    return show
