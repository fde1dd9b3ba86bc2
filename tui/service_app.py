"""The application of a running service: its lists, and the jobs that are opened from there."""

from __future__ import annotations

import os
import socket
import time
import webbrowser
from typing import TYPE_CHECKING, Final

import msgspec

from distsum.cli.progress import summary_lines
from distsum.cli.wanted import Wanted
from distsum.errors import DistsumError
from distsum.machine import usable_cpus
from distsum.service.messages import ENDED
from distsum.wording import printable

from .app import FRAME_SECONDS, RUN_SHARE, ScreenApp
from .dialogs import Ask, Choice, Told
from .jobs_screen import JobsScreen
from .list_screen import ListScreen
from .log_screen import LogScreen
from .node_screen import NodeScreen
from .queues_screen import QueuesScreen
from .remote import FollowedJob
from .served_job_screen import ServedJobScreen
from .service_lines import QueueTraces, job_details
from .source import Thrift
from .steering import Steering
from .submit_screen import SubmitScreen
from .workers_screen import WorkersScreen

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.screen import Screen

    from distsum.cli.kept_log import KeptLog
    from distsum.service.view import ServiceView

    from .remote import RemoteSource

_LISTS: Final[dict[str, type[ListScreen]]] = {"workers": WorkersScreen, "queues": QueuesScreen}
"""Those that stand above the jobs, which are always there."""


