"""Objects in S3, or on a server that speaks its protocol: ``s3://bucket/key``.

Credentials and endpoint come from the standard chain of AWS (environment, profiles, roles, ``AWS_ENDPOINT_URL``), and
are never told. An input is pinned by its ETag. An output is one multi-part upload, whose parts workers send, and which
becomes visible when it is completed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from distsum.errors import InputListError, OutputError, StorageError, UnreachableError
from distsum.manifest import Input
from distsum.stores.s3_client import Patience, RefusedError, S3Client
from distsum.stores.s3_reading import BLOCK_BYTES, S3Reader, Target
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from distsum.stores.base import Buffer

SCHEME: Final = b"s3://"
LEAST_PART_BYTES: Final = 5 << 20
MOST_PARTS: Final = 10_000
_LONGEST_PUT: Final = 4 << 30
_PREFLIGHT_SECONDS: Final = 5.0
"""A person waits for the answer to this one."""
_LONGEST_VERSION: Final = 255
_MD5_DIGITS: Final = 32


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

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def preflight(self, uri: bytes) -> None:
        """Make sure that the server answers, and that the bucket is there and may be listed.

        Raises:
            UnreachableError: What is wrong, in one line.
        """
        bucket, key = split(uri, whole=False)
        patience = msgspec.structs.replace(
            self._client.patience,
            answer_seconds=min(_PREFLIGHT_SECONDS, self._client.patience.answer_seconds),
            deadline_seconds=min(_PREFLIGHT_SECONDS, self._client.patience.deadline_seconds),
        )
        try:
            self._request("reach", uri, "list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1, patience=patience)
        except RefusedError as error:
            raise UnreachableError(f"cannot use s3://{printable(bucket)}: {error.fault.words}") from None

    # Reading ----------------------------------------------------------------------------------------------------------

    def identify(self, uri: bytes) -> Input:
        """Return size and ETag; see ``Store``."""
        found = self._head(uri)
        if found is None:
            raise InputListError(f"{printable(uri)}: no such object")
        return _input(uri, int(found["ContentLength"]), str(found["ETag"]))

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
        bucket, key = split(uri)
        try:
            return S3Reader(self._client, Target(uri, bucket, key, None, ""), [(0, BLOCK_BYTES)])
        except RefusedError as error:
            if error.fault.kind == "missing":
                return None
            raise

    def exists(self, uri: bytes) -> bool:
        """Whether there is an object."""
        return self._head(uri) is not None

    def list(self, prefix: bytes) -> Iterator[bytes]:
        """Yield the keys below a folder, a page of 1,000 at a time; see ``Store``."""
        for name, _ in self.listed(prefix.rstrip(b"/") + b"/"):
            yield name

    def listed(self, prefix: bytes) -> Iterator[tuple[bytes, Input]]:
        """Yield what begins with a prefix, in the byte order of keys: the rest of the key, and the object."""
        bucket, key = split(prefix, whole=False)
        more: dict[str, str] = {}
        while True:
            page = self._request("list", prefix, "list_objects_v2", Bucket=bucket, Prefix=key, **more)
            for entry in page.get("Contents", ()):
                rest = entry["Key"][len(key) :].encode()
                if rest and not rest.endswith(b"/"):  # which some tools make to show an empty folder
                    yield rest, _input(prefix + rest, int(entry["Size"]), str(entry["ETag"]))
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

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

    def least_range(self, size: int) -> int:
        """Return the least bytes of a range of an output that is not its last: those of a part."""
        return max(LEAST_PART_BYTES, -(-size // (MOST_PARTS - 1)))

    def create_output(self, final: bytes, size: int) -> bytes:
        """Begin a multi-part upload; the handle names it. See ``Store``."""
        bucket, key = split(final)
        answer = self._request("begin to write", final, "create_multipart_upload", Bucket=bucket, Key=key)
        told = Upload(final, str(answer["UploadId"]), size, self.least_range(size))
        return SCHEME + bucket.encode() + b"/" + msgspec.json.encode(told)

    def write_range(self, output: bytes, offset: int, buffers: Iterable[Buffer]) -> bytes:
        """Send a range as one part or several; the receipt lists them. See ``Store``.

        A part's number follows from where it begins, so that workers need not agree on any. Parts are as long as a
        stride, and the last of a range is up to twice as long, so that no two begin in the same stride.
        """
        upload = _upload(output)
        parts: list[Part] = []
        held = bytearray()
        for buffer in buffers:
            held += buffer
            while len(held) >= 2 * upload.stride:
                parts.append(self._send_part(upload, offset, held[: upload.stride]))
                del held[: upload.stride]
                offset += upload.stride
        if held:
            parts.append(self._send_part(upload, offset, held))
        return msgspec.msgpack.encode(parts)

    def _send_part(self, upload: Upload, offset: int, content: bytearray) -> Part:
        number = 1 + offset // upload.stride
        answer = self._request_part("write", "upload_part", upload, views=[memoryview(content)], PartNumber=number)
        return Part(number, str(answer["ETag"]), offset, len(content))

    def commit_output(self, output: bytes, final: bytes, receipts: Sequence[bytes], *, replace: bool) -> None:
        """Complete the upload, which makes the object visible at once; see ``Store``."""
        upload = _upload(output)
        parts = [part for receipt in receipts if receipt for part in _PARTS.decode(receipt)]
        parts.sort(key=lambda part: part.offset)
        end = 0
        for part in parts:
            if part.offset != end:
                break
            end += part.size
        if end != upload.size:
            raise StorageError(f"cannot finish {printable(final)}: of its {upload.size} bytes {end} were written")
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
        except RefusedError as error:
            # The answer to an earlier attempt may have been lost, though that one was carried out.
            if error.fault.kind not in {"no upload", "missing"} or not self._is_completed(upload, parts):
                raise

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
        """Whether the object is what these parts make, as far as its ETag tells: where those of parts are MD5."""
        digests = [part.etag.strip('"') for part in parts]
        if any(len(digest) != _MD5_DIGITS for digest in digests):
            return False
        found = self._head(upload.key)
        whole = hashlib.md5(b"".join(map(bytes.fromhex, digests)), usedforsecurity=False).hexdigest()
        return found is not None and found["ETag"].strip('"') == f"{whole}-{len(parts)}"

    def abort_output(self, output: bytes) -> None:
        """Remove what was sent of an output that is not finished; see ``Store``."""
        try:
            self._request_part("give up", "abort_multipart_upload", _upload(output))
        except RefusedError as error:
            if error.fault.kind not in {"no upload", "missing", "no bucket"}:
                raise

    def _request_part(self, verb: str, name: str, upload: Upload, **arguments: Any) -> dict[str, Any]:
        return self._request(verb, upload.key, name, **_place(upload), UploadId=upload.upload, **arguments)

    def _request(self, verb: str, uri: bytes, name: str, **arguments: Any) -> dict[str, Any]:
        return self._client.wait(self._client.request(verb, uri, name, **arguments))


def _input(uri: bytes, size: int, etag: str) -> Input:
    bare = etag[1:-1] if etag.startswith('"') and etag.endswith('"') else etag
    version = bare.encode()
    if not 0 < len(version) <= _LONGEST_VERSION:
        raise InputListError(
            f"{printable(uri)}: its server gives {printable(etag, 80)!r} as its ETag, which cannot pin it"
        )
    return Input(uri, size, version)


def _upload(output: bytes) -> Upload:
    return msgspec.json.decode(output[output.index(b"[") :], type=Upload)


def _place(upload: Upload) -> dict[str, str]:
    bucket, key = split(upload.key)
    return {"Bucket": bucket, "Key": key}


def split(uri: bytes, *, whole: bool = True) -> tuple[str, str]:
    """Return bucket and key of ``s3://bucket/key``; the key may be empty unless it must be ``whole``.

    Raises:
        InputListError: This names no object.

    >>> split(b"s3://bucket/folder/a+b.npy")
    ('bucket', 'folder/a+b.npy')
    """
    try:
        bucket, _, key = uri.removeprefix(SCHEME).decode().partition("/")
    except UnicodeDecodeError:
        raise InputListError(f"{printable(uri)}: names of buckets and keys in S3 are UTF-8, and this is not") from None
    if not uri.startswith(SCHEME) or not bucket or (whole and not key):
        raise InputListError(f"{printable(uri)}: write s3://BUCKET/KEY")
    return bucket, key
