"""What each speculation policy costs and saves, simulated: makespan and wasted work in clusters with something wrong.

Everything is drawn from a seed: the same numbers come out again. With eight workers each cell has a hundred seeds, and
with more of them one. With 10,000 there are fewer files a worker, and all of it takes long: an hour on two cores.
"""

from __future__ import annotations

import gc
import os
import random
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import msgspec

from benchmarks.measure import report
from benchmarks.plot import Mark, Panel, Scale, dots
from distsum.actors.modelled_broker import BrokerModel
from distsum.actors.modelled_worker import WorkerModel
from distsum.actors.simulated_cluster import SimulatedCluster, simulated_job
from distsum.actors.speculation import PolicyName, SpeculationSettings, default_settings
from distsum.actors.task_tracker import TrackerSettings
from distsum.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distsum.messages import TaskId

CLUSTERS = (
    "equal",
    "one host 10x slow",
    "5 % slow 3x",
    "Pareto tasks",
    "5 % freeze 60 s",
    "5 % die",
    "11 % killed",
    "11 % gone",
)
POLICIES: tuple[PolicyName, ...] = ("none", "guarded", "bare", "spark", "late", "mapreduce")
PARTITIONS = {5: 1, 25: 2, 125: 3}
_SIZES = (8, 100, 1_000, 10_000)
_SEEDS = {8: range(1, 101)}
"""Of cells that have more than one."""
_FILE_SECONDS = 0.2
PAPERS_WORKERS = 1_746
_PAPERS_KILLED = 200
_KILLED_SHARE = 0.11
"""Dean and Ghemawat, "MapReduce", OSDI 2004, section 5.5: of 1,746 worker processes 200 were killed some minutes into a
sort of a quarter of an hour, and new ones started at once on the same machines. That took 5 % longer."""
_RESTART_SECONDS = 1.0
"""After which a host starts a killed process anew, as ``worker.slots`` does."""
_AWAY_SECONDS = _RESTART_SECONDS + WorkerModel("").start_seconds
"""For which it is away: starting takes a moment, too."""
_HOST_WORKERS = 4
_IMAGES = Path(__file__).parents[1] / "docs" / "images"
_PICTURES = {100: _IMAGES / "stragglers.svg", 1_000: _IMAGES / "stragglers-1000.svg"}
_MARKS = {
    Mark("none", "square", "#8c959f"): "none",
    Mark("bare rule", "ring", "#d55e00"): "bare",
    Mark("Spark", "triangle", "#009e73"): "spark",
    Mark("LATE", "diamond", "#cc79a7"): "late",
    Mark("MapReduce", "cross", "#56b4e9"): "mapreduce",
    Mark("default", "dot", "#0072b2"): "guarded",
}
"""How each policy is drawn; the last lies above the others."""


class Cell(msgspec.Struct, frozen=True):
    """One run; ``killed_at`` is the share of the time in which the files can be read after which workers are killed."""

    cluster: str
    workers: int
    partition: int
    policy: PolicyName
    seed: int = 1
    killed_at: float = 0.5


class Outcome(msgspec.Struct, frozen=True):
    """What came of it: virtual seconds, and the share of all work that was in vain."""

    makespan: float
    wasted: float


def simulate(cell: Cell, settings: SpeculationSettings | None = None) -> Outcome:
    """Run one cell."""
    draw = random.Random(cell.seed)
    speculation = settings or default_settings(cell.policy)

    cluster = SimulatedCluster(
        draw,
        broker=BrokerModel(embedded=False, delay_seconds=(0.001, 0.003), notice_seconds=(20.0, 30.0)),
        tracker=TrackerSettings(speculation=speculation),
        work_seconds=_Durations(cell),
        checking=False,
    )
    hosts = _HOST_WORKERS if cell.workers >= 100 else 1
    names = [f"h{number // hosts}" for number in range(cell.workers)]
    slow = _slow_hosts(cell, names, draw)
    for name in names:
        cluster.add_worker(WorkerModel(name, speed=slow.get(name, 1.0)))
    system = cluster.system
    system.advance(3.0)  # all have joined
    began = system.clock
    _plan_faults(cell, cluster, names, draw, expected_seconds(cell))
    cluster.submit(simulated_job("job", files_of(cell), exponent=PARTITIONS[cell.partition]))
    gc.disable()
    ended = cluster.run(1e6)
    gc.enable()
    assert ended, f"{cell} stands still"
    for worker in cluster.workers.values():
        worker.crash()  # so that what runs in vain still is counted
    worked = sum(worker.worked_seconds for worker in cluster.workers.values())
    needed = sum(worker.committed_seconds for worker in cluster.workers.values())
    return Outcome(system.clock - began, max(0.0, 1.0 - needed / worked))


