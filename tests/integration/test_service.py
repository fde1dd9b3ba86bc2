"""The service: many jobs on one set of workers, their life, and what a new master makes of the old one's."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from distsum.tui.lines import state_words

from distsum.actors.master import MasterSettings
from distsum.actors.speculation import SpeculationSettings
from distsum.api import mean
from distsum.embedded import run
from distsum.errors import (
    BadInputError,
    JobCancelledError,
    OutputError,
    RemoteJobError,
    ServiceError,
    UnreachableError,
    UsageError,
)
from distsum.jobs import Job
from distsum.manifest import Manifest
from distsum.observe.history import History
from distsum.observe.player import Player
from distsum.request import Options
from distsum.service.records import Records
from distsum.stores.local import LocalStore
from tests.command import wait_until
from tests.localservice import Serving, serving

if TYPE_CHECKING:
    from pathlib import Path

    from distsum.observe.view import JobView
    from distsum.stores.base import Reader

MANY = 200
"""Jobs that are nothing special."""


@pytest.fixture
def inputs(tmp_path: Path) -> list[bytes]:
    folder = tmp_path / "in"
    folder.mkdir()
    draw = np.random.default_rng(5)
    for index in range(60):
        np.save(folder / f"{index:03}.npy", draw.standard_normal(2000))
    return sorted(os.fsencode(path) for path in folder.iterdir())


@pytest.fixture
def expected(inputs: list[bytes], tmp_path: Path) -> bytes:
    mean(inputs, tmp_path / "expected.npy", workers=1)
    return (tmp_path / "expected.npy").read_bytes()


def submitted(made: Serving, inputs: list[bytes], output: Path, *, priority: int = 0, **options: Any) -> str:
    return made.client.submit_job("mean", inputs, os.fsencode(output), Options(**options), priority=priority)


def partials(work: Path) -> list[str]:
    """Return the whole ones."""
    return [name for name in left(work) if name.startswith("partials") and ".tmp" not in name]


def left(work: Path) -> list[str]:
    return sorted(str(path.relative_to(work)) for path in work.rglob("*") if path.is_file())


def test_a_job_gives_the_same_bytes_as_on_one_machine_and_leaves_only_its_record(
    tmp_path: Path, inputs: list[bytes], expected: bytes
) -> None:
    with serving(tmp_path / "work", speculation=SpeculationSettings(policy="none")) as made:
        seen = []
        job = submitted(made, inputs, tmp_path / "out.npy", partition=5)
        summary = made.client.wait(job, 60, seen.append)
    assert (tmp_path / "out.npy").read_bytes() == expected
    assert (summary.files, summary.tasks, summary.attempts, summary.tasks_reused) == (60, 16, 16, 0)
    assert summary.digest is not None
    assert left(tmp_path / "work") == [
        f"jobs/{job}/{name}" for name in ("committing", "history", "outcome", "record", "ticket")
    ]
    assert not [name for name in os.listdir(tmp_path) if "part" in name]
    assert seen[-1].state == "succeeded"


def test_many_jobs_are_queued_and_all_end(tmp_path: Path, inputs: list[bytes], expected: bytes) -> None:
    with serving(tmp_path / "work") as made:
        jobs = [submitted(made, inputs, tmp_path / f"{number}.npy") for number in range(MANY)]
        states = {status.state for status in made.client.jobs(MANY)}
        assert states <= {"queued", "running", "finishing", "succeeded"}
        for job in jobs:
            made.client.wait(job, 60)
        assert [status.state for status in made.client.jobs(MANY)] == ["succeeded"] * MANY
        last = made.client.jobs(7)
        assert len(last) == 7
    # The next master finds the last ones without reading what tells of all.
    for number, job in enumerate(jobs):
        os.utime(tmp_path / "work" / "jobs" / job / "outcome", (number, number))
    read: list[str] = []
    ended_status = Records.ended_status
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Records, "ended_status", lambda self, job: read.append(job) or ended_status(self, job))
        with serving(tmp_path / "work") as made:
            assert {status.job for status in made.client.jobs(7)} <= set(jobs[-16:])
    assert read
    assert set(read) <= set(jobs[-64:]), "of 50 that are told to those who look, read 16 at a time"
    for number in range(MANY):
        assert (tmp_path / f"{number}.npy").read_bytes() == expected


def test_what_cannot_be_done_is_said_before_anything_is_stored(tmp_path: Path, inputs: list[bytes]) -> None:
    (tmp_path / "there.npy").touch()
    (tmp_path / "bad.npy").write_bytes(b"no array")
    with serving(tmp_path / "work") as made:
        with pytest.raises(OutputError):
            submitted(made, inputs, tmp_path / "there.npy")
        with pytest.raises(BadInputError):
            submitted(made, [os.fsencode(tmp_path / "bad.npy")], tmp_path / "out.npy")
        for name in ("out.npy", "partials/ab/out.npy", "results/out.npy"):
            (tmp_path / "work" / name).parent.mkdir(parents=True, exist_ok=True)
            with pytest.raises(
                OutputError, match=rf"{name} lies in the service's work folder \S+/work, .*; choose another"
            ):
                submitted(made, inputs, tmp_path / "work" / name)
        with pytest.raises(ServiceError, match="no job"):
            made.client.status("nonsense")
        with pytest.raises(ServiceError, match="no job"):
            made.client.cancel("nonsense")
        with pytest.raises(ServiceError, match="no worker"):
            made.client.command_worker("nonsense", "pause")
        with pytest.raises(ServiceError, match="has no fleet"):
            made.client.scale_workers(2)
        with pytest.raises(ServiceError, match="not queued"):
            made.client.set_priority("nonsense", 1)
        with pytest.raises(UsageError, match="priority 10000000000000000000000: must be a whole number from"):
            submitted(made, inputs, tmp_path / "out.npy", priority=10**22)
        with pytest.raises(UsageError, match="must be a whole number"):
            made.client.set_priority("nonsense", -(10**22))
        assert made.client.jobs() == ()
    assert left(tmp_path / "work") == []


def test_a_job_that_fails_says_why_and_its_partials_stay_for_the_next(
    tmp_path: Path, inputs: list[bytes], expected: bytes
) -> None:
    with open(inputs[37], "rb") as file:
        good = file.read()
    with open(inputs[37], "r+b") as file:
        file.write(b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', ")
    with serving(tmp_path / "work") as made:
        job = submitted(made, inputs, tmp_path / "out.npy", partition=5)
        with pytest.raises(RemoteJobError, match=r"037\.npy"):
            made.client.wait(job, 60)
        assert not (tmp_path / "out.npy").exists()
        assert partials(tmp_path / "work")
        with open(inputs[37], "wb") as file:
            file.write(good)
        again = submitted(made, inputs, tmp_path / "out.npy", partition=5)
        assert made.client.wait(again, 60).tasks_reused >= 1
    assert (tmp_path / "out.npy").read_bytes() == expected


def test_a_running_job_is_cancelled_at_once_and_leaves_nothing(tmp_path: Path, inputs: list[bytes]) -> None:
    large = tmp_path / "large.npy"
    np.save(large, np.zeros(2_000_000))
    links = []
    for index in range(300):
        os.link(large, tmp_path / f"link{index:03}.npy")
        links.append(os.fsencode(tmp_path / f"link{index:03}.npy"))
    with serving(tmp_path / "work", master=MasterSettings(running_jobs=1)) as made:
        job = submitted(made, links, tmp_path / "large-out.npy", tiles=1)
        waiting = submitted(made, inputs, tmp_path / "out.npy")
        wait_until(lambda: any(each.state == "busy" for each in made.client.workers()), "a busy worker")
        assert made.client.status(waiting).state == "queued"
        # As workers store them inside long tasks.
        children = tmp_path / "work" / "jobs" / job / "children"
        children.mkdir()
        (children / ("ab" * 32)).write_bytes(b"a node")
        began = time.monotonic()
        made.client.cancel(job)
        wait_until(lambda: all(task is None or task.job != job for task in tasks(made)), "free workers", 1.0)
        assert time.monotonic() - began < 1.0
        with pytest.raises(JobCancelledError):
            made.client.wait(job, 10)
        with pytest.raises(ServiceError, match="cancelled already"):
            made.client.cancel(job)
        wait_until(lambda: not children.exists(), "what is of use to this job alone is removed")
        made.client.wait(waiting, 60)
    assert not [name for name in left(tmp_path / "work") if name.startswith("partials")]
    assert not [name for name in os.listdir(tmp_path) if "part" in name]


def tasks(made: Serving) -> list[Any]:
    return [each.task for each in made.client.workers()]


def test_a_queued_job_can_be_cancelled_and_moved_ahead(
    tmp_path: Path, inputs: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with serving(tmp_path / "work", workers=1, master=MasterSettings(running_jobs=1)) as made:
        # With its only worker paused nothing moves.
        wait_until(made.client.workers, "a worker")
        (worker,) = made.client.workers()
        made.client.command_worker(worker.worker, "pause")
        wait_until(lambda: made.client.workers()[0].state == "paused", "a pause")
        first, second, third = (submitted(made, inputs, tmp_path / f"{number}.npy") for number in range(3))
        wait_until(lambda: made.client.status(first).state == "running", "the first job's start")
        made.client.cancel(second)
        with pytest.raises(JobCancelledError):
            made.client.wait(second, 10)
        made.client.set_priority(third, 7)
        wait_until(lambda: made.client.status(third).state == "running", "the third job's start")
        assert made.client.status(third).priority == 7
        for on, told in ((False, "get no more backups"), (True, "get backups again")):
            made.client.switch_speculation(third, on=on)
            wait_until(lambda told=told: f"stragglers of job {third} {told}" in caplog.text, "its switch")
        with pytest.raises(ServiceError, match="is not running"):
            made.client.switch_speculation(second, on=False)
        made.client.command_worker(worker.worker, "resume")
        for job in (first, third):
            made.client.wait(job, 60)


def test_another_master_goes_on_with_what_was_accepted_and_computes_nothing_again(
    tmp_path: Path, inputs: list[bytes], expected: bytes
) -> None:
    made = Serving(tmp_path / "work", workers=1)
    job = submitted(made, inputs, tmp_path / "out.npy", partition=5, keep_partials=True)
    wait_until(lambda: len(partials(tmp_path / "work")) >= 3, "partials")
    made.close()
    stored = len(partials(tmp_path / "work"))
    with pytest.raises(UnreachableError):
        made.client.status(job)
    with serving(tmp_path / "work") as other:
        summary = other.client.wait(job, 60)
    assert (tmp_path / "out.npy").read_bytes() == expected
    assert summary.tasks_reused >= min(stored, 16)
    assert summary.tasks_reused + summary.attempts >= 16


@pytest.mark.parametrize("moment", ["before the result is visible", "after the result is visible"])
def test_a_master_that_dies_while_it_finishes_a_job_has_it_finished_by_the_next(
    tmp_path: Path, inputs: list[bytes], expected: bytes, moment: str
) -> None:
    with serving(tmp_path / "work") as made:
        records = Records(LocalStore(), os.fsencode(tmp_path / "work"))
        again = made.client.submit_job("mean", inputs, os.fsencode(tmp_path / "again.npy"), Options(keep_partials=True))
        made.client.wait(again, 60)
    # As a crash leaves it: accepted, about to be visible, no outcome.
    folder = tmp_path / "work" / "jobs" / again
    (folder / "outcome").unlink()
    store = LocalStore()
    Job(records.record(again), Manifest(map(store.identify, inputs)), store).store_inputs()
    if moment.startswith("before"):
        (tmp_path / "again.npy").unlink()
    with serving(tmp_path / "work") as other:
        summary = other.client.wait(again, 60)
        assert other.client.status(again).state == "succeeded"
    assert (tmp_path / "again.npy").read_bytes() == expected
    assert summary.tasks_reused == summary.tasks


@pytest.mark.parametrize("end", ["leaves", "ends the job"])
def test_a_master_that_another_has_followed_does_not_replace_what_that_has_stored_of_a_job(
    tmp_path: Path, inputs: list[bytes], end: str
) -> None:
    work = tmp_path / "work"
    with serving(work, workers=0) as made:
        job = submitted(made, inputs, tmp_path / "out.npy")
        wait_until(lambda: made.client.status(job).state == "running", "a job that runs")
        # As one does while this process is stopped.
        Records(LocalStore(), os.fsencode(work)).begin_serving(b"another")
        history = work / "jobs" / job / "history"
        history.write_bytes(b"newer")
        if end == "ends the job":
            made.client.cancel(job)
            wait_until(lambda: made.client.status(job).state == "cancelled", "the end of the job")
    assert history.read_bytes() == b"newer"
    assert (work / "serving").read_bytes() == b"another"


def test_what_a_dying_master_left_half_written_loses_no_job(
    tmp_path: Path, inputs: list[bytes], expected: bytes
) -> None:
    with serving(tmp_path / "work", workers=0) as made:
        accepted, ended, damaged, cancelled = (
            submitted(made, inputs, tmp_path / f"{number}.npy", partition=5) for number in range(4)
        )
    folder = tmp_path / "work" / "jobs"
    os.truncate(folder / accepted / "ticket", 0)
    (folder / ended / "outcome").write_bytes(b"")
    os.truncate(folder / damaged / "record", 20)
    (folder / cancelled / "cancelled").touch()
    with serving(tmp_path / "work") as other:
        for job in (accepted, ended):
            other.client.wait(job, 60)
        with pytest.raises(JobCancelledError):
            other.client.wait(cancelled, 60)
        with pytest.raises(ServiceError, match=f"job {damaged} cannot go on: .*record is damaged.*submit it again"):
            other.client.status(damaged)
        states = {status.job: status.state for status in other.client.jobs(10)}
        assert states == {accepted: "succeeded", ended: "succeeded", cancelled: "cancelled"}
        other.client.cancel(damaged)
        assert len(other.client.jobs(10)) == len(states), "one that cannot be read hides the others"
    assert (folder / damaged / "outcome").exists(), "it would keep `distsum gc` from the folder for ever"
    assert [(tmp_path / f"{number}.npy").exists() for number in range(4)] == [True, True, False, False]
    for number in range(2):
        assert (tmp_path / f"{number}.npy").read_bytes() == expected


def test_somebody_elses_file_is_not_replaced(tmp_path: Path, inputs: list[bytes]) -> None:
    with serving(tmp_path / "work", workers=1) as made:
        (worker,) = wait_for_workers(made, 1)
        made.client.command_worker(worker, "pause")
        wait_until(lambda: made.client.workers()[0].state == "paused", "a pause")
        job = submitted(made, inputs, tmp_path / "out.npy")
        (tmp_path / "out.npy").write_bytes(b"mine")
        made.client.command_worker(worker, "resume")
        with pytest.raises(RemoteJobError, match="appeared") as failed:
            made.client.wait(job, 60)
        assert failed.value.exit_code == 2
    assert (tmp_path / "out.npy").read_bytes() == b"mine"
    view = end_of(tmp_path / "work" / "jobs" / job / "history")
    assert "appeared" in (view.failure or ""), "all of its tasks are done, and it did not succeed"
    assert state_words(view).text == "FAILED"


def test_a_run_whose_result_cannot_be_put_in_its_place_is_told_as_failed(tmp_path: Path, inputs: list[bytes]) -> None:
    views: list[JobView] = []
    history, output = tmp_path / "history", tmp_path / "out.npy"

    def appear(_: Any) -> None:
        output.write_bytes(b"mine")

    with pytest.raises(OutputError, match="appeared"):
        run(
            "mean",
            inputs,
            os.fsencode(output),
            Options(workers=1),
            appear,
            history=os.fsencode(history),
            on_view=lambda view, _: views.append(view),
        )
    assert output.read_bytes() == b"mine"
    for view in (views[-1], end_of(history)):
        assert "appeared" in (view.failure or "")
        assert state_words(view).text == "FAILED"
    assert "DONE" not in {state_words(view).text for view in views}


def end_of(history: Path) -> JobView:
    """Return what a history that is played shows at its end."""
    player = Player(History(reader_of(history)))
    player.seek(player.end_seconds)
    while not player.step():
        pass
    return player.view()


def wait_for_workers(made: Serving, count: int) -> list[str]:
    wait_until(lambda: len(made.client.workers()) >= count, "workers")
    return [each.worker for each in made.client.workers()]


def reader_of(path: Path) -> Reader:
    found = LocalStore().open(os.fsencode(path))
    assert found is not None
    return found


def test_a_worker_that_was_there_and_got_no_task_has_its_account_too(tmp_path: Path, inputs: list[bytes]) -> None:
    with serving(tmp_path / "work", workers=2) as made:
        idle, busy = wait_for_workers(made, 2)
        made.client.command_worker(idle, "pause")
        wait_until(lambda: "paused" in {each.state for each in made.client.workers()}, "a pause")
        job = submitted(made, inputs, tmp_path / "out.npy", partition=5)
        summary = made.client.wait(job, 60)
        assert {each.worker: each.tasks for each in summary.worker_accounts} == {idle: 0, busy: 16}
        (waited,) = [each.seconds for each in summary.worker_accounts if each.worker == idle]
        assert {kind for kind, seconds in waited.items() if seconds} == {"waiting"}, "its start was before the job"
        assert made.client.stragglers(job).totals == summary.backups
        view = end_of(tmp_path / "work" / "jobs" / job / "history")
        assert {each.status.worker: each.status.state for each in view.workers} == {
            idle: "paused",
            busy: "idle",
        }, "who is paused when a job begins is so in all that is told of it"


def test_workers_are_listed_drained_and_sent_away(tmp_path: Path) -> None:
    with serving(tmp_path / "work", workers=2) as made:
        one, other = wait_for_workers(made, 2)
        made.client.command_worker(one, "drain")
        made.client.command_worker(other, "shutdown")
        wait_until(lambda: {each.state for each in made.client.workers()} == {"left"}, "the end of both")
        with pytest.raises(ServiceError, match="no worker"):
            made.client.command_worker(one, "resume")


def test_the_service_describes_itself(tmp_path: Path) -> None:
    with serving(tmp_path / "work", workers=0) as made:
        described = made.client.describe()
        assert described.work == os.fsencode(tmp_path / "work")
        assert made.client.queues().queues == ()
