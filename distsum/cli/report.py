"""``distsum report``: a job's history as one page of HTML."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Annotated

from cyclopts import Parameter

from distsum.cli import streams
from distsum.cli.histories import JobOrFile, WorkDir, opened_history
from distsum.cli.options import Broker, FileName, Force, Quiet, as_given, settings_of
from distsum.errors import UsageError
from distsum.wording import printable, size_words

_STDOUT = "-"


def report(
    source: JobOrFile,
    /,
    *,
    output: Annotated[
        FileName,
        Parameter(
            name=["--output", "-o"],
            metavar="FILE",
            converter=as_given,
            allow_leading_hyphen=True,
            help="Where the page is written, here or in S3; - is stdout.",
        ),
    ],
    work_dir: WorkDir = None,
    broker: Broker = None,
    force: Force = False,
    quiet: Quiet = None,
) -> None:
    """Write a report of a job that has ended: one page of HTML, which needs nothing else."""
    from distsum.observe.report import gather
    from distsum.observe.report_html import page
    from distsum.preparation import check_output
    from distsum.stores.routing import RoutingStore

    if str(output).startswith("-") and output != _STDOUT:
        raise UsageError(
            f"-o needs a value, and {printable(str(output))} is an option; ./{printable(str(output))} is not"
        )
    target = os.fsencode(output)
    with closing(RoutingStore()) as store:
        if output != _STDOUT:
            check_output(target, [], store, force=force)
        with opened_history(source, work_dir, broker) as history:
            found = gather(history)
        written = page(found)
        if output == _STDOUT:
            streams.emit(written.removesuffix("\n"))
        else:
            store.put(target, [written.encode()])
    if settings_of(quiet=quiet).quiet:
        return
    if found.remark is not None:
        streams.say(f"not all is told: {printable(found.remark, 1000)}")
    if output != _STDOUT:
        streams.say(f"{size_words(len(written))} written to {printable(target)}")
