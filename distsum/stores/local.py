"""Files on a disk that this machine has mounted."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from typing import TYPE_CHECKING, Final, Self

from distsum.errors import (
    DiskFullError,
    InputChangedError,
    InputListError,
    OutputError,
    StorageError,
    WorkDirBusyError,
)
from distsum.latency import Latencies
from distsum.manifest import Input
from distsum.stores.base import Aged, Begun
from distsum.wording import byte_size, printable

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

    from distsum.stores.base import Buffer

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MAX_BUFFERS: Final = 1024
"""Buffers that one call of the kernel takes at the most (IOV_MAX)."""
_TRIES: Final = 10
"""Times that a folder is made for a file, since others may remove it as long as it is empty."""
_PART_SUFFIX: Final = b".distsum-part"
_PART: Final = re.compile(rb"\.(.+)\.[0-9a-f]{8}" + re.escape(_PART_SUFFIX), re.DOTALL)
_MOST_ADVISED: Final = 32 << 20
"""Bytes of an input that the kernel is asked to read ahead; it goes on by itself once they are being read."""


class LocalReader:
    """An open file, read at positions into the caller's buffers.

    It is not mapped: a file that is cut short under a mapping kills the process, and reading into a reused buffer is
    about as fast.
    """

    __slots__ = ("_descriptor", "_version", "size", "uri")

    def __init__(self, uri: bytes, descriptor: int, size: int, version: bytes) -> None:
        self.uri = uri
        self.size = size
        self._descriptor = descriptor
        self._version = version

    def read_into(self, buffers: list[memoryview], offset: int) -> int:
        """Fill the buffers; see ``Reader``."""
        wanted = sum(map(len, buffers))
        try:
            done = got = os.preadv(self._descriptor, buffers, offset)
            while got and done < wanted:
                got = os.preadv(self._descriptor, _rest(buffers, done), offset + done)
                done += got
        except OSError as error:
            raise storage_error("read", self.uri, error) from error
        return done

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes; see ``Reader``."""
        buffer = bytearray(min(size, max(0, self.size - offset)))
        done = self.read_into([memoryview(buffer)], offset) if buffer else 0
        return bytes(buffer[:done])

    def check_unchanged(self) -> None:
        """Compare size and mtime with those pinned; see ``Reader``."""
        now = os.fstat(self._descriptor)
        if now.st_size != self.size or _version(now) != self._version:
            raise _changed(self.uri, self.size, now.st_size)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LocalStore:
    """Paths as bytes. An input is pinned by its size and its mtime in nanoseconds."""

    client_bytes = 0
    arrived_bytes = 0

    def take_latencies(self) -> Latencies:
        """Return nothing: no server is asked."""
        return Latencies()

    def close(self) -> None:
        """Do nothing: no connection is held."""

    def heed(self, interruption: threading.Event | None) -> None:
        """Do nothing: a disk answers. See ``Store``."""

    def preflight(self, uri: bytes) -> None:
        """Do nothing: a path is looked at when it is used."""

    def identify(self, uri: bytes) -> Input:
        """Return size and mtime; see ``Store``."""
        try:
            found = os.stat(uri)
        except OSError as error:
            raise InputListError(f"{printable(uri)}: {_why(error)}") from error
        if not stat.S_ISREG(found.st_mode):
            what = "a folder" if stat.S_ISDIR(found.st_mode) else "not a regular file"
            raise InputListError(f"{printable(uri)} is {what}; inputs are regular files")
        return Input(uri, found.st_size, _version(found))

    def open_input(self, entry: Input, offset: int = 0, size: int = 0, *, head: int = 0, hold: int = 0) -> LocalReader:
        """Open a pinned input, and ask the kernel to read ahead; see ``Store``."""
        try:
            descriptor = os.open(entry.uri, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise InputChangedError(
                f"{printable(entry.uri)} was there when the job was planned, and is gone; put it back, or run again "
                "without it"
            ) from error
        except OSError as error:
            raise storage_error("open", entry.uri, error) from error
        found = os.fstat(descriptor)
        if found.st_size != entry.size or _version(found) != entry.version:
            os.close(descriptor)
            raise _changed(entry.uri, entry.size, found.st_size)
        if size and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, offset, min(size, _MOST_ADVISED), os.POSIX_FADV_WILLNEED)
        return LocalReader(entry.uri, descriptor, entry.size, entry.version)

    def identify_all(self, uris: Iterable[bytes]) -> Iterator[Input]:
        """Yield size and mtime of each; see ``Store``."""
        return map(self.identify, uris)

    def open_all(self, uris: Sequence[bytes], size: int, ahead: int) -> Iterator[LocalReader | None]:
        """Open one after the other; see ``Store``."""
        return map(self.open, uris)

    def open(self, uri: bytes) -> LocalReader | None:
        """Open a file as it is; see ``Store``."""
        try:
            descriptor = os.open(uri, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error("open", uri, error) from error
        found = os.fstat(descriptor)
        return LocalReader(uri, descriptor, found.st_size, _version(found))

    def exists(self, uri: bytes) -> bool:
        """Whether there is a file."""
        return os.path.exists(uri)

    def written_seconds(self, uri: bytes) -> float | None:
        """Return the modification time, which on a network file system its server has set; see ``Store``."""
        try:
            return os.stat(uri).st_mtime
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error("look at", uri, error) from error

    def put(self, uri: bytes, buffers: Sequence[Buffer]) -> int:
        """Write a temporary file beside the final one, then rename it; see ``Store``.

        It is not flushed to the disk here: a power cut may leave a file that is short or holds zeros, which its digest
        tells from a whole one, and it is then computed again. Waiting for the disk costs more than that ever saves.
        """
        temporary = uri + b".tmp" + os.urandom(6).hex().encode()  # on a shared disk, process ids are not unique
        try:
            descriptor = self._create(temporary)
            try:
                size = _write_all(descriptor, buffers, 0)
            finally:
                os.close(descriptor)
            os.rename(temporary, uri)
        except OSError as error:
            self.delete(temporary)
            raise storage_error("write", uri, error) from error
        except BaseException:
            self.delete(temporary)
            raise
        return size

    def _create(self, path: bytes) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        for _ in range(_TRIES):
            with contextlib.suppress(FileNotFoundError):
                return os.open(path, flags, 0o666)
            # Whoever removes folders that are empty may do so between these lines.
            with contextlib.suppress(FileNotFoundError):
                os.makedirs(os.path.dirname(path), exist_ok=True)
        return os.open(path, flags, 0o666)

    def delete(self, uri: bytes) -> None:
        """Remove a file if it is there; see ``Store``."""
        try:
            os.unlink(uri)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise storage_error("remove", uri, error) from error

    def withdraw(self, uri: bytes, folder: bytes) -> None:
        """Remove a file, and folders that were perhaps made for it; see ``Store``."""
        self.delete(uri)
        above = os.path.dirname(uri)
        with contextlib.suppress(OSError):  # not empty, so it stays, or another has removed it
            while above.startswith(folder + b"/"):
                os.rmdir(above)
                above = os.path.dirname(above)

    def delete_all(self, prefix: bytes, kept: set[bytes]) -> None:
        """Remove files, and folders that are empty then; see ``Store``."""
        for folder, _, names in os.walk(prefix, topdown=False):
            below = os.path.relpath(folder, prefix)
            for name in names:
                if (name if below == b"." else os.path.join(below, name)) not in kept:
                    self.delete(os.path.join(folder, name))
            with contextlib.suppress(OSError):  # not empty, so it stays
                os.rmdir(folder)

    @contextlib.contextmanager
    def lock(self, folder: bytes) -> Iterator[None]:
        """Hold a folder by a lock of the kernel, which ends with the process however that ends; see ``Store``."""
        try:
            os.makedirs(folder, exist_ok=True)
            descriptor = os.open(os.path.join(folder, b"lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise OutputError(
                f"{printable(folder)}: the work folder cannot be made ({error.strerror}); "
                "choose another with --work-dir"
            ) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise WorkDirBusyError(
                    f"{printable(folder)} is in use by another run; wait for it, or give another --work-dir"
                ) from None
            yield
        finally:
            os.close(descriptor)

    def list(self, prefix: bytes) -> Iterator[bytes]:
        """Yield the files below a folder; see ``Store``."""
        for folder, _, names in os.walk(prefix):
            below = os.path.relpath(folder, prefix)
            for name in names:
                yield name if below == b"." else os.path.join(below, name)

    def aged(self, folder: bytes) -> Iterator[Aged]:
        """Yield the files below a folder; see ``Store``."""
        now = time.time()
        for name in self.list(folder):
            with contextlib.suppress(FileNotFoundError):  # which has gone since
                found = os.lstat(os.path.join(folder, name))
                yield Aged(name, found.st_size, now - found.st_mtime)

    def begun(self, folder: bytes) -> Iterator[Begun]:
        """Yield the hidden files of outputs; see ``Store``."""
        for entry in self.aged(folder):
            above, name = os.path.split(os.path.join(folder, entry.name))
            if found := _PART.fullmatch(name):
                yield Begun(os.path.join(above, found[1]), os.path.join(above, name), entry.age_seconds)

    def least_range(self, final: bytes, size: int) -> int:
        """Return 1: a range may be of any size."""
        return 1

    def create_output(self, final: bytes, size: int) -> bytes:
        """Reserve the blocks of the whole output in a hidden file, so that a full disk shows now; see ``Store``."""
        folder, name = os.path.split(final)
        uri = os.path.join(folder, b".%s.%s%s" % (name, os.urandom(4).hex().encode(), _PART_SUFFIX))
        try:
            descriptor = os.open(uri, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                _reserve(descriptor, size)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.delete(uri)
            raise storage_error("make room for", uri, error) from error
        return uri

    def write_range(self, output: bytes, offset: int, buffers: Iterable[Buffer]) -> bytes:
        """Write at a position; see ``Store``. The receipt is empty."""
        try:
            descriptor = os.open(output, os.O_WRONLY | os.O_CLOEXEC)
            try:
                for buffer in buffers:
                    offset += _write_all(descriptor, [buffer], offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise storage_error("write", output, error) from error
        return b""

    def commit_output(self, output: bytes, final: bytes, receipts: Sequence[bytes], *, replace: bool) -> None:
        """Flush the file and its folder to the disk, and rename it; see ``Store``."""
        try:
            descriptor = os.open(output, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if replace:
                os.replace(output, final)
            else:
                # A link fails where a rename would silently replace what somebody wrote meanwhile.
                _move_without_replacing(output, final)
            folder = os.open(os.path.dirname(final) or b".", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except FileExistsError as error:
            raise OutputError(
                f"{printable(final)} has appeared while the job ran; use --force to replace it"
            ) from error
        except OSError as error:
            raise storage_error("finish", final, error) from error

    def abort_output(self, output: bytes) -> None:
        """Remove the hidden file; see ``Store``."""
        self.delete(output)


def storage_error(verb: str, uri: bytes, error: OSError) -> StorageError:
    """Return what a failed call of the kernel means, with the file system's name where that one is full."""
    if error.errno in _FULL:
        mount = _mount_point(uri)
        free = ""
        try:
            state = os.statvfs(mount)
            free = f", {byte_size(state.f_bavail * state.f_frsize)} free"
        except OSError:
            pass
        return DiskFullError(
            f"cannot {verb} {printable(uri)}: the disk mounted at {printable(mount)} is full{free}; "
            "make room and run the same command again, or choose another --work-dir"
        )
    return StorageError(f"cannot {verb} {printable(uri)}: {_why(error)}")


def _why(error: OSError) -> str:
    reasons = {
        errno.ENOENT: "no such file",
        errno.EACCES: "permission denied",
        errno.EMFILE: "too many open files; raise the limit with ulimit -n, or lower --max-open-files",
    }
    return reasons.get(error.errno or 0, os.strerror(error.errno) if error.errno else str(error))


def _changed(uri: bytes, before: int, now: int) -> InputChangedError:
    found = f"its size went from {before} to {now} bytes" if before != now else "it was written to"
    return InputChangedError(
        f"{printable(uri)} changed while the job ran: {found}; run the same command again to use it as it is now"
    )


def _mount_point(path: bytes) -> bytes:
    folder = os.path.dirname(os.path.abspath(path))
    while folder != b"/" and not os.path.ismount(folder):
        folder = os.path.dirname(folder)
    return folder


def _version(found: os.stat_result) -> bytes:
    return found.st_mtime_ns.to_bytes(8, "little", signed=True)


def _rest(buffers: Sequence[Buffer], done: int) -> list[memoryview]:
    """Return what is left of some buffers after so many bytes."""
    left = []
    for buffer in buffers:
        view = memoryview(buffer)
        if view.nbytes > done:
            left.append(view.cast("B")[done:])
        done = max(0, done - view.nbytes)
    return left


def _write_all(descriptor: int, buffers: Sequence[Buffer], offset: int) -> int:
    done = 0
    left = _rest(buffers, 0)
    while left:
        written = os.pwritev(descriptor, left[:_MAX_BUFFERS], offset + done)
        done += written
        left = _rest(left, written)
    return done


def _reserve(descriptor: int, size: int) -> None:
    if size and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:
                raise
    os.ftruncate(descriptor, size)


def _move_without_replacing(source: bytes, target: bytes) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        # Some file systems have no hard links; there is then a moment between the look and the rename.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "exists", target) from None
        os.rename(source, target)
        return
    os.unlink(source)
