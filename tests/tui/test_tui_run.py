"""A run on a screen, as a person sees it: the installed command in a pseudo-terminal, and keys typed into it."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from distsum.actors.speculation import SpeculationSettings
from distsum.embedded import Stop, run
from distsum.errors import InterruptedRunError
from distsum.observe.history import History
from distsum.observe.player import Player
from distsum.observe.snapshot import BackupRule
from distsum.observe.states import DONE
from distsum.request import Options
from distsum.stores.local import LocalStore
from tests.command import (
    DEADLINE_SECONDS,
    SCRIPT,
    Terminal,
    alive,
    distsum,
    summary,
    wait_until,
    workers,
)
from tests.screenfault import WORDS as FAULT_WORDS
from tests.screenfault import ScreenFault
from tests.straggling import Hold

MORE_TASKS, ENDLESS = ("--tiles", "4"), ("--tiles", "30")
"""So that the run goes on when a key is typed, or a question answered, also on a busy machine."""


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Files whose mean takes a while with P = 5, and that mean."""
    folder = tmp_path_factory.mktemp("m") / "many"
    done = distsum("generate", str(folder), "--files", "1500", "--count", "300")
    assert done.returncode == 0, done.stderr
    summary("mean", str(folder), "-o", str(folder.parent / "expected.npy"), "--history", str(folder.parent / "history"))
    return folder, (folder.parent / "expected.npy").read_bytes()


def holds(terminal, text):
    return any(text in line for line in terminal.shown)


def on_screen(many, short_path, *options, columns=120, lines=36, env=None):
    os.symlink(many[0], short_path / "in")
    arguments = ("mean", "in", "-o", "o.npy", "-p", "5", "-w", "1", "--tui", *options)
    return Terminal(*arguments, cwd=short_path, columns=columns, lines=lines, env=env)


@pytest.mark.parametrize(("columns", "lines"), [(120, 36), (80, 24)])
def test_a_run_is_shown_to_its_end_and_summed_up_when_the_screen_is_left(many, short_path, columns, lines):
    with on_screen(many, short_path, columns=columns, lines=lines) as run:
        run.wait_until(lambda: holds(run, "DONE"), "the end of the run")
        run.wait_until(lambda: holds(run, "1 Tree"), "the tree")
        # A frame may arrive in parts, and its header first.
        whole = re.compile(r"P1 .* ([\d,]+)/\1(?!\d)")
        run.wait_until(lambda: any(map(whole.search, run.shown)), "a phase that is complete")
        run.type(b"q")
        assert run.finish() == 0
        assert holds(run, "mean of 1,500 files of 300 numbers")
        assert not run.cursor_hidden
    assert (short_path / "o.npy").read_bytes() == many[1]


def test_a_run_that_is_left_goes_on_with_its_progress_as_lines(many, short_path):
    with on_screen(many, short_path, *MORE_TASKS) as run:
        run.wait_until(lambda: holds(run, "RUNNING"), "the run")
        run.type(b"q")
        run.wait_until(lambda: holds(run, "The job runs in this process."), "the question")
        run.type(b"\x1b[B\r")
        assert run.finish() == 0
        assert holds(run, "mean of 1,500 files of 300 numbers")
    assert (short_path / "o.npy").read_bytes() == many[1]


@pytest.mark.parametrize("how", ["asked", "SIGTERM"])
def test_a_run_that_is_stopped_leaves_the_terminal_in_order_and_tells_how_to_go_on(many, short_path, how):
    with on_screen(many, short_path, *ENDLESS, columns=200) as run:
        run.wait_until(lambda: holds(run, "RUNNING"), "the run")
        pids = workers(run.process.pid)
        if how == "asked":
            run.type(b"q")
            run.wait_until(lambda: holds(run, "The job runs in this process."), "the question")
            run.type(b"\x1b[B\x1b[B\r")
        else:
            run.process.send_signal(signal.SIGTERM)
        assert run.finish() == 130
        assert holds(run, "the same command goes on from there")
        assert not run.cursor_hidden
        run.wait_until(lambda: not any(map(alive, pids)), "the end of its workers")
    done = distsum("mean", "in", "-o", "o.npy", "-p", "5", cwd=short_path)
    assert done.returncode == 0, done.stderr
    assert (short_path / "o.npy").read_bytes() == many[1]


