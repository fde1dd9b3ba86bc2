"""A job run in this process: the real actors and the real folding, with the order of events drawn from a seed.

Workers are threads of nothing: a task is folded when the seed says that its attempt ends. That makes hundreds of runs a
second, each with other completions, losses and repeated deliveries.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

from distsum import __version__
from distsum.actors.actor import BROKER, CLIENT, MASTER, TRACKER
from distsum.actors.task_tracker import TrackerSettings
from distsum.errors import InexactError
from distsum.jobs import Job
from distsum.messages import (
    PROTOCOL,
    JobFailed,
    JobSpec,
    RunTask,
    SubmitJob,
    TaskFailed,
    TaskId,
    TaskSucceeded,
    WorkerJoined,
)
from distsum.preparation import prepare
from distsum.stores.local import LocalStore
from distsum.worker.adding import BadChildError
from distsum.worker.attempt import Attempt
from distsum.worker.folding import JobFolder
from distsum.worker.nesting import ChildrenMissingError
from tests.stepping import SteppingSystem

if TYPE_CHECKING:
    from pathlib import Path

    from distsum.request import Options, ReductionName


class InProcessRun:
    """One job, prepared and stored; ``run`` takes it to its end.

    Attributes:
        folded: Every task that was folded, in order, with whether its partial was stored already.
    """

    def __init__(
        self, inputs: list[Path] | list[bytes], output: Path, options: Options, reduction: ReductionName = "mean"
    ) -> None:
        self.store = LocalStore()
        self.prepared = prepare(
            reduction, [os.fsencode(path) for path in inputs], os.fsencode(output), options, self.store
        )
        self.job = Job(self.prepared.record, self.prepared.manifest, self.store)
        self.folded: list[tuple[TaskId, bool]] = []
        self.objects_read = 0
        self.objects_written = 0
        self.bytes_read = 0
        self.bytes_written = 0
        self.job.store_inputs()

    @property
    def spec(self) -> JobSpec:
        """The job as its workers know it."""
        return self.job.spec

    def run(self, seed: int = 0, *, workers: int = 3, stop_after: int | None = None) -> bytes | JobFailed | None:
        """Return the result's bytes, the failure, or None if it was stopped after so many attempts."""
        draw = random.Random(seed)
        self.job.begin()
        spec, store = self.spec, self.store
        system = SteppingSystem(TrackerSettings())
        for number in range(workers):
            system.tell(TRACKER, _joined(f"w{number}"))
        folder = JobFolder(store, spec, lambda: 0)
        system.tell(MASTER, SubmitJob(spec, self.job.stored_states()))
        queue: list[RunTask] = []
        attempts = 0
        try:
            while True:
                queue += [message for message in system.take(BROKER) if isinstance(message, RunTask)]
                if ended := system.take(CLIENT):
                    return self._outcome(ended[0])
                if stop_after is not None and attempts >= stop_after:
                    return None
                assert queue, "the job stands still"
                message = queue[draw.randrange(len(queue))]
                if draw.random() < 0.9:
                    # One time in ten the result arrives and the broker hands the task out once more all the same.
                    queue.remove(message)
                attempts += 1
                system.tell(TRACKER, self._fold(folder, message))
        finally:
            folder.close()

    def _fold(self, folder: JobFolder, message: RunTask) -> TaskSucceeded | TaskFailed:
        task = message.task
        try:
            result = folder.fold(Attempt(message), 0.0)
        except ChildrenMissingError as error:
            return TaskFailed("w0", task, "blocked", "missing", missing=error.missing)
        except BadChildError as error:
            return TaskFailed("w0", task, "bad_input", error.error.reason, error.index)
        except InexactError as error:
            return TaskFailed("w0", task, "inexact", error.reason, error.position)
        self.folded.append((task, result.reused))
        self.objects_read += result.effort.objects_read
        self.objects_written += result.effort.objects_written
        self.bytes_read += result.effort.bytes_read
        self.bytes_written += result.effort.bytes_written
        fields: dict[str, Any] = {name: getattr(result, name) for name in result.__struct_fields__}
        return TaskSucceeded(worker="w0", task=task, **fields)

    def _outcome(self, ended: Any) -> bytes | JobFailed:
        if isinstance(ended, JobFailed):
            return ended
        self.success = ended
        with open(self.spec.output, "rb") as file:
            return file.read()


def _joined(name: str) -> WorkerJoined:
    return WorkerJoined(
        name, host="h", pid=1, version=__version__, protocol=PROTOCOL, baseline_bytes=0, start_seconds=0.0
    )
