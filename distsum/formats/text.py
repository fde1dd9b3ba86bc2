r"""Text: decimal numbers between white space and commas.

The grammar:

- Numbers are separated by white space (space, tab, vertical tab, form feed, LF, CR), by one comma, or by both. Rows and
  columns mean nothing: numbers are taken in the order in which they stand.
- Two commas with nothing but white space between them, or a comma before the first number, leave a field empty. That is
  missing data, and refused. One comma after the last number of a line or of the file is allowed.
- ``#`` begins a comment, which ends with the line (LF or CR). A UTF-8 byte order mark may begin the file.
- A number is what Python's ``float`` takes, without underscores: ``-1.5e-3``, ``+2``, ``.5``, ``5.``, ``007``, ``nan``,
  ``Infinity``. It becomes the nearest float64, to the same bits as ``float`` gives: ``1e400`` is inf, ``-0`` is -0.0.
- A line ends with LF (so also with CR LF), which matters only for the line numbers of messages.
- A number may have up to 128 KiB of digits.

How it is parsed: as a JSON array of numbers, which is the decimal text with the fastest correct parser (simdjson:
Langdale and Lemire, "Parsing Gigabytes of JSON per Second", 2019; Lemire, "Number Parsing at a Gigabyte per Second",
2021). Numbers that JSON would write otherwise are parsed one by one with ``float``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from distsum import dtypes
from distsum.errors import BadInputError, OutputError
from distsum.formats.base import Layout, refuse_dtype
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    from distsum.formats.base import Source

    Numbers = npt.NDArray[np.float64]
    Bytes = npt.NDArray[np.uint8]

PIECE_BYTES: Final = 128 << 10
"""Text that is parsed at once: what it is turned into on the way stays in the CPU's cache."""
_LAYOUT_BUFFER_BYTES: Final = 1 << 20
_TAIL_BYTES: Final = 256
"""Where the last separator of a piece is looked for first."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_TO_BLANKS: Final = bytes.maketrans(b"\t\n\v\f\r,", b"      ")
_TOKEN: Final = re.compile(rb"[^ \t\n\v\f\r,]+|,")
_EMPTY_FIELD: Final = re.compile(rb",[ \t\n\v\f\r]*,")
_COMMENT: Final = re.compile(rb"#[^\r\n]*")
_LONG_NUMBER: Final = re.compile(rb"\[\s*-?[1-9.][\d.]{19}")
"""A first number of 19 digits, as ``%.18e`` writes them: simdjson parses these at a fifth of its speed, msgspec at a
half. The first is taken to be like the rest; the numbers are the same either way."""
_LINE_END: Final = re.compile(rb"[\r\n]")

_WIDTHS: Final = {
    "b1": "%1d",
    "i1": "%4d",
    "i2": "%6d",
    "i4": "%11d",
    "i8": "%20d",
    "u1": "%3d",
    "u2": "%5d",
    "u4": "%10d",
    "u8": "%20d",
    # As many digits as tell any two numbers apart, and room for the longest exponent.
    "f2": "%11.4e",
    "f4": "%15.8e",
    "f8": "%24.16e",
}
"""How a number of each dtype is written: always as wide, so that it is known where each one lies."""


class TextFormat:
    """Decimal numbers as text. See ``Format``, and this module for the grammar."""

    name = "text"
    suffixes: tuple[str, ...] = (".txt", ".csv", ".dat", ".text")
    ranged = False
    parse_bytes = 10 << 20
    """Measured at up to 8 MiB for pieces of 128 KiB: tape and index of simdjson take about 2, and the most words that
    a piece can hold, as Python objects, about 4."""

    def layout(self, source: Source, dtype: str | None) -> Layout:
        refuse_dtype(source, dtype)
        buffer = memoryview(bytearray(min(_LAYOUT_BUFFER_BYTES, source.size + 1)))
        count = sum(len(numbers) for numbers in _numbers(source, buffer))
        return Layout(dtype=dtypes.parse_dtype("f8"), shape=(count,))

    def blocks(self, source: Source, layout: Layout, buffer: memoryview) -> Iterator[Numbers]:
        count = 0
        for numbers in _numbers(source, buffer):
            count += len(numbers)
            if count > layout.count:
                raise BadInputError(source.uri, f"holds at least {count} numbers, where {layout.count} are expected")
            yield numbers
        if count < layout.count:
            raise BadInputError(source.uri, f"holds {count} numbers, where {layout.count} are expected")

    def header(self, dtype: str, shape: tuple[int, ...], *, fortran: bool) -> bytes:
        _width(dtype)
        return b""

    def number_bytes(self, dtype: str) -> int:
        return len(_width(dtype) % 0) + 1

    def encode(self, values: npt.NDArray[np.generic]) -> bytes | memoryview:
        line = _width(values.dtype.str) + "\n"
        return (line * len(values) % tuple(values.tolist())).encode("ascii")


def _width(dtype: str) -> str:
    found = _WIDTHS.get(dtype[1:])
    if found is None:
        raise OutputError(f"a text file cannot hold {dtype} numbers; write .npy or .raw")
    return found


# Cutting a file into texts --------------------------------------------------------------------------------------------


def _texts(source: Source, buffer: memoryview) -> Iterator[tuple[int, bytes]]:
    """Yield the input in order as texts without comments that begin and end between words.

    With each comes its first byte's position in the input. A word is never cut: what follows the last separator waits
    for the bytes after it. So a word may be as long as a piece, wherever it lies, and no longer.
    """
    piece_bytes = min(PIECE_BYTES, len(buffer))
    base = filled = 0  # where the buffer lies in the input, and how much of it is filled
    in_comment = ended = False
    while not ended:
        wanted = min(len(buffer) - filled, source.size - base - filled)
        got = source.read_into([buffer[filled : filled + wanted]], base + filled) if wanted else 0
        filled += got
        ended = got < wanted or base + filled >= source.size
        start = len(_BYTE_ORDER_MARK) if not base and bytes(buffer[: min(3, filled)]) == _BYTE_ORDER_MARK else 0
        while start < filled and (ended or filled - start >= piece_bytes):
            piece = buffer[start : min(start + piece_bytes, filled)]
            if in_comment:
                line_end = _LINE_END.search(piece)
                start += line_end.start() if line_end else len(piece)
                in_comment = line_end is None
                continue
            cut = _last_cut(piece)
            if not cut and len(piece) == piece_bytes:
                # Only a comment may be this long; it need not be kept, nor what it holds be looked at.
                cut = piece_bytes
                if b"#" not in bytes(piece):
                    raise _too_long(source, base + start, buffer, bytes(piece[:100]), piece_bytes)
            if ended and start + len(piece) == filled:
                cut = len(piece)
            text = bytes(piece[:cut])
            if b"#" in text:
                last_line = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
                in_comment = b"#" in text[last_line:]
                text = _COMMENT.sub(b"", text)
            yield base + start, text
            start += cut
        buffer[: filled - start] = buffer[start:filled]
        base += start
        filled -= start


def _last_cut(piece: memoryview) -> int:
    """Return how many bytes there are up to the end of the last separator; 0 if there is none."""
    for size in (_TAIL_BYTES, len(piece)):
        tail = bytes(piece[-size:])
        place = tail.translate(_TO_BLANKS).rfind(b" ")
        if place >= 0:
            return len(piece) - len(tail) + place + 1
    return 0


def _too_long(source: Source, place: int, buffer: memoryview, word: bytes, most: int) -> BadInputError:
    line = _line_ends(source, place, buffer) + 1
    shown = printable(word, 60)
    return BadInputError(source.uri, f"line {line}: '{shown}…' is longer than {most} bytes, and no number is")


def _line_ends(source: Source, stop: int, buffer: memoryview) -> int:
    """Return how many lines end before a position. The input is read once more, so that only errors cost this."""
    count = place = 0
    while place < stop:
        piece = buffer[: min(PIECE_BYTES, len(buffer), stop - place)]
        got = source.read_into([piece], place)
        if not got:
            break
        count += bytes(piece[:got]).count(b"\n")
        place += got
    return count


# Turning texts into numbers -------------------------------------------------------------------------------------------


def _numbers(source: Source, buffer: memoryview) -> Iterator[Numbers]:
    """Yield all numbers of the input in order, in arrays of any length but 0."""
    parser: _Parser | None = None
    after_comma = True  # as the field before the first comma would be empty if the file began with one
    for place, text in _texts(source, buffer):
        fields = text.strip()
        if fields.startswith(b",") and not after_comma:
            fields = fields[1:].lstrip()
            after_comma = True
        if not fields:
            continue
        parser = parser or _Parser()
        numbers = None if fields.startswith(b",") else parser.parse(fields)
        if numbers is None:
            at, reason = _first_fault(fields)
            before = text.rstrip()[: -len(fields)] + fields[:at]
            line = _line_ends(source, place, buffer) + before.count(b"\n") + 1
            raise BadInputError(source.uri, f"line {line}: {reason}")
        after_comma = fields.endswith(b",")
        yield numbers


def _first_fault(fields: bytes) -> tuple[int, str]:
    """Return where a text that cannot be parsed goes wrong first, and how."""
    after_comma = True
    for token in _TOKEN.finditer(fields):
        word = token.group()
        if word == b",":
            if after_comma:
                return token.start(), "a comma with no number before it; an empty field is missing data"
            after_comma = True
            continue
        after_comma = False
        try:
            number = None if b"_" in word else float(word)
        except ValueError:
            number = None
        if number is None:
            return token.start(), f"'{printable(word, 60)}' is not a number"
    raise AssertionError(fields)


class _Parser:
    """Turns texts of complete fields into numbers, with the memory it needs for that kept from one to the next."""

    def __init__(self) -> None:
        import numpy as np

        self._json = _JsonNumbers()
        self._separators = np.empty(PIECE_BYTES, np.bool_)
        self._chosen = np.empty(PIECE_BYTES, np.bool_)
        self._change = np.empty(PIECE_BYTES, np.uint8)
        self._document = np.empty(PIECE_BYTES + 2, np.uint8)
        # What the text before this one was like, which is tried first. It changes the time taken, never the numbers.
        self._one_a_gap = True
        self._odd_words = False

    def parse(self, fields: bytes) -> Numbers | None:
        """Return the numbers of a text that begins with a word; None if it holds anything else.

        All ways to parse give the same numbers; each takes more texts than the one before, and more time.
        """
        # Brackets are the only thing that the JSON parser would take, and flatten, without telling.
        if b"[" not in fields:
            if self._one_a_gap:
                numbers = self._parse_json(self._lines_as_json(fields))
                if numbers is not None:
                    return numbers
                self._one_a_gap = False
            numbers = self._parse_json(self._as_json(fields))
            if numbers is not None:
                return numbers
        return self._parse_words(fields)

    def _lines_as_json(self, fields: bytes) -> Bytes:
        """Return a text as a JSON array, where each gap between words holds either one LF or one comma."""
        import numpy as np

        text = np.frombuffer(fields, np.uint8)
        line_ends = self._chosen[: len(text)]
        change = line_ends.view(np.uint8)
        np.equal(text, 10, out=line_ends)
        # A sum instead of a choice: sums run on vectors, `np.where` does not.
        np.multiply(change, 34, out=change)
        document = self._document[: len(text) + 2]
        np.add(text, change, out=document[1:-1])
        document[0], document[-1] = b"[]"
        return document

    def _as_json(self, fields: bytes) -> Bytes:
        """Return a text as a JSON array: the first character of each run of separators becomes its comma.

        The rest of a run stays: white space is nothing to JSON, and a second comma is an error there as here.
        """
        import numpy as np

        text = np.frombuffer(fields.removesuffix(b",").rstrip(), np.uint8)
        size = len(text)
        separators, chosen, change = self._separators[:size], self._chosen[:size], self._change[:size]
        np.subtract(text, 9, out=change)  # below 9 wraps around, so that only 9 to 13 become less than 5
        np.less(change, 5, out=separators)
        np.equal(text, 32, out=chosen)
        np.bitwise_or(separators, chosen, out=separators)
        if b"," in fields:
            np.equal(text, 44, out=chosen)
            np.bitwise_or(separators, chosen, out=separators)
        chosen[0] = False
        np.greater(separators[1:], separators[:-1], out=chosen[1:])
        np.subtract(44, text, out=change)
        np.multiply(change, chosen.view(np.uint8), out=change)
        document = self._document[: size + 2]
        np.add(text, change, out=document[1:-1])
        document[0], document[-1] = b"[]"
        return document

    def _parse_json(self, document: Bytes) -> Numbers | None:
        numbers = None if self._odd_words else self._parse_plain(document)
        if numbers is None:
            places = self._odd_places(document)
            if len(places):
                numbers = self._parse_odd(document, places)
            elif self._odd_words:
                numbers = self._parse_plain(document)
            self._odd_words = len(places) > 0
        return numbers

    def _parse_plain(self, document: Bytes) -> Numbers | None:
        numbers = self._json.parse(document)
        # JSON's -0 is an integer, and loses its sign.
        return None if numbers is None or (not numbers.all() and self._integer_zeros(document).any()) else numbers

    def _odd_places(self, document: Bytes) -> npt.NDArray[np.intp]:
        """Return where letters stand that JSON's numbers don't have, and every ``-0`` without more digits."""
        import numpy as np

        odd = np.greater(np.bitwise_or(document, 32), 101)  # beyond e and E, in either case
        odd[0] = odd[-1] = False  # the brackets
        odd[1:-2] |= self._integer_zeros(document)
        return np.flatnonzero(odd)

    def _parse_odd(self, document: Bytes, places: npt.NDArray[np.intp]) -> Numbers | None:
        """Parse the words at some places with ``float``, and the others as JSON; None if those words are many."""
        import numpy as np

        commas = np.flatnonzero(np.equal(document, 44))
        words = np.searchsorted(commas, places)
        words = words[np.diff(words, prepend=-1) > 0]
        text = document.tobytes()
        if len(words) * 4 > len(commas) or b"_" in text:
            return None
        edges = np.concatenate(([0], commas, [len(document) - 1]))
        first, last = edges[words] + 1, edges[words + 1]
        try:
            values = [float(text[start:stop]) for start, stop in zip(first.tolist(), last.tolist(), strict=True)]
        except ValueError:
            return None
        # Each becomes a 0 and blanks, all at once: these are the places of all their bytes.
        lengths = last - first
        shifts = first - np.cumsum(lengths) + lengths
        document[np.repeat(shifts, lengths) + np.arange(lengths.sum())] = 32
        document[first] = 48
        numbers = self._json.parse(document)
        if numbers is None:
            return None
        numbers[words] = values
        return numbers

    def _integer_zeros(self, document: Bytes) -> npt.NDArray[np.bool_]:
        """Return for every byte within the brackets, but the last, whether a word ``-0`` begins there."""
        import numpy as np

        zeros: npt.NDArray[np.bool_] = np.equal(document[1:-2], 45)
        zeros &= np.equal(document[2:-1], 48)
        # White space, comma and closing bracket; not a digit, a point or an exponent.
        zeros &= np.less(document[3:], 45) | np.equal(document[3:], 93)
        return zeros

    def _parse_words(self, fields: bytes) -> Numbers | None:
        """Parse each word with ``float``."""
        import numpy as np

        if b"_" in fields or _EMPTY_FIELD.search(fields):
            return None
        words = fields.translate(_TO_BLANKS).split()
        try:
            return np.fromiter(map(float, words), np.float64, len(words))
        except ValueError:
            return None


class _JsonNumbers:
    """The parsers of JSON, narrowed to arrays of numbers. A nested array comes out flat, or is refused."""

    def __init__(self) -> None:
        import msgspec
        import simdjson

        self._parser = simdjson.Parser()
        self._decoder = msgspec.json.Decoder(list[float])

    def parse(self, document: Bytes) -> Numbers | None:
        """Return a JSON array's numbers; None if it is no array of numbers that float64 holds."""
        import msgspec
        import numpy as np
        import simdjson

        data = document.data
        try:
            if _LONG_NUMBER.match(data):
                return np.array(self._decoder.decode(data), np.float64)
            # The parser refuses its next document while anything refers to this one, so the array must not leave here.
            array = self._parser.parse(data)
            buffer = array.as_buffer(of_type="d") if isinstance(array, simdjson.Array) else b""
            return np.frombuffer(buffer, np.float64)
        except (ValueError, TypeError, RuntimeError, msgspec.DecodeError):
            return None
