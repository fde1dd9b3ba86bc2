"""Workers that idle after a straggler's node was shared: what they are worth, in simulated clusters."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from distsum.actors.modelled_broker import BrokerModel
from distsum.actors.modelled_store import Covered
from distsum.actors.modelled_worker import WorkerModel
from distsum.actors.simulated_cluster import SimulatedCluster, simulated_job
from distsum.actors.task_tracker import TaskTracker
from distsum.messages import HelperAdded, HelperDeclined
from distsum.observe.ledger import HelperEntry, Ledger
from tests.simulation.invariants import Invariants

if TYPE_CHECKING:
    import msgspec

SEEDS = range(12)


class AddsNoHelpers(TaskTracker):
    """Only workers that idle when a copy begins share in it."""

    def _add_helper(self, decision: Any) -> None:
        """Do nothing."""


class Job:
    """A job of long tasks on four workers, of whom one is ten times as slow; its makespan, and who joined later."""

    def __init__(self, seed: int, files: int, exponent: int, tracker: type = TaskTracker) -> None:
        scale = 5.0 if exponent == 1 else 1.0  # shorter tasks are not shared
        cluster = SimulatedCluster(
            random.Random(seed),
            broker=BrokerModel(embedded=False, delay_seconds=(0.001, 0.003)),
            # The same for each attempt at a task, and in both clusters that are compared.
            work_seconds=lambda task, children: (
                scale * children * (0.18 + 0.04 * random.Random(repr((seed, task))).random())
            ),
            replacements={TaskTracker: tracker},
        )
        self._invariants = Invariants(cluster)
        self.joined = self.declined = 0
        self.ledger = Ledger()
        cluster.system.on_event = self._take
        for number in range(4):
            cluster.add_worker(WorkerModel(f"h{number}", speed=1.0 if number else 0.1))
        cluster.system.advance(3.0)
        began = cluster.system.clock
        cluster.submit(simulated_job("job", files, exponent=exponent))
        assert cluster.run(10_000.0)
        self._invariants.check_end()
        assert cluster.store.results["job"] == {0: Covered(0, files)}
        self.makespan = cluster.system.clock - began

    def _take(self, event: msgspec.Struct) -> None:
        self._invariants.take_event(event)
        self.ledger.take(event, 0.0)
        self.joined += isinstance(event, HelperAdded)
        self.declined += isinstance(event, HelperDeclined)


@pytest.mark.parametrize(("files", "exponent", "most"), [(20, 1, 0.9), (100, 2, 0.87), (500, 3, 0.85)])
def test_who_idles_later_shortens_what_is_left_of_a_stragglers_node(files: int, exponent: int, most: float) -> None:
    joining = [Job(seed, files, exponent) for seed in SEEDS]
    alone = [Job(seed, files, exponent, AddsNoHelpers) for seed in SEEDS]
    assert sum(job.makespan for job in joining) <= most * sum(job.makespan for job in alone)
    for with_them, without in zip(joining, alone, strict=True):
        assert with_them.makespan <= 1.02 * without.makespan
        told = [entry.declined for entry in with_them.ledger.entries if isinstance(entry, HelperEntry)]
        assert (told.count(False), told.count(True)) == (with_them.joined, with_them.declined)
    assert sum(job.joined for job in joining) >= len(SEEDS)
    assert 0 < sum(job.declined for job in joining) <= sum(job.ledger.totals().started for job in joining)
