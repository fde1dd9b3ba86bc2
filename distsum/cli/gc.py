"""``distsum gc``: remove what runs that never ended have left."""

from __future__ import annotations

import json as json_module
import os
from contextlib import closing
from typing import Annotated

from cyclopts import Parameter

from distsum.cli import streams
from distsum.cli.options import FileName, Json, Quiet, as_given, plain, settings_of
from distsum.errors import UsageError
from distsum.wording import counted, parse_seconds, printable, size_words

Place = Annotated[
    FileName, Parameter(name="PLACE", converter=as_given, help="A folder, as s3://BUCKET/PREFIX or as a path.")
]


def gc(
    place: Place,
    /,
    *,
    older_than: Annotated[
        str, Parameter(metavar="TIME", help="Leave what was touched within this time, such as 12h.")
    ] = "7d",
    partials: Annotated[
        bool,
        Parameter(negative=(), show_default=False, help="Remove partials also from folders that --work-dir named."),
    ] = False,
    ended_jobs: Annotated[
        bool,
        Parameter(negative=(), show_default=False, help="Remove how a service's jobs ended, too, and their histories."),
    ] = False,
    dry_run: Annotated[
        bool, Parameter(negative=(), show_default=False, help="Tell what would be removed, and remove nothing.")
    ] = False,
    quiet: Quiet = None,
    json: Json = False,
) -> None:
    """Remove unfinished outputs, uploads among them, and work folders of runs that were killed and not gone on with."""
    from distsum.stores.routing import RoutingStore, absolute_folder, is_remote
    from distsum.sweeping import sweep

    settings = settings_of(quiet=quiet)
    try:
        seconds = parse_seconds(older_than)
    except ValueError as error:
        raise UsageError(f"--older-than {printable(older_than, 80)}: {error}") from None
    folder = absolute_folder(os.fsencode(place))
    if not is_remote(folder) and not os.path.isdir(folder):
        raise UsageError(f"{printable(folder)}: there is no such folder")

    def tell(line: str) -> None:
        if not settings.quiet:
            streams.say(line)

    with closing(RoutingStore()) as store:
        store.preflight(folder)
        swept = sweep(store, folder, seconds, tell, partials=partials, ended_jobs=ended_jobs, dry=dry_run)
    verb = "would remove" if dry_run else "removed"
    ended = f", of them {counted(swept.jobs, 'job')} that ended" if swept.jobs else ""
    left = f"; {swept.busy} work folders are in use" if swept.busy else ""
    tell(
        f"{verb} {swept.outputs} unfinished outputs and {swept.objects} objects of {swept.folders} work folders, "
        f"{size_words(swept.bytes)}{ended}{left}"
    )
    if json:
        streams.emit(json_module.dumps(plain(swept)))
