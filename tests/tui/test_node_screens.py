"""The screens of one node, driven by keys and the mouse, and compared with how they looked: a recorded run."""

from __future__ import annotations

import asyncio
from functools import cache

import pytest
from distsum.tui.app import JobApp
from distsum.tui.child_list import ChildList
from distsum.tui.dialogs import Ask, Told
from distsum.tui.job_screen import JobScreen
from distsum.tui.node_screen import NodeScreen
from distsum.tui.panes import Scrubber
from distsum.tui.source import LiveSource, ReplaySource
from distsum.tui.subtree_screen import SubtreeScreen
from distsum.tui.task_screen import TaskScreen

from distsum.helm import Helm
from distsum.messages import (
    JobStarted,
    TaskFailed,
    TaskId,
    TaskRetried,
    TaskStarted,
    WorkerJoined,
    WorkerLost,
)
from distsum.observe.fold import JobTally
from distsum.observe.history import History
from distsum.observe.player import Player
from distsum.observe.snapshot import PhaseWork
from distsum.observe.view import JobFold
from distsum.tree import Tree
from tests.recorded import Stored, recorded
from tests.screens import check_looks, settled, settled_until, text_of

LATE = 0.9
"""Of the recorded run: a backup races, and another worker makes one of the children for both."""
RACED = TaskId("7f3a", 2, 0, 6)
HOSTILE = "\x1b[31m[bold red]x[/]\u202egnp\u2066\n\r" + "y" * 4096


@cache
def player():
    """Return a player that stands at that moment. Nothing that a screen does with it moves it."""
    made = Player(History(Stored(recorded(exponent=2, tree_told=True))))
    made.seek(LATE * made.end_seconds)
    while not made.step():
        pass
    return made


def replay():
    source = ReplaySource(player(), lambda: 0.0)
    source.playing = False
    return source


class Seen:
    """What there was before the application ended.

    Attributes:
        lines: What was shown.
        screen: The topmost screen.
        node: What it shows; None of another screen.
        cursor: The chosen child.
        tree_cursor: The task at the cursor of the job's tree, by its place in the phase.
    """


def shown(source, *keys, size=(120, 36), steps=None, screen=None, **options):
    """Run the application on a node's screen (``screen``), or the job's, press keys, and return what there is."""
    seen = Seen()

    async def run():
        app = JobApp(source, frame_seconds=3600.0, **options)
        async with app.run_test(size=size) as pilot:
            await settled(app, pilot)
            if screen is not None:
                app.push_screen(screen)
                await settled(app, pilot)
            for key in keys:
                await pilot.press(key)
                await settled(app, pilot)
            if steps is not None:
                await steps(app, pilot)
                await settled(app, pilot)
            seen.lines = text_of(app)
            seen.screen = app.screen if app.screen_stack else None
            seen.answer = app.return_value
            seen.node = seen.screen.node if isinstance(seen.screen, NodeScreen) else None
            lists = seen.screen.query(ChildList) if isinstance(seen.screen, SubtreeScreen) else []
            seen.cursor = lists.first().cursor if lists else None
            job = next(each for each in app.screen_stack if isinstance(each, JobScreen)) if app.screen_stack else None
            seen.tree_cursor = job and (job._tree.window.phase, job._tree.cursor)

    asyncio.run(run())
    return seen


def subtree_of(source, task=RACED):
    return SubtreeScreen(source, task)


CASES = {
    "subtree": ("n", "enter"),
    "subtree-root": ("pageup", "pageup", "enter"),
    "subtree-files": ("n", "enter", "enter"),
    "task": ("n", "enter", "a"),
}


@pytest.mark.parametrize("size", [(120, 36), (80, 24)], ids=["wide", "narrow"])
@pytest.mark.parametrize("name", CASES)
def test_it_looks_as_it_did(name, size):
    lines = shown(replay(), *CASES[name], size=size).lines
    assert len(lines) == size[1]
    check_looks(f"{name}-{size[0]}", lines)


def test_the_attempts_look_alike_however_the_terminal_has_come_to_its_size():
    async def steps(app, pilot):
        await pilot.resize_terminal(80, 24)

    began = shown(replay(), *CASES["task"], size=(80, 24)).lines
    assert shown(replay(), *CASES["task"], steps=steps).lines == began


