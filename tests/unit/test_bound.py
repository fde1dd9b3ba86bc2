import math

import numpy as np
import pytest

from distsum import bound

UNIT = 2.0**-53


def weigh(values, found, reduction="mean", out="<f8", depth=4):
    values = np.array(values)
    rule = bound.rule(reduction, values.dtype.str, out_dtype=out, files=len(values), depth=depth)
    (finding,) = bound.weigh(values, found, rule)
    return finding


def gamma(depth):
    return depth * UNIT / (1 - depth * UNIT)


def test_64_bit_integers_count_as_one_addition_more():
    for dtype, depth in [("<i8", 5), (">u8", 5), ("<i4", 4), ("|b1", 4), ("<f8", 4), ("<c16", 4)]:
        assert bound.rule("mean", dtype, out_dtype="<f8", files=3, depth=4).gamma == gamma(depth)


def test_a_complex_division_rounds_twice():
    assert bound.rule("mean", "<f8", out_dtype="<f8", files=3, depth=4).rho == UNIT
    assert bound.rule("mean", "<c16", out_dtype="<c16", files=3, depth=4).rho == gamma(2)


def test_a_sum_is_not_divided():
    rule = bound.rule("sum", "<f8", out_dtype="<f8", files=3, depth=4)
    assert (rule.divisor, rule.rho, rule.eta) == (1, 0, 0)
    assert rule.bound(1.0, 1.0) == pytest.approx(gamma(4), rel=1e-9)


def test_where_everything_is_zero_a_mean_may_be_off_by_the_smallest_step():
    assert bound.rule("mean", "<f8", out_dtype="<f8", files=3, depth=4).bound(0.0, 0.0) == 2.0**-1074
    assert bound.rule("mean", "<f8", out_dtype="<f4", files=3, depth=4).bound(0.0, 0.0) == pytest.approx(2.0**-150)


@pytest.mark.parametrize(("out", "bits"), [("<f8", 53), ("<f4", 24), ("<f2", 11), ("<c8", 24)])
def test_the_last_rounding_is_that_of_the_results_dtype(out, bits):
    rule = bound.rule("sum", "<f8", out_dtype=out, files=3, depth=0)
    assert rule.bound(1.0, 1.0) == pytest.approx(0 if bits == 53 else 2.0**-bits, rel=1e-4)


def test_an_infinity_must_have_the_sign_of_what_overflows():
    for out, large in [("<f4", 1e39), ("<f2", 70000.0)]:
        assert weigh([large], math.inf, out=out).ratio == 0
        assert weigh([-large], -math.inf, out=out).ratio == 0
        for wrong in [-math.inf, math.nan, 0.0]:
            assert weigh([large], wrong, out=out).ratio > 1
        assert weigh([-large], math.inf, out=out).ratio > 1


def test_a_shorter_float_may_overflow_to_the_side_that_the_error_of_a_cancelling_sum_reaches():
    assert weigh([1e200, -1e200], -math.inf, "sum", "<f4").ratio == 0
    assert weigh([1e200, -1e200], math.inf, "sum", "<f4").ratio == 0
    assert weigh([1e30, -1e30], math.inf, "sum", "<f4").ratio == math.inf


def test_an_infinity_met_by_an_overflow_of_the_other_sign_may_become_nan():
    found = weigh([1.7e308, 1.7e308, -math.inf], math.nan, "sum")
    assert (found.ratio, found.unbounded) == (0, True)
    assert weigh([1e300, 1e300, -math.inf], math.nan, "sum").ratio == math.inf
    assert weigh([1.7e308, 1.7e308, -math.inf], math.inf, "sum").ratio == math.inf


def test_least_and_greatest_are_rounded_once_to_a_shorter_float():
    for out in ["f4", "f2"]:
        right = float(np.array(0.1).astype(out))
        assert weigh([0.1, 0.3], right, "min", out=f"<{out}").ratio == 0
        assert weigh([0.1, 0.3], 0.1, "min", out=f"<{out}").ratio == math.inf
    assert weigh([1e39, 0.3], math.inf, "max", out="<f4").ratio == 0


def test_zeros_of_both_signs_are_equal():
    assert weigh([-0.0, -0.0], 0.0, "min").ratio == 0
    assert weigh([-0.0, -0.0], 0.0, "sum").ratio == 0


def test_errors_of_an_exact_zero_are_counted_in_the_smallest_steps():
    assert weigh([1.0, -1.0], 3 * 5e-324, "sum").ulp == 3
    assert weigh([1.0, -1.0], 2.0**-149, "sum", "<f4").ulp == 1


@pytest.mark.parametrize(
    ("exact", "ulp"), [(1.0, 2.0**-52), (0.999, 2.0**-53), (1e-310, 5e-324), (2.0**1023, 2.0**971)]
)
def test_the_unit_in_the_last_place_is_that_of_the_exact_value(exact, ulp):
    assert math.ulp(exact) == ulp
    assert weigh([exact], exact + 2 * ulp, "sum").ulp == 2


def test_a_row_of_integers_has_an_exact_mean():
    assert weigh([2**63 - 1, 2**63 - 3], float(2**63)).exact == float(2**63)
    assert weigh(np.array([2**64 - 1] * 3, np.uint64), float(2**64)).ratio < 1
    assert weigh(np.array([2**64 - 1] * 3, np.uint64), float(2**64) * (1 + 2.0**-50)).ratio > 1
