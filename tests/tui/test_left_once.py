"""Keys that come faster than a screen is left: each screen is left once, and takes none with it."""

from __future__ import annotations

import pytest
from distsum.tui.command_list import Commands
from distsum.tui.dialogs import Ask, Question
from distsum.tui.job_screen import JobScreen
from distsum.tui.jobs_screen import JobsScreen
from distsum.tui.subtree_screen import SubtreeScreen
from distsum.tui.workers_screen import WorkersScreen

from distsum.helm import Helm
from tests.screens import settled, settled_until, text_of
from tests.stage import Stage
from tests.tui.test_screen import live, replay, shown


async def at_once(app, pilot, *keys):
    """Press keys as a terminal hands them over that were typed while it was busy."""
    for key in keys:
        app.simulate_key(key)
    await settled(app, pilot)


@pytest.mark.parametrize("times", [2, 3, 5])
def test_a_command_that_is_chosen_twice_is_done_once(times):
    async def steps(app, pilot):
        themes = []
        app.next_theme = lambda: themes.append(app.theme)
        await pilot.press("ctrl+p", *"next theme")
        await settled_until(pilot, lambda: "Next theme" in "\n".join(text_of(app)))
        await at_once(app, pilot, *["enter"] * times)
        assert type(app.screen) is JobScreen
        assert len(themes) == 1

    shown(replay(), steps=steps)


@pytest.mark.parametrize("times", [2, 3, 5])
def test_the_palette_takes_no_screen_with_it(times):
    stage = Stage()

    async def steps(pilot):
        app = stage.app
        await pilot.press("2", "ctrl+p", *"next theme")
        await settled_until(pilot, lambda: "Next theme" in "\n".join(text_of(app)))
        await at_once(app, pilot, *["enter"] * times)
        assert type(app.screen) is WorkersScreen

    stage.show(steps=steps)


@pytest.mark.parametrize("times", [2, 3])
def test_a_run_in_this_process_stays_on_the_screen_when_enter_is_pressed_twice(times):
    async def steps(app, pilot):
        await pilot.press("q")
        await at_once(app, pilot, *["enter"] * times)
        assert app.screen is app.screen_stack[0]

    seen, _ = shown(live(0.5), steps=steps, helm=Helm())
    assert seen.answer is None
    assert seen.app.failure is None


@pytest.mark.parametrize(("keys", "below"), [(("2", "x"), WorkersScreen), (("c",), JobsScreen)])
@pytest.mark.parametrize("times", [2, 3])
def test_a_question_is_answered_once_and_the_screen_below_stays(keys, below, times):
    stage = Stage()

    async def steps(pilot):
        await pilot.press(*keys)
        await settled(stage.app, pilot)
        assert isinstance(stage.app.screen, Ask)
        await at_once(stage.app, pilot, *["enter"] * times)
        assert type(stage.app.screen) is below

    stage.show(steps=steps)
    assert stage.asked.requests == []


def test_an_answer_that_is_carried_out_below_the_palette_closes_the_question_when_that_is_gone():
    stage = Stage()

    async def steps(pilot):
        await pilot.press("c")
        asked = stage.app.screen
        await pilot.press("ctrl+p")
        await settled(stage.app, pilot)
        asked.close()
        await settled(stage.app, pilot)
        assert isinstance(stage.app.screen, Commands)
        await pilot.press("escape")
        await settled_until(pilot, lambda: not isinstance(stage.app.screen, Commands | Question))
        assert type(stage.app.screen) is JobsScreen

    stage.show(steps=steps)


def test_a_task_that_is_opened_twice_is_shown_once():
    async def steps(app, pilot):
        app.screen._tree.action_open()
        app.screen._tree.action_open()
        await settled(app, pilot)
        assert type(app.screen) is SubtreeScreen
        opened = app.screen
        await pilot.press("escape")
        await settled(app, pilot)
        assert type(app.screen) is JobScreen
        opened.action_back()  # as a key that was on its way when the first one left it
        await settled(app, pilot)
        assert type(app.screen) is JobScreen

    shown(replay(), steps=steps)