def test_a_low_screen_of_attempts_tells_how_many_lines_are_out_of_sight_and_shows_them_all():
    seen = []

    async def steps(app, pilot):
        for keys, rest in (
            ((), "  attempts 2 more, why 8 more"),
            (("end",), "  attempts 2 above, why 8 more"),
            (("tab", "end"), "  attempts 2 above, why 8 above"),
        ):
            await pilot.press(*keys)
            await settled_until(pilot, lambda rest=rest: text_of(app)[2].endswith(rest))
            seen.append(text_of(app))

    shown(replay(), *CASES["task"], size=(40, 10), steps=steps)
    began, attempts, why = seen
    assert [line.split()[:2] for line in began[3:5]] == [["#", "worker"], ["1", "w4"]]
    assert [line.split()[:2] for line in attempts[3:5]] == [["2", "w11"], ["3", "w5"]]
    assert "made by others and stored: part 1 of 2" in why[7], "what has no pane of its own"


# The way through the tree ---------------------------------------------------------------------------------------------


def walked(screen, *keys):
    """Press keys on a node's screen, and return after each the node that is shown, its phase first, and the child."""
    way = []

    async def steps(app, pilot):
        for key in keys:
            await pilot.press(key)
            await settled(app, pilot)
            way.append((app.screen.node.phase, app.screen.node.index, app.screen.query_one(ChildList).cursor))

    shown(replay(), steps=steps, screen=screen)
    return way


def test_enter_goes_down_to_single_files_and_u_up_to_the_root_by_the_same_way():
    root = subtree_of(replay(), TaskId("7f3a", 3, 0, 0))
    down = walked(root, "end", "enter", "down", "enter")
    assert down == [(3, 0, 6), (2, 6, 0), (2, 6, 1), (1, 151, 0)]
    files = subtree_of(replay(), TaskId("7f3a", 1, 0, 151))
    assert walked(files, "u", "backspace", "u") == [(2, 6, 1), (3, 0, 6), (3, 0, 6)], "nothing is above the root"


def test_enter_on_a_file_shows_its_whole_name():
    seen = shown(replay(), "enter", screen=subtree_of(replay(), TaskId("7f3a", 1, 0, 0)))
    assert isinstance(seen.screen, Told)
    assert any("s3://lab/run42/0000.npy" in line for line in seen.lines)
    assert any("File 0 of 4,000" in line for line in seen.lines)


def test_left_and_right_go_through_the_nodes_of_a_phase_and_stop_at_its_ends():
    assert [index for _, index, _ in walked(subtree_of(replay()), "right", "left", "left", "right")] == [6, 5, 4, 5]
    assert walked(subtree_of(replay(), TaskId("7f3a", 2, 0, 0)), "left") == [(2, 0, 0)]


def test_keys_choose_children():
    keys = ("end", "up", "home", "down", "pagedown", "pageup")
    assert [cursor for _, _, cursor in walked(subtree_of(replay()), *keys)] == [9, 8, 0, 1, 9, 0]


def test_a_click_chooses_a_child_and_two_look_into_it():
    async def steps(app, pilot):
        await pilot.click(ChildList, offset=(5, 4))
        await settled(app, pilot)
        assert app.screen.query_one(ChildList).cursor == 3
        await pilot.click(ChildList, offset=(5, 4), times=2)
        await settled(app, pilot)

    assert shown(replay(), steps=steps, screen=subtree_of(replay())).node == TaskId("7f3a", 1, 0, 153)


def test_escape_goes_back_and_the_tree_s_cursor_is_where_one_was():
    seen = shown(replay(), "n", "enter", "enter", "right", "escape")
    assert isinstance(seen.screen, JobScreen)
    assert seen.tree_cursor == (1, 151)
    seen = shown(replay(), "n", "enter", "a", "left", "escape")
    assert (type(seen.screen), seen.node) == (SubtreeScreen, TaskId("7f3a", 2, 0, 5))


