"""The service: keeps the jobs of many clients, has their tasks done by workers of many machines, and ends them.

It decides nothing that actors can decide. What it does itself is slow and may fail: it stores, loads and finishes jobs,
in threads, one asyncio task a job. Whatever it has promised is stored first, so that another master can go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from distsum.actors.actor import BROKER, CLIENT, MASTER, TRACKER, WORKERS
from distsum.actors.master import Master, MasterSettings
from distsum.actors.speculation import SpeculationSettings
from distsum.actors.steering import Steering
from distsum.actors.system import AsyncioSystem
from distsum.actors.task_tracker import TaskTracker, TrackerSettings
from distsum.brokers.base import LEFT
from distsum.errors import DistsumError, StorageError
from distsum.logs import concerning
from distsum.messages import (
    AssignTask,
    BackupAnswered,
    CancelJob,
    JobFailed,
    JobStarted,
    JobSucceeded,
    KillWorker,
    PauseWorker,
    ResumeWorker,
    RunTask,
    SubmitJob,
    TellWorker,
    WorkerJoined,
    WorkerLost,
    WorkerPaused,
    WorkerRefused,
    WorkerResumed,
)
from distsum.observe.gauges import Gauges, QueueGauge
from distsum.observe.narrator import Narrator
from distsum.observe.workers import WorkerTable
from distsum.partials import node_context
from distsum.service import kept_history
from distsum.service import messages as channel
from distsum.service.answers import TELLING_SECONDS, Answers
from distsum.service.feeds import Feeds
from distsum.service.known_jobs import KnownJobs
from distsum.service.present_workers import PresentWorkers
from distsum.service.records import DamagedRecordError, Outcome, Records, Ticket, ended_status
from distsum.service.scaling import Scaling
from distsum.service.served_job import ServedJob

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    import msgspec

    from distsum.brokers.base import Broker
    from distsum.jobs import Job
    from distsum.messages import FromBroker, FromWorker
    from distsum.observe.history import Recorder
    from distsum.request import Summary
    from distsum.service.answers import ServiceBroker
    from distsum.stores.base import Store

log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = (0.5, 2.0, 8.0)
"""Pauses before a record is stored again; the last one repeats."""
_FAREWELL_SECONDS: Final = 5.0
_WORKER_EVENTS: Final = (WorkerJoined, WorkerLost, WorkerRefused, WorkerPaused, WorkerResumed)


class Observer(Protocol):
    """Is told what happens, on the event loop; it must be quick, and raise nothing."""

    def take(self, event: msgspec.Struct) -> None:
        """Take an event of an actor."""
        ...

    def job_ended(self, state: channel.JobState) -> None:
        """Take note that a job has ended."""
        ...


class Service:
    """One master.

    Args:
        store: Where jobs, partials, inputs and results lie.
        work: URI of the folder of jobs and partials.
        broker: The way to the workers; started by ``run``.
        figures: What the broker tells of its queues.
        master: Settings of the master actor.
        tracker: Settings of the tracker.
        observer: Told of everything.
        tell: Sends a frame to all who look at what the key names; returns whether it could be sent.
        scaling: Its fleet, if it has one; begun and ended by who serves.
    """

    def __init__(
        self,
        store: Store,
        work: bytes,
        broker: Broker,
        figures: ServiceBroker,
        master: MasterSettings | None = None,
        speculation: SpeculationSettings | None = None,
        observer: Observer | None = None,
        tell: Callable[[str, bytes], Awaitable[bool]] | None = None,
        scaling: Scaling | None = None,
    ) -> None:
        self._store = store
        self._records = Records(store, work)
        self._broker = broker
        self._figures = figures
        self._scaling = scaling or Scaling()
        self._master_settings = master or MasterSettings()
        self._tracker_settings = TrackerSettings(
            retry_storage=True, first_attempt=time.time_ns(), speculation=speculation or SpeculationSettings()
        )
        self._workers = WorkerTable()
        self._narrator = Narrator()
        self._observer = observer
        self._present = PresentWorkers()
        self._sent_away: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._token = secrets.token_hex(16).encode()
        self._serving = asyncio.Event()
        """Set while no other master can serve. What is stored must wait for it, and so must every answer."""
        feeds = Feeds(tell or _told_nobody, self._spawn, self._serving.is_set)
        self._jobs = KnownJobs(self._records, feeds, lambda: len(self._workers.active()))
        self._answers = Answers(
            records=self._records,
            jobs=self._jobs,
            serve=self._serve,
            broker=broker,
            figures=figures,
            workers=self._workers,
            sent_away=self._sent_away,
            scaling=self._scaling,
            feeds=feeds,
            spawn=self._spawn,
        )
        self._fault: asyncio.Future[None]
        self._system: AsyncioSystem
        self._steering: Steering

    # Life -------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin: take over what an earlier master has left, and tell workers and clients that somebody is there.

        Raises:
            UnreachableError: There is no broker or store.
            StorageError: The work folder cannot be read.
        """
        self._fault = asyncio.get_running_loop().create_future()
        self._fault.add_done_callback(note_fault)
        self._system = system = AsyncioSystem(self._take_event, self._set_fault)
        self._steering = Steering(system.deliver, self._tracker_settings.speculation)
        self._answers.begin(system.deliver, self._steering)
        system.gateway(BROKER, self._to_broker)
        system.gateway(WORKERS, self._to_workers)
        system.gateway(CLIENT, self._to_client)
        system.spawn(MASTER, partial(Master, settings=self._master_settings))
        system.spawn(TRACKER, partial(TaskTracker, settings=self._tracker_settings))
        # Before the broker, where it may be hours until it is our turn.
        await asyncio.to_thread(self._records.preflight)
        await self._broker.start(self._deliver)
        await asyncio.to_thread(self._records.begin_serving, self._token)
        self._serving.set()
        await self._take_over()

    async def wait(self) -> None:
        """Wait for the end, which is an error: ``cancel`` the task that waits to end in peace."""
        await self._fault

    def set_serving(self, serving: bool) -> None:  # noqa: FBT001 - told by the broker
        """Take note that another master may serve now, or that none does: then nothing is stored and told."""
        if serving:
            self._serving.set()
        else:
            self._serving.clear()

    async def still_serves(self) -> bool:
        """Whether no other master has served since this one began.

        Raises:
            StorageError: That cannot be seen.
        """
        return await asyncio.to_thread(self._records.still_serves, self._token)

    async def close(self) -> None:
        """Let go of everything. Jobs stay as they are stored; the next master goes on."""
        self._answers.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._serving.is_set():
            with contextlib.suppress(DistsumError, TimeoutError):
                await asyncio.wait_for(self._say_farewell(), _FAREWELL_SECONDS)
        for served in self._jobs.served.values():
            if served.recorder is not None:
                served.recorder.close()
        # What their threads ask of a server that does not answer would keep this process from ending.
        await asyncio.to_thread(self._store.close)
        self._system.close()
        await self._broker.close()

    async def _say_farewell(self) -> None:
        """Store that this master has ended, and the histories of its jobs for the next one, unless that is there."""
        if not await self.still_serves():
            return
        await asyncio.to_thread(self._records.end_serving, self._token)
        await kept_history.leave(self._jobs.served.values(), self._records)

    async def _take_over(self) -> None:
        folders = await asyncio.to_thread(self._records.folders)
        found: list[tuple[Ticket, Job, bool]] = []
        for each in folders:
            name = each.job
            if not each.accepted or each.tidy:
                continue
            try:
                if each.ended and await self._has_ended(name):
                    self._spawn(self._tidy_ended(name))
                    continue
                ticket = await asyncio.to_thread(self._records.ticket, name)
                found.append((ticket, await asyncio.to_thread(self._records.load, name), each.cancelled))
            except StorageError as error:
                # One job that cannot be read must not keep the others from going on.
                log.error("job %s is left alone: %s", name, error, extra=concerning(job=name))  # noqa: TRY400 - no fault of ours
                self._jobs.left_alone[name] = str(error)
        for ticket, job, cancelled in sorted(found, key=lambda each: each[0].submitted_seconds):
            log.info("job %s goes on", job.spec.job, extra=concerning(job=job.spec.job))
            self._serve(job, ticket, resumed=True, cancelled=cancelled)

    async def _has_ended(self, name: str) -> bool:
        """Whether a job's outcome is whole. If it is not, nobody has been told of it, and the job is ended again."""
        try:
            return await asyncio.to_thread(self._records.outcome, name) is not None
        except DamagedRecordError as error:
            log.warning("%s; job %s is ended again", error, name, extra=concerning(job=name))
            return False

    def _set_fault(self, error: BaseException) -> None:
        if not self._fault.done():
            self._fault.set_exception(error)
        else:
            log.warning("while this master ends: %s", error)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._set_fault(error)

    # Actors -----------------------------------------------------------------------------------------------------------

    def _deliver(self, message: FromWorker | FromBroker) -> None:
        if isinstance(message, WorkerLost) and message.worker in self._sent_away:
            # All that the broker sees is that its connections end.
            self._sent_away.remove(message.worker)
            message = WorkerLost(message.worker, LEFT)
        self._system.deliver(TRACKER, message)

    def _to_broker(self, message: msgspec.Struct) -> None:
        if isinstance(message, RunTask):
            self._broker.publish(message)
        elif isinstance(message, CancelJob):
            self._broker.purge(message.job)

    def _to_workers(self, message: msgspec.Struct) -> None:
        match message:
            case KillWorker():
                # A process of another machine cannot be ended from here. Its tasks come back when the broker, too, has
                # not heard of it.
                self._deliver(WorkerLost(message.worker, message.reason))
            case TellWorker():
                self._broker.send(message.worker, message.message)
            case AssignTask():
                self._broker.assign(message.worker, message.message)
            case PauseWorker():
                self._broker.pause(message.worker, message.told)
            case ResumeWorker():
                self._broker.resume(message.worker)

    def _to_client(self, message: msgspec.Struct) -> None:
        if isinstance(message, JobSucceeded | JobFailed):
            served = self._jobs.served.get(message.job)
            if served is not None and not served.finished.done():
                served.state = "finishing"
                served.finished.set_result(message)
        elif isinstance(message, BackupAnswered):
            self._steering.take(message)

    def _take_event(self, event: msgspec.Struct) -> None:
        self._workers.take(event, time.time())
        task = getattr(event, "task", None)
        name = task.job if task is not None else getattr(event, "job", None)
        if isinstance(event, _WORKER_EVENTS):
            concerned = [each for each in self._jobs.served.values() if each.state == "running"]
        else:
            concerned = [self._jobs.served[name]] if name in self._jobs.served else []
        for served in concerned:
            if isinstance(event, JobStarted):
                served.state = "running"
                served.begin()
            if not isinstance(event, JobSucceeded):  # which is told when the result is there
                served.take(event)
            if isinstance(event, JobStarted):
                for told in self._present.told():
                    served.take(told)
        self._present.take(event)
        if self._observer is not None:
            self._observer.take(event)
        if (line := self._narrator.line_of(event)) is not None:
            log.log(line.level, "%s", line.words, extra=line.concerns)

    # Jobs -------------------------------------------------------------------------------------------------------------

    def _serve(self, job: Job, ticket: Ticket, *, resumed: bool = False, cancelled: bool = False) -> None:
        speculation = self._tracker_settings.speculation
        served = ServedJob(job, ticket, resumed=resumed, cancelled=cancelled, speculation=speculation)
        self._jobs.served[job.spec.job] = served
        self._spawn(self._run_job(served))

    async def _run_job(self, served: ServedJob) -> None:
        name = served.job.spec.job
        served.keeping = self._spawn(kept_history.keep(served, self._records, self.still_serves))
        try:
            summary = await self._summary_of(served)
            outcome = Outcome(state="succeeded", ended_seconds=time.time(), exit_code=0, summary=summary)
        except _CancelledError:
            reason = "cancelled by a client"
            served.fail_late(JobFailed(name, "cancelled", reason))
            outcome = Outcome(state="cancelled", ended_seconds=time.time(), exit_code=1, reason=reason)
        except DistsumError as error:
            # Also where the store is down for good: the job can be submitted again, and what is stored is used.
            code = error.exit_code
            served.fail_late(served.job.late_failure(error))
            outcome = Outcome(state="failed", ended_seconds=time.time(), exit_code=code, reason=str(error))
        served.state = "finishing"
        await self._end(served, outcome)
        await self._tidy(served.job, outcome, name)

    async def _summary_of(self, served: ServedJob) -> Summary:
        """Run a job to its end.

        Raises:
            DistsumError: It failed.
            _CancelledError: Somebody does not want it any more.
        """
        job = served.job
        served.states = states = await asyncio.to_thread(job.stored_states)
        resume = await asyncio.to_thread(job.has_children)
        if served.resumed:
            await kept_history.look_back(served, self._records)
        await self._serving.wait()
        if served.resumed and not self._jobs.shares_output(served):
            since = time.time() - served.ticket.submitted_seconds
            await self._quietly(partial(job.abort_unnamed, since), job.spec.job)
        if served.cancelled:
            raise _CancelledError
        await asyncio.to_thread(job.begin)
        if served.cancelled:
            raise _CancelledError
        self._system.deliver(MASTER, SubmitJob(job.spec, states, served.ticket.priority, resume))
        outcome = await served.finished
        if served.cancelled:
            raise _CancelledError
        if isinstance(outcome, JobFailed):
            raise await asyncio.to_thread(job.failure, outcome)
        if not outcome.inputs:
            raise job.nothing_left(outcome)
        await self._serving.wait()
        began_before = served.resumed and await asyncio.to_thread(self._records.committing, job.spec.job)
        await asyncio.to_thread(self._records.commit, job.spec.job)
        await asyncio.to_thread(partial(job.commit_output, outcome, again=began_before))
        digest = await asyncio.to_thread(job.output_digest)
        served.take(outcome)
        seconds = time.perf_counter() - served.began
        return job.summary(outcome, served.tally, len(self._workers.active()), digest, seconds)

    async def _end(self, served: ServedJob, outcome: Outcome) -> None:
        """Store how a job ended, as often as it takes, and tell of it then."""
        name = served.job.spec.job
        told = ended_status(served.job.record, served.ticket, outcome)
        storing = asyncio.ensure_future(self._store_outcome(served, outcome))
        try:
            done, _ = await asyncio.wait({storing}, timeout=TELLING_SECONDS)
            if not done and outcome.state == "failed":
                # Who waits must hear of it, above all where the store itself is what has failed.
                served.told = told
            await storing
        finally:
            storing.cancel()
        self._jobs.part(served, told)
        if self._observer is not None:
            self._observer.job_ended(outcome.state)
        level = logging.WARNING if outcome.state == "failed" else logging.INFO
        log.log(level, "job %s %s", name, outcome.reason or outcome.state, extra=concerning(job=name))

    async def _store_outcome(self, served: ServedJob, outcome: Outcome) -> None:
        name = served.job.spec.job
        served.over.set()
        if served.keeping is not None:
            await served.keeping
        # Before the outcome: nobody looks for it afterwards.
        if served.recorder is not None:
            await self._serving.wait()
            await self._quietly(partial(self._put_history, served.recorder, name), name)
            served.recorder.close()
        attempt = 0
        while True:
            await self._serving.wait()
            try:
                await asyncio.to_thread(self._records.end, name, outcome)
            except DistsumError as error:
                log.warning(
                    "job %s has ended, and that cannot be stored yet: %s", name, error, extra=concerning(job=name)
                )
                await asyncio.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
                attempt += 1
            else:
                return

    def _put_history(self, recorder: Recorder, name: str) -> None:
        """Store a job's whole history, unless another master has served since: that one's is newer."""
        if self._records.still_serves(self._token):
            self._records.put_history(name, recorder)

    async def _tidy(self, job: Job, outcome: Outcome, name: str) -> None:
        """Remove what a job has left; should this process end before, the next master does it."""
        # Partials of equal nodes are one and the same, whichever job they are of: they go with the last such job.
        context = node_context(job.spec, 0)
        shared = any(each.context == context for each in self._jobs.served.values())
        keeps = job.record.keep_partials or outcome.state == "failed" or shared
        aborted = outcome.state != "succeeded"
        await self._quietly(partial(self._records.tidy, job, aborted=aborted, keep_partials=keeps), name)

    async def _tidy_ended(self, name: str) -> None:
        """Do what a master that was killed could not do any more."""
        try:
            outcome = await asyncio.to_thread(self._records.outcome, name)
            job = await asyncio.to_thread(self._records.load, name)
        except DistsumError as error:
            log.warning("something of job %s could not be removed: %s", name, error, extra=concerning(job=name))
            return
        if outcome is not None:
            await self._tidy(job, outcome, name)

    async def _quietly(self, call: Callable[[], None], job: str) -> None:
        """Do what a job does not depend on: remove what ``distsum gc`` would find later, or store its history."""
        try:
            await asyncio.to_thread(call)
        except DistsumError as error:
            told = "job %s has ended, but not all that follows could be done: %s"
            log.warning(told, job, error, extra=concerning(job=job))

    async def gauges(self) -> Gauges:
        """Return what there is at this moment; without queues where the broker is away."""
        try:
            queues = await self._figures.queues()
        except DistsumError:
            queues = ()
        return Gauges(
            Counter(each.state for each in self._workers.statuses()),
            Counter(each.state for each in self._jobs.served.values()),
            [QueueGauge(each.name, each.ready, each.unacknowledged, each.consumers) for each in queues],
            self._figures.redelivered,
        )

    # Clients ----------------------------------------------------------------------------------------------------------

    async def answer(self, request: channel.AnyRequest) -> channel.AnyReply:
        """Do what a client asks; whatever goes wrong is an answer."""
        await self._serving.wait()
        try:
            answer = await self._answers.answer(request)
        except DistsumError as error:
            answer = channel.Refused(str(error))
        # Another master may have taken over since, and know nothing of what was promised here. It is asked again.
        await self._serving.wait()
        return answer

    async def fleet_size(self) -> int | None:
        """Return how many workers the fleet was asked to have, of this master or an earlier one; None if it was not.

        Raises:
            StorageError: It cannot be read.
        """
        if not self._scaling.has_fleet:
            return None
        try:
            return await asyncio.to_thread(self._records.scaled)
        except DamagedRecordError as error:
            log.warning("%s; the fleet has as many workers as its file says", error)
            return None


def note_fault(fault: asyncio.Future[None]) -> None:
    """Take note of what ends a master, which it may not wait for any more when it was asked to end just before."""
    if not fault.cancelled() and (error := fault.exception()) is not None:
        log.debug("this master ends: %s", error)


async def _told_nobody(_key: str, _frame: bytes) -> bool:
    return False


class _CancelledError(Exception):
    """The job was cancelled."""
