"""How long does one machine take, against the loop that people write, Dask and NCO? And is memory what the plan says?

Whole processes, byte code compiled, data in the page cache, the runs of a case taking turns, medians. ``reach`` is the
ratio that the project set itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import interleaved, middle, report

if TYPE_CHECKING:
    from collections.abc import Callable

DISTSUM = [sys.executable, "-m", "distsum"]

MMAP_LOOP = """
import glob, sys, numpy as np
paths = sorted(glob.glob(sys.argv[1]))
total = np.array(np.load(paths[0]))
for path in paths[1:]:
    total += np.load(path, mmap_mode="r")
total /= len(paths)
np.save(sys.argv[2], total)
"""
LOAD_LOOP = MMAP_LOOP.replace(', mmap_mode="r"', "")
TEXT_LOOP = LOAD_LOOP.replace("np.load(", "np.loadtxt(")
DASK = """
import glob, sys, time, numpy as np, dask.array as da
paths = sorted(glob.glob(sys.argv[1]))
arrays = [da.from_array(np.load(path, mmap_mode="r"), chunks=-1) for path in paths]
mean = da.stack(arrays).mean(0, split_every=5)
began = time.perf_counter()
mean.compute(scheduler="threads")
print(time.perf_counter() - began)
"""
BARE_WORKER = """
import distsum.worker.__main__
from distsum.machine import resident_bytes
print(resident_bytes("VmHWM"))
"""


def python(code: str, *arguments: str) -> list[str]:
    """Return the command that runs a script."""
    return [sys.executable, "-c", code, *arguments]


def generate(folder: Path, files: int, count: int, kind: str = "npy") -> str:
    """Make the inputs of a case, read them once, and return their pattern."""
    command = [*DISTSUM, "generate", str(folder), "--files", str(files), "--count", str(count), "--format", kind]
    subprocess.run([*command, "--quiet"], check=True)
    for path in folder.iterdir():
        path.read_bytes()
    suffix = {"npy": "npy", "text": "txt"}[kind]
    return f"{folder}/*.{suffix}"


def against(name: str, pattern: str, out: Path, loops: dict[str, tuple[str, float]], rounds: int) -> list[dict]:
    """Time ``distsum mean`` against scripts; one row for each."""
    runs = {"distsum": [*DISTSUM, "mean", pattern, "-o", str(out / "ours.npy"), "--force", "--quiet"]}
    runs |= {loop: python(code, pattern, str(out / "theirs.npy")) for loop, (code, _) in loops.items()}
    seconds = interleaved(runs, rounds)
    ours = middle(seconds["distsum"])
    return [row(name, loop, ours, middle(seconds[loop]), reach) for loop, (_, reach) in loops.items()]


def row(case: str, peer: str, ours: float, theirs: float, reach: float | str) -> dict:
    """Return one row of the table; times in seconds."""
    return {"case": case, "against": peer, "ours_s": ours, "theirs_s": theirs, "ratio": ours / theirs, "reach": reach}


def large(folder: Path) -> list[dict]:
    """100 files of 2 M numbers, warm: against the loops, Dask, and NCO where it is installed."""
    pattern = generate(folder / "in", 100, 2_000_000)
    name = "100 npy x 2 M"
    rows = against(name, pattern, folder, {"mmap loop": (MMAP_LOOP, 1.5), "load loop": (LOAD_LOOP, 1.5)}, 5)
    ours = rows[0]["ours_s"]
    dask = []
    for _ in range(3):
        done = subprocess.run(python(DASK, pattern), check=True, capture_output=True, text=True)
        dask.append(float(done.stdout))
    compute = middle(dask)
    rows.append(row(name, "Dask, compute", ours, compute, 0.4))
    return rows + netcdf(folder, name, ours)


def netcdf(folder: Path, name: str, ours: float) -> list[dict]:
    """The same numbers as NetCDF through NCO's nces; nothing where it or a way to write NetCDF is missing."""
    try:
        import numpy as np
        from scipy.io import netcdf_file
    except ImportError:
        return []
    if shutil.which("nces") is None:
        return []
    (folder / "nc").mkdir()
    for path in sorted((folder / "in").iterdir()):
        with netcdf_file(folder / "nc" / f"{path.stem}.nc", "w") as file:
            values = np.load(path)
            file.createDimension("index", len(values))
            file.createVariable("numbers", "f8", ("index",))[:] = values
    inputs = sorted(str(path) for path in (folder / "nc").iterdir())
    seconds = interleaved({"nces": ["nces", "-O", *inputs, str(folder / "out.nc")]}, 3)
    theirs = middle(seconds["nces"])
    return [row(name, "nces", ours, theirs, "report")]


