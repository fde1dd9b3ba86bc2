from __future__ import annotations

import gc
import math
import struct
import subprocess
import sys

import numpy as np
import pytest

from distsum.errors import BadInputError, ConfigurationError, OutputError
from distsum.formats import text as text_module
from distsum.formats.base import Layout
from distsum.formats.text import PIECE_BYTES, TextFormat
from tests.sources import MemorySource

TEXT = TextFormat()


def numbers(data, buffer_bytes=1 << 20):
    source = MemorySource(data)
    count = TEXT.layout(source, None).count
    buffer = memoryview(bytearray(buffer_bytes))
    return [number for block in TEXT.blocks(source, Layout("<f8", (count,)), buffer) for number in block.tolist()]


def bits(values):
    return [struct.pack("<d", value) for value in values]


def refusal(data):
    with pytest.raises(BadInputError) as caught:
        TEXT.layout(MemorySource(data), None)
    return caught.value.reason


@pytest.fixture
def ways(monkeypatch):
    """Return the names of the ways in which texts were parsed, in order."""
    taken = []
    for name in ("_parse_plain", "_parse_odd", "_parse_words"):
        original = getattr(text_module._Parser, name)

        def record(self, *arguments, original=original, name=name):
            found = original(self, *arguments)
            if found is not None:
                taken.append(name)
            return found

        monkeypatch.setattr(text_module._Parser, name, record)
    return taken


@pytest.mark.parametrize(
    "data",
    [
        b"1\n2\n3\n",
        b"1\n2\n3",
        b"1\r\n2\r\n3\r\n",
        b"1\r2\r3\r",
        b"1 2 3",
        b"1\t2\t3\n",
        b"1\v2\f3\n",
        b"  1   2\n\n\n 3  \n",
        b"1,2,3\n",
        b"1, 2, 3\n",
        b"1 ,2 ,3\n",
        b"1 , 2\t,\t3\r\n",
        b"1,2\n3\n",
        b"1,2,\n3,\n",
        b"1,2\n,3",
        b"1,2,3,",
        b"\xef\xbb\xbf1,2,3",
        b"# a header, 5, 6\n1 2 # two\n#\n3",
        b"# old\r1\r2 # Mac\r3",
        b"1#one\r\n2#two\r\n3#",
        b"\n\n1\n 2\n 3 # no line end",
    ],
)
def test_separators_and_comments(data):
    assert numbers(data) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("data", [b"", b"\n", b" \t\r\n\v\f", b"# nothing", b"#\n\n#\n", b"\xef\xbb\xbf"])
def test_a_file_without_numbers_holds_none(data):
    assert numbers(data) == []


WORDS = [
    "0", "-0", "+0", "-0.0", "0e5", "-0e-5", "1", "-1", "+1", "007", "-007", ".5", "-.5", "+.5", "5.", "-5.", "5.e3",
    ".5e-3", "1e5", "1E+05", "1E-05", "1e05", "1e0005", "inf", "-inf", "+inf", "Infinity", "-INFINITY", "nan", "NaN",
    "+nan", "-nan", "1e400", "-1e400", "1e-400", "-1e-400", "1e308", "1.7976931348623157e308",
    "1.7976931348623158e308", "1.7976931348623159e308", "4.9e-324", "2.4703282292062327e-324",
    "2.4703282292062328e-324", "2.2250738585072011e-308", "2.2250738585072014e-308", "9007199254740993",
    "-9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
    "18446744073709551615", "18446744073709551616", "99999999999999999999999",
    "0.1000000000000000055511151231257827021181583404541015625", "1." + "0" * 400 + "1", "1" * 309, "1" * 400, "0." +
    "0" * 400 + "1", "1e99999999999999999999", "0e99999999999999999999", "1.2345678901234567890",
    "123456789012345678901234567890e-10", "9007199254740992.9999999999999999999999",
    "9007199254740993.00000000000000000000000001", "1e23", "8.5e22",
]  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    "around", ["{}", "{}\n", "1\n{}\n2\n", "1 {} 2", "1, {} ,2", "1,\t{},2\r\n", "1.5\n" * 50 + "{}" + "\n2.5" * 50]
)
def test_a_number_has_the_bits_that_float_gives(word, around):
    data = around.format(word)
    expected = [float(each) for each in data.replace(",", " ").split()]
    assert bits(numbers(data.encode())) == bits(expected)


