"""A service's lists and jobs on the screen, driven by keys and the mouse, and compared with how they looked."""

from __future__ import annotations

import io
import re

import msgspec
import pytest
from distsum.tui.dialogs import Ask, AskNumber, Told
from distsum.tui.jobs_screen import JobsScreen
from distsum.tui.list_screen import ListScreen
from distsum.tui.panes import Scrubber, Tabs
from distsum.tui.queues_screen import QueuesScreen
from distsum.tui.served_job_screen import ServedJobScreen
from distsum.tui.table import Table
from distsum.tui.tree_map import TreeMap
from distsum.tui.workers_screen import WorkersScreen
from textual.events import AppBlur

from distsum.cli.kept_log import KeptLog
from distsum.errors import StorageError, UnreachableError
from distsum.observe.history import History
from distsum.observe.player import Player
from distsum.observe.view import LogLine
from distsum.service.messages import Cancel, CommandWorker, Queue, Queues, Refused, SetPriority
from distsum.service.viewer import Connection
from tests.following import (
    NOW,
    Histories,
    busy_service,
    running,
    service,
    status,
    succeeded,
    worker,
)
from tests.recorded import Stored, recorded
from tests.screens import UNSEEN, WIDE, check_looks, check_widths, settled, settled_until, text_of
from tests.stage import Stage

FIRST, SECOND = "7f3a90c1d2e4", "9c00aa12b3c4"
"""Jobs at the top of the list."""
DONE_JOB, FAILED_JOB = "0a11ce550001", "0a11ce550002"
ORDER = [FIRST, SECOND, "a1f0e2d3c4b5", "81bb00c4f5a6", "0a11ce550003", FAILED_JOB, DONE_JOB]

CASES = {
    "jobs": (),
    "jobs-sorted": ("s", "s", "S", "s", "r"),
    "jobs-cancel": ("c",),
    "jobs-help": ("question_mark",),
    "workers": ("w",),
    "queues": ("u",),
}


@pytest.mark.parametrize("name", CASES)
def test_it_looks_as_it_did(name):
    stage = Stage()

    async def steps(pilot):
        for size in ((120, 36), (80, 24)):
            await stage.see(pilot, size)
            assert len(stage.lines) == size[1]
            check_looks(f"service-{name}-{size[0]}", stage.lines)

    stage.show(*CASES[name], steps=steps)


@pytest.mark.parametrize("size", [(40, 10), (1, 1), (300, 100)])
def test_any_size_can_be_used_and_none_overflows(size):
    stage = Stage()

    async def steps(pilot):
        for key in "1wu":
            await stage.press(pilot, key, "question_mark", "escape")
            assert len(stage.lines) == size[1]
            assert max(map(len, stage.lines)) <= size[0]
            if size[0] >= 40:
                assert stage.screen.table.chosen.key[:12] in stage.text, "what is chosen is seen"

    stage.show(size=size, steps=steps)


def test_the_cursor_stays_in_a_page_that_has_not_the_focus_and_is_in_a_job_that_is_opened_then():
    async def steps(pilot):
        pilot.app.post_message(AppBlur())
        await settled(pilot.app, pilot)
        assert isinstance(pilot.app.focused, Table)
        await pilot.app.run_action("open", pilot.app.screen)
        await settled(pilot.app, pilot)
        assert isinstance(pilot.app.focused, TreeMap)

    Stage().show(steps=steps)


def test_the_log_of_another_master_is_drawn_also_where_it_is_as_long_as_the_one_before():
    stage = Stage(busy_service(), job=FIRST)
    player = Player(History(Stored(recorded())))
    began = msgspec.structs.replace(player.view(), log=(LogLine(1.0, 20, "the first master's"),), log_total=1)
    stage.viewer.job_views[FIRST] = began
    stage.viewer.follow(FIRST)

    async def steps(pilot):
        assert "the first master's" in "\n".join(text_of(pilot.app))
        stage.viewer.job.view = msgspec.structs.replace(began, log=(LogLine(1.0, 20, "the second one's"),))
        await settled(pilot.app, pilot)

    text = stage.show(steps=steps).text
    assert "the second one's" in text
    assert "the first master's" not in text


