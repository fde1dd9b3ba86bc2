"""Removing what runs that never ended have left: unfinished outputs, descriptions of jobs, and their work folders.

A run that fails or is interrupted leaves its partials, which the same command uses again, and nothing else; one that is
killed leaves its unfinished output as well. Only who knows that a command will not be run again knows that they are
waste, so what is swept is old: nothing of it was written for a while, and no run holds it.

A folder counts as a work folder by what lies in it: ``jobs/<id>/inputs`` or ``jobs/<id>/spec`` tell that a run did not
end there. One that is named ``*.distsum``, as they are unless ``--work-dir`` says otherwise, is removed whole. From any
other only the jobs are removed, since partials may be kept there for other jobs; and partials only if asked for.

Nodes that workers store inside long tasks lie with their job, and go with it. A worker may store one after its job has
ended, for want of having heard of it; so one may be found of a job that has no records any more, or an outcome.

A service holds no lock on its work folder, and what it has promised may wait there for long. A job that it has accepted
has a ticket: its records stay, and until it has ended the whole folder is left alone. Records of jobs that have ended,
which tell how, are removed when that is asked for: nobody writes them any more, so a service may go on meanwhile.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from distsum.errors import WorkDirBusyError
from distsum.messages import JOB_SPEC
from distsum.wording import counted, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from distsum.stores.base import Store

_OF_WORK: Final = re.compile(
    rb"(?P<folder>.*/|)(?:"
    rb"(?P<job>jobs/[0-9a-f]{12})/(?:(?P<record>inputs|spec|record|ticket|cancelled|committing|outcome|history)"
    rb"|(?P<child>children/[0-9a-f]{64}(?:\.tmp[0-9a-f]+)?))"
    rb"|(?P<partial>partials/[0-9a-f]{2}/[0-9a-f]{64}(?:\.tmp[0-9a-f]+)?)"
    rb"|lock)"
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
        jobs: Jobs of a service that have ended, and are told of no more.
    """

    outputs: int = 0
    folders: int = 0
    objects: int = 0
    bytes: int = 0
    busy: int = 0
    jobs: int = 0


class _Folder:
    """What is known of a work folder from the listing of its objects.

    Attributes:
        sizes: All that lies in it, by name.
        jobs: The names of each job's records.
        children: The names of the nodes inside each job's long tasks.
        ended_seconds: How long ago each job of a service ended, of which nothing but its records is left.
        partials: Those among the names that are partials.
        youngest_seconds: How long ago something in it was written.
    """

    def __init__(self) -> None:
        self.sizes: dict[bytes, int] = {}
        self.jobs: dict[bytes, set[bytes]] = {}
        self.children: dict[bytes, set[bytes]] = {}
        self.outcomes: dict[bytes, float] = {}
        self.partials: list[bytes] = []
        self.youngest_seconds = float("inf")

    @property
    def ended_seconds(self) -> dict[bytes, float]:
        """Of each job of a service that has ended and been tidied, how long ago it ended."""
        done = {job: records for job, records in self.jobs.items() if b"ticket" in records and b"inputs" not in records}
        return {job: self.outcomes[job] for job in done if job in self.outcomes}

    @property
    def left(self) -> list[bytes]:
        """Jobs of runs that did not end, and of clients whose service never accepted them."""
        return [job for job, records in self.jobs.items() if b"ticket" not in records]

    @property
    def late(self) -> list[bytes]:
        """Jobs of a service that have ended, and for which a worker that had not heard of it has stored something."""
        return [job for job in self.children if b"outcome" in self.jobs[job] and b"ticket" in self.jobs[job]]

    @property
    def serves(self) -> bool:
        """Whether a service has jobs here."""
        return len(self.left) < len(self.jobs)

    @property
    def works(self) -> bool:
        """Whether a service has jobs here that have not ended."""
        return any(b"ticket" in records and b"outcome" not in records for records in self.jobs.values())


