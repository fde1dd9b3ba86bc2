"""The job's screen, driven by keys and the mouse, and compared with how it looked: a recorded run, a fixed clock."""

from __future__ import annotations

import asyncio
import re
from typing import NamedTuple

import msgspec
import pytest
from distsum.tui.app import JobApp
from distsum.tui.job_screen import PANES, JobScreen
from distsum.tui.key_line import KeyLine
from distsum.tui.lines import Span
from distsum.tui.palette import GLYPHS
from distsum.tui.panes import LinesPane, Scrubber, Tabs
from distsum.tui.source import LiveSource, ReplaySource
from distsum.tui.tree_map import TreeMap

from distsum.helm import Helm
from distsum.messages import (
    BackupStarted,
    JobFailed,
    JobStarted,
    TaskFailed,
    TaskId,
    TaskStarted,
    WorkerJoined,
    WorkerLost,
    WorkerPaused,
    WorkerRefused,
)
from distsum.observe.history import History, HistoryHeader
from distsum.observe.player import Player
from distsum.observe.snapshot import PhaseWork
from distsum.observe.states import QUEUED, RUNNING
from tests.property.test_history import EVIDENCE, written
from tests.recorded import BEGAN_SECONDS, Stored, recorded
from tests.screens import UNSEEN, WIDE, check_looks, check_widths, settled, text_of

LATE = 0.96
"""Of the recorded run: some backups have ended, and one races."""


def player_at(share, content=None):
    player = Player(History(Stored(content or recorded())))
    player.seek(share * player.end_seconds)
    while not player.step():
        pass
    return player


def replay(share=LATE, content=None):
    source = ReplaySource(player_at(share, content), lambda: 0.0)
    source.playing = False
    return source


def live(share=LATE, content=None):
    source = LiveSource()
    source.put(player_at(share, content).view())
    return source


def shown(source, *keys, size=(120, 36), steps=None, **options):
    """Run the application, press keys, and return what it shows; ``steps`` may look at it, and use the pilot."""

    async def run():
        app = JobApp(source, frame_seconds=3600.0, **options)
        async with app.run_test(size=size) as pilot:
            await settled(app, pilot)
            for key in keys:
                await pilot.press(key)
                await settled(app, pilot)
            if steps is not None:
                await steps(app, pilot)
                await settled(app, pilot)
            there = app.screen_stack and isinstance(app.screen, JobScreen)
            panes = [name for name in PANES if app.screen.query_one(f"#{name}").is_on_screen] if there else []
            focused = app.focused.id if there and app.focused is not None else None
            return Seen(app, focused, panes), text_of(app)

    return asyncio.run(run())


class Seen(NamedTuple):
    """What there was before the application ended: the focused pane, and those on the screen."""

    app: JobApp
    focused: str | None
    panes: list[str]

    @property
    def answer(self):
        return self.app.return_value


CASES = {
    "wide": ((120, 36), ()),
    "wide-signs": ((120, 36), ("g",)),
    "narrow-tree": ((80, 24), ()),
    "narrow-workers": ((80, 24), ("2",)),
    "narrow-io": ((80, 24), ("3",)),
    "narrow-stragglers": ((80, 24), ("4",)),
    "narrow-log": ((80, 24), ("5",)),
    "tiny": ((40, 10), ()),
    "huge": ((300, 100), ()),
    "help": ((120, 36), ("question_mark",)),
}


@pytest.mark.parametrize("name", CASES)
def test_it_looks_as_it_did(name, tmp_path):
    """To accept how it looks now, run this with DISTSUM_ACCEPT_SCREENS=1, and look at the change."""
    size, keys = CASES[name]
    _, lines = shown(replay(content=recorded(tree_told=True)), *keys, size=size)
    assert len(lines) == size[1]
    check_looks(name, lines)


# Keys -----------------------------------------------------------------------------------------------------------------


