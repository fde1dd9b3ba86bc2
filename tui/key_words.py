"""Which keys the bottom line of a screen tells, where there is not room for all (pure: no Textual)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

HELP = "help"
"""The action that tells all keys, which the line always has room for."""


class Key(NamedTuple):
    """A key that does something now.

    Attributes:
        action: What it does, as bindings call it, without arguments.
        press: By what name it is pressed.
        shown: What stands for it.
        words: What it is for.
    """

    action: str
    press: str
    shown: str
    words: str

    @property
    def width(self) -> int:
        """Columns that it takes: a blank around the key, and one behind the words."""
        return len(self.shown) + len(self.words) + 3


def told_keys(keys: Sequence[Key], first: Sequence[str], room: int) -> list[Key]:
    """Return the keys that a line has room for, the most important ones first, and the one for help at its end.

    Where some are left out, the one for help tells how many.

    Args:
        keys: What could be told, in the order in which it is declared.
        first: Actions in order of importance; those that are not named come after them, as they are declared.
        room: Columns.

    >>> keys = [Key("help", "f1", "F1", "Help"), Key("go", "g", "g", "Go there"), Key("open", "o", "o", "Open")]
    >>> [(key.shown, key.words) for key in told_keys(keys, ["open"], 40)]
    [('o', 'Open'), ('g', 'Go there'), ('F1', 'Help')]
    >>> [(key.shown, key.words) for key in told_keys(keys, ["open"], 26)]
    [('o', 'Open'), ('F1', 'Help, 1 more')]
    """
    rank = {action: place for place, action in enumerate(first)}
    others = sorted((key for key in keys if key.action != HELP), key=lambda key: rank.get(key.action, len(rank)))
    helps = [key for key in keys if key.action == HELP][:1]
    if sum(key.width for key in (*others, *helps)) <= room:
        return [*others, *helps]
    told: list[Key] = []
    left = room - sum(_counting(key, len(others)).width for key in helps)
    for key in others:
        if key.width <= left:
            told.append(key)
            left -= key.width
    return [*told, *(_counting(key, len(others) - len(told)) for key in helps)]


def _counting(key: Key, count: int) -> Key:
    """Return the key for help with how many are left out."""
    return key._replace(words=f"{key.words}, {count} more")