@pytest.mark.parametrize(
    "word",
    [
        b"x", b"1_000", b"0x10", b"1e", b"e5", b"-", b"+", b".", b"--1", b"+-1", b"1-", b"1.2.3", b"1d5", b"true",
        b"false", b"null", b'"1"', b"[1]", b"[]", b"[", b"]", b"1]", b"{}", b'{"a":1}', b"1;2", b"nan(1)", b"nanx",
        b"1nan", b"infin", b"1\x00", b"\x00", b"1\x1f", b"\x08", b"\x0e1", b"\xa01", b"\xd9\xa1", b"\xff\xfe1",
        b"1e5_0", b"nan_", b"-0x", b"-0_", b"1'000", b"$5",
    ],
)  # fmt: skip
@pytest.mark.parametrize("around", [b"%b", b"1\n%b\n2\n", b"1 %b 2", b"nan" + b" 3" * 30 + b" %b -0"])
def test_what_is_no_number_is_named_with_its_line(word, around):
    reason = refusal(b"# a comment\n" + around % word)
    line = 3 if around.startswith(b"1\n") else 2
    assert reason.startswith(f"line {line}: '")
    assert "is not a number" in reason
    assert not set(reason) & set("\x00\x08\x0e\x1b\xa0")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"1,,2", 1),
        (b",1", 1),
        (b"\n\n ,1", 3),
        (b"1,\n,2", 2),
        (b"1, ,2", 1),
        (b"1,2\n3,,4", 2),
        (b"1,#c\n,2", 2),
        (b",", 1),
        (b"1,,", 1),
    ],
)
def test_an_empty_field_is_missing_data(data, line):
    assert refusal(data) == f"line {line}: a comma with no number before it; an empty field is missing data"


def test_the_first_of_two_faults_is_named():
    assert refusal(b"1\nx\n1,,2\n") == "line 2: 'x' is not a number"
    assert refusal(b"1,,2\nx\n").startswith("line 1: a comma")
    assert refusal(b"1\n1_0\nx").startswith("line 2: '1_0'")


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b" # note\r\n", b"\r\r\n", b",\n"])
@pytest.mark.parametrize("line", [1, 2, 7000, 100_000])
def test_the_line_is_right_wherever_the_word_stands(line_end, line):
    lines = [b"%d.5" % each for each in range(100_000)]
    lines[line - 1] = b"1\r2\rword"
    assert refusal(line_end.join(lines)) == f"line {line}: 'word' is not a number"


def test_a_long_or_hostile_word_is_shown_short_and_harmless():
    reason = refusal(b"1\n\x1b[2J" + b"x" * 100_000 + b"\n")
    assert reason.startswith("line 2: '\\x1b[2J")
    assert len(reason) < 200


def test_a_word_may_be_almost_as_long_as_a_piece_wherever_it_stands():
    word = b"1" + b"0" * (PIECE_BYTES - 2)
    for before in (0, 1, 5000, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1):
        assert numbers(b" " * before + word + b"\n2") == [math.inf, 2.0]


def test_a_longer_word_is_refused_with_its_line():
    data = b"1\n\n" + b"1" * (PIECE_BYTES + 1)
    reason = refusal(data)
    assert reason.startswith("line 3: '1111")
    assert f"is longer than {PIECE_BYTES} bytes" in reason
    assert len(reason) < 200


def test_a_comment_may_be_longer_than_any_buffer():
    comment = b"#" + b" 7,x" * PIECE_BYTES
    assert numbers(b"1" + comment + b"\r\n2" + comment + b"\n3" + comment) == [1.0, 2.0, 3.0]
    assert numbers(b"#" + b"x" * (3 * PIECE_BYTES) + b"\n4") == [4.0]
    assert refusal(b"1" + comment + b"\n" + comment + b"\nword").startswith("line 3: 'word'")


def test_much_white_space_is_nothing():
    blanks = b" " * (2 * PIECE_BYTES + 1)
    assert numbers(blanks + b"1" + blanks + b"," + blanks + b"2" + blanks) == [1.0, 2.0]
    assert refusal(b"1," + blanks + b"," + b"2").startswith("line 1: a comma")
    assert refusal(blanks + b"," + b"2").startswith("line 1: a comma")


