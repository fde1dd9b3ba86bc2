"""The line of keys at the bottom of every screen: nothing in it is cut, and what there is no room for is counted."""

from __future__ import annotations

import io

import pytest
from distsum.tui.job_screen import JobScreen
from distsum.tui.jobs_screen import JobsScreen
from distsum.tui.key_line import KeyLine
from distsum.tui.log_screen import LogScreen
from distsum.tui.queues_screen import QueuesScreen
from distsum.tui.served_job_screen import ServedJobScreen
from distsum.tui.submit_screen import SubmitScreen
from distsum.tui.subtree_screen import SubtreeScreen
from distsum.tui.task_screen import TaskScreen
from distsum.tui.workers_screen import WorkersScreen

from distsum.cli.kept_log import KeptLog
from tests.following import busy_service, running, service, succeeded
from tests.screens import settled, text_of
from tests.stage import Stage
from tests.tui.test_job_steering import alone
from tests.tui.test_node_screens import player
from tests.tui.test_screen import replay, shown

JOB = "7f3a"
WALK = (
    (("n",), ServedJobScreen),
    (("enter",), SubtreeScreen),
    (("a",), TaskScreen),
    (("escape", "escape", "w"), WorkersScreen),
    (("u",), QueuesScreen),
    (("j",), JobsScreen),
    (("l",), LogScreen),
    (("escape", "n"), SubmitScreen),
)
"""Keys, one after the other, and the screen that each leads to: all that a service has."""


def stage(**options):
    made = Stage(busy_service() if options.get("job") is None else None, **options)
    made.viewer.service.view = service([running(JOB)], busy_service().workers, busy_service().queues)
    made.viewer.job_views[JOB] = alone(player().view())
    made.viewer.detail_of = player().detail
    return made


def offered_on(screen):
    return {
        active.binding.action
        for active in screen.active_bindings.values()
        if active.binding.show and active.enabled and active.binding.description
    }


async def check_line(app, pilot):
    """Make sure that the keys are told as they are to be told, and return their actions."""
    screen = app.screen
    line = screen.query_one(KeyLine)
    for _ in range(50):  # until what has changed is told
        app.pull()
        await pilot.pause()
        told, offered = text_of(app)[-1], offered_on(screen)
        left_out = len(offered) - len(line.told)
        if told.endswith(f"Help, {left_out} more" if left_out else "Help"):
            break
    assert told == "".join(f" {key.shown} {key.words} " for key in line.told).rstrip(), "each is whole"
    help_key = line.told[-1]
    assert help_key.action == "help"
    assert help_key.words == (f"Help, {left_out} more" if left_out else "Help"), (screen, offered, line.told)
    return [key.action for key in line.told]


@pytest.mark.parametrize(
    ("size", "read_only"), [((80, 24), False), ((80, 24), True), ((120, 36), False), ((40, 10), False)]
)
def test_no_key_is_cut_on_any_screen_of_a_service_and_those_left_out_are_counted(size, read_only):
    async def steps(pilot):
        for keys, screen in WALK:
            if read_only and screen is SubmitScreen:
                continue
            for key in keys:
                await pilot.press(key)
                await settled(pilot.app, pilot)
            assert isinstance(pilot.app.screen, screen)
            seen[screen] = await check_line(pilot.app, pilot)

    seen = {}
    stage(job=JOB, read_only=read_only, log=KeptLog(io.StringIO(), 100)).show(size=size, steps=steps)
    if size == (80, 24) and not read_only:
        assert {"back_up", "cancel", "leave"} <= set(seen[ServedJobScreen])
        assert {"back_up", "back"} <= set(seen[SubtreeScreen])
        assert {"back_up", "back"} <= set(seen[TaskScreen])


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (40, 10)])
def test_no_key_is_cut_on_any_screen_of_a_replay(size):
    async def steps(app, pilot):
        for keys, screen in (((), JobScreen), (("n", "enter"), SubtreeScreen), (("a",), TaskScreen)):
            for key in keys:
                await pilot.press(key)
                await settled(app, pilot)
            assert isinstance(app.screen, screen)
            await check_line(app, pilot)

    shown(replay(), size=size, steps=steps)


def test_the_line_follows_the_width_and_a_click_presses_a_key():
    async def steps(app, pilot):
        await pilot.resize_terminal(120, 36)
        await settled(app, pilot)
        assert "more" not in text_of(app)[-1]
        await pilot.resize_terminal(30, 24)
        await settled(app, pilot)
        await check_line(app, pilot)
        assert "more" in text_of(app)[-1]
        await pilot.click(KeyLine, offset=(text_of(app)[-1].index("Help"), 0))
        await settled(app, pilot)
        assert not app.screen.query(KeyLine), "the help lies above"

    shown(replay(), size=(80, 24), steps=steps)


def test_a_job_that_ends_just_after_it_was_chosen_is_offered_no_keys_any_more_like_the_one_chosen_before():
    made = Stage(service([running("other"), running(JOB), succeeded("over", 60.0)]))

    async def steps(pilot):
        await made.press(pilot, "end")
        assert "c Cancel" not in made.lines[-1]
        await pilot.press("up")  # and nothing is pulled
        assert "c Cancel" in text_of(made.app)[-1]
        made.viewer.service.view = service([running("other"), succeeded(JOB, 1.0), succeeded("over", 60.0)])
        await made.see(pilot)
        assert made.chosen == JOB
        assert "c Cancel" not in made.lines[-1]
        assert "p Priority" not in made.lines[-1]

    made.show(steps=steps)
