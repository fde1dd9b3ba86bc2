"""What a service answers its clients: questions of jobs, workers and queues, and what they want done."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from distsum import __version__
from distsum.actors.actor import MASTER, TRACKER
from distsum.brokers.topology import SERVICE_EVENTS, job_events
from distsum.errors import DistsumError, StorageError
from distsum.logs import concerning
from distsum.messages import PROTOCOL, ChangePriority, DismissWorker, PauseWorker, ResumeWorker, Shutdown
from distsum.observe.ledger import task_words
from distsum.service import messages as channel
from distsum.service import overview
from distsum.service.records import Ticket, check_outside
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from distsum.actors.steering import Steering
    from distsum.brokers.base import Broker
    from distsum.jobs import Job
    from distsum.messages import BackupAnswered, TaskId
    from distsum.observe.workers import WorkerTable
    from distsum.service.feeds import Feeds
    from distsum.service.known_jobs import KnownJobs
    from distsum.service.records import Records
    from distsum.service.scaling import Scaling
    from distsum.service.served_job import ServedJob

log = logging.getLogger(__name__)

_PREFLIGHT_SECONDS: Final = 8.0
TELLING_SECONDS: Final = 5.0
"""For so long a client is left waiting for what is being stored."""


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


class Answers:
    """Answers requests, one asyncio task each.

    Args:
        records: What is stored of jobs.
        jobs: Those that are known.
        serve: Begins to serve a job that was accepted.
        broker: The way to the workers.
        figures: What it tells of its queues.
        workers: Those that are known.
        sent_away: Those that were told to leave, which are not missed then.
        scaling: The fleet, if there is one.
        feeds: Who looks at what.
        spawn: Has something done that nobody waits for.
    """

    def __init__(
        self,
        *,
        records: Records,
        jobs: KnownJobs,
        serve: Callable[[Job, Ticket], None],
        broker: Broker,
        figures: ServiceBroker,
        workers: WorkerTable,
        sent_away: set[str],
        scaling: Scaling,
        feeds: Feeds,
        spawn: Callable[[Coroutine[None, None, None]], object],
    ) -> None:
        self._records = records
        self._jobs = jobs
        self._serve = serve
        self._broker = broker
        self._figures = figures
        self._workers = workers
        self._sent_away = sent_away
        self._scaling = scaling
        self._feeds = feeds
        self._spawn = spawn
        self._recalled = False
        self._accepting: dict[str, asyncio.Lock] = {}
        self._overview = overview.Overview(
            records.work, partial(jobs.remembered, channel.JOBS_SHOWN), workers.statuses, self.queues, scaling.status
        )
        self._deliver: Callable[[str, msgspec.Struct], None]
        self._steering: Steering

    def begin(self, deliver: Callable[[str, msgspec.Struct], None], steering: Steering) -> None:
        """Take note of the actors, who are there from now on."""
        self._deliver = deliver
        self._steering = steering

    def close(self) -> None:
        """Tell nobody anything any more."""
        self._overview.close()

    async def answer(self, request: channel.AnyRequest) -> channel.AnyReply:
        """Do what a client asks.

        Raises:
            DistsumError: It cannot be done, for a reason that is the answer.
        """
        match request:
            case channel.Describe():
                return channel.Description(__version__, PROTOCOL, self._records.work)
            case channel.Submit():
                return await self._submit(request)
            case channel.ListJobs():
                return await self._jobs.listed(request.limit)
            case channel.GetJob() | channel.GetStragglers() | channel.GetNode():
                return await self._jobs.tell_of(request)
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
                return await self.queues()
            case channel.Watch():
                return await self._watch(request)
            case channel.Diagnose():
                return await self._diagnose()

    async def queues(self) -> channel.Queues:
        """Return what waits in the broker's queues.

        Raises:
            UnreachableError: It does not tell.
        """
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

    async def _submit(self, request: channel.Submit) -> channel.AnyReply:
        name = request.job
        async with self._accepting.setdefault(name, asyncio.Lock()):
            try:
                if name in self._jobs.served:
                    return channel.Done()  # Said twice: the first answer did not arrive.
                job = await asyncio.to_thread(self._records.load, name)
                await asyncio.to_thread(check_outside, job.record.output, self._records.work)
                if await asyncio.to_thread(self._records.outcome, name) is not None:
                    return channel.Done()
                ticket = Ticket(time.time(), request.priority)
                await asyncio.to_thread(self._records.accept, name, ticket)
                log.info("job %s is accepted", name, extra=concerning(job=name))
                self._serve(job, ticket)
            finally:
                self._accepting.pop(name, None)
        return channel.Done()

    async def _cancel(self, name: str) -> channel.AnyReply:
        served = self._jobs.served.get(name)
        if served is None:
            if name in self._jobs.left_alone:
                return await self._jobs.end_left_alone(name)
            found = await self._jobs.found(name)
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

    async def _stored(self, served: ServedJob, call: Callable[[], None]) -> str | None:
        """Store what another master must know of a job; return why that could not be done in time, or None."""

        async def store() -> None:
            async with served.storing:
                await asyncio.to_thread(call)

        try:
            await asyncio.wait_for(store(), TELLING_SECONDS)
        except TimeoutError:
            return f"nothing was heard from the store for {TELLING_SECONDS:g} s"
        except StorageError as error:
            return str(error)
        return None

    def _switch_speculation(self, request: channel.SwitchSpeculation) -> channel.AnyReply:
        served = self._jobs.served.get(request.job)
        if served is None or served.state != "running":
            return channel.Refused(f"job {printable(request.job, 80)} is not running")
        refusal = self._steering.switch_speculation(request.job, on=request.on)
        return channel.Done() if refusal is None else channel.Refused(refusal)

    async def _back_up(self, task: TaskId) -> channel.AnyReply:
        served = self._jobs.served.get(task.job)
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
            answer = await asyncio.wait_for(answered, TELLING_SECONDS)
        except TimeoutError:
            return channel.Refused(f"the master is too busy to say whether {task_words(task)} gets a backup; ask again")
        finally:
            self._steering.forget(number)
        if (started := answer.started) is None:
            return channel.Refused(f"{task_words(task)} of job {task.job} {answer.refusal}")
        return channel.BackedUp(started.worker, started.of_worker, started.helpers)

    async def _set_priority(self, request: channel.SetPriority) -> channel.AnyReply:
        name = request.job
        served = self._jobs.served.get(name)
        if served is None:
            return channel.Refused(f"job {printable(name, 80)} is not queued or running")
        self._deliver(MASTER, ChangePriority(name, request.priority))
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
        key, served = job_events(name), self._jobs.served.get(name)
        if served is None and key not in self._feeds:  # One that ends while somebody looks is told of to its end.
            return await self._jobs.found(name)
        tasks = 0 if served is None else served.tasks
        return await self._feeds.watch(key, request.stream, None if served is None else served.look, tasks=tasks)

    async def _recall(self) -> None:
        """Remember jobs that have ended under earlier masters. That may be many, and nobody who looks waits for it."""
        try:
            await self._jobs.listed(channel.JOBS_SHOWN)
        except StorageError as error:
            log.warning("jobs that have ended cannot be told to those who look: %s", error)

    async def _diagnose(self) -> channel.Diagnosis:
        fault = None
        try:
            async with asyncio.timeout(_PREFLIGHT_SECONDS):
                await asyncio.to_thread(self._records.preflight)
        except DistsumError as error:
            fault = str(error)
        except TimeoutError:
            fault = f"the store does not answer within {_PREFLIGHT_SECONDS:.0f} s"
        active = set(self._workers.active())
        ahead = {worker: seconds for worker, seconds in self._figures.ahead_seconds.items() if worker in active}
        workers = self._workers.statuses()
        return channel.Diagnosis(__version__, PROTOCOL, self._records.work, time.time(), workers, ahead, fault)

    def _command_worker(self, request: channel.CommandWorker) -> channel.AnyReply:
        worker = request.worker
        if worker not in self._workers.active():
            return channel.Refused(f"there is no worker {printable(worker, 80)}; `distsum workers` lists them")
        match request.action:
            case "pause":
                self._deliver(TRACKER, PauseWorker(worker, "paused by a client"))
            case "resume":
                self._sent_away.discard(worker)
                self._deliver(TRACKER, ResumeWorker(worker))
            case "drain":
                self._sent_away.add(worker)
                self._deliver(TRACKER, DismissWorker(worker, "drained by a client"))
            case "shutdown":
                self._sent_away.add(worker)
                self._broker.send(worker, Shutdown("sent away by a client"))
        return channel.Done()
