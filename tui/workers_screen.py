"""The list of workers: where they run, what they do, and how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from textual.binding import Binding, BindingType

from .dialogs import Told
from .list_screen import ListScreen
from .service_lines import WORKER_COLUMNS, fleet_words, worker_rows, workers_there

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distsum.observe.workers import WorkerStatus
    from distsum.service.messages import WorkerAction
    from distsum.service.view import ServiceView

    from .table_lines import Column, Row

_EMPTY = (
    "No worker is there.\n\n"
    "On a machine that reaches the broker and the data, this starts one for each of its processors:\n\n"
    "  distsum worker\n\n"
    "`distsum fleet` has them on many hosts, over SSH."
)
_COMING = (
    "No worker is there yet.\n\nThe master's fleet brings them; its log tells of each step, and of hosts that fail."
)


_HELD: Final = frozenset({"paused", "quarantined"})
_WORKS: Final = frozenset({"idle", "busy"})
_MAY: Final = {"pause": _WORKS, "resume": _HELD, "drain": _WORKS | _HELD, "shutdown": _WORKS | _HELD}
"""In which states of a worker what is asked for makes a difference."""


class WorkersScreen(ListScreen):
    """All workers of a service; they can be paused and sent away."""

    NAME = "workers"
    OPENS = True
    COLUMNS: ClassVar[Sequence[Column]] = WORKER_COLUMNS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "scale", "Add or remove"),
        Binding("p", "command('pause')", "Pause"),
        Binding("e", "command('resume')", "Resume"),
        Binding("d", "command('drain')", "Drain"),
        Binding("x", "command('shutdown')", "Shut down"),
        Binding("escape", "back", "Back"),
    ]

    def rows(self, view: ServiceView, now: float) -> list[Row]:
        """Return one row a worker."""
        return worker_rows(view.workers, now)

    def empty(self, view: ServiceView) -> str:
        """Return how there can be a worker."""
        fleet = view.fleet
        return _COMING if fleet is not None and fleet.held and fleet.wanted != 0 else _EMPTY

    @property
    def _chosen(self) -> WorkerStatus | None:
        row = self.table.chosen
        workers = self._view.workers if self._view is not None else ()
        return next((each for each in workers if row is not None and each.worker == row.key), None)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide, beside what does nothing in any list, what makes no difference to the chosen worker."""
        if action == "command":
            chosen = self._chosen
            if chosen is None or chosen.state not in _MAY[str(parameters[0])]:
                return False
        return super().check_action(action, parameters)

    def offered(self) -> object:
        """Return what it depends on which keys do something: also how the chosen worker stands."""
        return super().offered(), self._chosen and self._chosen.state

    def remark(self, view: ServiceView) -> str:
        """Return how many of those in the list are gone, and how many the master's fleet is to have."""
        gone = len(view.workers) - workers_there(view.workers)
        return " ── ".join(filter(None, (f"{gone:,} gone" if gone else "", fleet_words(view.fleet))))

    def action_open(self) -> None:
        """Tell all that is known of the chosen worker: below the list some of it may have no room."""
        if (row := self.table.chosen) is not None:
            self.app.push_screen(Told("\n\n".join(row.details)))

    def action_scale(self) -> None:
        """Have another number of workers."""
        if self._view is not None:
            self._app.steering.scale(self._view)

    def action_command(self, action: WorkerAction) -> None:
        """Do something with the chosen worker."""
        if (worker := self._chosen) is not None:
            self._app.steering.command(worker, action)