def test_the_screen_of_a_job_tells_the_queue_of_all_jobs_until_the_job_has_ended():
    stage = Stage(busy_service(), job=FIRST)
    player = Player(History(Stored(recorded(tree_told=True))))
    player.seek(0.9 * player.end_seconds)
    while not player.step():
        pass
    stage.viewer.job_views[FIRST] = player.view()
    stage.viewer.follow(FIRST)
    lines = stage.show(size=(120, 40)).lines
    assert any("╭─ 3 Queues and I/O ──" in line for line in lines), lines
    assert any(re.search("│queue   41 ready [▁-█]+ ", line) for line in lines), lines
    assert any("│      of all jobs 32 unacked, 3" in line for line in lines), lines
    assert any("of this job " in line for line in lines), lines
    assert " C=20,000,000 f64 " in lines[0]
    ended = ended_stage(recorded())

    async def steps(pilot):
        await settled_until(pilot, lambda: ended.app.screen.followed.replay() is not None)
        await pilot.press("left_square_bracket")

    text = ended.show("end", "enter", size=(120, 40), steps=steps).text
    assert "queue 0 queued again" in text
    assert "of all jobs" not in text, "that queue is of now, and the job has ended"


def test_it_can_be_resized_while_it_draws():
    async def steps(pilot):
        for width, height in ((80, 24), (40, 10), (300, 100), (3, 2), (120, 36)):
            await pilot.resize_terminal(width, height)
            await settled(pilot.app, pilot)
            assert len(text_of(pilot.app)) == height

    assert Stage().show(steps=steps).lines == Stage().show().lines


@pytest.mark.parametrize("size", [(80, 24), (40, 10)])
def test_why_a_worker_is_quarantined_is_cut_with_a_mark_and_can_be_read_as_a_whole(size):
    reason = (
        "4 attempts failed in a row, the last with: " + "s3://lab/run42/17.npy: AccessDenied (403), " * 9 + "at last"
    )
    bad = worker("node2-b1", "quarantined", reason=reason, failures=4)
    read = []

    async def steps(pilot):
        await settled(pilot.app, pilot)
        cut = [line for line in text_of(pilot.app) if line.endswith("…")]
        assert any("AccessDenied" in line or "4 attempts" in line for line in cut)
        await pilot.press("enter")
        for _ in range(30):
            await settled(pilot.app, pilot)
            read.append([line.strip("│ ▁▂▃▄▅▆▇") for line in text_of(pilot.app) if "│" in line])
            await pilot.press("down")
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, WorkersScreen)

    Stage(service([running(FIRST)], [bad, worker("node1-a0")])).show("j", "w", steps=steps, size=size)
    assert any("at last" in line for lines in read for line in lines)
    told = {word for lines in read for line in lines for word in line.split()}
    assert set(reason.split()) <= told


def test_a_list_offers_no_key_that_leads_to_itself():
    seen = {}

    async def steps(pilot):
        for key in "123":
            await pilot.press(key)
            await settled(pilot.app, pilot)
            offered = {each.binding.action for each in pilot.app.screen.active_bindings.values() if each.enabled}
            seen[pilot.app.screen.NAME] = sorted(action for action in offered if action.startswith("go('"))

    Stage().show(steps=steps)
    assert seen == {
        "jobs": ["go('queues')", "go('workers')"],
        "workers": ["go('jobs')", "go('queues')"],
        "queues": ["go('jobs')", "go('workers')"],
    }


# Where one begins, and goes -------------------------------------------------------------------------------------------


def test_one_job_under_way_is_shown_at_once_and_escape_goes_to_the_list():
    stage = Stage(service([succeeded(DONE_JOB, 60.0), running(FIRST)])).show()
    assert isinstance(stage.screen, ServedJobScreen)
    assert stage.viewer.followed == [FIRST]
    stage = Stage(service([succeeded(DONE_JOB, 60.0), running(FIRST)])).show("escape")
    assert isinstance(stage.screen, JobsScreen), "and it is not opened again"
    assert stage.viewer.followed == [FIRST, None]


@pytest.mark.parametrize("jobs", [[], [running(FIRST), running(SECOND)], [succeeded(DONE_JOB, 60.0)]])
def test_else_it_begins_with_the_list(jobs):
    stage = Stage(service(jobs)).show()
    assert isinstance(stage.screen, JobsScreen)
    assert stage.viewer.followed == []


