"""A worker: takes a task, folds it, reports; one at a time until its channel closes."""

from __future__ import annotations

import os
import queue
import random
import socket
import sys
import threading
import time
import traceback
from time import perf_counter
from typing import TYPE_CHECKING, Final

from distsum import __version__
from distsum.brokers.base import ChannelClosedError
from distsum.errors import DistsumError, InexactError, InputChangedError, NotServedError, StorageError
from distsum.machine import resident_bytes
from distsum.messages import (
    JOB_SPEC,
    PROTOCOL,
    CancelTask,
    FailureKind,
    Heartbeat,
    Introduce,
    RunTask,
    ShareTask,
    Shutdown,
    TaskFailed,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
)
from distsum.partials import spec_uri
from distsum.stores.base import StoreInterruptedError
from distsum.wording import byte_size, exact_byte_size, printable
from distsum.worker.adding import BadChildError
from distsum.worker.attempt import Attempt, TaskCancelledError
from distsum.worker.checkpoints import StoringTimes
from distsum.worker.folding import JobFolder, NoSuchChildError
from distsum.worker.nesting import ChildrenMissingError

if TYPE_CHECKING:
    from distsum.brokers.base import WorkerChannel
    from distsum.stores.base import Store
    from distsum.stores.served import Places
    from distsum.worker.task_log import TaskLog

_REFUSAL_SECONDS: Final = 0.01
_LONGEST_REFUSAL_SECONDS: Final = 0.25


