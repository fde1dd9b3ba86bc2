"""The colours of the screens: dark, light, and high contrast. Text has a contrast of 4.5 at least, there 7."""

from __future__ import annotations

from typing import Final

from textual.color import Color
from textual.theme import Theme

FAINT: Final = "faint"
"""The variable of what matters less and is still to be read."""
_FAINT_SHARE: Final = 0.72
"""So much of the way from the ground to the foreground it has in a theme that is none of these."""

DARK: Final = Theme(
    name="dark",
    primary="#3d8fd1",
    secondary="#7db3cf",
    accent="#6cb6f0",
    warning="#ffb648",
    error="#d8566f",
    success="#57a5e2",
    foreground="#e4e4e4",
    background="#121212",
    surface="#1c1c1c",
    panel="#2a333d",
    dark=True,
    variables={
        "text-primary": "#6cb2ea",
        "text-warning": "#ffc473",
        "text-error": "#f2909f",
        "footer-key-foreground": "#6cb6f0",
        "block-cursor-background": "#17609b",
        "block-cursor-foreground": "#ffffff",
        FAINT: "#a6a6a6",
    },
)
LIGHT: Final = Theme(
    name="light",
    primary="#00639c",
    secondary="#2f6486",
    accent="#005fae",
    warning="#d98a00",
    error="#b3263c",
    success="#00639c",
    foreground="#1b1b1b",
    background="#ffffff",
    surface="#f4f6f8",
    panel="#dde5ed",
    dark=False,
    variables={
        "text-primary": "#005484",
        "text-warning": "#804a00",
        "text-error": "#a0102c",
        "footer-key-foreground": "#00539a",
        FAINT: "#565656",
    },
)
HIGH_CONTRAST: Final = Theme(
    name="high-contrast",
    primary="#ffffff",
    secondary="#ffff00",
    warning="#ffff00",
    error="#ff8080",
    success="#ffffff",
    accent="#00ffff",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#2e2e2e",
    dark=True,
    variables={
        "text-muted": "#ffffff",
        "text-primary": "#ffffff",
        "text-error": "#ffb0b0",
        "footer-background": "#000000",
        "input-selection-background": "#404040",
        FAINT: "#d6d6d6",
    },
)
THEMES: Final = (DARK, LIGHT, HIGH_CONTRAST)


def with_faint(variables: dict[str, str]) -> dict[str, str]:
    """Return the variables of a theme with that of what matters less, which no theme of Textual's has."""
    if FAINT in variables:
        return variables
    ground, foreground = Color.parse(variables["background"]), Color.parse(variables["foreground"])
    return {**variables, FAINT: ground.blend(foreground, _FAINT_SHARE).hex}