def test_a_job_that_was_named_is_shown_before_anything_is_known_of_others():
    stage = Stage(busy_service(), job=SECOND)
    stage.viewer.service.view = None
    assert isinstance(stage.show().screen, ServedJobScreen)
    assert stage.viewer.followed == [SECOND]


def test_who_was_sooner_than_the_first_view_is_not_taken_elsewhere():
    stage = Stage(service([running(FIRST)]))
    view, stage.viewer.service.view = stage.viewer.service.view, None

    async def steps(pilot):
        assert "Nothing is known yet." in "\n".join(text_of(pilot.app))
        await pilot.press("w")
        await settled(pilot.app, pilot)
        stage.viewer.service.view = view

    assert isinstance(stage.show(steps=steps).screen, WorkersScreen)


def test_enter_opens_a_job_and_the_lists_stand_above_it():
    stage = Stage().show("down", "enter")
    assert isinstance(stage.screen, ServedJobScreen)
    assert stage.viewer.followed == [SECOND]
    stage = Stage()

    async def steps(pilot):
        for keys, kind in (
            (("enter", "w"), WorkersScreen),
            (("escape",), ServedJobScreen),
            (("w", "u"), QueuesScreen),
            (("escape",), ServedJobScreen),
            (("w", "u", "j"), JobsScreen),
        ):
            await stage.press(pilot, *keys)
            assert isinstance(stage.screen, kind)

    stage.show(steps=steps)
    assert stage.viewer.followed[-1] is None


def test_escape_goes_back_and_from_the_first_list_nowhere():
    assert isinstance(Stage().show("w", "escape").screen, JobsScreen)
    stage = Stage().show("escape")
    assert isinstance(stage.screen, JobsScreen)
    assert stage.answer is None


@pytest.mark.parametrize(("before", "key"), [((), "q"), (("w",), "ctrl+c"), (("u",), "ctrl+q"), (("enter",), "q")])
def test_leaving_asks_nothing_since_jobs_go_on(key, before):
    stage = Stage().show(*before, key)
    assert stage.answer == "leave"
    assert stage.asked.requests == []


# Rows -----------------------------------------------------------------------------------------------------------------


def test_those_under_way_come_first_then_the_last_that_ended():
    assert Stage().show().keys == ORDER


def test_s_sorts_by_each_column_in_turn_and_r_turns_that_round():
    stage = Stage()

    async def steps(pilot):
        await stage.press(pilot, "r")
        came = stage.keys
        assert came == ORDER, "what has no order cannot be turned round"
        await stage.press(pilot, "s", "s")
        by_job = stage.keys
        assert by_job == sorted(by_job)
        assert "job▲" in stage.text
        await stage.press(pilot, "r")
        assert stage.keys == by_job[::-1]
        await stage.press(pilot, "S", "S")
        assert stage.keys == came, "as they come"
        await stage.press(pilot, *["s"] * 5)
        assert stage.keys[:2] == [FIRST, SECOND], "a minute is less than a quarter of an hour"
        assert stage.keys[-1] == DONE_JOB
        await stage.press(pilot, *["s"] * 3)
        assert stage.keys == came, "after the last column, too"

    stage.show(steps=steps)


def test_a_click_on_a_title_sorts_and_another_one_turns_that_round():
    async def once(pilot):
        await pilot.click(Table, offset=(18, 1))

    async def twice(pilot):
        await pilot.click(Table, offset=(18, 1))
        await settled(pilot.app, pilot)
        await pilot.click(Table, offset=(18, 1))

    jobs = Stage().show(steps=once).keys
    assert jobs == sorted(jobs)
    assert Stage().show(steps=twice).keys == jobs[::-1]


def test_a_click_chooses_a_row_and_two_open_it():
    async def once(pilot):
        await pilot.click(Table, offset=(30, 3))

    async def twice(pilot):
        await pilot.click(Table, offset=(30, 3), times=2)

    async def beyond(pilot):
        await pilot.click(Table, offset=(30, 20), times=2)

    assert Stage().show(steps=once).chosen == SECOND
    assert Stage().show(steps=twice).viewer.followed == [SECOND]
    assert Stage().show(steps=beyond).chosen == FIRST


