"""Workers that are added and removed by a key, where the master has a fleet, and what is said where it has none."""

from __future__ import annotations

from distsum.tui.dialogs import Ask, AskNumber, Told
from distsum.tui.workers_screen import WorkersScreen
from textual.widgets import Input

from distsum.service.messages import Refused, ScaleWorkers
from distsum.service.view import FleetStatus
from tests.following import service, worker
from tests.screens import check_looks, settled_until, text_of
from tests.stage import Stage

HELD = FleetStatus(held=True, wanted=4)


def staged(fleet=HELD, **more):
    workers = [worker("node1-a0"), worker("node1-a1", "idle"), worker("node2-b0"), worker("node3-c0", "lost")]
    return Stage(service(workers=workers, fleet=fleet), **more)


def test_it_looks_as_it_did():
    stage = staged()

    async def steps(pilot):
        for size in ((120, 36), (80, 24)):
            await stage.see(pilot, size)
            check_looks(f"service-scale-{size[0]}", stage.lines)

    stage.show("w", "a", steps=steps)


def test_a_asks_for_the_number_with_what_was_asked_and_what_there_is():
    stage = staged().show("w", "a")
    assert isinstance(stage.screen, AskNumber)
    assert "4 were asked for; the master knows 3 workers" in " ".join(line.strip(" │") for line in stage.lines)
    assert stage.asked.requests == []
    stage = staged().show("w", "a", "6", "enter")
    assert stage.asked.requests == [ScaleWorkers(6)]
    assert stage.told == ["the fleet is to have 6 workers; they come and go as their hosts can"]
    assert isinstance(stage.screen, WorkersScreen)
    assert staged().show("w", "a", "escape").asked.requests == []


def test_to_remove_some_asks_first():
    stage = staged().show("w", "a", "1", "enter")
    assert isinstance(stage.screen, Ask)
    assert "Have 1 worker in place of 4? The others are drained" in stage.text
    assert stage.asked.requests == []
    assert staged().show("w", "a", "1", "enter", "enter").asked.requests == []
    assert staged().show("w", "a", "1", "enter", "down", "enter").asked.requests == [ScaleWorkers(1)]


def test_the_list_says_how_many_are_asked_of_the_fleet():
    assert "Workers ── 4 ── 1 gone ── 4 asked of the fleet" in staged().show("w").text
    assert "its fleet is looked at" in staged(FleetStatus(held=True, wanted=None)).show("w").text
    assert "is not held; its log says why" in staged(FleetStatus(held=False, wanted=None)).show("w").text
    assert "fleet" not in staged(None).show("w").lines[2]


def test_where_the_fleet_has_brought_no_worker_yet_nobody_is_told_to_start_some():
    for fleet, coming in ((HELD, True), (FleetStatus(held=True, wanted=None), True), (None, False)):
        text = Stage(service(fleet=fleet)).show("w").text
        assert ("The master's fleet brings them" in text) is coming
        assert ("distsum worker" in text) is not coming
    assert "distsum worker" in Stage(service(fleet=FleetStatus(held=True, wanted=0))).show("w").text


def test_without_a_fleet_it_says_how_to_get_one():
    stage = staged(None).show("w", "a")
    assert isinstance(stage.screen, Told)
    assert "distsum master --work-dir URI --fleet fleet.toml" in stage.text
    assert stage.asked.requests == []


def test_why_it_is_refused_is_told_as_it_is():
    stage = staged(answer=Refused("10001 [b]workers[/b]: the number"))

    async def steps(pilot):
        await settled_until(pilot, lambda: "not done" in "\n".join(text_of(pilot.app)))
        assert pilot.app.screen.query_one(Input).value == "10001", "it can be mended"

    stage.show("w", "a", *"10001", "enter", steps=steps)
    assert stage.asked.requests == [ScaleWorkers(10001)]
    assert isinstance(stage.screen, AskNumber)
    assert "! not done: 10001 [b]workers[/b]: the number" in stage.text
    assert stage.told == []


def test_who_only_looks_is_offered_nothing_and_sees_what_is_asked():
    stage = staged(read_only=True).show("w", "a", "question_mark")
    assert stage.asked.requests == []
    assert "Add or remove" not in stage.text