@pytest.mark.parametrize(
    ("data", "way"),
    [
        (b"1.5\n-2.5e-3\n0\n", "_parse_plain"),
        (b"1.5 2.5\n3.5  4.5\n", "_parse_plain"),
        (b"1.5,2.5\r\n3.5, 4.5\r\n", "_parse_plain"),
        (b"\t1.5\t\t2.5,\n\n3.5,\n", "_parse_plain"),
        (b"1.5\n" * 20 + b"nan\n-inf\n-0\n", "_parse_odd"),
        (b"1.5 " * 20 + b"  NaN -0\n", "_parse_odd"),
        (b"1.5\n+2.5\n", "_parse_words"),
    ],
)
def test_the_fast_ways_are_taken_where_they_can_be(data, way, ways):
    numbers(data)
    assert set(ways) == {way}


def test_letters_and_integer_zeros_in_one_text_each_keep_their_value():
    words = [*["1.5"] * 20, "nan", "-0", "2", "-inf", "0", "-0"]
    assert bits(numbers("\n".join(words).encode())) == bits(map(float, words))
    assert bits(numbers(" ".join(words[::-1]).encode())) == bits(map(float, words[::-1]))


def test_lines_and_rows_with_one_separator_a_gap_take_the_short_way(monkeypatch):
    monkeypatch.setattr(text_module._Parser, "_as_json", None)
    assert numbers(b"1.5\r\n2.5, 3.5\n 4.5\n") == [1.5, 2.5, 3.5, 4.5]


def test_numbers_of_nineteen_digits_do_not_take_the_way_that_is_slow_for_them():
    parser = text_module._Parser()
    parser._json._parser = None
    assert parser.parse(b"1.234567890123456789e+00\n5").tolist() == [1.234567890123456789, 5.0]
    assert parser.parse(b"-9.0000000000000000000\n5").tolist() == [-9.0, 5.0]
    with pytest.raises(AttributeError):
        parser.parse(b"0.12345678901234567\n5")


def test_simdjson_is_ready_for_the_next_text_after_any_other(ways):
    gc.disable()
    try:
        texts = [b"1 true", b"1 1e", b"99999999999999999999 1", b"2 x"]
        parser = text_module._Parser()
        for text in texts:
            parser.parse(text)
            ways.clear()
            assert parser.parse(b"1 2").tolist() == [1.0, 2.0]
            assert ways == ["_parse_plain"]
    finally:
        gc.enable()


def test_numbers_of_nineteen_digits_are_the_same_through_either_parser():
    generator = np.random.default_rng(5)
    words = [
        f"{value:.18e}" for value in generator.standard_normal(20_000) * 10.0 ** generator.integers(-300, 300, 20_000)
    ]
    words[5 : 5 + 100 * len(WORDS) : 100] = WORDS
    assert bits(numbers("\n".join(words).encode())) == bits(map(float, words))
    assert bits(numbers("\n".join(["1.5", *words]).encode())) == bits(map(float, ["1.5", *words]))


def test_more_or_fewer_numbers_than_expected_are_refused_with_both():
    source = MemorySource(b"1\n2\n3\n")
    buffer = memoryview(bytearray(1024))
    with pytest.raises(BadInputError, match="holds at least 3 numbers, where 2 are expected"):
        list(TEXT.blocks(source, Layout("<f8", (2,)), buffer))
    with pytest.raises(BadInputError, match="holds 3 numbers, where 4 are expected"):
        list(TEXT.blocks(source, Layout("<f8", (4,)), buffer))


def test_no_more_than_the_expected_numbers_are_ever_given():
    source = MemorySource(b"1\n" * 200_000)
    given = []
    with pytest.raises(BadInputError):
        given.extend(map(len, TEXT.blocks(source, Layout("<f8", (100_000,)), memoryview(bytearray(1 << 20)))))
    assert 0 < sum(given) <= 100_000


def test_a_layout_is_the_count_of_the_numbers():
    assert TEXT.layout(MemorySource(b"1 2\n3 4\n"), None) == Layout(dtype="<f8", shape=(4,))
    with pytest.raises(ConfigurationError, match="--dtype"):
        TEXT.layout(MemorySource(b"1"), "<f8")


