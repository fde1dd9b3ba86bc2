"""Screens in terminals of any size, whatever is pressed: nothing may end them but somebody who leaves."""

from __future__ import annotations

import asyncio
import io
import random
from types import SimpleNamespace

import pytest
from distsum.tui.app import JobApp
from distsum.tui.command_list import Commands
from distsum.tui.dialogs import Ask

from distsum.cli.kept_log import KeptLog
from distsum.helm import Helm
from tests.tui.test_key_line import stage
from tests.tui.test_screen import live, replay, shown

STEPS = 30
SIZES = (
    lambda chance: (chance.randint(1, 200), chance.randint(1, 50)),
    lambda chance: (chance.randint(1, 12), chance.randint(1, 8)),
    lambda chance: (chance.randint(1, 8), 24),
)
OPENERS = ("ctrl+p", "question_mark", "enter", "q", "n", "j", "escape", "slash")
"""Pressed half of the time, so that dialogs, the palette and the form are open often."""
INSIDE = ("pageup", "pagedown", "home", "end", "up", "down", "tab", "5")
"""Beside the keys of what is on top: those of dialogs, and what is written into fields."""


def own():
    return JobApp(live(), helm=Helm(), frame_seconds=3600.0)


def played():
    return JobApp(replay(), frame_seconds=3600.0)


def service():
    nothing = SimpleNamespace(heed=lambda _stop: None, close=lambda: None, list=lambda *_: [])
    return stage(log=KeptLog(io.StringIO(), 100), store=nothing).app


async def press_at_random(app, chance, opened):
    """Press keys and change the size until somebody has left; note what was on top, and what has ended it."""
    done = []
    async with app.run_test(size=SIZES[0](chance)) as pilot:
        for _ in range(STEPS):
            if chance.random() < 0.3:
                done.append(chance.choice(SIZES)(chance))
                await pilot.resize_terminal(*done[-1])
            else:
                keys = OPENERS if chance.random() < 0.5 else sorted({*app.screen.active_bindings, *INSIDE})
                done.append(chance.choice(keys))
                await pilot.press(done[-1])
            await pilot.pause()
            if app.failure is not None or not app.is_running:
                break
            app.pull()
            opened.add(type(app.screen).__name__)
        assert app.failure is None, done


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (own, {"OwnJobScreen", "SubtreeScreen", "Ask", "Help", "Commands"}),
        (played, {"JobScreen", "SubtreeScreen", "Help", "Commands"}),
        (service, {"ServedJobScreen", "JobsScreen", "SubmitScreen", "Ask", "Help", "Commands"}),
    ],
)
def test_no_keys_and_no_size_of_the_terminal_end_a_screen(make, wanted):
    opened = set()
    for seed in range(3):
        asyncio.run(press_at_random(make(), random.Random(seed), opened))
    assert opened >= wanted


@pytest.mark.parametrize(("key", "opened"), [("q", Ask), ("ctrl+p", Commands)])
def test_a_question_and_the_palette_open_and_turn_pages_in_any_terminal(key, opened):
    async def steps(app, pilot):
        for size in ((10, 4), (6, 24), (5, 3), (10, 2), (1, 1)):
            await pilot.resize_terminal(*size)
            await pilot.press(key)
            await pilot.pause()
            assert isinstance(app.screen, opened)
            await pilot.press("pagedown", "pageup", "down", "end", "home")
            await pilot.resize_terminal(5, 3)
            assert isinstance(app.screen, opened)
            await pilot.press("escape")
            await pilot.pause()
            assert not isinstance(app.screen, opened)

    shown(live(), steps=steps, helm=Helm())
