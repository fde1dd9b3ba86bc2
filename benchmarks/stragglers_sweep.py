"""How much each setting of speculation matters, simulated: makespan and work in vain, each changed alone.

Everything is drawn from seeds, of which each cell has several: one alone says little where tasks are few. Three tables:
the settings, the partitions as they take in all, and 8 workers. It takes some minutes on two cores.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from statistics import mean
from typing import TYPE_CHECKING, Any, Final

import msgspec

from benchmarks.measure import report
from benchmarks.stragglers import CLUSTERS, PARTITIONS, Cell, Outcome, simulate
from distsum.actors.speculation import SpeculationSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORKERS: Final = 100
_FEW_WORKERS: Final = 8
_SEEDS: Final = range(1, 7)
_MORE_SEEDS: Final = range(1, 101)
_VALUES: Final[dict[str, tuple[float, ...]]] = {
    "gain": (0.0, 1.0, 1.2, 1.5, 2.0, 3.0),
    "slow": (1.5, 2.0, 3.0, 1e9),
    "silence_seconds": (4.0, 5.0, 6.0, 8.0, 1e9),
    "max_share": (0.0, 0.1, 0.25, 0.5, 1.0),
    "multiplier": (1.2, 1.5, 2.0, 1e9),
    "copies": (1, 2, 3),
}
_TOGETHER: Final[tuple[dict[str, Any], ...]] = (
    {"gain": 1.0, "max_share": 0.5},
    {"gain": 1.0, "max_share": 0.5, "slow": 1.5},
    {"gain": 1.0, "max_share": 0.5, "copies": 3},
)
_DEFAULT: Final = SpeculationSettings()
_NONE: Final = SpeculationSettings(policy="none")
_LIMIT: Final = 0.02
"""What a cell may take longer than without speculation."""


class _Run(msgspec.Struct, frozen=True):
    """One cell with some settings."""

    cell: Cell
    settings: SpeculationSettings


def _simulate(run: _Run) -> Outcome:
    return simulate(run.cell, run.settings)


def _settings() -> Iterator[tuple[str, SpeculationSettings]]:
    """Yield none, the default, and each setting with another value."""
    yield "none", _NONE
    yield "default", _DEFAULT
    for key, values in _VALUES.items():
        for value in values:
            if value != getattr(_DEFAULT, key):
                yield _changed({key: value})
    yield from map(_changed, _TOGETHER)


def _changed(values: dict[str, Any]) -> tuple[str, SpeculationSettings]:
    words = ",".join(f"{key}={'never' if value == 1e9 else format(value, 'g')}" for key, value in values.items())
    return words, msgspec.structs.replace(_DEFAULT, **values)


def main() -> None:
    """Run all cells, and print the tables."""
    wanted = dict(_settings())
    shapes = [*product(CLUSTERS, PARTITIONS)]
    runs = [
        _Run(Cell(cluster, _WORKERS, partition, "guarded", seed), settings)
        for (cluster, partition), seed, settings in product(shapes, _SEEDS, wanted.values())
    ]
    few = [
        _Run(Cell(cluster, _FEW_WORKERS, partition, "guarded", seed), settings)
        for (cluster, partition), seed, settings in product(shapes, _MORE_SEEDS, (_NONE, _DEFAULT))
    ]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(runs + few, pool.map(_simulate, runs + few, chunksize=20), strict=True))
    report("stragglers_sweep_settings", [*_setting_rows(wanted, found)])
    report("stragglers_sweep_partitions", [*_partition_rows(found)])
    report("stragglers_sweep_few", [*_few_rows(found)])


def _relative(found: dict[_Run, Outcome], cell: Cell, settings: SpeculationSettings) -> float:
    """Return a cell's makespan as a multiple of that of a healthy cluster without speculation, of the same seed."""
    healthy = _Run(msgspec.structs.replace(cell, cluster="equal"), _NONE)
    return found[_Run(cell, settings)].makespan / found[healthy].makespan


