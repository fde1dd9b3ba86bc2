"""What every store does, whatever it stands on. A new store is added to ``stores`` and passes all of this."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from distsum.errors import InputChangedError, InputListError, OutputError, StorageError
from distsum.stores.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path

    from distsum.stores.base import Store


class LocalCase:
    """A local store in a folder, and the means to act behind its back."""

    def __init__(self, folder: Path) -> None:
        self.store: Store = LocalStore()
        self._folder = os.fsencode(folder)

    def uri(self, name: bytes) -> bytes:
        return os.path.join(self._folder, name)

    def overwrite(self, uri: bytes, content: bytes) -> None:
        """Change an object so that its version differs."""
        before = os.stat(uri)
        with open(uri, "wb") as file:
            file.write(content)
        os.utime(uri, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


@pytest.fixture(params=[LocalCase])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> LocalCase:
    made: LocalCase = request.param(tmp_path)
    return made


NAMES = [b"plain", b"with space", b"a[1]*?", b"new\nline", b"\xff\xfe not utf-8", "ünïcode %2F+".encode()]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_put_is_read_back_in_ranges(case: LocalCase, name: bytes) -> None:
    uri = case.uri(name)
    assert case.store.put(uri, [b"01234", b"", memoryview(b"56789")]) == 10
    reader = case.store.open(uri)
    assert reader is not None
    with reader:
        assert (reader.size, reader.read(0, 4), reader.read(7, 100), reader.read(10, 5)) == (10, b"0123", b"789", b"")
        first, second = bytearray(3), bytearray(4)
        assert reader.read_into([memoryview(first), memoryview(second)], 2) == 7
        assert (bytes(first), bytes(second)) == (b"234", b"5678")
        assert reader.read_into([memoryview(bytearray(8))], 6) == 4


def test_put_replaces_the_whole_object(case: LocalCase) -> None:
    uri = case.uri(b"object")
    case.store.put(uri, [b"a long first version"])
    case.store.put(uri, [b"short"])
    reader = case.store.open(uri)
    assert reader is not None
    with reader:
        assert reader.read(0, 100) == b"short"


def test_a_put_that_fails_leaves_what_was_there_and_nothing_else(case: LocalCase) -> None:
    uri = case.uri(b"object")
    case.store.put(uri, [b"before"])

    class BrokenBuffers(list[bytes]):
        def __iter__(self) -> object:  # type: ignore[override]  # the failure is the point
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        case.store.put(uri, BrokenBuffers([b"after"]))
    reader = case.store.open(uri)
    assert reader is not None
    with reader:
        assert reader.read(0, 100) == b"before"
    assert sorted(case.store.list(case.uri(b""))) == [b"object"]


def test_put_makes_the_folders_it_needs_and_list_finds_objects_below_a_prefix(case: LocalCase) -> None:
    for name in (b"partials/ab/abc", b"partials/cd/cde", b"jobs/1/spec"):
        case.store.put(case.uri(name), [name])
    assert sorted(case.store.list(case.uri(b"partials"))) == [b"ab/abc", b"cd/cde"]
    assert list(case.store.list(case.uri(b"nothing here"))) == []


def test_exists_and_delete(case: LocalCase) -> None:
    uri = case.uri(b"object")
    assert not case.store.exists(uri)
    assert case.store.open(uri) is None
    case.store.put(uri, [b"x"])
    assert case.store.exists(uri)
    case.store.delete(uri)
    assert not case.store.exists(uri)
    case.store.delete(uri)


def test_an_input_is_pinned_to_what_it_was_when_identified(case: LocalCase) -> None:
    uri = case.uri(b"input")
    case.store.put(uri, [b"12345678"])
    entry = case.store.identify(uri)
    assert (entry.uri, entry.size) == (uri, 8)
    with case.store.open_input(entry, 2, 4) as reader:
        assert reader.read(2, 4) == b"3456"
        reader.check_unchanged()
        case.overwrite(uri, b"ABCDEFGH")
        with pytest.raises(InputChangedError, match="input"):
            reader.check_unchanged()
    with pytest.raises(InputChangedError, match="input"):
        case.store.open_input(entry)
    assert case.store.identify(uri) != entry


def test_an_input_of_another_size_or_gone_is_named(case: LocalCase) -> None:
    uri = case.uri(b"input")
    case.store.put(uri, [b"12345678"])
    entry = case.store.identify(uri)
    case.overwrite(uri, b"123")
    with pytest.raises(InputChangedError, match="8 to 3 bytes"):
        case.store.open_input(entry)
    case.store.delete(uri)
    with pytest.raises(InputChangedError, match="gone"):
        case.store.open_input(entry)


def test_what_is_no_input_is_named(case: LocalCase) -> None:
    with pytest.raises(InputListError, match=r"missing.*no such file"):
        case.store.identify(case.uri(b"missing"))


def test_an_output_is_put_together_from_ranges_in_any_order_and_visible_only_when_committed(case: LocalCase) -> None:
    part, final = case.uri(b".part"), case.uri(b"result")
    case.store.put(part, [b"left by an earlier run, and longer than the new one"])
    case.store.create_output(part, 10)
    receipts = [case.store.write_range(part, 6, iter([b"67", b"89"]))]
    receipts.append(case.store.write_range(part, 0, [b"012345"]))
    assert not case.store.exists(final)
    case.store.commit_output(part, final, receipts, replace=False)
    assert not case.store.exists(part)
    reader = case.store.open(final)
    assert reader is not None
    with reader:
        assert reader.read(0, 100) == b"0123456789"


def test_an_output_that_has_appeared_meanwhile_is_kept_unless_it_may_be_replaced(case: LocalCase) -> None:
    part, final = case.uri(b".part"), case.uri(b"result")
    case.store.create_output(part, 3)
    receipts = [case.store.write_range(part, 0, [b"new"])]
    case.store.put(final, [b"somebody else's"])
    with pytest.raises(OutputError, match="result"):
        case.store.commit_output(part, final, receipts, replace=False)
    reader = case.store.open(final)
    assert reader is not None
    with reader:
        assert reader.read(0, 100) == b"somebody else's"
    case.store.commit_output(part, final, receipts, replace=True)
    reader = case.store.open(final)
    assert reader is not None
    with reader:
        assert reader.read(0, 100) == b"new"


def test_writing_where_it_cannot_be_names_the_object(case: LocalCase) -> None:
    case.store.put(case.uri(b"file"), [b"x"])
    with pytest.raises(StorageError, match="below"):
        case.store.create_output(case.uri(b"file/below"), 3)
