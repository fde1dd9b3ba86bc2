"""A list of any length, of which only the rows in sight are made: the children of a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.geometry import Size
from textual.strip import Strip

from .panes import line_strip
from .row_list import RowList

if TYPE_CHECKING:
    from collections.abc import Callable

    from .lines import Line

_MARK = 2


class ChildList(RowList):
    """Rows that are made one by one, when they are in sight."""

    def __init__(self, id: str, classes: str) -> None:  # noqa: A002 - Textual's word
        super().__init__(id, classes)
        self._count = 0
        self._line_of: Callable[[int, int], Line] = _no_line
        self._drawn: list[Line] = []
        self._title = ""
        self.border_title = Content("1 Children")

    @property
    def count(self) -> int:
        """How many rows there are."""
        return self._count

    @property
    def in_sight(self) -> range:
        """The places of the rows that are in sight."""
        top = self.scroll_offset.y
        return range(min(top, self._count), min(self._count, top + self.room))

    def show(self, count: int, line_of: Callable[[int, int], Line], title: str) -> None:
        """Draw so many rows; ``line_of`` returns one by its place and the room for it."""
        if title != self._title:
            self._title = title
            self.border_title = Content(title)
        self._line_of = line_of
        width = self.scrollable_content_region.width
        if count != self._count or self.virtual_size.width != width:
            self._count = count
            self.cursor = min(self.cursor, max(0, count - 1))
            self.virtual_size = Size(width, count)
            self.keep_in_sight()
        self.tell_rest()
        lines = [line_of(place, max(0, width - _MARK)) for place in self.in_sight]
        if lines != self._drawn:
            self._drawn = lines
            self.refresh()

    def on_resize(self) -> None:
        """Keep the chosen row in sight."""
        self.call_after_refresh(self.keep_in_sight)

    def render_line(self, y: int) -> Strip:
        """Return a row of those in sight."""
        width = self.scrollable_content_region.width
        place = y + self.scroll_offset.y
        if place >= self._count:
            return Strip.blank(width, self.rich_style)
        line = line_strip(self, self._line_of(place, max(0, width - _MARK)), max(0, width - _MARK))
        return self.marked(place, line, width)


def _no_line(_place: int, _width: int) -> Line:
    return ()
