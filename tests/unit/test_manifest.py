"""The packed list of inputs, and keys made from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsum.errors import StorageError
from distsum.manifest import Input, Manifest, ManifestReader, NodeKeys

inputs = st.lists(
    st.builds(
        Input, uri=st.binary(min_size=1, max_size=40), size=st.integers(0, 2**63), version=st.binary(max_size=20)
    ),
    max_size=30,
)


class Bytes:
    def __init__(self, data):
        self.data = data

    def read(self, offset, size):
        return self.data[offset : offset + size]


def reader(manifest):
    return ManifestReader(Bytes(b"".join(map(bytes, manifest.encoded()))))


@given(inputs, st.data())
def test_what_is_packed_is_read_back_whole_and_in_ranges(entries, data):
    manifest = Manifest(entries)
    assert [manifest[index] for index in range(len(manifest))] == entries
    assert manifest.total_bytes == sum(entry.size for entry in entries)
    start = data.draw(st.integers(0, len(entries)))
    stop = data.draw(st.integers(start, len(entries)))
    assert list(reader(manifest).inputs(start, stop)) == entries[start:stop]
    assert b"".join(reader(manifest).pieces(start, stop)) == bytes(manifest.records(start, stop))


def test_long_ranges_are_read_in_pieces():
    manifest = Manifest(Input(b"%06d" % index, index, b"v") for index in range(2000))
    pieces = list(reader(manifest).pieces(0, 2000))
    assert len(pieces) > 3
    assert [entry.size for entry in reader(manifest).inputs(0, 2000)] == list(range(2000))


@given(inputs, inputs)
def test_different_lists_have_different_keys(some, others):
    keys = NodeKeys(b"context")
    one, other = (keys.key([Manifest(entries).records(0, len(entries))]) for entries in (some, others))
    assert (one == other) == (some == others)


def test_a_key_depends_on_the_context_and_not_on_the_pieces():
    assert NodeKeys(b"a").key([b"xy"]) != NodeKeys(b"b").key([b"xy"])
    assert NodeKeys(b"a").key([b"x", b"y"]) == NodeKeys(b"a").key([b"xy"])


def test_a_damaged_list_is_refused():
    whole = b"".join(map(bytes, Manifest([Input(b"a", 1, b"v")] * 3).encoded()))
    with pytest.raises(StorageError, match="damaged"):
        ManifestReader(Bytes(b"something else, quite long"))
    with pytest.raises(StorageError, match="ends early"):
        list(ManifestReader(Bytes(whole[:-1])).inputs(0, 3))
