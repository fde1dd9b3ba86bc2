"""Reading objects in S3: bodies that arrive while what came before is folded, in bounded memory.

A body that breaks, ends early or falls below the minimum rate is asked for again from its last byte on. Inputs are
asked for with If-Match, so every byte of one belongs to the version that the job's list pins.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Final, Self

from distsum.errors import DistsumError, InputChangedError, StorageError
from distsum.stores.s3_client import RefusedError, Trouble
from distsum.stores.s3_faults import Fault, fault_of
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from distsum.stores.s3_client import Patience, S3Client

PIECE_BYTES: Final = 1 << 20
"""The most that is asked of a body at once, and the least that is held of one before its connection is left to wait."""
BLOCK_BYTES: Final = 256 << 10
_BLOCKS: Final = 4
_LONGEST_WINDOW: Final = 64 << 20
_SKIPPED_BYTES: Final = 1 << 20


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
        self._pieces: deque[tuple[int, memoryview]] = deque()
        self._held = 0
        self._wanted = 1
        self._opened = target.size is not None
        self._ended = False
        self._error: Exception | None = None
        self._paused = False
        self._room: asyncio.Event | None = None
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
            taken = self._next(position + filled, len(buffer) - filled)
            if not taken:
                return filled or None
            for piece in taken:
                buffer[filled : filled + len(piece)] = piece
                filled += len(piece)
        return filled

    def _next(self, position: int, wanted: int) -> list[memoryview]:
        """Wait for the bytes at a position, and return up to ``wanted`` of them; none if others come next."""
        taken: list[memoryview] = []
        size = 0
        with self._changed:
            # Not woken for every few bytes; but never to wait for more than the pump would hold.
            self._wanted = min(wanted, self._hold // 2)
            while self._held < self._wanted and not self._ended and self._error is None and not self._gap(position):
                self._wait()
            while self._pieces and size < wanted and self._pieces[0][0] == position + size:
                at, piece = self._pieces.popleft()
                part = piece[: wanted - size]
                if len(part) < len(piece):
                    self._pieces.appendleft((at + len(part), piece[len(part) :]))
                taken.append(part)
                size += len(part)
            self._held -= size
            resume = self._paused and self._held <= self._hold // 2
            if resume:
                self._paused = False
            if not size and self._error is not None:
                raise self._error
        if resume:
            self._client.loop.call_soon_threadsafe(self._resume)
        return taken

    def _wait(self) -> None:
        """Wait for a change, or until it is time to look again whether this is still wanted."""
        self._changed.wait(self._client.look_seconds)
        self._client.check()

    def _gap(self, position: int) -> bool:
        """Whether what is held ends before more of it could be taken at once: another range follows, or lies first."""
        if not self._pieces:
            return False
        expected = position
        for at, piece in self._pieces:
            if at != expected:
                return True
            expected += len(piece)
        return False

    def close(self) -> None:
        """Stop fetching."""
        self._future.cancel()

    # On the client's loop ---------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        if self._room is not None:
            self._room.set()

    async def _pump(self) -> None:
        self._room = asyncio.Event()
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
            self._ended = error is None
            self._error = error
            self._changed.notify()

    async def _fetch(self, start: int, stop: int) -> None:
        trouble = Trouble(self._client.patience, "read", self._target.uri)
        client = await self._client.client()
        at = start
        while at < self._end(stop):
            fault = Fault("transient", "its body ended early")
            try:
                answer = await self._ask(client, at, self._end(stop))
                if answer is None:
                    return
                rate = _Rate(self._client.patience)
                async with answer as body:
                    while at < self._end(stop):
                        size = await self._receive(body, at, self._end(stop), rate)
                        if not size:
                            break
                        trouble.progress(size)
                        at += size
            except DistsumError:
                raise
            except Exception as caught:  # noqa: BLE001 - told apart there, without what may be secret
                fault = fault_of(caught, self._client.endpoint)
            if at >= self._end(stop):
                return
            if fault.kind in {"changed", "missing"} and self._target.etag:
                raise await self._changed_error(fault)
            await trouble.wait(fault)

    def _end(self, stop: int) -> int:
        return stop if self._target.size is None else min(stop, self._target.size)

    async def _ask(self, client: Any, at: int, stop: int) -> Any:
        """Ask for a range, and return its body; None for an object that turns out to be empty."""
        target = self._target
        arguments = {"IfMatch": quoted(target.etag)} if target.etag else {}
        try:
            async with asyncio.timeout(self._client.patience.answer_seconds):
                answer = await client.get_object(
                    Bucket=target.bucket, Key=target.key, Range=f"bytes={at}-{stop - 1}", **arguments
                )
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

    async def _receive(self, body: Any, at: int, stop: int, rate: _Rate) -> int:
        """Wait for room, then for bytes, and pass them on; return how many came: 0 where the body ends.

        Raises:
            TimeoutError: They do not come at the minimum rate.
        """
        await self._room_for_more()
        loop = asyncio.get_running_loop()
        piece = b""
        while True:
            began = loop.time()
            try:
                async with asyncio.timeout(rate.seconds_left):
                    piece = await body.read(min(PIECE_BYTES, stop - at))
            except TimeoutError:
                rate.end_window()
                continue
            rate.add(loop.time() - began, len(piece))
            break
        if piece:
            with self._changed:
                self._pieces.append((at, memoryview(piece)))
                self._held += len(piece)
                if self._held >= self._wanted or at + len(piece) >= stop:
                    self._changed.notify()
        return len(piece)

    async def _room_for_more(self) -> None:
        assert self._room is not None
        with self._changed:
            if self._held < self._hold:
                return
            self._room.clear()
            self._paused = True
        await self._room.wait()

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


class S3Reader:
    """An object that is being read (see ``Reader``).

    Reads that follow one another come from one body. One that starts elsewhere begins a new body there, and such
    bodies grow as long as reading goes on without a jump.
    """

    def __init__(
        self, client: S3Client, target: Target, ranges: Sequence[tuple[int, int]], hold: int = PIECE_BYTES
    ) -> None:
        self.uri = target.uri
        self._client = client
        self._target = target
        self._hold = max(PIECE_BYTES, hold)
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._window = 0
        self._position = -1
        self._body = Body(client, target, ranges, self._hold) if ranges else None

    @property
    def size(self) -> int:
        """Bytes in the object; where they are not known yet, the first answer is waited for.

        Raises:
            StorageError: The object cannot be read, or there is none.
        """
        if self._target.size is None and self._body is not None:
            return self._body.opened()
        return self._target.size or 0

    def read_into(self, buffers: list[memoryview], offset: int) -> int:
        """Fill the buffers; see ``Reader``."""
        place, end = offset, self.size
        for buffer in buffers:
            view = buffer.cast("B")[: max(0, end - place)]
            place += self._fill(view, place)
            if len(view) < buffer.nbytes:
                break
        return place - offset

    def _fill(self, view: memoryview, place: int) -> int:
        done = 0
        while done < len(view):
            held = self._blocks.get((place + done) // BLOCK_BYTES)
            if held is not None:
                piece = held[(place + done) % BLOCK_BYTES :][: len(view) - done]
                view[done : done + len(piece)] = piece
                done += len(piece)
                continue
            if 0 < place + done - self._position <= _SKIPPED_BYTES and self._body is not None:
                self._skip(place + done)
            got = self._body.take(place + done, view[done:]) if self._body is not None else None
            if got is None:
                self._aim(place + done, len(view) - done)
                continue
            done += got
            self._position = place + done
        return done

    def _skip(self, place: int) -> None:
        """Pass over what lies before a place, where it comes from the same body: cheaper than another request."""
        assert self._body is not None
        scratch = memoryview(bytearray(min(BLOCK_BYTES, place - self._position)))
        while self._position < place:
            got = self._body.take(self._position, scratch[: place - self._position])
            if got is None:
                return
            self._position += got

    def _aim(self, place: int, wanted: int) -> None:
        """Begin a body elsewhere, or go on beyond what was announced."""
        if self._body is not None:
            self._body.close()
        goes_on = place == self._position
        self._window = min(4 * max(self._window, wanted), _LONGEST_WINDOW) if goes_on else wanted
        self._position = place
        self._body = Body(self._client, self._target, [(place, place + max(wanted, self._window))], self._hold)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes; see ``Reader``. Small reads are served from blocks that are kept."""
        size = max(0, min(size, self.size - offset))
        if size > BLOCK_BYTES:
            buffer = bytearray(size)
            return bytes(buffer[: self.read_into([memoryview(buffer)], offset)])
        found = b""
        while len(found) < size:
            number, start = divmod(offset + len(found), BLOCK_BYTES)
            found += self._block(number)[start : start + size - len(found)]
        return found

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        start = number * BLOCK_BYTES
        buffer = bytearray(min(BLOCK_BYTES, self.size - start))
        self._fill(memoryview(buffer), start)
        self._blocks[number] = bytes(buffer)
        if len(self._blocks) > _BLOCKS:
            self._blocks.popitem(last=False)
        return self._blocks[number]

    def check_unchanged(self) -> None:
        """Do nothing: every byte was asked for with the pinned ETag, so it belongs to that version. See ``Reader``."""

    def close(self) -> None:
        """Stop reading."""
        if self._body is not None:
            self._body.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
