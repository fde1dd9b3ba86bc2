"""A terminal as people have it: a tmux server of a test's own, with one command in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import uuid
from typing import TYPE_CHECKING

from tests import command
from tests.command import COMMAND, DEADLINE_SECONDS, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

INSTALL = "apt-get install tmux"


def installed() -> bool:
    return shutil.which("tmux") is not None


class Tmux:
    """A session with a command in it.

    Args:
        folder: Where the server's socket is.
        environment: The command's variables.
        columns: Width of the terminal.
        lines: Its height.
    """

    def __init__(
        self, folder: Path, *arguments: str, environment: dict[str, str], columns: int = 120, lines: int = 36
    ) -> None:
        self._name = uuid.uuid4().hex[:12]
        self._environment = command.environment({"TMUX_TMPDIR": str(folder), "LANG": "C.UTF-8"} | environment)
        self._environment.pop("TMUX", None)  # The tests themselves may run in a tmux.
        size = ("-x", str(columns), "-y", str(lines))
        self._run("-f", os.devnull, "new-session", "-d", *size, "--", *COMMAND, *arguments)

    def _run(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            ["tmux", "-L", self._name, *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    @property
    def shown(self) -> str:
        """What the terminal shows; nothing once the command has ended."""
        return self._run("capture-pane", "-p", check=False)

    @property
    def lines(self) -> list[str]:
        return self.shown.splitlines()

    @property
    def running(self) -> bool:
        return bool(self._run("list-sessions", check=False))

    def type(self, *keys: str) -> None:
        """Press keys, by tmux's names for them."""
        self._run("send-keys", *keys)

    def write(self, text: str) -> None:
        """Type a text as it is."""
        self._run("send-keys", "-l", "--", text)

    def wait_for(self, text: str) -> None:
        """Wait until a text is seen."""
        self.wait_until(lambda shown: text in shown, f"{text!r}")

    def wait_until(self, condition: Callable[[str], object], what: str) -> None:
        """Wait until what is shown is as it should be; where it never is, what is shown instead is told."""
        try:
            wait_until(lambda: condition(self.shown), what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.shown}") from None

    def resize(self, columns: int, lines: int) -> None:
        self._run("resize-window", "-x", str(columns), "-y", str(lines))

    def kill(self) -> None:
        """End the server and what is in it."""
        self._run("kill-server", check=False)


@contextlib.contextmanager
def tmux(
    folder: Path, *arguments: str, environment: dict[str, str], columns: int = 120, lines: int = 36
) -> Iterator[Tmux]:
    """Give a command of distsum in a terminal; both are gone afterwards."""
    session = Tmux(folder, *arguments, environment=environment, columns=columns, lines=lines)
    try:
        yield session
    finally:
        session.kill()
