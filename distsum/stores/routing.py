"""Each URI to the store it belongs to: ``s3://`` to S3, everything else to this machine's disks.

One job may have its inputs in one and its work folder or output in the other. What S3 needs is loaded when the first
such URI is used.
"""

from __future__ import annotations

import itertools
import os
import re
from typing import TYPE_CHECKING, Final

from distsum.errors import UsageError
from distsum.latency import Latencies
from distsum.request import DEFAULT_S3_DEADLINE_SECONDS
from distsum.stores.local import LocalStore
from distsum.wording import printable

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from distsum.manifest import Input
    from distsum.stores.base import Aged, Begun, Buffer, Reader, Store
    from distsum.stores.s3 import S3Store

_REMOTE: Final = b"s3://"
_SCHEME: Final = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://")


def is_remote(uri: bytes) -> bool:
    """Whether a name is an URI of another machine, and no path.

    >>> is_remote(b"s3://bucket/key"), is_remote(b"./s3://bucket/key")
    (True, False)
    """
    return uri.startswith(_REMOTE)


def foreign(uri: bytes) -> str | None:
    """Return how to write a name that begins like an URI of a kind that is not read here; None if it does not.

    >>> foreign(b"file:///data/a.npy")
    "'file://' is not known: name it by its path, /data/a.npy"
    >>> foreign(b"gs://bucket/a.npy")
    "'gs://' is not known, only s3:// and paths; what is called so on this machine's disks is ./gs://bucket/a.npy"
    >>> foreign(b"./gs://bucket/a.npy"), foreign(b"s3://bucket/a.npy")
    (None, None)
    """
    if is_remote(uri) or (found := _SCHEME.match(uri)) is None:
        return None
    rest = uri[found.end() :]
    unknown = f"'{printable(found[0])}' is not known"
    if found[1].lower() == b"file" and rest.startswith(b"/"):
        return f"{unknown}: name it by its path, {printable(rest)}"
    return f"{unknown}, only s3:// and paths; what is called so on this machine's disks is ./{printable(uri)}"


def check_known(uri: bytes) -> None:
    """Check that a name is a path or an URI that is known here; as a path others would make a folder ``file:``.

    Raises:
        UsageError: It is neither.
    """
    if (remedy := foreign(uri)) is not None:
        raise UsageError(f"{printable(uri)}: {remedy}")


def absolute(uri: bytes) -> bytes:
    """Return a name that means the same from any folder.

    Raises:
        UsageError: As ``check_known`` does.
    """
    check_known(uri)
    return uri if is_remote(uri) else os.path.abspath(uri)


def absolute_folder(uri: bytes) -> bytes:
    """Return a folder's name that means the same from any folder, without a slash at its end.

    >>> absolute_folder(b"s3://bucket/scratch/"), absolute_folder(b"/scratch/")
    (b's3://bucket/scratch', b'/scratch')
    """
    return absolute(uri.rstrip(b"/") if is_remote(uri) else uri)


LONGEST_KEY_BYTES: Final = 1024
"""Of a key in S3, in UTF-8 (Amazon S3 User Guide, "Naming Amazon S3 objects")."""


def excess_key_bytes(uri: bytes, below: int = 0) -> int:
    """Return by how many bytes a key is longer than S3 takes, with so many more after it; 0 if it is not.

    >>> excess_key_bytes(b"s3://bucket/" + b"k" * 1000, 30), excess_key_bytes(b"/" + b"k" * 2000)
    (6, 0)
    """
    if not is_remote(uri):
        return 0
    return max(0, len(uri) - len(bucket_of(uri)) - 1 + below - LONGEST_KEY_BYTES)


def bucket_of(uri: bytes) -> bytes:
    """Return the bucket of a remote URI, as an URI.

    >>> bucket_of(b"s3://bucket/scratch/a.npy")
    b's3://bucket'
    """
    return b"/".join(uri.split(b"/", 3)[:3])


