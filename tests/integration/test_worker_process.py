"""One real worker process, told by the test what to do: commands meet the attempt they are for, and end what waits."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from distsum.brokers.framing import Deframer, frame
from distsum.jobs import Job
from distsum.messages import (
    FROM_WORKER,
    CancelTask,
    Heartbeat,
    RunTask,
    ShareTask,
    TaskFailed,
    TaskId,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
)
from distsum.partials import children_uri
from distsum.preparation import prepare
from distsum.request import Options
from distsum.stores.routing import RoutingStore
from distsum.worker.attempt import Attempt, TaskCancelledError
from distsum.worker.folding import JobFolder
from distsum.worker.launch import launch
from tests.command import wait_until
from tests.faultproxy import Fault
from tests.reference import reference_reduce

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEADLINE_SECONDS = 30.0
SOON_SECONDS = 6.0
"""Far less than a store waits by itself for a body that stalls."""
STOPPED_SECONDS = 1.0
"""In which who is called back stops, in one of three times: a machine may be busy."""


class WorkerProcess:
    """A worker, and our end of its channel."""

    def __init__(self) -> None:
        self._launched = launch()
        self._deframer = Deframer()
        self._ready: list[Any] = []
        self.expect(WorkerJoined)

    def tell(self, message: Any) -> None:
        self._launched.endpoint.sendall(frame(message))

    def expect(self, kind: type, seconds: float = DEADLINE_SECONDS) -> Any:
        """Return the next message of a kind; others are passed over."""
        self._launched.endpoint.settimeout(seconds)
        while True:
            while self._ready:
                message = self._ready.pop(0)
                if isinstance(message, kind):
                    return message
            data = self._launched.endpoint.recv(1 << 16)
            assert data, "the worker has ended"
            self._ready += map(FROM_WORKER.decode, self._deframer.feed(data))

    def close(self) -> None:
        self._launched.endpoint.close()
        self._launched.process.kill()
        self._launched.process.wait()


@pytest.fixture
def worker() -> Iterator[Any]:
    """Give a function that starts the worker, once the environment is as it should be."""
    started: list[WorkerProcess] = []

    def start() -> WorkerProcess:
        started.append(WorkerProcess())
        return started[-1]

    yield start
    for each in started:
        each.close()


def begun(inputs: list[bytes], output: bytes, store: RoutingStore, **options: Any) -> Job:
    """Return a job that workers can be given tasks of."""
    prepared = prepare("mean", inputs, output, Options(**({"tiles": 1} | options)), store)
    job = Job(prepared.record, prepared.manifest, store)
    job.store_inputs()
    job.begin()
    return job


def run_task(job: Job, attempt: int, **changes: Any) -> RunTask:
    return RunTask(TaskId(job.spec.job, 1, 0, 0), job.spec.work, attempt=attempt, **changes)


@pytest.fixture
def arrays(tmp_path: Path) -> list[Any]:
    made = [np.random.default_rng(index).standard_normal(100) for index in range(30)]
    for index, array in enumerate(made):
        np.save(tmp_path / f"{index:02}.npy", array)
    return made


@pytest.fixture
def local_job(tmp_path: Path, arrays: list[Any]) -> Iterator[Job]:
    store = RoutingStore()
    inputs = [os.fsencode(tmp_path / f"{index:02}.npy") for index in range(30)]
    yield begun(inputs, os.fsencode(tmp_path / "out.npy"), store, partition=125)
    store.close()


def test_a_child_is_made_alone_and_the_whole_from_it(local_job, arrays, worker) -> None:
    process = worker()
    for child, attempt, reused in ((1, 1, False), (1, 2, True)):
        process.tell(run_task(local_job, attempt, child=child))
        assert process.expect(TaskStarted).child == child
        done = process.expect(TaskSucceeded)
        assert (done.attempt, done.child, done.inputs, done.reused) == (attempt, child, 5, reused)
    process.tell(run_task(local_job, 3, child=2))
    failed = process.expect(TaskFailed)
    assert (failed.kind, failed.attempt, failed.child) == ("error", 3, 2)
    process.tell(run_task(local_job, 4, resume=True))
    done = process.expect(TaskSucceeded)
    assert (done.child, done.inputs, done.effort.objects_read) == (None, 30, 25 + 1)
    assert (done.taken, done.taken_share) == ((1,), 5 / 30)
    with open(local_job.spec.output, "rb") as file:
        content = file.read()
    assert content[-800:] == reference_reduce(arrays, 5, "mean").tobytes()


def test_who_has_worked_for_an_earlier_master_writes_at_once_to_the_output_that_the_next_one_has_begun(
    local_job, arrays, worker
) -> None:
    process = worker()
    process.tell(run_task(local_job, 1, first_attempt=1))
    process.expect(TaskSucceeded)
    before = local_job.spec.output
    local_job.begin()
    assert not os.path.exists(before)
    process.tell(run_task(local_job, 100, first_attempt=100))
    assert process.expect(TaskSucceeded, SOON_SECONDS).attempt == 100
    with open(local_job.spec.output, "rb") as file:
        assert file.read()[-800:] == reference_reduce(arrays, 5, "mean").tobytes()


def test_what_a_failed_attempt_has_read_is_told(local_job, tmp_path, worker) -> None:
    (tmp_path / "20.npy").unlink()
    process = worker()
    process.tell(run_task(local_job, 1))
    failed = process.expect(TaskFailed)
    assert failed.kind == "input_changed"
    # Those before it are 928 bytes each; some of them had been opened, and not been read yet.
    assert 15 * 928 <= failed.bytes_read <= 20 * 928


def test_a_command_meets_an_attempt_that_has_not_begun(local_job, worker) -> None:
    process = worker()
    task = run_task(local_job, 1).task
    for attempt in range(1, 21):
        process.tell(run_task(local_job, attempt, child=0))
        process.tell(CancelTask(task, 0))
        process.tell(run_task(local_job, attempt + 100))
        process.tell(CancelTask(task, attempt + 100))
        assert process.expect(TaskSucceeded).attempt == attempt
        ended = process.expect(TaskFailed | TaskSucceeded)
        assert ended.attempt == attempt + 100
        if isinstance(ended, TaskFailed):
            assert ended.kind == "cancelled"
            break
    else:
        raise AssertionError("no attempt was cancelled before it ended")


# Over a network that stalls -------------------------------------------------------------------------------------------


@pytest.fixture
def store(proxy) -> Iterator[RoutingStore]:
    made = RoutingStore()
    yield made
    made.close()


def remote_job(store: RoutingStore, prefix: bytes, suffix: bytes, files: int = 8) -> Job:
    inputs = []
    for index in range(files):
        array = np.random.default_rng(index).standard_normal(4_000)
        inputs.append(prefix + b"/runs/%02d" % index + suffix)
        if suffix == b".txt":
            content = "".join(f"{number!r}\n" for number in array.tolist()).encode()
        else:
            content = array.tobytes()
        store.put(inputs[-1], [content])
    options = {"dtype": "<f8"} if suffix == b".raw" else {}
    return begun(inputs, prefix + b"/out.npy", store, partition=25, **options)


@pytest.mark.parametrize(("suffix", "drip_seconds"), [(b".raw", 0.0), (b".txt", 0.05)])
def test_a_cancelled_attempt_stops_waiting_for_a_body_that_stalls_and_the_next_goes_on(
    proxy, store, s3_prefix, worker, suffix, drip_seconds
) -> None:
    job = remote_job(store, s3_prefix, suffix)
    process = worker()
    proxy.choose = lambda request: (
        Fault(stall=10_000, drip_seconds=drip_seconds) if f"/runs/04{suffix.decode()}" in request.target else None
    )
    for number in (7, 17, 27):
        task = run_task(job, number).task
        process.tell(run_task(job, number))
        wait_until(lambda: any("/runs/07" in each.target for each in proxy.requests), "the last input is asked for")
        heard = process.expect(Heartbeat)
        # What comes after it arrives, and of text it is not known how much that is.
        while heard.added < 4 / 8 or (suffix == b".raw" and heard.progress < 7 / 8):
            heard = process.expect(Heartbeat)
        assert (heard.attempt, heard.task) == (number, task)
        assert heard.added < 5 / 8
        process.tell(CancelTask(task, number - 1))
        process.tell(CancelTask(task, number))
        began = time.monotonic()
        failed = process.expect(TaskFailed, SOON_SECONDS)
        took = time.monotonic() - began
        assert (failed.kind, failed.attempt) == ("cancelled", number)
        assert failed.bytes_read > 3 * 32_000
        if took < STOPPED_SECONDS:
            break
    else:
        raise AssertionError(f"of three attempts none has stopped within a second, the last after {took:.1f} s")
    if drip_seconds:  # A proxy that has nothing to say does not see that nobody listens.
        wait_until(lambda: proxy.open_bodies == 0, "nothing is being read any more", SOON_SECONDS)
    proxy.choose = lambda request: None
    process.tell(run_task(job, 8))
    assert process.expect(TaskSucceeded).inputs == 8


def test_a_cancelled_attempt_stops_waiting_for_whatever_it_asks_first(proxy, store, s3_prefix, worker) -> None:
    job = remote_job(store, s3_prefix, b".raw")
    process = worker()
    for attempt, where in enumerate(["spec", "inputs", "partials", "children"], 1):
        held = []

        def choose(request, where=where, held=held):
            if where in request.target and request.method == "GET":
                held.append(request)
                return Fault(stall=0)
            return None

        proxy.choose = choose
        process.tell(run_task(job, attempt, resume=True))
        wait_until(lambda held=held: held, f"{where} is asked for")
        process.tell(CancelTask(run_task(job, attempt).task, attempt))
        ended = process.expect(TaskFailed | TaskSucceeded, SOON_SECONDS)
        assert (ended.attempt, getattr(ended, "kind", None)) == (attempt, "cancelled"), where


def test_what_an_attempt_stores_after_its_job_has_ended_does_not_stay(proxy, store, s3_prefix) -> None:
    job = remote_job(store, s3_prefix, b".raw")
    work, attempt = job.spec.work, Attempt(run_task(job, 1))
    folder = JobFolder(store, job.spec, lambda: 0)
    sent = proxy.hold()
    proxy.choose = lambda request: (
        Fault(hold_answer=sent) if "/partials/" in request.target and request.method == "PUT" else None
    )
    store.heed(attempt.cancelled)
    with ThreadPoolExecutor(1) as thread:
        ending = thread.submit(folder.fold, attempt, 0.0)
        wait_until(lambda: sent.held, "a partial is being stored")
        # The job ends with what another worker made of the task, so this attempt is called back.
        store.delete_all(work, set())
        attempt.cancelled.set()
        sent.release()
        with pytest.raises(TaskCancelledError):
            ending.result()
    store.heed(None)
    assert list(store.list(work)) == []


def test_who_is_told_that_others_help_stores_its_children_and_takes_theirs(proxy, store, s3_prefix, worker) -> None:
    job = remote_job(store, s3_prefix, b".raw", files=24)
    process, helper = worker(), worker()
    proxy.choose = lambda request: Fault(stall=100) if "/runs/07.raw" in request.target else None
    process.tell(run_task(job, 1))
    while process.expect(Heartbeat).added < 7 / 24:
        pass
    process.tell(ShareTask(run_task(job, 1).task, 1))
    helper.tell(run_task(job, 2, child=3, resume=True))
    done = helper.expect(TaskSucceeded)
    assert (done.child, done.inputs) == (3, 5)
    folder = children_uri(job.spec.work, job.spec.job)
    assert len(list(store.list(folder))) == 1
    proxy.choose = lambda request: None
    proxy.let_go()
    done = process.expect(TaskSucceeded)
    # Its children 1 and 2 are stored, the fourth is not made, and the last is whole with the task. They go when that is
    # stored; then the result is written. Where it was held for seconds, it has stored sums for that reason, too.
    assert done.effort.objects_read == 24 - 5 + 1
    assert done.effort.objects_written >= 2 + 1 + 1
    assert not list(store.list(folder))