def test_without_borders_the_line_of_the_place_tells_how_many_children_are_out_of_sight():
    seen = shown(replay(), screen=SubtreeScreen(replay(), RACED), size=(40, 10))
    assert not any("╰" in line for line in seen.lines)
    assert seen.lines[2].endswith("  5 more below"), seen.lines
    seen = shown(replay(), "end", screen=SubtreeScreen(replay(), RACED), size=(40, 10))
    assert seen.lines[2].endswith("  5 more above"), seen.lines
    assert len(seen.lines[2]) == 40
    seen = shown(replay(), screen=SubtreeScreen(replay(), RACED), size=(40, 20))
    assert "more below" not in seen.lines[2], "the border tells it"


def test_enter_in_the_tree_looks_into_the_worst_of_the_tasks_that_share_a_cell():
    fold = failing(files=5**7)
    source = LiveSource()
    source.put(fold.view(9.0), fold.detail)
    seen = shown(source, "enter", size=(40, 10))
    assert seen.node == TaskId("job", 1, 0, 7), "others of the cell wait"


def test_tab_goes_through_the_panes_of_a_task():
    async def steps(app, pilot):
        focused = []
        for _ in range(3):
            await pilot.press("tab")
            await pilot.pause()
            focused.append(app.focused.id)
        assert focused == ["stored", "why", "time"]

    shown(replay(), steps=steps, screen=TaskScreen(replay(), RACED))


def test_the_help_tells_what_signs_mean_and_the_keys_that_do_something_and_no_other():
    seen = shown(replay(), "question_mark", screen=subtree_of(replay()), size=(120, 60))
    told = "\n".join(seen.lines)
    assert all(words in told for words in ("Node above", "Look into", "Attempts", "Back"))
    assert all(words in told for words in ("P2/6 is the node", "✓ done", "backup: a copy of"))
    assert "Back up now" not in told, "nobody can be asked"


def test_space_stops_a_replay_and_lets_it_go_on():
    source = replay()
    shown(source, "space", screen=subtree_of(source))
    assert source.playing
    source.playing = False
    seen = shown(live(failing()), "space", "question_mark", screen=subtree_of(live(failing())))
    assert "Play" not in "\n".join(seen.lines), "nothing is played again"


