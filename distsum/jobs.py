"""A job as the process that runs it knows it: what is stored of it already, how its failures are told, how it ends."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Final

import msgspec

from distsum import dtypes
from distsum.actors.phase import nothing_to_do, states_from_store
from distsum.actors.speculation_words import HEEDED, NONE
from distsum.errors import (
    BadInputError,
    DistsumError,
    InexactError,
    InputChangedError,
    InputListError,
    JobCancelledError,
    JobError,
    NotServedError,
    StorageError,
    TaskAbandonedError,
    WorkerStartError,
)
from distsum.formats.agreement import disagreement
from distsum.formats.base import Layout
from distsum.formats.registry import by_name
from distsum.manifest import NodeKeys
from distsum.messages import JOB_SPEC, JobFailed, JobSpec
from distsum.observe.snapshot import BackupRule, JobTerms, PhaseWork
from distsum.partials import children_uri, manifest_uri, node_context, spec_uri
from distsum.planning import partial_head_bytes
from distsum.reductions import REDUCTIONS
from distsum.request import PlanSummary, ReductionName, SkippedInput, Summary
from distsum.stores.routing import is_remote
from distsum.tree import Tree
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distsum.actors.speculation import SpeculationSettings
    from distsum.formats.base import Format
    from distsum.manifest import Input, Manifest
    from distsum.messages import JobSucceeded, TaskId
    from distsum.observe.fold import JobTally
    from distsum.observe.history import HistoryHeader
    from distsum.observe.ledger import LedgerReport
    from distsum.stores.base import Store

_DIGEST_BLOCK: Final = 1 << 20
_NAMED_INPUTS: Final = 25
"""Inputs of a failed task that are all named; of more, the first and the last."""


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A job that could start: what its workers know of it, and what is needed to begin and to end it.

    Attributes:
        spec: The job as its workers know it, but for the handle of its output, which it has when it begins.
        output: URI of the result.
        replace: Whether an existing output is replaced.
        keep_partials: Whether partials stay after success.
        digest: Whether the output's SHA-256 is computed.
        raw_dtype: The dtype that was given for inputs that do not tell theirs.
        input_bytes: Bytes of all inputs.
        tasks: Tasks of the plan.
        plan: What was chosen.
    """

    spec: JobSpec
    output: bytes
    replace: bool
    keep_partials: bool
    digest: bool
    raw_dtype: str | None
    input_bytes: int
    tasks: int
    plan: PlanSummary

    @property
    def reduction(self) -> ReductionName:
        """For example ``mean``."""
        name: ReductionName = msgspec.convert(self.spec.reduction, ReductionName)
        return name


