"""The service as its users run it: masters, workers and clients are processes, with RabbitMQ and S3 between them.

Everything of one deployment is in one virtual host and below one prefix, and its processes carry a mark, so that it can
be seen whether something is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

from distsum.client import Client
from distsum.service.messages import ENDED
from distsum.stores.s3 import S3Store
from tests import command
from tests.command import COMMAND, DEADLINE_SECONDS, alive, wait_until
from tests.faultproxy import Fault, FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from distsum.observe.workers import WorkerStatus
    from distsum.service.messages import JobStatus
    from tests.faultproxy import Hold, Request
    from tests.rabbitmq import Node
    from tests.s3server import S3Server

FILES = 60
TASKS = 12 + 3 + 1
FREE = 30
"""Inputs that a gate lets through. The tasks that read them can be done, and perhaps one that adds what those give."""
FREE_TASKS = FREE // 5
COUNT = 300
S3_DEADLINE_SECONDS = 60
"""A body that stalls is given up after 5 s then."""
MARK = "TESTED_DEPLOYMENT"
RECORDS = {"record", "ticket", "cancelled", "committing", "history", "outcome"}
SHARED_QUEUES = 6


_BOUND = ["setpriv", "--pdeathsig", "KILL"] if sys.platform == "linux" and shutil.which("setpriv") else []
"""Ends a command when the tests end, also where those are killed."""


class Process:
    """A command that runs; what it says goes to a file."""

    def __init__(self, log: Path, environment: dict[str, str], *arguments: str) -> None:
        self.log = log
        self.slots = int(arguments[arguments.index("--slots") + 1]) if "--slots" in arguments else 0
        with open(log, "wb") as said:
            self.popen = subprocess.Popen(
                [*_BOUND, *COMMAND, *arguments],
                env=command.environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if arguments[0] in {"wait", "submit"} else said,
                stderr=said,
                text=True,
            )

    @property
    def said(self) -> str:
        return self.log.read_text(errors="backslashreplace")

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    @property
    def children(self) -> list[int]:
        pid = self.popen.pid
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until it has said something."""
        wait_until(lambda: self.said.count(text) >= times or not self.running, f"{text!r} of {self.log.name}")
        assert text in self.said, self.said

    def result(self, exit_code: int = 0) -> str:
        """Wait for the end, and return what it printed."""
        text, _ = self.popen.communicate(timeout=90)
        assert self.popen.returncode == exit_code, self.said
        return text

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def end(self) -> int:
        """Ask it to leave, and wait."""
        self.popen.terminate()
        return self.popen.wait(DEADLINE_SECONDS)


