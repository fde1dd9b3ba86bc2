"""Holding a work folder in S3: an object that tells who holds it, and that is written again while it is held.

It is made with a conditional PUT, so one of several runs gets it. Its holder writes it again every few seconds. One
that was not written for the length of a lease belongs to a run that is dead or cut off, and may be taken over, by
another conditional PUT. The server alone tells its age, as the time of an answer less that of the last write, so no
clock of ours matters. A holder that died on this machine is known to be dead at once.

The lock saves two runs from doing the same work. It does not guard the result: partials are named by their content,
and an upload becomes visible whole. So a holder that was cut off for longer than a lease harms nothing when it goes on.
"""

from __future__ import annotations

import email.utils
import os
import socket
import threading
import uuid
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from distsum.errors import OutputError, WorkDirBusyError
from distsum.stores.s3_client import RefusedError, S3Client, split
from distsum.wording import printable

if TYPE_CHECKING:
    from types import TracebackType

LEASE_SECONDS: Final = 60.0
_RENEWALS: Final = 4
"""Times in a lease that it is renewed."""
_JOIN_SECONDS: Final = 1.0


class Holder(msgspec.Struct, frozen=True):
    """Who holds a lock. ``started`` tells a process from a later one of the same id."""

    token: str
    host: str
    process: int
    started: str


class Lease:
    """A context in which a lock object is held; see the module.

    Args:
        client: The connection.
        uri: The lock object.
        lease_seconds: How long it is held after it was last written.
    """

    def __init__(self, client: S3Client, uri: bytes, lease_seconds: float = LEASE_SECONDS) -> None:
        self._client = client
        self._uri = uri
        self._lease_seconds = lease_seconds
        self._bucket, self._key = split(uri)
        self._holder = Holder(uuid.uuid4().hex, socket.gethostname(), os.getpid(), _started(os.getpid()))
        self._etag = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="distsum-lock", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._etag = self._take()
        except RefusedError as error:
            raise OutputError(f"the work folder cannot be made: {error}") from None
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(_JOIN_SECONDS)
        if self._etag:
            try:
                self._request("delete_object", IfMatch=self._etag)
            except RefusedError as refused:
                # It was taken over, or the server is gone; then it ends by its age. What the run says comes first.
                if refused.fault.kind in {"unsupported", "refused"}:
                    self._request("delete_object")

    def _take(self) -> str:
        """Write the lock object where there is none, or in place of one whose holder is dead; return its ETag."""
        for _ in range(3):
            try:
                return self._write(IfNoneMatch="*")
            except RefusedError as error:
                if error.fault.kind == "unsupported":
                    return self._write()  # A server without conditions cannot keep two runs apart.
                if error.fault.kind != "changed":
                    raise
            found = self._look()
            if found is None:
                continue
            holder, age, etag = found
            if holder == self._holder:
                return etag  # Ours: the answer to an earlier attempt was lost.
            if age < self._lease_seconds and not (holder is not None and _is_dead(holder)):
                who = f"process {holder.process} on {printable(holder.host)}" if holder is not None else "another run"
                raise WorkDirBusyError(
                    f"{printable(self._uri.removesuffix(b'/lock'))} is in use by {who}, which said so {age:.0f} s ago; "
                    f"wait for it, or if it is dead for another {self._lease_seconds - age:.0f} s, "
                    "or give another --work-dir"
                )
            try:
                return self._write(IfMatch=etag)
            except RefusedError as error:
                if error.fault.kind not in {"changed", "missing"}:
                    raise
        raise WorkDirBusyError(
            f"{printable(self._uri.removesuffix(b'/lock'))} is wanted by other runs as well; wait for them, or give "
            "another --work-dir"
        )

    def _look(self) -> tuple[Holder | None, float, str] | None:
        """Return who holds the lock, how long ago it was written, and its ETag; None if it is gone."""
        try:
            answer = self._request("head_object")
        except RefusedError as error:
            if error.fault.kind == "missing":
                return None
            raise
        answered = email.utils.parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        try:
            holder = msgspec.json.decode(answer["Metadata"].get("holder", ""), type=Holder)
        except msgspec.DecodeError:
            holder = None
        return holder, max(0.0, answered.timestamp() - answer["LastModified"].timestamp()), str(answer["ETag"])

    def _renew(self) -> None:
        while not self._over.wait(self._lease_seconds / _RENEWALS):
            try:
                self._etag = self._write(IfMatch=self._etag)
            except RefusedError as error:
                if error.fault.kind in {"changed", "missing"} and not self._is_ours():
                    self._etag = ""  # Somebody else holds it now, which harms nothing: see the module.
                    return

    def _is_ours(self) -> bool:
        """Whether the lock is ours after all, and an earlier answer was lost."""
        try:
            found = self._look()
        except RefusedError:
            return True  # Nothing is known, so ask again later.
        return found is not None and found[0] == self._holder

    def _write(self, **condition: str) -> str:
        """Write the lock object, which gives it a new age and leaves its ETag; return that."""
        told = msgspec.json.encode(self._holder).decode("ascii", "backslashreplace")
        body = memoryview(self._holder.token.encode())
        return str(self._request("put_object", views=[body], Metadata={"holder": told}, **condition)["ETag"])

    def _request(self, name: str, **arguments: Any) -> dict[str, Any]:
        patience = msgspec.structs.replace(
            self._client.patience,
            deadline_seconds=min(self._client.patience.deadline_seconds, self._lease_seconds / _RENEWALS),
        )
        return self._client.wait(
            self._client.request(
                "hold", self._uri, name, patience=patience, Bucket=self._bucket, Key=self._key, **arguments
            )
        )


def _is_dead(holder: Holder) -> bool:
    """Whether a holder was a process of this machine that has ended."""
    return holder.host == socket.gethostname() and bool(holder.started) and _started(holder.process) != holder.started


def _started(process: int) -> str:
    """Return when a process began, in ticks of the kernel, with the boot it belongs to; empty if there is none."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            ticks = file.read().rpartition(b")")[2].split()[19].decode()
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {ticks}"
    except (OSError, IndexError):
        return ""
