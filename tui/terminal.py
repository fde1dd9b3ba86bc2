"""Whether there is a terminal to draw on, and Textual to draw with."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from distsum.errors import UsageError

if TYPE_CHECKING:
    from .app import JobApp
    from .source import ReplaySource


class Screens(NamedTuple):
    """What draws, once it is loaded."""

    JobApp: type[JobApp]
    ReplaySource: type[ReplaySource]


def check_terminal(name: str) -> None:
    """Make sure that a screen can be drawn and keys can be read.

    Raises:
        UsageError: There is no terminal.
    """
    for stream, what in ((sys.__stdin__, "stdin"), (sys.__stderr__, "stderr")):
        if stream is None or not stream.isatty():
            raise UsageError(f"{name} draws on a terminal, and {what} is none; run it in one")
    if os.environ.get("TERM") in {None, "", "dumb"}:
        raise UsageError(f"{name} draws on a terminal, and TERM says that this one cannot; set it, or go without")


def load() -> Screens:
    """Import Textual, which takes half a second, and what stands on it.

    Raises:
        UsageError: It is not installed.
    """
    try:
        from .app import JobApp
        from .source import ReplaySource
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in {"textual", "rich"}:
            raise
        raise UsageError("the screen needs Textual, which is not installed; pip install 'distsum[tui]'") from None
    return Screens(JobApp, ReplaySource)
