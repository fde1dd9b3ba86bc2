"""Where a job's history lies: in a file that a run has stored, or with a job of the service."""

from __future__ import annotations

import os
import re
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from distsum.cli.options import FileName, RunFlags, as_given, settings_of
from distsum.errors import UsageError
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distsum.config import Settings
    from distsum.observe.history import History
    from distsum.stores.base import Reader
    from distsum.stores.routing import RoutingStore

JobOrFile = Annotated[
    FileName,
    Parameter(
        name="JOB|FILE",
        converter=as_given,
        help="A job of the service that has ended, by its id; or what a run has stored by --history, here or in S3.",
    ),
]
WorkDir = Annotated[
    FileName | None,
    Parameter(
        name="--work-dir",
        metavar="URI",
        converter=as_given,
        help="The service's folder of jobs, where JOB is looked for. [default: the broker's master is asked]",
    ),
]
_JOB: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,63}")


@contextmanager
def opened_history(name: FileName, work_dir: FileName | None, broker: str | None) -> Iterator[History]:
    """Open a history; what is a file is not looked for among jobs.

    Args:
        name: A file or object, or the id of a job.
        work_dir: The service's work folder, as an option.
        broker: The broker, as an option.

    Raises:
        UsageError: There is none; or it is no history that can be read.
        UnreachableError: No master answers that could tell where it lies, or S3 cannot be used.
        StorageError: It cannot be read.
    """
    from distsum.observe.history import History
    from distsum.stores.routing import RoutingStore

    with closing(RoutingStore()) as store:
        reader = store.open(os.fsencode(name)) or _of_job(str(name), work_dir, broker, store)
        with reader:
            yield History(reader)


def _of_job(name: str, work_dir: FileName | None, broker: str | None, store: RoutingStore) -> Reader:
    """Open the history of a job of the service."""
    shown = printable(name)
    if not _JOB.fullmatch(name):
        raise UsageError(f"{shown}: there is no such file")
    settings = settings_of(RunFlags(work_dir=work_dir), broker=broker)
    work = _work_folder(shown, work_dir, settings, store)
    reader = store.open(work + f"/jobs/{name}/history".encode())
    if reader is None:
        known = store.exists(work + f"/jobs/{name}/record".encode())
        why = "it is stored when the job ends" if known else "there is no such job"
        raise UsageError(f"{shown}: there is no such file, and no history of a job {shown} in {printable(work)}: {why}")
    return reader


def _work_folder(shown: str, work_dir: FileName | None, settings: Settings, store: RoutingStore) -> bytes:
    """Return where the service keeps its jobs: as given, or as its master says, or as this machine's settings do."""
    from distsum.stores.routing import absolute_folder

    if work_dir is None and settings.broker is not None:
        from distsum.service.rabbitmq import connect

        with connect(settings.broker, store, _PATIENCE_SECONDS) as client:
            return client.describe().work
    if settings.work_dir is None:
        raise UsageError(
            f"{shown}: there is no such file; and to find a job of that name, its service must be known: set "
            "DISTSUM_BROKER, --broker or --work-dir"
        )
    return absolute_folder(os.fsencode(settings.work_dir))


_PATIENCE_SECONDS: Final = 20.0
