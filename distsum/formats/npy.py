"""npy, numpy's own format for one array.

Source: "A simple file format for NumPy arrays" in numpy's reference (``numpy.lib.format``), versions 1.0, 2.0 and 3.0:
a magic string, a length, a Python dictionary as text, then the numbers.

The dictionary is read by a small grammar of ours, not by Python's parser, which deep nesting can bring down: a header
that can be accepted is a flat dictionary of a string, a bool and a tuple of whole numbers.
"""

from __future__ import annotations

import math
import re
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from distsum import dtypes
from distsum.errors import BadInputError
from distsum.formats.base import HEAD_BYTES, Layout, RangedFormat, refuse_dtype
from distsum.wording import printable

if TYPE_CHECKING:
    from distsum.formats.base import Source

_MAGIC: Final = b"\x93NUMPY"
_LENGTHS: Final = {(1, 0): ("<H", "latin-1"), (2, 0): ("<I", "latin-1"), (3, 0): ("<I", "utf-8")}
"""Format of the header's length, and the header's encoding, by version."""
_FIRST_READ_BYTES: Final = 1024
"""Holds every header that numpy writes for an array that can be accepted, so that one read is enough."""
_MOST_DIMENSIONS: Final = 64
"""Dimensions of a numpy array, at the most (``NPY_MAXDIMS``)."""
_ALIGNMENT: Final = 64
_GROWTH_DIGITS: Final = 21
"""Digits that numpy leaves room for in the header, so that the array can grow along its slowest axis."""

_ENTRY: Final = re.compile(
    r"""\s*(['"])(?P<key>[^'"\\]*)\1\s*:\s*"""
    r"""(?:(['"])(?P<text>[^'"\\]*)\3|(?P<flag>True|False)|\((?P<lengths>[^()\[\]{}]*)\)|(?P<other>[^\s,}][^,}]*))"""
    r"""\s*(?:,|(?=\}))""",
    re.ASCII,
)
_CLOSE: Final = re.compile(r"\s*\}\s*", re.ASCII)
_LENGTH: Final = re.compile(r"\s*(\d{1,19})L?\s*", re.ASCII)  # Python 2 wrote long integers as 3L
_DESCR: Final = re.compile(r"[<>|=]?[biufc]\d{1,2}", re.ASCII)
"""What writers put into headers; a bare letter or a name means something else to numpy than to a user."""
_KEYS: Final = ("descr", "fortran_order", "shape")
_REFUSED_KINDS: Final = {
    "O": "Python objects, which are never unpickled",
    "M": "dates",
    "m": "time spans",
    "S": "text",
    "a": "text",
    "U": "text",
    "T": "text",
    "V": "untyped records",
    "f": "floats of an unsupported size",
    "g": "extended-precision floats",
    "G": "extended-precision complex numbers",
    "c": "complex numbers of an unsupported size",
}


class NpyFormat(RangedFormat):
    """numpy's ``.npy`` files. See ``Format``."""

    name = "npy"
    suffixes: tuple[str, ...] = (".npy",)

    def layout(self, source: Source, dtype: str | None) -> Layout:
        refuse_dtype(source, dtype)
        header, text = _read_header(source)
        entries = _parse_header(source.uri, text)
        layout = Layout(
            dtype=_dtype(source.uri, entries["descr"]),
            shape=_shape(source.uri, entries["shape"]),
            fortran=entries["fortran_order"] == "True",
            offset=len(header),
            header=header,
        )
        found = source.size - layout.offset
        if found != layout.data_bytes:
            what = "was cut short" if found < layout.data_bytes else "has bytes after its last number"
            raise BadInputError(
                source.uri,
                f"{what}: its header declares shape {printable(str(layout.shape), 80)} of {layout.dtype}, which is "
                f"{printable(str(layout.data_bytes), 40)} bytes, and {found} follow",
            )
        return layout

    def header(self, dtype: str, shape: tuple[int, ...], *, fortran: bool) -> bytes:
        """Return the header that ``numpy.save`` writes for such an array, to the byte.

        It is always version 1.0: its limit of 64 KiB is far beyond what the dimensions of an array can take.
        """
        # numpy calls an array that is contiguous either way C-ordered.
        fortran = fortran and sum(length != 1 for length in shape) > 1 and math.prod(shape) > 0
        text = f"{{'descr': {dtype!r}, 'fortran_order': {fortran}, 'shape': {shape!r}, }}"
        if shape:
            text += " " * (_GROWTH_DIGITS - len(repr(shape[-1 if fortran else 0])))
        bare = len(_MAGIC) + 4 + len(text) + 1
        text += " " * (_ALIGNMENT - bare % _ALIGNMENT) + "\n"
        return _MAGIC + b"\x01\x00" + struct.pack("<H", len(text)) + text.encode("latin-1")


