"""``python -m distsum.provision.supervisor``: keeps a host's workers; runs on the host, in the fleet's environment.

It takes the fleet's lock on this host and says so, and only then is told what to do: a broker user has a new password
for each start, which must not be made while another supervisor has workers. The first line of standard input is a
``Task`` as JSON, with what is secret in it: it goes from the channel into memory, and from there to the workers. After
that the command that has started it writes a line every few seconds. Tethered, the
supervisor ends its workers and itself when those stop coming, or standard input ends; detached, it leaves its parent as
soon as the task is read, and lives until it is told to end. What it tells, it writes into the fleet's folder (see
``agent``, which is the other side). SIGTERM drains: tasks at hand are finished.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import resource
import select
import shutil
import sys
import threading
import time
from typing import Any, Final

import msgspec

from distsum.brokers.address import BrokerAddress
from distsum.logs import LogStyle, begin_logging
from distsum.worker.slots import Slots

from .agent import FLEET_VARIABLE, root

log = logging.getLogger("distsum.provision.supervisor")  # not `__main__`, which is what this is called there

LEASE_SECONDS: Final = 45.0
"""A tethered supervisor that has heard nothing for so long is alone; whoever holds it writes three times meanwhile."""
_HOLD_SECONDS: Final = 5.0
_LOG_BYTES: Final = 8 << 20
ANOTHER: Final = 75
"""Exit code where another supervisor holds the fleet on this host."""
HELD: Final = "distsum-held"
"""Said when this one does, and waits for its task; the name of the fleet's folder is in its environment."""


class Task(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a supervisor is to do.

    Attributes:
        environment: The identity of the environment that it runs in.
        workers: How many to keep.
        host: What the names of its workers begin with.
        broker: The broker's address with its password.
        variables: Variables of the workers' environment, with the store's keys.
        detached: Whether to live on without the command that has started it.
        log: How it and its workers log, as ``logs.LogStyle`` words it.
        store: URI or folder of the fleet's store.
        terms: What workers are started with, in words, to tell whether another command wants the same.
    """

    environment: str
    workers: int
    host: str
    broker: str
    variables: dict[str, str]
    detached: bool
    log: str = LogStyle().word()
    store: str | None = None
    terms: str = ""


class AloneError(Exception):
    """Nobody holds this supervisor any more."""


class Tether:
    """Hears whether whoever has started us is still there; in a thread, since reading may take for ever.

    Args:
        descriptor: Where something is written every few seconds.
        lease_seconds: How long silence may last.
    """

    def __init__(self, descriptor: int, lease_seconds: float = LEASE_SECONDS) -> None:
        self._descriptor = descriptor
        self._lease_seconds = lease_seconds
        self._heard = time.monotonic()
        self._ended = False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # what cannot be read any more has ended, too
            while os.read(self._descriptor, 1 << 10):
                self._heard = time.monotonic()
        self._ended = True

    def check(self) -> None:
        """Raise where we are alone.

        Raises:
            AloneError: The other end is closed, or silent for too long.
        """
        if self._ended:
            raise AloneError("the connection that held these workers has ended")
        if time.monotonic() - self._heard > self._lease_seconds:
            raise AloneError(
                f"nothing was heard for {self._lease_seconds:.0f} s from the command that holds these workers"
            )


class _Supervisor:
    def __init__(self, task: Task) -> None:
        self._task = task
        self._tether = None if task.detached else Tether(0)
        self._wanted = task.workers
        style = LogStyle.of_word(task.log)
        address = BrokerAddress.parse(task.broker)
        begin_logging(sys.stderr, style, secrets=address.secrets)
        self._slots = Slots(address, task.workers, host=task.host, log_style=style)
        self._told: dict[str, Any] = {}

    def run(self) -> int:
        try:
            return self._slots.run(self._poll, lasting=True)
        except AloneError as alone:
            log.warning("%s; they are ended", alone)
            return 0
        finally:
            for name in ("state.json", "wanted"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)

    def _poll(self) -> None:
        if self._tether is not None:
            self._tether.check()
        with contextlib.suppress(FileNotFoundError), open("wanted", encoding="ascii") as file:
            wanted = int(file.read())
            if wanted != self._wanted:
                self._wanted = wanted
                self._slots.resize(wanted)
        state = {
            "pid": os.getpid(),
            "environment": self._task.environment,
            "wanted": self._wanted,
            "detached": self._task.detached,
            "terms": self._task.terms,
            "workers": [each._asdict() for each in self._slots.states()],
        }
        if state != self._told:
            self._told = state
            with open("state.json.new", "w", encoding="utf-8") as file:
                json.dump(state, file)
            os.replace("state.json.new", "state.json")
        cut_log(2)


def main() -> int:
    """Read the task, and keep its workers until told to end."""
    os.umask(0o077)
    fleet = os.environ[FLEET_VARIABLE]
    os.chdir(os.path.join(root(), "fleets", fleet))
    with open("held", "ab") as held:
        if not _hold(held.fileno()):
            sys.stderr.write(f"another supervisor holds {fleet}\n")
            return ANOTHER
        for name in ("state.json", "wanted"):  # of one that was killed
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        sys.stdout.write(f"{HELD}\n")
        sys.stdout.flush()
        if not select.select([0], [], [], LEASE_SECONDS)[0]:
            sys.stderr.write("nobody says what to do\n")
            return 1
        task = msgspec.json.decode(sys.stdin.buffer.readline(), type=Task)
        if task.detached and os.fork():
            return 0  # The lock is held by our child as well, until that ends.
        if task.detached:
            os.setsid()
        _redirect(task)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1 << 16) if hard > 0 else 1 << 16, hard))
        os.environ.update(task.variables)
        return _Supervisor(task).run()


def _hold(descriptor: int) -> bool:
    """Take the lock that says that a supervisor lives; whoever looks at it holds it for a moment, too."""
    deadline = time.monotonic() + _HOLD_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        else:
            return True


def _redirect(task: Task) -> None:
    """Let all that is said go to the log; a connection that is gone must not end anybody who speaks."""
    kept = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDWR)
    if task.detached:
        os.dup2(nothing, 0)
    os.dup2(kept, 1)
    os.dup2(kept, 2)
    os.close(kept)
    os.close(nothing)


def cut_log(descriptor: int, most_bytes: int = _LOG_BYTES) -> None:
    """Start the log anew where it has grown long; one old part is kept. Workers hold it open, so it is not renamed."""
    if os.fstat(descriptor).st_size > most_bytes:
        shutil.copyfile("log", "log.1")
        os.truncate("log", 0)


if __name__ == "__main__":
    sys.exit(main())