def test_tab_goes_through_the_panes_and_back():
    seen = []

    async def steps(app, pilot):
        for key in ["tab"] * 5 + ["shift+tab"] * 2:
            await pilot.press(key)
            await pilot.pause()
            seen.append(app.focused.id)

    shown(replay(), steps=steps)
    assert seen == [*PANES[1:], PANES[0], PANES[4], PANES[3]]


def test_f_shows_one_pane_and_all_again():
    seen, lines = shown(replay(), "4", "f")
    assert seen.panes == ["stragglers"]
    assert any("1 Tree 2 Workers" in line for line in lines)
    seen, _ = shown(replay(), "4", "f", "f")
    assert seen.panes == list(PANES)


def test_the_tree_is_zoomed_about_the_cursor_and_back():
    windows = []

    async def steps(app, pilot):
        tree = app.screen.query_one(TreeMap)
        for key in ("left", "right", "down", "down", "plus", "equals_sign", "minus", "0"):
            await pilot.press(key)
            await pilot.pause()
            windows.append((tree.window, tree.cursor))

    shown(live(), steps=steps)
    lengths = [window.stop - window.start for window, _ in windows]
    assert lengths == [800, 800, 800, 800, 200, 50, 200, 800]
    assert all(window.start <= cursor < window.stop for window, cursor in windows)
    assert windows[1][1] == 2, "a cell has two tasks"
    assert windows[2][1] == 3, "the lower half of the cell"
    assert windows[3][1] > 100, "a line below"


def test_arrows_never_leave_the_phase_and_pages_change_it():
    async def steps(app, pilot):
        tree = app.screen.query_one(TreeMap)
        await pilot.press("left", "up", "left")
        assert tree.cursor == 0
        await pilot.press(*["pageup"] * 9)
        assert tree.window.phase == 6
        await pilot.press("right", "down", "right")
        assert tree.cursor == 0
        await pilot.press(*["pagedown"] * 4)
        assert (tree.window.phase, tree.window.stop) == (2, 160)

    shown(live(), steps=steps)


def test_arrows_reach_every_task_of_a_closer_look_and_beyond_its_edges_the_next_ones_come():
    steps_of, stops = {"down": [], "up": []}, []

    async def steps(app, pilot):
        tree = app.screen.query_one(TreeMap)
        await pilot.press("n", "n", "0", "plus", "plus")
        await pilot.pause()
        assert (tree.cursor, tree.window.stop - tree.window.start) == (734, 50)
        assert tree.size.width // tree._cells.wide == 18, "blocks in a row"
        for key in ["down"] * 4 + ["up"] * 70:
            window, cursor = tree.window, tree.cursor
            await pilot.press(key)
            await pilot.pause()
            assert tree.window.start <= tree.cursor < tree.window.stop
            assert tree.window.stop - tree.window.start == 50
            assert abs(tree.window.start - window.start) in {0, 18} or tree.window.start * (tree.window.stop - 800) == 0
            assert tree.worst_at_cursor().index == tree.cursor
            steps_of[key].append(tree.cursor - cursor)
            stops.append(tree.window.stop)
        assert tree.window.start == 0

    shown(live(), steps=steps)
    assert max(stops) == 800
    assert steps_of["down"] == [18, 18, 18, 0], "to the next row, and the last tasks come in sight"
    assert steps_of["up"][:4] == [-18] * 4, "the same way back"
    assert not any(steps_of["up"][-4:]), "there it begins"


@pytest.mark.parametrize(("width", "hidden"), [(52, "+1 phase"), (44, "+2")])
def test_a_title_that_has_little_room_leaves_out_words_and_no_number(width, hidden):
    _, lines = shown(live(), "plus", "g", size=(width, 16))
    title = next(line for line in lines if line.startswith("╭"))
    assert f" 0 to 199 of 800 · cell = 1 · {hidden} ─" in title, lines


