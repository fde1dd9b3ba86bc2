"""Colours and signs of task states (pure: no Textual, no terminal).

The states are ordered by luminance, so that they can be told apart by people who see few colours or none, and the hues
differ in blue against yellow, which nearly everybody sees. On a light ground the order of luminance is the other way
round: what matters most always stands out most from the ground.

A terminal with 256 colours shows for each the nearest one that it has, by Rich's rules. Two that are well apart may
have the same one, so these are chosen such that what is shown there is apart as well. With 16 there are no six of them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from distsum.observe.states import NAMES


class Palette(NamedTuple):
    """One colour (``#rrggbb``) a state, in the order of ``NAMES``, and that of an empty place."""

    states: tuple[str, ...]
    empty: str


DARK: Final = Palette(("#2b3139", "#2b6690", "#5f88ad", "#7db3cf", "#ffc52e", "#fff0f3"), "#121212")
LIGHT: Final = Palette(("#ccd1d8", "#7d9fc4", "#587fa3", "#2f6486", "#5c2f00", "#2f000c"), "#ffffff")
GLYPHS: Final = ("░", "█", "▒", "▓", "↯", "!")
"""One sign a state, in the order of ``NAMES``."""
SIGNS: Final = {NAMES.index("backup"): "↯", NAMES.index("failed"): "!"}
"""States that have their sign even where colours are drawn: what nobody may overlook."""
UPPER_HALF: Final = "▀"


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour, from 0 to 1, as WCAG 2 defines it.

    >>> luminance("#000000"), luminance("#ffffff")
    (0.0, 1.0)
    """
    channels = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return round(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2], 6)


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, from 1 to 21, as WCAG 2 defines it."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
