"""The laws of the engine: what the bits depend on, and what they never depend on."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distsum.request import Options
from tests.inprocess import InProcessRun
from tests.reference import reference_reduce

DTYPES = ["<f8", ">f8", "<f4", "<f2", "|b1", "|i1", "|u1", ">i2", "<u4", "<i8", ">u8", "<c8", ">c16"]
MOST_FILES = 80


def numbers(draw: np.random.Generator, dtype: str, count: int) -> Any:
    """Return numbers that make rounding visible: magnitudes far apart, cancellation, NaN, infinities, both zeros."""
    kind = np.dtype(dtype).kind
    if kind == "b":
        return draw.integers(0, 2, count).astype(dtype)
    if kind in "iu":
        limits = np.iinfo(dtype)
        # Of 64-bit numbers only a part of the range, so that sums of as many inputs as are drawn here fit.
        share = MOST_FILES if limits.bits == 64 else 1
        low, high = limits.min // share, limits.max // share
        return draw.integers(low, high, count, dtype=np.dtype(dtype).newbyteorder("=")).astype(dtype)
    values = draw.standard_normal(count) * 10.0 ** draw.integers(-4, 4, count)
    special = draw.random(count)
    values[special < 0.03] = np.nan
    values[(special >= 0.03) & (special < 0.05)] = np.inf
    values[(special >= 0.05) & (special < 0.07)] = -np.inf
    values[(special >= 0.07) & (special < 0.2)] = -0.0
    values[(special >= 0.2) & (special < 0.3)] = 0.0
    if kind == "c":
        with np.errstate(invalid="ignore"):
            return (values + 1j * draw.permutation(values)).astype(dtype)
    return values.astype(dtype)


def canonical(result: Any, reduction: str) -> Any:
    """Give NaNs one bit pattern, and the zeros of min and max one sign, as documented."""
    if result.dtype.kind in "fc":
        parts = result.view(result.real.dtype)
        parts[np.isnan(parts)] = np.nan
        if reduction in {"min", "max"}:
            parts += 0.0
    return result


@st.composite
def jobs(draw: st.DrawFn) -> dict[str, Any]:
    fan_in = draw(st.sampled_from([2, 3, 5]))
    return {
        "files": draw(st.integers(1, 70)),
        "count": draw(st.integers(0, 40)),
        "dtype": draw(st.sampled_from(DTYPES)),
        "reduction": draw(st.sampled_from(["mean", "sum", "min", "max"])),
        "fan_in": fan_in,
        "exponent": draw(st.integers(1, 4)),
        "tiles": draw(st.integers(1, 7)),
        "max_open_files": draw(st.integers(1, 5)),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "workers": draw(st.integers(1, 9)),
        "suffix": draw(st.sampled_from([".npy", ".raw"])),
    }


@given(job=jobs())
def test_the_result_is_the_canonical_trees_whatever_cuts_it_and_in_whatever_order(job: dict[str, Any]) -> None:
    reduction = job["reduction"]
    if reduction in {"min", "max"} and job["dtype"][1] == "c":
        reduction = "sum"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw = np.random.default_rng(job["seed"])
        arrays = [numbers(draw, job["dtype"], job["count"]) for _ in range(job["files"])]
        paths = [folder / f"{index:03}{job['suffix']}" for index in range(job["files"])]
        for path, array in zip(paths, arrays, strict=True):
            path.write_bytes(array.tobytes()) if path.suffix == ".raw" else np.save(path, array)
        options = Options(
            workers=job["workers"],
            partition=job["fan_in"] ** job["exponent"],
            fan_in=job["fan_in"],
            tiles=job["tiles"],
            max_open_files=job["max_open_files"],
            dtype=job["dtype"] if job["suffix"] == ".raw" else None,
        )
        run = InProcessRun(paths, folder / "out.npy", options, reduction)
        result = run.run(job["seed"], workers=job["workers"])
        assert isinstance(result, bytes), result
        expected = folder / "expected.npy"
        np.save(expected, canonical(reference_reduce(arrays, job["fan_in"], reduction), reduction))
        assert result == expected.read_bytes()
        assert not [task for task, reused in run.folded if reused and run.folded.count((task, False)) != 1]


@given(
    files=st.integers(1, 60),
    exponent=st.integers(1, 3),
    tiles=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
    stops=st.lists(st.integers(0, 12), max_size=4),
)
def test_a_run_that_dies_at_any_moment_goes_on_with_what_is_stored(
    files: int, exponent: int, tiles: int, seed: int, stops: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw = np.random.default_rng(seed)
        arrays = [draw.standard_normal(11) for _ in range(files)]
        paths = [folder / f"{index:03}.npy" for index in range(files)]
        for path, array in zip(paths, arrays, strict=True):
            np.save(path, array)
        options = Options(partition=5**exponent, tiles=tiles)
        made: set[Any] = set()
        for number, stop in enumerate([*stops, None]):
            run = InProcessRun(paths, folder / "out.npy", options)
            result = run.run(seed + number, stop_after=stop)
            for task, reused in run.folded:
                key = (task.phase, task.tile, task.index)
                assert reused == (key in made), "a stored node was made again, or one that was not stored was reused"
                made.add(key)
        assert isinstance(result, bytes)
        np.save(folder / "expected.npy", reference_reduce(arrays, 5, "mean"))
        assert result == (folder / "expected.npy").read_bytes()


@given(
    files=st.integers(1, MOST_FILES),
    count=st.integers(0, 30),
    exponent=st.integers(1, 3),
    tiles=st.integers(1, 5),
    reduction=st.sampled_from(["mean", "sum", "max"]),
    dtype=st.sampled_from(["<f8", "<i8", "<f4"]),
)
def test_the_plans_counts_are_what_ran(
    files: int, count: int, exponent: int, tiles: int, reduction: Any, dtype: str
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / f"{index:03}.npy" for index in range(files)]
        for index, path in enumerate(paths):
            np.save(path, np.full(count, index, dtype))
        run = InProcessRun(paths, folder / "out.npy", Options(partition=5**exponent, tiles=tiles), reduction)
        while run.run(workers=1) is None:
            pass
        plan = run.prepared.report.candidates[run.prepared.report.chosen]
        assert len({task for task, _ in run.folded}) == plan.tasks
        if len(run.folded) == plan.tasks:
            assert run.bytes_read == plan.bytes_read
            assert run.bytes_written == plan.bytes_written
            assert run.objects_read + run.objects_written == plan.requests


@given(
    files=st.integers(1, 60),
    exponent=st.integers(1, 2),
    tiles=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
    stop=st.integers(0, 30) | st.none(),
    damage=st.integers(1, 100),
)
def test_partials_that_are_damaged_or_gone_are_made_again(
    files: int, exponent: int, tiles: int, seed: int, stop: int | None, damage: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw = np.random.default_rng(seed)
        arrays = [draw.standard_normal(9) for _ in range(files)]
        paths = [folder / f"{index:03}.npy" for index in range(files)]
        for path, array in zip(paths, arrays, strict=True):
            np.save(path, array)
        options = Options(partition=5**exponent, tiles=tiles)
        first = InProcessRun(paths, folder / "out.npy", options)
        first.run(seed, stop_after=stop)
        for path in sorted((folder / "out.npy.distsum" / "partials").rglob("*")):
            if path.is_file() and draw.integers(100) < damage:
                content = bytearray(path.read_bytes())
                content[draw.integers(len(content))] ^= 1 << draw.integers(8)
                path.write_bytes(content) if draw.integers(2) else path.unlink()
        result = InProcessRun(paths, folder / "out.npy", options).run(seed)
        assert isinstance(result, bytes)
        np.save(folder / "expected.npy", reference_reduce(arrays, 5, "mean"))
        assert result == (folder / "expected.npy").read_bytes()


def test_a_longer_list_makes_only_the_right_edge_again(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index:03}.npy" for index in range(60)]
    arrays = [np.random.default_rng(index).standard_normal(7) for index in range(60)]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    options = Options(partition=5, tiles=1, work_dir=os.fspath(tmp_path / "work"))
    first = InProcessRun(paths[:52], tmp_path / "a.npy", options)
    assert isinstance(first.run(), bytes)
    second = InProcessRun(paths, tmp_path / "b.npy", options)
    result = second.run()
    fresh = {(task.phase, task.index) for task, reused in second.folded if not reused}
    assert fresh == {(1, 10), (1, 11), (2, 2), (3, 0)}
    np.save(tmp_path / "expected.npy", reference_reduce(arrays, 5, "mean"))
    assert result == (tmp_path / "expected.npy").read_bytes()
