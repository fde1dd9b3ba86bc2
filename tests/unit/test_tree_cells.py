"""A job's tasks as rows of cells: what is drawn, and where the cursor and the window go."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from distsum.tui.palette import DARK, LIGHT, contrast, luminance
from distsum.tui.themes import THEMES
from distsum.tui.tree_cells import EMPTY, KINDS, MOST_PHASES, Window, about, map_cells, moved, tree_cells, zoomed
from hypothesis import given
from hypothesis import strategies as st
from rich.color import Color, ColorSystem

from distsum.observe.snapshot import PhaseProgress
from distsum.observe.states import DONE, FAILED, NAMES, PhaseStates


@given(st.integers(0, 600), st.integers(1, 20), st.integers(1, 8), st.booleans())
def test_all_tasks_are_in_the_map_in_their_order_and_it_fits(tasks, width, height, halves):
    states = np.arange(tasks, dtype=np.uint64) % len(NAMES)
    rows, each = map_cells(states.astype(np.uint8), width, height, halves=halves)
    assert len(rows) <= height
    assert all(len(row) == width for row in rows)
    cells = [code for row in rows for code in row]
    used = -(-tasks // each) if tasks else 0
    pixels = 2 if halves else 1
    for place, code in enumerate(cells):
        told = divmod(code, KINDS)
        if place >= used:
            assert told == (EMPTY, EMPTY)
            continue
        share = each // pixels
        wanted = [
            max(states[low : low + share], default=EMPTY) for low in range(place * each, (place + 1) * each, share)
        ]
        assert list(told) == (wanted if halves else wanted * 2)


def test_a_row_counts_as_done_what_it_draws_as_done_also_what_an_earlier_run_has_stored():
    states = [PhaseStates(1, bytes([DONE] * 407 + [0] * 93))]
    told = PhaseProgress(1, tasks=150, done=57, reused=20)
    (row,) = tree_cells(states, (told,), Window(1, 0, 500), 40, 9, halves=True).phases
    assert row.counts == " 407/500"


@pytest.mark.parametrize("height", [1, 2, 3, 5, 9, 30])
@pytest.mark.parametrize("looked_at", [1, 5, 12])
def test_the_phase_that_is_looked_at_has_a_row_and_those_without_are_counted(height, looked_at):
    states = [PhaseStates(number, bytes(13 - number)) for number in range(1, 13)]
    cells = tree_cells(states, (), Window(looked_at, 0, 13 - looked_at), 40, height, halves=True)
    numbers = [row.phase for row in cells.phases]
    assert looked_at in numbers
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) + cells.phases_hidden == 12
    assert len(numbers) <= MOST_PHASES
    assert len(numbers) + len(cells.rows) <= max(1, height)


def test_a_failure_is_in_the_row_of_its_phase_and_in_the_map_at_any_width():
    states = np.full(1_000_000, DONE, dtype=np.uint8)
    states[654_321] = FAILED
    phases = [PhaseStates(1, states.tobytes()), PhaseStates(2, b"\0")]
    for width in (12, 40, 300):
        cells = tree_cells(phases, (), Window(1, 0, states.size), width, 10, halves=True)
        assert any(code // KINDS == FAILED for code in cells.phases[1].codes)
        assert sum(FAILED in divmod(code, KINDS) for row in cells.rows for code in row) == 1


@given(st.lists(st.integers(0, FAILED), min_size=1, max_size=60), st.integers(1, 60), st.integers(1, 16), st.booleans())
def test_each_of_few_tasks_has_a_block_of_its_own_with_room_around_it_in_its_place(states, width, height, halves):
    phases = [PhaseStates(1, bytes(states))]
    cells = tree_cells(phases, (), Window(1, 0, len(states)), width, height, halves=halves)
    assert len(cells.phases) + cells.gap + len(cells.rows) <= max(height, 1 + cells.gap)
    if cells.wide == 1:
        return
    assert (cells.each, cells.pixels) == (1, 1)
    across, nothing = width // cells.wide, EMPTY * (KINDS + 1)
    drawn = max(1, cells.tall - 1)
    for place, row in enumerate(cells.rows):
        line, within = divmod(place, cells.tall)
        expected = [nothing] * width
        for column, state in enumerate(states[line * across : (line + 1) * across] if within < drawn else ()):
            start = column * cells.wide
            expected[start : start + cells.wide - 1] = [state * (KINDS + 1)] * (cells.wide - 1)
        assert list(row) == expected
    assert len(cells.rows) == -(-len(states) // across) * cells.tall - (cells.tall > 1)


def test_a_line_between_phases_and_map_is_left_empty_where_one_is_left():
    states = [PhaseStates(1, bytes(7)), PhaseStates(2, b"\0")]
    found = [tree_cells(states, (), Window(1, 0, 7), 60, height, halves=True) for height in (5, 6, 9)]
    assert [(each.gap, len(each.phases), len(each.rows)) for each in found] == [(0, 2, 3), (1, 2, 3), (1, 2, 3)]


def test_the_closest_look_is_at_the_task_of_the_cursor():
    assert zoomed(Window(1, 0, 2), 2, cursor=1, factor=0.25) == Window(1, 1, 2)


@given(st.integers(1, 10_000), st.data())
def test_whatever_is_zoomed_the_window_lies_within_the_phase_and_holds_the_cursor(tasks, data):
    window = Window(1, 0, tasks)
    cursor = data.draw(st.integers(0, tasks - 1))
    for factor in data.draw(st.lists(st.sampled_from([0.25, 0.5, 4.0, float("inf")]), max_size=12)):
        window = zoomed(window, tasks, cursor, min(factor, tasks))
        assert 0 <= window.start <= cursor < window.stop <= tasks
        cursor = data.draw(st.integers(0, tasks - 1))
        length = window.stop - window.start
        window = about(window, tasks, cursor)
        assert 0 <= window.start <= cursor < window.stop <= tasks
        assert window.stop - window.start == length


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
@pytest.mark.parametrize("system", [ColorSystem.TRUECOLOR, ColorSystem.EIGHT_BIT])
def test_states_are_told_apart_by_luminance_alone_and_the_worst_stands_out_most(theme, system):
    palette = DARK if theme.dark else LIGHT
    states = [as_shown(colour, system) for colour in palette.states]
    steps = [contrast(one, other) for one, other in pairwise(states)]
    assert min(steps) > 1.4
    for empty in (palette.empty, theme.background):
        ground = [contrast(colour, as_shown(empty, system)) for colour in states]
        assert ground == sorted(ground), "away from the ground, on light as on dark"
        assert ground[0] > 1.4
    levels = [luminance(colour) for colour in states]
    assert levels in (sorted(levels), sorted(levels, reverse=True))


def as_shown(colour, system):
    """Return the colour that a terminal with so many of them has for one."""
    shown = Color.parse(colour).downgrade(system).get_truecolor()
    return f"#{shown.red:02x}{shown.green:02x}{shown.blue:02x}"


@given(st.integers(1, 40), st.integers(1, 20), st.integers(3, 6), st.booleans(), st.data())
def test_arrows_reach_every_task_from_anywhere_and_the_window_goes_with_the_cursor(tasks, width, height, halves, data):
    states = [PhaseStates(1, bytes(tasks))]
    cursor = data.draw(st.integers(0, tasks - 1))
    begin = zoomed(Window(1, 0, tasks), tasks, cursor, data.draw(st.sampled_from([1, 0.25, 0.0625])))
    reached, seen, ways = set(), {(begin, cursor)}, [(begin, cursor)]
    while ways:
        window, cursor = ways.pop()
        cells = tree_cells(states, (), window, width, height, halves=halves)
        share = cells.each // cells.pixels
        first = cursor - (cursor - window.start) % share
        reached |= set(range(first, min(first + share, window.stop)))
        for columns, rows in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            there = moved(cells, tasks, cursor, columns, rows, width)
            assert 0 <= there[0].start <= there[1] < there[0].stop <= tasks
            assert there[0].stop - there[0].start == begin.stop - begin.start
            if there not in seen:
                seen.add(there)
                ways.append(there)
    assert reached == set(range(tasks))


def test_down_and_up_are_the_same_way_and_beyond_an_edge_a_row_comes_in_sight():
    states = [PhaseStates(1, bytes(1000))]
    window, cursor = Window(1, 400, 460), 410
    places = []
    for rows in (1, 1, 1, 1, -1, -1, -1, -1):
        cells = tree_cells(states, (), window, 10, 4, halves=True)  # rows of ten cells, twenty tasks
        window, cursor = moved(cells, 1000, cursor, 0, rows, 10)
        places.append((window.start, cursor))
    assert places == [
        (400, 411), (400, 430), (400, 431), (400, 450), (400, 431), (400, 430), (400, 411), (400, 410)
    ]  # fmt: skip
    for rows, there in ((-1, (380, 391)), (1, (380, 410))):
        cells = tree_cells(states, (), window, 10, 4, halves=True)
        window, cursor = moved(cells, 1000, cursor, 0, rows, 10)
        assert (window.start, cursor) == there
    window, cursor = Window(1, 400, 460), 451
    cells = tree_cells(states, (), window, 10, 4, halves=True)
    assert moved(cells, 1000, cursor, 0, 1, 10) == (Window(1, 420, 480), 470)