def test_a_click_on_a_list_s_name_goes_there():
    async def steps(pilot):
        await pilot.click(Tabs, offset=(10, 0))

    assert isinstance(Stage().show(steps=steps).screen, WorkersScreen)


def many(count=300):
    return service([running(f"job{number:04}", "queued", share=0.0) for number in range(count)])


WAYS = (
    ("up", 0), ("down", 1), ("home", 0), ("pagedown", 26), ("pagedown", 52), ("pageup", 26), ("end", 299),
    ("down", 299), ("up", 298), ("home", 0),
)  # fmt: skip


def test_rows_are_gone_through_with_arrows_pages_home_and_end():
    stage = Stage(many())

    async def steps(pilot):
        for key, chosen in WAYS:
            await stage.press(pilot, key)
            assert stage.chosen == f"job{chosen:04}"
            assert any(line.startswith("│▸ ") and stage.chosen in line for line in stage.lines), "it is in sight"

    stage.show(steps=steps)


def test_what_is_chosen_stays_chosen_wherever_it_goes():
    stage = Stage()

    async def steps(pilot):
        view = stage.viewer.service.view
        ended = msgspec.structs.replace(view.jobs[5], state="succeeded", ended_seconds=NOW - 1.0)
        jobs = (*view.jobs[:5], ended, *view.jobs[6:])
        stage.viewer.service.view = msgspec.structs.replace(view, jobs=jobs)

    stage.show("down", steps=steps)
    assert stage.chosen == SECOND
    assert stage.keys.index(SECOND) == 3


def test_where_the_chosen_one_is_gone_its_place_is_chosen():
    stage = Stage()

    async def steps(pilot):
        view = stage.viewer.service.view
        stage.viewer.service.view = msgspec.structs.replace(view, jobs=view.jobs[-1:])

    stage.show("end", steps=steps)
    assert stage.keys == ["a1f0e2d3c4b5"]
    assert stage.chosen == "a1f0e2d3c4b5"


def test_slash_keeps_rows_that_hold_a_text_also_in_what_is_not_shown():
    assert "typed" in Stage().show("slash", *"typed", size=(80, 24)).lines, "what is typed is seen"
    stage = Stage().show("slash", *"16", "enter", size=(80, 24))
    assert stage.keys == [FAILED_JOB], "its reason has it"
    assert "6 rows without “16”" in stage.text
    assert "1 of 7" in stage.text
    stage = Stage().show("slash", *"16", "enter", "escape", size=(80, 24))
    assert len(stage.keys) == 7
    stage = Stage().show("slash", *"qqq", "enter")
    assert stage.keys == []
    assert "7 rows without “qqq”; escape shows all" in stage.text
    assert isinstance(Stage().show("w", "slash", *"b0", "escape").screen, WorkersScreen), "it goes back only after that"


def test_where_there_is_nothing_it_says_what_to_do():
    assert "distsum submit mean" in Stage(service()).show().text
    assert "n shows a form that does the same" in Stage(service()).show().text
    assert "shows a form" not in Stage(service(), read_only=True).show().text
    assert "`distsum worker` starts some" in Stage(service()).show().text
    assert "starts some" not in Stage(service(workers=[worker("a")])).show().text
    assert "distsum fleet" in Stage(service()).show("w").text
    assert "tells nothing of queues" in Stage(service()).show("u").text


def test_where_there_is_nothing_keys_do_nothing():
    stage = Stage(service())

    async def steps(pilot):
        for key in ("c", "p", "enter", "down", "end", "s"):
            await stage.press(pilot, key)
            assert isinstance(stage.screen, JobsScreen), key

    stage.show(steps=steps)
    assert isinstance(stage.screen, JobsScreen)
    assert stage.asked.requests == []


FAULT = "amqp://operator@127.0.0.1:33173/distsum: Connect call failed; does RabbitMQ run there?"


AWAY = [
    ("lost", 7.6, "7.6s old · broker lost, trying again ·"),
    ("lost", None, "broker lost, trying again · Con"),
    ("silent", 7.6, "7.6s old · master silent · Connect call"),
    ("silent", None, "Connect call failed; does RabbitMQ run "),
    ("silent", 12.0, "12s old · no master answers"),
]