class Job:
    """A job at work.

    Args:
        record: What it is.
        manifest: Its inputs.
        store: Where everything lies.

    Attributes:
        tree: What its tasks stand in.
    """

    def __init__(self, record: JobRecord, manifest: Manifest, store: Store) -> None:
        self.record = record
        self.spec = record.spec
        self._manifest = manifest
        self._store = store
        self.tree = Tree(files=self.spec.files, fan_in=self.spec.fan_in, exponent=self.spec.exponent)

    def gives_same(self, other: Job) -> bool:
        """Whether another job gives the same result in the same place, however it was planned."""
        mine, others = self.record, other.record
        named = ("output", "keep_partials", "raw_dtype", "input_bytes")
        fixed = ("reduction", "files", "count", "fan_in", "format", "dtype", "shape", "fortran", "offset", "header")
        written = ("on_bad_input", "output_format", "output_dtype", "output_header")
        return (
            all(getattr(mine, name) == getattr(others, name) for name in named)
            and all(getattr(mine.spec, name) == getattr(others.spec, name) for name in (*fixed, *written))
            and self._manifest.records(0, len(self._manifest)) == other._manifest.records(0, len(other._manifest))
        )

    def store_inputs(self) -> None:
        """Store the list of its inputs."""
        self._store.put(manifest_uri(self.spec.work, self.spec.job), self._manifest.encoded())

    def begin(self) -> None:
        """Begin the output, and describe the job to its workers; what an earlier run has begun of it is removed.

        Raises:
            StorageError: There is no room for the output, or no permission.
        """
        spec = self.record.spec
        self.abort_begun()
        size = len(spec.output_header) + spec.count * spec.output_number_bytes
        output = self._store.create_output(self.record.output, size)
        self.spec = msgspec.structs.replace(spec, output=output)
        try:
            self._store.put(spec_uri(spec.work, spec.job), [msgspec.msgpack.encode(self.spec)])
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Remove what there is of the output.

        Raises:
            StorageError: It cannot be removed.
        """
        if self.spec.output:
            self._store.abort_output(self.spec.output)

    def abort_begun(self) -> None:
        """Remove what was written of the output that the job's stored description names, whoever has begun it.

        Raises:
            StorageError: It cannot be removed.
        """
        reader = self._store.open(spec_uri(self.spec.work, self.spec.job))
        if reader is not None:
            with reader:
                try:
                    earlier = JOB_SPEC.decode(reader.read(0, reader.size))
                except (msgspec.DecodeError, UnicodeDecodeError):
                    return  # of another version, or torn by a power cut; it is written anew
            self._store.abort_output(earlier.output)

    def abort_unnamed(self, within_seconds: float) -> None:
        """Remove what was begun in S3 under the result's name within so long: an upload costs, and is in no listing.

        A process that is killed between beginning one and describing the job leaves one that nothing names. Called
        before ``begin``, by the only process that runs the job.

        Raises:
            StorageError: They cannot be listed or removed.
        """
        output = self.record.output
        if is_remote(output):
            for begun in self._store.begun(output.rpartition(b"/")[0]):
                if begun.final == output and begun.age_seconds <= within_seconds:
                    self._store.abort_output(begun.output)

    def commit_output(self, outcome: JobSucceeded, *, again: bool = False) -> None:
        """Make the result visible under its own name.

        Args:
            outcome: What the last phase has given.
            again: An earlier attempt to do so may have succeeded, so what is there may be this result.

        Raises:
            OutputError: There is an object of that name now, and it is not to be replaced.
            StorageError: It cannot be done.
        """
        replace = self.record.replace or again
        self._store.commit_output(self.spec.output, self.record.output, outcome.receipts, replace=replace)

    def output_digest(self) -> str | None:
        """Return the SHA-256 of the result, if it was asked for."""
        if not self.record.digest:
            return None
        digest = hashlib.sha256()
        try:
            result = self._store.identify(self.record.output)
        except InputListError as error:
            raise StorageError(f"{printable(self.record.output)}: the result has gone since it was written") from error
        buffer = memoryview(bytearray(_DIGEST_BLOCK))
        with self._store.open_input(result, 0, result.size) as reader:
            place = 0
            while size := reader.read_into([buffer], place):
                digest.update(buffer[:size])
                place += size
        return digest.hexdigest()

    def input_uri(self, index: int) -> bytes:
        """Return the URI of an input, by its index in the job's list."""
        return self._manifest[index].uri

    def late_failure(self, error: DistsumError) -> JobFailed:
        """Return what is told of the job where all of its tasks are done, and its result cannot be put in its place."""
        return JobFailed(self.spec.job, "storage" if isinstance(error, StorageError) else "error", str(error))

    def nothing_left(self, outcome: JobSucceeded) -> JobError:
        """Return the error that tells that every input was left out."""
        first = outcome.skipped[0]
        return JobError(f"every input is bad; the first: {BadInputError(self.input_uri(first.index), first.reason)}")

    def work_by_phase(self) -> tuple[PhaseWork, ...]:
        """Return what each phase takes, by the plan."""
        spec, tree = self.spec, self.tree
        first = self.record.input_bytes
        if spec.ranged:
            first = spec.files * (spec.tiles * spec.offset + spec.count * dtypes.itemsize(spec.dtype))
        planes = sum(map(dtypes.itemsize, REDUCTIONS[spec.reduction].planes(spec.dtype)))
        partial_bytes = spec.tiles * partial_head_bytes(spec.tile_length) + spec.count * planes
        work = [PhaseWork(tree.tasks(1) * spec.tiles, spec.files, first)]
        for phase in range(2, tree.phases + 1):
            partials = tree.partials_read(phase)
            work.append(PhaseWork(tree.tasks(phase) * spec.tiles, partials * spec.tiles, partials * partial_bytes))
        return tuple(work)

    def terms(self, speculation: SpeculationSettings) -> JobTerms:
        """Return what holds for it from its beginning to its end, with what is done about its stragglers."""
        return JobTerms(count=self.spec.count, dtype=self.spec.dtype, rule=backup_rule(speculation))

    def history_header(
        self,
        began_seconds: float,
        *,
        resumed: bool = False,
        speculation: SpeculationSettings | None = None,
        earlier: LedgerReport | None = None,
    ) -> HistoryHeader:
        """Return what its history is of.

        Args:
            began_seconds: When its clock began, in seconds of the Unix epoch.
            resumed: Whether an earlier master has begun it.
            speculation: What is done about its stragglers when it begins; None if that is not known.
            earlier: What that master has told of stragglers, if it has.
        """
        from distsum.observe.history import HistoryHeader

        return HistoryHeader(
            job=self.spec.job,
            reduction=self.spec.reduction,
            files=self.spec.files,
            output=printable(self.record.output),
            work=self.work_by_phase(),
            began_seconds=began_seconds,
            resumed=resumed,
            fan_in=self.spec.fan_in,
            exponent=self.spec.exponent,
            count=self.spec.count,
            dtype=self.spec.dtype,
            input_bytes=self.record.input_bytes,
            inputs=tuple(printable(self.input_uri(index)) for index in (0, self.spec.files - 1)),
            command=tuple(printable(word) for word in equivalent_command(self.record)),
            speculation=None if speculation is None else speculation.policy != NONE,
            rule=None if speculation is None else backup_rule(speculation),
            earlier=earlier,
        )

    def stored_states(self, *, sweep: bool = False) -> tuple[bytes, ...]:
        """Return what is stored already, as ``actors.phase`` takes it."""
        spec, tree, manifest = self.spec, self.tree, self._manifest
        stored = self.stored_partials(sweep=sweep)
        if not stored:
            return tuple(bytes(tree.width(phase) * spec.tiles) for phase in range(1, tree.phases + 1))
        keys = [NodeKeys(node_context(spec, tile)) for tile in range(spec.tiles)]

        def is_stored(tile: int, phase: int, index: int) -> bool:
            return keys[tile].key([manifest.records(*tree.inputs(phase, index))]) in stored

        return states_from_store(tree, spec.tiles, is_stored)

    def nothing_to_do(self, states: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Return which tasks need nothing done by these ``stored_states``, as ``observe.states`` takes it."""
        return nothing_to_do(self.tree, states)

    def stored_partials(self, *, sweep: bool = False) -> set[str]:
        """Return the keys of all partials in the work folder.

        Args:
            sweep: Remove what writers that were killed have left. Only where nobody else writes.
        """
        stored: set[str] = set()
        folder = os.path.join(self.spec.work, b"partials")
        for name in self._store.list(folder):
            base = os.path.basename(name)
            if b".tmp" not in base:
                stored.add(base.decode("ascii", "replace"))
            elif sweep:
                self._store.delete(os.path.join(folder, name))
        return stored

    def has_children(self) -> bool:
        """Whether nodes inside its long tasks are stored, which an earlier run has left."""
        return next(iter(self._store.list(children_uri(self.spec.work, self.spec.job))), None) is not None

    def node_keys(self) -> Iterator[str]:
        """Yield the keys of all its nodes."""
        tree, manifest = self.tree, self._manifest
        for tile in range(self.spec.tiles):
            keys = NodeKeys(node_context(self.spec, tile))
            for phase in range(1, tree.phases + 1):
                for index in range(tree.width(phase)):
                    yield keys.key([manifest.records(*tree.inputs(phase, index))])

    def failure(self, failure: JobFailed) -> DistsumError:
        """Return the error that tells of a failed job, with the inputs of its task named."""
        task = failure.task
        match failure.kind:
            case "bad_input":
                return self._first_bad_input(failure)
            case "input_changed":
                return InputChangedError(failure.reason)
            case "storage":
                return StorageError(failure.reason)
            case "not_served":
                return NotServedError(failure.reason)
            case "inexact":
                return InexactError(failure.index or 0, failure.reason)
            case "cancelled":
                return JobCancelledError("the job was cancelled, and what it had stored is removed")
            case "abandoned" if task is not None:
                return TaskAbandonedError(f"{self._task_words(task)}: {failure.reason}")
        if task is None:
            return WorkerStartError(failure.reason)
        return JobError(f"{self._task_words(task)}: {failure.reason}")

    def _task_words(self, task: TaskId) -> str:
        start, stop = self.tree.inputs(task.phase, task.index)
        shown = range(start, stop) if stop - start <= _NAMED_INPUTS else (start, stop - 1)
        names = [printable(self._manifest[index].uri) for index in shown]
        files = ", ".join(names) if len(names) == stop - start else f"{stop - start:,} files, {' to '.join(names)}"
        return f"phase {task.phase} task {task.index} of tile {task.tile} ({files})"

    def _first_bad_input(self, failure: JobFailed) -> DistsumError:
        """Name the first bad input, whichever worker came across one first: look at the headers of those before it."""
        spec = self.spec
        input_format = by_name(spec.format)
        at = failure.index or 0
        if input_format.ranged:
            layout = Layout(spec.dtype, spec.shape, spec.fortran, spec.offset, spec.header)
            for index in range(at):
                try:
                    check_like_first(
                        self._manifest[index],
                        input_format,
                        layout,
                        self.record.reduction,
                        self.record.raw_dtype,
                        self._store,
                    )
                except (BadInputError, InputChangedError) as error:
                    return error
        return BadInputError(self._manifest[at].uri, failure.reason)

    def summary(
        self, outcome: JobSucceeded, tally: JobTally, workers: int, digest: str | None, seconds: float
    ) -> Summary:
        """Return what the finished job did."""
        spec, record, manifest = self.spec, self.record, self._manifest
        return Summary(
            output=os.fsdecode(record.output),
            reduction=record.reduction,
            files=spec.files,
            count=spec.count,
            shape=spec.shape,
            dtype=spec.output_dtype,
            order="F" if spec.fortran else "C",
            skipped=tuple(
                SkippedInput(printable(manifest[each.index].uri, 4096), each.reason) for each in outcome.skipped
            ),
            seconds=seconds,
            bytes_read=tally.bytes_read,
            bytes_written=tally.bytes_written,
            tasks=record.tasks,
            # A partial that this run had stored itself, and then found damaged, was computed twice.
            tasks_reused=max(0, record.tasks - tally.computed),
            attempts=tally.attempts,
            retries=tally.retries,
            workers=workers,
            workers_lost=tally.workers_lost,
            plan=record.plan,
            peak_worker_bytes=tally.peak_worker_bytes,
            digest=digest,
            phase_seconds=tally.phase_seconds(),
            worker_seconds=tally.accounts.seconds(seconds),
            backups=tally.ledger.totals(),
            worker_accounts=tally.accounts.accounts(seconds),
        )


def check_like_first(
    entry: Input,
    input_format: Format,
    layout: Layout,
    reduction: ReductionName,
    raw_dtype: str | None,
    store: Store,
) -> None:
    """Compare an input's header with the first one's.

    Raises:
        BadInputError: They disagree.
        InputChangedError: The input is not what it was.
    """
    with store.open_input(entry) as reader:
        found = input_format.layout(reader, raw_dtype)
    apart = disagreement(found, layout, REDUCTIONS[reduction])
    if apart is not None:
        raise BadInputError(entry.uri, apart)


def backup_rule(settings: SpeculationSettings) -> BackupRule | None:
    """Return by what rule stragglers get backups, for who looks at a job; None where they get none.

    >>> from distsum.actors.speculation import SpeculationSettings
    >>> [backup_rule(SpeculationSettings(policy=policy)).quantile for policy in ("guarded", "late")]
    [0.75, None]
    """
    if settings.policy == NONE:
        return None
    given = {
        name: getattr(settings, name) for name in ("quantile", "multiplier", "slow") if name in HEEDED[settings.policy]
    }
    return BackupRule(policy=settings.policy, **given)


def equivalent_command(record: JobRecord) -> tuple[str, ...]:
    """Return the command that does the same as a job, by the same plan, with ``inputs.txt`` as the list of its inputs.

    Workers and memory are left out: they are the machine's, and no bit depends on them.
    """
    spec, plan = record.spec, record.plan
    words = ["distsum", spec.reduction, "@inputs.txt", "-o", os.fsdecode(record.output)]
    words += ["--fan-in", str(plan.fan_in), "--partition", str(plan.partition), "--tiles", str(plan.tiles)]
    words += ["--format", spec.format, "--out-dtype", spec.output_dtype.lstrip("<|=")]
    if record.raw_dtype is not None:
        words += ["--dtype", record.raw_dtype.lstrip("<|=")]
    if spec.on_bad_input != "fail":
        words += ["--on-bad-input", spec.on_bad_input]
    return tuple(words)
