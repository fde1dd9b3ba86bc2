"""Words can be read in every theme, on every screen: the contrast of each with its ground is measured."""

from __future__ import annotations

import io
import re

import pytest
from distsum.tui.dialogs import Ask, AskNumber, Help
from distsum.tui.jobs_screen import JobsScreen
from distsum.tui.log_screen import LogScreen
from distsum.tui.palette import contrast
from distsum.tui.queues_screen import QueuesScreen
from distsum.tui.served_job_screen import ServedJobScreen
from distsum.tui.submit_screen import SubmitScreen
from distsum.tui.subtree_screen import SubtreeScreen
from distsum.tui.task_screen import TaskScreen
from distsum.tui.themes import HIGH_CONTRAST, THEMES
from distsum.tui.workers_screen import WorkersScreen

from distsum.cli.kept_log import KeptLog
from distsum.service.messages import Refused
from tests.screens import settled
from tests.tui.test_key_line import JOB, stage

WALK = (
    ("job", ()),
    ("job, another pane", ("4",)),
    ("job, filter", ("slash",)),
    ("refused at once", ("escape", "b")),
    ("node", ("1", "n", "enter")),
    ("files", ("enter",)),
    ("attempts", ("u", "a")),
    ("help", ("question_mark",)),
    ("question", ("escape", "escape", "escape", "c")),
    ("refused", ("down", "enter")),
    ("number", ("escape", "p")),
)
OTHERS = (
    ("workers", ("w",)),
    ("log", ("l",)),
    ("queues", ("escape", "u")),
    ("jobs", ("j",)),
    ("jobs, filter", ("slash",)),
    ("jobs, nothing found", (*"qqq", "enter")),
    ("form", ("escape", "n")),
    ("form, wrong", ("down", "down", "x")),
)
"""What is looked at, one after the other, and the keys that lead there."""


def hexes(style):
    return [f"#{each.red:02x}{each.green:02x}{each.blue:02x}" for each in
            (colour.get_truecolor() for colour in (style.color, style.bgcolor))]  # fmt: skip


def weak_words(screen, least):
    """Return the words that stand out less than that, with their colours."""
    # What lies behind a dialog is meant to stand back.
    seen = screen.query_one("#box").region if screen.is_modal else screen.region
    for strip in screen._compositor.render_strips()[seen.y : seen.bottom]:
        for text, style, _ in strip.crop(seen.x, seen.right):
            if re.search(r"\w", text) and (ratio := contrast(*hexes(style))) < least:
                yield text.strip(), *hexes(style), round(ratio, 1)


@pytest.mark.parametrize(
    ("walk", "wanted"),
    [
        (WALK, {ServedJobScreen, SubtreeScreen, TaskScreen, Help, Ask, AskNumber}),
        (OTHERS, {WorkersScreen, LogScreen, QueuesScreen, JobsScreen, SubmitScreen}),
    ],
    ids=["a job", "lists"],
)
def test_words_stand_out_from_their_ground_in_every_theme_on_every_screen(walk, wanted):
    """WCAG 2 asks for 4.5 at least, and for 7 of what is to be read by those who see little."""
    weak, kinds = [], set()

    async def steps(pilot):
        for name, keys in walk:
            await shown.press(pilot, *keys)
            kinds.add(type(shown.screen))
            for theme in THEMES:
                pilot.app.theme = theme.name
                await settled(pilot.app, pilot)
                least = 7.0 if theme is HIGH_CONTRAST else 4.5
                weak.extend((name, theme.name, *each) for each in weak_words(shown.screen, least))
            if name.startswith("refused"):
                assert "! not done: it is too late" in shown.text

    shown = stage(job=JOB, log=KeptLog(io.StringIO(), 100), answer=Refused("it is too late"))
    shown.show(steps=steps)
    assert not weak
    assert kinds == wanted
