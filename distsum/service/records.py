"""What the service stores of its jobs, so that any master can go on where another one ended.

``<work>/jobs/<job>/`` holds ``inputs`` and ``record``, written by the client that submits, and what the master writes:
``ticket``, with which the job is accepted; ``spec``, with which it has begun; and ``outcome``, with which it has ended,
after ``history``, which tells all that happened (``observe.history``; of a running job, until some seconds ago).
``cancelled`` tells that a client wants it no more: an object of its own, for a master that dies while it writes must
not damage what was promised before. Below ``children`` workers store nodes inside long tasks, of use to this job alone;
they are removed when it has ended.
``<work>/serving`` tells which master serves, and ``<work>/workers`` how many workers its fleet was asked to have.
"""

from __future__ import annotations

import logging
import os
import re
import time
import uuid
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from distsum.errors import OutputError, StorageError
from distsum.jobs import Job, JobRecord
from distsum.logs import concerning
from distsum.manifest import Manifest
from distsum.observe.history import History, Replay, ledger_of
from distsum.partials import children_uri, manifest_uri, partial_uri, spec_uri
from distsum.request import Summary
from distsum.service.messages import JobState, JobStatus
from distsum.stores.routing import is_remote
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.observe.history import Recorder
    from distsum.observe.ledger import LedgerReport
    from distsum.stores.base import Reader, Store

log = logging.getLogger(__name__)


class DamagedRecordError(StorageError):
    """What was stored is not what we store: a server may keep the beginning of what a dying process has sent."""


def passing_result(work: bytes) -> bytes:
    """Return where a result lies for a moment, which a Python client takes from there and removes."""
    return work + f"/results/{uuid.uuid4().hex}.npy".encode()


def check_outside(output: bytes, work: bytes) -> None:
    """Make sure that a result is not written where the service keeps what is its own.

    Args:
        output: URI of the result.
        work: URI of the work folder, without a slash at its end.

    Raises:
        OutputError: It would be.
    """
    if is_remote(output) or is_remote(work):
        name, folder = output, work
    else:
        # Also by way of a link; the result itself may be one, and is replaced and not followed.
        name = os.path.join(os.path.realpath(os.path.dirname(output)), os.path.basename(output))
        folder = os.path.realpath(work)
    inside = name[len(folder) :] if name.startswith(folder + b"/") else b"" if name == folder else None
    if inside is not None and _PASSING.fullmatch(inside) is None:
        raise OutputError(
            f"{printable(output)} lies in the service's work folder {printable(work)}, which holds nothing but what is "
            "its own; choose another output"
        )


class Ticket(msgspec.Struct, frozen=True):
    """That a job was accepted, when (seconds of the Unix epoch), and how urgent it is."""

    submitted_seconds: float
    priority: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended, and when (seconds of the Unix epoch); its ``summary`` if it has succeeded."""

    state: JobState
    ended_seconds: float
    exit_code: int
    reason: str | None = None
    summary: Summary | None = None


class FleetSize(msgspec.Struct, frozen=True):
    """How many workers the hosts of a master's fleet are to have in all."""

    workers: int


class Files(msgspec.Struct, frozen=True):
    """A job's folder, as a listing shows it.

    Attributes:
        job: The job.
        names: What is in it.
        ended_ago_seconds: Time since its end was stored; None of one that has not ended.
    """

    job: str
    names: frozenset[str]
    ended_ago_seconds: float | None

    @property
    def accepted(self) -> bool:
        """Whether a master has promised to run it."""
        return "ticket" in self.names

    @property
    def cancelled(self) -> bool:
        """Whether it is wanted no more."""
        return "cancelled" in self.names

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.ended_ago_seconds is not None

    @property
    def tidy(self) -> bool:
        """Whether it has ended, and what it needed is gone."""
        return self.ended and "inputs" not in self.names


_ID: Final = re.compile(r"[0-9a-f]{12}")
_PASSING: Final = re.compile(rb"/results/[0-9a-f]{32}\.npy")
_Content = TypeVar("_Content")
_RECORD: Final = msgspec.msgpack.Decoder(JobRecord)
_TICKET: Final = msgspec.msgpack.Decoder(Ticket)
_OUTCOME: Final = msgspec.msgpack.Decoder(Outcome)
_FLEET_SIZE: Final = msgspec.msgpack.Decoder(FleetSize)


