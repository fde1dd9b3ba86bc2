from __future__ import annotations

import io
import itertools
import struct
import tracemalloc

import numpy as np
import pytest

from distsum.errors import BadInputError, ConfigurationError
from distsum.formats.base import HEAD_BYTES
from distsum.formats.npy import NpyFormat
from tests.sources import MemorySource, ShrunkSource

NPY = NpyFormat()
SHAPES = [
    (),
    (0,),
    (1,),
    (5,),
    (1000000,),
    (2, 3),
    (1, 3),
    (3, 1),
    (1, 1),
    (0, 4),
    (4, 0),
    (2, 3, 4),
    (1, 1, 5),
    (1,) * 64,
]


def npy(text, version=1, data=b"", declared=None):
    """Return a file with this dictionary as its header, well formed or not."""
    body = text if isinstance(text, bytes) else text.encode("latin-1")
    length = len(body) if declared is None else declared
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", length) + body + data


def header(descr="'<f8'", fortran="False", shape="(2,)"):
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


def refusal(data):
    source = MemorySource(data)
    tracemalloc.start()
    try:
        with pytest.raises(BadInputError) as caught:
            NPY.layout(source, None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert source.asked_bytes <= HEAD_BYTES
    assert peak < 1 << 20
    assert len(str(caught.value)) < 500
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["|b1", "|i1", "<i2", ">i4", "<u8", "<f2", ">f4", "<f8", "<c8", ">c16"])
def test_a_header_and_data_are_what_numpy_writes_to_the_byte(dtype):
    for shape, order in itertools.product(SHAPES, "CF"):
        values = np.zeros(shape, dtype, order)
        file = io.BytesIO()
        np.save(file, values)
        flat = values.reshape(-1, order="A")
        assert NPY.header(dtype, shape, fortran=order == "F") + bytes(NPY.encode(flat)) == file.getvalue()
        layout = NPY.layout(MemorySource(file.getvalue()), None)
        assert (layout.dtype, layout.shape) == (dtype, shape)
        assert layout.fortran == (not values.flags.c_contiguous)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_all_versions_that_numpy_writes_are_read(version):
    values = np.arange(6.0).reshape(2, 3)
    file = io.BytesIO()
    np.lib.format.write_array(file, values, version=version)
    layout = NPY.layout(MemorySource(file.getvalue()), None)
    assert (layout.dtype, layout.shape, layout.fortran) == ("<f8", (2, 3), False)
    assert file.getvalue()[layout.offset :] == values.tobytes()


@pytest.mark.parametrize(
    "text",
    [
        '{"shape": (2L,), "fortran_order": False, "descr": "<f8"}',
        "{'descr':'<f8','fortran_order':False,'shape':(2,)}",
        "  { 'descr' : '<f8' ,\n 'fortran_order' : False , 'shape' : ( 2 , ) , } \n",
        "{'shape': (2,), 'descr': '=f8', 'fortran_order': False}",
        "{'shape': (2,), 'descr': 'f8', 'fortran_order': False}",
    ],
)
def test_headers_of_other_writers_are_read(text):
    layout = NPY.layout(MemorySource(npy(text, data=bytes(16))), None)
    assert (layout.dtype, layout.shape, layout.fortran) == ("<f8", (2,), False)


def test_a_header_longer_than_the_first_read_takes_a_second():
    text = header() + " " * 5000
    source = MemorySource(npy(text, data=bytes(16)))
    assert NPY.layout(source, None).offset == 10 + len(text)
    assert len(source.asked) == 2
    assert source.asked_bytes == 10 + len(text)


def test_a_dtype_cannot_be_given():
    with pytest.raises(ConfigurationError, match=r"--dtype <f8: folder/input tells its own dtype"):
        NPY.layout(MemorySource(npy(header(), data=bytes(16))), "<f8")


@pytest.mark.parametrize(
    ("descr", "what"),
    [
        ("'|O'", "Python objects"),
        ("'<M8[ns]'", "dates"),
        ("'<m8[s]'", "time spans"),
        ("'<U5'", "text"),
        ("'|S7'", "text"),
        ("'|V16'", "untyped records"),
        ("'<f16'", "floats of an unsupported size"),
        ("'<c32'", "complex numbers of an unsupported size"),
        ("'<i3'", "items of an unknown kind"),
        ("'<i99999999999999999999'", "items of an unknown kind"),
        ("'b'", "items of an unknown kind"),
        ("'<b'", "items of an unknown kind"),
        ("'float64'", "floats"),
        ("''", "items of an unknown kind"),
        ("[('a', '<f8'), ('b', '<i4')]", "several fields"),
        ("('<f8', (3,))", "several fields or sub-arrays"),
    ],
)
def test_a_dtype_that_cannot_be_reduced_is_named_with_what_can(descr, what):
    message = refusal(npy(header(descr=descr), data=bytes(16)))
    assert what in message
    assert "accepted are bool, integers of 8 to 64 bits" in message


@pytest.mark.parametrize("dtype", ["O", "M8[ns]", "U3", "S3", "V4", "g", "G", [("a", "f8")], [("a", "f8", 3)]])
def test_such_arrays_written_by_numpy_are_refused(dtype):
    file = io.BytesIO()
    np.save(file, np.zeros(2, dtype))
    assert "accepted are" in refusal(file.getvalue())


