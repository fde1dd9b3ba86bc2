"""What is asked of a service from a job's screen and from those of its nodes, and what comes of that."""

from __future__ import annotations

import msgspec
import pytest
from distsum.tui.dialogs import Told
from distsum.tui.node_screen import NodeScreen
from distsum.tui.subtree_screen import SubtreeScreen

from distsum.messages import TaskId
from distsum.service.messages import BackedUp, BackUp, GetNode, Refused, SwitchSpeculation
from tests.following import running, service
from tests.screens import settled, text_of
from tests.stage import Stage
from tests.tui.test_node_screens import player

JOB = "7f3a"
RACED = TaskId(JOB, 2, 0, 6)
HOSTILE = "no \x1b[31m[bold]worker[/]\u202e\n is idle"


def stage(**options):
    """Return a service in which the recorded job goes on, and which shows it."""
    made = Stage(service([running(JOB)]), **options)
    made.viewer.job_views[JOB] = player().view()
    made.viewer.detail_of = player().detail
    return made


@pytest.mark.parametrize("keys", [("n", "s"), ("n", "enter", "s"), ("n", "enter", "a", "s")])
def test_s_asks_for_a_backup_of_the_task_at_the_cursor_on_each_screen_and_tells_who_makes_it(keys):
    made = stage(answer=BackedUp("w5", "w4", ("w6",))).show(*keys, notifications=True)
    assert made.asked.requests == [BackUp(RACED)]
    assert made.told == ["phase 2 task 6 gets a backup on w5, beside w4, and 1 more worker shares it"]


def test_why_there_is_no_backup_is_told_harmlessly():
    made = stage(answer=Refused(HOSTILE)).show("n", "enter", "s", notifications=True)
    assert made.told == ["no \\x1b[31m[bold]worker[/]\\u202e\\n is idle"]


def test_b_asks_for_no_more_backups_and_for_backups_again_and_the_screen_says_which():
    made = stage().show("b", notifications=True)
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
    switched.show(steps=steps, notifications=True)
    assert switched.asked.requests == [SwitchSpeculation(JOB, on=True)]
    assert "backups OFF ──" in switched.text


@pytest.mark.parametrize("keys", [("n", "s"), ("b",), ("n", "enter", "s"), ("n", "enter", "a", "s")])
def test_who_only_looks_is_offered_nothing_that_changes_something(keys):
    made = stage(read_only=True).show(*keys)
    assert made.asked.requests == []
    assert made.told == []
    made = stage(read_only=True).show(*keys[:-1], "question_mark")
    assert isinstance(made.screen, Told)
    assert "Back up now" not in made.text
    assert "Backups on/off" not in made.text


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
