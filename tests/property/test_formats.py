"""Laws of the formats: for all bytes, for all texts, for all numbers."""

from __future__ import annotations

import io
import re
import struct
import tracemalloc
import warnings

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from distsum.errors import BadInputError
from distsum.formats.base import HEAD_BYTES, Layout
from distsum.formats.npy import NpyFormat
from distsum.formats.raw import RawFormat
from distsum.formats.text import TextFormat, _Parser
from distsum.wording import printable
from tests.sources import MemorySource

NPY = NpyFormat()
TEXT = TextFormat()
UNKNOWN = Layout("<f8", (1 << 62,))
"""A layout of more numbers than any text here holds."""

BLANKS = st.text(" \t\v\f\r\n", max_size=4)
COMMENTS = st.builds("#{}{}".format, st.text("# ,x1\t", max_size=20), st.sampled_from(["\n", "\r", "\r\n"]))
GAPS = st.one_of(
    st.sampled_from(["\n", " ", ",", "\r\n", "\t", ", ", " ,", ",\n"]),
    st.builds("{}{}{}".format, BLANKS, st.sampled_from([" ", ",", "\n"]), BLANKS),
    st.builds(" {}".format, COMMENTS),
)
FLOATS = st.floats(allow_nan=False)
WORDS = st.one_of(
    FLOATS.map(repr),
    st.builds("{:.18e}".format, FLOATS),
    st.builds("{:+.16e}".format, FLOATS),
    st.builds("{:.0f}".format, st.floats(-1e22, 1e22)),
    st.integers(-(10**25), 10**25).map(str),
    st.sampled_from(
        ["0", "-0", "-0.0", "nan", "NaN", "-nan", "inf", "-Infinity", ".5", "5.", "007", "+1", "1e400", "-1e-400"]
    ),
    st.from_regex(r"\A[-+]?[0-9]{1,24}(\.[0-9]{0,24})?([eE][-+]?[0-9]{1,3})?\Z", fullmatch=False),
)
FAULTY = st.one_of(
    st.sampled_from(
        ["x", "1_0", "-", "[1]", '"1"', "null", "true", "{}", "nan_", "1e", "0x1", "1nan", "--1", "\x00", "\x08", "é"]
    ),
    st.text("0123456789.+-eE_nainf[]{}\":x'\x00\x0e\x85", min_size=1, max_size=12),
)


def alternating(words, gaps):
    return "".join(part for pair in zip(words, gaps, strict=False) for part in pair)


TEXTS = st.builds(alternating, st.lists(WORDS, max_size=60), st.lists(GAPS, min_size=60, max_size=60))
FAULTY_TEXTS = st.one_of(
    st.builds(
        "{}{}{}{}{}".format,
        TEXTS,
        FAULTY,
        GAPS,
        st.one_of(TEXTS, st.just("1 " * 50)),
        st.one_of(GAPS, FAULTY, st.just("")),
    ),
    st.text('01.5+-e,# \n\r\tnaif_[]"', max_size=60),
)


def expected(data):
    """Read a text by the letter of the grammar: its numbers, or the reason why it holds none."""
    text = re.sub(rb"#[^\r\n]*", b"", data.removeprefix(b"\xef\xbb\xbf"))
    numbers, line, after_comma = [], 1, True
    for token in re.findall(rb"\n|,|[^ \t\n\v\f\r,]+", text):
        if token == b"\n":
            line += 1
        elif token == b",":
            if after_comma:
                return f"line {line}: a comma with no number before it; an empty field is missing data"
            after_comma = True
        else:
            after_comma = False
            try:
                numbers.append(struct.pack("<d", float(token.replace(b"_", b"x"))))
            except ValueError:
                return f"line {line}: '{printable(token, 60)}' is not a number"
    return numbers


def found(data, buffer_bytes):
    source = MemorySource(data)
    numbers = []
    try:
        for block in TEXT.blocks(source, UNKNOWN, memoryview(bytearray(buffer_bytes))):
            numbers.extend(struct.pack("<d", value) for value in block.tolist())
    except BadInputError as error:
        return numbers if error.reason.endswith(f"where {UNKNOWN.count} are expected") else error.reason
    raise AssertionError(numbers)


@given(text=TEXTS, buffer_bytes=st.integers(800, 4000))
def test_a_text_holds_the_numbers_that_float_reads_in_it(text, buffer_bytes):
    data = text.encode()
    numbers = expected(data)
    if isinstance(numbers, list):
        assert TEXT.layout(MemorySource(data), None).count == len(numbers)
    assert found(data, buffer_bytes) == numbers


@given(text=FAULTY_TEXTS, buffer_bytes=st.integers(800, 4000))
def test_any_text_gives_its_numbers_or_its_first_fault(text, buffer_bytes):
    data = text.encode()
    assert found(data, buffer_bytes) == expected(data)


@given(data=st.binary(max_size=200))
def test_any_bytes_give_the_numbers_or_the_fault_that_the_grammar_says(data):
    assert found(data, 1000) == expected(data)


@given(words=st.lists(st.one_of(WORDS.filter(lambda word: len(word) < 40), st.just("1.5")), max_size=12), gap=GAPS)
def test_where_a_text_is_cut_changes_nothing(words, gap):
    data = gap.join(words).encode()
    numbers = expected(data)
    for buffer_bytes in range(41, 41 + len(data)):
        assert found(data, buffer_bytes) == numbers