def test_how_old_the_figures_are_and_what_is_wrong_is_seen_on_every_screen_of_any_width():
    stage = Stage()

    async def steps(pilot):
        for keys in ((), ("w",), ("n",), ("j", "enter"), ("enter",)):
            await pilot.press(*keys)
            for width in (120, 80, 40):
                await pilot.resize_terminal(width, 24)
                for state, heard, words in AWAY:
                    fault = "no master answers" if heard == 12.0 else FAULT
                    stage.viewer.stands = Connection(state, fault, heard, None)
                    await stage.see(pilot)
                    assert stage.lines[0].startswith(words), (keys, width)

    stage.show(steps=steps)


def test_figures_that_nobody_hears_of_stand_still():
    def drawn(*keys):
        return stage.show(*keys).lines[1:]

    for key in ("j", "w"):
        seen = []
        for later in (0.0, 25.0):
            stage = Stage()
            stage.viewer.stands = Connection("lost", FAULT, 5.0 + later, None)
            stage.app.clock = lambda later=later: NOW + later
            seen.append(drawn(key))
        assert seen[0] == seen[1]
        stage = Stage()
        stage.app.clock = lambda: NOW + 25.0
        assert drawn(key)[0] != seen[0][0], "a master that is heard goes on"


def test_a_queue_s_last_minute_is_drawn_and_dead_letters_stand_out():
    lines = Stage().show("u").lines
    (tasks,) = (line for line in lines if "distsum.tasks" in line)
    assert len(set(re.findall("[▁▂▃▄▅▆▇█]", tasks))) >= 5
    assert any("! distsum.dead" in line for line in lines)


def test_what_only_the_management_api_knows_is_a_question_mark_with_the_reason():
    queues = Queues((Queue("distsum.dead", 0, None, 1),), 0, "http://h/", "http://h/: no answer within 2.5 s")
    assert "no answer within 2.5 s" in Stage(service(queues=queues)).show("u").text
    queues = Queues((Queue("distsum.dead", 0, None, 1),), 0)
    text = Stage(service(queues=queues)).show("u").text
    assert "--management" in text
    assert re.search(r"distsum\.dead +0 .* \? +\? +1", text)


# Steering -------------------------------------------------------------------------------------------------------------


def test_c_cancels_a_job_but_asks_first():
    stage = Stage()

    async def steps(pilot):
        for no in ("escape", "enter", "q"):
            await stage.press(pilot, "c")
            assert isinstance(stage.screen, Ask)
            assert FIRST in stage.text
            await stage.press(pilot, no)
            assert stage.asked.requests == []
            assert isinstance(stage.screen, JobsScreen)
        await stage.press(pilot, "down", "c", "down", "enter")

    stage.show(steps=steps)
    assert stage.asked.requests == [Cancel(SECOND)]
    assert stage.told == [f"job {SECOND} is cancelled"]


@pytest.mark.parametrize("key", ["c", "p"])
def test_what_is_asked_while_the_master_is_not_heard_says_how_old_that_is_which_it_goes_by(key):
    stage = Stage()
    stage.viewer.stands = Connection("lost", FAULT, 130.0, None)
    stage.show(key)
    assert isinstance(stage.screen, Ask | AskNumber)
    assert "Nothing had been heard of the master for 2m10s when this was asked." in " ".join(stage.text.split())
    assert "been heard" not in Stage().show(key).text


def test_p_gives_a_job_the_priority_that_is_typed():
    stage = Stage()

    async def steps(pilot):
        await stage.press(pilot, "p", "escape", "p", "backspace", *"x-", "enter")
        assert isinstance(stage.screen, AskNumber)
        assert "must be a whole number" in stage.text
        await stage.press(pilot, "escape")
        assert stage.asked.requests == []
        await stage.press(pilot, "p", *"-7", "enter")
        assert stage.asked.requests == [SetPriority(FIRST, -7)]
        assert stage.told == [f"job {FIRST} has priority -7"]
        await stage.press(pilot, "p", "enter")

    stage.show(steps=steps)
    assert stage.asked.requests[1:] == [SetPriority(FIRST, 0)], "the one it has is written there"


@pytest.mark.parametrize("key", ["c", "p"])
def test_what_cannot_be_done_with_a_job_any_more_is_not_offered(key):
    words = {"c": "c Cancel", "p": "p Priority"}[key]
    assert words in Stage().show().lines[-1]
    stage = Stage().show("end", key)
    assert words not in stage.lines[-1]
    assert isinstance(stage.screen, JobsScreen)