def test_an_object_array_is_never_unpickled():
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    file = io.BytesIO()
    np.save(file, np.array([Bomb()], dtype=object))
    assert "never unpickled" in refusal(file.getvalue())


@pytest.mark.parametrize(
    "shape",
    [
        "(-1,)",
        "(2.0,)",
        "(True,)",
        "(2)",
        "2",
        "[2]",
        "(,)",
        "(2,,)",
        "('2',)",
        "(1_0,)",
        "(0x2,)",
        "((2,),)",
        "None",
        "(2 2,)",
    ],
)
def test_a_shape_that_is_no_tuple_of_whole_numbers_is_refused(shape):
    assert "header" in refusal(npy(header(shape=shape), data=bytes(16)))


@pytest.mark.parametrize("fortran", ["0", "1", "None", "'False'", "false", "Falsey", "(0,)"])
def test_an_order_that_is_no_bool_is_refused(fortran):
    assert "header is damaged" in refusal(npy(header(fortran=fortran), data=bytes(16)))


@pytest.mark.parametrize("shape", ["(99999999999999999,)", "(4294967296, 4294967296, 16)", f"({'9' * 19}, ) "])
def test_a_shape_beyond_the_file_is_refused_before_anything_is_allocated(shape):
    assert "was cut short" in refusal(npy(header(shape=shape), data=bytes(16)))


@pytest.mark.parametrize("shape", [f"({'9' * 30},)", f"({'1,' * 65})", f"({'9' * 5000},)"])
def test_an_absurd_shape_is_refused(shape):
    assert "tuple of at most 64 whole numbers" in refusal(npy(header(shape=shape), data=bytes(16)))


def test_a_product_that_no_integer_of_64_bits_holds_is_refused():
    assert "was cut short" in refusal(npy(header(shape="(" + "9999999999999999999," * 64 + ")"), data=bytes(16)))


@pytest.mark.parametrize(
    ("size", "what"), [(15, "was cut short"), (0, "was cut short"), (17, "bytes after its last number")]
)
def test_a_size_other_than_the_declared_one_is_refused_with_both(size, what):
    message = refusal(npy(header(), data=bytes(size)))
    assert what in message
    assert f"is 16 bytes, and {size} follow" in message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "{",
        "}",
        "None",
        header()[:-1],
        header() + "x",
        header() + header(),
        "x" + header(),
        header().replace("descr", "dtype"),
        header().replace("}", "'more': 1}"),
        header().replace("}", "'descr': '<f8'}"),
        header().replace("'shape': (2,), ", ""),
        header().replace(",", ""),
        header().replace("'<f8'", "'<f8"),
        header().replace("'<f8'", "b'<f8'"),
        "{'descr': (2,), 'fortran_order': False, 'shape': '<f8'}",
        "{'descr': 8, 'fortran_order': False, 'shape': (2,)}",
        "(" * 60000,
        "-" * 60000 + "1",
        "{'a':" * 12000,
        "{" + "'" * 60000,
        "\x00" * 100,
    ],
)
def test_a_damaged_header_is_refused(text):
    refusal(npy(text, data=bytes(16)))


def test_a_version_3_header_that_is_not_utf_8_is_refused():
    assert "is not utf-8 text" in refusal(npy(header().encode() + b"\xff", version=3, data=bytes(16)))


def test_a_version_that_does_not_exist_is_named():
    assert "is npy version 4.0; accepted are versions 1.0, 2.0 and 3.0" in refusal(npy(header(), version=4))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("size", [100, 2 * HEAD_BYTES])
def test_a_header_declared_as_a_gigabyte_is_neither_read_nor_allocated(version, size):
    message = refusal(npy(header(), version, bytes(size), declared=1 << 30))
    assert "declares 1073741836 bytes" in message


def test_a_header_beyond_the_bound_is_refused_even_where_the_file_holds_it():
    data = npy(header() + " " * HEAD_BYTES, version=2, data=bytes(16))
    source = MemorySource(data)
    with pytest.raises(BadInputError, match=f"at most {HEAD_BYTES} are read"):
        NPY.layout(source, None)
    assert source.asked_bytes <= 1024


def test_a_header_of_exactly_the_bound_is_read():
    text = header().ljust(HEAD_BYTES - 12)
    source = MemorySource(npy(text, version=2, data=bytes(16)))
    assert NPY.layout(source, None).offset == HEAD_BYTES
    assert source.asked_bytes == HEAD_BYTES


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (b"\x93NUM", "was cut short: it has 4 bytes"),
        (b"PK\x03\x04" + bytes(100), "is a zip archive"),
        (b"\x1b[31m 1.0 2.0", r"begins with '\x1b[31m ', where an .npy file begins with '\x93NUMPY'"),
    ],
)
def test_a_file_that_is_no_npy_file_is_told_apart(data, what):
    assert what in refusal(data)


def test_a_file_that_ends_within_its_header_while_it_is_read_is_refused():
    whole = npy(header(), data=bytes(16))
    for stop in range(len(whole) - 16):
        with pytest.raises(BadInputError):
            NPY.layout(ShrunkSource(whole[:stop], len(whole)), None)
