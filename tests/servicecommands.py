"""The service's commands as processes: a master, workers, and what clients are told."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

from tests.command import COMMAND, distsum, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def running(log: Path, *arguments: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the end of the block; what it says goes to a file."""
    with open(log, "ab") as said:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=dict(os.environ) | environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@contextlib.contextmanager
def master(
    tmp_path: Path, environment: dict[str, str], name: str = "master", work: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    log = tmp_path / f"{name}.log"
    work = work or str(tmp_path / "work")
    with running(log, "master", "--work-dir", work, environment=environment) as process:
        wait_until(lambda: "ready" in log.read_text().split() or process.poll() is not None, "a master")
        assert process.poll() is None, log.read_text()
        yield process


@contextlib.contextmanager
def worker(
    tmp_path: Path, environment: dict[str, str], *arguments: str, slots: int = 2
) -> Iterator[subprocess.Popen[bytes]]:
    arguments = ("worker", "--slots", str(slots), *arguments)
    with running(tmp_path / "worker.log", *arguments, environment=environment) as process:
        yield process


def asked(environment: dict[str, str], *arguments: str) -> Any:
    done = distsum(*arguments, "--json", env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def slot_processes(process: subprocess.Popen[bytes]) -> list[int]:
    with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]
