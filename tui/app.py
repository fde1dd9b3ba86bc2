"""The application: one timer takes the newest view from a source, and a screen draws it."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.drivers.linux_driver import LinuxDriver

from distsum.errors import StorageError
from distsum.machine import usable_cpus
from distsum.wording import printable

from .command_list import Commands
from .dialogs import Question
from .driver import TerminalDriver
from .explained_screen import ExplainedScreen
from .job_screen import JobScreen
from .node_screen import NodeScreen
from .own_job_screen import OwnJobScreen
from .own_run import OwnRun
from .said_line import Said
from .screenshots import folders, write_picture
from .source import Thrift
from .steering import Steering
from .themes import DARK, THEMES, with_faint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from textual.driver import Driver
    from textual.notifications import SeverityLevel
    from textual.screen import Screen

    from distsum.helm import Helm
    from distsum.observe.view import JobView

    from .source import Source

_TEXTUAL_THEME: Final = "textual-dark"
FRAME_SECONDS: Final = 0.1
RUN_SHARE: Final = 0.02
"""Of the machine's processors: what drawing may take from a run that they all work for."""
_ENOUGH_COLOURS: Final = {"256", "truecolor"}
"""What Rich calls the terminals that have a colour of its own for each state."""
Leaving = Literal["leave", "stop"]
"""How somebody left: to let the job go on, or to stop it."""


