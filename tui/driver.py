"""How a screen is drawn on a terminal that may vanish: its window is closed, or its connection breaks."""

from __future__ import annotations

import contextlib
import os
import signal
from codecs import getincrementaldecoder
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TextIO

from textual.drivers import linux_driver
from textual.drivers.linux_driver import LinuxDriver

if TYPE_CHECKING:
    from codecs import IncrementalDecoder
    from collections.abc import Callable, Iterator
    from types import FrameType


_NO_SHELL: Final = "no shell is here that could have this go on again, so it is not stopped"


def _forgiving_decoder(encoding: str) -> Callable[[], IncrementalDecoder]:
    return partial(getincrementaldecoder(encoding), "replace")


# A single byte that is not UTF-8, as of a Latin-1 name that somebody pastes, would end what reads keys, and the screen.
# It is read in the midst of a long method of Textual's, which offers no other place to say so.
linux_driver.getincrementaldecoder = _forgiving_decoder  # type: ignore[attr-defined,assignment]


class TerminalDriver(LinuxDriver):
    """Textual's own for Unix, but a terminal that has vanished keeps nothing from ending.

    Textual writes by a thread, which ends at the first error. Then nobody empties its queue, and the screen waits for
    ever, also at its own end: neither a hang-up nor SIGTERM would end the process.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._file: Any = VanishingOutput(self._file)
        self._turning = False
        """Whether the terminal is being given away or taken."""
        self._continued = False
        """Whether the process was had go on since the terminal was taken the last time."""

    def _sigtstp_application(self, *_arguments: int | FrameType | None) -> None:
        # Textual stops the process whatever there is around it. Where no shell waits that could have it go on, as where
        # a terminal's window holds nothing else, it would stay so for ever; the system stops nothing there by itself.
        if self._turning:
            return
        with self._one_turn():
            self.suspend_application_mode()
            self._must_signal_resume = True
            self._continued = False
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)  # Here it stands still; who has it go on is noted before this returns.
            signal.signal(signal.SIGTSTP, signal.SIG_IGN)
            is_alone = not self._continued
            self._continued = True
            self._go_on()
        if is_alone:
            self._app.notify(_NO_SHELL, severity="error", markup=False)

    def _sigcont_application(self, *_arguments: int | FrameType | None) -> None:
        self._continued = True
        if not self._turning:
            with self._one_turn():
                self._go_on()

    def _go_on(self) -> None:
        """Take the terminal, and do so anew as often as the process was had go on meanwhile.

        In the background Textual stops in the midst of it, and gives up; then it is the foreground that comes next.
        """
        while self._continued:
            self._continued = False
            # Who hangs up sends SIGCONT, too, and so does `kill`: Textual would begin a second time, with more threads.
            if self._writer_thread is not None and not self._must_signal_resume:
                self.suspend_application_mode()
            super()._sigcont_application()
        # The terminal shows nothing of what was there, and nothing else may change soon.
        self._app.call_later(self._app.refresh)

    @contextlib.contextmanager
    def _one_turn(self) -> Iterator[None]:
        """Give the terminal away or take it, and be neither asked to stop nor begin with the same meanwhile.

        Handlers of signals interrupt each other: of two that take the terminal each would have a thread read keys.
        """
        self._turning = True
        signal.signal(signal.SIGTSTP, signal.SIG_IGN)
        try:
            yield
        finally:
            self._turning = False
            signal.signal(signal.SIGTSTP, self._sigtstp_application)


class VanishingOutput:
    """A stream that drops what cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._gone = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or do not; return the length."""
        if not self._gone:
            try:
                self._stream.write(text)
            except OSError:
                self._gone = True
        return len(text)

    def flush(self) -> None:
        """Flush, or do not."""
        if not self._gone:
            try:
                self._stream.flush()
            except OSError:
                self._gone = True
