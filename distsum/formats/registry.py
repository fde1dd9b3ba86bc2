"""Every format, by name and by suffix. Importing this imports neither numpy nor a parser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from distsum.errors import ConfigurationError
from distsum.formats.npy import NpyFormat
from distsum.formats.raw import RawFormat
from distsum.formats.text import TextFormat
from distsum.wording import printable

if TYPE_CHECKING:
    from distsum.formats.base import Format

_ALL: Final[tuple[Format, ...]] = (NpyFormat(), RawFormat(), TextFormat())
FORMATS: Final[dict[str, Format]] = {each.name: each for each in _ALL}


def by_name(name: str) -> Format:
    """Return the format of a name.

    Raises:
        ConfigurationError: There is none of that name.

    >>> by_name("npy").suffixes
    ('.npy',)
    """
    found = FORMATS.get(name)
    if found is None:
        raise ConfigurationError(f"there is no format '{printable(name, 60)}'; there are {', '.join(FORMATS)}")
    return found


def by_suffix(path: bytes) -> Format | None:
    """Return the format that a path's suffix tells, in any case of letters; None if it tells none.

    >>> by_suffix(b"runs/0001.NPY").name
    'npy'
    """
    lowered = path.lower()
    for each in FORMATS.values():
        if lowered.endswith(tuple(suffix.encode() for suffix in each.suffixes)):
            return each
    return None
