"""Every key of every screen is pressed, and what comes of it is seen.

What is to be pressed is a table: a screen, a key, the action that it has there, and what is true after it and was not
before. The screens are gone through as people do, so that one run of an application tries many keys. A key of which
nothing comes where it is pressed is in the table as well, and then nothing may come of it.

A screen, or a part of one, that binds another key makes a test here fail, until that key is in the table. What the
actions are asked for in detail is tested in the files of the screens.
"""

from __future__ import annotations

import asyncio
import importlib
import io
import pkgutil
import time
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import distsum.tui
import pytest
from distsum.tui.app import JobApp
from distsum.tui.command_list import Commands
from distsum.tui.dialogs import Ask, AskNumber, Help, Question, Told
from distsum.tui.explained_screen import ExplainedScreen
from distsum.tui.form import Form
from distsum.tui.job_screen import PANES, JobScreen
from distsum.tui.jobs_screen import JobsScreen
from distsum.tui.list_screen import ListScreen
from distsum.tui.log_screen import LogScreen
from distsum.tui.node_screen import NodeScreen
from distsum.tui.own_job_screen import OwnJobScreen
from distsum.tui.queues_screen import QueuesScreen
from distsum.tui.row_list import RowList
from distsum.tui.scrubbed_screen import ScrubbedScreen
from distsum.tui.served_job_screen import ServedJobScreen
from distsum.tui.source import LiveSource, ReplaySource
from distsum.tui.steered_job_screen import SteeredJobScreen
from distsum.tui.submit_screen import SubmitScreen
from distsum.tui.subtree_screen import SubtreeScreen
from distsum.tui.task_screen import TaskScreen
from distsum.tui.tree_map import TreeMap
from distsum.tui.workers_screen import WorkersScreen
from textual.app import App
from textual.binding import Binding, BindingsMap
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import OptionList

from distsum.cli.kept_log import KeptLog
from distsum.observe.history import History
from distsum.observe.player import Player
from distsum.service.messages import BackedUp, BackUp, Cancel, CommandWorker, Done, SwitchSpeculation
from distsum.service.view import FleetStatus
from tests.following import busy_service, running, service, worker
from tests.recorded import Stored, recorded
from tests.screens import settled, settled_until, text_of
from tests.stage import Stage
from tests.tui.test_job_steering import JOB, alone
from tests.tui.test_node_screens import LATE, RACED, player
from tests.tui.test_own_run import Run
from tests.tui.test_submit_screen import GOOD, Writing, folder

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["folder"]  # a fixture

SECONDS = 30.0
"""What comes of a key is waited for as long."""
BASES = (ExplainedScreen, ScrubbedScreen, ListScreen, NodeScreen, SteeredJobScreen, Question)
"""Screens that are never shown, but as the kinds that are made from them."""


FIRST = {binding.key: binding.action for binding in App.BINDINGS if isinstance(binding, Binding) and binding.priority}
"""What the application does with a key before a screen is asked, unless that claims it first, too."""


@cache
def bound(kind):
    """Return the keys, with their actions, that a class binds, or takes over from one of ours."""
    keys = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("distsum.tui"):
            keys.update(BindingsMap(vars(base).get("BINDINGS", ())).key_to_bindings)
    return frozenset(
        (key, binding.action if binding.priority else FIRST.get(key, binding.action))
        for key, bindings in keys.items()
        for binding in bindings
    )


class Scene:
    """An application that is tried, and what came of the last key.

    Attributes:
        app: The application.
        pilot: Presses keys.
        left: How it was left.
        asked: What its service was asked.
        bound: The screens that were shown, each with the keys and actions that it, its parts and the application bind.
    """

    def __init__(self, app, pilot, asked=None):
        self.app, self.pilot = app, pilot
        self.left = []
        self.asked = [] if asked is None else asked
        self.bound = defaultdict(set)
        app.exit = self.left.append

    @property
    def screen(self):
        return self.app.screen

    @property
    def text(self):
        return "\n".join(text_of(self.app))

    def state(self):
        """Return all that a key may change."""
        app = self.app
        return text_of(app), app.screen_stack[:], app.focused, app.theme, self.left[:], self.asked[:]

    async def press(self, *keys):
        await self.pilot.press(*keys)
        await settled(self.app, self.pilot)

    def look(self):
        """Note which keys are bound here."""
        screen = self.screen
        found = self.bound[type(screen)]
        for kind in {type(screen), *map(type, screen.query("*"))}:
            found |= bound(kind)
        for key, active in screen.active_bindings.items():
            if active.node is self.app:
                found.add((key, active.binding.action))


