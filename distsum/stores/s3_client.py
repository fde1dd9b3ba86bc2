"""The connection to an S3 server: an event loop in a thread of its own, one client, and when to try again.

aiobotocore is imported when the first request is made, since that takes a second and 45 MiB.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import io
import os
import random
import threading
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from distsum.errors import ConfigurationError, InputListError, StorageError
from distsum.latency import LatencyCounter
from distsum.machine import resident_bytes
from distsum.request import DEFAULT_S3_DEADLINE_SECONDS
from distsum.stores.base import StoreInterruptedError
from distsum.stores.s3_faults import Fault, fault_of, shown_endpoint
from distsum.stores.s3_rings import Rings
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    T = TypeVar("T")

SCHEME: Final = b"s3://"
_POOL_CONNECTIONS: Final = 64
_CLOSE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.2
"""How often one who waits looks whether it is still wanted."""
_JOINED_BYTES: Final = 1 << 20
"""Up to here a body is put together in memory, which is quicker than passing it on in pieces."""
_AWS_DOMAINS: Final = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


class Patience(msgspec.Struct, frozen=True):
    """How long to wait for a server, and when to give up.

    Attributes:
        connect_seconds: For a connection.
        answer_seconds: For the beginning of an answer, beyond what sending takes at the minimum rate.
        minimum_rate: Bytes a second below which a body counts as stalled, and sending as lost.
        window_seconds: Time waited for bytes over which that rate is measured.
        first_pause_seconds: Most that is waited after a first failure; it doubles with each.
        longest_pause_seconds: Most that is ever waited between attempts.
        deadline_seconds: Time from the first failure after which a request is given up, unless bytes have come in at
            the minimum rate since.
    """

    connect_seconds: float = 10.0
    answer_seconds: float = 30.0
    minimum_rate: float = 16 << 10
    window_seconds: float = 15.0
    first_pause_seconds: float = 0.2
    longest_pause_seconds: float = 10.0
    deadline_seconds: float = DEFAULT_S3_DEADLINE_SECONDS

    @classmethod
    def of(cls, deadline_seconds: float) -> Patience:
        """Return the usual patience with another deadline, and where that is shorter with shorter waits before it."""
        usual = cls()
        share = min(1.0, deadline_seconds / usual.deadline_seconds)
        return cls(
            connect_seconds=max(2.0, share * usual.connect_seconds),
            answer_seconds=max(5.0, share * usual.answer_seconds),
            window_seconds=max(1.0, share * usual.window_seconds),
            longest_pause_seconds=max(0.5, share * usual.longest_pause_seconds),
            deadline_seconds=deadline_seconds,
        )


class RefusedError(StorageError):
    """A request that was answered with a refusal, or that was tried until its deadline."""

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message)
        self.fault = fault


class Trouble:
    """The failures of one request: how long to wait after each, and when to give up."""

    def __init__(self, patience: Patience, verb: str, uri: bytes) -> None:
        self._patience = patience
        self._what = f"cannot {verb} {printable(uri)}"
        self._since: float | None = None
        self._failures = 0
        self._arrived = 0

    def progress(self, size: int) -> None:
        """Take note of bytes that have arrived."""
        self._arrived += size
        self._failures = 0

    async def wait(self, fault: Fault) -> None:
        """Wait after a failure, with full jitter (Brooker, "Exponential Backoff And Jitter", AWS, 2015).

        Raises:
            RefusedError: Trying again is pointless, or the deadline has passed.
        """
        if fault.kind != "transient":
            raise RefusedError(f"{self._what}: {fault.words}", fault)
        patience = self._patience
        now = asyncio.get_running_loop().time()
        if self._since is None:
            self._since, self._arrived = now, 0
        elapsed = now - self._since
        self._failures += 1
        longest = min(patience.longest_pause_seconds, patience.first_pause_seconds * 2 ** min(self._failures - 1, 30))
        pause = random.uniform(0, longest)  # noqa: S311 - spreads requests, hides nothing
        if elapsed + pause > patience.deadline_seconds:
            if self._arrived < patience.minimum_rate * elapsed:
                raise RefusedError(f"{self._what}: {fault.words}, and so for {elapsed:.0f} s of trying again", fault)
            self._since, self._arrived = now, 0
        await asyncio.sleep(pause)


class S3Client:
    """Requests to one server, made from any thread.

    Args:
        patience: How long to wait.

    Attributes:
        interruption: What ends waiting once it is set, if anything; see ``Store.heed``.
        rings: Memory for what arrives.
        latencies: How long answers took, and what was tried again.
    """

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.rings = Rings()
        self.latencies = LatencyCounter()
        self.interruption: threading.Event | None = None
        self.client_bytes = 0
        self.endpoint = ""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0
        self._client: Any = None
        self._connecting: asyncio.Lock | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of all requests, started when it is first asked for."""
        with self._lock:
            # A forked process has the object, but neither the thread nor a right to its connections.
            if self._loop is None or self._process != os.getpid():
                self._process = os.getpid()
                self._client = None
                self._connecting = None
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="distsum-s3", daemon=True)
                self._thread.start()
                atexit.register(self.close)
            return self._loop

    def check(self) -> None:
        """Go on, unless nobody wants it any more.

        Raises:
            StoreInterruptedError: Nobody does.
        """
        if self.interruption is not None and self.interruption.is_set():
            raise StoreInterruptedError

    @property
    def look_seconds(self) -> float | None:
        """The most that may be waited before ``check`` is called again; None is for ever."""
        return None if self.interruption is None else _LOOK_SECONDS

    def start(self, coroutine: Coroutine[Any, Any, T], *, needed: bool = False) -> concurrent.futures.Future[T]:
        """Begin something on the loop; if it is ``needed``, also when nothing is wanted any more.

        Raises:
            StoreInterruptedError: Nothing is.
        """
        try:
            if not needed:
                self.check()
        except StoreInterruptedError:
            coroutine.close()
            raise
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def wait(self, coroutine: Coroutine[Any, Any, T], *, to_its_end: bool = False, needed: bool = False) -> T:
        """Do something on the loop, and wait for it.

        Args:
            coroutine: What to do.
            to_its_end: Whether to wait also when nobody wants it any more.
            needed: Whether to begin it also then.

        Raises:
            StoreInterruptedError: Nobody wants it.
        """
        future = self.start(coroutine, needed=needed)
        try:
            return self.result(future, to_its_end=to_its_end or needed)
        finally:
            future.cancel()

    def result(self, future: concurrent.futures.Future[T], *, to_its_end: bool = False) -> T:
        """Wait for what was started; see ``wait``."""
        while True:
            try:
                return future.result(None if to_its_end else self.look_seconds)
            except concurrent.futures.CancelledError:
                raise StorageError("the connection to S3 was closed while it was in use") from None
            except TimeoutError:
                if future.done():
                    return future.result()
                self.check()

    def close(self) -> None:
        """Close the connections. A later request opens new ones."""
        with self._lock:
            loop, thread = self._loop, self._thread
            if loop is None or thread is None or self._process != os.getpid():
                return
            self._loop = None
            atexit.unregister(self.close)
        # Whether the process ends or asks again, nobody waits for a server that does not say goodbye.
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._shut(), loop).result(_CLOSE_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_CLOSE_SECONDS)
        if not thread.is_alive():
            loop.close()

    async def _shut(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(None, None, None)

    async def client(self) -> Any:
        """Return the client; called on the loop.

        Raises:
            ConfigurationError: The AWS settings cannot be used.
        """
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        async with self._connecting:
            if self._client is None:
                self._client = await self._connected()
            return self._client

    async def _connected(self) -> Any:
        before = resident_bytes("VmRSS")
        try:
            from aiobotocore.config import AioConfig
            from aiobotocore.session import get_session
        except ImportError:
            raise ConfigurationError(
                "s3:// needs aiobotocore, which is not installed; pip install 'distsum[s3]'"
            ) from None
        common = {
            "connect_timeout": self.patience.connect_seconds,
            "read_timeout": self.patience.answer_seconds,
            "max_pool_connections": _POOL_CONNECTIONS,
            # What is tried again, and when, is decided here and nowhere else.
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            # Partials carry a digest of their own, and a range has no checksum to compare with.
            "response_checksum_validation": "when_required",
        }
        try:
            session = get_session()
            session.register_component("data_loader", _models(session.get_config_variable("data_path")))
            found = await session.create_client("s3", config=AioConfig(**common)).__aenter__()
            self.endpoint = found.meta.endpoint_url
            if not _is_aws(self.endpoint):
                # Other servers seldom have a name for each bucket, and not all know the newer checksums. That it is
                # another one is known only now, whatever of the chain of settings told it.
                await found.__aexit__(None, None, None)
                own_style = ((session.get_scoped_config().get("s3") or {}) if session.profile else {}).get(
                    "addressing_style"
                )
                common |= {
                    "request_checksum_calculation": "when_required",
                    "s3": {"addressing_style": own_style or "path"},
                }
                found = await session.create_client("s3", config=AioConfig(**common)).__aenter__()
        except Exception as error:  # noqa: BLE001 - the libraries raise what they like, and may tell secrets
            raise ConfigurationError(f"cannot use S3: {fault_of(error).words}") from None
        self.client_bytes = max(0, resident_bytes("VmRSS") - before)
        return found

    async def request(
        self,
        verb: str,
        uri: bytes,
        name: str,
        *,
        views: Sequence[memoryview] | None = None,
        patience: Patience | None = None,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Make a request, again and again where that may help, and return the answer.

        Args:
            verb: What is being done, for the words of an error.
            uri: The object or bucket, likewise.
            name: The client's method.
            views: What is sent.
            patience: How long to wait, where that is not as long as usual.
            arguments: Its arguments.

        Raises:
            RefusedError: It was refused, or the deadline has passed.
            StoreInterruptedError: It would have to be sent again, and nobody wants it any more.
        """
        client = await self.client()
        patience = patience or self.patience
        size = sum(map(len, views or ()))
        trouble = Trouble(patience, verb, uri)
        while True:
            if views is not None:
                # Made anew for each attempt: what an earlier one has read of a body is not rewound.
                arguments["Body"] = b"".join(views) if size <= _JOINED_BYTES else _Buffers(views)
            try:
                async with asyncio.timeout(patience.answer_seconds + size / patience.minimum_rate):
                    began = perf_counter()
                    answer: dict[str, Any] = await getattr(client, name)(**arguments)
                    self.latencies.add(perf_counter() - began)
                    return answer
            except Exception as error:  # noqa: BLE001 - told apart there, without what may be secret
                fault = fault_of(error, self.endpoint)
            await trouble.wait(fault)
            self.latencies.add_retry()
            if views is not None:
                self.check()


class _Buffers(io.RawIOBase):
    """Buffers, one after the other, as a file that can be read again."""

    def __init__(self, views: Sequence[memoryview]) -> None:
        super().__init__()
        self._views = views
        self._size = sum(map(len, views))
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        start = self._place
        filled = 0
        for view in self._views:
            if start < len(view):
                piece = view[start:][: len(target) - filled]
                target[filled : filled + len(piece)] = piece
                filled += len(piece)
            start = max(0, start - len(view))
            if filled == len(target):
                break
        self._place += filled
        return filled


@cache
def _models(path: str | None) -> Any:
    """Return what reads descriptions of services and keeps them: reading takes most of the time to make a client."""
    from botocore.loaders import create_loader

    return create_loader(path)


def _is_aws(endpoint: str) -> bool:
    host = shown_endpoint(endpoint).rpartition("//")[2].partition(":")[0]
    return host.endswith(_AWS_DOMAINS)


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