@pytest.mark.parametrize(("width", "title"), [
    (120, "1 Tree ── P=25 ── phase 1 ── cell = 1 task ─"),
    (80, "1 Tree ── P=25 ── phase 1 ── cell = 1 task ─"),
    (44, "1 Tree ── phase 1 ── cell = 1 task ─"),
    (34, "1 P1 · cell = 1 ─"),
])  # fmt: skip
def test_the_tree_s_title_tells_the_partition_where_there_is_room(width, title):
    _, lines = shown(replay(content=recorded(exponent=2, tree_told=True)), size=(width, 28))
    assert title in next(line for line in lines if line.startswith("╭")), lines


def test_of_a_history_that_does_not_hold_the_tree_no_partition_is_told():
    assert not any("P=" in line for line in shown(replay())[1])


@pytest.mark.parametrize(
    ("width", "side"), [(100, 44), (120, 44), (160, 58), (300, 100), (400, 100), (80, 80), (20, 20)]
)
def test_the_panes_at_the_side_grow_with_the_terminal_within_bounds(width, side):
    async def steps(app, pilot):
        assert app.screen.query_one("#workers").outer_size.width == side

    shown(live(), "2", size=(width, 36), steps=steps)


def test_a_wide_terminal_tells_what_each_worker_works_on():
    _, lines = shown(live(), size=(300, 80))
    assert sum(bool(re.search(r"│w\d+ .*phase \d task \d+ .*MB/s", line)) for line in lines) >= 5, lines


def test_each_of_few_tasks_has_a_block_of_its_own_and_a_click_finds_it():
    async def steps(app, pilot):
        tree = app.screen.query_one(TreeMap)
        await pilot.press("plus", "plus", "plus")
        await pilot.pause()
        assert (tree.window.stop - tree.window.start, tree._cells.wide, tree._cells.tall) == (12, 8, 4)
        across = tree.size.width // 8
        assert across < 12
        for line in range(3):  # a block of three lines in the second row, its last column
            await pilot.click(TreeMap, offset=(1 + 2 * 8 + 6, 2 + len(tree._cells.phases) + 4 + line))
            assert tree.cursor == tree.window.start + across + 2
            await pilot.press("left")
            assert tree.cursor == tree.window.start + across + 1
        await pilot.press("up", "right")
        assert tree.cursor == tree.window.start + 2

    _, lines = shown(live(), steps=steps)
    assert sum("███████ ███████" in line for line in lines) >= 6, lines


def test_a_click_beside_the_blocks_or_below_them_finds_none():
    async def steps(app, pilot):
        tree = app.screen.query_one(TreeMap)
        await pilot.press("n", "n", "0", "plus", "plus", "plus")
        await pilot.pause()
        across, top = tree.size.width // tree._cells.wide, 1 + len(tree._cells.phases) + tree._cells.gap
        assert (across * tree._cells.wide, tree._cells.tall) == (72, 4)
        before = tree.window, tree.cursor
        for column, line in ((72, 0), (73, 4), (40, 4), (0, 9)):
            await pilot.click(TreeMap, offset=(1 + column, top + line))
            assert (tree.window, tree.cursor) == before, (column, line)
        await pilot.click(TreeMap, offset=(1 + 71, top))
        assert tree.cursor == tree.window.start + across - 1

    shown(live(), steps=steps)


def test_a_map_of_blocks_survives_a_terminal_narrower_than_one():
    async def steps(app, pilot):
        tree = app.screen.query_one(TreeMap)
        tree.focus()
        await pilot.press("plus", "plus", "plus")
        await pilot.pause()
        assert tree._cells.wide == 8
        cells = tree._cells
        await pilot.resize_terminal(7, 30)
        await settled(app, pilot)
        tree._cells = cells  # as where a line is drawn before it is laid out for the new size
        for line in range(tree.size.height):
            tree.render_line(line)

    shown(live(), steps=steps)


