"""The embedded run: everything on one machine, with no server. The place that picks the concrete parts."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from distsum import dtypes
from distsum.actors.actor import BROKER, CLIENT, MASTER, TRACKER, WORKERS
from distsum.actors.master import Master
from distsum.actors.phase import READY, STORED, UNNEEDED
from distsum.actors.system import AsyncioSystem
from distsum.actors.task_tracker import TaskTracker, TrackerSettings
from distsum.brokers.local import LocalBroker
from distsum.errors import (
    BadInputError,
    DistsumError,
    InexactError,
    InputChangedError,
    InputListError,
    InterruptedRunError,
    JobError,
    OutputError,
    PlanError,
    StorageError,
    TaskAbandonedError,
    WorkerStartError,
)
from distsum.formats.agreement import disagreement
from distsum.formats.base import Layout
from distsum.formats.registry import by_name, by_suffix
from distsum.manifest import Input, Manifest, NodeKeys
from distsum.messages import (
    JOB_SPEC,
    CancelJob,
    FromBroker,
    FromWorker,
    JobFailed,
    JobSpec,
    JobSucceeded,
    KillWorker,
    RunTask,
    SubmitJob,
    TaskId,
)
from distsum.observe.fold import JobTally
from distsum.partials import manifest_uri, node_context, spec_uri
from distsum.planning import (
    BODY_BYTES,
    BUFFER_BYTES,
    PARTIAL_HEAD_BYTES,
    Candidate,
    Limits,
    PlanReport,
    Workload,
    choose,
    plan_candidates,
    rates,
    with_room_to_arrive,
)
from distsum.reductions import REDUCTIONS, check_output_dtype
from distsum.request import Options, PlanSummary, ReductionName, SkippedInput, Summary
from distsum.stores.routing import RoutingStore, absolute, is_remote
from distsum.tree import Tree
from distsum.wording import printable
from distsum.worker.pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import ParamSpec, TypeVar

    from distsum.formats.base import Format
    from distsum.observe.snapshot import Snapshot

    P = ParamSpec("P")
    T = TypeVar("T")

_HEARTBEAT_SECONDS: Final = 0.5
_SNAPSHOT_SECONDS: Final = 0.1
_DIGEST_BLOCK: Final = 1 << 20
_NAMED_INPUTS: Final = 25
"""Inputs of a failed task that are all named; of more, the first and the last."""


class Prepared(msgspec.Struct):
    """A job that could start now."""

    spec: JobSpec
    manifest: Manifest
    report: PlanReport
    candidate: Candidate
    output: bytes


def plan(inputs: list[bytes], reduction: ReductionName, options: Options) -> PlanReport:
    """Return what would run, without running it.

    Args:
        inputs: Paths in the order in which they are to be added.
        reduction: For example ``mean``.
        options: As for ``run``.

    Raises:
        DistsumError: What ``run`` would raise before it starts.
    """
    store = RoutingStore()
    try:
        return prepare(reduction, inputs, b"result.npy", options, store).report
    finally:
        store.close()


def run(
    reduction: ReductionName,
    inputs: list[bytes],
    output: bytes,
    options: Options,
    on_snapshot: Callable[[Snapshot], None] | None = None,
) -> Summary:
    """Reduce files on this machine, and return what was done. Blocks; a running event loop in this thread is no harm.

    Args:
        reduction: For example ``mean``.
        inputs: Paths in the order in which they are to be added.
        output: Path of the result; its suffix tells the format.
        options: How to run.
        on_snapshot: Told about ten times a second how far the job is, on the thread that runs it.

    Raises:
        UsageError: What was asked for cannot be done (nothing was changed).
        JobError: The job failed; what is stored stays in the work folder.
        InterruptedRunError: Ctrl-C or SIGTERM; the same command goes on from what is stored.
    """
    began = time.perf_counter()
    store = RoutingStore()
    try:
        _preflight([output, _work(output, options), *inputs], store)
        _check_output(output, inputs, store, force=options.force)
        prepared = prepare(reduction, inputs, output, options, store)
        with _work_folder(store, prepared.spec.work, keep=options.keep_partials, own=options.work_dir is None):
            job = _Run(prepared, options, store, began, on_snapshot)
            return _run_loop(job)
    finally:
        store.close()


# Before anything runs -------------------------------------------------------------------------------------------------


def prepare(
    reduction_name: ReductionName, inputs: list[bytes], output: bytes, options: Options, store: RoutingStore
) -> Prepared:
    """Look at the inputs, choose a plan and describe the job; nothing is written.

    Raises:
        UsageError: What was asked for cannot be done.
        JobError: An input is bad, by its size or as the first one.
    """
    if not inputs:
        raise InputListError("there are no inputs")
    reduction = REDUCTIONS[reduction_name]
    input_format = _input_format(inputs[0], options)
    output_format = by_suffix(output)
    if output_format is None:
        raise OutputError(f"{printable(output)}: the suffix tells no format; write .npy, .raw or .txt")
    here = os.getcwdb()
    names = [path if path.startswith(b"/") or is_remote(path) else os.path.join(here, path) for path in inputs]
    layout = _first_layout(names, input_format, options, store)
    manifest = Manifest(_identified(names, input_format, layout, reduction_name, options, store))
    planes = reduction.planes(layout.dtype)
    out_dtype = options.out_dtype or reduction.result(layout.dtype)
    check_output_dtype(reduction, layout.dtype, out_dtype)
    # What is computed here is written in this machine's byte order.
    out_dtype = dtypes.parse_dtype(out_dtype.lstrip("<>|="))
    output_header = output_format.header(out_dtype, layout.shape, fortran=layout.fortran)
    work = _work(output, options)
    number_bytes = output_format.number_bytes(out_dtype)
    least = store.least_range(output, len(output_header) + layout.count * number_bytes)
    held_inputs = options.max_open_files if any(map(is_remote, names)) else 0
    workload = Workload(
        files=len(inputs),
        count=layout.count,
        item_bytes=dtypes.itemsize(layout.dtype),
        header_bytes=layout.offset,
        input_bytes=manifest.total_bytes,
        plane_bytes=sum(map(dtypes.itemsize, planes)),
        ranged=input_format.ranged,
        parse_bytes=input_format.parse_bytes,
        staging=options.on_bad_input == "skip" and not input_format.ranged,
        output_header_bytes=len(output_header),
        output_number_bytes=number_bytes,
        least_range_bytes=least,
        transfer_bytes=_transfer_bytes(held_inputs, options.max_open_files, least, work, output),
        held_inputs=held_inputs,
    )
    if options.workers is not None and options.workers < 1:
        raise PlanError(f"--workers {options.workers} does nothing; it must be at least 1")
    if options.max_open_files < 1:
        raise PlanError(f"--max-open-files {options.max_open_files} reads nothing; it must be at least 1")
    limits = Limits(
        workers=options.workers or usable_cpus(),
        memory_bytes=options.memory_bytes,
        fan_in=options.fan_in,
        partition=options.partition,
        tiles=options.tiles,
    )
    candidates = plan_candidates(workload, limits, rates(held_inputs > 0, is_remote(work)))
    chosen, reason = choose(candidates, workload, limits)
    candidate, hold = with_room_to_arrive(candidates[chosen], workload, limits)
    candidates = (*candidates[:chosen], candidate, *candidates[chosen + 1 :])
    spec = JobSpec(
        job="",
        reduction=reduction_name,
        files=len(inputs),
        count=layout.count,
        fan_in=options.fan_in,
        exponent=candidate.exponent,
        tile_length=candidate.tile_length,
        format=input_format.name,
        dtype=layout.dtype,
        shape=layout.shape,
        fortran=layout.fortran,
        offset=layout.offset,
        header=layout.header,
        on_bad_input=options.on_bad_input,
        max_open_files=options.max_open_files,
        buffer_bytes=BUFFER_BYTES,
        hold_bytes=hold,
        work=work,
        output=b"",
        output_format=output_format.name,
        output_dtype=out_dtype,
        output_header=output_header,
        output_number_bytes=number_bytes,
    )
    root = NodeKeys(node_context(spec, 0)).key([manifest.records(0, len(manifest))])
    job = hashlib.sha256(root.encode() + absolute(output)).hexdigest()[:12]
    spec = msgspec.structs.replace(spec, job=job)
    notes = []
    if not input_format.ranged and limits.workers > 1:
        notes.append(f"{input_format.name} files cannot be read by index range, so the arrays are not cut into tiles")
    report = PlanReport(
        files=len(inputs),
        count=layout.count,
        shape=layout.shape,
        dtype=layout.dtype,
        format=input_format.name,
        input_bytes=manifest.total_bytes,
        ranged=input_format.ranged,
        workers=limits.workers,
        memory_bytes=limits.memory_bytes,
        candidates=candidates,
        chosen=chosen,
        reason=reason,
        notes=tuple(notes),
    )
    return Prepared(spec, manifest, report, candidate, absolute(output))


def _work(output: bytes, options: Options) -> bytes:
    """Return the work folder."""
    given = os.fsencode(options.work_dir) if options.work_dir is not None else output + b".distsum"
    return absolute(given.rstrip(b"/") if is_remote(given) else given)


def _transfer_bytes(held_inputs: int, ahead: int, least: int, work: bytes, output: bytes) -> int:
    """Return what is held of objects on their way, beside what an input may be given more."""
    reading = (held_inputs or (ahead if is_remote(work) else 0)) * (BUFFER_BYTES + BODY_BYTES)
    # A range of the output is collected until it makes two parts, since its last must not be too short.
    return reading + (2 * least + BUFFER_BYTES if is_remote(output) else 0)


def _preflight(uris: list[bytes], store: RoutingStore) -> None:
    """Make sure that every bucket that is named can be used.

    Raises:
        UnreachableError: One cannot.
    """
    seen: set[bytes] = set()
    for uri in filter(is_remote, uris):
        bucket = b"/".join(uri.split(b"/", 3)[:3])
        if bucket not in seen:
            seen.add(bucket)
            store.preflight(bucket)


def usable_cpus() -> int:
    """Return the CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_output(output: bytes, inputs: list[bytes], store: RoutingStore, *, force: bool) -> None:
    shown = printable(output)
    if is_remote(output):
        if output.endswith(b"/"):
            raise OutputError(f"{shown} is a folder; name an object in it")
        if output in inputs:
            raise OutputError(f"{shown} is one of the inputs; choose another output")
        if not force and store.exists(output):
            raise OutputError(f"{shown} exists; use --force to replace it")
        return
    folder = os.path.dirname(os.path.abspath(output))
    if not os.path.isdir(folder):
        raise OutputError(f"{shown}: there is no folder {printable(folder)}; make it first")
    if os.path.isdir(output):
        raise OutputError(f"{shown} is a folder; name a file in it")
    if os.path.lexists(output):
        there = os.path.realpath(output)
        name = os.path.basename(there)
        if any(path.endswith(name) and os.path.realpath(path) == there for path in inputs):
            raise OutputError(f"{shown} is one of the inputs; choose another output")
        if not force:
            raise OutputError(f"{shown} exists; use --force to replace it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{shown}: the folder {printable(folder)} cannot be written; choose another output")


