"""Events folded into figures for Prometheus, and served to it as text.

What happens is counted as it is told; what there is (workers, jobs, queues) is asked for when somebody looks. Labels
take few values, whatever the number of jobs, workers and files: none holds a name from outside.

An event that is not known here counts nothing; one that should is given its case in ``Metrics.take``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from typing import TYPE_CHECKING, Final, get_args

from distsum.brokers.base import LEFT
from distsum.errors import UsageError
from distsum.messages import (
    BackupDeclined,
    BackupEnded,
    BackupOutcome,
    BackupStarted,
    HelperAdded,
    HelperDeclined,
    JobFailed,
    LoserStopped,
    TaskFailed,
    TaskRetried,
    TaskReturned,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
    WorkerLost,
    WorkerPaused,
    WorkerRefused,
)
from distsum.wording import printable

try:
    from prometheus_client import (
        CollectorRegistry,
        Counter,
        Histogram,
        ProcessCollector,
        start_http_server,
    )
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
except ModuleNotFoundError as error:
    raise UsageError(f"metrics need {error.name}, which is not installed; pip install 'distsum[metrics]'") from error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import msgspec
    from prometheus_client.metrics_core import Metric

    from distsum.messages import Effort
    from distsum.observe.gauges import Gauges

_WORKER_STATES: Final = ("idle", "busy", "paused", "quarantined")
_JOB_STATES: Final = ("queued", "running", "finishing")
_HIGHEST_PHASE: Final = 9
_BUCKETS: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
_ANSWER_SECONDS: Final = 5.0
"""Prometheus waits 10 s; without an answer by then it gets the figures that need none."""


class Metrics:
    """The figures of one master, in a registry of their own.

    An observer of ``Service``: events are taken on its event loop, and the text is made in other threads.

    Attributes:
        registry: Where they are.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gauges: Callable[[], Awaitable[Gauges]] | None = None
        self._started = Counter(
            "distsum_attempts", "Attempts at tasks that workers have begun, as far as that was told.", registry=registry
        )
        self._tasks = Counter(
            "distsum_tasks",
            "Attempts by how they ended: computed, reused (the partial was there), child (help for another attempt), "
            "or the kind of failure.",
            ["outcome"],
            registry=registry,
        )
        self._retries = Counter(
            "distsum_retries",
            "Tasks handed out again: their attempt failed, or was returned because its worker was lost.",
            ["reason"],
            registry=registry,
        )
        self._read = Counter("distsum_read_bytes", "Bytes that workers have read for tasks.", registry=registry)
        self._written = Counter(
            "distsum_written_bytes", "Bytes of partials and results that were stored.", registry=registry
        )
        self._seconds = Histogram(
            "distsum_task_seconds",
            "Reading, adding and storing of tasks that have succeeded, by phase; phase 1 reads the inputs.",
            ["phase"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._worker_seconds = Counter(
            "distsum_worker_seconds", "Time of all workers, by what it was spent on.", ["activity"], registry=registry
        )
        self._jobs = Counter("distsum_jobs_ended", "Jobs that have ended.", ["state"], registry=registry)
        self._joined = Counter("distsum_workers_joined", "Workers that have joined.", registry=registry)
        self._gone = Counter(
            "distsum_workers_gone", "Workers that left, were lost, or were refused.", ["how"], registry=registry
        )
        self._quarantined = Counter(
            "distsum_workers_quarantined", "Workers paused because their attempts failed in a row.", registry=registry
        )
        self._backups = Counter("distsum_backups_started", "Backup attempts, for stragglers.", registry=registry)
        self._backups_ended = Counter(
            "distsum_backups_ended", "Backup attempts that are over, by outcome.", ["outcome"], registry=registry
        )
        self._backups_declined = Counter(
            "distsum_backups_declined",
            "Stragglers that were given no backup, by reason.",
            ["reason"],
            registry=registry,
        )
        self._helpers = Counter(
            "distsum_helpers",
            "Workers that idled while a straggler's node was shared: given a child of it (added), or not (declined).",
            ["decision"],
            registry=registry,
        )
        self._saved = Counter(
            "distsum_backup_saved_seconds", "What backups are thought to have saved.", registry=registry
        )
        self._wasted = Counter(
            "distsum_backup_wasted_bytes", "Bytes read by attempts that did not do the task.", registry=registry
        )
        # So that what has not happened yet is 0, and not missing.
        for outcome in ("computed", "reused"):
            self._tasks.labels(outcome)
        for end in get_args(BackupOutcome):
            self._backups_ended.labels(end)
        for decision in ("added", "declined"):
            self._helpers.labels(decision)
        for reason in ("failed", "returned"):
            self._retries.labels(reason)
        for state in ("succeeded", "failed", "cancelled"):
            self._jobs.labels(state)
        for how in ("left", "lost", "refused"):
            self._gone.labels(how)
        ProcessCollector(registry=registry)
        registry.register(self)

    def take(self, event: msgspec.Struct) -> None:
        """Count an event."""
        match event:
            case TaskStarted():
                self._started.inc()
            case TaskSucceeded():
                self._succeed(event)
            case TaskFailed():
                self._tasks.labels(event.kind).inc()
                self._read.inc(event.bytes_read)
            case BackupStarted() | BackupEnded() | BackupDeclined() | LoserStopped():
                self._take_backup(event)
            case HelperAdded():
                self._helpers.labels("added").inc()
            case HelperDeclined():
                self._helpers.labels("declined").inc()
            case TaskRetried():
                self._retries.labels("failed").inc()
            case TaskReturned():
                self._retries.labels("returned").inc()
            case JobFailed(kind="abandoned"):
                # No worker has lived to tell of the attempt.
                self._tasks.labels(event.kind).inc()
            case WorkerJoined():
                self._joined.inc()
                self._worker_seconds.labels("starting").inc(event.start_seconds)
            case WorkerLost():
                self._gone.labels("left" if event.reason == LEFT else "lost").inc()
            case WorkerRefused():
                self._gone.labels("refused").inc()
            case WorkerPaused(quarantined=True):
                self._quarantined.inc()

    def job_ended(self, state: str) -> None:
        """Count a job that has ended."""
        self._jobs.labels(state).inc()

    def attach(self, gauges: Callable[[], Awaitable[Gauges]]) -> None:
        """Ask this, on the running loop, for what there is whenever somebody looks; from now on a master serves."""
        self._loop, self._gauges = asyncio.get_running_loop(), gauges

    def detach(self) -> None:
        """Ask nobody any more: the master ends."""
        self._loop = self._gauges = None

    def describe(self) -> list[Metric]:
        """Return nothing: what ``collect`` gives is known when it is asked for."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield what there is now; called by the registry in threads of its own."""
        found = self._ask()
        yield GaugeMetricFamily(
            "distsum_serving", "1 while this master serves, 0 while it waits for another's end.", int(found is not None)
        )
        if found is None:
            return
        workers = GaugeMetricFamily("distsum_workers", "Workers that are there.", labels=["state"])
        for state in _WORKER_STATES:
            workers.add_metric([state], found.workers.get(state, 0))
        jobs = GaugeMetricFamily("distsum_jobs", "Jobs that have not ended.", labels=["state"])
        for state in _JOB_STATES:
            jobs.add_metric([state], found.jobs.get(state, 0))
        messages = GaugeMetricFamily("distsum_queue_messages", "Messages at the broker.", labels=["queue", "state"])
        consumers = GaugeMetricFamily("distsum_queue_consumers", "Consumers at the broker.", labels=["queue"])
        for queue in found.queues:
            messages.add_metric([queue.name, "ready"], queue.ready)
            if queue.unacknowledged is not None:
                messages.add_metric([queue.name, "unacknowledged"], queue.unacknowledged)
            consumers.add_metric([queue.name], queue.consumers)
        redelivered = CounterMetricFamily("distsum_redelivered", "Tasks begun after they had come back from a worker.")
        redelivered.add_metric([], found.redelivered)
        yield from (workers, jobs, messages, consumers, redelivered)

    def _take_backup(self, event: BackupStarted | BackupEnded | BackupDeclined | LoserStopped) -> None:
        match event:
            case BackupStarted():
                self._backups.inc()
            case BackupDeclined():
                self._backups_declined.labels(event.reason).inc()
            case BackupEnded():
                self._backups_ended.labels(event.outcome).inc()
                self._wasted.inc(event.wasted_bytes)
                self._saved.inc(max(0.0, event.saved_seconds or 0.0))
            case LoserStopped():
                self._wasted.inc(max(0, event.more_bytes))

    def _succeed(self, event: TaskSucceeded) -> None:
        effort: Effort = event.effort
        spent = {
            "waiting": effort.waiting_seconds,
            "reading": effort.reading_seconds,
            "adding": effort.adding_seconds,
            "storing": effort.storing_seconds,
        }
        for activity, seconds in spent.items():
            self._worker_seconds.labels(activity).inc(max(0.0, seconds))
        self._read.inc(effort.bytes_read)
        self._written.inc(effort.bytes_written)
        if event.child is not None:
            self._tasks.labels("child").inc()
            return
        self._tasks.labels("reused" if event.reused else "computed").inc()
        phase = event.task.phase
        label = str(phase) if phase <= _HIGHEST_PHASE else f"over {_HIGHEST_PHASE}"
        self._seconds.labels(label).observe(sum(spent.values()) - effort.waiting_seconds)

    def _ask(self) -> Gauges | None:
        loop, gauges = self._loop, self._gauges
        if loop is None or gauges is None:
            return None

        async def answer() -> Gauges:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await gauges()

        asked = answer()
        try:
            future = asyncio.run_coroutine_threadsafe(asked, loop)
        except RuntimeError:  # the loop has ended since
            asked.close()
            return None
        try:
            return future.result(_ANSWER_SECONDS)
        except (TimeoutError, concurrent.futures.CancelledError):
            future.cancel()
            return None


@contextlib.contextmanager
def served(metrics: Metrics, host: str, port: int) -> Iterator[str]:
    """Serve figures over HTTP until the end of the block; give the URL. Port 0 is any that is free.

    Raises:
        UsageError: There cannot be listened there.
    """
    try:
        server, thread = start_http_server(port, host, metrics.registry)
    except (OSError, OverflowError) as error:
        reason = printable(getattr(error, "strerror", None) or str(error))
        raise UsageError(
            f"--metrics-port {port}: cannot listen at {printable(host, 80)} ({reason}); give another port or host"
        ) from None
    try:
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
