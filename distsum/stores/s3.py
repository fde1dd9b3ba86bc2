"""Objects in S3, or on a server that speaks its protocol: ``s3://bucket/key``.

Credentials and endpoint come from the standard chain of AWS (environment, profiles, roles, ``AWS_ENDPOINT_URL``), and
are never told. An input is pinned by its ETag. An output is one multi-part upload, whose parts workers send, and which
becomes visible when it is completed.
"""

from __future__ import annotations

import email.utils
import itertools
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgspec

from distsum.errors import InputListError, OutputError, StorageError, UnreachableError
from distsum.manifest import Input
from distsum.stores.base import Aged, Begun
from distsum.stores.s3_body import Target
from distsum.stores.s3_client import SCHEME, Patience, RefusedError, S3Client, split
from distsum.stores.s3_lock import Lease
from distsum.stores.s3_parts import (
    LEAST_PART_BYTES,
    Part,
    Upload,
    all_parts,
    cut_into_parts,
    decode_handle,
    encode_handle,
    stride,
    whole_etag,
)
from distsum.stores.s3_reading import BLOCK_BYTES, S3Reader
from distsum.wording import printable

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from distsum.latency import Latencies
    from distsum.stores.base import Buffer

_LEAST_LISTED: Final = 20
"""Objects of one folder from which on a listing is cheaper than a request for each."""
_LONGEST_RUN: Final = 20_000
_HEADS_AT_ONCE: Final = 32
_LONGEST_PUT: Final = 4 << 30
_BRIEF_SECONDS: Final = 5.0
"""What is waited for where a person waits for an answer, or only tidiness is at stake."""
_LONGEST_VERSION: Final = 255