@pytest.mark.parametrize(("key", "wanted"), [("c", Cancel(SECOND)), ("p", SetPriority(SECOND, 0))])
def test_a_job_is_steered_from_its_own_screen_too(key, wanted):
    answer = ("down", "enter") if key == "c" else ("enter",)
    stage = Stage().show("down", "enter", key, *answer)
    assert stage.asked.requests == [wanted]
    assert isinstance(stage.screen, ServedJobScreen)


@pytest.mark.parametrize(
    ("state", "key", "action"), [("busy", "p", "pause"), ("paused", "e", "resume"), ("quarantined", "e", "resume")]
)
def test_a_worker_is_paused_and_resumed_at_once(state, key, action):
    stage = Stage(service(workers=[worker("node1-a0", state)])).show("w", key)
    assert stage.asked.requests == [CommandWorker("node1-a0", action)]
    assert "worker node1-a0" in stage.told[0]


OFFERED = {"idle": "pdx", "busy": "pdx", "paused": "edx", "quarantined": "edx", "left": "", "lost": ""}


def test_only_what_makes_a_difference_to_a_worker_is_offered():
    keys = {"p": "Pause", "e": "Resume", "d": "Drain", "x": "Shut down"}
    stage = Stage()

    async def steps(pilot):
        for state, offered in OFFERED.items():
            stage.viewer.service.view = service(workers=[worker("node1-a0", state)])
            await stage.see(pilot)
            line = stage.lines[-1]
            assert [key for key, words in keys.items() if f" {key} {words}" in line] == [
                key for key in keys if key in offered
            ]
            await stage.press(pilot, *(key for key in keys if key not in offered))
            assert (stage.asked.requests, type(stage.screen)) == ([], WorkersScreen)

    stage.show("w", steps=steps)


@pytest.mark.parametrize(("key", "action"), [("d", "drain"), ("x", "shutdown")])
def test_a_worker_is_sent_away_only_after_a_question(key, action):
    stage = Stage()

    async def steps(pilot):
        for no in ("escape", "enter"):
            await stage.press(pilot, key)
            assert isinstance(stage.screen, Ask)
            assert "node1-a0" in stage.text
            await stage.press(pilot, no)
            assert stage.asked.requests == []
            assert isinstance(stage.screen, WorkersScreen)
        await stage.press(pilot, key, "down", "enter")

    stage.show("w", "down", "down", steps=steps)
    assert stage.asked.requests == [CommandWorker("node1-a0", action)]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(Refused("there is no [b]worker[/b] x\x1b[31m"), "there is no [b]worker[/b] x\\x1b[31m"),
     (UnreachableError("no master answers"), "no master answers")],
)  # fmt: skip
def test_why_something_is_not_done_is_told_as_it_is(answer, reason):
    stage = Stage(answer=answer)

    async def steps(pilot):
        await settled_until(pilot, lambda: "not done" in "\n".join(text_of(stage.app)))

    stage.show("w", "down", "down", "p", steps=steps)
    assert stage.told == [reason]
    assert reason[:20] in stage.text


STEERING = ["Cancel", "Priority", "Pause", "Resume", "Drain", "Shut down"]


@pytest.mark.parametrize(("where", "keys"), [((), "cp"), (("w",), "pedx"), (("enter",), "cp")])
def test_who_only_looks_is_offered_nothing_that_steers(where, keys):
    stage = Stage(read_only=True).show(*where, *keys)
    assert stage.asked.requests == []
    assert stage.told == []
    assert isinstance(stage.screen, ListScreen | ServedJobScreen)
    told = Stage(read_only=True).show(*where, "question_mark").text
    assert not [words for words in STEERING if re.search(rf"\w  +{words}", told)]
    assert not [words for words in STEERING if f" {words}" in stage.lines[-1]]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ((), ["Cancel", "Priority", "Filter", "Sort", "Open", "Leave", "Row below", "To workers", "To queues"]),
        (("w", "down", "down"), ["Pause", "Drain", "Shut down", "Back"]),
        (("u",), ["RabbitMQ's page", "Back"]),
        (("enter",), ["Cancel", "Priority", "Jobs", "Workers", "Move the cursor left"]),
    ],
)
def test_the_help_and_the_palette_name_what_keys_do(where, words):
    told = Stage().show(*where, "question_mark", size=(120, 60)).text
    assert not [each for each in words if not re.search(rf"\S  +{each} ", told)]
    stage = Stage()
    stage.show(*where, steps=lambda pilot: offered(stage))
    assert set(words) <= stage.offered.keys()
    assert "Maximize" not in stage.offered, "it would hide the tabs, and no key brings them back"


