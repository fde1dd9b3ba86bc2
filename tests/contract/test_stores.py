"""What every store does, whatever it stands on. A new store is added to ``case`` and passes all of this."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Protocol

import pytest

from distsum.errors import InputChangedError, InputListError, OutputError, StorageError, WorkDirBusyError
from distsum.stores.base import StoreInterruptedError
from distsum.stores.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distsum.stores.base import Store
    from distsum.stores.s3 import S3Store


class Case(Protocol):
    """A store with a place in it, and the means to act behind its back."""

    store: Store
    nowhere: bytes

    def uri(self, name: bytes) -> bytes: ...

    def overwrite(self, uri: bytes, content: bytes) -> None:
        """Change an object so that its version differs."""
        ...

    def can_name(self, name: bytes) -> bool: ...


class LocalCase:
    """A local store in a folder."""

    def __init__(self, folder: Path) -> None:
        self.store: Store = LocalStore()
        self._folder = os.fsencode(folder)
        self.store.put(self.uri(b"../file"), [b"x"])
        self.nowhere = self.uri(b"../file/below")

    def uri(self, name: bytes) -> bytes:
        return os.path.join(self._folder, name)

    def overwrite(self, uri: bytes, content: bytes) -> None:
        before = os.stat(uri)
        with open(uri, "wb") as file:
            file.write(content)
        os.utime(uri, ns=(before.st_atime_ns, before.st_mtime_ns + 1))

    def can_name(self, name: bytes) -> bool:
        return True


class S3Case:
    """A place of its own on a real server."""

    def __init__(self, store: S3Store, prefix: bytes) -> None:
        self.store: Store = store
        self.nowhere = b"s3://no-such-bucket/below"
        self._prefix = prefix

    def uri(self, name: bytes) -> bytes:
        return self._prefix + b"/" + name

    def overwrite(self, uri: bytes, content: bytes) -> None:
        self.store.put(uri, [content])

    def can_name(self, name: bytes) -> bool:
        return name.isascii() or name.decode(errors="replace").encode() == name


@pytest.fixture(params=["local", "s3"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    if request.param == "local":
        folder = tmp_path / "store"
        folder.mkdir()
        yield LocalCase(folder)
    else:
        yield S3Case(request.getfixturevalue("s3_store"), request.getfixturevalue("s3_prefix"))


NAMES = [b"plain", b"with space", b"a[1]*?", b"new\nline", b"\xff\xfe not utf-8", "ünïcode %2F+".encode()]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_put_is_read_back_in_ranges(case: Case, name: bytes) -> None:
    uri = case.uri(name)
    if not case.can_name(name):
        with pytest.raises(InputListError, match="UTF-8"):
            case.store.put(uri, [b""])
        return
    assert case.store.put(uri, [b"01234", b"", memoryview(b"56789")]) == 10
    reader = case.store.open(uri)
    assert reader is not None
    with reader:
        assert (reader.size, reader.read(0, 4), reader.read(7, 100), reader.read(10, 5)) == (10, b"0123", b"789", b"")
        first, second = bytearray(3), bytearray(4)
        assert reader.read_into([memoryview(first), memoryview(second)], 2) == 7
        assert (bytes(first), bytes(second)) == (b"234", b"5678")
        assert reader.read_into([memoryview(bytearray(8))], 6) == 4


def test_put_replaces_the_whole_object(case: Case) -> None:
    uri = case.uri(b"object")
    case.store.put(uri, [b"a long first version"])
    case.store.put(uri, [b"short"])
    reader = case.store.open(uri)
    assert reader is not None
    with reader:
        assert reader.read(0, 100) == b"short"


def test_a_put_that_fails_leaves_what_was_there_and_nothing_else(case: Case) -> None:
    uri = case.uri(b"object")
    case.store.put(uri, [b"before"])

    class BrokenBuffers(list[bytes]):
        def __iter__(self) -> object:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        case.store.put(uri, BrokenBuffers([b"after"]))
    reader = case.store.open(uri)
    assert reader is not None
    with reader:
        assert reader.read(0, 100) == b"before"
    assert sorted(case.store.list(case.uri(b""))) == [b"object"]


def test_put_makes_the_folders_it_needs_and_list_finds_objects_below_a_prefix(case: Case) -> None:
    for name in (b"partials/ab/abc", b"partials/cd/cde", b"jobs/1/spec"):
        case.store.put(case.uri(name), [name])
    assert sorted(case.store.list(case.uri(b"partials"))) == [b"ab/abc", b"cd/cde"]
    assert list(case.store.list(case.uri(b"nothing here"))) == []


def test_a_store_that_was_interrupted_is_usable_again(case: Case) -> None:
    interruption = threading.Event()
    case.store.put(case.uri(b"object"), [b"content"])
    reader = case.store.open(case.uri(b"object"))
    assert reader is not None
    with reader:
        case.store.heed(interruption)
        interruption.set()
        with contextlib.suppress(StoreInterruptedError):
            reader.read(0, 7)
        with contextlib.suppress(StoreInterruptedError):
            case.store.put(case.uri(b"other"), [b"x"])
        case.store.heed(None)
        assert reader.read(0, 7) == b"content"
    case.store.put(case.uri(b"other"), [b"y"])
    case.store.heed(threading.Event())
    assert case.store.exists(case.uri(b"other"))
    case.store.heed(None)


def test_exists_and_delete(case: Case) -> None:
    uri = case.uri(b"object")
    assert not case.store.exists(uri)
    assert case.store.open(uri) is None
    case.store.put(uri, [b"x"])
    assert case.store.exists(uri)
    case.store.delete(uri)
    assert not case.store.exists(uri)
    case.store.delete(uri)


def test_an_object_tells_when_it_was_written_by_the_clock_of_the_store(case: Case) -> None:
    uri = case.uri(b"a")
    assert case.store.written_seconds(uri) is None
    before = time.time()
    case.store.put(uri, [b"x"])
    written = case.store.written_seconds(uri)
    assert written is not None
    assert before - 2.0 <= written <= time.time() + 2.0, "the servers of the tests have this machine's clock"


def test_an_input_is_pinned_to_what_it_was_when_identified(case: Case) -> None:
    uri = case.uri(b"input")
    case.store.put(uri, [b"12345678"])
    entry = case.store.identify(uri)
    assert (entry.uri, entry.size) == (uri, 8)
    with case.store.open_input(entry, 2, 4) as reader:
        assert reader.read(2, 4) == b"3456"
        reader.check_unchanged()
    case.overwrite(uri, b"ABCDEFGH")
    with pytest.raises(InputChangedError, match="input"), case.store.open_input(entry) as reader:
        reader.read(0, 8)
    assert case.store.identify(uri) != entry


def test_an_input_that_changes_while_it_is_read_is_told_or_read_as_it_was(case: Case) -> None:
    uri = case.uri(b"input")
    case.store.put(uri, [b"12345678"])
    with case.store.open_input(case.store.identify(uri), 0, 8) as reader:
        assert reader.read(0, 4) == b"1234"
        case.overwrite(uri, b"ABCDEFGH")
        told = False
        content = b""
        try:
            content = reader.read(0, 8)
            reader.check_unchanged()
        except InputChangedError:
            told = True
        assert told or content == b"12345678"


def test_an_input_of_another_size_or_gone_is_named(case: Case) -> None:
    uri = case.uri(b"input")
    case.store.put(uri, [b"12345678"])
    entry = case.store.identify(uri)
    case.overwrite(uri, b"123")
    with pytest.raises(InputChangedError, match="8 to 3 bytes"), case.store.open_input(entry) as reader:
        reader.read(0, 8)
    case.store.delete(uri)
    with pytest.raises(InputChangedError, match="gone"), case.store.open_input(entry) as reader:
        reader.read(0, 8)


def test_what_is_announced_of_an_input_is_read_and_anything_else_as_well(case: Case) -> None:
    content = bytes(range(256)) * 20_000
    uri = case.uri(b"input")
    case.store.put(uri, [content])
    entry = case.store.identify(uri)
    buffer = memoryview(bytearray(1_500_000))
    with case.store.open_input(entry, 2_000_001, 1_500_000, head=1000, hold=1 << 20) as reader:
        for offset, size in [(0, 1000), (2_000_001, 700_000), (2_700_001, 800_000), (3_500_001, 1_500_000), (5, 10)]:
            assert reader.read_into([buffer[:7], buffer[7:size]], offset) == size
            assert buffer[:size] == content[offset : offset + size]
        assert reader.read_into([buffer[:100]], len(content) - 30) == 30
        assert buffer[:30] == content[-30:]
        assert reader.read_into([buffer[:100]], len(content)) == 0


def test_what_is_no_input_is_named(case: Case) -> None:
    with pytest.raises(InputListError, match=r"missing.*no such (file|object)"):
        case.store.identify(case.uri(b"missing"))


def test_many_are_identified_in_the_order_asked_for(case: Case) -> None:
    names = [b"a/%02d +" % number for number in range(30)] + [b"b/x", b"a/05 +", b"c", b"a/sub/y", b"b/x"]
    for number, name in enumerate(names):
        case.store.put(case.uri(name), [bytes(number)])
    uris = [case.uri(name) for name in names]
    assert list(case.store.identify_all(iter(uris))) == [case.store.identify(uri) for uri in uris]
    with pytest.raises(InputListError, match="gone"):
        list(case.store.identify_all([*uris[:30], case.uri(b"a/99 gone"), uris[30]]))


def test_many_are_opened_in_order_and_those_that_are_missing_are_told(case: Case) -> None:
    content = {b"%d" % number: os.urandom(400_000) for number in range(7) if number != 3}
    for name, data in content.items():
        case.store.put(case.uri(name), [data])
    names = [b"%d" % number for number in range(7)]
    found = {}
    for name, reader in zip(names, case.store.open_all([case.uri(name) for name in names], 300_000, 3), strict=True):
        if reader is not None:
            with reader:
                assert reader.read(0, 10) == content[name][:10]
                found[name] = reader.read(0, 500_000)
    assert found == content


def test_a_folder_is_removed_but_for_what_is_kept(case: Case) -> None:
    for name in (b"work/a", b"work/sub/b", b"work/sub/c", b"workshop/d"):
        case.store.put(case.uri(name), [b""])
    case.store.delete_all(case.uri(b"work"), {b"sub/b"})
    assert sorted(case.store.list(case.uri(b""))) == [b"work/sub/b", b"workshop/d"]
    case.store.delete_all(case.uri(b"work"), set())
    case.store.delete_all(case.uri(b"work"), set())
    assert list(case.store.list(case.uri(b""))) == [b"workshop/d"]


def test_what_is_withdrawn_takes_the_folders_with_it_that_were_made_for_it(case: Case) -> None:
    work = case.uri(b"work")
    for name in (b"jobs/one/outcome", b"jobs/one/children/a", b"jobs/one/children/b", b"partials/ab/c"):
        case.store.put(work + b"/" + name, [b"x"])
    case.store.withdraw(work + b"/jobs/one/children/a", work)
    assert case.store.exists(work + b"/jobs/one/children/b")
    for _ in range(2):
        case.store.withdraw(work + b"/jobs/one/children/b", work)
        case.store.withdraw(work + b"/partials/ab/c", work)
    assert list(case.store.list(work)) == [b"jobs/one/outcome"]
    if not work.startswith(b"s3:"):
        # Nothing is left but what holds that.
        assert [folder for folder, _, _ in os.walk(work)] == [work, work + b"/jobs", work + b"/jobs/one"]
        case.store.withdraw(work + b"/jobs/one/outcome", work)
        assert os.listdir(work) == [], "the work folder itself stays"


def test_a_folder_that_another_removes_while_it_is_empty_is_made_again(tmp_path, monkeypatch) -> None:
    make = os.mkdir
    made = []

    def make_and_remove(folder: bytes, mode: int) -> None:
        make(folder, mode)
        made.append(folder)
        if len(made) < 4:
            os.rmdir(folder)

    monkeypatch.setattr(os, "mkdir", make_and_remove)
    uri = os.fsencode(tmp_path / "ab" / "c")
    LocalStore().put(uri, [b"x"])
    assert LocalStore().exists(uri)
    assert len(made) == 4


def test_a_folder_is_held_by_one_at_a_time(case: Case) -> None:
    folder = case.uri(b"a/work")
    for _ in range(2):
        with case.store.lock(folder):
            with pytest.raises(WorkDirBusyError, match="a/work is in use"), case.store.lock(folder):
                pass
            with case.store.lock(case.uri(b"a/other")):
                pass


def test_an_output_is_put_together_from_ranges_in_any_order_and_visible_only_when_committed(case: Case) -> None:
    final = case.uri(b"result +%20\xc3\xbc")
    least = case.store.least_range(case.uri(b"result"), 3 * (6 << 20))
    size = max(least, 6 << 20)
    tiles = [bytes([number]) * size for number in (1, 2)] + [b"the end"]
    case.store.create_output(final, 100)  # by an earlier run, which was killed
    output = case.store.create_output(final, sum(map(len, tiles)))
    receipts = [b""] * 3
    for tile in (2, 0, 1, 0):
        blocks = (tiles[tile][start : start + 1_000_000] for start in range(0, size, 1_000_000))
        receipts[tile] = case.store.write_range(output, tile * size, blocks)
    assert not case.store.exists(final)
    assert b"result +%20\xc3\xbc" not in set(case.store.list(case.uri(b"")))
    case.store.commit_output(output, final, receipts, replace=False)
    assert read(case.store, final) == b"".join(tiles)
    assert b"result +%20\xc3\xbc" in set(case.store.list(case.uri(b"")))


@pytest.mark.parametrize("size", [0, 1, 11 << 20])
def test_an_output_may_be_one_range_of_any_size(case: Case, size: int) -> None:
    final = case.uri(b"result")
    output = case.store.create_output(final, size)
    content = os.urandom(size)
    receipt = case.store.write_range(output, 0, iter([content]))
    case.store.commit_output(output, final, [receipt], replace=False)
    assert read(case.store, final) == content


def test_an_output_that_has_appeared_meanwhile_is_kept_unless_it_may_be_replaced(case: Case) -> None:
    final = case.uri(b"result")
    output = case.store.create_output(final, 3)
    receipts = [case.store.write_range(output, 0, [b"new"])]
    case.store.put(final, [b"somebody else's"])
    with pytest.raises(OutputError, match="result"):
        case.store.commit_output(output, final, receipts, replace=False)
    assert read(case.store, final) == b"somebody else's"
    case.store.commit_output(output, final, receipts, replace=True)
    assert read(case.store, final) == b"new"


def test_an_output_that_is_given_up_leaves_nothing_and_cannot_be_written_any_more(case: Case) -> None:
    final = case.uri(b"result")
    output = case.store.create_output(final, 3)
    case.store.write_range(output, 0, [b"new"])
    case.store.abort_output(output)
    case.store.abort_output(output)
    assert list(case.store.list(case.uri(b""))) == []
    with pytest.raises(StorageError, match="result"):
        case.store.write_range(output, 0, [b"new"])


def test_writing_where_it_cannot_be_names_the_object(case: Case) -> None:
    with pytest.raises(StorageError, match="below"):
        case.store.create_output(case.nowhere, 3)
    with pytest.raises(StorageError, match="below"):
        case.store.put(case.nowhere, [b"x"])


def read(store: Store, uri: bytes) -> bytes:
    reader = store.open(uri)
    assert reader is not None
    with reader:
        return reader.read(0, reader.size + 1)
