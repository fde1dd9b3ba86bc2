import math
import os
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from distsum import verification as module
from distsum.errors import BadInputError, InputListError, StorageError, UsageError, VerificationError
from distsum.tree import Tree
from distsum.verification import verify
from tests.reference import reference_reduce

DTYPES = ["<f8", ">f8", "<f4", ">f4", "<f2", "|b1", "|i1", "|u1", "<i2", ">u2", "<i4", ">i8", "<u8", "<c8", ">c16"]


def some(dtype, files, count, seed=0):
    """Return arrays of numbers with magnitudes far apart."""
    draw = np.random.default_rng(seed)
    kind = np.dtype(dtype).kind
    if kind == "b":
        return [draw.random(count) < 0.5 for _ in range(files)]
    if kind in "iu":
        limits = np.iinfo(dtype)
        return [draw.integers(limits.min // 64, limits.max // 64, count).astype(dtype) for _ in range(files)]
    values = draw.standard_normal((files, count)) * 10.0 ** draw.integers(-3, 4, (files, count))
    if kind == "c":
        values = values + 1j * draw.standard_normal((files, count))
    return [row.astype(dtype) for row in values]


def save(folder, arrays, suffix=".npy"):
    """Write arrays as inputs; return their paths."""
    folder.mkdir(exist_ok=True)
    paths = []
    for index, array in enumerate(arrays):
        path = folder / f"{index:04}{suffix}"
        if suffix == ".npy":
            np.save(path, array)
        elif suffix == ".raw":
            path.write_bytes(array.tobytes())
        else:
            path.write_text("".join(f"{number!r}\n" for number in array.tolist()))
        paths.append(os.fsencode(path))
    return paths


class Case:
    """Inputs, and what they should give."""

    def __init__(self, folder, arrays, *, reduction="mean", fan_in=5, suffix=".npy"):
        self.folder, self.arrays, self.reduction = folder, arrays, reduction
        self.paths = save(folder / "runs", arrays, suffix)
        self.right = reference_reduce(arrays, fan_in, reduction)
        self.options = {"reduction": reduction, "fan_in": fan_in}

    def check(self, result=None, **options):
        path = self.folder / "result.npy"
        np.save(path, self.right if result is None else result)
        return verify(os.fsencode(path), self.paths, **(self.options | options))


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path, some("f8", 30, 200))


# ------------------------------------------------------------------------------------------------ right results pass


@pytest.mark.parametrize("reduction", ["mean", "sum", "min", "max"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_canonical_trees_result_is_right(tmp_path, dtype, reduction):
    if dtype[1] == "c" and reduction in {"min", "max"}:
        reduction = "sum"
    found = Case(tmp_path, some(dtype, 27, 50), reduction=reduction).check()
    assert found.ok
    assert found.largest_bound_ratio <= 1
    assert (found.files, found.count, found.indices, found.skipped) == (27, 50, 50, ())


@pytest.mark.parametrize("files", [1, 2, 5, 6, 26])
@pytest.mark.parametrize("fan_in", [2, 5, 7])
def test_any_number_of_files_and_any_fan_in(tmp_path, files, fan_in):
    assert Case(tmp_path, some("f8", files, 20), fan_in=fan_in).check().ok


def test_a_sum_of_one_file_must_be_that_file(tmp_path):
    case = Case(tmp_path, some("f8", 1, 20), reduction="sum")
    assert case.check().largest_ulp == 0
    assert case.check(np.nextafter(case.right, np.inf)).largest_bound_ratio == math.inf


@pytest.mark.parametrize("suffix", [".raw", ".txt"])
def test_inputs_of_other_formats(tmp_path, suffix):
    case = Case(tmp_path, some("f8", 12, 100), suffix=suffix)
    assert case.check(dtype="<f8" if suffix == ".raw" else None).ok
    wrong = case.right.copy()
    wrong[77] *= 1.001
    assert case.check(wrong, dtype="<f8" if suffix == ".raw" else None).worst_index == 77


@pytest.mark.parametrize(
    ("suffix", "out"),
    [(suffix, out) for suffix in (".npy", ".raw") for out in ("f8", ">f8", "f4", "f2", "c16", "c8")]
    + [(".txt", out) for out in ("f8", "f4", "f2")],
)
def test_results_of_every_format_and_dtype(tmp_path, out, suffix):
    case = Case(tmp_path, [array / 10 for array in some("f8", 12, 100)])
    result = case.right.astype(out)

    def check(values):
        path = tmp_path / f"result{suffix}"
        if suffix == ".npy":
            np.save(path, values)
        elif suffix == ".raw":
            path.write_bytes(values.tobytes())
        else:
            digits = {"8": 16, "4": 8, "2": 4}[out[-1]]
            path.write_text("\n".join(f"{number:.{digits}e}" for number in values.tolist()))
        return verify(os.fsencode(path), case.paths, out_dtype=np.dtype(out).str)

    assert check(result).ok
    result[[3, 4]] = result[[4, 3]]
    assert not check(result).ok


def test_text_holds_sums_of_integers_beyond_float64(tmp_path):
    case = Case(tmp_path, [np.array([2**61 + 1, 3])] * 3, reduction="sum")
    (tmp_path / "result.txt").write_text(f"{3 * 2**61 + 3} 9\n")
    assert verify(os.fsencode(tmp_path / "result.txt"), case.paths, reduction="sum").ok


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("result_order", ["C", "F"])
def test_arrays_of_several_dimensions_in_either_order(tmp_path, order, result_order):
    arrays = [np.asarray(array.reshape(3, 4, 5), order=order) for array in some("f8", 7, 60)]
    case = Case(tmp_path, arrays)
    assert case.check(np.asarray(case.right, order=result_order)).ok
    wrong = case.right.copy()
    wrong[1, 2, 3] += 1
    assert case.check(np.asarray(wrong, order=result_order)).worst_index == (
        33 if order == "C" else 1 + 3 * (2 + 4 * 3)
    )


def test_inputs_of_several_dtypes_that_are_added_in_the_same_one(tmp_path):
    arrays = some("<f4", 3, 40) + some(">f8", 3, 40) + some("<f2", 3, 40)
    assert Case(tmp_path, arrays).check().ok
    integers = [np.array([2**62 + 1, -7]), np.array([0.25, 3e-9]), np.array([1, 2], np.uint8)]
    assert Case(tmp_path, integers).check().ok
    assert Case(tmp_path, integers[::-1]).check().ok


def test_special_values_are_what_numpy_gives(tmp_path):
    inf, nan = math.inf, math.nan
    columns = [[1, nan, 2], [inf, 1, 2], [-inf, 1, -inf], [inf, 1, -inf], [inf, nan, 1], [0.0, -0.0, -0.0]]
    for reduction in ["mean", "sum", "min", "max"]:
        case = Case(tmp_path, list(np.array(columns).T.copy()), reduction=reduction)
        assert case.check().ok
        for index in range(len(columns)):
            for other in [nan, inf, -inf, 0.0]:
                wrong = case.right.copy()
                if other == wrong[index] or (math.isnan(other) and math.isnan(wrong[index])):
                    continue
                wrong[index] = other
                assert case.check(wrong).worst_index == index, (reduction, index, other)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_complex_special_values_are_what_numpy_gives(tmp_path):
    arrays = [np.array([complex(math.inf, 1), complex(1, math.nan), complex(1e308, 1)]), np.array([1 + 1j] * 3)]
    for reduction in ["mean", "sum"]:
        case = Case(tmp_path, arrays, reduction=reduction)
        assert case.check().ok
        assert case.check(np.full(3, complex(math.nan, math.nan))).worst_index is not None
        assert not case.check(np.array([case.right[0], case.right[1], complex(math.nan, 1)])).ok


def test_sums_beyond_the_range_are_infinite(tmp_path):
    big = 1.7e308
    case = Case(tmp_path, [np.array([big, -big, 1e307])] * 3, reduction="sum")
    assert case.check().ok
    assert np.isinf(case.right[:2]).all()
    assert case.check().unbounded == 0
    for wrong in [[big, -math.inf, 3e307], [math.inf, math.nan, 3e307], [math.inf, -math.inf, math.inf]]:
        assert not case.check(np.array(wrong)).ok


def test_where_additions_may_overflow_an_infinity_proves_nothing_but_a_number_does(tmp_path):
    columns = np.array([[1.7e308, -1.7e308], [1.7e308, -1.7e308], [-1.7e308, 1.7e308], [-1.7e308, 1.7e308]])
    case = Case(tmp_path, list(columns))
    assert np.isinf(case.right[0])
    found = case.check()
    assert found.ok
    assert found.unbounded == 2
    assert case.check(np.zeros(2)).ok
    assert not case.check(np.array([1e307, 0.0])).ok


def test_rounding_to_a_shorter_float_may_overflow(tmp_path):
    case = Case(tmp_path, [np.array([1e39, 3.4e38, 70000.0])] * 2)
    with np.errstate(over="ignore"):
        assert case.check(case.right.astype("f4")).ok
        assert case.check(case.right.astype("f2")).ok
        assert not case.check(np.full(3, np.inf, "f4")).ok


def test_subnormal_numbers(tmp_path):
    case = Case(tmp_path, [np.array([5e-324, 1e-310, -5e-324])] * 3 + [np.array([0, 1e-310, 5e-324])])
    assert case.check().ok


# -------------------------------------------------------------------------------------------- planted errors are caught


def test_a_result_off_by_slightly_more_than_the_bound_at_one_index_is_caught(tmp_path):
    arrays = some("f8", 30, 200)
    arrays[29][123] = -math.fsum(array[123] for array in arrays[:29])  # so that the bound is many ulps of the result
    case = Case(tmp_path, arrays)
    depth, unit = Tree(30, 5, 1).depth, Fraction(1, 2**53)
    column = [Fraction(float(array[123])) for array in case.arrays]
    exact = sum(column) / 30
    gamma = depth * unit / (1 - depth * unit)
    size = sum(map(abs, column)) / 30
    bound = gamma * size + unit * (abs(exact) + gamma * size)
    for side in [1, -1]:
        result = case.right.copy()
        result[123] = float(exact + side * bound * Fraction(102, 100))
        found = case.check(result)
        assert not found.ok
        assert found.worst_index == 123
        assert 1 < found.largest_bound_ratio < 1.1
        result[123] = float(exact + side * bound * Fraction(98, 100))
        assert case.check(result).ok


def test_an_error_is_caught_exactly_where_it_is_sampled(case):
    result = case.right.copy()
    result[123] += 1
    outcomes = [case.check(result, sample=20, seed=seed) for seed in range(40)]
    assert {outcome.indices for outcome in outcomes} == {20}
    caught = [outcome for outcome in outcomes if not outcome.ok]
    assert all(outcome.worst_index == 123 for outcome in caught)
    assert 0 < len(caught) < 20
    assert not case.check(result, sample=200).ok


def test_a_sample_is_a_function_of_its_seed_and_has_no_index_twice(case):
    assert module._draw(10**12, 1000, 5) == module._draw(10**12, 1000, 5)
    assert module._draw(10**12, 1000, 5) != module._draw(10**12, 1000, 6)
    assert len(set(module._draw(1001, 1000, 5))) == 1000
    assert list(module._draw(1000, 1000, 5)) == list(range(1000))


def test_a_wrong_divisor_is_caught(case):
    assert not case.check(case.right * 30 / 29).ok


def test_a_missing_file_is_caught(case):
    assert not case.check(reference_reduce(case.arrays[:-1], 5, "mean")).ok
    assert not case.check(reference_reduce(case.arrays[:-1] + case.arrays[:1], 5, "mean")).ok


def test_swapped_indices_are_caught(case):
    result = case.right.copy()
    result[[10, 11]] = result[[11, 10]]
    found = case.check(result)
    assert not found.ok
    assert found.worst_index in {10, 11}


def test_a_result_added_in_float32_is_caught(case):
    assert not case.check(np.mean([array.astype("f4") for array in case.arrays], axis=0).astype("f8")).ok


def test_a_wrong_imaginary_part_is_caught(tmp_path):
    case = Case(tmp_path, some("c16", 9, 30))
    wrong = case.right.copy()
    wrong[4] += 1e-9j
    assert case.check(wrong).worst_index == 4
    real = Case(tmp_path, some("f8", 9, 30))
    assert real.check(real.right.astype(complex)).ok
    assert not real.check(real.right + 1e-300j).ok


@pytest.mark.parametrize("reduction", ["sum", "min", "max"])
@pytest.mark.parametrize("dtype", ["i8", "u8", "i4", "b1"])
def test_exact_reductions_may_not_be_off_by_one(tmp_path, dtype, reduction):
    case = Case(tmp_path, some(dtype, 9, 30), reduction=reduction)
    found = case.check()
    assert (found.ok, found.largest_ulp, found.largest_bound_ratio, found.bound) == (True, 0, 0, "equal")
    wrong = case.right.copy()
    wrong[7] += 1
    found = case.check(wrong)
    assert (found.ok, found.worst_index, found.largest_bound_ratio) == (False, 7, math.inf)
    assert found.found == str(int(wrong[7]))
    assert found.exact == str(int(case.right[7]))


def test_a_mean_of_large_integers_is_held_to_the_integers_themselves(tmp_path):
    # Rounding each of these to float64 loses all that they differ in.
    arrays = [np.array([2**62 + 1 + index]) for index in range(25)]
    case = Case(tmp_path, arrays)
    found = case.check()
    assert found.ok
    exact = Fraction(sum(int(array[0]) for array in arrays), 25)
    assert found.exact == repr(float(exact))
    assert "64-bit integers" in found.bound


def test_ulp_and_ratio_are_the_error_in_those_units(tmp_path):
    case = Case(tmp_path, [np.array([0.75]), np.array([1.75])])
    assert case.check(np.array([1.25])).largest_ulp == 0
    assert case.check(np.array([1.25 + 3 * 2.0**-52])).largest_ulp == 3
    assert case.check(np.array([1.25 + 2.0**-23], "f4")).largest_ulp == 1
    ratio = case.check(np.array([1.25 + 2.0**-20])).largest_bound_ratio
    assert ratio == pytest.approx(2.0**-20 / ((4 * 1.25 + 1.25) * 2.0**-53), rel=1e-9)


def test_the_bound_is_told_in_words(case, tmp_path):
    assert case.check().bound == "gamma(12) * sum|x|/n, and the rounding of the division"
    assert case.check(case.right.astype("f4")).bound.endswith("and to <f4")


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"reduction": "median"}, UsageError, "median"),
        ({"sample": 0}, UsageError, "--sample"),
        ({"fan_in": 1}, UsageError, "--fan-in"),
        ({"format": "raw"}, UsageError, "dtype"),
        ({"dtype": "<f8"}, UsageError, "dtype"),
    ],
)
def test_bad_values_are_refused(case, options, error, words):
    with pytest.raises(error, match=words):
        case.check(**options)


