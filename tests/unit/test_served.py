"""What a worker is told to serve, and that nothing else is reached by any call, spelling, link or handle."""

from __future__ import annotations

import inspect
import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from distsum.errors import ConfigurationError, NotServedError
from distsum.manifest import Input
from distsum.stores.base import Store
from distsum.stores.s3_parts import Upload, encode_handle
from distsum.stores.served import Places, ServedStore, served_place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """A folder ``served`` with a file and links, beside things that are not served."""
    for name in ("served/inner", "served-too", "outside"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("served/a.npy", "served/inner/b.npy", "served-too/c.npy", "outside/d.npy"):
        (tmp_path / name).write_bytes(b"content")
    (tmp_path / "served/out").symlink_to("../outside")
    (tmp_path / "served/out.npy").symlink_to("../outside/d.npy")
    (tmp_path / "served/in.npy").symlink_to("inner/b.npy")
    (tmp_path / "served/loop").symlink_to("loop")
    (tmp_path / "outside/in").symlink_to("../served")
    (tmp_path / "outside/in.npy").symlink_to("../served/a.npy")
    (tmp_path / "door").symlink_to("served")
    return tmp_path


@pytest.fixture
def store(ground: Path) -> Iterator[ServedStore]:
    with closing(ServedStore(Places([served_place(os.fsencode(ground / "door")), served_place(b"s3://b/pre/")]))) as it:
        yield it


def refused(places: Places, uri: bytes) -> bool:
    try:
        places.check(uri)
    except NotServedError:
        return True
    return False


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("served", True),
        ("served/a.npy", True),
        ("served/inner/b.npy", True),
        ("served/not/yet/there.npy", True),
        ("served/in.npy", True),
        ("door/a.npy", True),
        ("outside/in/a.npy", True),
        ("served/../served/a.npy", True),
        ("served/é\udcff%2e%2e.npy", True),
        ("served-too/c.npy", False),
        ("served-too", False),
        ("outside/d.npy", False),
        ("served/../outside/d.npy", False),
        ("served/..", False),
        ("served/inner/../..", False),
        ("served/out/d.npy", False),
        ("served/out/new.npy", False),
        ("served/out.npy", False),
        ("served/out/../outside/d.npy", False),
        ("outside/in.npy", False),  # to write or remove the link would change the folder that it is in
        ("served/loop/../../outside/d.npy", False),
        ("served/a\0.npy", False),
        pytest.param("served/" + "a/" * 500_000, False, id="a million bytes of folders"),
        pytest.param("served/" + "x" * 1_000_000, False, id="a million bytes"),
    ],
)
def test_a_path_is_served_by_where_it_really_is(ground: Path, name: str, inside: object) -> None:
    places = Places([served_place(os.fsencode(ground / "door"))])
    assert refused(places, os.fsencode(f"{ground}/{name}")) is not inside


@pytest.mark.parametrize(
    "uri", [b"", b"a.npy", b"./a.npy", b"../../etc/passwd", b"file:///etc", b"S3://b/pre/a", b"~/a"]
)
def test_a_name_that_depends_on_where_one_stands_is_not_served(
    ground: Path, monkeypatch: pytest.MonkeyPatch, uri: bytes
) -> None:
    monkeypatch.chdir(ground / "served")
    assert refused(Places([served_place(b".")]), uri)


@pytest.mark.parametrize(
    ("place", "uri", "inside"),
    [
        (b"s3://b/pre", b"s3://b/pre", True),
        (b"s3://b/pre", b"s3://b/pre/a", True),
        (b"s3://b/pre///", b"s3://b/pre/a//c", True),
        (b"s3://b/pre", b"s3://b/pre/%2e%2e/a", True),
        ("s3://b/prä".encode(), "s3://b/prä/a".encode(), True),
        (b"s3://b", b"s3://b/anything/at/all", True),
        (b"s3://b/", b"s3://b", True),
        (b"s3://b/pre", b"s3://b/prefix/a", False),
        (b"s3://b/pre", b"s3://b/preevil", False),
        (b"s3://b/pre", b"s3://b/pre%2Fa", False),
        (b"s3://b/pre", b"s3://b//pre/a", False),
        (b"s3://b/pre", b"s3://b/pre/../other", False),
        (b"s3://b/pre", b"s3://b/pre/./a", False),
        (b"s3://b/pre", b"s3://b/pre/a\0", False),
        (b"s3://b/pre", b"s3://b", False),
        (b"s3://b", b"s3://bucket/a", False),
        (b"s3://b", b"s3://B/a", False),
        (b"s3://b", b"s3:///b/a", False),
        (b"s3://b", b"/b/a", False),
        ("s3://b/pr\N{LATIN SMALL LETTER A WITH DIAERESIS}".encode(), "s3://b/pra\u0308/a".encode(), False),
    ],
)
def test_a_key_is_served_by_its_bytes(place: bytes, uri: bytes, inside: object) -> None:
    assert refused(Places([served_place(place)]), uri) is not inside


