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
from distsum.actors.master import Master, MasterSettings
from distsum.actors.speculation import SpeculationSettings
from distsum.actors.system import AsyncioSystem
from distsum.actors.task_tracker import TaskTracker, TrackerSettings
from distsum.brokers.local import LocalBroker
from distsum.errors import (
    BadInputError,
    InputListError,
    InterruptedRunError,
    JobError,
    OutputError,
    PlanError,
    StorageError,
    UsageError,
)
from distsum.formats.registry import by_name, by_suffix
from distsum.jobs import Job, JobRecord, check_like_first
from distsum.machine import usable_cpus
from distsum.manifest import Input, Manifest, NodeKeys
from distsum.messages import (
    AssignTask,
    CancelJob,
    FromBroker,
    FromWorker,
    JobFailed,
    JobSpec,
    JobSucceeded,
    KillWorker,
    PauseWorker,
    ResumeWorker,
    RunTask,
    SubmitJob,
    TellWorker,
)
from distsum.observe.fold import JobTally
from distsum.partials import node_context
from distsum.planning import (
    BODY_BYTES,
    BUFFER_BYTES,
    Limits,
    PlanReport,
    Workload,
    choose,
    plan_candidates,
    rates,
    with_room_to_arrive,
)
from distsum.reductions import REDUCTIONS, check_output_dtype
from distsum.request import Options, PlanSummary, ReductionName, Summary
from distsum.stores.routing import RoutingStore, absolute, absolute_folder, bucket_of, is_remote
from distsum.wording import printable
from distsum.worker.pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import ParamSpec, TypeVar

    from distsum.formats.base import Format, Layout
    from distsum.observe.history import Recorder
    from distsum.observe.snapshot import Snapshot
    from distsum.observe.view import JobFold, JobView
    from distsum.stores.base import Store

    P = ParamSpec("P")
    T = TypeVar("T")

_SNAPSHOT_SECONDS: Final = 0.1


class Prepared(msgspec.Struct):
    """A job that could start now."""

    record: JobRecord
    manifest: Manifest
    report: PlanReport