def test_a_run_whose_terminal_has_vanished_is_stopped_as_any_other(many, short_path):
    with on_screen(many, short_path, *ENDLESS) as run:
        run.wait_until(lambda: holds(run, "RUNNING"), "the run")
        pids = workers(run.process.pid)
        run.vanish()
        assert run.process.wait(DEADLINE_SECONDS) == 130
        wait_until(lambda: not any(map(alive, pids)), "the end of its workers")


def test_a_screen_that_is_continued_without_having_been_stopped_begins_nothing_twice(many, short_path):
    with on_screen(many, short_path, *ENDLESS) as run:
        run.wait_until(lambda: holds(run, "RUNNING"), "the run")
        threads = f"/proc/{run.process.pid}/task"
        before = len(os.listdir(threads))
        for _ in range(3):
            run.process.send_signal(signal.SIGCONT)
            shown = run.bytes_shown
            run.wait_until(lambda shown=shown: run.bytes_shown > shown + 2000, "what it draws anew")
        run.wait_until(lambda: len(os.listdir(threads)) <= before, "the end of threads that it had")
        run.type(b"?")
        run.wait_until(lambda: holds(run, "Help"), "that it heeds keys")


def test_a_run_that_is_cancelled_on_its_screen_leaves_nothing_and_says_so(many, short_path):
    with on_screen(many, short_path, *ENDLESS, columns=200) as run:
        run.wait_until(lambda: holds(run, "c Cancel"), "what may be asked")
        pids = workers(run.process.pid)
        run.type(b"c")
        run.wait_until(lambda: holds(run, "Cancel the job?"), "the question")
        run.type(b"\x1b[B\r")
        run.wait_until(lambda: holds(run, "CANCELLED"), "the end")
        run.wait_until(lambda: not holds(run, "c Cancel"), "no more to be asked")
        run.type(b"q")
        assert run.finish() == 1
        assert holds(run, "the job was cancelled, and what it had stored is removed")
        run.wait_until(lambda: not any(map(alive, pids)), "the end of its workers")
    assert [path.name for path in short_path.iterdir()] == ["in"]


def test_a_run_in_this_process_gives_a_backup_when_asked_and_none_when_told(short_path):
    """A worker is held up at one task; nobody copies that, until somebody says so."""
    assert distsum("generate", "in", "--files", "60", "--count", "300", cwd=short_path).returncode == 0
    assert distsum("mean", "in", "-o", "expected.npy", cwd=short_path).returncode == 0
    held = sorted((short_path / "in").iterdir())[20]
    hold = Hold(short_path / "plant", held.name, first=True)
    arguments = ("mean", "in", "-o", "o.npy", "-p", "5", "-w", "2", "--tui", "--speculation", "min_seconds=1000")
    with Terminal(*arguments, cwd=short_path, env=hold.environment, columns=200, lines=40) as run:
        run.wait_until(lambda: holds(run, "11/12"), "the end of all other tasks")
        run.type(b"b")
        run.wait_until(lambda: holds(run, "get no more backups"), "the answer")
        run.wait_until(lambda: holds(run, "backups OFF"), "what became of it")
        assert not holds(run, "Back up now"), "that task is done"
        run.type(b"\x1b[C" * 4)
        run.wait_until(lambda: holds(run, "Back up now"), "the key for a task that runs")
        run.type(b"s")
        run.wait_until(lambda: holds(run, "phase 1 task 4 gets a backup on"), "the backup")
        run.wait_until(lambda: holds(run, "DONE"), "the end of the run")
        run.type(b"q")
        assert run.finish() == 0
    assert (short_path / "o.npy").read_bytes() == (short_path / "expected.npy").read_bytes()


