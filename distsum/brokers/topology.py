"""The exchanges and queues of distsum in a RabbitMQ virtual host, and who may do what with them (pure).

Everything is named ``distsum.…``, exchanges ``distsum.exchange.…``, so that permissions can tell them apart. Nothing
here needs more than RabbitMQ 3.10, and nothing is refused by 4.x: shared queues are durable, others exclusive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from distsum.messages import PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Mapping

TASKS: Final = f"distsum.tasks.v{PROTOCOL}"
"""Workers of another protocol look for another queue, so that no task is ever handed to one."""
RESULTS: Final = "distsum.results"
DEAD: Final = "distsum.dead"
"""Tasks that took their workers down, for the deciding process."""
REFUSED: Final = "distsum.refused"
"""What was no message of ours, with the reason, for people."""
REQUESTS: Final = "distsum.requests"
"""What clients ask the deciding process; the answer to each goes to a queue of its client's."""
VIEWS: Final = "distsum.views"
"""What those ask who only look: nothing that comes this way changes anything."""
LOCK: Final = "distsum.master"
"""Exists while a deciding process serves the virtual host: an exclusive queue, and so one process's only."""

TASKS_EXCHANGE: Final = "distsum.exchange.tasks"
RESULTS_EXCHANGE: Final = "distsum.exchange.results"
DEAD_EXCHANGE: Final = "distsum.exchange.dead"
CONTROL_EXCHANGE: Final = "distsum.exchange.control"
TELEMETRY_EXCHANGE: Final = "distsum.exchange.telemetry"
REQUESTS_EXCHANGE: Final = "distsum.exchange.requests"
VIEWS_EXCHANGE: Final = "distsum.exchange.views"
EVENTS_EXCHANGE: Final = "distsum.exchange.events"
EXCHANGES: Final = {
    TASKS_EXCHANGE: "direct",
    RESULTS_EXCHANGE: "direct",
    DEAD_EXCHANGE: "direct",
    CONTROL_EXCHANGE: "topic",
    TELEMETRY_EXCHANGE: "topic",
    REQUESTS_EXCHANGE: "direct",
    VIEWS_EXCHANGE: "direct",
    EVENTS_EXCHANGE: "topic",
}

EVERY_WORKER: Final = "workers"
"""Routing key of control messages to all workers."""
HEARTBEATS: Final = "heartbeats"
"""Routing key of telemetry."""
TELEMETRY_ARGUMENTS: Final = {"x-message-ttl": 10_000, "x-max-length": 10_000}
"""Old telemetry is worth nothing, and must not pile up before a process that is busy."""
SERVICE_EVENTS: Final = "service"
"""Routing key of what is different in the service as a whole."""
VIEWER_ARGUMENTS: Final = {
    "x-message-ttl": 10_000,
    "x-max-length": 50,
    "x-max-length-bytes": 16 << 20,
    "x-overflow": "drop-head",
}
"""Who looks too slowly loses what is oldest, sees that, and asks for a whole picture; nobody waits for it."""
_REFUSED_KEPT: Final = 1_000
_NEVER_TOO_OFTEN: Final = {"x-delivery-limit": 1_000_000}
"""What is told comes back whenever the deciding process goes away, and must not be lost by that. RabbitMQ 4 drops what
has come back 20 times, unless it is told otherwise."""


@dataclass(frozen=True)
class RequestChannel:
    """A way to ask the deciding process, and to be answered.

    Attributes:
        queue: Holds what is asked; its name is its routing key, too.
        exchange: Takes what is asked, and the answers.
        reply: What names of the queues of answers begin with.
    """

    queue: str
    exchange: str
    reply: str

    def reply_queue(self, client: str) -> str:
        """Return the name of the queue of a client's answers, which is their routing key too."""
        return f"{self.reply}{client}"

    def is_reply_queue(self, name: str) -> bool:
        """Whether a name from outside may be one that ``reply_queue`` has made; so it is short enough for AMQP, too."""
        return re.fullmatch(f"{re.escape(self.reply)}[0-9a-z]{{1,64}}", name) is not None


