"""The screen of a task: the attempts at it on a line of time, what is stored of its node, and why it was copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lines import rests_words
from .node_lines import attempts_title, stored_lines, time_lines, why_lines
from .node_screen import NodeScreen
from .panes import LinesPane

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from distsum.messages import TaskId
    from distsum.observe.subtree import NodeDetail
    from distsum.observe.view import JobView

    from .node_screen import BackUps
    from .source import Source


class TaskScreen(NodeScreen):
    """The attempts at a node."""

    DEFAULT_CSS = """
    TaskScreen #stored { height: 6; }
    TaskScreen.flat #stored { display: none; }
    TaskScreen.flat .pane { border: none; }
    """
    AUTO_FOCUS = "#time"

    def __init__(self, source: Source, task: TaskId, backups: BackUps | None = None) -> None:
        super().__init__(source, task, backups)
        self._time = LinesPane("1 Attempts", id="time", classes="pane")
        self._stored = LinesPane("2 Stored", id="stored", classes="pane")
        self._why = LinesPane("3 Why", id="why", classes="pane")

    def compose_panes(self) -> ComposeResult:
        """Make the line of time, what is stored, and why."""
        yield self._time
        yield self._stored
        yield self._why

    @property
    def rest(self) -> str:
        """How many lines are out of sight."""
        return rests_words((("attempts", self._time.rest), ("why", self._why.rest)))

    def show_node(self, view: JobView, detail: NodeDetail | None) -> None:
        """Draw them."""
        self._time.show(time_lines(view, detail, self.node, _room(self._time)), attempts_title(detail, 1))
        why = why_lines(view, detail, self.node, _room(self._why))
        if self.has_class("flat"):  # There is no pane for it.
            why += [(), *stored_lines(view, detail, self.node, self._tree, _room(self._why))]
        else:
            self._stored.show(stored_lines(view, detail, self.node, self._tree, _room(self._stored)), "2 Stored")
        self._why.show(why, "3 Why it was copied, or done again")


def _room(pane: LinesPane) -> int:
    return max(1, pane.scrollable_content_region.width)
