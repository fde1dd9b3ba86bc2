"""The command palette, in terminals of any size."""

from __future__ import annotations

from typing import Final

from textual.command import CommandList, CommandPalette

_PAGES: Final = {("page_up",), ("page_down",)}


class Commands(CommandPalette):
    """All that can be done, to be searched. Where a tiny terminal has no room for the list, Textual would fail."""

    DEFAULT_CSS = "Commands CommandList { min-width: 12; }"

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer pages where there are some."""
        if parameters in _PAGES:
            return all(commands.scrollable_content_region for commands in self.query(CommandList))
        return super().check_action(action, parameters)
