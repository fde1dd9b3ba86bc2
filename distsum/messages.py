"""Every message between actors, brokers, workers and viewers.

Commands are imperative (``RunTask``), facts in the past tense (``TaskSucceeded``). All are frozen; one union and one
typed decoder per channel, so that a foreign or malformed message is refused where it arrives.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from distsum.latency import Latencies

PROTOCOL: Final = 2
"""Raised whenever a message changes so that an older peer would misread it."""


class Message(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of all messages."""


class TaskId(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A task: the node (``phase``, ``index``) of one ``tile`` of a job. Phases count from 1, the others from 0."""

    job: str
    phase: int
    tile: int
    index: int


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job as its workers know it: constant in size, whatever the number of inputs.

    Attributes:
        job: Job id.
        reduction: Name of the reduction.
        files: Inputs.
        count: Numbers in each input.
        ranged: Whether index ranges of inputs can be read directly.
        fan_in: Children of a node of the canonical tree.
        exponent: k of the partition ``fan_in ** k``.
        tile_length: Numbers in each tile but the last, which may be shorter.
        format: Name of the inputs' format.
        dtype: numpy ``dtype.str`` of the inputs.
        shape: Shape of each input.
        fortran: Whether the inputs' first index varies fastest.
        offset: Bytes before an input's first number.
        header: Those bytes, as the first input has them.
        on_bad_input: Whether a bad input fails the job or is left out.
        max_open_files: Inputs a worker holds open at once.
        buffer_bytes: Bytes read at once.
        hold_bytes: Bytes of each open input that a store may hold before they are read.
        worker_bytes: What the plan says that a worker takes at most; 0 where it was not kept.
        checkpoint_seconds: As soon as an attempt has done so much that is not stored, it stores sums inside its task,
            so that another one need not do it again.
        work: URI of the work folder.
        output: Handle of the result at its store, until it is whole.
        output_format: Name of the output's format.
        output_dtype: numpy ``dtype.str`` of the output.
        output_header: Bytes before the output's first number.
        output_number_bytes: Bytes of one number in the output.
    """

    job: str
    reduction: str
    files: int
    count: int
    fan_in: int
    exponent: int
    tile_length: int
    format: str
    dtype: str
    shape: tuple[int, ...]
    fortran: bool
    offset: int
    header: bytes
    on_bad_input: Literal["fail", "skip"]
    max_open_files: int
    buffer_bytes: int
    hold_bytes: int
    work: bytes
    output: bytes
    output_format: str
    output_dtype: str
    output_header: bytes
    output_number_bytes: int
    checkpoint_seconds: float = 3.0
    worker_bytes: int = 0
    ranged: bool = False

    @property
    def tiles(self) -> int:
        """Index ranges that the arrays are cut into; one for arrays without numbers."""
        return max(1, -(-self.count // self.tile_length))

    def tile(self, tile: int) -> tuple[int, int]:
        """Range of indices of a tile: [start, stop)."""
        return tile * self.tile_length, min(self.count, (tile + 1) * self.tile_length)


FailureKind = Literal[
    "bad_input", "input_changed", "inexact", "storage", "not_served", "blocked", "abandoned", "cancelled", "error"
]


# Process to worker ----------------------------------------------------------------------------------------------------


class RunTask(Message, frozen=True):
    """Make one node and store it.

    ``delivery`` counts how often the broker has handed this message out, from 1. ``attempt`` is a number that no other
    attempt of this or an earlier master has; what a worker says of the attempt repeats it. ``first_attempt`` is the
    first number of the master that gives it: each begins the outputs of its jobs anew, and describes the jobs so.

    ``resume`` says that child nodes of it may be stored, from which to start: another attempt has run, or runs. With a
    ``child``, from 0, only that child of the node is made and stored (see ``Tree.splits``), for another to take. A node
    that is ``sliced`` has slices of its numbers in their place (see ``node_slices``), and as a whole it is made slice
    by slice, in order, so that others may make the last ones.
    """

    task: TaskId
    work: bytes
    delivery: int = 1
    attempt: int = 0
    resume: bool = False
    child: int | None = None
    sliced: bool = False
    first_attempt: int = 0


class CancelTask(Message, frozen=True):
    """Stop this attempt of a task if it is running; its result is not wanted any more."""

    task: TaskId
    attempt: int = 0


class ShareTask(Message, frozen=True):
    """Others help with the task of this attempt: store each of its children when it is finished, and take theirs."""

    task: TaskId
    attempt: int = 0


class Introduce(Message, frozen=True):
    """Say again who you are: the one who asks has not heard of you, or has given you up."""


class Shutdown(Message, frozen=True):
    """Leave at once, for this reason; what runs is handed back."""

    reason: str = ""


ToWorker = RunTask | CancelTask | ShareTask | Introduce | Shutdown


class PauseTasks(Message, frozen=True, omit_defaults=True):
    """Take no more tasks until ``ResumeTasks``. Between channels.

    With a ``reason`` that lasts, whoever serves, and is told whenever the worker introduces itself. Without one it ends
    with that, too: it only lets others go first, and the next master knows nothing of it.
    """

    reason: str = ""
    quarantined: bool = False


class ResumeTasks(Message, frozen=True):
    """Take tasks again. Between channels."""


class Ping(Message, frozen=True):
    """Nothing: whether it finds a queue tells whether the worker's channel is there. Between channels."""


# Worker to process ----------------------------------------------------------------------------------------------------


class WorkerJoined(Message, frozen=True, omit_defaults=True):
    """A worker is there, and takes tasks. ``baseline_bytes`` is its resident memory after its imports.

    One that takes none, since a master has paused it, says why (``paused``), so that the next master knows it. A job
    that begins later is told of it once more, as one that is there already (``present``).
    """

    worker: str
    host: str
    pid: int
    version: str
    protocol: int
    baseline_bytes: int
    start_seconds: float
    paused: str = ""
    quarantined: bool = False
    present: bool = False


class TaskStarted(Message, frozen=True):
    """A worker has begun an attempt, at the whole task or at one ``child`` of it."""

    worker: str
    task: TaskId
    delivery: int
    attempt: int = 0
    child: int | None = None


class Skipped(msgspec.Struct, frozen=True, array_like=True):
    """An input that was left out: its index in the job's list, and why."""

    index: int
    reason: str


class Effort(msgspec.Struct, frozen=True, array_like=True):
    """What an attempt took.

    ``objects_read`` counts inputs or partials opened, ``objects_written`` partials and ranges of the result. Waiting is
    the time between the end of the worker's last attempt and the start of this one. Storing includes that of the
    sums on the way, which alone took ``checkpoint_seconds``. ``latencies`` are of all requests to a server since
    the worker's last attempt that succeeded.
    """

    bytes_read: int
    bytes_written: int
    objects_read: int
    objects_written: int
    waiting_seconds: float
    reading_seconds: float
    adding_seconds: float
    storing_seconds: float
    peak_bytes: int
    checkpoint_seconds: float = 0.0
    latencies: Latencies = Latencies()

    @property
    def busy_seconds(self) -> float:
        """Seconds in which it read, added or stored."""
        return self.reading_seconds + self.adding_seconds + self.storing_seconds


class TaskSucceeded(Message, frozen=True):
    """The node is stored, and in the last phase its range of the result is written.

    ``reused`` says that its partial was there already. ``inputs`` counts the inputs in it, without the skipped ones.
    ``receipt`` is what the store needs to put the result together. With a ``child`` only that child is stored.
    ``taken`` are the children of the node, counted as ``child`` is, that were found stored and not made. They and other
    sums that were found stored hold ``taken_share`` of its inputs, or partials.
    """

    worker: str
    task: TaskId
    inputs: int
    skipped: tuple[Skipped, ...]
    reused: bool
    receipt: bytes
    effort: Effort
    attempt: int = 0
    child: int | None = None
    taken: tuple[int, ...] = ()
    taken_share: float = 0.0


class TaskFailed(Message, frozen=True):
    """An attempt ended without a result.

    ``cancelled`` is one that was called back, or that the worker hands back because it leaves.

    ``not_served`` is one that would have gone to ``place``, where this worker was told not to go, or beyond what it was
    told to take (``memory``); another may.

    ``index`` is the input at fault where there is one. ``missing`` are the children, by index in the phase below, whose
    partials are not there or damaged (kind ``blocked``). ``bytes_read`` were read for nothing, but for what is stored.
    """

    worker: str
    task: TaskId
    kind: FailureKind
    reason: str
    index: int | None = None
    missing: tuple[int, ...] = ()
    place: str = ""
    attempt: int = 0
    child: int | None = None
    bytes_read: int = 0


class Heartbeat(Message, frozen=True):
    """A worker lives; ``task`` is what it works on (in which ``attempt``), of which it has read ``bytes_read``.

    ``progress`` is the share of the attempt's inputs that has been read, from 0 to 1; what has arrived and waits to be
    added counts, and so do, as soon as they are taken, children that it found stored. ``added`` is the share that is in
    its sums; the same where it is None.
    """

    worker: str
    task: TaskId | None
    bytes_read: int
    resident_bytes: int = 0
    attempt: int = 0
    progress: float = 0.0
    added: float | None = None


FromWorker = WorkerJoined | TaskStarted | TaskSucceeded | TaskFailed | Heartbeat


# What a broker says of its channels -----------------------------------------------------------------------------------


class WorkerLost(Message, frozen=True):
    """A worker ended, left or is cut off; the broker has put back what it worked on.

    ``silent_seconds`` is for how long the tracker had not heard it; 0 where it does not know it.
    """

    worker: str
    reason: str
    silent_seconds: float = 0.0


class TaskReturned(Message, frozen=True):
    """A lost worker's task is back in the queue."""

    task: TaskId
    deliveries: int


class TaskDeadLettered(Message, frozen=True):
    """A task took its worker down on every delivery, and is not handed out again."""

    task: TaskId
    deliveries: int


class WorkersCannotStart(Message, frozen=True):
    """Worker processes end before they join, again and again."""

    reason: str


FromBroker = WorkerLost | TaskReturned | TaskDeadLettered | WorkersCannotStart


# Between the actors ---------------------------------------------------------------------------------------------------


class SubmitJob(Message, frozen=True):
    """Run a job. ``states`` holds one byte a task for each phase, from the inputs up (see ``actors.phase``).

    ``resume`` says that child nodes inside its tasks are stored, too.
    """

    spec: JobSpec
    states: tuple[bytes, ...]
    priority: int = 0
    resume: bool = False


class CancelJob(Message, frozen=True):
    """Stop a job; its partials stay."""

    job: str


class ChangePriority(Message, frozen=True):
    """Give a job another priority; what runs of others goes on."""

    job: str
    priority: int


class SwitchSpeculation(Message, frozen=True):
    """Begin no more backups of a running job's tasks, or do again as the settings say; those under way go on."""

    job: str
    on: bool


class BackUpTask(Message, frozen=True):
    """Give a task that runs to an idle worker, too, at once: a person asks. ``request`` is repeated by the answer."""

    task: TaskId
    request: int


class BackupAnswered(Message, frozen=True):
    """What became of a ``BackUpTask``: the backup that began, or why none did (``refusal``)."""

    request: int
    started: BackupStarted | None = None
    refusal: str | None = None


class StartPhase(Message, frozen=True):
    """Say what is ready."""


class TasksReady(Message, frozen=True):
    """So many more tasks of a phase can be taken."""

    job: str
    phase: int
    count: int


class TakeTasks(Message, frozen=True):
    """Offer so many ready tasks to the tracker."""

    count: int


class OfferTask(Message, frozen=True):
    """A task for the tracker to get done; ``resume`` as in ``RunTask``.

    Its node may be cut into ``splits`` children, or if it is ``sliced`` into so many slices.
    """

    task: TaskId
    work: bytes
    resume: bool = False
    splits: int = 0
    sliced: bool = False


class CountPhase(Message, frozen=True):
    """A phase has so many more tasks to have done, and so many more of them are; what succeeds the tracker counts."""

    job: str
    phase: int
    tasks: int
    done: int


class SlotsChanged(Message, frozen=True):
    """The tracker takes so many tasks at a time, running and queued."""

    slots: int


class TaskSettled(Message, frozen=True):
    """A task is off the tracker's hands."""

    job: str


class NodeStored(Message, frozen=True):
    """A node of the phase below is stored."""

    tile: int
    index: int


class NodesLost(Message, frozen=True):
    """Nodes of this phase were stored, and are not any more."""

    tile: int
    indices: tuple[int, ...]


class TaskBlocked(Message, frozen=True):
    """A task cannot be made until these children are stored again."""

    task: TaskId
    missing: tuple[int, ...]


class PhaseCompleted(Message, frozen=True):
    """Every node of a phase that is needed is stored."""

    job: str
    phase: int


class TaskGaveUp(Message, frozen=True):
    """A task cannot be done, and so neither can its job."""

    task: TaskId
    kind: FailureKind
    reason: str
    index: int | None = None


class CheckLeases(Message, frozen=True):
    """Look for workers that have fallen silent."""


class KillWorker(Message, frozen=True):
    """End a worker that does not answer."""

    worker: str
    reason: str


class TellWorker(Message, frozen=True):
    """Send a message to a worker."""

    worker: str
    message: ToWorker


class AssignTask(Message, frozen=True):
    """Hand a task to one worker, past the queue; it does not come back when that worker is lost."""

    worker: str
    message: RunTask


class CheckStragglers(Message, frozen=True):
    """Look for attempts that should have a backup; ``periodic`` looks are followed by others."""

    periodic: bool = False


class PauseWorker(Message, frozen=True):
    """Hand no more tasks to a worker, for this reason; it finishes the one it has.

    ``quarantined`` it is for failures in a row. It ``rests`` where it only lets others go first.
    """

    worker: str
    reason: str
    quarantined: bool = False
    rests: bool = False

    @property
    def told(self) -> PauseTasks:
        """What the worker is told."""
        return PauseTasks() if self.rests else PauseTasks(self.reason, self.quarantined)


class ResumeWorker(Message, frozen=True):
    """Hand tasks to a paused worker again."""

    worker: str


class DismissWorker(Message, frozen=True):
    """Pause a worker, and send it away when it has finished the task that it has."""

    worker: str
    reason: str


# Facts for the submitter and for viewers ------------------------------------------------------------------------------


class JobQueued(Message, frozen=True):
    """A job waits for others of its priority or a higher one to end."""

    job: str
    priority: int


class JobStarted(Message, frozen=True):
    """A job was admitted. ``tasks`` and ``reused`` have one entry a phase: nodes needed, and those stored already."""

    job: str
    reduction: str
    files: int
    tasks: tuple[int, ...]
    reused: tuple[int, ...]


class JobSucceeded(Message, frozen=True):
    """Every range of the result is written. ``receipts`` has one entry a tile."""

    job: str
    inputs: int
    skipped: tuple[Skipped, ...]
    receipts: tuple[bytes, ...]


class JobFailed(Message, frozen=True):
    """A job ended without a result; its partials stay."""

    job: str
    kind: FailureKind
    reason: str
    task: TaskId | None = None
    index: int | None = None


BackupReason = Literal["slow_attempt", "slow_worker", "slow_rate", "silent", "last_tasks", "asked"]
DeclineReason = Literal["ends_sooner", "cap", "same_host", "no_idle_worker"]
BackupOutcome = Literal["won", "helped", "lost", "cancelled", "moot"]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers behind a decision about an attempt, at the moment of the decision.

    Attributes:
        elapsed_seconds: What it had taken.
        mean_seconds: What the finished tasks of its phase took; None where there was none.
        left_seconds: What it was expected to take still; None where no end was to be seen.
        copy_seconds: What a copy was expected to take; None where nothing was known.
        progress: The share of its work that it had told as done; 0 where it had told nothing.
        slowness: How many times the mean its worker's last tasks took; None where it had finished none.
        silent_seconds: Since its worker was last heard.
        done: Tasks of its phase that were done.
        tasks: Tasks of its phase.
        limit_times: How many times what is usual was the limit that it met: the mean (``slow_attempt``; the median by
            Spark's rule), ``copy_seconds`` for all that it will have taken (``slow_rate``), or 1 for ``slowness``
            (``slow_worker``). None by a rule without such a limit, and in what was stored before this was told.
        limit_seconds: What that limit comes to in time, or the longest silence (``silent``); None likewise.
        gain_times: How many times ``copy_seconds`` must be left for a copy to begin; None likewise.
        most_backups: How many backups may be under way at once; None likewise.
    """

    elapsed_seconds: float
    mean_seconds: float | None
    left_seconds: float | None
    copy_seconds: float | None
    progress: float
    slowness: float | None
    silent_seconds: float
    done: int
    tasks: int
    # Histories and services from before these were told go without.
    limit_times: float | None = None
    limit_seconds: float | None = None
    gain_times: float | None = None
    most_backups: int | None = None


class BackupStarted(Message, frozen=True):
    """An attempt (``of_attempt``, on ``of_worker``) is taken for a straggler, and its task given to ``worker`` too.

    With the reason ``asked`` a person wanted it. ``helpers`` are the workers that make children of its node, for either
    to take.
    """

    task: TaskId
    attempt: int
    worker: str
    of_attempt: int
    of_worker: str
    reason: BackupReason
    evidence: Evidence
    helpers: tuple[str, ...] = ()


class HelperDecision(Message, frozen=True):
    """What became of a worker that has come to idle after a backup (``attempt``) began, whose node is shared.

    An attempt at the node itself would come to a child of it after ``reached_seconds`` (None where none of them is
    heard), and the child takes ``takes_seconds``. Whoever idles makes it if the one is over ``gain_times`` the other;
    None in what was stored before this was told.
    """

    task: TaskId
    attempt: int
    worker: str
    child: int
    reached_seconds: float | None
    takes_seconds: float
    gain_times: float | None = None


class HelperAdded(HelperDecision, frozen=True):
    """One more worker makes a child of a node that a backup shares."""


class HelperDeclined(HelperDecision, frozen=True):
    """A worker idles, and makes no child of a node that a backup shares; told once for each backup and child."""


class BackupDeclined(Message, frozen=True):
    """An attempt was taken for a straggler, and is not copied; told once for each attempt and reason."""

    task: TaskId
    attempt: int
    worker: str
    suspicion: BackupReason
    reason: DeclineReason
    evidence: Evidence


class BackupEnded(Message, frozen=True):
    """A backup attempt is over.

    ``won`` it has where it did the task, as at most one backup of a task can. It has ``helped`` where another attempt
    did it, with children that were made for this one, and ``lost`` where that was without. It was ``cancelled`` with
    its job, or is ``moot`` since its worker was lost or got another task at the same moment, or it failed, or the task
    did.

    ``saved_seconds`` is how much longer the first attempt was expected to take, None where no end of it was to be seen;
    it is told of one backup of a task alone, and 0 of the others. ``wasted_bytes`` were read by attempts that did not
    do the task, and for children that it was done without: as far as that is known now, since attempts that are called
    back tell later what they have read (``LoserStopped``). ``children`` were made for it.
    """

    task: TaskId
    attempt: int
    worker: str
    outcome: BackupOutcome
    took_seconds: float
    saved_seconds: float | None
    wasted_bytes: int
    children: int = 0


class LoserStopped(Message, frozen=True):
    """An attempt that was called back, since another had done its task, has stopped.

    ``took_seconds`` went by since. ``more_bytes`` is what it had read beyond what it had told before that, which was
    counted when the ``backup`` ended (that attempt's number).
    """

    task: TaskId
    attempt: int
    worker: str
    backup: int
    took_seconds: float
    more_bytes: int


class WorkerFreed(Message, frozen=True):
    """A worker has ended an attempt of which nothing else is told.

    The task was done by then or its job cancelled, or the worker was to help others or to leave.
    """

    worker: str
    task: TaskId
    attempt: int


class SpeculationSwitched(Message, frozen=True):
    """Somebody has asked that a job's stragglers get no more backups, or that they do again."""

    job: str
    on: bool


class NodeReopened(Message, frozen=True):
    """A node is to be made that was thought done: its stored partial is missing or damaged.

    ``stored`` is False where nobody had asked for the node until now, since the one above it was stored.
    """

    task: TaskId
    stored: bool


class TaskRetried(Message, frozen=True):
    """An attempt failed in a way that may pass; the task is handed out again."""

    task: TaskId
    worker: str
    attempt: int
    reason: str


class WorkerRefused(Message, frozen=True):
    """A worker wanted to join and was sent away."""

    worker: str
    host: str
    reason: str


class WorkerPaused(Message, frozen=True):
    """A worker is handed no more tasks: it was asked for, or (``quarantined``) its attempts failed again and again."""

    worker: str
    reason: str
    quarantined: bool


class WorkerResumed(Message, frozen=True):
    """A worker that was paused is handed tasks again."""

    worker: str


JobEvent = (
    JobQueued
    | JobStarted
    | JobSucceeded
    | JobFailed
    | WorkerJoined
    | WorkerLost
    | WorkerRefused
    | WorkerPaused
    | WorkerResumed
    | TaskStarted
    | TaskSucceeded
    | TaskFailed
    | TaskReturned
    | TaskRetried
    | BackupStarted
    | HelperAdded
    | HelperDeclined
    | BackupDeclined
    | BackupEnded
    | LoserStopped
    | WorkerFreed
    | SpeculationSwitched
    | NodeReopened
    | Heartbeat
)


def encode(message: msgspec.Struct) -> bytes:
    """Return a message as msgpack."""
    return _ENCODER.encode(message)


_ENCODER: Final = msgspec.msgpack.Encoder()
TO_WORKER: Final = msgspec.msgpack.Decoder(ToWorker)
RUN_TASK: Final = msgspec.msgpack.Decoder(RunTask)
TO_WORKER_CONTROL: Final = msgspec.msgpack.Decoder(ToWorker | PauseTasks | ResumeTasks | Ping)
FROM_WORKER_RESULTS: Final = msgspec.msgpack.Decoder(WorkerJoined | TaskSucceeded | TaskFailed | WorkerLost)
"""A worker says itself that it is lost when it leaves."""
FROM_WORKER_TELEMETRY: Final = msgspec.msgpack.Decoder(TaskStarted | Heartbeat)
FROM_WORKER: Final = msgspec.msgpack.Decoder(FromWorker)
JOB_SPEC: Final = msgspec.msgpack.Decoder(JobSpec)
