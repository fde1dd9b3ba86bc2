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

_ROOMY: Final = 12
"""Lines from which on one is left empty, so that the map is not taken for one of the phases."""


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
        rows: The codes of the map's cells, a byte each, a row a line.
        each: Tasks that share a cell.
        window: What the map shows.
    """

    phases: tuple[PhaseRow, ...]
    phases_hidden: int
    gap: int
    rows: tuple[bytes, ...]
    each: int
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
        halves: Whether a cell of the map has two pixels.
    """
    shown = _phases_shown(len(states), window.phase, height)
    rows = []
    for number in shown:
        told = progress[number - 1] if number <= len(progress) else None
        tasks = len(states[number - 1].states)
        counts = f" {told.done:,}/{told.tasks:,}" if told is not None else f" 0/{tasks:,}"
        label = f"{'▸' if number == window.phase else ' '}P{number} "
        (line, *_), _ = map_cells(states[number - 1].array(), max(1, width - len(label) - len(counts)), 1, halves=False)
        codes = line.rstrip(bytes([EMPTY * (KINDS + 1)]))
        rows.append(PhaseRow(number, label, codes, counts))
    array = states[window.phase - 1].array()[window.start : window.stop]
    gap = int(height >= _ROOMY)
    lines, each = map_cells(array, width, height - len(rows) - gap, halves=halves)
    return TreeCells(tuple(rows), len(states) - len(rows), gap, lines, each, window)


def _phases_shown(phases: int, looked_at: int, height: int) -> range:
    """Return the phases that have rows, from the root down."""
    most = max(1, min(MOST_PHASES, (height + 1) // 3))
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
