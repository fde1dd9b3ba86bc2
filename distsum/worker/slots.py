"""The worker processes that one ``distsum worker`` keeps: one a slot, started anew when they crash."""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from distsum.worker.launch import S3_DEADLINE_VARIABLE, exit_words, worker_environment

if TYPE_CHECKING:
    from distsum.brokers.address import BrokerAddress

log = logging.getLogger(__name__)

_HEARTBEAT_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.1
_STEADY_SECONDS: Final = 60.0
"""A process that has lived for so long crashed for a new reason."""
_LONGEST_PAUSE_SECONDS: Final = 60.0
_UNREACHABLE: Final = 3


class _Slot:
    """One process at a time, and the pause before the next."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.name = ""
        self.started = 0.0
        self.crashes = 0
        self.next_start = 0.0


class Slots:
    """Keeps worker processes running until they are drained.

    Args:
        address: The broker; its password travels over the processes' standard input.
        count: How many.
        s3_deadline_seconds: How long they ask S3 again where it does not answer.
    """

    def __init__(self, address: BrokerAddress, count: int, s3_deadline_seconds: int) -> None:
        self._address = address
        self._s3_deadline_seconds = s3_deadline_seconds
        self._slots = [_Slot() for _ in range(count)]
        self._draining = False
        self._host = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname())[:60] or "host"

    def run(self) -> int:
        """Run until every process has left; return the exit code of the command.

        SIGTERM lets each finish its task; a second one, or Ctrl-C, ends them at once.
        """
        before = signal.signal(signal.SIGTERM, lambda *_: self._drain())
        try:
            return self._serve()
        finally:
            signal.signal(signal.SIGTERM, before)
            self._end()

    def _serve(self) -> int:
        refused = 0
        while True:
            now = time.monotonic()
            for slot in self._slots:
                if slot.process is None:
                    if not self._draining and refused < len(self._slots) and now >= slot.next_start:
                        self._start(slot)
                elif (status := slot.process.poll()) is not None:
                    refused += self._ended(slot, status, now)
            if all(slot.process is None for slot in self._slots):
                if self._draining:
                    return 0
                if refused >= len(self._slots):
                    return _UNREACHABLE
            time.sleep(_POLL_SECONDS)

    def _start(self, slot: _Slot) -> None:
        slot.name = f"{self._host}-{secrets.token_hex(4)}"
        command = [sys.executable, "-P", "-m", "distsum.worker.remote"]
        slot.process = subprocess.Popen(
            [*command, slot.name, str(_HEARTBEAT_SECONDS), f"{time.time():.6f}"],
            env=worker_environment(os.environ, sys.path) | {S3_DEADLINE_VARIABLE: str(self._s3_deadline_seconds)},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        slot.started = time.monotonic()
        assert slot.process.stdin is not None
        try:
            slot.process.stdin.write(self._address.uri().encode() + b"\n")
            slot.process.stdin.flush()
        except BrokenPipeError:
            log.debug("worker %s ended at once", slot.name)  # its status tells

    def _ended(self, slot: _Slot, status: int, now: float) -> int:
        """Note that a process has ended; return whether the broker has refused it for good."""
        assert slot.process is not None
        assert slot.process.stdin is not None
        slot.process.stdin.close()
        slot.process = None
        if self._draining:
            return 0
        if status == _UNREACHABLE:
            return 1
        slot.crashes = slot.crashes + 1 if now - slot.started < _STEADY_SECONDS else 1
        pause = min(_LONGEST_PAUSE_SECONDS, 2.0 ** (slot.crashes - 1))
        slot.next_start = now + pause
        log.warning("worker %s ended with %s; another is started in %.0f s", slot.name, exit_words(status), pause)
        return 0

    def _drain(self) -> None:
        if self._draining:
            self._end()
        self._draining = True
        for slot in self._slots:
            if slot.process is not None:
                slot.process.terminate()

    def _end(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                slot.process.kill()
                slot.process.wait()
