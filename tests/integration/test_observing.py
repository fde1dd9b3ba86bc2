"""What a service tells of itself while it works: its logs, its figures for Prometheus, and those of its queues."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import signal
import socket
import threading
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from distsum.cli.options import plain
from distsum.errors import RemoteJobError
from distsum.generate import generate
from distsum.logs import FIELDS
from tests.command import distsum, wait_until
from tests.servicecommands import asked, client_of, master, slot_processes, worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rabbitmq import Node

FILES = 120
TASKS = 30
JSON_LOG = ("--log-json", "--log-level", "debug")


@dataclass(frozen=True)
class Observed:
    """A service that has done one job, failed another, lost a worker, and lost its connections once."""

    before: dict[str, float]
    after: dict[str, float]
    done: dict[str, Any]
    done_job: str
    failed_job: str
    status: dict[str, Any]
    shown: str
    killed: str
    master_log: list[dict[str, Any]]
    worker_log: list[dict[str, Any]]
    texts: str


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def scraped(url: str) -> dict[str, float]:
    """Return the samples by name and labels, as Prometheus reads them."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def said(path: Path, words: str) -> bool:
    return any(words in line for line in path.read_text().splitlines())


@pytest.fixture(scope="module")
def observed(rabbitmq: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    place = tmp_path_factory.mktemp("observed")
    generate(str(place / "in"), files=FILES, count=3000)
    with rabbitmq.vhost() as vhost:
        environment = {"DISTSUM_BROKER": rabbitmq.url(vhost), "DISTSUM_MANAGEMENT": rabbitmq.management_url}
        master_log, worker_log = place / "master.log", place / "worker.log"
        with (
            master(place, environment, "--metrics-port", "0", *JSON_LOG),
            worker(place, environment, *JSON_LOG) as working,
            client_of(environment) as client,
        ):
            wait_until(lambda: len(client.workers()) == 2, "workers")
            found = re.search(r"http://127\.0\.0\.1:\d+/metrics", master_log.read_text())
            assert found is not None
            before = scraped(found[0])
            submitted = distsum(
                "submit", "mean", str(place / "in"), "-o", str(place / "out.npy"), "-p", "5", env=environment
            )
            assert submitted.returncode == 0, submitted.stderr
            job = submitted.stdout.strip()
            done = plain(client.wait(job))
            names = sorted(os.listdir(place / "in"))
            with open(place / "in" / names[77], "r+b") as file:
                file.write(b"no magic")  # of the same size, so that a worker finds it
            failing = distsum("submit", "sum", str(place / "in"), "-o", str(place / "sum.npy"), env=environment)
            failed_job = failing.stdout.strip()
            with pytest.raises(RemoteJobError):
                client.wait(failed_job)
            # The management API gathers what it tells, so it is some time behind.
            wait_until(
                lambda: all(each.unacknowledged is not None for each in client.queues().queues),
                "figures of the management API",
            )
            status = asked(environment, "status", job)
            shown = distsum("status", job, env=environment).stdout
            after = scraped(found[0])
            killed = slot_processes(working)[0]
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda: said(worker_log, "SIGKILL"), "the end of a worker")
            wait_until(lambda: said(master_log, "is lost"), "news of it")
            for connection in rabbitmq.management("GET", f"/api/vhosts/{vhost}/connections"):
                with contextlib.suppress(urllib.error.HTTPError):  # closed with the other of its pair
                    rabbitmq.management("DELETE", f"/api/connections/{quote(connection['name'], safe='')}")
            for path in (master_log, worker_log):
                wait_until(lambda path=path: said(path, "connected again"), f"a new connection in {path}")
            working.terminate()
            assert working.wait(30) == 0
        texts = master_log.read_text() + worker_log.read_text()
        assert rabbitmq.password not in texts + shown + json.dumps(status)
        yield Observed(
            before=before,
            after=after,
            done=done,
            done_job=job,
            failed_job=failed_job,
            status=status,
            shown=shown,
            killed=str(killed),
            master_log=lines(master_log),
            worker_log=lines(worker_log),
            texts=texts,
        )


def concerned(found: list[dict[str, Any]], words: str, job: str) -> set[tuple[str, ...]]:
    return {tuple(line[name] for name in FIELDS) for line in found if words in line["message"] and line["job"] == job}


def test_every_line_of_a_json_log_is_one_object_with_the_same_fields(observed: Observed) -> None:
    expected = {"time", "level", "logger", "process", "message", *FIELDS}
    for line in observed.master_log + observed.worker_log:
        assert set(line) - {"trace"} == expected
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert line["level"] in {"debug", "info", "warning", "error"}
        assert all(line[name] is None or (isinstance(line[name], str) and line[name]) for name in FIELDS)


