"""Faults planted into the actors, each the kind of mistake that a change could bring; the simulation must find them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from distsum.actors.actor import MASTER, WORKERS, phase_address
from distsum.actors.attempts import Attempt
from distsum.actors.master import Master
from distsum.actors.modelled_worker import ModelledWorker
from distsum.actors.phase import READY, STORED, WAITING, Phase
from distsum.actors.speculation import SpeculationSettings
from distsum.actors.task_tracker import TaskTracker
from distsum.messages import CancelJob, PhaseCompleted, ResumeWorker, TaskFailed, TaskSucceeded, TellWorker, WorkerLost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class ForgetsRetry(TaskTracker):
    """A failed attempt is counted, and not published again."""

    def _publish(self, task_id: Any, task: Any) -> None:
        if self._next_attempt > task.first:
            task.attempts[self._next_attempt] = Attempt()
            self._known.queued += 1
        else:
            super()._publish(task_id, task)


class TakesEverySuccess(TaskTracker):
    """A second success of a task is told like the first."""

    def _succeeded(self, message: TaskSucceeded) -> None:
        super()._succeeded(message)
        self._context.emit(message)


class TakesOldSuccesses(TaskTracker):
    """What was done for a job before it came again counts, also where its result was begun anew."""

    def _succeeded(self, message: TaskSucceeded) -> None:
        if (task := self._tasks.get(message.task)) is not None:
            task.first = 0
        super()._succeeded(message)


class CountsFailuresTwice(TaskTracker):
    """A failure counts as often as it is told."""

    def _failed(self, message: TaskFailed) -> None:
        task = self._tasks.get(message.task)
        if task is not None and message.attempt not in task.attempts:
            task.failures += 1
        super()._failed(message)


class ForgetsQuarantines(TaskTracker):
    """A worker that was lost begins anew when it comes back."""

    def _join(self, message: Any) -> None:
        if message.worker not in self._workers:
            self._absent.pop(message.worker, None)
            message = msgspec.structs.replace(message, paused="", quarantined=False)
            self._context.send(WORKERS, ResumeWorker(message.worker))
        super()._join(message)


class CountsEveryFailure(TaskTracker):
    """However often one worker fails a task that others could do, each time counts."""

    def _count_failure(self, message: TaskFailed, task: Any) -> bool:
        task.failures += 1
        return False


class BelievesEveryCancellation(TaskTracker):
    """An attempt that its worker hands back is left at that."""

    def _failed(self, message: TaskFailed) -> None:
        if message.kind != "cancelled":
            super()._failed(message)


class KeepsTasksOfEndedJobs(TaskTracker):
    """Tasks of a job that has ended stay."""

    def _cancel(self, job: str) -> None:
        """Do nothing."""


class NeverForgetsWorkers(TaskTracker):
    """A lost worker still counts."""

    def receive(self, message: Any) -> None:
        if not isinstance(message, WorkerLost):
            super().receive(message)


class MissesOldWorkers(TaskTracker):
    """Workers of an earlier master are never asked who they are."""

    def _beat(self, message: Any) -> None:
        if message.worker in self._workers:
            super()._beat(message)


class KeepsLostChildren(Phase):
    """A blocked task believes that its children are stored all the same."""

    def _block(self, task: Any, missing: tuple[int, ...]) -> None:
        super()._block(task, ())


class ForgetsWhoWasUnneeded(Phase):
    """A node below a stored one is not made when that one is lost."""

    def _lose(self, tile: int, index: int) -> None:
        if self._states[tile * self._width + index] == STORED:
            super()._lose(tile, index)


class HasABarrierTooFew(Phase):
    """A task is ready when the first of its children is stored."""

    def _consider(self, tile: int, index: int) -> None:
        number = tile * self._width + index
        if self._phase > 1 and not self._tree.passes_through(self._phase, index):
            self._states[number] = READY
            self._ready += 1
            self._cursor = min(self._cursor, number)
        else:
            super()._consider(tile, index)


class DropsLateSuccess(Phase):
    """A node that is stored while its task was taken back is not noticed."""

    def _store(self, tile: int, index: int) -> None:
        if self._states[tile * self._width + index] != WAITING:
            super()._store(tile, index)


class HandsOutTooMany(Master):
    """One task more than there are slots."""

    def _hand_out(self) -> None:
        self._slots += 1
        super()._hand_out()
        self._slots -= 1


class EndsWithAnyPhase(Master):
    """The first phase that is complete ends the job."""

    def _complete(self, job_id: str, phase: int) -> None:
        if (job := self._jobs.get(job_id)) is not None:
            super()._complete(job_id, job.phases)


class LeavesPhases(Master):
    """The phases of a job that has ended stay."""

    def _end(self, job: Any) -> None:
        job.phases -= 1
        super()._end(job)


class LosesReceipts(Master):
    """A success is counted without what it brought."""

    def _keep_result(self, message: TaskSucceeded) -> None:
        """Do nothing."""


class ForgetsToCancel(Master):
    """Nobody is told that a job has ended."""

    def _end(self, job: Any) -> None:
        send = self._context.send
        self._context.send = lambda address, message: None if isinstance(message, CancelJob) else send(address, message)
        super()._end(job)
        self._context.send = send


class CompletesWithoutItsLostNodes(Phase):
    """A node that must be made again does not open its phase again; the last phase's count is wrong then."""

    def receive(self, message: Any) -> None:
        super().receive(message)
        if self._phase > 1 and self._phase == self._tree.phases and self._states.count(STORED) == len(self._states) - 1:
            self._context.send(MASTER, PhaseCompleted(self._spec.job, self._phase))


