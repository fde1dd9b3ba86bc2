"""How a job's tasks become rows of cells: one row for each phase, and a map of the phase that is looked at (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from distsum.observe.states import NAMES, aggregate, tasks_per_cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from distsum.observe.snapshot import PhaseProgress
    from distsum.observe.states import PhaseStates

EMPTY: Final = len(NAMES)
"""A place where no task is drawn."""
KINDS: Final = EMPTY + 1
"""A cell's code is that of its first pixel times this, plus that of its second."""
MOST_PHASES: Final = 6
"""Rows above the map; of more phases the ones nearest to the one that is looked at are shown."""

_BLOCKS: Final = ((8, 4), (6, 3), (4, 2), (8, 1), (4, 1), (2, 1))
"""Columns and lines of a task that has a block of its own, with what is left empty beside it and below; best first."""
_ROOMY: Final = 12
"""Lines from which on one is left empty at any rate, so that the map is not taken for one of the phases."""


class Window(NamedTuple):
    """What the map shows: tasks [start, stop) of a phase, by their places."""

    phase: int
    start: int
    stop: int


class PhaseRow(NamedTuple):
    """One phase in a row: its label, its cells, and its counts."""

    phase: int
    label: str
    codes: bytes
    counts: str


class TreeCells(NamedTuple):
    """Everything that the map draws.

    Attributes:
        phases: The phases from the root down.
        phases_hidden: Phases that have no row.
        gap: Empty lines between them and the map.
        rows: The codes of the map's columns, a byte each, a row a line.
        each: Tasks that share a cell.
        pixels: Parts of a cell, one above the other, that its tasks are shared among.
        wide: Columns of a cell, with the one left empty beside it where there are several.
        tall: Lines of a cell, likewise.
        window: What the map shows.
    """

    phases: tuple[PhaseRow, ...]
    phases_hidden: int
    gap: int
    rows: tuple[bytes, ...]
    each: int
    pixels: int
    wide: int
    tall: int
    window: Window


