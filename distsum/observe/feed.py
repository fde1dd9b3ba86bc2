"""A view that changes, for whoever looks at it from elsewhere: a whole picture, then what is different (pure).

Every frame names its stream and its number in that. A picture can stand at any number, and who has the picture of one
number and every difference after it has the view. Who has missed one sees that by the numbers, keeps what it has, and
needs another picture. A writer that begins anew, in another process too, begins another stream.
"""

from __future__ import annotations

import contextlib
import zlib
from collections import deque
from typing import Any, Final, Generic, TypeVar

import msgspec

from distsum.observe.change import Change, UnfitError, changed, difference
from distsum.observe.states import NAMES
from distsum.observe.subtree import is_whole
from distsum.observe.view import JobView
from distsum.wording import printable

_View = TypeVar("_View", bound=msgspec.Struct)

MOST_PICTURE_BYTES: Final = 64 << 20
"""A picture that would be longer, unpacked, is none of ours: a task takes one byte of it."""
MOST_DELTA_BYTES: Final = 4 << 20
"""A difference that would be longer is not sent, nor taken: a picture is better then."""
_PACKED_BYTES: Final = 512
"""Shorter frames are not worth packing."""
_LEVEL: Final = 1
_PLAIN: Final = {"picture": b"P", "delta": b"d"}
_PACKED: Final = {"picture": b"Z", "delta": b"z"}
_MOST_BYTES: Final = {"picture": MOST_PICTURE_BYTES, "delta": MOST_DELTA_BYTES}
_EARLY_KEPT: Final = 32
"""Differences that are kept until the picture that they come after has arrived."""
_STREAMS_KEPT: Final = 8


class FrameError(Exception):
    """What arrived is no frame of ours; the text says why."""


class Picture(msgspec.Struct, frozen=True, tag="picture"):
    """A whole view, encoded."""

    stream: str
    number: int
    view: msgspec.Raw


class Delta(msgspec.Struct, frozen=True, tag="delta"):
    """What makes the view with this number from the one before; None where nothing has changed."""

    stream: str
    number: int
    change: Change | None


_DECODERS: Final[dict[str, msgspec.msgpack.Decoder[Any]]] = {
    "picture": msgspec.msgpack.Decoder(Picture),
    "delta": msgspec.msgpack.Decoder(Delta),
}
_ENCODER: Final = msgspec.msgpack.Encoder()


class FeedWriter(Generic[_View]):
    """The side of a feed that has the view.

    Args:
        stream: Its name, which no other writer has or had.
        view: What it begins with.

    Attributes:
        stream: Its name.
        number: Of the newest view.
        view: The newest.
    """

    def __init__(self, stream: str, view: _View) -> None:
        self.stream = stream
        self.number = 0
        self.view = view
        self._kind = type(view)

    def picture(self) -> bytes:
        """Return the newest view as a frame."""
        return encoded_picture(self.stream, self.number, self.view)

    def step(self, view: _View) -> bytes | None:
        """Take a new view; return what is different as a frame, or None where a picture is the better way to tell it.

        That leaves a gap in the numbers, so that whoever looks asks for one.
        """
        change = difference(self.view, view, self._kind)
        self.view = view
        self.number += 1
        frame = _ENCODER.encode(Delta(self.stream, self.number, change))
        return _packed("delta", frame) if len(frame) <= MOST_DELTA_BYTES else None


def encoded_picture(stream: str, number: int, view: msgspec.Struct) -> bytes:
    """Return a whole view as a frame; from any thread. A million tasks take some milliseconds."""
    raw = msgspec.Raw(msgspec.msgpack.encode(view))
    return _packed("picture", msgspec.msgpack.encode(Picture(stream, number, raw)))