class Stop:
    """A wish to end a run, from another thread; it counts also when the run has not begun yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = False
        self._act: Callable[[], None] | None = None

    def request(self) -> None:
        """End the run as Ctrl-C would; what is stored stays."""
        with self._lock:
            self._wanted = True
            act = self._act
        if act is not None:
            act()

    def bind(self, act: Callable[[], None]) -> None:
        """Say what ends the run; that is done at once where it is wanted already."""
        with self._lock:
            self._act = act
            wanted = self._wanted
        if wanted:
            act()


def plan(
    inputs: Sequence[bytes], reduction: ReductionName, options: Options, output: bytes | None = None
) -> PlanReport:
    """Return what would run, without running it.

    Args:
        inputs: Paths in the order in which they are to be added.
        reduction: For example ``mean``.
        options: As for ``run``.
        output: As for ``run``; None for some .npy file.

    Raises:
        DistsumError: What ``run`` would raise before it starts.
    """
    with contextlib.closing(RoutingStore()) as store:
        if output is not None:
            check_output(output, inputs, store, force=options.force)
        return prepare(reduction, inputs, output or b"result.npy", options, store).report


def run(
    reduction: ReductionName,
    inputs: Sequence[bytes],
    output: bytes,
    options: Options,
    on_snapshot: Callable[[Snapshot], None] | None = None,
    *,
    speculation: SpeculationSettings | None = None,
    history: bytes | None = None,
    on_view: Callable[[JobView], None] | None = None,
    stop: Stop | None = None,
) -> Summary:
    """Reduce files on this machine, and return what was done. Blocks; a running event loop in this thread is no harm.

    Args:
        reduction: For example ``mean``.
        inputs: Paths in the order in which they are to be added.
        output: Path of the result; its suffix tells the format.
        options: How to run.
        on_snapshot: Told about ten times a second how far the job is, on the thread that runs it.
        speculation: What is done about stragglers; None for the default.
        history: Where the job's events are stored when it ends, whatever the end; None for nowhere.
        on_view: Told as ``on_snapshot`` is, and of all that a screen draws.
        stop: Ends the run when another thread asks it to.

    Raises:
        UsageError: What was asked for cannot be done (nothing was changed).
        JobError: The job failed; what is stored stays in the work folder. Or it did not, and its history cannot be
            stored.
        UnreachableError: S3 is named, and cannot be used.
        InterruptedRunError: Ctrl-C or SIGTERM; the same command goes on from what is stored.
    """
    began = time.perf_counter()
    with contextlib.closing(RoutingStore()) as store:
        check_output(output, inputs, store, force=options.force)
        if history is not None:
            check_output(history, inputs, store, force=options.force)
            if absolute(history) == absolute(output):
                raise OutputError(f"{printable(history)} is the output; choose another name for the history")
        prepared = prepare(reduction, inputs, output, options, store)
        job = Job(prepared.record, prepared.manifest, store)
        workers = max(1, min(prepared.report.workers, prepared.record.tasks))
        work = _work_folder(store, job, keep=options.keep_partials, own=options.work_dir is None)
        with _recorded(job, store, history, began) as recorder, work:
            run = _Run(job, store, workers, began, on_snapshot, speculation, recorder, on_view)
            if stop is not None:
                stop.bind(run.interrupt)
            return _run_loop(run)


# Before anything runs -------------------------------------------------------------------------------------------------


def prepare(
    reduction_name: ReductionName, inputs: Sequence[bytes], output: bytes, options: Options, store: Store
) -> Prepared:
    """Look at the inputs, choose a plan and describe the job; nothing is written.

    Raises:
        UsageError: What was asked for cannot be done.
        UnreachableError: A bucket cannot be used.
        JobError: An input is bad, by its size or as the first one.
    """
    if not inputs:
        raise InputListError("there are no inputs")
    if reduction_name not in REDUCTIONS:
        raise UsageError(f"there is no reduction '{printable(reduction_name)}'; there are {', '.join(REDUCTIONS)}")
    reduction = REDUCTIONS[reduction_name]
    input_format = _input_format(inputs[0], options)
    output_format = by_suffix(output)
    if output_format is None:
        raise OutputError(f"{printable(output)}: the suffix tells no format; write .npy, .raw or .txt")
    work = absolute_folder(os.fsencode(options.work_dir) if options.work_dir is not None else output + b".distsum")
    if is_remote(work):
        store.preflight(bucket_of(work))
    names = _Names(inputs, store)
    layout = _first_layout(names, input_format, options, store)
    manifest = Manifest(_identified(names, input_format, layout, reduction_name, options, store))
    planes = reduction.planes(layout.dtype)
    # What is computed here has this machine's byte order, unless another is asked for.
    out_dtype = options.out_dtype or dtypes.parse_dtype(reduction.result(layout.dtype).lstrip("<>|="))
    check_output_dtype(reduction, layout.dtype, out_dtype)
    output_header = output_format.header(out_dtype, layout.shape, fortran=layout.fortran)
    number_bytes = output_format.number_bytes(out_dtype)
    least = store.least_range(output, len(output_header) + layout.count * number_bytes)
    held_inputs = options.max_open_files if names.buckets else 0
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
    record = JobRecord(
        spec=spec,
        output=absolute(output),
        replace=options.force,
        keep_partials=options.keep_partials,
        digest=options.digest,
        raw_dtype=options.dtype,
        input_bytes=manifest.total_bytes,
        ranged=input_format.ranged,
        tasks=candidate.tasks,
        plan=PlanSummary(
            partition=candidate.partition,
            fan_in=options.fan_in,
            tiles=candidate.tiles,
            phases=candidate.phases,
            worker_bytes=candidate.worker_bytes,
        ),
    )
    return Prepared(record, manifest, report)


def _transfer_bytes(held_inputs: int, ahead: int, least: int, work: bytes, output: bytes) -> int:
    """Return what is held of objects on their way, beside what an input may be given more."""
    # Where the work folder is remote, also of a node that is stored on the way, while children are opened ahead.
    bodies = (held_inputs or ahead) + 1 if is_remote(work) else held_inputs
    reading = bodies * (BUFFER_BYTES + BODY_BYTES)
    # A range of the output is collected until it makes two parts, since its last must not be too short.
    return reading + (2 * least + BUFFER_BYTES if is_remote(output) else 0)


def check_output(output: bytes, inputs: Sequence[bytes], store: Store, *, force: bool) -> None:
    """Make sure that a result can be written.

    Raises:
        OutputError: It exists, is an input, or its folder is not there or cannot be written.
        UnreachableError: Its bucket cannot be used.
    """
    shown = printable(output)
    if b"\0" in output:
        raise OutputError(f"{shown} holds a NUL byte, which no path does")
    if not output:
        raise OutputError("the output is an empty name; check the variables in the command")
    if is_remote(output):
        _check_object(output, inputs, store, force=force)
        return
    folder, name = os.path.split(os.path.abspath(output))
    if not os.path.isdir(folder):
        raise OutputError(f"{shown}: there is no folder {printable(folder)}; make it first")
    if os.path.isdir(output):
        raise OutputError(f"{shown} is a folder; name a file in it")
    if os.path.lexists(output):
        there = os.path.realpath(output)
        if any(path.endswith(os.path.basename(there)) and os.path.realpath(path) == there for path in inputs):
            raise OutputError(f"{shown} is one of the inputs; choose another output")
        if not force:
            raise OutputError(f"{shown} exists; use --force to replace it")
    # Permissions don't tell all: a disk may be mounted for reading only, and a name may be too long for it. So a file
    # with a name as long as the longest that will be needed is made, and is gone at once.
    trial = os.path.join(folder, b".%s.%s.distsum-part" % (name, os.urandom(4).hex().encode()))
    try:
        os.close(os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.unlink(trial)
    except OSError as error:
        raise OutputError(
            f"{shown}: no file of this name can be written into {printable(folder)} ({error.strerror}); "
            "choose another output"
        ) from error


def _check_object(output: bytes, inputs: Sequence[bytes], store: Store, *, force: bool) -> None:
    shown = printable(output)
    if output.endswith(b"/"):
        raise OutputError(f"{shown} is a folder; name an object in it")
    store.preflight(bucket_of(output))
    if output in inputs:
        raise OutputError(f"{shown} is one of the inputs; choose another output")
    if not force and store.exists(output):
        raise OutputError(f"{shown} exists; use --force to replace it")


def _input_format(first: bytes, options: Options) -> Format:
    if options.format != "auto":
        return by_name(options.format)
    found = by_suffix(first)
    if found is None:
        raise InputListError(f"{printable(first)}: the suffix tells no format; say --format npy, raw or text")
    return found


class _Names:
    """The inputs' names as they are wherever a worker stands. That their buckets can be used is seen on the way.

    Attributes:
        buckets: Those seen so far.
    """

    def __init__(self, paths: Iterable[bytes], store: Store) -> None:
        self.buckets: set[bytes] = set()
        self._paths = paths
        self._store = store

    def __iter__(self) -> Iterator[bytes]:
        prefix = os.path.join(os.getcwdb(), b"")
        for path in self._paths:
            if path.startswith(b"/"):
                yield path
            elif is_remote(path):
                if (bucket := bucket_of(path)) not in self.buckets:
                    self._store.preflight(bucket)
                    self.buckets.add(bucket)
                yield path
            else:
                yield prefix + path


def _first_layout(paths: Iterable[bytes], input_format: Format, options: Options, store: Store) -> Layout:
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
    paths: Iterable[bytes],
    input_format: Format,
    layout: Layout,
    reduction: ReductionName,
    options: Options,
    store: Store,
) -> Iterator[Input]:
    """Yield the inputs with what pins them; one whose size tells that it is unlike the first fails at once."""
    strict = input_format.ranged and options.on_bad_input == "fail"
    size = layout.offset + layout.data_bytes if strict else -1
    for entry in store.identify_all(paths):
        if strict and entry.size != size:
            check_like_first(entry, input_format, layout, reduction, options.dtype, store)
        yield entry


# The work folder ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _work_folder(store: Store, job: Job, *, keep: bool, own: bool) -> Iterator[None]:
    """Hold the work folder for this run. After success what runs of this job have put there is removed, and no more.

    Args:
        store: Where the folder lies.
        job: The job.
        keep: Whether partials stay.
        own: Whether the folder is this output's alone, so that all partials in it are of no use any more.

    Raises:
        WorkDirBusyError: Another run holds it.
        OutputError: It cannot be made.
    """
    work = job.spec.work
    partials = work + b"/partials"
    there = is_remote(work) or os.path.isdir(work)
    with store.lock(work):
        before = set() if own or keep else set(store.list(partials))
        yield
        store.delete_all(work + b"/jobs/" + job.spec.job.encode(), set())
        if keep:
            return
        names = {os.path.basename(name): name for name in before}
        if names:
            # An earlier run of this job, which was interrupted, may have stored some of them.
            before -= {names[key] for key in map(str.encode, job.node_keys()) if key in names}
        store.delete_all(partials, before)
        if not is_remote(work):
            store.delete(work + b"/lock")
            for folder in (work + b"/jobs", *(() if there and not own else (work,))):
                with contextlib.suppress(OSError):  # not empty, so it stays
                    os.rmdir(folder)


@contextlib.contextmanager
def _recorded(job: Job, store: Store, uri: bytes | None, began: float) -> Iterator[Recorder | None]:
    """Give what records a job, if it is to be, and store the history when the context ends, also by an error.

    Raises:
        StorageError: It cannot be stored. Where the job fails that is a note to its error.
    """
    if uri is None:
        yield None
        return
    from distsum.observe.history import Recorder

    began_seconds = time.time() - (time.perf_counter() - began)
    try:
        recorder = Recorder(job.history_header(began_seconds))
    except OSError as error:
        raise StorageError(f"no history can be recorded: {error.strerror}; set TMPDIR to a folder with room") from error
    with contextlib.closing(recorder):
        try:
            yield recorder
        except BaseException as error:
            if recorder.events:
                try:
                    recorder.store(store, uri)
                except StorageError as lost:
                    error.add_note(f"its history is not kept: {lost}")
            raise
        try:
            recorder.store(store, uri)
        except StorageError as lost:
            raise StorageError(
                f"{printable(job.record.output)} is written, but no history of the job: {lost}"
            ) from lost


# The run --------------------------------------------------------------------------------------------------------------


def _run_loop(run: _Run) -> Summary:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run_here(run)
    # A notebook: this thread's loop is busy with us, so the run gets a thread, and a loop, of its own.
    outcome: list[Summary | BaseException] = []
    ended = threading.Event()

    def body() -> None:
        try:
            outcome.append(_run_here(run))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, whatever it is
            outcome.append(error)
        ended.set()

    thread = threading.Thread(target=body, name="distsum")
    thread.start()
    interrupted = False
    with interrupts_raised():
        try:
            # Not on the thread itself: a join that an exception has ended believes, up to Python 3.12, that the thread
            # has ended too (bpo-45274).
            ended.wait()
        except KeyboardInterrupt:
            interrupted = True
            run.interrupt()
            ended.wait()
    thread.join()
    result = outcome[0]
    if isinstance(result, BaseException):
        raise result
    if interrupted:
        raise KeyboardInterrupt  # It came too late for the job, and is still for the caller.
    return result


@contextlib.contextmanager
def interrupts_raised() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt here, also below ``asyncio.run``.

    That one's handler only cancels its main task, which would hear of it after we are done.
    """
    before = signal.getsignal(signal.SIGINT)
    handler = getattr(before, "func", before)
    if _in_main_thread() and str(getattr(handler, "__module__", "")).startswith("asyncio"):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
    else:
        yield


