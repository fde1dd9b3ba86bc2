"""What brings workers to other hosts, found by its entry point."""

from __future__ import annotations

from typing import Any, Final

from distsum.errors import UsageError

LENDERS: Final = "distsum.fleets"
"""Entry point group: a class with the arguments and methods of ``distsum.cli.fleet.Loan``."""


def lender() -> Any:
    """Return the class.

    Raises:
        UsageError: There is none, or more than one.
    """
    from importlib.metadata import entry_points

    found = list(entry_points(group=LENDERS))
    if len(found) != 1:
        raise UsageError(f"--fleet: {'no' if not found else 'more than one'} package brings workers to other hosts")
    return found[0].load()
