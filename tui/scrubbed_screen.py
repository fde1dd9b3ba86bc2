"""What screens of a job have in common that may be played again: the line to go through it, and its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from textual.binding import Binding
from textual.screen import ScreenResultType

from .explained_screen import ExplainedScreen
from .panes import Scrubber

if TYPE_CHECKING:
    from .source import ReplaySource, Source

SCRUBBER_KEYS: Final = (
    Binding("space", "pause", "Play or pause", key_display="space"),
    Binding("left_square_bracket", "seek(-1)", "Back in time", key_display="[", show=False),
    Binding("right_square_bracket", "seek(1)", "On in time", key_display="]", show=False),
    Binding("less_than_sign", "speed(-1)", "Slower", key_display="<", show=False),
    Binding("greater_than_sign", "speed(1)", "Faster", key_display=">"),
    Binding("left_curly_bracket", "to(0)", "To the beginning", key_display="{", show=False),
    Binding("right_curly_bracket", "to(1)", "To the end", key_display="}", show=False),
)
"""For the bindings of each such screen, at the place where its help is to tell them."""
_SEEK: Final = 0.02
_ACTIONS: Final = frozenset({"pause", "seek", "speed", "to"})


class ScrubbedScreen(ExplainedScreen[ScreenResultType]):
    """A screen of a job, live or played again.

    Args:
        source: Where its views come from.

    Attributes:
        source: As given.
        scrubber: The line to go through what is played again; a screen says where it stands.
    """

    DEFAULT_CSS = "ScrubbedScreen #scrubber { height: 1; display: none; }"

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self.scrubber = Scrubber("scrubber")

    @property
    def replay(self) -> ReplaySource | None:
        """What is played again; None of what is live."""
        return self.source.replay()

    def offered(self) -> object:
        """Return what it depends on which keys do what: whether it is played again, and goes on."""
        return self.replay is not None, self._plays

    @property
    def _plays(self) -> bool:
        return self.replay is not None and self.replay.playing

    def words_now(self, binding: Binding) -> str:
        """Say which of the two a key does that does one after the other."""
        if binding.action == "pause":
            return "Pause" if self._plays else "Play"
        return super().words_now(binding)

    def show_scrubber(self) -> None:
        """Show where a replay is, and how fast; nothing of what is live."""
        replay = self.replay
        self.scrubber.display = replay is not None
        self.look_at_offers()
        if replay is not None:
            player = replay.player
            self.scrubber.tell(
                replay.share(),
                player.seconds,
                player.end_seconds,
                replay.speed,
                playing=replay.playing,
                behind=replay.behind,
            )

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide the keys of a replay where nothing is played again."""
        return self.replay is not None if action in _ACTIONS else super().check_action(action, parameters)

    def action_pause(self) -> None:
        """Stop, or go on."""
        if self.replay is not None:
            self.replay.pause()

    def action_seek(self, step: int) -> None:
        """Go back, or on, by a part of the whole."""
        if self.replay is not None:
            self.replay.seek(self.replay.share() + step * _SEEK)

    def action_to(self, share: float) -> None:
        """Go to a place, as a share of the whole."""
        if self.replay is not None:
            self.replay.seek(share)

    def action_speed(self, step: int) -> None:
        """Play faster, or slower."""
        if self.replay is not None:
            self.replay.faster(step)

    def on_scrubber_sought(self, event: Scrubber.Sought) -> None:
        """Go to where somebody has clicked."""
        self.action_to(event.share)
