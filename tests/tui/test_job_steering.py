"""What is asked of a service from a job's screen and from those of its nodes, and what comes of that."""

from __future__ import annotations

import msgspec
import pytest
from distsum.tui.dialogs import Told
from distsum.tui.node_screen import NodeScreen
from distsum.tui.subtree_screen import SubtreeScreen

from distsum.messages import TaskId
from distsum.observe.states import BACKUP, DONE, RUNNING
from distsum.service.messages import BackedUp, BackUp, GetNode, Refused, SwitchSpeculation
from tests.following import running, service
from tests.screens import settled, text_of
from tests.stage import Stage
from tests.tui.test_node_screens import player

JOB = "7f3a"
RACED = TaskId(JOB, 2, 0, 6)
HOSTILE = "no \x1b[31m[bold]worker[/]\u202e\n is idle"


def alone(view):
    """Return a view in which no task runs twice."""
    states = tuple(
        msgspec.structs.replace(phase, states=phase.states.replace(bytes([BACKUP]), bytes([RUNNING])))
        for phase in view.states
    )
    return msgspec.structs.replace(view, states=states)


def stage(**options):
    """Return a service in which the recorded job goes on, and which shows it."""
    made = Stage(service([running(JOB)]), **options)
    made.viewer.job_views[JOB] = alone(player().view())
    made.viewer.detail_of = player().detail
    return made


@pytest.mark.parametrize("keys", [("n", "s"), ("n", "enter", "s"), ("n", "enter", "a", "s")])
def test_s_asks_for_a_backup_of_the_task_at_the_cursor_on_each_screen_and_tells_who_makes_it(keys):
    made = stage(answer=BackedUp("w5", "w4", ("w6",))).show(*keys)
    assert made.asked.requests == [BackUp(RACED)]
    assert made.told == ["phase 2 task 6 gets a backup on w5, beside w4, and 1 more worker shares it"]


def with_state(view, state):
    """Return a view in which that task is in another state."""
    phase = view.states[RACED.phase - 1]
    states = bytearray(phase.states)
    states[RACED.index] = state
    phases = list(view.states)
    phases[RACED.phase - 1] = msgspec.structs.replace(phase, states=bytes(states))
    return msgspec.structs.replace(view, states=tuple(phases))


@pytest.mark.parametrize("keys", [("n",), ("n", "enter"), ("n", "enter", "a")])
def test_s_is_offered_only_of_a_task_that_runs_and_runs_once(keys):
    made = stage()

    async def steps(pilot):
        view = made.viewer.job.view
        for state in (BACKUP, DONE):
            made.viewer.job.view = view
            await made.see(pilot)
            assert " s Back up now" in made.lines[-1]
            made.viewer.job.view = with_state(view, state)
            await made.see(pilot)
            await made.press(pilot, "s")
            assert "Back up now" not in made.lines[-1]
            assert made.asked.requests == []

    made.show(*keys, steps=steps)


@pytest.mark.parametrize(("keys", "size"), [(("4",), (120, 36)), (("2",), (80, 24)), (("3",), (80, 24))])
def test_s_is_not_offered_where_the_cursor_is_not_to_be_seen(keys, size):
    made = stage().show("n", *keys, "s", size=size)
    assert "Back up now" not in made.lines[-1]
    assert made.asked.requests == []


def test_in_one_pane_only_keys_are_offered_that_do_something_there():
    made = stage().show("2", "f", "question_mark", size=(80, 50))
    assert not [words for words in ("Zoom", "Signs, or half blocks", "One pane, or all") if words in made.text]
    assert " /  " in made.text
    assert "Filter" not in stage().show("3", size=(80, 24)).text
    assert "Filter" in stage().show("5", size=(80, 24)).text
    assert "One pane, or all" in stage().show("question_mark", size=(120, 60)).text


def test_a_node_that_is_being_asked_about_shows_what_is_known_of_it_at_once():
    made = stage()
    made.viewer.detail_of = None
    made.show("n", "enter")
    assert "1 Children ── 1 of 10 nodes ── 10 done" in made.text
    assert "█ done    P1/150  files 3,750 to 3,774" in made.text
    assert "P3/0 ▸ ▓ P2/6" in made.text
    assert "is at it now, on" in made.text, "who is at it"
    assert "asking who was at it" in made.text
    files = stage()
    files.viewer.detail_of = None
    files.show("n", "enter", "enter")
    assert "25 files, asking for their names" in files.text
    assert "3,750 child 0 …" in files.text
    task = stage()
    task.viewer.detail_of = None
    assert "10 of 10 nodes that it folds are stored" in task.show("n", "enter", "a").text


def test_why_there_is_no_backup_is_told_harmlessly():
    made = stage(answer=Refused(HOSTILE)).show("n", "enter", "s")
    assert made.told == ["no \\x1b[31m[bold]worker[/]\\u202e\\n is idle"]


def test_b_asks_for_no_more_backups_and_for_backups_again_and_the_screen_says_which():
    made = stage().show("b")
    assert made.asked.requests == [SwitchSpeculation(JOB, on=False)]
    assert made.told == ["stragglers of job 7f3a get no more backups; those under way go on"]
    assert "backups on ──" in made.text

    async def steps(pilot):
        assert "backups on ──" in "\n".join(text_of(pilot.app))
        view = switched.viewer.job.view
        snapshot = msgspec.structs.replace(view.snapshot, speculation=False)
        switched.viewer.job.view = msgspec.structs.replace(view, snapshot=snapshot)
        await settled(pilot.app, pilot)
        await pilot.press("b")

    switched = stage()
    switched.show(steps=steps)
    assert switched.asked.requests == [SwitchSpeculation(JOB, on=True)]
    assert "backups OFF ──" in switched.text


def test_who_only_looks_is_offered_nothing_that_changes_something():
    made = stage(read_only=True)

    async def steps(pilot):
        for keys in (("n", "s", "b"), ("enter", "s"), ("a", "s")):
            await made.press(pilot, *keys)
            assert made.asked.requests == []
            assert made.told == []
            await made.press(pilot, "question_mark")
            assert isinstance(made.screen, Told)
            assert "Back up now" not in made.text
            assert "Backups on/off" not in made.text
            await made.press(pilot, "escape")

    made.show(steps=steps)


def test_a_node_of_a_job_is_looked_at_from_afar_and_left_for_the_job_and_the_list():
    made = stage().show("n", "enter")
    assert isinstance(made.screen, SubtreeScreen)
    assert "files 3,750 to 3,774" in made.text
    assert made.viewer.looked[0].task == RACED
    assert all(isinstance(each, GetNode) and each.count <= 36 for each in made.viewer.looked)
    made = stage().show("n", "enter", "a", "escape", "escape", "escape")
    assert not isinstance(made.screen, NodeScreen)
    assert made.viewer.followed == [JOB, None]
    assert stage().show("n", "enter", "q").answer == "leave"
