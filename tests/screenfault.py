"""A module that a command imports first, and that breaks its screen when it is told to."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.command import Terminal

WORDS = "the screen has failed (ValueError: a fault that was planted in sitecustomize.py, line 4)"


class ScreenFault:
    """A plant for a command, for its PYTHONPATH.

    Args:
        folder: Where it lies; it is made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.environment = {"PYTHONPATH": str(folder)}
        (folder / "sitecustomize.py").write_text(
            "import signal, sys\n"
            "def fail(*_):\n"
            "    def broken(*_):\n"
            "        raise ValueError('a fault that was planted')\n"
            "    sys.modules['distsum.tui.app'].ScreenApp._terminal_is_behind = broken\n"
            "if {'--tui', 'replay', 'top'} & set(sys.orig_argv):\n"
            "    signal.signal(signal.SIGUSR1, fail)\n"
        )

    def strike(self, command: Terminal) -> None:
        """Break the screen of a command."""
        command.process.send_signal(signal.SIGUSR1)
