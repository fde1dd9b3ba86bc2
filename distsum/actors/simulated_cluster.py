"""A whole cluster in one thread: the real actors, and models of all that is around them."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from distsum.actors.actor import CLIENT, MASTER, TRACKER
from distsum.actors.master import Master, MasterSettings
from distsum.actors.modelled_broker import BrokerModel, ModelledBroker
from distsum.actors.modelled_store import ModelledStore
from distsum.actors.modelled_worker import ModelledWorker, WorkerModel
from distsum.actors.simulated import SimulatedSystem
from distsum.actors.task_tracker import TaskTracker, TrackerSettings
from distsum.messages import (
    BackupAnswered,
    BackUpTask,
    CancelJob,
    ChangePriority,
    JobFailed,
    JobSpec,
    JobSucceeded,
    SubmitJob,
)
from distsum.slices import LEAST_NUMBERS, SLICES

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from distsum.actors.speculation import SpeculationSettings
    from distsum.messages import TaskId


def simulated_job(
    job: str, files: int, *, fan_in: int = 5, exponent: int = 1, tiles: int = 1, sliced: bool = True
) -> JobSpec:
    """Return a job of which only the shape matters, and whether its arrays are long enough for slices."""
    length = SLICES * LEAST_NUMBERS if sliced else 10
    return JobSpec(
        job=job,
        reduction="mean",
        files=files,
        count=length * tiles,
        ranged=True,
        fan_in=fan_in,
        exponent=exponent,
        tile_length=length,
        format="npy",
        dtype="<f8",
        shape=(length * tiles,),
        fortran=False,
        offset=128,
        header=b"",
        on_bad_input="fail",
        max_open_files=5,
        buffer_bytes=1 << 20,
        work=b"/work",
        output=b"/out",
        output_format="npy",
        output_dtype="<f8",
        output_header=bytes(128),
        hold_bytes=0,
        output_number_bytes=8,
    )


class SimulatedCluster:
    """Master and tracker, a broker, a store, workers, and the people who submit jobs.

    Args:
        draw: Where all chances come from; the same one gives the same run.
        broker: How the broker behaves.
        tracker: The tracker's settings.
        master: The master's settings.
        work_seconds: Says for a task and its number of children what a worker of speed 1 takes for it.
        checking: Whether actors check themselves after each message.
        replacements: Classes of actors, or of workers, to make in place of others.

    Attributes:
        workers: By name, those too that are gone.
        outcomes: How each job ended, as its submitter was told.
        submitted: How often each job was submitted, while it was not under way.
        cancelled: Jobs that somebody has asked to cancel.
        asked: How many backups somebody has asked for.
        answers: What became of each.
        respawn_seconds: After which a worker that ended is replaced on its host; None for never.
    """

    def __init__(
        self,
        draw: random.Random,
        *,
        broker: BrokerModel | None = None,
        tracker: TrackerSettings | None = None,
        master: MasterSettings | None = None,
        work_seconds: Callable[[TaskId, int], float] | None = None,
        checking: bool = True,
        replacements: Mapping[type, type] | None = None,
    ) -> None:
        self.system = SimulatedSystem(checking=checking, replacements=replacements)
        self.store = ModelledStore()
        self.broker_model = broker or BrokerModel()
        self.broker = ModelledBroker(self.system, self.broker_model, draw)
        self.workers: dict[str, ModelledWorker] = {}
        self.outcomes: dict[str, list[JobSucceeded | JobFailed]] = {}
        self.submitted: Counter[str] = Counter()
        self.cancelled: set[str] = set()
        self.specs: dict[str, JobSpec] = {}
        self.asked = 0
        self.answers: list[BackupAnswered] = []
        self.respawn_seconds: float | None = None
        self._draw = draw
        self._worker_type = (replacements or {}).get(ModelledWorker, ModelledWorker)
        self._tracker = tracker or TrackerSettings()
        self._master = master or MasterSettings()
        self._work_seconds = work_seconds or (lambda _task, _children: 1.0)
        self._open: dict[str, int] = {}
        self._up = False
        self._masters = 0
        self.system.gateway(CLIENT, self._take_outcome)
        self.start_master()

    @property
    def master_up(self) -> bool:
        """Whether there is a master."""
        return self._up

    @property
    def max_attempts(self) -> int:
        """How often a task may fail."""
        return self._tracker.max_attempts

    @property
    def retries_storage(self) -> bool:
        """Whether a failure to read or write is tried again."""
        return self._tracker.retry_storage

    @property
    def speculation(self) -> SpeculationSettings:
        """What is done about stragglers."""
        return self._tracker.speculation

    @property
    def open_jobs(self) -> tuple[str, ...]:
        """Jobs that were submitted and have not ended."""
        return tuple(self._open)

    def add_worker(self, model: WorkerModel) -> ModelledWorker:
        """Start a worker's process."""
        name = f"w{len(self.workers) + 1}"
        worker: ModelledWorker = self._worker_type(
            name, model, self.system, self.broker, self.store, self._work_of, self._draw, self._worker_ended
        )
        self.workers[name] = worker
        return worker

    def living(self) -> list[ModelledWorker]:
        """Return the workers whose processes have not ended."""
        return [worker for worker in self.workers.values() if not worker.gone]

    def submit(self, spec: JobSpec, priority: int = 0) -> None:
        """Submit a job; without a master it waits for the next one."""
        if spec.job not in self._open:
            self.specs[spec.job] = spec
            self.store.describe(spec)
            self.submitted[spec.job] += 1
            self._open[spec.job] = priority
        if self._up:
            self.system.deliver(MASTER, SubmitJob(spec, self.store.states(spec), priority))

    def cancel(self, job: str) -> None:
        """Cancel a job; without a master it is just not submitted to the next one."""
        self.cancelled.add(job)
        if self._up:
            self.system.deliver(MASTER, CancelJob(job))
        elif job in self._open:
            self._take_outcome(JobFailed(job, "cancelled", "cancelled"))

    def change_priority(self, job: str, priority: int) -> None:
        """Give a job another priority."""
        if job in self._open:
            self._open[job] = priority
        if self._up:
            self.system.deliver(MASTER, ChangePriority(job, priority))

    def back_up(self, task: TaskId) -> None:
        """Ask that a task gets a backup now."""
        if self._up:
            self.asked += 1
            self.system.deliver(TRACKER, BackUpTask(task, self.asked))

    def crash_master(self) -> None:
        """End the process of master and tracker; one with an embedded broker takes its workers along."""
        if not self._up:
            return
        self._up = False
        self.system.stop_all()
        if self.broker_model.embedded:
            respawn, self.respawn_seconds = self.respawn_seconds, None
            self.broker.drop_all()
            for worker in self.living():
                worker.crash()
            self.respawn_seconds = respawn
        else:
            self.broker.master_ended()

    def start_master(self, *, purge: bool = True) -> None:
        """Start master and tracker; they take up the jobs that have not ended from what the store holds."""
        if self._up:
            return
        self._up = True
        tracker = msgspec.structs.replace(self._tracker, first_attempt=1 + (self._masters << 32))
        self._masters += 1
        self.system.spawn(MASTER, partial(Master, settings=self._master))
        self.system.spawn(TRACKER, partial(TaskTracker, settings=tracker))
        for job, priority in self._open.items():
            spec = self.specs[job]
            self.store.describe(spec)
            self.system.deliver(MASTER, SubmitJob(spec, self.store.states(spec), priority))
        self.broker.master_began(purge=purge)

    def run(self, limit_seconds: float) -> bool:
        """Go on until every job has ended; return False if one has not by then."""
        system = self.system
        system.settle()
        while self._open:
            moment = system.next_moment()
            if moment is None or moment > limit_seconds:
                return False
            system.step()
        return True

    def _work_of(self, task: TaskId) -> float:
        start, stop = self.store.tree(task.job).children(task.phase, task.index)
        return self._work_seconds(task, stop - start)

    def _take_outcome(self, message: msgspec.Struct) -> None:
        if isinstance(message, JobSucceeded | JobFailed):
            self.outcomes.setdefault(message.job, []).append(message)
            self._open.pop(message.job, None)
        elif isinstance(message, BackupAnswered):
            self.answers.append(message)

    def _worker_ended(self, worker: ModelledWorker) -> None:
        if self.respawn_seconds is not None:
            self.system.after(self.respawn_seconds, self.add_worker, worker.model)
