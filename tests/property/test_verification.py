"""The bound is proven; these try to break the proof, and the program that applies it."""

import math
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distsum import bound
from distsum.tree import Tree
from tests.reference import reference_reduce


@st.composite
def columns(draw):
    """Numbers at one index: magnitudes from the smallest to near the largest, and much that cancels."""
    files = draw(st.integers(1, 300))
    spread = draw(st.sampled_from([0, 3, 50, 300]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = random.standard_normal(files) * 10.0 ** random.integers(-spread, min(spread, 290) + 1, files)
    if draw(st.booleans()):
        half = files // 2
        values[half : 2 * half] = -values[:half]
        values = random.permutation(values)
    if draw(st.booleans()):
        values[random.random(files) < 0.3] = draw(st.floats(allow_nan=False, allow_infinity=False))
    return values


def weigh(values, fan_in, reduction, out=None):
    array = values.reshape(-1, 1)
    out = out or ("<c16" if values.dtype.kind == "c" else "<f8")
    with np.errstate(all="ignore"):
        result = reference_reduce(list(array), fan_in, reduction).astype(out)
    depth = Tree(len(values), fan_in, 1).depth
    rule = bound.rule(reduction, values.dtype.str, out_dtype=out, files=len(values), depth=depth)
    return bound.weigh(values, result[0].item(), rule), rule


@given(values=columns(), fan_in=st.integers(2, 9), reduction=st.sampled_from(["mean", "sum"]))
def test_the_bound_holds_for_the_canonical_tree(values, fan_in, reduction):
    (finding,), _ = weigh(values, fan_in, reduction)
    assert finding.ratio <= 1


@given(
    values=columns(),
    fan_in=st.integers(2, 9),
    reduction=st.sampled_from(["mean", "sum"]),
    out=st.sampled_from(["<f4", "<f2"]),
)
def test_the_bound_holds_after_rounding_to_a_shorter_float(values, fan_in, reduction, out):
    (finding,), _ = weigh(values, fan_in, reduction, out)
    assert finding.ratio <= 1


@given(
    values=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=200),
    fan_in=st.integers(2, 9),
)
def test_the_bound_holds_for_integers_that_float64_cannot_hold(values, fan_in):
    (finding,), _ = weigh(np.array(values, np.int64), fan_in, "mean")
    assert finding.ratio <= 1


@given(values=columns(), fan_in=st.integers(2, 9), reduction=st.sampled_from(["mean", "sum"]))
def test_the_bound_holds_for_both_parts_of_complex_numbers(values, fan_in, reduction):
    findings, _ = weigh(values + 1j * values[::-1], fan_in, reduction)
    assert len(findings) == 2
    assert all(finding.ratio <= 1 for finding in findings)


@given(
    values=st.lists(st.floats(), min_size=1, max_size=60),
    fan_in=st.integers(2, 9),
    reduction=st.sampled_from(["mean", "sum", "min", "max"]),
)
def test_any_floats_at_all_give_a_right_result(values, fan_in, reduction):
    (finding,), _ = weigh(np.array(values), fan_in, reduction)
    assert finding.ratio <= 1


@given(values=columns(), fan_in=st.integers(2, 9), reduction=st.sampled_from(["mean", "sum"]), away=st.floats(-3, 3))
def test_error_and_bound_are_those_of_exact_arithmetic(values, fan_in, reduction, away):
    """Recomputes what ``weigh`` does in fractions only, for results within and beyond the bound."""
    size = sum(map(abs, values.tolist()))
    if not size < 1e300:
        return
    divisor = len(values) if reduction == "mean" else 1
    rule = bound.rule(reduction, "<f8", out_dtype="<f8", files=len(values), depth=Tree(len(values), fan_in, 1).depth)
    result = math.fsum(values) / divisor + away * rule.gamma * size / divisor
    exact = sum(map(Fraction, values.tolist())) / divisor
    error = abs(Fraction(result) - exact)
    (finding,) = bound.weigh(values, result, rule)
    magnitude = sum(abs(Fraction(value)) for value in values.tolist()) / divisor
    gamma = Fraction(Tree(len(values), fan_in, 1).depth, 2**53)
    gamma /= 1 - gamma
    limit = gamma * magnitude
    if reduction == "mean":
        limit += Fraction(1, 2**53) * (abs(exact) + limit) + Fraction(1, 2**1074)
    if not limit:
        assert finding.ratio == (math.inf if error else 0)
        return
    ratio = error / limit
    assert abs(Fraction(finding.ratio) - ratio) <= ratio / 2**30 + Fraction(1, 2**1000)
