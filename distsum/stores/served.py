"""Places that a worker was told to serve, and a store that goes nowhere else.

What a worker is asked to do comes through a broker that others write to, and from files that others write. So each URI
is looked at when it is used, in the store, whoever names it: a message, a job's description or its list of inputs.

- Folders are compared by their real paths, so neither ``..`` nor a link leads out of one, and a served folder that is
  itself a link serves what it leads to. Both the entry itself and what it leads to must lie within: to write or remove
  a link is to change the folder that it is in. Whoever may make links in a served folder can still exchange one between
  the look and the use.
- In S3 a place is a bucket or a prefix that ends before a slash: ``s3://bucket/pre`` holds ``s3://bucket/pre/a`` and
  not ``s3://bucket/prefix/a``. Keys are compared byte by byte as they are; one that has a part ``.`` or ``..`` lies
  nowhere, since servers disagree about what it names.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import msgspec

from distsum.errors import ConfigurationError, NotServedError
from distsum.request import DEFAULT_S3_DEADLINE_SECONDS
from distsum.stores.routing import RoutingStore, is_remote
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from distsum.manifest import Input
    from distsum.stores.base import Buffer, Reader, Store

_LONGEST_PATH: Final = 4096
"""Linux opens no longer one, and following one of a million parts takes minutes."""


def served_place(name: bytes) -> bytes:
    """Return a place as URIs are compared with it: a bucket or prefix without slashes at its end, or a real path.

    Raises:
        ConfigurationError: It names no folder of this machine, and no place in S3.
    """
    shown = printable(name)
    if b"\0" in name:
        raise ConfigurationError(f"--serve {shown}: holds a NUL byte, which no place does")
    if is_remote(name):
        place = name.rstrip(b"/")
        parts = place.removeprefix(b"s3:").removeprefix(b"//").split(b"/")
        if not parts[0] or _is_dotted(place):
            raise ConfigurationError(f"--serve {shown}: write s3://BUCKET or s3://BUCKET/PREFIX, without . and ..")
        return place
    if not os.path.isdir(name):
        raise ConfigurationError(f"--serve {shown}: there is no such folder on this machine; make or mount it first")
    return os.path.realpath(name)


class Places:
    """Some places.

    Args:
        places: What ``served_place`` returned of each.
    """

    def __init__(self, places: Iterable[bytes]) -> None:
        self._remote: list[bytes] = []
        self._folders: list[bytes] = []
        for place in places:
            (self._remote if is_remote(place) else self._folders).append(place)

    def check(self, uri: bytes) -> None:
        """Make sure that an object or folder lies in one of the places.

        Raises:
            NotServedError: It does not, or it cannot be told.
        """
        if self._holds(uri):
            return
        folder = uri.rpartition(b"/")[0]
        raise NotServedError(
            f"{printable(uri)} lies outside of what workers were told to serve; move it to a place that they serve, or "
            "start workers with --serve for a place that holds it",
            printable(uri if self._holds(folder) else folder),
        )

    def check_output(self, output: bytes) -> None:
        """Make sure that the output of a handle lies in one of the places.

        Raises:
            NotServedError: It does not, or the handle is none.
        """
        if is_remote(output):
            from distsum.stores.s3_parts import decode_handle

            try:
                output = decode_handle(output).key
            except (ValueError, msgspec.DecodeError, UnicodeDecodeError):
                raise NotServedError(f"{printable(output)} is no handle of an output") from None
        self.check(output)

    def _holds(self, uri: bytes) -> bool:
        return self._holds_object(uri) if is_remote(uri) else self._holds_path(uri)

    def _holds_object(self, uri: bytes) -> bool:
        if b"\0" in uri or _is_dotted(uri):
            return False
        return any(uri == place or uri.startswith(place + b"/") for place in self._remote)

    def _holds_path(self, uri: bytes) -> bool:
        if b"\0" in uri or not uri.startswith(b"/") or len(uri) > _LONGEST_PATH:
            return False
        folder, name = os.path.split(uri)
        if name in {b"", b".", b".."}:
            return self._holds_real(os.path.realpath(uri))
        entry = os.path.join(os.path.realpath(folder), name)
        return self._holds_real(entry) and (not os.path.islink(entry) or self._holds_real(os.path.realpath(entry)))

    def _holds_real(self, path: bytes) -> bool:
        return any(path == place or path.startswith(place.rstrip(b"/") + b"/") for place in self._folders)


class ServedStore(RoutingStore):
    """Every store, as far as it lies in some places; see ``Store``. Anything else raises NotServedError.

    Args:
        places: They.
        s3_deadline_seconds: As for every store.
    """

    def __init__(self, places: Places, s3_deadline_seconds: float = DEFAULT_S3_DEADLINE_SECONDS) -> None:
        super().__init__(s3_deadline_seconds)
        self._places = places

    def of(self, uri: bytes) -> Store:
        """Return the store of an URI that is served: the way that every call takes, but for those below."""
        self._places.check(uri)
        return super().of(uri)

    def identify_all(self, uris: Iterable[bytes]) -> Iterator[Input]:
        """See ``Store``."""
        return super().identify_all(map(self._served, uris))

    def open_all(self, uris: Sequence[bytes], size: int, ahead: int) -> Iterator[Reader | None]:
        """See ``Store``."""
        return super().open_all(list(map(self._served, uris)), size, ahead)

    def write_range(self, output: bytes, offset: int, buffers: Iterable[Buffer]) -> bytes:
        """See ``Store``."""
        return self._of_output(output).write_range(output, offset, buffers)

    def commit_output(self, output: bytes, final: bytes, receipts: Sequence[bytes], *, replace: bool) -> None:
        """See ``Store``."""
        self._places.check(final)
        self._of_output(output).commit_output(output, final, receipts, replace=replace)

    def abort_output(self, output: bytes) -> None:
        """See ``Store``."""
        self._of_output(output).abort_output(output)

    def _served(self, uri: bytes) -> bytes:
        self._places.check(uri)
        return uri

    def _of_output(self, output: bytes) -> Store:
        """Return the store of a handle, whose beginning tells nothing of where the output lies."""
        self._places.check_output(output)
        return super().of(output)


def _is_dotted(uri: bytes) -> bool:
    return any(part in {b".", b".."} for part in uri.split(b"/"))
