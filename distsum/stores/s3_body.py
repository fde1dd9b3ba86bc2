"""Bodies of objects in S3 on their way: received on the client's loop, and taken by the thread that folds them.

A body that breaks, ends early or falls below the minimum rate is asked for again from its last byte on. Inputs are
asked for with If-Match, so every byte of one belongs to the version that the job's list pins.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any

from distsum.errors import DistsumError, InputChangedError, StorageError
from distsum.stores.s3_client import RefusedError, Trouble
from distsum.stores.s3_faults import Fault, fault_of
from distsum.stores.s3_receiver import Receiver
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import ClientResponse

    from distsum.stores.s3_client import Patience, S3Client


class Target:
    """An object that is read: where it is, its size, and the ETag that it must have (empty for any)."""

    __slots__ = ("bucket", "etag", "key", "size", "uri")

    def __init__(self, uri: bytes, bucket: str, key: str, size: int | None, etag: str) -> None:
        self.uri = uri
        self.bucket = bucket
        self.key = key
        self.size = size
        self.etag = etag


class Body:
    """Ranges of one object, fetched one after the other on the client's loop, and taken by one other thread.

    At most one connection is open for it, and about ``hold`` bytes are kept.

    Args:
        client: What makes the requests.
        target: The object. Where its size is not known, the first answer tells it.
        ranges: What to fetch, [start, stop) each; a stop beyond the object's end means its end.
        hold: Bytes that may wait here to be taken.
    """

    def __init__(self, client: S3Client, target: Target, ranges: Sequence[tuple[int, int]], hold: int) -> None:
        self._client = client
        self._target = target
        self._hold = hold
        self._changed = threading.Condition()
        # What waits lies in a ring: runs of bytes, each with its place in the object, one after the other.
        self._ring = memoryview(b"")
        self._first = 0
        self._held = 0
        self._runs: deque[list[int]] = deque()
        self._at = 0
        self._wanted = 1
        self._opened = target.size is not None
        self._ended = self._over = self._closed = False
        self._error: Exception | None = None
        self._paused = False
        self._room_again: asyncio.Event | None = None
        self._receiver: Receiver | None = None
        self._ranges = ranges
        self._future = client.start(self._pump())

    # In the thread that takes -----------------------------------------------------------------------------------------

    def opened(self) -> int:
        """Wait until the object's size is known, and return it.

        Raises:
            StorageError: It cannot be read.
            StoreInterruptedError: Nobody wants it any more.
        """
        with self._changed:
            while not self._opened and self._error is None:
                self._wait()
            if not self._opened and self._error is not None:
                raise self._error
        assert self._target.size is not None
        return self._target.size

    def take(self, position: int, buffer: memoryview) -> int | None:
        """Fill a buffer with what comes next; None if that is not what lies at ``position``.

        Fewer bytes are filled where a range ends.

        Raises:
            InputChangedError: The object is not the pinned one any more.
            StorageError: It cannot be read.
            StoreInterruptedError: Nobody wants it any more.
        """
        filled = 0
        while filled < len(buffer):
            piece = self._next(position + filled, len(buffer) - filled)
            if piece is None:
                return filled or None
            buffer[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._let_go(len(piece))
        return filled

    def _next(self, position: int, wanted: int) -> memoryview | None:
        """Wait for the bytes at a position, and return where up to ``wanted`` of them lie; None if others come next."""
        with self._changed:
            # Not woken for every few bytes; but never to wait for more than is held.
            self._wanted = min(wanted, self._hold // 2)
            while self._held < self._wanted and not self._ended and self._error is None and not self._gap(position):
                self._wait()
            if self._runs and self._runs[0][0] == position:
                size = min(wanted, self._runs[0][1], len(self._ring) - self._first)
                return self._ring[self._first : self._first + size]
            if self._error is not None:
                raise self._error
        return None

    def _let_go(self, size: int) -> None:
        """Make room of what was copied."""
        with self._changed:
            run = self._runs[0]
            run[0] += size
            run[1] -= size
            if not run[1]:
                self._runs.popleft()
            self._first = (self._first + size) % len(self._ring)
            self._hold_more(-size)
            resume = self._paused and self._held <= len(self._ring) // 2
            if resume:
                self._paused = False
            self._return_ring()
        if resume:
            self._client.loop.call_soon_threadsafe(self._resume)

    def _wait(self) -> None:
        """Wait for a change, or until it is time to look again whether this is still wanted."""
        self._changed.wait(self._client.look_seconds)
        self._client.check()

    def _gap(self, position: int) -> bool:
        """Whether what is held ends before more of it could be taken at once: another range follows, or lies first."""
        expected = position
        for at, size in self._runs:
            if at != expected:
                return True
            expected += size
        return False

    def _hold_more(self, size: int) -> None:
        """Count what is held, unless nobody wants it any more. With the lock held."""
        self._held += size
        if not self._closed:
            self._client.rings.note(size)

    def close(self) -> None:
        """Stop fetching; what has come and was not taken is lost."""
        self._future.cancel()
        with self._changed:
            if not self._closed:
                self._client.rings.note(-self._held)
            self._closed = True
            self._return_ring()

    def _return_ring(self) -> None:
        """Give the memory back, unless more is received into it or taken out of it. With the lock held."""
        if self._over and (self._closed or not self._held):
            self._client.rings.take_back(self._ring)
            self._ring = memoryview(b"")

    # On the client's loop ---------------------------------------------------------------------------------------------

    def room(self) -> memoryview:
        """Return where the next bytes may go; see ``Room``."""
        with self._changed:
            size = len(self._ring)
            place = (self._first + self._held) % size
            return self._ring[place : place + min(size - self._held, size - place)]

    def fill(self, size: int) -> bool:
        """Pass bytes on to who takes them; see ``Room``."""
        with self._changed:
            if self._runs and sum(self._runs[-1]) == self._at:
                self._runs[-1][1] += size
            else:
                self._runs.append([self._at, size])
                self._changed.notify()
            self._at += size
            self._hold_more(size)
            if self._held >= self._wanted:
                self._changed.notify()
            self._paused = self._held == len(self._ring)
            return not self._paused

    def _resume(self) -> None:
        if self._room_again is not None:
            self._room_again.set()
        if self._receiver is not None:
            self._receiver.resume()

    async def _pump(self) -> None:
        self._room_again = asyncio.Event()
        error: Exception | None = None
        try:
            for start, stop in self._ranges:
                await self._fetch(start, stop)
        except DistsumError as caught:
            error = caught
        except asyncio.CancelledError:
            self._end_with(StorageError(f"cannot read {printable(self._target.uri)}: the connection to S3 was closed"))
            raise
        except Exception as caught:  # noqa: BLE001 - the other thread waits for an answer, whatever it is
            error = StorageError(f"cannot read {printable(self._target.uri)}: {fault_of(caught).words}")
        self._end_with(error)

    def _end_with(self, error: Exception | None) -> None:
        with self._changed:
            self._over = True
            self._ended = error is None
            self._error = error
            self._return_ring()
            self._changed.notify()

    async def _fetch(self, start: int, stop: int) -> None:
        trouble = Trouble(self._client.patience, "read", self._target.uri)
        client = await self._client.client()
        self._at = start
        while self._at < self._end(stop):
            fault = Fault("transient", "its body ended early")
            try:
                answer = await self._ask(client, self._at, self._end(stop))
                if answer is None:
                    return
                async with answer as body:
                    await self._receive(body.raw_stream, self._end(stop), trouble)
            except DistsumError:
                raise
            except Exception as caught:  # noqa: BLE001 - told apart there, without what may be secret
                fault = fault_of(caught, self._client.endpoint)
            if self._at >= self._end(stop):
                break
            if fault.kind in {"changed", "missing"} and self._target.etag:
                raise await self._changed_error(fault)
            await trouble.wait(fault)
            self._client.latencies.add_retry()

    def _end(self, stop: int) -> int:
        return stop if self._target.size is None else min(stop, self._target.size)

    async def _ask(self, client: Any, at: int, stop: int) -> Any:
        """Ask for a range, and return its body; None for an object that turns out to be empty."""
        target = self._target
        arguments = {"IfMatch": quoted(target.etag)} if target.etag else {}
        try:
            async with asyncio.timeout(self._client.patience.answer_seconds):
                began = perf_counter()
                answer = await client.get_object(
                    Bucket=target.bucket, Key=target.key, Range=f"bytes={at}-{stop - 1}", **arguments
                )
                self._client.latencies.add(perf_counter() - began)
        except Exception as error:
            # No range of an empty object can be had.
            if target.size is None and fault_of(error).kind == "range":
                self._tell_size(0)
                return None
            raise
        total = answer.get("ContentRange", "").rpartition("/")[2]
        if not total.isdigit():
            raise StorageError(f"cannot read {printable(target.uri)}: its server does not answer with ranges")
        if target.size is None:
            self._tell_size(int(total))
        elif int(total) != target.size:
            answer["Body"].close()
            raise (
                changed(target.uri, target.size, int(total))
                if target.etag
                else StorageError(f"{printable(target.uri)} was replaced while it was read")
            )
        return answer["Body"]

    def _tell_size(self, size: int) -> None:
        self._target.size = size
        with self._changed:
            self._opened = True
            self._changed.notify()

    async def _receive(self, response: ClientResponse, stop: int, trouble: Trouble) -> None:
        """Pass on what comes of a body until it ends, by itself or at ``stop``.

        Raises:
            TimeoutError: It does not come at the minimum rate.
        """
        if not self._ring:
            whole = sum(self._end(last) - first for first, last in self._ranges)
            self._ring = self._client.rings.lend(min(self._hold, whole))
        # What has come with the headers.
        while piece := response.content.read_nowait():
            rest = memoryview(piece)[: stop - self._at]
            trouble.progress(len(rest))
            while rest:
                copied = self._copy(rest)
                rest = rest[copied:]
                if not copied:
                    await self._wait_for_room()
        if response.content.at_eof() or self._at >= stop:
            return
        if not self.room():
            await self._wait_for_room()
        self._receiver = receiver = Receiver(response, self, stop - self._at)
        rate = _Rate(self._client.patience)
        try:
            receiver.begin()
            arrived, waited = 0, 0.0
            while not receiver.ended.done():
                await asyncio.wait((receiver.ended,), timeout=rate.seconds_left)
                news, seconds = receiver.arrived - arrived, receiver.waited_seconds - waited
                arrived, waited = arrived + news, waited + seconds
                trouble.progress(news)
                rate.add(seconds, news)
        finally:
            self._receiver = None
            receiver.leave()

    def _copy(self, piece: memoryview) -> int:
        """Take over as much of a piece as there is room for; return how much that is.

        By itself, since the frame of a coroutine that is cancelled lives on for a while, with all it refers to.
        """
        room = self.room()[: len(piece)]
        room[:] = piece[: len(room)]
        if room:
            self.fill(len(room))
        return len(room)

    async def _wait_for_room(self) -> None:
        assert self._room_again is not None
        with self._changed:
            self._room_again.clear()
            if not self._paused:
                return
        await self._room_again.wait()

    async def _changed_error(self, fault: Fault) -> InputChangedError:
        """Return what to say of a pinned input that is another one now, or gone."""
        target = self._target
        size = None
        if fault.kind == "changed":
            try:
                now = await self._client.request(
                    "look at", target.uri, "head_object", Bucket=target.bucket, Key=target.key
                )
                size = int(now["ContentLength"])
            except RefusedError as error:
                if error.fault.kind != "missing":
                    raise
        return changed(target.uri, target.size or 0, size)


class _Rate:
    """Whether a body comes in at the minimum rate, by windows of the time that is spent waiting for it.

    Time in which nobody wants more of the body does not count.
    """

    def __init__(self, patience: Patience) -> None:
        self._window = patience.window_seconds
        self._least = patience.minimum_rate * patience.window_seconds
        self.seconds_left = self._window
        self._bytes = 0

    def add(self, seconds: float, size: int) -> None:
        """Take note of bytes, and how long they were waited for."""
        self._bytes += size
        self.seconds_left -= seconds
        if self.seconds_left <= 0:
            self.end_window()

    def end_window(self) -> None:
        """Begin another window.

        Raises:
            TimeoutError: Too few bytes came in this one.
        """
        if self._bytes < self._least:
            raise TimeoutError
        self.seconds_left = self._window
        self._bytes = 0


def quoted(etag: str) -> str:
    """Return an ETag as a header has it."""
    return etag if etag.startswith("W/") else f'"{etag}"'


def changed(uri: bytes, before: int, now: int | None) -> InputChangedError:
    """Return the error of an input that is not what was pinned; ``now`` is its size, None if it is gone."""
    if now is None:
        return InputChangedError(
            f"{printable(uri)} was there when the job was planned, and is gone; put it back, or run again without it"
        )
    found = f"its size went from {before} to {now} bytes" if before != now else "it was written again"
    return InputChangedError(
        f"{printable(uri)} changed while the job ran: {found}; run the same command again to use it as it is now"
    )
