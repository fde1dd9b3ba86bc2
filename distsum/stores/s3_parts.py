"""How an output is cut into the parts of a multi-part upload, and told between processes (pure).

A part's number follows from where it begins, in strides of the output, so that workers need not agree on any. Parts
are as long as a stride, and the last of a range is up to twice as long, so that no two begin in the same stride and
only the very last may be shorter than a server takes.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from distsum.errors import StorageError
from distsum.stores.s3_client import SCHEME, split
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from distsum.stores.base import Buffer

LEAST_PART_BYTES: Final = 5 << 20
MOST_PARTS: Final = 10_000
_MD5: Final = re.compile("[0-9a-f]{32}")


class Part(msgspec.Struct, frozen=True, array_like=True):
    """One uploaded part of an output."""

    number: int
    etag: str
    offset: int
    size: int


_PARTS: Final = msgspec.msgpack.Decoder(list[Part])


class Upload(msgspec.Struct, frozen=True, array_like=True):
    """The upload of an output, as its handle tells it."""

    key: bytes
    upload: str
    size: int
    stride: int


def stride(size: int) -> int:
    """Return the least bytes of a part that is not the last, for an output of a size.

    >>> stride(100), stride(1 << 40)
    (5242880, 109962159)
    """
    return max(LEAST_PART_BYTES, -(-size // (MOST_PARTS - 1)))


def cut_into_parts(buffers: Iterable[Buffer], offset: int, stride: int) -> Iterator[tuple[int, Sequence[memoryview]]]:
    """Yield the parts of a range of an output: where each begins, and its bytes.

    >>> [(start, b"".join(views)) for start, views in cut_into_parts([b"abcde", b"fghij", b"k"], 20, 4)]
    [(20, b'abcd'), (24, b'efghijk')]
    """
    held: deque[memoryview] = deque()
    size = 0
    for buffer in buffers:
        # A copy: whoever gives the buffers may use one over and over.
        held.append(memoryview(bytes(buffer)))
        size += len(held[-1])
        while size >= 2 * stride:
            yield offset, _first(held, stride)
            offset += stride
            size -= stride
    if size:
        yield offset, held


def _first(held: deque[memoryview], size: int) -> list[memoryview]:
    """Take the first bytes out of a queue of buffers."""
    taken = []
    while size:
        view = held.popleft()
        if len(view) > size:
            held.appendleft(view[size:])
            view = view[:size]
        taken.append(view)
        size -= len(view)
    return taken


def all_parts(receipts: Sequence[bytes], upload: Upload) -> list[Part]:
    """Return the parts of an output in order.

    Raises:
        StorageError: They leave a gap.
    """
    parts = [part for receipt in receipts if receipt for part in _PARTS.decode(receipt)]
    parts.sort(key=lambda part: part.offset)
    end = 0
    for part in parts:
        if part.offset != end:
            break
        end += part.size
    if end != upload.size:
        raise StorageError(f"cannot finish {printable(upload.key)}: of its {upload.size} bytes {end} were written")
    return parts


def whole_etag(parts: Sequence[Part]) -> str | None:
    """Return the ETag of the object that parts make; None where their own are not MD5, so that it cannot be told."""
    digests = [part.etag.strip('"') for part in parts]
    if not all(map(_MD5.fullmatch, digests)):
        return None
    whole = hashlib.md5(b"".join(map(bytes.fromhex, digests)), usedforsecurity=False).hexdigest()
    return f"{whole}-{len(parts)}"


def encode_handle(upload: Upload) -> bytes:
    """Return what names an upload; it begins like the object's URI, so that it goes to the same store."""
    bucket, _ = split(upload.key)
    return SCHEME + bucket.encode() + b"/" + msgspec.json.encode(upload)


def decode_handle(output: bytes) -> Upload:
    """Return the upload that a handle names."""
    return msgspec.json.decode(output[output.index(b"[") :], type=Upload)
