"""A job that a master has accepted and not ended: what is known of it, and what clients are told."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import msgspec

from distsum.logs import concerning
from distsum.messages import JobSucceeded
from distsum.observe.fold import JobTally
from distsum.observe.history import Recorder
from distsum.observe.view import JobFold
from distsum.partials import node_context
from distsum.service import messages as channel
from distsum.wording import printable

if TYPE_CHECKING:
    from distsum.actors.speculation import SpeculationSettings
    from distsum.jobs import Job
    from distsum.messages import JobFailed, TaskId
    from distsum.observe.history import HistoryHeader
    from distsum.observe.ledger import LedgerReport
    from distsum.observe.view import JobView
    from distsum.service.records import Ticket

log = logging.getLogger(__name__)


class ServedJob:
    """A job that the service has accepted and not ended; ``speculation`` says what is done about its stragglers."""

    def __init__(
        self, job: Job, ticket: Ticket, *, resumed: bool, cancelled: bool, speculation: SpeculationSettings
    ) -> None:
        self.job = job
        self.ticket = ticket
        self.resumed = resumed
        self.cancelled = cancelled
        self._speculation = speculation
        self.state: channel.JobState = "queued"
        self.told: channel.JobStatus | None = None
        """What is told of it instead, since it has ended and that cannot be stored yet."""
        self.storing = asyncio.Lock()
        self.began = time.perf_counter()
        self.tally = JobTally(job.work_by_phase(), job.input_uri, speculation=speculation.policy != "none")
        self.finished: asyncio.Future[JobSucceeded | JobFailed] = asyncio.get_running_loop().create_future()
        self.context = node_context(job.spec, 0)
        self.began_seconds = time.time()
        self.recorder: Recorder | None = None
        self.keeping: asyncio.Task[None] | None = None
        """What stores its history so far."""
        self.over = asyncio.Event()
        """Set when nothing more is recorded."""
        self.earlier: LedgerReport | None = None
        """What an earlier master has told of its stragglers."""
        self.states: tuple[bytes, ...] = ()
        """What was stored of it when it began, as ``Job.stored_states`` tells it."""
        self._fold: JobFold | None = None

    def begin(self) -> None:
        """Fold and record what happens from now on. Where it cannot be recorded the job goes on without."""
        header = self._header()
        if self.earlier is not None:
            self.tally.carry_on(self.earlier, self.began_seconds)
        self._fold = self._new_fold()
        try:
            self.recorder = Recorder(header)
        except OSError as error:
            name = self.job.spec.job
            log.warning(
                "the history of job %s cannot be recorded: %s", name, error.strerror, extra=concerning(job=name)
            )

    def take(self, event: msgspec.Struct) -> None:
        """Count and record an event."""
        now = time.perf_counter() - self.began
        # All that a screen draws is folded whether somebody looks or not: it takes some microseconds an event, and to
        # fold it again from the history of a large job, for who begins to look, would take a minute.
        (self._fold or self.tally).take(event, now)
        if self.recorder is not None:
            self.recorder.take(event, now)

    def fail_late(self, failure: JobFailed) -> None:
        """Tell of a failure that came when all of its tasks were done; others were told when they came."""
        if self.finished.done() and isinstance(self.finished.result(), JobSucceeded):
            self.take(failure)

    def view(self) -> JobView:
        """Return all that a screen draws of it."""
        fold = self._fold or self._new_fold()
        return fold.view(time.perf_counter() - self.began)

    def detail(self, request: channel.GetNode) -> channel.AnyReply:
        """Return what is known of a node of it."""
        if (reason := self.lacks(request.task)) is not None:
            return channel.Refused(reason)
        fold = self._fold or self._new_fold()
        return channel.Node(fold.detail(request.task, request.first, request.count))

    async def look(self) -> JobView:
        """As ``view``, for ``Feeds``."""
        return self.view()

    def lacks(self, task: TaskId) -> str | None:
        """Return why there is no such task in it; None if there is."""
        spec, tree = self.job.spec, self.job.tree
        if not 1 <= task.phase <= tree.phases:
            return f"job {spec.job} has no phase {task.phase}; its phases are 1 to {tree.phases}"
        width = tree.width(task.phase)
        if not 0 <= task.index < width:
            return f"phase {task.phase} of job {spec.job} has no task {task.index}; its tasks are 0 to {width - 1}"
        if not 0 <= task.tile < spec.tiles:
            return f"job {spec.job} has no tile {task.tile}; its tiles are 0 to {spec.tiles - 1}"
        return None

    @property
    def tasks(self) -> int:
        """Tasks by the plan."""
        return sum(each.tasks for each in self.job.work_by_phase())

    def _header(self) -> HistoryHeader:
        return self.job.history_header(
            self.began_seconds, resumed=self.resumed, speculation=self._speculation, earlier=self.earlier
        )

    def _new_fold(self) -> JobFold:
        return JobFold(
            self.tally,
            self.job.work_by_phase(),
            printable(self.job.record.output),
            self.began_seconds,
            self.job.nothing_to_do(self.states),
            self._header().remark,
            self.job.tree,
            terms=self.job.terms(self._speculation),
        )

    def status(self, workers: int) -> channel.JobStatus:
        """Return what clients are told."""
        if self.told is not None:
            return self.told
        record = self.job.record
        snapshot = self.tally.snapshot(time.perf_counter() - self.began)
        return channel.JobStatus(
            job=record.spec.job,
            state=self.state,
            reduction=record.spec.reduction,
            files=record.spec.files,
            output=printable(record.output),
            priority=self.ticket.priority,
            submitted_seconds=self.ticket.submitted_seconds,
            snapshot=msgspec.structs.replace(snapshot, workers=workers),
        )
