"""``distsum master --tui``: service and screen in one process, left, stopped and ended in every way."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import Terminal
from tests.deployment import Deployment, deployment
from tests.screenfault import WORDS, ScreenFault

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def made(rabbitmq: Any, s3_server: Any, s3_environment: Any, tmp_path: Any) -> Iterator[Deployment]:
    """A service without processes."""
    with deployment(rabbitmq, s3_server, tmp_path) as service:
        yield service


def master(made: Deployment, *arguments: str, **changes: str) -> Terminal:
    words = ("master", "--tui", "--work-dir", f"{made.place}/scratch", *arguments)
    return Terminal(*words, env=made.environment(made.master_s3.endpoint, **changes), columns=120, lines=36)


def holds(terminal: Terminal, text: str) -> bool:
    return any(text in line for line in terminal.shown)


def test_the_screen_is_left_and_the_master_goes_on_with_its_log_and_its_job(made):
    made.put_inputs()
    with master(made) as screen:
        screen.wait_until(lambda: holds(screen, "no job under way"), "the service")
        made.start_worker()
        hold = made.gate()
        job = made.submit_here("out.npy")
        made.under_way(hold)
        screen.wait_until(lambda: holds(screen, job), "the job")
        assert not [line for frame in screen.frames for line in frame if "INFO" in line], "no line is drawn over it"
        screen.type(b"1l")
        screen.wait_until(lambda: holds(screen, "Log ── "), "the log")
        screen.wait_until(lambda: holds(screen, f"job {job} is accepted"), "what is logged")
        screen.type(b"q")
        screen.wait_until(lambda: holds(screen, "The master runs in this process."), "the question")
        screen.type(b"\r")
        screen.wait_until(lambda: not holds(screen, "The master runs in this process."), "that it stays")
        screen.type(b"q\x1b[B\r")
        screen.wait_until(lambda: holds(screen, "the master goes on here"), "the terminal")
        screen.wait_until(lambda: holds(screen, f"job {job} is accepted"), "what was logged meanwhile")
        assert not screen.cursor_hidden
        hold.release()
        assert made.wait_ended(job).state == "succeeded"
        screen.process.send_signal(signal.SIGTERM)
        assert screen.finish() == 0
        assert holds(screen, "ended; jobs go on when there is a master again")
        assert not holds(screen, "Traceback")


@pytest.mark.parametrize("way", ["stop", "terminate", "interrupt"])
def test_the_master_ends_in_peace_however_it_is_ended_and_jobs_stay(made, way):
    made.put_inputs()
    with master(made) as screen:
        screen.wait_until(lambda: holds(screen, "no job under way"), "the service")
        job = made.submit_here("out.npy")
        screen.wait_until(lambda: holds(screen, job), "the job")
        if way == "stop":
            screen.type(b"q\x1b[B\x1b[B\r")
        elif way == "terminate":
            screen.process.send_signal(signal.SIGTERM)
        else:
            screen.type(b"q\x1b[B\r")
            screen.wait_until(lambda: holds(screen, "the master goes on here"), "the terminal")
            screen.type(b"\x03")
        assert screen.finish() == (130 if way == "interrupt" else 0)
        assert not screen.cursor_hidden
        assert holds(screen, f"job {job} is accepted")
        assert holds(screen, "ended; jobs go on when there is a master again")
        assert not holds(screen, "Traceback")
    kept = made.listed(f"scratch/jobs/{job}")
    assert "ticket" in kept
    assert "outcome" not in kept, "the next master goes on with it"


def test_a_master_goes_on_when_its_screen_fails(made, tmp_path):
    made.put_inputs()
    fault = ScreenFault(tmp_path / "plant")
    with master(made, **fault.environment) as screen:
        screen.wait_until(lambda: holds(screen, "no job under way"), "the service")
        fault.strike(screen)
        # Broken between words, as the terminal is narrower.
        screen.wait_until(lambda: holds(screen, f"distsum: {WORDS[:60]}"), "why")
        screen.wait_until(lambda: holds(screen, "Ctrl-C ends it, and jobs stay"), "what becomes of the master")
        made.start_worker()
        job = made.submit_here("out.npy")
        assert made.wait_ended(job).state == "succeeded"
        screen.process.send_signal(signal.SIGTERM)
        assert screen.finish() == 0
        assert not screen.cursor_hidden
        assert not holds(screen, "Traceback")


def test_what_hinders_a_master_is_told_in_the_terminal(made):
    with master(made, DISTSUM_BROKER="amqp://u:s3cr3t-canary@127.0.0.1:1/v") as screen:
        assert screen.finish() == 3
        assert holds(screen, "127.0.0.1:1")
        assert not holds(screen, "canary")
    done = made.run("master", "--tui", "--work-dir", f"{made.place}/scratch")
    assert done.returncode == 2
    assert "--tui draws on a terminal" in done.stderr
    with Terminal(
        "master", "--tui", "--work-dir", "s3://no-such-bucket-here/x", env=made.environment(), columns=120, lines=36
    ) as screen:
        assert screen.finish() not in {0, 130}
        assert holds(screen, "no-such-bucket-here")
        assert not holds(screen, "Traceback"), "\n".join(screen.shown)
