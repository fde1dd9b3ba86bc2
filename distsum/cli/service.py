"""The commands of the service: its two kinds of process, and what clients ask it."""

from __future__ import annotations

import contextlib
import json as json_module
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from distsum import __version__
from distsum.brokers.topology import DEAD
from distsum.cli import streams
from distsum.cli.master_fleet import master_fleet
from distsum.cli.options import (
    NO_FLAGS,
    Broker,
    FileName,
    Force,
    Inputs,
    Json,
    NoSpeculation,
    Output,
    Quiet,
    RunFlags,
    Speculation,
    as_given,
    options_of,
    paths_of,
    plain,
    settings_of,
    speculation_flag,
    whole_number,
)
from distsum.cli.progress import Progress, snapshot_lines, summary_lines
from distsum.errors import DistsumError, InterruptedRunError, UsageError
from distsum.request import LogLevel, ReductionName
from distsum.wording import counted, printable, size_words, time_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from distsum.brokers.address import BrokerAddress
    from distsum.config import Settings
    from distsum.observe.ledger import LedgerReport
    from distsum.observe.metrics import Metrics
    from distsum.observe.workers import WorkerStatus
    from distsum.request import Options, Summary
    from distsum.service.client import ServiceClient
    from distsum.service.messages import JobStatus, Queues, WorkerAction

log = logging.getLogger(__name__)

S3Deadline = Annotated[
    str | None,
    Parameter(
        name="--s3-deadline",
        metavar="SECONDS",
        help="Ask S3 again for so long where it does not answer, then give up. [default: 180]",
    ),
]
JobId = Annotated[str, Parameter(name="JOB", help="Its id, as submit has printed it.")]
LogJson = Annotated[
    bool | None,
    Parameter(name="--log-json", help="Log JSON objects, one a line, for what collects logs. [default: no]"),
]
Level = Annotated[
    LogLevel | None,
    Parameter(
        name="--log-level",
        metavar="LEVEL",
        help="debug tells of every task, too; info, warning, error. [default: info]",
    ),
]
Management = Annotated[
    str | None,
    Parameter(
        name="--management",
        metavar="URI",
        help="http://USER:PASSWORD@HOST:PORT of RabbitMQ's management API. Better set DISTSUM_MANAGEMENT.",
    ),
]
_PATIENCE_SECONDS = 20.0
_MOST_NUMBER = 1 << 62
"""What a message can say."""


def master(
    *,
    broker: Broker = None,
    work_dir: Annotated[
        FileName | None,
        Parameter(metavar="URI", converter=as_given, help="Folder of jobs and partials, which all workers reach."),
    ] = None,
    s3_deadline: S3Deadline = None,
    management: Management = None,
    metrics_port: Annotated[
        str | None, Parameter(metavar="N", help="Serve figures for Prometheus at this port; 0 is any. [default: none]")
    ] = None,
    metrics_host: Annotated[
        str, Parameter(metavar="ADDRESS", help="Where to listen for that: whoever reaches it may read the figures.")
    ] = "127.0.0.1",
    fleet: Annotated[
        FileName | None,
        Parameter(
            metavar="FILE",
            converter=as_given,
            help="Hold the workers of this fleet.toml while it serves; `distsum workers --scale` changes their number.",
        ),
    ] = None,
    speculation: Speculation = None,
    no_speculation: NoSpeculation = False,
    log_json: LogJson = None,
    log_level: Level = None,
) -> int:
    """Serve a broker's virtual host: take jobs, and have workers do them."""
    import asyncio
    from contextlib import closing

    from distsum.service.rabbitmq import serve
    from distsum.stores.routing import RoutingStore, absolute_folder, is_remote

    wanted = speculation_flag(speculation, off=no_speculation)
    settings = settings_of(
        RunFlags(work_dir=work_dir),
        broker=broker,
        s3_deadline=s3_deadline,
        management=management,
        speculation=wanted,
        log_json=log_json,
        log_level=log_level,
    )
    remark = _silence_remark(settings)
    if settings.work_dir is None:
        raise UsageError("master needs --work-dir, a folder that it and all workers reach")
    port = None if metrics_port is None else whole_number("--metrics-port", metrics_port)
    address = _address(settings)
    scaling = None if fleet is None else master_fleet(fleet, settings, address, broker_given=broker is not None)
    work = absolute_folder(os.fsencode(settings.work_dir))
    if not is_remote(work):
        make_folder(work, "--work-dir")  # clients look whether they see it, too

    def run() -> int:
        words = printable(work)
        log.info("serving %s, with work in %s; distsum %s, process %d", address, words, __version__, os.getpid())
        if remark is not None:
            log.warning("speculation: %s", remark)
        with closing(RoutingStore(settings.s3_deadline)) as store, _metrics(port, metrics_host) as metrics:
            serving = serve(
                address,
                store,
                work,
                on_ready=lambda: log.info("ready"),
                management=settings.management,
                metrics=metrics,
                scaling=scaling,
                speculation=settings.speculation,
            )
            asyncio.run(_until_terminated(serving))
        return 0

    return _logged(settings, run)


