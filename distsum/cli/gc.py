"""``distsum gc``: remove what runs that never ended have left."""

from __future__ import annotations

import json as json_module
import os
import sys
from contextlib import closing
from typing import Annotated

from cyclopts import Parameter

from distsum.cli.options import Json, Quiet, plain, settings_of
from distsum.cli.progress import size_words
from distsum.errors import UsageError
from distsum.wording import parse_seconds, printable

Place = Annotated[str, Parameter(name="PLACE", help="A folder, as s3://BUCKET/PREFIX or as a path.")]


def gc(
    place: Place,
    /,
    *,
    older_than: Annotated[str, Parameter(help="Leave what was touched within this time, such as 12h or 7d.")] = "7d",
    partials: Annotated[
        bool, Parameter(negative=(), help="Remove partials also from folders that --work-dir named.")
    ] = False,
    dry_run: Annotated[bool, Parameter(negative=(), help="Tell what would be removed, and remove nothing.")] = False,
    quiet: Quiet = None,
    json: Json = False,
) -> None:
    """Remove unfinished outputs, uploads among them, and work folders of runs that were killed and not gone on with."""
    from distsum.stores.routing import RoutingStore, absolute, is_remote
    from distsum.sweeping import sweep

    settings = settings_of(quiet=quiet)
    try:
        seconds = parse_seconds(older_than)
    except ValueError as error:
        raise UsageError(f"--older-than {printable(older_than, 80)}: {error}") from None
    folder = absolute(os.fsencode(place))
    if not is_remote(folder) and not os.path.isdir(folder):
        raise UsageError(f"{printable(folder)}: there is no such folder")

    def tell(line: str) -> None:
        if not settings.quiet:
            print(line, file=sys.stderr)

    with closing(RoutingStore()) as store:
        store.preflight(folder)
        swept = sweep(store, folder, seconds, tell, partials=partials, dry=dry_run)
    verb = "would remove" if dry_run else "removed"
    left = f"; {swept.busy} work folders are in use" if swept.busy else ""
    tell(
        f"{verb} {swept.outputs} unfinished outputs and {swept.objects} objects of {swept.folders} work folders, "
        f"{size_words(swept.bytes)}{left}"
    )
    if json:
        print(json_module.dumps(plain(swept)))
