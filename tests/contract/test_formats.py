"""What every format promises. A new format is held to it by standing in ``FORMATS``."""

from __future__ import annotations

import io
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from distsum import dtypes
from distsum.errors import BadInputError, ConfigurationError, DistsumError, OutputError
from distsum.formats.base import HEAD_BYTES, Layout
from distsum.formats.registry import FORMATS, by_name, by_suffix
from tests.sources import MemorySource, ShrunkSource

DTYPES = ["|b1", "|i1", "|u1"] + [
    f"{order}{kind}" for order in "<>" for kind in ("i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
]
SHAPES = [(), (0,), (1,), (7,), (3, 4), (2, 3, 4), (2, 0, 3), (1, 5, 1)]
BUFFER_BYTES = 1 << 20


@pytest.fixture(params=list(FORMATS))
def each(request):
    return FORMATS[request.param]


def values_of(dtype, count):
    """Return numbers of a dtype that use its whole range."""
    generator = np.random.default_rng(count)
    kind = dtypes.kind(dtype)
    if kind == "b":
        return generator.integers(0, 2, count).astype(dtype)
    if kind in "iu":
        limits = np.iinfo(dtype)
        numbers = generator.integers(
            limits.min, limits.max, count, dtype=np.dtype(dtype).newbyteorder("="), endpoint=True
        )
        numbers[:2] = [limits.min, limits.max][:count]
        return numbers.astype(dtype)
    limits = np.finfo(dtype)
    special = [limits.max, -limits.max, limits.tiny, limits.smallest_subnormal, -0.0, np.inf, -np.inf, np.nan]
    numbers = generator.standard_normal(count)
    numbers[: len(special)] = special[:count]
    values = np.empty(count, dtype)
    values.real = numbers
    if kind == "c":
        values.imag = numbers[::-1]
    return values


def written(each, values, shape, *, fortran=False):
    dtype = values.dtype.str
    encoded = bytes(each.encode(values))
    assert len(encoded) == each.number_bytes(dtype) * len(values)
    return each.header(dtype, shape, fortran=fortran) + encoded


def read(each, source, layout):
    if each.ranged:
        data = bytearray(layout.data_bytes)
        assert source.read_into([memoryview(data)], layout.offset) == len(data)
        return np.frombuffer(data, layout.dtype)
    buffer = memoryview(bytearray(BUFFER_BYTES))
    blocks = [block.copy() for block in each.blocks(source, layout, buffer)]
    assert all(block.dtype == np.float64 and block.ndim == 1 for block in blocks)
    return np.concatenate([np.empty(0), *blocks])


def layout_of(each, source, dtype):
    return each.layout(source, dtype if each.name == "raw" else None)


def assert_same_numbers(found, expected):
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    if found.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


def test_it_is_found_by_its_name_and_by_every_suffix_in_any_case(each):
    assert by_name(each.name) is each
    for suffix in each.suffixes:
        assert by_suffix(b"a/b" + suffix.encode()) is each
        assert by_suffix(b"a/\xff" + suffix.upper().encode()) is each


def test_no_suffix_belongs_to_two_formats():
    suffixes = [suffix for each in FORMATS.values() for suffix in each.suffixes]
    assert len(suffixes) == len(set(suffixes))


@pytest.mark.parametrize("path", [b"", b"npy", b"a.npz", b"a.npy/b", b"a.npy "])
def test_a_path_with_another_suffix_tells_no_format(path):
    assert by_suffix(path) is None


def test_an_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(ConfigurationError, match="no format 'hdf\\\\x07'; there are npy, raw, text"):
        by_name("hdf\x07")


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_written_is_read_back(each, dtype):
    values = values_of(dtype, 50)
    if each.name == "text" and dtypes.kind(dtype) == "c":
        with pytest.raises(OutputError, match=r"cannot hold .c\d+ numbers"):
            each.header(dtype, (50,), fortran=False)
        return
    source = MemorySource(written(each, values, (50,)))
    layout = layout_of(each, source, dtype)
    assert layout.shape == (50,)
    assert layout.count == 50
    if each.name == "text":
        assert layout.dtype == dtypes.parse_dtype("f8")
        found = read(each, source, layout)
        if values.dtype.kind == "f":
            with np.errstate(over="raise"):
                assert_same_numbers(found.astype(values.dtype), values)
        else:
            assert_same_numbers(found, values.astype(np.float64))
    else:
        assert layout.dtype == dtype
        assert_same_numbers(read(each, source, layout), values)


@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_numbers_of_any_shape_come_back_in_the_order_in_which_they_lie(each, shape, fortran):
    values = values_of("<f8", int(np.prod(shape)))
    source = MemorySource(written(each, values, shape, fortran=fortran))
    layout = layout_of(each, source, "<f8")
    assert layout.count == len(values)
    assert layout.shape == (shape if each.name == "npy" else (len(values),))
    assert_same_numbers(read(each, source, layout), values)


def test_the_layout_names_the_bytes_before_the_numbers(each):
    data = written(each, values_of("<f8", 9), (9,))
    layout = layout_of(each, MemorySource(data), "<f8")
    assert layout.header == data[: layout.offset]
    assert layout.offset == len(each.header("<f8", (9,), fortran=False))


def test_the_layout_of_a_ranged_format_costs_a_bounded_read(each):
    source = MemorySource(written(each, np.zeros(1 << 20), (1 << 20,)))
    layout_of(each, source, "<f8")
    if each.ranged:
        assert source.asked_bytes <= HEAD_BYTES
        assert len(source.asked) <= 1


def test_a_file_cut_at_any_byte_is_refused_or_holds_fewer_numbers(each):
    whole = written(each, values_of("<f8", 6), (6,))
    for stop in range(len(whole)):
        source = MemorySource(whole[:stop])
        try:
            layout = layout_of(each, source, "<f8")
        except BadInputError as error:
            assert str(error).startswith("folder/input: ")  # noqa: PT017 - only some cuts are refused
        else:
            # A format without a header cannot tell; that all inputs are alike is checked elsewhere.
            assert each.name != "npy"
            assert layout.count < 6 or (each.name == "text" and stop > len(whole) - 20)


def test_a_file_that_ends_while_it_is_read_raises_nothing_but_ours(each):
    whole = written(each, values_of("<f8", 100), (100,))
    for stop in range(0, len(whole), 7):
        source = ShrunkSource(whole[:stop], len(whole))
        try:
            layout = layout_of(each, source, "<f8")
        except DistsumError:
            continue
        assert layout.count <= 100


def test_an_empty_file_is_refused_or_holds_no_number(each):
    source = MemorySource(b"")
    if each.name == "npy":
        with pytest.raises(BadInputError, match="is empty"):
            each.layout(source, None)
        return
    layout = layout_of(each, source, "<f8")
    assert (layout.shape, layout.count) == ((0,), 0)
    assert len(read(each, source, layout)) == 0


def test_a_dtype_is_given_exactly_where_the_file_does_not_tell_it(each):
    source = MemorySource(written(each, np.zeros(3), (3,)))
    dtype = None if each.name == "raw" else "<f8"
    with pytest.raises(ConfigurationError, match="--dtype"):
        each.layout(source, dtype)


def test_a_ranged_format_is_not_parsed_from_its_beginning(each):
    source = MemorySource(written(each, np.zeros(3), (3,)))
    layout = layout_of(each, source, "<f8")
    buffer = memoryview(bytearray(64))
    if each.ranged:
        assert each.parse_bytes == 0
        with pytest.raises(NotImplementedError):
            each.blocks(source, layout, buffer)
    else:
        assert each.parse_bytes > 0
        assert sum(map(len, each.blocks(source, layout, buffer))) == 3


def test_numbers_of_an_output_can_be_written_at_their_positions_in_any_order(each):
    values = values_of("<f8", 30)
    header = each.header("<f8", (30,), fortran=False)
    size = each.number_bytes("<f8")
    output = bytearray(len(header) + 30 * size)
    output[: len(header)] = header
    for start in (20, 0, 10):
        place = len(header) + start * size
        output[place : place + 10 * size] = each.encode(values[start : start + 10])
    assert bytes(output) == written(each, values, (30,))


def test_encoding_takes_no_python_memory_where_bytes_are_copied_as_they_are(each):
    values = np.zeros(1 << 20)
    if not each.ranged:
        return
    tracemalloc.start()
    try:
        encoded = each.encode(values)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(encoded) == values.nbytes
    assert peak < 1 << 16


def test_a_file_written_by_numpy_is_read(each):
    values = values_of("<f8", 40)
    file = io.BytesIO()
    if each.name == "npy":
        np.save(file, values)
    elif each.name == "raw":
        file.write(values.tobytes())
    else:
        np.savetxt(file, values)
    source = MemorySource(file.getvalue())
    layout = layout_of(each, source, "<f8")
    assert layout == Layout(
        dtype="<f8", shape=(40,), offset=layout.offset, header=file.getvalue()[: layout.offset] if each.ranged else b""
    )
    assert_same_numbers(read(each, source, layout), values)


def test_the_process_that_plans_imports_neither_numpy_nor_a_parser():
    program = """
import sys
from distsum.formats.registry import by_name
from tests.sources import MemorySource
header = by_name("npy").header("<f8", (2,), fortran=False)
by_name("npy").layout(MemorySource(header + bytes(16)), None)
by_name("raw").layout(MemorySource(bytes(16)), "<f8")
assert not {"numpy", "simdjson"} & set(sys.modules), "imported"
"""
    subprocess.run([sys.executable, "-c", program], check=True)
