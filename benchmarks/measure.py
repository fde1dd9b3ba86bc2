"""How benchmarks measure: whole processes, repeated and interleaved, told as ratios of the same run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).parent / "results"


def whole_process(command: list[str], *, environment: dict[str, str] | None = None) -> float:
    """Return the seconds that a command takes from its start to its end.

    Raises:
        RuntimeError: It failed; what it printed is in the message.
    """
    began = time.perf_counter()
    done = subprocess.run(
        command, env=dict(os.environ) | (environment or {}), capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr[-2000:]}")
    return seconds


def interleaved(
    runs: dict[str, list[str]], rounds: int, *, environment: dict[str, str] | None = None
) -> dict[str, list[float]]:
    """Run each command so many times, taking turns, so that a slow spell of the machine meets all of them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, command in runs.items():
            seconds[name].append(whole_process(command, environment=environment))
    return seconds


def middle(seconds: list[float]) -> float:
    """Return the median."""
    return median(seconds)


def machine() -> dict[str, object]:
    """Return what the figures were measured on, and how busy it is just now: with others at work, ratios drift."""
    model = "unknown processor"
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


def report(name: str, rows: list[dict[str, object]]) -> None:
    """Print one aligned table, and write it with the machine as JSON beside it."""
    columns = list(rows[0])
    cells = [columns, *([_cell(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    told = machine()
    print("  ".join(f"{key} {value}" for key, value in told.items()))
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": told, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(f"written to {path}")


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