# What is seen after a key ---------------------------------------------------------------------------------------------


def shows(words):
    return lambda scene: words in scene.text


def hides(words):
    return lambda scene: words not in scene.text


def on(kind):
    return lambda scene: type(scene.screen) is kind


def focuses(name):
    return lambda scene: scene.app.focused is not None and scene.app.focused.id == name


def theme(name):
    return lambda scene: scene.app.theme == name


def asks(*requests):
    return lambda scene: scene.asked == list(requests)


def leaves(scene):
    return scene.left == ["leave"]


def row(place):
    """A row of a list, or a child of a node, is chosen."""
    return lambda scene: scene.screen.query_one(RowList).cursor == place


def node(phase, index):
    return lambda scene: (scene.screen.node.phase, scene.screen.node.index) == (phase, index)


def task(phase, place, rows=0):
    """The tree's cursor is at a task, which has a block of its own, or at that so many rows of blocks below it."""

    def seen(scene):
        tree = scene.screen.query_one(TreeMap)
        wide = tree._cells.wide
        return wide > 1 and (tree.window.phase, tree.cursor) == (phase, place + rows * (tree.size.width // wide))

    return seen


def tasks(count):
    """The tree shows so many tasks."""

    def seen(scene):
        window = scene.screen.query_one(TreeMap).window
        return window.stop - window.start == count

    return seen


def top(line):
    """The first line that is in sight of the pane that keys go to; counted from the last one where it is negative."""

    def seen(scene):
        pane = scene.app.focused
        return pane.scroll_offset.y == (line if line >= 0 else pane.max_scroll_y + 1 + line) and pane.max_scroll_y > 2

    return seen


def chosen(place):
    """A choice of some, counted from the last one where it is negative."""

    def seen(scene):
        options = scene.screen.query_one(OptionList)
        return options.highlighted == (place if place >= 0 else options.option_count + place)

    return seen


def below(line):
    return lambda scene: scene.app.focused.scroll_offset.y > line


class Case(NamedTuple):
    """A key, and what is to come of it.

    Attributes:
        screen: Where it is pressed.
        key: The key.
        action: What it is bound to there.
        seen: What is true after it, and was not before; ``IDLE`` says that nothing comes of it.
    """

    screen: type
    key: str
    action: str
    seen: Callable[[Scene], bool]


def IDLE(scene):  # noqa: N802 - a mark
    """The key does nothing here, and is not offered."""
    raise NotImplementedError


async def tried(scene, case):
    """Press a key of the table, and see what comes of it."""
    assert type(scene.screen) is case.screen, case
    active = scene.screen.active_bindings.get(case.key)
    offered = active is not None and active.enabled and active.binding.action == case.action
    assert offered == (case.seen is not IDLE), (case, active)
    scene.left.clear()
    scene.asked.clear()
    scene.look()
    if case.seen is IDLE:
        before = scene.state()
        await scene.press(case.key)
        assert scene.state() == before, case
        return
    assert not case.seen(scene), ("so it was before", case)
    await scene.pilot.press(case.key)
    deadline = time.monotonic() + SECONDS
    while not case.seen(scene):
        assert time.monotonic() < deadline, f"{case}\n{scene.text}"
        await settled(scene.app, scene.pilot)
    scene.look()


def keys(*pressed):
    """Press keys of which other cases tell, to get somewhere."""

    async def step(scene):
        await scene.press(*pressed)

    return step


def sized(width, height):
    async def step(scene):
        await scene.pilot.resize_terminal(width, height)
        await settled(scene.app, scene.pilot)

    return step


# The table ------------------------------------------------------------------------------------------------------------

SMALL = sized(80, 20)
WIDE = sized(120, 36)


def left_by(screen, leave, *, by=(("q", "leave"), ("ctrl+c", "leave"), ("ctrl+q", "quit")), after=()):
    for key, action in by:
        yield Case(screen, key, action, leave)
        yield from after


def on_any(screen, leave, *, after=()):
    """What every screen has but the form."""
    yield from left_by(screen, leave, after=after)
    yield Case(screen, "question_mark", "help", on(Help))
    yield keys("escape")
    yield Case(screen, "ctrl+p", "command_palette", on(Commands))
    yield keys("escape")
    yield Case(screen, "t", "theme", theme("light"))
    yield keys("t", "t")


def scrolled(screen):
    """The keys of a pane that holds more lines than it shows."""

    async def to_the_end(scene):
        await scene.pilot.press("end")
        await settled_until(scene.pilot, lambda: top(-1)(scene))

    yield to_the_end
    yield Case(screen, "home", "scroll_home", top(0))
    yield Case(screen, "down", "scroll_down", top(1))
    yield Case(screen, "up", "scroll_up", top(0))
    yield Case(screen, "pagedown", "page_down", below(1))
    yield Case(screen, "pageup", "page_up", top(0))
    yield Case(screen, "end", "scroll_end", top(-1))


def gone_through(screen, count, page):
    """The keys of rows, of which there are so many, and so many a page."""
    yield Case(screen, "end", "go(1000000000)", row(count - 1))
    yield Case(screen, "up", "go(-1)", row(count - 2))
    yield Case(screen, "home", "go(-1000000000)", row(0))
    yield Case(screen, "down", "go(1)", row(1))
    yield Case(screen, "pagedown", "page(1)", row(min(count - 1, 1 + page)))
    yield Case(screen, "pageup", "page(-1)", row(min(count - 1, 1 + page) - page if count > page else 0))
    yield keys("home")


SCRUBBER = (
    ("space", "pause"),
    ("left_square_bracket", "seek(-1)"),
    ("right_square_bracket", "seek(1)"),
    ("less_than_sign", "speed(-1)"),
    ("greater_than_sign", "speed(1)"),
    ("left_curly_bracket", "to(0)"),
    ("right_curly_bracket", "to(1)"),
)


def at(share):
    return lambda scene: round(scene.app.source.share(), 2) == share and not scene.app.source.behind


def played(screen):
    yield Case(screen, "space", "pause", shows("▶ 1x"))
    yield keys("space")
    yield Case(screen, "left_square_bracket", "seek(-1)", at(LATE - 0.02))
    yield Case(screen, "right_square_bracket", "seek(1)", at(LATE))
    yield Case(screen, "greater_than_sign", "speed(1)", shows("‖ 2x"))
    yield Case(screen, "less_than_sign", "speed(-1)", shows("‖ 1x"))
    yield Case(screen, "left_curly_bracket", "to(0)", at(0.0))
    yield Case(screen, "right_curly_bracket", "to(1)", at(1.0))

    async def late(scene):
        scene.app.source.seek(LATE)
        await settled_until(scene.pilot, lambda: at(LATE)(scene))

    yield late


def not_played(screen):
    return [Case(screen, key, action, IDLE) for key, action in SCRUBBER]


def of_a_job(screen):
    """What every screen of a job has, beside what differs: what is played again, and what can be asked."""
    yield Case(screen, "right", "move(1, 0)", task(1, 1))
    yield Case(screen, "down", "move(0, 1)", task(1, 1, rows=1))
    yield Case(screen, "left", "move(-1, 0)", task(1, 0, rows=1))
    yield Case(screen, "up", "move(0, -1)", task(1, 0))
    yield Case(screen, "pageup", "phase(1)", task(2, 0))
    yield Case(screen, "pagedown", "phase(-1)", task(1, 0))
    yield Case(screen, "plus", "zoom_in", tasks(40))
    yield Case(screen, "equals_sign", "zoom_in", tasks(10))
    yield Case(screen, "minus", "zoom_out", tasks(40))
    yield Case(screen, "0", "zoom_all", tasks(160))
    yield Case(screen, "g", "glyphs", shows("▓▓▓"))
    yield keys("g")
    yield Case(screen, "f", "full", shows("▸1 Tree 2 Workers"))
    yield keys("f")
    for place in (2, 3, 4, 5, 1):
        yield Case(screen, str(place), f"pane({place})", focuses(PANES[place - 1]))
    yield Case(screen, "tab", "next_pane(1)", focuses("workers"))
    yield Case(screen, "shift+tab", "next_pane(-1)", focuses("tree"))
    yield keys("5")
    yield from scrolled(screen)
    yield Case(screen, "slash", "filter", focuses("filter"))
    yield keys(*"joined", "enter")
    yield Case(screen, "escape", "back" if screen is ServedJobScreen else "clear_filter", hides("without “joined”"))
    yield Case(screen, "n", "next_straggler(1)", task(2, 6))
    yield Case(screen, "N", "next_straggler(-1)", task(1, 7))
    yield keys("n")
    yield Case(screen, "enter", "open", on(SubtreeScreen))
    yield keys("escape")


def of_a_node(screen):
    """What the screens of a node have in common: of the last one of its phase, right below the root."""
    yield Case(screen, "left", "sibling(-1)", node(2, 5))
    yield Case(screen, "right", "sibling(1)", node(2, 6))
    for key in ("u", "backspace"):
        yield Case(screen, key, "up", node(3, 0))
        yield keys("escape") if screen is TaskScreen else keys("enter")
        if screen is TaskScreen:
            yield keys("enter", "a")


def closed(kind, screen, opened, *, by):
    for key in by:
        yield keys(*opened)
        yield Case(kind, key, "close", on(screen))


TOLD = ("escape", "enter", "q", "question_mark", "ctrl+c")

REPLAY = (
    *of_a_job(JobScreen),
    Case(JobScreen, "s", "back_up", IDLE),
    Case(JobScreen, "b", "speculation", IDLE),
    *played(JobScreen),
    *on_any(JobScreen, leaves),
    *closed(Help, JobScreen, ["question_mark"], by=TOLD),
    sized(60, 12),
    keys("question_mark"),
    *scrolled(Help),
    WIDE,
    keys("escape", "1", "enter"),
    *of_a_node(SubtreeScreen),
    *gone_through(SubtreeScreen, 10, 19),
    Case(SubtreeScreen, "enter", "open", node(1, 150)),
    *closed(Told, SubtreeScreen, ["enter"], by=TOLD),
    sized(12, 5),
    keys("enter"),
    *scrolled(Told),
    keys("escape"),
    sized(80, 26),
    keys("u"),
    Case(SubtreeScreen, "tab", "next_pane(1)", focuses("attempts")),
    *scrolled(SubtreeScreen),
    Case(SubtreeScreen, "shift+tab", "next_pane(-1)", focuses("children")),
    WIDE,
    *played(SubtreeScreen),
    *on_any(SubtreeScreen, leaves),
    Case(SubtreeScreen, "a", "attempts", on(TaskScreen)),
    *of_a_node(TaskScreen),
    Case(TaskScreen, "tab", "next_pane(1)", focuses("stored")),
    Case(TaskScreen, "shift+tab", "next_pane(-1)", focuses("time")),
    keys("tab", "tab"),
    sized(44, 20),
    *scrolled(TaskScreen),
    WIDE,
    *played(TaskScreen),
    *on_any(TaskScreen, leaves),
    Case(TaskScreen, "escape", "back", on(SubtreeScreen)),
    Case(SubtreeScreen, "escape", "back", on(JobScreen)),
)

OWN = (
    *of_a_job(OwnJobScreen),
    Case(OwnJobScreen, "s", "back_up", shows("! not done: phase 2 task 6 is held")),
    Case(OwnJobScreen, "b", "speculation", shows("get no more backups")),
    Case(OwnJobScreen, "c", "cancel", shows("Cancel the job?")),
    keys("escape"),
    *not_played(OwnJobScreen),
    *on_any(OwnJobScreen, shows("The job runs in this process."), after=[keys("escape")]),
)

MASTER = shows("The master runs in this process.")


def of_a_list(screen, count, page):
    """What every list has."""
    kinds = {"jobs": JobsScreen, "workers": WorkersScreen, "queues": QueuesScreen}
    names = list(kinds)
    own = names.index(screen.NAME)
    yield from gone_through(screen, count, page)
    yield Case(screen, "s", "sort(1)", shows("▲"))
    yield Case(screen, "r", "turn", shows("▼"))
    yield Case(screen, "S", "sort(-1)", hides("▼"))
    yield Case(screen, "slash", "filter", focuses("filter"))
    yield keys(*"qqq", "enter")
    yield Case(screen, "escape", "back", hides("without “qqq”"))
    for key, step in (("tab", 1), ("shift+tab", -1)):
        yield Case(screen, key, f"next({step})", on(kinds[names[(own + step) % 3]]))
        yield keys(str(own + 1))
    for place, (letter, name) in enumerate(zip("jwu", names, strict=True), start=1):
        for key in (str(place), letter):
            yield Case(screen, key, f"go('{name}')", IDLE if name == screen.NAME else on(kinds[name]))
            yield keys(str(own + 1))
    yield Case(screen, "l", "log", on(LogScreen))
    yield keys("escape")
    yield from on_any(screen, MASTER, after=[keys("escape")])


SERVED = (
    *of_a_job(ServedJobScreen),
    Case(ServedJobScreen, "s", "back_up", asks(BackUp(RACED))),
    Case(ServedJobScreen, "b", "speculation", asks(SwitchSpeculation(JOB, on=False))),
    Case(ServedJobScreen, "c", "cancel", on(Ask)),
    keys("escape"),
    Case(ServedJobScreen, "p", "prioritize", on(AskNumber)),
    keys("escape"),
    *not_played(ServedJobScreen),
    *on_any(ServedJobScreen, MASTER, after=[keys("escape")]),
    keys("enter"),
    Case(SubtreeScreen, "s", "back_up", asks(BackUp(RACED))),
    keys("a"),
    Case(TaskScreen, "s", "back_up", asks(BackUp(RACED))),
    keys("escape", "escape"),
    Case(ServedJobScreen, "w", "go('workers')", on(WorkersScreen)),
    Case(WorkersScreen, "escape", "back", on(ServedJobScreen)),
    Case(ServedJobScreen, "u", "go('queues')", on(QueuesScreen)),
    Case(QueuesScreen, "escape", "back", on(ServedJobScreen)),
    Case(ServedJobScreen, "j", "go('jobs')", on(JobsScreen)),
    keys("enter"),
    Case(ServedJobScreen, "escape", "back", on(JobsScreen)),
)
JOBS = (
    *of_a_list(JobsScreen, 41, 25),
    Case(JobsScreen, "enter", "open", on(ServedJobScreen)),
    keys("escape"),
    Case(JobsScreen, "n", "submit", on(SubmitScreen)),
    keys("escape"),
    Case(JobsScreen, "p", "prioritize", on(AskNumber)),
    Case(AskNumber, "escape", "close", on(JobsScreen)),
    keys("p"),
    Case(AskNumber, "ctrl+c", "close", on(JobsScreen)),
    Case(JobsScreen, "c", "cancel", on(Ask)),
    Case(Ask, "down", "cursor_down", chosen(1)),
    Case(Ask, "up", "cursor_up", chosen(0)),
    Case(Ask, "end", "last", chosen(1)),
    Case(Ask, "home", "first", chosen(0)),
    Case(Ask, "pagedown", "page_down", chosen(1)),
    Case(Ask, "pageup", "page_up", chosen(0)),
    keys("down"),
    Case(Ask, "enter", "select", asks(Cancel(JOB))),
    keys("c"),
    Case(Ask, "escape", "harmless", on(JobsScreen)),
    keys("c"),
    Case(Ask, "q", "harmless", on(JobsScreen)),
    keys("c"),
    Case(Ask, "ctrl+c", "harmless", on(JobsScreen)),
    keys("ctrl+p"),
    Case(Commands, "ctrl+end", "command_list('last')", chosen(-1)),
    Case(Commands, "ctrl+home", "command_list('first')", chosen(0)),
    Case(Commands, "escape", "escape", on(JobsScreen)),
)
WORKERS = (
    *of_a_list(WorkersScreen, 41, 25),
    Case(WorkersScreen, "enter", "open", on(Told)),
    keys("escape"),
    Case(WorkersScreen, "a", "scale", on(AskNumber)),
    keys("escape"),
    Case(WorkersScreen, "e", "command('resume')", asks(CommandWorker("node1-a1", "resume"))),
    keys("down"),
    Case(WorkersScreen, "p", "command('pause')", asks(CommandWorker("node1-a0", "pause"))),
    Case(WorkersScreen, "d", "command('drain')", on(Ask)),
    keys("escape"),
    Case(WorkersScreen, "x", "command('shutdown')", on(Ask)),
    keys("escape"),
)
QUEUES = (
    *of_a_list(QueuesScreen, 6, 25),
    Case(QueuesScreen, "enter", "open", IDLE),
    Case(QueuesScreen, "o", "open_page", shows("is opened in a browser")),
)
LOG = (
    *scrolled(LogScreen),
    Case(LogScreen, "slash", "filter", focuses("filter")),
    keys(*"qqq", "enter"),
    Case(LogScreen, "escape", "back", shows("Log ── 80")),
    *on_any(LogScreen, MASTER, after=[keys("escape")]),
    Case(LogScreen, "l", "back", on(JobsScreen)),
)
SERVICE = {
    "job": ((), SERVED),
    "jobs": (("j",), JOBS),
    "workers": (("w",), WORKERS),
    "queues": (("u",), QUEUES),
    "log": (("j", "l"), LOG),
}
"""What is looked at of a service, and the keys that lead there."""


def writes(field):
    return lambda scene: scene.screen.query_one(Form).written_into == field


FORM = (
    Case(SubmitScreen, "down", "field(1)", writes("output")),
    Case(SubmitScreen, "up", "field(-1)", writes("inputs")),
    Case(SubmitScreen, "tab", "app.focus_next", writes("output")),
    Case(SubmitScreen, "shift+tab", "app.focus_previous", writes("inputs")),
    keys("up", "up"),
    Case(SubmitScreen, "right", "choose(1)", shows("◂ sum ▸")),
    Case(SubmitScreen, "space", "choose(1)", shows("◂ min ▸")),
    Case(SubmitScreen, "left", "choose(-1)", shows("◂ sum ▸")),
    Case(SubmitScreen, "f1", "help", on(Help)),
    keys("escape"),
    Case(SubmitScreen, "ctrl+p", "command_palette", on(Commands)),
    keys("escape"),
    *left_by(SubmitScreen, leaves, by=(("ctrl+c", "leave"), ("ctrl+q", "leave"))),
    Case(SubmitScreen, "escape", "back", on(JobsScreen)),
    keys("n"),
)
HELD = (keys("enter"), Case(SubmitScreen, "escape", "stop", hides("looking at the inputs")))
PLANNED = (
    Case(SubmitScreen, "enter", "plan", shows("Enter submits it")),
    SMALL,
    keys("up", "up", "up", "tab"),
    *scrolled(SubmitScreen),
    Case(SubmitScreen, "enter", "submit", on(ServedJobScreen)),
)
TABLE = {
    (case.screen, case.key, case.action): case
    for case in (*REPLAY, *OWN, *SERVED, *JOBS, *WORKERS, *QUEUES, *LOG, *FORM, *HELD, *PLANNED)
    if isinstance(case, Case)
}


async def played_through(scene, *steps):
    for step in steps:
        if isinstance(step, Case):
            await tried(scene, step)
        else:
            await step(scene)
    missing = [
        (screen, each) for screen, found in scene.bound.items() for each in found if (screen, *each) not in TABLE
    ]
    assert not missing, "nobody presses these"


# Tests ----------------------------------------------------------------------------------------------------------------


def test_every_key_of_a_job_that_is_played_again_and_of_its_nodes():
    source = ReplaySource(Player(History(Stored(recorded(exponent=2, tree_told=True)))), lambda: 0.0)
    source.playing = False
    source.seek(LATE)

    async def run():
        app = JobApp(source, frame_seconds=3600.0)
        async with app.run_test(size=(120, 36)) as pilot:
            await settled_until(pilot, lambda: not source.behind)
            await played_through(Scene(app, pilot), *REPLAY)

    asyncio.run(run())


def test_every_key_of_a_job_of_this_process(monkeypatch):
    monkeypatch.setattr("distsum.tui.app.RUN_SHARE", 1e6)  # else it draws seldom, not to take anything from the run
    source = LiveSource()
    source.put(alone(player().view()), player().detail)

    async def run(helm):
        app = JobApp(source, helm=helm, frame_seconds=3600.0)
        async with app.run_test(size=(120, 36)) as pilot:
            await settled(app, pilot)
            await played_through(Scene(app, pilot), *OWN)

    with Run() as own:
        asyncio.run(run(own.helm))


@pytest.mark.parametrize("name", SERVICE)
def test_every_key_of_a_service(monkeypatch, name):
    way, steps_there = SERVICE[name]
    monkeypatch.setattr("distsum.tui.service_app._has_browser", lambda: True)
    log = KeptLog(io.StringIO(), 100)
    for number in range(80):
        log.write(f"line {number}\n")
    queued = [running(f"job{number:04}", "queued", share=0.0) for number in range(40)]
    workers = [worker("node1-a0"), worker("node1-a1", "paused"), *(worker(f"node2-b{n:02}", "idle") for n in range(39))]
    view = service([running(JOB), *queued], workers, busy_service().queues, FleetStatus(held=True, wanted=4))
    stage = Stage(
        view, job=JOB, log=log, answer=lambda each: BackedUp("w5", "w4", ()) if isinstance(each, BackUp) else Done()
    )
    stage.viewer.job_views[JOB] = alone(player().view())
    stage.viewer.detail_of = player().detail
    stage.app.open_url = lambda *_, **__: None

    async def steps(pilot):
        await played_through(Scene(pilot.app, pilot, stage.asked.requests), *steps_there)

    stage.show(*way, steps=steps)


def test_every_key_of_the_form_for_a_new_job(folder):
    async def steps(form):
        scene = Scene(form.app, form.pilot)
        await played_through(scene, *FORM)
        form.master.hold.clear()
        await played_through(scene, *HELD)
        form.master.hold.set()
        await played_through(scene, *PLANNED)

    Writing(folder).show(steps=steps, **GOOD)


def classes(kind):
    """Return all classes of a kind that are ours."""
    for each in pkgutil.iter_modules(distsum.tui.__path__):
        importlib.import_module(f"distsum.tui.{each.name}")
    found, left = set(), [kind]
    while left:
        below = left.pop().__subclasses__()
        left += below
        found |= {each for each in below if each.__module__.startswith("distsum.tui")}
    return found


def test_every_screen_and_every_key_that_it_binds_is_in_the_table():
    shown = classes(Screen) - set(BASES)
    assert {screen for screen, _, _ in TABLE} == shown
    assert not [(screen, each) for screen in shown for each in bound(screen) if (screen, *each) not in TABLE]
    assert all(any(issubclass(screen, base) for screen in shown) for base in BASES)


def test_every_part_of_a_screen_that_binds_keys_is_in_the_table():
    pressed = {(key, action) for (_, key, action), case in TABLE.items() if case.seen is not IDLE}
    parts = classes(Widget) - set(BASES)
    assert not [(part, each) for part in parts for each in bound(part) if each not in pressed]