def _silence_remark(settings: Settings) -> str | None:
    """Return what is to be said of the silence after which a worker counts as frozen.

    Raises:
        UsageError: It is too short for the heartbeats of a service's workers.
    """
    from distsum.actors.speculation_words import check_silence
    from distsum.worker.slots import HEARTBEAT_SECONDS

    try:
        return check_silence(settings.speculation, HEARTBEAT_SECONDS)
    except ValueError as error:
        raise UsageError(f"speculation: {error}") from None


def _logged(settings: Settings, run: Callable[[], int]) -> int:
    """Run a process of the service; where its log is JSON, the error that it ends with is, too."""
    from distsum.logs import LogStyle, begin_logging

    secrets = [secret for each in (settings.broker, settings.management) if each is not None for secret in each.secrets]
    begin_logging(sys.stderr, LogStyle(settings.log_level, settings.log_json), secrets=secrets)
    try:
        return run()
    except DistsumError as error:
        if not settings.log_json:
            raise
        log.error("%s", error)  # noqa: TRY400 - a person's own mistake has no traceback
        return error.exit_code
    except Exception:
        if not settings.log_json:
            raise
        log.exception("this is a fault in distsum; please report it")
        return DistsumError.exit_code


@contextlib.contextmanager
def _metrics(port: int | None, host: str) -> Iterator[Metrics | None]:
    """Serve the figures for Prometheus, if that is asked for, until the end of the block."""
    if port is None:
        yield None
        return
    from distsum.observe.metrics import Metrics, served

    metrics = Metrics()
    with served(metrics, host, port) as url:
        log.info("figures for Prometheus are at %s", url)
        yield metrics


def make_folder(folder: bytes, option: str) -> None:
    """Make a folder unless it is there.

    Args:
        folder: Its path.
        option: What names it.

    Raises:
        UsageError: It cannot be made.
    """
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{option} {printable(folder)}: this folder cannot be made ({error.strerror}); choose another"
        ) from None


async def _until_terminated(serving: Any) -> None:
    """Run until SIGTERM, which ends it in peace."""
    import asyncio

    task = asyncio.ensure_future(serving)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        log.info("ended; jobs go on when there is a master again")


def worker(
    *,
    broker: Broker = None,
    slots: Annotated[
        str | None, Parameter(metavar="N", help="Tasks at a time, each in a process. [default: one a CPU]")
    ] = None,
    s3_deadline: S3Deadline = None,
    log_json: LogJson = None,
    log_level: Level = None,
    serve: Annotated[
        list[str] | None,
        Parameter(
            negative=(),
            metavar="PLACE",
            help="Read and write nothing but what lies in this folder or below s3://BUCKET/PREFIX; may be given "
            "several times. [default: everything]",
        ),
    ] = None,
) -> int:
    """Do tasks for a master. SIGTERM lets those at hand be finished; a second one ends them."""
    from distsum.logs import LogStyle
    from distsum.machine import usable_cpus
    from distsum.stores.served import served_place
    from distsum.worker.slots import Slots

    settings = settings_of(broker=broker, s3_deadline=s3_deadline, serve=serve, log_json=log_json, log_level=log_level)
    places = [served_place(os.fsencode(place)) for place in settings.serve or ()]
    count = usable_cpus() if slots is None else whole_number("--slots", slots, 1)
    address = _address(settings)
    style = LogStyle(settings.log_level, settings.log_json)
    return _logged(
        settings, lambda: Slots(address, count, places, log_style=style, s3_deadline_seconds=settings.s3_deadline).run()
    )