def test_a_larger_sample_than_fits_is_refused_unless_it_is_everything(case):
    with pytest.raises(UsageError, match="1000000"):
        module._draw(10**7, 10**6 + 1, 0)
    assert case.check(sample=10**9).indices == 200


def test_least_and_greatest_of_complex_numbers_are_refused(tmp_path):
    with pytest.raises(UsageError, match="order"):
        Case(tmp_path, some("c16", 3, 4)).check(reduction="min")


def test_a_result_of_another_shape_or_length_is_refused(case, tmp_path):
    with pytest.raises(VerificationError, match=r"199 numbers.*200"):
        case.check(case.right[:-1])
    with pytest.raises(VerificationError, match=r"shape \(20, 10\)"):
        case.check(case.right.reshape(20, 10))
    (tmp_path / "short.raw").write_bytes(bytes(80))
    with pytest.raises(VerificationError, match="10 numbers"):
        verify(os.fsencode(tmp_path / "short.raw"), case.paths)


def test_a_flat_result_of_shaped_inputs_is_compared_in_the_order_of_the_numbers(tmp_path):
    case = Case(tmp_path, [array.reshape(4, 5) for array in some("f8", 3, 20)])
    (tmp_path / "flat.raw").write_bytes(case.right.tobytes())
    assert verify(os.fsencode(tmp_path / "flat.raw"), case.paths).ok


