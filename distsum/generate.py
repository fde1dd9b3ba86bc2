"""Folders of random arrays to measure and try things with: ``distsum generate``.

The numbers of a file are a pure function of (seed, index of the file, dtype, distribution), whatever made them and
however many processes did: each file has a counter-based generator of its own, Philox 4x64 with the key (seed, index);
see Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11. A longer file begins with the numbers of a
shorter one.

===============  ============================================================  =========================
dtype            uniform                                                       normal
===============  ============================================================  =========================
f8, f4, f2       [0, 1) in steps of 2**-53, 2**-24, 2**-11                      standard normal; f2 rounded from f4
c16, c8          real and imaginary part, in turn, as f8 or f4                 the same
integers         every value of the dtype, all equally likely                  refused
bool             false and true, equally likely                                refused
===============  ============================================================  =========================

Byte order changes the bytes of a number, not its value. Text holds real numbers only.

Text is formatted under the interpreter's lock and small files are bound by it, so the work is shared among processes.
Each reads its share from standard input and stops when that closes: a process never outlives the one that started it,
however that ended.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Any, Final, cast

import msgspec

from distsum import dtypes
from distsum.errors import JobError, OutputError, StorageError, UsageError
from distsum.machine import usable_cpus
from distsum.stores.routing import RoutingStore, check_known, is_remote
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import numpy.typing as npt

    from distsum.formats.base import Format

    Report = Callable[[int, int], None]
    """Is told of the files and bytes that have been written since it was last called."""

FORMATS: Final = ("npy", "raw", "text")
DISTRIBUTIONS: Final = ("uniform", "normal")

_CHUNK_BYTES: Final = 1 << 20
_GRANULE: Final = 8
"""Numbers that a chunk holds a multiple of, so that it ends with a whole 64-bit word of the generator."""

_ALONE_BYTES: Final = 32 << 20
_ALONE_FILES: Final = 1000
"""Work below both is done before other processes have started."""

_ALONE_OBJECT_BYTES: Final = 4 << 20
"""An object in S3 up to this size is sent in one request."""

_REPORT_BYTES: Final = 8 << 20
_REPORT_FILES: Final = 64
_STOP_SECONDS: Final = 2.0

_CHILD: Final = "import sys; sys.path[:] = sys.argv[1:]; from distsum.generate import serve; serve()"


class Generated(msgspec.Struct, frozen=True):
    """What was written.

    Attributes:
        files: Files written.
        bytes_written: Their bytes.
        others: Files that lay in the folder, were kept, and would be taken for inputs with the rest of it.
    """

    files: int
    bytes_written: int
    others: int


class _Share(msgspec.Struct, frozen=True):
    """The files that one process writes: ``first``, ``first + step``, ... below ``files``."""

    destination: bytes
    files: int
    count: int
    dtype: str
    format: str
    seed: int
    distribution: str
    first: int
    step: int


class _Stopped(Exception):  # noqa: N818 - not an error: the process that gave the work is gone, or wants no more of it
    pass


def generate(
    destination: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    files: int,
    count: int,
    dtype: str = "f8",
    format: str = "npy",
    seed: int = 0,
    distribution: str = "uniform",
    workers: int | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Generated:
    """Write ``files`` files of ``count`` random numbers each into a folder, named so that byte order is numeric order.

    A file appears under its name when it is complete. Memory is a few MiB per process, whatever the size of a file.

    Args:
        destination: The folder; made if it does not exist, with those above it.
        files: Number of files, at least 1.
        count: Numbers in each, at least 0.
        dtype: dtype of the numbers, with a byte order if wanted, such as ``f8``, ``>f4`` or ``u2``.
        format: ``npy``, ``raw`` or ``text``.
        seed: From 0 to 2**64 - 1.
        distribution: ``uniform`` or ``normal``; see the module for what they mean for each dtype.
        workers: Processes at the most; None for one per usable CPU. It does not change a byte.
        force: Whether files of the same names are replaced, and other inputs in the folder are accepted. No other file
            is ever touched.
        progress: Called with the files and bytes written so far, now and then and at the end.

    Raises:
        UsageError: A value is not acceptable; the option is named. Or the format cannot hold the dtype.
        OutputError: The folder cannot be written, or without ``force`` holds inputs already. Nothing has been written.
        StorageError: The disk is full or failed. Complete files stay, unfinished ones are removed.
    """
    folder = os.fsencode(destination)
    check_known(folder)
    if is_remote(folder):
        folder = folder.rstrip(b"/")
    share = _checked(folder, files, count, dtype, format, seed, distribution)
    if workers is not None and workers < 1:
        raise UsageError(f"--workers must be at least 1, but is {workers}")
    output = _output_format(share)
    output.header(share.dtype, (count,), fortran=False)  # refuses what the format cannot hold
    others = _prepare_folder(share, output, force=force)

    done_files = done_bytes = 0

    def report(more_files: int, more_bytes: int) -> None:
        nonlocal done_files, done_bytes
        done_files += more_files
        done_bytes += more_bytes
        if progress is not None:
            progress(done_files, done_bytes)

    total = files * count * output.number_bytes(share.dtype)
    processes = min(workers or usable_cpus(), files)
    if processes == 1 or (total < _ALONE_BYTES and files < _ALONE_FILES):
        _write_share(share, report, stopped=lambda: False)
    else:
        _share_out(share, processes, report)
    return Generated(done_files, done_bytes, others)


def _checked(
    destination: bytes, files: int, count: int, dtype: str, format: str, seed: int, distribution: str
) -> _Share:
    for option, value, least in (("--files", files, 1), ("--count", count, 0), ("--seed", seed, 0)):
        if value < least:
            raise UsageError(f"{option} must be at least {least}, but is {value}")
    if seed >= 1 << 64:
        raise UsageError(f"--seed must be below 2**64, but is {seed}")
    if format not in FORMATS:
        raise UsageError(f"--format must be one of {', '.join(FORMATS)}, but is {printable(format)!r}")
    if distribution not in DISTRIBUTIONS:
        raise UsageError(
            f"--distribution must be one of {', '.join(DISTRIBUTIONS)}, but is {printable(distribution)!r}"
        )
    try:
        parsed = dtypes.parse_dtype(dtype)
    except ValueError as error:
        raise UsageError(f"--dtype: {error}") from None
    if distribution == "normal" and dtypes.kind(parsed) not in "fc":
        raise UsageError(f"--distribution normal needs a floating --dtype such as f8, but it is {dtype}")
    return _Share(destination, files, count, parsed, format, seed, distribution, 0, 1)


def _output_format(share: _Share) -> Format:
    from distsum.formats.registry import by_name

    return by_name(share.format)


def _prepare_folder(share: _Share, output: Format, *, force: bool) -> int:
    """Make the folder, and return how many other files that would be taken for inputs it holds.

    Raises:
        OutputError: See ``generate``.
    """
    from distsum.formats.registry import by_suffix

    folder, name = share.destination, printable(share.destination)
    held = _held_in_bucket(folder) if is_remote(folder) else _held_on_disk(folder, name)
    suffix = output.suffixes[0].encode()
    same = sorted(entry for entry in held if _is_planned(entry, suffix, share.files))
    for entry in same:
        if held[entry]:
            raise OutputError(f"{printable(os.path.join(folder, entry))} is a folder where a file would be written")
    others = sorted(held.keys() - set(same))
    others = [entry for entry in others if not held[entry] and by_suffix(entry) is not None]
    if force:
        return len(others)
    if same:
        raise OutputError(
            f"{name} holds {len(same)} of the {share.files} files to be written, such as {printable(same[0])}; "
            "choose another folder, or replace them with --force"
        )
    if others:
        raise OutputError(
            f"{name} holds {len(others)} other input files, such as {printable(others[0])}, which a job over this "
            "folder would take in as well; choose another folder, or write beside them with --force"
        )
    return 0


def _held_on_disk(folder: bytes, name: str) -> dict[bytes, bool]:
    """Make a folder, and return what is visible in it, each with whether it is a folder."""
    if not folder:
        raise OutputError("the destination is an empty name; name a folder")
    try:
        os.makedirs(folder, exist_ok=True)
        with os.scandir(folder) as entries:
            held = {entry.name: entry.is_dir() for entry in entries if not entry.name.startswith(b".")}
    except FileExistsError:
        raise OutputError(f"{name} exists and is not a folder; choose another name") from None
    except OSError as error:
        raise OutputError(f"{name}: cannot be made or listed: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{name}: no permission to write into this folder")
    return held


def _held_in_bucket(folder: bytes) -> dict[bytes, bool]:
    with contextlib.closing(RoutingStore()) as store:
        store.preflight(folder)
        return {name: False for name in store.s3.children(folder + b"/") if not name.startswith(b".")}


def _file_name(index: int, files: int, suffix: bytes) -> bytes:
    return b"%0*d%s" % (len(str(files - 1)), index, suffix)


def _is_planned(name: bytes, suffix: bytes, files: int) -> bool:
    stem = name.removesuffix(suffix)
    return stem.isdigit() and int(stem) < files and name == _file_name(int(stem), files, suffix)


def _write_share(share: _Share, report: Report, *, stopped: Callable[[], bool]) -> None:
    """Write the files of a share; see ``_write_files``."""
    with contextlib.closing(RoutingStore()) as store:
        _write_files(share, report, store, stopped=stopped)


def _write_files(share: _Share, report: Report, store: RoutingStore, *, stopped: Callable[[], bool]) -> None:
    """Write the files of a share.

    Raises:
        StorageError: Writing failed; the unfinished file is removed.
        _Stopped: ``stopped`` said so; the unfinished file is removed.
    """
    output = _output_format(share)
    header = output.header(share.dtype, (share.count,), fortran=False)
    suffix = output.suffixes[0].encode()
    stream = Stream(share.dtype, share.distribution)
    size = max(_GRANULE, _CHUNK_BYTES // output.number_bytes(share.dtype) // _GRANULE * _GRANULE)
    files = pending = 0

    def wrote(more_bytes: int) -> None:
        nonlocal files, pending
        pending += more_bytes
        if pending >= _REPORT_BYTES or files >= _REPORT_FILES:
            report(files, pending)
            files = pending = 0
        if stopped():
            raise _Stopped

    for index in range(share.first, share.files, share.step):
        final = os.path.join(share.destination, _file_name(index, share.files, suffix))
        chunks = stream.chunks(share.seed, index, share.count, size)
        parts = _encoded(share, output, chunks)
        if is_remote(final):
            _write_object(store, final, header, share.count * output.number_bytes(share.dtype), parts, wrote)
            files += 1
            continue
        try:
            _write_file(final, header, parts, wrote)
        except OSError as error:
            from distsum.stores.local import storage_error

            raise storage_error("write", final, error) from error
        files += 1
    report(files, pending)


def _encoded(share: _Share, output: Format, chunks: Iterator[npt.NDArray[Any]]) -> Iterator[bytes | memoryview]:
    for values in chunks:
        # ``encode`` takes numbers in the byte order of the machine, and these may be wanted in the other.
        yield (
            output.encode(values) if share.format == "text" else values.astype(share.dtype, copy=False).view("u1").data
        )


def _write_file(final: bytes, header: bytes, parts: Iterator[bytes | memoryview], wrote: Callable[[int], None]) -> None:
    """Write one file under a hidden temporary name, then rename it; ``wrote`` is told the bytes of each write.

    It is not flushed to the disk: what a power cut takes can be generated again.
    """
    folder, name = os.path.split(final)
    temporary = os.path.join(folder, b".%s.%d.tmp" % (name, os.getpid()))
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        try:
            buffers = [memoryview(header)]
            for part in parts:
                wrote(_write_all(descriptor, [*buffers, memoryview(part)]))
                buffers = []
            wrote(_write_all(descriptor, buffers))
        finally:
            os.close(descriptor)
        os.rename(temporary, final)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _write_object(
    store: RoutingStore,
    final: bytes,
    header: bytes,
    size: int,
    parts: Iterator[bytes | memoryview],
    wrote: Callable[[int], None],
) -> None:
    """Write one object: in one request where it is small, else in parts, and visible when it is complete."""
    if size <= _ALONE_OBJECT_BYTES:
        # Copies: the chunks may be views of one array that is filled over and over.
        buffers = [header, *map(bytes, parts)]
        wrote(store.put(final, buffers))
        return

    def told() -> Iterator[bytes | memoryview]:
        for part in itertools.chain((header,), parts):
            yield part
            wrote(len(part))

    handle = store.create_output(final, len(header) + size)
    try:
        store.commit_output(handle, final, [store.write_range(handle, 0, told())], replace=True)
    except BaseException:
        store.abort_output(handle)
        raise


def _write_all(descriptor: int, buffers: list[memoryview]) -> int:
    total = sum(map(len, buffers))
    left = total
    while left:
        written = os.writev(descriptor, buffers)
        left -= written
        while buffers and written >= len(buffers[0]):
            written -= len(buffers.pop(0))
        if buffers:
            buffers[0] = buffers[0][written:]
    return total


class Stream:
    """The random numbers of any file, for one dtype and distribution.

    Args:
        dtype: ``dtype.str`` of the numbers; its byte order does not matter.
        distribution: ``uniform`` or ``normal``.
    """

    def __init__(self, dtype: str, distribution: str) -> None:
        import numpy as np

        self._philox = np.random.Philox(key=0)
        self._state: Any = self._philox.state
        self._generator = np.random.Generator(self._philox)
        self._native = np.dtype(dtype).newbyteorder("=")
        self._normal = distribution == "normal"

    def chunks(self, seed: int, index: int, count: int, size: int) -> Iterator[npt.NDArray[Any]]:
        """Yield ``count`` numbers of a file, in native byte order, ``size`` at a time (a multiple of 8)."""
        self._restart(seed, index)
        for start in range(0, count, size):
            yield self._next(min(size, count - start))

    def _restart(self, seed: int, index: int) -> None:
        """Give the generator the state of a new ``Philox(key=[seed, index])``, many times faster than making one."""
        self._state["state"]["key"][:] = seed, index
        self._philox.state = self._state

    def _next(self, count: int) -> npt.NDArray[Any]:
        import numpy as np

        dtype = self._native
        if dtype.kind == "c":
            return self._floats(2 * count, np.dtype(f"f{dtype.itemsize // 2}")).view(dtype)
        if dtype.kind == "f":
            return self._floats(count, dtype)
        words = -(-count * dtype.itemsize // 8)
        drawn = self._generator.integers(0, (1 << 64) - 1, size=words, dtype=np.uint64, endpoint=True)
        # Little-endian on every machine, so that the small integers of a word come in the same order.
        little = drawn.astype("<u8", copy=False)
        if dtype.kind == "b":
            return (little.view(np.uint8)[:count] & 1).view(np.bool_)
        return little.view(dtype.newbyteorder("<"))[:count].astype(dtype, copy=False)

    def _floats(self, count: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        import numpy as np

        wide = np.float64 if dtype.itemsize == 8 else np.float32
        if self._normal:
            return self._generator.standard_normal(count, dtype=wide).astype(dtype, copy=False)
        values = self._generator.random(count, dtype=wide)
        if dtype.itemsize > 2:
            return values
        # Rounding to half precision would reach 1.
        return (np.floor(values * np.float32(2048)) / np.float32(2048)).astype(dtype)


class _Child:
    """A process that writes a share."""

    def __init__(self, share: _Share) -> None:
        """Start it, in a process group of its own: it is told of Ctrl-C by its parent, and not while it starts."""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CHILD, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            process_group=0,
        )
        self._input = cast("IO[bytes]", self._process.stdin)
        self.output = cast("IO[bytes]", self._process.stdout)
        self._received = b""
        with contextlib.suppress(BrokenPipeError):
            self._input.write(msgspec.json.encode(share) + b"\n")
            self._input.flush()

    def receive(self, report: Report) -> bool:
        """Pass on what it reports; return whether it may report more.

        Raises:
            StorageError: What it failed with.
            JobError: It was killed.
        """
        data = os.read(self.output.fileno(), 1 << 16)
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            if line.startswith(b"!"):
                raise StorageError(msgspec.json.decode(line[1:], type=str))
            files, size = line.split()
            report(int(files), int(size))
        if data:
            return True
        status = self._process.wait()
        if status:
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            raise JobError(f"a process that wrote files {how}; complete files are kept, run again with --force")
        return False

    def tell_to_stop(self) -> None:
        """Close its standard input; it removes its unfinished file and ends."""
        with contextlib.suppress(BrokenPipeError):
            self._input.close()

    def end(self, deadline: float) -> None:
        """Wait for its end until a time on the monotonic clock, then kill it."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.output.close()


