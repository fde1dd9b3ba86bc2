"""The screen of a node and its children: the tree, gone through from node to node, down to single files."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from distsum.messages import TaskId
from distsum.observe import subtree

from .child_list import ChildList
from .dialogs import Told
from .node_lines import attempts_title, child_line, children_title, time_lines, why_lines
from .node_screen import NodeScreen
from .panes import LinesPane
from .task_screen import TaskScreen

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from distsum.observe.subtree import Child, NodeDetail
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

    @property
    def rest(self) -> str:
        """How many children are out of sight."""
        return self._children.rest

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
            place = min(self._children.cursor, count - 1)
            title = children_title(view, task, tree, place, asking=detail is None)

            def line_of(place: int, width: int) -> Line:
                return child_line(view, task, known, tree, place, width)

            self._children.show(count, line_of, title)
        if self._attempts.is_on_screen:
            width = max(1, self._attempts.scrollable_content_region.width)
            lines = [*time_lines(view, detail, task, width), (), *why_lines(view, detail, self.node, width)]
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

    def offered(self) -> object:
        """Return what it depends on which keys do something: also whether there is something to look into."""
        return super().offered(), self.check_action("open", ())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide, beside what does nothing on any such screen, what there is nothing behind."""
        if action == "open":
            return self._chosen() is not None
        return super().check_action(action, parameters)

    def _chosen(self) -> TaskId | Child | None:
        """Return what is behind the chosen row: a node, or a file; None where nothing is known of it."""
        tree, known, place = self._tree, self._known, self._children.cursor
        if tree is None or not subtree.exists(tree, self.node):
            return None
        if (below := subtree.child_at(tree, self.node, place)) is not None:
            return below
        at = -1 if known is None else place - known.first
        return known.children[at] if known is not None and 0 <= at < len(known.children) else None

    def action_open(self) -> None:
        """Look into the chosen child; of a file show its whole name."""
        chosen = self._chosen()
        if isinstance(chosen, TaskId):
            self.go_to(chosen)
        elif chosen is not None and self._tree is not None:
            self.app.push_screen(Told(f"File {chosen.index:,} of {self._tree.files:,}:\n{chosen.name}"))

    def on_row_list_opened(self) -> None:
        """Do as ``enter``."""
        if self.on_top:
            self.action_open()

    def action_attempts(self) -> None:
        """Show the attempts at the node on a line of time."""

        def came_back(task: TaskId | None) -> None:
            if task is not None and task != self.node:
                self.go_to(task)

        self.app.push_screen(TaskScreen(self.source, self.node, self.backups), came_back)