def test_each_attempt_is_told_by_its_worker_and_by_the_master_alike(observed: Observed) -> None:
    begun = concerned(observed.worker_log, "the task begins", observed.done_job)
    assert all(all(each) for each in begun), "job, task, attempt and worker are in each"
    stored = concerned(observed.worker_log, "the task is stored", observed.done_job)
    assert stored <= begun
    assert len({task for _, task, _, _ in stored}) == TASKS
    # That an attempt begins is telemetry, of which some may come too late.
    told = concerned(observed.master_log, "the task begins", observed.done_job)
    assert told
    assert told <= begun
    done = concerned(observed.master_log, "the task is done", observed.done_job)
    assert done <= stored
    assert len(done) == TASKS


def test_a_failed_attempt_is_a_warning_that_names_what_failed(observed: Observed) -> None:
    for found in (observed.worker_log, observed.master_log):
        failed = [line for line in found if line["message"].startswith("the task failed: bad_input")]
        assert failed
        for line in failed:
            assert line["level"] == "warning"
            assert line["job"] == observed.failed_job
            assert all(line[name] for name in FIELDS)
    ended = [line for line in observed.master_log if line["job"] == observed.failed_job and "job" in line["message"]]
    assert any("77" in line["message"] for line in ended), "the end of the job names the file"


def test_every_line_of_a_worker_names_it_from_its_start_to_its_end(observed: Observed) -> None:
    own = [line for line in observed.worker_log if line["logger"] != "distsum.worker.slots"]
    assert all(line["worker"] for line in own)
    for words in ("starts, process", "joins amqp://", "connection was lost", "connected again"):
        assert {line["worker"] for line in own if words in line["message"]}, words
    joined = {line["worker"] for line in observed.master_log if "joined from" in line["message"]}
    assert joined == {line["worker"] for line in own}
    (killed,) = [line for line in observed.worker_log if "SIGKILL" in line["message"]]
    news = [line for line in observed.master_log if "is lost" in line["message"]]
    (lost,) = [line for line in news if line["worker"] == killed["worker"]]
    assert (killed["level"], lost["level"]) == ("warning", "warning")
    left = [line["worker"] for line in observed.worker_log if "has left" in line["message"]]
    assert len(left) == 2


def test_the_figures_of_prometheus_are_those_of_the_job(observed: Observed) -> None:
    before, after, done = observed.before, observed.after, observed.done
    assert before["distsum_serving"] == 1
    assert before["distsum_tasks_total outcome=computed"] == 0
    assert before["distsum_workers state=idle"] == after["distsum_workers state=idle"] == 2
    assert after["distsum_tasks_total outcome=computed"] >= done["tasks"] == TASKS
    assert after["distsum_tasks_total outcome=bad_input"] >= 1
    by_phase = {name: value for name, value in after.items() if name.startswith("distsum_task_seconds_count")}
    assert sum(by_phase.values()) == after["distsum_tasks_total outcome=computed"]
    phases = done["plan"]["phases"] if isinstance(done["plan"]["phases"], int) else len(done["plan"]["phases"])
    assert len(by_phase) == phases
    assert after["distsum_jobs_ended_total state=succeeded"] == 1
    assert after["distsum_jobs_ended_total state=failed"] == 1
    assert after["distsum_jobs state=running"] == 0
    assert after["distsum_read_bytes_total"] >= done["bytes_read"] > 0
    assert after["distsum_written_bytes_total"] >= done["bytes_written"] > 0
    assert after["distsum_retries_total reason=failed"] == after["distsum_retries_total reason=returned"] == 0
    assert done["retries"] == after["distsum_redelivered_total"] == 0
    assert after["distsum_queue_messages queue=distsum.dead state=ready"] == 0
    assert "distsum_queue_messages queue=distsum.results state=unacknowledged" in after
    # A name from outside is in no label, so their number is bounded.
    assert not any(observed.done_job in name or "out.npy" in name for name in after)