def heights(app):
    return {name: app.screen.query_one(f"#{name}").outer_size.height for name in PANES}


def test_a_pane_with_little_in_it_leaves_its_room_to_others_and_keeps_what_it_has_got():
    steps_seen = []

    async def steps(app, pilot):
        steps_seen.append(heights(app))
        app.screen.show(player_at(LATE).view())
        await settled(app, pilot)
        steps_seen.append(heights(app))
        app.screen.show(player_at(0.05).view())
        await pilot.press("f")
        await settled(app, pilot)
        steps_seen.append(heights(app))
        await pilot.press("f")
        await settled(app, pilot)
        steps_seen.append(heights(app))

    shown(live(0.05), steps=steps, size=(120, 36))
    early, late, alone, again = steps_seen
    assert early["stragglers"] == 3, "one line, and its border"
    assert late["stragglers"] == 7
    assert late["tree"] < early["tree"]
    assert alone["tree"] > 30
    assert again["stragglers"] == 7, "the panes do not jump to and fro"


def test_what_few_workers_leave_free_beside_the_tree_shows_more_of_queues(monkeypatch):
    monkeypatch.setattr(JobScreen, "shared_queue", lambda *_: [(Span(f"line {number}"),) for number in range(5)])
    view = player_at(LATE).view()
    source = LiveSource()
    source.put(msgspec.structs.replace(view, workers=view.workers[:5]))
    seen = []

    async def steps(app, _):
        seen.append((heights(app), app.screen._lines["io"].rest))

    _, lines = shown(source, steps=steps, size=(120, 44))
    (there, rest), text = seen[0], "\n".join(lines)
    assert (there["io"], rest) == (17, ""), text
    assert there["workers"] >= 7, text
    assert there["workers"] + there["io"] == there["tree"], text


def test_rows_that_the_map_leaves_free_show_more_phases():
    _, lines = shown(live(0.2), size=(100, 28))
    assert sum(line.startswith(("│ P", "│▸P")) for line in lines) == 4, lines
    title = next(line for line in lines if line.startswith("╭"))
    assert " +2 phases " in title, "and no word of the title is cut"


def test_n_goes_to_the_stragglers_one_after_the_other():
    places = []

    async def steps(app, pilot):
        tree = app.screen.query_one(TreeMap)
        for key in ("n", "n", "N"):
            await pilot.press(key)
            await pilot.pause()
            places.append((tree.window.phase, tree.cursor))

    shown(live(), steps=steps)
    assert places == [(2, 158), (1, 734), (2, 158)]


def test_n_is_offered_only_where_a_task_has_had_a_backup():
    _, lines = shown(live(0.3), "n")
    assert "Straggler" not in lines[-1]
    assert lines == shown(live(0.3))[1]
    assert "n Straggler" in shown(live())[1][-1]


def test_slash_keeps_lines_that_hold_a_text_and_tells_how_many_do_not():
    _, lines = shown(live(), "slash", *"joi")
    assert "joi" in lines, "what is typed is seen"
    _, lines = shown(live(), "slash", *"joined", "enter", "5", "f")
    joined = [line for line in lines if "joined from" in line]
    assert len(joined) == 16
    assert any(re.search(r"11 lines without “joined”", line) for line in lines)
    _, lines = shown(live(), "slash", *"joined", "enter", "5", "f", "escape")
    assert any("fell silent" in line for line in lines)


def test_g_draws_signs_in_place_of_colours():
    _, lines = shown(live(0.5), "g")
    assert any(GLYPHS[0] * 20 in line for line in lines), "what waits"
    _, lines = shown(live(0.5), "g", "g")
    assert not any(GLYPHS[0] * 20 in line for line in lines)


