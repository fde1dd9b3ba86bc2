"""The installed command, run as a person would, and the processes it starts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE_SECONDS = 60.0
COMMAND = [sys.executable, "-m", "distsum"]


def distsum(*arguments, cwd=None, env=None):
    """Run the command to its end; stdout and stderr as text."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=dict(os.environ) | (env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def summary(*arguments, cwd=None, env=None):
    """Run a command that must succeed, and return the object that ``--json`` prints last."""
    done = distsum(*arguments, "--json", cwd=cwd, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def started(*arguments, cwd=None, env=None) -> Iterator[subprocess.Popen[str]]:
    """Start the command; it and its workers are gone afterwards."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=dict(os.environ) | (env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
    )
    try:
        yield process
    finally:
        for pid in [*workers(process.pid), process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def workers(pid: int) -> list[int]:
    """Return the worker processes of a running command."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{entry}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                command = file.read().split(b"\0")
            if parent == pid and b"distsum.worker" in command:
                found.append(int(entry))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], object], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: It does not in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} not within {seconds} s"
        time.sleep(0.005)
