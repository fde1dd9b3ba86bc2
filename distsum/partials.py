"""Partials: stored node values, and how they lie in the store.

A partial is a head of at least 256 bytes (magic, length, msgpack), then its planes one after the other, little-endian
or big-endian as their dtypes say. The head has the SHA-256 of each plane, or of each of its slices (see ``slices``), so
that one of these can be read alone, and a SHA-256 over all of its own fields. A partial that does not agree with them
is treated as if it were not there.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from distsum import dtypes
from distsum.errors import PartialError
from distsum.messages import JobSpec, Skipped
from distsum.reductions import REDUCTIONS
from distsum.slices import slices

MAGIC: Final = b"distsum partial2"
_ALIGNMENT: Final = 256
MAX_HEAD_BYTES: Final = 64 << 20
"""More than the head of a partial ever takes: it grows only with the inputs that were skipped."""


class PartialHead(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a partial holds.

    Attributes:
        inputs: Inputs in it, without the skipped ones; 0 if all of them were skipped.
        numbers: Numbers in each plane.
        planes: numpy ``dtype.str`` of each plane.
        skipped: The inputs left out, their indices counted from the node's first input.
        digests: SHA-256 of what each of the ``cuts`` holds of each plane: of the first cut for all planes, and so on.
        digest: SHA-256 over all of the above.
    """

    inputs: int
    numbers: int
    planes: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    digests: tuple[bytes, ...] = ()
    digest: bytes = b""

    @property
    def data_bytes(self) -> int:
        """Bytes of all planes."""
        return self.numbers * sum(map(dtypes.itemsize, self.planes))

    @property
    def cuts(self) -> tuple[tuple[int, int], ...]:
        """The ranges of numbers that have a digest each: slices, or where there are none all numbers."""
        return (slices(self.numbers) or ((0, self.numbers),)) if self.numbers else ()

    def sealed(self) -> PartialHead:
        """Return the head with the digest of itself."""
        bare = msgspec.structs.replace(self, digest=b"")
        return msgspec.structs.replace(bare, digest=hashlib.sha256(msgspec.msgpack.encode(bare)).digest())

    def encoded(self) -> bytes:
        """Return the head's bytes, padded so that the planes begin aligned."""
        body = msgspec.msgpack.encode(self)
        size = len(MAGIC) + 4 + len(body)
        return MAGIC + len(body).to_bytes(4, "little") + body + b"\0" * (-size % _ALIGNMENT)


def head_bytes(start: bytes) -> int:
    """Return how long the head is, by its first 256 bytes.

    Raises:
        PartialError: This is no partial.
    """
    size = int.from_bytes(start[len(MAGIC) : len(MAGIC) + 4], "little")
    if not start.startswith(MAGIC) or size > MAX_HEAD_BYTES:
        raise PartialError("not a partial")
    return -(-(len(MAGIC) + 4 + size) // _ALIGNMENT) * _ALIGNMENT


def decode_head(head: bytes) -> PartialHead:
    """Return what a head says.

    Raises:
        PartialError: It is damaged.
    """
    size = int.from_bytes(head[len(MAGIC) : len(MAGIC) + 4], "little")
    try:
        found = msgspec.msgpack.decode(head[len(MAGIC) + 4 : len(MAGIC) + 4 + size], type=PartialHead)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PartialError(f"a damaged head: {error}") from error
    if found != found.sealed() or len(found.digests) != len(found.cuts) * len(found.planes):
        raise PartialError("its head's digest does not agree with it")
    return found


def partial_uri(work: bytes, key: str) -> bytes:
    """Return where a partial lies.

    >>> partial_uri(b"/scratch", "ab12")
    b'/scratch/partials/ab/ab12'
    """
    return work + f"/partials/{key[:2]}/{key}".encode()


def children_uri(work: bytes, job: str) -> bytes:
    """Return the folder of the child nodes that a job's long tasks have stored on their way."""
    return work + f"/jobs/{job}/children".encode()


LONGEST_NAME_BYTES: Final = len(children_uri(b"", "0" * 12)) + 1 + hashlib.sha256().digest_size * 2
"""Of what a job writes into its work folder, from the slash on: a node inside a long task has the longest name."""


def manifest_uri(work: bytes, job: str) -> bytes:
    """Return where a job's list of inputs lies."""
    return work + f"/jobs/{job}/inputs".encode()


def spec_uri(work: bytes, job: str) -> bytes:
    """Return where a job's description lies."""
    return work + f"/jobs/{job}/spec".encode()


def node_context(spec: JobSpec, tile: int) -> bytes:
    """Return what, beside the identities of its inputs, a node's bytes depend on.

    The layout that inputs are compared with is a part of it, since it decides which are skipped; the partition, the
    workers and the job's id are not.
    """
    return range_context(spec, spec.tile(tile))


def range_context(spec: JobSpec, numbers: tuple[int, int]) -> bytes:
    """Return the context of nodes that hold a range of a job's numbers: a tile, or a slice of one."""
    return msgspec.msgpack.encode(
        (
            MAGIC,
            spec.reduction,
            spec.fan_in,
            spec.format,
            spec.dtype if spec.format == "raw" else "",
            REDUCTIONS[spec.reduction].planes(spec.dtype),
            spec.shape,
            spec.fortran,
            numbers,
        )
    )
