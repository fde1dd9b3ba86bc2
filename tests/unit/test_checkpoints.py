"""When nodes inside a task are stored, on a clock that the test moves."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsum.tree import carries, split
from distsum.worker.checkpoints import Checkpoints, is_due, stored_within


class Clocked:
    """A task of fan-in 2 and three levels, whose children take the seconds given."""

    def __init__(self, storing_seconds: float = 0.0) -> None:
        self.now = 100.0
        self.stored: list[tuple[int, int]] = []
        self._checkpoints = Checkpoints(3, self.now)
        self._storing = storing_seconds
        self._children = 0

    def fold(self, seconds: float) -> None:
        self.now += seconds
        self._children += 1
        if level := min(2, carries(self._children - 1, 2)):
            lost = self._checkpoints.finish(level, self.now)
            if is_due(lost, 3.0, self._storing):
                self.stored.append((self._children - 2**level, self._children))
                self.now += self._storing
                self._checkpoints.cover(self.now)
            else:
                self._checkpoints.leave(level, lost)


def test_short_work_is_never_stored_and_long_work_at_each_node() -> None:
    short, long = Clocked(), Clocked()
    for _ in range(8):
        short.fold(0.1)
        long.fold(2.0)
    assert short.stored == []
    assert long.stored == [(0, 2), (0, 4), (4, 6), (4, 8)]


def test_work_on_nodes_that_are_not_stored_adds_up_in_the_one_above() -> None:
    clocked = Clocked()
    for seconds in (1.0, 0.5, 1.0, 0.5, 2.0, 2.0, 0.5, 0.5):
        clocked.fold(seconds)
    # The first two pairs take 1.5 s each, and 3 s together; of the last four children the first two are safe.
    assert clocked.stored == [(0, 4), (4, 6)]


def test_a_stored_node_that_was_read_is_no_work_that_could_be_lost() -> None:
    checkpoints = Checkpoints(3, 0.0)
    checkpoints.cover(50.0)
    assert checkpoints.finish(1, 51.0) == 1.0


@given(seconds=st.lists(st.floats(0.01, 5.0), min_size=8, max_size=200), storing=st.floats(0.001, 3.0))
def test_storing_costs_less_than_a_twentieth_of_the_work(seconds: list[float], storing: float) -> None:
    clocked = Clocked(storing)
    for each in seconds:
        clocked.fold(each)
    assert len(clocked.stored) * storing <= sum(seconds) / 20


@given(files=st.integers(2, 200), fan_in=st.integers(2, 5), draw=st.data())
def test_stored_nodes_are_found_once_in_order_and_only_the_highest(
    files: int, fan_in: int, draw: st.DataObject
) -> None:
    nodes: list[tuple[int, int]] = []

    def collect(low: int, high: int) -> None:
        for node in split(low, high, fan_in):
            nodes.append(node)
            collect(*node)

    collect(0, files)
    stored = set(draw.draw(st.lists(st.sampled_from(nodes)))) if nodes else set()
    found = list(stored_within(0, files, fan_in, lambda *node: node in stored))
    assert found == sorted(found)
    assert all(high <= low for (_, high), (low, _) in itertools.pairwise(found))
    assert {node for node in stored if not any(f[0] <= node[0] and node[1] <= f[1] for f in found)} == set()
    assert set(found) <= stored


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 5), (25, 30)])
def test_a_node_whose_children_are_single_has_no_nested_ones(start: int, stop: int) -> None:
    assert split(start, stop, 5) == ()
