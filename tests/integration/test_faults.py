"""What goes wrong on one machine, and what then: the installed command, real processes and signals, a full disk."""

from __future__ import annotations

import os
import random
import signal

import numpy as np
import pytest

from tests.command import (
    COMMAND,
    DEADLINE_SECONDS,
    alive,
    distsum,
    started,
    summary,
    wait_until,
    with_mounts,
    workers,
)
from tests.reference import reference_reduce


def partials(work):
    """Return the stored partials."""
    folder = work / "partials"
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """3,000 small files: with P = 5 they make some 750 tasks, so that there is always something under way."""
    folder = tmp_path_factory.mktemp("many")
    arrays = []
    for index in range(3000):
        arrays.append(np.random.default_rng(index).standard_normal(300))
        np.save(folder / f"{index:05}.npy", arrays[-1])
    return folder, reference_reduce(arrays, 5, "mean")


def test_killed_workers_are_replaced_and_the_bits_stay(many, tmp_path):
    inputs, expected = many
    out = tmp_path / "out.npy"
    with started("mean", str(inputs), "-o", str(out), "-p", "5", "-w", "2", "--json") as process:
        draw = random.Random(5)
        killed = set()
        for _ in range(6):
            wait_until(
                lambda: process.poll() is not None or [pid for pid in workers(process.pid) if pid not in killed],
                "a worker",
            )
            if process.poll() is not None:
                break
            done = len(partials(tmp_path / "out.npy.distsum"))
            wait_until(
                lambda done=done: process.poll() is not None or len(partials(tmp_path / "out.npy.distsum")) > done,
                "work",
            )
            victims = [pid for pid in workers(process.pid) if pid not in killed]
            if victims:
                victim = draw.choice(victims)
                killed.add(victim)
                os.kill(victim, signal.SIGKILL)
        out_text, err_text = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0, err_text
    assert killed
    assert np.load(out).tobytes() == expected.tobytes()
    import json

    told = json.loads(out_text.splitlines()[-1])
    assert f"lost: {len(killed)} worker" in err_text
    assert told["tasks"] <= told["attempts"] <= told["tasks"] + len(killed)
    assert "was lost" in err_text


def test_the_run_goes_on_after_kill_nine_and_no_worker_survives_it(many, tmp_path):
    inputs, expected = many
    out, work = tmp_path / "out.npy", tmp_path / "out.npy.distsum"
    arguments = ("mean", str(inputs), "-o", str(out), "-p", "5", "-w", "2")
    with started(*arguments) as process:
        wait_until(lambda: len(partials(work)) > 60, "60 partials")
        theirs = workers(process.pid)
        assert theirs
        process.kill()
        process.wait()
        wait_until(lambda: not any(map(alive, theirs)), "the workers' end", seconds=2.0)
    assert not out.exists()
    stored = len(partials(work))
    told = summary(*arguments)
    assert np.load(out).tobytes() == expected.tobytes()
    assert stored - 2 <= told["tasks_reused"] <= stored
    assert told["tasks_reused"] + told["attempts"] >= told["tasks"]
    assert told["attempts"] <= told["tasks"] - stored + 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npy"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on_and_leaves_no_worker(many, tmp_path, number):
    inputs, expected = many
    out, work = tmp_path / "out.npy", tmp_path / "out.npy.distsum"
    arguments = ("mean", str(inputs), "-o", str(out), "-p", "5", "-w", "2")
    with started(*arguments) as process:
        wait_until(lambda: len(partials(work)) > 60, "60 partials")
        theirs = workers(process.pid)
        process.send_signal(number)
        wait_until(lambda: process.poll() is not None, "the end", seconds=2.0)
        assert not any(map(alive, theirs))
        _, err_text = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 130
    assert "same command goes on" in err_text
    assert "Traceback" not in err_text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npy.distsum"]
    told = summary(*arguments)
    assert told["tasks_reused"] > 50
    assert np.load(out).tobytes() == expected.tobytes()


def test_a_task_that_kills_its_worker_every_time_is_given_up_by_name(tmp_path):
    # The worker ends itself when it opens the file named poison: a real end of a real process, each time.
    plant = tmp_path / "plant"
    plant.mkdir()
    (plant / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if 'distsum.worker' in sys.orig_argv:\n"
        "    def watch(event, arguments):\n"
        "        if event == 'open' and b'poison' in os.fsencode(str(arguments[0])):\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "    sys.addaudithook(watch)\n"
    )
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for index in range(40):
        np.save(inputs / f"{index:02}.npy", np.ones(10))
    np.save(inputs / "33-poison.npy", np.ones(10))
    out = tmp_path / "out.npy"
    done = distsum("mean", str(inputs), "-o", str(out), "-p", "5", "-w", "2", env={"PYTHONPATH": str(plant)})
    assert done.returncode == 1, done.stderr
    assert "4 deliveries" in done.stderr
    assert "33-poison.npy" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_workers_that_cannot_start_end_the_run(tmp_path):
    plant = tmp_path / "plant"
    plant.mkdir()
    (plant / "sitecustomize.py").write_text(
        "import sys\nif 'distsum.worker' in sys.orig_argv:\n    raise SystemExit('planted: no numpy today')\n"
    )
    np.save(tmp_path / "a.npy", np.ones(10))
    done = distsum("mean", "a.npy", "-o", "out.npy", cwd=tmp_path, env={"PYTHONPATH": str(plant)})
    assert done.returncode == 1
    assert "planted: no numpy today" in done.stderr
    assert "before they were ready" in done.stderr


