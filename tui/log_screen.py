"""What the master in this process logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from .cells import fitted
from .explained_screen import ExplainedScreen
from .filter_box import FilterBox
from .lines import Span
from .log_lines import log_lines, log_title
from .panes import FixedLines, LinesPane

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.widgets import Input

    from distsum.cli.kept_log import KeptLog

_LEGEND = "The lines are written to the terminal when this screen is left."


class LogScreen(ExplainedScreen[None]):
    """The master's last log lines.

    Args:
        log: Keeps them.
    """

    LEGEND = _LEGEND
    DEFAULT_CSS = """
    LogScreen #notice { height: 1; background: $warning 30%; display: none; }
    LogScreen #log { height: 1fr; border: round $foreground 40%; }
    LogScreen #log { border-title-color: $text; border-subtitle-color: $text; }
    """
    AUTO_FOCUS = "#log"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c,ctrl+q", "leave", "Leave", key_display="q"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("escape,l", "back", "Back"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("t", "theme", "Next theme", show=False),
    ]

    def __init__(self, log: KeptLog) -> None:
        super().__init__()
        self._log = log
        self._filter = ""
        self._drawn: tuple[int, str, int] | None = None
        self._notice = FixedLines("notice")
        self._pane = LinesPane("Log", follow=True, id="log", classes="")

    def compose(self) -> ComposeResult:
        """Make all parts."""
        yield self._notice
        yield self._pane
        yield FilterBox("lines")
        yield from self.compose_foot()

    def show(self, notice: str) -> None:
        """Draw the lines, if there are others than before, and what is to be known of the way to the service."""
        self._notice.display = bool(notice)
        if notice:
            self._notice.show([(Span(fitted(notice, max(1, self.size.width)), "strong"),)])
        width = self._pane.scrollable_content_region.width
        draws = self._log.count, self._filter, width
        if draws == self._drawn or not width:
            return
        self._drawn = draws
        kept = self._log.lines
        found = sum(self._filter.casefold() in line.casefold() for line in kept)
        self._pane.show(log_lines(kept, self._filter, width), log_title(found, len(kept), self._log.count))

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while somebody types."""
        self._filter = event.value

    def on_input_submitted(self) -> None:
        """Keep the filter."""
        self.query_one(FilterBox).close(clear=False)
        self.set_focus(self._pane)

    def action_filter(self) -> None:
        """Ask for a text that lines must hold."""
        self.query_one(FilterBox).open()

    def action_back(self) -> None:
        """Show all lines again, or go back to where one came from."""
        if self._filter or self.query_one(FilterBox).display:
            self.query_one(FilterBox).close(clear=True)
            self.set_focus(self._pane)
        else:
            self._app.back()

    def action_leave(self) -> None:
        """Leave, as elsewhere."""
        self._app.leave()