def test_without_colours_signs_are_drawn(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    _, lines = shown(live(0.5))
    assert any(GLYPHS[0] * 20 in line for line in lines)


def test_of_a_job_that_has_failed_it_is_told_what_it_has_left():
    view = player_at(0.5).view()
    assert " left " not in "\n".join(shown(replay(0.5))[1])
    source = LiveSource()
    source.put(msgspec.structs.replace(view, failure="the disk is full"))
    (legend,) = [line for line in shown(source)[1] if " done  " in line]
    queued, running = view.states[0].counts()[QUEUED : RUNNING + 1]
    assert running
    assert f" {running} left running" in legend
    assert not queued or f" {queued} left queued" in legend


@pytest.mark.parametrize(("term", "colorterm", "signs"), [
    ("screen", "", True), ("linux", "", True), ("xterm-16color", "", True),
    ("tmux-256color", "", False), ("screen", "truecolor", False),
])  # fmt: skip
def test_with_16_colours_signs_are_drawn_and_with_more_the_colours(term, colorterm, signs, monkeypatch):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLORTERM", colorterm)
    _, lines = shown(live(0.5))
    assert any(GLYPHS[0] * 20 in line for line in lines) is signs


@pytest.mark.parametrize(("keys", "tab", "rest"), [
    ((), "▸1 Tree 2 3 4 5", r"\+4 phases"),
    (("plus",), "▸1 Tree 2 3 4 5", r"\+600 tasks \+4 phases"),
    (("2",), " 1▸2 Work 3 4 5", r"\d+ more below"),
    (("5",), " 1 2 3 4▸5 Log", r"\d+ more above"),
    (("5", "home"), " 1 2 3 4▸5 Log", r"\d+ more below"),
])  # fmt: skip
def test_without_borders_a_line_that_is_there_anyway_tells_what_is_out_of_sight(keys, tab, rest):
    _, lines = shown(live(), *keys, size=(40, 10))
    assert not any("│" in line or "╰" in line for line in lines)
    line = next(line for line in lines if line.startswith(tab))
    assert re.search(rf"  {rest}$", line), line
    assert len(line) == 40


def test_with_borders_these_tell_it_alone():
    _, lines = shown(live(), "2", size=(40, 20))
    assert sum("more below" in line for line in lines) == 1
    assert lines[2] == " 1 Tree▸2 Work 3 I/O 4 Slow 5 Log"


def test_t_goes_through_the_themes_and_the_map_has_their_colours():
    seen = []

    async def steps(app, pilot):
        for _ in range(3):
            await pilot.press("t")
            await pilot.pause()
            seen.append((app.theme, app.screen.query_one(TreeMap)._painter.palette.empty))

    shown(live(), steps=steps)
    assert [theme for theme, _ in seen] == ["light", "high-contrast", "dark"]
    assert [ground for _, ground in seen] == ["#ffffff", "#121212", "#121212"]


def test_the_help_names_every_key_that_does_something_and_no_other():
    _, lines = shown(live(), "question_mark")
    told = "\n".join(lines)
    assert all(words in told for words in ("Leave", "Zoom", "Straggler before", "Move the cursor left"))
    assert not any(words in told for words in ("Zoom out", "Clear the filter", "Look at the phase below"))
    _, lines = shown(live(), "plus", "question_mark")
    assert any("Zoom out" in line for line in lines)
    assert "Faster" not in told, "nothing is played again"
    _, lines = shown(live(), "question_mark", "escape")
    assert not any("Zoom out" in line for line in lines)
    _, lines = shown(replay(), "question_mark")
    assert any("Faster" in line for line in lines)


# Leaving --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "answer", "outcome"),
    [
        ("q", ("escape",), None),
        ("ctrl+c", ("ctrl+c",), None),
        ("q", ("enter",), None),
        ("ctrl+q", ("down", "enter"), "leave"),
        ("q", ("down", "down", "enter"), "stop"),
    ],
)
def test_leaving_a_run_in_this_process_asks_what_shall_become_of_it(key, answer, outcome):
    async def steps(app, pilot):
        await pilot.press(key)
        await pilot.pause()
        assert any("The job runs in this process." in line for line in text_of(app))
        assert app.return_value is None
        await pilot.press(*answer)
        await pilot.pause()

    seen, lines = shown(live(), steps=steps, helm=Helm())
    assert seen.answer == outcome
    if outcome is None:
        assert any("1 Tree" in line for line in lines), "and it is shown again"


