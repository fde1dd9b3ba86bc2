"""The embedded run: everything on one machine, with no server. The place that picks the concrete parts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from distsum.actors.actor import BROKER, CLIENT, MASTER, TRACKER, WORKERS
from distsum.actors.master import Master, MasterSettings
from distsum.actors.speculation import SpeculationSettings
from distsum.actors.steering import Steering
from distsum.actors.system import AsyncioSystem
from distsum.actors.task_tracker import TaskTracker, TrackerSettings
from distsum.brokers.local import LocalBroker
from distsum.errors import (
    DistsumError,
    InterruptedRunError,
    JobCancelledError,
    OutputError,
    StorageError,
)
from distsum.jobs import Job
from distsum.messages import (
    AssignTask,
    BackupAnswered,
    CancelJob,
    FromBroker,
    FromWorker,
    JobFailed,
    JobSucceeded,
    KillWorker,
    PauseWorker,
    ResumeWorker,
    RunTask,
    SubmitJob,
    TellWorker,
)
from distsum.observe.fold import JobTally
from distsum.preparation import check_output, prepare
from distsum.stores.routing import RoutingStore, absolute, is_remote
from distsum.wording import printable
from distsum.worker.pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import ParamSpec, TypeVar

    import msgspec

    from distsum.helm import Helm
    from distsum.observe.history import Recorder
    from distsum.observe.snapshot import Snapshot
    from distsum.observe.view import JobFold, OnView
    from distsum.request import Options, ReductionName, Summary
    from distsum.stores.base import Store

    P = ParamSpec("P")
    T = TypeVar("T")

_SNAPSHOT_SECONDS: Final = 0.1


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


def run(
    reduction: ReductionName,
    inputs: Sequence[bytes],
    output: bytes,
    options: Options,
    on_snapshot: Callable[[Snapshot], None] | None = None,
    *,
    speculation: SpeculationSettings | None = None,
    history: bytes | None = None,
    on_view: OnView | None = None,
    stop: Stop | None = None,
    helm: Helm | None = None,
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
        on_view: Told as ``on_snapshot`` is, and of all that a screen draws; until it returns, it may ask about nodes.
        stop: Ends the run when another thread asks it to.
        helm: What another thread may steer the run by.

    Raises:
        UsageError: What was asked for cannot be done (nothing was changed).
        JobError: The job failed; what is stored stays in the work folder. Or it did not, and its history cannot be
            stored.
        JobCancelledError: It was cancelled by the helm; what it had stored is removed, as after success.
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
        with _recorded(job, store, history, began, speculation) as recorder, work:
            run = _Run(job, store, workers, began, on_snapshot, speculation, recorder, on_view, helm)
            if stop is not None:
                stop.bind(run.interrupt)
            return _run_loop(run)


# Before anything runs -------------------------------------------------------------------------------------------------


# The work folder ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _work_folder(store: Store, job: Job, *, keep: bool, own: bool) -> Iterator[None]:
    """Hold the work folder for this run. What runs of this job have put there is removed after success, and no more.

    So it is when the job was cancelled: nobody wants it any more.

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
        cancelled = None
        try:
            yield
        except JobCancelledError as error:
            cancelled = error
        store.delete_all(work + b"/jobs/" + job.spec.job.encode(), set())
        if not keep:
            _remove_partials(store, job, before)
            if not is_remote(work):
                store.delete(work + b"/lock")
                for folder in (work + b"/jobs", *(() if there and not own else (work,))):
                    with contextlib.suppress(OSError):  # not empty, so it stays
                        os.rmdir(folder)
        if cancelled is not None:
            raise cancelled


def _remove_partials(store: Store, job: Job, others: set[bytes]) -> None:
    """Remove the partials in a job's work folder, but for those of others that were there before."""
    names = {os.path.basename(name): name for name in others}
    if names:
        # An earlier run of this job, which was interrupted, may have stored some of them.
        others = others - {names[key] for key in map(str.encode, job.node_keys()) if key in names}
    store.delete_all(job.spec.work + b"/partials", others)