class FeedReader(Generic[_View]):
    """The side of a feed that draws.

    Args:
        kind: The type of view.

    Attributes:
        view: The newest view that could be put together; None before the first picture.
        stream: Whose it is; empty before.
        number: Of ``view``.
        needs_picture: Whether something was missed, so that nothing new can be made of what arrives.
    """

    def __init__(self, kind: type[_View]) -> None:
        self._kind = kind
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._early: deque[Delta] = deque(maxlen=_EARLY_KEPT)
        self._past: deque[str] = deque(maxlen=_STREAMS_KEPT)
        self.view: _View | None = None
        self.stream = ""
        self.number = 0
        self.needs_picture = True

    def take(self, frame: bytes) -> bool:
        """Take a frame; return whether it has made a new view.

        Raises:
            FrameError: It is none of ours, or damaged; nothing has changed.
        """
        kind, content = _unpacked(frame)
        try:
            found = _DECODERS[kind].decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FrameError(f"no frame of a feed: {printable(str(error), 200)}") from None
        return self._take_picture(found) if isinstance(found, Picture) else self._take_delta(found)

    def _take_picture(self, picture: Picture) -> bool:
        if picture.stream == self.stream and picture.number <= self.number:
            # It was asked for before what has arrived since.
            self.needs_picture = any(each.stream == self.stream and each.number > self.number for each in self._early)
            return False
        try:
            view = self._decoder.decode(picture.view)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FrameError(f"no view: {printable(str(error), 200)}") from None
        _check(view)
        if self.stream not in {"", picture.stream}:
            self._past.append(self.stream)
        self.view, self.stream, self.number = view, picture.stream, picture.number
        self.needs_picture = False
        early, self._early = self._early, deque(maxlen=_EARLY_KEPT)
        # Those of another stream say nothing: should it be the newer one, its next difference tells.
        for delta in (each for each in early if each.stream == picture.stream):
            with contextlib.suppress(FrameError):  # Then another picture is needed, and that is noted.
                self._take_delta(delta)
        return True

    def _take_delta(self, delta: Delta) -> bool:
        if delta.stream in self._past or (delta.stream == self.stream and delta.number <= self.number):
            return False
        if delta.stream != self.stream or delta.number != self.number + 1:
            self._early.append(delta)
            self.needs_picture = True
            return False
        view = self.view
        if delta.change is not None:
            try:
                view = changed(view, delta.change, self._kind)
            except UnfitError as error:
                self.needs_picture = True
                raise FrameError(f"a difference that does not fit: {printable(str(error), 200)}") from None
            _check(view)
        self.view, self.number = view, delta.number
        return True


def _check(view: Any) -> None:
    """Make sure that what types do not say holds of a view, too.

    Raises:
        FrameError: It does not.
    """
    if isinstance(view, JobView):
        for phase in view.states:
            if phase.tiles < 1 or (phase.states and int(phase.array().max()) >= len(NAMES)):
                raise FrameError(f"phase {phase.phase} has tasks in no state that there is")
        if view.tree is not None and not is_whole(view.tree):
            raise FrameError("its tree is none")


def _packed(kind: str, frame: bytes) -> bytes:
    """Return a frame as it is sent: its first byte says its kind, and whether the rest is packed."""
    return _PLAIN[kind] + frame if len(frame) < _PACKED_BYTES else _PACKED[kind] + zlib.compress(frame, _LEVEL)


def _unpacked(frame: bytes) -> tuple[str, bytes]:
    """Return the kind of a frame, and what it holds.

    Raises:
        FrameError: It is none, damaged, or longer than its kind may be.
    """
    first, content = frame[:1], frame[1:]
    for kind, most in _MOST_BYTES.items():
        if first == _PLAIN[kind] and len(content) <= most:
            return kind, content
        if first == _PACKED[kind]:
            unpacker = zlib.decompressobj()
            try:
                found = unpacker.decompress(content, most)
            except zlib.error as error:
                raise FrameError(f"it is damaged: {error}") from None
            if not unpacker.eof:
                raise FrameError(f"it is cut, or has more than {most:,} bytes")
            return kind, found
    raise FrameError("it does not begin as a frame of a feed does")
