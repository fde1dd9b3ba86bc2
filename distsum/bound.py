r"""How far a result may be from the exact one, and how far it is (pure).

Let :math:`u = 2^{-53}`, let :math:`x_1, ..., x_n` be the numbers at an index, :math:`S` their exact sum, and
:math:`A = |x_1| + ... + |x_n|`. In the canonical tree (``distsum/tree.py``) a number passes through at most ``d =
Tree.depth`` additions, each of which multiplies it by some :math:`1 + \delta` with :math:`|\delta| \le u`; an addition
that underflows is exact. Inputs become float64 without error, but for 64-bit integers beyond :math:`2^{53}`, which get
one factor more: for those dtypes ``d`` is one larger. So the computed sum is :math:`\sum x_i (1 + \theta_i)` with
:math:`|\theta_i| \le \gamma_d = du / (1 - du)` (Higham, "The accuracy of floating point summation", SIAM J. Sci.
Comput. 14 (1993), 783-799), and

    |computed sum - S| <= gamma_d * A.

The mean divides once by ``n``, which float64 holds exactly, with a relative error :math:`\rho`: ``u`` for real numbers,
and :math:`\gamma_2` for complex ones, as numpy multiplies by the rounded ``1 / n``. Where the quotient underflows there
is an absolute error :math:`\eta` of at most one subnormal step as well:

    |computed mean - S/n| <= gamma_d * A/n + rho * (|S|/n + gamma_d * A/n) + eta.

An output in float32 or float16 is rounded once more: by at most its own unit roundoff times the magnitude of what is
rounded, plus half its own subnormal step. That is the bound a result is held to. Real and imaginary parts are two sums.

Where ``A`` may leave the range of float64, the additions may overflow although ``S`` does not. There an infinity or NaN
proves nothing; it is accepted and counted as ``unbounded``. If all numbers have one sign, only their infinity is.

Where an input is NaN or infinite, the result must be what numpy gives: NaN for a NaN or for infinities of both signs,
else the infinity. Sums of integers, and every min and max, must be equal.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from distsum import dtypes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

    Array = npt.NDArray[Any]

_N = TypeVar("_N", float, Fraction)

_UNIT: Final = 2.0**-53
_FLOATS: Final = {
    2: (11, -24, 65520.0),
    4: (24, -149, (2.0 - 2.0**-24) * 2.0**127),
    8: (53, -1074, math.inf),
}
"""By bytes of a float: bits of its significand, exponent of its smallest step, and where it rounds to infinity."""

_CHUNK: Final = 1 << 16
"""Numbers that are Python objects at once."""

_OVERFLOW: Final = Fraction(2**1024 - 2**970)
"""Where float64 rounds to infinity."""

_PLAIN: Final = 2.0**1000
"""Below this neither ``fsum`` nor a bound in float64 can overflow."""

_SLACK: Final = 1 + 2.0**-40
"""More than what rounding takes from a bound that is itself computed in float64."""


class Rule(msgspec.Struct, frozen=True):
    """What a result is held to.

    Attributes:
        reduction: The reduction.
        dtype: dtype of the result.
        divisor: What the sum is divided by: 1 but for a mean.
        gamma: Error of the sum, as a ratio to the sum of the magnitudes.
        rho: Error of the division, as a ratio to the quotient.
        eta: Error of a quotient that underflows.
        text: All this in words.
    """

    reduction: str
    dtype: str
    divisor: int
    gamma: float
    rho: float
    eta: float
    text: str

    @property
    def float_bytes(self) -> int:
        """Bytes of one float of the result."""
        return _float_bytes(self.dtype)

    def bound(self, size: float, exact: float) -> float:
        """Return the bound for a mean magnitude and the magnitude of the exact value."""
        return self._rounded(_bound(size, exact, self.gamma, self.rho, self.eta), exact) * _SLACK

    def rational_bounds(self, size: Fraction, exact: Fraction) -> tuple[Fraction, Fraction]:
        """Return the bounds before and after the rounding to the result's dtype, where float64 does not reach."""
        before = _bound(size, exact, Fraction(self.gamma), Fraction(self.rho), Fraction(self.eta)) * Fraction(_SLACK)
        return before, self._rounded(before, exact)

    def _rounded(self, bound: _N, exact: _N) -> _N:
        if self.float_bytes == 8:
            return bound
        bits, step, _ = _FLOATS[self.float_bytes]
        kind = type(bound)
        return bound + kind(2.0**-bits) * (exact + bound) + kind(2.0 ** (step - 1))


