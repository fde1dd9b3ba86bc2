"""The worker processes that one ``distsum worker`` keeps: one a slot, started anew when they crash."""

from __future__ import annotations

import logging
import os
import re
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from distsum.logs import LogStyle, concerning
from distsum.request import DEFAULT_S3_DEADLINE_SECONDS
from distsum.worker.launch import S3_DEADLINE_VARIABLE, SENT_AWAY, exit_words, worker_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from distsum.brokers.address import BrokerAddress

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.1
_STEADY_SECONDS: Final = 60.0
"""A process that has lived for so long crashed for a new reason."""
_LONGEST_PAUSE_SECONDS: Final = 60.0
_UNREACHABLE: Final = 3
_USUAL_STYLE: Final = LogStyle()


class SlotState(NamedTuple):
    """What a slot does: its worker's name, a word for its state, crashes in a row, and how the last one ended."""

    name: str
    state: str
    crashes: int
    reason: str


class _Slot:
    """One process at a time, and the pause before the next."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.name = ""
        self.started = 0.0
        self.crashes = 0
        self.refusals = 0
        self.next_start = 0.0
        self.reason = ""
        self.ready = False
        self.leaving = False
        self.sent_away = False

    def drain(self) -> None:
        """Let the process finish its task and leave."""
        self.leaving = True
        if self.process is not None:
            self.process.terminate()

    def state(self) -> SlotState:
        """Return what it does."""
        if self.process is None:
            word = "waiting"
        elif self.leaving:
            word = "draining"
        else:
            word = "ready" if self.ready else "starting"
        return SlotState(self.name, word, self.crashes, self.reason)


class Slots:
    """Keeps worker processes running until they are drained.

    Args:
        address: The broker; its password travels over the processes' standard input.
        count: How many.
        places: Where they may go, as ``stores.served.served_place`` returns it; everywhere if there is none.
        host: What workers' names begin with; None is what this machine calls itself.
        log_style: How they log, to the standard error of this process.
        s3_deadline_seconds: How long they ask S3 again where it does not answer.
    """

    def __init__(
        self,
        address: BrokerAddress,
        count: int,
        places: Sequence[bytes] = (),
        host: str | None = None,
        log_style: LogStyle = _USUAL_STYLE,
        s3_deadline_seconds: int = DEFAULT_S3_DEADLINE_SECONDS,
    ) -> None:
        self._s3_deadline_seconds = s3_deadline_seconds
        self._address = address
        self._places = places
        self._log_style = log_style
        self._slots = [_Slot() for _ in range(count)]
        self._draining = False
        self._host = re.sub(r"[^A-Za-z0-9-]+", "-", host or socket.gethostname())[:60] or "host"

    def states(self) -> list[SlotState]:
        """Return what the slots do."""
        return [slot.state() for slot in self._slots]

    def resize(self, count: int) -> None:
        """Have another number of slots; the workers of those that go finish their tasks first."""
        self._slots = [slot for slot in self._slots if not slot.sent_away]
        staying = [slot for slot in self._slots if not slot.leaving]
        for slot in staying[count:]:
            slot.drain()
        self._slots += [_Slot() for _ in range(count - len(staying))]

    def run(self, on_poll: Callable[[], None] = lambda: None, *, lasting: bool = False) -> int:
        """Run until every process has left; return the exit code of the command.

        A process that its master has sent away is not started again.

        SIGTERM lets each finish its task; a second one, or Ctrl-C, ends them at once.

        Args:
            on_poll: Called some times a second. What it raises ends the workers at once, and is raised here.
            lasting: Whether to go on when all were sent away, since others may be asked for.
        """
        before = signal.signal(signal.SIGTERM, lambda *_: self._drain())
        try:
            return self._serve(on_poll, lasting=lasting)
        finally:
            signal.signal(signal.SIGTERM, before)
            self._end()

    def _serve(self, on_poll: Callable[[], None], *, lasting: bool) -> int:
        told = False
        while True:
            if self._draining and not told:
                # Not in the handler of the signal, which may have come in the middle of a line.
                log.info("tasks at hand are finished, and no more are taken")
                told = True
            now = time.monotonic()
            self._slots = [slot for slot in self._slots if slot.process is not None or not slot.leaving]
            for slot in self._slots:
                if slot.process is None:
                    if not (self._draining or slot.sent_away or self._awaits_another(slot)) and now >= slot.next_start:
                        self._start(slot)
                elif (status := slot.process.poll()) is not None:
                    self._ended(slot, status, now)
                elif not slot.ready and _has_spoken(slot.process):
                    slot.ready = True
                    slot.refusals = 0
            on_poll()
            if all(slot.process is None for slot in self._slots):
                if self._draining:
                    return 0
                wanted = [slot for slot in self._slots if not slot.sent_away]
                if wanted and all(slot.refusals for slot in wanted):
                    return _UNREACHABLE
                if self._slots and not wanted and not lasting:
                    return 0
            time.sleep(_POLL_SECONDS)

    def _awaits_another(self, slot: _Slot) -> bool:
        """Whether a slot whose process was not let in waits for one that is: without any, the command ends."""
        return slot.refusals > 0 and not any(each.ready for each in self._slots)

    def _start(self, slot: _Slot) -> None:
        slot.name = f"{self._host}-{secrets.token_hex(4)}"
        command = [sys.executable, "-P", "-m", "distsum.worker.remote"]
        slot.process = subprocess.Popen(
            [
                *command,
                slot.name,
                str(HEARTBEAT_SECONDS),
                f"{time.time():.6f}",
                self._log_style.word(),
                *self._places,
            ],
            env=worker_environment(os.environ, sys.path) | {S3_DEADLINE_VARIABLE: str(self._s3_deadline_seconds)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        slot.ready = False
        slot.started = time.monotonic()
        assert slot.process.stdin is not None
        try:
            slot.process.stdin.write(self._address.uri().encode() + b"\n")
            slot.process.stdin.flush()
        except BrokenPipeError:
            log.debug("worker %s ended at once", slot.name, extra=concerning(worker=slot.name))  # its status tells

    def _ended(self, slot: _Slot, status: int, now: float) -> None:
        """Note that a process has ended, and when the next may start."""
        assert slot.process is not None
        assert slot.process.stdin is not None
        assert slot.process.stdout is not None
        slot.process.stdin.close()
        slot.process.stdout.close()
        slot.process = None
        slot.ready = False
        concerns = concerning(worker=slot.name)
        if self._draining or slot.leaving:
            log.info("worker %s has left", slot.name, extra=concerns)
            return
        if status == SENT_AWAY:
            slot.sent_away = True
            slot.reason = "sent away by the master"
            log.warning("worker %s was sent away; no other is started for it", slot.name, extra=concerns)
            return
        slot.reason = exit_words(status)
        if status == _UNREACHABLE:
            slot.refusals += 1
            slot.next_start = now + _pause_seconds(slot.refusals)
            return
        slot.crashes = slot.crashes + 1 if now - slot.started < _STEADY_SECONDS else 1
        pause = _pause_seconds(slot.crashes)
        slot.next_start = now + pause
        told = "worker %s ended with %s; another is started in %.0f s"
        log.warning(told, slot.name, slot.reason, pause, extra=concerns)

    def _drain(self) -> None:
        if self._draining:
            self._end()
        self._draining = True
        for slot in self._slots:
            slot.drain()

    def _end(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                slot.process.kill()
                slot.process.wait()


def _pause_seconds(failures: int) -> float:
    """Return the pause after so many failures in a row."""
    return min(_LONGEST_PAUSE_SECONDS, 2.0 ** (min(failures, 10) - 1))


def _has_spoken(process: subprocess.Popen[bytes]) -> bool:
    """Whether a worker has said that it is connected, which is all that it ever prints."""
    assert process.stdout is not None
    return bool(select.select([process.stdout], [], [], 0)[0])
