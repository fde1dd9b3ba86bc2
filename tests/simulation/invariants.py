"""What must hold between the actors whenever no message is under way between them, and when a job ends."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Final

from distsum.actors.actor import MASTER, TRACKER, phase_address
from distsum.actors.modelled_store import Covered
from distsum.actors.phase import ISSUED, READY, STORED, UNNEEDED, WAITING, Phase
from distsum.messages import (
    BackupEnded,
    BackupStarted,
    HelperAdded,
    HelperDeclined,
    JobFailed,
    JobSucceeded,
    SpeculationSwitched,
    TaskId,
    TaskStarted,
    TaskSucceeded,
    WorkerPaused,
    WorkerResumed,
)
from tests.simulation.memory import MemoryBound

if TYPE_CHECKING:
    import msgspec

    from distsum.actors.master import Master
    from distsum.actors.simulated_cluster import SimulatedCluster
    from distsum.actors.speculation import SpeculationSettings
    from distsum.actors.task_tracker import TaskTracker
    from distsum.messages import JobSpec


LOSER_SECONDS: Final = 1.0
"""In which one that is called back must have stopped, where messages are quick."""

LATE_SHARE: Final = 0.1
"""Of the workers that LATE has make copies (section 4 of its paper)."""
REASONS: Final = {
    "guarded": {"silent", "slow_worker", "slow_attempt", "slow_rate"},
    "bare": {"slow_attempt"},
    "spark": {"slow_attempt"},
    "late": {"slow_rate"},
    "mapreduce": {"last_tasks"},
    "none": set(),
}
"""For which each policy copies an attempt of itself."""


QUARANTINE_SECONDS: Final = 1.0
"""In which what was on its way to a worker has reached it."""


class Invariants:
    """Watches a cluster: after every message, and at the end of every job.

    Args:
        cluster: The cluster.
        calm: Whether messages are quick and nothing happens to workers, so that more must hold.

    Attributes:
        ended_seconds: When each job succeeded.
    """

    def __init__(self, cluster: SimulatedCluster, *, calm: bool = False) -> None:
        self._cluster = cluster
        self._system = cluster.system
        self._issued = 0
        self._answered = 0
        self.started = 0
        self.committed = 0
        self._backups: dict[int, BackupStarted] = {}
        self._losers: dict[int, float] = {}
        self._made: set[tuple[TaskId, int]] = set()
        self._declined: set[tuple[int, int]] = set()
        self.calm = calm
        self.ended_seconds: dict[str, float] = {}
        self._off: set[str] = set()
        self._looked_at: dict[tuple[str, int], tuple[bytes, bytes, bytes]] = {}
        self._memory = MemoryBound(cluster)
        self._tracker: object = None
        cluster.system.on_quiet = self.check
        cluster.system.on_event = self.take_event

    def _forget_made(self, tracker: TaskTracker) -> None:
        """Forget what was made for tasks that are taken back: who is given one again finds that, or makes it anew."""
        self._made = {each for each in self._made if each[0] in tracker._tasks}

    def take_event(self, event: msgspec.Struct) -> None:
        """Each node is committed once: a success is told only while its phase waits for it."""
        if isinstance(event, TaskSucceeded) and event.child is not None:
            self._made.add((event.task, event.child))
        elif isinstance(event, TaskSucceeded):
            self._made = {each for each in self._made if each[0] != event.task}
            self.committed += 1
            phase = self._system.actors.get(phase_address(event.task.job, event.task.phase))
            if isinstance(phase, Phase):
                state = phase._states[event.task.tile * phase._width + event.task.index]
                assert state == ISSUED, f"{event.task} is committed in state {state}"

        elif isinstance(event, SpeculationSwitched):
            self._forget_backups_of_others(self._system.actors[TRACKER])
            (self._off.discard if event.on else self._off.add)(event.job)
        elif isinstance(event, JobSucceeded | JobFailed):
            self._off.discard(event.job)
            self._made = {each for each in self._made if each[0].job != event.job}
            if isinstance(event, JobSucceeded):
                self.ended_seconds[event.job] = self._system.clock
        elif isinstance(event, HelperAdded):
            self._forget_backups_of_others(self._system.actors[TRACKER])
            assert self._cluster.speculation.policy == "guarded", "another policy than the default shares a node"
            assert event.attempt in self._backups, f"{event.worker} helps with what has no backup"
            assert (event.task, event.child) not in self._made, f"child {event.child} of {event.task} was made already"
        elif isinstance(event, HelperDeclined):
            self._forget_backups_of_others(self._system.actors[TRACKER])
            assert event.attempt in self._backups, f"{event.worker} is not to help with what has no backup"
            assert (event.attempt, event.child) not in self._declined, f"{event} is told twice"
            self._declined.add((event.attempt, event.child))
        elif isinstance(event, BackupStarted):
            self._forget_backups_of_others(self._system.actors[TRACKER])
            self._check_backup(event)
            self._backups[event.attempt] = event
        elif isinstance(event, BackupEnded):
            started = self._backups.pop(event.attempt, None)
            assert started is not None, f"the backup {event.attempt} ends, and never began"
            assert (started.task, started.worker) == (event.task, event.worker)

    def _forget_backups_of_others(self, tracker: object) -> None:
        """Of what a tracker has begun that is gone nobody tells how it ended."""
        if tracker is not self._tracker:
            self._backups.clear()
            self._made.clear()
            self._off.clear()
        self._tracker = tracker

    def _check_backup(self, event: BackupStarted) -> None:
        """A copy goes to another host, if there is one, for a reason that is true, and there are not too many.

        One that a person has asked for may go to the same host, and is the only one of its task when it begins.
        """
        workers = self._cluster.workers
        tracker: TaskTracker = self._system.actors[TRACKER]
        settings = self._cluster.speculation
        host = workers[event.worker].model.host
        asked = event.reason == "asked"
        if not asked:
            self._check_cap(tracker, settings)
            self._check_reason(event, tracker, settings)
        if len({workers[name].model.host for name in tracker._workers}) > 1 and not asked:
            assert host != workers[event.of_worker].model.host, f"{event.task} is copied on its own host"
        assert event.worker not in {each.worker for each in self._backups.values()}, (
            f"{event.worker} has a copy already"
        )
        copies = len(tracker._tasks[event.task].whole) - 1
        most = settings.copies if settings.policy == "guarded" and not asked else 1
        assert copies <= most, f"there are too many copies of {event.task}"

    def _check_cap(self, tracker: TaskTracker, settings: SpeculationSettings) -> None:
        share = {"guarded": settings.max_share, "late": LATE_SHARE}.get(settings.policy, 1.0)
        most = max(1, math.ceil(share * len(tracker._workers)))
        silence = settings.silence_seconds if settings.policy == "guarded" else math.inf
        heard = {name: each.heard_seconds for name, each in tracker._workers.items()}
        going_on = [
            each
            for each in self._backups.values()
            if self._system.clock - heard.get(each.worker, self._system.clock) <= silence
        ]
        assert len(going_on) < most, f"there are more than {most} backups at once of workers that are heard"

    def _check_reason(self, event: BackupStarted, tracker: TaskTracker, settings: SpeculationSettings) -> None:
        """What is said of an attempt that is copied is so, and enough by the settings."""
        told, now, task = event.evidence, self._system.clock, event.task
        assert task.job not in self._off, f"{task} is copied, and its job is to get no backups"
        assert event.reason in REASONS[settings.policy], f"policy {settings.policy} copies what is {event.reason}"
        attempt = tracker._tasks[task].attempts[event.of_attempt]
        ran = now - attempt.started_seconds
        figures = tracker._known.phases[task.job, task.phase]
        assert told.elapsed_seconds == ran
        assert (told.done, told.tasks) == (figures.done, figures.tasks)
        if event.reason == "silent":
            silent = now - tracker._workers[event.of_worker].heard_seconds
            assert silent > settings.silence_seconds, f"{event.of_worker} was heard {silent} s ago"
        if settings.policy != "guarded":
            if event.reason == "slow_attempt":
                least = settings.quantile * figures.tasks
                enough = figures.done >= least if settings.policy == "spark" else figures.done > least
                assert enough, f"{figures.done} of {figures.tasks} tasks are not {settings.quantile} of them"
            return
        costs = ran
        if event.reason == "slow_worker" and told.copy_seconds is not None:
            costs = told.copy_seconds * (told.slowness or 1.0)
        if event.reason != "silent":
            assert costs > settings.min_seconds, f"{task} is copied after {ran} s, in less than {settings.min_seconds}"
        few = figures.tasks < settings.few or figures.tasks - figures.done == 1
        if event.reason == "slow_attempt" and not few:
            enough = figures.done > settings.quantile * figures.tasks
            assert enough, f"{figures.done} of {figures.tasks} tasks are not more than {settings.quantile} of them"
        if told.left_seconds is not None and told.copy_seconds is not None:
            assert told.left_seconds > settings.gain * told.copy_seconds, f"{task} is copied, and ends sooner"

    def check(self) -> None:
        """All actors know the same."""
        actors = self._system.actors
        master: Master | None = actors.get(MASTER)
        tracker: TaskTracker | None = actors.get(TRACKER)
        self._forget_backups_of_others(tracker)
        if master is None or tracker is None:
            return
        self._memory.check()
        if self._made:
            self._forget_made(tracker)
        if self.calm:
            self._check_losers(tracker)
        self._check_answers()
        racing = {number for task in tracker._tasks.values() for number in task.backups}
        assert racing == self._backups.keys(), "other backups are under way than were told"
        issued = sum(job.issued for job in master._jobs.values())
        assert issued <= max(master._slots, self._issued), f"{issued} tasks are out, for {master._slots} slots"
        self._issued = issued
        assert master._slots == tracker._slots
        assert len(tracker._tasks) == issued, "the master counts other tasks than the tracker has"
        for task in tracker._tasks:
            assert task.job in master._jobs, f"{task} is out, and its job has ended"
            assert self._cluster.broker.pending[task], f"{task} is out, and lost"
        phases = {address for address in actors if address not in {MASTER, TRACKER}}
        known = {phase_address(name, each) for name, job in master._jobs.items() for each in range(1, job.phases + 1)}
        assert phases == known, "phases outlive their jobs"
        for name, job in master._jobs.items():
            self._check_job(name, job.ready, job.issued, tracker)

    def _check_losers(self, tracker: TaskTracker) -> None:
        """Nobody goes on with a task that is done, but for as long as it takes to call somebody back."""
        now = self._system.clock
        losers = {}
        for worker in self._cluster.living():
            if (attempt := worker._attempt) is not None and attempt.message.task not in tracker._tasks:
                losers[attempt.message.attempt] = self._losers.get(attempt.message.attempt, now)
                assert now - losers[attempt.message.attempt] < LOSER_SECONDS, f"{worker.name} is not called back"
        self._losers = losers

    def _check_answers(self) -> None:
        """Who asks for a backup is told what became of that, once, and it is true."""
        cluster = self._cluster
        assert len(cluster.answers) == cluster.asked, "somebody asked for a backup, and was not answered once"
        for answer in cluster.answers[self._answered :]:
            assert (answer.started is None) != (answer.refusal is None)
            if answer.started is not None:
                assert self._backups.get(answer.started.attempt) == answer.started, "the backup that was told is none"
        self._answered = cluster.asked

    def _check_job(self, name: str, ready: list[int], issued: int, tracker: TaskTracker) -> None:
        phases: list[Phase] = [self._system.actors[phase_address(name, each)] for each in range(1, len(ready))]
        assert ready[1:] == [phase._ready for phase in phases], "the master counts other tasks ready than the phases"
        assert issued == sum(phase._states.count(ISSUED) for phase in phases), "a task is issued, and nobody has it"
        for phase in phases:
            figures = tracker._known.phases[name, phase._phase]
            passing = [phase._width - 1] if phase._tree.passes_through(phase._phase, phase._width - 1) else []
            states = phase._states
            if passing:
                states = bytearray(state for number, state in enumerate(states) if number % phase._width not in passing)
            told = figures.tasks, figures.done
            found = len(states) - states.count(UNNEEDED), states.count(STORED)
            assert told == found, f"the tracker counts {told} tasks and done in phase {phase._phase}, of {found}"
        for task in tracker._tasks:
            if task.job == name:
                phase = phases[task.phase - 1]
                assert phase._states[task.tile * phase._width + task.index] == ISSUED, f"{task} was not issued"
        for below, phase in itertools.pairwise(phases):
            self._check_children(phase, below, last=phase is phases[-1])

    def _check_children(self, phase: Phase, below: Phase, *, last: bool) -> None:
        looked_at = bytes(phase._states), bytes(phase._children), bytes(below._states)
        place = phase._spec.job, phase._phase
        if self._looked_at.get(place) == looked_at:
            return  # nothing has happened there
        self._looked_at[place] = looked_at
        stored = bytes(state == STORED for state in below._states)
        assert phase._children == stored, "a phase knows other children stored than the phase below it"
        for number, state in enumerate(phase._states):
            if state in {STORED, UNNEEDED}:
                continue
            tile, index = divmod(number, phase._width)
            start, stop = phase._tree.children(phase._phase, index)
            base = tile * phase._width_below
            children = below._states[base + start : base + stop]
            if state == WAITING:
                assert children.count(STORED) < len(children), f"node {index} waits for nothing"
                assert UNNEEDED not in children, f"node {index} waits for children that nobody makes"
            elif not (last and UNNEEDED in children):  # a stored root has only its range of the result to write
                assert state in {READY, ISSUED}
                assert children.count(STORED) == len(children), f"node {index} is out before its children are stored"

    def check_end(self) -> None:
        """Every job ended once, with every input in every range once, or with a reason that is true."""
        cluster = self._cluster
        for name, spec in cluster.specs.items():
            outcomes = cluster.outcomes.get(name, [])
            times = cluster.submitted[name]
            assert len(outcomes) == times, f"job {name} was submitted {times} times and ended {len(outcomes)} times"
            for outcome in outcomes:
                if isinstance(outcome, JobSucceeded):
                    self._check_success(spec, outcome, last=outcome is outcomes[-1])
                else:
                    self._check_failure(outcome)

    def check_calm(self) -> None:
        """Everybody knows who is there."""
        tracker: TaskTracker = self._system.actors[TRACKER]
        living = {worker.name for worker in self._cluster.living()}
        known = set(tracker._workers)
        assert known == living, f"the tracker knows {sorted(known)}, and there are {sorted(living)}"

    def _check_success(self, spec: JobSpec, outcome: JobSucceeded, *, last: bool) -> None:
        assert outcome.inputs == spec.files, f"{outcome.inputs} inputs are told, of {spec.files}"
        poisoned = {task.job for task in self._cluster.store.poison}
        assert spec.job not in poisoned, "a task that cannot be made was made"
        receipts = tuple(b"%d" % tile for tile in range(spec.tiles))
        assert outcome.receipts == receipts, f"the receipts are {outcome.receipts}"
        if not last:
            return  # the result was begun anew since
        whole = {tile: Covered(0, spec.files) for tile in range(spec.tiles)}
        assert self._cluster.store.results.get(spec.job) == whole, "the result lacks some inputs"

    def _check_failure(self, outcome: JobFailed) -> None:
        cluster = self._cluster
        if outcome.kind == "cancelled":
            assert outcome.job in cluster.cancelled
            return
        task = outcome.task
        assert isinstance(task, TaskId)
        if outcome.kind == "abandoned":
            assert task in cluster.broker.dead, f"{task} was abandoned, and not dead-lettered"
        else:
            failures = sum(worker.failed.get(task, 0) for worker in cluster.workers.values())
            final = outcome.kind == "storage" and not cluster.retries_storage
            assert failures >= (1 if final else cluster.max_attempts), f"{task} was given up after {failures} failures"


class BadWorkerInvariants(Invariants):
    """Watches a cluster of which some workers fail everything: they harm no job, and are given nothing any more."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        super().__init__(cluster)
        self.quarantined: dict[str, float] = {}

    def take_event(self, event: msgspec.Struct) -> None:
        """Nobody begins a task who is quarantined; nothing ends that."""
        super().take_event(event)
        now = self._system.clock
        assert not isinstance(event, JobFailed), f"job {event.job} fails, and others could have done it"
        if isinstance(event, WorkerPaused) and event.quarantined:
            self.quarantined.setdefault(event.worker, now)
        elif isinstance(event, WorkerResumed):
            assert event.worker not in self.quarantined, f"{event.worker} is resumed, and nobody has asked for that"
        elif isinstance(event, TaskStarted) and event.worker in self.quarantined:
            since = now - self.quarantined[event.worker]
            assert since < QUARANTINE_SECONDS, f"{event.worker} begins a task {since:.1f} s after its quarantine began"
