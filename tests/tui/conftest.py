"""What all tests of the screen have in common."""

from __future__ import annotations

import time

import pytest
from textual import _wait


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(autouse=True)
def look_often(monkeypatch):
    """Have Textual's pilot look whether all is at rest every 4 ms, in place of every 20.

    It looks twice for each key and once for each pause, and that was most of what tests of screens took.
    """
    monkeypatch.setattr(_wait, "SLEEP_GRANULARITY", 0.004)
