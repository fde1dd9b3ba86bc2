"""Processes of servers: started so that they end with us or so that they go on, known again, and ended."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_END_SECONDS = 10.0


class ServerError(Exception):
    """A server cannot be started; the message says why, and what to do."""


class Starter(Protocol):
    """Starts a process of a server."""

    def __call__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
    ) -> subprocess.Popen[bytes]:
        """Start it in a folder, in a session of its own that no Ctrl-C reaches; what it says goes to a log."""
        ...


def detached(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
) -> subprocess.Popen[bytes]:
    """Start a process that goes on when this one ends; see ``Starter``."""
    with open(log, "ab") as output:
        return subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


class Tether:
    """Starts processes that end with this one, also where it is killed (on Linux); a ``Starter``, once entered."""

    def __enter__(self) -> Self:
        # To the kernel the thread is the parent, so it must be one that lives as long as they do.
        self._thread = ThreadPoolExecutor(1)
        self._processes: list[subprocess.Popen[bytes]] = []
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        self._thread.shutdown()

    def __call__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a process; see ``Starter``."""
        bound = ["setpriv", "--pdeathsig", "KILL"] if sys.platform == "linux" and shutil.which("setpriv") else []
        process = self._thread.submit(detached, [*bound, *command], environment, folder, log).result()
        self._processes.append(process)
        return process


class Identity(msgspec.Struct, frozen=True):
    """A process that can be told from a later one with the same id.

    Attributes:
        pid: Its id.
        started: When it was started, in clock ticks since ``boot``.
        boot: Which start of this machine that was.
    """

    pid: int
    started: int
    boot: str


def identify(pid: int) -> Identity | None:
    """Return a process's identity; None if there is none, or none that runs any more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return None if stat[0] in {b"Z", b"X"} else Identity(pid, int(stat[19]), boot)


def runs(process: Identity) -> bool:
    """Whether a process runs."""
    return identify(process.pid) == process


def end(processes: Sequence[Identity]) -> None:
    """End processes with all that they have started, and wait until they are gone; others with their ids stay.

    Raises:
        ServerError: One does not end.
    """
    family = [each for process in processes for each in [process, *_offspring(process)]]
    with contextlib.ExitStack() as stack:
        ended = []
        for process in family:
            try:
                descriptor = os.pidfd_open(process.pid)
            except ProcessLookupError:
                continue
            stack.callback(os.close, descriptor)
            # From here on the descriptor is this very process, whatever becomes of its id.
            if runs(process):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                ended.append((process.pid, descriptor))
        deadline = time.monotonic() + _END_SECONDS
        for pid, descriptor in ended:
            if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise ServerError(f"process {pid} does not end within {_END_SECONDS:.0f} s of SIGKILL")


def _offspring(process: Identity) -> Iterator[Identity]:
    """Yield the processes that a process has started, and those that they have."""
    if not runs(process):
        return
    children: list[str] = []
    for path in Path(f"/proc/{process.pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += path.read_text(encoding="ascii").split()
    for child in children:
        if (identity := identify(int(child))) is not None:
            yield identity
            yield from _offspring(identity)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def listens(host: str, port: int) -> bool:
    """Whether somebody listens on a port."""
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def tail(log: Path) -> str:
    """Return the end of a log."""
    try:
        return log.read_text(encoding="utf-8", errors="replace")[-4000:]
    except OSError:
        return ""
