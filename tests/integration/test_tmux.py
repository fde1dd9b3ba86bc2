"""From nothing to a result as a person has it: ``distsum top`` in tmux, a straggler, its backup, and a job too many."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests import tmux
from tests.deployment import FREE_TASKS, Deployment, deployment
from tests.reference import reference_reduce

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.tmux import Tmux

PHASE = 12
"""Tasks that read the inputs."""


@pytest.fixture
def made(
    rabbitmq: Any, s3_server: Any, s3_environment: Any, tmp_path: Any, missing_service: Any
) -> Iterator[Deployment]:
    """A service without processes."""
    if not tmux.installed():
        missing_service(f"there is no tmux; install it with `{tmux.INSTALL}`")
    with deployment(rabbitmq, s3_server, tmp_path) as service:
        yield service


def cancel(screen: Tmux, unwanted: str, other: str) -> None:
    """Cancel one of two jobs by keys, in the list."""
    screen.type("/")
    screen.wait_for("text that rows must hold")
    screen.write(unwanted)
    screen.type("Enter")
    screen.wait_until(lambda shown: other not in shown and "1 of 2" in shown, "the one that is cancelled")
    screen.type("c")
    screen.wait_for(f"Cancel job {unwanted}")
    screen.type("Down", "Enter")
    screen.wait_for("✗ cancelled")


def test_a_straggler_is_seen_to_be_backed_up_while_another_job_is_cancelled(made, short_path):
    inputs = made.put_inputs()
    # Only a silence counts, since of tasks that take milliseconds some take many times as long by chance.
    made.start_master(DISTSUM_SPECULATION="multiplier=1e6,slow=1e6,silence_seconds=3")
    worker = made.start_worker(slots=1)
    (name,) = made.names()
    made.start_worker(slots=1)
    (other,) = set(made.names()) - {name}
    (process,) = worker.children
    hold = made.gate()
    with tmux.tmux(short_path, "top", environment=made.environment()) as screen:
        screen.wait_for("No job is queued or running")
        job = made.submit("out/straggling.npy")
        unwanted = made.submit("out/cancelled.npy")
        made.under_way(hold)
        screen.wait_until(lambda shown: job in shown and unwanted in shown, "both jobs")
        cancel(screen, unwanted, job)
        assert made.wait_ended(unwanted).state == "cancelled"
        screen.type("Escape")
        screen.wait_for(job)
        screen.type("Home", "Enter")
        screen.wait_for("RUNNING phase 1/")
        screen.wait_for(f"{FREE_TASKS}/{PHASE}")
        os.kill(process, signal.SIGSTOP)
        try:
            hold.release()
            screen.wait_until(lambda shown: re.search(r"↯ phase \d task \d+ .*silent for", shown), "the backup")
            # The pane of workers says "silent for", too, a moment later.
            (line,) = (line for line in screen.lines if "↯ phase" in line and "silent for" in line)
            assert f"{name} -> {other}" in line
            screen.wait_until(lambda shown: re.search(rf"✓ phase \d task \d+ .*{other} won", shown), "that it wins")
            screen.wait_for("DONE")
            assert f"{PHASE}/{PHASE}" in screen.shown
            assert re.search("1 backup.*1 won", screen.shown)
        finally:
            os.kill(process, signal.SIGCONT)
        screen.resize(80, 24)
        screen.type("4")
        screen.wait_until(lambda shown: len(shown.splitlines()) <= 24 and "silent for" in shown, "the ledger by itself")
        screen.type("q")
        screen.wait_until(lambda _: not screen.running, "the end of the screen")
    content = made.content("out/straggling.npy")
    assert content is not None
    assert content[128:] == reference_reduce(inputs, 5, "mean").tobytes()
    assert made.content("out/cancelled.npy") is None
    made.check_nothing_is_left(job, unwanted)
    made.end()