def test_leaving_a_run_that_has_ended_asks_nothing():
    source = live(1.0)
    source.end()
    seen, _ = shown(source, "q", helm=Helm())
    assert seen.answer == "leave"


# A replay -------------------------------------------------------------------------------------------------------------


class Noticing(LiveSource):
    """A source that has something to say."""

    words = "the broker is away"

    def notice(self):
        return self.words


@pytest.mark.parametrize("size", [(120, 36), (80, 24), (40, 10)])
def test_what_is_to_be_known_of_the_source_is_a_line_of_its_own_as_long_as_it_is_true(size):
    source = Noticing()
    source.put(player_at(LATE).view())

    async def steps(app, pilot):
        app.pull()
        await settled(app, pilot)
        assert text_of(app)[0] == "the broker is away"
        assert "RUNNING" in text_of(app)[1]
        source.words = "[red]" + "w" * 500
        app.pull()
        await settled(app, pilot)
        assert text_of(app)[0].startswith("[red]www")
        source.words = ""
        app.pull()

    _, lines = shown(source, size=size, steps=steps)
    assert "RUNNING" in lines[0]


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("speed", "slower", "faster"),
    [(0.01, 0.01, 0.25), (0.25, 0.25, 0.5), (1.0, 0.5, 2.0), (3.0, 2.0, 5.0), (100.0, 30.0, 100.0), (1e3, 100.0, 1e3)],
)
def test_faster_is_never_slower_nor_slower_faster_whatever_the_speed_was(speed, slower, faster):
    for step, wanted in ((-1, slower), (1, faster)):
        source = ReplaySource(player_at(0.0), lambda: 0.0, speed)
        source.faster(step)
        assert source.speed == wanted


def test_the_line_of_keys_tells_whether_space_plays_or_stops():
    told = []

    async def steps(app, pilot):
        for _ in range(3):
            told.append([key.words for key in app.screen.query_one(KeyLine).told if key.action == "pause"])
            await pilot.press("space")
            await settled(app, pilot)
            app.screen.show_scrubber()
            await settled(app, pilot)

    shown(replay(0.5), steps=steps)
    assert told == [["Play"], ["Pause"], ["Play"]]


def test_a_replay_goes_on_with_the_clock_at_its_speed_and_can_be_stopped():
    clock = Clock()
    source = ReplaySource(player_at(0.0), clock)

    async def steps(app, pilot):
        async def after(seconds, *keys):
            await pilot.press(*keys)
            clock.now += seconds
            app.pull()
            await pilot.pause()
            return round(source.player.seconds, 3)

        assert await after(2.0) == 2.0
        assert await after(3.0, "space") == 2.0
        assert await after(1.0, "space") == 3.0
        assert await after(1.0, "greater_than_sign") == 5.0
        assert await after(1.0, "less_than_sign", "less_than_sign") == 5.5
        assert await after(0.0, "right_curly_bracket") == round(source.player.end_seconds, 3)
        assert await after(0.0, "space") == 0.0, "at its end it begins again"

    shown(source, "2", steps=steps)


def test_brackets_and_the_scrubber_go_to_places():
    source = replay(0.5)

    async def steps(app, pilot):
        await pilot.press("right_square_bracket")
        assert source.share() == pytest.approx(0.52)
        await pilot.press("left_square_bracket", "left_square_bracket")
        assert source.share() == pytest.approx(0.48)
        await pilot.press("left_curly_bracket")
        assert source.share() == 0.0
        await pilot.click(Scrubber, offset=(60, 0))
        assert 0.4 < source.share() < 0.7

    shown(source, "2", steps=steps)