def _input_format(first: bytes, options: Options) -> Format:
    if options.format != "auto":
        return by_name(options.format)
    found = by_suffix(first)
    if found is None:
        raise InputListError(f"{printable(first)}: the suffix tells no format; say --format npy, raw or text")
    return found


def _first_layout(paths: list[bytes], input_format: Format, options: Options, store: RoutingStore) -> Layout:
    """Return the layout that all inputs are compared with: the first one's, or the first good one's when skipping."""
    first_error: BadInputError | None = None
    for path in paths:
        entry = store.identify(path)
        with store.open_input(entry) as reader:
            try:
                return input_format.layout(reader, options.dtype)
            except BadInputError as error:
                if options.on_bad_input == "fail":
                    raise
                first_error = first_error or error
    raise JobError(f"every input is bad; the first: {first_error}")


def _identified(
    paths: list[bytes],
    input_format: Format,
    layout: Layout,
    reduction: ReductionName,
    options: Options,
    store: RoutingStore,
) -> Iterator[Input]:
    """Yield the inputs with what pins them; one whose size tells that it is unlike the first fails at once."""
    strict = input_format.ranged and options.on_bad_input == "fail"
    size = layout.offset + layout.data_bytes if strict else -1
    for entry in store.identify_all(paths):
        if strict and entry.size != size:
            _check_like_first(entry, input_format, layout, reduction, options, store)
        yield entry