@pytest.mark.parametrize("kind", [SubtreeScreen, TaskScreen])
def test_a_replay_is_gone_through_from_a_node_and_what_is_shown_follows(kind):
    moved = Player(History(Stored(recorded(exponent=2, tree_told=True))))
    source = ReplaySource(moved, lambda: 0.0)
    source.playing = False
    source.seek(LATE)

    async def steps(app, pilot):
        while source.behind:
            await settled(app, pilot)
        places = []
        for key in ("right_square_bracket", "left_square_bracket", "left_square_bracket"):
            await pilot.press(key)
            places.append(round(source.share(), 2))
            await settled(app, pilot)
        assert places == [0.92, 0.9, 0.88]
        late = text_of(app)
        assert any("x ━" in line for line in late), "the line"
        await pilot.press("greater_than_sign", "greater_than_sign", "less_than_sign")
        assert source.speed == 2.0
        await pilot.press("left_curly_bracket")
        await settled(app, pilot)
        while source.behind:
            await settled(app, pilot)
        early = text_of(app)
        assert early != late
        assert any("0s of" in line for line in early)
        await pilot.click(Scrubber, offset=(app.size.width // 2, 0))
        assert 0.3 < source.share() < 0.7
        await pilot.press("right_curly_bracket")
        assert source.share() == 1.0

    shown(source, steps=steps, screen=kind(source, RACED))


def test_q_leaves_a_replay_at_once_and_asks_where_the_run_would_end():
    assert shown(replay(), "q", screen=subtree_of(replay())).answer == "leave"
    fold = failing()
    source = LiveSource()
    source.put(fold.view(9.0), fold.detail)
    assert isinstance(shown(source, "q", screen=subtree_of(source, TaskId("job", 1, 0, 0)), helm=Helm()).screen, Ask)


# What it says ---------------------------------------------------------------------------------------------------------


def failing(files=130, name=b"/in/%d.npy"):
    """Return a fold in which a task has failed, is tried again, and its second worker is lost."""
    tree = Tree(files=files, fan_in=5, exponent=1)
    work = tuple(PhaseWork(tree.tasks(phase), 1, 1000) for phase in range(1, tree.phases + 1))
    fold = JobFold(JobTally(work, lambda index: name % index if b"%d" in name else name), work, "/o", 0.0, tree=tree)
    task = TaskId("job", 1, 0, 7)
    events = [
        WorkerJoined(HOSTILE, HOSTILE, 1, "1", 1, 10, 0.1),
        JobStarted("job", "mean", files, tuple(each.tasks for each in work), (0,) * len(work)),
        TaskStarted(HOSTILE, task, 1, 1),
        TaskFailed(HOSTILE, task, "storage", HOSTILE, attempt=1),
        TaskRetried(task, HOSTILE, 2, HOSTILE),
        TaskStarted("w2", task, 1, 2),
        WorkerLost("w2", HOSTILE),
        TaskStarted("w3", task, 2, 2),
        TaskStarted(HOSTILE, TaskId("job", 1, 0, 8), 1, 3),
    ]
    for now, event in enumerate(events):
        fold.take(event, float(now))
    return fold


def live(fold):
    """Return a run that shows what a fold holds, whatever node is looked at."""
    source = LiveSource()
    source.put(fold.view(9.0), fold.detail)
    source.detail = fold.detail
    return source


def test_a_failure_is_told_with_its_words_and_what_is_begun_after_it_with_the_reason():
    source = live(failing())
    lines = "\n".join(shown(source, screen=TaskScreen(source, TaskId("job", 1, 0, 7))).lines)
    assert "failed (storage): \\x1b[31m[bold red]x[/]" in lines
    assert "attempt 2 on w2 begins, since one before it failed or its worker was lost" in lines
    assert "w2 was lost while it did attempt 2" in lines


@pytest.mark.parametrize(
    ("screen", "task"),
    [
        (SubtreeScreen, TaskId("job", 1, 0, 7)),
        (SubtreeScreen, TaskId("job", 2, 0, 1)),
        (TaskScreen, TaskId("job", 1, 0, 7)),
    ],
    ids=["files", "nodes", "task"],
)
def test_hostile_names_of_files_workers_and_reasons_are_inert_at_any_size_also_when_it_is_resized(screen, task):
    async def steps(app, pilot):
        before = text_of(app)
        for width, height in ((80, 24), (40, 10), (1, 1), (300, 100), (3, 2), (120, 36)):
            await pilot.resize_terminal(width, height)
            await settled(app, pilot)
            lines = text_of(app)
            assert len(lines) == height
            assert max(map(len, lines)) <= width
            assert not any(character in "".join(lines) for character in "\x1b\u202e\u2066\r")
            if width >= 80 and task.phase == 1:
                assert "[bold red]" in "".join(lines), "markup is text"
        assert lines == before

    source = live(failing(name=HOSTILE.encode()))
    shown(source, screen=screen(source, task), steps=steps)


def test_a_history_from_before_trees_were_told_shows_attempts_and_says_why_no_children():
    made = Player(History(Stored(recorded(exponent=2))))
    made.seek(LATE * made.end_seconds)
    while not made.step():
        pass
    source = ReplaySource(made, lambda: 0.0)
    source.playing = False
    lines = "\n".join(shown(source, "enter", "u", screen=subtree_of(source)).lines)
    assert "older than what tells how the tree is built" in lines
    assert "2 Attempts ── 3" in lines


def test_why_nothing_is_told_of_a_node_is_told():
    source = live(failing())
    source.detail = lambda *_: "nobody knows"
    assert any("! nobody knows" in line for line in shown(source, screen=subtree_of(source)).lines)


def test_a_run_is_asked_only_about_the_node_and_the_children_in_sight():
    fold = failing(files=5**7)
    asked = []
    source = LiveSource()

    def detail_of(*wanted):
        asked.append(wanted)
        return fold.detail(*wanted)

    async def steps(app, pilot):
        for _ in range(3):
            source.put(fold.view(9.0), detail_of)
            await settled(app, pilot)

    source.put(fold.view(9.0), detail_of)
    assert asked == [], "nobody looks at a node"
    lines = shown(source, screen=subtree_of(source, TaskId("job", 1, 0, 7)), steps=steps).lines
    assert {wanted[0] for wanted in asked} == {TaskId("job", 1, 0, 7)}
    assert all(count <= 36 for _, _, count in asked)
    assert any("/in/37.npy" in line for line in lines)