def test_a_history_that_is_cut_short_is_played_as_far_as_it_goes_and_says_so():
    _, lines = shown(replay(1.0, recorded()[:-2000]), "5", "f")
    assert any("the history is incomplete" in line for line in lines)
    assert any("RUNNING" in line for line in lines)


@pytest.mark.parametrize("size", [(120, 36), (80, 24)])
def test_a_history_that_is_damaged_where_it_begins_says_so_where_one_looks_and_of_which_job_it_is(size):
    content = bytearray(recorded())
    begin = content.index(b"\n") + 1
    first = begin + 8 + int.from_bytes(content[begin : begin + 4], "little")
    content[first + 100] ^= 1
    _, lines = shown(replay(1.0, bytes(content)), size=size)
    assert any("it is damaged at byte" in line for line in lines)
    assert "7f3a" in lines[1]
    assert "mean F=4,000" in lines[1]


# The mouse, and sizes -------------------------------------------------------------------------------------------------


def test_the_mouse_puts_the_cursor_and_chooses_tabs():
    async def wide(app, pilot):
        tree = app.screen.query_one(TreeMap)
        await pilot.click(TreeMap, offset=(4, 9))
        assert tree.cursor == (74 + 3) * 2
        await pilot.click(TreeMap, offset=(10, 5))
        assert tree.window.phase == 2

    async def narrow(app, pilot):
        await pilot.click(Tabs, offset=(12, 0))
        await pilot.pause()
        assert app.focused.id == "workers"

    shown(live(), steps=wide)
    shown(live(), size=(80, 24), steps=narrow)


@pytest.mark.parametrize("size", [(40, 10), (20, 5), (1, 1), (80, 24), (99, 28), (100, 27), (300, 100)])
def test_any_size_can_be_used_and_none_overflows(size):
    _, lines = shown(live(), "4", "question_mark", "escape", size=size)
    assert len(lines) == size[1]
    assert max(map(len, lines)) <= size[0]


@pytest.mark.parametrize(
    ("width", "told"),
    [
        (80, " 1 Tree 2 Workers 3 Queues and I/O 4 Stragglers 5 Log"),
        (53, " 1 Tree 2 Workers 3 Queues and I/O 4 Stragglers 5 Log"),
        (52, " 1 Tree 2 Workers 3 I/O 4 Stragglers 5 Log"),
        (42, " 1 Tree 2 Workers 3 I/O 4 Stragglers 5 Log"),
        (41, " 1 Tree 2 Work 3 I/O 4 Slow 5 Log"),
        (20, " 1 2 3 4 Slow 5"),
    ],
)
def test_names_of_panes_are_whole_at_any_width(width, told):
    _, lines = shown(live(), "4", size=(width, 16))
    assert told in [line.replace("▸", " ") for line in lines]


@pytest.mark.parametrize(
    ("width", "told"),
    [
        (80, r" 1 Tree 2 Workers 3 Queues and I/O 4 Stragglers 5 Log {13} \d\d more above"),
        (50, r" 1 Tree 2 Work 3 I/O 4 Slow 5 Log +\d\d more above"),
        (42, r" 1 2 3 4 Slow 5 +\d\d more above"),
        (20, r" 1 2 3 4 Slow 5"),
    ],
)
def test_names_of_panes_are_whole_also_beside_what_is_out_of_sight(width, told):
    _, lines = shown(live(), "4", size=(width, 12))
    assert [line for line in lines if re.fullmatch(told, line.replace("▸", " "))], lines


def test_it_can_be_resized_while_it_draws():
    async def steps(app, pilot):
        for width, height in ((80, 24), (40, 10), (300, 100), (3, 2), (120, 36)):
            await pilot.resize_terminal(width, height)
            app.pull()
            await settled(app, pilot)
            assert len(text_of(app)) == height

    _, lines = shown(live(), "4", steps=steps)
    assert lines == shown(live(), "4")[1], "as if it had always been so large"


