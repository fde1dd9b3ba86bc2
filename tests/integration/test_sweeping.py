"""What ``distsum gc`` removes of runs that were killed, on a disk and in S3, and what it leaves alone."""

from __future__ import annotations

import contextlib
import os
import signal

import numpy as np
import pytest

from distsum.jobs import Job
from distsum.partials import children_uri, partial_uri
from distsum.preparation import prepare
from distsum.request import Options
from distsum.service.records import Outcome, Records, Ticket
from distsum.stores.routing import RoutingStore
from tests.command import distsum, started, summary, wait_until


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "runs").mkdir()
    for index in range(6):
        np.save(tmp_path / "runs" / f"{index}.npy", np.full(1000, index, dtype=np.float64))
    return tmp_path / "runs"


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path):
    """A folder to write to, on a disk or in S3."""
    if request.param == "s3":
        return request.getfixturevalue("s3_prefix").decode()
    (tmp_path / "place").mkdir()
    return str(tmp_path / "place")


@pytest.fixture
def store(place):
    made = RoutingStore()
    yield made
    made.close()


def names(store, place):
    return {name.decode() for name in store.list(os.fsencode(place))}


def begun(store, place):
    return [each.final.decode() for each in store.begun(os.fsencode(place))]


def killed(runs, place, *arguments):
    """Run a job, and kill it when its first partial is stored; a worker that opens the last input waits for good."""
    plant = runs.parent / "plant"
    plant.mkdir()
    (plant / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "if 'distsum.worker' in sys.orig_argv:\n"
        "    def watch(event, arguments):\n"
        "        if event == 'open' and b'runs/5.npy' in os.fsencode(str(arguments[0])):\n"
        "            time.sleep(1000)\n"
        "    sys.addaudithook(watch)\n"
    )
    work = os.fsencode(arguments[arguments.index("--work-dir") + 1] if arguments else f"{place}/out.npy.distsum")
    with (
        contextlib.closing(RoutingStore()) as store,
        started(
            *("mean", str(runs), "-o", f"{place}/out.npy", "-p", "5", "-w", "1", *arguments),
            env={"PYTHONPATH": str(plant)},
        ) as run,
    ):
        wait_until(lambda: any(b"partials/" in name for name in store.list(work)), "a partial is stored")
        yield
        run.send_signal(signal.SIGKILL)
        run.wait()
    yield


def ended(steps):
    """Take a killed job to its end."""
    for _ in steps:
        pass


def test_what_a_killed_run_has_left_is_swept_once_it_is_old(runs, place, store):
    ended(killed(runs, place))
    (job,) = {name.split("/jobs/")[1].split("/")[0] for name in names(store, place) if "/jobs/" in name}
    store.put(children_uri(os.fsencode(f"{place}/out.npy.distsum"), job) + b"/" + b"ab" * 32, [b"a node"])
    left = names(store, place)
    assert any("/partials/" in name for name in left)
    assert any(name.endswith("/spec") for name in left)
    assert begun(store, place) == [f"{place}/out.npy"]
    young = summary("gc", place)
    assert (young["outputs"], young["folders"]) == (0, 0)
    dry = summary("gc", place, "--older-than", "0s", "--dry-run")
    assert names(store, place) == left
    assert begun(store, place) == [f"{place}/out.npy"]
    done = summary("gc", place, "--older-than", "0s")
    assert (
        (done["folders"], done["objects"])
        == (dry["folders"], dry["objects"])
        == (1, sum("distsum/" in n for n in left))
    )
    assert names(store, place) == set()
    assert begun(store, place) == []


def test_a_run_that_goes_on_is_left_alone_with_its_work_folder(runs, place, store):
    steps = killed(runs, place)
    next(steps)
    left = {name for name in names(store, place) if not name.endswith(".distsum-part")}
    swept = summary("gc", place, "--older-than", "0s")
    assert (swept["busy"], swept["folders"]) == (1, 0)
    assert names(store, place) == left
    ended(steps)


def test_partials_in_a_folder_that_was_named_stay_unless_they_are_asked_for(runs, place, store):
    work = f"{place}/work"
    ended(killed(runs, place, "--work-dir", work))
    partials = {name for name in names(store, work) if name.startswith("partials/")}
    assert partials
    store.put(os.fsencode(f"{work}/mine.txt"), [b"not distsum's"])
    assert summary("gc", place, "--older-than", "0s")["folders"] == 1
    assert names(store, work) - {"lock"} == partials | {"mine.txt"}
    assert begun(store, place) == []
    assert summary("gc", place, "--older-than", "0s", "--partials")["folders"] == 1
    assert names(store, work) - {"lock"} == {"mine.txt"}


def test_other_objects_and_kept_partials_are_never_touched(runs, place, store):
    summary("mean", str(runs), "-o", f"{place}/out.npy", "--work-dir", f"{place}/kept.distsum", "--keep-partials")
    store.put(os.fsencode(f"{place}/jobs/readme"), [b"x"])
    store.put(os.fsencode(f"{place}/a/partials/ab/cd"), [b"x"])
    before = names(store, place)
    assert summary("gc", place, "--older-than", "0s")["objects"] == 0
    assert names(store, place) == before
    assert summary("gc", place, "--older-than", "0s", "--partials")["objects"] > 0
    assert names(store, place) == {"out.npy", "jobs/readme", "a/partials/ab/cd"}


