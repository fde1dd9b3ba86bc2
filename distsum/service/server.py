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

import msgspec

from distsum import __version__
from distsum.actors.actor import BROKER, CLIENT, MASTER, TRACKER, WORKERS
from distsum.actors.master import Master, MasterSettings
from distsum.actors.speculation import SpeculationSettings
from distsum.actors.steering import Steering
from distsum.actors.system import AsyncioSystem
from distsum.actors.task_tracker import TaskTracker, TrackerSettings
from distsum.brokers.base import LEFT
from distsum.brokers.topology import SERVICE_EVENTS, job_events
from distsum.errors import DistsumError, StorageError
from distsum.logs import concerning
from distsum.messages import (
    PROTOCOL,
    AssignTask,
    BackupAnswered,
    CancelJob,
    ChangePriority,
    DismissWorker,
    JobFailed,
    JobStarted,
    JobSucceeded,
    KillWorker,
    PauseWorker,
    ResumeWorker,
    RunTask,
    Shutdown,
    SubmitJob,
    TellWorker,
    WorkerJoined,
    WorkerLost,
    WorkerPaused,
    WorkerRefused,
    WorkerResumed,
)
from distsum.observe.gauges import Gauges, QueueGauge
from distsum.observe.ledger import task_words
from distsum.observe.narrator import Narrator
from distsum.observe.workers import GONE, WorkerTable
from distsum.partials import node_context
from distsum.service import messages as channel
from distsum.service import overview
from distsum.service.feeds import Feeds
from distsum.service.records import DamagedRecordError, Outcome, Records, Ticket, check_outside, ended_status
from distsum.service.scaling import Scaling
from distsum.service.served_job import ServedJob
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from distsum.brokers.base import Broker
    from distsum.jobs import Job
    from distsum.messages import FromBroker, FromWorker, TaskId
    from distsum.observe.ledger import LedgerReport
    from distsum.request import Summary
    from distsum.stores.base import Store

log = logging.getLogger(__name__)

_ENDED_KEPT: Final = 2_000
"""Jobs that have ended and are told of without reading their records again."""
_READ_AT_ONCE: Final = 16
"""Jobs that have ended and whose records are read side by side, each by a thread."""
_RETRY_SECONDS: Final = (0.5, 2.0, 8.0)
"""Pauses before a record is stored again; the last one repeats."""
_PREFLIGHT_SECONDS: Final = 8.0
_FAREWELL_SECONDS: Final = 5.0
_TELLING_SECONDS: Final = 5.0
"""For so long a client is left waiting for what is being stored."""
_WORKER_EVENTS: Final = (WorkerJoined, WorkerLost, WorkerRefused, WorkerPaused, WorkerResumed)
_LEDGERS_KEPT: Final = 20
"""Ledgers of jobs that have ended, which are told of without counting through their histories again."""


