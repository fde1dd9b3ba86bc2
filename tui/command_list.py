"""The command palette, in terminals of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from textual import on
from textual.command import CommandList, CommandPalette
from textual.content import Content
from textual.widgets import Input, OptionList

from .left_once import LeftOnce
from .lines import rest_words

if TYPE_CHECKING:
    from textual.message import Message

_PAGES: Final = {("page_up",), ("page_down",)}
_LOW: Final = 16
"""Lines below which the list has all of them."""


class Commands(LeftOnce[None], CommandPalette):
    """All that can be done, to be searched. Where a tiny terminal has no room for the list, Textual would fail."""

    DEFAULT_CSS = """
    Commands CommandList { min-width: 12; border-subtitle-color: $text; }
    Commands.low > Vertical { margin-top: 0; }
    Commands.low #--input, Commands.low CommandInput, Commands.low CommandInput:focus { border: none; height: 1; }
    Commands.low SearchIcon { margin-top: 0; }
    Commands.low CommandList { border-top: none; max-height: 80vh; }
    """

    def on_mount(self) -> None:
        """Say how many commands are out of sight whenever that may be another number."""
        for name in ("scroll_y", "virtual_size"):
            self.watch(self.query_one(CommandList), name, self._tell_later)

    def on_resize(self) -> None:
        """Take less room where there is little."""
        self.set_class(self.size.height < _LOW, "low")
        self._tell_later()

    def _tell_later(self) -> None:
        self.call_after_refresh(self._tell_rest)

    def _tell_rest(self) -> None:
        for found in self.query(CommandList):
            lines = found._lines  # noqa: SLF001 - only Textual knows into how many lines it has broken each
            seen = lines[found.scroll_offset.y :][: found.scrollable_content_region.height]
            above, below = (seen[0][0], found.option_count - 1 - seen[-1][0]) if seen else (0, found.option_count)
            found.border_subtitle = Content(rest_words(above, below))

    @on(Input.Submitted)
    @on(OptionList.OptionSelected)
    def _choose_once(self, event: Message) -> None:
        """Let a second key, pressed before the list was gone, choose nothing: what was chosen would be done twice."""
        if not self.on_top:
            event.stop()
            event.prevent_default()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer pages where there are some."""
        if parameters in _PAGES:
            return all(commands.scrollable_content_region for commands in self.query(CommandList))
        return super().check_action(action, parameters)