def _setting_rows(wanted: dict[str, SpeculationSettings], found: dict[_Run, Outcome]) -> Iterator[dict[str, object]]:
    """Yield a row for each of them: the geometric mean of all cells, and how cells compare with the default's."""
    shapes = [*product(CLUSTERS, PARTITIONS)]
    took: dict[str, dict[tuple[str, int], float]] = defaultdict(dict)
    wasted: dict[str, dict[tuple[str, int], float]] = defaultdict(dict)
    for (name, settings), (cluster, partition) in product(wanted.items(), shapes):
        cells = [Cell(cluster, _WORKERS, partition, "guarded", seed) for seed in _SEEDS]
        took[name][cluster, partition] = mean(_relative(found, cell, settings) for cell in cells)
        wasted[name][cluster, partition] = mean(found[_Run(cell, settings)].wasted for cell in cells)
    for name in wanted:
        ratios = [took[name][shape] / took["default"][shape] for shape in shapes]
        # A copy of a Pareto task draws its time anew, so that any copying helps there.
        sound = [shape for shape in shapes if shape[0] != "Pareto tasks"]
        drawn = [shape for shape in shapes if shape[0] == "Pareto tasks"]
        worst = max(sound, key=lambda shape: took[name][shape])
        slower = [shape for shape in shapes if took[name][shape] > (1 + _LIMIT) * took["none"][shape]]
        yield {
            "settings": name,
            "makespan": f"{math.exp(mean(math.log(took[name][shape]) for shape in sound)):.3f}",
            "of Pareto tasks": f"{math.exp(mean(math.log(took[name][shape]) for shape in drawn)):.2f}",
            "worst": f"{took[name][worst]:.2f} ({worst[0]}, P = {worst[1]})",
            "faster": sum(ratio < 0.99 for ratio in ratios),
            "slower": sum(ratio > 1.01 for ratio in ratios),
            "slower than none": len(slower),
            "in vain": f"{100 * mean(wasted[name][shape] for shape in sound):.2f} %",
            "in vain of Pareto tasks": f"{100 * mean(wasted[name][shape] for shape in drawn):.1f} %",
            "in vain if equal": f"{100 * max(wasted[name]['equal', partition] for partition in PARTITIONS):.2f} %",
        }


def _partition_rows(found: dict[_Run, Outcome]) -> Iterator[dict[str, object]]:
    """Yield what each partition takes in all, as a multiple of the best one's, with the default and without."""
    for cluster in CLUSTERS:
        row: dict[str, object] = {"cluster": cluster}
        for name, settings in (("default", _DEFAULT), ("none", _NONE)):
            took = {
                partition: mean(
                    found[_Run(Cell(cluster, _WORKERS, partition, "guarded", seed), settings)].makespan
                    for seed in _SEEDS
                )
                for partition in PARTITIONS
            }
            for partition, seconds in took.items():
                row[f"{name}, P = {partition}"] = f"{seconds / min(took.values()):.2f} ({seconds:.1f} s)"
        yield row


def _few_rows(found: dict[_Run, Outcome]) -> Iterator[dict[str, object]]:
    """Yield for 8 workers the mean of all seeds, and the runs that took longer than without speculation."""
    for cluster in CLUSTERS:
        row: dict[str, object] = {"cluster": cluster}
        for partition in PARTITIONS:
            cells = [Cell(cluster, _FEW_WORKERS, partition, "guarded", seed) for seed in _MORE_SEEDS]
            none = mean(_relative(found, cell, _NONE) for cell in cells)
            default = mean(_relative(found, cell, _DEFAULT) for cell in cells)
            against = [found[_Run(cell, _DEFAULT)].makespan / found[_Run(cell, _NONE)].makespan for cell in cells]
            row[f"P = {partition}: none"] = f"{none:.2f}"
            row[f"P = {partition}: default"] = f"{default:.2f}"
            row[f"P = {partition}: slower"] = (
                f"{sum(each > 1 + _LIMIT for each in against)} (at most {max(against):.2f})"
            )
        yield row
