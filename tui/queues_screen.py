"""The list of queues at the broker: what waits where, and since when."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from .list_screen import ListScreen
from .service_lines import QUEUE_COLUMNS, queue_rows, queue_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distsum.service.view import ServiceView

    from .table_lines import Column, Row


class QueuesScreen(ListScreen):
    """The shared queues of a service; RabbitMQ's own page of them can be opened."""

    NAME = "queues"
    COLUMNS: ClassVar[Sequence[Column]] = QUEUE_COLUMNS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "open_page", "RabbitMQ's page"),
        Binding("escape", "back", "Back"),
    ]

    def rows(self, view: ServiceView, now: float) -> list[Row]:
        """Return one row a queue."""
        return queue_rows(view.queues, self._app.traces) if view.queues is not None else []

    def empty(self, view: ServiceView) -> str:
        """Return why there is nothing."""
        return "The master tells nothing of queues at the moment: its own way to the broker is lost, or was just made."

    def details(self, view: ServiceView, row: Row | None) -> Sequence[str]:
        """Return what the chosen queue is for, and what is to be known of all."""
        words = queue_words(view.queues) if view.queues is not None else ()
        return (*super().details(view, row), *words)

    @property
    def _page(self) -> str | None:
        queues = self._view.queues if self._view is not None else None
        return queues.management if queues is not None else None

    def offered(self) -> object:
        """Return what it depends on which keys do something: also whether there is a page."""
        return super().offered(), self._page is not None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide what there is nothing of."""
        return self._page is not None if action == "open_page" else super().check_action(action, parameters)

    def action_open_page(self) -> None:
        """Open RabbitMQ's page in a browser."""
        if self._page is not None:
            self._app.open_page(self._page)
