"""The screen of one job: the tree, workers, what goes through, stragglers and the log."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical

from distsum.observe.ledger import BackupEntry
from distsum.observe.states import NAMES, RUNNING

from .cells import fitted
from .dialogs import Ask, Choice
from .figures import io_lines
from .filter_box import FilterBox
from .lines import (
    Span,
    header_lines,
    log_lines,
    state_words,
    straggler_lines,
    straggler_title,
    worker_lines,
)
from .node_screen import BackUps
from .palette import GLYPHS
from .panes import FixedLines, LinesPane, Tabs
from .scrubbed_screen import SCRUBBER_KEYS, ScrubbedScreen
from .subtree_screen import SubtreeScreen
from .tree_map import TreeMap

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual import events
    from textual.app import ComposeResult
    from textual.widget import Widget
    from textual.widgets import Input

    from distsum.messages import TaskId
    from distsum.observe.view import JobView

    from .lines import Line
    from .source import Source


class JobSteering(BackUps, Protocol):
    """Asks for what changes a job, where that may be asked."""

    def switch_speculation(self, job: str, *, on: bool) -> None:
        """Ask that stragglers get no more backups, or that they do again."""


PANES: Final = ("tree", "workers", "io", "stragglers", "log")
_TITLES: Final = ("Tree", "Workers", "Queues and I/O", "Stragglers", "Log")
_SHORTER_TITLES: Final = ("Tree", "Workers", "I/O", "Stragglers", "Log")
_SHORT_TITLES: Final = ("Tree", "Work", "I/O", "Slow", "Log")
_WIDE: Final = (100, 28)
"""Columns and lines from which on all panes are shown at once."""
_FILTERED: Final = ("workers", "stragglers", "log")
"""The panes that show only lines that hold a text, where somebody says so."""
_DEPENDING: Final = frozenset(
    {"back_up", "clear_filter", "filter", "full", "glyphs", "next_straggler", "speculation", "zoom_in", "zoom_out"}
)
"""Actions that do something only at times."""
_STRAGGLERS: Final = "4 Stragglers ── "
_SHARES: Final = {"io": (13, 0.0), "stragglers": (7, 0.2), "log": (6, 0.16)}
"""How high a pane may become beside all others: so many lines, or that share of the terminal if that is more.

