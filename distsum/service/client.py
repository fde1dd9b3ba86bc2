"""The service from a client's side: submit jobs, follow them, and look after workers."""

from __future__ import annotations

import os
import time
import uuid
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import msgspec

from distsum import __version__
from distsum.errors import (
    InterruptedRunError,
    JobCancelledError,
    RemoteJobError,
    ServiceError,
    StorageError,
    UnreachableError,
)
from distsum.jobs import Job, JobRecord
from distsum.messages import TaskId
from distsum.request import priority_of
from distsum.service import messages as channel
from distsum.service.records import Records, check_outside
from distsum.stores.routing import absolute, is_remote
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from distsum.observe.ledger import LedgerReport
    from distsum.observe.workers import WorkerStatus
    from distsum.preparation import Prepared
    from distsum.request import Options, ReductionName, Summary
    from distsum.stores.base import Store

_Reply = TypeVar("_Reply", bound=channel.Reply)
_ANSWER_SECONDS = 30.0
_POLL_SECONDS = (0.02, 0.3)
"""The shortest and the longest pause between two questions how a job is doing."""
_POLL_SHARE = 0.05
"""Of the time that it has been waited for: so much later than it could be is an end heard of."""
_FOLLOW_SECONDS = 300.0
"""Who waits for a job outlasts a broker that starts again, and a master that another takes over from: as workers do."""


