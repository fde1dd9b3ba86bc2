"""The inputs of a job in order, packed: what names them, and what pins them to their content (pure).

An input is known by its URI, its size and a version (ETag, or mtime in nanoseconds). A record is all three, packed;
records lie one after the other, so that a range of inputs is a range of bytes. That makes ten million inputs cost
their names plus 29 bytes each, and hashing a node's identity one call, however many inputs it covers.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from distsum.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_RECORD: Final = struct.Struct("<QBI")
_HEAD: Final = struct.Struct("<16sQ")
_MAGIC: Final = b"distsum inputs 1"
_PIECE: Final = 512
"""Records that are read at once: bounds memory, whatever a node covers."""


class Input(msgspec.Struct, frozen=True):
    """One input: its URI, its size in bytes, and the version that pins its content."""

    uri: bytes
    size: int
    version: bytes


class Manifest:
    """The inputs of a job, built once by the process that plans.

    Attributes:
        total_bytes: Sum of all sizes.
    """

    def __init__(self, inputs: Iterable[Input]) -> None:
        """Pack the inputs, in the order given."""
        self._records = bytearray()
        self._offsets = array("Q", [0])
        self.total_bytes = 0
        for entry in inputs:
            self.total_bytes += entry.size
            self._records += _RECORD.pack(entry.size, len(entry.version), len(entry.uri))
            self._records += entry.version
            self._records += entry.uri
            self._offsets.append(len(self._records))

    @classmethod
    def load(cls, source: RangeReader) -> Manifest:
        """Return the whole of a manifest file.

        Raises:
            StorageError: This is no manifest.
        """
        reader = ManifestReader(source)
        return cls(reader.inputs(0, len(reader)))

    def __len__(self) -> int:
        """Return the number of inputs."""
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> Input:
        """Return one input (0-based)."""
        return next(_unpack(bytes(self._records[self._offsets[index] : self._offsets[index + 1]])))

    def records(self, start: int, stop: int) -> memoryview:
        """Return the packed records of a range of inputs, for hashing."""
        return memoryview(self._records)[self._offsets[start] : self._offsets[stop]]

    def encoded(self) -> list[bytes | memoryview]:
        """Return the buffers of a manifest file, which ``ManifestReader`` reads in ranges."""
        offsets = self._offsets
        if sys.byteorder == "big":
            offsets = array("Q", offsets)
            offsets.byteswap()
        return [_HEAD.pack(_MAGIC, len(self)), memoryview(offsets).cast("B"), memoryview(self._records)]


class RangeReader(Protocol):
    """What a manifest file is read through."""

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset`` on."""
        ...


class ManifestReader:
    """A manifest file, of which only the ranges asked for are in memory."""

    def __init__(self, source: RangeReader) -> None:
        """Check the file's head.

        Raises:
            StorageError: This is no manifest.
        """
        self._source = source
        head = source.read(0, _HEAD.size)
        if len(head) != _HEAD.size or not head.startswith(_MAGIC):
            raise StorageError("the list of inputs in the work folder is damaged; run the same command again")
        self._count: int = _HEAD.unpack(head)[1]

    def __len__(self) -> int:
        """Return the number of inputs."""
        return self._count

    def inputs(self, start: int, stop: int) -> Iterator[Input]:
        """Yield a range of inputs in order."""
        for piece in self.pieces(start, stop):
            yield from _unpack(piece)

    def records(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the packed records of a range of inputs, one at a time."""
        for piece in self.pieces(start, stop):
            position = 0
            while position < len(piece):
                _, version_length, uri_length = _RECORD.unpack_from(piece, position)
                end = position + _RECORD.size + version_length + uri_length
                yield piece[position:end]
                position = end

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the packed records of a range of inputs, some thousand at a time.

        Raises:
            StorageError: The file ends early.
        """
        base = _HEAD.size + 8 * (self._count + 1)
        for first in range(start, stop, _PIECE):
            last = min(stop, first + _PIECE)
            ends = self._read(_HEAD.size + 8 * first, 16), self._read(_HEAD.size + 8 * last, 8)
            low = int.from_bytes(ends[0][:8], "little")
            high = int.from_bytes(ends[1], "little")
            yield self._read(base + low, high - low)

    def _read(self, offset: int, size: int) -> bytes:
        data = self._source.read(offset, size)
        if len(data) != size:
            raise StorageError("the list of inputs in the work folder ends early; run the same command again")
        return data


def _unpack(records: bytes) -> Iterator[Input]:
    position = 0
    while position < len(records):
        size, version_length, uri_length = _RECORD.unpack_from(records, position)
        position += _RECORD.size
        version = records[position : position + version_length]
        position += version_length
        yield Input(records[position : position + uri_length], size, version)
        position += uri_length


class NodeKeys:
    """Keys of the nodes of one tile: a hash of everything that a node's bytes depend on.

    That is the reduction, the dtypes, the fan-in and the tile (one text, the ``context``) and, in order, the identity
    of each input. The node's level is left out: the tree over a list of inputs is the same at any height. The same key
    always means the same bytes, whoever computed them, and for whichever job.
    """

    def __init__(self, context: bytes) -> None:
        """Take the context that all keys of the tile share."""
        self._start = hashlib.sha256(len(context).to_bytes(4, "little") + context)

    def key(self, pieces: Iterable[bytes | memoryview]) -> str:
        """Return the key, 64 hexadecimal digits, of the node over these packed records."""
        growing = self.growing()
        for piece in pieces:
            growing.add(piece)
        return growing.key()

    def growing(self) -> GrowingKey:
        """Return the key of a node over no records yet."""
        return GrowingKey(self._start.copy())


class GrowingKey:
    """The keys of nodes that begin with the same input, each of which holds more of them than the one before."""

    def __init__(self, digest: hashlib._Hash) -> None:
        """Take what all of them begin with."""
        self._digest = digest

    def add(self, piece: bytes | memoryview) -> None:
        """Add packed records."""
        self._digest.update(piece)

    def copy(self) -> GrowingKey:
        """Return one that goes on from here by itself."""
        return GrowingKey(self._digest.copy())

    def key(self) -> str:
        """Return the key, 64 hexadecimal digits, of the node over what was added so far."""
        return self._digest.hexdigest()
