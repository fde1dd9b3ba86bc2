"""The installed command, run as a person would, and the processes it starts."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pyte

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE_SECONDS = 60.0
COMMAND = [sys.executable, "-m", "distsum"]
SCRIPT = os.path.join(os.path.dirname(sys.executable), "distsum")


def environment(changes=None):
    """Return this process's environment without settings of distsum, and with some changes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DISTSUM_")}
    return kept | {"XDG_CONFIG_HOME": "/nonexistent"} | (changes or {})


def distsum(*arguments, cwd=None, env=None, text=True, command=COMMAND):
    """Run the command to its end; stdout and stderr as text, or as bytes."""
    return subprocess.run(
        [*command, *arguments],
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=False,
        **({"text": True, "errors": "backslashreplace"} if text else {}),
    )


def summary(*arguments, cwd=None, env=None):
    """Run a command that must succeed, and return the object that ``--json`` prints last."""
    done = distsum(*arguments, "--json", cwd=cwd, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def under_way(calls):
    """Make some calls, which wait for commands, a few at once; give for each key the future of what its call gives."""
    executor = ThreadPoolExecutor(len(os.sched_getaffinity(0)) + 1)
    try:
        yield {key: executor.submit(call) for key, call in calls.items()}
    finally:
        executor.shutdown(cancel_futures=True)


def together(calls):
    """Make some calls as ``under_way`` does, and return what each gave, by its key."""
    with under_way(calls) as futures:
        return {key: future.result() for key, future in futures.items()}


@contextlib.contextmanager
def started(*arguments, cwd=None, env=None) -> Iterator[subprocess.Popen[str]]:
    """Start the command; it and its workers are gone afterwards."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
    )
    try:
        yield process
    finally:
        end(process)
        process.communicate()


def end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Kill a command that still runs, and its workers."""
    for pid in [*workers(process.pid), process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Terminal:
    """The command in a pseudo-terminal of its own, and what its screen shows.

    A second screen, far wider, has the same lines as long as none goes beyond the edge of the first; so a line that
    would wrap is seen there in its whole length.

    Attributes:
        process: The command.
        bytes_shown: What it has written, in all.
        frames: What the wide screen has shown, each time that it changed.
    """

    WIDE = 400

    def __init__(self, *arguments, cwd=None, env=None, columns=80, lines=24, command=COMMAND) -> None:
        self._master, ours = pty.openpty()
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._screens = [pyte.Screen(columns, lines), pyte.Screen(self.WIDE, lines)]
        self._streams = [pyte.ByteStream(screen) for screen in self._screens]
        self.frames: list[list[str]] = []
        self.bytes_shown = 0
        # The first terminal that the leader of a session opens becomes its own: from there its signals come.
        self.process = subprocess.Popen(
            ["sh", "-c", 'exec "$@" <"$0" >"$0" 2>&1', os.ttyname(ours), *command, *arguments],
            cwd=cwd,
            env=environment({"TERM": "xterm-256color", "COLUMNS": "", "LINES": ""} | (env or {})),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.wait_until(lambda: os.readlink(f"/proc/{self.process.pid}/fd/2") == os.ttyname(ours), "its terminal")
        os.close(ours)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        end(self.process)
        self.process.wait()
        self.vanish()

    @property
    def shown(self) -> list[str]:
        """The lines of the screen that are not empty."""
        return [line.rstrip() for line in self._screens[0].display if line.strip()]

    @property
    def cursor_hidden(self) -> bool:
        return self._screens[0].cursor.hidden

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def vanish(self) -> None:
        """Be gone, as a window is that is closed."""
        if self._master >= 0:
            os.close(self._master)
        self._master = -1

    def wait_until(self, condition: Callable[[], object], what: str, seconds: float = DEADLINE_SECONDS) -> None:
        """Show what the command writes until a condition holds.

        Raises:
            AssertionError: It does not in time; the message has what is on the screen.
        """
        try:
            wait_until(lambda: (self._read(), condition())[1], what, seconds)
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *self.shown])) from None

    def finish(self, seconds: float = DEADLINE_SECONDS) -> int:
        """Wait until the command has ended, and return its exit code."""
        self.wait_until(lambda: self.process.poll() is not None, "the end", seconds)
        while self._read():
            pass
        return self.process.returncode

    def _read(self) -> bool:
        """Show what there is to be read; return whether there was anything."""
        if not select.select([self._master], [], [], 0.005)[0]:
            return False
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # as Linux says that the other end is closed
            return False
        self.bytes_shown += len(data)
        for stream in self._streams:
            stream.feed(data)
        frame = [line.rstrip() for line in self._screens[1].display if line.strip()]
        if not self.frames or frame != self.frames[-1]:
            self.frames.append(frame)
        return bool(data)


def with_mounts(missing_service, script, *arguments):
    """Run a shell script in a mount namespace of its own, where it may mount small disks; stdout and stderr as text."""
    unshare = shutil.which("unshare")
    flags = ["-m"] if os.geteuid() == 0 else ["-Urm"]
    if unshare is None or subprocess.run([unshare, *flags, "true"], check=False, capture_output=True).returncode:
        missing_service("a mount namespace: install util-linux and allow user namespaces, or run as root")
    return subprocess.run(
        [unshare, *flags, "sh", "-ec", script, "sh", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


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