def test_what_is_told_to_others_is_the_folder_or_the_object_where_its_folder_is_served(ground: Path) -> None:
    places = Places([served_place(os.fsencode(ground / "served")), b"s3://b/pre"])
    for uri, place in (
        (f"{ground}/outside/d.npy", f"{ground}/outside"),
        (f"{ground}/served/out.npy", f"{ground}/served/out.npy"),
        ("s3://b/other/a", "s3://b/other"),
        ("s3://c/a", "s3://c"),
    ):
        with pytest.raises(NotServedError) as caught:
            places.check(uri.encode())
        assert caught.value.place == place


@pytest.mark.parametrize(
    "name", [b"/no/such/folder", b"s3://", b"s3:///a", b"s3://b/../a", b"s3://b/.", b"a\0", b"", b"file:///etc"]
)
def test_a_place_that_is_none_is_refused_by_name(name: bytes) -> None:
    with pytest.raises(ConfigurationError, match="--serve"):
        served_place(name)


def test_the_root_serves_every_path_and_no_bucket() -> None:
    places = Places([served_place(b"/")])
    assert not refused(places, b"/etc/passwd")
    assert refused(places, b"s3://b/a")


def outside_calls(uri: bytes) -> dict[str, Any]:
    """Return for each parameter of a store's calls a value that leads to an URI."""
    return {
        "uri": uri,
        "entry": Input(uri, 1, b"1"),
        "uris": [b"s3://b/pre/a" if uri.startswith(b"s3:") else uri, uri],
        "prefix": uri,
        "folder": uri,
        "final": uri,
        "output": encode_handle(Upload(uri, "id", 1, 1)) if uri.startswith(b"s3:") else uri,
        "size": 1,
        "offset": 0,
        "ahead": 1,
        "kept": set(),
        "buffers": [b"content"],
        "receipts": [],
        "replace": True,
    }


def used(result: Any) -> None:
    """Use what a call returns, where it is that which does the work."""
    if inspect.isgenerator(result):
        list(result)
    elif hasattr(result, "__enter__"):
        with result:
            pass


CALLS = sorted(
    name
    for name, member in vars(Store).items()
    if inspect.isfunction(member)
    and not name.startswith("_")
    and name not in {"close", "client_bytes", "heed", "take_latencies"}  # no URI
)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("where", ["disk", "S3"])
def test_no_call_of_a_store_reaches_what_is_not_served(ground: Path, store: ServedStore, name: str, where: str) -> None:
    uri = b"s3://b/other/d.npy" if where == "S3" else os.fsencode(ground / "outside/d.npy")
    parameters = inspect.signature(getattr(Store, name)).parameters.values()
    values = outside_calls(uri)
    wanted = [each for each in parameters if each.name != "self" and each.default is each.empty]
    positional = [values[each.name] for each in wanted if each.kind is each.POSITIONAL_OR_KEYWORD]
    named = {each.name: values[each.name] for each in wanted if each.kind is each.KEYWORD_ONLY}
    before = sorted((path, path.lstat().st_mtime_ns) for path in ground.rglob("*"))
    with pytest.raises(NotServedError, match=r"d\.npy.*--serve"):
        used(getattr(store, name)(*positional, **named))
    assert sorted((path, path.lstat().st_mtime_ns) for path in ground.rglob("*")) == before


def test_a_handle_counts_by_the_object_that_it_leads_to(store: ServedStore) -> None:
    other = encode_handle(Upload(b"s3://b/other/a.npy", "id", 1, 1))
    for forged in (other, other.replace(b"s3://b/[", b"s3://b/pre/a/[", 1), b"s3://b/pre/a.npy", b"s3://b/pre/[1"):
        with pytest.raises(NotServedError):
            store.write_range(forged, 0, [b"content"])
        with pytest.raises(NotServedError):
            store.abort_output(forged)
    store._places.check_output(encode_handle(Upload(b"s3://b/pre/a.npy", "id", 1, 1)))


def test_an_output_must_be_served_under_both_of_its_names(ground: Path, store: ServedStore) -> None:
    inside, outside = (os.fsencode(ground / name) for name in ("served/a.npy", "outside/d.npy"))
    for output, final in ((inside, outside), (outside, inside)):
        with pytest.raises(NotServedError):
            store.commit_output(output, final, [], replace=True)
    assert (ground / "outside/d.npy").read_bytes() == b"content"


def test_what_is_served_is_read_and_written_as_ever(ground: Path, store: ServedStore) -> None:
    folder = os.fsencode(ground / "served")
    assert store.put(folder + b"/new/e.npy", [b"more"]) == 4
    (reader,) = store.open_all([folder + b"/new/e.npy"], 4, 1)
    assert reader is not None
    with reader:
        assert reader.read(0, 4) == b"more"
    output = store.create_output(folder + b"/result", 4)
    store.write_range(output, 0, [b"done"])
    store.commit_output(output, folder + b"/result", [b""], replace=False)
    assert (ground / "served/result").read_bytes() == b"done"