@given(before=TEXTS, text=TEXTS)
def test_what_came_before_changes_nothing(before, text):
    fields = re.sub(rb"#[^\r\n]*", b"", text.encode()).strip()
    assume(fields and not fields.startswith(b","))
    used, fresh = _Parser(), _Parser()
    first = re.sub(rb"#[^\r\n]*", b"", before.encode()).strip()
    if first and not first.startswith(b","):
        used.parse(first)
    one, other, slow = used.parse(fields), fresh.parse(fields), fresh._parse_words(fields)
    if slow is None:
        assert one is None
        assert other is None
    else:
        assert one.tobytes() == other.tobytes() == slow.tobytes()


@given(word=st.one_of(WORDS, st.floats(allow_nan=False).map(repr)), count=st.integers(1, 50))
def test_every_way_to_parse_gives_the_same_bits(word, count):
    fields = b"\n".join([word.encode()] * count)
    parser = _Parser()
    bits = struct.pack("<d", float(word)) * count
    assert parser.parse(fields).tobytes() == bits
    assert parser._parse_words(fields).tobytes() == bits
    parser._odd_words = True
    assert parser.parse(fields).tobytes() == bits


@given(values=st.lists(st.floats()), dtype=st.sampled_from(["<f8", ">f8", "<f4", "<f2"]))
def test_written_numbers_come_back_exactly(values, dtype):
    with np.errstate(over="ignore"):
        array = np.array(values, "<f8").astype(dtype)
    data = TEXT.encode(array)
    assert len(data) == len(array) * TEXT.number_bytes(dtype)
    back = np.array([struct.unpack("<d", each)[0] for each in found(data, 4000)]).astype(dtype)
    np.testing.assert_array_equal(back, array)
    np.testing.assert_array_equal(np.signbit(back[back == 0]), np.signbit(array[array == 0]))


@given(
    values=st.lists(st.integers(-(2**63), 2**64 - 1)),
    dtype=st.sampled_from(["|i1", "<i2", ">i4", "<i8", "|u1", "<u2", "<u4", ">u8"]),
)
def test_written_integers_are_their_decimal_digits(values, dtype):
    limits = np.iinfo(dtype)
    values = [value for value in values if limits.min <= value <= limits.max] + [int(limits.min), int(limits.max)]
    data = TEXT.encode(np.array(values, dtype))
    assert [int(line) for line in data.splitlines()] == values
    assert {len(line) + 1 for line in data.splitlines()} == {TEXT.number_bytes(dtype)}


def npy_bytes(dtype, shape, order, version):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.zeros(shape, dtype, order), version=version)
    return file.getvalue()


NPY_FILES = st.builds(
    npy_bytes,
    st.sampled_from(
        ["<f8", ">f4", "|b1", "<i2", "<c16", "<M8[s]", "<U2", "V3", [("a", "<f8")], [("a", "<f8", 2), ("é", "i1")]]
    ),
    st.lists(st.integers(0, 3), max_size=4).map(tuple),
    st.sampled_from("CF"),
    st.sampled_from([(3, 0)]),
)
TOKENS = st.sampled_from(
    [b"{", b"}", b"(", b")", b"'", b",", b"-", b"9", b"L", b" ", b"\n", b"True", b"[", b"\xff", b"'shape': (1,),"]
)
EDITS = st.lists(
    st.tuples(st.integers(0, 140), st.integers(0, 8), st.one_of(TOKENS, st.binary(max_size=3))), max_size=3
)


@given(data=NPY_FILES, edits=EDITS, rest=st.binary(max_size=20))
def test_any_npy_file_gives_a_layout_that_numpy_agrees_with_or_is_refused(data, edits, rest):
    for place, length, replacement in edits:
        data = data[:place] + replacement + data[place + length :]
    data += rest if len(rest) > 10 else b""
    source = MemorySource(data)
    tracemalloc.start()
    try:
        layout = NPY.layout(source, None)
    except BadInputError as error:
        assert len(str(error)) < 600  # noqa: PT017 - a layout is as good
        return
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert source.asked_bytes <= HEAD_BYTES
        assert peak < 1 << 20
    assert layout.offset + layout.data_bytes == len(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        except (ValueError, SyntaxError):
            return
    assert (array.shape, array.dtype) == (layout.shape, np.dtype(layout.dtype))
    assert layout.dtype == array.dtype.str


@given(data=st.binary(max_size=300))
def test_any_bytes_give_an_npy_layout_or_are_refused(data):
    for whole in (data, b"\x93NUMPY" + data, b"\x93NUMPY\x01\x00" + data, b"\x93NUMPY\x02\x00" + data):
        try:
            layout = NPY.layout(MemorySource(whole), None)
        except BadInputError:
            continue
        assert layout.offset + layout.data_bytes == len(whole)


@given(size=st.integers(0, 1 << 60), dtype=st.sampled_from(["|b1", "<i2", ">f4", "<f8", "<c16"]))
def test_a_raw_file_of_any_size_has_a_layout_or_is_refused(size, dtype):
    source = MemorySource(b"")
    source.size = size
    itemsize = np.dtype(dtype).itemsize
    try:
        layout = RawFormat().layout(source, dtype)
    except BadInputError:
        assert size % itemsize
    else:
        assert layout.data_bytes == size
