"""What people install: the wheel, in an environment that holds nothing else, away from the checkout."""

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGES = {"distsum": "distsum", "tui": "distsum/tui", "provision": "distsum/provision"}
"""Folders of the checkout, and where the wheel has them."""

pytestmark = pytest.mark.timeout(300)  # downloads may be slow


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed, in an environment that names no other; return what it printed."""
    hidden = {"PYTHONPATH", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("wheel")


@pytest.fixture(scope="module")
def tools(place):
    """Commands that build a wheel and install into an empty environment: uv's, or without it pip's."""
    environment = place / "environment"
    python = environment / "bin" / "python"
    if uv := shutil.which("uv"):
        run(uv, "venv", "--python", sys.executable, environment, cwd=place)
        return python, [uv, "build", "--wheel", "--out-dir"], [uv, "pip", "install", "--python", python]
    venv.create(environment, with_pip=True)
    return python, [python, "-m", "pip", "wheel", "--no-deps", "--wheel-dir"], [python, "-m", "pip", "install"]


@pytest.fixture(scope="module")
def wheel(place, tools):
    """Build from a copy, as setuptools would leave a build folder behind, and take stale modules from it."""
    source = place / "source"
    for folder in PACKAGES:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    _, build, _ = tools
    run(*build, place, source, cwd=place)
    (path,) = place.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(place, tools, wheel):
    """The interpreter of an environment that holds the wheel and what it needs, as pinned."""
    python, _, install = tools
    run(*install, "-c", ROOT / "constraints.txt", wheel, cwd=place)
    return python


def test_the_wheel_holds_all_of_distsum_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"{package}/{path.relative_to(ROOT / folder)}"
        for folder, package in PACKAGES.items()
        for path in ROOT.joinpath(folder).rglob("*.py")
    } | {"distsum/py.typed", "distsum/tui/page.html"}
    assert {name for name in names if not re.match(r"distsum-[^/]+\.dist-info/", name)} == expected


def test_everything_that_the_wheel_needs_is_pinned(python, place):
    listing = "import importlib.metadata as m; print(*(d.name + '==' + d.version for d in m.distributions()))"
    installed = [Requirement(line) for line in run(python, "-c", listing, cwd=place).split()]
    pins = map(Requirement, ROOT.joinpath("constraints.txt").read_text().splitlines())
    pinned = {(pin.name, pin.specifier) for pin in pins if pin.marker is None or pin.marker.evaluate()}
    needed = {(canonicalize_name(one.name), one.specifier) for one in installed}
    assert {pin for pin in needed if pin[0] not in {"distsum", "pip", "setuptools"}} <= pinned


@pytest.mark.parametrize("package", [value.replace("/", ".") for value in PACKAGES.values()])
def test_an_installed_package_is_not_that_of_the_checkout(python, place, package):
    found = Path(run(python, "-c", f"import {package}; print({package}.__file__)", cwd=place).strip())
    assert found.is_relative_to(python.parents[1])


def test_the_installed_command_adds_files(python, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for value in range(7):
        np.save(data / f"{value}.npy", np.full(11, value, dtype=np.float64))
    run(python.parent / "distsum", "mean", data, "-o", "mean.npy", cwd=tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "mean.npy"), np.full(11, 3.0))


TYPED = """
import pathlib
import numpy as np
import numpy.typing as npt
import distsum

mean: npt.NDArray[np.float64] = distsum.mean(["a", b"b", pathlib.Path("c")], workers=2, memory="1GiB", dtype=np.float32)
total = distsum.sum("runs", pathlib.Path("out.npy"), partition=None, force=True)
tiles: int = distsum.plan("runs", "sum", fan_in=3).candidates[0].tiles
right: bool = distsum.verify("out.npy", "runs", reduction="sum", dtype=np.dtype("f4")).ok
try:
    distsum.max(iter(["a"]))
except distsum.BadInputError as error:
    uri: bytes = error.uri
except (distsum.WorkDirBusyError, distsum.InterruptedRunError) as error:
    code: int = error.exit_code

distsum.meen("runs")  # wrong
distsum.mean("runs", workers="two")  # wrong
distsum.mean("runs", wokers=2)  # wrong
distsum.mean(3)  # wrong
distsum.plan("runs", "median")  # wrong
distsum.plan("runs", workers="two")  # wrong
distsum.mean("runs", format="csv")  # wrong
name: str = distsum.max("runs")  # wrong
distsum.verify("out.npy", "runs").fine  # wrong
"""


def test_those_who_use_the_wheel_have_their_types_checked(python, tmp_path):
    tmp_path.joinpath("mine.py").write_text(TYPED)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--python-executable",
        python,
        "--cache-dir",
        tmp_path / "cache",
    ]
    done = subprocess.run([*command, "mine.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    found = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    assert found == {number for number, line in enumerate(TYPED.splitlines(), 1) if "# wrong" in line}, done.stdout
