"""A box whose contents scroll, as those of dialogs and of the form do."""

from __future__ import annotations

from textual.containers import VerticalScroll
from textual.content import Content

from .lines import rest_words


class Box(VerticalScroll):
    """What scrolls; how many lines are out of sight is told in the border."""

    def __init__(self, id: str, *, can_focus: bool = True) -> None:  # noqa: A002 - Textual's word
        super().__init__(id=id, can_focus=can_focus)
        self._rest = ""

    @property
    def rest(self) -> str:
        """How many lines are out of sight; nothing where none is."""
        return self._rest

    def watch_scroll_y(self, old: float, new: float) -> None:
        """Say how much is out of sight now."""
        super().watch_scroll_y(old, new)
        self.tell_rest()

    def on_resize(self) -> None:
        """Say it of the new room."""
        self.call_after_refresh(self.tell_rest)

    def tell_rest(self) -> None:
        """Say in the border how many lines are out of sight."""
        self._rest = rest_words(round(self.scroll_y), round(self.max_scroll_y - self.scroll_y))
        self.border_subtitle = Content(self._rest)
