"""Widgets of lines: the header, panes that scroll, the row of tabs, and the scrubber of a replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from .lines import Line, Span, clock_words, rest_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events

LINE_ROLES: set[str] = {"lines--plain", "lines--dim", "lines--strong", "lines--good", "lines--warn", "lines--bad"}
_BEFORE_REST: Final = 2
"""Columns between the tabs and what is told beside them."""
LINE_STYLES = """
    > .lines--plain { color: $foreground; }
    > .lines--dim { color: $faint; }
    > .lines--strong { color: $foreground; text-style: bold; }
    > .lines--good { color: $text-primary; }
    > .lines--warn { color: $text-warning; }
    > .lines--bad { color: $text-error; text-style: bold; }
"""


def line_strip(widget: Widget, line: Line, width: int) -> Strip:
    """Return a line as a strip of some width, in the theme's colours."""
    segments = [
        Segment(span.text, widget.get_component_rich_style(f"lines--{span.role}", partial=True)) for span in line
    ]
    return Strip(segments).adjust_cell_length(width).apply_style(widget.rich_style)


class FixedLines(Widget):
    """Some lines, always as many."""

    COMPONENT_CLASSES: ClassVar[set[str]] = LINE_ROLES
    DEFAULT_CSS = "FixedLines { height: auto; " + LINE_STYLES.replace("> .", "& > .") + " }"

    def __init__(self, id: str) -> None:  # noqa: A002 - Textual's word
        super().__init__(id=id)
        self._lines: tuple[Line, ...] = ()

    def show(self, lines: Sequence[Line]) -> None:
        """Draw lines; those that are as they were are left alone."""
        before, self._lines = self._lines, tuple(lines)
        changed = [place for place, line in enumerate(self._lines) if before[place : place + 1] != (line,)]
        if changed:
            self.refresh(*(Region(0, place, self.size.width, 1) for place in changed))

    def render_line(self, y: int) -> Strip:
        """Return one line."""
        width = self.size.width
        return line_strip(self, self._lines[y], width) if y < len(self._lines) else Strip.blank(width, self.rich_style)


