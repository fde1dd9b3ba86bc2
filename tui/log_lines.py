"""What a master's log looks like on the screen (pure: no Textual)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from distsum.wording import counted, printable

from .cells import wrapped
from .lines import Line, Role, Span

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN: Final = 1000
"""Lines of the log; as many are wrapped within some hundredths of a second."""
_ROLES: Final[tuple[tuple[tuple[str, ...], Role], ...]] = (
    (("ERROR", "CRITICAL", '"level": "error"', '"level": "critical"'), "bad"),
    (("WARNING", '"level": "warning"'), "warn"),
    (("DEBUG", '"level": "debug"'), "dim"),
)
_HEAD: Final = 80
"""Characters within which a line says its level."""


def log_lines(lines: Sequence[str], wanted: str, width: int) -> list[Line]:
    """Return the last lines of a log that hold a text, broken to a width; those before are counted.

    Args:
        lines: Of the log, oldest first; they may hold anything.
        wanted: What they must hold, whatever its case; empty of all.
        width: Columns.
    """
    sought = wanted.casefold()
    found = [line for line in lines if sought in line.casefold()]
    drawn: list[Line] = []
    if len(found) > SHOWN:
        drawn.append((Span(f"{counted(len(found) - SHOWN, 'earlier line')} left out here", "dim"),))
    for line in found[-SHOWN:]:
        role = _role(line[:_HEAD])
        text = printable(line, 4000)
        drawn += [(Span(part, role),) for part in wrapped(text, max(8, width), "  ")]
    return drawn


def _role(head: str) -> Role:
    return next((role for words, role in _ROLES if any(word in head for word in words)), "plain")


def log_title(shown: int, kept: int, written: int) -> str:
    """Return what is above the lines: how many there are, and how many were not kept.

    >>> log_title(3, 3, 3), log_title(3, 10, 12)
    ('Log ── 3', 'Log ── 3 of 10, 2 earlier ones not kept')
    """
    words = f"Log ── {shown:,}" + (f" of {kept:,}" if shown < kept else "")
    return words + (f", {written - kept:,} earlier ones not kept" if written > kept else "")
