"""Who is there when a job begins: what it would not know otherwise, since it happened before (pure, no clock)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from distsum.messages import WorkerJoined, WorkerLost, WorkerPaused, WorkerResumed

if TYPE_CHECKING:
    from collections.abc import Iterator


class PresentWorkers:
    """Keeps the events that tell of the workers that are there, and of which are handed no tasks.

    >>> workers = PresentWorkers()
    >>> workers.take(WorkerJoined("w1", "host", 7, "1", 1, 0, 0.5))
    >>> workers.take(WorkerPaused("w1", "it failed", quarantined=True))
    >>> [type(event).__name__ for event in workers.told()]
    ['WorkerJoined', 'WorkerPaused']
    >>> workers.take(WorkerLost("w1", "fell silent"))
    >>> list(workers.told())
    []
    """

    def __init__(self) -> None:
        self._joined: dict[str, WorkerJoined] = {}
        self._paused: dict[str, WorkerPaused] = {}

    def take(self, event: msgspec.Struct) -> None:
        """Take note of an event."""
        match event:
            case WorkerJoined():
                # Their start was no time of jobs that begin later.
                self._joined[event.worker] = msgspec.structs.replace(event, start_seconds=0.0, present=True)
                self._paused.pop(event.worker, None)
            case WorkerPaused():
                self._paused[event.worker] = event
            case WorkerResumed():
                self._paused.pop(event.worker, None)
            case WorkerLost():
                self._joined.pop(event.worker, None)
                self._paused.pop(event.worker, None)

    def told(self) -> Iterator[WorkerJoined | WorkerPaused]:
        """Yield what a job that begins now is to be told: who is there, and then which of them are handed no tasks."""
        yield from self._joined.values()
        yield from (paused for name, paused in self._paused.items() if name in self._joined)
