"""A worker: takes a task, folds it, reports; one at a time until its channel closes."""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
import traceback
from time import perf_counter
from typing import TYPE_CHECKING, Final

import msgspec

from distsum import __version__
from distsum.brokers.base import ChannelClosedError
from distsum.errors import DistsumError, InexactError, InputChangedError, StorageError
from distsum.machine import resident_bytes
from distsum.messages import (
    JOB_SPEC,
    PROTOCOL,
    CancelTask,
    FailureKind,
    Heartbeat,
    Introduce,
    RunTask,
    Shutdown,
    TaskFailed,
    TaskId,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
)
from distsum.partials import spec_uri
from distsum.worker.folding import BadChildError, ChildrenMissingError, JobFolder, TaskCancelledError

if TYPE_CHECKING:
    from distsum.brokers.base import WorkerChannel
    from distsum.stores.base import Store

_GRACE_SECONDS: Final = 0.3
"""So long a cancelled task has to come to its next block."""


class Worker:
    """Folds in the calling thread; a second thread listens for commands, a third sends heartbeats.

    Args:
        name: Its name at the broker.
        channel: Its side of the broker.
        store: Where everything lies.
        heartbeat_seconds: Time between heartbeats.
        start_seconds: What the process took from its start to here, for the account of time.
    """

    def __init__(
        self, name: str, channel: WorkerChannel, store: Store, heartbeat_seconds: float, start_seconds: float
    ) -> None:
        self._name = name
        self._channel = channel
        self._store = store
        self._heartbeat_seconds = heartbeat_seconds
        self._start_seconds = start_seconds
        self._inbox: queue.SimpleQueue[RunTask] = queue.SimpleQueue()
        self._folder: tuple[str, JobFolder] | None = None
        self._running: RunTask | None = None
        self._baseline_bytes = resident_bytes("VmRSS")

    def run(self) -> None:
        """Serve until the process is ended by a closed channel or a Shutdown; never returns."""
        self._introduce()
        for body in (self._listen, self._beat):
            threading.Thread(target=body, daemon=True).start()
        idle_since = perf_counter()
        while True:
            message = self._inbox.get()
            self._running = message
            self._channel.report(TaskStarted(self._name, message.task, message.delivery, message.attempt))
            result = self._attempt(message, perf_counter() - idle_since)
            self._channel.finish(msgspec.structs.replace(result, attempt=message.attempt))
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

    def _attempt(self, message: RunTask, waiting_seconds: float) -> TaskSucceeded | TaskFailed:
        task = message.task
        try:
            result = self._job_folder(message).fold(task, waiting_seconds)
        except BadChildError as error:
            return TaskFailed(self._name, task, "bad_input", error.error.reason, error.index)
        except ChildrenMissingError as error:
            return TaskFailed(self._name, task, "blocked", "partials are missing", missing=error.missing)
        except TaskCancelledError:
            return self._cancelled(task)
        except InexactError as error:
            return TaskFailed(self._name, task, "inexact", error.reason, error.position)
        except DistsumError as error:
            called_back = self._called_back
            # Perhaps another master has begun the job's output anew; then its description, read again, says so.
            self._forget_job()
            return (
                self._cancelled(task) if called_back else TaskFailed(self._name, task, _failure_kind(error), str(error))
            )
        except Exception as error:  # noqa: BLE001 - an unforeseen failure is reported, tried again, and named at the end
            if self._called_back:
                return self._cancelled(task)
            where = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"
            return TaskFailed(self._name, task, "error", reason)
        return TaskSucceeded(
            worker=self._name,
            task=task,
            inputs=result.inputs,
            skipped=result.skipped,
            reused=result.reused,
            receipt=result.receipt,
            effort=result.effort,
        )

    def _cancelled(self, task: TaskId) -> TaskFailed:
        return TaskFailed(self._name, task, "cancelled", "cancelled")

    @property
    def _called_back(self) -> bool:
        return self._folder is not None and self._folder[1].cancelled

    def _job_folder(self, message: RunTask) -> JobFolder:
        """Return the folder of this task's job. Only one is kept, since its buffers are what memory is planned for."""
        job = message.task.job
        if self._folder is None or self._folder[0] != job:
            self._forget_job()
            reader = self._store.open(spec_uri(message.work, job))
            if reader is None:
                raise StorageError(f"job {job} is not described in its work folder")
            with reader:
                spec = JOB_SPEC.decode(reader.read(0, reader.size))
            self._folder = job, JobFolder(self._store, spec, self._peak_bytes)
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
                os._exit(closed.exit_code)
            match message:
                case RunTask():
                    self._inbox.put(message)
                case CancelTask():
                    self._cancel(message)
                case Introduce():
                    self._introduce()
                case Shutdown():
                    if message.reason:
                        sys.stderr.write(f"distsum: worker {self._name}: {message.reason}\n")
                        sys.stderr.flush()
                    os._exit(0)

    def _cancel(self, message: CancelTask) -> None:
        running, folder = self._running, self._folder
        if running is None or folder is None:
            return
        if (running.task, running.attempt) == (message.task, message.attempt):
            folder[1].cancel()
            timer = threading.Timer(_GRACE_SECONDS, self._stop_waiting, (running,))
            timer.daemon = True
            timer.start()

    def _stop_waiting(self, cancelled: RunTask) -> None:
        """Have a cancelled task's requests fail, should it wait for a server that does not answer."""
        if self._running is cancelled:
            self._store.close()

    def _beat(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._heartbeat_seconds):
            running, folder = self._running, self._folder
            task, attempt = (running.task, running.attempt) if running is not None else (None, 0)
            bytes_read = folder[1].bytes_read if task is not None and folder is not None else 0
            try:
                self._channel.report(Heartbeat(self._name, task, bytes_read, resident_bytes("VmRSS"), attempt))
            except ChannelClosedError as closed:
                os._exit(closed.exit_code)


def _failure_kind(error: DistsumError) -> FailureKind:
    if isinstance(error, InputChangedError):
        return "input_changed"
    return "storage" if isinstance(error, StorageError) else "error"
