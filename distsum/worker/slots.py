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

from distsum.logs import LogStyle, concerning
from distsum.worker.launch import exit_words, worker_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distsum.brokers.address import BrokerAddress

log = logging.getLogger(__name__)

_HEARTBEAT_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.1
_STEADY_SECONDS: Final = 60.0
"""A process that has lived for so long crashed for a new reason."""
_LONGEST_PAUSE_SECONDS: Final = 60.0
_UNREACHABLE: Final = 3
_USUAL_STYLE: Final = LogStyle()


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
        places: Where they may go, as ``stores.served.served_place`` returns it; everywhere if there is none.
        log_style: How they log, to the standard error of this process.
    """

    def __init__(
        self,
        address: BrokerAddress,
        count: int,
        places: Sequence[bytes] = (),
        log_style: LogStyle = _USUAL_STYLE,
    ) -> None:
        self._address = address
        self._places = places
        self._log_style = log_style
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
        told = False
        while True:
            if self._draining and not told:
                # Not in the handler of the signal, which may have come in the middle of a line.
                log.info("tasks at hand are finished, and no more are taken")
                told = True
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
            [
                *command,
                slot.name,
                str(_HEARTBEAT_SECONDS),
                f"{time.time():.6f}",
                self._log_style.word(),
                *self._places,
            ],
            env=worker_environment(os.environ, sys.path),
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
            log.debug("worker %s ended at once", slot.name, extra=concerning(worker=slot.name))  # its status tells

    def _ended(self, slot: _Slot, status: int, now: float) -> int:
        """Note that a process has ended; return whether the broker has refused it for good."""
        assert slot.process is not None
        assert slot.process.stdin is not None
        slot.process.stdin.close()
        slot.process = None
        concerns = concerning(worker=slot.name)
        if self._draining:
            log.info("worker %s has left", slot.name, extra=concerns)
            return 0
        if status == _UNREACHABLE:
            return 1
        slot.crashes = slot.crashes + 1 if now - slot.started < _STEADY_SECONDS else 1
        pause = min(_LONGEST_PAUSE_SECONDS, 2.0 ** (slot.crashes - 1))
        slot.next_start = now + pause
        words = exit_words(status)
        log.warning("worker %s ended with %s; another is started in %.0f s", slot.name, words, pause, extra=concerns)
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
