"""The header of any message is read, whoever has chosen its properties."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from distsum.brokers.properties import UNREADABLE, read_any_properties

DEEP = b"\x20\x00" + b"\x00\x00\x40\x00\x01aF" * 4_000


@pytest.fixture(autouse=True, scope="module")
def tolerant():
    read_any_properties()


@given(st.binary(max_size=60), st.integers(0, 2**64 - 1))
@example(b"", 1)
@example(b"\x00\x40" + b"\xff" * 8, 1)  # when
@example(b"\x00\x08\x03\xff\xfe\xfd", 1)  # by whom
@example(b"\x10\x00\x07", 1)  # how it is kept
@example(DEEP, 1)
def test_the_length_of_a_body_is_read_whatever_follows_it(properties, size):
    header = ContentHeader()
    header.unmarshal(struct.pack(">HHQ", Basic.frame_id, 0, size) + properties)
    assert header.body_size == size
    assert header.properties.delivery_mode in {None, 1, 2}


@pytest.mark.parametrize("properties", [b"\x00\x40" + b"\xff" * 8, b"\x00\x08\x03\xff\xfe\xfd", b"\x10\x00\x07", DEEP])
def test_what_cannot_be_read_is_told_from_what_can(properties):
    ours = ContentHeader(0, 5, Basic.Properties(app_id="distsum", delivery_mode=2, headers={"protocol": 2}))
    for data, sender in [(ours.marshal(), "distsum"), (ours.marshal()[:12] + properties, UNREADABLE)]:
        header = ContentHeader()
        header.unmarshal(data)
        assert (header.body_size, header.properties.app_id) == (5, sender)
