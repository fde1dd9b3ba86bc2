"""Reductions: what is kept of some numbers (planes), and how two of them become one.

A *plane* is an array with one value per index. A reduction names its planes and says how a first input fills them, how
another input is added, how two nodes are merged, and how a root becomes a result. The engine knows nothing else of
it, so a variance (planes: mean and M2), a weighted or a NaN-skipping mean (a plane of counts) fit the same shape.

numpy is imported inside the functions that compute: the process that plans needs only the dtypes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from distsum import dtypes
from distsum.errors import InexactError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[Any]
    Planes = Sequence[Array]

_LOW_BITS: Final = 32
_LOW_MASK: Final = (1 << _LOW_BITS) - 1


class Reduction(Protocol):
    """One reduction. All arrays are one-dimensional and as long as each other; counts are numbers of inputs."""

    name: str

    def planes(self, dtype: str) -> tuple[str, ...]:
        """Return the dtypes of the planes for inputs of a dtype (``dtype.str`` form).

        Raises:
            UsageError: The reduction means nothing for this dtype.
        """
        ...

    def result(self, dtype: str) -> str:
        """Return the dtype of the result unless the user asks for another."""
        ...

    def first(self, planes: Planes, values: Array) -> None:
        """Fill the planes with a first input."""
        ...

    def add(self, planes: Planes, count: int, values: Array) -> None:
        """Add one more input to planes that hold ``count`` already."""
        ...

    def merge(self, planes: Planes, count: int, others: Planes, other_count: int) -> None:
        """Add to the planes of a node those of the node that follows it."""
        ...

    def finish(self, planes: Planes, count: int) -> Array:
        """Return the result for planes that hold ``count`` inputs, in the dtype of ``result``.

        Raises:
            InexactError: The result must be exact and does not fit.
        """
        ...


class Sum:
    """The sum: in float64 or complex128 for floating inputs, exact for bool and integers.

    Integers of up to 32 bits are added in 64 bits, where 2**31 of them always fit. 64-bit integers are split into a
    high and a low half, each added in 64 bits; the halves meet at the end, where a sum beyond 64 bits is refused.
    """

    name = "sum"

    def planes(self, dtype: str) -> tuple[str, ...]:
        if dtypes.kind(dtype) not in "biu":
            return (dtypes.accumulator(dtype),)
        widest = dtypes.widest_integer(dtype)
        return (widest,) if dtypes.itemsize(dtype) < 8 else (widest, dtypes.parse_dtype("u8"))

    def result(self, dtype: str) -> str:
        return self.planes(dtype)[0]

    def first(self, planes: Planes, values: Array) -> None:
        if len(planes) == 1:
            planes[0][...] = values
            return
        import numpy as np

        np.right_shift(values, _LOW_BITS, out=planes[0])
        np.bitwise_and(values, _LOW_MASK, out=planes[1], casting="unsafe")

    def add(self, planes: Planes, count: int, values: Array) -> None:
        import numpy as np

        if len(planes) == 1:
            np.add(planes[0], values, out=planes[0])
            return
        np.add(planes[0], np.right_shift(values, _LOW_BITS), out=planes[0])
        np.add(planes[1], np.bitwise_and(values, _LOW_MASK).astype("u8", copy=False), out=planes[1])

    def merge(self, planes: Planes, count: int, others: Planes, other_count: int) -> None:
        import numpy as np

        for plane, other in zip(planes, others, strict=True):
            np.add(plane, other, out=plane)

    def finish(self, planes: Planes, count: int) -> Array:
        import numpy as np

        if len(planes) == 1:
            return _canonical(planes[0].copy())
        high, low = planes
        high = high + (low >> np.uint64(_LOW_BITS)).astype(high.dtype)
        low = low & np.uint64(_LOW_MASK)
        signed = high.dtype.kind == "i"
        least, most = (-(1 << 31), (1 << 31) - 1) if signed else (0, _LOW_MASK)
        beyond = np.flatnonzero((high < least) | (high > most))
        if beyond.size:
            at = int(beyond[0])
            exact = (int(high[at]) << _LOW_BITS) + int(low[at])
            raise InexactError(
                at,
                f"the sum {exact} does not fit {high.dtype}, and integer sums are exact or refused; "
                "take the mean, or sum floating-point copies of the inputs",
            )
        return np.asarray((high << high.dtype.type(_LOW_BITS)) | low.astype(high.dtype))


class Mean:
    """The arithmetic mean: a floating sum, divided once by the number of inputs."""

    name = "mean"

    def planes(self, dtype: str) -> tuple[str, ...]:
        return (dtypes.accumulator(dtype),)

    def result(self, dtype: str) -> str:
        return dtypes.accumulator(dtype)

    def first(self, planes: Planes, values: Array) -> None:
        planes[0][...] = values

    def add(self, planes: Planes, count: int, values: Array) -> None:
        import numpy as np

        np.add(planes[0], values, out=planes[0])

    def merge(self, planes: Planes, count: int, others: Planes, other_count: int) -> None:
        import numpy as np

        np.add(planes[0], others[0], out=planes[0])

    def finish(self, planes: Planes, count: int) -> Array:
        import numpy as np

        return _canonical(np.divide(planes[0], count))


class _Extreme:
    """What min and max share: they are exact, and kept as float64 or as 64-bit integers.

    NaN propagates. Which of -0.0 and 0.0 is the smaller depends on the instruction that compares them, so that a zero
    result is always +0.0: the bits may not depend on where a block begins.
    """

    name = ""

    def _pick(self, plane: Array, values: Array) -> None:
        raise NotImplementedError

    def planes(self, dtype: str) -> tuple[str, ...]:
        kind = dtypes.kind(dtype)
        if kind == "c":
            raise UsageError(f"{self.name} needs numbers with an order; these inputs are complex ({dtype})")
        return (dtypes.accumulator(dtype) if kind == "f" else dtypes.widest_integer(dtype),)

    def result(self, dtype: str) -> str:
        return self.planes(dtype)[0]

    def first(self, planes: Planes, values: Array) -> None:
        planes[0][...] = values

    def add(self, planes: Planes, count: int, values: Array) -> None:
        self._pick(planes[0], values)

    def merge(self, planes: Planes, count: int, others: Planes, other_count: int) -> None:
        self._pick(planes[0], others[0])

    def finish(self, planes: Planes, count: int) -> Array:
        if planes[0].dtype.kind != "f":
            return planes[0].copy()
        return _canonical(planes[0] + 0.0)


class Min(_Extreme):
    """The smallest number at each index; NaN where any input has one."""

    name = "min"

    def _pick(self, plane: Array, values: Array) -> None:
        import numpy as np

        np.minimum(plane, values, out=plane)


class Max(_Extreme):
    """The largest number at each index; NaN where any input has one."""

    name = "max"

    def _pick(self, plane: Array, values: Array) -> None:
        import numpy as np

        np.maximum(plane, values, out=plane)


REDUCTIONS: Final[dict[str, Reduction]] = {each.name: each for each in (Mean(), Sum(), Min(), Max())}


def _canonical(values: Array) -> Array:
    """Give every NaN the same bits: which of two NaNs an addition keeps depends on the instruction."""
    import numpy as np

    if values.dtype.kind in "fc":
        parts = values.view(values.real.dtype)
        parts[np.isnan(parts)] = np.nan
    return values


def check_output_dtype(reduction: Reduction, dtype: str, out_dtype: str) -> None:
    """Refuse an output dtype that cannot hold what the reduction gives.

    Raises:
        UsageError: Floating results into integers, or complex ones into real numbers.
    """
    result = reduction.result(dtype)
    order = "biufc"
    group = {"b": 0, "i": 0, "u": 0, "f": 1, "c": 2}
    have, want = dtypes.kind(result), dtypes.kind(out_dtype)
    if want not in order or want == "b" or group[want] < group[have]:
        raise UsageError(
            f"--out-dtype {out_dtype} cannot hold {result}, which the {reduction.name} of {dtype} inputs is"
        )


def cast(values: Array, out_dtype: np.dtype[Any]) -> Array:
    """Return a result in the output's dtype, native byte order.

    Floating results are rounded to nearest; integers are exact or refused.

    Raises:
        InexactError: An integer does not fit the output's dtype.
    """
    import numpy as np

    if values.dtype == out_dtype:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        converted = values.astype(out_dtype)
        if values.dtype.kind not in "iu":
            return converted
        exact = _equal_integers(values, converted)
    if not exact.all():
        at = int(np.flatnonzero(~exact)[0])
        raise InexactError(
            at, f"{int(values[at])} cannot be written exactly as {out_dtype}; choose another --out-dtype"
        )
    return converted


def _equal_integers(values: Array, converted: Array) -> npt.NDArray[np.bool_]:
    import numpy as np

    if converted.dtype.kind in "iu":
        back = converted.astype(values.dtype)
        same_sign = (values < 0) == (converted < 0)
        return np.asarray((back == values) & same_sign)
    real = converted.real
    limits = np.iinfo(values.dtype)
    # Rounding may reach 2**63 or 2**64, which the way back would overflow: such a value is not exact anyway.
    inside = np.isfinite(real) & (real >= float(limits.min)) & (real < float(limits.max))
    back = np.where(inside, real, 0).astype(values.dtype)
    return np.asarray(inside & (back == values))