def test_a_run_that_fails_says_why_on_the_screen_and_after_it(short_path):
    done = distsum("generate", "in", "--files", "30", "--count", "300", cwd=short_path)
    assert done.returncode == 0
    bad = sorted((short_path / "in").iterdir())[20]
    content = bad.read_bytes()
    bad.write_bytes(b"no npy" + content[6:])
    with Terminal("mean", "in", "-o", "o.npy", "-p", "5", "-w", "2", "--tui", cwd=short_path, columns=200) as run:
        run.wait_until(lambda: holds(run, "FAILED"), "the end of the run")
        run.wait_until(lambda: holds(run, bad.name), "the reason")
        run.type(b"q")
        assert run.finish() == 1
        assert holds(run, bad.name)


def test_a_run_goes_on_when_its_screen_fails_and_ends_as_it_would_have(many, short_path):
    fault = ScreenFault(short_path / "plant")
    with on_screen(many, short_path, *MORE_TASKS, env=fault.environment, columns=200) as run:
        run.wait_until(lambda: holds(run, "RUNNING"), "the run")
        fault.strike(run)
        words = f"distsum: {FAULT_WORDS}; the run goes on here, and Ctrl-C stops it"
        run.wait_until(lambda: holds(run, words), "the words")
        assert run.finish() == 0
        assert holds(run, "mean of 1,500 files of 300 numbers")
        assert not any("Traceback" in line or "locals" in line for line in run.shown)
        assert not run.cursor_hidden
    assert (short_path / "o.npy").read_bytes() == many[1]


def test_a_run_whose_screen_has_failed_is_stopped_as_any_other(many, short_path):
    fault = ScreenFault(short_path / "plant")
    with on_screen(many, short_path, *ENDLESS, env=fault.environment, columns=200) as run:
        run.wait_until(lambda: holds(run, "RUNNING"), "the run")
        fault.strike(run)
        run.wait_until(lambda: holds(run, "the run goes on here, and Ctrl-C stops it"), "the words")
        run.wait_until(lambda: holds(run, "phase 1"), "its progress")
        run.type(b"\x03")
        assert run.finish() == 130
        assert holds(run, "the same command goes on from there")


def test_a_replay_whose_screen_fails_says_so_and_does_not_succeed(many, short_path):
    fault = ScreenFault(short_path / "plant")
    with Terminal(
        "replay", str(many[0].parent / "history"), cwd=short_path, columns=200, lines=36, env=fault.environment
    ) as run:
        run.wait_until(lambda: holds(run, "1 Tree"), "the screen")
        fault.strike(run)
        assert run.finish() == 1
        assert run.shown[-1].startswith("distsum: the screen has failed")
        assert not run.cursor_hidden


def test_a_run_that_cannot_begin_leaves_the_screen_by_itself(many, short_path):
    (short_path / "o.npy").touch()
    with on_screen(many, short_path) as run:
        assert run.finish() == 2
        assert holds(run, "use --force to replace it")
        assert not run.cursor_hidden


def test_a_stored_history_is_played_from_the_command_line(many, short_path):
    history = str(many[0].parent / "history")
    with Terminal("replay", history, "--speed", "100", cwd=short_path, columns=120, lines=36) as run:
        run.wait_until(lambda: holds(run, "DONE"), "the end of the history")
        run.wait_until(lambda: holds(run, "1,500 files"), "what it is of")
        run.type(b"q")
        assert run.finish() == 0


def test_a_terminal_that_takes_nothing_is_sent_no_more_frames_so_that_keys_are_answered_soon(many, short_path):
    with on_screen(many, short_path, *ENDLESS) as run:
        run.wait_until(lambda: holds(run, "RUNNING"), "the run")
        before = run.bytes_shown
        time.sleep(3)  # the time in which frames would pile up
        run.process.send_signal(signal.SIGTERM)
        assert run.finish() == 130
        # Thirty frames that wait make 58,000 bytes, the one or two that may do so up to 31,000.
        assert run.bytes_shown - before < 45_000, "that is many frames"


def demo_on_screen(short_path):
    return Terminal("demo", "--tui", cwd=short_path, env={"TMPDIR": str(short_path)}, columns=120, lines=36)


