"""Everything a screen draws of one job at one moment: a frozen view, folded from events (no terminal, no clock)."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from distsum.latency import Latencies
from distsum.messages import (
    BackupDeclined,
    BackupEnded,
    BackupStarted,
    Heartbeat,
    HelperAdded,
    HelperDeclined,
    JobFailed,
    JobStarted,
    JobSucceeded,
    TaskFailed,
    TaskId,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
    WorkerLost,
)
from distsum.observe.attempts import AttemptTable
from distsum.observe.ledger import LedgerReport, task_words
from distsum.observe.narrator import Narrator
from distsum.observe.rates import ByteRates, Estimate, Lanes, estimate, is_quiet
from distsum.observe.snapshot import JobTerms, Snapshot
from distsum.observe.states import PhaseStates, TaskStates
from distsum.observe.subtree import NodeDetail, node_detail
from distsum.observe.workers import GONE, SILENT_SECONDS, WorkerStatus, WorkerTable
from distsum.tree import Tree
from distsum.wording import counted, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from distsum.observe.fold import JobTally
    from distsum.observe.snapshot import PhaseWork

LOG_KEPT: Final = 500


class LogLine(msgspec.Struct, frozen=True):
    """A line of the log: when, how much it matters (as ``logging`` counts), and its words, harmless to show."""

    seconds: float
    level: int
    words: str


class WorkerView(msgspec.Struct, frozen=True):
    """A worker, and how it has spent the last slices of time (see ``rates.Lanes``).

    ``silent_seconds`` is for how long nothing was heard of one that is at a task of the job: whole seconds, and 0 where
    that is not unusual, so that a view changes only where there is something to see.
    """

    status: WorkerStatus
    lane: str
    silent_seconds: int = 0


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """One job at one moment.

    Attributes:
        snapshot: Its counts.
        output: Where the result goes, harmless to show.
        states: Every task, by phase from the inputs up.
        ledger: What was done about stragglers.
        workers: By name; the last that are gone, too.
        read_rates: Bytes a second in the last slices, oldest first.
        write_rates: Likewise.
        estimate: How long it will take still; None where that cannot be told.
        account: The workers' time by what it was spent on, in seconds.
        latencies: How long a server took to answer workers.
        log: The last lines.
        log_total: How many there were in all.
        failure: Why the job failed, harmless to show; None of one that has not.
        cancelled: Whether it was because somebody cancelled it.
        tree: What its tasks stand in; None where that is not known.
        terms: What holds for it from its beginning to its end.
    """

    snapshot: Snapshot
    output: str
    states: tuple[PhaseStates, ...]
    ledger: LedgerReport
    workers: tuple[WorkerView, ...]
    read_rates: tuple[float, ...]
    write_rates: tuple[float, ...]
    estimate: Estimate | None
    account: dict[str, float]
    log: tuple[LogLine, ...]
    log_total: int
    failure: str | None = None
    cancelled: bool = False
    tree: Tree | None = None
    latencies: Latencies = Latencies()
    terms: JobTerms = JobTerms()


DetailOf = Callable[[TaskId, int, int], NodeDetail]
"""Tells of a node and of some of its children; see ``JobFold.detail``."""
OnView = Callable[[JobView, DetailOf], None]
"""Takes a view, and may ask about nodes until it returns."""


class JobFold:
    """Folds a job's events into views.

    Args:
        tally: What counts its events; it is told of them by this.
        work: What each phase takes, by the plan.
        output: Where the result goes.
        began_seconds: When the clock of the events began, in seconds of the Unix epoch.
        done: As for ``TaskStates``.
        remark: What is to be known of where the events come from.
        tree: What its tasks stand in; None where that is not known.
        gaps: Whether some of its events are missing, so that no silence of a worker can be told from that.
        terms: What holds for it from its beginning to its end.
    """

    def __init__(
        self,
        tally: JobTally,
        work: tuple[PhaseWork, ...],
        output: str,
        began_seconds: float,
        done: Iterable[bytes] = (),
        remark: str | None = None,
        tree: Tree | None = None,
        *,
        gaps: bool = False,
        terms: JobTerms | None = None,
    ) -> None:
        self._work = work
        self._tree = tree
        self._attempts: AttemptTable | None = None
        self._tally = tally
        self._output = printable(output)
        self._began_seconds = began_seconds
        self._remark = remark
        self._gaps = gaps
        self._terms = terms or JobTerms()
        self._states = TaskStates(work, done)
        self._workers = WorkerTable()
        self._rates = ByteRates()
        self._lanes = Lanes()
        self._narrator = Narrator()
        self._racing: set[int] = set()
        self._log: deque[LogLine] = deque(maxlen=LOG_KEPT)
        self._log_total = 0
        self._present = 0
        """Workers that the last line tells of as there already."""
        self._started = False
        self._failed: JobFailed | None = None
        self._ended_seconds: float | None = None

    def take(self, event: msgspec.Struct, now: float) -> None:
        """Count one event that happened ``now`` seconds after the clock began."""
        if isinstance(event, JobStarted):
            self._started = True
        elif not self._started and isinstance(getattr(event, "task", None), TaskId):
            return  # of an earlier run of the job
        again = isinstance(event, WorkerLost) and self._workers.is_gone(event.worker)
        self._tally.take(event, now)
        self._workers.take(event, now)
        self._states.take(event)
        if self._started:
            self.attempts.take(event, now)
        self._rates.take(event, now)
        match event:
            case TaskSucceeded(reused=True, child=None):
                phase = self._work[event.task.phase - 1]
                self._rates.settled.add(phase.bytes // phase.tasks, now)
            case BackupStarted():
                self._racing.add(event.attempt)
            case BackupEnded():
                self._racing.discard(event.attempt)
            case WorkerLost():
                self._lanes.lose(event.worker)
            case JobSucceeded() | JobFailed():
                self._ended_seconds = now
                self._failed = event if isinstance(event, JobFailed) else None
        self._lanes.take(event, now, backup=getattr(event, "attempt", None) in self._racing)
        if not again:  # Who is given up is told once more when the broker notices that it is gone.
            self._narrate(event, now)

    @property
    def attempts(self) -> AttemptTable:
        """Every attempt since the job began; room for a million tasks takes 40 MB, and is made only then."""
        if self._attempts is None:
            self._attempts = AttemptTable(self._work)
        return self._attempts

    def view(self, now: float) -> JobView:
        """Return the picture ``now`` seconds after the clock began; of a job that has ended, at its end."""
        if self._ended_seconds is not None:
            now = self._ended_seconds
        snapshot = self._tally.snapshot(now)
        read = self._rates.read.per_second(now)
        left = sum(phase.bytes_left for phase in snapshot.phases)
        failed = self._failed
        is_under_way = bool(snapshot.phases) and not snapshot.finished
        # Where nothing is read no copy does anything about what tasks under way take.
        copied = snapshot.speculation is not False and not is_quiet(read)
        under_way = self.attempts.left_seconds(now, copied=copied) if is_under_way else ()
        return JobView(
            snapshot=snapshot,
            output=self._output,
            states=self._states.phases(),
            ledger=self._tally.ledger_report(self._began_seconds, self._remark),
            workers=tuple(
                WorkerView(each, self._lanes.lane(each.worker, now), self._silent_seconds(each, snapshot.job, now))
                for each in self._workers.statuses()
            ),
            read_rates=read,
            write_rates=self._rates.written.per_second(now),
            estimate=estimate(left, self._rates.settled.per_second(now), under_way) if is_under_way else None,
            account=self._tally.accounts.seconds(now),
            latencies=self._tally.latencies,
            log=tuple(self._log),
            log_total=self._log_total,
            failure=None if failed is None else self._failure_words(failed),
            cancelled=failed is not None and failed.kind == "cancelled",
            tree=self._tree,
            terms=self._terms,
        )

    def detail(self, task: TaskId, first: int, count: int) -> NodeDetail:
        """Return what is known of a node and ``count`` of its children, from place ``first`` on; see ``subtree``."""
        table = self._attempts or AttemptTable(())
        return node_detail(task, self._tree, table, self._tally.input_name, first, count)

    def _silent_seconds(self, status: WorkerStatus, job: str, now: float) -> int:
        """Return for how long nothing was heard of a worker at a task of the job; 0 where that is not unusual."""
        if self._gaps or status.state in GONE or status.task is None or status.task.job != job:
            return 0  # Of one that idles, or is at another job's task, this job is not told.
        silent = now - status.heard_seconds
        return int(silent) if silent > SILENT_SECONDS else 0

    def _failure_words(self, failed: JobFailed) -> str:
        reason = printable(failed.reason, 2000)
        return reason if failed.index is None else f"{self._tally.input_name(failed.index)}: {reason}"

    def _narrate(self, event: msgspec.Struct, now: float) -> None:
        if isinstance(event, TaskStarted | TaskSucceeded | Heartbeat):
            return  # What is usual is not told, and its words would cost more than all else here.
        if isinstance(event, BackupStarted | BackupEnded | BackupDeclined | HelperAdded | HelperDeclined):
            return  # The ledger tells of them.
        if isinstance(event, TaskFailed) and event.kind == "cancelled":
            return  # That of a backup or of the job is told.
        if isinstance(event, WorkerJoined) and event.present:
            self._tell_present(now)
            return
        line = self._narrator.line_of(event)
        if line is None or line.level < logging.INFO:
            return
        task, worker = getattr(event, "task", None), getattr(event, "worker", None)
        about = [task_words(task)] if isinstance(task, TaskId) else []
        if about and worker:
            about.append(f"on {worker}")
        words = f"{' '.join(about)}: {line.words}" if about else line.words
        self._present = 0
        self._tell(LogLine(now, line.level, printable(words, 2000)))

    def _tell_present(self, now: float) -> None:
        """Tell of one more that was there before the job began: in one line, as they come right after each other."""
        self._present += 1
        if self._present > 1:
            self._log.pop()
            self._log_total -= 1
        who = counted(self._present, "worker")
        self._tell(LogLine(now, logging.INFO, f"{who} {'is' if self._present == 1 else 'are'} there already"))

    def _tell(self, line: LogLine) -> None:
        self._log.append(line)
        self._log_total += 1