What workers leave free beside the tree is beyond that."""
_TITLE_LESS: Final = 4
"""Columns of a pane that its title has not."""
_LEGEND: Final = (
    "Where tasks share a cell it shows the worst of them: "
    + ", ".join(f"{sign} {name}" for sign, name in zip(GLYPHS, NAMES, strict=True))
    + ". A worker's lane: each column is half a second, as high as the share of it that the worker was busy; "
    "↯ a backup, ! a failure. ± is two standard errors of the rate of the last half minute."
)


class _Side(Vertical):
    """The panes beside the tree, and what is to be done when their room has changed."""

    def __init__(self, resized: Callable[[], None], *, id: str) -> None:  # noqa: A002 - Textual's word
        super().__init__(id=id)
        self._resized = resized

    def on_resize(self) -> None:
        """Tell of it."""
        self._resized()


class JobScreen(ScrubbedScreen[None]):
    """One job. Where there is room for all panes they are all shown; else one, and tabs for the others.

    Args:
        source: Where its views come from.
        glyphs: Whether signs are drawn in place of half blocks, at first.
        owns_run: Whether the job runs in this process, so that leaving it must be asked about.
    """

    LEGEND = _LEGEND
    FIRST_KEYS = (
        "leave",
        "open",
        "back_up",
        "cancel",
        "next_straggler",
        "filter",
        "back",
        "pause",
        "zoom_in",
        "next_pane",
    )
    DEFAULT_CSS = """
    JobScreen #header { height: 2; }
    JobScreen #notice { height: 1; background: $warning 30%; display: none; }
    JobScreen #tabs { height: 1; }
    JobScreen #upper { height: 1fr; }
    JobScreen #side { width: 36.5%; min-width: 44; max-width: 100; }
    JobScreen .pane { border: round $foreground 40%; height: 1fr; width: 1fr; }
    JobScreen .pane { border-title-color: $text; border-subtitle-color: $text; }
    JobScreen .pane:focus { border: round $accent; border-title-style: bold; }
    JobScreen #io { max-height: 73%; }
    JobScreen.one #side { height: 1fr; width: 1fr; min-width: 0; max-width: 100%; }
    JobScreen.one #io { max-height: 100%; }
    JobScreen.one.flat .pane { border: none; }
    """
    AUTO_FOCUS = "#tree"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c,ctrl+q", "leave", "Leave", key_display="q"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("tab", "next_pane(1)", "Pane", priority=True),
        Binding("shift+tab", "next_pane(-1)", "Pane before", show=False, priority=True),
        *(
            Binding(str(place), f"pane({place})", f"To {name}", show=False)
            for place, name in enumerate(_TITLES, start=1)
        ),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("escape", "clear_filter", "Clear the filter", show=False),
        Binding("n", "next_straggler(1)", "Straggler"),
        Binding("N", "next_straggler(-1)", "Straggler before", show=False),
        Binding("s", "back_up", "Back up now"),
        Binding("b", "speculation", "Backups on/off", show=False),
        Binding("plus,equals_sign", "zoom_in", "Zoom", key_display="+"),
        Binding("minus", "zoom_out", "Zoom out", show=False, key_display="-"),
        Binding("0", "zoom_all", "Show all tasks", show=False),
        *SCRUBBER_KEYS,
        Binding("f", "full", "One pane, or all", show=False),
        Binding("g", "glyphs", "Signs, or half blocks", show=False),
        Binding("t", "theme", "Next theme", show=False),
    ]

    def __init__(self, source: Source, *, glyphs: bool = False, owns_run: bool = False) -> None:
        super().__init__(source)
        self._owns_run = owns_run
        self._view: JobView | None = None
        self._number = 1
        self._wanted_one = False
        self._filter = ""
        self._straggler = -1
        self._ready = False
        self._shown: dict[str, object] = {}
        self._held: dict[str, int] = {}
        """The most lines that a pane has held."""
        self._side = _Side(self._share_side, id="side")
        # Held here, since the timer may tick before they are mounted and while they are taken away.
        self._notice = FixedLines("notice")
        self._header = FixedLines("header")
        self._box = FilterBox("lines")
        self._tabs = Tabs(_TITLES, "tabs", _SHORTER_TITLES, _SHORT_TITLES)
        self._tree = TreeMap(glyphs=glyphs, id="tree", classes="pane")
        self._lines = {
            name: LinesPane(
                f"{place} {_TITLES[place - 1]}", follow=name in {"stragglers", "log"}, id=name, classes="pane"
            )
            for place, name in enumerate(PANES, start=1)
            if name != "tree"
        }

    @property
    def steering(self) -> JobSteering | None:
        """What asks for changes of the job; None where nobody can be asked."""
        return None

    def shared_queue(self, width: int) -> list[Line]:
        """Return what is known of a queue that the job's tasks are in with those of others; nothing of a run here."""
        return []

    @property
    def one(self) -> bool:
        """Whether only one pane is shown."""
        return self._wanted_one or not self._roomy

    @property
    def _roomy(self) -> bool:
        """Whether there is room for all panes."""
        return self.size.width >= _WIDE[0] and self.size.height >= _WIDE[1]

    def compose(self) -> ComposeResult:
        """Make all parts; which are shown is decided by the room."""
        yield self._notice
        yield self._header
        yield self._tabs
        with Horizontal(id="upper"):
            yield self._tree
            with self._side:
                yield self._lines["workers"]
                yield self._lines["io"]
        yield self._lines["stragglers"]
        yield self._lines["log"]
        yield self.scrubber
        yield self._box
        yield from self.compose_foot()

    def on_mount(self) -> None:
        """Arrange what there is."""
        self.app.theme_changed_signal.subscribe(self, lambda _: self._repaint())
        self._ready = True
        self._repaint()
        self._arrange()

    def on_resize(self, _: events.Resize) -> None:
        """Arrange for the new room."""
        if self._ready:
            self._arrange()

    # Drawing ----------------------------------------------------------------------------------------------------------

    def show(self, view: JobView | None) -> None:
        """Draw a view; None before there is one."""
        self._view = view
        if not self._ready:
            return  # the timer was sooner than what it draws on
        self._header.show(header_lines(view, self.size.width))
        self.show_scrubber()
        if view is None:
            return
        tree = self._tree
        if tree.is_on_screen:
            tree.show(view)
        self._show_lines(view)
        self._show_tabs()
        self.look_at_offers()

    def keep(self, view: JobView | None) -> None:
        """Take a view without drawing it, since another screen lies above."""
        self._view = view

    def notice(self, words: str) -> None:
        """Draw what is to be known of where the views come from; nothing where there is nothing."""
        self._notice.display = bool(words)
        if words and self._ready:
            self._notice.show([(Span(fitted(words, max(1, self.size.width)), "strong"),)])

    def _show_lines(self, view: JobView) -> None:
        wanted = self._filter
        room = self._lines["stragglers"].outer_size.width - _TITLE_LESS - len(_STRAGGLERS)
        straggler_words = straggler_title(view, room)
        for name, lines_of in (
            ("workers", partial(worker_lines, wanted=wanted)),
            ("io", self._io_lines),
            ("stragglers", partial(straggler_lines, wanted=wanted)),
            ("log", partial(log_lines, wanted=wanted)),
        ):
            pane = self._lines[name]
            if not pane.is_on_screen:
                continue
            width = max(1, pane.scrollable_content_region.width)
            if name in {"stragglers", "log"}:
                # They change seldom, and a thousand lines take longer to fold than all else.
                # Another master's log may have as many lines, and other ones.
                content: object = view.log_total, view.log[-1:], view.ledger.began_seconds, view.ledger.remark
                if name == "stragglers":
                    content = view.ledger.entries, straggler_words
                if self._shown.get(name) == (content, width, wanted):
                    continue
                self._shown[name] = content, width, wanted
            title = {
                "workers": f"2 Workers ── {view.snapshot.workers:,} ── slowest first",
                "io": f"3 {_TITLES[2]}",
                "stragglers": f"{_STRAGGLERS}{straggler_words}",
                "log": f"5 Log ── {view.log_total:,}" + (f" ── {view.ledger.remark}" if view.ledger.remark else ""),
            }[name]
            lines = lines_of(view, width)
            self._give_room(name, len(lines))
            pane.show(lines, title)

    def _give_room(self, name: str, lines: int) -> None:
        """Have a pane no higher than its share, nor than what it has held of this job: others get the rest."""
        self._held[name] = max(self._held.get(name, 1), lines)
        if name not in _SHARES:
            return
        least, share = _SHARES[name]
        most = max(least, round(share * self.size.height))
        if name == "io":
            most = max(most, self._side.size.height - self._held.get("workers", self.size.height) - 2)
        self._lines[name].styles.height = "1fr" if self.one else min(most, self._held[name] + 2)

    def _share_side(self) -> None:
        """Share the room beside the tree anew, where the panes below it have left more of it or less."""
        if "io" in self._held:
            self._give_room("io", 0)

    def _io_lines(self, view: JobView, width: int) -> list[Line]:
        return io_lines(view, width, self.shared_queue(width))

    def _repaint(self) -> None:
        self._tree.repaint()

    def _arrange(self) -> None:
        """Show all panes, or the chosen one with tabs."""
        one = self.one
        self.set_class(one, "one")
        self.set_class(one and self.size.height < 16, "flat")
        chosen = PANES[self._number - 1]
        for name in PANES:
            self._pane_of(name).display = not one or name == chosen
        self.query_one("#side").display = not one or chosen in {"workers", "io"}
        self.query_one("#upper").display = not one or chosen in {"tree", "workers", "io"}
        self._tabs.display = one
        for name in _SHARES:
            self._give_room(name, 0)
        self._show_tabs()
        if one:
            self._pane().focus()
        self.call_after_refresh(self._draw_again)

    def _show_tabs(self) -> None:
        pane = self._lines.get(PANES[self._number - 1], self._tree)
        rest = pane.rest if self.has_class("flat") else ""  # else the pane's border tells it
        self._tabs.choose(self._number, self.size.width, rest)

    def _draw_again(self) -> None:
        if self._view is not None:
            self.show(self._view)

    def _pane(self) -> Widget:
        return self._pane_of(PANES[self._number - 1])

    def _pane_of(self, name: str) -> Widget:
        return self._lines.get(name, self._tree)

    # What keys do -----------------------------------------------------------------------------------------------------

    def offered(self) -> object:
        """Return what it depends on which keys do something: also what is shown, and what may be asked of it."""
        return super().offered(), *(self.check_action(action, ()) for action in sorted(_DEPENDING))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide what does nothing now: there is nothing of it, it is out of sight, or nobody may be asked."""
        view, tree, shows_tree = self._view, self._tree, self._in_sight("tree")
        match action:
            case "back_up":
                return self._asks and tree.has_focus and tree.state_at_cursor() == RUNNING
            case "speculation":
                return self._asks and view is not None and view.snapshot.speculation is not None
            case "next_straggler":
                return bool(self._backups())
            case "filter":
                return any(self._in_sight(name) for name in _FILTERED)
            case "clear_filter":
                return bool(self._filter) or self._box.display
            case "zoom_in":
                return shows_tree and tree.zooms[0]
            case "zoom_out" | "zoom_all":
                return shows_tree and tree.zooms[1]
            case "glyphs":
                return shows_tree
            case "full":
                return self._roomy
        return super().check_action(action, parameters)

    @property
    def _asks(self) -> bool:
        """Whether something may be asked."""
        return self.steering is not None and self.steering.allowed()

    def _in_sight(self, name: str) -> bool:
        """Whether a pane is shown."""
        return not self.one or PANES[self._number - 1] == name

    def on_tree_map_opened(self) -> None:
        """Look into the task at the cursor; where many share its cell, into the worst of them."""
        task = self._tree.worst_at_cursor()
        if task is not None and self.on_top:
            self.app.push_screen(SubtreeScreen(self.source, task, self.steering), self._look_at)

    def _look_at(self, task: TaskId | None) -> None:
        """Put the cursor on a task."""
        if task is None or self._view is None:
            return
        states = self._view.states[task.phase - 1]
        self._tree.look_at(task.phase, task.tile * (len(states.states) // states.tiles) + task.index)

    def action_back_up(self) -> None:
        """Ask for a backup of the task at the cursor; where many share its cell, of the worst of them."""
        task = self._tree.worst_at_cursor()
        if task is not None and self.steering is not None:
            self.steering.back_up(task)

    def action_speculation(self) -> None:
        """Ask that stragglers get no more backups, or that they do again."""
        if self._view is not None and self.steering is not None:
            snapshot = self._view.snapshot
            self.steering.switch_speculation(snapshot.job, on=snapshot.speculation is False)

    def action_pane(self, number: int) -> None:
        """Go to a pane."""
        self._number = number
        if self.one:
            self._arrange()
        self._pane().focus()

    def action_next_pane(self, step: int) -> None:
        """Go to the next pane."""
        self.action_pane((self._number - 1 + step) % len(PANES) + 1)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Remember which pane was chosen with the mouse."""
        if event.widget.id in PANES:
            self._number = PANES.index(event.widget.id) + 1

    def on_tabs_chosen(self, event: Tabs.Chosen) -> None:
        """Go to the pane whose tab was clicked."""
        self.action_pane(event.number)

    def action_full(self) -> None:
        """Show one pane, or all."""
        self._wanted_one = not self._wanted_one
        self._arrange()

    def action_zoom_in(self) -> None:
        """Look closer at the tasks about the cursor."""
        self._tree.zoom_in()

    def action_zoom_out(self) -> None:
        """Show more tasks."""
        self._tree.zoom_out()

    def action_zoom_all(self) -> None:
        """Show all tasks of the phase."""
        self._tree.zoom(float("inf"))

    def action_next_straggler(self, step: int) -> None:
        """Put the cursor on the task of the next backup in the ledger."""
        entries = self._backups()
        self._straggler = (self._straggler + step) % len(entries) if self._straggler >= 0 else len(entries) - 1
        self.action_pane(1)
        self._look_at(entries[self._straggler].task)

    def _backups(self) -> list[BackupEntry]:
        entries = () if self._view is None else self._view.ledger.entries
        return [entry for entry in entries if isinstance(entry, BackupEntry)]

    def action_glyphs(self) -> None:
        """Draw signs in place of half blocks, or the other way round."""
        self._app.glyphs = not self._app.glyphs
        self._tree.use_glyphs(glyphs=self._app.glyphs)

    def action_filter(self) -> None:
        """Ask for a text that lines must hold."""
        self._box.open()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while somebody types."""
        self._filter = event.value
        self._draw_again()

    def on_input_submitted(self) -> None:
        """Keep the filter."""
        self._box.close(clear=False)
        self._pane().focus()

    def action_clear_filter(self) -> None:
        """Show all lines again."""
        self._box.close(clear=True)
        self._pane().focus()

    def action_leave(self) -> None:
        """Leave; where the job runs in this process, ask what shall become of it, unless it is all but done."""
        if not self._owns_run or self._over_words():
            self.app.exit("leave")
            return
        choices = (
            Choice("stay", "Stay here"),
            Choice("leave", "Leave the screen; the job goes on in this terminal, with its progress as lines"),
            Choice("stop", "Stop the job; what is stored stays, and the same command goes on from there"),
        )
        self.app.push_screen(Ask("The job runs in this process.", choices, over=self._over_words), self._answered)

    def _over_words(self) -> str:
        """Return that the job has ended; empty before."""
        view = self._view
        if view is not None and view.snapshot.finished:
            return f"the job has ended ({state_words(view).text}); q leaves without a question"
        return "the job has ended; q leaves without a question" if self.source.over() else ""

    def _answered(self, answer: str | None) -> None:
        if answer in {"leave", "stop"}:
            self.app.exit(answer)
