"""Applications of the screen in a test: what they show, when they have come to rest, and how they looked before."""

from __future__ import annotations

import asyncio
import difflib
import os
from pathlib import Path

from distsum.tui.panes import LinesPane
from rich.cells import cell_len

SCREENS = Path(__file__).parent / "tui" / "screens"
ACCEPT = bool(os.environ.get("DISTSUM_ACCEPT_SCREENS"))  # looked up before a test takes settings out of the environment

WIDE = ("日本b.npy", "日本語の平均値" * 9 + ".npy", "e\u0301\u0323" * 70, "🙂👍🏽" * 40, "ｱﾊﾟ한국어" * 20)
"""Names whose characters take two columns of a terminal, or none."""
UNSEEN = "[\x00-\x1f\x7f-\xa0\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
"""What a name may do harm with, as a regular expression."""


def check_widths(app):
    """See that every line is as wide as the screen, in columns of a terminal."""
    width = app.size.width
    assert [strip.cell_length for strip in app.screen._compositor.render_strips()] == [width] * app.size.height
    assert max(map(cell_len, text_of(app))) <= width


def text_of(app):
    """Return what the terminal shows."""
    return [strip.text.rstrip() for strip in app.screen._compositor.render_strips()] if app.screen_stack else []


def _goes(widget):
    """Whether a pane is on its way to its end."""
    return isinstance(widget, LinesPane) and widget._going


async def drain(app):
    """Wait until all widgets have taken what was sent to them: a pilot waits for those of the screen on top alone."""
    waits = []
    for each in [app, *app._registry]:
        taken = asyncio.Event()
        if each.call_later(taken.set):
            waits.append((each, taken))
    async with asyncio.timeout(30.0):
        while not app._exception_event.is_set():
            # One that is removed meanwhile takes nothing any more.
            if all(taken.is_set() or not each.is_running for each, taken in waits):
                return
            await asyncio.sleep(0)


async def settled(app, pilot):
    """Wait until the newest view is drawn, and nothing moves any more."""
    before = None
    await pilot.pause()
    for _ in range(50):
        app.pull()
        await drain(app)
        await drain(app)
        for screen in app.screen_stack:  # what lies below a dialog is drawn into that
            screen._on_timer_update()
        await drain(app)
        for screen in app.screen_stack:
            screen._on_timer_update()
        now = text_of(app)
        # What scrolls slows down towards its end, where two looks may find the same lines.
        if now == before and not app.animator._animations and not any(_goes(each) for each in app._registry):
            return
        before = now


async def settled_until(pilot, condition):
    """Wait until something has come about, and nothing moves any more."""
    for _ in range(200):
        await settled(pilot.app, pilot)
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


def check_looks(name, lines):
    """Compare a screen with how it looked; to accept how it looks now, set DISTSUM_ACCEPT_SCREENS=1."""
    path = SCREENS / f"{name}.txt"
    if ACCEPT:
        path.write_text("\n".join(lines) + "\n")
    wanted = path.read_text().splitlines()
    assert lines == wanted, "\n".join(difflib.unified_diff(wanted, lines, "as it was", "as it is", lineterm=""))
