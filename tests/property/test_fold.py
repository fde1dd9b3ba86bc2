"""Whatever happens in a job, and in whatever order: what is counted from its events is what happened.

The real actors run a job whose workers, losses, failures and damaged partials are drawn, and after every event the
tally is compared with a store and an account that are kept beside it.
"""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from distsum import __version__
from distsum.actors.actor import BROKER, CLIENT, MASTER, TRACKER
from distsum.actors.phase import STORED, UNNEEDED, WAITING
from distsum.actors.task_tracker import TrackerSettings
from distsum.brokers.base import LEFT
from distsum.messages import (
    PROTOCOL,
    Effort,
    Heartbeat,
    JobSpec,
    JobStarted,
    JobSucceeded,
    NodeReopened,
    RunTask,
    SubmitJob,
    TaskFailed,
    TaskId,
    TaskReturned,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
    WorkerLost,
)
from distsum.observe.fold import JobTally
from distsum.observe.snapshot import PhaseWork
from distsum.tree import Tree
from tests.stepping import SteppingSystem

BYTES = 100
"""What every task reads."""


def described(files, exponent, tiles):
    return JobSpec(
        job="job",
        reduction="mean",
        files=files,
        count=10 * tiles,
        fan_in=3,
        exponent=exponent,
        tile_length=10,
        format="npy",
        dtype="<f8",
        shape=(10 * tiles,),
        fortran=False,
        offset=128,
        header=b"",
        on_bad_input="fail",
        max_open_files=5,
        buffer_bytes=1 << 20,
        work=b"/work",
        output=b"/out",
        output_format="npy",
        output_dtype="<f8",
        output_header=bytes(128),
        hold_bytes=1 << 20,
        output_number_bytes=8,
    )


