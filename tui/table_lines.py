"""Tables of any width: which columns have room, in what order rows come, and which of them hold a text (no Textual)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from distsum.wording import counted, printable

from .cells import fitted, middle_cut, padded, width_of
from .figures import sparkline
from .lines import Line, Role, Span

if TYPE_CHECKING:
    from collections.abc import Sequence

Order = float | str
GAP: Final = 2
"""Empty columns between two cells."""
MARK: Final = 2
"""Columns before the first cell, which show the chosen row."""


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: What stands above it.
        width: What it needs.
        rank: 0 is always shown; of the others the highest goes first where there is no room.
        grows: Its share of the room that is left; 0 stays as wide as it is.
        right: Whether it stands at the right, as figures do.
        middle: Whether what is too long loses its middle, as names do that differ in their ends.
    """

    title: str
    width: int
    rank: int = 0
    grows: int = 0
    right: bool = False
    middle: bool = False


class Cell(NamedTuple):
    """What stands in a column.

    Attributes:
        text: Harmless to show.
        order: What it is sorted by; None sorts by the text.
        role: What it is for.
        share: From 0 to 1, drawn as a bar before the text; None without.
        trace: Numbers in the order of time, drawn in place of the text.
    """

    text: str
    order: Order | None = None
    role: Role = "plain"
    share: float | None = None
    trace: tuple[float, ...] | None = None


class Row(NamedTuple):
    """A row: its key, by which it is known when it stands elsewhere, one cell a column, and its details in words."""

    key: str
    cells: tuple[Cell, ...]
    details: tuple[str, ...] = ()


class Sorting(NamedTuple):
    """By which column rows are sorted, and whether the largest comes first; None leaves them as they are."""

    column: int | None = None
    falling: bool = False


class Place(NamedTuple):
    """Where a column stands: its number, its first cell, and its width."""

    column: int
    start: int
    width: int


def places(columns: Sequence[Column], width: int) -> list[Place]:
    """Return the columns that have room, in their order, and where they stand.

    >>> columns = [Column("job", 4, grows=1), Column("files", 6, rank=2), Column("state", 7, rank=1)]
    >>> [(place.column, place.start, place.width) for place in places(columns, 16)]
    [(0, 2, 5), (2, 9, 7)]
    """
    shown = list(range(len(columns)))
    room = width - MARK
    while len(shown) > 1 and _needed(columns, shown) > room:
        last = max(shown, key=lambda number: (columns[number].rank, number))
        if columns[last].rank == 0:
            break
        shown.remove(last)
    left = max(0, room - _needed(columns, shown))
    shares = sum(columns[number].grows for number in shown)
    found: list[Place] = []
    start = MARK
    for number in shown:
        column = columns[number]
        more = left * column.grows // shares if shares else 0
        left, shares = left - more, shares - column.grows
        wide = min(column.width + more, max(0, width - start))
        if wide:
            found.append(Place(number, start, wide))
        start += wide + GAP
    return found


def _needed(columns: Sequence[Column], shown: Sequence[int]) -> int:
    return sum(columns[number].width for number in shown) + GAP * (len(shown) - 1)


def head_cell(column: Column, width: int, sorting: Sorting, number: int) -> Line:
    """Return a column's title, with a sign where rows are sorted by it."""
    sign = "" if sorting.column != number else "▼" if sorting.falling else "▲"
    return (Span(padded(fitted(column.title, width - len(sign)) + sign, width, right=column.right), "dim"),)


def cell_line(cell: Cell, column: Column, width: int) -> Line:
    """Return what a cell shows in some columns."""
    if cell.trace is not None:
        return (Span(sparkline(cell.trace, width).rjust(width), cell.role),)
    if cell.share is not None:
        room = width - width_of(cell.text) - 1
        if room >= 4:
            filled = int(cell.share * room)
            bar = Span("━" * filled, "good"), Span("─" * (room - filled), "dim")
            return *bar, Span(f" {cell.text}", cell.role)
    cut = middle_cut if column.middle else fitted
    return (Span(padded(cut(cell.text, width), width, right=column.right), cell.role),)


def arranged(rows: Sequence[Row], sorting: Sorting) -> list[Row]:
    """Return rows in order; those that are alike stay as they were."""
    if sorting.column is None:
        return list(rows)
    number = sorting.column

    def key(row: Row) -> tuple[bool, float, str]:
        cell = row.cells[number]
        order = cell.text.casefold() if cell.order is None else cell.order
        return (True, 0.0, order) if isinstance(order, str) else (False, order, "")

    return sorted(rows, key=key, reverse=sorting.falling)


def holding(rows: Sequence[Row], wanted: str) -> list[Row]:
    """Return the rows that hold a text in a cell or in their details, whatever its case."""
    sought = wanted.casefold()
    return [
        row
        for row in rows
        if not sought or any(sought in text.casefold() for text in (*(cell.text for cell in row.cells), *row.details))
    ]


def hidden_words(shown: int, total: int, wanted: str) -> str:
    """Return how many rows a filter hides; nothing where it hides none.

    >>> hidden_words(3, 5, "mean"), hidden_words(5, 5, "mean")
    ('2 rows without “mean”; escape shows all', '')
    """
    return (
        f"{counted(total - shown, 'row')} without “{printable(wanted, 40)}”; escape shows all" if shown < total else ""
    )
