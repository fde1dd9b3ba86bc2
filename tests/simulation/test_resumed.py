"""An attempt that starts from what another had stored is as healthy as one that does not."""

from __future__ import annotations

import random

import pytest

from distsum.actors.modelled_broker import BrokerModel
from distsum.actors.modelled_worker import WorkerModel
from distsum.actors.simulated_cluster import SimulatedCluster, simulated_job
from distsum.messages import BackupStarted, TaskStarted


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("files", "exponent", "seconds"), [(500, 4, 70.0), (1000, 5, 150.0)])
def test_a_task_that_begins_from_stored_children_is_not_taken_for_a_straggler(files, exponent, seconds, seed):
    events = []
    cluster = SimulatedCluster(
        random.Random(seed),
        broker=BrokerModel(embedded=False, delay_seconds=(0.001, 0.003)),
        work_seconds=lambda _, children: 0.2 * children,
    )
    cluster.system.on_event = events.append
    for host in range(3):
        cluster.add_worker(WorkerModel(f"h{host}"))
    cluster.system.advance(3.0)
    # From it the tracker knows how fast workers read.
    cluster.submit(simulated_job("earlier", 100, exponent=1))
    cluster.run(1e4)
    cluster.submit(simulated_job("long", files, exponent=exponent))
    cluster.system.advance(seconds)
    next(worker for worker in cluster.living() if worker._attempt is not None).crash()
    began = len(events)
    cluster.run(1e4)
    later = events[began:]
    (again,) = [event for event in later if isinstance(event, TaskStarted) and event.delivery > 1]
    assert again.task.job == "long"
    assert cluster.store.partials, "it was done"
    assert not [event for event in later if isinstance(event, BackupStarted)]


@pytest.mark.parametrize("speed", [0.5, 1.0])
@pytest.mark.parametrize(("exponent", "most"), [(1, 20.0), (3, 3.0 + 2 * 0.8)])
def test_of_a_killed_workers_task_only_the_last_seconds_are_done_again(exponent, most, speed):
    cluster = SimulatedCluster(
        random.Random(1),
        broker=BrokerModel(embedded=False, delay_seconds=(0.001, 0.003)),
        # Five files of 20 s, or 125 of 0.8 s.
        work_seconds=lambda _, children: 100.0,
    )
    cluster.add_worker(WorkerModel("h0", speed=speed))
    cluster.submit(simulated_job("long", 5**exponent, exponent=exponent))
    for seconds in (30.0, 31.0, 27.5):
        cluster.system.advance(seconds)
        (worker,) = cluster.living()
        worker.crash()
        cluster.add_worker(WorkerModel("h0", speed=speed))
    assert cluster.run(1e4)
    worked = sum(worker.worked_seconds for worker in cluster.workers.values())
    assert 100.0 < worked <= 100.0 + 3 * (most + 0.01)