def _gives_backups(speculation: SpeculationSettings | None) -> bool:
    return speculation is None or speculation.policy != "none"


@contextlib.contextmanager
def _recorded(
    job: Job, store: Store, uri: bytes | None, began: float, speculation: SpeculationSettings | None
) -> Iterator[Recorder | None]:
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
        recorder = Recorder(job.history_header(began_seconds, speculation=speculation or SpeculationSettings()))
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
        on_view: OnView | None = None,
        helm: Helm | None = None,
    ) -> None:
        self._job = job
        self._store = store
        self._workers = workers
        self._began = began
        self._on_snapshot = on_snapshot
        self._speculation = speculation or SpeculationSettings()
        self._recorder = recorder
        self._tally = JobTally(job.work_by_phase(), job.input_uri, speculation=_gives_backups(speculation))
        self._on_view = on_view
        self._helm = helm
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
            await self._complete(outcome)
        except BaseException:
            job.abort()
            raise
        digest = await self._aside(job.output_digest)
        self._show()
        return job.summary(outcome, self._tally, self._workers, digest, time.perf_counter() - self._began)

    async def _complete(self, outcome: JobSucceeded) -> None:
        """Put the result in its place. The job is not told to have succeeded before."""
        try:
            if not outcome.inputs:
                raise self._job.nothing_left(outcome)
            await self._aside(self._job.commit_output, outcome)
        except DistsumError as error:
            self._tell(self._job.late_failure(error))
            self._show_view()
            raise
        self._tell(outcome)

    async def _outcome(self) -> JobSucceeded | JobFailed:
        """Have workers do all tasks."""
        assert self._loop is not None
        finished: asyncio.Future[JobSucceeded | JobFailed] = self._loop.create_future()
        broker = LocalBroker()
        system = AsyncioSystem(self._take_event, partial(_set_error, finished))
        pool = WorkerPool(broker, self._workers, partial(system.deliver, MASTER))
        steering = Steering(system.deliver, self._speculation)
        self._connect(system, broker, pool, finished, steering)
        try:
            states = await self._aside(self._job.stored_states, sweep=True)
            resume = await self._aside(self._job.has_children)
            self._begin_fold(states)
            # Nothing may wait between these two: a worker that ends in between would end unheard.
            pool.start()
            await broker.start(partial(_deliver, system, pool))
            system.deliver(MASTER, SubmitJob(self._job.spec, states, resume=resume))
            ticker = asyncio.create_task(self._tick())
            if self._helm is not None:
                self._helm.bind(self._loop, steering, self._job.spec.job)
            try:
                return await finished
            finally:
                if self._helm is not None:
                    self._helm.release()
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
        steering: Steering,
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
                    broker.pause(message.worker, message.told)
                case ResumeWorker():
                    broker.resume(message.worker)

        def to_client(message: msgspec.Struct) -> None:
            if isinstance(message, JobSucceeded | JobFailed) and not finished.done():
                finished.set_result(message)
            elif isinstance(message, BackupAnswered):
                steering.take(message)

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
            tree=self._job.tree,
            terms=self._job.terms(self._speculation),
        )

    def _take_event(self, event: msgspec.Struct) -> None:
        if not isinstance(event, JobSucceeded):  # which is told when the result is there
            self._tell(event)

    def _tell(self, event: msgspec.Struct) -> None:
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
            self._on_view(self._fold.view(time.perf_counter() - self._began), self._fold.detail)


def _deliver(system: AsyncioSystem, pool: WorkerPool, message: FromWorker | FromBroker) -> None:
    pool.observe(message)
    system.deliver(TRACKER, message)


def _set_error(finished: asyncio.Future[JobSucceeded | JobFailed], error: BaseException) -> None:
    if not finished.done():
        finished.set_exception(error)