def _bound(size: _N, exact: _N, gamma: _N, rho: _N, eta: _N) -> _N:
    total = gamma * size
    return total + rho * (exact + total) + eta


def rule(reduction: str, dtype: str, *, out_dtype: str, files: int, depth: int) -> Rule:
    """Return what a result is held to.

    Args:
        reduction: ``mean``, ``sum``, ``min`` or ``max``.
        dtype: dtype of the inputs, as they are weighed: 64-bit integers are rounded when the engine takes them up.
        out_dtype: dtype of the result.
        files: Inputs in it.
        depth: The most additions that a number passes through.
    """
    kind = dtypes.kind(dtype)
    mean = reduction == "mean"
    if not mean and (kind in "biu" or reduction != "sum"):
        return Rule(reduction, out_dtype, 1, 0.0, 0.0, 0.0, "equal")
    rounded = kind in "iu" and dtypes.itemsize(dtype) == 8
    depth += rounded
    words = f"gamma({depth}) * sum|x|{'/n' if mean else ''}"
    if rounded:
        words += ", with one addition more for the rounding of 64-bit integers"
    if mean:
        words += ", and the rounding of the division"
    if _float_bytes(out_dtype) < 8:
        words += f" and to {out_dtype}"
    rho = _gamma(2) if kind == "c" else _UNIT
    return Rule(
        reduction=reduction,
        dtype=out_dtype,
        divisor=files if mean else 1,
        gamma=_gamma(depth),
        rho=rho if mean else 0.0,
        eta=2.0**-1074 if mean else 0.0,
        text=words,
    )


def _gamma(depth: int) -> float:
    return depth * _UNIT / (1 - depth * _UNIT)


def _float_bytes(dtype: str) -> int:
    return dtypes.itemsize(dtype) // (2 if dtypes.kind(dtype) == "c" else 1)


class Finding(msgspec.Struct, frozen=True):
    """How far one number of a result is from the exact one."""

    exact: float
    ulp: float = 0.0
    ratio: float = 0.0
    unbounded: bool = False


def weigh(row: Array, result: complex, rule: Rule) -> list[Finding]:
    """Return the findings for one index: one for a real result, two for a complex one."""
    if rule.reduction in {"min", "max"}:
        return [_same(_extreme(row, rule), result)]
    if row.dtype.kind in "biu" and rule.reduction == "sum":
        return [_same(sum(_numbers(row)), result)]
    if row.dtype.kind == "c":
        real, imag = row.real, row.imag
        sizes = _magnitude(real), _magnitude(imag)
        # numpy's complex division multiplies the other part by zero, so that an infinity there becomes NaN here.
        parts = (real, result.real, sizes[0], sizes[1]), (imag, result.imag, sizes[1], sizes[0])
        return [
            _part(part, found, size, rule, nan_too=rule.reduction == "mean" and not other < 2.0**1023)
            for part, found, size, other in parts
        ]
    findings = [_part(row, result.real, _magnitude(row), rule, nan_too=False)]
    if isinstance(result, complex):
        findings.append(_same(0, result.imag))
    return findings


def _same(exact: float, result: complex) -> Finding:
    """Hold a result to equality; one that is not kept as an integer, to the nearest float64."""
    wanted = exact if isinstance(result, int) else float(exact)
    equal = result == wanted or (exact != exact and result != result)  # noqa: PLR0124 - NaN
    return Finding(exact) if equal else Finding(exact, math.inf, math.inf)


def _extreme(row: Array, rule: Rule) -> float:
    """Return the least or the greatest number, or NaN, in the result's dtype."""
    import numpy as np

    pick = min if rule.reduction == "min" else max
    if row.dtype.kind != "f":
        return int(pick(_numbers(row)))
    if any(np.isnan(chunk).any() for chunk in _chunks(row)):
        return math.nan
    with np.errstate(over="ignore"):
        return float(np.asarray(pick(_numbers(row))).astype(f"f{rule.float_bytes}"))