def map_cells(states: NDArray[np.uint8], width: int, height: int, *, halves: bool) -> tuple[tuple[bytes, ...], int]:
    """Return rows of codes of a map of so many cells, and how many tasks share a cell.

    With ``halves`` a cell has two pixels, one above the other, for tasks that follow one another; without, both halves
    of a code are the same. Tasks run along the rows.

    >>> rows, each = map_cells(np.array([0, 1, 2, 3, 4], dtype=np.uint8), 2, 2, halves=True)
    >>> [[divmod(code, KINDS) for code in row] for row in rows], each
    ([[(0, 1), (2, 3)], [(4, 6), (6, 6)]], 2)
    """
    pixels = 2 if halves else 1
    if width < 1 or height < 1:
        return (), pixels
    share = tasks_per_cell(states.size, width * height * pixels)
    cells = aggregate(states, share)
    lines = -(-cells.size // (width * pixels))
    padded = np.full(lines * width * pixels, EMPTY, dtype=np.uint8)
    padded[: cells.size] = cells
    first, second = (padded[0::2], padded[1::2]) if halves else (padded, padded)
    codes = first * np.uint8(KINDS) + second
    return tuple(row.tobytes() for row in codes.reshape(lines, width)), share * pixels


def tree_cells(
    states: Sequence[PhaseStates],
    progress: Sequence[PhaseProgress],
    window: Window,
    width: int,
    height: int,
    *,
    halves: bool,
) -> TreeCells:
    """Return what fills so many columns and lines: rows of phases, and below them the map of the window.

    Args:
        states: Of all phases, from the inputs up.
        progress: Likewise; empty before the job has begun.
        window: What the map shows.
        width: Columns.
        height: Lines.
        halves: Whether a cell of the map has two pixels, where there are more tasks than have a block of their own.
    """
    array = states[window.phase - 1].array()[window.start : window.stop]
    gap = int(height >= _ROOMY)
    most = min(len(states), MOST_PHASES, max(1, (height + 1) // 3))
    wide, tall = _block(array.size, width, height - most - gap)
    halves = halves and wide == 1
    lines, each = map_cells(array, width // wide, -(-(height - most - gap) // tall), halves=halves)
    if wide > 1:
        lines = _blocks(lines, width, wide, tall)
    most = max(most, min(len(states), MOST_PHASES, height - gap - len(lines)))  # what the map leaves free is theirs
    gap = max(gap, int(0 < len(lines) < height - most))
    shown = _phases_shown(len(states), window.phase, most)
    rows = []
    for number in shown:
        told = progress[number - 1] if number <= len(progress) else None
        tasks = len(states[number - 1].states)
        # What needs not be done, since a node above it was stored before, is drawn as done, and counts so.
        counts = f" {told.done + max(0, tasks - told.tasks):,}/{tasks:,}" if told is not None else f" 0/{tasks:,}"
        label = f"{'▸' if number == window.phase else ' '}P{number} "
        (line, *_), _ = map_cells(states[number - 1].array(), max(1, width - len(label) - len(counts)), 1, halves=False)
        codes = line.rstrip(bytes([EMPTY * (KINDS + 1)]))
        rows.append(PhaseRow(number, label, codes, counts))
    return TreeCells(tuple(rows), len(states) - len(rows), gap, lines, each, 2 if halves else 1, wide, tall, window)


def _block(tasks: int, width: int, height: int) -> tuple[int, int]:
    """Return the columns and lines of a task's block, (1, 1) where there are too many for blocks.

    >>> _block(7, 80, 10), _block(32, 80, 10), _block(100, 80, 10), _block(1000, 80, 10)
    ((8, 4), (6, 3), (4, 2), (1, 1))
    """
    for wide, tall in _BLOCKS:
        fits = width // wide * ((height + (tall > 1)) // tall)  # nothing need be empty below the last
        if 0 < tasks <= fits:
            return wide, tall
    return 1, 1


def _blocks(lines: tuple[bytes, ...], width: int, wide: int, tall: int) -> tuple[bytes, ...]:
    """Return lines of a map whose every cell is a block, with the last column and line of each empty."""
    nothing = bytes([EMPTY * (KINDS + 1)])
    drawn = []
    for line in lines:
        cells = np.full((len(line), wide), nothing[0], dtype=np.uint8)
        cells[:, : wide - 1] = np.frombuffer(line, np.uint8)[:, np.newaxis]
        drawn += [cells.tobytes().ljust(width, nothing)] * max(1, tall - 1)
        if tall > 1:
            drawn.append(nothing * width)
    return tuple(drawn[:-1] if tall > 1 else drawn)


def _phases_shown(phases: int, looked_at: int, most: int) -> range:
    """Return the phases that have rows, so many of them, from the root down."""
    low = max(1, min(looked_at - most // 2, phases - most + 1))
    return range(min(phases, low + most - 1), low - 1, -1)


def zoomed(window: Window, tasks: int, cursor: int, factor: float) -> Window:
    """Return the window that shows so many times as many tasks (less than 1 for a closer look) about the cursor.

    >>> zoomed(Window(1, 0, 1000), 1000, 900, 0.5), zoomed(Window(1, 500, 1000), 1000, 900, 2)
    (Window(phase=1, start=450, stop=950), Window(phase=1, start=0, stop=1000))
    """
    length = window.stop - window.start
    wanted = max(1, round(min(tasks, length * factor)))
    share = (cursor - window.start) / length if length else 0.0
    start = min(max(0, cursor - int(share * wanted)), tasks - wanted)  # never beyond the cursor
    return Window(window.phase, start, start + wanted)


def about(window: Window, tasks: int, cursor: int) -> Window:
    """Return a window of the same length that holds the cursor.

    >>> about(Window(1, 0, 100), 1000, 500), about(Window(1, 0, 100), 1000, 40)
    (Window(phase=1, start=450, stop=550), Window(phase=1, start=0, stop=100))
    """
    if window.start <= cursor < window.stop:
        return window
    length = min(tasks, window.stop - window.start)
    start = min(max(0, cursor - length // 2), tasks - length)
    return Window(window.phase, start, start + length)


def moved(cells: TreeCells, tasks: int, cursor: int, columns: int, rows: int, width: int) -> tuple[Window, int]:
    """Return where the cursor goes by an arrow, and the window that it is in then.

    Up and down go from one part of a cell to the other, and then to the next row; left and right go from cell to cell.
    Beyond an edge the window goes on by a row, as far as the phase goes.

    Args:
        cells: What is drawn.
        tasks: Of the phase.
        cursor: A task that is drawn.
        columns: Cells to the right; negative to the left.
        rows: 1 down, -1 up, 0 neither.
        width: Columns of the map.
    """
    window, each, pixels = cells.window, cells.each, cells.pixels
    length = window.stop - window.start
    row = max(1, min(width // cells.wide, length // each))
    cell, part = divmod((cursor - window.start) // (each // pixels), pixels)
    if not 0 <= part + rows < pixels:
        cell += rows * row
    task = window.start + (cell + columns) * each + (part + rows) % pixels * (each // pixels)
    beyond = 1 if task >= window.stop else -1 if task < window.start else 0
    if columns:
        task = min(max(0, task), tasks - 1)
    elif not 0 <= task < tasks:
        task = cursor  # there is none, but there may be some beside it that are not in sight yet
    start = min(max(0, window.start + beyond * row * each), tasks - length)
    return about(Window(window.phase, start, start + length), tasks, task), task