class Deployment:
    """One service.

    Args:
        node: Where its virtual host is.
        server: Where its bucket is.
        vhost: The virtual host.
        folder: For what the processes say.

    Attributes:
        folder: Where what they say is.
        master_s3: Between masters and the server.
        worker_s3: Between workers and the server.
        masters: Masters that were started and not ended.
        workers: Likewise ``distsum worker``.
    """

    def __init__(self, node: Node, server: S3Server, vhost: str, folder: Path) -> None:
        self.node = node
        self.server = server
        self.vhost = vhost
        self.place = f"s3://tests/{uuid.uuid4().hex}"
        self.url = node.url(vhost)
        self.master_s3 = FaultProxy(server.endpoint)
        self.worker_s3 = FaultProxy(server.endpoint)
        self.store = S3Store()
        self.masters: list[Process] = []
        self.workers: list[Process] = []
        self._followers: list[Process] = []
        self.folder = folder
        self._mark = uuid.uuid4().hex
        self._numbers = iter(range(1_000_000))
        self._client: Client | None = None
        self.clean = True

    # Data -------------------------------------------------------------------------------------------------------------

    def put_inputs(self) -> list[np.ndarray]:
        """Store the inputs; return them."""
        arrays = [np.random.default_rng(index).standard_normal(COUNT) for index in range(FILES)]
        for index, array in enumerate(arrays):
            self.put_input(index, array)
        return arrays

    def put_input(self, index: int, array: np.ndarray) -> None:
        import io

        content = io.BytesIO()
        np.save(content, array)
        self.store.put(self.uri(f"in/{index:03}.npy"), [content.getvalue()])

    def uri(self, name: str) -> bytes:
        return f"{self.place}/{name}".encode()

    def content(self, name: str) -> bytes | None:
        """Return an object's content, if it is there."""
        reader = self.store.open(self.uri(name))
        if reader is None:
            return None
        with reader:
            return reader.read(0, reader.size)

    def listed(self, folder: str) -> set[str]:
        return {name.decode() for name in self.store.list(self.uri(folder))}

    @property
    def partials(self) -> set[str]:
        return self.listed("scratch/partials")

    # Processes --------------------------------------------------------------------------------------------------------

    def environment(self, endpoint: str | None = None, **changes: str) -> dict[str, str]:
        ours = {"DISTSUM_BROKER": self.url, "DISTSUM_S3_DEADLINE": str(S3_DEADLINE_SECONDS), MARK: self._mark}
        return self.server.environment | ({"AWS_ENDPOINT_URL": endpoint} if endpoint else {}) | ours | changes

    def _start(self, kind: str, environment: dict[str, str], *arguments: str) -> Process:
        return Process(self.folder / f"{kind}-{next(self._numbers)}.log", environment, *arguments)

    def start_master(self, state: str = "ready", **changes: str) -> Process:
        """Start a master, and wait until it serves, or waits for the end of another."""
        environment = self.environment(self.master_s3.endpoint, **changes)
        master = self._start("master", environment, "master", "--work-dir", f"{self.place}/scratch")
        self.masters.append(master)
        master.wait_for(state)
        return master

    def start_standbys(self, count: int, *options: str) -> None:
        """Start masters that wait for the end of the one that serves; all at once, which is quicker."""
        environment = self.environment(self.master_s3.endpoint)
        started = [
            self._start("master", environment, "master", "--work-dir", f"{self.place}/scratch", *options)
            for _ in range(count)
        ]
        self.masters += started
        for each in started:
            each.wait_for("waiting for its end")

    def serving(self) -> Process:
        """Wait until a master serves, and return it."""
        wait_until(lambda: any(" ready" in each.said for each in self.masters), "a master that serves")
        (found,) = [each for each in self.masters if " ready" in each.said]
        return found

    def kill_master(self) -> None:
        """Kill the master that serves."""
        serving = self.serving()
        serving.kill()
        self.masters.remove(serving)

    def start_worker(self, slots: int = 2, **changes: str) -> Process:
        """Start workers, and wait until the master knows them."""
        before = len(self.names())
        environment = self.environment(self.worker_s3.endpoint, **changes)
        self.workers.append(self._start("worker", environment, "worker", "--slots", str(slots)))
        wait_until(lambda: len(self.names()) >= before + slots, "workers")
        return self.workers[-1]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return command.distsum(*arguments, env=self.environment())

    def ask(self, *arguments: str) -> Any:
        """Run a command that must succeed, and return what it tells."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def submit_here(self, output: str) -> str:
        """Submit a job from this process; return its id."""
        return self.client.submit("mean", f"{self.place}/in/*.npy", f"{self.place}/{output}", partition=5)

    def submitting(self, output: str) -> Process:
        """Start a command that submits a job."""
        arguments = (f"{self.place}/in/*.npy", "-o", f"{self.place}/{output}", "-p", "5")
        return self._start("submit", self.environment(), "submit", "mean", *arguments)

    def submit(self, output: str) -> str:
        """Submit a job; return its id."""
        return self.submitting(output).result().strip()

    def follow(self, job: str, *, answered: bool = True) -> Process:
        """Start a command that waits for a job's end; return when it is connected, and will be ``answered``."""
        process = self._start("wait", self.environment(), "wait", job, "--json", "--quiet")
        self._followers.append(process)
        if answered:
            self.client.describe()  # so that our own queue is there
            wait_until(lambda: not process.running or self._reply_queues() == 1 + self._following, "a follower")
        else:
            port = self.node.amqp_port
            # One to publish and one to consume.
            wait_until(lambda: len(connections(process.popen.pid, port)) == 2, "a follower")
        return process

    @property
    def _following(self) -> int:
        return sum(each.running for each in self._followers)

    def _reply_queues(self) -> int:
        queues = self.node.management("GET", f"/api/queues/{self.vhost}?columns=name")
        return sum(each["name"].startswith("distsum.reply.") for each in queues)

    @staticmethod
    def told(follower: Process) -> Any:
        """Wait for the end of a job that must succeed, and return what its follower tells."""
        return json.loads(follower.result().splitlines()[-1])

    @property
    def client(self) -> Client:
        """A client in this process, to look at things often."""
        if self._client is None:
            self._client = Client(self.url, patience_seconds=60.0)
        return self._client

    def names(self, *states: str) -> list[str]:
        """Return the names of workers that are there, or of those in these states."""
        return [each.worker for each in self.statuses() if each.state in (states or ("idle", "busy", "paused"))]

    def statuses(self) -> tuple[WorkerStatus, ...]:
        return self.client.workers()

    def status(self, job: str) -> JobStatus:
        return self.client.status(job)

    def wait_ended(self, job: str) -> JobStatus:
        wait_until(lambda: self.status(job).state in ENDED, f"the end of job {job}")
        return self.status(job)

    @property
    def processes(self) -> list[int]:
        """All processes of this deployment that live, whoever has started them."""
        mark = f"{MARK}={self._mark}".encode()
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError), open(f"/proc/{entry}/environ", "rb") as file:
                    if mark in file.read().split(b"\0") and alive(int(entry)):
                        found.append(int(entry))
        return found

    # Faults -----------------------------------------------------------------------------------------------------------

    def gate(self, after: int = FREE) -> Hold:
        """Hold back the inputs from one on, so that a job is under way until the gate is released."""
        hold = self.worker_s3.hold()

        def choose(request: Request) -> Fault | None:
            number = input_number(request)
            return Fault(hold=hold) if number is not None and number >= after else None

        self.worker_s3.choose = choose
        return hold

    def under_way(self, hold: Hold, slots: int = 2, partials: int = FREE_TASKS) -> None:
        """Wait until all that the gate lets through is stored, and every worker waits before it."""
        wait_until(lambda: len(self.partials) >= partials, f"{partials} partials")
        wait_until(lambda: len({each.target for each in hold.held}) >= 5 * slots, "workers before the gate")

    def undo_faults(self) -> None:
        for proxy in (self.master_s3, self.worker_s3):
            proxy.choose = lambda request: None

    # The end ----------------------------------------------------------------------------------------------------------

    def check_nothing_is_left(self, *jobs: str, failed: tuple[str, ...] = (), keep: bool = False) -> None:
        """Wait until jobs that have ended have left their records and nothing else.

        Args:
            jobs: Those whose partials go.
            failed: Those that have failed: their partials stay.
            keep: Whether what is rightly there stays for what follows.
        """
        self.close_client()
        kept = {f"jobs/{job}/{name}" for job in (*jobs, *failed) for name in RECORDS} | {"serving"}

        def left() -> set[str]:
            found = {name for name in self.listed("scratch") if name not in kept}
            return {name for name in found if not (failed and re.fullmatch("partials/../[0-9a-f]{64}", name))}

        _wait_for_none(left, "objects in the work folder")
        _wait_for_none(lambda: [begun.final for begun in self.store.begun(self.uri(""))], "uploads")
        slots = sum(worker.slots for worker in self.workers if worker.running)
        _wait_for_none(lambda: self._odd_queues(slots), "queues")
        expected = sum(each.running for each in (*self.masters, *self.workers)) + slots
        _wait_for_none(lambda: self.processes[expected:], "processes")
        _wait_for_none(lambda: expected - len(self.processes), "missing processes")
        if not keep:
            self.store.delete_all(self.uri("scratch"), {b"serving"})
            self.clean = True

    def _odd_queues(self, slots: int) -> list[tuple[str, int]]:
        """Return queues with messages in them, and those whose process is not there."""
        found = [
            (each["name"], each.get("messages", -1))
            for each in self.node.management("GET", f"/api/queues/{self.vhost}")
        ]
        odd = [(name, count) for name, count in found if count]
        serving = any(master.running for master in self.masters)
        names = [name for name, _ in found]
        for prefix, expected in (
            ("distsum.worker.", slots),
            ("distsum.reply.", 0),
            ("distsum.telemetry.", int(serving)),
            ("distsum.master", int(serving)),
        ):
            if sum(name.startswith(prefix) for name in names) != expected:
                odd += [(name, 0) for name in names if name.startswith(prefix)] or [(prefix, -1)]
        return odd

    def close_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def end(self) -> None:
        """End everything in peace, and make sure that nothing is left."""
        for worker in self.workers:
            assert worker.end() == 0, worker.said
        self.check_nothing_is_left()
        for master in self.masters:
            assert master.end() == 0, master.said
        self.masters.clear()
        self.workers.clear()
        self.check_nothing_is_left()
        assert self.listed("scratch") == set()
        queues = self.node.management("GET", f"/api/queues/{self.vhost}")
        assert len(queues) == SHARED_QUEUES, queues

    def kill(self) -> None:
        """End everything, however it goes; the servers run afterwards."""
        self.close_client()
        self.undo_faults()
        for server in (self.node, self.server):
            if not server.running:
                server.start()
        for each in (*self.masters, *self.workers):
            each.kill()
        self.masters.clear()
        self.workers.clear()
        self.clean = True
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (found := self.processes) and time.monotonic() < deadline:
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.store.delete_all(self.uri("scratch"), set())
        for begun in self.store.begun(self.uri("")):
            self.store.abort_output(begun.output)

    def close(self) -> None:
        self.kill()
        for proxy in (self.master_s3, self.worker_s3):
            proxy.close()
        self.store.close()