def submit(
    reduction: Annotated[ReductionName, Parameter(name="REDUCTION", help="mean, sum, min or max.")],
    /,
    *inputs: Inputs,
    output: Output,
    broker: Broker = None,
    priority: Annotated[str, Parameter(metavar="N", help="Jobs of a higher one go first.")] = "0",
    wait: Annotated[bool, Parameter(negative=(), show_default=False, help="Follow the job to its end.")] = False,
    flags: RunFlags = NO_FLAGS,
    force: Force = False,
    quiet: Quiet = None,
    json: Json = False,
) -> None:
    """Have a job done by the service, and print its id: it is stored, and will run."""
    settings = settings_of(flags, quiet=quiet, broker=broker)
    options = service_options(flags, settings, force=force)
    with _client(settings) as client:
        job = submit_job(client, reduction, inputs, output, options, settings, priority)
        if wait:
            follow(client, job, settings, as_json=json)
        else:
            streams.emit(json_module.dumps({"job": job}) if json else job)


def run_there(
    reduction: ReductionName,
    inputs: Sequence[FileName],
    output: FileName,
    flags: RunFlags,
    settings: Settings,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Have a job done by the service as if it were done here: follow it, and tell the same of it in the end."""
    options = service_options(flags, settings, force=force)
    with _client(settings) as client:
        job = submit_job(client, reduction, inputs, output, options, settings)
        if not settings.quiet:
            streams.say(f"job {job} of {_address(settings)}")
        follow(client, job, settings, as_json=as_json)


def service_options(flags: RunFlags, settings: Settings, *, force: bool) -> Options:
    """Return how a job of the service is to run.

    Its work folder is the service's, and its workers are those that the service has: what lower layers set of both is
    meant for runs on this machine. As an option, the number of workers is that to plan for.

    Raises:
        UsageError: A work folder is given as an option.
    """
    if flags.work_dir is not None:
        raise UsageError(
            f"--work-dir {printable(str(flags.work_dir))}: a service keeps jobs in its own work folder; leave it out"
        )
    workers = settings.workers if flags.workers is not None else None
    return msgspec.structs.replace(options_of(settings, force=force, digest=True), work_dir=None, workers=workers)


def submit_job(
    client: ServiceClient,
    reduction: ReductionName,
    inputs: Sequence[FileName],
    output: FileName,
    options: Options,
    settings: Settings,
    priority: str = "0",
    *,
    joins: bool = False,
) -> str:
    """Submit a job, or with ``joins`` find it where it is under way already; return its id."""
    try:
        number = int(priority)
    except ValueError:
        raise UsageError(f"--priority {printable(priority, 80)}: must be a whole number") from None
    paths = paths_of(inputs, settings)
    return client.submit_job(reduction, paths, os.fsencode(output), options, priority=number, joins=joins)


def follow(client: ServiceClient, job: str, settings: Settings, *, as_json: bool, goes_on: str | None = None) -> None:
    """Show a job until it has ended, and then what it did.

    Args:
        client: The way to the service.
        job: The job's id.
        settings: Whether anything is shown.
        as_json: Whether its summary is printed as an object.
        goes_on: What becomes of a job that is followed no longer, in words; None is that it goes on where it is.

    Raises:
        JobError: It has failed, or was cancelled.
        InterruptedRunError: Ctrl-C or SIGTERM; the job goes on.
    """
    try:
        with interrupted_by(signal.SIGTERM), Progress(quiet=settings.quiet) as progress:

            def show(status: JobStatus) -> None:
                if status.snapshot is not None:
                    progress.show(status.snapshot)

            summary = client.wait(job, on_status=show)
    except KeyboardInterrupt:
        if goes_on is None:
            goes_on = f"job {job} goes on: see `distsum status {job}`, or end it with `distsum cancel {job}`"
        raise InterruptedRunError(f"no longer followed; {goes_on}") from None
    _tell_end(summary, quiet=settings.quiet, as_json=as_json)


@contextlib.contextmanager
def interrupted_by(number: signal.Signals) -> Iterator[None]:
    """Let another signal do what Ctrl-C does."""
    before = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def jobs(*, broker: Broker = None, json: Json = False) -> None:
    """List the jobs: the last that have ended, then all others."""
    with _client(settings_of(broker=broker)) as client:
        found = client.jobs()
    if json:
        streams.emit(json_module.dumps([plain(status) for status in found]))
        return
    rows: list[tuple[str, ...]] = [("job", "state", "prio", "what", "files", "done", "output")]
    rows += [_job_row(status) for status in found]
    streams.emit("\n".join(_table(rows)))


def status(
    job: Annotated[str | None, Parameter(name="JOB", help="Its id, as submit has printed it.")] = None,
    /,
    *,
    stragglers: Annotated[
        bool,
        Parameter(negative=(), show_default=False, help="Tell of slow tasks: which got a second worker, and why."),
    ] = False,
    history: Annotated[
        FileName | None,
        Parameter(metavar="FILE", converter=as_given, help="Instead of a job's, what a run has stored by --history."),
    ] = None,
    broker: Broker = None,
    json: Json = False,
) -> None:
    """Show how a job is doing, and what waits at the broker; or what it has done about stragglers."""
    if (job is None) == (history is None):
        raise UsageError("status needs one of JOB, the id of a job, and --history, a file")
    if history is not None:
        _show_replay(os.fsencode(history), stragglers=stragglers, as_json=json)
        return
    assert job is not None
    with _client(settings_of(broker=broker)) as client:
        if stragglers:
            _show_ledger(client.stragglers(job), as_json=json)
            return
        found, queues = client.status(job), client.queues()
    if json:
        streams.emit(json_module.dumps(plain(found) | {"queues": plain(queues)}))
    else:
        streams.emit("\n".join([*_status_lines(found), "", *_queue_lines(queues)]))


def wait(
    job: JobId,
    /,
    *,
    broker: Broker = None,
    timeout: Annotated[str | None, Parameter(metavar="SECONDS", help="Give up after so long. [default: never]")] = None,
    quiet: Quiet = None,
    json: Json = False,
) -> None:
    """Wait for a job's end; the exit code is the one that the job would have given."""
    settings = settings_of(quiet=quiet, broker=broker)
    seconds = None if timeout is None else float(whole_number("--timeout", timeout))
    with _client(settings) as client:
        if seconds is None:
            follow(client, job, settings, as_json=json)
            return
        try:
            summary = client.wait(job, seconds)
        except TimeoutError as error:
            raise UsageError(str(error)) from None
    _tell_end(summary, quiet=settings.quiet, as_json=json)


def cancel(job: JobId, /, *, broker: Broker = None) -> None:
    """Stop a job, and remove what it has left."""
    with _client(settings_of(broker=broker)) as client:
        client.cancel(job)
    streams.say(f"job {job} is cancelled")


def prioritize(
    job: JobId,
    priority: Annotated[str, Parameter(name="N", help="Jobs of a higher one go first.")],
    /,
    *,
    broker: Broker = None,
) -> None:
    """Give a job another priority; what runs goes on."""
    try:
        number = int(priority)
    except ValueError:
        raise UsageError(f"{printable(priority, 80)}: must be a whole number") from None
    with _client(settings_of(broker=broker)) as client:
        client.set_priority(job, number)
    streams.say(f"job {job} has priority {number}")


def speculate(
    job: JobId,
    switch: Annotated[Literal["on", "off"], Parameter(name="SWITCH", help="Whether its stragglers get backups.")],
    /,
    *,
    broker: Broker = None,
) -> None:
    """Give the stragglers of a running job no more backups, or give them some again; those under way go on."""
    with _client(settings_of(broker=broker)) as client:
        client.switch_speculation(job, on=switch == "on")
    streams.say(f"stragglers of job {job} get {'backups again' if switch == 'on' else 'no more backups'}")


def backup(
    job: JobId,
    phase: Annotated[str, Parameter(name="PHASE", help="The task's phase, from 1, as status --stragglers names it.")],
    task: Annotated[str, Parameter(name="TASK", help="Its number within the phase, from 0.")],
    /,
    *,
    tile: Annotated[str, Parameter(metavar="N", help="The tile that it is of, from 0.")] = "0",
    broker: Broker = None,
    json: Json = False,
) -> None:
    """Give a task that runs to an idle worker, too, at once; whichever is done first counts."""
    from distsum.messages import TaskId
    from distsum.observe.ledger import task_words

    numbers = [whole_number(name, text) for name, text in (("PHASE", phase), ("TASK", task), ("--tile", tile))]
    if max(numbers) > _MOST_NUMBER:
        raise UsageError(f"{max(numbers)} is the number of no phase, task or tile")
    with _client(settings_of(broker=broker)) as client:
        begun = client.back_up(job, *numbers)
    if json:
        named = dict(zip(("phase", "task", "tile"), numbers, strict=True))
        who = {"worker": begun.worker, "of_worker": begun.of_worker, "helpers": begun.helpers}
        streams.emit(json_module.dumps({"job": job} | named | who))
        return
    more = f", and {counted(len(begun.helpers), 'more worker')} share it" if begun.helpers else ""
    where = task_words(TaskId(job, numbers[0], numbers[2], numbers[1]))
    streams.say(f"{where} of job {job} has a backup on {printable(begun.worker, 60)} now{more}")


def workers(
    *,
    pause: Annotated[str | None, Parameter(metavar="WORKER", help="Give it no more tasks.")] = None,
    resume: Annotated[str | None, Parameter(metavar="WORKER", help="Give it tasks again.")] = None,
    drain: Annotated[str | None, Parameter(metavar="WORKER", help="Send it away when its task is done.")] = None,
    shutdown: Annotated[str | None, Parameter(metavar="WORKER", help="Send it away at once.")] = None,
    scale: Annotated[
        str | None,
        Parameter(metavar="N", help="Have so many in all on the hosts of the master's fleet; `file` is what it says."),
    ] = None,
    broker: Broker = None,
    json: Json = False,
) -> None:
    """List the workers, do something with one, or have another number of them."""
    total = None if scale in {None, "file"} else whole_number("--scale", scale)
    wanted: list[tuple[WorkerAction, str | None]] = [
        ("pause", pause),
        ("resume", resume),
        ("drain", drain),
        ("shutdown", shutdown),
    ]
    with _client(settings_of(broker=broker)) as client:
        for action, name in wanted:
            if name is not None:
                client.command_worker(name, action)
                streams.say(f"worker {name}: {action}")
        if scale is not None:
            client.scale_workers(total)
            words = "as many workers as its file says" if total is None else counted(total, "worker")
            streams.say(f"the fleet is to have {words}; the master's log tells of it")
            if json:
                streams.emit(json_module.dumps({"wanted": total}))
        if scale is not None or any(name is not None for _, name in wanted):
            return
        found = client.workers()
    if json:
        streams.emit(json_module.dumps([plain(each) for each in found]))
        return
    rows: list[tuple[str, ...]] = [("worker", "state", "tasks", "failed", "read", "rate", "memory", "heard")]
    rows += [_worker_row(each) for each in found]
    streams.emit("\n".join(_table(rows)))


# Histories ------------------------------------------------------------------------------------------------------------


def _show_replay(uri: bytes, *, stragglers: bool, as_json: bool) -> None:
    from contextlib import closing

    from distsum.observe.history import History, Replay
    from distsum.stores.routing import RoutingStore

    with closing(RoutingStore()) as store:
        reader = store.open(uri)
        if reader is None:
            raise UsageError(f"{printable(uri)}: there is no such file")
        with reader:
            replay = Replay(History(reader))
    if stragglers:
        _show_ledger(replay.ledger_report(), as_json=as_json)
        return
    header, snapshot = replay.header, replay.tally.snapshot(replay.seconds)
    if as_json:
        told = {"header": plain(header), "snapshot": plain(snapshot), "workers": plain(replay.workers.statuses())}
        streams.emit(json_module.dumps(told | {"remark": replay.remark}))
        return
    lines = [
        f"job {printable(header.job, 80)}: {printable(header.reduction, 80)} of {counted(header.files, 'file')} to "
        f"{printable(header.output)}",
        f"begun {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(header.began_seconds))}, "
        f"{'ended' if snapshot.finished else 'told of until'} {time_words(replay.seconds)} later",
        *snapshot_lines(snapshot),
        *(printable(note, 1000) for note in snapshot.notes),
    ]
    streams.emit("\n".join(lines if replay.remark is None else [*lines, replay.remark]))


def _show_ledger(report: LedgerReport, *, as_json: bool) -> None:
    if as_json:
        streams.emit(json_module.dumps(plain(report)))
    else:
        streams.emit("\n".join(ledger_report_lines(report)))


def ledger_report_lines(report: LedgerReport) -> list[str]:
    """Return a job's ledger as lines: what was cut, then each entry with the time of day, and the totals."""
    from distsum.observe.ledger import LEDGER_MARKS, ledger_lines, totals_words

    lines = [f"{counted(report.cut, 'earlier entry', 'earlier entries')} left out"] if report.cut else []
    for line in ledger_lines(report.entries):
        clock = time.strftime("%H:%M:%S", time.localtime(report.began_seconds + line.seconds))
        lines.append(f"{clock} {LEDGER_MARKS[line.what]} {line.text}")
    lines.append(totals_words(report.totals, report.bytes_read))
    return lines if report.remark is None else [*lines, report.remark]


# Words ----------------------------------------------------------------------------------------------------------------


def _tell_end(summary: Summary, *, quiet: bool, as_json: bool) -> None:
    from distsum.cli.reduce import summary_object

    if not quiet:
        for line in summary_lines(summary):
            streams.say(line)
    if as_json:
        streams.emit(json_module.dumps(summary_object(summary)))


def _job_row(found: JobStatus) -> tuple[str, ...]:
    done = ""
    if found.snapshot is not None:
        tasks = sum(phase.tasks for phase in found.snapshot.phases)
        done = f"{100 * sum(phase.done for phase in found.snapshot.phases) // tasks}%" if tasks else "-"
    return (
        found.job,
        found.state,
        str(found.priority),
        found.reduction,
        f"{found.files:,}",
        done,
        found.output,
    )


def _status_lines(found: JobStatus) -> list[str]:
    lines = [
        f"job {found.job}: {found.state}, priority {found.priority}",
        f"{found.reduction} of {counted(found.files, 'file')} to {found.output}",
        f"submitted {time_words(max(0.0, time.time() - found.submitted_seconds))} ago",
    ]
    if found.snapshot is not None and found.snapshot.speculation is False:
        lines.append("its stragglers get no backups")
    if found.reason is not None:
        lines.append(f"because: {printable(found.reason, 4000)}")
    if found.snapshot is not None and found.snapshot.phases:
        lines += snapshot_lines(found.snapshot)
        lines += [printable(note, 1000) for note in found.snapshot.notes[-10:]]
    if found.summary is not None:
        lines += summary_lines(found.summary)
    return lines


def _queue_lines(queues: Queues) -> list[str]:
    """Return the table of queues, with what only the management API tells where it has told it."""
    told = any(each.unacknowledged is not None for each in queues.queues)
    more = ("unacked", "redelivered") if told else ()
    rows: list[tuple[str, ...]] = [("queue", "ready", *more, "consumers")]
    for each in queues.queues:
        counts = (each.ready, *((each.unacknowledged, each.redelivered or 0) if told else ()), each.consumers)
        rows.append((each.name, *("-" if count is None else f"{count:,}" for count in counts)))
    lines = [*_table(rows), f"{counted(queues.redelivered, 'task')} redelivered since the master began"]
    dead = sum(each.ready for each in queues.queues if each.name == DEAD)
    if dead:
        lines.append(f"{counted(dead, 'dead task')}: they took their workers down, and their jobs fail")
    if queues.management_fault is not None:
        lines.append(f"the management API tells nothing: {printable(queues.management_fault, 1000)}")
    elif queues.management is not None:
        lines.append(f"more at {queues.management}")
    return lines


def _worker_row(found: WorkerStatus) -> tuple[str, ...]:
    reason = f" ({printable(found.reason, 200)})" if found.reason else ""
    return (
        found.worker,
        found.state + reason,
        f"{found.tasks:,}",
        f"{found.failures:,}",
        size_words(found.bytes_read),
        f"{size_words(found.bytes_per_second)}/s",
        size_words(found.resident_bytes),
        f"{time_words(max(0.0, time.time() - found.heard_seconds))} ago",
    )


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _address(settings: Settings) -> BrokerAddress:
    if settings.broker is None:
        raise UsageError("no broker is named; set DISTSUM_BROKER, broker in distsum.toml, or --broker")
    return settings.broker


def _client(settings: Settings) -> ServiceClient:
    from distsum.service.rabbitmq import connect
    from distsum.stores.routing import RoutingStore

    return connect(_address(settings), RoutingStore(), _PATIENCE_SECONDS)
