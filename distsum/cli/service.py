"""What clients ask the service: the commands that look at it and steer it."""

from __future__ import annotations

import contextlib
import json as json_module
import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from distsum.brokers.topology import DEAD
from distsum.cli import streams
from distsum.cli.options import (
    Broker,
    FileName,
    Json,
    Quiet,
    as_given,
    plain,
    settings_of,
    whole_number,
)
from distsum.cli.progress import Progress, snapshot_lines, summary_lines
from distsum.errors import InterruptedRunError, UsageError
from distsum.request import priority_of
from distsum.wording import counted, printable, size_words, time_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from distsum.brokers.address import BrokerAddress
    from distsum.config import Settings
    from distsum.observe.ledger import LedgerReport
    from distsum.observe.workers import WorkerStatus
    from distsum.request import Summary
    from distsum.service.client import ServiceClient
    from distsum.service.messages import JobStatus, Queues, WorkerAction

log = logging.getLogger(__name__)

JobId = Annotated[str, Parameter(name="JOB", help="Its id, as submit has printed it.")]
_PATIENCE_SECONDS = 20.0
_MOST_NUMBER = 1 << 62
"""What a message can say."""


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


def jobs(
    *,
    limit: Annotated[
        str, Parameter(metavar="N", help="How many of those that have ended are listed: the last ones.")
    ] = "50",  # service.messages.JOBS_SHOWN, which is imported when it is needed
    broker: Broker = None,
    json: Json = False,
) -> None:
    """List the jobs: the last that have ended, then all others."""
    from distsum.service.messages import ENDED

    most = min(whole_number("--limit", limit), _MOST_NUMBER)
    with client_of(settings_of(broker=broker)) as client:
        found = client.jobs(most + 1)  # one more tells whether there are more
    ended = sum(status.state in ENDED for status in found)
    found = found[max(0, ended - most) :]  # those that have ended stand first
    if json:
        streams.emit(json_module.dumps([plain(status) for status in found]))
        return
    rows: list[tuple[str, ...]] = [("job", "state", "prio", "what", "files", "done", "output")]
    rows += [_job_row(status) for status in found]
    lines = [*_table(rows)]
    if ended > most:
        lines.append("more have ended; --limit N lists the last N of them")
    streams.emit("\n".join(lines))


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
    with client_of(settings_of(broker=broker)) as client:
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
    with client_of(settings) as client:
        if seconds is None:
            follow(client, job, settings, as_json=json)
            return
        try:
            summary = client.wait(job, seconds)
        except TimeoutError as error:
            raise UsageError(str(error)) from None
    _tell_end(summary, quiet=settings.quiet, as_json=json)


def cancel(job: JobId, /, *, broker: Broker = None, json: Json = False) -> None:
    """Stop a job, and remove what it has left."""
    with client_of(settings_of(broker=broker)) as client:
        client.cancel(job)
    streams.say(f"job {job} is cancelled")
    if json:
        streams.emit(json_module.dumps({"job": job, "state": "cancelled"}))


def prioritize(
    job: JobId,
    priority: Annotated[str, Parameter(name="N", help="Jobs of a higher one go first.")],
    /,
    *,
    broker: Broker = None,
    json: Json = False,
) -> None:
    """Give a job another priority; what runs goes on."""
    number = priority_of("N", priority)
    with client_of(settings_of(broker=broker)) as client:
        client.set_priority(job, number)
    streams.say(f"job {job} has priority {number}")
    if json:
        streams.emit(json_module.dumps({"job": job, "priority": number}))


def speculate(
    job: JobId,
    switch: Annotated[Literal["on", "off"], Parameter(name="SWITCH", help="Whether its stragglers get backups.")],
    /,
    *,
    broker: Broker = None,
    json: Json = False,
) -> None:
    """Give the stragglers of a running job no more backups, or give them some again; those under way go on."""
    with client_of(settings_of(broker=broker)) as client:
        client.switch_speculation(job, on=switch == "on")
    streams.say(f"stragglers of job {job} get {'backups again' if switch == 'on' else 'no more backups'}")
    if json:
        streams.emit(json_module.dumps({"job": job, "speculation": switch == "on"}))


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
    with client_of(settings_of(broker=broker)) as client:
        begun = client.back_up(job, *numbers)
    if json:
        named = dict(zip(("phase", "task", "tile"), numbers, strict=True))
        who = {"worker": begun.worker, "of_worker": begun.of_worker, "helpers": begun.helpers}
        streams.emit(json_module.dumps({"job": job} | named | who))
        return
    more = (
        f", and {counted(len(begun.helpers), 'more worker shares', 'more workers share')} it" if begun.helpers else ""
    )
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
    told: dict[str, object] = {}
    with client_of(settings_of(broker=broker)) as client:
        for action, name in wanted:
            if name is not None:
                client.command_worker(name, action)
                streams.say(f"worker {name}: {action}")
                told[action] = name
        if scale is not None:
            client.scale_workers(total)
            words = "as many workers as its file says" if total is None else counted(total, "worker")
            streams.say(f"the fleet is to have {words}; the master's log tells of it")
            told["wanted"] = total
        if told:
            if json:
                streams.emit(json_module.dumps(told))
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
        # What an earlier master has stored is done, too.
        phases = found.snapshot.phases
        tasks = sum(phase.unneeded + phase.tasks for phase in phases)
        done = f"{100 * sum(phase.unneeded + phase.done for phase in phases) // tasks}%" if tasks else "-"
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


def address_of(settings: Settings) -> BrokerAddress:
    """Return the broker's address.

    Raises:
        UsageError: None is named.
    """
    if settings.broker is None:
        raise UsageError("no broker is named; set DISTSUM_BROKER, broker in distsum.toml, or --broker")
    return settings.broker


def client_of(settings: Settings) -> ServiceClient:
    """Return a client of the broker's service; nothing is asked yet."""
    from distsum.service.rabbitmq import connect
    from distsum.stores.routing import RoutingStore

    return connect(address_of(settings), RoutingStore(), _PATIENCE_SECONDS)
