"""What ``generate`` writes is a function of seed, index, dtype, distribution and count, and of nothing else."""

import hashlib
import os
import tempfile
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsum import generate as module
from distsum.generate import Stream, generate

FLOATS = ["<f8", ">f8", "<f4", "<f2", "<c16", ">c8"]
OTHERS = ["|b1", "|i1", "|u1", "<i2", ">u2", "<i4", "<u4", "<i8", "<u8"]


def contents(folder):
    found = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            found[name] = file.read()
    return found


@st.composite
def requests(draw):
    distribution = draw(st.sampled_from(["uniform", "normal"]))
    dtype = draw(st.sampled_from(FLOATS + OTHERS if distribution == "uniform" else FLOATS))
    return {
        "files": draw(st.integers(1, 12)),
        "count": draw(st.integers(0, 700)),
        "dtype": dtype,
        "format": draw(st.sampled_from(["npy", "raw"] if "c" in dtype else ["npy", "raw", "text"])),
        "seed": draw(st.integers(0, 2**64 - 1)),
        "distribution": distribution,
    }


@given(request=requests(), chunk_bytes=st.integers(1, 6000))
def test_bytes_do_not_depend_on_the_size_of_a_chunk(request, chunk_bytes):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        generate(one, **request)
        with mock.patch.object(module, "_CHUNK_BYTES", chunk_bytes):
            generate(other, **request)
        assert contents(one) == contents(other)


@settings(max_examples=8)
@given(request=requests(), workers=st.integers(2, 4))
def test_bytes_do_not_depend_on_the_number_of_workers(request, workers):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        generate(one, workers=1, **request)
        with mock.patch.object(module, "_ALONE_BYTES", 0), mock.patch.object(module, "_ALONE_FILES", 0):
            generate(other, workers=workers, **request)
        assert contents(one) == contents(other)


@given(request=requests(), fewer=st.integers(1, 12))
def test_a_file_does_not_depend_on_the_number_of_files(request, fewer):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        generate(one, **request)
        generate(other, **(request | {"files": min(fewer, request["files"])}))
        pairs = zip(contents(other).values(), contents(one).values(), strict=False)
        assert all(few == many for few, many in pairs)


@given(request=requests(), more=st.integers(0, 100))
def test_a_longer_file_begins_with_the_numbers_of_a_shorter_one(request, more):
    def numbers(count):
        stream = Stream(request["dtype"], request["distribution"])
        return b"".join(chunk.tobytes() for chunk in stream.chunks(request["seed"], 3, count, 64))

    assert numbers(request["count"] + more).startswith(numbers(request["count"]))


@given(request=requests(), seed=st.integers(0, 2**64 - 1))
def test_another_seed_or_index_gives_other_numbers(request, seed):
    def numbers(seed, index):
        return next(Stream(request["dtype"], request["distribution"]).chunks(seed, index, 160, 160)).tobytes()

    assert numbers(request["seed"], 0) != numbers(request["seed"], 1)
    if seed != request["seed"]:
        assert numbers(request["seed"], 0) != numbers(seed, 0)


GOLDEN = {
    (0, 0, "f8", "uniform"): "3606d59a0dcf7955d9a5b4fbbe4c12912bfd43dfbb4ab1a976d014f20e02b8c9",
    (1, 7, "f8", "uniform"): "dac6079845ef25a3170690dc512c7f497d8a1f3e8c8939f12b0140cffde01c7f",
    (18446744073709551615, 123456, "f4", "uniform"): "63726cb6d4f6a14ee582410cb1c3ce0ac2f172a669250c72679449c16a1e07dc",
    (5, 1, "f2", "uniform"): "3576f659c781157057cd71eaa503579815762e35ff83bcb376cba8233ebe268a",
    (0, 0, "f8", "normal"): "7ff36218c2318d974bba86643db3cda077c12f331d95ac40e2e414385a2fdec5",
    (3, 2, "f4", "normal"): "1a6b3bc77126af1953fc9d2a5f00cb31c5c8f33df65d0d6dea9a4d3bf1008c92",
    (3, 2, "c16", "normal"): "80e42ea441726c8878e3dbde301df4959f1e8b4b38e2dcaa66592c1900bb4b12",
    (9, 4, "c8", "uniform"): "196cd4a0b7246bbb6b08f60e47bb2b44a370cea2b47fb8105eee0b59a509bcaf",
    (0, 0, "b1", "uniform"): "5bb36842d165e6827a57006a2f04ad00454940cb2cf4706ba9ea208e11fddce3",
    (0, 0, "u1", "uniform"): "353a12d38efce531b088f8da73e122293280680b4da7ffef0683ba2f342d8ba3",
    (0, 0, "i2", "uniform"): "99502f9f8ac8a87c72416eb3f865c835dd8ad9ecd55da2f3887ddf8f5551f85c",
    (4, 4, "i8", "uniform"): "101b11bc4db966b67b3d70cbc9572bd0c012cf6b95a4470d6d38ad2a7cb8cc40",
}


@pytest.mark.parametrize(("seed", "index", "dtype", "distribution"), GOLDEN)
def test_the_numbers_are_the_same_on_every_machine_and_with_every_version(seed, index, dtype, distribution):
    digest = hashlib.sha256()
    for chunk in Stream(dtype, distribution).chunks(seed, index, 1000, 64):
        digest.update(chunk.astype(chunk.dtype.newbyteorder("<")).tobytes())
    assert digest.hexdigest() == GOLDEN[seed, index, dtype, distribution]
