"""What is done about stragglers, as people write it: ``quantile=0.75,multiplier=1.2`` (pure)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec

from distsum.actors.speculation import PolicyName, SpeculationSettings
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

NONE: Final = "none"
"""The word for no backups at all."""
_FORM: Final = f"must be {NONE}, or KEY=VALUE,... such as quantile=0.75,multiplier=1.2"
_MOST: Final = 1e9
_RANGES: Final = {
    "quantile": (0.0, 1.0),
    "multiplier": (0.0, _MOST),
    "min_seconds": (0.0, _MOST),
    "max_share": (0.0, 1.0),
    "copies": (1, 1000),
    "gain": (0.0, _MOST),
    "silence_seconds": (0.0, _MOST),
    "slow": (1.0, _MOST),
    "few": (0, 10**9),
    "check_seconds": (0.05, _MOST),
}
"""Least and most of each key that is a number."""


def parse_speculation(text: str) -> SpeculationSettings:
    """Return the settings that a text stands for; what it does not name has its default.

    Raises:
        ValueError: It has an unknown or repeated key, or a value that is not acceptable.

    >>> parse_speculation("quantile=0.5, few=10").few, parse_speculation("none").policy
    (10, 'none')
    """
    if text.strip() == NONE:
        return SpeculationSettings(policy="none")
    given: dict[str, str] = {}
    for part in text.split(","):
        key, sign, value = (each.strip() for each in part.partition("="))
        if not sign:
            raise ValueError(f"{_FORM}; {printable(part, 40)!r} is neither")
        if key in given:
            raise ValueError(f"{_FORM}; {printable(key, 40)} is given twice")
        given[key] = value
    return speculation_settings(given)


def speculation_settings(given: Mapping[str, Any]) -> SpeculationSettings:
    """Return settings with these values, which may be numbers or their text.

    Raises:
        ValueError: A key is unknown, or a value is not acceptable.
    """
    values = {key: _value(key, raw) for key, raw in given.items()}
    return SpeculationSettings(**values)


def speculation_text(settings: SpeculationSettings) -> str:
    """Return the text that stands for settings, with every key.

    >>> parse_speculation(speculation_text(SpeculationSettings(gain=2.5))) == SpeculationSettings(gain=2.5)
    True
    """
    values = msgspec.structs.asdict(settings)
    return ",".join(
        f"{key}={value if isinstance(value, str) else format(value, '.15g')}" for key, value in values.items()
    )


def _value(key: str, raw: Any) -> Any:
    if key == "policy":
        policies = get_args(PolicyName)
        if raw not in policies:
            raise ValueError(f"policy {_shown(raw)} must be one of {', '.join(policies)}")
        return raw
    if key not in _RANGES:
        raise ValueError(f"{_shown(key)} is no key of it; {_nearest(key)}")
    least, most = _RANGES[key]
    kind, what = (int, "a whole number") if isinstance(least, int) else (float, "a number")
    number = math.nan
    if isinstance(raw, str) or (isinstance(raw, int | float) and not isinstance(raw, bool)):
        try:
            number = kind(raw)
        except (ValueError, OverflowError):
            number = math.nan
    if not least <= number <= most or (kind is int and number != float(raw)):
        limits = f"from {least:g} to {most:g}" if most < _MOST else f"of at least {least:g}"
        raise ValueError(f"{key} {_shown(raw)} must be {what} {limits}")
    return number


def _shown(raw: Any) -> str:
    return printable(str(raw), 40) or "''"


def _nearest(key: str) -> str:
    import difflib

    known = [*msgspec.structs.asdict(SpeculationSettings())]
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
