"""``distsum doctor``: is everything there that a service needs, and if not, what is to be done?"""

from __future__ import annotations

import json as json_module
import os
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from distsum.cli import streams
from distsum.cli.options import Broker, FileName, Json, RunFlags, as_given, plain, settings_of
from distsum.cli.processes import Management
from distsum.errors import UsageError

if TYPE_CHECKING:
    from distsum.service.diagnosis import Check


def doctor(
    *,
    broker: Broker = None,
    work_dir: Annotated[
        FileName | None,
        Parameter(metavar="URI", converter=as_given, help="The service's work folder. [default: the master's]"),
    ] = None,
    management: Management = None,
    json: Json = False,
) -> int:
    """Check broker, store, clocks, versions, workers and queues; each line says what to do."""
    settings = settings_of(RunFlags(work_dir=work_dir), broker=broker, management=management)
    if settings.broker is None and settings.work_dir is None:
        raise UsageError("there is nothing to check; set DISTSUM_BROKER, or give --broker or --work-dir")
    from distsum.service.diagnosis import diagnose, exit_code
    from distsum.service.doctor import examine
    from distsum.stores.routing import RoutingStore, absolute_folder

    work = None if settings.work_dir is None else absolute_folder(os.fsencode(settings.work_dir))
    with closing(RoutingStore()) as store:
        checks = diagnose(examine(settings.broker, settings.management, store, work))
    code = exit_code(checks)
    if json:
        streams.emit(json_module.dumps({"checks": [_object(check) for check in checks], "exit_code": code}))
    else:
        streams.emit("\n".join(check.line() for check in checks))
    return code


def _object(check: Check) -> dict[str, object]:
    told: dict[str, object] = plain(check)
    return told
