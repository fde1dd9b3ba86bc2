"""Stores the history of a running job now and then, so that little of it is lost with a master that is killed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Final

from distsum.errors import DistsumError
from distsum.logs import concerning

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from distsum.service.records import Records
    from distsum.service.served_job import ServedJob

log = logging.getLogger(__name__)

STORE_SECONDS: Final = 10.0
"""Time from one storing to the next, at least."""
_PAUSE_TIMES: Final = 20.0
"""How many times what a storing took it waits for the next: on a slow store they must not take what workers need."""
_BYTES_PER_SECOND: Final = 1e6
"""What storing may take, since each stores the whole again: a history of 64 MiB is stored once a minute."""


async def keep(
    served: ServedJob, records: Records, may_store: Callable[[], Awaitable[bool]], seconds: float = STORE_SECONDS
) -> None:
    """Store a job's history so far, again and again until the job is over.

    Args:
        served: The job.
        records: Where its history goes.
        may_store: Tells whether this master still serves: nobody else's history may be replaced by an older one.
        seconds: Time between two storings.
    """
    stored, size, pause, told = 0, 0, seconds, False
    while not await _is_over(served, pause):
        recorder = served.recorder
        if recorder is None or recorder.events == stored:
            continue
        began, events = time.perf_counter(), recorder.events
        try:
            if await may_store():
                size = await store(served, records)
                stored = events
        except DistsumError as error:
            if not told:
                _warn(served, error)
            told = True
        pause = pause_seconds(size, time.perf_counter() - began, seconds)


def pause_seconds(size: int, took_seconds: float, least_seconds: float) -> float:
    """Return how long it is to the next storing, by what the last one has stored and what it took.

    >>> pause_seconds(50_000, 0.02, 10.0), pause_seconds(64 << 20, 0.5, 10.0), pause_seconds(50_000, 3.0, 10.0)
    (10.0, 67.108864, 60.0)
    """
    return max(least_seconds, size / _BYTES_PER_SECOND, _PAUSE_TIMES * took_seconds)


async def store(served: ServedJob, records: Records) -> int:
    """Store a job's history so far; return its bytes.

    Raises:
        StorageError: It cannot be stored.
    """
    recorder = served.recorder
    if recorder is None:
        return 0
    size = recorder.reach()
    await asyncio.to_thread(records.put_history_so_far, served.job.spec.job, recorder, size)
    return size


async def leave(jobs: Iterable[ServedJob], records: Records) -> None:
    """Store the histories of jobs so far, for the next master; of one that cannot be stored only that is told."""
    for served in jobs:
        try:
            await store(served, records)
        except DistsumError as error:
            _warn(served, error)


async def look_back(served: ServedJob, records: Records) -> None:
    """Look for what an earlier master has told of a job's stragglers; without it the job goes on as well."""
    name = served.job.spec.job
    try:
        served.earlier = await asyncio.to_thread(records.earlier_ledger, name)
    except DistsumError as error:
        told = "what an earlier master has told of the stragglers of job %s is lost: %s"
        log.warning(told, name, error, extra=concerning(job=name))


def _warn(served: ServedJob, error: DistsumError) -> None:
    name = served.job.spec.job
    log.warning("the history of job %s is not stored yet: %s", name, error, extra=concerning(job=name))


async def _is_over(served: ServedJob, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(served.over.wait(), seconds)
    return served.over.is_set()