def test_a_damaged_partial_is_made_again_and_noted(tmp_path):
    arrays = [np.random.default_rng(index).standard_normal(50) for index in range(60)]
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for index, array in enumerate(arrays):
        np.save(inputs / f"{index:02}.npy", array)
    work = tmp_path / "work"
    arguments = ("mean", str(inputs), "-p", "5", "--work-dir", str(work), "--keep-partials", "-w", "2")
    summary(*arguments, "-o", str(tmp_path / "first.npy"))
    expected = (tmp_path / "first.npy").read_bytes()
    assert len(partials(work)) == 12 + 3 + 1
    for path in partials(work):
        # Damage every one in its numbers: the root, and then whatever is looked at in its place.
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    done = distsum(*arguments, "-o", str(tmp_path / "second.npy"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "second.npy").read_bytes() == expected
    assert "damaged" in done.stderr
    told = summary(*arguments, "-o", str(tmp_path / "third.npy"))
    assert (tmp_path / "third.npy").read_bytes() == expected
    assert told["tasks_reused"] == told["tasks"]


def test_a_partial_that_is_cut_short_or_gone_is_made_again(tmp_path):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for index in range(60):
        np.save(inputs / f"{index:02}.npy", np.random.default_rng(index).standard_normal(50))
    work = tmp_path / "work"
    arguments = ("mean", str(inputs), "-p", "5", "--work-dir", str(work), "--keep-partials", "-w", "1")
    summary(*arguments, "-o", str(tmp_path / "first.npy"))
    for number, path in enumerate(sorted(partials(work))):
        if number % 3 == 0:
            path.unlink()
        elif number % 3 == 1:
            os.truncate(path, number * 10)
    summary(*arguments, "-o", str(tmp_path / "second.npy"))
    assert (tmp_path / "first.npy").read_bytes() == (tmp_path / "second.npy").read_bytes()


def test_an_input_that_changes_while_the_job_runs_fails_it_by_name_and_old_partials_are_not_used(tmp_path):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    arrays = [np.random.default_rng(index).standard_normal(300) for index in range(2000)]
    for index, array in enumerate(arrays):
        np.save(inputs / f"{index:05}.npy", array)
    out, work = tmp_path / "out.npy", tmp_path / "out.npy.distsum"
    arguments = ("mean", str(inputs), "-o", str(out), "-p", "5", "-w", "1")
    with started(*arguments) as process:
        wait_until(lambda: (work / "jobs").exists() and list((work / "jobs").rglob("spec")), "the job's start")
        arrays[1999] = arrays[1999] + 1
        np.save(inputs / "01999.npy", arrays[1999])
        _, err_text = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 1
    assert "01999.npy" in err_text
    assert "changed" in err_text
    assert not out.exists()
    # An early input changes too, whose partials are stored already.
    arrays[0] = arrays[0] * 2
    np.save(inputs / "00000.npy", arrays[0])
    told = summary(*arguments)
    assert told["tasks_reused"] > 0
    assert np.load(out).tobytes() == reference_reduce(arrays, 5, "mean").tobytes()


def test_more_files_and_the_same_work_folder_read_only_the_new_ones_and_partials(tmp_path):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    arrays = [np.random.default_rng(index).standard_normal(100) for index in range(70)]
    for index, array in enumerate(arrays[:52]):
        np.save(inputs / f"{index:02}.npy", array)
    shared = ("-p", "5", "--work-dir", str(tmp_path / "work"), "--keep-partials")
    summary("mean", str(inputs), "-o", str(tmp_path / "first.npy"), *shared)
    for index, array in enumerate(arrays[52:], start=52):
        np.save(inputs / f"{index:02}.npy", array)
    # What lies under complete nodes now holds something else behind the same size and time: whoever read it would show.
    for index in range(50):
        path = inputs / f"{index:02}.npy"
        before = path.stat()
        path.write_bytes(path.read_bytes()[:128] + b"\xff" * 800)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    told = summary("mean", str(inputs), "-o", str(tmp_path / "second.npy"), *shared)
    assert np.load(tmp_path / "second.npy").tobytes() == reference_reduce(arrays, 5, "mean").tobytes()
    assert told["tasks"] - told["tasks_reused"] == 4 + 1 + 1


def test_two_runs_over_one_work_folder_do_not_meet(many, tmp_path):
    inputs, _ = many
    arguments = ("mean", str(inputs), "-p", "5", "--work-dir", str(tmp_path / "work"))
    with started(*arguments, "-o", str(tmp_path / "a.npy")) as process:
        wait_until(lambda: len(partials(tmp_path / "work")) > 10, "work")
        # Held, so that it cannot end before the second one has looked.
        process.send_signal(signal.SIGSTOP)
        second = distsum(*arguments, "-o", str(tmp_path / "b.npy"))
        assert process.poll() is None
    assert second.returncode == 2
    assert "in use by another run" in second.stderr


HOSTILE = [b"with space.npy", b"a[1]*.npy", b"new\nline.npy", b"esc\x1b[31m.npy", b"\xff\xfe.npy", b"-o.npy", b"@x.npy"]


def test_hostile_names_work_and_are_shown_harmlessly(tmp_path):
    folder = os.fsencode(tmp_path)
    for number, name in enumerate(HOSTILE):
        with open(os.path.join(folder, name), "wb") as file:
            np.save(file, np.full(4, number, "f8"))
    out = os.path.join(folder, b"o\xffut [1].npy")
    done = distsum("mean", os.fsdecode(folder), "-o", os.fsdecode(out))
    assert done.returncode == 0, done.stderr
    with open(out, "rb") as file:
        assert np.load(file).tolist() == [3.0] * 4
    os.unlink(out)
    with open(os.path.join(folder, HOSTILE[3]), "wb") as file:
        file.write(b"no array")
    done = distsum("mean", os.fsdecode(folder), "-o", os.fsdecode(out))
    assert done.returncode == 1
    assert "esc\\x1b[31m.npy" in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("full", ["output", "partials"])
def test_a_full_disk_is_named_and_nothing_stands_under_the_final_name(tmp_path, full, missing_service):
    inputs, disk = tmp_path / "inputs", tmp_path / "disk"
    inputs.mkdir()
    disk.mkdir()
    for index in range(30):
        np.save(inputs / f"{index:02}.npy", np.ones(100_000))
    out = disk / "out.npy" if full == "output" else tmp_path / "out.npy"
    work = tmp_path / "work" if full == "output" else disk / "work"
    size = "600k" if full == "output" else "2m"
    command = [*COMMAND, "mean", str(inputs), "-o", str(out), "--work-dir", str(work), "-p", "5", "--tiles", "1"]
    script = f'mount -t tmpfs -o size={size} tmpfs "$1"; shift; status=0; "$@" || status=$?; ls -A "$0"; exit $status'
    done = with_mounts(missing_service, script.replace('"$0"', f'"{disk}"'), str(disk), *command)
    assert done.returncode == 1, done.stderr
    assert "full" in done.stderr
    assert str(disk) in done.stderr
    assert "out.npy" not in done.stdout.split()
    assert ".distsum-part" not in done.stdout
    assert not (tmp_path / "out.npy").exists()


def test_memory_stays_under_the_plans_figure(tmp_path):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    block = np.random.default_rng(1).standard_normal(600_000)
    for index in range(60):
        np.save(inputs / f"{index:02}.npy", block)
    for options in (["--memory", "64MiB"], ["--memory", "64MiB", "-p", "5"], ["--memory", "16MiB", "-p", "25"]):
        told = summary("mean", str(inputs), "-o", str(tmp_path / "out.npy"), "--force", *options)
        assert 0 < told["peak_worker_bytes"] <= told["plan"]["worker_bytes"], options


def test_success_removes_what_runs_of_the_job_have_stored_and_nothing_else(tmp_path):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for index in range(30):
        np.save(inputs / f"{index:02}.npy", np.full(1000, float(index)))
    here = tmp_path / "here"
    (here / "jobs").mkdir(parents=True)
    (here / "empty").mkdir()
    theirs = [here / "before", here / "jobs" / "mine", tmp_path / "own.npy.distsum" / "mine"]
    theirs[2].parent.mkdir()
    for path in theirs:
        path.write_text("theirs")
    summary("mean", str(inputs), "-o", "out.npy", "--work-dir", ".", "-p", "5", cwd=here)
    assert sorted(path.name for path in here.iterdir()) == ["before", "empty", "jobs", "out.npy"]
    summary("mean", str(inputs), "-o", "own.npy", cwd=tmp_path)
    summary("mean", str(inputs), "-o", "other.npy", "--work-dir", "made", cwd=tmp_path)
    assert not (tmp_path / "made").exists()
    assert all(path.read_text() == "theirs" for path in theirs)
    assert [path.name for path in theirs[2].parent.iterdir()] == ["mine"]
    # Of another job the partials stay, of an interrupted run of this one they go.
    kept = ("mean", str(inputs), "-o", "kept.npy", "--work-dir", "shared", "-p", "5")
    summary(*kept, "--keep-partials", cwd=tmp_path)
    summary("sum", str(inputs), "-o", "sum.npy", "--work-dir", "shared", "-p", "5", cwd=tmp_path)
    left = {path.name for path in (tmp_path / "shared" / "partials").rglob("*") if path.is_file()}
    assert len(left) == 8
    next((tmp_path / "shared" / "partials").rglob("*/*")).unlink()  # as if it had been interrupted
    summary(*kept, "--force", cwd=tmp_path)
    assert not list((tmp_path / "shared").rglob("*/*"))
