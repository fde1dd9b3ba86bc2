"""``distsum submit``, and whatever else has a service do a job."""

from __future__ import annotations

import json as json_module
import os
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from distsum.cli import streams
from distsum.cli.options import (
    NO_FLAGS,
    Broker,
    FileName,
    Force,
    Inputs,
    Json,
    Output,
    Quiet,
    RunFlags,
    paths_of,
    service_options,
    settings_of,
)
from distsum.cli.service import address_of, client_of, follow
from distsum.request import ReductionName, priority_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distsum.config import Settings
    from distsum.request import Options
    from distsum.service.client import ServiceClient


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
    with client_of(settings) as client:
        job = submit_job(client, reduction, inputs, output, options, settings, priority)
        if wait:
            # Before it ends: whoever is killed meanwhile must be able to find the job.
            if not json:
                streams.emit(job)
            elif not settings.quiet:
                streams.say(f"job {job} of {address_of(settings)}")
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
    with client_of(settings) as client:
        job = submit_job(client, reduction, inputs, output, options, settings)
        if not settings.quiet:
            streams.say(f"job {job} of {address_of(settings)}")
        follow(client, job, settings, as_json=as_json)


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
    number = priority_of("--priority", priority)
    paths = paths_of(inputs, settings)
    return client.submit_job(reduction, paths, os.fsencode(output), options, priority=number, joins=joins)