def larger(folder: Path) -> list[dict]:
    """500 files of 2 M numbers (8 GB), warm."""
    if shutil.disk_usage(folder).free < 12e9 or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") < 12e9:
        print("500 npy x 2 M left out: it takes 12 GB of disk and of memory for the page cache")
        return []
    pattern = generate(folder / "in", 500, 2_000_000)
    loops = {"mmap loop": (MMAP_LOOP, 0.75), "load loop": (LOAD_LOOP, 0.75)}
    return against("500 npy x 2 M", pattern, folder, loops, 3)


def many(folder: Path) -> list[dict]:
    """20,000 files of 1,000 numbers."""
    pattern = generate(folder / "in", 20_000, 1_000)
    return against("20,000 npy x 1,000", pattern, folder, {"load loop": (LOAD_LOOP, 0.5)}, 5)


def text(folder: Path) -> list[dict]:
    """200 text files of 100,000 numbers."""
    pattern = generate(folder / "in", 200, 100_000, "text")
    return against("200 text x 100,000", pattern, folder, {"loadtxt loop": (TEXT_LOOP, 0.15)}, 3)


def start_up(folder: Path) -> list[dict]:
    """5 files of 1,000 numbers: what starting costs."""
    pattern = generate(folder / "in", 5, 1_000)
    return against("5 npy x 1,000", pattern, folder, {"import numpy": ("import numpy", 4.0)}, 9)


def memory(folder: Path) -> list[dict]:
    """Peak memory of a worker over its bare import, against the plan's figure."""
    rows: list[dict] = []
    bare = int(subprocess.run(python(BARE_WORKER), check=True, capture_output=True, text=True).stdout)
    for files, count in ((50, 2_000_000), (2_000, 100_000)):
        generate(folder / f"in{files}", files, count)
        for budget in ("64MiB", "512MiB"):
            for partition in ("auto", "5", "125"):
                command = [*DISTSUM, "mean", str(folder / f"in{files}"), "-o", str(folder / "out.npy"), "--force"]
                command += ["--memory", budget, "-p", partition, "--json", "--quiet"]
                told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                ours, plan = told["peak_worker_bytes"], told["plan"]["worker_bytes"]
                rows.append(
                    {
                        "case": f"{files} files x {count:,}, --memory {budget}, P {partition}",
                        "against": "the plan's bytes",
                        "ours_MiB": ours / 2**20,
                        "plan_MiB": plan / 2**20,
                        "ratio": ours / plan,
                        "reach": 1.0,
                        "bare_MiB": bare / 2**20,
                    }
                )
        shutil.rmtree(folder / f"in{files}")
    return rows


def main() -> None:
    """Run all cases, and print two tables."""
    compile_all()
    cases: list[Callable[[Path], list[dict]]] = [start_up, many, text, large, larger]
    rows = []
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="distsum-bench-") as name:
            rows += case(Path(name))
    report("single_machine", rows)
    with tempfile.TemporaryDirectory(prefix="distsum-bench-") as name:
        report("single_machine_memory", memory(Path(name)))


def compile_all() -> None:
    """Compile byte code as any second run finds it, for everybody alike, even where the environment forbids that."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    code = "import compileall, sysconfig; compileall.compile_dir(sysconfig.get_paths()['purelib'], quiet=2)"
    subprocess.run(python(code), env=environment, check=False)
    subprocess.run([sys.executable, "-m", "compileall", "-q", "distsum", "tui"], env=environment, check=False)
    subprocess.run(python("import distsum.cli, distsum.embedded, numpy"), env=environment, check=True)


if __name__ == "__main__":
    main()