JOBS_CHANNEL: Final = RequestChannel(REQUESTS, REQUESTS_EXCHANGE, "distsum.reply.")
VIEWS_CHANNEL: Final = RequestChannel(VIEWS, VIEWS_EXCHANGE, "distsum.viewer.reply.")


@dataclass(frozen=True)
class Queue:
    """A durable queue and the one binding it has."""

    name: str
    exchange: str
    key: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def queues(delivery_limit: int) -> tuple[Queue, ...]:
    """Return the shared queues.

    Args:
        delivery_limit: How often a task is handed out before it is dead-lettered. RabbitMQ counts how often it comes
            back, which is one less.
    """
    quorum = {"x-queue-type": "quorum"}
    dead_letters = {
        "x-delivery-limit": delivery_limit - 1,
        "x-dead-letter-exchange": DEAD_EXCHANGE,
        "x-dead-letter-routing-key": DEAD,
        # Without these two a dead letter could be lost, and its job would wait for ever.
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    return (
        Queue(TASKS, TASKS_EXCHANGE, TASKS, quorum | dead_letters),
        Queue(RESULTS, RESULTS_EXCHANGE, RESULTS, quorum | _NEVER_TOO_OFTEN | {"x-single-active-consumer": True}),
        Queue(DEAD, DEAD_EXCHANGE, DEAD, quorum | _NEVER_TOO_OFTEN),
        # One process answers at a time; another that takes over goes on with what was asked meanwhile.
        *(
            Queue(asked.queue, asked.exchange, asked.queue, {"x-single-active-consumer": True, "x-max-length": 1_000})
            for asked in (JOBS_CHANNEL, VIEWS_CHANNEL)
        ),
        Queue(REFUSED, DEAD_EXCHANGE, REFUSED, quorum | _NEVER_TOO_OFTEN | {"x-max-length": _REFUSED_KEPT}),
    )


def viewer_queue(viewer: str) -> str:
    """Return the name of the queue of what a viewer is told unasked; each connection has others."""
    return f"distsum.viewer.{viewer}"


def job_events(job: str) -> str:
    """Return the routing key of what is different in a job."""
    return f"job.{job}"


def is_worker_name(name: str) -> bool:
    """Whether a worker may have this name, which becomes a part of a queue's name and of a routing key."""
    return re.fullmatch("[A-Za-z0-9_-]{1,100}", name) is not None


def worker_queue(worker: str, connection: str) -> str:
    """Return the name of a worker's own queue. Each connection has another: a lost one may still hold its name."""
    return f"distsum.worker.{worker}.{connection}"


def worker_key(worker: str) -> str:
    """Return the routing key of control messages to one worker."""
    return f"worker.{worker}"


MASTER_PERMISSIONS: Final = dict.fromkeys(("configure", "write", "read"), r"^distsum\.")
WORKER_PERMISSIONS: Final = {
    # What it may make: its own queue. Where it may write: into that (a binding counts), and to the channels to the
    # process. What it may read: its own queue, tasks, and messages of control, to bind its queue to them.
    "configure": r"^distsum\.worker\.",
    "write": r"^distsum\.(worker\.|exchange\.(results|telemetry|dead)$)",
    "read": r"^distsum\.(worker\.|tasks\.|exchange\.control$)",
}
VIEWER_PERMISSIONS: Final = {
    # What it may make: its own queues. Where it may write: into those (a binding counts), and where nothing that is
    # asked changes anything. What it may read: its own queues, answers, and what is told to all who look.
    "configure": r"^distsum\.viewer\.",
    "write": r"^distsum\.(viewer\.|exchange\.views$)",
    "read": r"^distsum\.(viewer\.|exchange\.(views|events)$)",
}
