"""The frozen picture of a job that every display draws."""

from __future__ import annotations

import msgspec

from distsum.request import BackupTotals


class BackupRule(msgspec.Struct, frozen=True, kw_only=True):
    """By what rule a running time makes an attempt a straggler.

    Attributes:
        policy: Its name.
        quantile: Share of a phase's tasks that must be done before; None of a policy that does not go by it.
        multiplier: How many times what is usual it may take; likewise.
        slow: How many times that it may take, by its progress, while other workers idle; likewise.
    """

    policy: str
    quantile: float | None = None
    multiplier: float | None = None
    slow: float | None = None


class JobTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for a job from its beginning to its end, as far as that is known.

    Attributes:
        count: Numbers in each input; 0 where that is not known.
        dtype: numpy ``dtype.str`` of the inputs; empty where that is not known.
        rule: By what rule stragglers get backups; None where there is none, or it is not known.
    """

    count: int = 0
    dtype: str = ""
    rule: BackupRule | None = None


class PhaseWork(msgspec.Struct, frozen=True):
    """What a whole phase takes, by the plan: its tasks, and the inputs (phase 1) or partials and bytes they read."""

    tasks: int
    files: int
    bytes: int


class PhaseProgress(msgspec.Struct, frozen=True):
    """One phase of a job.

    Attributes:
        phase: 1 for the phase that reads the inputs.
        tasks: Tasks the phase has to have done: its nodes that are needed.
        done: Tasks whose partial is stored, reused ones included.
        reused: Tasks whose partial was stored already, so that nothing had to be computed for them.
        running: Attempts under way.
        files_total: Inputs (phase 1) or partials (others) that are read for the tasks that are not reused.
        bytes_total: Bytes that are read for them, by the plan.
        bytes_read: Bytes that finished and running attempts have read.
        tasks_planned: Tasks of the whole phase, by the plan; 0 where that is not known.
        bytes_planned: Bytes that are read for them, likewise.
        started_seconds: When its first attempt began, in seconds since the job's start; None before.
        finished_seconds: When its last task was done; None before.
        found: Reused tasks that were stored when a worker came to them, and not yet when this run began: by an equal
            job, another master, or an attempt that was given up.
        bytes_done: Those of ``bytes_total`` that are not to be read any more: all of each task that is done, however
            much was read for it, and what attempts under way have read.
    """

    phase: int
    tasks: int
    done: int = 0
    reused: int = 0
    running: int = 0
    files_total: int = 0
    bytes_total: int = 0
    bytes_read: int = 0
    started_seconds: float | None = None
    finished_seconds: float | None = None
    tasks_planned: int = 0
    bytes_planned: int = 0
    found: int = 0
    bytes_done: int = 0

    @property
    def unneeded(self) -> int:
        """Tasks that are not needed, since a node above what they make was stored before this run."""
        return max(0, self.tasks_planned - self.tasks)

    @property
    def bytes_before(self) -> int:
        """Bytes that this run has not to read for that."""
        return max(0, self.bytes_planned - self.bytes_total)

    @property
    def bytes_left(self) -> int:
        """Bytes that are to be read still, if nothing more is found stored."""
        return max(0, self.bytes_total - self.bytes_done)

    @property
    def bytes_settled(self) -> int:
        """Bytes of the plan that are off the list since this run began: read, or of tasks found stored."""
        found = self.bytes_planned * self.found // self.tasks_planned if self.tasks_planned else 0
        return self.bytes_done + found


class Snapshot(msgspec.Struct, frozen=True):
    """One job at one moment.

    Attributes:
        job: Job id.
        reduction: For example ``mean``.
        files: Inputs given.
        elapsed_seconds: Since the job's start.
        phases: From the inputs up.
        workers: Worker processes alive.
        workers_lost: Worker processes that ended unasked.
        retries: Attempts beyond a task's first, without backups.
        notes: What a person should know (a lost worker, a damaged partial, a skipped input): the last 200, in order.
        notes_total: How many there were in all.
        finished: Whether the job has ended.
        backups: What became of backups of stragglers so far.
        returned: Deliveries of tasks that came back since their worker was lost.
        speculation: Whether stragglers get backups, by the settings and what was asked for since; None if not known.
        bytes_read: What all attempts that have done something have read, helpers included.
        bytes_written: Likewise.
    """

    job: str
    reduction: str
    files: int
    elapsed_seconds: float
    phases: tuple[PhaseProgress, ...]
    workers: int
    workers_lost: int
    retries: int
    notes: tuple[str, ...]
    notes_total: int
    finished: bool
    backups: BackupTotals = BackupTotals()
    returned: int = 0
    speculation: bool | None = None
    bytes_read: int = 0
    bytes_written: int = 0
