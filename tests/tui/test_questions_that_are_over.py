"""A question whose subject has ended meanwhile is asked no more, and the screen says why."""

from __future__ import annotations

import pytest
from distsum.tui.command_list import Commands
from distsum.tui.dialogs import Ask, AskNumber
from distsum.tui.own_job_screen import OwnJobScreen

from distsum.helm import Helm
from distsum.service.messages import Cancel
from tests.following import running, service, status, worker
from tests.screens import settled, settled_until, text_of
from tests.stage import Stage
from tests.tui.test_own_run import Run
from tests.tui.test_screen import live, player_at, shown

JOB = "7f3a90c1d2e4"


def test_leaving_is_not_asked_about_any_more_when_the_run_has_ended():
    async def steps(app, pilot):
        await pilot.press("q")
        await settled(app, pilot)
        assert isinstance(app.screen, Ask)
        source.put(player_at(1.0).view())
        await settled_until(pilot, lambda: not isinstance(app.screen, Ask))
        assert type(app.screen) is OwnJobScreen
        assert "the job has ended (DONE); q leaves without a question" in "\n".join(text_of(app))
        await pilot.press("q")

    source = live(0.5)
    seen, _ = shown(source, steps=steps, helm=Helm())
    assert seen.answer == "leave"


def test_a_run_whose_tasks_are_done_is_not_asked_whether_to_cancel_it():
    async def steps(app, pilot):
        with run:
            await pilot.press("c")
            await settled(app, pilot)
            assert isinstance(app.screen, Ask)
        await settled(app, pilot)
        assert type(app.screen) is OwnJobScreen
        assert "its tasks are done, and the result is stored" in "\n".join(text_of(app))

    run = Run()
    shown(live(0.5), steps=steps, helm=run.helm)
    assert run.told == []


@pytest.mark.parametrize("where", [(), ("enter",)])
@pytest.mark.parametrize(("key", "kind"), [("c", Ask), ("p", AskNumber)])
@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_nothing_is_asked_of_a_job_that_has_ended_meanwhile(where, key, kind, state):
    stage = Stage(service([running(JOB)]))

    async def steps(pilot):
        await stage.press(pilot, "escape", *where, key)
        assert isinstance(stage.screen, kind)
        stage.viewer.service.view = service([status(JOB, state)])
        await stage.see(pilot)
        assert not isinstance(stage.screen, kind)

    stage.show(steps=steps)
    assert stage.told == [f"nothing is asked of job {JOB} any more: it has ended ({state})"]
    assert stage.told[0] in stage.text
    assert stage.asked.requests == []


def test_nothing_is_asked_of_a_worker_that_is_gone_and_it_is_told_once_the_palette_is_gone_too():
    stage = Stage(service(workers=[worker("node1-a0"), worker("node1-a1")]))

    async def steps(pilot):
        await stage.press(pilot, "w", "x", "ctrl+p")
        assert isinstance(stage.screen, Commands)
        stage.viewer.service.view = service(workers=[worker("node1-a0", "lost"), worker("node1-a1")])
        await stage.see(pilot)
        await stage.press(pilot, "escape")
        await settled_until(pilot, lambda: not isinstance(stage.app.screen, Ask | Commands))
        await stage.see(pilot)

    stage.show(steps=steps)
    assert stage.told == ["nothing is asked of worker node1-a0 any more: it is gone"]
    assert stage.told[0] in stage.text


def test_an_answer_that_is_being_carried_out_is_waited_for():
    stage = Stage(service([running(JOB)]))
    stage.app.steering._ask = lambda request, _done, _question: asked.append(request)  # and never answers
    asked = []

    async def steps(pilot):
        await stage.press(pilot, "escape", "c", "down", "enter")
        stage.viewer.service.view = service([status(JOB, "cancelled")])
        await stage.see(pilot)
        assert isinstance(stage.screen, Ask)

    stage.show(steps=steps)
    assert asked == [Cancel(JOB)]
    assert stage.told == []
