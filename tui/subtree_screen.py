"""The screen of a node and its children: the tree, gone through from node to node, down to single files."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from distsum.observe import subtree

from .child_list import ChildList
from .dialogs import Told
from .node_lines import attempts_title, child_line, children_title, time_lines, why_lines
from .node_screen import NodeScreen
from .panes import LinesPane
from .task_screen import TaskScreen

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from distsum.messages import TaskId
    from distsum.observe.subtree import NodeDetail
    from distsum.observe.view import JobView

    from .lines import Line
    from .node_screen import BackUps
    from .source import Source


class SubtreeScreen(NodeScreen):
    """A node, its children in order, and the attempts at it."""

    DEFAULT_CSS = """
    SubtreeScreen #children { height: auto; max-height: 60%; }
    SubtreeScreen.flat #children { height: 1fr; max-height: 100%; }
    SubtreeScreen.flat #attempts { display: none; }
    SubtreeScreen.flat .pane { border: none; }
    """
    AUTO_FOCUS = "#children"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Look into", priority=True),
        Binding("a", "attempts", "Attempts"),
    ]

    def __init__(self, source: Source, task: TaskId, backups: BackUps | None = None) -> None:
        super().__init__(source, task, backups)
        self._children = ChildList("children", "pane")
        self._attempts = LinesPane("2 Attempts", id="attempts", classes="pane")

    def compose_panes(self) -> ComposeResult:
        """Make the list of children, and that of attempts."""
        yield self._children
        yield self._attempts

    def wanted(self) -> tuple[int, int]:
        """Return the place of the first child that is in sight, and how many are."""
        shown = self._children.in_sight
        # Before the first answer nobody knows how many there are.
        return (shown.start, len(shown)) if shown else (0, self.size.height)

    def show_node(self, view: JobView, detail: NodeDetail | None) -> None:
        """Draw children and attempts."""
        task, tree = self.node, self._tree
        known = detail or subtree.NodeDetail(task=task, tree=tree)
        if tree is not None and subtree.exists(tree, task):
            count = len(subtree.children_of(tree, task))
            title = children_title(view, task, tree, min(self._children.cursor, count - 1))

            def line_of(place: int, width: int) -> Line:
                return child_line(view, task, known, tree, place, width)

            self._children.show(count, line_of, title)
        if self._attempts.is_on_screen:
            width = max(1, self._attempts.scrollable_content_region.width)
            lines = [*time_lines(view, detail, width), (), *why_lines(view, detail, self.node, width)]
            self._attempts.show(lines, f"{attempts_title(detail, 2)} ── and why")

    def go_to(self, task: TaskId) -> None:
        """Look at another node; the child that one came from is chosen."""
        before, self.node = self.node, task
        place = 0
        if self._tree is not None and task.phase > before.phase:
            place = subtree.place_in(self._tree, task, before)
        self._children.show(0, lambda _place, _width: (), "")
        super().go_to(task)
        self._children.choose(place)
        self.draw_again()

    def action_open(self) -> None:
        """Look into the chosen child; of a file show its whole name."""
        if self._tree is None:
            return
        place = self._children.cursor
        below = subtree.child_at(self._tree, self.node, place)
        if below is not None:
            self.go_to(below)
            return
        known = self._known
        at = -1 if known is None else place - known.first
        if known is not None and 0 <= at < len(known.children):
            child = known.children[at]
            self.app.push_screen(Told(f"File {child.index:,} of {self._tree.files:,}:\n{child.name}"))

    def on_row_list_opened(self) -> None:
        """Do as ``enter``."""
        self.action_open()

    def action_attempts(self) -> None:
        """Show the attempts at the node on a line of time."""

        def came_back(task: TaskId | None) -> None:
            if task is not None and task != self.node:
                self.go_to(task)

        self.app.push_screen(TaskScreen(self.source, self.node, self.backups), came_back)
