"""``distsum config``: every setting, and where it came from."""

from __future__ import annotations

import json as json_module
import os
from typing import TYPE_CHECKING

from distsum.cli import streams
from distsum.cli.options import Json, current_folder
from distsum.config import read_layers, resolve
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distsum.config import Origin


def config(*, json: Json = False) -> None:
    """Show every setting's value and where it came from."""
    origins = resolve(read_layers({}, os.environ, current_folder()))[1]
    if json:
        told = {each.key: {"value": each.value, "source": each.source} for each in origins}
        streams.emit(json_module.dumps(told))
    else:
        streams.emit("\n".join(origin_lines(origins)))


def origin_lines(origins: Sequence[Origin]) -> list[str]:
    """Return one aligned line a setting."""
    rows = [(each.key, printable(each.words()), printable(each.source)) for each in origins]
    widths = [max(len(row[place]) for row in rows) for place in (0, 1)]
    return [f"{key:{widths[0]}}  {value:{widths[1]}}  {source}" for key, value, source in rows]
