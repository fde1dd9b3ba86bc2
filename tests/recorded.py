"""A job's history to look at: the real actors, with modelled workers of which some are slow, die or fail."""

from __future__ import annotations

import io
import random
from functools import cache

import msgspec

from distsum.actors.modelled_broker import BrokerModel
from distsum.actors.modelled_worker import WorkerModel
from distsum.actors.simulated_cluster import SimulatedCluster, simulated_job
from distsum.messages import Heartbeat, TaskSucceeded
from distsum.observe.history import HistoryHeader, HistoryWriter
from distsum.observe.snapshot import BackupRule, PhaseWork
from distsum.tree import Tree

FILE_BYTES = 160_000_000
BEGAN_SECONDS = 1_767_269_000.0


class Stored:
    """A reader of bytes."""

    uri = b"/scratch/history"

    def __init__(self, content):
        self.content = content
        self.size = len(content)

    def read(self, offset, size):
        return self.content[offset : offset + size]


@cache
def recorded(files=4000, workers=16, exponent=1, output="s3://lab/run42/mean.npy", *, tree_told=False):
    """Return the bytes of a history, the same every time; ``tree_told`` says whether it holds how the tree is built."""
    draw = random.Random(7)
    tree = Tree(files=files, fan_in=5, exponent=exponent)
    read = [files, *(tree.partials_read(phase) for phase in range(2, tree.phases + 1))]
    work = [PhaseWork(tree.tasks(phase), count, count * FILE_BYTES) for phase, count in enumerate(read, start=1)]
    header = HistoryHeader(
        job="7f3a", reduction="mean", files=files, output=output, work=tuple(work), began_seconds=BEGAN_SECONDS
    )
    if tree_told:
        inputs = ("s3://lab/run42/0000.npy", f"s3://lab/run42/{files - 1:04}.npy")
        header = msgspec.structs.replace(
            header,
            fan_in=5,
            exponent=exponent,
            count=20_000_000,
            dtype="<f8",
            inputs=inputs,
            speculation=True,
            rule=BackupRule(policy="guarded", quantile=0.75, multiplier=1.2, slow=2.0),
        )
    file = io.BytesIO()
    writer = HistoryWriter(file, header)
    cluster = SimulatedCluster(
        draw,
        broker=BrokerModel(embedded=False, delay_seconds=(0.001, 0.003), notice_seconds=(5.0, 8.0)),
        work_seconds=lambda _task, children: children * 0.2 * (0.9 + 0.2 * draw.random()),
        checking=False,
    )
    system = cluster.system
    began = system.clock

    def take(event):
        if isinstance(event, TaskSucceeded) and event.child is None:
            children = tree.children(event.task.phase, event.task.index)
            size = (children[1] - children[0]) * FILE_BYTES
            effort = msgspec.structs.replace(event.effort, bytes_read=size, bytes_written=FILE_BYTES // 5)
            event = msgspec.structs.replace(event, effort=effort)
        elif isinstance(event, Heartbeat) and event.task is not None:
            event = msgspec.structs.replace(event, bytes_read=int(event.progress * 5 * FILE_BYTES))
        writer.take(event, system.clock - began)

    system.on_event = take
    speeds = {3: 0.06, 7: 0.4}
    for number in range(workers):
        failures = 0.05 if number == 5 else 0.0
        # They store what is on its way so seldom that a backup races late, which tests of screens look at.
        model = WorkerModel(f"h{number // 4}", speed=speeds.get(number, 1.0), failures=failures, checkpoint_seconds=8.0)
        cluster.add_worker(model)
    system.advance(2.0)
    cluster.submit(simulated_job("7f3a", files, exponent=exponent, sliced=False))
    victim = list(cluster.workers.values())[min(9, workers - 1)]
    system.at(system.clock + 20.0, victim.vanish)
    assert cluster.run(1e5), "the job stands still"
    writer.finish()
    return file.getvalue()
