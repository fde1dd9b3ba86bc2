"""When sums inside a task are stored, on a clock that the test moves."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsum.tree import carries
from distsum.worker.checkpoints import WORK_FOR_STORING, Checkpoints, StoringTimes, highest, sums, under_way


class Clocked:
    """A task whose children take the seconds given."""

    def __init__(self, storing_seconds: float = 0.0, *, fan_in: int = 2, levels: int = 3) -> None:
        self.now = 100.0
        self.stored: list[tuple[int, int]] = []
        self.checkpoints = Checkpoints(levels, self.now)
        self.children: list[float] = []
        self._storing = storing_seconds
        self._fan_in = fan_in
        self._levels = levels

    def fold(self, seconds: float) -> None:
        self.now += seconds
        self.children.append(seconds)
        position = len(self.children)
        self.checkpoints.close(1 + min(self._levels - 1, carries(position - 1, self._fan_in)), self.now)
        while (level := self.checkpoints.due(3.0, lambda: self._storing)) is not None:
            self.stored.append(under_way(position, level, self._fan_in))
            self.now += self._storing
            self.checkpoints.store(level, self.now)

    def not_stored_seconds(self) -> float:
        """Return what the children took that are in no stored sum."""
        covered = {child for low, high in self.stored for child in range(low, high)}
        return sum(seconds for child, seconds in enumerate(self.children) if child not in covered)


def test_short_work_is_never_stored_and_of_long_work_each_sum() -> None:
    short, long = Clocked(), Clocked()
    for _ in range(7):
        short.fold(0.1)
        long.fold(3.0)
    assert short.stored == []
    assert long.stored == [(0, 1), (0, 2), (2, 3), (0, 4), (4, 5), (4, 6), (6, 7)]


def test_many_short_children_are_stored_together() -> None:
    # However short each is: nodes of 25 children take 2.5 s here, which alone would not be worth it.
    clocked = Clocked(0.01, fan_in=5)
    for _ in range(124):
        clocked.fold(0.1)
    assert clocked.not_stored_seconds() < 3.0
    assert clocked.stored == [(0, 25), (0, 50), (0, 75), (0, 100)]


def test_a_sum_of_few_children_is_stored_where_the_tree_has_no_node_below() -> None:
    clocked = Clocked(1 / 128, fan_in=125, levels=1)
    for _ in range(124):
        clocked.fold(1.5)
    assert clocked.stored == [(0, stop) for stop in range(2, 125, 2)]


def test_the_sum_with_the_most_work_goes_first() -> None:
    clocked = Clocked()
    for seconds in (0.5, 2.0, 0.6, 0.1, 2.0, 2.0, 0.5):
        clocked.fold(seconds)
    # With the third child it is the two before it, of which 2.5 s would be lost; then what came after.
    assert clocked.stored == [(0, 2), (4, 6)]
    assert clocked.checkpoints.lost_seconds == pytest.approx(0.6 + 0.1 + 0.5)


def test_a_stored_node_that_was_read_is_no_work_that_could_be_lost() -> None:
    checkpoints = Checkpoints(3, 0.0)
    checkpoints.cover(1, 50.0)
    checkpoints.close(2, 51.0)
    assert checkpoints.lost_seconds == 1.0


def test_a_node_that_is_stored_for_others_covers_what_it_was_made_of() -> None:
    checkpoints = Checkpoints(3, 0.0)
    checkpoints.close(2, 2.0)
    checkpoints.close(1, 3.0)
    checkpoints.cover(2, 4.0)
    checkpoints.close(2, 4.0)
    assert checkpoints.lost_seconds == 2.0


@given(
    seconds=st.one_of(
        st.lists(st.floats(0.001, 5.0), min_size=8, max_size=200),
        st.builds(lambda each, count: [each] * count, st.sampled_from([0.001, 0.02, 0.1, 0.5, 1.0, 2.9]), st.just(600)),
    ),
    storing=st.floats(0.001, 3.0),
    fan_in=st.sampled_from([2, 3, 5, 625]),
)
def test_little_is_lost_at_any_moment_at_less_than_a_twentieth_of_the_work(
    seconds: list[float], storing: float, fan_in: int
) -> None:
    levels = 1
    while fan_in**levels <= len(seconds):
        levels += 1
    clocked = Clocked(storing, fan_in=fan_in, levels=levels)
    for each in seconds:
        clocked.fold(each)
        lost = clocked.not_stored_seconds()
        assert lost == pytest.approx(clocked.checkpoints.lost_seconds)
        assert lost < max(3.0, levels * WORK_FOR_STORING * storing) + 1e-9
    assert len(clocked.stored) * storing <= sum(seconds) / 20


def test_what_storing_takes_is_what_it_took_and_a_guess_before_that() -> None:
    times = StoringTimes()
    # Nothing is known: as much as makes the first one wait for 5 s, or as long as reading as many bytes.
    assert times.expected(1000, 3.0, 0.0) * WORK_FOR_STORING == pytest.approx(5.0)
    assert times.expected(1000, 3.0, 0.01) == pytest.approx(10.0)
    times.note(1000, 0.9)
    assert times.expected(1000, 3.0, 0.01) == 0.9
    # Of a larger one the rest is not known; a smaller one is quicker by its bytes, but not at will.
    assert times.expected(1100, 3.0, 0.01) == pytest.approx(0.9 + 1.0)
    assert times.expected(10, 3.0, 0.01) == pytest.approx(0.2)
    times.note(1000, 10.0)
    assert times.expected(500, 3.0, 0.01) == pytest.approx(5.0)
    assert times.expected(1, 3.0, 0.01) == pytest.approx(0.2)


class Collected:
    """A key that says what went into it, and counts how often something did."""

    added = 0

    def __init__(self, content: bytes = b"") -> None:
        self._content = content

    def add(self, piece: bytes) -> None:
        type(self).added += 1
        self._content += piece

    def copy(self) -> Collected:
        return Collected(self._content)

    def key(self) -> bytes:
        return self._content


def all_sums(children: int, fan_in: int, piece_bytes: int = 4) -> list[tuple[int, int, bytes]]:
    pieces = [child.to_bytes(4, "little") * (piece_bytes // 4) for child in range(children)]
    begin: Any = Collected
    found: list[Any] = list(sums(([piece] for piece in pieces), children, fan_in, begin))
    assert all(key == b"".join(pieces[start:stop]) for start, stop, key in found)
    return found


@given(children=st.integers(1, 150), fan_in=st.sampled_from([2, 3, 5, 200]), piece_bytes=st.sampled_from([4, 20_000]))
def test_the_key_of_each_sum_is_that_of_its_inputs_and_none_comes_twice(
    children: int, fan_in: int, piece_bytes: int
) -> None:
    ranges = [(start, stop) for start, stop, _ in all_sums(children, fan_in, piece_bytes)]
    assert len(ranges) == len(set(ranges))
    assert (0, children) not in ranges, "which is the node itself"


def test_to_find_sums_among_many_inputs_each_is_hashed_about_once() -> None:
    Collected.added = 0
    all_sums(5**5, 5)
    # Once with the lowest sum, and then five at a time with each level above.
    assert Collected.added < 5**5 * (1 + 4 / 5)


class Stack:
    """The sums under way as lists of the children in them, carried as an odometer does."""

    def __init__(self, fan_in: int, levels: int) -> None:
        self.sums: list[list[int]] = [[] for _ in range(levels)]
        self._parts = [0] * levels
        self._fan_in = fan_in

    def add(self, child: int) -> int:
        """Add a child, and return the level (from 1) where it lies then."""
        self.sums[0].append(child)
        self._parts[0] += 1
        level = 0
        while self._parts[level] == self._fan_in and level + 1 < len(self.sums):
            self.sums[level + 1] += self.sums[level]
            self._parts[level + 1] += 1
            self.sums[level], self._parts[level] = [], 0
            level += 1
        return level + 1


@given(children=st.integers(1, 150), fan_in=st.sampled_from([2, 3, 5, 200]))
def test_ranges_are_those_of_the_sums(children: int, fan_in: int) -> None:
    levels = 1
    while fan_in**levels < children:
        levels += 1
    stack = Stack(fan_in, levels)
    ends_at: dict[int, set[int]] = {position: set() for position in range(1, children + 1)}
    for start, stop, _ in all_sums(children, fan_in):
        ends_at[stop].add(start)
    for child in range(children - 1):
        level = stack.add(child)
        position = child + 1
        for each in range(1, levels + 1):
            low, high = under_way(position, each, fan_in)
            assert stack.sums[each - 1] == list(range(low, high))
        # What has just changed ends here; where it was one node alone it may also be that of the level below.
        begins = ends_at[position]
        assert stack.sums[level - 1][0] in begins
        for start in begins:
            assert any(span >= position - start for span in (fan_in**each for each in range(levels + 1)))
    # With the last child each node that it ends is whole, however few children it has.
    ends = {(children - 1) // fan_in**level * fan_in**level for level in range(1, levels + 1)}
    assert ends_at[children] == (ends - {0} if children > 1 else set())


@given(files=st.integers(2, 60), fan_in=st.integers(2, 5), draw=st.data())
def test_stored_sums_are_found_once_in_order_and_only_the_highest(files: int, fan_in: int, draw: st.DataObject) -> None:
    ranges = [(start, stop) for start, stop, _ in all_sums(files, fan_in)]
    stored = set(draw.draw(st.lists(st.sampled_from(ranges))))
    found = list(highest(stored))
    assert found == sorted(found)
    assert all(high <= low for (_, high), (low, _) in itertools.pairwise(found))
    assert all(any(f[0] <= node[0] and node[1] <= f[1] for f in found) for node in stored)
    assert set(found) <= stored