def _run_here(run: _Run) -> Summary:
    before = signal.getsignal(signal.SIGTERM) if _in_main_thread() else None
    try:
        return asyncio.run(run.main())
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise InterruptedRunError(run.interrupted_words()) from None
    finally:
        if before is not None:
            # The loop takes its handler away, but leaves the system's in its place, not what the script had.
            signal.signal(signal.SIGTERM, before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class _Run:
    """One embedded job from its start to its summary."""

    def __init__(
        self,
        job: Job,
        store: Store,
        workers: int,
        began: float,
        on_snapshot: Callable[[Snapshot], None] | None,
        speculation: SpeculationSettings | None,
        recorder: Recorder | None,
        on_view: Callable[[JobView], None] | None = None,
    ) -> None:
        self._job = job
        self._store = store
        self._workers = workers
        self._began = began
        self._on_snapshot = on_snapshot
        self._speculation = speculation or SpeculationSettings()
        self._recorder = recorder
        self._tally = JobTally(job.work_by_phase(), job.input_uri)
        self._on_view = on_view
        self._fold: JobFold | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Summary] | None = None
        self._interrupted = False

    async def main(self) -> Summary:
        """Run the job; see ``run``."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        if self._interrupted:
            raise asyncio.CancelledError
        if _in_main_thread() and self._task is not None:
            self._loop.add_signal_handler(signal.SIGTERM, self._task.cancel)
        job = self._job
        try:
            await self._aside(job.store_inputs)
            await self._aside(job.begin)
            outcome = await self._outcome()
            self._show_view()
            if isinstance(outcome, JobFailed):
                raise await self._aside(job.failure, outcome)
            if not outcome.inputs:
                raise job.nothing_left(outcome)
            await self._aside(job.commit_output, outcome)
        except BaseException:
            job.abort()
            raise
        digest = await self._aside(job.output_digest)
        self._show()
        return job.summary(outcome, self._tally, self._workers, digest, time.perf_counter() - self._began)

    async def _outcome(self) -> JobSucceeded | JobFailed:
        """Have workers do all tasks."""
        assert self._loop is not None
        finished: asyncio.Future[JobSucceeded | JobFailed] = self._loop.create_future()
        broker = LocalBroker()
        system = AsyncioSystem(self._take_event, partial(_set_error, finished))
        pool = WorkerPool(broker, self._workers, partial(system.deliver, MASTER))
        self._connect(system, broker, pool, finished)
        try:
            states = await self._aside(self._job.stored_states, sweep=True)
            resume = await self._aside(self._job.has_children)
            self._begin_fold(states)
            # Nothing may wait between these two: a worker that ends in between would end unheard.
            pool.start()
            await broker.start(partial(_deliver, system, pool))
            system.deliver(MASTER, SubmitJob(self._job.spec, states, resume=resume))
            ticker = asyncio.create_task(self._tick())
            try:
                return await finished
            finally:
                ticker.cancel()
        finally:
            system.close()
            await pool.close()
            await broker.close()

    async def _aside(self, call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call what may wait for a server without holding up the loop.

        When it is cancelled, requests under way fail at once, and the call is over when this is.
        """
        calling = asyncio.ensure_future(asyncio.to_thread(call, *arguments, **options))
        try:
            return await asyncio.shield(calling)
        except asyncio.CancelledError:
            self._store.close()
            await asyncio.wait({calling})
            raise

    def interrupt(self) -> None:
        """End the run from another thread, also one that is about to begin."""
        self._interrupted = True
        if self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just closed
                self._loop.call_soon_threadsafe(self._task.cancel)

    def interrupted_words(self) -> str:
        """Return what to tell of an interrupted run."""
        tally = self._tally
        return (
            f"interrupted; {tally.succeeded:,} of {self._job.record.tasks:,} tasks are stored in "
            f"{printable(self._job.spec.work)}, and the same command goes on from there"
        )

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
            match message:
                case KillWorker():
                    pool.kill(message.worker)
                case TellWorker():
                    broker.send(message.worker, message.message)
                case AssignTask():
                    broker.assign(message.worker, message.message)
                case PauseWorker():
                    broker.pause(message.worker)
                case ResumeWorker():
                    broker.resume(message.worker)

        def to_client(message: msgspec.Struct) -> None:
            if isinstance(message, JobSucceeded | JobFailed) and not finished.done():
                finished.set_result(message)

        system.gateway(BROKER, to_broker)
        system.gateway(WORKERS, to_workers)
        system.gateway(CLIENT, to_client)
        system.spawn(MASTER, partial(Master, settings=MasterSettings()))
        system.spawn(TRACKER, partial(TaskTracker, settings=TrackerSettings(speculation=self._speculation)))

    def _begin_fold(self, states: tuple[bytes, ...]) -> None:
        """Begin to fold views, where somebody looks at them."""
        if self._on_view is None:
            return
        from distsum.observe.view import JobFold

        self._fold = JobFold(
            self._tally,
            self._job.work_by_phase(),
            printable(self._job.record.output),
            time.time() - (time.perf_counter() - self._began),
            self._job.nothing_to_do(states),
        )

    def _take_event(self, event: msgspec.Struct) -> None:
        now = time.perf_counter() - self._began
        (self._fold or self._tally).take(event, now)
        if self._recorder is not None:
            self._recorder.take(event, now)

    async def _tick(self) -> None:
        while self._on_snapshot is not None or self._on_view is not None:
            self._show()
            await asyncio.sleep(_SNAPSHOT_SECONDS)

    def _show(self) -> None:
        if self._on_snapshot is not None:
            self._on_snapshot(self._tally.snapshot(time.perf_counter() - self._began))
        self._show_view()

    def _show_view(self) -> None:
        if self._on_view is not None and self._fold is not None:
            self._on_view(self._fold.view(time.perf_counter() - self._began))


def _deliver(system: AsyncioSystem, pool: WorkerPool, message: FromWorker | FromBroker) -> None:
    pool.observe(message)
    system.deliver(TRACKER, message)


def _set_error(finished: asyncio.Future[JobSucceeded | JobFailed], error: BaseException) -> None:
    if not finished.done():
        finished.set_exception(error)