class LinesPane(ScrollView, can_focus=True, inherit_bindings=False):
    """Lines that scroll.

    Args:
        name: What it shows, with its number.
        follow: Whether the last lines stay in sight as new ones come, unless somebody has scrolled up.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = LINE_ROLES
    DEFAULT_CSS = (
        "LinesPane { overflow-x: hidden; scrollbar-size-vertical: 1; " + LINE_STYLES.replace("> .", "& > .") + " }"
    )

    BINDINGS: ClassVar[list[BindingType]] = [  # none to the left and the right, which screens have their own use for
        Binding("up", "scroll_up", "Scroll up", show=False),
        Binding("down", "scroll_down", "Scroll down", show=False),
        Binding("pageup", "page_up", "Page up", show=False),
        Binding("pagedown", "page_down", "Page down", show=False),
        Binding("home", "scroll_home", "To the first line", show=False),
        Binding("end", "scroll_end", "To the last line", show=False),
    ]

    def __init__(self, title: str, *, follow: bool = False, id: str, classes: str) -> None:  # noqa: A002 - Textual's word
        super().__init__(id=id, classes=classes)
        self._lines: list[Line] = []
        self._follow = follow
        self._going = False
        self._rest = ""
        self._title = title
        self.border_title = Content(title)

    @property
    def rest(self) -> str:
        """How many lines are out of sight; nothing where none is."""
        return self._rest

    def show(self, lines: list[Line], title: str = "") -> None:
        """Draw lines, of which those that are as they were are left alone, and a title."""
        if title and title != self._title:
            self._title = title
            self.border_title = Content(title)
        if lines == self._lines:
            self._tell_rest()
            return
        at_end = self._going or self.scroll_offset.y >= self.max_scroll_y
        before, self._lines = self._lines, lines
        width, height = self.scrollable_content_region.size
        if len(before) != len(lines) or self.virtual_size.width != width:
            self.virtual_size = Size(width, len(lines))
            if len(lines) <= height:
                self.show_vertical_scrollbar = False  # Textual keeps it where these just fit beside it.
            if at_end:
                self._go_to_end()
            self.refresh()
            self._tell_rest()
            return
        top = self.scroll_offset.y
        changed = [place for place in range(top, min(len(lines), top + height)) if before[place] != lines[place]]
        if changed:
            self.refresh(*(Region(0, place - top, width, 1) for place in changed))

    def watch_scroll_y(self, old: float, new: float) -> None:
        """Say how much is below now."""
        super().watch_scroll_y(old, new)
        self._tell_rest()

    def _tell_rest(self) -> None:
        """Say in the border how many lines are out of sight, so that nobody takes what is cut for all there is."""
        above = round(self.scroll_y)
        below = max(0, len(self._lines) - above - self.scrollable_content_region.height)
        words = rest_words(above, below)
        if words != self._rest:
            self._rest = words
            self.border_subtitle = Content(words)

    def on_resize(self) -> None:
        """Keep the end in sight."""
        self._tell_rest()
        self._go_to_end()

    def _go_to_end(self) -> None:
        """Scroll to the end as soon as it is known where that is."""
        if self._follow:
            self._going = True
            self.call_after_refresh(self._arrive)

    def _arrive(self) -> None:
        # Not at once: where the pane has just come in sight, its place is known only after the next layout.
        self.scroll_end(animate=False)
        self.call_after_refresh(self._stop_going)

    def _stop_going(self) -> None:
        self._going = False

    def render_line(self, y: int) -> Strip:
        """Return one line of those in sight."""
        width = self.scrollable_content_region.width
        place = y + self.scroll_offset.y
        return (
            line_strip(self, self._lines[place], width)
            if place < len(self._lines)
            else Strip.blank(width, self.rich_style)
        )


class Tabs(FixedLines):
    """The panes by number, where only one of them is shown.

    Args:
        names: Theirs.
        id: The widget's.
        shorter: Shorter names, and still shorter ones, where there are any.
    """

    class Chosen(Message):
        """Somebody has clicked a tab."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self, names: Sequence[str], id: str, *shorter: Sequence[str]) -> None:  # noqa: A002 - Textual's word
        super().__init__(id)
        self._names = (names, *shorter)

    def choose(self, number: int, width: int, rest: str = "") -> None:
        """Show which pane is there: by short names where there is little room, and by numbers where there is less.

        Args:
            number: Of the pane.
            width: Columns.
            rest: What of it is out of sight, told at the right where no border tells it.
        """
        room = width - len(rest) - _BEFORE_REST if rest else width
        only = [name if place == number else "" for place, name in enumerate(self._names[-1], start=1)]
        for names in (*self._names, only):
            self._texts = [
                f"{'▸' if place == number else ' '}{place}{' ' if name else ''}{name}"
                for place, name in enumerate(names, start=1)
            ]
            if sum(map(len, self._texts)) <= room:
                break
        tabs = tuple(
            Span(text, "strong" if place == number else "dim") for place, text in enumerate(self._texts, start=1)
        )
        left = width - sum(map(len, self._texts)) - len(rest)
        self.show([(*tabs, Span(" " * left + rest)) if rest and left > 0 else tabs])

    def on_click(self, event: events.Click) -> None:
        """Choose the tab at the mouse."""
        column = 0
        for number, text in enumerate(self._texts, start=1):
            column += len(text)
            if event.x < column:
                self.post_message(self.Chosen(number))
                return


class Scrubber(FixedLines):
    """Where a replay is; a click goes there."""

    class Sought(Message):
        """Somebody has clicked a place, a share of the whole."""

        def __init__(self, share: float) -> None:
            super().__init__()
            self.share = share

    def tell(self, share: float, seconds: float, end: float, speed: float, *, playing: bool, behind: bool) -> None:
        """Show a place."""
        sign = "…" if behind else "▶" if playing else "‖"
        left = f"{sign} {speed:g}x "
        right = f" {clock_words(seconds)} of {clock_words(end)}"
        self._from, self._room = len(left), max(1, self.size.width - len(left) - len(right))
        place = min(self._room - 1, int(share * self._room))
        bar = (Span("━" * place, "good"), Span("●", "strong"), Span("─" * (self._room - place - 1), "dim"))
        self.show([(Span(left, "strong"), *bar, Span(right))])

    def on_click(self, event: events.Click) -> None:
        """Go to where the mouse is."""
        share = (event.x - self._from) / max(1, self._room - 1)
        self.post_message(self.Sought(min(1.0, max(0.0, share))))
