"""A running service as a source of views: what a viewer follows, and what is to be known of the way to it."""

from __future__ import annotations

import contextlib
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final, Protocol

from distsum.errors import DistsumError, ServiceError
from distsum.observe.history import History
from distsum.observe.player import Player
from distsum.service import messages as channel
from distsum.service.client import ServiceClient
from distsum.service.records import Records
from distsum.wording import printable

from .aside import aside
from .inquiry import Inquiry
from .lines import clock_words
from .source import ReplaySource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distsum.messages import TaskId
    from distsum.observe.subtree import NodeDetail
    from distsum.observe.view import JobView
    from distsum.service.client import Transport
    from distsum.service.view import ServiceView
    from distsum.service.viewer import Followed, Viewer
    from distsum.stores.routing import RoutingStore

_STEERING_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 5.0
_ONLY_LOOKS: Final = "this viewer only looks; start it without --read-only"
_REPLACED_SECONDS: Final = 15.0
"""For so long it is told that another master serves now."""


class RemoteSource:
    """A service that is followed over its broker.

    Args:
        viewer: Follows it; started.
        transport: The way to ask for what changes something.
        store: Opens where the histories of jobs lie that have ended.
        read_only: Whether nothing may be asked that changes anything.

    Attributes:
        read_only: As given.
    """

    def __init__(
        self,
        viewer: Viewer[ServiceView],
        transport: Callable[[], Transport],
        store: Callable[[], RoutingStore],
        *,
        read_only: bool,
    ) -> None:
        self.read_only = read_only
        self._viewer = viewer
        self._transport = transport
        self._store = store

    def newest(self) -> ServiceView | None:
        """Return the service's newest view; None before there is one."""
        return self._viewer.service.view

    def follow(self, job: str | None) -> None:
        """Follow a job from now on, or none."""
        self._viewer.follow(job)

    def followed(self, job: str) -> Followed[JobView] | None:
        """Return what is known of a job; None unless it is the one that is followed."""
        found = self._viewer.job
        return found if found is not None and found.job == job else None

    def history(self, job: str) -> EndedJob:
        """Begin to read the history of a job that has ended."""
        return EndedJob(job, self._viewer.look, self._store)

    def inquiry(self) -> Inquiry:
        """Return what asks about single nodes of a job."""
        return Inquiry(lambda request: self._viewer.begin_look(request, _LOOK_SECONDS), time.monotonic)

    async def ask(self, request: channel.AnyRequest) -> channel.AnyReply:
        """Ask for what changes something; what hinders that is an answer, too."""
        if self.read_only:
            return channel.Refused(_ONLY_LOOKS)
        return await aside(lambda: self._ask(request), "steering")

    @contextlib.contextmanager
    def client(self, stop: threading.Event) -> Iterator[tuple[ServiceClient, RoutingStore]]:
        """Give a client of the service and the store that it looks into, which waits for nothing once it shall stop.

        Raises:
            ServiceError: Nothing may be changed here.
        """
        if self.read_only:
            raise ServiceError(_ONLY_LOOKS)
        store = self._store()
        store.heed(stop)
        with ServiceClient(self._transport(), store, _STEERING_SECONDS) as client:
            yield client, store

    def notice(self) -> str:
        """Return what is to be known of the way to what is shown; empty where all is well."""
        found = self._viewer.connection()
        if found.state == "connecting":
            return "connecting"
        if found.words:  # The most important first: where a terminal is narrow, the end is cut.
            age = [] if found.heard_seconds is None else [f"{clock_words(found.heard_seconds)} old"]
            if found.state == "lost":
                what = ["broker lost, trying again"]
            else:  # Where nothing was ever heard it is no silence, and most words tell of the master themselves.
                what = ["master silent"] if age and "master" not in found.words else []
            return " · ".join([*age, *what, _reason_first(found.words)])
        if found.replaced_seconds is not None and found.replaced_seconds < _REPLACED_SECONDS:
            return "another master serves now, and is followed"
        return ""

    def stale_seconds(self) -> float:
        """Return how old what is shown is; 0 while the master is heard."""
        found = self._viewer.connection()
        return (found.heard_seconds or 0.0) if found.words else 0.0

    def close(self) -> None:
        """Follow nothing any more."""
        self._viewer.close()

    def _ask(self, request: channel.AnyRequest) -> channel.AnyReply:
        try:
            with closing(self._transport()) as transport:
                return transport.ask(request, _STEERING_SECONDS)
        except DistsumError as error:
            return channel.Refused(str(error))


def _reason_first(words: str) -> str:
    """Return why something is wrong before where: addresses are long.

    >>> _reason_first("amqp://lab/distsum: the connection was lost"), _reason_first("no master answers")
    ('the connection was lost (amqp://lab/distsum)', 'no master answers')
    """
    address, found, reason = words.partition(": ")
    return f"{reason} ({address})" if found and address.startswith(("amqp://", "amqps://")) else words


class _Look(Protocol):
    def __call__(self, request: channel.LookRequest, seconds: float) -> channel.AnyReply:
        """Ask the master; see ``Viewer.look``."""