def test_the_help_has_one_line_for_each_thing_to_do_and_nothing_of_textual():
    stage = Stage(log=KeptLog(io.StringIO(), 9))
    told = stage.show("question_mark", size=(120, 60)).text
    for line in (r"2 w +To workers", r"3 u +To queues"):
        assert re.search(rf"│ {line} ", told)
    assert "│ w  " not in told
    told = Stage(log=KeptLog(io.StringIO(), 9)).show("l", "question_mark", size=(120, 60)).text
    assert re.search(r"│ esc l +Back ", told)
    assert "Focus" not in told


def test_a_list_without_a_border_tells_beside_the_tabs_how_many_rows_are_out_of_sight():
    stage = Stage()
    lines = stage.show(size=(40, 10)).lines
    assert not any("╰" in line for line in lines)
    assert re.fullmatch(r"▸1 Jobs.* \d+ more below", lines[0]), lines[0]
    lines = Stage().show("end", size=(40, 10)).lines
    assert re.fullmatch(r"▸1 Jobs.* \d+ more above", lines[0]), lines[0]
    lines = Stage().show(size=(120, 36)).lines
    assert not any("more " in line for line in lines[:2])


def test_a_title_stands_above_what_its_column_shows():
    lines = Stage().show("u", size=(120, 36)).lines
    title = next(line for line in lines if "the last minute" in line)
    trace = next(line for line in lines if "▁" in line)
    assert title.index("the last minute") + len("the last minute") - 1 == max(
        map(trace.rindex, set(trace) & set("▁▂▃▄▅▆▇█"))
    )


async def offered(stage):
    stage.offered = {each.title: each for each in stage.app.get_system_commands(stage.app.screen)}


def test_a_command_of_the_palette_does_what_its_key_does():
    stage = Stage().show("ctrl+p", *"Cancel", "enter")

    assert isinstance(stage.screen, Ask)
    assert FIRST in stage.text


# RabbitMQ's page ------------------------------------------------------------------------------------------------------


def opened(monkeypatch, stage, *, browser=True):
    urls = []
    monkeypatch.setattr("distsum.tui.service_app._has_browser", lambda: browser)
    monkeypatch.setattr(stage.app, "open_url", lambda url, **_: urls.append(url))
    stage.show("u", "o")
    return urls


def test_o_opens_rabbitmq_s_page(monkeypatch):
    stage = Stage()
    assert opened(monkeypatch, stage) == ["http://broker.example:15672/"]
    assert "is opened" in stage.told[0]


def test_where_no_browser_is_the_page_s_address_is_told(monkeypatch):
    stage = Stage()
    assert opened(monkeypatch, stage, browser=False) == []
    assert "http://broker.example:15672/" in stage.told[0]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "javascript:alert(1)", "-x"])
def test_what_is_no_page_is_not_opened(monkeypatch, url):
    stage = Stage(service(queues=Queues((), 0, url)))
    assert opened(monkeypatch, stage) == []
    assert "no address of a page" in stage.told[0]


def test_without_a_page_the_key_is_not_offered():
    stage = Stage(service(queues=Queues((Queue("a", 0, 0, 0),), 0))).show("u", "o")
    assert stage.told == []
    assert "RabbitMQ's page" not in stage.lines[-1]


def test_a_browser_that_draws_on_the_terminal_is_none(monkeypatch):
    import webbrowser

    from distsum.tui.service_app import _has_browser

    monkeypatch.setattr(webbrowser, "get", lambda: webbrowser.GenericBrowser("lynx"))
    assert not _has_browser()
    monkeypatch.setattr(webbrowser, "get", lambda: webbrowser.BackgroundBrowser("firefox"))
    assert _has_browser()


# Jobs that have ended -------------------------------------------------------------------------------------------------