class RoutingStore:
    """Every store as one; see ``Store``.

    Args:
        s3_deadline_seconds: How long S3 is asked again where it does not answer.
    """

    def __init__(self, s3_deadline_seconds: float = DEFAULT_S3_DEADLINE_SECONDS) -> None:
        self.local = LocalStore()
        self._s3_deadline_seconds = s3_deadline_seconds
        self._s3: S3Store | None = None
        self._interruption: threading.Event | None = None

    @property
    def s3(self) -> S3Store:
        """The store of ``s3://``, made when it is first wanted."""
        if self._s3 is None:
            from distsum.stores.s3 import S3Store
            from distsum.stores.s3_client import Patience

            self._s3 = S3Store(Patience.of(self._s3_deadline_seconds))
            self._s3.heed(self._interruption)
        return self._s3

    def of(self, uri: bytes) -> Store:
        """Return the store of an URI."""
        return self.s3 if uri.startswith(_REMOTE) else self.local

    @property
    def client_bytes(self) -> int:
        """Memory that the code of stores took when they were first used."""
        return self._s3.client_bytes if self._s3 is not None else 0

    @property
    def arrived_bytes(self) -> int:
        """What has arrived from S3, and was not read yet; see ``Store``."""
        return self._s3.arrived_bytes if self._s3 is not None else 0

    def take_latencies(self) -> Latencies:
        """Return how long S3 took to answer; see ``Store``."""
        return self._s3.take_latencies() if self._s3 is not None else Latencies()

    def close(self) -> None:
        """Let go of connections; requests under way fail, and later ones make new connections."""
        if self._s3 is not None:
            self._s3.close()

    def heed(self, interruption: threading.Event | None) -> None:
        """See ``Store``."""
        self._interruption = interruption
        if self._s3 is not None:
            self._s3.heed(interruption)

    def preflight(self, uri: bytes) -> None:
        """See ``Store``."""
        self.of(uri).preflight(uri)

    def identify(self, uri: bytes) -> Input:
        """See ``Store``."""
        return self.of(uri).identify(uri)

    def identify_all(self, uris: Iterable[bytes]) -> Iterator[Input]:
        """See ``Store``."""
        for remote, group in itertools.groupby(uris, is_remote):
            yield from (self.s3 if remote else self.local).identify_all(group)

    def open_input(self, entry: Input, offset: int = 0, size: int = 0, *, head: int = 0, hold: int = 0) -> Reader:
        """See ``Store``."""
        return self.of(entry.uri).open_input(entry, offset, size, head=head, hold=hold)

    def open(self, uri: bytes) -> Reader | None:
        """See ``Store``."""
        return self.of(uri).open(uri)

    def open_all(self, uris: Sequence[bytes], size: int, ahead: int) -> Iterator[Reader | None]:
        """See ``Store``; the objects are of one store."""
        return self.of(uris[0]).open_all(uris, size, ahead) if uris else iter(())

    def exists(self, uri: bytes) -> bool:
        """See ``Store``."""
        return self.of(uri).exists(uri)

    def written_seconds(self, uri: bytes) -> float | None:
        """See ``Store``."""
        return self.of(uri).written_seconds(uri)

    def put(self, uri: bytes, buffers: Sequence[Buffer]) -> int:
        """See ``Store``."""
        return self.of(uri).put(uri, buffers)

    def delete(self, uri: bytes) -> None:
        """See ``Store``."""
        self.of(uri).delete(uri)

    def withdraw(self, uri: bytes, folder: bytes) -> None:
        """See ``Store``."""
        self.of(uri).withdraw(uri, folder)

    def delete_all(self, prefix: bytes, kept: set[bytes]) -> None:
        """See ``Store``."""
        self.of(prefix).delete_all(prefix, kept)

    def lock(self, folder: bytes) -> AbstractContextManager[object]:
        """See ``Store``."""
        return self.of(folder).lock(folder)

    def list(self, prefix: bytes) -> Iterator[bytes]:
        """See ``Store``."""
        return self.of(prefix).list(prefix)

    def aged(self, folder: bytes) -> Iterator[Aged]:
        """See ``Store``."""
        return self.of(folder).aged(folder)

    def begun(self, folder: bytes) -> Iterator[Begun]:
        """See ``Store``."""
        return self.of(folder).begun(folder)

    def least_range(self, final: bytes, size: int) -> int:
        """See ``Store``."""
        return self.of(final).least_range(final, size)

    def create_output(self, final: bytes, size: int) -> bytes:
        """See ``Store``."""
        return self.of(final).create_output(final, size)

    def write_range(self, output: bytes, offset: int, buffers: Iterable[Buffer]) -> bytes:
        """See ``Store``."""
        return self.of(output).write_range(output, offset, buffers)

    def commit_output(self, output: bytes, final: bytes, receipts: Sequence[bytes], *, replace: bool) -> None:
        """See ``Store``."""
        self.of(output).commit_output(output, final, receipts, replace=replace)

    def abort_output(self, output: bytes) -> None:
        """See ``Store``."""
        self.of(output).abort_output(output)
