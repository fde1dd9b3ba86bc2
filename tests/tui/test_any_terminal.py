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
from textual.command import CommandList
from textual.widgets import OptionList

from distsum.cli.kept_log import KeptLog
from distsum.helm import Helm
from tests.screens import settled, settled_until, text_of
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


def test_a_question_is_read_and_answered_also_where_three_lines_have_room():
    """Each line of it comes in sight by the key that leads to its answers, and none is chosen that was not seen."""
    seen, chosen = [], []

    async def steps(app, pilot):
        await pilot.press("q")
        for _ in range(30):
            await settled(app, pilot)
            lines = text_of(app)
            seen.append([line.strip("│▂▃▄▅▆▇ ") for line in lines[1:4]])
            chosen.append(app.screen.query_one(OptionList).highlighted)
            if len(seen) == 1:
                assert lines[4].endswith(" more below ─╯")
            await pilot.press("down" if len(seen) < 15 else "up")

    shown(live(), size=(20, 5), steps=steps, helm=Helm())
    assert " ".join(seen[0]).startswith("The job runs in")
    told = " ".join(" ".join(lines) for lines in seen[:15])
    for word in ["The", "job", "runs", "in", "this", "process.", "Stay", "here", "Leave", "Stop"]:
        assert word in told
    assert chosen[14] == 2, "the last one"
    before = chosen.index(1)
    assert any("Stay here" in " ".join(lines) for lines in seen[: before + 1])
    assert seen[-1] == seen[0], "and back"


def test_a_number_is_written_where_it_is_seen_also_where_three_lines_have_room():
    made = stage()

    async def steps(pilot):
        app = pilot.app
        await pilot.resize_terminal(20, 5)
        await pilot.press("p")
        await settled(app, pilot)
        assert "Which priority" in text_of(app)[1]
        assert " more below" in text_of(app)[4]
        await pilot.press("down")
        await settled_until(pilot, lambda: "shall job" in text_of(app)[1])
        await pilot.press("up", "7")
        await settled(app, pilot)
        assert any(line.strip("│▂▃▄▅▆▇ ") == "7" for line in text_of(app))

    made.show(steps=steps)


@pytest.mark.parametrize("size", [(20, 5), (80, 24)])
def test_the_palette_tells_how_many_commands_are_out_of_sight(size):
    async def steps(app, pilot):
        await pilot.press("ctrl+p")
        found = app.screen.query_one(CommandList)
        for key, sign in (("down", "below"), ("end", "above")):
            if key == "end":
                found.highlighted = found.option_count - 1
            await settled(app, pilot)
            lines = text_of(app)
            shown_lines = {line.strip("▂▃▄▅▆▇ ") for line in lines}
            names = [option.prompt.plain.split("\n") for option in found.options]
            seen = [place for place, words in enumerate(names) if shown_lines & set(words)]
            out = len(names) - 1 - seen[-1] if sign == "below" else seen[0]
            assert out > 5
            assert any(f"{out} more {sign}" in line for line in lines), (out, lines)
        await pilot.press(*"filter")
        await settled_until(pilot, lambda: not any(" more " in line for line in text_of(app)))

    shown(live(), size=size, steps=steps, helm=Helm())
