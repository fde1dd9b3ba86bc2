"""The Python functions, on real files with real workers, wherever people call them from."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import distsum
from distsum import errors
from distsum.observe.history import History, Replay
from distsum.stores.local import LocalStore
from tests.command import DEADLINE_SECONDS, alive, wait_until, workers
from tests.reference import reference_reduce

FUNCTIONS = {"mean": distsum.mean, "sum": distsum.sum, "min": distsum.min, "max": distsum.max}


def left_behind(temporary):
    """What a call may not leave: threads, workers, open files, signal handlers, temporary folders."""
    return {
        "threads": threading.active_count(),
        "workers": workers(os.getpid()),
        "files": sorted(os.listdir("/proc/self/fd")),
        "handlers": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
        "folders": os.listdir(temporary),
    }


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files, and the check that calls leave nothing in it nor anywhere else."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    before = left_behind(folder)
    yield folder
    after = left_behind(folder)
    # A thread of an earlier test may have ended meanwhile.
    after["threads"] = max(after["threads"], before["threads"])
    assert after == before


def write(folder, arrays):
    folder.mkdir(exist_ok=True)
    for index, array in enumerate(arrays):
        np.save(folder / f"{index:04}.npy", array)
    return folder


def drawn(count, shape, dtype="f8"):
    return [(np.random.default_rng(index).standard_normal(shape) * 100).astype(dtype) for index in range(count)]


@pytest.fixture
def runs(tmp_path):
    """Thirteen files of 7 x 5 numbers: their folder, and the arrays."""
    arrays = drawn(13, (7, 5))
    return write(tmp_path / "runs", arrays), arrays


def same(found, expected):
    return found.dtype == expected.dtype and found.shape == expected.shape and found.tobytes() == expected.tobytes()


# What is returned -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reduction", "dtype"), [("mean", "f8"), ("sum", "i4"), ("min", "f8"), ("max", "u2")])
def test_each_function_returns_its_reduction_in_memory(tmp_path, reduction, dtype):
    arrays = drawn(13, (7, 5), dtype)
    found = FUNCTIONS[reduction](write(tmp_path / "runs", arrays))
    assert same(found, reference_reduce(arrays, 5, reduction))
    assert found.flags.writeable
    assert not isinstance(found, np.memmap)


@pytest.mark.parametrize(
    ("shape", "suffix"),
    [
        ((), None),
        ((), "raw"),
        ((0,), "npy"),
        ((0,), "raw"),
        ((3, 0), "txt"),
        ((3, 0), None),
        ((2, 3, 4), "txt"),
        ((2, 3, 4), None),
    ],
)
def test_every_shape_comes_back_in_memory_and_from_every_format(tmp_path, shape, suffix):
    arrays = drawn(3, shape)
    output = None if suffix is None else tmp_path / f"out.{suffix}"
    assert same(distsum.mean(write(tmp_path / "runs", arrays), output), reference_reduce(arrays, 5, "mean"))


@pytest.mark.parametrize("suffix", ["npy", "raw"])
@pytest.mark.parametrize("fortran", [False, True])
def test_what_is_written_is_returned_as_a_map_that_cannot_be_written(tmp_path, suffix, fortran):
    arrays = [np.asarray(array, order="F" if fortran else "C") for array in drawn(6, (7, 5))]
    output = tmp_path / f"out.{suffix}"
    found = distsum.mean(write(tmp_path / "runs", arrays), output, workers=1)
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable
    assert found.flags.f_contiguous == fortran
    assert np.array_equal(found, reference_reduce(arrays, 5, "mean"))
    assert Path(found.filename) == output
    assert sorted(path.name for path in tmp_path.iterdir()) == [output.name, "runs", "temporary"]


@pytest.mark.parametrize(("dtype", "value"), [("u8", 2**64 - 1), ("i8", -(2**63)), ("f4", 1 / 3)])
def test_text_comes_back_to_the_last_digit(tmp_path, dtype, value):
    array = np.array([value, 0, 7], dtype)
    found = distsum.max(write(tmp_path / "runs", [array]), tmp_path / "out.txt")
    assert found.tolist() == array.tolist()


def test_an_output_is_not_read_again_and_neither_are_the_inputs(tmp_path, runs, monkeypatch):
    # With millions of inputs a second look at each would take as long as the first.
    from distsum.stores.local import LocalStore

    looked = []
    identify = LocalStore.identify
    monkeypatch.setattr(LocalStore, "identify", lambda store, uri: looked.append(uri) or identify(store, uri))
    distsum.mean(runs[0], tmp_path / "out.raw", workers=1)
    assert len(looked) == 13 + 1, "each is pinned, and the first one's header is read before"


def test_plan_and_verify_answer_about_the_same_run(tmp_path, runs):
    folder, _ = runs
    report = distsum.plan(folder, "sum", partition=5, workers=3)
    assert (report.files, report.shape, report.workers) == (13, (7, 5), 3)
    assert [each.partition for each in report.candidates] == [5]
    output = tmp_path / "out.npy"
    distsum.sum(folder, output)
    assert distsum.verify(output, folder, reduction="sum").ok
    wrong = np.load(output)
    wrong[3, 2] += 1
    np.save(output, wrong)
    found = distsum.verify(os.fsencode(output), [folder], reduction="sum", sample=np.int64(100))
    assert not found.ok
    assert found.worst_index == 17


# How things may be given ----------------------------------------------------------------------------------------------


def test_inputs_may_be_named_in_any_way_that_names_files(runs, monkeypatch):
    folder, arrays = runs
    monkeypatch.chdir(folder)
    names = sorted(os.listdir(folder))
    Path("../list.txt").write_text("".join(f"runs/{name}\n" for name in names))
    paths = [folder / name for name in names]
    for inputs in (str(folder), os.fsencode(folder), "*.npy", paths, tuple(names), np.array(names), "@../list.txt"):
        assert distsum.plan(inputs).files == 13
    expected = reference_reduce(arrays, 5, "mean")
    assert same(distsum.mean(folder, workers=1), expected)
    assert same(distsum.mean((name.encode() for name in reversed(names)), workers=1), expected)


def test_options_may_be_of_the_types_that_people_have_at_hand(tmp_path):
    arrays = drawn(30, 11, "f4")
    folder = tmp_path / "raw"
    folder.mkdir()
    for index, array in enumerate(arrays):
        array.tofile(folder / f"{index:02}.bin")
    expected = reference_reduce(arrays, 3, "mean").astype("f4")
    for dtype, whole, size, path in (
        (np.float32, np.int64, "64MiB", Path),
        (np.dtype("<f4"), int, 64 << 20, str),
        ("float32", np.uint8, np.int64(64 << 20), os.fsencode),
    ):
        found = distsum.mean(
            folder,
            path(tmp_path / "out.npy"),
            dtype=dtype,
            out_dtype=dtype,
            workers=whole(2),
            partition=whole(9),
            fan_in=whole(3),
            tiles=whole(2),
            max_open_files=whole(3),
            memory=size,
            work_dir=path(tmp_path / "work"),
            keep_partials=True,
            format="raw",
            on_bad_input="fail",
            force=True,
        )
        assert same(np.asarray(found), expected)
        assert (tmp_path / "work" / "partials").is_dir()


def test_none_leaves_a_choice_open(runs):
    folder, arrays = runs
    nothing = dict.fromkeys(("workers", "partition", "tiles", "work_dir", "dtype", "out_dtype"))
    assert same(distsum.mean(folder, None, **nothing), reference_reduce(arrays, 5, "mean"))


def test_a_history_tells_what_happened_and_speculation_is_what_was_asked_for(tmp_path, runs):
    folder, arrays = runs
    for name, given in (("a", False), ("b", {"quantile": 0.5, "few": 10}), ("c", "multiplier=3")):
        found = distsum.mean(folder, workers=1, partition=5, speculation=given, history=tmp_path / name)
        assert same(found, reference_reduce(arrays, 5, "mean"))
        with LocalStore().open(bytes(tmp_path / name)) as reader:
            replay = Replay(History(reader))
        assert replay.remark is None
        assert replay.tally.snapshot(replay.seconds).finished
        assert replay.header.files == len(arrays)
    with pytest.raises(distsum.OutputError, match="exists"):
        distsum.mean(folder, history=tmp_path / "a")


@pytest.mark.parametrize("function", [distsum.mean, distsum.plan])
def test_an_unknown_option_is_a_type_error_that_names_it_and_those_there_are(runs, function):
    with pytest.raises(TypeError, match=r"no option 'wokers'; there are workers, partition"):
        function(runs[0], wokers=2)
    with pytest.raises(TypeError, match="wokers"):
        distsum.verify("x.npy", runs[0], wokers=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": "two"}, r"^workers 'two': must be a whole number"),
        ({"workers": 1.5}, r"^workers 1.5: must be a whole number"),
        ({"fan_in": None}, r"^fan_in None: must be a whole number"),
        ({"memory": "lots"}, r"^memory 'lots': must be bytes, or a size such as"),
        ({"memory": 0}, r"^memory 0: must be"),
        ({"memory": 1.5}, r"^memory 1.5: must be"),
        ({"format": "csv"}, r"no format 'csv'; there are npy, raw, text"),
        ({"dtype": "f3"}, r"^dtype 'f3': cannot be reduced; accepted are bool"),
        ({"dtype": object()}, r"^dtype <object"),
        ({"out_dtype": np.dtype("M8[s]")}, r"^out_dtype dtype\('<M8\[s\]'\): cannot be reduced"),
        ({"on_bad_input": "ignore"}, r"^on_bad_input 'ignore': must be 'fail' or 'skip'"),
        ({"on_bad_input": ["skip"]}, r"^on_bad_input \['skip'\]: must be"),
        ({"force": "no"}, r"^force 'no': must be True or False"),
        ({"keep_partials": 1}, r"^keep_partials 1: must be True or False"),
        ({"work_dir": ""}, r"^work_dir '': must name a folder"),
        ({"work_dir": b"\0"}, r"^work_dir b'.x00': must name a folder"),
        ({"history": ""}, r"^history '': must name a file"),
        ({"speculation": "quantile=2"}, r"^speculation 'quantile=2': quantile 2 must be a number from 0 to 1"),
        ({"speculation": {"quantil": 1}}, r"quantil is no key of it; did you mean quantile\?"),
        ({"speculation": {"few": True}}, r"few True must be a whole number"),
        ({"speculation": 3}, r"^speculation 3: must be text, a mapping, True or False"),
    ],
)
def test_a_value_that_is_not_acceptable_is_a_configuration_error_that_names_the_option(runs, options, words):
    with pytest.raises(distsum.ConfigurationError, match=words):
        distsum.mean(runs[0], **options)
    with pytest.raises(distsum.ConfigurationError, match=words):
        distsum.plan(runs[0], **options)


@pytest.mark.parametrize(
    "options", [{"sample": "x"}, {"seed": 1.5}, {"fan_in": "5"}, {"on_bad_input": "no"}, {"dtype": "x"}]
)
def test_verify_refuses_what_is_not_acceptable_too(runs, options):
    (name,) = options
    with pytest.raises(distsum.ConfigurationError, match=f"^{name} "):
        distsum.verify(runs[0] / "0000.npy", runs[0], **options)


# What is raised -------------------------------------------------------------------------------------------------------


def test_every_documented_error_can_be_caught_by_its_public_name():
    public = {name for name in dir(distsum) if name.endswith("Error")}
    documented = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert documented - public == {"PartialError", "SupersededError"}, "which never leave the engine and the master"
    assert all(getattr(distsum, name) is getattr(errors, name) for name in public)
    assert not hasattr(distsum, "no_such_name")


def test_what_cannot_be_done_is_told_by_its_class_before_anything_runs(tmp_path, runs):
    folder, _ = runs
    (tmp_path / "there.npy").touch()
    for expected, call in {
        distsum.InputListError: lambda: distsum.mean("nowhere/*.npy"),
        distsum.OutputError: lambda: distsum.mean(folder, tmp_path / "there.npy"),
        distsum.PlanError: lambda: distsum.mean(folder, partition=7),
        distsum.UsageError: lambda: distsum.plan(folder, "median"),
    }.items():
        with pytest.raises(distsum.UsageError) as caught:
            call()
        assert type(caught.value) is expected
        assert caught.value.exit_code == 2
    for nothing in ([], (), iter(())):
        with pytest.raises(distsum.InputListError, match="no inputs are named"):
            distsum.mean(nothing)
    for output in ("", "no-suffix", tmp_path / "no folder" / "out.npy", tmp_path / "nul\0.npy"):
        with pytest.raises(distsum.OutputError):
            distsum.mean(folder, output)


def test_a_bad_input_is_raised_with_its_name_or_left_out(runs):
    folder, arrays = runs
    (folder / "0005.npy").write_bytes(b"no array at all")
    with pytest.raises(distsum.BadInputError, match=r"0005\.npy") as caught:
        distsum.mean(folder)
    assert caught.value.uri == os.fsencode(folder / "0005.npy")
    # A tree over what is left pairs other files, so this is compared by value.
    left = [array for index, array in enumerate(arrays) if index != 5]
    np.testing.assert_allclose(distsum.mean(folder, on_bad_input="skip"), np.mean(left, axis=0), rtol=1e-13)


def test_an_inexact_sum_names_its_index(tmp_path):
    array = np.full(10, 1, "i8")
    array[7] = 2**63 - 1
    with pytest.raises(distsum.InexactError, match="index 7"):
        distsum.sum(write(tmp_path / "runs", [array, array]))


def test_a_work_folder_in_use_is_said_at_once(tmp_path, runs):
    import fcntl

    work = tmp_path / "work"
    work.mkdir()
    with open(work / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(distsum.WorkDirBusyError, match="in use by another run"):
            distsum.mean(runs[0], work_dir=work)


PLANT = """
import os, signal, sys, time
if "distsum.worker" in sys.orig_argv:
    def watch(event, arguments):
        if event == "open" and b".npy" in os.fsencode(str(arguments[0])) and {condition}:
            {action}
    sys.addaudithook(watch)
