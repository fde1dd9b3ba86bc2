"""Runs simulations: ``python -m tests.simulation --seeds 100000``, or one again: ``--seed 4711``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING

from tests.simulation.plants import PLANTS
from tests.simulation.scenarios import Run, SimulationError

if TYPE_CHECKING:
    from collections.abc import Callable

_BATCH = 200


def batch(first: int, count: int, plant: str | None = None) -> tuple[int, list[str]]:
    """Run some seeds; return the messages that actors received, and what failed."""
    delivered, failures = 0, []
    for seed in range(first, first + count):
        run = Run(seed, plant=plant)
        try:
            run.go()
        except SimulationError as failure:
            failures.append(str(failure))
        delivered += run.cluster.system.delivered
    return delivered, failures


def main() -> int:
    """Run what the arguments say; the exit code tells whether all promises held."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=_at_least(1), default=10_000, help="how many runs")
    parser.add_argument(
        "--first", type=_at_least(0), default=1_000_000, help="the first one's seed; CI's are below a million"
    )
    parser.add_argument("--seed", type=_at_least(0), help="run this one alone, and say how it went")
    parser.add_argument("--plant", choices=list(PLANTS), help="with this fault planted into the actors")
    options = parser.parse_args()
    if options.seed is not None:
        return one(options.seed, options.plant)
    began = time.perf_counter()
    delivered, failed = 0, 0
    firsts = range(options.first, options.first + options.seeds, _BATCH)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        waiting = [
            pool.submit(batch, first, min(_BATCH, options.first + options.seeds - first), options.plant)
            for first in firsts
        ]
        for done in as_completed(waiting):
            messages, failures = done.result()
            delivered += messages
            failed += len(failures)
            for failure in failures:
                print(failure, end="\n\n")
    seconds = time.perf_counter() - began
    print(f"{options.seeds:,} seeds, {delivered:,} messages in {seconds:.1f} s; {failed} failed")
    return 1 if failed else 0


def _at_least(least: int) -> Callable[[str], int]:
    """Return what takes a whole number of an argument; of fewer runs than one it would be told that none has failed."""

    def number(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            found = least - 1
        if found < least:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {least}")
        return found

    return number


def one(seed: int, plant: str | None) -> int:
    """Run one seed."""
    run = Run(seed, plant=plant)
    try:
        run.go()
    except SimulationError as failure:
        print(failure)
        return 1
    system = run.cluster.system
    for fault in run.faults:
        print(f"fault {fault}")
    for outcomes in run.cluster.outcomes.values():
        for outcome in outcomes:
            print(outcome)
    print(f"seed {seed}: {system.delivered:,} messages in {system.clock:.1f} virtual seconds; all promises held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
