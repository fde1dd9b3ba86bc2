"""Which dtypes are accepted, and what they are accumulated in (pure, without numpy).

A dtype is written as numpy's ``dtype.str``: byte order, kind, bytes per item, as in ``<f8`` or ``|b1``. The process
that plans needs only this text, so that it need not import numpy.
"""

import sys
from typing import Final

_SIZES: Final = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8), "c": (8, 16)}
_NAMES: Final = {
    "bool": "|b1",
    "half": "f2",
    "single": "f4",
    "float": "f8",
    "double": "f8",
    "int": "i8",
    "complex": "c16",
} | {
    f"{word}{8 * size}": f"{kind}{size}"
    for word, kind in (("int", "i"), ("uint", "u"), ("float", "f"), ("complex", "c"))
    for size in _SIZES[kind]
}
ACCEPTED: Final = "bool, integers of 8 to 64 bits, floats of 16 to 64 bits, complex64 and complex128"


def parse_dtype(text: str) -> str:
    """Return a dtype as numpy's ``dtype.str``; native byte order where none is given.

    Args:
        text: For example ``f8``, ``<i4``, ``>u2``, ``float32`` or ``bool``.

    Raises:
        ValueError: The dtype is unknown, or not one that can be reduced.

    >>> parse_dtype("f8") in ("<f8", ">f8"), parse_dtype(">i4"), parse_dtype("bool"), parse_dtype("u1")
    (True, '>i4', '|b1', '|u1')
    """
    word = _NAMES.get(text, text)
    order = word[:1] if word[:1] in "<>|=" else "="
    body = word[1:] if word[:1] in "<>|=" else word
    kind, digits = body[:1], body[1:]
    sizes = _SIZES.get(kind, ())
    if kind == "b" and digits in {"", "1"}:
        return "|b1"
    if not digits.isascii() or not digits.isdigit() or int(digits) not in sizes:
        raise ValueError(f"dtype {text!r} cannot be reduced; accepted are {ACCEPTED}")
    size = int(digits)
    if size == 1:
        return f"|{kind}1"
    native = "<" if sys.byteorder == "little" else ">"
    return f"{native if order in '=|' else order}{kind}{size}"


def short_name(dtype: str) -> str:
    """Return what people call a dtype in ``dtype.str`` form: its kind and bits, whatever its byte order.

    What is no such dtype is returned as it is.

    >>> [short_name(dtype) for dtype in ("<f8", ">i2", "|u1", "|b1", "<c16", "odd")]
    ['f64', 'i16', 'u8', 'bool', 'c128', 'odd']
    """
    kind, digits = dtype[1:2], dtype[2:]
    if dtype[:1] not in {"<", ">", "|"} or digits not in map(str, _SIZES.get(kind, ())):
        return dtype
    return "bool" if kind == "b" else f"{kind}{8 * int(digits)}"


def itemsize(dtype: str) -> int:
    """Return the bytes of one number of a dtype in ``dtype.str`` form.

    >>> itemsize("<f8"), itemsize("|b1"), itemsize(">c16")
    (8, 1, 16)
    """
    return int(dtype[2:])


def kind(dtype: str) -> str:
    """Return numpy's kind letter: ``b``, ``i``, ``u``, ``f`` or ``c``."""
    return dtype[1]


def accumulator(dtype: str) -> str:
    """Return the floating dtype that numbers are added in: float64 for real ones, complex128 for complex ones.

    >>> accumulator("|u1") == parse_dtype("f8"), accumulator(">c8") == parse_dtype("c16")
    (True, True)
    """
    return parse_dtype("c16" if kind(dtype) == "c" else "f8")


def widest_integer(dtype: str) -> str:
    """Return the 64-bit integer dtype that holds every number of an integer or bool dtype.

    >>> widest_integer("|u1") == parse_dtype("u8"), widest_integer("|b1") == parse_dtype("i8")
    (True, True)
    """
    return parse_dtype("u8" if kind(dtype) == "u" else "i8")