class Records:
    """The jobs of one work folder.

    Args:
        store: Where it lies.
        work: Its URI.

    Attributes:
        work: Likewise.
    """

    def __init__(self, store: Store, work: bytes) -> None:
        self._store = store
        self.work = work

    def preflight(self) -> None:
        """Make sure that the folder can be reached.

        Raises:
            UnreachableError: It cannot; the message says why in one line.
        """
        self._store.preflight(self.work)

    def put_job(self, job: Job) -> None:
        """Store all that a master and its workers need to know of a job."""
        job.store_inputs()
        self._put(job.spec.job, "record", job.record)

    def load(self, job: str) -> Job:
        """Return a stored job.

        Raises:
            StorageError: It is not there, or damaged.
        """
        record = self.record(job)
        reader = self._store.open(manifest_uri(self.work, job))
        if reader is None:
            raise StorageError(f"job {job} has no list of inputs in {printable(self.work)}")
        with reader:
            manifest = Manifest.load(reader)
        return Job(record, manifest, self._store)

    def record(self, job: str) -> JobRecord:
        """Return what a job is.

        Raises:
            StorageError: It is not there, or damaged.
        """
        found = self._get(job, "record", _RECORD)
        if found is None or found.spec.job != job or found.spec.work != self.work:
            raise StorageError(
                f"job {job} is not in {printable(self.work)} as the master sees it; clients, master and workers must "
                "reach one folder under that name"
            )
        return found

    def accept(self, job: str, ticket: Ticket) -> None:
        """Store that a job is accepted, or has another priority."""
        self._put(job, "ticket", ticket)

    def cancel(self, job: str) -> None:
        """Store that a job is wanted no more."""
        self._store.put(self._uri(job, "cancelled"), [b""])

    def ticket(self, job: str) -> Ticket:
        """Return a job's ticket. A damaged one still tells that the job was accepted.

        Raises:
            StorageError: It is not there, or cannot be read.
        """
        try:
            found = self._get(job, "ticket", _TICKET)
        except DamagedRecordError as error:
            log.warning("%s; job %s counts as accepted now, with priority 0", error, job, extra=concerning(job=job))
            return Ticket(time.time(), 0)
        if found is None:
            raise StorageError(f"job {job} was never accepted")
        return found

    def commit(self, job: str) -> None:
        """Store that the result is about to become visible: after a crash, what is there may be it."""
        self._store.put(self._uri(job, "committing"), [b""])

    def committing(self, job: str) -> bool:
        """Whether a result may have become visible before a crash."""
        return self._store.exists(self._uri(job, "committing"))

    def end(self, job: str, outcome: Outcome) -> None:
        """Store how a job ended."""
        self._put(job, "outcome", outcome)

    def tidy(self, job: Job, *, aborted: bool, keep_partials: bool) -> None:
        """Remove what a job has needed that has ended; what is removed last tells that this is not done yet.

        Args:
            job: The job.
            aborted: Whether what was written of its output goes as well.
            keep_partials: Whether its partials stay.
        """
        name = job.spec.job
        if aborted:
            job.abort_begun()
        # Before the partials: a worker that has stored one looks whether its job is still described, and if it is not
        # takes it away again. So none is left, however late it comes.
        self._store.delete(spec_uri(self.work, name))
        # Also of one that failed: submitted again it is another job, which looks for partials, but not in there.
        self._store.delete_all(children_uri(self.work, name), set())
        if not keep_partials:
            stored = job.stored_partials()
            for key in job.node_keys():
                if key in stored:
                    self._store.delete(partial_uri(self.work, key))
        self._store.delete(manifest_uri(self.work, name))

    def outcome(self, job: str) -> Outcome | None:
        """Return how a job ended; None if it has not.

        Raises:
            DamagedRecordError: A master has died while it stored that, and so it was told to nobody.
            StorageError: It cannot be read.
        """
        return self._get(job, "outcome", _OUTCOME)

    def put_history(self, job: str, recorder: Recorder) -> None:
        """Store what happened while a job ran.

        Raises:
            StorageError: It cannot be stored.
        """
        recorder.store(self._store, self._uri(job, "history"))

    def put_history_so_far(self, job: str, recorder: Recorder, reached: int) -> None:
        """Store what has happened since a job began, for the case that this is the last that its master does.

        Args:
            job: The job.
            recorder: What records it.
            reached: As of ``Recorder.store_so_far``.

        Raises:
            StorageError: It cannot be stored.
        """
        recorder.store_so_far(self._store, self._uri(job, "history"), reached)

    def earlier_ledger(self, job: str) -> LedgerReport | None:
        """Return what earlier masters have stored of a job's stragglers; None if that is nothing.

        Raises:
            HistoryError: It is of another version.
            StorageError: It cannot be read.
        """
        return self._read_history(job, ledger_of)

    def replay(self, job: str) -> Replay | None:
        """Return what is counted from a job's history; None if it has none.

        Raises:
            HistoryError: It is of another version.
            StorageError: It cannot be read.
        """
        return self._read_history(job, Replay)

    def _read_history(self, job: str, read: Callable[[History], _Content]) -> _Content | None:
        reader = self.open_history(job)
        if reader is None:
            return None
        with reader:
            return read(History(reader))

    def open_history(self, job: str) -> Reader | None:
        """Return a job's history to read; None if it has none.

        Raises:
            StorageError: It cannot be read.
        """
        return self._store.open(self._uri(job, "history"))

    def ended_status(self, job: str) -> JobStatus | None:
        """Return what clients are told of a job that has ended; None if it has not.

        Raises:
            StorageError: Its records are damaged.
        """
        if (outcome := self.outcome(job)) is None:
            return None
        return ended_status(self.record(job), self.ticket(job), outcome)

    def begin_serving(self, token: bytes) -> None:
        """Store which master serves, from now on."""
        self._store.put(self.work + b"/serving", [token])

    def still_serves(self, token: bytes) -> bool:
        """Whether no other master has served since."""
        reader = self._store.open(self.work + b"/serving")
        if reader is None:
            return False
        with reader:
            return reader.read(0, len(token) + 1) == token

    def end_serving(self, token: bytes) -> None:
        """Remove what ``begin_serving`` has stored, unless another master serves by now."""
        if self.still_serves(token):
            self._store.delete(self.work + b"/serving")

    def scale(self, workers: int | None) -> None:
        """Store how many workers a fleet is to have, also for the next master; None is what its file says."""
        uri = self.work + b"/workers"
        if workers is None:
            self._store.delete(uri)
        else:
            self._store.put(uri, [msgspec.msgpack.encode(FleetSize(workers))])

    def scaled(self) -> int | None:
        """Return how many workers a fleet is to have; None if nobody has asked for a number.

        Raises:
            DamagedRecordError: A master has died while it stored that.
            StorageError: It cannot be read.
        """
        found = self._read(self.work + b"/workers", _FLEET_SIZE)
        return None if found is None else found.workers

    def folders(self) -> list[Files]:
        """Return every job that has left something."""
        found: dict[str, dict[str, float]] = {}
        for entry in self._store.aged(self.work + b"/jobs"):
            job, _, name = entry.name.decode("utf-8", "replace").partition("/")
            found.setdefault(job, {})[name] = entry.age_seconds
        return [Files(job, frozenset(ages), ages.get("outcome")) for job, ages in sorted(found.items())]

    def _uri(self, job: str, name: str) -> bytes:
        return self.work + f"/jobs/{job}/{name}".encode()

    def _put(self, job: str, name: str, content: msgspec.Struct) -> None:
        self._store.put(self._uri(job, name), [msgspec.msgpack.encode(content)])

    def _get(self, job: str, name: str, decoder: msgspec.msgpack.Decoder[_Content]) -> _Content | None:
        # Anybody may ask for a job by any name, and this one becomes a path.
        return self._read(self._uri(job, name), decoder) if _ID.fullmatch(job) is not None else None

    def _read(self, uri: bytes, decoder: msgspec.msgpack.Decoder[_Content]) -> _Content | None:
        reader = self._store.open(uri)
        if reader is None:
            return None
        with reader:
            data = reader.read(0, reader.size)
        try:
            return decoder.decode(data)
        except msgspec.DecodeError as error:
            raise DamagedRecordError(f"{printable(uri)} is damaged: {error}") from error


def ended_status(record: JobRecord, ticket: Ticket, outcome: Outcome) -> JobStatus:
    """Return what clients are told of a job that has ended."""
    return JobStatus(
        job=record.spec.job,
        state=outcome.state,
        reduction=record.spec.reduction,
        files=record.spec.files,
        output=printable(record.output),
        priority=ticket.priority,
        submitted_seconds=ticket.submitted_seconds,
        ended_seconds=outcome.ended_seconds,
        summary=outcome.summary,
        reason=outcome.reason,
        exit_code=outcome.exit_code,
    )
