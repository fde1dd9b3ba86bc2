"""The application: one timer takes the newest view from a source, and the job's screen draws it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Literal

from textual.app import App
from textual.theme import Theme

from distsum.machine import usable_cpus

from .job_screen import JobScreen
from .source import Thrift

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.screen import Screen

    from .source import Source

FRAME_SECONDS: Final = 0.1
_RUN_SHARE: Final = 0.02
"""Of the machine's processors: what drawing may take from a run that they all work for."""
Leaving = Literal["leave", "stop"]
"""How somebody left: to let the job go on, or to stop it."""

HIGH_CONTRAST: Final = Theme(
    name="high-contrast",
    primary="#ffffff",
    secondary="#ffff00",
    warning="#ffff00",
    error="#ff8080",
    success="#ffffff",
    accent="#00ffff",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#000000",
    dark=True,
    variables={"text-muted": "#ffffff", "text-primary": "#ffffff"},
)


class JobApp(App[Leaving]):
    """Draws one job, live or played again.

    Args:
        source: Where views come from.
        owns_run: Whether the job runs in this process, so that leaving it must be asked about.
        glyphs: Whether signs are drawn in place of half blocks, at first.
        frame_seconds: Time between two looks at the source.
    """

    TITLE = "distsum"
    ENABLE_COMMAND_PALETTE = True
    CSS = "Screen { layout: vertical; }"

    def __init__(
        self, source: Source, *, owns_run: bool = False, glyphs: bool = False, frame_seconds: float = FRAME_SECONDS
    ) -> None:
        super().__init__()
        self._frame_seconds = frame_seconds
        self.source = source
        self.owns_run = owns_run
        self.glyphs = glyphs or self.no_color
        self._thrift = Thrift(_RUN_SHARE * usable_cpus())
        self.on_mounted: Callable[[], None] | None = None
        self.register_theme(HIGH_CONTRAST)

    def get_default_screen(self) -> Screen[None]:
        """Begin with the job."""
        return JobScreen(glyphs=self.glyphs)

    def on_mount(self) -> None:
        """Begin to pull."""
        self.set_interval(self._frame_seconds, self.pull)
        if self.on_mounted is not None:
            self.on_mounted()

    def pull(self) -> None:
        """Draw the newest view, unless drawing takes too much from a run in this process, or the terminal is behind."""
        if self._terminal_is_behind():
            return
        if self.owns_run and not self._thrift.allows(time.monotonic(), time.thread_time()):
            return
        view = self.source.newest()
        if view is None and self.source.over():
            self.exit("leave")  # It could not begin; why is told when the screen is gone.
            return
        screen = next((screen for screen in self.screen_stack if isinstance(screen, JobScreen)), None)
        if screen is not None:
            screen.show(view)
            screen.notice(self.source.notice())

    def _terminal_is_behind(self) -> bool:
        """Whether the terminal has not taken the last frame yet.

        Textual would queue thirty of them, and what answers a key would come after them all: seconds late on a slow
        line. A frame that is left out is one that nobody misses.
        """
        writer = getattr(self._driver, "_writer_thread", None)
        queue = getattr(writer, "_queue", None)  # Private: where Textual changes it, frames are queued as before.
        return queue is not None and queue.qsize() > 0

    async def action_quit(self) -> None:
        """Leave, but not without asking where that would end something."""
        if isinstance(self.screen, JobScreen):
            self.screen.action_leave()

    def action_help_quit(self) -> None:
        """Do as for quit: Ctrl-C is how people leave."""
        if isinstance(self.screen, JobScreen):
            self.screen.action_leave()