def test_a_damaged_result_is_a_bad_input_that_is_named(case, tmp_path):
    (tmp_path / "result.npy").write_bytes(b"\x93NUMPY\x01\x00 nonsense")
    with pytest.raises(BadInputError, match=r"result\.npy"):
        verify(os.fsencode(tmp_path / "result.npy"), case.paths)


def test_missing_files_are_named(case, tmp_path):
    with pytest.raises(InputListError, match=r"gone\.npy"):
        verify(os.fsencode(tmp_path / "gone.npy"), case.paths)
    case.paths[5] = os.fsencode(tmp_path / "gone.npy")
    with pytest.raises(InputListError, match=r"gone\.npy"):
        case.check(skip_bad=True)
    with pytest.raises(InputListError, match="no inputs"):
        verify(os.fsencode(tmp_path / "result.npy"), [])


def test_a_pipe_or_a_folder_is_no_input_and_nothing_waits_for_it(case, tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    case.paths[5] = os.fsencode(tmp_path / "pipe.npy")
    with pytest.raises(InputListError, match=r"pipe\.npy is not a regular file"):
        case.check()
    case.paths[5] = os.fsencode(tmp_path)
    with pytest.raises(InputListError, match="not a regular file"):
        case.check()


def test_a_result_or_first_input_of_an_unknown_suffix_is_refused(case, tmp_path):
    (tmp_path / "result.what").touch()
    with pytest.raises(UsageError, match=r"result\.what"):
        verify(os.fsencode(tmp_path / "result.what"), case.paths)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(case):
    os.chmod(case.paths[5], 0)
    with pytest.raises(StorageError, match="0005"):
        case.check()


# ----------------------------------------------------------------------------------------------------------- bad inputs


DAMAGE = {
    "truncated": lambda path: os.truncate(path, os.path.getsize(path) - 3),
    "not npy": lambda path: Path(os.fsdecode(path)).write_bytes(b"x" * 1728),
    "too short": lambda path: np.save(os.fsdecode(path), np.zeros(199)),
    "other shape": lambda path: np.save(os.fsdecode(path), np.zeros((200, 1))),
    "other dtype": lambda path: np.save(os.fsdecode(path), np.zeros(200, complex)),
    "empty": lambda path: os.truncate(path, 0),
}


UNLIKE = {"too short", "other shape", "other dtype"}
"""What is only bad beside other inputs: the first one is the measure of the rest."""


@pytest.mark.parametrize(
    ("damage", "position"),
    [(damage, position) for damage in DAMAGE for position in (0, 1, 29) if position or damage not in UNLIKE],
)
def test_a_bad_input_is_named_or_left_out_of_sum_and_divisor(case, damage, position):
    DAMAGE[damage](case.paths[position])
    with pytest.raises(BadInputError, match=f"{position:04}"):
        case.check()
    rest = [array for index, array in enumerate(case.arrays) if index != position]
    found = case.check(reference_reduce(rest, 5, "mean"), skip_bad=True)
    assert found.ok
    assert found.files == 29
    assert [each.uri for each in found.skipped] == [os.fsdecode(case.paths[position])]
    assert not case.check(reference_reduce(rest, 5, "sum") / 30, skip_bad=True).ok


def test_a_bad_text_input_is_left_out(tmp_path):
    case = Case(tmp_path, some("f8", 6, 50), suffix=".txt")
    with open(case.paths[2], "a") as file:
        file.write("word\n")
    with open(case.paths[4], "a") as file:
        file.write("1.5\n")
    with pytest.raises(BadInputError, match=r"line 51.*word"):
        case.check()
    rest = [case.arrays[index] for index in (0, 1, 3, 5)]
    found = case.check(reference_reduce(rest, 5, "mean"), skip_bad=True)
    assert found.ok
    assert len(found.skipped) == 2


def test_if_all_inputs_are_bad_the_first_is_named(case):
    for path in case.paths:
        os.truncate(path, 5)
    with pytest.raises(BadInputError, match=r"0000.*no other input"):
        case.check(skip_bad=True)


def test_a_bad_input_that_is_listed_twice_is_left_out_twice(case):
    os.truncate(case.paths[3], 5)
    case.paths.append(case.paths[3])
    rest = case.arrays[:3] + case.arrays[4:]
    found = case.check(reference_reduce(rest, 5, "mean"), skip_bad=True)
    assert (found.ok, found.files, len(found.skipped)) == (True, 29, 2)


# --------------------------------------------------------------------------------------------------- groups and memory


@pytest.mark.parametrize("suffix", [".npy", ".txt"])
def test_indices_are_worked_through_in_groups_where_not_all_fit(tmp_path, monkeypatch, suffix):
    case = Case(tmp_path, some("f8", 30, 200), suffix=suffix)
    os.truncate(case.paths[4], 5)
    rest = reference_reduce(case.arrays[:4] + case.arrays[5:], 5, "mean")
    whole = case.check(rest, skip_bad=True)
    told = []
    monkeypatch.setattr(module, "_MATRIX_BYTES", 30 * 8 * 7)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 7 * 8 * 4)
    assert case.check(rest, skip_bad=True, progress=lambda *done: told.append(done)) == whole
    assert whole.ok
    assert told[-1] == (29 * 30, 29 * 30)
    assert told == sorted(told)
    rest[199] += 1
    assert case.check(rest, skip_bad=True).worst_index == 199


