"""Ctrl-Z on a screen: a shell has the terminal back as it was, and gives it again; where there is none, it says so."""

from __future__ import annotations

import os
import shutil
import signal
import termios

from tests.command import COMMAND, Terminal, distsum
from tests.tui.test_tui_run import ENDLESS, holds, many

__all__ = ["many"]  # a fixture

SCRIPT = 'set -m; "$@"; echo "stopped: $?"; read word; fg >/dev/null; echo "ended: $?"'
STOPPED = 128 + 20
"""What a shell tells of a command that has been stopped by Ctrl-Z."""


def state(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[0]


def shell(missing_service, many, short_path, *options):
    bash = shutil.which("bash") or missing_service("there is no bash; install it with `apt-get install bash`")
    os.symlink(many[0], short_path / "in")
    command = [bash, "-c", SCRIPT, "bash", *COMMAND, "mean", "in", "-o", "o.npy", "-p", "5", "-w", "1", "--tui"]
    return Terminal(*options, command=command, cwd=short_path, columns=120, lines=36)


def echoes(terminal):
    return bool(termios.tcgetattr(terminal._master)[3] & termios.ECHO)


def run_of(terminal):
    """Return the process that the shell has begun."""
    with open(f"/proc/{terminal.process.pid}/task/{terminal.process.pid}/children", encoding="ascii") as file:
        return int(file.read())


def test_a_screen_that_is_suspended_gives_the_terminal_back_and_goes_on_where_it_was(many, short_path, missing_service):
    with shell(missing_service, many, short_path, *ENDLESS) as run:
        run.wait_until(lambda: holds(run, "RUNNING"), "the run")
        main = run_of(run)
        assert not echoes(run)
        run.type(b"\x1a")
        run.wait_until(lambda: holds(run, f"stopped: {STOPPED}"), "the shell")
        assert not run.cursor_hidden
        assert echoes(run)
        run.wait_until(lambda: state(main) == "T", "that it stands still")
        run.type(b"\r")
        run.wait_until(lambda: run.cursor_hidden and holds(run, "RUNNING"), "the run again")
        assert not echoes(run)
        assert state(main) != "T"
        run.type(b"?")
        run.wait_until(lambda: holds(run, "Suspend"), "that it heeds keys")
        run.type(b"\x1b")
        run.wait_until(lambda: not holds(run, "Suspend"), "that the help is closed")
        run.type(b"q")
        run.wait_until(lambda: holds(run, "The job runs in this process."), "the question")
        run.type(b"\x1b[B\x1b[B\r")
        run.wait_until(lambda: holds(run, "ended: 130"), "the end")
        assert not run.cursor_hidden
        assert not holds(run, "Traceback")
    done = distsum("mean", "in", "-o", "o.npy", "-p", "5", cwd=short_path)
    assert done.returncode == 0, done.stderr
    assert (short_path / "o.npy").read_bytes() == many[1]


def test_a_run_whose_screen_was_left_is_suspended_as_any_other_and_draws_nothing_anew(
    many, short_path, missing_service
):
    with shell(missing_service, many, short_path, *ENDLESS) as run:
        run.wait_until(lambda: holds(run, "RUNNING"), "the run")
        run.type(b"q")
        run.wait_until(lambda: holds(run, "The job runs in this process."), "the question")
        run.type(b"\x1b[B\r")
        run.wait_until(lambda: holds(run, "ETA") and not holds(run, "RUNNING") and echoes(run), "its progress as lines")
        run.type(b"\x1a")
        run.wait_until(lambda: holds(run, f"stopped: {STOPPED}"), "the shell")
        run.type(b"\r")
        run.wait_until(lambda: state(run_of(run)) != "T", "that it goes on")
        frames = len(run.frames)
        run.wait_until(lambda: len(run.frames) > frames + 3, "that it tells its progress")
        assert not any("1 Tree" in line for frame in run.frames[frames:] for line in frame)
        run.type(b"\x03")
        run.wait_until(lambda: holds(run, "ended: 130"), "the end")
        assert holds(run, "tasks are stored in"), "it is ended as any other"
        assert not holds(run, "Traceback")


def test_where_no_shell_could_have_it_go_on_a_screen_is_not_suspended_and_says_so(many, short_path):
    os.symlink(many[0], short_path / "in")
    words = ("mean", "in", "-o", "o.npy", "-p", "5", "-w", "1", "--tui", *ENDLESS)
    with Terminal(*words, cwd=short_path, columns=120, lines=36) as run:
        run.wait_until(lambda: holds(run, "RUNNING"), "the run")
        for _ in range(2):
            run.type(b"\x1a")
            run.wait_until(lambda: holds(run, "no shell is here"), "why not")
            # Were it still there at the second time, nobody could see that it is said anew, and a key pressed too early
            # would meet a terminal that is being given back, where Textual drops what was typed.
            run.wait_until(lambda: not holds(run, "no shell is here"), "that it is shown no more")
            run.type(b"?")
            run.wait_until(lambda: holds(run, "Suspend"), "that it heeds keys")
            run.type(b"\x1b")
            run.wait_until(lambda: not holds(run, "Suspend"), "that the help is closed")
            assert state(run.process.pid) != "T"
            assert run.cursor_hidden


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def replayed(missing_service, many, script=SCRIPT):
    bash = shutil.which("bash") or missing_service("there is no bash; install it with `apt-get install bash`")
    command = [bash, "-c", script, "bash", *COMMAND, "replay", many[0].parent / "history"]
    return Terminal(command=command, columns=120, lines=36)


def test_one_that_is_told_to_stop_many_times_stops_once_and_reads_keys_by_one_thread(many, missing_service):
    with replayed(missing_service, many) as screen:
        screen.wait_until(lambda: holds(screen, "1 Tree") and holds(screen, "DONE"), "the job")
        main = run_of(screen)
        before = threads(main)

        def stands_still():
            # It waits for what reads keys before it does, and is told again meanwhile.
            os.kill(main, signal.SIGTSTP)
            return state(main) == "T"

        screen.wait_until(stands_still, "that it stands still")
        screen.wait_until(lambda: holds(screen, f"stopped: {STOPPED}"), "the shell")
        screen.type(b"\r")
        screen.wait_until(lambda: screen.cursor_hidden and not holds(screen, "stopped"), "that all is drawn anew")
        screen.type(b"?")
        screen.wait_until(lambda: holds(screen, "Suspend"), "that it heeds keys")
        assert threads(main) == before
        screen.type(b"\x1b")
        screen.wait_until(lambda: not holds(screen, "Suspend"), "that the help is closed")
        screen.type(b"q")
        screen.wait_until(lambda: holds(screen, "ended: 0"), "the end")
        assert not holds(screen, "Traceback")


def test_one_that_goes_on_in_the_background_is_drawn_once_it_is_in_the_foreground(many, missing_service):
    with replayed(missing_service, many, SCRIPT.replace("fg", "bg >/dev/null; echo back; read word; fg")) as screen:
        screen.wait_until(lambda: holds(screen, "1 Tree") and holds(screen, "DONE"), "the job")
        main = run_of(screen)
        before = threads(main)
        screen.type(b"\x1a")
        screen.wait_until(lambda: holds(screen, f"stopped: {STOPPED}"), "the shell")
        screen.wait_until(lambda: state(main) == "T", "that it stands still")
        screen.type(b"\r")
        screen.wait_until(lambda: holds(screen, "back") and state(main) == "T", "that it may not draw there")
        screen.type(b"\r")
        screen.wait_until(lambda: screen.cursor_hidden and not holds(screen, "stopped"), "that all is drawn anew")
        screen.type(b"?")
        screen.wait_until(lambda: holds(screen, "Suspend"), "that it heeds keys")
        assert threads(main) == before
