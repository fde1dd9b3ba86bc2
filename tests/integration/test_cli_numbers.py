"""What the installed command computes, for every kind of number, against the canonical tree written down plainly."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from tests.command import distsum, summary, together, under_way
from tests.reference import reference_reduce

DTYPES = ["b1", "i1", ">i2", "i4", ">i8", "u1", "u2", ">u4", "u8", ">f2", "f4", ">f8", "c8", ">c16"]
JOBS = [
    *(("mean", dtype) for dtype in DTYPES),
    *(("sum", dtype) for dtype in ("b1", ">i8", "u8", "c8")),
    *(("min", dtype) for dtype in (">i8", "f4")),
    *(("max", dtype) for dtype in ("b1", "u8")),
]


def drawn(dtype, index, shape=(3, 5)):
    """Return random numbers of a dtype: all of its bytes for integers, special floats among the others."""
    rng = np.random.default_rng([index, len(dtype)])
    kind = np.dtype(dtype).kind
    if kind == "b":
        return rng.random(shape) < 0.5
    if kind in "iu":
        numbers = np.frombuffer(rng.bytes(15 * np.dtype(dtype).itemsize), dtype).reshape(shape)
        return numbers >> 4 if np.dtype(dtype).itemsize == 8 else numbers  # so that sums fit
    numbers = rng.standard_normal(shape) * 1000
    numbers.ravel()[index % 15] = [np.nan, np.inf, -np.inf, -0.0, 0.0][index % 5]
    if kind == "c":
        numbers = numbers + 1j * rng.standard_normal(shape)
    return numbers.astype(dtype)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """For every job over seven files, the future of its summary, and what its result should be."""
    folder = tmp_path_factory.mktemp("numbers")
    arrays = {dtype: [drawn(dtype, index) for index in range(7)] for dtype in DTYPES}
    for dtype, each in arrays.items():
        inputs = folder / dtype.replace(">", "big-")
        inputs.mkdir()
        for index, array in enumerate(each):
            np.save(inputs / f"{index}.npy", array)
    calls = {}
    for reduction, dtype in JOBS:
        inputs = folder / dtype.replace(">", "big-")
        out = folder / f"{reduction}-{inputs.name}.npy"
        calls[reduction, dtype] = partial(summary, reduction, str(inputs), "-o", str(out), "-w", "1")
    with under_way(calls) as futures:
        yield {job: (future, reference_reduce(arrays[job[1]], 5, job[0])) for job, future in futures.items()}


@pytest.mark.parametrize("job", JOBS, ids="-".join)
def test_every_dtype_is_reduced_as_the_canonical_tree_says(results, job):
    future, expected = results[job]
    found = np.load(future.result()["output"])
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if expected.dtype.kind in "fc":
        # Every NaN of a result has the same bits, and a least or greatest zero has no sign.
        parts = expected.view("f8")
        parts[np.isnan(parts)] = np.nan
        expected = expected + 0.0 if job[0] in {"min", "max"} else expected
    assert found.tobytes() == expected.tobytes()


def test_byte_orders_and_sizes_of_one_kind_may_be_mixed(tmp_path):
    arrays = [drawn(dtype, index) for index, dtype in enumerate(["f4", ">f8", "f2", "f8", ">f4", "f8"])]
    for index, array in enumerate(arrays):
        np.save(tmp_path / f"{index}.npy", array)
    summary("mean", str(tmp_path), "-o", str(tmp_path / "o.npy"))
    expected = reference_reduce([array.astype("f8") for array in arrays], 5, "mean")
    np.testing.assert_array_equal(np.load(tmp_path / "o.npy"), expected)


@pytest.mark.parametrize(
    ("shape", "fortran"),
    [((), False), ((2, 3, 4, 5), False), ((4, 6), True), ((0,), False)],
)
def test_the_shape_and_memory_order_of_the_inputs_are_kept(tmp_path, shape, fortran):
    arrays = [np.random.default_rng(index).standard_normal(shape) for index in range(6)]
    for index, array in enumerate(arrays):
        np.save(tmp_path / f"{index}.npy", np.asfortranarray(array) if fortran else array)
    told = summary("mean", str(tmp_path), "-o", str(tmp_path / "o.npy"))
    found = np.load(tmp_path / "o.npy")
    assert told["count"] == found.size
    assert found.shape == shape
    assert np.isfortran(found) == fortran
    assert found.tobytes() == reference_reduce(arrays, 5, "mean").tobytes()


def test_of_one_file_the_result_is_that_file(tmp_path):
    array = np.array([[1.5, -2.0, np.inf], [np.nan, 0.1, 1e300]], "f8")
    np.save(tmp_path / "a.npy", array)
    calls = {name: partial(summary, name, "a.npy", "-o", f"{name}.npy", cwd=tmp_path) for name in ("mean", "max")}
    for name, told in together(calls).items():
        assert (told["files"], told["tasks"]) == (1, 1)
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), array)


def test_an_integer_sum_that_does_not_fit_is_refused_by_its_index_and_the_mean_is_not(tmp_path):
    for index in range(3):
        np.save(tmp_path / f"{index}.npy", np.array([1, 2, 1 << 62, 3], "i8"))
    done = distsum("sum", str(tmp_path), "-o", str(tmp_path / "sum.npy"))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"index 2: the sum {3 << 62} does not fit int64" in done.stderr
    assert "take the mean" in done.stderr
    assert not (tmp_path / "sum.npy").exists()
    summary("mean", *(str(tmp_path / f"{index}.npy") for index in range(3)), "-o", str(tmp_path / "mean.npy"))
    assert np.load(tmp_path / "mean.npy").tolist() == [1.0, 2.0, float(1 << 62), 3.0]


def test_text_and_raw_files_are_read_as_they_are_documented(tmp_path):
    texts = ["1 2.5e0\t-3\n", "\ufeff1,2,3,\r\n", "# a comment\n+1. .5 # and another\ninf\n", "nan\n2\n1e-400\n"]
    arrays = [[1, 2.5, -3], [1, 2, 3], [1, 0.5, np.inf], [np.nan, 2, 0]]
    for index, text in enumerate(texts):
        (tmp_path / f"{index}.txt").write_text(text, newline="")
    for index, array in enumerate(arrays):
        np.array(array, ">f4").tofile(tmp_path / f"{index}.bin")
    expected = reference_reduce([np.array(array, "f8") for array in arrays], 5, "sum")
    calls = {
        "text": partial(summary, "sum", "*.txt", "-o", "text.npy", cwd=tmp_path),
        "raw": partial(summary, "sum", "*.bin", "-o", "raw.npy", "--dtype", ">f4", cwd=tmp_path),
    }
    for name in together(calls):
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), expected)
