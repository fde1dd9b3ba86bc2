"""A job's events with their times, in a file, from which its tallies can be counted again (no clock of its own).

A history is a line of text that says what it is, then blocks: 4 bytes of length and 4 of CRC-32 (little-endian), then
zlib over msgpack of a ``HistoryHeader``, of ``_Events`` again and again, and of a ``HistoryEnd``. So one that is cut
short or damaged can be played up to there. Messages change with their protocol, so the line tells that, too.

It is bounded: of heartbeats one a worker and second is kept, and when it has grown too long only what is rare is. How
many events were dropped for that is told at its end.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from distsum import __version__
from distsum.errors import HistoryError, StorageError
from distsum.messages import (
    PROTOCOL,
    Heartbeat,
    JobEvent,
    JobFailed,
    JobStarted,
    JobSucceeded,
    TaskId,
    TaskStarted,
    TaskSucceeded,
)
from distsum.observe.fold import JobTally
from distsum.observe.ledger import Ledger, LedgerReport
from distsum.observe.snapshot import BackupRule, PhaseWork
from distsum.observe.subtree import is_whole
from distsum.observe.workers import WorkerTable
from distsum.tree import Tree
from distsum.wording import counted, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from distsum.stores.base import Reader, Store

VERSION: Final = 1
"""Raised whenever the blocks change so that an older reader would misread them."""
MOST_BYTES: Final = 64 << 20
"""What a history may take; a task takes some 50 bytes of it."""
MOST_TASKS: Final = 20_000_000
"""Of a job that is played, since each takes memory: more than ten times as many as the longest history tells of."""
_LATEST_SECONDS: Final = 1e11
"""In the year 5138."""
_BLOCK_BYTES: Final = 64 << 10
_MOST_BLOCK_BYTES: Final = 16 << 20
"""A block that claims to be longer, packed or unpacked, is damaged."""
_MOST_EVENT_BYTES: Final = 1 << 20
_MOST_SECONDS: Final = 1e9
_HEARTBEAT_SECONDS: Final = 1.0
_LEVEL: Final = 3
_RARE_SHARE: Final = 8
"""The last eighth of the room is for what is rare."""
_FIRST_LINE: Final = re.compile(rb"distsum history (\d{1,9}) protocol (\d{1,9}) by distsum ([^\n ]{1,80})\n")
_LINE_BYTES: Final = 160
_UNFINISHED: Final = "but for its last seconds"


class HistoryHeader(msgspec.Struct, frozen=True, kw_only=True, tag="header"):
    """What a history is of.

    Attributes:
        job: Job id.
        reduction: For example ``mean``.
        files: Inputs given.
        output: The result's URI, harmless to show.
        work: What each phase takes, by the plan.
        began_seconds: When the clock of its events began, in seconds of the Unix epoch.
        resumed: Whether an earlier master has begun the job.
        earlier: What that has told of stragglers; None where there was none, or it had stored nothing yet.
        fan_in: Children of a node of the canonical tree; 0 in what was stored before this and all below was told.
        exponent: k of the partition ``fan_in ** k``.
        count: Numbers in each input.
        dtype: numpy ``dtype.str`` of the inputs.
        input_bytes: Bytes of all inputs.
        inputs: The first and the last input, harmless to show.
        command: What does the same again: a command and its arguments, harmless to show; ``@inputs.txt`` stands for a
            list of the inputs.
        speculation: Whether stragglers got backups when it began; None in what was stored before this was told.
        rule: By what rule; None where they got none, and in what was stored before this was told.
    """

    job: str
    reduction: str
    files: int
    output: str
    work: tuple[PhaseWork, ...]
    began_seconds: float
    resumed: bool = False
    fan_in: int = 0
    exponent: int = 0
    count: int = 0
    dtype: str = ""
    input_bytes: int = 0
    inputs: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    speculation: bool | None = None
    rule: BackupRule | None = None
    earlier: LedgerReport | None = None

    @property
    def remark(self) -> str | None:
        """What is to be known of where it begins, in a sentence; None of a job that no earlier master has begun."""
        if not self.resumed:
            return None
        told = "is not told" if self.earlier is None else "is told of stragglers only"
        if self.earlier is not None and self.earlier.remark is not None:
            told = f"{told}, {self.earlier.remark}"
        return f"an earlier master had begun the job, and what it did {told}"

    @property
    def tree(self) -> Tree | None:
        """The tree; None of a history from before it was told, or of one that is no tree."""
        tree = Tree(files=self.files, fan_in=self.fan_in, exponent=self.exponent)
        return tree if is_whole(tree) and tree.phases == len(self.work) else None


class _Events(msgspec.Struct, frozen=True, tag="events"):
    events: list[tuple[float, JobEvent]]


class HistoryEnd(msgspec.Struct, frozen=True, tag="end"):
    """That a history is whole: events that are in it, and those that were dropped to keep it short."""

    events: int
    dropped: int


_DECODER: Final = msgspec.msgpack.Decoder(HistoryHeader | _Events | HistoryEnd)
_ENCODER: Final = msgspec.msgpack.Encoder()
_FREQUENT: Final = (TaskStarted, TaskSucceeded, Heartbeat)


class HistoryWriter:
    """Writes a history while its job runs, in constant memory; events cost some microseconds.

    A disk that fails ends it, and nothing else: ``failure`` says why.

    Args:
        file: Where it goes, from its beginning.
        header: What it is of.
        most_bytes: What it may take.

    Attributes:
        events: Events kept so far.
        failure: Why it has ended too early.
    """

    def __init__(self, file: BinaryIO, header: HistoryHeader, most_bytes: int = MOST_BYTES) -> None:
        self._file = file
        self._most_bytes = most_bytes
        self._size = 0
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._heard: dict[str, tuple[float, TaskId | None, int]] = {}
        self.events = 0
        self._dropped = 0
        self.failure: str | None = None
        self._write(f"distsum history {VERSION} protocol {PROTOCOL} by distsum {__version__}\n".encode())
        self._write_block(_ENCODER.encode(header))

    def take(self, event: msgspec.Struct, now: float) -> None:
        """Keep one event that happened ``now`` seconds after the clock began."""
        if self._is_repeated(event, now):
            return
        if isinstance(event, TaskSucceeded):
            event = msgspec.structs.replace(event, receipt=b"")
        elif isinstance(event, JobSucceeded):
            # Its tasks have told of the inputs that were left out, and receipts are the store's.
            event = msgspec.structs.replace(event, skipped=(), receipts=())
        room = self._most_bytes
        if isinstance(event, _FREQUENT):
            room -= room // _RARE_SHARE
        encoded = _ENCODER.encode((now, event))
        full = self._size + self._pending_bytes // 4 > room and not isinstance(event, JobSucceeded | JobFailed)
        if full or len(encoded) > _MOST_EVENT_BYTES or self.failure is not None:
            self._dropped += 1
            return
        self.events += 1
        self._pending.append(encoded)
        self._pending_bytes += len(encoded)
        if self._pending_bytes >= _BLOCK_BYTES:
            self._flush()

    def _is_repeated(self, event: msgspec.Struct, now: float) -> bool:
        """Whether an event is a heartbeat that only says again what one has said a moment ago, and nothing between."""
        if not isinstance(event, Heartbeat):
            if (worker := getattr(event, "worker", None)) is not None:
                self._heard.pop(worker, None)
            return False
        last = self._heard.get(event.worker)
        if last is not None and last[1:] == (event.task, event.attempt) and now - last[0] < _HEARTBEAT_SECONDS:
            return True
        self._heard[event.worker] = now, event.task, event.attempt
        return False

    def finish(self) -> None:
        """Write what is left, and that it is whole."""
        self._flush()
        self._write_block(_ENCODER.encode(HistoryEnd(self.events, self._dropped)))
        self._flush_file()

    def reach(self) -> int:
        """Write what is left, and return how many bytes there are: a history that can be played up to there."""
        self._flush()
        self._flush_file()
        return self._size

    def _flush(self) -> None:
        if self._pending:
            self._write_block(
                _ENCODER.encode({"type": "events", "events": [msgspec.Raw(each) for each in self._pending]})
            )
            self._pending.clear()
            self._pending_bytes = 0

    def _write_block(self, content: bytes) -> None:
        packed = zlib.compress(content, _LEVEL)
        self._write(len(packed).to_bytes(4, "little") + zlib.crc32(packed).to_bytes(4, "little") + packed)

    def _flush_file(self) -> None:
        if self.failure is None:
            try:
                self._file.flush()
            except OSError as error:
                self.failure = _why(error)

    def _write(self, data: bytes) -> None:
        if self.failure is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.failure = _why(error)
            self._size += len(data)


class Recorder:
    """A history that is written to a temporary file while its job runs, and stored when that has ended.

    Args:
        header: What it is of.

    Raises:
        OSError: There is no room for temporary files.
    """

    def __init__(self, header: HistoryHeader) -> None:
        import tempfile  # takes 5 ms, and most runs record nothing

        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - until `close`
        self._writer = HistoryWriter(self._file, header)

    def take(self, event: msgspec.Struct, now: float) -> None:
        """Keep one event; see ``HistoryWriter``."""
        self._writer.take(event, now)

    @property
    def events(self) -> int:
        """Events kept so far."""
        return self._writer.events

    def store(self, store: Store, uri: bytes) -> None:
        """Store the history, whose end this is.

        Raises:
            StorageError: It cannot be stored, or was not written to its end.
        """
        self._writer.finish()
        self._store(store, uri, self._writer.reach())

    def store_so_far(self, store: Store, uri: bytes, reached: int) -> None:
        """Store the history up to where it had come; from any thread, while events are taken.

        Args:
            store: Where it goes.
            uri: Its name there.
            reached: What ``reach`` has returned.

        Raises:
            StorageError: It cannot be stored, or was not written up to there.
        """
        self._store(store, uri, reached)

    def reach(self) -> int:
        """Write what is left; return how many bytes there are, for ``store_so_far``."""
        return self._writer.reach()

    def _store(self, store: Store, uri: bytes, size: int) -> None:
        import mmap

        if self._writer.failure is not None:
            raise StorageError(f"the temporary file of a history could not be written: {self._writer.failure}")
        # Not read into memory; and nobody else has the file, so that it cannot become shorter.
        store.put(uri, [memoryview(mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ))])

    def close(self) -> None:
        """Let go of the temporary file."""
        self._file.close()


class History:
    """A stored history.

    Args:
        reader: Opened where it lies.

    Attributes:
        header: What it is of.
        version: Of the distsum that has written it, harmless to show.
        remark: What is to be known of it, in a sentence, once its events have been gone through; None of a whole one.
        unfinished: Whether that is only that it has no end: it was stored while its job ran.

    Raises:
        HistoryError: It is no history, one of another version, or damaged where it begins.
        StorageError: It cannot be read.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._name = printable(reader.uri)
        self.remark: str | None = None
        self.unfinished = False
        first = reader.read(0, _LINE_BYTES)
        found = _FIRST_LINE.match(first)
        if found is None:
            raise HistoryError(f"{self._name} is no history of a job; --history makes them, and `distsum master`")
        version, protocol = int(found[1]), int(found[2])
        self.version = printable(found[3].decode("ascii", "replace"))
        if (version, protocol) != (VERSION, PROTOCOL):
            raise HistoryError(
                f"{self._name} is a history of version {version}, protocol {protocol}, and this is distsum "
                f"{__version__}, which reads version {VERSION}, protocol {PROTOCOL}; "
                f"read it with distsum {self.version}"
            )
        try:
            header, self._begin = self._block(len(found[0]))
        except _DamagedError as error:
            raise HistoryError(f"{self._name}: this history cannot be played, {error}") from None
        if not isinstance(header, HistoryHeader) or not all(work.tasks > 0 for work in header.work):
            raise HistoryError(f"{self._name}: this history cannot be played, since it does not say what it is of")
        if not 0.0 <= header.began_seconds < _LATEST_SECONDS:
            raise HistoryError(f"{self._name}: this history cannot be played, since it does not say when it began")
        if (tasks := sum(work.tasks for work in header.work)) > MOST_TASKS:
            raise HistoryError(
                f"{self._name}: this history cannot be played: it tells of {tasks:,} tasks, and at most {MOST_TASKS:,} "
                "fit into memory"
            )
        self.header = header

    def events(self) -> Iterator[tuple[float, msgspec.Struct]]:
        """Yield the events with their times, up to where the history ends or is damaged.

        Raises:
            StorageError: It cannot be read.
        """
        self.remark, self.unfinished = None, False
        place = self._begin
        played = 0
        try:
            while True:
                block, place = self._block(place)
                if isinstance(block, HistoryEnd):
                    break
                if not isinstance(block, _Events):
                    raise _DamagedError(f"a second header stands before byte {place:,}")
                for seconds, event in block.events:
                    self._check(seconds, event)
                    yield seconds, event
                    played += 1
        except _DamagedError as error:
            self.remark = f"the history is incomplete: {error}; {counted(played, 'event')} before that were played"
            self.unfinished = isinstance(error, _NoEndError)
            return
        if block.dropped:
            self.remark = (
                f"the history was cut to keep it short: it lacks {counted(block.dropped, 'event')} of "
                f"{block.events + block.dropped:,}, so what is counted from it is less than it was"
            )

    def _block(self, place: int) -> tuple[Any, int]:
        """Return a block, and where the next one begins."""
        head = self._reader.read(place, 8)
        size = int.from_bytes(head[:4], "little")
        if len(head) == 8 and size > _MOST_BLOCK_BYTES:
            raise _DamagedError(f"it is damaged at byte {place:,}")
        packed = self._reader.read(place + 8, size) if len(head) == 8 else b""
        if not head:
            raise _NoEndError(f"it ends in the middle, at byte {place:,}")
        if len(head) < 8 or len(packed) < size:
            raise _DamagedError(f"it ends in the middle, at byte {place + len(head) + len(packed):,}")
        if zlib.crc32(packed).to_bytes(4, "little") != head[4:]:
            raise _DamagedError(f"it is damaged at byte {place:,}")
        unpacker = zlib.decompressobj()
        try:
            content = unpacker.decompress(packed, _MOST_BLOCK_BYTES)
            if not unpacker.eof:
                raise _DamagedError(f"it is damaged at byte {place:,}")
            return _DECODER.decode(content), place + 8 + size
        except (zlib.error, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _DamagedError(f"it is damaged at byte {place:,} ({printable(str(error), 80)})") from None

    def _check(self, seconds: float, event: msgspec.Struct) -> None:
        """Make sure that an event can be of this job."""
        if not 0.0 <= seconds < _MOST_SECONDS:
            raise _DamagedError(f"it tells of something {seconds:g} s after its beginning")
        task = getattr(event, "task", None)
        phases = len(self.header.work)
        if isinstance(task, TaskId) and not 1 <= task.phase <= phases:
            raise _DamagedError(f"it tells of phase {task.phase}, and the job has {phases}")
        if isinstance(event, JobStarted) and not len(event.tasks) == len(event.reused) == phases:
            raise _DamagedError(f"it tells of {len(event.tasks)} phases, and the job has {phases}")


class Replay:
    """Everything that was counted while a job ran, counted again from its history.

    Args:
        history: Where to play from.

    Attributes:
        header: What it is of.
        tally: Of the job.
        workers: Of its workers.
        seconds: The time of the last event.
        remark: As of ``History``.
    """

    def __init__(self, history: History) -> None:
        self.header = history.header
        self.tally = tally_of(self.header)
        self.workers = WorkerTable()
        self.seconds = 0.0
        started = False
        for seconds, event in history.events():
            started = started or isinstance(event, JobStarted)
            if started or not isinstance(getattr(event, "task", None), TaskId):
                self.tally.take(event, seconds)
                self.workers.take(event, seconds)
            self.seconds = seconds
        self.remark = history.remark

    def ledger_report(self) -> LedgerReport:
        """Return the job's ledger."""
        return self.tally.ledger_report(self.header.began_seconds, self.remark or self.header.remark)


def tally_of(header: HistoryHeader, uri_of: Callable[[int], bytes] = lambda index: b"input %d" % index) -> JobTally:
    """Return what counts a history's events, before the first; ``uri_of`` tells what is known of an input's name."""
    tally = JobTally(header.work, uri_of, speculation=header.speculation)
    tally.describe(header.job, header.reduction, header.files)
    if header.earlier is not None:
        tally.carry_on(header.earlier, header.began_seconds)
    return tally


def ledger_of(history: History) -> LedgerReport:
    """Return the ledger that a history comes to, as ``Replay`` does, but nothing else, and in a tenth of the time.

    Its remark is for the header of the next one, whose sentence it ends.

    Raises:
        StorageError: It cannot be read.
    """
    header = history.header
    ledger = Ledger()
    bytes_read, earlier_seconds = 0, 0.0
    if header.earlier is not None:
        ledger.carry_on(header.earlier, header.began_seconds - header.earlier.began_seconds)
        bytes_read = header.earlier.bytes_read
        earlier_seconds = header.earlier.seconds_until(header.began_seconds)
    for seconds, event in history.events():
        ledger.take(event, seconds)
        if isinstance(event, TaskSucceeded):
            bytes_read += event.effort.bytes_read
    return LedgerReport(
        totals=ledger.totals(),
        entries=ledger.entries,
        cut=ledger.cut,
        bytes_read=bytes_read,
        began_seconds=header.began_seconds,
        remark=_lacking(history),
        earlier_seconds=earlier_seconds,
    )


def _lacking(history: History) -> str | None:
    """Return what a history lacks, which has been gone through, and the one before it, as the end of a sentence."""
    before = history.header.earlier.remark if history.header.earlier is not None else None
    own = _UNFINISHED if history.unfinished else history.remark and f"and not all of that: {history.remark}"
    # Of each master only the last seconds are missing, which need be said but once.
    return ", ".join(dict.fromkeys(each for each in (before, own) if each)) or None


class _DamagedError(Exception):
    """A history cannot be read from here on; the text says why."""


class _NoEndError(_DamagedError):
    """A history ends after a whole block, as one does that is stored while its job runs."""


def _why(error: OSError) -> str:
    return error.strerror or str(error)
