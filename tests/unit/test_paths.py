"""Many paths in little memory: they come back as they went in, or sorted."""

from __future__ import annotations

import os
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsum import paths as module
from distsum.errors import InputListError
from distsum.inputs import expand
from distsum.paths import PackedPaths, collected, collected_sorted

SIZES = (module._BLOCK, module.MOST_LISTED)
some = st.lists(st.binary(min_size=1, max_size=12).map(lambda path: path.replace(b"\0", b"/")), max_size=60)


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    """Blocks and runs of a few paths, so that a few paths are many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", 4)
        patch.setattr(module, "MOST_LISTED", 10)
        yield


@given(some, st.integers(-70, 70), st.integers(-70, 70))
def test_what_is_packed_is_a_sequence_like_any_other(paths, one, other):
    packed = PackedPaths(iter(paths))
    assert len(packed) == len(paths)
    assert list(packed) == list(packed) == paths
    assert [packed[place] for place in range(-len(paths), len(paths))] == paths + paths
    assert packed[one:other] == paths[one:other]
    assert list(reversed(packed)) == paths[::-1]
    with pytest.raises(IndexError):
        packed[len(paths)]
    if paths:
        assert paths[-1] in packed


@given(some)
def test_paths_are_collected_in_the_order_given_or_sorted(paths):
    assert list(collected(iter(paths))) == paths
    assert list(collected_sorted(iter(paths))) == sorted(paths)
    assert isinstance(collected(paths), list) == (len(paths) <= 10)


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 20, 21])
def test_runs_that_follow_each_other_are_not_merged(monkeypatch, count):
    monkeypatch.setattr(module.heapq, "merge", None)
    paths = [b"%04d" % number for number in range(count)]
    assert list(collected_sorted(paths)) == paths
    # Nor do they have to come in order, as long as each lies on one side of the others.
    backwards = [path for start in range((count - 1) // 10 * 10, -1, -10) for path in paths[start : start + 10]]
    if count % 10 == 0:
        assert list(collected_sorted(backwards)) == paths


def test_many_inputs_are_found_in_order_whatever_order_the_folder_lists_them_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [f"{number:03}.npy" for number in range(95)]
    for name in random.Random(1).sample(names, len(names)):
        (tmp_path / name).touch()
    expected = [os.fsencode(name) for name in names]
    assert list(expand("*.npy")) == expected
    assert list(expand(".")) == [b"./" + name for name in expected]
    assert list(expand(names[::-1])) == expected
    (tmp_path / "list").write_text("\n".join(reversed(names)))
    assert list(expand("@list")) == expected[::-1]
    assert list(expand(["00*.npy", "@list"])) == expected[:10] + expected[::-1]
    assert list(expand(["**/*.npy"])) == expected


def test_a_file_named_twice_among_many_is_found_with_those_that_name_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(95):
        (tmp_path / f"{number:03}.npy").touch()
    words = r"077\.npy is named twice, by '\*\.npy' and '\./077\.npy'"
    with pytest.raises(InputListError, match=words):
        expand(["*.npy", "./077.npy"])
    with pytest.raises(InputListError, match=r"077\.npy is named twice, by '\*\.npy' and '077\.npy'"):
        expand(["*.npy", "077.npy"])


def test_a_packed_path_takes_a_few_bytes(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", SIZES[0])
    monkeypatch.setattr(module, "MOST_LISTED", SIZES[1])
    tracemalloc.start()
    found = collected_sorted(b"/data/run42/member-%09d.npy" % (number * 7919 % 300_000) for number in range(300_000))
    used, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(found), found[77]) == (300_000, b"/data/run42/member-000000077.npy")
    assert used / len(found) < 8
    assert peak < 20e6, "a list of all would take more"
