"""The simulation itself: it finds faults, and a run can be repeated."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from tests.simulation.invariants import BadWorkerInvariants
from tests.simulation.plants import PLANTS
from tests.simulation.scenarios import Run, SimulationError

WITHIN_SEEDS = 1000


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_fault_is_found(plant: str) -> None:
    with pytest.raises(SimulationError) as found:
        run_all(plant)
    told = str(found.value)
    assert told.partition("\n")[0].split(": ")[1] == "AssertionError", "the plant itself is at fault"
    assert re.search(rf"replay: uv run python -m tests\.simulation --seed [0-9]+ --plant {plant}$", told)


def run_all(plant: str) -> None:
    for seed in range(WITHIN_SEEDS):
        Run(seed, plant=plant).go()


def test_a_seed_repeats_its_run_and_another_one_does_not() -> None:
    digests = []
    for seed in (5, 5, 6):
        run = Run(seed)
        run.go()
        digests.append(run.digest())
    assert digests[0] == digests[1] != digests[2]


def test_a_slow_host_has_fewer_workers_than_the_first_phase_has_tasks() -> None:
    slow_hosts = [run for run in map(Run, range(400)) if run._slow_host]
    for run in slow_hosts:
        run.go()
        hosts = [worker.model.host for worker in run.cluster.workers.values()]
        assert hosts.count("h0") < run.cluster.store.tree("job1").width(1)
    assert len(slow_hosts) >= 10


def test_runs_with_bad_workers_have_some_quarantined_before_the_broker_is_away() -> None:
    runs = [run for run in map(Run, range(400)) if run._bad_workers]
    before = 0
    for run in runs:
        run.go()
        (told,) = run.faults
        away = float(told.split()[0])
        assert isinstance(run.invariants, BadWorkerInvariants)
        before += any(since < away for since in run.invariants.quarantined.values())
    assert len(runs) >= 8
    assert before >= len(runs) / 2


def test_a_job_that_is_submitted_again_as_it_ends_is_waited_for() -> None:
    run = Run(3010)  # in which that comes when all others have ended
    run.go()
    assert not run.cluster.open_jobs
    assert len(run.cluster.outcomes["job1"]) == run.cluster.submitted["job1"] == 2


def test_the_command_of_a_failure_fails_again_and_without_the_fault_it_does_not() -> None:
    with pytest.raises(SimulationError) as failure:
        run_all("ForgetsRetry")
    told = str(failure.value)
    replay = told.rpartition("replay: ")[2]
    assert "is out, and lost" in told
    uv, run, python, *arguments = shlex.split(replay)
    assert (uv, run, python) == ("uv", "run", "python")
    pasted = [sys.executable, *arguments]
    failed = subprocess.run(pasted, capture_output=True, text=True, check=False)
    assert failed.returncode == 1, failed.stderr
    assert failed.stdout.strip() == told
    command = pasted[:-2]
    passed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert passed.returncode == 0
    assert "all promises held" in passed.stdout


@pytest.mark.parametrize(
    ("option", "number", "least"),
    [("--seeds", "0", 1), ("--seeds", "-5", 1), ("--seeds", "many", 1), ("--seed", "-1", 0)],
)
def test_a_number_of_runs_that_runs_nothing_is_refused(option: str, number: str, least: int) -> None:
    command = [sys.executable, "-m", "tests.simulation", f"{option}={number}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"argument {option}: '{number}' must be a whole number of at least {least}" in done.stderr


def test_many_seeds_run_by_one_command() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "3", "--first", "10"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "3 seeds" in done.stdout
    assert "0 failed" in done.stdout