class ServiceBroker(Protocol):
    """What the service needs of a broker beyond ``Broker``."""

    async def queues(self) -> tuple[channel.Queue, ...]:
        """Return how many messages wait where."""
        ...

    @property
    def redelivered(self) -> int:
        """Tasks that came back from a worker since the start."""
        ...

    @property
    def management(self) -> str | None:
        """Where people can look closer, if that is known."""
        ...

    @property
    def management_fault(self) -> str | None:
        """Why nothing was heard from there, if that is so."""
        ...

    @property
    def ahead_seconds(self) -> dict[str, float]:
        """How far workers' clocks are ahead of this one, where that is known."""
        ...


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
        self._work = work
        self._broker = broker
        self._figures = figures
        self._scaling = scaling or Scaling()
        self._master_settings = master or MasterSettings()
        self._tracker_settings = TrackerSettings(
            retry_storage=True, first_attempt=time.time_ns(), speculation=speculation or SpeculationSettings()
        )
        self._served: dict[str, ServedJob] = {}
        self._ended: dict[str, channel.JobStatus] = {}
        self._ledgers: dict[str, LedgerReport] = {}
        self._left_alone: dict[str, str] = {}
        """Jobs that were accepted and cannot be read, and why."""
        self._workers = WorkerTable()
        self._narrator = Narrator()
        self._observer = observer
        self._parted: dict[str, ServedJob] = {}
        """Jobs that have ended while somebody looked, and still does."""
        self._joined: dict[str, WorkerJoined] = {}
        self._sent_away: set[str] = set()
        self._recalled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: dict[str, asyncio.Lock] = {}
        self._began = time.time()
        self._token = secrets.token_hex(16).encode()
        self._serving = asyncio.Event()
        """Set while no other master can serve. What is stored must wait for it, and so must every answer."""
        self._overview = overview.Overview(
            work, self._remembered_jobs, self._workers.statuses, self._queues, self._scaling.status
        )
        self._feeds = Feeds(tell or _told_nobody, self._spawn, self._serving.is_set)
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
        self._system = system = AsyncioSystem(self._take_event, self._set_fault)
        self._steering = Steering(system.deliver, self._tracker_settings.speculation)
        system.gateway(BROKER, self._to_broker)
        system.gateway(WORKERS, self._to_workers)
        system.gateway(CLIENT, self._to_client)
        system.spawn(MASTER, partial(Master, settings=self._master_settings))
        system.spawn(TRACKER, partial(TaskTracker, settings=self._tracker_settings))
        # Before the broker, where it may be hours until it is our turn.
        await asyncio.to_thread(self._store.preflight, self._work)
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
        self._overview.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for served in self._served.values():
            if served.recorder is not None:
                served.recorder.close()
        if self._serving.is_set():
            with contextlib.suppress(DistsumError, TimeoutError):
                await asyncio.wait_for(asyncio.to_thread(self._records.end_serving, self._token), _FAREWELL_SECONDS)
        # What their threads ask of a server that does not answer would keep this process from ending.
        await asyncio.to_thread(self._store.close)
        self._system.close()
        await self._broker.close()

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
                self._left_alone[name] = str(error)
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

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

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
                self._broker.pause(message.worker)
            case ResumeWorker():
                self._broker.resume(message.worker)

    def _to_client(self, message: msgspec.Struct) -> None:
        if isinstance(message, JobSucceeded | JobFailed):
            served = self._served.get(message.job)
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
            concerned = [each for each in self._served.values() if each.state == "running"]
        else:
            concerned = [self._served[name]] if name in self._served else []
        for served in concerned:
            if isinstance(event, JobStarted):
                served.state = "running"
                served.begin()
            served.take(event)
            if isinstance(event, JobStarted):
                for joined in self._joined.values():
                    served.take(joined)
        self._note_worker(event)
        if self._observer is not None:
            self._observer.take(event)
        if (line := self._narrator.line_of(event)) is not None:
            log.log(line.level, "%s", line.words, extra=line.concerns)

    def _note_worker(self, event: msgspec.Struct) -> None:
        """Remember who is there, for jobs that begin later; their start was no time of those."""
        if isinstance(event, WorkerJoined):
            self._joined[event.worker] = msgspec.structs.replace(event, start_seconds=0.0)
        elif isinstance(event, WorkerLost):
            self._joined.pop(event.worker, None)

    # Jobs -------------------------------------------------------------------------------------------------------------

    def _serve(self, job: Job, ticket: Ticket, *, resumed: bool = False, cancelled: bool = False) -> None:
        speculation = self._tracker_settings.speculation.policy != "none"
        served = ServedJob(job, ticket, resumed=resumed, cancelled=cancelled, speculation=speculation)
        self._served[job.spec.job] = served
        self._spawn(self._run_job(served))

    async def _run_job(self, served: ServedJob) -> None:
        name = served.job.spec.job
        try:
            summary = await self._summary_of(served)
            outcome = Outcome(state="succeeded", ended_seconds=time.time(), exit_code=0, summary=summary)
        except _CancelledError:
            reason = "cancelled by a client"
            outcome = Outcome(state="cancelled", ended_seconds=time.time(), exit_code=1, reason=reason)
        except DistsumError as error:
            # Also where the store is down for good: the job can be submitted again, and what is stored is used.
            code = error.exit_code
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
        await self._serving.wait()
        if served.resumed and not self._shares_output(served):
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
        seconds = time.perf_counter() - served.began
        return job.summary(outcome, served.tally, len(self._active()), digest, seconds)

    def _shares_output(self, served: ServedJob) -> bool:
        """Whether another job that is under way has the same output."""
        output = served.job.record.output
        return any(each is not served and each.job.record.output == output for each in self._served.values())

    async def _end(self, served: ServedJob, outcome: Outcome) -> None:
        """Store how a job ended, as often as it takes, and tell of it then."""
        name = served.job.spec.job
        told = ended_status(served.job.record, served.ticket, outcome)
        storing = asyncio.ensure_future(self._store_outcome(served, outcome))
        try:
            done, _ = await asyncio.wait({storing}, timeout=_TELLING_SECONDS)
            if not done and outcome.state == "failed":
                # Who waits must hear of it, above all where the store itself is what has failed.
                served.told = told
            await storing
        finally:
            storing.cancel()
        self._remember(told)
        del self._served[name]
        self._parted = {job: each for job, each in self._parted.items() if job_events(job) in self._feeds}
        if job_events(name) in self._feeds:
            self._parted[name] = served
        if self._observer is not None:
            self._observer.job_ended(outcome.state)
        log.info("job %s %s", name, outcome.reason or outcome.state, extra=concerning(job=name))

    async def _store_outcome(self, served: ServedJob, outcome: Outcome) -> None:
        name = served.job.spec.job
        # Before the outcome: nobody looks for it afterwards.
        if served.recorder is not None:
            await self._quietly(partial(self._records.put_history, name, served.recorder), name)
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

    async def _tidy(self, job: Job, outcome: Outcome, name: str) -> None:
        """Remove what a job has left; should this process end before, the next master does it."""
        # Partials of equal nodes are one and the same, whichever job they are of: they go with the last such job.
        context = node_context(job.spec, 0)
        shared = any(each.context == context for each in self._served.values())
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
            Counter(each.state for each in self._served.values()),
            [QueueGauge(each.name, each.ready, each.unacknowledged, each.consumers) for each in queues],
            self._figures.redelivered,
        )

    def _active(self) -> list[str]:
        return [each.worker for each in self._workers.statuses() if each.state not in GONE]

    # Clients ----------------------------------------------------------------------------------------------------------

    async def answer(self, request: channel.AnyRequest) -> channel.AnyReply:
        """Do what a client asks; whatever goes wrong is an answer."""
        await self._serving.wait()
        try:
            answer = await self._answer(request)
        except DistsumError as error:
            answer = channel.Refused(str(error))
        # Another master may have taken over since, and know nothing of what was promised here. It is asked again.
        await self._serving.wait()
        return answer

    async def _answer(self, request: channel.AnyRequest) -> channel.AnyReply:
        match request:
            case channel.Describe():
                return channel.Description(__version__, PROTOCOL, self._work)
            case channel.Submit():
                return await self._submit(request)
            case channel.ListJobs():
                return await self._list_jobs(request.limit)
            case channel.GetJob() | channel.GetStragglers() | channel.GetNode():
                return await self._tell_of_job(request)
            case channel.Cancel():
                return await self._cancel(request.job)
            case channel.SetPriority():
                return await self._set_priority(request)
            case channel.SwitchSpeculation():
                return self._switch_speculation(request)
            case channel.BackUp():
                return await self._back_up(request.task)
            case channel.ListWorkers():
                return channel.Workers(self._workers.statuses())
            case channel.CommandWorker():
                return self._command_worker(request)
            case channel.ScaleWorkers():
                return await self._scale(request)
            case channel.ListQueues():
                return await self._queues()
            case channel.Watch():
                return await self._watch(request)
            case channel.Diagnose():
                return await self._diagnose()

    async def _queues(self) -> channel.Queues:
        figures = self._figures
        queues = await figures.queues()
        return channel.Queues(queues, figures.redelivered, figures.management, figures.management_fault)

    async def _scale(self, request: channel.ScaleWorkers) -> channel.AnyReply:
        if (refused := self._scaling.refusal(request)) is not None:
            return refused
        try:
            await asyncio.to_thread(self._records.scale, request.total)
        except StorageError as error:
            return channel.Refused(f"the number cannot be stored: {error}")
        self._scaling.scale(request)
        return channel.Done()

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

    def _remembered_jobs(self) -> tuple[channel.JobStatus, ...]:
        ended = sorted(self._ended.values(), key=lambda status: status.ended_seconds or 0.0)
        workers = len(self._active())
        return (*ended[-overview.JOBS_SHOWN :], *(each.status(workers) for each in self._served.values()))

    async def _submit(self, request: channel.Submit) -> channel.AnyReply:
        name = request.job
        async with self._accepting.setdefault(name, asyncio.Lock()):
            try:
                if name in self._served:
                    return channel.Done()  # Said twice: the first answer did not arrive.
                job = await asyncio.to_thread(self._records.load, name)
                await asyncio.to_thread(check_outside, job.record.output, self._work)
                if await asyncio.to_thread(self._records.outcome, name) is not None:
                    return channel.Done()
                ticket = Ticket(time.time(), request.priority)
                await asyncio.to_thread(self._records.accept, name, ticket)
                log.info("job %s is accepted", name, extra=concerning(job=name))
                self._serve(job, ticket)
            finally:
                self._accepting.pop(name, None)
        return channel.Done()

    async def _list_jobs(self, limit: int) -> channel.Jobs:
        folders = await asyncio.to_thread(self._records.folders) if limit > 0 else []
        ended = [each for each in folders if each.ended and each.job not in self._served]
        # There may be thousands, of which only the last are told.
        ended.sort(key=lambda each: each.ended_ago_seconds or 0.0)
        told: list[channel.JobStatus] = []
        for start in range(0, len(ended), _READ_AT_ONCE):
            found = await asyncio.gather(
                *(self._ended_if_read(each.job) for each in ended[start : start + _READ_AT_ONCE])
            )
            told += [status for status in found if status is not None]
            if len(told) >= limit:
                break
        told.sort(key=lambda status: status.ended_seconds or 0.0)
        workers = len(self._active())
        return channel.Jobs(
            (*told[max(0, len(told) - limit) :], *(each.status(workers) for each in self._served.values()))
        )

    async def _ended_if_read(self, name: str) -> channel.JobStatus | None:
        """Return what is told of a job that has ended; None of one that cannot be read, which must not hide others."""
        with contextlib.suppress(StorageError):
            return await self._ended_job(name)
        return None

    async def _tell_of_job(self, request: channel.GetJob | channel.GetStragglers | channel.GetNode) -> channel.AnyReply:
        match request:
            case channel.GetJob():
                return await self._get_job(request.job)
            case channel.GetStragglers():
                return await self._get_stragglers(request.job)
            case channel.GetNode():
                return await self._get_node(request)

    async def _get_job(self, name: str) -> channel.AnyReply:
        if (served := self._served.get(name)) is not None:
            return channel.Job(served.status(len(self._active())))
        if (status := await self._ended_job(name)) is not None:
            return channel.Job(status)
        if (reason := self._left_alone.get(name)) is not None:
            return channel.Refused(
                f"job {name} cannot go on: {reason}; submit it again, and `distsum cancel {name}` lets `distsum gc` "
                "remove what it has left"
            )
        return channel.Refused(f"there is no job {printable(name, 80)}; `distsum jobs` lists them")

    async def _get_node(self, request: channel.GetNode) -> channel.AnyReply:
        name = request.task.job
        served = self._served.get(name)
        if served is None and job_events(name) in self._feeds:
            served = self._parted.get(name)
        if served is not None:
            return served.detail(request)
        found = await self._get_job(name)
        if not isinstance(found, channel.Job):
            return found
        return channel.Refused(f"job {name} has ended; open it again to play it")

    async def _get_stragglers(self, name: str) -> channel.AnyReply:
        if (served := self._served.get(name)) is not None:
            return channel.Stragglers(served.tally.ledger_report(served.began_seconds))
        if (report := self._ledgers.get(name)) is None:
            found = await self._get_job(name)
            if not isinstance(found, channel.Job):
                return found
            replay = await asyncio.to_thread(self._records.replay, name)
            if replay is None:
                return channel.Refused(
                    f"job {name} has no history: it ended before it ran, or what happened could not be stored"
                )
            report = self._ledgers[name] = replay.ledger_report()
            while len(self._ledgers) > _LEDGERS_KEPT:
                del self._ledgers[next(iter(self._ledgers))]
        return channel.Stragglers(report)

    async def _ended_job(self, name: str) -> channel.JobStatus | None:
        if (status := self._ended.get(name)) is None:
            status = await asyncio.to_thread(self._records.ended_status, name)
            if status is not None:
                self._remember(status)
        return status

    def _remember(self, status: channel.JobStatus) -> None:
        self._ended[status.job] = status
        while len(self._ended) > _ENDED_KEPT:
            del self._ended[next(iter(self._ended))]

    async def _cancel(self, name: str) -> channel.AnyReply:
        served = self._served.get(name)
        if served is None:
            if name in self._left_alone:
                return await self._end_left_alone(name)
            found = await self._get_job(name)
            if isinstance(found, channel.Job):
                return channel.Refused(f"job {name} has {found.status.state} already")
            return found
        if served.state == "finishing" and not served.cancelled:
            return channel.Refused(f"job {name} is being finished; it is too late to cancel it")
        served.cancelled = True
        self._steering.cancel(name)
        fault = await self._stored(served, partial(self._records.cancel, name))
        if fault is None:
            return channel.Done()
        return channel.Refused(
            f"job {name} is stopped, but that cannot be stored ({fault}), so another master would go on with it; "
            "cancel it again"
        )

    async def _end_left_alone(self, name: str) -> channel.AnyReply:
        """End a job that cannot be read, so that `distsum gc` may remove what it has left."""
        reason = f"cancelled by a client; {self._left_alone[name]}"
        outcome = Outcome(state="cancelled", ended_seconds=time.time(), exit_code=1, reason=reason)
        await asyncio.to_thread(self._records.end, name, outcome)
        del self._left_alone[name]
        return channel.Done()

    async def _stored(self, served: ServedJob, call: Callable[[], None]) -> str | None:
        """Store what another master must know of a job; return why that could not be done in time, or None."""

        async def store() -> None:
            async with served.storing:
                await asyncio.to_thread(call)

        try:
            await asyncio.wait_for(store(), _TELLING_SECONDS)
        except TimeoutError:
            return f"nothing was heard from the store for {_TELLING_SECONDS:g} s"
        except StorageError as error:
            return str(error)
        return None

    def _switch_speculation(self, request: channel.SwitchSpeculation) -> channel.AnyReply:
        served = self._served.get(request.job)
        if served is None or served.state != "running":
            return channel.Refused(f"job {printable(request.job, 80)} is not running")
        refusal = self._steering.switch_speculation(request.job, on=request.on)
        return channel.Done() if refusal is None else channel.Refused(refusal)

    async def _back_up(self, task: TaskId) -> channel.AnyReply:
        served = self._served.get(task.job)
        if served is None or served.state != "running":
            return channel.Refused(f"job {printable(task.job, 80)} is not running")
        if (reason := served.lacks(task)) is not None:
            return channel.Refused(reason)
        answered: asyncio.Future[BackupAnswered] = asyncio.get_running_loop().create_future()

        def take(answer: BackupAnswered) -> None:
            if not answered.done():  # Nobody may wait any more.
                answered.set_result(answer)

        number = self._steering.back_up(task, take)
        try:
            answer = await asyncio.wait_for(answered, _TELLING_SECONDS)
        except TimeoutError:
            return channel.Refused(f"the master is too busy to say whether {task_words(task)} gets a backup; ask again")
        finally:
            self._steering.forget(number)
        if (started := answer.started) is None:
            return channel.Refused(f"{task_words(task)} of job {task.job} {answer.refusal}")
        return channel.BackedUp(started.worker, started.of_worker, started.helpers)

    async def _set_priority(self, request: channel.SetPriority) -> channel.AnyReply:
        name = request.job
        served = self._served.get(name)
        if served is None:
            return channel.Refused(f"job {printable(name, 80)} is not queued or running")
        self._system.deliver(MASTER, ChangePriority(name, request.priority))
        served.ticket = msgspec.structs.replace(served.ticket, priority=request.priority)
        fault = await self._stored(served, lambda: self._records.accept(name, served.ticket))
        if fault is None:
            return channel.Done()
        return channel.Refused(
            f"job {name} has that priority now, but it cannot be stored ({fault}), so another master would not know; "
            "give it again"
        )

    async def _watch(self, request: channel.Watch) -> channel.AnyReply:
        name = request.job
        if name is None:
            if not self._recalled:
                self._recalled = True
                self._spawn(self._recall())
            look = self._overview.look
            return await self._feeds.watch(SERVICE_EVENTS, request.stream, look, overview.FRAME_SECONDS)
        key, served = job_events(name), self._served.get(name)
        if served is None and key not in self._feeds:  # One that ends while somebody looks is told of to its end.
            return await self._get_job(name)
        tasks = 0 if served is None else served.tasks
        return await self._feeds.watch(key, request.stream, None if served is None else served.look, tasks=tasks)

    async def _recall(self) -> None:
        """Remember jobs that have ended under earlier masters. That may be many, and nobody who looks waits for it."""
        try:
            await self._list_jobs(overview.JOBS_SHOWN)
        except StorageError as error:
            log.warning("jobs that have ended cannot be told to those who look: %s", error)

    async def _diagnose(self) -> channel.Diagnosis:
        fault = None
        try:
            async with asyncio.timeout(_PREFLIGHT_SECONDS):
                await asyncio.to_thread(self._store.preflight, self._work)
        except DistsumError as error:
            fault = str(error)
        except TimeoutError:
            fault = f"the store does not answer within {_PREFLIGHT_SECONDS:.0f} s"
        active = set(self._active())
        ahead = {worker: seconds for worker, seconds in self._figures.ahead_seconds.items() if worker in active}
        workers = self._workers.statuses()
        return channel.Diagnosis(__version__, PROTOCOL, self._work, time.time(), workers, ahead, fault)

    def _command_worker(self, request: channel.CommandWorker) -> channel.AnyReply:
        worker = request.worker
        if worker not in self._active():
            return channel.Refused(f"there is no worker {printable(worker, 80)}; `distsum workers` lists them")
        match request.action:
            case "pause":
                self._system.deliver(TRACKER, PauseWorker(worker, "paused by a client"))
            case "resume":
                self._sent_away.discard(worker)
                self._system.deliver(TRACKER, ResumeWorker(worker))
            case "drain":
                self._sent_away.add(worker)
                self._system.deliver(TRACKER, DismissWorker(worker, "drained by a client"))
            case "shutdown":
                self._sent_away.add(worker)
                self._broker.send(worker, Shutdown("sent away by a client"))
        return channel.Done()


async def _told_nobody(_key: str, _frame: bytes) -> bool:
    return False


class _CancelledError(Exception):
    """The job was cancelled."""
