"""Thousands of runs, each with other workers, messages and faults; ``just simulate --seeds N`` runs more."""

from __future__ import annotations

import pytest

from tests.simulation.scenarios import Run

_BATCH = 150


@pytest.mark.parametrize("first", range(0, 2400, _BATCH))
def test_every_promise_holds_after_every_message(first: int) -> None:
    for seed in range(first, first + _BATCH):
        Run(seed).go()
