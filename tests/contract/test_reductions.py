"""What every reduction does: the laws by which nodes may be folded from inputs and from each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsum import dtypes
from distsum.errors import InexactError, UsageError
from distsum.reductions import REDUCTIONS, cast, check_output_dtype

DTYPES = ["|b1", "|i1", "<i2", ">i4", "<i8", "|u1", ">u2", "<u4", "<u8", "<f2", ">f4", "<f8", "<c8", ">c16"]
CASES = [
    (name, dtype)
    for name in REDUCTIONS
    for dtype in DTYPES
    if not (name in {"min", "max"} and dtypes.kind(dtype) == "c")
]


def numbers(dtype, shape, seed):
    draw = np.random.default_rng(seed)
    kind = dtypes.kind(dtype)
    if kind == "b":
        return draw.integers(0, 2, shape).astype(dtype)
    if kind in "iu":
        limits = np.iinfo(dtype)
        native = np.dtype(dtype).newbyteorder("=")
        return draw.integers(limits.min, limits.max, shape, native, endpoint=True).astype(dtype)
    values = draw.standard_normal(shape)
    return (values + 1j * draw.standard_normal(shape) if kind == "c" else values).astype(dtype)


def moderate(dtype, shape, seed):
    """Numbers of which a few can be added without leaving the dtype of the sum."""
    values = numbers(dtype, shape, seed)
    return values // 4 if dtypes.kind(dtype) in "iu" else values


def folded(reduction, dtype, arrays):
    planes = [np.empty(len(arrays[0]), plane) for plane in reduction.planes(dtype)]
    reduction.first(planes, arrays[0])
    for count, array in enumerate(arrays[1:], start=1):
        reduction.add(planes, count, array)
    return planes


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_one_input_is_its_own_result(name, dtype):
    reduction = REDUCTIONS[name]
    values = numbers(dtype, 50, 1)
    result = reduction.finish(folded(reduction, dtype, [values]), 1)
    assert result.dtype == np.dtype(reduction.result(dtype))
    assert (result == values).all()


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_numpy_agrees(name, dtype):
    reduction = REDUCTIONS[name]
    values = moderate(dtype, (3, 50), 2)
    expected = getattr(np, name)(values.astype(reduction.result(dtype)), axis=0)
    result = reduction.finish(folded(reduction, dtype, list(values)), 3)
    np.testing.assert_allclose(result, expected, rtol=1e-14)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_merging_a_node_into_another_gives_the_planes_of_both_in_order(name, dtype):
    reduction = REDUCTIONS[name]
    values = numbers(dtype, (2, 20), 3)
    both = folded(reduction, dtype, list(values))
    left, right = (folded(reduction, dtype, [each]) for each in values)
    reduction.merge(left, 1, right, 1)
    for merged, added in zip(left, both, strict=True):
        assert merged.tobytes() == added.tobytes()


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_blocks_of_an_array_give_the_bits_of_the_whole(name, dtype):
    reduction = REDUCTIONS[name]
    values = moderate(dtype, (3, 61), 4)
    whole = reduction.finish(folded(reduction, dtype, list(values)), 3)
    for cut in (1, 7, 32, 60):
        parts = [
            reduction.finish(folded(reduction, dtype, list(part)), 3) for part in (values[:, :cut], values[:, cut:])
        ]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_finishing_leaves_the_planes_as_they_are(name, dtype):
    reduction = REDUCTIONS[name]
    planes = folded(reduction, dtype, list(moderate(dtype, (2, 20), 5)))
    before = [plane.tobytes() for plane in planes]
    reduction.finish(planes, 2)
    assert [plane.tobytes() for plane in planes] == before


@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=4, max_size=4), min_size=1, max_size=30))
def test_sums_of_64_bit_integers_are_exact_or_refused(rows):
    reduction = REDUCTIONS["sum"]
    exact = [sum(column) for column in zip(*rows, strict=True)]
    planes = folded(reduction, "<i8", [np.array(row, "<i8") for row in rows])
    if all(-(2**63) <= each < 2**63 for each in exact):
        assert reduction.finish(planes, len(rows)).tolist() == exact
    else:
        with pytest.raises(InexactError) as caught:
            reduction.finish(planes, len(rows))
        first = next(place for place, each in enumerate(exact) if not -(2**63) <= each < 2**63)
        assert caught.value.position == first
        assert str(exact[first]) in caught.value.reason


@given(st.lists(st.lists(st.integers(0, 2**64 - 1), min_size=3, max_size=3), min_size=1, max_size=20))
def test_sums_of_unsigned_64_bit_integers_are_exact_or_refused(rows):
    reduction = REDUCTIONS["sum"]
    exact = [sum(column) for column in zip(*rows, strict=True)]
    planes = folded(reduction, ">u8", [np.array(row, ">u8") for row in rows])
    if all(each < 2**64 for each in exact):
        assert reduction.finish(planes, len(rows)).tolist() == exact
    else:
        with pytest.raises(InexactError):
            reduction.finish(planes, len(rows))


@pytest.mark.parametrize("name", ["min", "max"])
def test_the_zero_of_min_and_max_is_positive_and_nan_wins(name):
    reduction = REDUCTIONS[name]
    arrays = [np.array([0.0, -0.0, -0.0, 1.0, np.nan]), np.array([-0.0, 0.0, -0.0, np.nan, 1.0])]
    for order in (arrays, arrays[::-1]):
        result = reduction.finish(folded(reduction, "<f8", order), 2)
        assert result.tobytes() == np.array([0.0, 0.0, 0.0, np.nan, np.nan]).tobytes()


@pytest.mark.parametrize("name", ["min", "max"])
def test_complex_numbers_have_no_order(name):
    with pytest.raises(UsageError, match="complex"):
        REDUCTIONS[name].planes("<c16")


def test_every_nan_has_the_same_bits():
    reduction = REDUCTIONS["mean"]
    odd = np.array([0x7FF8000000000123, 0xFFF8000000000001], "u8").view("f8")
    with np.errstate(invalid="ignore"):
        result = reduction.finish(folded(reduction, "<f8", [odd, np.array([1.0, 2.0])]), 2)
    assert result.tobytes() == np.array([np.nan, np.nan]).tobytes()


@pytest.mark.parametrize(
    ("values", "out", "fits"),
    [
        ([2**53, -(2**53)], "f8", True),
        ([2**53 + 1], "f8", False),
        ([2**63 - 1], "f8", False),
        ([-(2**63)], "f8", True),
        ([255], "u1", True),
        ([256], "u1", False),
        ([-1], "u8", False),
        ([2**24 + 1], "f4", False),
        ([7], "c16", True),
    ],
)
def test_integers_are_cast_exactly_or_refused(values, out, fits):
    array = np.array(values, "i8")
    if fits:
        assert cast(array, np.dtype(out)).tolist() == values
    else:
        with pytest.raises(InexactError, match=str(values[0])):
            cast(array, np.dtype(out))


def test_floats_are_rounded_and_may_overflow_to_infinity():
    assert cast(np.array([1e300, 0.1]), np.dtype("f4")).tolist() == [float("inf"), float(np.float32(0.1))]


@pytest.mark.parametrize(
    ("name", "dtype", "out", "allowed"),
    [
        ("mean", "<f4", "<f4", True),
        ("mean", "<i4", "<i8", False),
        ("mean", "<c8", "<f8", False),
        ("sum", "<i4", "<i2", True),
        ("sum", "<i4", "|b1", False),
        ("sum", "<f8", "<c16", True),
        ("max", "|u1", "<f8", True),
    ],
)
def test_output_dtypes_that_cannot_hold_the_result_are_refused_beforehand(name, dtype, out, allowed):
    if allowed:
        check_output_dtype(REDUCTIONS[name], dtype, out)
    else:
        with pytest.raises(UsageError, match="out-dtype"):
            check_output_dtype(REDUCTIONS[name], dtype, out)
