"""What a format is: a layout told from a bounded read, and bytes turned into numbers.

Nothing here opens a file. A ``Source`` is what a store gives; a test gives one over plain bytes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from distsum import dtypes
from distsum.errors import ConfigurationError
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

HEAD_BYTES: Final = 64 << 10
"""The most bytes of an input that are read to learn its layout."""


class Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the numbers of one input lie in it.

    Attributes:
        dtype: numpy ``dtype.str`` of the numbers.
        shape: Shape of the array.
        fortran: True when the first index varies fastest. Numbers are always taken in the order in which they lie.
        offset: Bytes before the first number; 0 for formats that are not ranged.
        header: The first ``offset`` bytes, so that inputs with the same header need no second look.
    """

    dtype: str
    shape: tuple[int, ...]
    fortran: bool = False
    offset: int = 0
    header: bytes = b""

    @property
    def count(self) -> int:
        """Numbers in the input."""
        return math.prod(self.shape)

    @property
    def data_bytes(self) -> int:
        """Bytes that the numbers take, for ranged formats."""
        return self.count * dtypes.itemsize(self.dtype)


class Source(Protocol):
    """An opened input of known size, read at positions."""

    @property
    def uri(self) -> bytes:
        """Path or URI, for messages."""
        ...

    @property
    def size(self) -> int:
        """Bytes in the input."""
        ...

    def read_into(self, buffers: list[memoryview], offset: int) -> int:
        """Fill the buffers, one after the other, with the bytes from ``offset`` on.

        Returns:
            The bytes read: fewer than the buffers hold only where the input ends.

        Raises:
            StorageError: Reading failed.
        """
        ...


class Format(Protocol):
    """One file format.

    ``ranged`` formats give index ranges directly: number i lies at ``offset + i * itemsize``. Others are parsed from
    their beginning, so they are never cut into tiles.
    """

    name: str
    suffixes: tuple[str, ...]
    ranged: bool

    def layout(self, source: Source, dtype: str | None) -> Layout:
        """Return the layout of an input.

        For ranged formats the read is bounded by ``HEAD_BYTES``, whatever the input declares, and the declared size
        is compared with the real one before anything is allocated. Formats that are not ranged count their numbers.

        Args:
            source: The input.
            dtype: The dtype the user gave (``dtype.str`` form), or None; only ``raw`` needs one.

        Raises:
            BadInputError: The input is damaged or of a kind that cannot be reduced.
            ConfigurationError: ``raw`` without a dtype, or a dtype given where the input has its own.
        """
        ...

    def blocks(self, source: Source, layout: Layout, buffer: memoryview) -> Iterator[npt.NDArray[np.float64]]:
        """Yield the numbers of an input that is not ranged, in order, as one-dimensional float64 arrays.

        Each array is valid until the next is asked for, and may be read-only. Memory stays within ``buffer`` plus
        ``parse_bytes``.

        Raises:
            BadInputError: A word is no number (line and word are named), or there are more or fewer numbers than
                ``layout.count``.
            NotImplementedError: The format is ranged: its numbers are read at their positions.
        """
        ...

    @property
    def parse_bytes(self) -> int:
        """Bytes that ``blocks`` takes beyond its buffer, at the most; 0 for ranged formats."""
        ...

    def header(self, dtype: str, shape: tuple[int, ...], *, fortran: bool) -> bytes:
        """Return the bytes before the first number of an output, whose numbers are of exactly this dtype.

        Raises:
            OutputError: The format cannot hold this dtype.
        """
        ...

    def number_bytes(self, dtype: str) -> int:
        """Return the bytes that one number of this dtype takes in an output: every number takes the same."""
        ...

    def encode(self, values: npt.NDArray[np.generic]) -> bytes | memoryview:
        """Return a one-dimensional array of the output's dtype as the output's bytes, ``number_bytes`` each."""
        ...


class RangedFormat:
    """What formats share whose numbers lie in a file as they lie in memory."""

    ranged = True
    parse_bytes = 0

    def blocks(self, source: Source, layout: Layout, buffer: memoryview) -> Iterator[npt.NDArray[np.float64]]:
        """Refuse: see ``Format``."""
        raise NotImplementedError(f"{printable(source.uri)}: a ranged format is read at positions")

    def number_bytes(self, dtype: str) -> int:
        """Return the itemsize."""
        return dtypes.itemsize(dtype)

    def encode(self, values: npt.NDArray[np.generic]) -> bytes | memoryview:
        """Return the array's own bytes, without a copy."""
        # numpy's view, because `memoryview.cast` knows neither complex numbers nor empty arrays.
        return values.view("u1").data


def refuse_dtype(source: Source, dtype: str | None) -> None:
    """Refuse a dtype given for an input that tells its own.

    Raises:
        ConfigurationError: A dtype was given.
    """
    if dtype is not None:
        raise ConfigurationError(
            f"--dtype {printable(dtype)}: {printable(source.uri)} tells its own dtype; leave --dtype out, "
            "or read the file as bare numbers with --format raw"
        )