def connections(pid: int, port: int) -> set[str]:
    """Return the TCP connections that a process has to a port of this machine."""
    return _sockets(pid) & _established(remote=port)


def process_at(port: int, server: int) -> int:
    """Return which process has a TCP connection from one port of this machine to another.

    The first alone would not tell: others may have a connection from the same port to another server.
    """
    sockets = _established(remote=server, local=port)
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid() and _sockets(int(entry)) & sockets:
            return int(entry)
    raise AssertionError(f"no process has a connection from port {port} to {server}")


def _sockets(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return found


def _established(remote: int, local: int | None = None) -> set[str]:
    """Return the established TCP sockets of this machine by their remote port, and the local one where it is given."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [row.split() for row in file.readlines()[1:]]
    found = set()
    for row in rows:
        here, there = (int(row[field].rpartition(":")[2], 16) for field in (1, 2))
        if there == remote and local in {None, here} and row[3] == "01":
            found.add(f"socket:[{row[9]}]")
    return found


def input_number(request: Request) -> int | None:
    """Return which input a request reads; None if it is another request."""
    found = re.search(r"/in/(\d+)\.npy", request.target) if request.method == "GET" else None
    return int(found[1]) if found else None


def _wait_for_none(look: Callable[[], Any], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while left := look():
        assert time.monotonic() < deadline, f"{what} are left: {left}"
        time.sleep(0.05)


@contextlib.contextmanager
def deployment(node: Node, server: S3Server, folder: Path) -> Iterator[Deployment]:
    """Give a service without processes; all that there are in the end are gone afterwards."""
    with node.vhost() as vhost:
        made = Deployment(node, server, vhost, folder)
        try:
            yield made
        finally:
            made.close()