class Transport(Protocol):
    """Carries requests to the service."""

    def ask(self, request: channel.AnyRequest, seconds: float) -> channel.AnyReply:
        """Return the answer; safe to call from any thread.

        Raises:
            UnreachableError: There is no broker, or no master answers in time.
        """
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class ServiceClient:
    """Speaks with a service, however its requests get there; a context manager.

    Its calls block, and may be made from any thread.

    Args:
        transport: The way to it.
        store: Where inputs, results and the service's work folder lie; it is closed with the client.
        patience_seconds: How long to wait for a master, should one be starting or another be taking over.
    """

    def __init__(self, transport: Transport, store: Store, patience_seconds: float = _ANSWER_SECONDS) -> None:
        self._transport = transport
        self._store = store
        self._patience_seconds = patience_seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections; jobs go on."""
        try:
            self._transport.close()
        finally:
            self._store.close()

    def describe(self) -> channel.Description:
        """Return who serves.

        Raises:
            UnreachableError: No master answers.
        """
        return self._ask(channel.Describe(), channel.Description)

    def fitting_service(self) -> channel.Description:
        """Return who serves, where it can do jobs of ours.

        Raises:
            UnreachableError: No master answers.
            ServiceError: It is of another version, or keeps its work where this machine does not reach it.
        """
        service = self.describe()
        if not is_remote(service.work) and not os.path.isdir(service.work):
            raise ServiceError(
                f"the service keeps its work in {printable(service.work)}, which is not on this machine; mount it "
                "under that name, or submit from a machine that has it"
            )
        if service.version != __version__:
            raise ServiceError(f"the service is distsum {service.version}, and this is {__version__}; install the same")
        return service

    def _under_way(self, job: Job) -> str | None:
        """Return a job that has not ended and gives the same result in the same place, or None."""
        records = Records(self._store, job.spec.work)
        for status in self.jobs(limit=0):
            if status.state not in channel.ENDED and status.output == printable(job.record.output):
                try:
                    found = records.load(status.job)
                except StorageError:
                    continue  # it has ended meanwhile
                if job.gives_same(found):
                    return status.job
        return None

    def prepare_job(
        self, reduction: ReductionName, inputs: Sequence[bytes], output: bytes, options: Options
    ) -> Prepared:
        """Return a job as the service could do it now, with its plan; nothing is stored. As ``submit_job`` takes it.

        Raises:
            UsageError: What was asked for cannot be done.
            BadInputError: An input is bad, by its size or as the first one.
            UnreachableError: No master answers, or a bucket cannot be used.
            ServiceError: The service is of another version, or keeps its work where this machine does not reach it.
        """
        from distsum.preparation import check_output, prepare

        check_output(output, inputs, self._store, force=options.force)
        service = self.fitting_service()
        check_outside(absolute(output), service.work)
        workers = options.workers or max(1, sum(each.state in {"idle", "busy"} for each in self.workers()))
        fitting = msgspec.structs.replace(options, work_dir=os.fsdecode(service.work), workers=workers)
        return prepare(reduction, inputs, output, fitting, self._store)

    def submit_job(
        self,
        reduction: ReductionName,
        inputs: Sequence[bytes],
        output: bytes,
        options: Options,
        *,
        priority: int = 0,
        joins: bool = False,
    ) -> str:
        """Have a job done, and return its id as soon as it is stored: it will run, whatever happens to us.

        Args:
            reduction: For example ``mean``.
            inputs: URIs in the order in which they are to be added.
            output: URI of the result; its suffix tells the format.
            options: How to run; the work folder is the service's, and workers are those that it has.
            priority: Jobs of a higher one go first.
            joins: Whether a job that is under way, and gives this very result, is taken for it.

        Raises:
            UsageError: What was asked for cannot be done; nothing was changed.
            BadInputError: An input is bad, by its size or as the first one.
            UnreachableError: No master answers.
            ServiceError: The service is of another version, or does not take the job.
            InterruptedRunError: Ctrl-C, when the job may have been accepted already.
        """
        number = priority_of("priority", priority)
        prepared = self.prepare_job(reduction, inputs, output, options)
        if joins and (same := self._under_way(Job(prepared.record, prepared.manifest, self._store))) is not None:
            return same
        record = _submission(prepared.record)
        Records(self._store, record.spec.work).put_job(Job(record, prepared.manifest, self._store))
        job = record.spec.job
        try:
            self._ask(channel.Submit(job, number), channel.Done)
        except KeyboardInterrupt:
            raise InterruptedRunError(
                f"interrupted while job {job} was handed over; `distsum status {job}` tells whether it was accepted"
            ) from None
        return job

    def status(self, job: str) -> channel.JobStatus:
        """Return how a job is doing.

        Raises:
            ServiceError: There is no such job.
            UnreachableError: No master answers.
        """
        return self._status(job, self._patience_seconds)

    def _status(self, job: str, patience_seconds: float) -> channel.JobStatus:
        return self._ask(channel.GetJob(job), channel.Job, patience_seconds).status

    def stragglers(self, job: str) -> LedgerReport:
        """Return what was done about a job's stragglers: backups and declined ones, each with its evidence.

        Raises:
            ServiceError: There is no such job, or no history of it.
            UnreachableError: No master answers.
        """
        return self._ask(channel.GetStragglers(job), channel.Stragglers).report

    def jobs(self, limit: int = channel.JOBS_SHOWN) -> tuple[channel.JobStatus, ...]:
        """Return the last jobs that have ended, and then all that have not.

        Raises:
            UnreachableError: No master answers.
        """
        return self._ask(channel.ListJobs(limit), channel.Jobs).jobs

    def wait(
        self,
        job: str,
        timeout_seconds: float | None = None,
        on_status: Callable[[channel.JobStatus], None] | None = None,
    ) -> Summary:
        """Wait until a job has ended; return what it did.

        A master that is replaced meanwhile is waited for, and so is a broker that is started again.

        Args:
            job: Its id.
            timeout_seconds: How long to wait; None is for ever.
            on_status: Told some times a second how far it is.

        Raises:
            RemoteJobError: It has failed.
            JobCancelledError: Somebody has cancelled it.
            ServiceError: There is no such job.
            UnreachableError: No master answers, or none has answered for five minutes.
            TimeoutError: It has not ended in time.
        """
        began = time.monotonic()
        deadline = None if timeout_seconds is None else began + timeout_seconds
        patience_seconds = self._patience_seconds
        while True:
            status = self._status(job, patience_seconds)
            patience_seconds = max(self._patience_seconds, _FOLLOW_SECONDS)
            if deadline is not None:
                patience_seconds = min(patience_seconds, max(_POLL_SECONDS[1], deadline - time.monotonic()))
            if on_status is not None:
                on_status(status)
            if status.state in channel.ENDED:
                return result_of(status)
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"job {job} has not ended within {timeout_seconds:g} s; it goes on")
            shortest, longest = _POLL_SECONDS
            time.sleep(min(longest, max(shortest, _POLL_SHARE * (time.monotonic() - began))))

    def cancel(self, job: str) -> None:
        """Stop a job, and have what it has left removed.

        Raises:
            ServiceError: There is no such job, or it has ended.
            UnreachableError: No master answers.
        """
        self._ask(channel.Cancel(job), channel.Done)

    def set_priority(self, job: str, priority: int) -> None:
        """Give a job another priority; what runs goes on.

        Raises:
            UsageError: The priority is beyond what a message carries.
            ServiceError: There is no such job, or it has ended.
            UnreachableError: No master answers.
        """
        self._ask(channel.SetPriority(job, priority_of("priority", priority)), channel.Done)

    def switch_speculation(self, job: str, *, on: bool) -> None:
        """Have no more backups of a running job's stragglers begun, or again as the master's settings say.

        Backups under way go on. Another master that takes over does as its settings say.

        Raises:
            ServiceError: There is no such job, it is not running, or the master begins no backups at all.
            UnreachableError: No master answers.
        """
        self._ask(channel.SwitchSpeculation(job, on), channel.Done)

    def back_up(self, job: str, phase: int, task: int, tile: int = 0) -> channel.BackedUp:
        """Give a task that runs to an idle worker, too, at once, also where the job's stragglers get no backups.

        Whichever of the two is done first counts.

        Args:
            job: The job's id.
            phase: The task's phase, from 1.
            task: Its number within that, from 0.
            tile: The tile that it is of, from 0.

        Returns:
            Which workers have it now.

        Raises:
            ServiceError: The job or the task is not running, it runs twice already, or no other worker is idle.
            UnreachableError: No master answers.
        """
        return self._ask(channel.BackUp(TaskId(job, phase, tile, task)), channel.BackedUp)

    def workers(self) -> tuple[WorkerStatus, ...]:
        """Return the workers, the last that are gone among them.

        Raises:
            UnreachableError: No master answers.
        """
        return self._ask(channel.ListWorkers(), channel.Workers).workers

    def command_worker(self, worker: str, action: channel.WorkerAction) -> None:
        """Pause or resume a worker, send it away when its task is done (``drain``), or at once (``shutdown``).

        Raises:
            ServiceError: There is no such worker.
            UnreachableError: No master answers.
        """
        self._ask(channel.CommandWorker(worker, action), channel.Done)

    def scale_workers(self, total: int | None) -> None:
        """Begin to have another number of workers in all on the hosts of the master's fleet.

        It is answered when the number is stored, also for the next master. Those too many finish their tasks before
        they leave.

        Args:
            total: From 0 to 10,000; hosts share it in proportion to the fleet's file. None is what the file says.

        Raises:
            ServiceError: The master has no fleet, or the number is out of range.
            UnreachableError: No master answers.
        """
        self._ask(channel.ScaleWorkers(total), channel.Done)

    def queues(self) -> channel.Queues:
        """Return how many messages wait where.

        Raises:
            UnreachableError: No master answers.
        """
        return self._ask(channel.ListQueues(), channel.Queues)

    def _ask(
        self, request: channel.AnyRequest, expected: type[_Reply], patience_seconds: float | None = None
    ) -> _Reply:
        reply = self._transport.ask(request, self._patience_seconds if patience_seconds is None else patience_seconds)
        if isinstance(reply, channel.Refused):
            raise ServiceError(reply.reason)
        if not isinstance(reply, expected):
            raise UnreachableError(f"the service answers {type(reply).__name__} where {expected.__name__} was expected")
        return reply


def result_of(status: channel.JobStatus) -> Summary:
    """Return what a job that has ended did.

    Raises:
        RemoteJobError: It has failed.
        JobCancelledError: Somebody has cancelled it.
    """
    if status.summary is not None:
        return status.summary
    if status.state == "cancelled":
        raise JobCancelledError(f"job {status.job} was cancelled")
    raise RemoteJobError(status.reason or "it does not say why", status.exit_code or 1)


def _submission(record: JobRecord) -> JobRecord:
    """Return a record under an id of its own: the same job may be submitted twice, also at the same time."""
    return msgspec.structs.replace(record, spec=msgspec.structs.replace(record.spec, job=uuid.uuid4().hex[:12]))
