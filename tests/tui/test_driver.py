"""A terminal that vanishes or is continued: nobody waits for it, and nothing is begun twice."""

from __future__ import annotations

import io
import os
import pty
import threading

from distsum.tui.app import ScreenApp
from distsum.tui.driver import TerminalDriver, VanishingOutput
from textual.drivers._writer_thread import MAX_QUEUED_WRITES, WriterThread


def test_nobody_waits_for_a_terminal_that_is_gone():
    master, ours = pty.openpty()
    with open(ours, "wb", buffering=0) as file:
        writer = WriterThread(VanishingOutput(io.TextIOWrapper(file, write_through=True)))
        writer.start()
        writer.write("shown")
        assert os.read(master, 100) == b"shown"
        os.close(master)

        def write_on() -> None:
            for _ in range(3 * MAX_QUEUED_WRITES):
                writer.write("x" * 1000)
            writer.stop()

        writing = threading.Thread(target=write_on, daemon=True)
        writing.start()
        writing.join(10.0)
        assert not writing.is_alive()
        assert not writer.is_alive()


def test_screens_are_drawn_so():
    assert ScreenApp().driver_class is TerminalDriver