def _read_header(source: Source) -> tuple[bytes, str]:
    """Return all bytes before the first number, and the dictionary among them as text."""
    head = _read(source, 0, _FIRST_READ_BYTES)
    if not head.startswith(_MAGIC):
        raise BadInputError(source.uri, _no_magic(head))
    version = (head[6], head[7]) if len(head) >= 8 else (1, 0)
    if version not in _LENGTHS:
        raise BadInputError(
            source.uri, f"is npy version {version[0]}.{version[1]}; accepted are versions 1.0, 2.0 and 3.0"
        )
    length_format, encoding = _LENGTHS[version]
    start = 8 + struct.calcsize(length_format)
    if len(head) < start:
        raise BadInputError(source.uri, f"was cut short: it has {len(head)} bytes, and ends inside the npy header")
    stop = start + int(struct.unpack_from(length_format, head, 8)[0])
    if stop > HEAD_BYTES:
        raise BadInputError(
            source.uri,
            f"its npy header declares {stop} bytes, and at most {HEAD_BYTES} are read; "
            "such headers belong to structured arrays: save each field as an array of its own",
        )
    if stop > len(head):
        head += _read(source, len(head), stop - len(head))
    if len(head) < stop:
        raise BadInputError(source.uri, f"was cut short: it has {len(head)} bytes, and its npy header declares {stop}")
    try:
        return head[:stop], head[start:stop].decode(encoding)
    except UnicodeDecodeError:
        raise BadInputError(source.uri, f"its npy header is not {encoding} text; the file is damaged") from None


def _read(source: Source, offset: int, size: int) -> bytes:
    buffer = bytearray(min(size, source.size - offset))
    return bytes(buffer[: source.read_into([memoryview(buffer)], offset)])


def _no_magic(head: bytes) -> str:
    if head.startswith(b"PK\x03\x04"):
        return "is a zip archive, as .npz files are; save each of its arrays as an .npy file"
    if not head:
        return "is empty, where an .npy file has a header"
    if _MAGIC.startswith(head):
        return f"was cut short: it has {len(head)} bytes, and ends inside the npy header"
    return (
        f"begins with '{printable(head[:6])}', where an .npy file begins with '{printable(_MAGIC)}'; "
        "if it is in another format, say so with --format"
    )


def _parse_header(uri: bytes, text: str) -> dict[str, str]:
    """Return the three entries, each as the text of its value: the dtype, ``True`` or ``False``, the lengths."""
    kinds = dict(zip(_KEYS, ("text", "flag", "lengths"), strict=True))
    entries: dict[str, str] = {}
    place = text.find("{") + 1
    if not place or text[: place - 1].strip(" "):
        raise _damaged(uri, "no dictionary", text)
    while not (end := _CLOSE.match(text, place)):
        entry = _ENTRY.match(text, place)
        if not entry:
            raise _damaged(uri, "no entry of a dictionary", text[place:])
        key, kind = entry["key"], entry.lastgroup
        if key == "descr" and kind in {"lengths", "other"}:
            raise BadInputError(
                uri, f"holds records of several fields or sub-arrays; accepted are {dtypes.ACCEPTED}, one per item"
            )
        if key in entries or kind is None or kinds.get(key) != kind:
            raise _damaged(uri, "an unexpected entry", entry.group().strip())
        entries[key] = entry[kind]
        place = entry.end()
    if end.end() != len(text):
        raise _damaged(uri, "more text after the dictionary", text[end.end() :])
    missing = [key for key in _KEYS if key not in entries]
    if missing:
        raise _damaged(uri, f"no {' and no '.join(missing)}", text)
    return entries


def _damaged(uri: bytes, what: str, where: str) -> BadInputError:
    return BadInputError(
        uri,
        f"its npy header is damaged: there is {what} in '{printable(where, 100)}', where only descr, "
        "fortran_order and shape are expected",
    )


def _dtype(uri: bytes, descr: str) -> str:
    if _DESCR.fullmatch(descr):
        with suppress(ValueError):
            return dtypes.parse_dtype(descr)
    what = _REFUSED_KINDS.get(descr.lstrip("<>|=")[:1], "items of an unknown kind")
    raise BadInputError(uri, f"holds {what} (dtype '{printable(descr, 60)}'); accepted are {dtypes.ACCEPTED}")


def _shape(uri: bytes, lengths: str) -> tuple[int, ...]:
    parts = lengths.split(",")
    trailing_comma = not parts[-1].strip(" ")
    matches = [_LENGTH.fullmatch(part) for part in (parts[:-1] if trailing_comma else parts)]
    shape = tuple(int(match[1]) for match in matches if match)
    is_tuple = trailing_comma or len(parts) > 1
    if len(shape) < len(matches) or not is_tuple or len(shape) > _MOST_DIMENSIONS:
        raise BadInputError(
            uri,
            f"its npy header declares shape ({printable(lengths, 80)}), where a tuple of at most {_MOST_DIMENSIONS} "
            "whole numbers, none below 0, is expected; the file is damaged",
        )
    return shape
