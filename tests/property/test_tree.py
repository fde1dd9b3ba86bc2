"""Laws of the canonical tree."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from distsum.tree import Tree, carries, levels_above

trees = st.builds(Tree, files=st.integers(1, 3000), fan_in=st.integers(2, 7), exponent=st.integers(1, 5))


@given(trees)
def test_every_phase_covers_every_input_once_and_in_order(tree):
    for phase in range(tree.phases + 1):
        ranges = [tree.inputs(phase, index) for index in range(tree.width(phase))]
        assert ranges[0][0] == 0
        assert ranges[-1][1] == tree.files
        assert all(left[1] == right[0] for left, right in itertools.pairwise(ranges))
        assert all(start < stop for start, stop in ranges)


@given(trees)
def test_a_nodes_children_cover_what_it_covers(tree):
    for phase in range(1, tree.phases + 1):
        for index in range(tree.width(phase)):
            start, stop = tree.children(phase, index)
            covered = tree.inputs(phase - 1, start)[0], tree.inputs(phase - 1, stop - 1)[1]
            assert covered == tree.inputs(phase, index)
            assert 1 <= stop - start <= tree.partition


@given(trees)
def test_the_last_phase_has_one_node_and_more_than_one_child_unless_there_is_one_input(tree):
    assert tree.width(tree.phases) == 1
    start, stop = tree.children(tree.phases, 0)
    assert stop - start > 1 or tree.files == 1
    assert tree.tasks(tree.phases) == 1


@given(trees)
def test_only_the_last_node_of_a_phase_can_pass_through(tree):
    for phase in range(1, tree.phases + 1):
        passing = [index for index in range(tree.width(phase)) if tree.passes_through(phase, index)]
        assert passing in ([], [tree.width(phase) - 1])
        assert tree.tasks(phase) == tree.width(phase) - len(passing)


@given(st.integers(0, 10**6), st.integers(2, 9))
def test_carries_count_the_levels_that_are_complete(position, fan_in):
    count = carries(position, fan_in)
    assert (position + 1) % fan_in**count == 0
    assert (position + 1) % fan_in ** (count + 1) != 0


@given(st.integers(1, 10**9), st.integers(2, 9))
def test_levels_are_the_logarithm_rounded_up(width, fan_in):
    levels = levels_above(width, fan_in)
    assert fan_in**levels >= width
    assert levels == 0 or fan_in ** (levels - 1) < width
