"""Workers that are started before the command line has been read: how many, and what becomes of them."""

import os

import pytest

from distsum.machine import usable_cpus
from distsum.worker import launch
from distsum.worker.launch import early_workers, launch_early, take_early
from tests.command import alive, distsum, wait_until

RUN = ["mean", "in", "-o", "out.npy"]


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch):
    monkeypatch.setattr(launch, "usable_cpus", lambda: 8)


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (RUN, {}, 2),
        (["max", "in", "--output=out.npy"], {}, 2),
        ([*RUN, "-w", "1"], {}, 1),
        ([*RUN, "-w1"], {}, 1),
        ([*RUN, "--workers", "1"], {}, 1),
        ([*RUN, "--workers=1"], {}, 1),
        ([*RUN, "-w", "100"], {}, 2),
        ([*RUN, "-w", "auto"], {}, 2),
        ([*RUN, "-w"], {}, 2),
        ([*RUN, "-w", "²"], {}, 2),
        (RUN, {"DISTSUM_WORKERS": "1"}, 1),
        ([*RUN, "-w2"], {"DISTSUM_WORKERS": "1"}, 2),
        ([*RUN, "--help"], {}, 0),
        ([*RUN, "--broker", "amqp://h"], {}, 0),
        ([*RUN, "--broker=amqp://h"], {}, 0),
        ([*RUN, "--fleet", "fleet.toml"], {}, 0),
        ([*RUN, "--fleet=fleet.toml"], {}, 0),
        (RUN, {"DISTSUM_BROKER": "amqp://h"}, 2),
        (["mean", "in"], {}, 0),
        (["plan", "in", "-o", "x"], {}, 0),
        ([], {}, 0),
    ],
)
def test_a_guess_is_made_from_the_arguments(arguments, environment, expected):
    assert early_workers(arguments, environment) == expected


def test_no_more_are_started_than_there_are_cpus(monkeypatch):
    monkeypatch.setattr(launch, "usable_cpus", lambda: 1)
    assert early_workers(RUN, {}) == 1
    monkeypatch.undo()
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)


def test_those_that_are_not_taken_end_and_those_that_are_end_with_their_channel():
    launch_early(RUN)
    first, second = launch._early
    assert first.name != second.name
    assert alive(first.process.pid)
    assert alive(second.process.pid)
    assert take_early(1) == [first]
    assert not alive(second.process.pid)
    assert take_early(5) == []
    first.endpoint.close()
    assert first.process.wait(timeout=20) == 0


def test_a_command_that_ends_before_its_run_leaves_none(tmp_path):
    mark = f"DISTSUM_TEST_MARK={tmp_path}"
    done = distsum("mean", "nothing.npy", "-o", "out.npy", cwd=tmp_path, env=dict([mark.split("=", 1)]))
    assert done.returncode == 2
    wait_until(lambda: not marked(mark.encode()), "the end of all workers", 5)


def test_a_marked_process_would_be_seen():
    mark = b"DISTSUM_TEST_MARK=here"
    os.environ["DISTSUM_TEST_MARK"] = "here"
    try:
        launch_early([*RUN, "-w1"])
    finally:
        del os.environ["DISTSUM_TEST_MARK"]
    (launched,) = launch._early
    wait_until(lambda: marked(mark) == [launched.process.pid], "the worker's start", 20)
    take_early(0)
    assert marked(mark) == []


def marked(mark: bytes) -> list[int]:
    """Return the processes with an entry in their environment."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                if mark in file.read().split(b"\0"):
                    found.append(int(entry))
        except (OSError, ValueError):
            continue
    return found
