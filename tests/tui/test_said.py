"""What comes of keys: told above the line of keys, or in the dialog that it is about, never over what is written."""

from __future__ import annotations

import asyncio

import pytest
from distsum.tui.dialogs import Ask, AskNumber
from distsum.tui.jobs_screen import JobsScreen
from distsum.tui.said_line import SaidLine
from distsum.tui.subtree_screen import SubtreeScreen
from textual.widgets import Input

from distsum.service.messages import BackedUp, Cancel, Done, Refused, SetPriority
from tests.screens import settled, settled_until, text_of
from tests.stage import Stage
from tests.tui.test_job_steering import stage as job_stage

FIRST = "7f3a90c1d2e4"
LONG = "it is too late, " * 60


@pytest.mark.parametrize("size", [(120, 36), (80, 24), (40, 10)])
def test_words_stand_above_the_keys_and_the_rest_stays_where_it_was(size):
    async def steps(pilot):
        before = text_of(pilot.app)
        pilot.app.say("w5 makes it, too")
        await settled(pilot.app, pilot)
        after = text_of(pilot.app)
        assert after[-2].strip() == "▸ w5 makes it, too"
        assert (after[:-2], after[-1]) == (before[:-2], before[-1])
        await pilot.click(SaidLine)
        await settled(pilot.app, pilot)
        assert text_of(pilot.app) == before, "a click takes it away"

    Stage().show(size=size, steps=steps)


@pytest.mark.parametrize("size", [(120, 36), (80, 24), (40, 10)])
def test_long_reasons_are_folded_and_what_is_cut_is_counted(size):
    async def steps(pilot):
        pilot.app.say(LONG, refused=True)
        await settled(pilot.app, pilot)
        lines = [line for line in text_of(pilot.app) if "too late" in line]
        assert 1 <= len(lines) <= size[1] // 4
        assert lines[0].strip().startswith("! not done: it is too late")
        assert (lines[-1].endswith(" more")) == (size[0] < 120)

    Stage().show(size=size, steps=steps)


def test_words_go_when_they_are_read(monkeypatch):
    monkeypatch.setattr("distsum.tui.said_line.reading_seconds", lambda _words: 0.05)

    async def steps(pilot):
        pilot.app.say("w5 makes it, too")
        await settled_until(pilot, lambda: not pilot.app.screen.said.display)
        assert "w5 makes it" not in "\n".join(text_of(pilot.app))

    Stage().show(steps=steps)


def test_what_is_typed_stays_in_sight():
    async def steps(pilot):
        await pilot.press("slash", *"node1")
        pilot.app.say("w5 makes it, too")
        await settled(pilot.app, pilot)
        lines = text_of(pilot.app)
        assert (lines[-3].strip(), lines[-2]) == ("▸ w5 makes it, too", "node1")

    Stage().show("w", steps=steps)


def test_what_is_told_while_something_is_decided_waits_for_that():
    async def steps(pilot):
        before = text_of(pilot.app)
        pilot.app.say("w5 makes it, too")
        pilot.app.say("it is too late", refused=True)
        await settled(pilot.app, pilot)
        assert text_of(pilot.app) == before
        await pilot.press("escape")
        await settled(pilot.app, pilot)
        told = [line.strip() for line in text_of(pilot.app)[-3:-1]]
        assert told == ["▸ w5 makes it, too", "! not done: it is too late"]

    Stage().show("c", steps=steps)


def test_what_has_waited_long_says_how_long_ago_it_was():
    async def steps(pilot):
        pilot.app.say("w5 makes it, too")
        pilot.app.say("it is too late", refused=True)
        pilot.app._unsaid = [each._replace(when=each.when - 125.0) for each in pilot.app._unsaid]
        pilot.app.say("w6 makes it, too")
        await pilot.press("escape")
        await settled(pilot.app, pilot)
        told = [line.strip() for line in text_of(pilot.app)[-4:-1]]
        assert told == [
            "▸ 2m05s ago: w5 makes it, too",
            "! not done, 2m05s ago: it is too late",
            "▸ w6 makes it, too",
        ]

    Stage().show("c", steps=steps)


def test_textual_s_own_notifications_stand_there_too():
    async def steps(pilot):
        pilot.app.notify("Saved [b]x[/b]", title="Screenshot")
        await settled(pilot.app, pilot)
        assert text_of(pilot.app)[-2].strip() == "▸ Screenshot: Saved x"

    Stage().show(steps=steps)


@pytest.mark.parametrize(
    ("keys", "kind", "wanted"),
    [(("c", "down", "enter"), Ask, Cancel(FIRST)), (("p", "7", "enter"), AskNumber, SetPriority(FIRST, 7))],
)
def test_a_refusal_stands_in_the_dialog_that_it_is_about_and_another_answer_may_be_given(keys, kind, wanted):
    stage = Stage(answer=Refused("[b]no[/b]\x1b"))

    async def steps(pilot):
        await settled_until(pilot, lambda: "not done" in "\n".join(text_of(pilot.app)))
        assert isinstance(pilot.app.screen, kind)
        assert "! not done: [b]no[/b]\\x1b" in "\n".join(text_of(pilot.app))
        if kind is AskNumber:
            assert pilot.app.screen.query_one(Input).value == "7"
        stage.asked.answer = Done()
        await pilot.press("enter")
        await settled_until(pilot, lambda: isinstance(pilot.app.screen, JobsScreen))

    stage.show(*keys, steps=steps)
    assert stage.asked.requests == [wanted, wanted]
    assert len(stage.told) == 1


def test_a_refusal_of_what_was_closed_meanwhile_is_told_above_the_keys():
    answer = asyncio.Event()

    async def ask(_request):
        await answer.wait()
        return Refused("it is too late")

    async def steps(pilot):
        await settled(pilot.app, pilot)
        assert "Asked for; Escape closes this" in "\n".join(text_of(pilot.app))
        await pilot.press("enter", "escape")
        await settled(pilot.app, pilot)
        assert isinstance(pilot.app.screen, JobsScreen)
        answer.set()
        await settled_until(pilot, lambda: "! not done: it is too late" in "\n".join(text_of(pilot.app)))

    stage = Stage()
    stage.app.service.ask = ask
    stage.show("c", "down", "enter", steps=steps)


def test_what_comes_of_a_key_is_told_on_the_screen_where_somebody_is_then():
    async def steps(pilot):
        await settled_until(pilot, lambda: "gets a backup" in "\n".join(text_of(pilot.app)))

    made = job_stage(answer=BackedUp("w5", "w4", ()))
    made.show("n", "s", "enter", steps=steps)
    assert isinstance(made.screen, SubtreeScreen)