class WakesNobody(Phase):
    """The phase above is not told of a node that is made a second time."""

    def _lose(self, tile: int, index: int) -> None:
        super()._lose(tile, index)
        self._remade = True

    def _store(self, tile: int, index: int) -> None:
        if not getattr(self, "_remade", False):
            super()._store(tile, index)
            return
        above = phase_address(self._spec.job, self._phase + 1)
        send = self._context.send
        self._context.send = lambda address, message: None if address == above else send(address, message)
        super()._store(tile, index)
        self._context.send = send


class CopiesToTheSameHost(TaskTracker):
    """A backup may begin where the straggler runs, though there are other hosts."""

    def _check_stragglers(self, message: Any) -> None:
        for number, worker in enumerate(self._workers.values()):
            worker.host += f"/{number}"
        super()._check_stragglers(message)
        for worker in self._workers.values():
            worker.host = worker.host.rpartition("/")[0]


class CopiesWithoutEnd(TaskTracker):
    """Attempts are not counted, so that one more is begun at every look."""

    def _start_backup(self, decision: Any) -> None:
        super()._start_backup(decision)
        super()._start_backup(decision)


class NeverCopies(TaskTracker):
    """Stragglers are left alone."""

    def _check_stragglers(self, message: Any) -> None:
        """Do nothing."""


class NeverCallsBack(TaskTracker):
    """Attempts at a task that another has done go on."""

    def _take_off(self, *arguments: Any) -> None:
        send = self._context.send
        self._context.send = lambda address, message: (
            None if isinstance(message, TellWorker) else send(address, message)
        )
        super()._take_off(*arguments)
        self._context.send = send


class ForgetsWhatHelpersMade(TaskTracker):
    """A child that a helper has made is given to the next one, too."""

    def _child_made(self, message: Any, task: Any) -> None:
        super()._child_made(message, task)
        task.made.clear()


class HasNoCap(TaskTracker):
    """Backups under way are not counted when others begin."""

    def _check_stragglers(self, message: Any) -> None:
        backups, self._known.backups = self._known.backups, 0
        super()._check_stragglers(message)
        self._known.backups += backups