class ServiceApp(ScreenApp):
    """Draws a service.

    Args:
        service: What is drawn, and asked.
        job: The job to begin with; None is the one that is under way where there is just one, and else the list.
        glyphs: As for ``ScreenApp``.
        frame_seconds: As for ``ScreenApp``.
        clock: Seconds of the Unix epoch.
        log: What the master logs, where it is in this process; None where it is elsewhere.
        master_ended: Whether that master has ended.

    Attributes:
        service: The service.
        steering: Asks for what changes something.
        traces: What was ready in the queues during the last minute.
        clock: As given.
        log_lines: The log, as given.
        draft: What was written of a job that is not submitted yet.
    """

    def __init__(
        self,
        service: RemoteSource,
        job: str | None = None,
        *,
        glyphs: bool = False,
        frame_seconds: float = FRAME_SECONDS,
        clock: Callable[[], float] = time.time,
        log: KeptLog | None = None,
        master_ended: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(glyphs=glyphs, frame_seconds=frame_seconds)
        self.service = service
        self.steering = Steering(self, service, service.newest, service.stale_seconds)
        self.traces = QueueTraces()
        self.clock = clock
        self.draft = Wanted()
        self.log_lines = log
        self._master_ended = master_ended
        self._thrift = Thrift(RUN_SHARE * usable_cpus())
        self._job = job
        self._chosen = False

    def get_default_screen(self) -> Screen[None]:
        """Begin with the jobs."""
        return JobsScreen()

    def _tick(self) -> None:
        # A master in this process pays for what drawing takes.
        if self.log_lines is None or self._thrift.allows(time.monotonic(), time.thread_time()):
            super()._tick()

    def draw_newest(self) -> None:
        """Draw the newest view of the service, or of the job that is open."""
        if self._master_ended():
            self.exit("leave")
            return
        view = self.service.newest()
        if not self.service.notice():  # what was told last is no figure of now
            self.traces.take(view.queues if view is not None else None, self.clock())
        self._choose_first(view)
        for screen in reversed(self.screen_stack):
            if isinstance(screen, ServedJobScreen | NodeScreen):
                self._show_job()
                return
            if isinstance(screen, ListScreen):
                screen.show(view, self._notice(view))
                return
            if isinstance(screen, SubmitScreen | LogScreen):
                screen.show(self._notice(view))
                return

    def _notice(self, view: ServiceView | None) -> str:
        """Return what is to be known of the way to the service, and of a master here that another one keeps waiting."""
        found = self.service.notice()
        if found or self.log_lines is None or view is None:
            return found
        master = view.master
        if (master.host, master.pid) == (printable(socket.gethostname(), 200), os.getpid()):
            return ""
        return f"process {master.pid} on {printable(master.host, 80)} serves; the master in this one waits for its end"

    def _choose_first(self, view: ServiceView | None) -> None:
        """Open the job to begin with, once it is known which."""
        if self._chosen or len(self.screen_stack) != 1:
            return  # Somebody was sooner.
        if self._job is None:
            if view is None:
                return
            under_way = [each.job for each in view.jobs if each.state not in ENDED]
            self._job = under_way[0] if len(under_way) == 1 else None
        self._chosen = True
        if self._job is not None:
            self.open_job(self._job)

    def _show_job(self) -> None:
        screen = next(screen for screen in reversed(self.screen_stack) if isinstance(screen, ServedJobScreen))
        followed = screen.followed
        self.draw_job(followed.newest(), followed.notice())
        if screen is self.screen and followed.unreadable:
            self.back()
            self.push_screen(Told(_ended_words(followed, self.clock())))

    def shown_seconds(self) -> float:
        """Return of when what is shown is, in seconds of the Unix epoch: nothing grows older that nobody hears of."""
        return self.clock() - self.service.stale_seconds()

    # What screens ask for ---------------------------------------------------------------------------------------------

    def open_job(self, job: str) -> None:
        """Show a job; of one that has ended its history, where that can be read."""
        self._chosen = True
        self.push_screen(ServedJobScreen(FollowedJob(self.service, job), glyphs=self.glyphs))
        self.call_next(self.pull)

    def go(self, name: str) -> None:
        """Go to a list; the open job stays below those of workers and queues."""
        self._chosen = True
        if name == "jobs":
            while not isinstance(self.screen, JobsScreen):
                self._close_top()
        elif not isinstance(self.screen, kind := _LISTS[name]):
            if isinstance(self.screen, tuple(_LISTS.values())):
                self.switch_screen(kind())
            else:
                self.push_screen(kind())
        self.call_next(self.pull)

    def back(self) -> None:
        """Go back to where one came from; from the first list nowhere."""
        if len(self.screen_stack) > 1:
            self._close_top()
            self.call_next(self.pull)

    def _close_top(self) -> None:
        screen = self.screen
        if isinstance(screen, ServedJobScreen):
            screen.followed.close()
        self.pop_screen()

    def leave(self) -> None:
        """Leave; jobs go on. Where the master is in this process, ask what shall become of it."""
        if self.log_lines is None or self._master_ended():
            self.exit("leave")
            return

        def answered(answer: str | None) -> None:
            if answer == "leave":
                self.exit("leave")
            elif answer == "stop":
                self.exit("stop")

        choices = (
            Choice("stay", "Stay here"),
            Choice("leave", "Leave the screen; the master goes on in this terminal, with its log"),
            Choice("stop", "Stop the master; what is stored stays, and the next master goes on with the jobs"),
        )
        self.push_screen(Ask("The master runs in this process.", choices), answered)

    def show_log(self) -> None:
        """Show what the master in this process logs."""
        if self.log_lines is not None:
            self.push_screen(LogScreen(self.log_lines))
            self.call_next(self.pull)

    def write_job(self) -> None:
        """Show the form for a new job, with what was written before."""
        self._chosen = True
        try:
            self.push_screen(SubmitScreen(self.draft))
        except DistsumError as error:
            self.say(printable(str(error), 1000), refused=True)
        self.call_next(self.pull)

    def submitted(self, job: str, wanted: Wanted) -> None:
        """Show a job that the form has submitted, from the list; the next one is another, of the same kind."""
        self.draft = msgspec.structs.replace(wanted, output="")
        self.go("jobs")
        self.open_job(job)
        self.say(f"job {job} is submitted")

    def open_page(self, url: str) -> None:
        """Open a page of somebody else's in a browser; where there is none beside this screen, tell where it is."""
        words = printable(url, 500)
        if not url.startswith(("http://", "https://")):
            self.say(f"{words} is no address of a page", refused=True)
            return
        if not self.is_web and not _has_browser():
            self.say(f"no browser is here; the page is at {words}")
            return
        self.open_url(url)
        self.say(f"{words} is opened in a browser")


def _has_browser() -> bool:
    """Whether a browser can be opened beside this terminal. One that draws on the terminal itself would destroy it."""
    try:
        return not isinstance(browser := webbrowser.get(), webbrowser.GenericBrowser) or isinstance(
            browser, webbrowser.BackgroundBrowser
        )
    except webbrowser.Error:
        return False


def _ended_words(followed: FollowedJob, now: float) -> str:
    """Return what is known of a job that has ended without its history."""
    status = followed.status()
    if status is None:
        return followed.unreadable
    lines = list(job_details(status, now))
    if status.summary is not None:
        lines = [lines[0], "", *summary_lines(status.summary)]
    return "\n".join([*lines, "", followed.unreadable])
