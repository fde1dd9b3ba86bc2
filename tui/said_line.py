"""What came of a key, just above the line of keys: never over what somebody writes or decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from textual.strip import Strip
from textual.widget import Widget

from .cells import cut_lines
from .lines import Span, clock_words
from .panes import LINE_ROLES, LINE_STYLES, line_strip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.timer import Timer

_LEAST_SECONDS: Final = 3.0
_MOST_SECONDS: Final = 15.0
_CHARACTERS_A_SECOND: Final = 15
"""As slow readers read."""
_SHARE: Final = 4
"""One line of so many it may take at most."""


_LATE_SECONDS: Final = 10.0
"""What is told later than that after it came about says so."""


class Said(NamedTuple):
    """Some words, harmless to show, whether they are why something is not done, and when that was (monotonic)."""

    words: str
    refused: bool
    when: float


def told_words(said: Said, now: float) -> str:
    """Return what is shown of it, with how long ago it was where that is not just now: a dialog may have been open.

    >>> told_words(Said("w5 makes it, too", False, 100.0), 100.5)
    '▸ w5 makes it, too'
    >>> told_words(Said("w5 makes it, too", False, 100.0), 225.0), told_words(Said("it is over", True, 0.0), 12.0)
    ('▸ 2m05s ago: w5 makes it, too', '! not done, 12s ago: it is over')
    """
    late = now - said.when
    ago = f"{clock_words(late)} ago" if late >= _LATE_SECONDS else ""
    if said.refused:
        return f"! not done{', ' if ago else ''}{ago}: {said.words}"
    return f"▸ {ago}: {said.words}" if ago else f"▸ {said.words}"


def reading_seconds(words: str) -> float:
    """Return for how long words are shown.

    >>> reading_seconds("job 7f3a is cancelled") < 5 < 10 < reading_seconds("x" * 1000) <= 15
    True
    """
    return min(_MOST_SECONDS, _LEAST_SECONDS + len(words) / _CHARACTERS_A_SECOND)


class SaidLine(Widget):
    """Shows words as long as it takes to read them, or until they are clicked. What lies below stays where it is."""

    COMPONENT_CLASSES: ClassVar[set[str]] = LINE_ROLES
    DEFAULT_CSS = (
        "SaidLine { layer: said; dock: bottom; margin-bottom: 1; display: none; background: $primary 30%; "
        + LINE_STYLES.replace("> .", "& > .")
        + " } SaidLine.refused { background: $error 30%; }"
    )

    def __init__(self) -> None:
        super().__init__(id="said")
        self._shown: list[Said] = []
        self._words: list[str] = []
        self._timer: Timer | None = None

    def say(self, said: Sequence[Said], now: float) -> None:
        """Show these, at a moment of the monotonic clock, in place of what was shown before."""
        self._shown = list(said)
        self._words = [told_words(each, now) for each in said]
        self.set_class(any(each.refused for each in said), "refused")
        self.styles.height = max(1, len(self._lines()))
        self.display = True
        self.refresh()
        if self._timer is not None:
            self._timer.stop()
        # The application's timer: this may not be mounted yet.
        self._timer = self.app.set_timer(reading_seconds(" ".join(self._words)), self.hide)

    def hide(self) -> list[Said]:
        """Show nothing any more; return what was shown."""
        shown, self._shown, self._words = self._shown, [], []
        self.display = False
        return shown

    def on_resize(self) -> None:
        """Fold the words for the new room."""
        self.styles.height = max(1, len(self._lines()))

    def on_click(self) -> None:
        """Take what is read away."""
        self.hide()

    def _lines(self) -> list[str]:
        width, height = self.app.size
        return cut_lines("\n".join(self._words), width - 2, max(1, height // _SHARE))

    def render_line(self, y: int) -> Strip:
        """Return one line."""
        width, lines = self.size.width, self._lines()
        if y >= len(lines):
            return Strip.blank(width, self.rich_style)
        return line_strip(self, (Span(f" {lines[y]}", "strong"),), width)
