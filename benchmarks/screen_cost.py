"""What does a run cost more when a screen shows it?

The same run on this machine, by turns: saying nothing (``--quiet``), with its progress as lines on a terminal, and on a
screen (``--tui``). The terminals are real ones that somebody reads at once. ``seconds`` is what the run says that it
took, the median; ``times_quiet`` is the median of the ratios to the quiet run of the same turn. ``small_files`` has
some 800 tasks a second, ``text_files`` few that keep all cores at work.

Wanted: a screen costs no more than 2 %.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from benchmarks.measure import middle, report

ROUNDS = 5
JOBS = {
    "small_files": (3000, 300, "npy", ("-p", "5", "--tiles", "10")),
    "text_files": (400, 60_000, "text", ("-p", "5", "--tiles", "1")),
}
WAYS = {"quiet": ("--quiet",), "lines": (), "screen": ("--tui",)}


def seconds_of(folder: Path, options: tuple[str, ...]) -> float:
    """Run the command on a terminal of its own, and return how long the run took by its own account."""
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
    told, _ = process.communicate(timeout=300)
    reader.join()
    os.close(master)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return float(json.loads(told.splitlines()[-1])["seconds"])


def main() -> None:
    """Make the files, run, print and write."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="distsum-bench-") as scratch:
        for name, (files, count, kind, plan) in JOBS.items():
            folder = Path(scratch) / name
            generate = (
                "generate",
                str(folder),
                "--files",
                str(files),
                "--count",
                str(count),
                "--format",
                kind,
                "--quiet",
            )
            subprocess.run([sys.executable, "-m", "distsum", *generate], check=True)
            taken: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(ROUNDS):
                for way, options in WAYS.items():
                    taken[way].append(seconds_of(folder, (*plan, *options)))
            for way, seconds in taken.items():
                ratios = [each / quiet for each, quiet in zip(seconds, taken["quiet"], strict=True)]
                rows.append({"job": name, "shown": way, "seconds": middle(seconds), "times_quiet": middle(ratios)})
            shutil.rmtree(folder)
    report("screen_cost", rows)


if __name__ == "__main__":
    main()
