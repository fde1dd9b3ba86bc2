"""What speculation is to reach, in the simulated clusters of the benchmark: the same numbers come out every time."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from benchmarks.stragglers import (
    CLUSTERS,
    PAPERS_WORKERS,
    PARTITIONS,
    Cell,
    Outcome,
    bound_seconds,
    killed,
    simulate,
    throughput_lost,
)

if TYPE_CHECKING:
    from distsum.actors.speculation import PolicyName

WORKERS = 100
NEVER_SLOWER = [
    (cluster, partition, workers) for cluster in CLUSTERS for partition in PARTITIONS for workers in (WORKERS, 8)
]


@cache
def run(cluster: str, partition: int, policy: PolicyName, workers: int = WORKERS, seed: int = 1) -> Outcome:
    return simulate(Cell(cluster, workers, partition, policy, seed))


@pytest.mark.parametrize("partition", PARTITIONS)
def test_a_host_that_is_ten_times_as_slow_costs_a_seventh_at_most_and_a_twentieth_of_the_work(partition: int) -> None:
    healthy = run("equal", partition, "none")
    slow = run("one host 10x slow", partition, "guarded")
    assert slow.makespan <= 1.15 * healthy.makespan
    assert slow.wasted <= 0.05


@pytest.mark.parametrize(("cluster", "partition", "workers"), NEVER_SLOWER)
def test_speculation_is_never_slower_than_none(cluster: str, partition: int, workers: int) -> None:
    seeds = range(1, 2 if workers == WORKERS else 5)
    for seed in seeds:
        none = run(cluster, partition, "none", workers, seed)
        assert run(cluster, partition, "guarded", workers, seed).makespan <= 1.02 * none.makespan


@pytest.mark.parametrize("cluster", ["5 % freeze 60 s", "5 % die"])
def test_a_copy_for_a_worker_that_has_just_vanished_holds_nobody_up(cluster: str) -> None:
    seed = 65  # of the first hundred the one where the copy of the last task goes there
    none = run(cluster, 25, "none", 8, seed)
    assert run(cluster, 25, "guarded", 8, seed).makespan <= 1.02 * none.makespan


@pytest.mark.parametrize("seed", [24, 49, 99])
def test_the_first_look_takes_no_node_for_slow_that_is_larger_than_the_last_one_of_its_phase(seed: int) -> None:
    # In these the copy was a false alarm, and took the worker that a killed worker's task then waited for.
    none = run("11 % killed", 125, "none", 8, seed)
    assert run("11 % killed", 125, "guarded", 8, seed).makespan <= 1.02 * none.makespan


@pytest.mark.parametrize("partition", PARTITIONS)
def test_a_ninth_of_the_workers_killed_in_mid_job_costs_a_tenth_at_most(partition: int) -> None:
    healthy = run("equal", partition, "none").makespan
    assert run("11 % killed", partition, "guarded").makespan <= 1.10 * healthy


@pytest.mark.parametrize("partition", [25, 125])  # with P = 5 there are 35,000 tasks, which takes long
def test_the_papers_200_of_1746_workers_killed_cost_a_tenth_at_most(partition: int) -> None:
    assert killed(PAPERS_WORKERS) == 200
    healthy = run("equal", partition, "none", PAPERS_WORKERS).makespan
    assert run("11 % killed", partition, "guarded", PAPERS_WORKERS).makespan <= 1.10 * healthy


@pytest.mark.parametrize("cluster", ["11 % killed", "11 % gone"])
def test_no_job_is_told_to_be_faster_than_its_work_allows(cluster: str) -> None:
    for partition in PARTITIONS:
        cell = Cell(cluster, WORKERS, partition, "guarded")
        healthy, bound = run("equal", partition, "none").makespan, bound_seconds(cell)
        lost = throughput_lost(cell, healthy)
        assert bound is not None
        assert lost is not None
        assert bound <= run(cluster, partition, "guarded").makespan
        assert 1.0 < lost < 1.10


def test_where_nothing_is_wrong_nothing_is_lost_by_looking() -> None:
    for partition in PARTITIONS:
        assert run("equal", partition, "guarded").wasted <= run("equal", partition, "none").wasted + 0.005
