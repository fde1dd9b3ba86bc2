"""The two kinds of process of the service: masters and workers."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from distsum import __version__
from distsum.cli.kept_log import KeptLog
from distsum.cli.master_fleet import master_fleet
from distsum.cli.options import (
    Broker,
    FileName,
    NoSpeculation,
    RunFlags,
    Speculation,
    as_given,
    settings_of,
    speculation_flag,
    whole_number,
)
from distsum.cli.screen import OnMasterScreen, master_on_screen
from distsum.cli.service import address_of
from distsum.embedded import Stop
from distsum.errors import DistsumError, UsageError
from distsum.request import LogLevel
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed import SupportsWrite

    from distsum.config import Settings
    from distsum.observe.metrics import Metrics

log = logging.getLogger(__name__)

S3Deadline = Annotated[
    str | None,
    Parameter(
        name="--s3-deadline",
        metavar="SECONDS",
        help="Ask S3 again for so long where it does not answer, then give up. [default: 180]",
    ),
]
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
    tui: OnMasterScreen = False,
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
    address = address_of(settings)
    scaling = None if fleet is None else master_fleet(fleet, settings, address, broker_given=broker is not None)
    work = absolute_folder(os.fsencode(settings.work_dir))
    if not is_remote(work):
        make_folder(work, "--work-dir")  # clients look whether they see it, too
    show = master_on_screen() if tui else None

    def run(stop: Stop) -> None:
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
            asyncio.run(_until_stopped(serving, stop, heeds_signal=show is None))

    if show is None:
        return _logged(settings, lambda: run(Stop()))
    kept = KeptLog(sys.stderr)
    return _logged(settings, lambda: show(run, address, kept), kept)


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


def _logged(settings: Settings, run: Callable[[], int | None], stream: SupportsWrite[str] | None = None) -> int:
    """Run a process of the service; where its log is JSON, the error that it ends with is, too.

    Args:
        settings: How it logs, and what no line may hold.
        run: Runs it; returns its exit code, if that may be another than 0.
        stream: Where lines go; None is standard error.
    """
    from distsum.logs import LogStyle, begin_logging

    secrets = [secret for each in (settings.broker, settings.management) if each is not None for secret in each.secrets]
    begin_logging(stream or sys.stderr, LogStyle(settings.log_level, settings.log_json), secrets=secrets)
    try:
        return run() or 0
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


async def _until_stopped(serving: Any, stop: Stop, *, heeds_signal: bool) -> None:
    """Run until somebody asks to stop, or SIGTERM does, which ends it in peace."""
    import asyncio

    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(serving)

    def end() -> None:
        with contextlib.suppress(RuntimeError):  # It has ended meanwhile.
            loop.call_soon_threadsafe(task.cancel)

    stop.bind(end)
    if heeds_signal:
        loop.add_signal_handler(signal.SIGTERM, stop.request)
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
    address = address_of(settings)
    style = LogStyle(settings.log_level, settings.log_json)
    return _logged(
        settings, lambda: Slots(address, count, places, log_style=style, s3_deadline_seconds=settings.s3_deadline).run()
    )