def test_every_byte_is_read_once_and_none_past_the_end():
    data = b"123.5\n" * 500_000
    source = MemorySource(data)
    TEXT.layout(source, None)
    assert source.asked_bytes == len(data)
    assert max(offset + size for offset, size in source.asked) == len(data)


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (
            "<f8",
            [-1.2345678901234567e-308, np.inf, -np.inf, np.nan, -0.0, 5e-324],
            (
                b"-1.2345678901234567e-308\n"
                b"                     inf\n"
                b"                    -inf\n"
                b"                     nan\n"
                b" -0.0000000000000000e+00\n"
                b" 4.9406564584124654e-324\n"
            ),
        ),
        ("<f4", [1.1, -1e-45], b" 1.10000002e+00\n-1.40129846e-45\n"),
        ("<f2", [65504, -6e-8], b" 6.5504e+04\n-5.9605e-08\n"),
        ("<i8", [-(2**63), 2**63 - 1], b"-9223372036854775808\n 9223372036854775807\n"),
        ("<u8", [0, 2**64 - 1], b"                   0\n18446744073709551615\n"),
        ("|i1", [-128, 127], b"-128\n 127\n"),
        ("|u1", [0, 255], b"  0\n255\n"),
        ("|b1", [False, True], b"0\n1\n"),
        ("<f8", [], b""),
    ],
)
def test_numbers_are_written_one_a_line_all_as_wide(dtype, values, expected):
    array = np.array(values, np.float64 if "f" in dtype else object).astype(dtype)
    assert TEXT.encode(array) == expected
    assert len(expected) == len(values) * TEXT.number_bytes(dtype)
    assert TEXT.header(dtype, (len(values),), fortran=False) == b""


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2", "<i2", ">i4", "|u1", "<u2", "<u4", "|i1"])
def test_every_number_of_a_dtype_is_as_wide_and_comes_back(dtype):
    width = TEXT.number_bytes(dtype)
    patterns = np.random.default_rng(3).integers(0, 256, 4096, dtype=np.uint8)
    values = np.nan_to_num(patterns.view(dtype), nan=1)
    encoded = TEXT.encode(values)
    assert {len(line) for line in encoded.splitlines(keepends=True)} == {width}
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(np.array(numbers(encoded)).astype(dtype), values)


def test_complex_numbers_are_refused_before_anything_is_written():
    for act in (lambda: TEXT.header("<c16", (2,), fortran=False), lambda: TEXT.number_bytes("<c8")):
        with pytest.raises(OutputError, match=r"cannot hold <c\d+ numbers; write .npy or .raw"):
            act()


PEAK = """
import re, sys
import numpy
from distsum.formats.base import Layout
from distsum.formats.text import TextFormat
from tests.sources import MemorySource

def kib(field):
    with open("/proc/self/status") as status:
        return int(re.search(field + r":\\s+(\\d+)", status.read())[1])

piece, rare = (argument.encode() for argument in sys.argv[1:])
repeats = (128 << 10) // len(piece)
data = b"".join(piece * repeats + rare for _ in range(20))
count = 20 * (len(piece.split()) * repeats + len(rare.split()))
source = MemorySource(data)
buffer = memoryview(bytearray(b"x" * (1 << 20)))
text = TextFormat()
before = kib("VmRSS")
for block in text.blocks(source, Layout("<f8", (count,)), buffer):
    pass
print((kib("VmHWM") - before) << 10, text.parse_bytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
@pytest.mark.parametrize(
    ("piece", "rare"),
    [
        ("0.12345678901234567\n", ""),
        ("1\n", ""),
        ("1 ", ""),
        ("1 ", "+1 "),
        ("1 1 1 1 1 nan ", ""),
        ("nan ", ""),
        ("+1 ", ""),
        ("1.234567890123456789\n", ""),
    ],
)
def test_the_memory_of_parsing_stays_within_its_bound(piece, rare):
    run = subprocess.run([sys.executable, "-c", PEAK, piece, rare], capture_output=True, text=True, check=True)
    peak, bound = map(int, run.stdout.split())
    assert peak <= bound
