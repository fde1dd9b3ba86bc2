"""The simulated system with gateways that collect: for tests that say themselves what workers and brokers do."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from distsum import __version__
from distsum.actors.actor import BROKER, CLIENT, MASTER, TRACKER, WORKERS
from distsum.actors.master import Master, MasterSettings
from distsum.actors.simulated import SimulatedSystem
from distsum.actors.task_tracker import TaskTracker, TrackerSettings
from distsum.messages import (
    PROTOCOL,
    CancelTask,
    Effort,
    JobSpec,
    RunTask,
    SubmitJob,
    TaskId,
    TaskSucceeded,
    TellWorker,
    WorkerJoined,
)
from distsum.tree import Tree

EFFORT = Effort(0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0)


class SteppingSystem(SimulatedSystem):
    """A master and a tracker; what they send to the outside is kept until it is taken."""

    def __init__(self, settings: TrackerSettings | None = None, master: MasterSettings | None = None) -> None:
        super().__init__()
        self.events: list[Any] = []
        self.attempts: dict[TaskId, int] = {}
        self.on_event = self.events.append
        self.sent: dict[str, list[Any]] = {BROKER: [], WORKERS: [], CLIENT: []}
        for address in self.sent:
            self.gateway(address, partial(self._collect, address))
        self.spawn(MASTER, partial(Master, settings=master or MasterSettings()))
        self.spawn(TRACKER, partial(TaskTracker, settings=settings or TrackerSettings()))

    def tell(self, address: str, message: Any) -> None:
        """Deliver a message and all that follows from it; what is said of a task is said of its latest attempt."""
        if getattr(message, "attempt", None) == 0 and not isinstance(message, CancelTask):
            message = msgspec.structs.replace(message, attempt=self.attempts.get(message.task, 0))
        super().tell(address, message)

    def take(self, address: str) -> list[Any]:
        """Return what a gateway was sent since the last call."""
        messages, self.sent[address] = self.sent[address], []
        return messages

    def _collect(self, address: str, message: Any) -> None:
        if isinstance(message, RunTask):
            self.attempts[message.task] = message.attempt
        self.sent[address].append(message)


def spec(files: int, *, job: str = "job", exponent: int = 1, tiles: int = 1, fan_in: int = 5) -> JobSpec:
    return JobSpec(
        job=job,
        reduction="mean",
        files=files,
        count=10 * tiles,
        fan_in=fan_in,
        exponent=exponent,
        tile_length=10,
        format="npy",
        dtype="<f8",
        shape=(10 * tiles,),
        fortran=False,
        offset=128,
        header=b"",
        on_bad_input="fail",
        max_open_files=5,
        hold_bytes=1 << 20,
        buffer_bytes=1 << 20,
        work=b"/work",
        output=b"/out",
        output_format="npy",
        output_dtype="<f8",
        output_header=bytes(128),
        output_number_bytes=8,
    )


def nothing_stored(job: JobSpec) -> tuple[bytes, ...]:
    tree = Tree(files=job.files, fan_in=job.fan_in, exponent=job.exponent)
    return tuple(bytes(tree.width(phase) * job.tiles) for phase in range(1, tree.phases + 1))


def joined(name: str = "w1") -> WorkerJoined:
    return WorkerJoined(
        name, host="h", pid=1, version=__version__, protocol=PROTOCOL, baseline_bytes=0, start_seconds=0.0
    )


def succeeded(task: TaskId, worker: str = "w1", **changes: Any) -> TaskSucceeded:
    fields: dict[str, Any] = {"inputs": 1, "skipped": (), "reused": False, "receipt": b"", "effort": EFFORT}
    return TaskSucceeded(worker=worker, task=task, **(fields | changes))


def system_with(job: JobSpec, *, workers: int = 1, states: tuple[bytes, ...] | None = None) -> SteppingSystem:
    system = SteppingSystem(TrackerSettings(tasks_queued_per_worker=1, max_attempts=4, lease_seconds=20.0))
    for number in range(1, workers + 1):
        system.tell(TRACKER, joined(f"w{number}"))
    system.tell(MASTER, SubmitJob(job, nothing_stored(job) if states is None else states))
    return system


def published(system: SteppingSystem) -> list[TaskId]:
    return [message.task for message in system.take(BROKER) if isinstance(message, RunTask)]


def told(system: SteppingSystem) -> list[tuple[str, Any]]:
    """Return what workers were told directly."""
    return [(each.worker, each.message) for each in system.take(WORKERS) if isinstance(each, TellWorker)]
