"""What clients ask the service, and what it answers: the jobs channel. One union and one decoder each way."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from distsum.messages import TaskId
from distsum.observe.ledger import LedgerReport
from distsum.observe.snapshot import Snapshot
from distsum.observe.subtree import NodeDetail
from distsum.observe.workers import WorkerStatus
from distsum.request import Summary


class Request(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of what clients ask."""


class Describe(Request, frozen=True):
    """Say who you are, and where work lies."""


class Submit(Request, frozen=True):
    """Run a job whose record and inputs the client has stored; see ``service.records``."""

    job: str
    priority: int = 0


JOBS_SHOWN: Final = 50
"""Of those that have ended, unless more are asked for."""


class ListJobs(Request, frozen=True):
    """List the jobs, the latest ``limit`` of those that have ended among them."""

    limit: int = JOBS_SHOWN


class GetJob(Request, frozen=True):
    """Tell of one job."""

    job: str


class GetStragglers(Request, frozen=True):
    """Tell what was done about a job's stragglers."""

    job: str


class Cancel(Request, frozen=True):
    """Stop a job, and remove what it has left."""

    job: str


class SetPriority(Request, frozen=True):
    """Give a job another priority."""

    job: str
    priority: int


class SwitchSpeculation(Request, frozen=True):
    """Begin no more backups of a running job's stragglers, or do so again."""

    job: str
    on: bool


class BackUp(Request, frozen=True):
    """Give a task that runs to an idle worker, too, at once."""

    task: TaskId


class GetNode(Request, frozen=True):
    """Tell of a node of a job's tree: of the attempts at it, and of ``count`` of its children from place ``first``."""

    task: TaskId
    first: int = 0
    count: int = 0


class ListWorkers(Request, frozen=True):
    """List the workers."""


WorkerAction = Literal["pause", "resume", "drain", "shutdown"]


class CommandWorker(Request, frozen=True):
    """Do something with a worker: pause and resume it, send it away when its task is done (drain), or at once."""

    worker: str
    action: WorkerAction


class ScaleWorkers(Request, frozen=True):
    """Have another number of workers in all on the hosts of the master's fleet; those too many finish their tasks.

    None is what the fleet's file says of each host.
    """

    total: int | None


class ListQueues(Request, frozen=True):
    """Tell how many messages wait where."""


class Watch(Request, frozen=True):
    """Tell from now on what is different in a job, or in the service as a whole, to all who look.

    Attributes:
        job: The job; None is the service.
        stream: The stream of frames that the viewer follows without a gap, so that it needs no picture; empty of none.
    """

    job: str | None = None
    stream: str = ""


class Diagnose(Request, frozen=True):
    """Tell what you see of store, clocks and workers."""


AnyRequest = (
    Describe
    | Submit
    | ListJobs
    | GetJob
    | GetStragglers
    | Cancel
    | SetPriority
    | SwitchSpeculation
    | BackUp
    | GetNode
    | ListWorkers
    | CommandWorker
    | ScaleWorkers
    | ListQueues
    | Watch
    | Diagnose
)
LookRequest = Describe | ListJobs | GetJob | GetStragglers | GetNode | ListWorkers | ListQueues | Watch
"""What those may ask who only look."""

JobState = Literal["queued", "running", "finishing", "succeeded", "failed", "cancelled"]
ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One job, as the service tells of it.

    Attributes:
        job: Job id.
        state: ``finishing`` while the result is put together.
        reduction: For example ``mean``.
        files: Inputs.
        output: The result's URI, harmless to show.
        priority: Higher goes first.
        submitted_seconds: When it was accepted, in seconds of the Unix epoch.
        ended_seconds: When it ended; None before.
        snapshot: How far it is; None once it has ended.
        summary: What it did; None unless it has succeeded.
        reason: Why it failed.
        exit_code: What the command that waits for it ends with; None before it has ended.
    """

    job: str
    state: JobState
    reduction: str
    files: int
    output: str
    priority: int
    submitted_seconds: float
    ended_seconds: float | None = None
    snapshot: Snapshot | None = None
    summary: Summary | None = None
    reason: str | None = None
    exit_code: int | None = None


class Queue(msgspec.Struct, frozen=True):
    """A channel at the broker: messages that wait, that are with a consumer, and those who take them.

    How many were handed out more than once, and how many are unacknowledged, only the management API tells.
    """

    name: str
    ready: int
    unacknowledged: int | None
    consumers: int
    redelivered: int | None = None


class Reply(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of what the service answers."""


class Description(Reply, frozen=True):
    """The service: its version, the protocol it speaks with workers, and the folder of its work."""

    version: str
    protocol: int
    work: bytes


class Done(Reply, frozen=True):
    """It is done, or will be: a submitted job is stored and will run, whatever happens to the master."""


class Refused(Reply, frozen=True):
    """It is not done, for this reason."""

    reason: str


class Job(Reply, frozen=True):
    """One job."""

    status: JobStatus


class Stragglers(Reply, frozen=True):
    """What was done about a job's stragglers."""

    report: LedgerReport


class BackedUp(Reply, frozen=True):
    """A task is given to ``worker``, beside ``of_worker``; ``helpers`` make children of its node for either."""

    worker: str
    of_worker: str
    helpers: tuple[str, ...] = ()


class Node(Reply, frozen=True):
    """A node of a job's tree."""

    detail: NodeDetail


class Jobs(Reply, frozen=True):
    """The jobs that have not ended, in the order in which they came, and the last that have."""

    jobs: tuple[JobStatus, ...]


class Workers(Reply, frozen=True):
    """The workers."""

    workers: tuple[WorkerStatus, ...]


class Queues(Reply, frozen=True):
    """The channels at the broker, tasks redelivered since the master began, and where to look closer.

    ``management_fault`` says why RabbitMQ's management API, which the master was told of, has told nothing.
    """

    queues: tuple[Queue, ...]
    redelivered: int
    management: str | None = None
    management_fault: str | None = None


class Watching(Reply, frozen=True):
    """Frames are sent, for some seconds; who wants more asks again before.

    Attributes:
        stream: Their stream.
        seconds: For how long.
        picture: The whole view as a frame (see ``observe.feed``), unless the viewer has it.
    """

    stream: str
    seconds: float
    picture: bytes | None = None


class Diagnosis(Reply, frozen=True):
    """What the master sees.

    Attributes:
        version: Its version.
        protocol: What it speaks with workers.
        work: URI of its work folder.
        now_seconds: Its clock, in seconds of the Unix epoch.
        workers: The workers, the last that are gone among them.
        ahead_seconds: How far each worker's clock is ahead of the master's, to about a second, where that is known.
        store_fault: Why the master cannot reach its work folder; None if it can.
    """

    version: str
    protocol: int
    work: bytes
    now_seconds: float
    workers: tuple[WorkerStatus, ...]
    ahead_seconds: dict[str, float]
    store_fault: str | None = None


AnyReply = (
    Description | Done | Refused | Job | Stragglers | BackedUp | Node | Jobs | Workers | Queues | Watching | Diagnosis
)

REQUEST: Final = msgspec.msgpack.Decoder(AnyRequest)
LOOK_REQUEST: Final = msgspec.msgpack.Decoder(LookRequest)
REPLY: Final = msgspec.msgpack.Decoder(AnyReply)
