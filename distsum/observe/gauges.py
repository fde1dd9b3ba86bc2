"""What a service holds at one moment, for whoever draws it over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class QueueGauge(NamedTuple):
    """A queue at the broker: messages that wait, that are with a consumer (None if that is not told), and consumers."""

    name: str
    ready: int
    unacknowledged: int | None
    consumers: int


class Gauges(NamedTuple):
    """Workers that are there and jobs that have not ended, by state; queues; and tasks redelivered since the start."""

    workers: Mapping[str, int]
    jobs: Mapping[str, int]
    queues: Sequence[QueueGauge]
    redelivered: int