class EndedJob:
    """A job that had ended when somebody began to look: its history is read in a thread, to its end, to be played.

    Attributes:
        replay: Plays it, and stands at its end; None until it is read.
        unreadable: Why it cannot be read, in a sentence, harmless to show; empty of what can.
    """

    def __init__(self, job: str, look: _Look, store: Callable[[], RoutingStore]) -> None:
        self.replay: ReplaySource | None = None
        self.unreadable = ""
        self._job = job
        self._name = f"job {printable(job, 80)}"
        self._look = look
        self._open = store
        self._held = contextlib.ExitStack()
        """What is open as long as the history is played."""
        self._lock = threading.Lock()
        self._closed = False
        threading.Thread(target=self._read, name="distsum history", daemon=True).start()

    def close(self) -> None:
        """Let go of the history, as soon as it is not being read."""
        with self._lock:
            self._closed = True
            if self.replay is not None or self.unreadable:
                self._held.close()

    def _read(self) -> None:
        unreadable, replay = "", None
        try:
            replay = self._opened()
        except DistsumError as error:
            unreadable = f"The history of {self._name} cannot be read: {error}"
        if replay is None and not unreadable:
            unreadable = f"There is no history of {self._name}."
        with self._lock:
            self.replay, self.unreadable = replay, unreadable
            if self._closed or replay is None:
                self._held.close()

    def _opened(self) -> ReplaySource | None:
        service = self._look(channel.Describe(), _STEERING_SECONDS)
        if not isinstance(service, channel.Description):
            raise ServiceError("the master does not say where histories lie")
        store = self._held.enter_context(closing(self._open()))
        reader = Records(store, service.work).open_history(self._job)
        if reader is None:
            return None
        self._held.enter_context(reader)
        player = Player(History(reader))
        player.seek(player.end_seconds)
        while not self._closed and not player.step():
            pass
        replay = ReplaySource(player, time.monotonic)
        replay.playing = False
        return replay


def _shows_its_end(view: JobView | None) -> bool:
    return view is not None and (view.snapshot.finished or view.failure is not None)


class FollowedJob:
    """One job of a service, for a screen that draws one: live, or played again where it had ended before.

    Args:
        source: The service.
        job: The job.

    Attributes:
        job: As given.
    """

    def __init__(self, source: RemoteSource, job: str) -> None:
        self.job = job
        self._source = source
        self._history: EndedJob | None = None
        self._fault = ""
        self._inquiry = source.inquiry()
        source.follow(job)

    @property
    def has_ended(self) -> bool:
        """Whether nothing will become of it any more, as far as known."""
        status = self.status()
        return status is not None and status.state in channel.ENDED

    @property
    def unreadable(self) -> str:
        """Why there is nothing to draw of it, though it has ended; empty if there is, or may be."""
        return self._fault or (self._history.unreadable if self._history is not None else "")

    def status(self) -> channel.JobStatus | None:
        """Return what the master tells of it; None before that."""
        followed = self._source.followed(self.job)
        if followed is not None and followed.ended is not None:
            return followed.ended
        service = self._source.newest()
        jobs = service.jobs if service is not None else ()
        return next((each for each in jobs if each.job == self.job), None)

    def newest(self) -> JobView | None:
        """Return its newest view; None before there is one."""
        followed = self._source.followed(self.job)
        if followed is None:
            return None
        if followed.ended is None or _shows_its_end(followed.view):
            return followed.view
        # It had ended before somebody looked, or while there was no master to tell of its end.
        if self._history is None:
            self._history = self._source.history(self.job)
        if (replay := self._history.replay) is None:
            return followed.view
        try:
            return replay.newest()
        except DistsumError as error:  # The store is away, perhaps.
            self._fault = f"The history of job {printable(self.job, 80)} cannot be read any more: {error}"
            return None

    def detail(self, task: TaskId, first: int, count: int) -> NodeDetail | str | None:
        """Return the newest that is known of a node of it."""
        if (replay := self.replay()) is not None:
            return replay.detail(task, first, count)
        return self._inquiry.detail(task, first, count)

    def queues(self) -> channel.Queues | None:
        """Return what waits at the broker now; None where it is not known, or another time or an end is shown."""
        service = self._source.newest()
        return None if service is None or self.has_ended or self.replay() is not None else service.queues

    def over(self) -> bool:
        """Whether nothing new will come: never."""
        return False

    def replay(self) -> ReplaySource | None:
        """Return what is played again, where the job had ended before somebody looked."""
        return self._history.replay if self._history is not None else None

    def notice(self) -> str:
        """Return what is to be known of the way to it."""
        if found := self._source.notice():
            return found
        followed = self._source.followed(self.job)
        if followed is None or (followed.view is not None and followed.ended is None) or _shows_its_end(followed.view):
            return ""
        if followed.refused is not None:
            return printable(followed.refused, 500)
        if followed.ended is not None and self.replay() is None:
            return f"job {printable(self.job, 80)} has ended; reading its history"
        return ""

    def close(self) -> None:
        """Follow it no more."""
        self._source.follow(None)
        if self._history is not None:
            self._history.close()
