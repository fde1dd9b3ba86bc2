import pytest

from distsum.errors import BadInputError, ConfigurationError
from distsum.formats.raw import RawFormat
from tests.sources import MemorySource


def test_the_whole_file_is_numbers_and_nothing_of_it_is_read():
    source = MemorySource(bytes(24))
    layout = RawFormat().layout(source, ">f4")
    assert (layout.dtype, layout.shape, layout.offset, layout.header) == (">f4", (6,), 0, b"")
    assert source.asked == []


@pytest.mark.parametrize(("dtype", "size"), [("<f8", 15), ("<c16", 24), (">i2", 1)])
def test_a_size_that_is_no_multiple_of_the_itemsize_is_refused(dtype, size):
    with pytest.raises(BadInputError, match=f"has {size} bytes, which is not a multiple of the .* one {dtype} number"):
        RawFormat().layout(MemorySource(bytes(size)), dtype)


def test_a_missing_dtype_names_the_remedy():
    with pytest.raises(ConfigurationError, match=r"folder/input: .*give their dtype, for example --dtype f8"):
        RawFormat().layout(MemorySource(bytes(16)), None)
