"""What the screens of one node have in common: the header, where the node stands, and the ways through the tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from textual.binding import Binding, BindingType

from distsum.messages import TaskId
from distsum.observe import subtree
from distsum.observe.states import RUNNING

from .cells import fitted
from .lines import Span, header_lines
from .node_lines import LEGEND, place_lines, state_of
from .panes import FixedLines
from .scrubbed_screen import SCRUBBER_KEYS, ScrubbedScreen

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from distsum.observe.subtree import NodeDetail
    from distsum.observe.view import JobView
    from distsum.tree import Tree

    from .source import Source


class BackUps(Protocol):
    """Asks for a backup of a task, where that may be asked."""

    def allowed(self) -> bool:
        """Whether it may: not by those who only look, nor of a job that has ended."""

    def back_up(self, task: TaskId) -> None:
        """Ask."""


class NodeScreen(ScrubbedScreen[TaskId]):
    """One node. It is dismissed with the node that was looked at last.

    Args:
        source: Where views come from, and what is told of single nodes.
        task: What makes the node to begin with.
        backups: Asks for backups; None where nobody can be asked.

    Attributes:
        node: What makes the node that is shown.
        source: As given.
        backups: As given.
    """

    LEGEND = LEGEND
    FIRST_KEYS = ("back", "open", "back_up", "attempts", "up", "pause", "leave")
    DEFAULT_CSS = """
    NodeScreen #header, NodeScreen #place { height: 2; }
    NodeScreen #notice { height: 1; background: $warning 30%; display: none; }
    NodeScreen .pane { border: round $foreground 40%; height: 1fr; width: 1fr; }
    NodeScreen .pane { border-title-color: $text; border-subtitle-color: $text; }
    NodeScreen .pane:focus { border: round $accent; border-title-style: bold; }
    NodeScreen.flat #header { height: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back"),
        Binding("u,backspace", "up", "Node above", key_display="u"),
        Binding("tab", "next_pane(1)", "Pane", show=False),
        Binding("shift+tab", "next_pane(-1)", "Pane before", show=False),
        Binding("left", "sibling(-1)", "Node before", show=False),
        Binding("right", "sibling(1)", "Node after", show=False),
        Binding("s", "back_up", "Back up now"),
        *SCRUBBER_KEYS,
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("t", "theme", "Next theme", show=False),
        Binding("q,ctrl+c,ctrl+q", "leave", "Leave", key_display="q"),
    ]

    def __init__(self, source: Source, task: TaskId, backups: BackUps | None = None) -> None:
        super().__init__(source)
        self.node = task
        self.backups = backups
        self._view: JobView | None = None
        self._known: NodeDetail | None = None
        self._tree: Tree | None = None
        self._ready = False
        self._notice = FixedLines("notice")
        self._header = FixedLines("header")
        self._place = FixedLines("place")

    def compose(self) -> ComposeResult:
        """Make all parts."""
        yield self._notice
        yield self._header
        yield self._place
        yield from self.compose_panes()
        yield self.scrubber
        yield from self.compose_foot()

    def compose_panes(self) -> ComposeResult:
        """Make what stands below the place of the node."""
        raise NotImplementedError

    def on_mount(self) -> None:
        """Begin to draw."""
        self._ready = True
        self.call_next(self._app.pull)

    def on_resize(self) -> None:
        """Draw in the new room."""
        self.set_class(self.size.height < 16, "flat")
        self.call_after_refresh(self.draw_again)

    # Drawing ----------------------------------------------------------------------------------------------------------

    def show(self, view: JobView | None) -> None:
        """Draw a view; None before there is one."""
        self._view = view
        if not self._ready:
            return
        self.show_scrubber()
        if view is None:
            return
        width = self.size.width
        first, count = self.wanted()
        found = self.source.detail(self.node, first, count)
        detail = None if found is None or isinstance(found, str) else found
        tree = view.tree if detail is None else detail.tree
        if tree is not None and tree.phases == len(view.states):
            self._tree = tree
        self._known = detail
        self._header.show(header_lines(view, width))
        self.show_node(view, detail)
        rest = self.rest if self.has_class("flat") else ""  # else a border tells it
        place = place_lines(view, self.node, self._tree, width, rest)
        if isinstance(found, str):
            place = place[0], (Span(fitted(f"! {found}", width), "warn"),)
        elif detail is not None and detail.tree is None:
            words = "this history is older than what tells how the tree is built, so only attempts are shown"
            place = place[0], (Span(fitted(words, width), "warn"),)
        self._place.show(place)
        self.look_at_offers()

    @property
    def rest(self) -> str:
        """What of the only pane is out of sight where they have no borders; nothing, unless a screen says otherwise."""
        return ""

    def wanted(self) -> tuple[int, int]:
        """Return the place of the first child that is in sight, and how many are."""
        return 0, 0

    def show_node(self, view: JobView, detail: NodeDetail | None) -> None:
        """Draw what is known of the node; None of one that is being asked about."""
        raise NotImplementedError

    def notice(self, words: str) -> None:
        """Draw what is to be known of where the views come from; nothing where there is nothing."""
        self._notice.display = bool(words)
        if words and self._ready:
            self._notice.show([(Span(fitted(words, max(1, self.size.width)), "strong"),)])

    def draw_again(self) -> None:
        """Draw the last view as it is to be drawn now."""
        if self._view is not None:
            self.show(self._view)

    # What keys do -----------------------------------------------------------------------------------------------------

    def offered(self) -> object:
        """Return what it depends on which keys do something: also what there is beside the node, and may be asked."""
        does = tuple(self.check_action(action, ()) for action in ("back_up", "up", "next_pane"))
        return super().offered(), does, self.check_action("sibling", (-1,)), self.check_action("sibling", (1,))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide what does nothing now: there is no other node or pane, or nobody may be asked, or not of this task."""
        view = self._view
        match action:
            case "back_up":
                may = self.backups is not None and self.backups.allowed()
                return may and view is not None and state_of(view, self.node) == RUNNING
            case "up":
                return self._tree is not None and subtree.node_above(self._tree, self.node) is not None
            case "sibling":
                (step,) = parameters
                return isinstance(step, int) and view is not None and state_of(view, self._beside(step)) is not None
            case "next_pane":
                return len(self.focus_chain) > 1
        return super().check_action(action, parameters)

    def _beside(self, step: int) -> TaskId:
        return TaskId(self.node.job, self.node.phase, self.node.tile, self.node.index + step)

    def action_next_pane(self, step: int) -> None:
        """Go to the next pane, or the one before."""
        if step > 0:
            self.focus_next()
        else:
            self.focus_previous()

    def go_to(self, task: TaskId) -> None:
        """Look at another node."""
        self.node = task
        self._known = None
        self.draw_again()

    def action_up(self) -> None:
        """Look at the node above."""
        if self._tree is not None and (above := subtree.node_above(self._tree, self.node)) is not None:
            self.go_to(above)

    def action_sibling(self, step: int) -> None:
        """Look at the next node of the phase, or the one before."""
        self.go_to(self._beside(step))

    def action_back_up(self) -> None:
        """Ask for a backup of the task."""
        if self.backups is not None:
            self.backups.back_up(self.node)

    def action_back(self) -> None:
        """Go back to where one came from."""
        self.dismiss(self.node)

    def action_leave(self) -> None:
        """Leave as from the job's screen, which asks where a run would end by that."""
        self._app.leave_job()
