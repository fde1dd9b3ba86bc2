"""What a ninth of the workers killed in mid-job costs, simulated: the MapReduce paper's experiment, in several sizes.

All first tasks begin at the same moment, so that what is lost depends on when workers are killed: a second table is of
thirteen such moments.

Everything is drawn from seeds, of which each cell has several. It takes a quarter of an hour on two cores.
"""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ProcessPoolExecutor
from statistics import mean
from typing import TYPE_CHECKING, Final

import msgspec

from benchmarks.measure import report
from benchmarks.stragglers import PAPERS_WORKERS, PARTITIONS, Cell, bound_seconds, simulate, throughput_lost

if TYPE_CHECKING:
    from collections.abc import Mapping

_CLUSTERS: Final = ("11 % killed", "11 % gone")
_SEEDS: Final = {8: range(1, 101), 100: range(1, 13), PAPERS_WORKERS: range(1, 7)}
_MOST: Final = 1.10
_MOMENTS: Final = tuple(twentieth / 20 for twentieth in range(4, 17))
_SEEDS_AT_MOMENTS: Final = {8: range(1, 21), 100: range(1, 4)}


def main() -> None:
    """Run all cells, and print a row for each cluster, number of workers and partition."""
    shapes = [*itertools.product(_CLUSTERS, _SEEDS, PARTITIONS)]
    cells = [Cell(*shape, "guarded", seed) for shape in shapes for seed in _SEEDS[shape[1]]]
    at_moments = {
        shape: [
            Cell("11 % killed", *shape, "guarded", *each)
            for each in itertools.product(_SEEDS_AT_MOMENTS[shape[0]], _MOMENTS)
        ]
        for shape in itertools.product(_SEEDS_AT_MOMENTS, PARTITIONS)
    }
    cells += itertools.chain.from_iterable(at_moments.values())
    runs = list(dict.fromkeys([*cells, *map(_healthy, cells)]))
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        outcomes = pool.map(simulate, runs, chunksize=5)
        took = {cell: outcome.makespan for cell, outcome in zip(runs, outcomes, strict=True)}
    report("stragglers_killed", [_row(*shape, took) for shape in shapes])
    report("stragglers_killed_at", [_row_at(*shape, found, took) for shape, found in at_moments.items()])


def _healthy(cell: Cell) -> Cell:
    return msgspec.structs.replace(cell, cluster="equal", policy="none", killed_at=0.5)


def _row_at(workers: int, partition: int, cells: list[Cell], took: Mapping[Cell, float]) -> dict[str, object]:
    times = [took[cell] / took[_healthy(cell)] for cell in cells]
    return {
        "workers": workers,
        "P": partition,
        "mean": f"{mean(times):.3f}",
        "worst": f"{max(times):.2f}",
        f"over {_MOST:.2f}": f"{sum(each > _MOST for each in times)} of {len(times)}",
    }


def _row(cluster: str, workers: int, partition: int, took: Mapping[Cell, float]) -> dict[str, object]:
    cells = [Cell(cluster, workers, partition, "guarded", seed) for seed in _SEEDS[workers]]
    times = [took[cell] / took[_healthy(cell)] for cell in cells]
    alone = mean(throughput_lost(cell, took[_healthy(cell)]) or 1.0 for cell in cells)
    bound = mean((bound_seconds(cell) or 0.0) / took[_healthy(cell)] for cell in cells)
    return {
        "cluster": cluster,
        "workers": workers,
        "P": partition,
        "healthy": f"{mean(took[_healthy(cell)] for cell in cells):.1f} s",
        "mean": f"{mean(times):.2f}",
        "worst": f"{max(times):.2f}",
        f"over {_MOST:.2f}": f"{sum(each > _MOST for each in times)} of {len(times)}",
        "throughput alone": f"{alone:.2f}",
        "no scheduler below": f"{bound:.2f}",
    }
