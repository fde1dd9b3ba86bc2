"""Words for people: names from outside made harmless, and sizes made readable (pure)."""

import os
import unicodedata
from typing import Final

_UNSEEN: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"})
"""Unicode's categories of what controls, formats, separates or has no meaning yet: it is not seen as it is."""
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SIZE_UNITS: Final = (
    ("B", 1),
    ("kB", 10**3),
    ("MB", 10**6),
    ("GB", 10**9),
    ("TB", 10**12),
    ("PB", 10**15),
    ("EB", 10**18),
)


def printable(name: bytes | str, limit: int = 300) -> str:
    r"""Return a name from outside as one line that cannot disturb a terminal.

    Characters that nobody sees become backslash escapes: controls, format characters (bidirectional marks, joiners,
    blanks without width), separators other than the plain blank, private and unassigned characters, lone surrogates,
    and bytes that are not UTF-8. A name longer than ``limit`` characters loses its middle, and says how many.

    Args:
        name: A path, URI or word, as bytes or text.
        limit: The most characters to return before the middle is cut.

    >>> printable(b"a b[1].npy")
    'a b[1].npy'
    >>> printable(b"bell\x07 \x1b[31mred\n\xff")
    'bell\\x07 \\x1b[31mred\\n\\xff'
    >>> printable("日本 \u200b\u3000\U000e0001")
    '日本 \\u200b\\u3000\\U000e0001'
    """
    text = name if isinstance(name, str) else os.fsdecode(name)
    safe = "".join(_escape(character) for character in text)
    if len(safe) <= limit:
        return safe
    kept = limit // 2
    return f"{safe[:kept]}…({len(safe) - 2 * kept} more)…{safe[-kept:]}"


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if character == "\n":
        return "\\n"
    if character == " " or unicodedata.category(character) not in _UNSEEN:
        return character
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number of things in words.

    >>> counted(1, "file"), counted(2000, "file"), counted(0, "index", "indices")
    ('1 file', '2,000 files', '0 indices')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def byte_size(size: float) -> str:
    """Return a number of bytes as people read it, in binary units.

    >>> byte_size(512), byte_size(1536), byte_size(64 << 20)
    ('512 B', '1.5 KiB', '64.0 MiB')
    """
    amount = float(size)
    for unit in _UNITS:
        if abs(amount) < 1024 or unit == _UNITS[-1]:
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def size_words(size: float) -> str:
    """Return bytes in decimal units, as disks and networks are rated, in at most 7 characters up to 999 EB.

    >>> size_words(1_600_128_000), size_words(999), size_words(999_600), size_words(0.4)
    ('1.60 GB', '999 B', '1.00 MB', '0 B')
    """
    unit, factor = size_unit(size)
    return f"{digits(size / factor) if factor > 1 else f'{size:.0f}'} {unit}"


def size_unit(size: float) -> tuple[str, int]:
    """Return the decimal unit that a number of bytes is told in, and its bytes."""
    return next((each for each in _SIZE_UNITS if size / each[1] < 999.5), _SIZE_UNITS[-1])


def digits(amount: float) -> str:
    """Return a number below 999.5 in three digits or less."""
    if amount == 0:
        return "0"
    return next((text for places in (2, 1) if len(text := f"{amount:.{places}f}") <= 4), f"{amount:.0f}")


def exact_byte_size(size: int) -> str:
    """Return a number of bytes so that ``parse_byte_size`` gives it back: in the largest unit without a fraction.

    >>> exact_byte_size(512 << 20), exact_byte_size(1536), exact_byte_size(1_000_000)
    ('512MiB', '1536', '1000000')
    """
    for power in range(len(_UNITS) - 1, 0, -1):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{_UNITS[power]}"
    return str(size)


def time_words(seconds: float) -> str:
    """Return a time as people say it.

    >>> time_words(0.42), time_words(75), time_words(7322), time_words(200_000)
    ('0.4 s', '1 min 15 s', '2 h 02 min', '2 d 07 h')
    """
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} d {hours % 24:02} h"


def parse_byte_size(text: str) -> int:
    """Return the bytes that a size such as ``512MiB``, ``2GB`` or ``65536`` stands for.

    Raises:
        ValueError: The text is no size.

    >>> parse_byte_size("64MiB"), parse_byte_size("1.5 kB"), parse_byte_size("4096")
    (67108864, 1500, 4096)
    """
    squeezed = text.strip().replace(" ", "").lower()
    digits = squeezed.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = squeezed[len(digits) :]
    factors = {"": 1, "b": 1}
    for power, letter in enumerate("kmgtp", start=1):
        factors[f"{letter}ib"] = 1024**power
        factors[f"{letter}b"] = 1000**power
        factors[letter] = 1024**power
    try:
        size = int(digits) * factors[unit] if digits.isdecimal() else int(float(digits) * factors[unit])
    except (KeyError, ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a size; write it like 512MiB, 2GB or 65536") from None
    if size <= 0:
        raise ValueError(f"{text!r} is not a positive size")
    return size


def parse_seconds(text: str) -> float:
    """Return the seconds that a time such as ``90s``, ``12h`` or ``7d`` stands for.

    Raises:
        ValueError: The text is no time.

    >>> parse_seconds("90s"), parse_seconds("1.5 h"), parse_seconds("7d")
    (90.0, 5400.0, 604800.0)
    """
    squeezed = text.strip().replace(" ", "").lower()
    factors = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
    digits = squeezed.rstrip("abcdefghijklmnopqrstuvwxyz")
    try:
        seconds = float(digits) * factors[squeezed[len(digits) :]]
    except (KeyError, ValueError):
        seconds = -1.0
    if not 0 <= seconds < 1e12:
        raise ValueError("must be a time such as 30min, 12h or 7d")
    return seconds