def _part(row: Array, found: float, size: float, rule: Rule, *, nan_too: bool) -> Finding:
    """Weigh one sum or mean of real numbers.

    Args:
        row: The numbers.
        found: The result.
        size: The sum of their magnitudes in float64, as near as that comes.
        rule: The rule.
        nan_too: Whether NaN is right as well, because of the other part of a complex number.
    """
    if nan_too and math.isnan(found):
        return Finding(math.nan)
    if row.dtype.kind in "biu":
        return _rational(sum(_numbers(row)), sum(map(abs, _numbers(row))), found, rule)
    if size < _PLAIN and abs(found) * rule.divisor < _PLAIN:
        exact = math.fsum(_numbers(row)) / rule.divisor
        product = Fraction(found) * rule.divisor
        high = float(product)
        low = float(product - Fraction(high))
        error = abs(math.fsum(itertools.chain(_numbers(row), (-high, -low)))) / rule.divisor
        return _finding(exact, error, rule.bound(size / rule.divisor, abs(exact)), rule)
    special = _special(row)
    if special is None:
        return _rational(sum(map(Fraction, _numbers(row))), sum(map(Fraction, map(abs, _numbers(row)))), found, rule)
    finite = (number for number in _numbers(row) if math.isfinite(number))
    if math.isnan(found) and math.isinf(special) and sum(map(Fraction, map(abs, finite))) >= _OVERFLOW / 2:
        return Finding(special, unbounded=True)
    return _same(special, found)


def _special(row: Array) -> float | None:
    """Return the sum of the numbers that are not finite, None if all are."""
    total: float | None = None
    for number in _numbers(row):
        if not math.isfinite(number):
            total = number if total is None else total + number
    return total


def _rational(total: Fraction | int, size: Fraction | int, found: float, rule: Rule) -> Finding:
    """Weigh a sum or mean where float64 does not reach, or of integers; ``size`` is the sum of the magnitudes."""
    exact = Fraction(total) / rule.divisor
    before, bound = rule.rational_bounds(Fraction(size) / rule.divisor, abs(exact))
    if size * (1 + Fraction(rule.gamma)) >= _OVERFLOW:
        if abs(total) == size:
            infinity = math.inf if total > 0 else -math.inf
            if size * (1 - Fraction(rule.gamma)) >= _OVERFLOW:
                return _same(infinity, found)
            if found == infinity:
                return Finding(_nearest(exact), unbounded=True)
        elif not math.isfinite(found):
            return Finding(_nearest(exact), unbounded=True)
    if not math.isfinite(found):
        # A shorter float overflows where the value that is rounded to it, anywhere within its bound, reaches the limit.
        reach = exact + before if found > 0 else before - exact
        right = not math.isnan(found) and reach >= _FLOATS[rule.float_bytes][2]
        return Finding(_nearest(exact)) if right else Finding(_nearest(exact), math.inf, math.inf)
    return _finding(exact, abs(Fraction(found) - exact), bound, rule)


def _finding(exact: _N, error: _N, bound: _N, rule: Rule) -> Finding:
    """Return an error as ratios to a unit in the last place and to the bound."""
    if not error:
        return Finding(_nearest(exact))
    bits, step, _ = _FLOATS[rule.float_bytes]
    value = _nearest(exact)
    ulp = math.ldexp(1.0, max(math.frexp(value)[1] - bits, step) if value else step)
    return Finding(value, _ratio(error, ulp), _ratio(error, bound))


def _nearest(exact: float | Fraction) -> float:
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def _ratio(error: float | Fraction, unit: float | Fraction) -> float:
    try:
        return float(error / unit) if isinstance(error, float) else float(error / Fraction(unit))
    except (OverflowError, ZeroDivisionError):
        return math.inf


def _chunks(row: Array) -> Iterator[Array]:
    for start in range(0, len(row), _CHUNK):
        yield row[start : start + _CHUNK]


def _numbers(row: Array) -> Iterable[Any]:
    """Return a row's numbers as Python's; those of a long row not all at once."""
    if len(row) <= _CHUNK:
        return row.tolist()  # type: ignore[no-any-return]  # numpy says Any; it is a list
    return itertools.chain.from_iterable(chunk.tolist() for chunk in _chunks(row))


def _magnitude(row: Array) -> float:
    """Return the sum of the magnitudes in float64; infinite or NaN if one of them is, or if it overflows."""
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        return float(sum(np.abs(chunk).sum(dtype=np.float64) for chunk in _chunks(row)))
