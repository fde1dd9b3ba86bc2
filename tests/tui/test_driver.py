"""A terminal that vanishes: nobody waits for it. And one that sends what nobody would type: nothing ends by that."""

from __future__ import annotations

import io
import os
import pty
import threading

import pytest
from distsum.tui.app import ScreenApp
from distsum.tui.driver import TerminalDriver, VanishingOutput
from textual.drivers._writer_thread import MAX_QUEUED_WRITES, WriterThread

from tests.command import Terminal
from tests.tui.test_tui_run import holds, many

__all__ = ["many"]  # a fixture


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


PASTED = {
    "Latin-1": (b"caf\xe9-1", "caf\ufffd-1"),
    "half a character": (b"halved\xe2\x80", "halved"),
    "colours": (b"\x1b[31m\x1b[0mreddish", "reddish"),
    "a title and pictures": (b"\x1b]0;title\x07\x1bPq#0\x1b\\pictured", "pictured"),
    "one within another": (b"\x1b[200~\x1b[200~nested", "nested"),
    "controls": (b"a\x00\x01\x1a\x7fb\xc2\x9b31m", "31m"),
}


@pytest.mark.parametrize("name", PASTED)
def test_whatever_is_pasted_is_text_and_ends_nothing(many, name):
    pasted, seen = PASTED[name]
    with Terminal("replay", many[0].parent / "history", columns=120, lines=36) as screen:
        screen.wait_until(lambda: holds(screen, "1 Tree"), "the job")
        screen.type(b"/")
        screen.wait_until(lambda: holds(screen, "must hold; Enter keeps it"), "the filter")
        screen.type(b"\x1b[200~" + pasted + b"\x1b[201~")
        screen.wait_until(lambda: holds(screen, seen), "what is pasted")
        screen.type(b"\r")
        screen.wait_until(lambda: holds(screen, "q Leave"), "that keys are heeded")
        screen.type(b"q")
        assert screen.finish() == 0
        assert not holds(screen, "Traceback")
        assert not holds(screen, "Error")
