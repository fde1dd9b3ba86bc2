"""A list of any length, of which only the rows in sight are made: the children of a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from .panes import LINE_ROLES, LINE_STYLES, line_strip

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual import events

    from .lines import Line

_MARK = 2


class ChildList(ScrollView, can_focus=True, inherit_bindings=False):
    """Rows by their places, of which one is chosen.

    Attributes:
        cursor: The place of the chosen row.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = LINE_ROLES | {"children--chosen"}
    DEFAULT_CSS = (
        "ChildList { overflow-x: hidden; scrollbar-size-vertical: 1; "
        + LINE_STYLES.replace("> .", "& > .")
        + " & > .children--chosen { background: $panel; text-style: bold; } }"
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "go(-1)", "Child above", show=False),
        Binding("down", "go(1)", "Child below", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "go(-1000000000)", "First child", show=False),
        Binding("end", "go(1000000000)", "Last child", show=False),
    ]

    class Opened(Message):
        """Somebody wants to see what is behind the chosen row."""

    def __init__(self, id: str, classes: str) -> None:  # noqa: A002 - Textual's word
        super().__init__(id=id, classes=classes)
        self.cursor = 0
        self._count = 0
        self._line_of: Callable[[int, int], Line] = _no_line
        self._drawn: list[Line] = []
        self._title = ""
        self.border_title = Content("1 Children")

    @property
    def in_sight(self) -> range:
        """The places of the rows that are in sight."""
        top = self.scroll_offset.y
        return range(min(top, self._count), min(self._count, top + max(1, self.scrollable_content_region.height)))

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
            self._keep_in_sight()
        lines = [line_of(place, max(0, width - _MARK)) for place in self.in_sight]
        if lines != self._drawn:
            self._drawn = lines
            self.refresh()

    def choose(self, place: int) -> None:
        """Choose a row by its place; beyond the ends, the last one there."""
        self.cursor = max(0, min(place, self._count - 1))
        self._keep_in_sight()
        self.refresh()

    def on_resize(self) -> None:
        """Keep the chosen row in sight."""
        self.call_after_refresh(self._keep_in_sight)

    def action_go(self, step: int) -> None:
        """Choose another row."""
        self.choose(self.cursor + step)

    def action_page(self, step: int) -> None:
        """Choose the row a page away."""
        self.choose(self.cursor + step * max(1, self.scrollable_content_region.height - 1))

    def _keep_in_sight(self) -> None:
        top, rows = self.scroll_offset.y, max(1, self.scrollable_content_region.height)
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False)
        elif self.cursor >= top + rows:
            self.scroll_to(y=self.cursor - rows + 1, animate=False)

    def on_click(self, event: events.Click) -> None:
        """Choose the row at the mouse, and open the one that is chosen already."""
        self.focus()
        where = event.get_content_offset(self)
        if where is None or (place := where.y + self.scroll_offset.y) >= self._count:
            return
        if place == self.cursor and event.chain > 1:
            self.post_message(self.Opened())
        else:
            self.choose(place)

    def render_line(self, y: int) -> Strip:
        """Return a row of those in sight."""
        width = self.scrollable_content_region.width
        place = y + self.scroll_offset.y
        if place >= self._count:
            return Strip.blank(width, self.rich_style)
        line = line_strip(self, self._line_of(place, max(0, width - _MARK)), max(0, width - _MARK))
        mark = "▸ " if place == self.cursor else "  "
        strip = Strip.join([Strip([Segment(mark)]), line]).adjust_cell_length(width).apply_style(self.rich_style)
        if place != self.cursor:
            return strip
        over = self.get_component_rich_style("children--chosen", partial=True)
        return Strip([Segment(text, (style or self.rich_style) + over) for text, style, _ in strip], width)


def _no_line(_place: int, _width: int) -> Line:
    return ()