def test_far_and_near_indices_are_read_alike(tmp_path, monkeypatch):
    case = Case(tmp_path, some("f4", 5, 30_000))
    whole = case.check(sample=500)
    for gap, buffer in [(0, 1 << 20), (64, 1 << 20), (1 << 20, 4096), (1 << 20, 4)]:
        monkeypatch.setattr(module, "_GAP_BYTES", gap)
        monkeypatch.setattr(module, "_BUFFER_BYTES", buffer)
        assert case.check(sample=500) == whole


def test_of_a_large_file_only_what_is_sampled_is_read(tmp_path, monkeypatch):
    case = Case(tmp_path, [np.arange(1e6)] * 2)
    read = []
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *asked: read.append(preadv(*asked)) or read[-1])
    assert case.check(sample=10).ok
    assert sum(read) < 100_000


def test_long_rows_are_not_made_into_objects_at_once(case, monkeypatch):
    from distsum import bound

    whole = case.check()
    monkeypatch.setattr(bound, "_CHUNK", 4)
    assert case.check() == whole


def test_memory_does_not_grow_with_files_times_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MATRIX_BYTES", 1 << 20)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 1 << 18)
    case = Case(tmp_path, some("f8", 2, 20_000))
    case.paths = case.paths * 200
    case.check(np.mean(case.arrays, axis=0), sample=100)
    tracemalloc.start()
    try:
        assert case.check(np.mean(case.arrays, axis=0), sample=2000).ok
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 << 20 < 400 * 2000 * 8 / 2


def test_inputs_without_numbers_are_right(tmp_path):
    found = Case(tmp_path, [np.zeros(0)] * 3).check()
    assert (found.ok, found.indices, found.worst_index, found.files) == (True, 0, None, 3)


def test_a_single_number_without_dimensions(tmp_path):
    assert Case(tmp_path, [np.array(1.5), np.array(2.5)]).check(np.array(2.0)).ok
