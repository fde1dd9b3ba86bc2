"""What a service's screens draw: a frozen view of all that the master knows (no terminal, no clock)."""

from __future__ import annotations

import msgspec

from distsum.observe.workers import WorkerStatus
from distsum.service.messages import JobStatus, Queues


class MasterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The master that serves.

    Attributes:
        version: Its version of distsum.
        host: Where it runs, harmless to show.
        pid: Its process there.
        work: URI of the folder of jobs and partials, harmless to show.
        began_seconds: When it began, in seconds of the Unix epoch.
    """

    version: str
    host: str
    pid: int
    work: str
    began_seconds: float


class FleetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The workers on other hosts that a master holds.

    Attributes:
        held: Whether it holds them now.
        wanted: How many there are to be on all hosts together; None where that is not known yet.
    """

    held: bool
    wanted: int | None


class ServiceView(msgspec.Struct, frozen=True, kw_only=True):
    """A service at one moment.

    Attributes:
        jobs: The last jobs that have ended, then those that have not, in the order in which they came.
        workers: The workers, the last that are gone among them.
        queues: What waits at the broker; None where it tells nothing.
        master: Who serves.
        fleet: The workers that the master itself holds; None where it has no fleet.
    """

    jobs: tuple[JobStatus, ...]
    workers: tuple[WorkerStatus, ...]
    queues: Queues | None
    master: MasterStatus
    fleet: FleetStatus | None = None
