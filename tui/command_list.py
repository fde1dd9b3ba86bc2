"""The command palette, in terminals of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from textual import on
from textual.command import CommandList, CommandPalette
from textual.widgets import Input, OptionList

from .left_once import LeftOnce

if TYPE_CHECKING:
    from textual.message import Message

_PAGES: Final = {("page_up",), ("page_down",)}


class Commands(LeftOnce[None], CommandPalette):
    """All that can be done, to be searched. Where a tiny terminal has no room for the list, Textual would fail."""

    DEFAULT_CSS = "Commands CommandList { min-width: 12; }"

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
