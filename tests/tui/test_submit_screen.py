"""The form for a new job: written, planned and submitted by keys, with real files and a service that a test plays."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time

import numpy as np
import pytest
from distsum.tui import submit_screen
from distsum.tui.dialogs import Ask, Help
from distsum.tui.form import Form, OneOf
from distsum.tui.jobs_screen import JobsScreen
from distsum.tui.served_job_screen import ServedJobScreen
from distsum.tui.submit_screen import SubmitScreen
from textual import events

from distsum import __version__
from distsum.cli.plan import report_lines
from distsum.cli.wanted import Wanted
from distsum.errors import UnreachableError
from distsum.messages import PROTOCOL
from distsum.preparation import plan
from distsum.request import Options
from distsum.service.messages import Describe, Description, Done, ListWorkers, Refused, Submit, Workers
from distsum.service.records import Records
from distsum.stores.routing import RoutingStore
from tests.following import worker
from tests.screens import UNSEEN, WIDE, check_looks, check_widths, settled, text_of
from tests.stage import Stage

FILES, COUNT = 30, 16


@pytest.fixture
def folder(short_path, monkeypatch):
    """A folder with inputs and a work folder, that names start from."""
    (short_path / "in").mkdir()
    (short_path / "work").mkdir()
    for index in range(FILES):
        np.save(short_path / "in" / f"{index:03}.npy", np.full(COUNT, float(index)))
    monkeypatch.chdir(short_path)
    for name in [name for name in os.environ if name.startswith("DISTSUM_")]:
        monkeypatch.delenv(name)
    return short_path


class Master:
    """What a master answers; ``hold`` makes it wait before it does.

    Attributes:
        hold: Set, so that it answers at once.
        asked: Set when it was asked something.
        submitted: The requests to do a job.
    """

    def __init__(self, folder, submit=None):
        self.hold, self.asked = threading.Event(), threading.Event()
        self.hold.set()
        self.submitted = []
        self._work = str(folder / "work").encode()
        self._submit = Done() if submit is None else submit

    def __call__(self, request):
        self.asked.set()
        assert self.hold.wait(60.0)
        match request:
            case Describe():
                return Description(__version__, PROTOCOL, self._work)
            case ListWorkers():
                return Workers((worker("a-0"), worker("a-1", "idle")))
            case Submit():
                self.submitted.append(request)
                return self._submit
        raise AssertionError(request)


class Writing:
    """The form, and somebody who writes into it."""

    def __init__(self, folder, answer=None, **more):
        self.master = Master(folder) if answer is None else answer
        self.stage = Stage(answer=self.master, store=RoutingStore(), **more)
        self.app = self.stage.app

    def show(self, *keys, steps=None, size=(120, 36), **fields):
        async def run(pilot):
            self.pilot = pilot
            self.write(**fields)
            await self.press(*keys)
            if steps is not None:
                await steps(self)

        self.stage.show("n", steps=run, size=size)
        return self

    @property
    def form(self):
        return self.app.screen.query_one(Form)

    def write(self, **fields):
        for name, text in fields.items():
            self.form.entries[name].editor.value = text

    async def press(self, *keys):
        if keys:
            await self.pilot.press(*keys)
            await self.pilot.pause()

    async def until(self, condition, what):
        deadline = time.monotonic() + 30.0
        while not condition():
            assert time.monotonic() < deadline, f"{what}\n{self.text}"
            await asyncio.sleep(0.01)
        await self.pilot.pause()

    async def answered(self):
        """Press enter, and wait until what comes of that is there."""
        await self.pilot.press("enter")
        await self.until(lambda: not self.app.screen._doing, "an answer")

    async def planned(self):
        await self.answered()
        assert self.app.screen._planned, self.text

    def flaw(self, name):
        """What stands below a field."""
        return str(self.form.entries[name]._flaw.render()) if self.form.entries[name]._flaw.display else ""

    @property
    def text(self):
        return "\n".join(text_of(self.app))

    @property
    def command(self):
        (line,) = (line for line in text_of(self.app) if "$ distsum" in line)
        return line.strip()


GOOD = {"inputs": "in/*.npy", "output": "mean.npy"}


async def planned(form):
    await form.planned()


async def answered(form):
    await form.answered()


LOOKS = {
    "empty": ({}, None),
    "planned": ({**GOOD, "partition": "5", "priority": "3"}, planned),
    "wrong": ({**GOOD, "partition": "many", "output": "mean.png", "force": "yes"}, answered),
}


@pytest.mark.parametrize("size", [(40, 10), (60, 20)])
def test_a_form_that_has_no_room_for_all_fields_tells_how_many_are_out_of_sight(folder, size):
    async def steps(form):
        for fields in (0, 12):  # where one writes: at the beginning, and at the end
            form.form.write_into(list(form.form.entries)[fields])
            await settled(form.app, form.pilot)
            labels = [entry._label for entry in form.form.entries.values()]
            lines = [line.strip("│ ") for line in text_of(form.app)]
            out = sum(not any(line.startswith(f"{label} ") for line in lines) for label in labels)
            assert out > 2
            words = f"{out} {'above' if fields else 'more'}" if size == (40, 10) else f"{out} more "
            assert words in text_of(form.app)[0 if size == (40, 10) else 11], words

    Writing(folder).show(steps=steps, size=size)


@pytest.mark.parametrize("name", LOOKS)
def test_it_looks_as_it_did(folder, name):
    fields, look = LOOKS[name]

    async def steps(form):
        if look is not None:
            await look(form)
        for width, height in ((120, 36), (80, 24)):
            await form.pilot.resize_terminal(width, height)
            await settled(form.app, form.pilot)
            lines = text_of(form.app)
            assert len(lines) == height
            check_looks(f"submit-{name}-{width}", [line.replace(str(folder), "/lab") for line in lines])

    Writing(folder).show(steps=steps, **fields)


def test_any_size_can_be_used_and_none_overflows(folder):
    async def steps(form):
        for width, height in ((300, 100), (1, 1), (40, 10)):
            await form.pilot.resize_terminal(width, height)
            await settled(form.app, form.pilot)
            lines = text_of(form.app)
            assert len(lines) == height
            assert max(map(len, lines)) <= width
        await form.planned()
        assert "in/*.npy" in form.text, "what is written is seen"
        assert "30 npy files" in form.text
        assert "$ distsum submit" in form.text
        assert "Submit" in form.text

    Writing(folder).show(steps=steps, **GOOD)


# From a form to a job -------------------------------------------------------------------------------------------------


def test_enter_shows_the_plan_in_the_words_of_distsum_plan_and_submits_nothing(folder):
    async def steps(form):
        await form.planned()
        names = [f"in/{index:03}.npy".encode() for index in range(FILES)]
        options = Options(workers=2, partition=5, work_dir=str(folder / "work"))  # 2, as many as the service has
        for line in report_lines(plan(names, "mean", options, b"mean.npy"), 116):
            assert line in form.text
        assert form.master.submitted == []

    Writing(folder).show(steps=steps, partition="5", **GOOD)


def test_enter_again_submits_what_was_planned_and_shows_the_job(folder):
    async def steps(form):
        await form.planned()
        await form.press("enter")
        await form.until(lambda: isinstance(form.app.screen, ServedJobScreen), "the job")
        (request,) = form.master.submitted
        assert form.stage.viewer.followed == [request.job]
        assert request.priority == 3
        record = Records(RoutingStore(), str(folder / "work").encode()).load(request.job).record
        assert record.output == str(folder / "the sum.npy").encode()
        assert (record.spec.reduction, record.spec.files, record.plan.partition) == ("sum", FILES, 5)
        assert (record.spec.output_dtype, record.replace) == ("<f4", False)
        await form.press("escape")
        assert isinstance(form.app.screen, JobsScreen)
        await form.press("n")
        assert form.app.screen.wanted.inputs == "in/*.npy", "the next one is like it"
        assert form.app.screen.wanted.output == "", "but for its result"

    Writing(folder).show(
        steps=steps,
        reduction="sum",
        inputs="in/*.npy",
        output="'the sum.npy'",
        partition="5",
        priority="3",
        out_dtype="f4",
    )


def test_what_is_changed_after_the_plan_is_planned_again_before_it_is_submitted(folder):
    async def steps(form):
        await form.planned()
        form.write(partition="25")
        await form.pilot.pause()
        assert "of what was there before" in form.text
        await form.planned()
        assert form.master.submitted == []
        form.write(partition="5")
        await form.pilot.pause()
        form.write(partition="25")
        await form.pilot.pause()
        assert "Enter submits it" in form.text, "it is what it was"

    Writing(folder).show(steps=steps, partition="5", **GOOD)


def test_a_result_is_replaced_only_when_somebody_says_so_twice(folder):
    (folder / "mean.npy").touch()

    async def steps(form):
        await form.answered()
        assert "exists; use --force to replace it" in form.flaw("output")
        form.write(force="yes")
        await form.planned()
        await form.press("enter")
        assert isinstance(form.app.screen, Ask)
        await form.press("enter")
        assert isinstance(form.app.screen, SubmitScreen)
        assert form.master.submitted == []
        await form.press("enter", "down", "enter")
        await form.until(lambda: isinstance(form.app.screen, ServedJobScreen), "the job")

    Writing(folder).show(steps=steps, **GOOD)


def test_the_command_that_would_do_the_same_follows_what_is_written(folder):
    async def steps(form):
        assert form.command == "$ distsum submit mean INPUT... -o OUT"
        await form.press(*"ab")
        assert form.command == "$ distsum submit mean ab -o OUT"
        form.write(inputs="'a b' c*", output="-x.npy", priority="-2", partition="5", format="raw", force="yes")
        await form.pilot.pause()
        assert form.command == (
            "$ distsum submit mean 'a b' 'c*' --output=-x.npy --partition 5 --format raw --priority=-2 --force"
        )

    Writing(folder).show(steps=steps)


# What is wrong --------------------------------------------------------------------------------------------------------


WRONG = [
    ("partition", "7", "partition 7 is not a power of the fan-in 5; the nearest are 5 and 25"),
    ("partition", "many", "! must be auto or a whole number of at least 1"),
    ("fan_in", "1", "! must be a whole number of at least 2"),
    ("memory", "1MiB", "--memory 1.0 MiB is too little: a worker needs at least"),
    ("memory", "much", "! must be a size"),
    ("dtype", "f9", "! must be such as f8"),
    ("out_dtype", "i2", "--out-dtype <i2 cannot hold"),
    ("priority", "high", "! must be a whole number"),
    ("priority", "9" * 30, "must be a whole number from -1,000,000,000 to 1,000,000,000"),
    ("inputs", "", "no inputs are named"),
    ("inputs", "nothere.npy", "nothere.npy: no such file or folder"),
    ("inputs", "in/*.txt", "in/*.txt: this pattern matches no file"),
    ("inputs", "'in/*.npy", "a quote is opened and not closed"),
    ("inputs", "bad.npy in/000.npy", "bad.npy: "),
    ("output", "", "it is not said where the result is to be written"),
    ("output", "nowhere/mean.npy", "there is no folder"),
    ("output", "a b.npy", "2 names; quotes go around one that holds blanks"),
    ("output", "'a b.npy", "a quote is opened and not closed"),
    ("output", "in/000.npy", "is one of the inputs"),
    ("output", "mean.png", "the suffix tells no format"),
]


def test_what_is_wrong_is_told_at_the_field_at_fault_and_keys_write_there(folder):
    (folder / "bad.npy").write_bytes(b"no array")
    usual = {"partition": "", "fan_in": "", "memory": "", "dtype": "", "out_dtype": "", "priority": "0", **GOOD}

    async def steps(form):
        for field, text, words in WRONG:
            form.write(**{**usual, field: text})
            form.form.entries["reduction"].editor.focus()
            await form.answered()
            assert form.flaw(field).startswith("! "), (field, text)
            assert words in form.flaw(field)
            assert not [name for name in form.form.entries if name != field and form.flaw(name)]
            assert form.form.entries[field].editor.has_focus
        assert form.master.submitted == []

    Writing(folder).show(steps=steps, size=(120, 60))


def test_what_is_wrong_is_forgotten_when_it_is_mended(folder):
    async def steps(form):
        await form.pilot.pause()
        assert "must be auto" in form.flaw("partition"), "without any key"
        form.write(partition="5", output="nowhere/mean.npy")
        await form.answered()
        assert form.flaw("partition") == ""
        assert form.flaw("output")
        form.write(output="mean.npy")
        await form.pilot.pause()
        assert form.flaw("output") == ""
        await form.planned()

    Writing(folder).show(steps=steps, **{**GOOD, "partition": "x"})


ANSWERS = [
    (UnreachableError("amqp://h/v: no master answers"), "amqp://h/v: no master answers"),
    (Description("0.0.1", PROTOCOL, b"/"), "the service is distsum 0.0.1, and this is"),
    (Description(__version__, PROTOCOL, b"/not/here"), "keeps its work in /not/here, which is not on this machine"),
    (Refused("[b]no[/b] \x1b[31m"), "[b]no[/b] \\x1b[31m"),
]


def test_what_no_field_is_to_be_blamed_for_is_told_in_the_plan_s_place(folder):
    async def steps(form):
        for answer, words in ANSWERS:
            form.stage.asked.answer = answer
            await form.answered()
            assert words in form.text
            assert not [name for name in form.form.entries if form.flaw(name)]

    Writing(folder).show(steps=steps, **GOOD)


def test_why_a_job_is_not_taken_is_told_and_what_is_written_stays(folder):
    async def steps(form):
        await form.planned()
        await form.answered()
        assert "! the store is full" in form.text
        assert form.app.screen.wanted.inputs == "in/*.npy"

    form = Writing(folder, answer=Master(folder, submit=Refused("the store is full")))
    form.show(steps=steps, **GOOD)


# What takes long ------------------------------------------------------------------------------------------------------


def test_keys_are_answered_while_it_plans_and_escape_stops_that(folder):
    async def steps(form):
        form.master.hold.clear()
        await form.press("enter")
        await form.until(form.master.asked.is_set, "that the master is asked")
        assert "looking at the inputs, 0.0s; escape stops it" in form.text
        assert "Stop" in text_of(form.app)[-1]
        await form.press("enter", *"xy")
        assert form.app.screen.wanted.inputs == "xyin/*.npy"
        await form.press("escape")
        assert isinstance(form.app.screen, SubmitScreen)
        assert "Enter shows what would run" in form.text
        form.master.hold.set()
        form.write(inputs="in/*.npy")
        await form.planned()

    Writing(folder).show("home", steps=steps, **GOOD)


def test_a_plan_that_takes_too_long_is_given_up_and_says_so(folder, monkeypatch):
    monkeypatch.setattr(submit_screen, "PLAN_SECONDS", 0.05)
    form = Writing(folder)

    async def steps(_):
        form.master.hold.clear()
        await form.answered()
        assert "! no plan within 0 s; `distsum plan` takes the time" in form.text
        form.master.hold.set()

    form.show(steps=steps, **GOOD)


def test_a_job_that_is_stopped_before_it_is_handed_over_is_not_submitted(folder):
    async def steps(form):
        await form.planned()
        form.master.asked.clear()
        form.master.hold.clear()
        await form.press("enter")
        await form.until(form.master.asked.is_set, "that the master is asked")
        assert "handing it over" in form.text
        await form.press("escape")
        assert "stopping" in form.text
        form.master.hold.set()
        await form.until(lambda: not form.app.screen._doing, "the end")
        assert form.master.submitted == []
        assert "nothing is submitted" in form.text
        assert list((folder / "work").iterdir()) == []

    Writing(folder).show(steps=steps, **GOOD)


def test_escape_goes_back_and_what_was_written_is_there_the_next_time(folder):
    async def steps(form):
        await form.press("escape")
        assert isinstance(form.app.screen, JobsScreen)
        assert form.master.submitted == []
        await form.press("n")
        assert form.app.screen.wanted == Wanted(inputs="in/*.npy", output="mean.npy", options={"format": "raw"})

    Writing(folder).show(steps=steps, format="raw", **GOOD)


def test_who_only_looks_is_offered_no_form(folder):
    stage = Stage(read_only=True, store=RoutingStore()).show("n")
    assert isinstance(stage.screen, JobsScreen)
    assert "New job" not in stage.lines[-1]
    assert "New job" in Stage().show().lines[-1]


# Keys and the mouse ---------------------------------------------------------------------------------------------------


def focused(form):
    return next((name for name, entry in form.form.entries.items() if entry.editor.has_focus), None)


WAYS = [
    ("down", "output"), ("up", "inputs"), ("up", "priority"), ("up", "reduction"), ("up", "force"), ("tab", None),
    ("shift+tab", "force"), ("down", "reduction"), ("tab", "priority"), ("tab", "inputs"), ("shift+tab", "priority"),
]  # fmt: skip


def test_fields_are_gone_through_with_arrows_and_tab(folder):
    async def steps(form):
        assert focused(form) == "inputs"
        for key, field in WAYS:
            await form.pilot.press(key)
            assert focused(form) == field

    Writing(folder).show(steps=steps)


def test_arrows_space_and_a_click_choose_one_of_some_words(folder):
    async def steps(form):
        await form.press("up", "up")
        for key, word in (("right", "sum"), ("space", "min"), ("left", "sum"), ("left", "mean"), ("left", "max")):
            await form.press(key)
            assert form.app.screen.wanted.reduction == word
            assert f"submit {word}" in form.command
        await form.pilot.click(OneOf)
        await form.pilot.pause()
        assert form.app.screen.wanted.reduction == "mean"

    Writing(folder).show(steps=steps)


def test_keys_that_are_typed_ahead_go_where_they_are_meant_to(folder):
    async def steps(form):
        await form.pilot.press(*"ab", "down", *"cd", "tab", *"25", "up", "up", "x")
        await form.pilot.pause()
        wanted = form.app.screen.wanted
        assert (wanted.inputs, wanted.output, wanted.options) == ("abx", "cd", {"partition": "25"})
        form.write(partition="", **GOOD)
        form.form.write_into("partition")
        for key in ("5", "enter"):
            form.app.simulate_key(key)
        await form.until(lambda: form.app.screen._report is not None and not form.app.screen._doing, "a plan")
        assert form.app.screen._planned, "with what was typed last"
        form.form.write_into("priority")
        for key in ("3", "enter"):
            form.app.simulate_key(key)
        await form.until(lambda: form.app.screen._report[0].priority == "03", "another plan")
        assert form.master.submitted == []

    Writing(folder).show(steps=steps)


def test_a_long_command_has_the_lines_that_it_needs_and_no_more_than_three(folder):
    async def steps(form):
        form.write(inputs=" ".join(f"s3://lab/run{number}" for number in range(12)))
        await settled(form.app, form.pilot)
        at = next(place for place, line in enumerate(text_of(form.app)) if "$ distsum" in line)
        assert "s3://lab/run11 -o OUT" in text_of(form.app)[at + 1]
        assert "Plan" in text_of(form.app)[at + 2]
        form.write(inputs="x" * 4096)
        await settled(form.app, form.pilot)
        assert " more" in text_of(form.app)[-2]

    Writing(folder).show(steps=steps)


def test_all_lines_that_are_pasted_are_taken(folder):
    async def steps(form):
        form.form.entries["inputs"].editor.post_message(events.Paste("a.npy\nb.npy\n"))
        await form.pilot.pause()
        assert form.app.screen.wanted.inputs == "a.npy b.npy"

    Writing(folder).show(steps=steps)


def test_the_help_and_the_palette_name_what_keys_do(folder):
    async def steps(form):
        offered = {each.title for each in form.app.get_system_commands(form.app.screen)}
        assert {"Plan", "Back", "Leave", "Help"} <= offered
        assert "Submit" not in offered, "there is no plan yet"
        await form.press("f1")
        assert isinstance(form.app.screen, Help)
        for words in ("Plan", "Back", "Leave", "Next field"):
            assert re.search(rf"\S  +{words} ", form.text)

    Writing(folder).show(steps=steps, size=(120, 60))


# What comes from outside ----------------------------------------------------------------------------------------------

HOSTILE = (
    "[red]markup[/red]",
    "[@click=app.quit]click[/]",
    "\x1b[31mescape\x1b]0;title\x07",
    "\u202ebidi\u2066",
    "\x9b31m\x85",
    "x" * 4096,
    "wide 漢字 \u200b\u0301",
    *WIDE[1:4],
    "$(reboot); `x` 'y",
)


@pytest.mark.parametrize(("size", "texts"), [((120, 36), HOSTILE), ((40, 10), HOSTILE[:3])], ids=["wide", "tiny"])
def test_hostile_texts_in_fields_and_answers_are_shown_as_text(folder, size, texts):
    async def steps(form):
        for text in texts:
            form.stage.asked.answer = Refused(text)
            for fields in ({"inputs": text}, {"output": text, "partition": text}, {**GOOD, "partition": ""}):
                form.write(**fields)
                await form.answered()
                lines = text_of(form.app)
                assert not re.search(UNSEEN, "".join(lines))
                assert len(lines) == size[1]
                check_widths(form.app)
                assert isinstance(form.app.screen, SubmitScreen)
            assert not text.startswith("[") or size[0] == 40 or text in form.text, "markup is no markup here"

    form = Writing(folder).show(steps=steps, size=size, **GOOD)
    assert form.stage.answer is None


def test_characters_that_would_disturb_the_terminal_are_left_out_which_is_told(folder):
    async def steps(form):
        form.write(inputs="a\x1b[31mb")
        await form.pilot.pause()
        assert form.app.screen.wanted.inputs == "a[31mb"
        assert "are left out" in form.flaw("inputs")

    Writing(folder).show(steps=steps)
