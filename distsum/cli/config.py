"""``distsum config``: every setting, and where it came from."""

from __future__ import annotations

import json as json_module
import os
from typing import TYPE_CHECKING

from distsum.cli import streams
from distsum.cli.options import Json
from distsum.config import read_layers, resolve
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distsum.config import Origin


def config(*, json: Json = False) -> None:
    """Show every setting's value and where it came from."""
    origins = resolve(read_layers({}, os.environ, os.getcwd()))[1]
    if json:
        told = [{"key": each.key, "value": each.value, "source": each.source} for each in origins]
        streams.emit(json_module.dumps(told))
    else:
        streams.emit("\n".join(origin_lines(origins)))


def origin_lines(origins: Sequence[Origin]) -> list[str]:
    """Return one aligned line a setting."""
    keys = max(len(each.key) for each in origins)
    values = max(len(printable(each.value)) for each in origins)
    return [f"{each.key:{keys}}  {printable(each.value):{values}}  {printable(each.source)}" for each in origins]
