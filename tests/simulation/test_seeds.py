"""Thousands of runs, each with other workers, messages and faults; ``just simulate --seeds N`` runs more."""

from __future__ import annotations

import pytest

from tests.simulation.scenarios import Run

_BATCH = 150


@pytest.mark.parametrize("first", range(0, 2400, _BATCH))
def test_every_promise_holds_after_every_message(first: int) -> None:
    for seed in range(first, first + _BATCH):
        Run(seed).go()


# In 7003983 the tracker was told that a worker had begun a task after it was told that the worker had ended. When the
# task was given up, it waited for that worker to give it up, too, for ever.
# In 200061 four workers lose the broker, which notices one after the other, and hands a task to each in vain: it was
# given up for one that takes its workers down.
# In 91820040 and 91821549 it was remembered of a lost worker what its last attempt was expected to take.
@pytest.mark.parametrize("seed", [7003983, 200061, 91820040, 91821549])
def test_what_a_seed_has_found_once_is_mended(seed: int) -> None:
    Run(seed).go()
