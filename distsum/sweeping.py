"""Removing what runs that never ended have left: unfinished outputs, descriptions of jobs, and their work folders.

A run that fails or is interrupted leaves its partials, which the same command uses again, and nothing else; one that is
killed leaves its unfinished output as well. Only who knows that a command will not be run again knows that they are
waste, so what is swept is old: nothing of it was written for a while, and no run holds it.

A folder counts as a work folder by what lies in it: ``jobs/<id>/inputs`` or ``jobs/<id>/spec`` tell that a run did not
end there. One that is named ``*.distsum``, as they are unless ``--work-dir`` says otherwise, is removed whole. From any
other only the jobs are removed, since partials may be kept there for other jobs; and partials only if asked for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from distsum.errors import WorkDirBusyError
from distsum.messages import JOB_SPEC
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.stores.base import Store

_OF_WORK: Final = re.compile(
    rb"(?P<folder>.*/|)(?:(?P<job>jobs/[0-9a-f]{12}/(?:inputs|spec))|partials/[0-9a-f]{2}/[0-9a-f]{64}(?:\.tmp\d+)?|lock)"
)
_OWN_SUFFIX: Final = b".distsum"


class Swept(msgspec.Struct, frozen=True):
    """What was removed, or would be.

    Attributes:
        outputs: Unfinished outputs.
        folders: Work folders, in whole or in part.
        objects: Objects or files in them.
        bytes: Their bytes.
        busy: Work folders that a run holds, and that were left alone.
    """

    outputs: int = 0
    folders: int = 0
    objects: int = 0
    bytes: int = 0
    busy: int = 0


class _Folder:
    """What is known of a work folder from the listing of its objects."""

    def __init__(self) -> None:
        self.names: dict[bytes, int] = {}
        self.jobs: list[bytes] = []
        self.youngest_seconds = float("inf")


def sweep(
    store: Store,
    place: bytes,
    older_than_seconds: float,
    tell: Callable[[str], None],
    *,
    partials: bool = False,
    dry: bool = False,
) -> Swept:
    """Remove what is left below a folder.

    Args:
        store: Where it lies.
        place: The folder, as an URI or an absolute path.
        older_than_seconds: Only what was not touched for as long is removed.
        tell: Called with a line for each thing that is removed.
        partials: Whether partials are removed as well from folders that ``--work-dir`` named, or that keep them.
        dry: Whether to tell only what would be removed.

    Raises:
        StorageError: Listing or removing failed.
    """
    place = place.rstrip(b"/")
    folders = _work_folders(store, place)
    folder_count = objects = size = busy = 0
    for name, folder in sorted(folders.items()):
        wanted = folder.jobs or (partials and any(each.startswith(b"partials/") for each in folder.names))
        if not wanted or folder.youngest_seconds < older_than_seconds:
            continue
        whole = partials or name.endswith(_OWN_SUFFIX)
        doomed = [each for each in folder.names if whole or each in folder.jobs]
        uri = place + b"/" + name if name else place
        try:
            if not dry:
                _remove(store, uri, folder, whole=whole)
        except WorkDirBusyError:
            busy += 1
            tell(f"{printable(uri)}: in use, left alone")
            continue
        folder_count += 1
        objects += len(doomed)
        size += sum(folder.names[each] for each in doomed)
        tell(f"{printable(uri)}: {len(doomed)} objects of a work folder" + ("" if whole else ", its partials kept"))
    outputs = 0
    for begun in store.begun(place):
        if begun.age_seconds >= older_than_seconds:
            outputs += 1
            tell(f"{printable(begun.final)}: an output that was never finished")
            if not dry:
                store.abort_output(begun.output)
    return Swept(outputs, folder_count, objects, size, busy)


def _work_folders(store: Store, place: bytes) -> dict[bytes, _Folder]:
    """Return what looks like a work folder below a place, by its name relative to that."""
    folders: dict[bytes, _Folder] = {}
    for entry in store.aged(place):
        found = _OF_WORK.fullmatch(entry.name)
        if found is None:
            continue
        name = found["folder"].rstrip(b"/")
        folder = folders.setdefault(name, _Folder())
        inner = entry.name[len(found["folder"]) :]
        folder.names[inner] = entry.size
        folder.youngest_seconds = min(folder.youngest_seconds, entry.age_seconds)
        if found["job"]:
            folder.jobs.append(inner)
    return folders


def _remove(store: Store, uri: bytes, folder: _Folder, *, whole: bool) -> None:
    """Remove a work folder, or its jobs, while it is held; the outputs of its jobs are given up."""
    with store.lock(uri):
        for name in folder.jobs:
            if name.endswith(b"/spec"):
                _give_up(store, uri + b"/" + name)
        if whole:
            store.delete_all(uri + b"/partials", set())
        store.delete_all(uri + b"/jobs", set())
    # What made a lock of it on a disk has left the file.
    left = {entry.name for entry in store.aged(uri)}
    if left <= {b"lock"}:
        store.delete_all(uri, set())


def _give_up(store: Store, spec_uri: bytes) -> None:
    reader = store.open(spec_uri)
    if reader is None:
        return
    with reader:
        try:
            spec = JOB_SPEC.decode(reader.read(0, reader.size))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # of another version: its output is found by its age
    if spec.output:
        store.abort_output(spec.output)
