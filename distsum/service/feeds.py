"""Views of the service and its jobs for those who look from elsewhere: made and told only while somebody does.

A viewer asks to be told, and asks again before its time is over. However many there are, a view is made once and what
is different in it is sent once; the broker hands it out. What that takes of this process is bounded by a share of its
time, so a large view comes less often.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from distsum.observe.feed import FeedWriter, encoded_picture
from distsum.service.messages import Watching

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    import msgspec

    Look = Callable[[], Awaitable[msgspec.Struct]]

log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 15.0
FRAME_SECONDS: Final = 0.2
_QUIET_SECONDS: Final = 1.0
"""What does not change is told so often, so that a viewer sees that somebody is there."""
_SHARE: Final = 0.02
"""Of the time of this process: so much at most is spent on the views of one thing."""
_ASIDE_BYTES: Final = 100_000
"""Packing a view with more tasks than this takes milliseconds, and is done in a thread."""


class _Feed:
    def __init__(self, key: str, stream: str, view: msgspec.Struct, tasks: int) -> None:
        self.key = key
        self.writer = FeedWriter(stream, view)
        self.tasks = tasks
        self.until = 0.0
        self.picture: tuple[int, asyncio.Future[bytes]] | None = None
        self.told = time.monotonic()


class Feeds:
    """All views that somebody looks at.

    Args:
        tell: Sends a frame to all who look at what the key names; returns whether it could be sent.
        spawn: Runs something in the background, and fails with it.
        serves: Whether this process is still the one whose word counts.
        lease_seconds: For how long something is told of to who has asked.
    """

    def __init__(
        self,
        tell: Callable[[str, bytes], Awaitable[bool]],
        spawn: Callable[[Coroutine[None, None, None]], object],
        serves: Callable[[], bool],
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._lease_seconds = lease_seconds
        self._tell = tell
        self._serves = serves
        self._spawn = spawn
        self._feeds: dict[str, _Feed] = {}
        self._name = secrets.token_hex(6)
        self._streams = 0

    def __contains__(self, key: str) -> bool:
        """Whether somebody looks at it."""
        return key in self._feeds

    async def watch(
        self,
        key: str,
        stream: str,
        look: Look | None,
        frame_seconds: float = FRAME_SECONDS,
        tasks: int = 0,
    ) -> Watching:
        """Tell of something for some seconds more.

        Args:
            key: What it is.
            stream: The stream that whoever asks follows; who follows another gets a picture.
            look: Returns the newest view; not needed of what somebody looks at already.
            frame_seconds: Time between two frames, at least.
            tasks: How many tasks the view holds.
        """
        feed = self._feeds.get(key)
        if feed is None:
            assert look is not None
            view = await look()
            feed = self._feeds.get(key)  # Somebody else may have asked meanwhile.
            if feed is None:
                self._streams += 1
                feed = self._feeds[key] = _Feed(key, f"{self._name}.{self._streams}", view, tasks)
                self._spawn(self._run(feed, look, frame_seconds))
        feed.until = time.monotonic() + self._lease_seconds
        picture = None if stream == feed.writer.stream else await self._picture(feed)
        return Watching(feed.writer.stream, self._lease_seconds, picture)

    async def _run(self, feed: _Feed, look: Look, frame_seconds: float) -> None:
        try:
            while time.monotonic() < feed.until:
                began = time.thread_time()
                frame = self._frame(feed, await look())
                spent = time.thread_time() - began
                if frame is not None:
                    await self._tell(feed.key, frame)
                await asyncio.sleep(max(frame_seconds, spent / _SHARE))
        except Exception:
            # A fault here must not end what is looked at. Who looks asks again.
            log.exception("what is looked at (%s) cannot be told", feed.key)
        finally:
            del self._feeds[feed.key]

    def _frame(self, feed: _Feed, view: msgspec.Struct) -> bytes | None:
        """Return what is different, unless nothing is and that was told a moment ago."""
        now = time.monotonic()
        if not self._serves() or (now - feed.told < _QUIET_SECONDS and view == feed.writer.view):
            return None
        feed.told = now
        return feed.writer.step(view)

    async def _picture(self, feed: _Feed) -> bytes:
        """Return the newest view as a frame; it is made once for all who ask for the same one."""
        writer = feed.writer
        if feed.picture is None or feed.picture[0] != writer.number:
            make = partial(encoded_picture, writer.stream, writer.number, writer.view)
            made: asyncio.Future[bytes]
            if feed.tasks > _ASIDE_BYTES:
                made = asyncio.ensure_future(asyncio.to_thread(make))
            else:
                made = asyncio.get_running_loop().create_future()
                made.set_result(make())
            feed.picture = writer.number, made
        return await asyncio.shield(feed.picture[1])
