"""``distsum mean``, ``sum``, ``min`` and ``max``: one job, on this machine or by a service."""

from __future__ import annotations

import json as json_module
import os
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from distsum.cli import streams
from distsum.cli.options import (
    NO_FLAGS,
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
)
from distsum.cli.progress import Progress, summary_lines
from distsum.cli.screen import OnScreen, on_screen
from distsum.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.config import Settings
    from distsum.request import ReductionName, Summary


There = Annotated[
    str | None,
    Parameter(
        name="--broker",
        metavar="URI",
        help="Have the service at amqp://USER:PASSWORD@HOST/VHOST do it, and follow it. Without this option it is done "
        "here, also where DISTSUM_BROKER is set; `distsum submit --wait` goes by that, and shows others no password.",
    ),
]
Fleet = Annotated[
    FileName | None,
    Parameter(
        name="--fleet",
        metavar="FILE",
        converter=as_given,
        help="Bring the workers of this fleet.toml up, have them do it, and let them go; see docs/fleet.md.",
    ),
]
History = Annotated[
    FileName | None,
    Parameter(
        name="--history",
        metavar="FILE",
        converter=as_given,
        help="Where everything that happens is stored, for distsum report and replay. [default: nowhere]",
    ),
]
_ONLY_IN_WORDS = frozenset({"shape", "dtype", "order", "workers_lost", "phase_seconds", "worker_seconds"})


def _command(reduction: ReductionName, words: str) -> Callable[..., None]:
    """Return the command of a reduction; all four take the same options."""

    def command(
        *inputs: Inputs,
        output: Output,
        flags: RunFlags = NO_FLAGS,
        speculation: Speculation = None,
        no_speculation: NoSpeculation = False,
        history: History = None,
        force: Force = False,
        broker: There = None,
        fleet: Fleet = None,
        tui: OnScreen = False,
        quiet: Quiet = None,
        json: Json = False,
    ) -> None:
        wanted = speculation_flag(speculation, off=no_speculation)
        settings = settings_of(flags, quiet=quiet, broker=broker, speculation=wanted)
        # Only the options: whoever has set a broker for the service's commands still works here with this one.
        if broker is not None or fleet is not None:
            if tui:
                raise UsageError("--tui shows a run on this machine only; leave it or --broker and --fleet out")
            if wanted is not None and fleet is None:
                raise UsageError(
                    "--speculation: a service's master says what is done about stragglers; leave it out here"
                )
            if history is not None:
                raise UsageError("--history: a service stores it with the job; `distsum status JOB` tells of it")
        if fleet is not None:
            from distsum.cli.fleet import run_on_fleet

            given = {"broker_given": broker is not None, "speculation_given": wanted is not None}
            run_on_fleet(reduction, inputs, output, flags, settings, fleet, **given, force=force, as_json=json)
        elif broker is not None:
            from distsum.cli.submitting import run_there

            run_there(reduction, inputs, output, flags, settings, force=force, as_json=json)
        else:
            _run_here(reduction, inputs, output, settings, history, force=force, tui=tui, as_json=json)

    command.__doc__ = words
    return command


mean = _command("mean", "Write the mean at every index of many files.")
sum_ = _command("sum", "Write the sum at every index of many files; exact for integers.")
min_ = _command("min", "Write the smallest number at every index of many files.")
max_ = _command("max", "Write the largest number at every index of many files.")


def _run_here(
    reduction: ReductionName,
    inputs: tuple[FileName, ...],
    output: FileName,
    settings: Settings,
    history: FileName | None,
    *,
    force: bool,
    tui: bool,
    as_json: bool,
) -> None:
    from distsum.embedded import run

    show = on_screen() if tui else None
    options = options_of(settings, force=force, digest=as_json)
    paths = paths_of(inputs, settings)
    call = partial(
        run,
        reduction,
        paths,
        os.fsencode(output),
        options,
        speculation=settings.speculation,
        history=None if history is None else os.fsencode(history),
    )
    with Progress(quiet=settings.quiet) as progress:
        if show is not None:
            summary = show(lambda on_view, stop, helm: call(on_view=on_view, stop=stop, helm=helm), progress.show)
        else:
            summary = call(progress.show)
    if not settings.quiet:
        for line in summary_lines(summary):
            streams.say(line)
    if as_json:
        streams.emit(json_module.dumps(summary_object(summary)))


def summary_object(summary: Summary) -> dict[str, Any]:
    """Return what ``--json`` prints of a job; docs/operations.md says what each field is."""
    return {name: value for name, value in plain(summary).items() if name not in _ONLY_IN_WORDS}
