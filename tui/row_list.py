"""What has rows of which one is chosen, by keys and the mouse."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from .lines import rest_words
from .panes import LINE_ROLES, LINE_STYLES

if TYPE_CHECKING:
    from textual import events


class RowList(ScrollView, can_focus=True, inherit_bindings=False):
    """Rows by their places, below some titles that stay in sight.

    Attributes:
        TITLES: Lines of titles.
        cursor: The place of the chosen row.
    """

    TITLES: ClassVar[int] = 0
    COMPONENT_CLASSES: ClassVar[set[str]] = LINE_ROLES | {"rows--chosen"}
    DEFAULT_CSS = (
        "RowList { overflow-x: hidden; scrollbar-size-vertical: 1; "
        + LINE_STYLES.replace("> .", "& > .")
        + " & > .rows--chosen { background: $panel; text-style: bold; } }"
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "go(-1)", "Row above", show=False),
        Binding("down", "go(1)", "Row below", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "go(-1000000000)", "First row", show=False),
        Binding("end", "go(1000000000)", "Last row", show=False),
    ]

    class Opened(Message):
        """Somebody wants to see what is behind the chosen row."""

    def __init__(self, id: str, classes: str = "") -> None:  # noqa: A002 - Textual's word
        super().__init__(id=id, classes=classes)
        self.cursor = 0
        self._rest = ""

    @property
    def count(self) -> int:
        """How many rows there are."""
        raise NotImplementedError

    @property
    def room(self) -> int:
        """How many rows are in sight at once."""
        return max(1, self.scrollable_content_region.height - self.TITLES)

    @property
    def rest(self) -> str:
        """How many rows are out of sight; nothing where none is."""
        return self._rest

    def choose(self, place: int) -> None:
        """Choose a row by its place; beyond the ends, the last one there."""
        self.cursor = max(0, min(place, self.count - 1))
        self.keep_in_sight()
        self.refresh()

    def keep_in_sight(self) -> None:
        """Scroll to the chosen row."""
        top = self.scroll_offset.y
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False)
        elif self.cursor >= top + self.room:
            self.scroll_to(y=self.cursor - self.room + 1, animate=False)

    def watch_scroll_y(self, old: float, new: float) -> None:
        """Say how much is out of sight now."""
        super().watch_scroll_y(old, new)
        self.tell_rest()

    def tell_rest(self) -> None:
        """Say in the border how many rows are out of sight."""
        above = round(self.scroll_y)
        words = rest_words(above, max(0, self.count - above - self.room))
        if words != self._rest:
            self._rest = words
            self.border_subtitle = Content(words)

    def action_go(self, step: int) -> None:
        """Choose another row."""
        self.choose(self.cursor + step)

    def action_page(self, step: int) -> None:
        """Choose the row a page away."""
        self.choose(self.cursor + step * max(1, self.room - 1))

    def click_title(self, column: int) -> None:
        """Take a click on the titles, so many columns from the left."""

    def on_click(self, event: events.Click) -> None:
        """Choose the row at the mouse, and open the one that is chosen already."""
        self.focus()
        where = event.get_content_offset(self)
        if where is None:
            return
        if where.y < self.TITLES:
            self.click_title(where.x)
            return
        place = where.y - self.TITLES + self.scroll_offset.y
        if place >= self.count:
            return
        if place == self.cursor and event.chain > 1:
            self.post_message(self.Opened())
        else:
            self.choose(place)

    def marked(self, place: int, line: Strip, width: int) -> Strip:
        """Return the line of a row with the mark of the chosen one in front of it, or the room for that."""
        chosen = place == self.cursor
        strip = Strip.join([Strip([Segment("▸ " if chosen else "  ")]), line])
        strip = strip.adjust_cell_length(width).apply_style(self.rich_style)
        if not chosen:
            return strip
        over = self.get_component_rich_style("rows--chosen", partial=True)
        return Strip([Segment(text, (style or self.rich_style) + over) for text, style, _ in strip], width)
