"""A screen that is left once, however fast the keys come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

from textual.await_complete import AwaitComplete
from textual.screen import ScreenResultType

if TYPE_CHECKING:
    from textual.screen import Screen as _Screen
else:

    class _Screen(Generic[ScreenResultType]):
        """Stands in for the screen: Textual takes styles only from what is made from the first screen among bases."""


class LeftOnce(_Screen[ScreenResultType]):
    """For a screen, before its other bases: that takes no other screen with it when it is left.

    Textual takes away whatever screen is on top, and not the one that is to be left. Of two keys in quick succession
    both may have reached a widget before the first one's message leaves the screen: the second would leave the one
    below.
    """

    @property
    def on_top(self) -> bool:
        """Whether nothing lies above, and it has not been left."""
        return self.app.screen_stack[-1:] == [self]

    def dismiss(self, result: ScreenResultType | None = None) -> AwaitComplete:
        """Leave, if it is on top."""
        return super().dismiss(result) if self.on_top else AwaitComplete()
