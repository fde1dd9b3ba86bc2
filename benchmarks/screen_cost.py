"""What does a run cost more when it is looked at?

Embedded runs on this machine, by turns: saying nothing (``--quiet``), with progress as lines on a terminal, and on a
screen (``--tui``). The terminals are real ones that somebody reads at once. ``small_files`` has some 800 tasks a
second, so that all wait for the process that decides and draws; ``text_files`` has few, which keep all cores at work.
What viewers cost a service is in ``benchmarks/viewers.py``.

``seconds`` is what the run says that it took, the median; ``times_quiet`` is the median of its ratios to the run of the
same turn that nobody looked at. ``cpu_times_quiet`` is the same of processor time, which others on this machine disturb
less: of the command and its workers.

Wanted: a screen costs no more than 2 % where a run takes ten seconds or longer.
"""

from __future__ import annotations

import json
import os
import pty
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from benchmarks.measure import middle, report
from benchmarks.single_machine import compile_all

ROUNDS = 5
FOLDERS = {"small_files": (3000, 300, "npy"), "text_files": (1600, 60_000, "text")}
JOBS = {
    "small_files, 10 s": ("small_files", ("-p", "5", "--tiles", "10"), ROUNDS),
    "small_files, 30 s": ("small_files", ("-p", "5", "--tiles", "30"), 3),
    "text_files, 10 s": ("text_files", ("-p", "5", "--tiles", "1"), ROUNDS),
}
"""Some files, how they are added, and how often. How long that takes is so on two cores that nobody else uses."""
WAYS = {"quiet": ("--quiet",), "lines": (), "screen": ("--tui",)}


def seconds_of(folder: Path, options: tuple[str, ...]) -> tuple[float, float]:
    """Run the command on a terminal of its own.

    Returns:
        How long the run took by its own account, and the processor time of the command and its workers, in seconds.
    """
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "distsum", "mean", str(folder), "-o", f"{folder}.npy", "--force", "--json"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DISTSUM_")}
    process = subprocess.Popen(
        [*command, *options],
        stdin=slave,
        stderr=slave,
        stdout=subprocess.PIPE,
        env=kept | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "36"},
        start_new_session=True,
    )
    os.close(slave)

    def read() -> None:
        left = "--tui" not in options
        try:
            while data := os.read(master, 1 << 16):
                if not left and b"DONE" in data:
                    left = True
                    os.write(master, b"q")
        except OSError:
            return  # as Linux says that the other end is closed

    reader = threading.Thread(target=read)
    reader.start()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    told, _ = process.communicate(timeout=600)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    reader.join()
    os.close(master)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return float(json.loads(told.splitlines()[-1])["seconds"]), spent


def row(job: str, shown: str, taken: list[tuple[float, float]], quiet: list[tuple[float, float]]) -> dict[str, object]:
    """Return one row of the table: seconds, and seconds of processor time, against those of what nobody looked at."""
    ratios = [[one / other for one, other in zip(*pair, strict=True)] for pair in zip(taken, quiet, strict=True)]
    seconds, cpu = zip(*ratios, strict=True)
    return {
        "job": job,
        "shown": shown,
        "seconds": middle([each for each, _ in taken]),
        "times_quiet": middle(list(seconds)),
        "cpu_times_quiet": middle(list(cpu)),
        "rounds": len(taken),
    }


def runs() -> list[dict[str, object]]:
    """Make the files, and run embedded jobs."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="distsum-bench-") as scratch:
        for name, (files, count, kind) in FOLDERS.items():
            generate = ("generate", f"{scratch}/{name}", "--files", str(files), "--count", str(count))
            command = [sys.executable, "-m", "distsum", *generate, "--format", kind, "--quiet"]
            subprocess.run(command, check=True)
        for name, (folder, plan, rounds) in JOBS.items():
            taken: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
            for _ in range(rounds):
                for way, options in WAYS.items():
                    taken[way].append(seconds_of(Path(scratch) / folder, (*plan, *options)))
            rows += [row(name, way, each, taken["quiet"]) for way, each in taken.items()]
    return rows


def main() -> None:
    """Run, print and write."""
    compile_all()
    report("screen_cost", runs())


if __name__ == "__main__":
    main()
