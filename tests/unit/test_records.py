"""What the service stores of its jobs: everything comes back as it was, and a crash leaves no half of it."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from distsum.errors import OutputError, StorageError
from distsum.jobs import Job
from distsum.preparation import prepare
from distsum.request import Options
from distsum.service.records import DamagedRecordError, Outcome, Records, Ticket, check_outside, passing_result
from distsum.stores.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def work(tmp_path: Path) -> bytes:
    return os.fsencode(tmp_path / "work")


@pytest.fixture
def records(work: bytes) -> Records:
    return Records(LocalStore(), work)


@pytest.fixture
def job(tmp_path: Path, work: bytes) -> Job:
    paths = []
    for index in range(30):
        np.save(tmp_path / f"{index:02}.npy", np.full(4, float(index)))
        paths.append(os.fsencode(tmp_path / f"{index:02}.npy"))
    options = Options(work_dir=os.fsdecode(work), partition=5)
    prepared = prepare("mean", paths, os.fsencode(tmp_path / "out.npy"), options, LocalStore())
    return Job(prepared.record, prepared.manifest, LocalStore())


@pytest.mark.parametrize(
    ("output", "work", "inside"),
    [
        (b"s3://b/scratch/mean.npy", b"s3://b/scratch", True),
        (b"s3://b/scratch/results/mean.npy", b"s3://b/scratch", True),
        (b"s3://b/scratch.npy", b"s3://b/scratch.npy", True),
        (b"s3://b/scratch-2/mean.npy", b"s3://b/scratch", False),
        (b"s3://b/mean.npy", b"s3://b/scratch", False),
        (b"s3://b/scratch/mean.npy", b"/scratch", False),
        (b"{tmp}/link/mean.npy", b"{tmp}/scratch", True),
        (b"{tmp}/scratch/../mean.npy", b"{tmp}/scratch", False),
        (b"{tmp}/mean.npy", b"{tmp}/link", False),
    ],
)
def test_a_result_is_not_written_where_the_service_keeps_its_own(
    tmp_path: Path, output: bytes, work: bytes, inside: object
) -> None:
    (tmp_path / "scratch" / "jobs").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "scratch" / "jobs")
    uris = [uri.replace(b"{tmp}", os.fsencode(tmp_path)) for uri in (output, work)]
    with pytest.raises(OutputError, match="choose another") if inside else contextlib.nullcontext():
        check_outside(*uris)
    check_outside(passing_result(uris[1]), uris[1])


def test_a_job_comes_back_as_it_was_stored(records: Records, job: Job) -> None:
    records.put_job(job)
    found = records.load(job.spec.job)
    assert found.record == job.record
    assert list(found.node_keys()) == list(job.node_keys())
    assert found.work_by_phase() == job.work_by_phase()


def test_a_job_is_accepted_and_ends(records: Records, job: Job, work: bytes) -> None:
    name = job.spec.job
    records.put_job(job)
    (folder,) = records.folders()
    assert (folder.job, folder.accepted, folder.ended) == (name, False, False)
    records.accept(name, Ticket(12.5, 3))
    assert records.ticket(name) == Ticket(12.5, 3)
    assert records.ended_status(name) is None
    assert not records.committing(name)
    records.commit(name)
    assert records.committing(name)
    records.end(name, Outcome(state="failed", ended_seconds=13.0, exit_code=1, reason="no"))
    (folder,) = records.folders()
    assert (folder.accepted, folder.ended, folder.tidy) == (True, True, False)
    records.tidy(job, aborted=True, keep_partials=True)
    (folder,) = records.folders()
    assert folder.tidy
    assert "inputs" not in folder.names, "a list of inputs may be large, and is of no use any more"
    status = records.ended_status(name)
    assert status is not None
    assert (status.state, status.reason, status.priority, status.submitted_seconds) == ("failed", "no", 3, 12.5)


def test_what_is_not_there_or_damaged_is_named(records: Records, job: Job, work: bytes) -> None:
    name = job.spec.job
    with pytest.raises(StorageError, match=name):
        records.load(name)
    records.put_job(job)
    with pytest.raises(StorageError, match="never accepted"):
        records.ticket(name)
    with open(work + b"/jobs/" + name.encode() + b"/record", "r+b") as file:
        file.truncate(100)
    with pytest.raises(StorageError, match="record is damaged"):
        records.load(name)
    os.unlink(work + b"/jobs/" + name.encode() + b"/inputs")
    records._put(name, "record", job.record)
    with pytest.raises(StorageError, match="no list of inputs"):
        records.load(name)


def test_the_beginning_of_a_record_is_not_taken_for_one(records: Records, job: Job, tmp_path: Path) -> None:
    name = job.spec.job
    records.put_job(job)
    records.accept(name, Ticket(12.5, 3))
    records.end(name, Outcome(state="failed", ended_seconds=13.0, exit_code=1, reason="no"))
    folder = tmp_path / "work" / "jobs" / name
    os.truncate(folder / "outcome", 5)
    with pytest.raises(DamagedRecordError, match="outcome is damaged"):
        records.outcome(name)
    os.truncate(folder / "ticket", 0)
    began = time.time()
    found = records.ticket(name)
    assert found.priority == 0
    assert began <= found.submitted_seconds <= time.time()


def test_a_job_is_wanted_no_more(records: Records, job: Job) -> None:
    records.accept(job.spec.job, Ticket(12.5, 3))
    (folder,) = records.folders()
    assert not folder.cancelled
    records.cancel(job.spec.job)
    (folder,) = records.folders()
    assert (folder.cancelled, folder.ended) == (True, False)
    assert records.ticket(job.spec.job) == Ticket(12.5, 3)


@pytest.mark.parametrize("way", ["../{}", "../jobs/{}", "{}/", "./{}", "/{}", "{}\0"])
def test_a_job_has_no_other_name_than_its_own(records: Records, job: Job, way: str) -> None:
    name = job.spec.job
    records.put_job(job)
    records.accept(name, Ticket(1.0, 0))
    records.end(name, Outcome(state="cancelled", ended_seconds=2.0, exit_code=1))
    assert records.ended_status(name) is not None
    assert records.ended_status(way.format(name)) is None
    with pytest.raises(StorageError, match="is not in"):
        records.load(way.format(name))


def test_a_record_of_another_folder_is_not_taken(records: Records, job: Job, tmp_path: Path) -> None:
    records.put_job(job)
    os.rename(tmp_path / "work", tmp_path / "moved")
    with pytest.raises(StorageError, match="is not in"):
        Records(LocalStore(), os.fsencode(tmp_path / "moved")).load(job.spec.job)


def test_only_a_jobs_own_partials_are_removed(records: Records, job: Job, work: bytes) -> None:
    store = LocalStore()
    own = list(job.node_keys())[:3]
    for key in [*own, "ff" * 32]:
        store.put(work + f"/partials/{key[:2]}/{key}".encode(), [b"content"])
    assert job.stored_partials() == {*own, "ff" * 32}
    records.tidy(job, aborted=False, keep_partials=True)
    assert job.stored_partials() == {*own, "ff" * 32}
    records.tidy(job, aborted=False, keep_partials=False)
    assert job.stored_partials() == {"ff" * 32}


def test_a_writers_leftovers_are_removed_only_where_nobody_else_writes(job: Job, work: bytes) -> None:
    LocalStore().put(work + b"/partials/ab/ab.tmp01", [b"half"])
    assert job.stored_partials() == set()
    assert os.path.exists(work + b"/partials/ab/ab.tmp01")
    job.stored_states(sweep=True)
    assert not os.path.exists(work + b"/partials/ab/ab.tmp01")
