"""Where log lines go while a screen is shown, on which they would be drawn."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from distsum.wording import counted

if TYPE_CHECKING:
    from typing import TextIO

MOST_LINES: Final = 10_000
"""About a megabyte or two."""


class KeptLog:
    """A stream that keeps the last lines, to be shown, until it is released; then they go where they belong.

    It may be written to from any thread.

    Args:
        stream: Where they belong.
        most: How many are kept.

    Attributes:
        count: How many lines were written.
    """

    def __init__(self, stream: TextIO, most: int = MOST_LINES) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._lines: deque[str] = deque(maxlen=most)
        self._released = False
        self.count = 0

    @property
    def lines(self) -> list[str]:
        """The lines that are kept."""
        with self._lock:
            return list(self._lines)

    def write(self, text: str) -> int:
        """Keep lines, or pass them on; each call gives whole ones, as loggers do."""
        with self._lock:
            if self._released:
                self._stream.write(text)
            else:
                lines = text.splitlines()
                self.count += len(lines)
                self._lines += lines
        return len(text)

    def flush(self) -> None:
        """Have what was passed on written out."""
        if self._released:
            self._stream.flush()

    def release(self) -> None:
        """Pass on what is kept, and from now on everything; how many lines are not kept any more is told first."""
        with self._lock:
            if self._released:
                return
            self._released = True
            left_out = self.count - len(self._lines)
            told = [f"({counted(left_out, 'earlier line')} left out)"] if left_out else []
            with contextlib.suppress(OSError):  # Nobody hears us: the terminal is gone.
                self._stream.write("".join(f"{line}\n" for line in (*told, *self._lines)))
                self._stream.flush()
            self._lines.clear()