def test_the_demo_is_shown_then_verified_and_leaves_nothing(short_path):
    with demo_on_screen(short_path) as run:
        run.wait_until(lambda: holds(run, "DONE"), "the end of the run")
        run.wait_until(lambda: holds(run, "mean F=625"), "what it is of")
        assert len(list(short_path.iterdir())) == 1
        run.type(b"q")
        assert run.finish() == 0
        assert holds(run, "within the bound")
        assert holds(run, "the folder is removed again")
        assert not run.cursor_hidden
    assert list(short_path.iterdir()) == []


def test_a_demo_that_is_ended_on_its_screen_leaves_nothing(short_path):
    with demo_on_screen(short_path) as run:
        run.wait_until(lambda: holds(run, "1 Tree"), "the screen")
        run.process.send_signal(signal.SIGTERM)
        assert run.finish() in {0, 130}, "0 where its result was there already"
        assert not run.cursor_hidden
    assert list(short_path.iterdir()) == []


@pytest.mark.parametrize("early", [True, False])
def test_a_run_ends_when_another_thread_asks_it_to_even_before_it_began(many, short_path, early):
    inputs = sorted(os.fsencode(path) for path in many[0].iterdir())
    stop = Stop()
    views = []

    def on_view(view, _detail_of):
        views.append(view)
        stop.request()

    if early:
        stop.request()
    with pytest.raises(InterruptedRunError, match="goes on from there"):
        run("mean", inputs, os.fsencode(short_path / "o.npy"), Options(partition=5), on_view=on_view, stop=stop)
    assert len(views) == 0 if early else views


def test_a_run_tells_of_all_its_tasks_and_a_rerun_of_those_that_were_stored(many, short_path):
    inputs = sorted(os.fsencode(path) for path in many[0].iterdir())[:60]
    output = os.fsencode(short_path / "o.npy")
    options = Options(partition=5, tiles=1, keep_partials=True, work_dir=str(short_path / "work"), force=True)
    views = []
    run("mean", inputs, output, options, on_view=lambda view, _detail_of: views.append(view))
    assert [phase.counts()[DONE] for phase in views[-1].states] == [12, 3, 1]
    assert views[-1].snapshot.finished
    again = []
    run("mean", inputs, output, options, on_view=lambda view, _detail_of: again.append(view))
    assert [phase.counts()[DONE] for phase in again[0].states[:2]] == [12, 3], "from the beginning"


@pytest.mark.parametrize(("settings", "rule"), [
    (None, BackupRule(policy="guarded", quantile=0.75, multiplier=1.2, slow=2.0)),
    (SpeculationSettings(quantile=0.5), BackupRule(policy="guarded", quantile=0.5, multiplier=1.2, slow=2.0)),
    (SpeculationSettings(policy="none"), None),
])  # fmt: skip
def test_a_run_and_its_history_tell_the_same_of_its_inputs_and_of_the_rule_for_backups(
    settings, rule, many, short_path
):
    inputs = sorted(os.fsencode(path) for path in many[0].iterdir())[:20]
    history, output = os.fsencode(short_path / "history"), os.fsencode(short_path / "o.npy")
    views = []
    run("mean", inputs, output, Options(partition=5, workers=1), speculation=settings, history=history,
        on_view=lambda view, _detail_of: views.append(view))  # fmt: skip
    reader = LocalStore().open(history)
    assert reader is not None
    with reader:
        played = Player(History(reader)).view()
    assert views[-1].terms == played.terms
    assert (played.terms.count, played.terms.dtype, played.terms.rule) == (300, "<f8", rule)
    assert (views[-1].tree, played.tree.partition) == (played.tree, 5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mean", "x.npy", "-o", "o.npy", "--tui"), "--tui draws on a terminal"),
        (("replay", "x"), "replay draws on a terminal"),
        (("mean", "x.npy", "-o", "o.npy", "--tui", "--broker", "amqp://h/v"), "leave it or --broker and --fleet out"),
        (("replay", "x", "--speed", "0"), "--speed 0"),
    ],
)
def test_what_cannot_be_shown_is_said_before_anything_runs(arguments, words, short_path):
    done = distsum(*arguments, cwd=short_path, command=[SCRIPT])
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(short_path.iterdir())
