"""What the ledger tells of backups, held against what the workers of a simulated cluster have in truth done."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from distsum.actors.modelled_broker import BrokerModel
from distsum.actors.modelled_worker import BYTES_PER_SECOND, WorkerModel
from distsum.actors.simulated_cluster import SimulatedCluster, simulated_job
from distsum.messages import BackupEnded
from distsum.observe.ledger import Ledger

if TYPE_CHECKING:
    import msgspec


class Told:
    """A job on 20 workers, of whom four are slow (or only at first), and what was told of its stragglers.

    Attributes:
        ledger: As the job's screen and history have it.
        ended: Backups that are over, as the tracker has told it.
        wasted_bytes: What was read and is in no node, by the workers themselves.
    """

    def __init__(self, seed: int, exponent: int, *, recover: bool = False) -> None:
        draw = random.Random(seed)
        cluster = SimulatedCluster(
            draw,
            broker=BrokerModel(embedded=False, delay_seconds=(0.001, 0.003)),
            # The same for each attempt, so that a child takes a helper what it spares another.
            work_seconds=lambda task, children: children * (0.1 + 0.2 * random.Random(repr(task)).random()),
        )
        self.ledger = Ledger()
        self.ended: list[BackupEnded] = []
        cluster.system.on_event = self._take
        for number in range(20):
            cluster.add_worker(WorkerModel(f"h{number // 4}", speed=0.1 if number < 4 else 1.0, object_seconds=0.0))
        cluster.system.advance(3.0)
        for worker in [*cluster.workers.values()][:4] if recover else ():
            cluster.system.after(draw.uniform(25.0, 40.0), worker.set_speed, 5.0)
        cluster.submit(simulated_job("job", 2000, exponent=exponent))
        assert cluster.run(10_000.0)
        cluster.system.advance(120.0)  # until all that was called back has stopped
        workers = cluster.workers.values()
        wasted_seconds = sum(worker.worked_seconds - worker.committed_seconds for worker in workers)
        self.wasted_bytes = wasted_seconds * BYTES_PER_SECOND

    def _take(self, event: msgspec.Struct) -> None:
        self.ledger.take(event, 0.0)
        if isinstance(event, BackupEnded):
            self.ended.append(event)


@pytest.mark.parametrize("exponent", [1, 2, 3])
def test_what_was_read_in_vain_is_what_workers_have_read_and_no_node_holds(exponent: int) -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(12):
        told = Told(seed, exponent)
        totals = told.ledger.totals()
        assert totals.started, "nothing was copied"
        assert totals.wasted_bytes == pytest.approx(told.wasted_bytes, rel=1e-6, abs=1000 * totals.started)
        outcomes.update(event.outcome for event in told.ended)
    assert outcomes["won"] or outcomes["helped"]


def test_a_task_has_one_winner_at_most_and_what_it_saved_is_told_once() -> None:
    helped = 0
    for seed in range(20):
        told = Told(seed, 3, recover=True)
        winners = Counter(event.task for event in told.ended if event.outcome == "won")
        savers = Counter(event.task for event in told.ended if event.saved_seconds != 0.0)
        assert max([*winners.values(), *savers.values()], default=0) <= 1
        for event in told.ended:
            assert event.saved_seconds == 0.0 or event.outcome in {"won", "helped"}
        helped += sum(event.outcome == "helped" for event in told.ended)
    assert helped, "no attempt took what was made for a copy, so that this says little"