class S3Store:
    """Objects as ``s3://bucket/key``; see ``Store``. One for a process.

    Args:
        patience: How long to wait for the server.
    """

    def __init__(self, patience: Patience | None = None) -> None:
        self._client = S3Client(patience or Patience())

    @property
    def client_bytes(self) -> int:
        """Memory that the connection's code took when it was first used."""
        return self._client.client_bytes

    @property
    def arrived_bytes(self) -> int:
        """What has arrived and waits in memory to be read; see ``Store``."""
        return self._client.rings.filled

    def take_latencies(self) -> Latencies:
        """Return how long the server took to answer, from a request to the head of its answer; see ``Store``."""
        return self._client.latencies.take()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def heed(self, interruption: threading.Event | None) -> None:
        """Give up what would be waited for once this event is set; see ``Store``."""
        self._client.interruption = interruption

    def preflight(self, uri: bytes) -> None:
        """Make sure that the server answers, and that the bucket is there and may be listed.

        Raises:
            UnreachableError: What is wrong, in one line.
        """
        bucket, key = split(uri, whole=False)
        try:
            self._request("reach", uri, "list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1, patience=self._brief())
        except RefusedError as error:
            raise UnreachableError(f"cannot use s3://{printable(bucket)}: {error.fault.words}") from None

    def _brief(self) -> Patience:
        usual = self._client.patience
        return msgspec.structs.replace(
            usual,
            answer_seconds=min(_BRIEF_SECONDS, usual.answer_seconds),
            deadline_seconds=min(_BRIEF_SECONDS, usual.deadline_seconds),
        )

    # Reading ----------------------------------------------------------------------------------------------------------

    def identify(self, uri: bytes) -> Input:
        """Return size and ETag; see ``Store``."""
        return next(self._heads([uri]))

    def open_input(self, entry: Input, offset: int = 0, size: int = 0, *, head: int = 0, hold: int = 0) -> S3Reader:
        """Begin to fetch a pinned input; that it has changed is told when it is read. See ``Store``."""
        bucket, key = split(entry.uri)
        target = Target(entry.uri, bucket, key, entry.size, entry.version.decode())
        ranges = [(offset, min(entry.size, offset + size))] if size and offset < entry.size else []
        if head and offset > head:
            ranges.insert(0, (0, min(entry.size, head)))
        elif head and ranges:
            ranges = [(0, ranges[0][1])]
        return S3Reader(self._client, target, ranges, hold)

    def open(self, uri: bytes) -> S3Reader | None:
        """Fetch the beginning of an object, and with it its size; see ``Store``."""
        return next(self.open_all([uri], BLOCK_BYTES, 1))

    def open_all(self, uris: Sequence[bytes], size: int, ahead: int) -> Iterator[S3Reader | None]:
        """Open objects one after the other, while the next ones are on their way; see ``Store``."""
        waiting: deque[S3Reader] = deque()
        try:
            for uri in uris:
                bucket, key = split(uri)
                waiting.append(
                    S3Reader(self._client, Target(uri, bucket, key, None, ""), [(0, max(size, BLOCK_BYTES))])
                )
                if len(waiting) == ahead:
                    yield _opened(waiting.popleft())
            while waiting:
                yield _opened(waiting.popleft())
        finally:
            for reader in waiting:
                reader.close()

    def exists(self, uri: bytes) -> bool:
        """Whether there is an object."""
        return self._head(uri) is not None

    def written_seconds(self, uri: bytes) -> float | None:
        """Return when an object was written, in whole seconds by the server's clock; see ``Store``."""
        found = self._head(uri)
        return None if found is None else float(found["LastModified"].timestamp())

    def identify_all(self, uris: Iterable[bytes]) -> Iterator[Input]:
        """Yield objects with sizes and ETags: many of one folder from its listing, others asked for at once.

        Raises:
            InputListError: There is no such object.
        """
        iterator = iter(uris)
        while block := list(itertools.islice(iterator, _LONGEST_RUN)):
            yield from self._identified_block(block)

    def _identified_block(self, uris: Sequence[bytes]) -> Iterator[Input]:
        start = 0
        while start < len(uris):
            stop = _run_end(uris, start)
            run = uris[start:stop]
            found = self._from_listing(run) if len(run) >= _LEAST_LISTED else {}
            heads = self._heads([uri for uri in run if uri not in found])
            for uri in run:
                yield found.pop(uri) if uri in found else next(heads)
            start = stop

    def _from_listing(self, run: Sequence[bytes]) -> dict[bytes, Input]:
        """Return those of some objects of one folder, in order, that a listing of about their number holds."""
        bucket, first = split(run[0])
        folder = run[0][: run[0].rindex(b"/") + 1]
        wanted = set(run)
        found: dict[bytes, Input] = {}
        listed = self._listed(
            folder, bucket, split(folder, whole=False)[1], {"Delimiter": "/", "StartAfter": first[:-1]}
        )
        # Of a folder of which only a few are wanted, most would be listed for nothing.
        for rest, entry in itertools.islice(listed, 4 * len(run)):
            if entry.uri in wanted:
                found[entry.uri] = entry
            if folder + rest >= run[-1]:
                break
        return found

    def _heads(self, uris: Sequence[bytes]) -> Iterator[Input]:
        waiting: deque[tuple[bytes, Future[dict[str, Any]]]] = deque()
        try:
            for uri in uris:
                bucket, key = split(uri)
                coroutine = self._client.request("look at", uri, "head_object", Bucket=bucket, Key=key)
                waiting.append((uri, self._client.start(coroutine)))
                if len(waiting) == _HEADS_AT_ONCE:
                    yield self._identified(*waiting.popleft())
            while waiting:
                yield self._identified(*waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()

    def _identified(self, uri: bytes, future: Future[dict[str, Any]]) -> Input:
        try:
            found = self._client.result(future)
        except RefusedError as error:
            if error.fault.kind != "missing":
                raise
            raise InputListError(f"{printable(uri)}: no such object") from None
        return _input(uri, int(found["ContentLength"]), str(found["ETag"]))

    def list(self, prefix: bytes) -> Iterator[bytes]:
        """Yield the keys below a folder, a page of 1,000 at a time; see ``Store``."""
        return self.keys(prefix.rstrip(b"/") + b"/")

    def aged(self, folder: bytes) -> Iterator[Aged]:
        """Yield the objects below a folder; see ``Store``."""
        prefix = folder.rstrip(b"/") + b"/"
        bucket, key = split(prefix, whole=False)
        for page, now in self._pages("list_objects_v2", prefix, {"Bucket": bucket, "Prefix": key}):
            for entry in page.get("Contents", ()):
                name = entry["Key"][len(key) :].encode()
                yield Aged(name, int(entry["Size"]), now - entry["LastModified"].timestamp())

    def begun(self, folder: bytes) -> Iterator[Begun]:
        """Yield the multi-part uploads below a folder; see ``Store``."""
        prefix = folder.rstrip(b"/") + b"/"
        bucket, key = split(prefix, whole=False)
        for page, now in self._pages("list_multipart_uploads", prefix, {"Bucket": bucket, "Prefix": key}):
            for entry in page.get("Uploads", ()):
                final = SCHEME + f"{bucket}/{entry['Key']}".encode()
                told = Upload(final, str(entry["UploadId"]), 0, LEAST_PART_BYTES)
                yield Begun(final, encode_handle(told), now - entry["Initiated"].timestamp())

    def _pages(self, name: str, prefix: bytes, arguments: dict[str, str]) -> Iterator[tuple[dict[str, Any], float]]:
        """Yield the pages of a listing, and the server's time."""
        more: dict[str, str] = {}
        while True:
            page = self._request("list", prefix, name, **arguments, **more)
            answered = page["ResponseMetadata"]["HTTPHeaders"]["date"]
            yield page, email.utils.parsedate_to_datetime(answered).timestamp()
            if not page.get("IsTruncated"):
                return
            markers = {"NextContinuationToken": "ContinuationToken", "NextKeyMarker": "KeyMarker"}
            markers["NextUploadIdMarker"] = "UploadIdMarker"
            more = {argument: page[marker] for marker, argument in markers.items() if page.get(marker)}

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        """Yield the rest of every key that begins with a prefix, which need not end with a slash."""
        for rest, _ in self._listed(prefix, *split(prefix, whole=False), {}):
            yield rest

    def children(self, folder: bytes) -> Iterator[bytes]:
        """Yield the names of the objects directly in a folder, which ends with a slash."""
        for rest, _ in self._listed(folder, *split(folder, whole=False), {"Delimiter": "/"}):
            yield rest

    def _listed(self, prefix: bytes, bucket: str, key: str, arguments: dict[str, str]) -> Iterator[tuple[bytes, Input]]:
        for page, _ in self._pages("list_objects_v2", prefix, {"Bucket": bucket, "Prefix": key} | arguments):
            for entry in page.get("Contents", ()):
                rest = entry["Key"][len(key) :].encode()
                if rest and not rest.endswith(b"/"):  # which some tools make to show an empty folder
                    yield rest, _input(prefix + rest, int(entry["Size"]), str(entry["ETag"]))

    def _head(self, uri: bytes) -> dict[str, Any] | None:
        bucket, key = split(uri)
        try:
            return self._request("look at", uri, "head_object", Bucket=bucket, Key=key)
        except RefusedError as error:
            if error.fault.kind == "missing":
                return None
            raise

    # Writing ----------------------------------------------------------------------------------------------------------

    def put(self, uri: bytes, buffers: Sequence[Buffer]) -> int:
        """Send an object in one request, so that it is there whole or not at all; see ``Store``."""
        bucket, key = split(uri)
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        size = sum(map(len, views))
        if size > _LONGEST_PUT:
            upload = self.create_output(uri, size)
            try:
                self.commit_output(upload, uri, [self.write_range(upload, 0, views)], replace=True)
            except BaseException:
                self.abort_output(upload)
                raise
            return size
        self._request("write", uri, "put_object", views=views, Bucket=bucket, Key=key)
        return size

    def delete(self, uri: bytes) -> None:
        """Remove an object if it is there; see ``Store``."""
        bucket, key = split(uri)
        self._request("remove", uri, "delete_object", Bucket=bucket, Key=key)

    def withdraw(self, uri: bytes, folder: bytes) -> None:
        """Remove an object: there are no folders. See ``Store``."""
        self.delete(uri)

    def delete_all(self, prefix: bytes, kept: set[bytes]) -> None:
        """Remove the objects below a folder, 1,000 a request; see ``Store``."""
        bucket, key = split(prefix.rstrip(b"/") + b"/", whole=False)
        names = (name.decode() for name in self.list(prefix) if name not in kept)
        while batch := [{"Key": key + name} for name in itertools.islice(names, 1000)]:
            answer = self._request(
                "remove", prefix, "delete_objects", Bucket=bucket, Delete={"Objects": batch, "Quiet": True}
            )
            if failed := answer.get("Errors"):
                code = printable(str(failed[0].get("Code", "")), 60)
                raise StorageError(f"cannot remove {len(failed)} objects below {printable(prefix)} ({code})")

    def lock(self, folder: bytes) -> AbstractContextManager[object]:
        """Hold a folder by an object in it; see ``Store`` and ``s3_lock``."""
        return Lease(self._client, folder.rstrip(b"/") + b"/lock")

    def least_range(self, final: bytes, size: int) -> int:
        """Return the least bytes of a range of an output that is not its last: those of a part."""
        return stride(size)

    def create_output(self, final: bytes, size: int) -> bytes:
        """Begin a multi-part upload; the handle names it. See ``Store``."""
        bucket, key = split(final)
        answer = self._request("begin to write", final, "create_multipart_upload", Bucket=bucket, Key=key)
        return encode_handle(Upload(final, str(answer["UploadId"]), size, self.least_range(final, size)))

    def write_range(self, output: bytes, offset: int, buffers: Iterable[Buffer]) -> bytes:
        """Send a range as one part or several; the receipt lists them. See ``Store``."""
        upload = decode_handle(output)
        parts: list[Part] = []
        for start, views in cut_into_parts(buffers, offset, upload.stride):
            number = 1 + start // upload.stride
            answer = self._request_part("write", "upload_part", upload, views=views, PartNumber=number)
            parts.append(Part(number, str(answer["ETag"]), start, sum(map(len, views))))
        return msgspec.msgpack.encode(parts)

    def commit_output(self, output: bytes, final: bytes, receipts: Sequence[bytes], *, replace: bool) -> None:
        """Complete the upload, which makes the object visible at once; see ``Store``."""
        upload = decode_handle(output)
        parts = all_parts(receipts, upload)
        condition = {} if replace else {"IfNoneMatch": "*"}
        if not parts:
            # An upload has at least one part, and an empty object none.
            self._conditional("put_object", final, condition, views=(), **_place(upload))
            self.abort_output(output)
            return
        listed: Sequence[dict[str, Any]] = [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
        arguments = {**_place(upload), "UploadId": upload.upload}
        try:
            try:
                self._conditional(
                    "complete_multipart_upload", final, condition, MultipartUpload={"Parts": listed}, **arguments
                )
            except RefusedError as error:
                if error.fault.kind != "part":
                    raise
                # A second attempt of a task has sent the same bytes again. Where a server encrypts them they have
                # another ETag now, so ask for the parts as they are.
                listed = self._listed_parts(upload, parts)
                self._conditional(
                    "complete_multipart_upload", final, condition, MultipartUpload={"Parts": listed}, **arguments
                )
        except (RefusedError, OutputError) as error:
            # The answer to an earlier attempt may have been lost, though that one was carried out: then there is no
            # such upload any more, and the object that has appeared is ours.
            lost = isinstance(error, OutputError) or error.fault.kind in {"no upload", "missing"}
            if not lost or not self._is_completed(upload, parts):
                raise
            # Or equal bytes have come from elsewhere, which is as good; then ours is left, and costs.
            self.abort_output(output)

    def _conditional(self, name: str, final: bytes, condition: dict[str, str], **arguments: Any) -> None:
        try:
            self._request("finish", final, name, **arguments, **condition)
        except RefusedError as error:
            if error.fault.kind == "unsupported" and condition:
                # A server without conditional writes: there is then a moment between the look and the write.
                if not self.exists(final):
                    self._request("finish", final, name, **arguments)
                    return
            elif error.fault.kind != "changed":
                raise
            raise OutputError(f"{printable(final)} has appeared while the job ran; use --force to replace it") from None

    def _listed_parts(self, upload: Upload, parts: Sequence[Part]) -> Sequence[dict[str, Any]]:
        """Return the parts that the server holds under the numbers and of the sizes that were written."""
        held: dict[int, tuple[str, int]] = {}
        marker: dict[str, int] = {}
        while True:
            page = self._request_part("finish", "list_parts", upload, **marker)
            for part in page.get("Parts", ()):
                held[int(part["PartNumber"])] = str(part["ETag"]), int(part["Size"])
            if not page.get("IsTruncated"):
                break
            marker = {"PartNumberMarker": page["NextPartNumberMarker"]}
        for part in parts:
            if held.get(part.number, ("", -1))[1] != part.size:
                raise StorageError(f"cannot finish {printable(upload.key)}: part {part.number} is not there any more")
        return [{"PartNumber": part.number, "ETag": held[part.number][0]} for part in parts]

    def _is_completed(self, upload: Upload, parts: Sequence[Part]) -> bool:
        """Whether the object is what these parts make, as far as its ETag tells."""
        expected = whole_etag(parts)
        found = self._head(upload.key) if expected is not None else None
        return found is not None and found["ETag"].strip('"') == expected

    def abort_output(self, output: bytes) -> None:
        """Remove what was sent of an output that is not finished; see ``Store``."""
        upload = decode_handle(output)
        arguments: dict[str, Any] = {**_place(upload), "UploadId": upload.upload, "patience": self._brief()}
        request = self._client.request("give up", upload.key, "abort_multipart_upload", **arguments)
        try:
            # Also if nothing else is wanted any more: what is left of an upload costs money.
            self._client.wait(request, needed=True)
        except RefusedError as error:
            if error.fault.kind not in {"no upload", "missing", "no bucket"}:
                raise

    def _request_part(self, verb: str, name: str, upload: Upload, **arguments: Any) -> dict[str, Any]:
        return self._request(verb, upload.key, name, **_place(upload), UploadId=upload.upload, **arguments)

    def _request(self, verb: str, uri: bytes, name: str, **arguments: Any) -> dict[str, Any]:
        # What is being sent lies in buffers that are used again, so its end is waited for. Otherwise something else
        # might go out in its place, and be stored.
        sends = arguments.get("views") is not None
        return self._client.wait(self._client.request(verb, uri, name, **arguments), to_its_end=sends)


def _opened(reader: S3Reader) -> S3Reader | None:
    """Return a reader once it is known that there is an object; None if there is none."""
    try:
        _ = reader.size
    except BaseException as error:
        reader.close()  # also where nobody waits for it any more: else what arrives would be held for ever
        if isinstance(error, RefusedError) and error.fault.kind == "missing":
            return None
        raise
    return reader


def _run_end(uris: Sequence[bytes], start: int) -> int:
    """Return where a run of objects ends that lie in one folder, in order."""
    folder = uris[start][: uris[start].rindex(b"/") + 1]
    stop = start + 1
    while (
        stop < len(uris)
        and uris[stop - 1] < uris[stop]
        and uris[stop].startswith(folder)
        and b"/" not in uris[stop][len(folder) :]
    ):
        stop += 1
    return stop


def _input(uri: bytes, size: int, etag: str) -> Input:
    bare = etag[1:-1] if etag.startswith('"') and etag.endswith('"') else etag
    version = bare.encode()
    if not 0 < len(version) <= _LONGEST_VERSION:
        raise InputListError(
            f"{printable(uri)}: its server gives {printable(etag, 80)!r} as its ETag, which cannot pin it"
        )
    return Input(uri, size, version)


def _place(upload: Upload) -> dict[str, str]:
    bucket, key = split(upload.key)
    return {"Bucket": bucket, "Key": key}