"""
"""A sitecustomize.py for workers, which does something when an input is opened."""


def plant(folder, condition, action):
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(PLANT.format(condition=condition, action=action))
    return folder


def test_a_worker_that_dies_is_replaced(tmp_path, runs, monkeypatch):
    folder, arrays = runs
    once = tmp_path / "once"
    once.touch()
    # Whoever comes to the ninth file first removes the mark, and dies.
    condition = f"b'0008' in os.fsencode(str(arguments[0])) and os.path.exists({str(once)!r})"
    action = f"os.unlink({str(once)!r}); os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.syspath_prepend(plant(tmp_path / "plant", condition, action))
    assert same(distsum.mean(folder, partition=5, workers=2), reference_reduce(arrays, 5, "mean"))
    assert not once.exists()


def test_a_task_that_kills_every_worker_is_raised_by_name(tmp_path, runs, monkeypatch):
    condition, action = "b'0008' in os.fsencode(str(arguments[0]))", "os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.syspath_prepend(plant(tmp_path / "plant", condition, action))
    with pytest.raises(distsum.TaskAbandonedError, match=r"0008\.npy"):
        distsum.mean(runs[0], partition=5, workers=1)


def test_a_worker_that_fails_is_raised_with_what_it_said(tmp_path, runs, monkeypatch):
    monkeypatch.syspath_prepend(plant(tmp_path / "plant", "True", "raise RuntimeError('planted')"))
    with pytest.raises(distsum.JobError, match=r"0000\.npy.*RuntimeError: planted"):
        distsum.mean(runs[0], workers=1)


# Where it may be called from ------------------------------------------------------------------------------------------


def test_one_process_calls_again_and_again(runs):
    folder, arrays = runs
    for reduction in ("mean", "sum", "mean"):
        assert same(FUNCTIONS[reduction](folder, workers=1), reference_reduce(arrays, 5, reduction))


def test_a_running_event_loop_is_no_harm(runs):
    folder, arrays = runs

    async def notebook():
        other = asyncio.create_task(asyncio.sleep(0, "still there"))
        found = distsum.mean(folder, workers=1)
        with pytest.raises(distsum.PlanError):
            distsum.mean(folder, partition=7)
        with pytest.raises(distsum.UsageError):
            distsum.min(folder, out_dtype="i4")
        return found, await other

    found, other = asyncio.run(notebook())
    assert same(found, reference_reduce(arrays, 5, "mean"))
    assert other == "still there"


def test_an_error_of_the_job_comes_through_a_running_event_loop(runs):
    (runs[0] / "0012.npy").write_bytes(b"bad")

    async def notebook():
        return distsum.mean(runs[0])

    with pytest.raises(distsum.BadInputError, match="0012"):
        asyncio.run(notebook())


def test_a_coroutine_may_leave_it_to_a_thread(runs):
    folder, arrays = runs

    async def service():
        return await asyncio.gather(*(asyncio.to_thread(FUNCTIONS[name], folder, workers=1) for name in ("min", "max")))

    smallest, largest = asyncio.run(service())
    assert same(smallest, reference_reduce(arrays, 5, "min"))
    assert same(largest, reference_reduce(arrays, 5, "max"))


def test_several_threads_call_at_once(tmp_path, runs):
    folder, arrays = runs
    with ThreadPoolExecutor(4) as pool:
        outputs = [None, tmp_path / "a.npy", None, tmp_path / "b.npy"]
        calls = [
            pool.submit(FUNCTIONS[name], folder, output, workers=1)
            for name, output in zip(FUNCTIONS, outputs, strict=True)
        ]
        for name, call in zip(FUNCTIONS, calls, strict=True):
            assert same(np.asarray(call.result(DEADLINE_SECONDS)), reference_reduce(arrays, 5, name))


def test_the_signal_handlers_of_a_script_are_given_back(runs):
    # Whatever they were: the fixture compares what it finds with what was there.
    def mine(number, frame):
        raise AssertionError

    before = signal.signal(signal.SIGTERM, mine), signal.signal(signal.SIGINT, mine)
    try:
        distsum.mean(runs[0], workers=1)
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == (mine, mine)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


SCRIPT = """
import distsum
print(distsum.mean("runs", "out.npy", workers=2, partition=5).tolist())
"""
LOOP_SCRIPT = """
import asyncio, distsum
async def main():
    print(distsum.mean("runs", "out.npy", workers=2, partition=5).tolist())
