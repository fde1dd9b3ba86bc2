"""The line of keys at the bottom of a screen. Textual's own is cut where there is no room, and does not say so."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from .key_words import Key, told_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual import events
    from textual.binding import Binding
    from textual.screen import Screen


class KeyLine(Widget):
    """The keys that do something now, as far as there is room; a click presses one.

    Args:
        first: Actions in order of importance, as for ``told_keys``.
        words: Returns what is said of a key.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"keys--key", "keys--words"}
    DEFAULT_CSS = """
    KeyLine { dock: bottom; height: 1; background: $footer-background; }
    KeyLine > .keys--key {
        color: $footer-key-foreground; background: $footer-key-background; text-style: bold;
    }
    KeyLine > .keys--words { color: $footer-description-foreground; background: $footer-description-background; }
    """

    def __init__(self, first: Sequence[str], words: Callable[[Binding], str]) -> None:
        super().__init__(id="keys")
        self._first = first
        self._words = words
        self._keys: list[Key] = []

    def on_mount(self) -> None:
        """Follow what the keys do."""
        self.screen.bindings_updated_signal.subscribe(self, self._look)
        self.call_after_refresh(self._look, self.screen)

    def on_resize(self) -> None:
        """Tell as many as there is room for now."""
        self._look(self.screen)

    @property
    def told(self) -> list[Key]:
        """The keys that are told now, in their order."""
        return self._keys

    def _look(self, screen: Screen[object]) -> None:
        if not self.is_attached or screen is not self.screen:
            return
        found: dict[str, Key] = {}
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.show and binding.description and active.enabled:
                action = binding.action.partition("(")[0]
                shown = self.app.get_key_display(binding)
                found.setdefault(binding.action, Key(action, binding.key, shown, self._words(binding)))
        keys = told_keys(list(found.values()), self._first, self.size.width)
        if keys != self._keys:
            self._keys = keys
            self.refresh()

    def render_line(self, _y: int) -> Strip:
        """Return the line."""
        key_style = self.get_component_rich_style("keys--key")
        words_style = self.get_component_rich_style("keys--words")
        segments = [
            Segment(text, style)
            for key in self._keys
            for text, style in ((f" {key.shown} ", key_style), (f"{key.words} ", words_style))
        ]
        return Strip(segments).adjust_cell_length(self.size.width).apply_style(self.rich_style)

    def on_click(self, event: events.Click) -> None:
        """Press the key at the mouse."""
        column = 0
        for key in self._keys:
            column += key.width
            if event.x < column:
                self.app.simulate_key(key.press)
                return
