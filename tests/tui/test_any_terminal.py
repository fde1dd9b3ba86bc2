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
from tests.screens import settled
from tests.tui.test_key_line import stage
from tests.tui.test_screen import live, replay, shown

STEPS = 25
SIZES = (
    lambda chance: (chance.randint(1, 200), chance.randint(1, 50)),
    lambda chance: (chance.randint(1, 12), chance.randint(1, 8)),
    lambda chance: (chance.randint(1, 8), 24),
)
MORE_KEYS = ("pageup", "pagedown", "home", "end", "up", "down", "tab", "enter", "5")
"""Beside the keys of what is on top: those of dialogs, and what is written into fields."""


def own():
    return JobApp(live(), helm=Helm(), frame_seconds=3600.0)


def played():
    return JobApp(replay(), frame_seconds=3600.0)


def service():
    nothing = SimpleNamespace(heed=lambda _stop: None, close=lambda: None, list=lambda *_: [])
    return stage(log=KeptLog(io.StringIO(), 100), store=nothing).app


async def press_at_random(app, chance, keys, opened):
    """Open something, then press keys and change the size until somebody has left."""
    done = []
    async with app.run_test(size=SIZES[0](chance)) as pilot:
        await settled(app, pilot)
        await pilot.press(*keys)
        await pilot.pause()
        assert type(app.screen).__name__ == opened
        for _ in range(STEPS):
            if chance.random() < 0.3:
                done.append(chance.choice(SIZES)(chance))
                await pilot.resize_terminal(*done[-1])
            else:
                done.append(chance.choice(sorted({*app.screen.active_bindings, *MORE_KEYS})))
                await pilot.press(done[-1])
            await pilot.pause()
            if app.failure is not None or not app.is_running:
                break
            app.pull()
        assert app.failure is None, done


@pytest.mark.parametrize(
    ("make", "keys", "opened"),
    [
        (own, "q", "Ask"),
        (own, "ctrl+p", "Commands"),
        (own, "enter", "SubtreeScreen"),
        (played, "question_mark", "Help"),
        (service, "q", "Ask"),
        (service, "p", "AskNumber"),
        (service, "w", "WorkersScreen"),
        (service, "j n", "SubmitScreen"),
        (service, "ctrl+p", "Commands"),
    ],
)
def test_no_keys_and_no_size_of_the_terminal_end_a_screen(make, keys, opened):
    asyncio.run(press_at_random(make(), random.Random(keys), keys.split(), opened))


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