def _check_like_first(
    entry: Input, input_format: Format, layout: Layout, reduction: ReductionName, options: Options, store: RoutingStore
) -> None:
    with store.open_input(entry) as reader:
        found = input_format.layout(reader, options.dtype)
    apart = disagreement(found, layout, REDUCTIONS[reduction])
    if apart is not None:
        raise BadInputError(entry.uri, apart)


# The work folder ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _work_folder(store: RoutingStore, work: bytes, *, keep: bool, own: bool) -> Iterator[None]:
    """Hold the work folder for this run. After success the folder, or what this run put into a shared one, is removed.

    Raises:
        WorkDirBusyError: Another run holds it.
        OutputError: It cannot be made.
    """
    with store.lock(work):
        before = set() if own else set(store.list(work)) - {b"lock"}
        yield
        if keep:
            store.delete_all(work + b"/jobs", set())
        else:
            # Where the lock is an object it goes last, by the hand that holds it.
            store.delete_all(work, before | {b"lock"} if is_remote(work) else before)


def _abort_earlier(store: RoutingStore, spec: JobSpec) -> None:
    """Remove what an earlier run of the same job, which was killed, has written of its output."""
    reader = store.open(spec_uri(spec.work, spec.job))
    if reader is not None:
        with reader:
            try:
                earlier = JOB_SPEC.decode(reader.read(0, reader.size))
            except (msgspec.DecodeError, UnicodeDecodeError):
                return  # of another version, or torn by a power cut; it is written anew
        store.abort_output(earlier.output)