class ScreenApp(App[Leaving]):
    """What every application here does: pull by a timer, offer what keys do in the command palette, and be left.

    Args:
        glyphs: Whether signs are drawn in place of half blocks, at first.
        frame_seconds: Time between two pulls.

    Attributes:
        glyphs: As given, or since the terminal has too few colours for the states of tasks, or shall draw none.
        failure: The fault that has ended it, if one has.
        on_mounted: Called when it begins.
    """

    TITLE = "distsum"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+z", "suspend_process", "Suspend", show=False, priority=True),
    ]
    CSS = "Screen { layout: vertical; }"

    def __init__(self, *, glyphs: bool = False, frame_seconds: float = FRAME_SECONDS) -> None:
        super().__init__()
        self._frame_seconds = frame_seconds
        self.glyphs = glyphs or self.no_color or self.console.color_system not in _ENOUGH_COLOURS
        self.failure: Exception | None = None
        self._unsaid: list[Said] = []
        self.on_mounted: Callable[[], None] | None = None
        for theme in THEMES:
            self.register_theme(theme)
        if self.theme == _TEXTUAL_THEME:
            self.theme = DARK.name  # unless somebody has told Textual to take another one everywhere

    def get_driver_class(self) -> type[Driver]:
        """Return what draws: on a terminal our own, unless Textual is told of another."""
        found = super().get_driver_class()
        return TerminalDriver if found is LinuxDriver else found

    def get_css_variables(self) -> dict[str, str]:
        """Return the theme's colours."""
        return with_faint(super().get_css_variables())

    def validate_app_focus(self, _focus: bool) -> bool:  # noqa: FBT001 - Textual's rule of names and arguments
        """Keep the focus where it is while the terminal or the browser's page has none.

        Textual would take it from the widget, and give none to a new screen: no cursor would be seen in a page beside
        another, or in one that nobody has clicked yet.
        """
        return True

    def on_mount(self) -> None:
        """Begin to pull."""
        self.set_interval(self._frame_seconds, self._tick)
        if self.on_mounted is not None:
            self.on_mounted()

    def say(self, words: str, *, refused: bool = False) -> None:
        """Tell what came of a key, in words that are harmless to show; after what is being decided, if anything is.

        Args:
            words: What there is to be told.
            refused: Whether it is why something is not done.
        """
        self._unsaid.append(Said(words, refused, time.monotonic()))
        self.tell_unsaid()

    def tell_unsaid(self) -> None:
        """Tell what is not told yet, unless a dialog is open."""
        if self._unsaid and self.screen_stack and isinstance(self.screen, ExplainedScreen):
            said, self._unsaid = self._unsaid, []
            self.screen.said.say(said, time.monotonic())

    def tell_again(self, said: list[Said]) -> None:
        """Tell once more what was shown on a screen that somebody has left."""
        self._unsaid[:0] = said
        self.tell_unsaid()

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = True,
    ) -> None:
        """Tell what Textual has to tell in the same place: its own notifications would lie over dialogs."""
        words = Content.from_markup(message).plain if markup else message
        self.say(printable(f"{title}: {words}" if title else words, 1000), refused=severity == "error")

    def _tick(self) -> None:
        if not self._terminal_is_behind():
            self.pull()

    def pull(self) -> None:
        """Draw what is newest, and ask nothing any more that is over by that."""
        self.draw_newest()
        if isinstance(self.screen, ExplainedScreen):
            self.screen.look_at_offers()  # which may change where the picture does not
        for screen in self.screen_stack:
            if isinstance(screen, Question) and (words := screen.close_if_over()):
                self.say(words)

    def draw_newest(self) -> None:
        """Draw what is newest."""
        raise NotImplementedError

    def _terminal_is_behind(self) -> bool:
        """Whether the terminal has not taken the last frame yet.

        Textual would queue thirty of them, and what answers a key would come after them all: seconds late on a slow
        line. A frame that is left out is one that nobody misses.
        """
        writer = getattr(self._driver, "_writer_thread", None)
        queue = getattr(writer, "_queue", None)  # Private: where Textual changes it, frames are queued as before.
        return queue is not None and queue.qsize() > 0

    def draw_job(self, view: JobView | None, notice: str) -> None:
        """Draw a job on the topmost of the screens that show it, or a node of it."""
        for screen in reversed(self.screen_stack):
            if isinstance(screen, NodeScreen):
                screen.show(view)
                screen.notice(notice)
                break
        job = self._job_screen()
        if job is None:
            return
        job.keep(view)
        if not any(isinstance(screen, NodeScreen) for screen in self.screen_stack):
            job.show(view)
            job.notice(notice)

    def leave_job(self) -> None:
        """Leave as from the job's screen."""
        if (screen := self._job_screen()) is not None:
            screen.action_leave()

    def _job_screen(self) -> JobScreen | None:
        return next((screen for screen in reversed(self.screen_stack) if isinstance(screen, JobScreen)), None)

    def next_theme(self) -> None:
        """Take the next theme."""
        names = [theme.name for theme in THEMES]
        place = names.index(self.theme) if self.theme in names else -1
        self.theme = names[(place + 1) % len(names)]

    def get_system_commands(self, screen: Screen[None]) -> Iterable[SystemCommand]:
        """Offer what keys do on a screen now, and what Textual can do on any."""
        # Textual's own list of keys is another than that of our help, and hides half of what is shown; a pane alone is
        # what `f` shows, with the tabs that lead to the others.
        yield from (each for each in super().get_system_commands(screen) if each.title not in {"Keys", "Maximize"})
        offered: set[str] = set()
        for active in screen.active_bindings.values():
            binding = active.binding
            ours = active.node is not self and not binding.action.startswith("screen.")
            if active.enabled and ours and binding.description and binding.description not in offered:
                offered.add(binding.description)
                act = partial(self.run_action, binding.action, active.node)
                yield SystemCommand(binding.description, f"key {self.get_key_display(binding)}", act)

    def deliver_screenshot(
        self, filename: str | None = None, path: str | None = None, time_format: str | None = None
    ) -> str | None:
        """Keep a picture of the screen as a file, and tell where; a browser is given it."""
        if self.is_web:
            return super().deliver_screenshot(filename, path, time_format)
        try:
            kept = write_picture(self.export_screenshot(), folders(), time.time())
        except StorageError as error:
            self.say(str(error), refused=True)
            return None
        self.say(f"this picture is kept: {printable(kept, 4000)}")
        return kept

    def action_command_palette(self) -> None:
        """Show all that can be done."""
        if not isinstance(self.screen, Commands):
            self.push_screen(Commands())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer to stop the process where that can be: not in a browser."""
        if action == "suspend_process":
            return self._driver is not None and self._driver.can_suspend
        return super().check_action(action, parameters)

    def action_suspend_process(self) -> None:
        """Stop, with the other commands of its line, as any program does by Ctrl-Z, until the shell has it go on."""
        os.killpg(os.getpgrp(), signal.SIGTSTP)

    def _handle_exception(self, error: Exception) -> None:
        self.failure = self.failure or error
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        # Private, as the method above. Textual's own prints the values of all variables, passwords among them, on
        # thousands of lines.
        self._close_messages_no_wait()

    async def action_quit(self) -> None:
        """Leave, but not without asking where that would end something."""
        self._leave()

    def action_help_quit(self) -> None:
        """Do as for quit: Ctrl-C is how people leave."""
        self._leave()

    def _leave(self) -> None:
        leave = getattr(self.screen, "action_leave", None)  # What is asked just now wants its answer first.
        if leave is not None:
            leave()


class JobApp(ScreenApp):
    """Draws one job, live or played again.

    Args:
        source: Where views come from.
        helm: Steers the job, where it runs in this process; leaving it must be asked about then.
        glyphs: As for ``ScreenApp``.
        frame_seconds: Time between two looks at the source.

    Attributes:
        source: As given.
        steering: Asks for what changes the job; None where nobody can be asked.
    """

    def __init__(
        self, source: Source, *, helm: Helm | None = None, glyphs: bool = False, frame_seconds: float = FRAME_SECONDS
    ) -> None:
        super().__init__(glyphs=glyphs, frame_seconds=frame_seconds)
        self.source = source
        self.steering = None if helm is None else Steering(self, OwnRun(helm))
        self._helm = helm
        self._thrift = Thrift(RUN_SHARE * usable_cpus())

    def get_default_screen(self) -> Screen[None]:
        """Begin with the job."""
        if self._helm is None:
            return JobScreen(self.source, glyphs=self.glyphs)
        return OwnJobScreen(self.source, self._helm, glyphs=self.glyphs)

    def draw_newest(self) -> None:
        """Draw the newest view, unless drawing takes too much from a run in this process."""
        if self._helm is not None and not self._thrift.allows(time.monotonic(), time.thread_time()):
            return
        view = self.source.newest()
        if view is None and self.source.over():
            self.exit("leave")  # It could not begin; why is told when the screen is gone.
            return
        self.draw_job(view, self.source.notice())