asyncio.run(main())
"""
MEMORY_SCRIPT = SCRIPT.replace('"out.npy", ', "")


@contextlib.contextmanager
def script(text, folder, temporary, *path):
    """Start a script without a main guard; it and its workers are gone afterwards."""
    file = folder / "script.py"
    file.write_text(text)
    environment = dict(os.environ) | {"TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, str(file)]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        for pid in [*workers(process.pid), process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("text", [SCRIPT, LOOP_SCRIPT, MEMORY_SCRIPT], ids=["plain", "loop", "memory"])
def test_a_script_needs_no_main_guard(tmp_path, runs, temporary, text):
    with script(text, tmp_path, temporary) as process:
        printed, complaints = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0, complaints
    assert complaints == ""
    assert printed == f"{reference_reduce(runs[1], 5, 'mean').tolist()}\n"


@pytest.mark.parametrize(
    ("text", "number"),
    [(SCRIPT, signal.SIGINT), (SCRIPT, signal.SIGTERM), (LOOP_SCRIPT, signal.SIGINT), (MEMORY_SCRIPT, signal.SIGINT)],
    ids=["plain", "terminated", "loop", "memory"],
)
def test_an_interrupted_script_ends_its_workers_and_says_what_is_kept(tmp_path, temporary, text, number):
    arrays = drawn(200, 10)
    write(tmp_path / "runs", arrays)
    slow = plant(tmp_path / "plant", "b'/runs/' in os.fsencode(str(arguments[0]))", "time.sleep(0.05)")
    work = temporary if text is MEMORY_SCRIPT else tmp_path / "out.npy.distsum"

    def partials():
        return [path for path in work.rglob("partials/*/*") if ".tmp" not in path.name]

    with script(text, tmp_path, temporary, slow) as process:
        wait_until(lambda: len(partials()) >= 4, "4 partials")
        theirs = workers(process.pid)
        assert len(theirs) == 2
        process.send_signal(number)
        _, complaints = process.communicate(timeout=DEADLINE_SECONDS)
    assert not any(map(alive, theirs))
    assert process.returncode
    assert "InterruptedRunError: interrupted" in complaints
    if text is MEMORY_SCRIPT:
        assert "what was done is not kept" in complaints
        assert os.listdir(temporary) == []
        return
    assert "the same command goes on" in complaints
    assert not (tmp_path / "out.npy").exists()
    if text is not SCRIPT or number != signal.SIGINT:
        return
    # The same call goes on from there, without what made its workers slow.
    with script(SCRIPT, tmp_path, temporary) as process:
        printed, complaints = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0, complaints
    assert printed == f"{reference_reduce(arrays, 5, 'mean').tolist()}\n"


def test_an_interrupt_that_comes_before_the_run_has_begun_ends_it(runs, tmp_path):
    from distsum.embedded import _Run, _run_loop
    from distsum.jobs import Job
    from distsum.preparation import prepare
    from distsum.request import Options
    from distsum.stores.local import LocalStore

    inputs = [os.fsencode(path) for path in sorted(runs[0].iterdir())]
    store, output = LocalStore(), tmp_path / "out.npy"
    prepared = prepare("mean", inputs, os.fsencode(output), Options(), store)
    run = _Run(Job(prepared.record, prepared.manifest, store), store, 1, 0.0, None, None, None)
    run.interrupt()
    with pytest.raises(distsum.InterruptedRunError):
        _run_loop(run)
    assert not output.exists()