def stored_states(store: RoutingStore, spec: JobSpec, manifest: Manifest) -> tuple[bytes, ...]:
    """Return what is stored already, one byte a node and phase, as ``actors.phase`` takes it.

    The last phase always has something to do, since it writes the result: where its partial is stored it is READY.
    Nothing below a stored node is needed.
    Leftovers of writers that were killed are removed on the way.
    """
    tree = Tree(files=spec.files, fan_in=spec.fan_in, exponent=spec.exponent)
    states = [bytearray(tree.width(phase) * spec.tiles) for phase in range(1, tree.phases + 1)]
    stored: set[str] = set()
    folder = os.path.join(spec.work, b"partials")
    for name in store.list(folder):
        base = os.path.basename(name)
        if b".tmp" in base:
            store.delete(os.path.join(folder, name))
        else:
            stored.add(base.decode("ascii", "replace"))
    if not stored:
        return tuple(map(bytes, states))
    for tile in range(spec.tiles):
        keys = NodeKeys(node_context(spec, tile))
        needed = bytearray(b"\1")
        for phase in range(tree.phases, 0, -1):
            width = tree.width(phase)
            below = bytearray(tree.width(phase - 1))
            for index in range(width):
                number = tile * width + index
                if not needed[index]:
                    states[phase - 1][number] = UNNEEDED
                    continue
                is_stored = keys.key([manifest.records(*tree.inputs(phase, index))]) in stored
                if is_stored:
                    states[phase - 1][number] = STORED if phase < tree.phases else READY
                else:
                    start, stop = tree.children(phase, index)
                    below[start:stop] = b"\1" * (stop - start)
            needed = below
    return tuple(map(bytes, states))


# The run --------------------------------------------------------------------------------------------------------------


def _run_loop(job: _Run) -> Summary:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run_here(job)
    # A notebook: this thread's loop is busy with us, so the run gets a thread, and a loop, of its own.
    outcome: list[Summary | BaseException] = []

    def body() -> None:
        try:
            outcome.append(_run_here(job))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, whatever it is
            outcome.append(error)

    thread = threading.Thread(target=body, name="distsum")
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        job.interrupt()
        thread.join()
    result = outcome[0]
    if isinstance(result, BaseException):
        raise result
    return result


def _run_here(job: _Run) -> Summary:
    try:
        return asyncio.run(job.main())
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise InterruptedRunError(job.interrupted_words()) from None


