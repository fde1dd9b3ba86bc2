"""Whether a result is right: random indices of all inputs read again, summed exactly, and compared.

This shares no code with the engine's folding: it reads the files itself, and adds with ``math.fsum`` or Python's
integers.

What a result is held to, and why, is in ``distsum/bound.py``.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import stat
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from distsum import bound, dtypes
from distsum.errors import BadInputError, InputListError, StorageError, UsageError, VerificationError
from distsum.formats.agreement import disagreement
from distsum.request import SkippedInput
from distsum.stores.routing import RoutingStore, is_remote
from distsum.tree import Tree
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from distsum.formats.base import Format, Layout, Source
    from distsum.reductions import Reduction

    Array = npt.NDArray[Any]

MOST_SAMPLED: Final = 1_000_000
"""The most indices that are drawn at random; their list takes about 100 bytes each."""

_MATRIX_BYTES: Final = 96 << 20
"""Numbers held at once: all files at a group of indices."""

_BLOCK_BYTES: Final = 1 << 20
_BUFFER_BYTES: Final = 4 << 20
_GAP_BYTES: Final = 8 << 10
"""Bytes that are read for nothing rather than asking the kernel once more."""
_REMOTE_GAP_BYTES: Final = 1 << 20
"""The same where a server is asked."""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found.

    Attributes:
        reduction: The reduction that was checked.
        files: Inputs that are part of the result.
        skipped: Inputs that were left out as bad.
        count: Numbers in the result.
        indices: Indices that were checked.
        largest_ulp: The largest error, in units in the last place of the exact value, in the result's dtype.
        largest_bound_ratio: The largest error as a ratio to its bound; at most 1 in a right result. Infinite where a
            result that must be exact is not.
        worst_index: Where that was, counted in the order in which the numbers lie in the inputs; None if there is none.
        found: The result there, as text.
        exact: The exact value there, rounded once, as text.
        bound: The bound, in words.
        unbounded: Indices where additions may overflow, so that an infinity or NaN was accepted.
        ok: Whether every index is within its bound.
    """

    reduction: str
    files: int
    skipped: tuple[SkippedInput, ...]
    count: int
    indices: int
    largest_ulp: float
    largest_bound_ratio: float
    worst_index: int | None
    found: str
    exact: str
    bound: str
    unbounded: int
    ok: bool