class GivesUpOnTheStore(TaskTracker):
    """A failure to read or write ends the job, though another host may not have it."""

    def _failed(self, message: TaskFailed) -> None:
        settings = self._settings
        if message.kind == "storage":
            self._settings = msgspec.structs.replace(settings, retry_storage=False)
        super()._failed(message)
        self._settings = settings


class ForgetsWhoAsks(TaskTracker):
    """Who asks for a backup of a task that is not out is not answered."""

    def _back_up(self, message: Any) -> None:
        if message.task in self._tasks:
            super()._back_up(message)


class ForgetsHowBackupsEnd(TaskTracker):
    """A backup that its task outlives is dropped without a word."""

    def _end_backup(self, task_id: Any, task: Any, number: int, outcome: Any, *, saves: bool = False) -> None:
        if outcome == "moot":
            del task.backups[number]
            self._known.backups -= 1
        else:
            super()._end_backup(task_id, task, number, outcome, saves=saves)


class CountsOnlySuccesses(TaskTracker):
    """What a phase loses again still counts as done, so that stragglers are looked for too early."""

    def _count(self, message: Any) -> None:
        if message.done >= 0:
            super()._count(message)


class KeepsTheQueueOfTheLost(TaskTracker):
    """A task that comes back from a lost worker is not counted as waiting, so idle workers seem free for copies."""

    def _return(self, worker: str, task_id: Any, number: int) -> None:
        queued = self._known.queued
        super()._return(worker, task_id, number)
        self._known.queued = queued


class IgnoresTheMinimumRuntime(TaskTracker):
    """An attempt is copied however short it has run."""

    def _check_stragglers(self, message: Any) -> None:
        _with_settings(self, super()._check_stragglers, message, min_seconds=0.0)


class IgnoresTheQuantile(TaskTracker):
    """Running times are held against attempts as soon as anything is done."""

    def _check_stragglers(self, message: Any) -> None:
        _with_settings(self, super()._check_stragglers, message, quantile=0.0)


class CopiesWhatEndsSooner(TaskTracker):
    """A copy begins though the attempt will be done first."""

    def _check_stragglers(self, message: Any) -> None:
        _with_settings(self, super()._check_stragglers, message, gain=0.0)


class CopiesAsOftenAsItLikes(TaskTracker):
    """The number of copies of a task is not looked at."""

    def _check_stragglers(self, message: Any) -> None:
        _with_settings(self, super()._check_stragglers, message, copies=1000)


class IgnoresTheCap(TaskTracker):
    """All workers may make copies at once."""

    def _check_stragglers(self, message: Any) -> None:
        _with_settings(self, super()._check_stragglers, message, max_share=1.0)


class IsNeverOff(TaskTracker):
    """The policy of copying nothing is taken for the default."""

    def __init__(self, context: Any, settings: Any) -> None:
        if settings.speculation.policy == "none":
            settings = msgspec.structs.replace(settings, speculation=SpeculationSettings())
        super().__init__(context, settings)


class CopiesWhatIsSwitchedOff(TaskTracker):
    """A job that is to get no backups gets some."""

    def _check_stragglers(self, message: Any) -> None:
        not_copied, self._not_copied = self._not_copied, set()
        super()._check_stragglers(message)
        self._not_copied = not_copied


class RemembersEveryTask(TaskTracker):
    """What is done stays in memory."""

    def _settle(self, task_id: Any, *arguments: Any) -> bool:
        self.__dict__.setdefault("_settled", []).append(task_id)
        return super()._settle(task_id, *arguments)


class RemembersWhatItDeclined(TaskTracker):
    """What was decided against stays with its task when the attempt has ended."""

    def _drop(self, task_id: Any, task: Any, *arguments: Any) -> Attempt:
        declined = set(task.declined)
        attempt = super()._drop(task_id, task, *arguments)
        task.declined |= declined
        return attempt


