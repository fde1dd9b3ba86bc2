"""The commands of the service: its two kinds of process, and what clients ask it."""

from __future__ import annotations

import json as json_module
import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from distsum.cli import streams
from distsum.cli.options import (
    NO_FLAGS,
    FileName,
    Force,
    Inputs,
    Json,
    Output,
    Quiet,
    RunFlags,
    as_given,
    options_of,
    paths_of,
    plain,
    settings_of,
    whole_number,
)
from distsum.cli.progress import Progress, size_words, summary_lines, time_words
from distsum.errors import InterruptedRunError, UsageError
from distsum.request import ReductionName
from distsum.wording import counted, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distsum.brokers.address import BrokerAddress
    from distsum.config import Settings
    from distsum.observe.workers import WorkerStatus
    from distsum.request import Options, Summary
    from distsum.service.client import Client
    from distsum.service.messages import JobStatus, Queues, WorkerAction

Broker = Annotated[
    str | None,
    Parameter(
        name="--broker",
        metavar="URI",
        help="amqp://USER:PASSWORD@HOST/VHOST. Better set DISTSUM_BROKER: others see a command's arguments.",
    ),
]
S3Deadline = Annotated[
    str | None,
    Parameter(
        name="--s3-deadline",
        metavar="SECONDS",
        help="Ask S3 again for so long where it does not answer, then give up. [default: 180]",
    ),
]
JobId = Annotated[str, Parameter(name="JOB", help="Its id, as submit has printed it.")]
_PATIENCE_SECONDS = 20.0


def master(
    *,
    broker: Broker = None,
    work_dir: Annotated[
        FileName | None,
        Parameter(metavar="URI", converter=as_given, help="Folder of jobs and partials, which all workers reach."),
    ] = None,
    s3_deadline: S3Deadline = None,
) -> None:
    """Serve a broker's virtual host: take jobs, and have workers do them."""
    import asyncio
    from contextlib import closing

    from distsum.service.rabbitmq import serve
    from distsum.stores.routing import RoutingStore, absolute_folder

    settings = settings_of(RunFlags(work_dir=work_dir), broker=broker, s3_deadline=s3_deadline)
    if settings.work_dir is None:
        raise UsageError("master needs --work-dir, a folder that it and all workers reach")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("distsum").setLevel(logging.INFO)
    address = _address(settings)
    work = absolute_folder(os.fsencode(settings.work_dir))
    streams.say(f"serving {address}, with work in {printable(work)}")
    with closing(RoutingStore(settings.s3_deadline)) as store:
        asyncio.run(_until_terminated(serve(address, store, work, on_ready=lambda: streams.say("ready"))))


async def _until_terminated(serving: Any) -> None:
    """Run until SIGTERM, which ends it in peace."""
    import asyncio
    import signal

    task = asyncio.ensure_future(serving)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        streams.say("ended; jobs go on when there is a master again")


def worker(
    *,
    broker: Broker = None,
    slots: Annotated[
        str | None, Parameter(metavar="N", help="Tasks at a time, each in a process. [default: one a CPU]")
    ] = None,
    s3_deadline: S3Deadline = None,
) -> int:
    """Do tasks for a master. SIGTERM lets those at hand be finished; a second one ends them."""
    from distsum.machine import usable_cpus
    from distsum.worker.slots import Slots

    settings = settings_of(broker=broker, s3_deadline=s3_deadline)
    count = usable_cpus() if slots is None else whole_number("--slots", slots, 1)
    logging.basicConfig(format="distsum: %(message)s", level=logging.WARNING, stream=sys.stderr)
    return Slots(_address(settings), count, settings.s3_deadline).run()


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
    options = options_of(settings, force=force, digest=True)
    with _client(settings) as client:
        job = submit_job(client, reduction, inputs, output, options, settings, priority)
        if wait:
            follow(client, job, settings, as_json=json)
        else:
            streams.emit(json_module.dumps({"job": job}) if json else job)


def submit_job(
    client: Client,
    reduction: ReductionName,
    inputs: Sequence[FileName],
    output: FileName,
    options: Options,
    settings: Settings,
    priority: str = "0",
) -> str:
    """Submit a job; return its id."""
    try:
        number = int(priority)
    except ValueError:
        raise UsageError(f"--priority {printable(priority, 80)}: must be a whole number") from None
    from distsum.stores.routing import absolute

    name = absolute(os.fsencode(output))
    return client.submit(reduction, paths_of(inputs, settings), name, options, priority=number)


def follow(client: Client, job: str, settings: Settings, *, as_json: bool) -> None:
    """Show a job until it has ended, and then what it did.

    Raises:
        JobError: It has failed, or was cancelled.
        InterruptedRunError: Ctrl-C; the job goes on.
    """
    try:
        with Progress(quiet=settings.quiet) as progress:

            def show(status: JobStatus) -> None:
                if status.snapshot is not None:
                    progress.show(status.snapshot)

            summary = client.wait(job, on_status=show)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"no longer followed; job {job} goes on: see `distsum status {job}`, or end it with `distsum cancel {job}`"
        ) from None
    _tell_end(summary, quiet=settings.quiet, as_json=as_json)


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


def status(job: JobId, /, *, broker: Broker = None, json: Json = False) -> None:
    """Show how a job is doing, and what waits at the broker."""
    with _client(settings_of(broker=broker)) as client:
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


def workers(
    *,
    pause: Annotated[str | None, Parameter(metavar="WORKER", help="Give it no more tasks.")] = None,
    resume: Annotated[str | None, Parameter(metavar="WORKER", help="Give it tasks again.")] = None,
    drain: Annotated[str | None, Parameter(metavar="WORKER", help="Send it away when its task is done.")] = None,
    shutdown: Annotated[str | None, Parameter(metavar="WORKER", help="Send it away at once.")] = None,
    broker: Broker = None,
    json: Json = False,
) -> None:
    """List the workers, or do something with one."""
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
        if any(name is not None for _, name in wanted):
            return
        found = client.workers()
    if json:
        streams.emit(json_module.dumps([plain(each) for each in found]))
        return
    rows: list[tuple[str, ...]] = [("worker", "state", "tasks", "failed", "read", "rate", "memory", "heard")]
    rows += [_worker_row(each) for each in found]
    streams.emit("\n".join(_table(rows)))


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
    from distsum.cli.progress import snapshot_lines

    lines = [
        f"job {found.job}: {found.state}, priority {found.priority}",
        f"{found.reduction} of {counted(found.files, 'file')} to {found.output}",
        f"submitted {time_words(max(0.0, time.time() - found.submitted_seconds))} ago",
    ]
    if found.reason is not None:
        lines.append(f"because: {printable(found.reason, 4000)}")
    if found.snapshot is not None and found.snapshot.phases:
        lines += snapshot_lines(found.snapshot)
        lines += [printable(note, 1000) for note in found.snapshot.notes[-10:]]
    if found.summary is not None:
        lines += summary_lines(found.summary)
    return lines


def _queue_lines(queues: Queues) -> list[str]:
    rows = [("queue", "ready", "consumers")]
    rows += [(each.name, f"{each.ready:,}", f"{each.consumers:,}") for each in queues.queues]
    lines = [*_table(rows), f"{counted(queues.redelivered, 'task')} redelivered"]
    return lines if queues.management is None else [*lines, f"more at {queues.management}"]


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


def _client(settings: Settings) -> Client:
    from distsum.service.rabbitmq import connect
    from distsum.stores.routing import RoutingStore

    return connect(_address(settings), RoutingStore(), _PATIENCE_SECONDS)
