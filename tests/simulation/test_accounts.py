"""What is told of workers' time, held against how long the workers of a simulated cluster have lived."""

from __future__ import annotations

import random

import pytest

from distsum.actors.modelled_broker import BrokerModel
from distsum.actors.modelled_worker import WorkerModel
from distsum.actors.simulated_cluster import SimulatedCluster, simulated_job
from distsum.observe.accounts import WorkerAccounts

HEARTBEAT_SECONDS = WorkerModel("").heartbeat_seconds


@pytest.mark.parametrize("notice_seconds", [(15.0, 16.0), (40.0, 50.0)], ids=["by the broker", "by its lease"])
@pytest.mark.parametrize("files", [10, 500], ids=["idle", "busy"])
def test_the_time_of_a_worker_that_vanishes_with_its_host_ends_when_it_does(files, notice_seconds) -> None:
    cluster = SimulatedCluster(
        random.Random(1),
        broker=BrokerModel(embedded=False, delay_seconds=(0.001, 0.003), notice_seconds=notice_seconds),
        work_seconds=lambda _task, children: 20.0 * children,
    )
    accounts = WorkerAccounts()
    system = cluster.system
    system.on_event = lambda event: accounts.take(event, system.clock)
    for number in range(3):
        cluster.add_worker(WorkerModel(f"h{number}", start_seconds=0.5))
    system.advance(3.0)
    cluster.submit(simulated_job("job", files, exponent=1))
    system.advance(17.0)
    gone = next(each for each in cluster.living() if (each._attempt is None) == (files == 10))
    gone.vanish()
    lived = system.clock - 0.5
    system.advance(100.0)
    (told,) = [each.seconds for each in accounts.accounts(system.clock) if each.worker == gone.name]
    present = sum(told.values()) - told["starting"]
    assert lived - HEARTBEAT_SECONDS - 0.1 <= present <= lived
    assert told["discarded"] > 0 if files > 10 else told["waiting"] == present
