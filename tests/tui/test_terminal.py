"""A terminal that has vanished before a screen heeds signals."""

from __future__ import annotations

import asyncio
import os
import pty
import sys

import pytest
from distsum.tui import terminal


@pytest.fixture
def both_ends(monkeypatch):
    """Give a terminal's master, of which this process's input is the other end."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "rb", buffering=0) as stream:
        monkeypatch.setattr(sys, "__stdin__", stream)
        monkeypatch.delenv("TEXTUAL_DRIVER", raising=False)
        yield os.fdopen(master, "wb", buffering=0)


@pytest.mark.parametrize("vanishes", [True, False])
def test_a_screen_on_a_terminal_that_has_vanished_meanwhile_ends_at_once(both_ends, vanishes):
    ended = []

    async def begin():
        terminal.heed_signals(lambda: ended.append("over"))
        await asyncio.sleep(0.05)

    if vanishes:
        both_ends.close()
    with terminal.handlers_kept():
        asyncio.run(begin())
    both_ends.close()
    assert ended == (["over"] if vanishes else [])


def test_a_pipe_that_nobody_writes_to_any_more_is_no_terminal_that_has_vanished():
    reading, writing = os.pipe()
    os.close(writing)
    assert not terminal.has_vanished(reading)
    os.close(reading)
