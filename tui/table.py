"""A table that is gone through with keys and the mouse, of rows that change while somebody looks."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from .lines import Span
from .panes import LINE_ROLES, LINE_STYLES, line_strip
from .table_lines import GAP, MARK, Column, Place, Row, Sorting, arranged, cell_line, head_cell, places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.style import Style
    from textual import events


class _Drawn(NamedTuple):
    """What a table is drawn from."""

    rows: list[Row]
    places: list[Place]
    remark: str


class Table(ScrollView, can_focus=True, inherit_bindings=False):
    """Rows of which one is chosen. It stays chosen wherever it goes.

    Args:
        columns: What rows have.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = LINE_ROLES | {"table--chosen"}
    DEFAULT_CSS = (
        "Table { overflow-x: hidden; scrollbar-size-vertical: 1; "
        + LINE_STYLES.replace("> .", "& > .")
        + " & > .table--chosen { background: $panel; text-style: bold; } }"
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "go(-1)", "Row above", show=False),
        Binding("down", "go(1)", "Row below", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "go(-1000000000)", "First row", show=False),
        Binding("end", "go(1000000000)", "Last row", show=False),
    ]

    class Chosen(Message):
        """Another row was chosen."""

    class Opened(Message):
        """Somebody wants to see what is behind the chosen row."""

    class Headed(Message):
        """Somebody has clicked a title."""

        def __init__(self, column: int) -> None:
            super().__init__()
            self.column = column

    def __init__(self, columns: Sequence[Column], id: str) -> None:  # noqa: A002 - Textual's word
        super().__init__(id=id)
        self.columns = columns
        self.sorting = Sorting()
        self._rows: list[Row] = []
        self._empty = ""
        self._remark = ""
        self._cursor = 0
        self._drawn: _Drawn | None = None

    @property
    def chosen(self) -> Row | None:
        """The chosen row; None of none."""
        return self._rows[self._cursor] if self._rows else None

    def show(self, rows: Sequence[Row], empty: str, remark: str = "") -> None:
        """Draw rows.

        Args:
            rows: All of them, in the order in which they come unless somebody sorts them.
            empty: What to say where there are none, in paragraphs.
            remark: Said below the last row.
        """
        chosen = self.chosen
        self._rows, self._empty, self._remark = arranged(rows, self.sorting), empty, remark
        if chosen is not None:
            found = next((place for place, row in enumerate(self._rows) if row.key == chosen.key), self._cursor)
            self._cursor = min(found, max(0, len(self._rows) - 1))
        self._layout()

    def sort(self, sorting: Sorting) -> None:
        """Sort from now on; the rows are drawn so when they are shown again."""
        self.sorting = sorting
        self._drawn = None

    def _layout(self) -> None:
        width = self.scrollable_content_region.width
        drawn = _Drawn(self._rows, places(self.columns, width), self._remark if self._rows else self._empty)
        if drawn == self._drawn:
            return
        self._drawn = drawn
        self.virtual_size = Size(width, len(self._rows) + 1 + bool(self._remark))
        self.refresh()

    def on_resize(self) -> None:
        """Give columns the new room."""
        self._layout()
        self.call_after_refresh(self._keep_in_sight)

    def on_focus(self) -> None:
        """Show where it is."""
        self.refresh()

    def action_go(self, step: int) -> None:
        """Choose another row."""
        self.choose(self._cursor + step)

    def action_page(self, step: int) -> None:
        """Choose the row a page away."""
        self.choose(self._cursor + step * max(1, self.size.height - 2))

    def choose(self, place: int) -> None:
        """Choose a row by its place; beyond the ends, the last one there."""
        self._cursor = max(0, min(place, len(self._rows) - 1))
        self._keep_in_sight()
        self.refresh()
        self.post_message(self.Chosen())

    def _keep_in_sight(self) -> None:
        top, rows = self.scroll_offset.y, max(1, self.size.height - 1)
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False)
        elif self._cursor >= top + rows:
            self.scroll_to(y=self._cursor - rows + 1, animate=False)

    def on_click(self, event: events.Click) -> None:
        """Choose the row at the mouse, and open the one that is chosen already; at a title, sort."""
        self.focus()
        where = event.get_content_offset(self)
        if where is None:
            return
        if where.y == 0:
            titles = (each for each in self._places() if each.start <= where.x < each.start + each.width + GAP)
            if (title := next(titles, None)) is not None:
                self.post_message(self.Headed(title.column))
            return
        row = where.y - 1 + self.scroll_offset.y
        if row >= len(self._rows):
            return
        if row == self._cursor and event.chain > 1:
            self.post_message(self.Opened())
        else:
            self.choose(row)

    def _places(self) -> list[Place]:
        return self._drawn.places if self._drawn is not None else []

    def render_line(self, y: int) -> Strip:
        """Return the titles, or a row of those in sight."""
        width = self.scrollable_content_region.width
        if not self._rows:
            return self._empty_line(y, width)
        if y == 0:
            cells = [
                head_cell(self.columns[each.column], each.width, self.sorting, each.column) for each in self._places()
            ]
            return self._joined(" " * MARK, cells, width, None)
        place = y - 1 + self.scroll_offset.y
        if place == len(self._rows) and self._remark:
            return line_strip(self, (Span(" " * MARK + self._remark, "dim"),), width)
        if place >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        row = self._rows[place]
        cells = [cell_line(row.cells[each.column], self.columns[each.column], each.width) for each in self._places()]
        if place != self._cursor:
            return self._joined(" " * MARK, cells, width, None)
        return self._joined("▸ ", cells, width, self.get_component_rich_style("table--chosen", partial=True))

    def _joined(self, mark: str, cells: Sequence[tuple[Span, ...]], width: int, over: Style | None) -> Strip:
        """Return cells side by side, each just as wide as its column, whatever characters it holds."""
        parts = [Strip([Segment(mark)])]
        for place, cell in zip(self._places(), cells, strict=True):
            parts += [line_strip(self, cell, place.width), Strip([Segment(" " * GAP)])]
        line = Strip.join(parts).adjust_cell_length(width).apply_style(self.rich_style)
        if over is None:
            return line
        return Strip([Segment(text, (style or self.rich_style) + over) for text, style, _ in line], width)

    def _empty_line(self, y: int, width: int) -> Strip:
        room = max(1, width - 2 * MARK)
        lines = [line for each in self._empty.split("\n") for line in textwrap.wrap(each, room) or [""]]
        if not 0 < y <= len(lines):
            return Strip.blank(width, self.rich_style)
        return line_strip(self, (Span(" " * MARK + lines[y - 1]),), width)
