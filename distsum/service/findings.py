"""What a look at broker, store and service has found, before it is judged (plain data)."""

from __future__ import annotations

import msgspec

from distsum.service.messages import Diagnosis


class QueueCount(msgspec.Struct, frozen=True):
    """A shared queue: messages that are ready, and consumers."""

    name: str
    ready: int
    consumers: int


class BrokerFound(msgspec.Struct, frozen=True, kw_only=True):
    """What a virtual host looks like to one user.

    Attributes:
        address: Where, without the password.
        user: Who.
        fault: Why it cannot be entered; None if it can, and else nothing below is known.
        version: The broker's version.
        queues: The shared queues that are there.
        missing: Those that are not.
        master_fault: What keeps this user from being a master or a client; None if nothing does.
        worker_fault: What keeps it from being a worker.
        viewer_fault: What keeps it from looking.
        blocked: Whether the broker takes no messages at the moment.
    """

    address: str
    user: str
    fault: str | None = None
    version: str = ""
    queues: tuple[QueueCount, ...] = ()
    missing: tuple[str, ...] = ()
    master_fault: str | None = None
    worker_fault: str | None = None
    viewer_fault: str | None = None
    blocked: bool = False


class NodeFound(msgspec.Struct, frozen=True):
    """A node of the broker's cluster."""

    name: str
    running: bool
    memory_alarm: bool
    disk_alarm: bool
    partitioned: bool


class ManagementFound(msgspec.Struct, frozen=True, kw_only=True):
    """What the management API tells.

    Attributes:
        address: Where, without the password.
        fault: Why it tells nothing; None if it does.
        version: The broker's version.
        nodes: The nodes of the cluster.
        max_connections: How many the virtual host may have; None if there is no limit.
        consumer_timeout_seconds: What a policy of the queue of tasks says; None if none does. What the broker's own
            configuration says is not told by RabbitMQ.
    """

    address: str
    fault: str | None = None
    version: str = ""
    nodes: tuple[NodeFound, ...] = ()
    max_connections: int | None = None
    consumer_timeout_seconds: float | None = None


class StoreFound(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of a work folder.

    Attributes:
        work: It, harmless to show.
        there: Whether the folder is there; only asked of paths.
        unreachable: Why it cannot be reached; None if it can.
        unusable: What of writing, reading and removing a small object in it failed; None if nothing did.
        guarded: Whether a second run is kept out of a folder that another holds; None if that was not found out.
        ahead_seconds: How far the store's clock is ahead of this machine's; None if it was not told.
    """

    work: str
    there: bool = True
    unreachable: str | None = None
    unusable: str | None = None
    guarded: bool | None = None
    ahead_seconds: float | None = None


class MasterFound(msgspec.Struct, frozen=True, kw_only=True):
    """What the master has answered.

    Attributes:
        fault: Why it has not; None if it has.
        told: The answer.
        ahead_seconds: How far its clock is ahead of this machine's.
    """

    fault: str | None = None
    told: Diagnosis | None = None
    ahead_seconds: float = 0.0


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found; None is what was not looked at.

    Attributes:
        broker: The virtual host.
        management: The broker's management API.
        master: The master that serves it.
        store: The work folder.
        work: URI of the work folder that was given here, or None if the master's was taken.
    """

    broker: BrokerFound | None = None
    management: ManagementFound | None = None
    master: MasterFound | None = None
    store: StoreFound | None = None
    work: bytes | None = None
