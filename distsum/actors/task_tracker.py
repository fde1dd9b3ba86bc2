"""The task tracker: workers, the tasks that are out, and what happened to each attempt."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from distsum import __version__
from distsum.actors.actor import BROKER, CLIENT, MASTER, WORKERS, phase_address
from distsum.actors.attempts import (
    SLOWNESS_TASKS,
    Attempt,
    Backup,
    Known,
    KnownWorker,
    Loser,
    OutTask,
    PhaseFigures,
    Rates,
)
from distsum.actors.sharing import AddHelper, DeclineHelper
from distsum.actors.speculation import Decline, Durations, SpeculationSettings, StartBackup, decide, decide_asked
from distsum.messages import (
    PROTOCOL,
    AssignTask,
    BackupAnswered,
    BackupDeclined,
    BackupEnded,
    BackupStarted,
    BackUpTask,
    CancelJob,
    CancelTask,
    CheckLeases,
    CheckStragglers,
    CountPhase,
    DismissWorker,
    Heartbeat,
    HelperAdded,
    HelperDeclined,
    Introduce,
    KillWorker,
    LoserStopped,
    OfferTask,
    PauseWorker,
    ResumeWorker,
    RunTask,
    ShareTask,
    Shutdown,
    SlotsChanged,
    SpeculationSwitched,
    SwitchSpeculation,
    TaskBlocked,
    TaskDeadLettered,
    TaskFailed,
    TaskGaveUp,
    TaskId,
    TaskRetried,
    TaskReturned,
    TaskSettled,
    TaskStarted,
    TaskSucceeded,
    TellWorker,
    WorkerFreed,
    WorkerJoined,
    WorkerLost,
    WorkerPaused,
    WorkerRefused,
    WorkerResumed,
)

if TYPE_CHECKING:
    from distsum.actors.actor import Context
    from distsum.messages import BackupOutcome

_ABSENT_KEPT = 1000
"""Workers that are gone of which it is remembered why they were paused, and what they failed."""
_MOST_REPEATS = 4
"""So many times ``max_attempts`` a task may fail where it has failed before, while others could try it."""
_LOOK_SECONDS = 0.05
"""Stragglers are looked for so long after something has happened that could make one."""


class TrackerSettings(msgspec.Struct, frozen=True):
    """What the tracker may be told.

    Attributes:
        tasks_queued_per_worker: Tasks kept at the broker for each worker beyond the one it runs. Few, so that each is
            decided late; not none, so that no worker waits for a round trip.
        max_attempts: How often a task may fail, or take its worker down, before its job fails. While others could try
            it, failures on one host count once, and those of one worker.
        lease_seconds: Silence after which a worker counts as lost.
        retry_storage: Whether a failure to read or write is tried again: on other hosts it may not come back, on one
            machine it would.
        quarantine_failures: Failed attempts in a row, of two tasks or more, after which a worker is paused if others
            have done some meanwhile: what fails everywhere is no worker's fault.
        first_attempt: Where attempts are counted from. Where workers outlive the master it must be above all numbers
            that an earlier one has given (the time in nanoseconds is), so that what they still say of its attempts is
            told apart: the result that those wrote to may be another one.
        version: What workers must be: others might add differently, or not understand.
        speculation: What is done about stragglers.
    """

    tasks_queued_per_worker: int = 1
    max_attempts: int = 4
    lease_seconds: float = 20.0
    retry_storage: bool = False
    quarantine_failures: int = 3
    first_attempt: int = 1
    version: str = __version__
    speculation: SpeculationSettings = SpeculationSettings()


class TaskTracker:
    """Keeps a short queue at the broker, gives stragglers a backup, and settles every task once.

    The broker hands tasks to workers, takes them back from lost ones and counts deliveries; the tracker decides how
    many are out, what is tried again, what a second worker is given too, and what is given up.
    """

    def __init__(self, context: Context, settings: TrackerSettings) -> None:
        self._context = context
        self._settings = settings
        self._known = Known({}, {}, {}, Rates())
        self._workers = self._known.workers
        self._tasks = self._known.tasks
        self._absent: dict[str, KnownWorker] = {}
        """Lost workers that were paused or had failed last; they may come back under their names."""
        self._resting: dict[str, TaskId] = {}
        self._losers: dict[int, Loser] = {}
        """Attempts that were called back and have not answered, by their numbers."""
        self._refusals: dict[tuple[str, str], set[str]] = {}
        """Who may not go where tasks of a job would lead them, by job and place."""
        self._not_copied: set[str] = set()
        """Jobs of which somebody has asked that they get no backups."""
        self._vanished = 0
        """Workers that were lost after a silence: they were cut off, or froze."""
        self._taking = 0
        self._slots = 0
        self._successes = 0
        self._next_attempt = settings.first_attempt
        self._looking = False
        context.set_timer(settings.lease_seconds / 4, CheckLeases())
        if settings.speculation.policy != "none":
            context.set_timer(settings.speculation.check_seconds, CheckStragglers(periodic=True))

    def receive(self, message: msgspec.Struct) -> None:
        """Take one message."""
        match message:
            case OfferTask():
                self._offer(message)
            case TaskSucceeded():
                self._succeeded(message)
            case TaskStarted():
                self._started(message)
            case Heartbeat():
                self._beat(message)
            case TaskFailed():
                self._failed(message)
            case TaskReturned():
                self._context.emit(message)
            case TaskDeadLettered():
                self._dead_lettered(message)
            case WorkerJoined():
                self._join(message)
            case WorkerLost():
                self._lose(message)
            case CountPhase():
                self._count(message)
                return  # it comes before the phase, and says nothing of slots
            case CheckStragglers():
                self._check_stragglers(message)
            case CheckLeases():
                self._check_leases()
            case _:
                self._obey(message)
        if self._resting:
            self._end_rests()
        self._tell_slots()

    def _obey(self, message: msgspec.Struct) -> None:
        match message:
            case PauseWorker():
                self._pause(message.worker, message.reason)
            case ResumeWorker():
                self._resume(message.worker)
            case DismissWorker():
                self._dismiss(message)
            case CancelJob():
                self._cancel(message.job)
            case SwitchSpeculation():
                self._switch_speculation(message)
            case BackUpTask():
                self._back_up(message)

    def check(self) -> None:
        """Raise AssertionError where the state contradicts itself; called by simulations after each message."""
        settings, known = self._settings, self._known
        assert self._taking == sum(not worker.paused for worker in self._workers.values())
        told = max(1, self._taking) * (1 + settings.tasks_queued_per_worker)
        assert self._slots == told or not (self._slots or self._workers)
        assert all(task.whole and task.failures < settings.max_attempts for task in self._tasks.values())
        assert all(worker.paused for worker in self._workers.values() if worker.dismissed is not None)
        resting = {name: each.resting for name, each in self._workers.items() if each.resting is not None}
        assert self._resting == resting
        assert all(self._workers[name].paused and task in self._tasks for name, task in resting.items())
        assert len(self._absent) <= _ABSENT_KEPT
        assert self._workers.keys().isdisjoint(self._absent)
        attempts = [attempt for task in self._tasks.values() for attempt in task.attempts.values()]
        assert known.queued == sum(attempt.queued for attempt in attempts)
        assert known.backups == sum(len(task.backups) for task in self._tasks.values())
        assert all(figures.done <= figures.tasks for figures in known.phases.values())
        assert all(task.backups.keys() <= task.attempts.keys() for task in self._tasks.values())
        for task in self._tasks.values():
            making = [attempt.child for attempt in task.attempts.values() if attempt.child is not None]
            assert len(making) == len(task.begun - task.made), "a child is made twice"
        assert self._not_copied <= {job for job, _ in known.phases}

    def _tell_slots(self) -> None:
        """Keep the queue as long as the settings say: with no worker yet, one task waits for the first."""
        slots = max(1, self._taking) * (1 + self._settings.tasks_queued_per_worker)
        if slots != self._slots:
            self._slots = slots
            self._context.send(MASTER, SlotsChanged(slots))

    # Workers ----------------------------------------------------------------------------------------------------------

    def _join(self, message: WorkerJoined) -> None:
        reason = None
        if message.protocol != PROTOCOL:
            reason = f"it speaks protocol {message.protocol}, and this service protocol {PROTOCOL}"
        elif message.version != self._settings.version:
            reason = f"it is distsum {message.version}, and this service {self._settings.version}"
        if reason is not None:
            self._context.emit(WorkerRefused(message.worker, message.host, reason))
            self._context.send(WORKERS, TellWorker(message.worker, Shutdown(f"refused: {reason}; install the same")))
            return
        if (known := self._workers.get(message.worker)) is not None:
            # It has only lost its connection for a while, and goes on with what it had.
            known.heard_seconds = self._context.now()
            if known.paused:
                self._send_pause(message.worker, known)
                return
            self._context.emit(message)
            if message.paused:
                self._context.send(WORKERS, ResumeWorker(message.worker))  # as was said while it could not hear it
            return
        before = self._absent.pop(message.worker, None)
        known = KnownWorker(message.host, self._context.now())
        self._taking += 1
        self._workers[message.worker] = known
        self._context.emit(message)
        if before is None:
            if message.paused:
                self._pause(message.worker, message.paused, quarantined=message.quarantined)
            return
        known.failures, known.failing, known.failing_since = before.failures, before.failing, before.failing_since
        if before.paused:
            self._pause(message.worker, before.reason, quarantined=before.quarantined)
            known.dismissed = before.dismissed
        elif message.paused:
            self._context.send(WORKERS, ResumeWorker(message.worker))

    def _remember(self, worker: str, known: KnownWorker) -> None:
        """Remember what was decided of a lost worker: that its connection ends, or the broker, tells nothing of it."""
        if known.resting is not None:
            del self._resting[worker]
            known.paused, known.resting = False, None
            self._context.send(WORKERS, ResumeWorker(worker))  # or the broker would pause it again when it is back
        if known.paused or known.failures:
            known.running = known.assigned = known.expected = None
            self._absent[worker] = known
            if len(self._absent) > _ABSENT_KEPT:
                del self._absent[next(iter(self._absent))]

    def _lose(self, message: WorkerLost) -> None:
        if (known := self._workers.pop(message.worker, None)) is not None:
            self._taking -= not known.paused
            # In this order whatever strings hash to, so that a seed repeats a simulation in another process, too.
            for held in dict.fromkeys((known.running, known.assigned)):
                if held is not None:
                    self._return(message.worker, *held)
            self._remember(message.worker, known)
        for number in [number for number, loser in self._losers.items() if loser.worker == message.worker]:
            del self._losers[number]
        silent = self._context.now() - known.heard_seconds if known is not None else 0.0
        self._vanished += silent > self._settings.speculation.silence_seconds
        self._context.emit(msgspec.structs.replace(message, silent_seconds=silent))

    def _return(self, worker: str, task_id: TaskId, number: int) -> None:
        """Take back an attempt whose worker is lost: what came from the queue is there again, the rest is no more."""
        task = self._tasks.get(task_id)
        attempt = task.attempts.get(number) if task is not None else None
        if task is None or attempt is None or worker not in {attempt.worker, attempt.assigned}:
            return
        if attempt.assigned is None:
            task.deaths += attempt.worker is not None
            attempt.worker, attempt.started_seconds = None, self._context.now()
            self._known.queued += 1
            return
        self._drop(task_id, task, number)
        self._publish_if_none(task_id, task)

    def _heard(self, worker: str, running: tuple[TaskId, int] | None) -> None:
        if (known := self._workers.get(worker)) is not None:
            known.heard_seconds = self._context.now()
            known.running = running
            if running is not None and known.assigned not in {None, running} and self._attempt(*running) is not None:
                self._withdraw(worker, known)
            if running is None and known.dismissed is not None:
                self._context.send(WORKERS, TellWorker(worker, Shutdown(known.dismissed)))

    def _withdraw(self, worker: str, known: KnownWorker) -> None:
        """Take back what a worker was handed past the queue, since another worker may be idle.

        The broker has given it a task at the same time, and it would only begin when it has done that one; or it has
        not answered.
        """
        assert known.assigned is not None
        (task_id, number), known.assigned = known.assigned, None
        self._context.send(WORKERS, TellWorker(worker, CancelTask(task_id, number)))
        if (task := self._tasks.get(task_id)) is not None and number in task.attempts:
            self._drop(task_id, task, number)
            self._publish_if_none(task_id, task)
            self._look_soon()

    def _answered(self, worker: str, task: TaskId, attempt: int) -> None:
        """Note that a worker is done with an attempt."""
        if (known := self._workers.get(worker)) is not None and known.assigned == (task, attempt):
            known.assigned = None
        self._heard(worker, None)

    def _beat(self, message: Heartbeat) -> None:
        if message.worker not in self._workers:
            # It works for a master that has ended, or was given up too early.
            self._context.send(WORKERS, TellWorker(message.worker, Introduce()))
            return
        running = (message.task, message.attempt) if message.task is not None else None
        self._heard(message.worker, running)
        if running is not None and (attempt := self._attempt(*running)) is not None:
            if attempt.worker != message.worker:
                # That it had begun got lost on the way, and with it whether it was the first.
                self._begin(attempt, message.worker, resumed=True)
            added = message.progress if message.added is None else message.added
            attempt.tell(message.progress, added, message.bytes_read, self._context.now())
        if running is not None:
            self._call_back_unwanted(message.worker, *running)
        self._context.emit(message)

    def _call_back_unwanted(self, worker: str, task: TaskId, attempt: int) -> None:
        """Stop an attempt for a job of which nothing is out: it has ended, and that did not reach the worker.

        It may just have taken the task, or have been cut off. Where the job does go on (it waits for others, or is
        being taken over), the attempt is made again.
        """
        if task not in self._tasks and not any(each.job == task.job for each in self._tasks):
            self._context.send(WORKERS, TellWorker(worker, CancelTask(task, attempt)))

    def _pause(self, worker: str, reason: str, *, quarantined: bool = False, resting: TaskId | None = None) -> None:
        """Pause a worker, unless it is; one that only rests is paused for more than that now."""
        known = self._workers.get(worker)
        if known is None or (known.paused and (known.resting is None or resting is not None)):
            return
        self._taking -= not known.paused
        known.paused, known.reason, known.quarantined, known.resting = True, reason, quarantined, resting
        if resting is not None:
            self._resting[worker] = resting
        else:
            self._resting.pop(worker, None)
        self._send_pause(worker, known)
        self._context.emit(WorkerPaused(worker, reason, quarantined))

    def _send_pause(self, worker: str, known: KnownWorker) -> None:
        rests = known.resting is not None
        self._context.send(WORKERS, PauseWorker(worker, known.reason, known.quarantined, rests))

    def _resume(self, worker: str) -> None:
        if worker in self._absent:
            # Remembered all the same: it may come and say that it is paused.
            self._absent[worker] = KnownWorker(self._absent[worker].host, self._context.now())
            self._context.send(WORKERS, ResumeWorker(worker))  # since the broker may not know that it is away
        if (known := self._workers.get(worker)) is not None and known.paused:
            known.failures, known.failing = 0, ()
            self._take_again(worker, known)

    def _take_again(self, worker: str, known: KnownWorker) -> None:
        known.paused, known.resting, known.dismissed = False, None, None
        self._resting.pop(worker, None)
        self._taking += 1
        self._context.send(WORKERS, ResumeWorker(worker))
        self._context.emit(WorkerResumed(worker))

    def _end_rests(self) -> None:
        """Have those take tasks again whose task others have begun, or cannot: then it is as good as any."""
        for worker, task_id in list(self._resting.items()):
            known, task = self._workers[worker], self._tasks.get(task_id)
            if task is not None and task.is_repeat(worker, known.host, self._workers):
                runners = {each.worker for each in task.whole.values() if each.worker is not None}
                if runners <= task.failed_on.keys():
                    continue
            self._take_again(worker, known)

    def _dismiss(self, message: DismissWorker) -> None:
        self._pause(message.worker, message.reason)
        if (known := self._workers.get(message.worker)) is not None:
            known.dismissed = message.reason
            self._heard(message.worker, known.running)

    def _judge(self, worker: str, task: TaskId, reason: str) -> None:
        """Pause a worker whose attempts fail one after the other, as long as another one goes on."""
        known = self._workers.get(worker)
        if known is None:
            return
        if not known.failures:
            known.failing_since = self._successes
        known.failures += 1
        if task not in known.failing:
            known.failing = (*known.failing, task)[:2]
        others_succeed = self._successes > known.failing_since
        if self._fails_all(known) and others_succeed and self._taking > (not known.paused):
            told = f"{known.failures} attempts failed in a row, the last with: {reason}"
            self._pause(worker, told, quarantined=True)

    def _fails_all(self, known: KnownWorker) -> bool:
        """Whether a worker's last attempts have failed, at more than one task."""
        return known.failures >= self._settings.quarantine_failures and len(known.failing) > 1

    def _cancel(self, job: str) -> None:
        for name, worker in self._workers.items():
            running = worker.running
            if running is not None and running[0].job == job and self._attempt(*running) is None:
                self._context.send(WORKERS, TellWorker(name, CancelTask(*running)))
        for task in [task for task in self._tasks if task.job == job]:
            self._take_off(task, "cancelled")
        for key in [key for key in self._known.phases if key[0] == job]:
            del self._known.phases[key]
        for place in [place for place in self._refusals if place[0] == job]:
            del self._refusals[place]
        self._not_copied.discard(job)

    # Tasks ------------------------------------------------------------------------------------------------------------

    def _offer(self, message: OfferTask) -> None:
        task = OutTask(message.work, self._next_attempt, message.resume, message.splits, message.sliced, {})
        self._tasks[message.task] = task
        self._publish(message.task, task)

    def _count(self, message: CountPhase) -> None:
        figures = self._known.phases.setdefault((message.job, message.phase), PhaseFigures(0, 0, Durations()))
        figures.tasks += message.tasks
        figures.done += message.done

    def _attempt(self, task: TaskId, number: int) -> Attempt | None:
        out = self._tasks.get(task)
        return out.attempts.get(number) if out is not None else None

    def _number(self) -> int:
        self._next_attempt += 1
        return self._next_attempt - 1

    def _publish(self, task_id: TaskId, task: OutTask) -> None:
        """Queue a new attempt."""
        number, task.vanished = self._number(), self._vanished
        task.attempts[number] = Attempt(started_seconds=self._context.now())
        self._known.queued += 1
        resume = task.resume or number != task.first
        self._context.send(BROKER, self._order(task_id, task, number, resume=resume))

    def _order(self, task_id: TaskId, task: OutTask, number: int, *, resume: bool) -> RunTask:
        attempt, first = task.attempts[number], self._settings.first_attempt
        return RunTask(
            task_id,
            task.work,
            attempt=number,
            resume=resume,
            child=attempt.child,
            sliced=attempt.sliced,
            first_attempt=first,
        )

    def _publish_if_none(self, task_id: TaskId, task: OutTask) -> None:
        if not task.whole:
            self._publish(task_id, task)

    def _drop(self, task_id: TaskId, task: OutTask, number: int, bytes_read: int | None = None) -> Attempt:
        """Take an attempt away that has ended without a result; ``bytes_read`` is None where it did not say that."""
        attempt = task.attempts.pop(number)
        task.declined = {each for each in task.declined if each[0] != number}
        self._known.queued -= attempt.queued
        wasted = attempt.bytes_read if bytes_read is None else bytes_read
        if (backup := task.backups.get(number)) is not None:
            backup.wasted_bytes += wasted
            task.left |= backup.children
            self._end_backup(task_id, task, number, "moot")
        elif attempt.backup in task.backups:
            task.backups[attempt.backup].wasted_bytes += wasted
        return attempt

    def _begin(self, attempt: Attempt, worker: str, *, resumed: bool) -> None:
        self._known.queued -= attempt.queued
        attempt.begin(worker, self._context.now(), resumed=resumed)

    def _started(self, message: TaskStarted) -> None:
        self._heard(message.worker, (message.task, message.attempt))
        attempt = self._attempt(message.task, message.attempt)
        if attempt is None:
            self._call_back_unwanted(message.worker, message.task, message.attempt)
            return
        task = self._tasks[message.task]
        resumed = task.resume or message.attempt != task.first or message.delivery > 1
        self._begin(attempt, message.worker, resumed=resumed)
        self._context.emit(message)
        if (known := self._workers.get(message.worker)) is not None and known.slowness is not None:
            self._look_soon()

    def _succeeded(self, message: TaskSucceeded) -> None:
        self._answered(message.worker, message.task, message.attempt)
        self._stopped(message.attempt, message.effort.bytes_read)
        self._successes += 1
        known = self._workers.get(message.worker)
        if known is not None:
            known.failures, known.failing = 0, ()
        task = self._tasks.get(message.task)
        if task is None or message.attempt < task.first:
            # A second success: the same bytes are stored, and nothing is to do. Or one from before the job came again,
            # whose range of the result may have been written before that was begun anew.
            self._context.emit(WorkerFreed(message.worker, message.task, message.attempt))
            return
        if message.child is not None:
            self._child_made(message, task)
            return
        if not message.reused:
            self._known.rates.count(message.effort)
        figures = self._known.phases[message.task.job, message.task.phase]
        figures.done += 1
        if not (message.reused or task.helped):
            self._measure(message, task.attempts.get(message.attempt), figures.durations)
        self._settle(message.task, "lost", message)
        self._context.emit(message)
        self._context.send(MASTER, message)
        self._context.send(phase_address(message.task.job, message.task.phase), message)
        self._look_soon()

    def _child_made(self, message: TaskSucceeded, task: OutTask) -> None:
        if (attempt := task.attempts.pop(message.attempt, None)) is None:
            return
        task.helped = True
        task.made.add(message.child or 0)
        bytes_read = message.effort.bytes_read
        if not message.reused:
            backup = task.backups.get(attempt.backup or 0)
            (backup.children if backup is not None else task.left)[message.child or 0] = bytes_read
            self._known.rates.count(message.effort)
        elif task.backups:  # another has made it sooner
            owner = attempt.backup if attempt.backup in task.backups else min(task.backups)
            task.backups[owner].wasted_bytes += bytes_read
        self._context.emit(message)
        self._look_soon()  # who has made it could make the next one

    def _measure(self, message: TaskSucceeded, attempt: Attempt | None, durations: Durations) -> None:
        """Hold what a task took against its phase, and its worker against the others."""
        begun = attempt is not None and attempt.worker == message.worker
        seconds = (
            self._context.now() - attempt.started_seconds
            if begun and attempt is not None
            else message.effort.busy_seconds
        )
        known = self._workers.get(message.worker)
        # What takes milliseconds takes some times as long by chance, which tells nothing of the worker.
        long = max(seconds, durations.mean_seconds) >= self._settings.speculation.min_seconds
        if known is not None and long:
            enough = durations.count >= SLOWNESS_TASKS
            known.end(message.attempt, seconds, durations.mean_seconds if enough else None)
        durations.add(seconds)

    def _settle(self, task_id: TaskId, outcome: BackupOutcome, winner: TaskSucceeded | None = None) -> bool:
        """Take a task off, tell the master, and return whether it was there."""
        if task_id not in self._tasks:
            return False
        self._take_off(task_id, outcome, winner)
        self._context.send(MASTER, TaskSettled(task_id.job))
        return True

    def _take_off(self, task_id: TaskId, outcome: BackupOutcome, winner: TaskSucceeded | None = None) -> None:
        """Take a task off, and call back all attempts but the winner; a backup has won, or ends as ``outcome`` says."""
        task = self._tasks.pop(task_id)
        taken = frozenset(winner.taken) if winner is not None else frozenset()
        spared = task.spared(winner)
        for number, attempt in task.attempts.items():
            self._known.queued -= attempt.queued
            worker = attempt.worker or attempt.assigned
            won = winner is not None and number == winner.attempt
            if worker is None or (won and winner is not None and worker == winner.worker):
                continue
            self._context.send(WORKERS, TellWorker(worker, CancelTask(task_id, number)))
            if task.backups and not won:
                self._count_loser(task_id, task, number, worker, spared.get(number, 0))
        ends: dict[int, BackupOutcome] = {}
        for number, backup in task.backups.items():
            made = backup.children | (task.left if number == min(task.backups) else {})
            backup.wasted_bytes += sum(size for child, size in made.items() if child not in taken)
            helped = not taken.isdisjoint(backup.children)
            ends[number] = "won" if winner is not None and number == winner.attempt else "helped" if helped else outcome
        # What a task was done sooner is told once, whoever has had a part in it.
        of_use = [number for number, ended in ends.items() if ended in {"won", "helped"}]
        saver = min(of_use, key=lambda number: (ends[number] != "won", number), default=None)
        for number, ended in ends.items():
            self._end_backup(task_id, task, number, ended, saves=number == saver)

    def _count_loser(self, task_id: TaskId, task: OutTask, number: int, worker: str, spared: int) -> None:
        """Count what an attempt that is called back has told to have read in vain: its own backup's, or the first's."""
        attempt = task.attempts[number]
        owner = number if attempt.child is None else attempt.backup
        account = owner if owner in task.backups else min(task.backups)
        task.backups[account].wasted_bytes += max(0, attempt.bytes_read - spared)
        if worker in self._workers:  # or else its start has come after its end, and nobody will answer
            counted = max(attempt.bytes_read, spared)
            self._losers[number] = Loser(task_id, worker, account, self._context.now(), counted)

    def _stopped(self, number: int, bytes_read: int) -> None:
        """Tell what an attempt had read that was called back."""
        if (loser := self._losers.pop(number, None)) is not None:
            took, more = self._context.now() - loser.since_seconds, max(0, bytes_read - loser.counted_bytes)
            self._context.emit(LoserStopped(loser.task, number, loser.worker, loser.backup, took, more))

    def _failed(self, message: TaskFailed) -> None:
        self._answered(message.worker, message.task, message.attempt)
        self._stopped(message.attempt, message.bytes_read)
        task = self._tasks.get(message.task)
        if task is None or message.attempt not in task.attempts:
            # Told twice, or settled since.
            self._context.emit(WorkerFreed(message.worker, message.task, message.attempt))
            return
        attempt = self._drop(message.task, task, message.attempt, message.bytes_read)
        if message.kind == "cancelled":
            # Its worker leaves, or was called back.
            self._context.emit(WorkerFreed(message.worker, message.task, message.attempt))
            self._publish_if_none(message.task, task)
            return
        self._context.emit(message)
        if attempt.child is not None:
            # It was to help others, who do without. To ask again would be to have it fail again and again.
            task.fail_part(message.worker, attempt.child, refuses=message.kind == "not_served")
            self._publish_if_none(message.task, task)
            return
        if message.kind == "blocked":
            self._settle(message.task, "moot")
            self._context.send(
                phase_address(message.task.job, message.task.phase), TaskBlocked(message.task, message.missing)
            )
            return
        if message.kind == "not_served":
            self._hand_on(message, task)
            return
        may_pass = message.kind == "error" or (message.kind == "storage" and self._settings.retry_storage)
        if may_pass:
            self._judge(message.worker, message.task, message.reason)
        rests = self._count_failure(message, task)
        most = self._settings.max_attempts
        if may_pass and task.failures < most and task.repeats < _MOST_REPEATS * most:
            tries = task.failures + task.repeats
            self._context.emit(TaskRetried(message.task, message.worker, tries + 1, message.reason))
            if rests:  # before it is published, so that it is not handed out there again
                told = "it has failed a task again that others are to try first"
                self._pause(message.worker, told, resting=message.task)
            self._publish_if_none(message.task, task)
            return
        self._settle(message.task, "moot")
        self._context.send(MASTER, TaskGaveUp(message.task, message.kind, message.reason, message.index))

    def _count_failure(self, message: TaskFailed, task: OutTask) -> bool:
        """Count a failure, and return whether its worker should let others go first.

        One that fails at once is always free, and so is handed what it has failed before all others.
        """
        known = self._workers.get(message.worker)
        host = known.host if known is not None else message.worker
        if not task.is_repeat(message.worker, host, self._workers):
            task.failures += 1
            task.failed_on[message.worker] = host
            return False
        task.repeats += 1
        again = message.worker in task.failed_on
        task.failed_on[message.worker] = host
        # Where it is only the host's second failure at this task, the worker may be as good as any.
        return again or (known is not None and self._fails_all(known))

    def _hand_on(self, message: TaskFailed, task: OutTask) -> None:
        """Hand a task out again that a worker may not do, unless no worker that takes tasks may go to that place.

        It is the worker's rule and not its fault, so it is not counted against it.
        """
        refusals = self._refusals.setdefault((message.task.job, message.place), set())
        refusals.add(message.worker)
        task.unhelpful |= {message.worker}
        task.refused |= {message.worker}
        if task.whole or any(
            name not in refusals and (not each.paused or each.resting is not None)
            for name, each in self._workers.items()
        ):
            self._context.emit(TaskRetried(message.task, message.worker, task.failures + 1, message.reason))
            self._publish_if_none(message.task, task)
            return
        self._settle(message.task, "moot")
        self._context.send(MASTER, TaskGaveUp(message.task, message.kind, message.reason))

    def _dead_lettered(self, message: TaskDeadLettered) -> None:
        """Give up a task that takes its workers down; hand it out again where these had vanished before they had it.

        When all workers lose the broker it notices one after the other, and hands each one's task to the next.
        """
        if (task := self._tasks.get(message.task)) is None:
            return
        queued = next((number for number, each in task.whole.items() if each.assigned is None), None)
        # The last may not be known to be lost yet.
        begun = task.deaths + (queued is not None and task.attempts[queued].worker is not None)
        now, silence = self._context.now(), self._settings.speculation.silence_seconds
        vanished = self._vanished - task.vanished
        vanished += sum(now - each.heard_seconds > silence for each in self._workers.values())
        task.dead_letters += 1
        enough = message.deliveries - 1
        if begun >= enough or vanished < enough or task.dead_letters >= self._settings.max_attempts:
            self._settle(message.task, "moot")
            reason = f"its worker ended during each of {message.deliveries} deliveries, so it is not tried again"
            self._context.send(MASTER, TaskGaveUp(message.task, "abandoned", reason))
            return
        told = f"{message.deliveries} workers had it in turn, and {vanished} had lost the broker by then"
        self._context.emit(TaskRetried(message.task, "", task.dead_letters + 1, told))
        if queued is not None:
            self._drop(message.task, task, queued)
        self._publish_if_none(message.task, task)

    def _check_leases(self) -> None:
        now = self._context.now()
        lease = self._settings.lease_seconds
        for name, worker in self._workers.items():
            silent = now - worker.heard_seconds
            if min(silent, now - worker.given_up_seconds) > lease:
                worker.given_up_seconds = now
                self._context.send(WORKERS, KillWorker(name, f"no heartbeat for {silent:.0f} s"))
        self._context.set_timer(lease / 4, CheckLeases())

    # Stragglers -------------------------------------------------------------------------------------------------------

    def _look_soon(self) -> None:
        """Look for stragglers in a moment: what happens meanwhile is looked at together."""
        if not self._looking and self._tasks and self._settings.speculation.policy != "none":
            self._looking = True
            self._context.set_timer(_LOOK_SECONDS, CheckStragglers())

    def _check_stragglers(self, message: CheckStragglers) -> None:
        settings = self._settings.speculation
        if message.periodic:
            self._context.set_timer(settings.check_seconds, message)
        else:
            self._looking = False
        if not self._tasks:
            return
        now, guarded = self._context.now(), settings.policy == "guarded"
        silence = settings.silence_seconds if guarded else math.inf
        if message.periodic and self._known.backups:
            for name in self._known.unanswered(now, silence):
                self._withdraw(name, self._workers[name])
        full = self._known.queued >= len(self._workers)
        idle = [] if full else self._known.idle(now, silence)
        if not idle and not message.periodic:
            return
        youngest = settings.min_seconds if guarded else 0.0
        view = self._known.view(now, idle, youngest_seconds=youngest, silence_seconds=silence, without=self._not_copied)
        for decision in decide(view, settings):
            match decision:
                case StartBackup():
                    self._start_backup(decision)
                case AddHelper():
                    self._add_helper(decision)
                case DeclineHelper():
                    self._decline_helper(decision)
                case Decline():
                    self._decline(decision)

    def _switch_speculation(self, message: SwitchSpeculation) -> None:
        job = message.job
        known = any(each == job for each, _ in self._known.phases)
        if not known or message.on == (job not in self._not_copied):
            return  # it has ended meanwhile, or it is so already
        if message.on:
            self._not_copied.discard(job)
        else:
            self._not_copied.add(job)
        self._context.emit(SpeculationSwitched(job, message.on))
        self._look_soon()

    def _back_up(self, message: BackUpTask) -> None:
        decision: StartBackup | str = "is not under way: it waits for others, or is done"
        if message.task in self._tasks:
            now, settings = self._context.now(), self._settings.speculation
            idle = self._known.idle(now, settings.silence_seconds)
            view = self._known.view(now, idle, youngest_seconds=0.0, silence_seconds=settings.silence_seconds)
            decision = decide_asked(view, message.task, settings)
        if isinstance(decision, str):
            answer = BackupAnswered(message.request, refusal=decision)
        else:
            answer = BackupAnswered(message.request, started=self._start_backup(decision))
        self._context.send(CLIENT, answer)

    def _start_backup(self, decision: StartBackup) -> BackupStarted:
        running = decision.running
        task = self._tasks[running.task]
        number = self._assign(running.task, task, decision.worker, None, sliced=task.sliced and decision.shared)
        task.backups[number] = Backup(decision.worker, self._context.now(), decision.evidence.left_seconds)
        self._known.backups += 1
        evidence = decision.evidence
        if (known := self._workers.get(running.worker)) is not None and evidence.copy_seconds:
            # What it would have taken; it will not be told where it is called back.
            likely = evidence.elapsed_seconds + (evidence.left_seconds or 0.0)
            known.expect(running.attempt, likely, evidence.copy_seconds)
        helpers = tuple(worker for worker, _ in decision.helpers)
        for worker, child in decision.helpers:
            self._assign(running.task, task, worker, child, number, sliced=task.sliced)
        if helpers:
            self._tell_shared(running.task, task)
        started = BackupStarted(
            running.task,
            number,
            decision.worker,
            running.attempt,
            running.worker,
            decision.reason,
            decision.evidence,
            helpers,
        )
        self._context.emit(started)
        return started

    def _add_helper(self, decision: AddHelper) -> None:
        task = self._tasks[decision.task]
        self._assign(decision.task, task, decision.worker, decision.child, decision.backup, sliced=task.sliced)
        self._tell_shared(decision.task, task)
        self._tell_of_helper(HelperAdded, decision)

    def _decline_helper(self, decision: DeclineHelper) -> None:
        if self._is_news(decision.task, decision.backup, decision.child):
            self._tell_of_helper(HelperDeclined, decision)

    def _tell_of_helper(self, event: type[HelperAdded | HelperDeclined], decision: AddHelper | DeclineHelper) -> None:
        told = event(
            decision.task,
            decision.backup,
            decision.worker,
            decision.child,
            decision.reached_seconds,
            decision.takes_seconds,
            self._settings.speculation.gain,
        )
        self._context.emit(told)

    def _tell_shared(self, task_id: TaskId, task: OutTask) -> None:
        """Tell attempts that began before that was so, that others make children of their node; backups look anyway."""
        for number, attempt in () if task.sliced else task.whole.items():
            if attempt.worker is not None and attempt.assigned is None and not attempt.shared:
                attempt.shared = True
                self._context.send(WORKERS, TellWorker(attempt.worker, ShareTask(task_id, number)))

    def _assign(
        self,
        task_id: TaskId,
        task: OutTask,
        worker: str,
        child: int | None,
        backup: int | None = None,
        *,
        sliced: bool,
    ) -> int:
        """Hand a worker an attempt at a task, or at one child of it for a backup, past the queue."""
        number = self._number()
        task.attempts[number] = Attempt(
            child=child, backup=backup, sliced=sliced, assigned=worker, started_seconds=self._context.now()
        )
        self._workers[worker].assigned = task_id, number
        order = self._order(task_id, task, number, resume=True)
        self._context.send(WORKERS, AssignTask(worker, order))
        return number

    def _decline(self, decision: Decline) -> None:
        running = decision.running
        if self._is_news(running.task, running.attempt, decision.reason):
            told = BackupDeclined(
                running.task, running.attempt, running.worker, decision.suspicion, decision.reason, decision.evidence
            )
            self._context.emit(told)

    def _is_news(self, task: TaskId, number: int, what: str | int) -> bool:
        """Note what was decided against, and return whether that is the first time."""
        declined = self._tasks[task].declined
        if (number, what) in declined:
            return False
        declined.add((number, what))
        return True

    def _end_backup(
        self, task_id: TaskId, task: OutTask, number: int, outcome: BackupOutcome, *, saves: bool = False
    ) -> None:
        backup = task.backups.pop(number)
        self._known.backups -= 1
        took = self._context.now() - backup.began_seconds
        left = backup.left_seconds
        saved = (max(0.0, left - took) if left is not None else None) if saves else 0.0
        children, wasted = len(backup.children), backup.wasted_bytes
        self._context.emit(BackupEnded(task_id, number, backup.worker, outcome, took, saved, wasted, children))