# What comes from outside ----------------------------------------------------------------------------------------------

HOSTILE = (
    "[red]markup[/red]",
    "[@click=app.quit]click[/]",
    "\x1b[31mescape\x1b]0;title\x07",
    "\u202ebidi\u2066",
    "two\nlines\r\u2028three",
    "\x9b31m\x85",
    "x" * 4096,
    "\ud800 alone",
    "wide 漢字 \u200b\u0301",
    *WIDE[1:4],
)


def named(name):
    """Return what happens, and what it is of, where all that is named from outside is named like that."""
    task = TaskId(name, 1, 0, 1)
    header = HistoryHeader(
        job=name,
        reduction=name,
        files=9,
        output=name,
        work=(PhaseWork(4, 9, 900), PhaseWork(1, 4, 40)),
        began_seconds=BEGAN_SECONDS,
    )
    events = [
        WorkerJoined(name, name, 7, "v", 2, 50, 0.1),
        WorkerJoined("other" + name, name, 7, "v", 2, 50, 0.1),
        JobStarted(name, name, 9, (4, 1), (0, 0)),
        TaskStarted(name, task, 1, attempt=1),
        BackupStarted(task, 2, name, 1, name, "slow_attempt", EVIDENCE),
        TaskFailed(name, task, "error", name, attempt=1),
        WorkerPaused(name, name, quarantined=True),
        WorkerLost("other" + name, name),
        WorkerRefused("third" + name, name, name),
    ]
    return [(float(second), event) for second, event in enumerate(events)], header, JobFailed(name, "error", name, task)


@pytest.mark.parametrize("size", [(120, 36), (40, 10)])
def test_a_hostile_name_anywhere_is_shown_as_text(size):
    source = LiveSource()

    async def steps(app, pilot):
        for name in (each.encode("utf-8", "replace").decode() for each in HOSTILE):
            log, header, failed = named(name)
            for more in ([], [(9.0, failed)]):
                source.put(player_at(1.0, written([*log, *more], header)).view())
                for key in "42513" if size[0] < 100 else "1":
                    await pilot.press(key)
                    await settled(app, pilot)
                    lines = text_of(app)
                    check_widths(app)
                    head = r"(STARTING|RUNNING phase \d/\d|FINISHING|FAILED)  [\d.ms]+(  ETA (about )?\S+( ±\S+)?)?$"
                    assert re.search(head, lines[0]), name
                    assert not re.search(UNSEEN, "".join(lines)), name
                    assert len(lines) == size[1]
            if name.startswith("["):
                await pilot.press("5", "f")
                await settled(app, pilot)
                assert size[0] < 100 or name in "".join(text_of(app)), "markup is no markup here"
                await pilot.press("f", "1")

    source.put(player_at(1.0, written(*named("first")[:2])).view())
    seen, _ = shown(source, size=size, steps=steps)
    assert seen.answer is None


def test_rows_that_did_not_change_are_not_drawn_again():
    regions = []

    async def steps(app, pilot):
        pane = app.screen.query_one("#log", LinesPane)
        tree = app.screen.query_one(TreeMap)
        for widget in (pane, tree):
            refresh = widget.refresh
            widget.refresh = lambda *where, of=refresh, **options: (regions.append(where), of(*where, **options))[1]
        app.pull()
        assert not regions, "nothing has changed"
        view = app.source.newest()
        states = bytearray(view.states[0].states)
        states[0] = 5
        first = msgspec.structs.replace(view.states[0], states=bytes(states))
        app.source.put(msgspec.structs.replace(view, states=(first, *view.states[1:])))
        app.pull()
        (where,) = regions
        assert len(where) == 3, "its row, its phase's row, and the counts"

    shown(live(), steps=steps)