class _Durations:
    """What each attempt takes: drawn from the seed, the task, and how many attempts at it there were.

    So first attempts take the same in all cells of a seed, whatever is done about stragglers, and runs can be compared.
    """

    def __init__(self, cell: Cell) -> None:
        self._seed = cell.seed
        self._pareto = cell.cluster == "Pareto tasks"
        self._attempts: Counter[TaskId] = Counter()

    def __call__(self, task: TaskId, children: int) -> float:
        """Return the seconds of one more attempt at a task, by a worker of speed 1."""
        number = self._attempts[task]
        self._attempts[task] += 1
        draw = random.Random(((self._seed * 16 + task.phase) * 10**9 + task.index) * 10**4 + number)
        if self._pareto:
            # Shape 1.5 has a finite mean and an infinite variance; scaled so that the mean is that of the others.
            return children * _FILE_SECONDS * draw.paretovariate(1.5) / 3.0
        return children * _FILE_SECONDS * (0.9 + 0.2 * draw.random())


def _slow_hosts(cell: Cell, names: list[str], draw: random.Random) -> dict[str, float]:
    hosts = sorted(set(names))
    if cell.cluster == "one host 10x slow":
        return {hosts[0]: 0.1}
    if cell.cluster == "5 % slow 3x":
        return dict.fromkeys(draw.sample(hosts, max(1, len(hosts) // 20)), 1 / 3)
    return {}


def _plan_faults(cell: Cell, cluster: SimulatedCluster, names: list[str], draw: random.Random, expected: float) -> None:
    system = cluster.system
    hosts = sorted(set(names))
    if cell.cluster in {"5 % freeze 60 s", "5 % die"}:
        chosen = draw.sample(hosts, max(1, len(hosts) // 20))
        moments = {host: system.clock + draw.uniform(0.1, 0.9) * expected for host in chosen}
        for worker in list(cluster.workers.values()):
            if (moment := moments.get(worker.model.host)) is None:
                continue
            if cell.cluster == "5 % die":
                system.at(moment, worker.vanish)
            else:
                system.at(moment, worker.freeze)
                system.at(moment + 60.0, worker.thaw)
    if cell.cluster in {"11 % killed", "11 % gone"}:
        moment = system.clock + cell.killed_at * expected
        for worker in draw.sample(list(cluster.workers.values()), killed(cell.workers)):
            system.at(moment, worker.crash)
            if cell.cluster == "11 % killed":
                system.at(moment + _RESTART_SECONDS, cluster.add_worker, worker.model)


def killed(workers: int) -> int:
    """Return how many of them are killed."""
    if workers == PAPERS_WORKERS:
        return _PAPERS_KILLED
    return max(1, round(_KILLED_SHARE * workers))


def bound_seconds(cell: Cell) -> float | None:
    """Return the makespan that no scheduler can beat where workers are killed; None where none are.

    It has all of the work done without an idle moment by the workers that are there, and nothing of it lost.
    """
    tree = Tree(files=files_of(cell), fan_in=5, exponent=PARTITIONS[cell.partition])
    children = files_of(cell) + sum(tree.width(phase) for phase in range(1, tree.phases))
    work, count = children * _FILE_SECONDS, killed(cell.workers)
    match cell.cluster:
        case "11 % killed":
            return (work + count * _AWAY_SECONDS) / cell.workers
        case "11 % gone":
            struck = cell.killed_at * expected_seconds(cell)
            return struck + (work - struck * cell.workers) / (cell.workers - count)
    return None


def throughput_lost(cell: Cell, healthy_seconds: float) -> float | None:
    """Return what the time without the killed workers costs a cluster that is busy to its end, as a multiple of that.

    None where nobody is killed. Where workers idle anyway, in the end of each phase, it costs less.
    """
    share, left = killed(cell.workers) / cell.workers, healthy_seconds - cell.killed_at * expected_seconds(cell)
    match cell.cluster:
        case "11 % killed":
            return 1.0 + share * min(_AWAY_SECONDS, left) / healthy_seconds
        case "11 % gone":
            return 1.0 + share / (1.0 - share) * left / healthy_seconds
    return None


def expected_seconds(cell: Cell) -> float:
    """Return what reading the files takes if nothing is wrong, and a fourth for the sums."""
    return files_of(cell) * 1.25 * _FILE_SECONDS / cell.workers


def files_of(cell: Cell) -> int:
    """Return how many files there are."""
    return cell.workers * (100 if cell.workers < 10_000 else 20)


def main() -> None:
    """Run all cells, the smallest clusters first; print a table for each size, and then one of all."""
    rows: list[dict[str, object]] = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for workers in _SIZES:
            cells = [Cell(*each) for each in product(CLUSTERS, [workers], PARTITIONS, POLICIES, seeds_of(workers))]
            found = dict(zip(cells, pool.map(simulate, cells, chunksize=len(seeds_of(workers))), strict=True))
            added = [row_of(found, workers, partition, cluster) for partition, cluster in product(PARTITIONS, CLUSTERS)]
            report(f"stragglers_{workers}", added)
            report(f"stragglers_{workers}_slower", slower_rows(found))
            rows += added
            if (drawing := _PICTURES.get(workers)) is not None:
                drawing.write_text(picture(found, workers), encoding="utf-8")
                print(f"drawn in {drawing}", flush=True)
    report("stragglers", rows)


def seeds_of(workers: int) -> range:
    """Return the seeds of each cell with so many workers."""
    return _SEEDS.get(workers, range(1, 2))


def row_of(found: Mapping[Cell, Outcome], workers: int, partition: int, cluster: str) -> dict[str, object]:
    """Return a row of the table: the means over all seeds, each as a multiple of the healthy cluster's of that seed."""
    seeds = seeds_of(workers)
    healthy = {seed: found[Cell("equal", workers, partition, "none", seed)].makespan for seed in seeds}
    usual = mean(healthy.values())
    row: dict[str, object] = {"workers": workers, "P": partition, "cluster": cluster, "healthy": f"{usual:.1f} s"}
    for policy in POLICIES:
        outcomes = {seed: found[Cell(cluster, workers, partition, policy, seed)] for seed in seeds}
        lasted = mean(each.makespan / healthy[seed] for seed, each in outcomes.items())
        wasted = mean(each.wasted for each in outcomes.values())
        row[policy] = f"{lasted:.2f} ({100 * wasted:.1f} %)"
    cell = Cell(cluster, workers, partition, "none")
    bound, busy = bound_seconds(cell), throughput_lost(cell, usual)
    row["no scheduler below"] = "" if bound is None else f"{bound / usual:.2f}"
    row["throughput alone"] = "" if busy is None else f"{busy:.3f}"
    return row


def slower_rows(found: Mapping[Cell, Outcome]) -> list[dict[str, object]]:
    """Return for each policy how many runs took longer than without speculation: at all, and by more than 2 %."""
    rows: list[dict[str, object]] = []
    for policy in POLICIES[1:]:
        ratios = [
            outcome.makespan / found[msgspec.structs.replace(cell, policy="none")].makespan
            for cell, outcome in found.items()
            if cell.policy == policy
        ]
        row: dict[str, object] = {"policy": policy, "runs": len(ratios), "slower": sum(each > 1.0 for each in ratios)}
        rows.append(row | {"by over 2 %": sum(each > 1.02 for each in ratios), "the worst": f"{max(ratios):.3f}"})
    return rows


def picture(found: Mapping[Cell, Outcome], workers: int) -> str:
    """Return a plot of what each policy costs with so many workers."""
    names = {mark.name: policy for mark, policy in _MARKS.items()}
    lasting, wasting = [], []
    for partition in PARTITIONS:
        healthy = found[Cell("equal", workers, partition, "none")].makespan
        cells = {
            (cluster, name): found[Cell(cluster, workers, partition, policy)]
            for cluster, (name, policy) in product(CLUSTERS, names.items())
        }
        title = f"P = {partition}"
        lasting.append(Panel(title, {key: outcome.makespan / healthy for key, outcome in cells.items()}))
        wasting.append(Panel(title, {key: 100 * outcome.wasted for key, outcome in cells.items()}))
    times = Scale(
        "makespan, times that of a healthy cluster", 0.6, 8.0, {each: f"{each:g}" for each in (1, 1.5, 2, 4, 8)}, True
    )
    shares = Scale("work in vain, % of all", 0.0, 40.0, {each: f"{each:g}" for each in (0, 5, 10, 20, 40)})
    title = f"What policies cost, {workers:,} simulated workers"
    return dots(title, [*_MARKS], CLUSTERS, [(times, lasting), (shares, wasting)])
