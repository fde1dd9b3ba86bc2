"""What is done about stragglers, as people write it: ``quantile=0.75,multiplier=1.2`` (pure)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec

from distsum.actors.speculation import PolicyName, SpeculationSettings, default_settings
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

NONE: Final = "none"
"""The word for no backups at all."""
_FORM: Final = f"must be {NONE}, or KEY=VALUE,... such as quantile=0.75,multiplier=1.2"
_MOST: Final = 1e9
RANGES: Final = {
    "quantile": (0.0, 1.0),
    "multiplier": (0.0, _MOST),
    "min_seconds": (0.0, _MOST),
    "max_share": (0.0, 1.0),
    "copies": (1, 1000),
    "gain": (0.0, _MOST),
    "silence_seconds": (1.0, _MOST),
    "slow": (1.0, _MOST),
    "few": (0, 10**9),
    "check_seconds": (0.05, _MOST),
}
"""Least and most of each key that is a number. Workers are heard every half second on one machine."""
_RULE: Final = ("quantile", "multiplier", "check_seconds")
HEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "guarded": tuple(RANGES),
    "bare": _RULE,
    "spark": _RULE,
    "late": ("check_seconds",),
    "mapreduce": ("check_seconds",),
    "none": (),
}
"""The keys that each policy goes by."""


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
        if not (key and sign):
            raise ValueError(f"{_FORM}; {printable(part, 40)!r} is neither")
        if key in given:
            raise ValueError(f"{_FORM}; {printable(key, 40)} is given twice")
        given[key] = value
    return speculation_settings(given)


def speculation_settings(given: Mapping[str, Any]) -> SpeculationSettings:
    """Return settings with these values, which may be numbers or their text.

    What is not named has the policy's default.

    Raises:
        ValueError: A key is unknown, a value is not acceptable, or the policy does not go by it.

    >>> speculation_settings({"policy": "spark"}).multiplier
    1.5
    """
    values = {key: _value(key, raw) for key, raw in given.items()}
    default = default_settings(values.get("policy", "guarded"))
    heeded = HEEDED[default.policy]
    for key, value in values.items():
        if key != "policy" and key not in heeded and value != getattr(default, key):
            rest = f"goes by {', '.join(heeded)}" if heeded else "goes by no other key"
            raise ValueError(f"{key} must be left out with policy {default.policy}, which {rest}")
    return msgspec.structs.replace(default, **values)


def check_silence(settings: SpeculationSettings, heartbeat_seconds: float) -> str | None:
    """Return what is to be known of a silence that is short for workers that are heard every so many seconds.

    Raises:
        ValueError: Every worker would be taken for silent between two heartbeats.

    >>> check_silence(SpeculationSettings(silence_seconds=3.0), 2.0)
    'silence_seconds 3: workers are heard every 2 s, and idle ones get no copy after half of it; 4 or more is better'
    """
    silence = settings.silence_seconds
    if settings.policy != "guarded" or silence >= 2 * heartbeat_seconds:
        return None
    heard = f"silence_seconds {silence:g}: workers are heard every {heartbeat_seconds:g} s"
    if silence <= heartbeat_seconds:
        raise ValueError(f"{heard}, so it must be longer; {2 * heartbeat_seconds:g} or more is better")
    return f"{heard}, and idle ones get no copy after half of it; {2 * heartbeat_seconds:g} or more is better"


def speculation_text(settings: SpeculationSettings) -> str:
    """Return the text that stands for settings, with every key.

    >>> settings = SpeculationSettings(gain=2.5, quantile=0.6059441656784624)
    >>> parse_speculation(speculation_text(settings)) == settings
    True
    """
    values = msgspec.structs.asdict(settings)
    return ",".join(
        f"{key}={value if isinstance(value, str) else repr(value).removesuffix('.0')}" for key, value in values.items()
    )


def _value(key: str, raw: Any) -> Any:
    if key == "policy":
        policies = get_args(PolicyName)
        if raw not in policies:
            raise ValueError(f"policy {_shown(raw)} must be one of {', '.join(policies)}")
        return raw
    if key not in RANGES:
        raise ValueError(f"{_shown(key)} is no key of it; {_nearest(key)}")
    least, most = RANGES[key]
    kind, what = (int, "a whole number") if isinstance(least, int) else (float, "a number")
    number = math.nan
    if isinstance(raw, str) or (isinstance(raw, int | float) and not isinstance(raw, bool)):
        try:
            number = kind(raw)
        except (ValueError, OverflowError):
            number = math.nan
    if not least <= number <= most or (kind is int and number != float(raw)):
        limits = f"from {least:g} to {most:,.0f}"
        raise ValueError(f"{key} {_shown(raw)} must be {what} {limits}")
    return number


def _shown(raw: Any) -> str:
    return printable(str(raw), 40) or "''"


def _nearest(key: str) -> str:
    import difflib

    known = [*msgspec.structs.asdict(SpeculationSettings())]
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