def test_what_a_service_has_promised_stays_and_what_it_never_accepted_goes(runs, place, store):
    work = os.fsencode(f"{place}/work.distsum")
    inputs = sorted(os.fsencode(path) for path in runs.iterdir())
    records = Records(store, work)
    jobs = []
    for number in range(3):
        output = os.fsencode(f"{place}/{number}.npy")
        prepared = prepare("mean", inputs, output, Options(work_dir=os.fsdecode(work)), store)
        jobs.append(Job(prepared.record, prepared.manifest, store))
        records.put_job(jobs[-1])
    promised, ended, unheard = (job.spec.job for job in jobs)
    for name in (promised, ended):
        records.accept(name, Ticket(0.0, 0))
    store.put(partial_uri(work, "ab" * 32), [b"one that is kept"])
    # As workers store them inside long tasks.
    nested = children_uri(work, promised), children_uri(work, ended), children_uri(work, "0123456789ab")
    for folder in nested:
        store.put(folder + b"/" + b"cd" * 32, [b"a node"])
    before = names(store, place)
    swept = summary("gc", place, "--older-than", "0s", "--partials")
    assert (swept["busy"], swept["folders"]) == (1, 0)
    assert names(store, place) == before
    store.delete(nested[0] + b"/" + b"cd" * 32)
    for job in jobs[:2]:
        store.put(work + f"/jobs/{job.spec.job}/history".encode(), [b"what happened"])
        records.end(job.spec.job, Outcome(state="failed", ended_seconds=1.0, exit_code=1, reason="no reason"))
        records.tidy(job, aborted=True, keep_partials=True)
    store.put(nested[1] + b"/" + b"cd" * 32, [b"a node that a worker has stored late"])
    swept = summary("gc", place, "--older-than", "0s")
    assert (swept["folders"], swept["objects"]) == (1, 2 + 2)
    left = {name for name in names(store, os.fsdecode(work)) if name != "lock"}
    partial = f"partials/ab/{'ab' * 32}"
    kept = {
        f"jobs/{name}/{record}" for name in (promised, ended) for record in ("record", "ticket", "outcome", "history")
    }
    assert left == kept | {partial}
    assert not any(unheard in name for name in left)
    assert summary("gc", place, "--older-than", "0s", "--partials")["folders"] == 1
    assert {name for name in names(store, os.fsdecode(work)) if name != "lock"} == kept


def test_how_the_jobs_of_a_service_ended_is_kept_until_it_is_given_up(runs, place, store):
    work = os.fsencode(f"{place}/work")
    records = Records(store, work)
    inputs = sorted(os.fsencode(path) for path in runs.iterdir())
    jobs = []
    for number in range(3):
        options = Options(work_dir=os.fsdecode(work))
        prepared = prepare("mean", inputs, os.fsencode(f"{place}/{number}.npy"), options, store)
        jobs.append(Job(prepared.record, prepared.manifest, store))
        records.put_job(jobs[-1])
        records.accept(jobs[-1].spec.job, Ticket(0.0, 0))
    promised, untidy, past = (job.spec.job for job in jobs)
    for job in jobs[1:]:
        store.put(work + f"/jobs/{job.spec.job}/history".encode(), [b"what happened"])
        records.end(job.spec.job, Outcome(state="failed", ended_seconds=1.0, exit_code=1, reason="no reason"))
    records.tidy(jobs[2], aborted=True, keep_partials=True)
    store.put(children_uri(work, past) + b"/" + b"cd" * 32, [b"a node that a worker has stored late"])
    before = names(store, place)
    for arguments in (["--older-than", "0s"], ["--ended-jobs"], ["--older-than", "0s", "--ended-jobs", "--dry-run"]):
        told = summary("gc", place, *arguments)
        assert names(store, place) == before
        assert (told["jobs"], told["objects"]) == ((1, 5) if "--dry-run" in arguments else (0, 0))
    told = summary("gc", place, "--older-than", "0s", "--ended-jobs")
    assert (told["jobs"], told["objects"]) == (1, 5)
    # The service has another job here, and goes on.
    assert told["busy"] == 0
    assert names(store, place) == {name for name in before if past not in name}
    assert {promised, untidy} == {name.split("/")[2] for name in names(store, place) if "/jobs/" in name}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["absent"], 2, "no such folder"),
        (["s3://no-such-bucket"], 3, "no such bucket"),
        ([".", "--older-than", "soon"], 2, "--older-than soon: must be a time such as"),
    ],
)
def test_what_cannot_be_swept_is_named(tmp_path, s3_environment, arguments, code, words):
    done = distsum("gc", *arguments, cwd=tmp_path)
    assert done.returncode == code
    assert words in done.stderr