class DrawnRun:
    """A job run by the real actors, with everything else drawn from a seed.

    Attributes:
        store: The nodes whose partials are stored.
        done: Tasks that succeeded, each as often as it did.
    """

    def __init__(self, files, exponent, tiles, seed):
        self.draw = random.Random(seed)
        self.spec = described(files, exponent, tiles)
        self.tree = Tree(files=files, fan_in=3, exponent=exponent)
        self.work = tuple(
            PhaseWork(tasks := self.tree.tasks(phase) * tiles, files=7 * tasks, bytes=BYTES * tasks)
            for phase in range(1, self.tree.phases + 1)
        )
        self.tally = JobTally(self.work, lambda index: b"%d.npy" % index)
        self.system = SteppingSystem(TrackerSettings(max_attempts=1000))
        self.store: set[TaskId] = set()
        self.states = self.found()
        self.clock = 0.0
        self.taken = 0
        self.workers = 0
        self.lost = 0
        self.started: Counter[TaskId] = Counter()
        self.attempts = 0
        self.retries = 0
        self.done: Counter[TaskId] = Counter()
        self.running: dict[TaskId, int] = {}
        self.numbers: dict[TaskId, int] = {}
        self.bytes_read = 0

    def found(self):
        """Draw what earlier runs have stored; nothing below a stored node is needed."""
        share = self.draw.choice([0.0, 0.0, 0.2, 0.7])
        states = []
        above = None
        for phase in range(self.tree.phases, 0, -1):
            width = self.tree.width(phase)
            mine = bytearray(width * self.spec.tiles)
            for number in range(len(mine)):
                tile, index = divmod(number, width)
                if above is not None:
                    parent = above[tile * self.tree.width(phase + 1) + index // self.tree.partition]
                    if parent != WAITING:
                        mine[number] = UNNEEDED
                        continue
                if phase < self.tree.phases and self.draw.random() < share:
                    mine[number] = STORED
                    self.keep(TaskId("job", phase, tile, index))
            states.append(bytes(mine))
            above = mine
        return tuple(reversed(states))

    def keep(self, node):
        """Store a node; one that passes through is its child."""
        self.store.add(self.held(node))

    def held(self, node):
        while self.tree.passes_through(node.phase, node.index):
            node = TaskId(node.job, node.phase - 1, node.tile, self.tree.children(node.phase, node.index)[0])
        return node

    def run(self):
        system, draw = self.system, self.draw
        for _ in range(draw.randint(1, 4)):
            self.join()
        self.tell(MASTER, SubmitJob(self.spec, self.states))
        queue: list[TaskId] = []
        while True:
            for message in system.take(BROKER):
                if isinstance(message, RunTask):
                    queue.append(message.task)
                    self.numbers[message.task] = message.attempt
            ended = [message for message in system.take(CLIENT) if isinstance(message, JobSucceeded)]
            if ended:
                return
            waiting = [task for task in queue if task not in self.running]
            if self.store and draw.random() < 0.1:
                self.store.discard(draw.choice(sorted(self.store)))  # A partial goes bad.
            if waiting and (not self.running or draw.random() < 0.5):
                self.start(draw.choice(waiting))
            else:
                assert self.running, "the job stands still"
                self.go_on(draw.choice(list(self.running)), queue)

    @property
    def worker(self):
        """One that is there: the last that has joined."""
        return f"w{self.workers}"

    def join(self):
        self.workers += 1
        name = f"w{self.workers}"
        self.tell(TRACKER, WorkerJoined(name, "h", 1, __version__, PROTOCOL, baseline_bytes=0, start_seconds=0.5))

    def start(self, task):
        self.attempts += 1
        self.retries += self.started[task] > 0
        self.started[task] += 1
        self.running[task] = 0
        self.tell(TRACKER, TaskStarted(self.worker, task, 1, self.numbers[task]))

    def go_on(self, task, queue):
        kind = self.draw.choice(["beat", "beat", "end", "end", "end", "end", "fail", "lose"])
        if kind == "beat":
            self.running[task] = self.draw.randint(self.running[task], BYTES)
            self.tell(TRACKER, Heartbeat(self.worker, task, self.running[task], attempt=self.numbers[task]))
            return
        if kind == "lose":
            self.lost += 1
            self.tell(TRACKER, WorkerLost(f"w{self.lost}", "ended"))
            del self.running[task]
            self.tell(TRACKER, TaskReturned(task, 1))
            self.join()
            return
        del self.running[task]
        queue.remove(task)
        if kind == "fail":
            self.tell(TRACKER, TaskFailed(self.worker, task, "error", "flaky", attempt=self.numbers[task]))
            return
        children = [
            TaskId("job", task.phase - 1, task.tile, i) for i in range(*self.tree.children(task.phase, task.index))
        ]
        missing = tuple(child.index for child in children if task.phase > 1 and self.held(child) not in self.store)
        if missing:
            number = self.numbers[task]
            self.tell(TRACKER, TaskFailed(self.worker, task, "blocked", "gone", missing=missing, attempt=number))
            return
        self.end(task)

    def end(self, task):
        reused = task in self.store
        self.keep(task)
        self.done[task] += 1
        self.started[task] = 0
        self.bytes_read += BYTES
        effort = Effort(BYTES, 10, 7, 1, 0.1, 0.2, 0.3, 0.4, self.draw.randint(1, 1000))
        success = TaskSucceeded(self.worker, task, 1, (), reused, b"", effort, self.numbers[task])
        self.tell(TRACKER, success)
        if self.draw.random() < 0.1:
            self.tell(TRACKER, success)  # Delivered twice, which changes nothing.
        if self.draw.random() < 0.1:
            self.tell(
                TRACKER, Heartbeat(self.worker, task, BYTES, attempt=self.numbers[task])
            )  # Overtaken by the result.

    def tell(self, address, message):
        """Let a message and all that follows happen, and compare the tally after each of its events."""
        self.clock += self.draw.random()
        self.system.tell(address, message)
        for event in self.system.events[self.taken :]:
            self.tally.take(event, self.clock)
            self.check_shape()
        self.taken = len(self.system.events)
        self.check_counts()

    def check_shape(self):
        """What holds at any moment."""
        phases = self.tally.snapshot(self.clock).phases
        assert len(phases) in {0, len(self.work)}
        for phase, work in zip(phases, self.work, strict=False):  # There are none before the job starts.
            assert 0 <= phase.found <= phase.reused <= phase.done <= phase.tasks <= work.tasks
            assert phase.running >= 0
            assert 0 <= phase.files_total <= work.files
            assert 0 <= phase.bytes_total <= work.bytes
            if phase.finished_seconds is not None:
                assert phase.done == phase.tasks
                assert phase.started_seconds <= phase.finished_seconds <= self.clock

    def check_counts(self):
        """What holds once a message has been dealt with."""
        tally, snapshot = self.tally, self.tally.snapshot(self.clock)
        assert (tally.attempts, tally.retries, snapshot.retries) == (self.attempts, self.retries, self.retries)
        assert (snapshot.workers, snapshot.workers_lost) == (self.workers - self.lost, self.lost)
        assert tally.succeeded == self.done.total()
        assert tally.bytes_read == self.bytes_read
        for phase in snapshot.phases:
            running = [task for task in self.running if task.phase == phase.phase]
            assert phase.running == len(running)
            ended = sum(times for task, times in self.done.items() if task.phase == phase.phase)
            assert phase.bytes_read == BYTES * ended + sum(self.running[task] for task in running)


@settings(max_examples=300)
@given(st.integers(1, 60), st.integers(1, 2), st.integers(1, 3), st.integers(0, 2**32))
def test_what_is_counted_from_events_is_what_happened(files, exponent, tiles, seed):
    run = DrawnRun(files, exponent, tiles, seed)
    run.run()
    snapshot = run.tally.snapshot(run.clock)
    assert snapshot.finished
    assert all(phase.done == phase.tasks and phase.running == 0 for phase in snapshot.phases)
    last = snapshot.phases[-1]
    assert last.finished_seconds is not None
    # Every task that was needed and is not reused was done, and what an earlier run had stored was not read for.
    for phase in snapshot.phases:
        tasks = {task for task in run.done if task.phase == phase.phase}
        assert phase.tasks - phase.reused <= len(tasks) <= phase.tasks
    assert run.tally.phase_seconds()[-1] <= run.clock
    assert run.tally.accounts.seconds(run.clock)["starting"] == 0.5 * run.workers


def test_a_worker_that_is_gone_is_lost_once_whoever_tells_it_and_one_that_left_is_not():
    work = (PhaseWork(1, 1, BYTES),)
    tally = JobTally(work, lambda index: b"%d.npy" % index)
    joins = [WorkerJoined(name, "h", 1, "v", 1, 0, 0.0) for name in ("w1", "w2")]
    lost = [WorkerLost("w1", "no heartbeat for 23 s"), WorkerLost("w1", "is gone from the broker")]
    for event in (*joins, *lost, WorkerLost("w2", LEFT)):
        tally.take(event, 1.0)
    assert (tally.workers_lost, tally.snapshot(1.0).workers) == (1, 0)
    for event in (joins[0], *lost):
        tally.take(event, 2.0)
    assert tally.workers_lost == 2
    assert tally.snapshot(2.0).notes_total == 2


def test_what_was_stored_when_a_worker_came_is_told_from_what_was_stored_before_the_run():
    tally = JobTally((PhaseWork(4, 4, 4 * BYTES),), lambda index: b"%d.npy" % index)
    tasks = [TaskId("job", 1, 0, index) for index in range(4)]
    effort = Effort(0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0)
    tally.take(JobStarted("job", "mean", 4, (4,), (2,)), 0.0)
    for number, task, reused in ((1, tasks[2], True), (2, tasks[3], False)):
        tally.take(TaskStarted("w", task, 1, number), 1.0)
        tally.take(TaskSucceeded("w", task, 1, (), reused, b"", effort, number), 2.0)
    (phase,) = tally.snapshot(3.0).phases
    assert (phase.done, phase.reused, phase.found) == (4, 3, 1)
    tally.take(NodeReopened(tasks[2], stored=True), 3.0)
    (phase,) = tally.snapshot(3.0).phases
    assert (phase.done, phase.reused, phase.found) == (3, 3, 1)
