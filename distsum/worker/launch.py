"""Starting worker processes of this machine, some of them before it is known what they will do.

A worker takes as long to import numpy as the command line takes to be read and the run to be planned. So the command
starts one or two before it does anything else; the pool takes them over. This module imports little.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from distsum.machine import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HEARTBEAT_SECONDS: Final = 0.5
_EARLY: Final = 2
"""Workers started early at most: what a small machine uses, and little to lose where the run wants fewer."""
_REDUCTIONS: Final = frozenset({"mean", "sum", "min", "max"})
S3_DEADLINE_VARIABLE: Final = "DISTSUM_S3_DEADLINE"
MEMORY_VARIABLE: Final = "DISTSUM_WORKER_MEMORY"
"""Bytes that a worker may take over its imports; any number where it is not set."""
SENT_AWAY: Final = 10
"""Exit code of a worker that its master has told to leave: by a person, or since it is of another version."""
_THREAD_VARIABLES: Final = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Launched(NamedTuple):
    """A worker process, and our end of its channel. It ends by itself when that end is closed."""

    name: str
    process: subprocess.Popen[bytes]
    endpoint: socket.socket


_early: list[Launched] = []
_numbers = itertools.count(1)


def launch() -> Launched:
    """Start a worker process; its name is unique within this one.

    Raises:
        OSError: It cannot be started.
    """
    name = f"w{next(_numbers)}"
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = subprocess.Popen(
                worker_command(theirs.fileno(), name),
                pass_fds=(theirs.fileno(),),
                env=worker_environment(os.environ, sys.path),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
    except OSError:
        ours.close()
        raise
    return Launched(name, process, ours)


def launch_early(arguments: Sequence[str]) -> None:
    """Start workers that a command line will want, if it looks like one that runs a job."""
    for _ in range(early_workers(arguments, os.environ)):
        try:
            _early.append(launch())
        except OSError:
            return  # The pool tries again when they are needed, and tells what is wrong.


def early_workers(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Return how many workers to start before a command line has been read.

    A guess: one too many is ended unused, one too few is started later.

    >>> early_workers(["mean", "in", "-o", "out.npy", "-w1"], {}), early_workers(["mean", "--help"], {})
    (1, 0)
    """
    if not arguments or arguments[0] not in _REDUCTIONS or {"-h", "--help"} & set(arguments):
        return 0
    if not any(argument.startswith(("-o", "--output")) for argument in arguments):
        return 0
    if any(argument.partition("=")[0] in {"--broker", "--fleet"} for argument in arguments):
        return 0  # A service's workers do it.
    wanted = environment.get("DISTSUM_WORKERS", "")
    for place, argument in enumerate(arguments):
        if argument in {"-w", "--workers"}:
            wanted = arguments[place + 1] if place + 1 < len(arguments) else ""
        elif argument.startswith(("-w", "--workers=")):
            wanted = argument.removeprefix("--workers").removeprefix("-w").removeprefix("=")
    limit = int(wanted) if wanted.isascii() and wanted.isdigit() else _EARLY
    return min(_EARLY, limit, usable_cpus())


def take_early(count: int) -> list[Launched]:
    """Hand over up to so many of the workers that were started early, and end the others."""
    taken = _early[:count]
    for launched in _early[count:]:
        launched.endpoint.close()
        launched.process.kill()
        launched.process.wait()
    _early.clear()
    return taken


def worker_command(descriptor: int, name: str) -> list[str]:
    """Return the command line of a worker; ``-P`` keeps a ``numpy.py`` in the current folder out of it."""
    command = [sys.executable, "-P", "-m", "distsum.worker"]
    return [*command, str(descriptor), name, str(HEARTBEAT_SECONDS), f"{time.time():.6f}"]


def worker_environment(environment: Mapping[str, str], path: Sequence[str]) -> dict[str, str]:
    """Return the environment of a worker: one thread for each numerical library, and modules from where we have them.

    A worker is one of many, so libraries that would start a thread a core only cost start-up and memory.
    """
    ours = dict.fromkeys(_THREAD_VARIABLES, "1")
    return dict(environment) | ours | {"PYTHONPATH": os.pathsep.join(entry for entry in path if entry)}


def exit_words(status: int) -> str:
    """Return how a process ended, in words.

    >>> exit_words(-9), exit_words(1)
    ('SIGKILL', 'exit code 1')
    """
    if status >= 0:
        return f"exit code {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
