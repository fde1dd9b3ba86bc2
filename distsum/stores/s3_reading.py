"""Reading objects in S3 as files are read: bodies that arrive while what came before is folded, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Self

from distsum.stores.s3_body import Body

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from distsum.stores.s3_body import Target
    from distsum.stores.s3_client import S3Client

_LEAST_HOLD: Final = 1 << 20
"""The least that is held of a body before its connection is left to wait."""
BLOCK_BYTES: Final = 256 << 10
_BLOCKS: Final = 4
_LONGEST_WINDOW: Final = 64 << 20
_SKIPPED_BYTES: Final = 1 << 20


class S3Reader:
    """An object that is being read (see ``Reader``).

    Reads that follow one another come from one body. One that starts elsewhere begins a new body there, and such
    bodies grow as long as reading goes on without a jump.
    """

    def __init__(
        self, client: S3Client, target: Target, ranges: Sequence[tuple[int, int]], hold: int = _LEAST_HOLD
    ) -> None:
        self.uri = target.uri
        self._client = client
        self._target = target
        self._hold = max(_LEAST_HOLD, hold)
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
