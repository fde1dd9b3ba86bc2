"""A table that is gone through with keys and the mouse, of rows that change while somebody looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rich.segment import Segment
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip

from .cells import wrapped
from .lines import Span
from .panes import line_strip
from .row_list import RowList
from .table_lines import GAP, MARK, Column, Place, Row, Sorting, arranged, cell_line, head_cell, places

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Drawn(NamedTuple):
    """What a table is drawn from."""

    rows: list[Row]
    places: list[Place]
    remark: str


class Table(RowList):
    """Rows of which one is chosen. It stays chosen wherever it goes.

    Args:
        columns: What rows have.
    """

    TITLES: ClassVar[int] = 1

    class Chosen(Message):
        """Another row was chosen."""

    class Headed(Message):
        """Somebody has clicked a title."""

        def __init__(self, column: int) -> None:
            super().__init__()
            self.column = column

    def __init__(self, columns: Sequence[Column], id: str) -> None:  # noqa: A002 - Textual's word
        super().__init__(id)
        self.columns = columns
        self.sorting = Sorting()
        self._rows: list[Row] = []
        self._empty = ""
        self._remark = ""
        self._drawn: _Drawn | None = None

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    @property
    def chosen(self) -> Row | None:
        """The chosen row; None of none."""
        return self._rows[self.cursor] if self._rows else None

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
            found = next((place for place, row in enumerate(self._rows) if row.key == chosen.key), self.cursor)
            self.cursor = min(found, max(0, len(self._rows) - 1))
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
        self.tell_rest()
        self.refresh()

    def on_resize(self) -> None:
        """Give columns the new room."""
        self._layout()
        self.tell_rest()
        self.call_after_refresh(self.keep_in_sight)

    def on_focus(self) -> None:
        """Show where it is."""
        self.refresh()

    def choose(self, place: int) -> None:
        """Choose a row by its place; beyond the ends, the last one there."""
        super().choose(place)
        self.post_message(self.Chosen())

    def click_title(self, column: int) -> None:
        """Sort by what is clicked at."""
        titles = (each for each in self._places() if each.start <= column < each.start + each.width + GAP)
        if (title := next(titles, None)) is not None:
            self.post_message(self.Headed(title.column))

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
            titles = Strip.join([Strip([Segment(" " * MARK)]), self._joined(cells)])
            return titles.adjust_cell_length(width).apply_style(self.rich_style)
        place = y - 1 + self.scroll_offset.y
        if place == len(self._rows) and self._remark:
            return line_strip(self, (Span(" " * MARK + self._remark, "dim"),), width)
        if place >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        row = self._rows[place]
        cells = [cell_line(row.cells[each.column], self.columns[each.column], each.width) for each in self._places()]
        return self.marked(place, self._joined(cells), width)

    def _joined(self, cells: Sequence[tuple[Span, ...]]) -> Strip:
        """Return cells side by side, each just as wide as its column, whatever characters it holds."""
        parts = []
        for place, cell in zip(self._places(), cells, strict=True):
            parts += [line_strip(self, cell, place.width), Strip([Segment(" " * GAP)])]
        return Strip.join(parts)

    def _empty_line(self, y: int, width: int) -> Strip:
        room = max(1, width - 2 * MARK)
        lines = [line for each in self._empty.split("\n") for line in wrapped(each, room)]
        if not 0 < y <= len(lines):
            return Strip.blank(width, self.rich_style)
        return line_strip(self, (Span(" " * MARK + lines[y - 1]),), width)
