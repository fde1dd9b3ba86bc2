"""The screen of a master that runs in the same process: its log, and what becomes of it when the screen is left."""

from __future__ import annotations

import io
import os
import re
import socket

import msgspec
import pytest
from distsum.tui.dialogs import Ask, Help
from distsum.tui.jobs_screen import JobsScreen
from distsum.tui.log_lines import SHOWN, log_lines
from distsum.tui.log_screen import LogScreen

from distsum.cli.kept_log import KeptLog
from tests.screens import check_looks, settled, text_of
from tests.stage import Stage

LINES = (
    "2026-01-01T12:20:00.000Z INFO    ready",
    "2026-01-01T12:20:01.000Z WARNING amqp://h/v: the connection was lost; trying again (job 7f3a90c1d2e4)",
    "2026-01-01T12:20:02.000Z ERROR   the fleet is not held any more: node1: no route to host",
    "2026-01-01T12:20:03.000Z INFO    " + "a long line that is broken between words " * 4,
)


def kept(*lines, most=100):
    log = KeptLog(io.StringIO(), most)
    for line in lines or LINES:
        log.write(f"{line}\n")
    return log


def roles(lines):
    return [span.role for line in lines for span in line]


def test_the_log_looks_as_it_did():
    async def steps(pilot):
        for width, height in ((120, 36), (80, 24)):
            await pilot.resize_terminal(width, height)
            await settled(pilot.app, pilot)
            check_looks(f"service-log-{width}", text_of(pilot.app))

    assert isinstance(Stage(log=kept()).show("l", steps=steps).screen, LogScreen)


def test_new_lines_are_followed_and_a_filter_keeps_those_that_hold_a_text():
    log = kept(*(f"line {number}" for number in range(80)))
    stage = Stage(log=log)

    async def steps(pilot):
        assert "line 79" in "\n".join(text_of(pilot.app))
        log.write("line 80\n")
        await settled(pilot.app, pilot)
        assert "line 80" in "\n".join(text_of(pilot.app))
        await pilot.press("slash", *"LINE 7", "enter")
        await settled(pilot.app, pilot)
        shown = "\n".join(text_of(pilot.app))
        assert "Log ── 11 of 81" in shown
        assert "line 80" not in shown
        await pilot.press("escape")
        await settled(pilot.app, pilot)
        assert "Log ── 81" in "\n".join(text_of(pilot.app))
        await pilot.press("t", "question_mark")
        await settled(pilot.app, pilot)
        assert isinstance(pilot.app.screen, Help)
        assert pilot.app.theme == "light"
        await pilot.press("escape", "escape")

    assert isinstance(stage.show("w", "l", steps=steps).screen, type(Stage().show("w").screen))


def test_what_was_not_kept_or_not_shown_is_counted():
    log = kept(*map(str, range(7)), most=5)
    assert "Log ── 5, 2 earlier ones not kept" in Stage(log=log).show("l").text
    lines = log_lines([f"line {number}" for number in range(SHOWN + 3)], "", 80)
    assert lines[0][0].text == "3 earlier lines left out here"
    assert len(lines) == SHOWN + 1


def test_lines_stand_out_by_their_level_in_either_form():
    assert roles(log_lines(LINES[:3], "", 200)) == ["plain", "warn", "bad"]
    levels = ("info", "warning", "error", "debug")
    objects = [f'{{"time": "2026-01-01T12:20:00.000Z", "level": "{level}", "logger": "distsum"}}' for level in levels]
    assert roles(log_lines(objects, "", 200)) == ["plain", "warn", "bad", "dim"]


@pytest.mark.parametrize("size", [(120, 36), (40, 10), (1, 1)])
def test_hostile_lines_are_shown_as_text_at_any_size(size):
    hostile = ("[red]markup[/red]", "\x1b[31mescape\x1b]0;t\x07", "\u202ebidi\u2066", "x" * 4096, "漢字 \u200b\x9b31m")
    stage = Stage(log=kept(*hostile)).show("l", size=size)
    assert len(stage.lines) == size[1]
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u202a-\u202e\u2066-\u2069]", "".join(stage.lines))


@pytest.mark.parametrize("keys", [("q",), ("ctrl+c",), ("w", "q"), ("l", "q"), ("enter", "ctrl+q"), ("n", "ctrl+q")])
def test_leaving_asks_what_becomes_of_the_master(keys):
    stage = Stage(log=kept()).show(*keys)
    assert isinstance(stage.screen, Ask)
    assert stage.answer is None
    assert "The master runs in this process." in stage.text


@pytest.mark.parametrize(
    ("keys", "answer"),
    [(("enter",), None), (("escape",), None), (("down", "enter"), "leave"), (("end", "enter"), "stop")],
)
def test_the_answer_is_to_stay_to_leave_or_to_stop(keys, answer):
    stage = Stage(log=kept()).show("q", *keys)
    assert stage.answer == answer
    if answer is None:
        assert isinstance(stage.screen, JobsScreen)


def test_the_screen_is_gone_when_the_master_has_ended():
    assert Stage(log=kept(), master_ended=lambda: True).show().answer == "leave"


def test_it_is_told_while_the_master_waits_for_the_end_of_another():
    waits = "process 99 on head serves; the master in this one waits for its end"
    assert Stage(log=kept()).show().lines[0] == waits
    stage = Stage(log=kept())
    view = stage.viewer.service.view
    own = msgspec.structs.replace(view.master, pid=os.getpid(), host=socket.gethostname())
    stage.viewer.service.view = msgspec.structs.replace(view, master=own)
    assert waits not in stage.show().text
    assert waits not in Stage().show().text


def test_where_the_master_is_elsewhere_there_is_no_log():
    stage = Stage().show("l")
    assert isinstance(stage.screen, JobsScreen)
    assert " Log" not in stage.lines[-1]


def test_lines_that_were_kept_go_to_the_terminal_and_so_do_later_ones():
    stream = io.StringIO()
    log = KeptLog(stream, 3)
    log.write("1\n")
    log.write("2\n3\n")
    log.write("4\n")
    assert stream.getvalue() == ""
    assert (log.lines, log.count) == (["2", "3", "4"], 4)
    log.release()
    log.release()
    log.write("5\n")
    log.flush()
    assert stream.getvalue() == "(1 earlier line left out)\n2\n3\n4\n5\n"
