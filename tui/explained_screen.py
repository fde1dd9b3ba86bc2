"""What all screens have in common: their keys are explained, and the theme is the application's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.screen import Screen, ScreenResultType

from .dialogs import Help, keys_of
from .key_line import KeyLine
from .left_once import LeftOnce
from .said_line import SaidLine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult
    from textual.binding import Binding


class ExplainedScreen(LeftOnce[ScreenResultType], Screen[ScreenResultType]):
    """A screen with a help that is made of its bindings.

    Attributes:
        LEGEND: What the help says below the keys.
        FIRST_KEYS: Actions whose keys the bottom line tells before others, the most important one first.
        said: What came of a key.
    """

    DEFAULT_CSS = """
    ExplainedScreen { layers: default said; }
    ExplainedScreen.typing SaidLine { margin-bottom: 2; }
    """

    LEGEND: ClassVar[str]
    FIRST_KEYS: ClassVar[Sequence[str]] = ()

    _offered: object = None

    def __init__(self) -> None:
        super().__init__()
        self.said = SaidLine()

    def compose_foot(self) -> ComposeResult:
        """Make what stands below all else: the keys, and above them what came of one."""
        yield self.said
        yield KeyLine(self.FIRST_KEYS, self.words_now)

    def words_now(self, binding: Binding) -> str:
        """Return what the bottom line says of a key."""
        return binding.description

    def on_screen_resume(self) -> None:
        """Tell what came of a key while something was being decided."""
        self._app.tell_unsaid()

    @property
    def _app(self) -> Any:
        return self.app

    def offered(self) -> object:
        """Return what it depends on, beside what is chosen, which keys do something; it changes while time goes by."""
        return None

    def look_at_offers(self) -> None:
        """Tell of other keys where others do something than the last time."""
        if self.offered() != self._offered:
            self.refresh_bindings()

    def refresh_bindings(self) -> None:
        """Have the line of keys drawn anew, and take note of what by."""
        # Whatever asks for it, such as a row that is chosen: were it noted only where time has changed something, a job
        # that ends just after it was chosen could be taken for the one that was chosen before, which had ended too.
        self._offered = self.offered()
        super().refresh_bindings()

    def on_screen_suspend(self) -> None:
        """Have what somebody may not have read yet told again where they are then."""
        self._app.tell_again(self.said.hide())

    def action_theme(self) -> None:
        """Take the next theme."""
        self._app.next_theme()

    def action_help(self) -> None:
        """Show all keys that do something now."""
        self.app.push_screen(Help(keys_of(self), self.LEGEND))
