"""The line in which people type what lines or rows must hold."""

from __future__ import annotations

from typing import Final

from textual.widgets import Input

_HOLDS: Final = "text that {} must hold; Enter keeps it, Escape clears it"


class FilterBox(Input):
    """Hidden until it is opened. It lies above the footer, which would hide it where both were docked.

    Args:
        what: What is filtered, in the plural.
    """

    DEFAULT_CSS = """
    FilterBox { height: 1; border: none; padding: 0; display: none; }
    FilterBox:focus { border: none; }
    FilterBox > .input--placeholder { color: $faint; }
    """

    def __init__(self, what: str) -> None:
        super().__init__(id="filter", placeholder=_HOLDS.format(what))

    def open(self) -> None:
        """Let somebody type; also keys that were typed ahead."""
        self.display = True
        self.screen.add_class("typing")
        self.screen.set_focus(self)

    def close(self, *, clear: bool) -> None:
        """Hide it; what was typed stays, unless it is cleared."""
        if clear:
            self.value = ""
        self.display = False
        self.screen.remove_class("typing")
