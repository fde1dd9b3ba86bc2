"""The master: which jobs there are, and which of them gets the next free slot."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from distsum.actors.actor import BROKER, CLIENT, TRACKER, phase_address
from distsum.actors.phase import STORED, UNNEEDED, Phase, without_passing
from distsum.messages import (
    CancelJob,
    ChangePriority,
    CountPhase,
    JobFailed,
    JobQueued,
    JobSpec,
    JobStarted,
    JobSucceeded,
    PhaseCompleted,
    Skipped,
    SlotsChanged,
    StartPhase,
    SubmitJob,
    TakeTasks,
    TaskGaveUp,
    TaskSettled,
    TasksReady,
    TaskSucceeded,
    WorkersCannotStart,
)
from distsum.tree import Tree

if TYPE_CHECKING:
    from distsum.actors.actor import Context


class _Job:
    """One admitted job: what can be taken of each phase, and what its last phase has given."""

    def __init__(self, spec: JobSpec, priority: int) -> None:
        self.spec = spec
        self.priority = priority
        self.phases = Tree(files=spec.files, fan_in=spec.fan_in, exponent=spec.exponent).phases
        self.ready = [0] * (self.phases + 1)
        self.issued = 0
        self.receipts = [b""] * spec.tiles
        self.inputs = 0
        self.skipped: tuple[Skipped, ...] = ()


class MasterSettings(msgspec.Struct, frozen=True):
    """What the master may be told.

    Attributes:
        running_jobs: Jobs of one priority that run at once; the others wait in the order in which they came. A few, so
            that a slot which one cannot use goes to another; not all, or every one of them would end last.
    """

    running_jobs: int = 4


class Master:
    """Admits jobs, gives free slots to them, and ends them.

    A free slot goes to the job of the highest priority, among equals to the one with the fewest tasks out, and within a
    job to the last phase that has a ready task: partials are used up while they are young.
    """

    def __init__(self, context: Context, settings: MasterSettings) -> None:
        self._context = context
        self._settings = settings
        self._jobs: dict[str, _Job] = {}
        self._waiting: dict[str, SubmitJob] = {}
        self._slots = 0

    def receive(self, message: msgspec.Struct) -> None:
        """Take one message."""
        match message:
            case SlotsChanged():
                self._slots = message.slots
            case TasksReady():
                if job := self._jobs.get(message.job):
                    job.ready[message.phase] += message.count
            case TaskSettled():
                if job := self._jobs.get(message.job):
                    job.issued -= 1
            case TaskSucceeded():
                self._keep_result(message)
            case PhaseCompleted():
                self._complete(message.job, message.phase)
            case SubmitJob():
                self._submit(message)
            case ChangePriority():
                self._change_priority(message)
            case TaskGaveUp():
                self._fail(JobFailed(message.task.job, message.kind, message.reason, message.task, message.index))
            case CancelJob():
                self._fail(JobFailed(message.job, "cancelled", "cancelled"))
            case WorkersCannotStart():
                for job_id in [*self._jobs, *self._waiting]:
                    self._fail(JobFailed(job_id, "error", message.reason))
        self._hand_out()

    def check(self) -> None:
        """Raise AssertionError where the counts disagree; called by simulations after each message."""
        assert not self._jobs.keys() & self._waiting.keys()
        assert all(job.issued >= 0 for job in self._jobs.values())

    def _submit(self, message: SubmitJob) -> None:
        job = message.spec.job
        if job in self._jobs or job in self._waiting:
            return  # said twice
        self._waiting[job] = message
        self._admit_waiting()
        if job in self._waiting:
            self._context.emit(JobQueued(job, message.priority))

    def _change_priority(self, message: ChangePriority) -> None:
        if (job := self._jobs.get(message.job)) is not None:
            job.priority = message.priority
        elif (waiting := self._waiting.get(message.job)) is not None:
            self._waiting[message.job] = msgspec.structs.replace(waiting, priority=message.priority)
        self._admit_waiting()

    def _admit_waiting(self) -> None:
        """Start the jobs for which there is room: a job is kept waiting only by those of at least its priority."""
        for message in sorted(self._waiting.values(), key=lambda each: -each.priority):
            ahead = sum(job.priority >= message.priority for job in self._jobs.values())
            if ahead >= self._settings.running_jobs:
                return
            del self._waiting[message.spec.job]
            self._admit(message)

    def _admit(self, message: SubmitJob) -> None:
        spec = message.spec
        job = _Job(spec, message.priority)
        self._jobs[spec.job] = job
        tree = Tree(files=spec.files, fan_in=spec.fan_in, exponent=spec.exponent)
        made = [without_passing(states, tree, phase) for phase, states in enumerate(message.states, start=1)]
        reused = tuple(states.count(STORED) for states in made)
        tasks = tuple(len(states) - states.count(UNNEEDED) for states in made)
        self._context.emit(JobStarted(spec.job, spec.reduction, spec.files, tasks, reused))
        below = b""
        for phase, states in enumerate(message.states, start=1):
            address = phase_address(spec.job, phase)
            new = partial(Phase, spec=spec, phase=phase, states=states, below=below, resume=message.resume)
            self._context.spawn(address, new)
            self._context.send(TRACKER, CountPhase(spec.job, phase, tasks[phase - 1], reused[phase - 1]))
            below = states
        for phase in range(1, job.phases + 1):
            self._context.send(phase_address(spec.job, phase), StartPhase())

    def _hand_out(self) -> None:
        free = self._slots - sum(job.issued for job in self._jobs.values())
        while free > 0:
            candidates = [job for job in self._jobs.values() if max(job.ready) > 0]
            if not candidates:
                return
            job = min(candidates, key=lambda each: (-each.priority, each.issued))
            phase = max(phase for phase, count in enumerate(job.ready) if count > 0)
            # With one job to serve there is nothing to share, so all its tasks go out in one message.
            count = min(free, job.ready[phase]) if len(candidates) == 1 else 1
            job.ready[phase] -= count
            job.issued += count
            free -= count
            self._context.send(phase_address(job.spec.job, phase), TakeTasks(count))

    def _keep_result(self, message: TaskSucceeded) -> None:
        job = self._jobs.get(message.task.job)
        if job is not None:
            job.receipts[message.task.tile] = message.receipt
            job.inputs = message.inputs
            job.skipped = message.skipped

    def _complete(self, job_id: str, phase: int) -> None:
        job = self._jobs.get(job_id)
        if job is None or phase < job.phases:
            return
        self._end(job)
        done = JobSucceeded(job_id, job.inputs, job.skipped, tuple(job.receipts))
        self._context.emit(done)
        self._context.send(CLIENT, done)

    def _fail(self, failure: JobFailed) -> None:
        if (job := self._jobs.get(failure.job)) is not None:
            self._end(job)
        elif self._waiting.pop(failure.job, None) is None:
            return
        self._context.emit(failure)
        self._context.send(CLIENT, failure)

    def _end(self, job: _Job) -> None:
        del self._jobs[job.spec.job]
        for phase in range(1, job.phases + 1):
            self._context.stop(phase_address(job.spec.job, phase))
        for address in (TRACKER, BROKER):
            self._context.send(address, CancelJob(job.spec.job))
        self._admit_waiting()