def test_status_tells_what_only_the_management_api_knows_and_where_it_is(observed: Observed) -> None:
    queues = {each["name"]: each for each in observed.status["queues"]["queues"]}
    assert set(queues) >= {"distsum.results", "distsum.dead", "distsum.refused", "distsum.requests"}
    for queue in queues.values():
        assert queue["unacknowledged"] is not None
        assert queue["redelivered"] == 0, "RabbitMQ tells nothing of what has not been"
    assert observed.status["queues"]["management_fault"] is None
    page = observed.status["queues"]["management"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#/queues", page), "no name and no password"
    assert f"more at {page}" in observed.shown
    assert "unacked" in observed.shown
    assert "redelivered" in observed.shown


@pytest.fixture
def silent_api() -> Iterator[int]:
    """Give the port of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken: list[socket.socket] = []

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(listening.accept()[0])

        thread = threading.Thread(target=take)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
        for each in taken:
            each.close()


def test_a_management_api_that_does_not_answer_holds_up_nobody(
    tmp_path: Path, rabbitmq: Node, vhost: str, silent_api: int
) -> None:
    environment = {
        "DISTSUM_BROKER": rabbitmq.url(vhost),
        "DISTSUM_MANAGEMENT": f"http://operator:s3cr3t-canary@127.0.0.1:{silent_api}",
    }
    generate(str(tmp_path / "in"), files=3, count=10)
    with master(tmp_path, environment) as process:
        job = distsum("submit", "mean", str(tmp_path / "in"), "-o", str(tmp_path / "out.npy"), env=environment)
        assert job.returncode == 0, job.stderr
        told = asked(environment, "status", job.stdout.strip())["queues"]
        assert {each["unacknowledged"] for each in told["queues"]} == {None}
        assert all(each["ready"] >= 0 for each in told["queues"])
        assert "no answer within" in told["management_fault"]
        shown = distsum("status", job.stdout.strip(), env=environment).stdout
        assert "the management API tells nothing" in shown
        assert "unacked" not in shown
        process.terminate()
        assert process.wait(30) == 0
    log = (tmp_path / "master.log").read_text()
    assert "s3cr3t-canary" not in log + shown + json.dumps(told)
    assert log.count("the management API tells nothing") == 1, "it is said once, not at each question"


def test_the_error_that_ends_a_process_is_json_too(tmp_path: Path) -> None:
    environment = {"DISTSUM_BROKER": "amqp://u:s3cr3t-canary@127.0.0.1:1/v", "DISTSUM_LOG_JSON": "yes"}
    for arguments in (["master", "--work-dir", str(tmp_path)], ["worker", "--slots", "1"]):
        done = distsum(*arguments, env=environment)
        assert done.returncode == 3
        told = [json.loads(line) for line in done.stderr.splitlines()]
        assert told[-1]["level"] == "error"
        assert "127.0.0.1:1" in told[-1]["message"]
        assert "s3cr3t-canary" not in done.stderr


def test_a_port_for_figures_that_is_taken_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = ["master", "--work-dir", str(tmp_path), "--metrics-port", str(port)]
        done = distsum(*arguments, env={"DISTSUM_BROKER": "amqp://127.0.0.1:1/v"})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()[1:]
    assert line.startswith(f"distsum: --metrics-port {port}: cannot listen at 127.0.0.1 (Address already in use)")


@pytest.fixture
def asked_api(request: pytest.FixtureRequest, rabbitmq: Node, vhost: str) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Give variables that name a management API that answers all alike after some seconds, and what it is asked for."""
    asked_for: list[str] = []

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked_for.append(self.path)
            time.sleep(request.param)
            with contextlib.suppress(OSError):  # a master that ends does not wait for its answer
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'{"messages_unacknowledged": 7}')

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        management = f"http://operator:secret@127.0.0.1:{server.server_port}"
        yield {"DISTSUM_BROKER": rabbitmq.url(vhost), "DISTSUM_MANAGEMENT": management}, asked_for
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("asked_api", [0.0], indirect=True)
def test_the_management_api_is_not_asked_more_often_than_rabbitmq_gathers_what_it_tells(
    tmp_path: Path, asked_api: tuple[dict[str, str], list[str]]
) -> None:
    environment, paths = asked_api
    with master(tmp_path, environment) as process, client_of(environment) as client:
        began = time.monotonic()
        for _ in range(10):
            names = {each.name for each in client.queues().queues}
        assert time.monotonic() - began < 4, "or else it may be asked again"
        assert len(paths) == len(set(paths)) == len(names)
        wait_until(lambda: client.queues() and len(paths) == 2 * len(names), "that it is asked again")
        assert time.monotonic() - began > 4.5
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.parametrize("asked_api", [0.6], indirect=True)
def test_a_slow_management_api_is_told_of_once_and_what_it_told_stays_until_it_answers_again(
    tmp_path: Path, asked_api: tuple[dict[str, str], list[str]]
) -> None:
    environment, paths = asked_api
    with master(tmp_path, environment) as process, client_of(environment) as client:
        told = client.queues()
        assert "no answer within" in (told.management_fault or "")
        names = {each.name for each in told.queues}
        wait_until(lambda: client.queues().management_fault is None, "its first answer")
        longest = 0.0
        while len(paths) < 3 * len(names):  # up to the end of the third question
            began = time.monotonic()
            told = client.queues()
            longest = max(longest, time.monotonic() - began)
            assert told.management_fault is None
            assert {each.unacknowledged for each in told.queues} == {7}
            time.sleep(0.2)
        assert longest < 2, "nobody waits where an answer is there"
        process.terminate()
        assert process.wait(30) == 0
    assert (tmp_path / "master.log").read_text().count("the management API tells nothing") == 1
