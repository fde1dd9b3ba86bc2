"""What the lists of a service have in common: who serves, a table, details of what is chosen, and a filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from textual.binding import Binding, BindingType

from .cells import fitted, rest_after, wrapped
from .explained_screen import ExplainedScreen
from .filter_box import FilterBox
from .lines import Line, Span
from .panes import FixedLines, Tabs
from .service_lines import overview_line
from .table import Table
from .table_lines import Row, Sorting, hidden_words, holding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.app import ComposeResult
    from textual.widgets import Input

    from distsum.service.view import ServiceView

    from .table_lines import Column

LISTS: Final = ("jobs", "workers", "queues")
_TITLES: Final = ("Jobs", "Workers", "Queues")
_LOW: Final = 16
"""Lines below which only what is most important is shown."""
_DETAILS: Final = 3
STEERING: Final = frozenset({"cancel", "prioritize", "command", "scale", "submit"})
"""Actions that change something, which nobody is offered who only looks."""
_LEGEND: Final = (
    "A click chooses a row, two open it; a click on a title sorts by it. "
    "Where a terminal is narrow, columns are left out; what they hold is still found by the filter."
)


class ListScreen(ExplainedScreen[None]):
    """One of the lists."""

    NAME: ClassVar[str]
    OPENS: ClassVar[bool] = False
    """Whether there is something behind a row."""
    COLUMNS: ClassVar[Sequence[Column]]
    LEGEND = _LEGEND
    FIRST_KEYS = (
        "leave",
        "back",
        "open",
        "submit",
        "cancel",
        "prioritize",
        "scale",
        "command",
        "open_page",
        "filter",
        "log",
    )
    DEFAULT_CSS = """
    ListScreen #notice { height: 1; background: $warning 30%; display: none; }
    ListScreen #overview, ListScreen #lists, ListScreen #details { height: 1; }
    ListScreen #table { height: 1fr; border: round $foreground 40%; }
    ListScreen #table { border-title-color: $text; border-subtitle-color: $text; }
    ListScreen.low #table { border: none; }
    ListScreen #details { height: 3; padding: 0 1; }
    ListScreen.low #details { height: 1; padding: 0; }
    ListScreen.low #overview { display: none; }
    """
    AUTO_FOCUS = "#table"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c,ctrl+q", "leave", "Leave", key_display="q"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("enter", "open", "Open"),
        Binding("escape", "back", "Back, or clear the filter", show=False),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("l", "log", "Log"),
        Binding("s", "sort(1)", "Sort"),
        Binding("S", "sort(-1)", "Sort by the column before", show=False),
        Binding("r", "turn", "Turn the order round", show=False),
        Binding("tab", "next(1)", "Next list", show=False, priority=True),
        Binding("shift+tab", "next(-1)", "List before", show=False, priority=True),
        *(
            Binding(f"{place},{key}", f"go('{name}')", f"To {title.lower()}", show=False)
            for place, (key, name, title) in enumerate(zip("jwu", LISTS, _TITLES, strict=True), start=1)
        ),
        Binding("t", "theme", "Next theme", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._view: ServiceView | None = None
        self._filter = ""
        self._ready = False
        # Held here, since the timer may tick before they are mounted and while they are taken away.
        self._notice = FixedLines("notice")
        self._overview = FixedLines("overview")
        self._tabs = Tabs(_TITLES, "lists")
        self.table = Table(self.COLUMNS, "table")
        self._details = FixedLines("details")
        self._box = FilterBox("rows")

    # What a list says -------------------------------------------------------------------------------------------------

    def rows(self, view: ServiceView, now: float) -> list[Row]:
        """Return what the table shows."""
        raise NotImplementedError

    def empty(self, view: ServiceView) -> str:
        """Return what to say where there is no row."""
        raise NotImplementedError

    def details(self, view: ServiceView, row: Row | None) -> Sequence[str]:
        """Return what is said below the table."""
        return row.details if row is not None else ()

    def remark(self, view: ServiceView) -> str:
        """Return what is said beside the number of rows; nothing, unless a list says otherwise."""
        return ""

    # Drawing ----------------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Make all parts."""
        yield self._notice
        yield self._tabs
        yield self._overview
        yield self.table
        yield self._details
        yield self._box
        yield from self.compose_foot()

    def on_mount(self) -> None:
        """Arrange what there is."""
        self._ready = True
        self._arrange()

    def on_resize(self, _: events.Resize) -> None:
        """Arrange for the new room."""
        if self._ready:
            self._arrange()

    def _arrange(self) -> None:
        self.set_class(self.size.height < _LOW, "low")
        self._show_tabs()
        self.call_after_refresh(self._draw)

    def _show_tabs(self) -> None:
        rest = self.table.rest if self.has_class("low") else ""  # else the table's border tells it
        self._tabs.choose(LISTS.index(self.NAME) + 1, self.size.width, rest)

    def show(self, view: ServiceView | None, notice: str) -> None:
        """Draw a view, and what is to be known of the way to it."""
        self._view = view
        if self._ready:
            self._notice.display = bool(notice)
            if notice:
                self._notice.show([(Span(fitted(notice, max(1, self.size.width)), "strong"),)])
            self._draw()

    def _draw(self) -> None:
        view, width, now = self._view, max(1, self.size.width), self._app.shown_seconds()
        self._overview.show([overview_line(view, now, width)])
        if view is None:
            self.table.show([], "Nothing is known yet.")
        else:
            rows = self.rows(view, now)
            found = holding(rows, self._filter)
            remark = hidden_words(len(found), len(rows), self._filter)
            self.table.show(found, remark or self.empty(view), remark)
            self.table.border_title = f"{_TITLES[LISTS.index(self.NAME)]} ── {len(found):,}" + (
                f" of {len(rows):,}" if remark else ""
            )
            if more := self.remark(view):
                self.table.border_title += f" ── {more}"
        self._show_tabs()
        self._show_details()
        self.look_at_offers()

    def _show_details(self) -> None:
        if self._view is None:
            return
        room = max(1, self._details.size.width)
        words = self.details(self._view, self.table.chosen)
        most = self._details.size.height or _DETAILS
        lines: list[Line] = []
        for place, each in enumerate(words):
            # Each has a line at least, as far as there are lines; what needs more has those that no other needs.
            free = max(1, most - len(lines) - (len(words) - place - 1))
            texts = wrapped(each, room)
            if len(texts) > free:
                texts[free - 1 :] = [fitted(rest_after(each, texts[: free - 1]), room)]
            lines += [(Span(text, "bad" if each.startswith("!") else "plain"),) for text in texts]
        self._details.show([*lines[:most], *[()] * max(0, most - len(lines))])

    # What keys do -----------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide what does nothing now, and what those may not do who only look."""
        match action:
            case "log":
                return self._app.log_lines is not None
            case "open":
                return self.OPENS and self.table.chosen is not None
            case "sort":
                return self.table.count > 0
            case "turn":
                return self.table.count > 0 and self.table.sorting.column is not None
            case "filter":
                return self.table.count > 0 or self._filters
            case "go":
                return parameters != (self.NAME,)
            case "back":
                return LISTS[0] != self.NAME or self._filters
        return not self._app.service.read_only if action in STEERING else True

    @property
    def _filters(self) -> bool:
        """Whether only some rows are shown, or somebody says which."""
        return bool(self._filter) or self._box.display

    def offered(self) -> object:
        """Return what it depends on which keys do something: what is shown."""
        return tuple(self.check_action(action, ()) for action in ("open", "turn", "back"))

    def on_table_chosen(self) -> None:
        """Tell of another row."""
        self._show_details()
        self.refresh_bindings()

    def on_row_list_opened(self) -> None:
        """Open what was clicked twice."""
        if self.on_top:
            self.action_open()

    def on_table_headed(self, event: Table.Headed) -> None:
        """Sort by the title that was clicked; the other way round by the one that it is sorted by."""
        before = self.table.sorting
        again = before.column == event.column
        self._sort(Sorting(event.column, falling=not before.falling if again else False))

    def on_tabs_chosen(self, event: Tabs.Chosen) -> None:
        """Go to the list whose name was clicked."""
        self.action_go(LISTS[event.number - 1])

    def action_open(self) -> None:
        """Show what is behind the chosen row: nothing, unless a list says otherwise."""

    def action_go(self, name: str) -> None:
        """Go to a list."""
        self._app.go(name)

    def action_next(self, step: int) -> None:
        """Go to the next list, or the one before."""
        self._app.go(LISTS[(LISTS.index(self.NAME) + step) % len(LISTS)])

    def action_back(self) -> None:
        """Show all rows again, or go back to where one came from."""
        if self._filters:
            self._box.close(clear=True)
            self.table.focus()
        else:
            self._app.back()

    def action_log(self) -> None:
        """Show what the master logs, where it is in this process."""
        self._app.show_log()

    def action_sort(self, step: int) -> None:
        """Sort by the next column, or the one before; after the last one, as they come."""
        number = -1 if self.table.sorting.column is None else self.table.sorting.column
        number = (number + 1 + step) % (len(self.COLUMNS) + 1) - 1
        self._sort(Sorting(None if number < 0 else number))

    def action_turn(self) -> None:
        """Turn the order round."""
        before = self.table.sorting
        if before.column is not None:
            self._sort(Sorting(before.column, falling=not before.falling))

    def _sort(self, sorting: Sorting) -> None:
        self.table.sort(sorting)
        self._draw()

    def action_filter(self) -> None:
        """Ask for a text that rows must hold."""
        self._box.open()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while somebody types."""
        self._filter = event.value
        self._draw()

    def on_input_submitted(self) -> None:
        """Keep the filter."""
        self._box.close(clear=False)
        self.set_focus(self.table)

    def action_leave(self) -> None:
        """Leave; jobs go on."""
        self._app.leave()