def ended_stage(content, job=DONE_JOB, ended=None):
    stage = Stage(store=Histories(content))
    stage.viewer.ended[job] = ended or next(each for each in busy_service().jobs if each.job == job)
    return stage


def test_a_job_that_has_ended_is_played_again_with_the_scrubber():
    stage = ended_stage(recorded())

    async def steps(pilot):
        await settled_until(pilot, lambda: stage.app.screen.followed.replay() is not None)
        shown = "\n".join(text_of(stage.app))
        assert "DONE" in shown
        assert "‖" in shown
        assert "Cancel" not in text_of(stage.app)[-1], "nothing can be done with it any more"
        await pilot.press("left_curly_bracket")
        await settled(stage.app, pilot)
        assert "DONE" not in "\n".join(text_of(stage.app))
        await pilot.click(Scrubber, offset=(90, 0))
        await settled(stage.app, pilot)
        assert 0.5 < stage.app.screen.followed.replay().share() < 0.95
        assert stage.store.open_now == 1
        await pilot.press("escape")
        await settled(stage.app, pilot)
        assert stage.store.open_now == 0

    assert isinstance(stage.show("end", "enter", steps=steps).screen, JobsScreen)


@pytest.mark.parametrize(
    ("job", "content", "told"),
    [
        (
            DONE_JOB,
            None,
            ["There is no history", "1,000 files of 1,048,576 numbers", "workers were busy with this job for 75%"],
        ),
        (DONE_JOB, StorageError("s3: denied"), ["cannot be read: s3: denied", "written to s3://lab"]),
        (FAILED_JOB, None, ["There is no history", "has 12 numbers, and the first input 16"]),
    ],
)
def test_without_a_history_its_summary_or_why_it_failed_is_shown(job, content, told):
    stage = ended_stage(content, job)
    keys = ("end",) if job == DONE_JOB else ("end", "up")

    async def steps(pilot):
        await settled_until(pilot, lambda: isinstance(stage.app.screen, Told))
        shown = " ".join(line.strip(" │") for line in text_of(stage.app))
        for words in told:
            assert words in re.sub(" +", " ", shown)
        await pilot.press("escape")

    stage.show(*keys, "enter", steps=steps)
    assert isinstance(stage.screen, JobsScreen)
    assert stage.viewer.followed == [job, None]


# What comes from outside ----------------------------------------------------------------------------------------------

HOSTILE = (
    "[red]markup[/red]",
    "[@click=app.quit]click[/]",
    "\x1b[31mescape\x1b]0;title\x07",
    "\u202ebidi\u2066",
    "two\nlines\r\u2028three",
    "\x9b31m\x85",
    "x" * 4096,
    "wide 漢字 \u200b\u0301",
    *WIDE[1:4],
)


def named(name):
    """Return a service in which all that is named from outside is named like that."""
    view = service(
        jobs=[
            status(name, "failed", reason=name, output=name, reduction=name, ended_seconds=NOW),
            running(name + "2", reduction=name, output=name),
            running(name + "3", output=name),
        ],
        workers=[worker(name, host=name), worker(name + "2", "paused", reason=name, host=name)],
        queues=Queues((Queue(name, 1, 1, 1),), 0, f"http://{name}/", name),
    )
    return msgspec.structs.replace(
        view, master=msgspec.structs.replace(view.master, host=name, work=name, version=name)
    )


@pytest.mark.parametrize("size", [(120, 36), (40, 10)])
def test_a_hostile_name_anywhere_is_shown_as_text(size):
    stage = Stage(named(HOSTILE[0]))

    async def steps(pilot):
        for name in HOSTILE if size[0] > 40 else HOSTILE[6:]:  # there, what is wide or long makes a difference
            stage.viewer.service.view = named(name)
            stage.asked.answer = Refused(name)
            for key in ("home", "down", "c", "escape", "p", "escape", "w", "d", "escape", "p", "u", "o", "j", "enter"):
                await stage.press(pilot, key)
                check_widths(stage.app)
                assert not re.search(UNSEEN, "".join(stage.lines)), (name, key)
                assert len(stage.lines) == size[1]
                if key == "w" and name.startswith("[") and size[0] > 40:
                    assert name in stage.text, "markup is no markup here"
            await stage.press(pilot, "escape")

    stage.show(size=size, steps=steps)
    assert stage.answer is None
