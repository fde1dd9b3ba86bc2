"""A service of which a test says what is known, in place of one behind a broker; and what it is asked."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from types import SimpleNamespace

from distsum.tui.remote import RemoteSource

from distsum.brokers.topology import TASKS
from distsum.messages import TaskId
from distsum.observe.snapshot import PhaseProgress, Snapshot
from distsum.observe.workers import WorkerStatus
from distsum.request import BackupTotals, PlanSummary, Summary
from distsum.service.messages import Description, Done, JobStatus, Node, Queue, Queues
from distsum.service.view import MasterStatus, ServiceView
from distsum.service.viewer import Connection
from tests.recorded import Stored

NOW = 1_767_270_000.0


class Following:
    """In place of a viewer.

    Attributes:
        job_views: What is known of jobs, by their ids.
        ended: How they ended that had before somebody looked.
        detail_of: What is known of nodes; None where nobody answers.
        looked: What was asked about nodes.
    """

    def __init__(self, view=None):
        self.service = SimpleNamespace(view=view)
        self.job = None
        self.stands = Connection("connected", "", 0.1, None)
        self.followed = []
        self.job_views = {}
        self.ended = {}
        self.detail_of = None
        self.looked = []

    def begin_look(self, request, _seconds):
        self.looked.append(request)
        answer = Future()
        if self.detail_of is not None:
            answer.set_result(Node(self.detail_of(request.task, request.first, request.count)))
        return answer

    def follow(self, job):
        self.followed.append(job)
        if job is None:
            self.job = None
            return
        self.job = SimpleNamespace(job=job, view=self.job_views.get(job), refused=None, ended=self.ended.get(job))

    def connection(self):
        return self.stands

    def look(self, _request, _seconds):
        return Description("1", 1, b"/scratch/work")


class Asked:
    """In place of what carries requests; notes them, and answers as it is told.

    Args:
        answer: What it answers; an error is raised, and a function is given the request.
    """

    def __init__(self, answer=None):
        self.requests = []
        self.answer = Done() if answer is None else answer

    def ask(self, request, _seconds):
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer(request) if callable(self.answer) else self.answer

    def close(self):
        """Nothing is open."""


class Histories:
    """In place of a store that holds one history.

    Args:
        content: Its bytes; None where there is none; an error where it cannot be opened.

    Attributes:
        hold: Reading waits for it.
        fault: Raised from then on.
        open_now: Readers that are open.
        closed: Whether it was let go of.
    """

    def __init__(self, content):
        self._content = content
        self.hold = threading.Event()
        self.hold.set()
        self.fault = None
        self.open_now = 0
        self.closed = False

    def open(self, _uri):
        if isinstance(self._content, Exception):
            raise self._content
        return None if self._content is None else _Held(self, self._content)

    def close(self):
        self.closed = True


class _Held(Stored):
    def __init__(self, histories, content):
        super().__init__(content)
        self._histories = histories

    def __enter__(self):
        self._histories.open_now += 1
        return self

    def __exit__(self, *_):
        self._histories.open_now -= 1

    def read(self, offset, size):
        self._histories.hold.wait(60.0)
        if self._histories.fault is not None:
            raise self._histories.fault
        return super().read(offset, size)


def source_of(viewer, asked=None, store=None, *, read_only=False):
    return RemoteSource(viewer, lambda: asked, lambda: store, read_only=read_only)


def running(job, state="running", share=0.5, elapsed=100.0, **more):
    """Return a job that is under way."""
    files = more.pop("files", 1000)
    size = files * 1_000_000
    began = None if state == "queued" else 10.0
    read = int(size * share)
    snapshot = Snapshot(
        job=job,
        reduction="mean",
        files=files,
        elapsed_seconds=elapsed,
        phases=(
            PhaseProgress(1, 200, int(200 * share), 0, 4 if began else 0, files, size, read, began, bytes_done=read),
            PhaseProgress(2, 8, 0, 0, 0, 200, 0, 0),
        ),
        workers=4,
        workers_lost=0,
        retries=2,
        notes=(),
        notes_total=0,
        finished=False,
        backups=BackupTotals(started=1, won=1),
    )
    return status(job, state, snapshot=snapshot, files=files, **more)


def status(job, state, **more):
    given = {
        "reduction": "mean",
        "files": 1000,
        "output": f"s3://lab/{job}/mean.npy",
        "priority": 0,
        "submitted_seconds": NOW - 400.0,
    }
    return JobStatus(job=job, state=state, **{**given, **more})


def succeeded(job, ago, **more):
    """Return a job that is done."""
    summary = Summary(
        output=f"s3://lab/{job}/mean.npy", reduction="mean", files=1000, count=1_048_576, shape=(1024, 1024),
        dtype="<f8", order="C", skipped=(), seconds=206.0, bytes_read=8_389_000_000, bytes_written=9_000_000,
        tasks=209, tasks_reused=0, attempts=210, retries=1, workers=4, workers_lost=0,
        plan=PlanSummary(partition=5, fan_in=5, tiles=1, phases=4, worker_bytes=1 << 28), peak_worker_bytes=1 << 27,
        digest=None, phase_seconds=(100.0,), worker_seconds={"reading": 300.0, "waiting": 100.0},
    )  # fmt: skip
    return status(job, "succeeded", ended_seconds=NOW - ago, summary=summary, exit_code=0, **more)


def worker(name, state="busy", **more):
    given = {
        "host": name.partition("-")[0],
        "pid": 4711,
        "task": TaskId("7f3a90c1d2e4", 1, 0, 3013) if state == "busy" else None,
        "tasks": 12,
        "bytes_read": 2_400_000_000,
        "bytes_per_second": 98_000_000.0,
        "reading_share": 0.89,
        "resident_bytes": 143_000_000,
        "peak_bytes": 88_000_000,
        "joined_seconds": NOW - 3600.0,
        "heard_seconds": NOW - 0.4,
    }
    return WorkerStatus(worker=name, state=state, **{**given, **more})


MASTER = MasterStatus(version="0.9.0", host="head", pid=99, work="s3://lab/work", began_seconds=NOW - 7322.0)


def service(jobs=(), workers=(), queues=None, fleet=None):
    return ServiceView(jobs=tuple(jobs), workers=tuple(workers), queues=queues, master=MASTER, fleet=fleet)


def busy_service():
    """Return a service in which there is one of everything."""
    return service(
        jobs=[
            succeeded("0a11ce550001", 7000.0),
            status("0a11ce550002", "failed", ended_seconds=NOW - 900.0, exit_code=1,
                   reason="s3://lab/in/0007.npy: has 12 numbers, and the first input 16"),
            status("0a11ce550003", "cancelled", ended_seconds=NOW - 60.0, exit_code=1, reason="cancelled by a client"),
            running("7f3a90c1d2e4", share=0.76, files=100_000, elapsed=206.0),
            running("81bb00c4f5a6", "queued", share=0.0, priority=5),
            running("9c00aa12b3c4", share=0.1),
            running("a1f0e2d3c4b5", "finishing", share=1.0, elapsed=300.0),
        ],
        workers=[
            worker("node1-a0"),
            worker("node1-a1", "idle"),
            worker("node2-b0", "paused", reason="paused by a client"),
            worker("node2-b1", "quarantined", reason="3 of its last 4 attempts failed", failures=3),
            worker("node3-c0", "lost", reason="no heartbeat for 15 s", heard_seconds=NOW - 40.0),
        ],
        queues=Queues(
            (
                Queue(TASKS, 41, 32, 4, 3),
                Queue("distsum.results", 0, 0, 1, 0),
                Queue("distsum.dead", 2, 0, 1, 0),
                Queue("distsum.requests", 0, 0, 1, 0),
                Queue("distsum.views", 0, 1, 1, 0),
                Queue("distsum.refused", 0, 0, 0, 0),
            ),
            3,
            "http://broker.example:15672/",
        ),
    )  # fmt: skip