def verify(  # noqa: PLR0913 - all are given by name
    result: bytes,
    paths: Sequence[bytes],
    *,
    reduction: Literal["mean", "sum", "min", "max"] = "mean",
    sample: int = 1000,
    seed: int = 0,
    fan_in: int = 5,
    format: str = "auto",
    dtype: str | None = None,
    out_dtype: str | None = None,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Compare a result with the exact one at random indices.

    Memory stays below about 256 MiB beyond the list of paths: where all files at all sampled indices do not fit, the
    files are read once for each group of indices that does.

    Args:
        result: Path of the result: npy, raw or text by its suffix.
        paths: The inputs, in any order.
        reduction: What the result should be.
        sample: Indices to draw without replacement; all are checked if there are no more than that.
        seed: Of the draw.
        fan_in: Fan-in that the result was made with; the bound depends on it.
        format: Format of the inputs; ``auto`` goes by the suffix of the first.
        dtype: dtype of raw inputs, as numpy's ``dtype.str``.
        out_dtype: dtype of a raw or text result; None for what the reduction gives unless told otherwise.
        skip_bad: Whether a bad input is left out, as the job did that skipped it.
        progress: Called with the files read and the files to read, over all groups.

    Raises:
        UsageError: A value is not acceptable, or the reduction means nothing for these inputs.
        InputListError: A file does not exist, or no input is named.
        BadInputError: An input or the result is damaged, or an input is unlike the first.
        VerificationError: The result's shape or length is not that of the inputs.
        StorageError: Reading failed.
    """
    if reduction not in {"mean", "sum", "min", "max"}:
        raise UsageError(f"reduction {printable(reduction)!r} cannot be verified; mean, sum, min and max can")
    for option, value, least in (("--sample", sample, 1), ("--fan-in", fan_in, 2)):
        if value < least:
            raise UsageError(f"{option} must be at least {least}, but is {value}")
    from distsum.reductions import REDUCTIONS

    with contextlib.closing(RoutingStore()) as store:
        inputs = _Inputs(paths, format, dtype, REDUCTIONS[reduction], store, skip_bad=skip_bad)
        answer = _Result(result, inputs.layout, out_dtype or REDUCTIONS[reduction].result(inputs.layout.dtype), store)
        return _verified(inputs, answer, reduction, _draw(inputs.layout.count, sample, seed), fan_in, progress)


def _verified(
    inputs: _Inputs,
    answer: _Result,
    reduction: str,
    indices: Sequence[int],
    fan_in: int,
    progress: Callable[[int, int], None] | None,
) -> Verification:
    """Compare a result with its inputs at some indices."""
    import numpy as np

    files = inputs.given
    width = max(1, _MATRIX_BYTES // (files * inputs.itemsize))
    starts = range(0, max(1, len(indices)), width)
    judge: _Judge | None = None
    for group, start in enumerate(starts):
        chosen = np.array(indices[start : start + width], dtype=np.int64)
        found = answer.at(chosen)
        numbers = inputs.at(chosen, functools.partial(_progress, progress, group * files, len(starts) * files))
        if judge is None:  # Only now is known how many inputs are good.
            judge = _Judge(
                bound.rule(
                    reduction,
                    inputs.held,
                    out_dtype=answer.dtype,
                    files=inputs.files,
                    depth=Tree(files, fan_in, 1).depth,
                )
            )
        judge.weigh(chosen, numbers, found)
    assert judge is not None
    return judge.verdict(inputs, len(indices))


def _progress(progress: Callable[[int, int], None] | None, before: int, total: int, done: int) -> None:
    if progress is not None:
        progress(before + done, total)


def _draw(count: int, sample: int, seed: int) -> Sequence[int]:
    """Return the indices to check, in order."""
    if count <= sample:
        return range(count)
    if sample > MOST_SAMPLED:
        raise UsageError(
            f"--sample {sample}: at most {MOST_SAMPLED} indices are drawn at random; "
            f"ask for fewer, or for all {count} that there are"
        )
    return sorted(random.Random(seed).sample(range(count), sample))  # noqa: S311 - a sample, not a secret


class _File:
    """An open file; a ``formats.base.Source``."""

    def __init__(self, uri: bytes, descriptor: int, size: int) -> None:
        self.uri = uri
        self.size = size
        self._descriptor = descriptor

    def read_into(self, buffers: list[memoryview], offset: int) -> int:
        done = 0
        try:
            for buffer in buffers:
                filled = 0
                while filled < len(buffer):
                    got = os.preadv(self._descriptor, [buffer[filled:]], offset + done)
                    if not got:
                        return done
                    filled += got
                    done += got
        except OSError as error:
            raise StorageError(f"cannot read {printable(self.uri)}: {error.strerror}") from error
        return done


@contextlib.contextmanager
def _opened(path: bytes, store: RoutingStore) -> Iterator[Source]:
    """Open a file or object; an object is pinned to what it is now."""
    if not is_remote(path):
        with _opened_file(path) as file:
            yield file
        return
    entry = store.identify(path)
    with store.open_input(entry) as reader:
        yield reader


@contextlib.contextmanager
def _opened_file(path: bytes) -> Iterator[_File]:
    try:
        # Without waiting for a writer, should it be a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise InputListError(f"{printable(path)}: no such file") from None
    except OSError as error:
        raise StorageError(f"cannot open {printable(path)}: {error.strerror}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise InputListError(f"{printable(path)} is not a regular file")
        yield _File(path, descriptor, found.st_size)
    finally:
        os.close(descriptor)


class _Gatherer:
    """Takes the numbers at some indices, given in rising order, out of any file of one dtype."""

    def __init__(self, reader: Format, dtype: str, indices: Array, gap_bytes: int) -> None:
        self._reader = reader
        self._dtype = dtype
        self._indices = indices
        self._pieces = list(_pieces(indices, dtypes.itemsize(dtype), gap_bytes)) if reader.ranged else []
        size = max((stop - start for start, stop, _, _ in self._pieces), default=0) if reader.ranged else _BUFFER_BYTES
        self._buffer = memoryview(bytearray(size))

    def take(self, file: Source, layout: Layout, into: Array) -> None:
        """Fill ``into`` with the numbers.

        Raises:
            BadInputError: The file is damaged.
        """
        import numpy as np

        if not self._reader.ranged:
            self._parse(file, layout, into)
            return
        itemsize = dtypes.itemsize(self._dtype)
        for start, stop, first, last in self._pieces:
            view = self._buffer[: stop - start]
            if file.read_into([view], layout.offset + start) < len(view):
                raise BadInputError(file.uri, f"ends before its number {stop // itemsize}; it was cut short")
            into[first:last] = np.frombuffer(view, self._dtype)[self._indices[first:last] - start // itemsize]

    def _parse(self, file: Source, layout: Layout, into: Array) -> None:
        start = 0
        for block in self._reader.blocks(file, layout, self._buffer):
            first, last = self._indices.searchsorted((start, start + len(block)))
            into[first:last] = block[self._indices[first:last] - start]
            start += len(block)


def _pieces(indices: Array, itemsize: int, gap_bytes: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the ranges of bytes to read for some indices, and the range of the indices that each serves."""
    places = (indices * itemsize).tolist()
    first = 0
    for at in range(1, len(places) + 1):
        if (
            at == len(places)
            or places[at] - places[at - 1] > gap_bytes
            or places[at] + itemsize - places[first] > _BUFFER_BYTES
        ):
            yield places[first], places[at - 1] + itemsize, first, at
            first = at


class _Inputs:
    """The inputs, read at indices.

    Attributes:
        layout: Layout of the first input that can be read; the others must agree with it.
        held: dtype that numbers are kept in. Of inputs of several dtypes, 64-bit integers count as the nearest float64.
        skipped: The inputs that are left out; complete once ``at`` has been called.
    """

    def __init__(
        self,
        paths: Sequence[bytes],
        format: str,
        dtype: str | None,
        reduction: Reduction,
        store: RoutingStore,
        *,
        skip_bad: bool,
    ) -> None:
        if not paths:
            raise InputListError("no inputs are named, so there is nothing to compare the result with")
        self._paths = paths
        self._store = store
        self._gap_bytes = _gap_bytes(paths)
        self._reader = _format_of(paths[0]) if format == "auto" else _format_named(format)
        self._dtype = dtype
        self._reduction = reduction
        self._skip_bad = skip_bad
        self._bad: dict[int, str] | None = None
        self.skipped: tuple[SkippedInput, ...] = ()
        self.layout, self._size = self._reference()
        # Also for a mean 64-bit integers are kept as they are: float64 would round them.
        exact = dtypes.kind(self.layout.dtype) in "iu" and dtypes.itemsize(self.layout.dtype) == 8
        self.held = self.layout.dtype if exact else reduction.planes(self.layout.dtype)[0]

    @property
    def itemsize(self) -> int:
        """Bytes that one number takes here."""
        return dtypes.itemsize(self.held)

    @property
    def given(self) -> int:
        """Inputs, with those that are left out."""
        return len(self._paths)

    @property
    def files(self) -> int:
        """Inputs that are not left out."""
        return len(self._paths) - len(self.skipped)

    def _reference(self) -> tuple[Layout, int]:
        first: BadInputError | None = None
        for path in self._paths:
            try:
                with _opened(path, self._store) as file:
                    return self._reader.layout(file, self._dtype), file.size
            except BadInputError as error:
                if not self._skip_bad:
                    raise
                first = first or error
        assert first is not None
        raise BadInputError(first.uri, f"{first.reason}; and no other input can be read either")

    def at(self, indices: Array, progress: Callable[[int], None]) -> Array:
        """Return the numbers at some indices: one row an index, one column an input that is not left out."""
        import numpy as np

        gatherers: dict[str, _Gatherer] = {}
        rows = min(len(self._paths), max(1, _BLOCK_BYTES // max(1, len(indices) * self.itemsize)))
        held = np.dtype(self.held).newbyteorder("=")
        numbers = np.empty((len(indices), len(self._paths)), held)
        block = np.empty((rows, len(indices)), held)
        bad: dict[int, str] = {}
        filled = column = 0
        for position, path in enumerate(self._paths):
            if self._bad is None or position not in self._bad:
                try:
                    with _opened(path, self._store) as file:
                        layout = self._layout_of(file)
                        if layout.dtype not in gatherers:
                            gatherers[layout.dtype] = _Gatherer(self._reader, layout.dtype, indices, self._gap_bytes)
                            wide = self._wider(layout.dtype)
                            numbers, block = numbers.astype(wide, copy=False), block.astype(wide, copy=False)
                        gatherers[layout.dtype].take(file, layout, block[filled])
                    filled += 1
                except BadInputError as error:
                    if not self._skip_bad or self._bad is not None:
                        raise
                    bad[position] = error.reason
            if filled == rows or position == len(self._paths) - 1:
                # A row of the block is a file; many are turned at once to spare the cache.
                numbers[:, column : column + filled] = block[:filled].T
                column += filled
                filled = 0
                progress(position + 1)
        if self._bad is None:
            self._bad = bad
            self.skipped = tuple(SkippedInput(printable(self._paths[at]), bad[at]) for at in bad)
        return numbers[:, :column]

    def _wider(self, dtype: str) -> np.dtype[Any]:
        """Return the dtype to hold numbers in once there are some of this one, too."""
        import numpy as np

        planes = self._reduction.planes(dtype)
        if dtypes.kind(self.held) in "iu" and dtype != self.layout.dtype and dtypes.kind(planes[0]) == "f":
            self.held = planes[0]
        return np.dtype(self.held).newbyteorder("=")

    def _layout_of(self, file: Source) -> Layout:
        """Return the layout of a file that agrees with the first.

        Raises:
            BadInputError: It does not, or is damaged.
        """
        if not self._reader.ranged:
            return self.layout  # The numbers are counted while they are parsed.
        if file.size == self._size:
            header = bytearray(self.layout.offset)
            file.read_into([memoryview(header)], 0)
            if header == self.layout.header:
                return self.layout
        layout = self._reader.layout(file, self._dtype)
        difference = disagreement(layout, self.layout, self._reduction)
        if difference:
            raise BadInputError(file.uri, difference)
        return layout


class _Result:
    """The result, read at indices of the inputs.

    Attributes:
        layout: Its layout.
        dtype: dtype of its numbers.
    """

    def __init__(self, path: bytes, inputs: Layout, dtype: str, store: RoutingStore) -> None:
        self._path = path
        self._store = store
        self._reader = _format_of(path)
        self._inputs = inputs
        with _opened(path, store) as file:
            self.layout = self._reader.layout(file, dtype if self._reader.name == "raw" else None)
        # Text is read as float64, whatever was written: the digits of a shorter float tell only that float.
        shorter = not self._reader.ranged and dtypes.kind(dtype) == "f"
        self.dtype = dtype if shorter else self.layout.dtype
        mine, theirs = self.layout, inputs
        if mine.count != theirs.count:
            raise VerificationError(
                f"{printable(path)} holds {mine.count} numbers, but each input {theirs.count}: not of these inputs"
            )
        if len(mine.shape) > 1 and mine.shape != theirs.shape:
            raise VerificationError(
                f"{printable(path)} has shape {mine.shape}, but the inputs {theirs.shape}: not of these inputs"
            )

    def at(self, indices: Array) -> Array:
        """Return the results for some indices, in native byte order."""
        import numpy as np

        places = indices
        if len(self.layout.shape) > 1 and self.layout.fortran != self._inputs.fortran:
            mine, theirs = ("F" if each.fortran else "C" for each in (self.layout, self._inputs))
            spots = np.unravel_index(indices, self._inputs.shape, order=theirs)  # type: ignore[call-overload]  # "C" or "F"
            places = np.ravel_multi_index(spots, self.layout.shape, order=mine)  # type: ignore[call-overload]  # likewise
        order = places.argsort()
        taken = np.empty(len(places), np.dtype(self.layout.dtype).newbyteorder("="))
        with _opened(self._path, self._store) as file:
            gap_bytes = _gap_bytes([self._path])
            _Gatherer(self._reader, self.layout.dtype, places[order], gap_bytes).take(file, self.layout, taken)
        found = np.empty_like(taken)
        found[order] = taken
        return found.astype(np.dtype(self.dtype).newbyteorder("="), copy=False)


def _gap_bytes(paths: Sequence[bytes]) -> int:
    return _REMOTE_GAP_BYTES if any(map(is_remote, paths)) else _GAP_BYTES


def _format_named(name: str) -> Format:
    from distsum.formats.registry import by_name

    return by_name(name)


def _format_of(path: bytes) -> Format:
    from distsum.formats.registry import by_suffix

    found = by_suffix(path)
    if found is None:
        raise UsageError(f"{printable(path)}: the suffix does not tell a format; name it .npy, .raw or .txt")
    return found


class _Judge:
    """Weighs results against exact values, and remembers the worst."""

    def __init__(self, rule: bound.Rule) -> None:
        self._rule = rule
        self._ulp = self._ratio = 0.0
        self._unbounded = 0
        self._worst: tuple[int, str, str] | None = None

    def weigh(self, indices: Array, numbers: Array, results: Array) -> None:
        """Weigh the results at some indices; a row of ``numbers`` holds all inputs at one."""
        for index, row, result in zip(indices.tolist(), numbers, results.tolist(), strict=True):
            findings = bound.weigh(row, result, self._rule)
            ratio = max(finding.ratio for finding in findings)
            self._ulp = max(self._ulp, *(finding.ulp for finding in findings))
            self._unbounded += any(finding.unbounded for finding in findings)
            if self._worst is None or ratio > self._ratio:
                self._ratio = ratio
                exact = " and ".join(repr(finding.exact) for finding in findings)
                self._worst = (index, repr(result), exact)

    def verdict(self, inputs: _Inputs, indices: int) -> Verification:
        """Return what was found."""
        worst, found, exact = self._worst or (None, "", "")
        return Verification(
            reduction=self._rule.reduction,
            files=inputs.files,
            skipped=inputs.skipped,
            count=inputs.layout.count,
            indices=indices,
            largest_ulp=self._ulp,
            largest_bound_ratio=self._ratio,
            worst_index=worst,
            found=found,
            exact=exact,
            bound=self._rule.text,
            unbounded=self._unbounded,
            ok=self._ratio <= 1,
        )