class _Run:
    """One embedded job from its start to its summary."""

    def __init__(
        self,
        prepared: Prepared,
        options: Options,
        store: RoutingStore,
        began: float,
        on_snapshot: Callable[[Snapshot], None] | None,
    ) -> None:
        self._prepared = prepared
        self._spec = prepared.spec
        self._options = options
        self._store = store
        self._began = began
        self._on_snapshot = on_snapshot
        self._tree = Tree(files=self._spec.files, fan_in=self._spec.fan_in, exponent=self._spec.exponent)
        self._tally = JobTally(self._bytes_by_phase())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Summary] | None = None

    async def main(self) -> Summary:
        """Run the job; see ``run``."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        if threading.current_thread() is threading.main_thread() and self._task is not None:
            self._loop.add_signal_handler(signal.SIGTERM, self._task.cancel)
        states = await self._aside(self._store_job)
        spec, store = self._spec, self._store
        finished: asyncio.Future[JobSucceeded | JobFailed] = self._loop.create_future()
        workers = max(1, min(self._prepared.report.workers, self._prepared.candidate.tasks))
        broker = LocalBroker()
        system = AsyncioSystem(self._take_event, partial(_set_error, finished))
        pool = WorkerPool(broker, workers, _HEARTBEAT_SECONDS, partial(system.deliver, MASTER))
        self._connect(system, broker, pool, finished)
        try:
            try:
                pool.start()
                await broker.start(partial(_deliver, system, pool))
                system.deliver(MASTER, SubmitJob(spec, states))
                ticker = asyncio.create_task(self._tick())
                try:
                    outcome = await finished
                finally:
                    ticker.cancel()
            finally:
                system.close()
                await pool.close()
                await broker.close()
            if isinstance(outcome, JobFailed):
                raise self._failure(outcome)
            if not outcome.inputs:
                raise JobError(f"every input is bad; the first: {outcome.skipped[0].reason}")
            final = self._prepared.output
            await self._aside(store.commit_output, spec.output, final, outcome.receipts, replace=self._options.force)
        except BaseException:
            store.abort_output(spec.output)
            raise
        digest = await self._aside(_digest, store, final) if self._options.digest else None
        self._show()
        return self._summary(outcome, workers, digest)

    async def _aside(self, call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call what may wait for a server without holding up the loop; when it is cancelled, it fails at once."""
        try:
            return await asyncio.to_thread(call, *arguments, **options)
        except asyncio.CancelledError:
            self._store.close()
            raise

    def interrupt(self) -> None:
        """End the run from another thread."""
        if self._loop is not None and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)

    def interrupted_words(self) -> str:
        """Return what to tell of an interrupted run."""
        tally = self._tally
        return (
            f"interrupted; {tally.succeeded:,} of {self._prepared.candidate.tasks:,} tasks are stored in "
            f"{printable(self._spec.work)}, and the same command goes on from there"
        )

    def _store_job(self) -> tuple[bytes, ...]:
        """Begin the output, describe the job to its workers, and return what is stored of it already."""
        spec, manifest, store = self._spec, self._prepared.manifest, self._store
        _abort_earlier(store, spec)
        size = len(spec.output_header) + spec.count * spec.output_number_bytes
        spec = self._spec = msgspec.structs.replace(spec, output=store.create_output(self._prepared.output, size))
        try:
            store.put(manifest_uri(spec.work, spec.job), manifest.encoded())
            store.put(spec_uri(spec.work, spec.job), [msgspec.msgpack.encode(spec)])
            return stored_states(store, spec, manifest)
        except BaseException:
            store.abort_output(spec.output)
            raise

    def _connect(
        self,
        system: AsyncioSystem,
        broker: LocalBroker,
        pool: WorkerPool,
        finished: asyncio.Future[JobSucceeded | JobFailed],
    ) -> None:
        def to_broker(message: msgspec.Struct) -> None:
            if isinstance(message, RunTask):
                broker.publish(message)
            elif isinstance(message, CancelJob):
                broker.purge(message.job)

        def to_workers(message: msgspec.Struct) -> None:
            if isinstance(message, KillWorker):
                pool.kill(message.worker)

        def to_client(message: msgspec.Struct) -> None:
            if isinstance(message, JobSucceeded | JobFailed) and not finished.done():
                finished.set_result(message)

        system.gateway(BROKER, to_broker)
        system.gateway(WORKERS, to_workers)
        system.gateway(CLIENT, to_client)
        system.spawn(MASTER, Master)
        system.spawn(TRACKER, partial(TaskTracker, settings=TrackerSettings()))

    def _take_event(self, event: msgspec.Struct) -> None:
        self._tally.take(event, time.perf_counter() - self._began)

    async def _tick(self) -> None:
        while self._on_snapshot is not None:
            self._show()
            await asyncio.sleep(_SNAPSHOT_SECONDS)

    def _show(self) -> None:
        if self._on_snapshot is not None:
            self._on_snapshot(self._tally.snapshot(time.perf_counter() - self._began))

    def _bytes_by_phase(self) -> tuple[int, ...]:
        """Bytes that each phase reads, by the plan."""
        spec, tree, report = self._spec, self._tree, self._prepared.report
        first = report.input_bytes
        if report.ranged:
            first = spec.files * (spec.tiles * spec.offset + spec.count * dtypes.itemsize(spec.dtype))
        planes = sum(map(dtypes.itemsize, REDUCTIONS[spec.reduction].planes(spec.dtype)))
        partial_bytes = spec.tiles * PARTIAL_HEAD_BYTES + spec.count * planes
        return first, *(partial_bytes * tree.partials_read(phase) for phase in range(2, tree.phases + 1))

    def _failure(self, failure: JobFailed) -> DistsumError:
        """Return the error that a failed job raises, with the inputs of its task named."""
        task = failure.task
        match failure.kind:
            case "bad_input":
                return self._first_bad_input(failure)
            case "input_changed":
                return InputChangedError(failure.reason)
            case "storage":
                return StorageError(failure.reason)
            case "inexact":
                return InexactError(failure.index or 0, failure.reason)
            case "abandoned" if task is not None:
                return TaskAbandonedError(f"{self._task_words(task)}: {failure.reason}")
        if task is None:
            return WorkerStartError(failure.reason)
        return JobError(f"{self._task_words(task)}: {failure.reason}")

    def _task_words(self, task: TaskId) -> str:
        manifest = self._prepared.manifest
        start, stop = self._tree.inputs(task.phase, task.index)
        shown = range(start, stop) if stop - start <= _NAMED_INPUTS else (start, stop - 1)
        names = [printable(manifest[index].uri) for index in shown]
        files = ", ".join(names) if len(names) == stop - start else f"{stop - start:,} files, {' to '.join(names)}"
        return f"phase {task.phase} task {task.index} of tile {task.tile} ({files})"

    def _first_bad_input(self, failure: JobFailed) -> DistsumError:
        """Name the first bad input, whichever worker came across one first: look at the headers of those before it."""
        prepared, spec = self._prepared, self._spec
        input_format = by_name(spec.format)
        at = failure.index or 0
        if input_format.ranged:
            layout = Layout(spec.dtype, spec.shape, spec.fortran, spec.offset, spec.header)
            for index in range(at):
                try:
                    _check_like_first(
                        prepared.manifest[index],
                        input_format,
                        layout,
                        self._reduction_name(),
                        self._options,
                        self._store,
                    )
                except (BadInputError, InputChangedError) as error:
                    return error
        return BadInputError(prepared.manifest[at].uri, failure.reason)

    def _reduction_name(self) -> ReductionName:
        name: ReductionName = msgspec.convert(self._spec.reduction, ReductionName)
        return name

    def _summary(self, outcome: JobSucceeded, workers: int, digest: str | None) -> Summary:
        tally, spec, candidate = self._tally, self._spec, self._prepared.candidate
        manifest = self._prepared.manifest
        return Summary(
            output=os.fsdecode(self._prepared.output),
            reduction=self._reduction_name(),
            files=spec.files,
            count=spec.count,
            skipped=tuple(
                SkippedInput(printable(manifest[each.index].uri, 4096), each.reason) for each in outcome.skipped
            ),
            seconds=time.perf_counter() - self._began,
            bytes_read=tally.bytes_read,
            bytes_written=tally.bytes_written,
            tasks=candidate.tasks,
            tasks_reused=candidate.tasks - tally.computed,
            attempts=tally.attempts,
            retries=tally.retries,
            workers=workers,
            workers_lost=tally.workers_lost,
            plan=PlanSummary(
                partition=candidate.partition,
                fan_in=spec.fan_in,
                tiles=candidate.tiles,
                phases=candidate.phases,
                worker_bytes=candidate.worker_bytes,
            ),
            peak_worker_bytes=tally.peak_worker_bytes,
            digest=digest,
            phase_seconds=tally.phase_seconds(),
            worker_seconds=tally.worker_seconds(),
        )


def _deliver(system: AsyncioSystem, pool: WorkerPool, message: FromWorker | FromBroker) -> None:
    pool.observe(message)
    system.deliver(TRACKER, message)


def _set_error(finished: asyncio.Future[JobSucceeded | JobFailed], error: BaseException) -> None:
    if not finished.done():
        finished.set_exception(error)


def _digest(store: RoutingStore, uri: bytes) -> str:
    digest = hashlib.sha256()
    entry = store.identify(uri)
    buffer = memoryview(bytearray(_DIGEST_BLOCK))
    with store.open_input(entry, 0, entry.size) as reader:
        place = 0
        while size := reader.read_into([buffer], place):
            digest.update(buffer[:size])
            place += size
    return digest.hexdigest()