def _share_out(share: _Share, processes: int, report: Report) -> None:
    """Have processes write every ``processes``-th file each, and pass on what they report.

    Raises:
        StorageError: What one of them raised.
        JobError: One of them was killed.
    """
    children: list[_Child] = []
    try:
        with selectors.DefaultSelector() as selector:
            for first in range(processes):
                child = _Child(msgspec.structs.replace(share, first=first, step=processes))
                children.append(child)
                selector.register(child.output, selectors.EVENT_READ, child)
            while selector.get_map():
                for key, _ in selector.select():
                    if not key.data.receive(report):
                        selector.unregister(key.fileobj)
    finally:
        for child in children:
            child.tell_to_stop()
        deadline = time.monotonic() + _STOP_SECONDS
        for child in children:
            child.end(deadline)


def serve() -> None:
    """Be a process that writes a share: read it from standard input, report to standard output, stop when told to."""
    received = b""
    while not received.endswith(b"\n"):
        data = os.read(0, 1 << 16)
        if not data:
            return
        received += data
    share = msgspec.json.decode(received, type=_Share)
    gone = threading.Event()

    def watch() -> None:
        os.read(0, 1)
        gone.set()

    threading.Thread(target=watch, daemon=True).start()
    try:
        _write_share(share, lambda files, size: _say(b"%d %d" % (files, size)), stopped=gone.is_set)
    except _Stopped:
        pass
    except StorageError as error:
        _say(b"!" + msgspec.json.encode(str(error)))


def _say(line: bytes) -> None:
    try:
        os.write(1, line + b"\n")
    except BrokenPipeError:
        raise _Stopped from None
