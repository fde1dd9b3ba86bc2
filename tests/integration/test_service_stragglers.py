"""A worker that freezes or crawls while others idle, over RabbitMQ and S3: the bytes, the ledger, and who stops."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from distsum.partials import decode_head, head_bytes
from distsum.slices import LEAST_NUMBERS, SLICES, slices
from tests.command import wait_until
from tests.deployment import COUNT, FILES, Deployment, deployment, input_number
from tests.faultproxy import Fault, Request, in_front_of
from tests.reference import reference_reduce

if TYPE_CHECKING:
    from collections.abc import Iterator

STOPPED_SECONDS = 5.0
"""In which who is called back must have told that it has stopped. A second is aimed at, and a machine may be busy."""

# Processes are started one after the other here, which takes its time on a machine that has other things to do.
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def service(rabbitmq, s3_server, s3_environment, tmp_path) -> Iterator[Deployment]:
    """A service without processes."""
    with deployment(rabbitmq, s3_server, tmp_path) as made:
        yield made


@pytest.fixture
def inputs(service) -> list[np.ndarray]:
    return service.put_inputs()


def backups(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in report["entries"] if each["kind"] == "backup"]


def check_result(service: Deployment, inputs: list[np.ndarray]) -> None:
    content = service.content("out.npy")
    assert content is not None
    assert content[128:] == reference_reduce(inputs, 5, "mean").tobytes()


def test_a_backup_wins_against_a_worker_that_is_frozen_and_the_ledger_tells_of_it(service, inputs):
    # Only a silence counts, since of tasks that take milliseconds some take many times as long by chance.
    service.start_master(DISTSUM_SPECULATION="multiplier=1e6,slow=1e6,silence_seconds=3")
    frozen = service.start_worker(slots=1)
    (name,) = service.names()
    (process,) = frozen.children
    service.start_worker(slots=1)
    hold = service.gate()
    job = service.submit_here("out.npy")
    service.under_way(hold)
    os.kill(process, signal.SIGSTOP)
    hold.release()
    try:
        told = service.client.wait(job, 60)
        check_result(service, inputs)
    finally:
        os.kill(process, signal.SIGCONT)
    assert told.retries == 0, "nobody was given up"
    # From the history, which is stored in S3.
    report = service.ask("status", job, "--stragglers")
    assert report["totals"]["won"] == report["totals"]["started"] == told.backups.won == 1
    (entry,) = backups(report)
    assert (entry["reason"], entry["of_worker"], entry["outcome"]) == ("silent", name, "won")
    assert entry["evidence"]["silent_seconds"] > entry["evidence"]["limit_seconds"] == 3.0
    page = service.run("report", job, "-o", "-").stdout  # as the master says where it is, and that is S3
    assert f"job {job}" in page
    assert f"{name} -&gt; {entry['worker']}" in page
    said = service.run("status", job, "--stragglers").stdout
    assert f"{name} -> {entry['worker']}  silent for " in said
    assert " > 3.0s; " in said
    # What it finds when it goes on: it is called back, and has done no harm.
    wait_until(lambda: len(service.names("idle")) == 2, "its return")
    check_result(service, inputs)


def test_idle_workers_share_what_a_crawling_one_has_left_and_it_stops_reading(service, inputs):
    # One copy: it is held up, too, and on a busy machine for long enough to be copied itself.
    settings = {"DISTSUM_SPECULATION": "min_seconds=0,slow=1e6,copies=1", "DISTSUM_LOG_LEVEL": "debug"}
    master = service.start_master(**settings)
    with in_front_of(service.server.endpoint) as crawling:
        # The third input of its first task comes byte by byte.
        crawling.choose = lambda request: Fault(stall=100, drip_seconds=0.2) if input_number(request) == 2 else None
        service.start_worker(slots=1, AWS_ENDPOINT_URL=crawling.endpoint)
        (name,) = service.names()
        # Others are kept back, too: in their own tasks, until all are there and two of them are idle ...
        gate, hold = service.worker_s3.hold(), service.worker_s3.hold()
        # ... and in the second child of that task's node, whoever copies it, until another has made the last one.
        holds = {7: hold} | dict.fromkeys(range(25, FILES), gate)
        service.worker_s3.choose = lambda request: Fault(hold=holds.get(input_number(request) or 0))
        job = service.client.submit("mean", f"{service.place}/in/*.npy", f"{service.place}/out.npy", partition=25)
        wait_until(lambda: crawling.open_bodies, "that it crawls")
        service.start_worker(slots=3)
        wait_until(lambda: len(service.names("busy")) == 3, "who does the other tasks")
        gate.release()
        wait_until(lambda: service.listed(f"scratch/jobs/{job}/children"), "a child that another has made")
        (entry,) = backups(service.ask("status", job, "--stragglers"))
        assert (entry["of_worker"], entry["outcome"]) == (name, None)
        assert entry["helpers"]
        hold.release()
        told = service.client.wait(job, 60)
        check_result(service, inputs)
        # The copy has won, and the other has let go of what it was reading, which would have taken minutes.
        wait_until(lambda: crawling.open_bodies == 0, "the end of its reading", 10)
        wait_until(lambda: len(service.names("idle")) == 4, "its return")
        master.wait_for("after it was called back")
        # So have those who still made children of the node.
        stopped = re.findall(r"the attempt has stopped ([0-9.]+) s after it was called back", master.said)
        assert max(map(float, stopped)) <= STOPPED_SECONDS
    (entry,) = backups(service.ask("status", job, "--stragglers"))
    assert entry["outcome"] == "won"
    assert entry["children"] >= 1
    assert (told.backups.started, told.backups.won, told.retries) == (1, 1, 0)


def test_idle_workers_make_slices_of_a_node_whose_children_are_files(service):
    """A task of the lowest kind, whose third file comes byte by byte."""
    count = SLICES * LEAST_NUMBERS + 500
    arrays = [np.random.default_rng(index).standard_normal(count).astype(np.float32) for index in range(10)]
    for index, array in enumerate(arrays):
        service.put_input(index, array)
    service.start_master(DISTSUM_SPECULATION="min_seconds=0,slow=1e6,copies=1")  # the copy is held up, too
    with in_front_of(service.server.endpoint) as crawling:
        crawling.choose = lambda request: Fault(stall=100, drip_seconds=0.2) if input_number(request) == 2 else None
        service.start_worker(slots=1, AWS_ENDPOINT_URL=crawling.endpoint)
        (name,) = service.names()
        gate, hold = service.worker_s3.hold(), service.worker_s3.hold()
        read: list[tuple[int, str]] = []

        def choose(request: Request) -> Fault | None:
            if (number := input_number(request)) is None:
                return None
            place = request.headers.get("range", "")
            read.append((number, place))
            if number >= 5:
                return Fault(hold=gate)
            # The copy comes to the second slice, and waits there until another has made one of the last.
            return Fault(hold=hold) if place.startswith(f"bytes={128 + 4 * slices(count)[1][0]}-") else None

        service.worker_s3.choose = choose
        job = service.client.submit("mean", f"{service.place}/in/*.npy", f"{service.place}/out.npy", partition=5)
        wait_until(lambda: crawling.open_bodies, "that it crawls")
        service.start_worker(slots=4)
        wait_until(lambda: len(service.names("busy")) == 2, "who does the other task")
        gate.release()
        wait_until(lambda: service.listed(f"scratch/jobs/{job}/children"), "a slice that another has made")
        hold.release()
        told = service.client.wait(job, 60)
        wait_until(lambda: crawling.open_bodies == 0, "the end of its reading", 10)
        wait_until(lambda: len(service.names("idle")) == 5, "its return")
    content = service.content("out.npy")
    assert content is not None
    assert content[128:] == reference_reduce(arrays, 5, "mean").tobytes()
    # The last task may get one as well: nothing is too short here.
    entry = backups(service.ask("status", job, "--stragglers"))[0]
    assert (entry["of_worker"], entry["outcome"]) == (name, "won")
    assert len(entry["helpers"]) == 3
    assert entry["children"] >= 1
    assert told.retries == 0
    # Nobody but who crawls has read one of its files from end to end.
    starts = {where for number, where in read if number == 4}
    assert len(starts) >= 4
    assert service.listed(f"scratch/jobs/{job}/children") == set()


def test_who_follows_a_killed_worker_reads_only_the_files_that_are_in_no_stored_sum(service, inputs):
    service.start_master(DISTSUM_SPECULATION="multiplier=1e6,slow=1e6,silence_seconds=1e6")
    workers = service.start_worker(slots=1)
    hold = service.worker_s3.hold()

    def slowly(request: Request) -> Fault | None:
        number = input_number(request)
        if number is None:
            return None
        # A fifth of a second each, one after the other, up to the one before which the worker is killed.
        return Fault(hold=hold) if number == 50 else Fault(stall=128 + 8 * COUNT - 20, drip_seconds=0.01)

    service.worker_s3.choose = slowly
    # One task, and no node inside it.
    job = service.client.submit(
        "mean",
        f"{service.place}/in/*.npy",
        f"{service.place}/out.npy",
        partition=125,
        fan_in=125,
        max_open_files=1,
    )
    wait_until(lambda: hold.held, "its last file", 120)
    (process,) = workers.children
    os.kill(process, signal.SIGKILL)
    sums = service.listed(folder := f"scratch/jobs/{job}/children")
    contents = [service.content(f"{folder}/{name}") for name in sums]
    stored = max(decode_head(content[: head_bytes(content[:256])]).inputs for content in contents)
    before = len(service.worker_s3.requests)
    service.undo_faults()
    hold.release()
    told = service.client.wait(job, 60)
    read = [
        input_number(request) for request in service.worker_s3.requests[before:] if input_number(request) is not None
    ]
    assert 0 < stored <= 50
    assert read == list(range(stored, FILES))
    assert told.skipped == ()
    content = service.content("out.npy")
    assert content[128:] == reference_reduce(inputs, 125, "mean").tobytes()
    assert not service.listed(folder)


def test_a_master_that_is_killed_leaves_its_ledger_to_the_next_one(service, inputs):
    settings = {"DISTSUM_SPECULATION": "multiplier=1e6,slow=1e6,silence_seconds=3"}
    service.start_master(**settings)
    frozen = service.start_worker(slots=1)
    (name,) = service.names()
    (process,) = frozen.children
    # Who has the second task waits in it: the first worker, which freezes there, and then whoever copies it.
    hold = service.worker_s3.hold()
    service.worker_s3.choose = lambda request: Fault(hold=hold) if input_number(request) in range(5, 10) else None
    job = service.submit_here("out.npy")
    wait_until(lambda: hold.held, "that it has come there")
    os.kill(process, signal.SIGSTOP)
    try:
        service.start_worker(slots=2)
        history = f"jobs/{job}/history"
        wait_until(lambda: history in service.listed("scratch"), "its history so far", 60)
        asked = ("status", "--history", f"{service.place}/scratch/{history}", "--stragglers")
        wait_until(lambda: backups(service.ask(*asked)), "a backup in that", 60)
        service.kill_master()
        service.start_master(**settings)
        wait_until(lambda: service.ask("status", job)["state"] == "running", "that it goes on")
        (before, *_) = backups(service.ask("status", job, "--stragglers"))
        hold.release()
        told = service.client.wait(job, 90)
        check_result(service, inputs)
    finally:
        os.kill(process, signal.SIGCONT)
    report = service.ask("status", job, "--stragglers")
    (entry, *later) = backups(report)
    assert entry == before
    assert (entry["reason"], entry["of_worker"], entry["outcome"]) == ("silent", name, "moot")
    assert told.backups.started == report["totals"]["started"] == 1 + len(later)
    assert told.backups.moot >= 1
    told = "an earlier master had begun the job, and what it did is told of stragglers only, but for its last seconds"
    assert report["remark"] == told
    page = service.run("report", job, "-o", "-").stdout
    assert "those of an earlier one are below 0" in page
    assert re.search(r'<td class="when">-[0-9.]+s</td>[^\n]*silent for ', page)
