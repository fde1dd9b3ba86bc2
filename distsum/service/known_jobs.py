"""The jobs that a service knows of: those that it serves, and those that have ended, of which clients ask as well."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

from distsum.brokers.topology import job_events
from distsum.errors import StorageError
from distsum.service import messages as channel
from distsum.service.records import Outcome
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.observe.ledger import LedgerReport
    from distsum.service.feeds import Feeds
    from distsum.service.records import Records
    from distsum.service.served_job import ServedJob

_ENDED_KEPT: Final = 2_000
"""Jobs that have ended and are told of without reading their records again."""
_READ_AT_ONCE: Final = 16
"""Jobs that have ended and whose records are read side by side, each by a thread."""
_LEDGERS_KEPT: Final = 20
"""Ledgers of jobs that have ended, which are told of without counting through their histories again."""


class KnownJobs:
    """Tells of jobs, from memory where it can.

    Args:
        records: Where they are stored.
        feeds: Who looks at what.
        workers: How many workers there are, on whom depends what is told of a job's time.

    Attributes:
        served: Those that have not ended, by name.
        left_alone: Those that were accepted and cannot be read, and why.
    """

    def __init__(self, records: Records, feeds: Feeds, workers: Callable[[], int]) -> None:
        self.served: dict[str, ServedJob] = {}
        self.left_alone: dict[str, str] = {}
        self._records = records
        self._feeds = feeds
        self._workers = workers
        self._ended: dict[str, channel.JobStatus] = {}
        self._ledgers: dict[str, LedgerReport] = {}
        self._parted: dict[str, ServedJob] = {}
        """Jobs that have ended while somebody looked, and still does."""

    def part(self, served: ServedJob, told: channel.JobStatus) -> None:
        """Take note that a job that was served has ended."""
        name = served.job.spec.job
        self._remember(told)
        del self.served[name]
        self._parted = {job: each for job, each in self._parted.items() if job_events(job) in self._feeds}
        if job_events(name) in self._feeds:
            self._parted[name] = served

    def shares_output(self, served: ServedJob) -> bool:
        """Whether another job that is under way has the same output."""
        output = served.job.record.output
        return any(each is not served and each.job.record.output == output for each in self.served.values())

    def remembered(self, limit: int) -> tuple[channel.JobStatus, ...]:
        """Return the last jobs that have ended, as far as they are in memory, and those that are served."""
        ended = sorted(self._ended.values(), key=lambda status: status.ended_seconds or 0.0)
        return (*ended[-limit:], *self._statuses())

    def _statuses(self) -> list[channel.JobStatus]:
        workers = self._workers()
        return [each.status(workers) for each in self.served.values()]

    async def listed(self, limit: int) -> channel.Jobs:
        """Return the last jobs that have ended, read where they are not in memory, and those that are served.

        Raises:
            StorageError: The work folder cannot be read.
        """
        folders = await asyncio.to_thread(self._records.folders) if limit > 0 else []
        ended = [each for each in folders if each.ended and each.job not in self.served]
        # There may be thousands, of which only the last are told.
        ended.sort(key=lambda each: each.ended_ago_seconds or 0.0)
        told: list[channel.JobStatus] = []
        for start in range(0, len(ended), _READ_AT_ONCE):
            found = await asyncio.gather(
                *(self._ended_if_read(each.job) for each in ended[start : start + _READ_AT_ONCE])
            )
            told += [status for status in found if status is not None]
            if len(told) >= limit:
                break
        told.sort(key=lambda status: status.ended_seconds or 0.0)
        return channel.Jobs((*told[max(0, len(told) - limit) :], *self._statuses()))

    async def _ended_if_read(self, name: str) -> channel.JobStatus | None:
        """Return what is told of a job that has ended; None of one that cannot be read, which must not hide others."""
        with contextlib.suppress(StorageError):
            return await self._ended_job(name)
        return None

    async def tell_of(self, request: channel.GetJob | channel.GetStragglers | channel.GetNode) -> channel.AnyReply:
        """Return what is asked of one job, or why it cannot be told.

        Raises:
            StorageError: Its records cannot be read.
        """
        match request:
            case channel.GetJob():
                return await self.found(request.job)
            case channel.GetStragglers():
                return await self._stragglers(request.job)
            case channel.GetNode():
                return await self._node(request)

    async def found(self, name: str) -> channel.Job | channel.Refused:
        """Return a job of any kind, or why there is none.

        Raises:
            StorageError: Its records cannot be read.
        """
        if (served := self.served.get(name)) is not None:
            return channel.Job(served.status(self._workers()))
        if (status := await self._ended_job(name)) is not None:
            return channel.Job(status)
        if (reason := self.left_alone.get(name)) is not None:
            return channel.Refused(
                f"job {name} cannot go on: {reason}; submit it again, and `distsum cancel {name}` lets `distsum gc` "
                "remove what it has left"
            )
        return channel.Refused(f"there is no job {printable(name, 80)}; `distsum jobs` lists them")

    async def _node(self, request: channel.GetNode) -> channel.AnyReply:
        name = request.task.job
        served = self.served.get(name)
        if served is None and job_events(name) in self._feeds:
            served = self._parted.get(name)
        if served is not None:
            return served.detail(request)
        found = await self.found(name)
        if not isinstance(found, channel.Job):
            return found
        return channel.Refused(f"job {name} has ended; open it again to play it")

    async def _stragglers(self, name: str) -> channel.AnyReply:
        if (served := self.served.get(name)) is not None:
            return channel.Stragglers(served.tally.ledger_report(served.began_seconds))
        if (report := self._ledgers.get(name)) is None:
            found = await self.found(name)
            if not isinstance(found, channel.Job):
                return found
            replay = await asyncio.to_thread(self._records.replay, name)
            if replay is None:
                return channel.Refused(
                    f"job {name} has no history: it ended before it ran, or what happened could not be stored"
                )
            report = self._ledgers[name] = replay.ledger_report()
            while len(self._ledgers) > _LEDGERS_KEPT:
                del self._ledgers[next(iter(self._ledgers))]
        return channel.Stragglers(report)

    async def end_left_alone(self, name: str) -> channel.AnyReply:
        """End a job that cannot be read, so that `distsum gc` may remove what it has left."""
        reason = f"cancelled by a client; {self.left_alone[name]}"
        outcome = Outcome(state="cancelled", ended_seconds=time.time(), exit_code=1, reason=reason)
        await asyncio.to_thread(self._records.end, name, outcome)
        del self.left_alone[name]
        return channel.Done()

    async def _ended_job(self, name: str) -> channel.JobStatus | None:
        if (status := self._ended.get(name)) is None:
            status = await asyncio.to_thread(self._records.ended_status, name)
            if status is not None:
                self._remember(status)
        return status

    def _remember(self, status: channel.JobStatus) -> None:
        self._ended[status.job] = status
        while len(self._ended) > _ENDED_KEPT:
            del self._ended[next(iter(self._ended))]
