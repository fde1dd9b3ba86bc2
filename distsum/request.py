"""What a run is asked to do, and what it says of itself afterwards (plain data)."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from distsum.errors import UsageError
from distsum.wording import printable

FormatName = Literal["auto", "npy", "raw", "text"]
LogLevel = Literal["debug", "info", "warning", "error"]
LOG_LEVELS: Final[tuple[LogLevel, ...]] = ("debug", "info", "warning", "error")
OnBadInput = Literal["fail", "skip"]
ReductionName = Literal["mean", "sum", "min", "max"]

DEFAULT_FAN_IN: Final = 5
DEFAULT_MAX_OPEN_FILES: Final = 5
DEFAULT_MEMORY_BYTES: Final = 512 << 20
DEFAULT_S3_DEADLINE_SECONDS: Final = 180
_MOST_PRIORITY: Final = 1_000_000_000


def priority_of(name: str, told: str | int) -> int:
    """Return a job's priority.

    Args:
        name: What it is called where it was given, for the message.
        told: As it was given.

    Raises:
        UsageError: It is no whole number, or beyond what a message carries.
    """
    try:
        number = int(told)
    except ValueError:
        number = _MOST_PRIORITY + 1
    if not -_MOST_PRIORITY <= number <= _MOST_PRIORITY:
        raise UsageError(
            f"{name} {printable(str(told), 80)}: must be a whole number from -{_MOST_PRIORITY:,} to {_MOST_PRIORITY:,}"
        )
    return number


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to run; None leaves the choice to the planner or the machine.

    Attributes:
        workers: Worker processes; None for one per usable CPU.
        partition: Files a task adds, a power of ``fan_in``; None for the planner's choice.
        fan_in: Children of a node of the canonical tree. The only option here that is part of the bits.
        tiles: Index ranges that the arrays are cut into; None for the planner's choice.
        max_open_files: Inputs that a worker holds open at once.
        memory_bytes: Bytes a worker may take over its bare imports.
        work_dir: Folder of partials; None for the output's path with ``.distsum`` appended.
        keep_partials: Whether partials stay after success, for a later job over some of the same inputs.
        format: Format of the inputs; ``auto`` goes by the first one's suffix.
        dtype: numpy ``dtype.str`` of raw inputs.
        out_dtype: numpy ``dtype.str`` of the output; None for the accumulator's.
        on_bad_input: ``fail`` stops the job at a bad input; ``skip`` leaves it out and says so.
        force: Whether an existing output is replaced.
        digest: Whether the output's SHA-256 is computed.
    """

    workers: int | None = None
    partition: int | None = None
    fan_in: int = DEFAULT_FAN_IN
    tiles: int | None = None
    max_open_files: int = DEFAULT_MAX_OPEN_FILES
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    work_dir: str | None = None
    keep_partials: bool = False
    format: FormatName = "auto"
    dtype: str | None = None
    out_dtype: str | None = None
    on_bad_input: OnBadInput = "fail"
    force: bool = False
    digest: bool = True


class SkippedInput(msgspec.Struct, frozen=True):
    """An input that was left out, and why."""

    uri: str
    reason: str


class PlanSummary(msgspec.Struct, frozen=True):
    """The plan that ran."""

    partition: int
    fan_in: int
    tiles: int
    phases: int
    worker_bytes: int


class BackupTotals(msgspec.Struct, frozen=True, kw_only=True):
    """What became of backups of stragglers.

    Attributes:
        started: Backups.
        won: Those that did their task.
        helped: Those whose task another attempt did with children that were made for them.
        lost: Those whose task another attempt did without.
        cancelled: Those that ended with their job.
        moot: Those that failed or whose worker was lost or got another task, or whose task failed or master ended.
        declined: Attempts that were taken for stragglers and not copied, once for each reason.
        saved_seconds: How much longer the first attempts were expected to take, where an end of them was to be seen.
        endless: Tasks of those done or helped whose first attempt had no end in sight: what that saved is not known.
        wasted_bytes: What was read by attempts that did not do their task, and for children that it was done without.
    """

    started: int = 0
    won: int = 0
    helped: int = 0
    lost: int = 0
    cancelled: int = 0
    moot: int = 0
    declined: int = 0
    saved_seconds: float = 0.0
    endless: int = 0
    wasted_bytes: int = 0

    @property
    def racing(self) -> int:
        """Those that are under way."""
        return self.started - self.won - self.helped - self.lost - self.cancelled - self.moot

    def wasted_share(self, bytes_read: int) -> float:
        """Return the wasted share of all bytes; ``bytes_read`` are those of the attempts that did their tasks."""
        return self.wasted_bytes / max(1, bytes_read + self.wasted_bytes)


class WorkerAccount(msgspec.Struct, frozen=True):
    """A worker's time, from when it joined until it left or the job ended.

    Attributes:
        worker: Its name.
        tasks: Tasks it did.
        seconds: By what they were spent on. ``starting`` came before it joined; ``reading`` waits for data, ``adding``
            computes, ``storing`` writes; ``discarded`` went into attempts that gave no result; ``waiting`` is the rest,
            in which it had no task of this job.
    """

    worker: str
    tasks: int
    seconds: dict[str, float]


BUSY: Final = ("reading", "adding", "storing")
"""What a worker's time is spent on when it is spent well."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished job did. ``seconds`` is wall time; ``digest`` is the output's SHA-256, or None if not asked for.

    ``files`` counts the inputs given, ``count`` the numbers in each. ``shape``, ``dtype`` (numpy's ``dtype.str``) and
    ``order`` (F where the first index varies fastest) are those of the output. ``tasks`` is what the plan has,
    ``tasks_reused`` those whose partial was stored already, ``attempts`` the starts of a task, ``retries`` the attempts
    after a first, without backups. ``worker_seconds`` is the sum of ``worker_accounts``.
    """

    output: str
    reduction: ReductionName
    files: int
    count: int
    shape: tuple[int, ...]
    dtype: str
    order: Literal["C", "F"]
    skipped: tuple[SkippedInput, ...]
    seconds: float
    bytes_read: int
    bytes_written: int
    tasks: int
    tasks_reused: int
    attempts: int
    retries: int
    workers: int
    workers_lost: int
    plan: PlanSummary
    peak_worker_bytes: int
    digest: str | None
    phase_seconds: tuple[float, ...]
    worker_seconds: dict[str, float]
    backups: BackupTotals = BackupTotals()
    worker_accounts: tuple[WorkerAccount, ...] = ()

    @property
    def busy_share(self) -> float | None:
        """The share of the workers' time, from when they joined, that they read, added or stored; None of no time."""
        whole = sum(seconds for kind, seconds in self.worker_seconds.items() if kind != "starting")
        return sum(self.worker_seconds.get(kind, 0.0) for kind in BUSY) / whole if whole > 0.0 else None
