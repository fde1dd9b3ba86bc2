"""What a run on one machine must not load: the parts that talk to servers or draw screens cost start-up and memory."""

import os
import subprocess
import sys

import numpy as np
import pytest

UNWANTED = ("aio_pika", "aiobotocore", "asyncssh", "textual")


@pytest.fixture
def imports(tmp_path):
    """Give a function that runs Python and returns the modules that it and the processes it starts have imported.

    Stand-ins for the unwanted modules are at hand, so that an import is seen where they are not installed, too.
    """
    for name in UNWANTED:
        tmp_path.joinpath(f"{name}.py").touch()
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONPROFILEIMPORTTIME": "1"}

    def run(*arguments: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
        return {line.rpartition("|")[2].strip() for line in lines}

    return run


@pytest.fixture
def mean(tmp_path):
    """The arguments of a small run with workers."""
    for value in range(7):
        np.save(tmp_path / f"{value}.npy", np.full(11, value, dtype=np.float64))
    return ["mean", *(f"{value}.npy" for value in range(7)), "-o", "mean.npy", "--workers", "2"]


def unwanted(modules: set[str]) -> set[str]:
    """Return what of the modules is unwanted."""
    return {module for module in modules if module.partition(".")[0] in UNWANTED}


def test_neither_a_run_nor_its_workers_import_servers_or_screens(imports, mean):
    modules = imports("-m", "distsum", *mean)
    assert {"cyclopts", "distsum.worker.process"} <= modules, "both the command's and its workers' imports are seen"
    assert not unwanted(modules)


@pytest.mark.parametrize("module", UNWANTED)
def test_an_unwanted_import_in_a_run_would_be_seen(imports, mean, module):
    program = f"from distsum.__main__ import main; import {module}; main()"
    assert unwanted(imports("-c", program, *mean)) == {module}


def test_a_worker_imports_neither_servers_nor_screens_nor_the_command_line(imports):
    modules = imports("-c", "import distsum.worker.__main__")
    assert "distsum.worker.process" in modules
    assert not unwanted(modules)
    assert not {module for module in modules if module.startswith(("cyclopts", "distsum.cli", "rich"))}


def test_an_unwanted_import_in_a_worker_would_be_seen(imports):
    assert unwanted(imports("-c", "import distsum.worker.__main__, textual")) == {"textual"}


@pytest.mark.parametrize("module", ["distsum.service.rabbitmq", "distsum.service.client", "distsum.preparation"])
def test_what_plans_serves_and_asks_does_no_arithmetic(imports, module):
    modules = imports("-c", f"import {module}")
    assert module in modules
    assert "numpy" not in modules


def test_a_command_that_ends_does_not_go_through_all_objects_of_its_libraries_again():
    program = (
        "import atexit, gc, sys; atexit.register(lambda: print(len(gc.get_objects()), gc.get_freeze_count())); "
        "from distsum.__main__ import main; main()"
    )
    run = subprocess.run([sys.executable, "-c", program, "--version"], capture_output=True, text=True, check=True)
    tracked, frozen = run.stdout.split()[-2:]
    assert int(tracked) < 1000 < int(frozen)