def sweep(
    store: Store,
    place: bytes,
    older_than_seconds: float,
    tell: Callable[[str], None],
    *,
    partials: bool = False,
    ended_jobs: bool = False,
    dry: bool = False,
) -> Swept:
    """Remove what is left below a folder.

    Args:
        store: Where it lies.
        place: The folder, as an URI or an absolute path.
        older_than_seconds: Only what was not touched for as long is removed.
        tell: Called with a line for each thing that is removed.
        partials: Whether partials are removed as well from folders that ``--work-dir`` named, or that keep them.
        ended_jobs: Whether what tells how jobs of a service ended is removed as well, once that is as long ago.
        dry: Whether to tell only what would be removed.

    Raises:
        StorageError: Listing or removing failed.
    """
    place = place.rstrip(b"/")
    folders = _work_folders(store, place)
    folder_count = jobs = objects = size = busy = 0
    for name, folder in sorted(folders.items()):
        uri = place + b"/" + name if name else place
        past = [job for job, ago in folder.ended_seconds.items() if ended_jobs and ago >= older_than_seconds]
        if past:
            known = [job + b"/" + each for job in past for each in folder.jobs[job] | folder.children.get(job, set())]
            tell(f"{printable(uri)}: {counted(len(known), 'object')} of {counted(len(past), 'job')} that ended")
            jobs += len(past)
            objects += len(known)
            size += sum(folder.sizes[each] for each in known)
            if not dry:
                _forget(store, uri, past)
        left, late = folder.left, [job for job in folder.late if job not in past]
        if folder.youngest_seconds < older_than_seconds or not (left or late or (partials and folder.partials)):
            continue
        all_partials = partials or (name.endswith(_OWN_SUFFIX) and not folder.serves)
        doomed = [job + b"/" + each for job in left for each in folder.jobs[job]]
        doomed += [job + b"/" + each for job in (*left, *late) for each in folder.children.get(job, ())]
        if all_partials:
            doomed += folder.partials
            doomed += [each for each in folder.sizes if each == b"lock"]
        try:
            if folder.works:
                raise WorkDirBusyError("a service has jobs in it")
            if not dry:
                _remove(store, uri, left, late, partials=all_partials)
        except WorkDirBusyError:
            busy += 1
            tell(f"{printable(uri)}: in use, left alone")
            continue
        folder_count += 1
        objects += len(doomed)
        size += sum(folder.sizes[each] for each in doomed)
        kept = "" if all_partials else ", its partials kept"
        tell(f"{printable(uri)}: {counted(len(doomed), 'object')} of a work folder{kept}")
    outputs = 0
    for begun in store.begun(place):
        if begun.age_seconds >= older_than_seconds:
            outputs += 1
            tell(f"{printable(begun.final)}: an output that was never finished")
            if not dry:
                store.abort_output(begun.output)
    return Swept(outputs, folder_count, objects, size, busy, jobs)


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
        folder.sizes[inner] = entry.size
        folder.youngest_seconds = min(folder.youngest_seconds, entry.age_seconds)
        if found["job"]:
            records = folder.jobs.setdefault(found["job"], set())
            if found["record"]:
                records.add(found["record"])
                if found["record"] == b"outcome":
                    folder.outcomes[found["job"]] = entry.age_seconds
            else:
                folder.children.setdefault(found["job"], set()).add(found["child"])
        elif found["partial"]:
            folder.partials.append(inner)
    return folders


def _remove(store: Store, uri: bytes, jobs: Sequence[bytes], late: Sequence[bytes], *, partials: bool) -> None:
    """Remove jobs of a work folder while it is held, and the partials if asked to; what was written is given up.

    Of jobs in ``late`` only the nodes inside their tasks are removed.
    """
    with store.lock(uri):
        for job in late:
            store.delete_all(uri + b"/" + job + b"/children", set())
        for job in jobs:
            _give_up(store, uri + b"/" + job + b"/spec")
        if partials:
            store.delete_all(uri + b"/partials", set())
        doomed = {job.rpartition(b"/")[2] for job in jobs}
        names = store.list(uri + b"/jobs")
        store.delete_all(uri + b"/jobs", {name for name in names if name.partition(b"/")[0] not in doomed})
    # What made a lock of it on a disk has left the file.
    left = {entry.name for entry in store.aged(uri)}
    if left <= {b"lock"}:
        store.delete_all(uri, set())


def _forget(store: Store, uri: bytes, jobs: Sequence[bytes]) -> None:
    """Remove the records of jobs that have ended."""
    for job in jobs:
        # First of all: a job without a ticket was never accepted, so what a crash leaves here is swept as such.
        store.delete(uri + b"/" + job + b"/ticket")
        store.delete_all(uri + b"/" + job, set())


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
