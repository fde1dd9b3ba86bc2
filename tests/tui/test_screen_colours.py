"""Words can be read in every theme, on every screen: the contrast of each with its ground is measured."""

from __future__ import annotations

import io
import re

import pytest
from distsum.tui.palette import contrast
from distsum.tui.themes import HIGH_CONTRAST, THEMES

from distsum.cli.kept_log import KeptLog
from distsum.service.messages import Refused
from tests.screens import settled, text_of
from tests.tui.test_key_line import JOB, stage

WALK = {
    "jobs": ("escape",),
    "jobs, nothing found": ("escape", "slash", *"qqq"),
    "job": (),
    "job, another pane": ("4",),
    "node": ("n", "enter"),
    "files": ("n", "enter", "enter"),
    "attempts": ("n", "enter", "a"),
    "workers": ("w",),
    "queues": ("u",),
    "log": ("w", "l"),
    "form": ("escape", "n"),
    "form, wrong": ("escape", "n", "down", "down", *"x"),
    "help": ("question_mark",),
    "question": ("c",),
    "refused": ("c", "down", "enter"),
    "refused at once": ("b",),
    "number": ("p",),
    "filter": ("slash",),
}


def hexes(style):
    return [f"#{each.red:02x}{each.green:02x}{each.blue:02x}" for each in
            (colour.get_truecolor() for colour in (style.color, style.bgcolor))]  # fmt: skip


@pytest.mark.parametrize("name", WALK)
def test_words_stand_out_from_their_ground_in_every_theme(name):
    """WCAG 2 asks for 4.5 at least, and for 7 of what is to be read by those who see little."""
    weak = set()

    async def steps(pilot):
        for theme in THEMES:
            pilot.app.theme = theme.name
            await settled(pilot.app, pilot)
            least = 7.0 if theme is HIGH_CONTRAST else 4.5
            screen = pilot.app.screen
            # What lies behind a dialog is meant to stand back.
            seen = screen.query_one("#box").region if screen.is_modal else screen.region
            for strip in screen._compositor.render_strips()[seen.y : seen.bottom]:
                for text, style, _ in strip.crop(seen.x, seen.right):
                    if re.search(r"\w", text) and (ratio := contrast(*hexes(style))) < least:
                        weak.add((theme.name, text.strip(), *hexes(style), round(ratio, 1)))

    shown = stage(job=JOB, log=KeptLog(io.StringIO(), 100), answer=Refused("it is too late"))
    shown.show(*WALK[name], steps=steps)
    assert not weak


def test_the_grounds_that_are_measured_are_there():
    async def steps(pilot):
        assert "! not done: it is too late" in "\n".join(text_of(pilot.app))

    stage(job=JOB, answer=Refused("it is too late")).show("b", steps=steps)
    stage(job=JOB, answer=Refused("it is too late")).show("c", "down", "enter", steps=steps)
