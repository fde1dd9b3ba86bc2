"""Raw: a file that is nothing but numbers of one dtype, which the user gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distsum import dtypes
from distsum.errors import BadInputError, ConfigurationError
from distsum.formats.base import Layout, RangedFormat
from distsum.wording import printable

if TYPE_CHECKING:
    from distsum.formats.base import Source


class RawFormat(RangedFormat):
    """Bare numbers, one after the other; always one-dimensional. See ``Format``."""

    name = "raw"
    suffixes: tuple[str, ...] = (".raw", ".bin")

    def layout(self, source: Source, dtype: str | None) -> Layout:
        if dtype is None:
            raise ConfigurationError(
                f"{printable(source.uri)}: a raw file does not tell what its numbers are; give their dtype, "
                "for example --dtype f8"
            )
        itemsize = dtypes.itemsize(dtype)
        count, rest = divmod(source.size, itemsize)
        if rest:
            raise BadInputError(
                source.uri,
                f"has {source.size} bytes, which is not a multiple of the {itemsize} bytes of one {dtype} number; "
                "the file was cut short, or --dtype is not what it holds",
            )
        return Layout(dtype=dtype, shape=(count,))

    def header(self, dtype: str, shape: tuple[int, ...], *, fortran: bool) -> bytes:
        return b""