class Worker:
    """Folds in the calling thread; a second thread listens for commands, a third sends heartbeats.

    Args:
        name: Its name at the broker.
        channel: Its side of the broker.
        store: Where everything lies.
        heartbeat_seconds: Time between heartbeats.
        start_seconds: What the process took from its start to here, for the account of time.
        host: The machine's name, for failures that others may not have; None where it is that of whoever reads them.
        places: Where it may go, so that a job which needs more is refused before anything is read; it is ``store`` that
            goes nowhere else. None is everywhere.
        task_log: Told of every task.
        memory_bytes: What it may take over its imports, so that a job whose plan takes more is refused; None is any.
        sent_away_status: Exit code of the process when it was told to leave, by which whoever keeps it can tell that.
    """

    def __init__(
        self,
        name: str,
        channel: WorkerChannel,
        store: Store,
        heartbeat_seconds: float,
        start_seconds: float,
        host: str | None = None,
        places: Places | None = None,
        task_log: TaskLog | None = None,
        memory_bytes: int | None = None,
        sent_away_status: int = 0,
    ) -> None:
        self._name = name
        self._channel = channel
        self._store = store
        self._heartbeat_seconds = heartbeat_seconds
        self._start_seconds = start_seconds
        self._host = host
        self._places = places
        self._task_log = task_log
        self._memory_bytes = memory_bytes
        self._sent_away_status = sent_away_status
        self._inbox: queue.SimpleQueue[Attempt] = queue.SimpleQueue()
        self._folder: tuple[tuple[str, bytes, int], JobFolder] | None = None
        self._times = b"", StoringTimes()  # of partials in the last job's work folder
        self._attempts: list[Attempt] = []  # the running one, and one that may have arrived meanwhile
        self._running: Attempt | None = None
        self._draw = random.Random()  # noqa: S311 - spreads workers in time, and keeps no secret
        self._baseline_bytes = resident_bytes("VmRSS")

    def run(self) -> None:
        """Serve until the process is ended by a closed channel or a Shutdown; never returns."""
        self._introduce()
        for body in (self._listen, self._beat):
            threading.Thread(target=body, daemon=True).start()
        idle_since = perf_counter()
        refusals = 0
        while True:
            attempt = self._inbox.get()
            self._running = attempt
            if self._task_log is not None:
                self._task_log.begins(attempt)
            self._channel.report(TaskStarted(self._name, attempt.task, attempt.delivery, attempt.number, attempt.child))
            result = self._attempt(attempt, perf_counter() - idle_since)
            self._attempts.remove(attempt)
            refused = isinstance(result, TaskFailed) and result.kind == "not_served"
            refusals = refusals + 1 if refused else 0
            if refused:
                # Whoever refuses is free again at once, and would be handed the same task and every other one before
                # those who are at work on what they serve.
                # At random, so that tasks and workers meet in other pairs each time.
                time.sleep(self._draw.uniform(0.5, 1.0) * min(_LONGEST_REFUSAL_SECONDS, _REFUSAL_SECONDS * 2**refusals))
            self._channel.finish(result)
            if self._task_log is not None:
                self._task_log.ends(attempt, result)
            self._running = None
            idle_since = perf_counter()

    def _introduce(self) -> None:
        self._channel.report(
            WorkerJoined(
                worker=self._name,
                host=socket.gethostname(),
                pid=os.getpid(),
                version=__version__,
                protocol=PROTOCOL,
                baseline_bytes=self._baseline_bytes,
                start_seconds=self._start_seconds,
            )
        )

    def _attempt(self, attempt: Attempt, waiting_seconds: float) -> TaskSucceeded | TaskFailed:
        self._store.heed(attempt.cancelled)
        try:
            result = self._job_folder(attempt).fold(attempt, waiting_seconds)
        except BadChildError as error:
            return self._failed(attempt, "bad_input", error.error.reason, index=error.index)
        except ChildrenMissingError as error:
            return self._failed(attempt, "blocked", "partials are missing", missing=error.missing)
        except (TaskCancelledError, StoreInterruptedError):
            return self._failed(attempt, "cancelled", "cancelled")
        except InexactError as error:
            return self._failed(attempt, "inexact", error.reason, index=error.position)
        except NoSuchChildError as error:
            return self._failed(attempt, "error", str(error))
        except NotServedError as error:
            self._forget_job()
            return self._failed(attempt, "not_served", str(error), place=error.place)
        except DistsumError as error:
            reason = str(error) if self._host is None else f"{error} (on {self._host})"
            return self._failed(attempt, _failure_kind(error), reason)
        except Exception as error:  # noqa: BLE001 - an unforeseen failure is reported, tried again, and named at the end
            where = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"
            return self._failed(attempt, "error", reason)
        finally:
            self._store.heed(None)
        return TaskSucceeded(
            worker=self._name,
            task=attempt.task,
            inputs=result.inputs,
            skipped=result.skipped,
            reused=result.reused,
            receipt=result.receipt,
            effort=result.effort,
            attempt=attempt.number,
            child=attempt.child,
            taken=tuple(attempt.taken) if attempt.child is None else (),
            taken_share=attempt.taken_share if attempt.child is None else 0.0,
        )

    def _failed(
        self,
        attempt: Attempt,
        kind: FailureKind,
        reason: str,
        *,
        index: int | None = None,
        missing: tuple[int, ...] = (),
        place: str = "",
    ) -> TaskFailed:
        return TaskFailed(
            worker=self._name,
            task=attempt.task,
            kind=kind,
            reason=reason,
            index=index,
            missing=missing,
            place=place,
            attempt=attempt.number,
            child=attempt.child,
            bytes_read=attempt.bytes_read,
        )

    def _job_folder(self, attempt: Attempt) -> JobFolder:
        """Return the folder of this task's job. Only one is kept, since its buffers are what memory is planned for."""
        job = attempt.task.job
        # By its work folder, too: whoever makes up a message with another one must not decide what this job is. And by
        # its master, since the next one begins the output anew, and says so in the job's description.
        key = job, attempt.work, attempt.first_number
        if self._folder is None or self._folder[0] != key:
            self._forget_job()
            if self._places is not None:
                self._places.check(attempt.work)
            reader = self._store.open(spec_uri(attempt.work, job))
            if reader is None:
                raise StorageError(f"job {printable(job)} is not described in {printable(attempt.work)}")
            with reader:
                spec = JOB_SPEC.decode(reader.read(0, reader.size))
            if self._places is not None:
                self._places.check_output(spec.output)
            if self._memory_bytes is not None and spec.worker_bytes > self._memory_bytes:
                least = exact_byte_size(self._memory_bytes)
                raise NotServedError(
                    f"job {printable(job)} takes up to {byte_size(spec.worker_bytes)} a worker, and this one has "
                    f"{byte_size(self._memory_bytes)}; submit it with --memory {least}, or give workers more (`memory` "
                    "of a fleet's file)",
                    "memory",
                )
            if self._times[0] != attempt.work:
                # It may lie on another disk, or server.
                self._times = attempt.work, StoringTimes()
            self._folder = key, JobFolder(self._store, spec, self._peak_bytes, self._times[1])
        return self._folder[1]

    def _forget_job(self) -> None:
        if self._folder is not None:
            self._folder[1].close()
        self._folder = None

    def _peak_bytes(self) -> int:
        return max(0, resident_bytes("VmHWM") - self._baseline_bytes - self._store.client_bytes)

    def _listen(self) -> None:
        while True:
            try:
                message = self._channel.receive()
            except ChannelClosedError as closed:
                # Whoever gave us work is gone. What is half done is worth nothing without it, so leave at once, also
                # from the middle of an addition: nothing half written is ever visible.
                if self._task_log is not None:
                    self._task_log.leaves("the channel to its master is closed")
                os._exit(closed.exit_code)
            match message:
                case RunTask():
                    # Known from here on: a command that follows must find it, though it has not begun.
                    attempt = Attempt(message)
                    self._attempts.append(attempt)
                    self._inbox.put(attempt)
                case CancelTask():
                    for attempt in self._meant(message):
                        attempt.cancelled.set()
                case ShareTask():
                    for attempt in self._meant(message):
                        attempt.shared = True
                case Introduce():
                    self._introduce()
                case Shutdown():
                    if message.reason and self._task_log is not None:
                        self._task_log.leaves(message.reason)
                    elif message.reason:
                        sys.stderr.write(f"distsum: worker {self._name}: {message.reason}\n")
                        sys.stderr.flush()
                    os._exit(self._sent_away_status)

    def _meant(self, message: CancelTask | ShareTask) -> list[Attempt]:
        wanted = message.task, message.attempt
        return [attempt for attempt in tuple(self._attempts) if (attempt.task, attempt.number) == wanted]

    def _beat(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._heartbeat_seconds):
            attempt = self._running
            resident = resident_bytes("VmRSS")
            message = (
                Heartbeat(self._name, None, 0, resident)
                if attempt is None
                else attempt.beat(self._name, resident, self._store.arrived_bytes)
            )
            try:
                self._channel.report(message)
            except ChannelClosedError as closed:
                os._exit(closed.exit_code)


def _failure_kind(error: DistsumError) -> FailureKind:
    if isinstance(error, InputChangedError):
        return "input_changed"
    return "storage" if isinstance(error, StorageError) else "error"
