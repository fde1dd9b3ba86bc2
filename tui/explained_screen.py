"""What all screens have in common: their keys are explained, and the theme is the application's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.screen import Screen, ScreenResultType

from .dialogs import Help, keys_of

if TYPE_CHECKING:
    from collections.abc import Sequence


class ExplainedScreen(Screen[ScreenResultType]):
    """A screen with a help that is made of its bindings.

    Attributes:
        LEGEND: What the help says below the keys.
        FIRST_KEYS: Actions whose keys the bottom line tells before others, the most important one first.
    """

    LEGEND: ClassVar[str]
    FIRST_KEYS: ClassVar[Sequence[str]] = ()

    _offered: object = None

    @property
    def _app(self) -> Any:
        return self.app

    def offered(self) -> object:
        """Return what it depends on, beside what is chosen, which keys do something; it changes while time goes by."""
        return None

    def look_at_offers(self) -> None:
        """Tell of other keys where others do something than the last time."""
        if (offered := self.offered()) != self._offered:
            self._offered = offered
            self.refresh_bindings()

    def action_theme(self) -> None:
        """Take the next theme."""
        self._app.next_theme()

    def action_help(self) -> None:
        """Show all keys that do something now."""
        self.app.push_screen(Help(keys_of(self), self.LEGEND))
