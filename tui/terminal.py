"""Whether there is a terminal to draw on, and Textual to draw with."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import stat
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from distsum.errors import UsageError
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .app import JobApp, Leaving, ScreenApp
    from .service_app import ServiceApp
    from .source import ReplaySource


_WEB_DRIVER: Final = "textual.drivers.web_driver:WebDriver"
"""What textual-serve has a program draw with, by this variable of Textual's, instead of on a terminal."""


HEEDED: Final = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a screen in order."""


_JOB_CONTROL: Final = (signal.SIGTSTP, signal.SIGCONT)
"""What Textual goes on to heed when the screen is gone: it would draw it anew where a run goes on in the terminal."""


class Screens(NamedTuple):
    """What draws, once it is loaded."""

    JobApp: type[JobApp]
    ServiceApp: type[ServiceApp]
    ReplaySource: type[ReplaySource]


def in_browser() -> bool:
    """Whether this is the screen of a browser."""
    return os.environ.get("TEXTUAL_DRIVER") == _WEB_DRIVER


def check_terminal(name: str) -> None:
    """Make sure that a screen can be drawn and keys can be read: on a terminal, or in a browser.

    Raises:
        UsageError: There is no terminal.
    """
    if in_browser():
        return
    for stream, what in ((sys.__stdin__, "stdin"), (sys.__stderr__, "stderr")):
        if stream is None or not stream.isatty():
            raise UsageError(f"{name} draws on a terminal, and {what} is none; run it in one")
    if os.environ.get("TERM") in {None, "", "dumb"}:
        raise UsageError(f"{name} draws on a terminal, and TERM says that this one cannot; set it, or go without")


def heed_signals(end: Callable[[], None]) -> None:
    """End the screen when the process is asked to end: the terminal must be left in order.

    Also where the terminal has vanished before: nothing more tells of that, if who began this ignores SIGHUP.
    """
    loop = asyncio.get_running_loop()
    for number in HEEDED:
        loop.add_signal_handler(number, end)
    if sys.__stdin__ is not None and not in_browser() and has_vanished(sys.__stdin__.fileno()):
        loop.call_soon(end)


def has_vanished(descriptor: int) -> bool:
    """Whether what is read there is a terminal that was hung up."""
    if not stat.S_ISCHR(os.fstat(descriptor).st_mode):  # a terminal that was hung up is no isatty() any more
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def draw(app: ScreenApp) -> Leaving | None:
    """Draw until somebody leaves the screen, and return how.

    Raises:
        Exception: The screen has failed before that, which is a fault in it.
    """
    with handlers_kept(_JOB_CONTROL):
        leaving = app.run()
    if leaving is None and app.failure is not None:
        app.failure.add_note("distsum: the screen has failed; nothing but the screen is ended by that")
        raise app.failure
    return leaving


def failure_words(error: Exception) -> str:
    """Return what a screen has failed by, and where, harmless to show."""
    places = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(places[-1].filename).name}, line {places[-1].lineno}" if places else ""
    return printable(f"{type(error).__name__}: {error}", 300) + place


@contextlib.contextmanager
def handlers_kept(numbers: Iterable[signal.Signals] = HEEDED) -> Iterator[None]:
    """Put back what the caller does about signals: an event loop takes its handlers away, and leaves the system's."""
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def load() -> Screens:
    """Import Textual, which takes half a second, and what stands on it.

    Raises:
        UsageError: It is not installed.
    """
    try:
        from .app import JobApp
        from .service_app import ServiceApp
        from .source import ReplaySource
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in {"textual", "rich"}:
            raise
        raise UsageError("the screen needs Textual, which is not installed; pip install 'distsum[tui]'") from None
    return Screens(JobApp, ServiceApp, ReplaySource)