class NeverStopsWaiting(TaskTracker):
    """Attempts that were called back are waited for also when they have answered."""

    def _stopped(self, number: int, bytes_read: int) -> None:
        loser = self._losers.get(number)
        super()._stopped(number, bytes_read)
        if loser is not None:
            self._losers[number] = loser


class KeepsAnAccountOfEachNode(Phase):
    """A phase remembers more than a byte of a node."""

    def _store(self, tile: int, index: int) -> None:
        self.__dict__.setdefault("_made", []).append(index)
        super()._store(tile, index)


class RemembersEndedJobs(Master):
    """A job that has ended stays in memory."""

    def _end(self, job: Any) -> None:
        self.__dict__.setdefault("_ended", []).append([*job.ready])
        super()._end(job)


class OpensTheNextTask(ModelledWorker):
    """A worker opens the inputs of a task that waits, while it has those of another one open."""

    def receive(self, channel: Any, message: Any) -> None:
        super().receive(channel, message)
        if self._waiting and not self.frozen:
            self._hold(self._waiting[0])


class LeavesFilesOpen(ModelledWorker):
    """What an attempt that is called back has opened stays open."""

    def _end(self, result: Any) -> None:
        held = self.holds.get(result.attempt)
        super()._end(result)
        if held is not None and isinstance(result, TaskFailed) and result.kind == "cancelled":
            self.holds[result.attempt] = held


class KeepsASumOfEachChild(ModelledWorker):
    """A worker keeps an accumulator for each child of its node, instead of one for each level."""

    def _hold(self, message: Any) -> None:
        super()._hold(message)
        tree = self._store.tree(message.task.job)
        first, last = tree.children(message.task.phase, message.task.index)
        held = self.holds[message.attempt]
        self.holds[message.attempt] = msgspec.structs.replace(held, accumulators=max(held.accumulators, last - first))


def _with_settings(tracker: TaskTracker, act: Callable[[Any], None], message: Any, **changes: Any) -> None:
    """Have a tracker go by other settings of speculation for a moment."""
    settings = tracker._settings
    speculation = msgspec.structs.replace(settings.speculation, **changes)
    tracker._settings = msgspec.structs.replace(settings, speculation=speculation)
    act(message)
    tracker._settings = settings


PLANTS: Final[Mapping[str, Mapping[type, type]]] = {
    plant.__name__: {plant.__mro__[1]: plant}
    for plant in (
        ForgetsRetry,
        TakesEverySuccess,
        TakesOldSuccesses,
        CountsFailuresTwice,
        ForgetsQuarantines,
        CountsEveryFailure,
        BelievesEveryCancellation,
        KeepsTasksOfEndedJobs,
        NeverForgetsWorkers,
        MissesOldWorkers,
        KeepsLostChildren,
        ForgetsWhoWasUnneeded,
        HasABarrierTooFew,
        DropsLateSuccess,
        HandsOutTooMany,
        EndsWithAnyPhase,
        LeavesPhases,
        LosesReceipts,
        ForgetsToCancel,
        CompletesWithoutItsLostNodes,
        WakesNobody,
        CopiesToTheSameHost,
        CopiesWithoutEnd,
        NeverCopies,
        NeverCallsBack,
        ForgetsWhatHelpersMade,
        HasNoCap,
        GivesUpOnTheStore,
        ForgetsWhoAsks,
        ForgetsHowBackupsEnd,
        CountsOnlySuccesses,
        KeepsTheQueueOfTheLost,
        IgnoresTheMinimumRuntime,
        IgnoresTheQuantile,
        CopiesWhatEndsSooner,
        CopiesAsOftenAsItLikes,
        IgnoresTheCap,
        IsNeverOff,
        CopiesWhatIsSwitchedOff,
        RemembersEveryTask,
        RemembersWhatItDeclined,
        NeverStopsWaiting,
        KeepsAnAccountOfEachNode,
        RemembersEndedJobs,
        OpensTheNextTask,
        LeavesFilesOpen,
        KeepsASumOfEachChild,
    )
}
