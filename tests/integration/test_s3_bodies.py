"""Bodies that go from the connection straight into the memory where they wait, with TLS and without."""

from __future__ import annotations

import random
import ssl
from typing import TYPE_CHECKING

import pytest
import trustme
from botocore.loaders import JSONFileLoader

from distsum.errors import StorageError
from distsum.stores.s3 import S3Store
from distsum.stores.s3_client import Patience
from tests.command import wait_until
from tests.faultproxy import Fault, in_front_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faultproxy import FaultProxy
    from tests.s3server import S3Server

SIZE = 6_000_000
HOLD = 1 << 20
"""Far less than a body, so that it is left to wait, and goes on, many times."""


@pytest.fixture(params=["http", "https"])
def front(request, s3_server: S3Server, s3_environment, tmp_path: Path, monkeypatch) -> Iterator[FaultProxy]:
    """Give a proxy before the S3 server, for which this process is set up."""
    tls = None
    if request.param == "https":
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "authority.pem")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "authority.pem"))
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(tls)
    with in_front_of(s3_server.endpoint, tls) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.endpoint)
        yield made


@pytest.fixture
def store(front) -> Iterator[S3Store]:
    made = S3Store(Patience(first_pause_seconds=0.01, longest_pause_seconds=0.05, deadline_seconds=20.0))
    yield made
    made.close()


@pytest.fixture
def inputs(store, s3_prefix):
    """Give objects, as (entry, content)."""
    contents = [random.Random(index).randbytes(SIZE) for index in range(4)]
    for index, content in enumerate(contents):
        store.put(s3_prefix + b"/%d" % index, [content])
    return [(store.identify(s3_prefix + b"/%d" % index), content) for index, content in enumerate(contents)]


def pieces(store, entry, sizes, start=0):
    """Return what is read in pieces of these sizes, over and over, to the end."""
    got = bytearray(entry.size - start)
    place = 0
    with store.open_input(entry, start, entry.size - start, hold=HOLD) as reader:
        while place < len(got):
            for size in sizes:
                view = memoryview(got)[place : place + size]
                assert reader.read_into([view], start + place) == len(view)
                place += len(view)
    return bytes(got)


@pytest.mark.parametrize("sizes", [(1 << 20,), (1, 70_001, 333_333), (2_000_003, 5)])
def test_every_byte_arrives_in_its_place_whatever_is_asked_for(store, inputs, sizes):
    for start, (entry, content) in enumerate(inputs):
        assert pieces(store, entry, sizes, start) == content[start:]


def test_several_bodies_that_wait_for_room_go_on_one_after_the_other(store, inputs):
    readers = [store.open_input(entry, 0, SIZE, hold=HOLD) for entry, _ in inputs]
    wait_until(lambda: store._client.rings.lent == len(inputs), "all bodies are under way")
    for reader, (_, content) in zip(readers, inputs, strict=True):
        with reader:
            got = bytearray(SIZE)
            assert reader.read_into([memoryview(got)], 0) == SIZE
            assert got == content


def test_a_connection_is_used_again_after_its_body_was_received(front, store, inputs):
    front.requests.clear()
    for entry, content in inputs:
        assert pieces(store, entry, (1 << 20,)) == content
    ports = [request.port for request in front.requests if request.method == "GET"]
    assert len(ports) == len(inputs)
    assert len(set(ports)) == 1


def test_a_body_that_breaks_while_it_is_received_goes_on_from_its_last_byte(front, store, inputs):
    entry, content = inputs[0]
    front.choose = lambda request: Fault(cut=2_000_000) if request.method == "GET" else None
    front.requests.clear()
    assert pieces(store, entry, (1 << 20,)) == content
    starts = [int(request.headers["range"][6:].partition("-")[0]) for request in front.requests]
    assert starts == [0, 2_000_000, 4_000_000]


def test_a_body_that_is_given_up_midway_closes_its_connection_and_lets_its_memory_go(front, store, inputs):
    entry, content = inputs[0]
    reader = store.open_input(entry, 0, SIZE, hold=HOLD)
    got = bytearray(100_000)
    reader.read_into([memoryview(got)], 0)
    assert got == content[:100_000]
    reader.close()
    wait_until(lambda: front.open_bodies == 0, "the body is not being sent any more")
    wait_until(lambda: store._client.rings.lent == 0, "its memory has come back")
    assert pieces(store, entry, (1 << 20,)) == content


def test_closing_the_store_ends_what_is_being_received(store, inputs):
    reader = store.open_input(inputs[0][0], 0, SIZE, hold=HOLD)
    got = bytearray(SIZE)
    reader.read_into([memoryview(got)[:10]], 0)
    store.close()
    with pytest.raises(StorageError, match="the connection to S3 was closed"):
        reader.read_into([memoryview(got)], 10)
    reader.close()
    assert store._client.rings.lent == 0


def test_a_second_client_reads_no_descriptions_of_services_again(s3_server, s3_environment, s3_prefix, monkeypatch):
    read = []
    load = JSONFileLoader.load_file

    def counted(self, path):
        read.append(path)
        return load(self, path)

    monkeypatch.setattr(JSONFileLoader, "load_file", counted)
    for _ in range(2):
        read.clear()
        store = S3Store(Patience())
        store.put(s3_prefix + b"/any", [b"content"])
        store.close()
    assert read == [], "which takes most of the time to make one"
