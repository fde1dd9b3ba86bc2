"""A running service as a source of views: what a viewer follows, and what is to be known of the way to it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Final, Protocol

from distsum.errors import DistsumError
from distsum.service import messages as channel
from distsum.service.records import Records
from distsum.wording import printable

from .lines import clock_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.observe.view import JobView
    from distsum.service.client import Transport
    from distsum.service.view import ServiceView
    from distsum.service.viewer import Connection, Viewer
    from distsum.stores.base import Store

_STEERING_SECONDS: Final = 20.0
_REPLACED_SECONDS: Final = 15.0
"""For so long it is told that another master serves now."""


class RemoteSource:
    """A service that is followed over its broker.

    Args:
        viewer: Follows it; started.
        transport: The way to ask for what changes something.
        store: Opens where the histories of jobs lie that have ended.
        read_only: Whether nothing may be asked that changes anything.
    """

    def __init__(
        self,
        viewer: Viewer[ServiceView],
        transport: Callable[[], Transport],
        store: Callable[[], Store],
        *,
        read_only: bool,
    ) -> None:
        self.read_only = read_only
        self._viewer = viewer
        self._transport = transport
        self._store = store
        self._ended: dict[str, EndedJob] = {}

    def newest(self) -> ServiceView | None:
        """Return the service's newest view; None before there is one."""
        return self._viewer.service.view

    def follow(self, job: str | None) -> None:
        """Follow a job from now on, or none."""
        self._viewer.follow(job)

    def job(self) -> JobView | None:
        """Return the newest view of the job that is followed; None before there is one."""
        followed = self._viewer.job
        if followed is None or followed.job is None:
            return None
        if followed.view is not None:
            return followed.view
        ended = self._ended_job()
        return ended.view if ended is not None else None

    def connection(self) -> Connection:
        """Return how the connection stands."""
        return self._viewer.connection()

    async def ask(self, request: channel.AnyRequest) -> channel.AnyReply:
        """Ask for what changes something; what hinders that is an answer, too."""
        if self.read_only:
            return channel.Refused("this viewer only looks; start it without --read-only")
        return await asyncio.to_thread(self._ask, request)

    def notice(self) -> str:
        """Return what is to be known of the way to what is shown; empty where all is well."""
        found = self.connection()
        age = "" if found.heard_seconds is None else f" · what is shown is {clock_words(found.heard_seconds)} old"
        if found.state == "connecting":
            return "connecting"
        if found.words:
            return found.words + age
        followed = self._viewer.job
        if followed is not None and followed.refused is not None and followed.view is None:
            return printable(followed.refused, 500)
        ended = self._ended_job()
        if ended is not None and ended.remark:
            return ended.remark
        if found.replaced_seconds is not None and found.replaced_seconds < _REPLACED_SECONDS:
            return "another master serves now, and is followed"
        return ""

    def close(self) -> None:
        """Follow nothing any more."""
        self._viewer.close()

    def _ask(self, request: channel.AnyRequest) -> channel.AnyReply:
        with closing(self._transport()) as transport:
            try:
                return transport.ask(request, _STEERING_SECONDS)
            except DistsumError as error:
                return channel.Refused(str(error))

    def _ended_job(self) -> EndedJob | None:
        """Return the job that is followed, where it had ended before."""
        followed = self._viewer.job
        if followed is None or followed.job is None or followed.ended is None:
            return None
        found = self._ended.get(followed.job)
        if found is None:
            found = self._ended[followed.job] = EndedJob(followed.job, self._viewer.look, self._store)
        return found


class _Look(Protocol):
    def __call__(self, request: channel.LookRequest, seconds: float) -> channel.AnyReply:
        """Ask the master; see ``Viewer.look``."""


class EndedJob:
    """A job that had ended when somebody began to look: its history is read in a thread, to its end.

    Attributes:
        view: Its last view; None until it is read.
        remark: What is done, or has failed; empty of a job that is there.
    """

    def __init__(self, job: str, look: _Look, store: Callable[[], Store]) -> None:
        self.view: JobView | None = None
        self.remark = f"job {printable(job, 80)} has ended; reading its history"
        self._job = job
        self._look = look
        self._store = store
        threading.Thread(target=self._read, name="distsum history", daemon=True).start()

    def _read(self) -> None:
        try:
            service = self._look(channel.Describe(), _STEERING_SECONDS)
            if not isinstance(service, channel.Description):
                self.remark = "the master does not say where histories lie"
                return
            with closing(self._store()) as store:
                self.view = Records(store, service.work).last_view(self._job)
        except DistsumError as error:
            self.remark = f"job {printable(self._job, 80)} has ended, and its history cannot be read: {error}"
            return
        self.remark = "" if self.view is not None else f"job {printable(self._job, 80)} has ended, without a history"


class FollowedJob:
    """One job of a service, for a screen that draws one: the given one, or whichever is under way.

    Args:
        source: The service.
        job: The job; None is the first that has not ended, and after its end the next one.
    """

    def __init__(self, source: RemoteSource, job: str | None) -> None:
        self._source = source
        self._chosen = job is not None
        self._job = job
        if job is not None:
            source.follow(job)

    def newest(self) -> JobView | None:
        """Return its newest view; None before there is one."""
        service = self._source.newest()
        if service is not None and not self._chosen:
            under_way = [each.job for each in service.jobs if each.state not in channel.ENDED]
            if self._job is None or (under_way and self._job not in under_way):
                candidates = under_way or [each.job for each in service.jobs[-1:]]
                self._job = candidates[0] if candidates else None
                self._source.follow(self._job)
        return self._source.job()

    def over(self) -> bool:
        """Whether nothing new will come: never."""
        return False

    def notice(self) -> str:
        """Return what is to be known of the way to it."""
        found = self._source.notice()
        if not found and self._job is None and self._source.newest() is not None:
            return "no job is under way, and none has ended; `distsum submit` brings one"
        return found
