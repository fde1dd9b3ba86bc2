import errno
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from distsum import generate as module
from distsum.errors import JobError, OutputError, StorageError, UsageError
from distsum.generate import generate


def names(folder):
    return sorted(os.listdir(folder))


@pytest.fixture
def always_share(monkeypatch):
    """Make other processes do even the smallest work."""
    monkeypatch.setattr(module, "_ALONE_BYTES", 0)
    monkeypatch.setattr(module, "_ALONE_FILES", 0)


# ------------------------------------------------------------------------------------------------------ what is made


@pytest.mark.parametrize("files", [1, 9, 10, 11, 101])
def test_byte_order_of_the_names_is_numeric_order(tmp_path, files):
    made = generate(tmp_path / "new" / "runs", files=files, count=2, format="raw")
    assert made.files == files
    found = names(tmp_path / "new" / "runs")
    assert [int(name.removesuffix(".raw")) for name in found] == list(range(files))
    assert {len(name) for name in found} == {len(f"{files - 1}.raw")}


@pytest.mark.parametrize("dtype", ["f8", ">f8", "f4", ">f4", "f2", "i1", "u1", "i2", ">u2", "i4", "u8", "i8", "b1"])
def test_npy_and_raw_files_hold_the_dtype_that_was_asked_for(tmp_path, dtype):
    generate(tmp_path / "npy", files=2, count=1001, dtype=dtype)
    generate(tmp_path / "raw", files=2, count=1001, dtype=dtype, format="raw")
    array = np.load(tmp_path / "npy/1.npy")
    assert array.dtype == np.dtype(dtype)
    assert array.shape == (1001,)
    assert array.tobytes() == (tmp_path / "raw/1.raw").read_bytes()
    assert (array != np.load(tmp_path / "npy/0.npy")).any()


def test_byte_order_changes_no_number(tmp_path):
    for dtype in ["f8", "f4", "f2", "c8", "i4", "u2"]:
        generate(tmp_path / dtype, files=1, count=50, dtype=f"<{dtype}")
        generate(tmp_path / f"big-{dtype}", files=1, count=50, dtype=f">{dtype}")
        assert (np.load(tmp_path / dtype / "0.npy") == np.load(tmp_path / f"big-{dtype}" / "0.npy")).all()


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
def test_uniform_floats_fill_zero_to_one_without_one(tmp_path, dtype):
    generate(tmp_path / "runs", files=1, count=300_000, dtype=dtype)
    array = np.load(tmp_path / "runs/0.npy").astype(float)
    assert array.min() >= 0
    assert array.max() < 1
    assert abs(array.mean() - 0.5) < 0.003
    assert abs(array.std() - 12**-0.5) < 0.003


def test_numbers_are_those_of_numpys_own_philox(tmp_path):
    generate(tmp_path / "runs", files=3, count=1000, seed=7)
    ours = np.load(tmp_path / "runs/2.npy")
    key = np.array([7, 2], np.uint64)
    assert (ours == np.random.Generator(np.random.Philox(key=key)).random(1000)).all()


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "c16", "c8"])
def test_normal_numbers_have_mean_zero_and_variance_one(tmp_path, dtype):
    generate(tmp_path / "runs", files=1, count=300_000, dtype=dtype, distribution="normal")
    array = np.load(tmp_path / "runs/0.npy").astype(complex)
    for part in [array.real, array.imag] if "c" in dtype else [array.real]:
        assert abs(part.mean()) < 0.01
        assert abs(part.std() - 1) < 0.01


def test_both_parts_of_a_complex_number_are_random(tmp_path):
    generate(tmp_path / "runs", files=1, count=10_000, dtype="c16")
    array = np.load(tmp_path / "runs/0.npy")
    assert abs(np.corrcoef(array.real, array.imag)[0, 1]) < 0.05
    assert array.imag.std() > 0.2


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_integers_fill_the_whole_range_of_their_dtype(tmp_path, dtype):
    generate(tmp_path / "runs", files=1, count=200_000, dtype=dtype)
    array = np.load(tmp_path / "runs/0.npy")
    limits = np.iinfo(dtype)
    span = limits.max - limits.min
    assert int(array.min()) <= limits.min + span / 1000
    assert int(array.max()) >= limits.max - span / 1000
    assert abs(array.astype(float).mean() - (limits.max + limits.min) / 2) < span / 200


def test_bools_are_both_and_only_zero_or_one_byte(tmp_path):
    generate(tmp_path / "runs", files=1, count=100_000, dtype="b1", format="raw")
    array = np.fromfile(tmp_path / "runs/0.raw", np.uint8)
    assert set(array.tolist()) == {0, 1}
    assert abs(array.mean() - 0.5) < 0.01


def test_text_reads_back_to_the_same_numbers(tmp_path):
    generate(tmp_path / "text", files=2, count=3000, format="text")
    generate(tmp_path / "npy", files=2, count=3000)
    assert (np.loadtxt(tmp_path / "text/1.txt") == np.load(tmp_path / "npy/1.npy")).all()


def test_empty_files_are_legal(tmp_path):
    for form in ["npy", "raw", "text"]:
        assert generate(tmp_path / form, files=2, count=0, format=form).files == 2
    assert np.load(tmp_path / "npy/0.npy").shape == (0,)
    assert (tmp_path / "raw/1.raw").stat().st_size == 0


def test_what_was_made_is_told(tmp_path):
    told = []
    made = generate(tmp_path / "runs", files=3, count=10, format="raw", progress=lambda *done: told.append(done))
    assert (made.files, made.bytes_written, made.others) == (3, 240, 0)
    assert told[-1] == (3, 240)
    assert told == sorted(told)


def test_an_unfinished_file_is_hidden(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_REPORT_BYTES", 1)
    seen = []

    def look(files, _):
        seen.append((files, [name for name in names(tmp_path) if not name.startswith(".")]))

    generate(tmp_path, files=2, count=300_000, workers=1, progress=look)
    assert all(visible in (["0.npy", "1.npy"][:files], ["0.npy", "1.npy"]) for files, visible in seen)
    assert (0, []) in seen


@pytest.mark.usefixtures("always_share")
def test_progress_of_several_processes_adds_up(tmp_path):
    told = []
    size = 3 << 20
    made = generate(
        tmp_path, files=11, count=size // 8, format="raw", workers=3, progress=lambda *done: told.append(done)
    )
    assert told[-1] == (11, 11 * size) == (made.files, made.bytes_written)
    assert told == sorted(told)
    assert len(told) > 4


def test_a_file_larger_than_a_chunk_is_streamed(tmp_path):
    import tracemalloc

    generate(tmp_path / "warm", files=1, count=1)
    tracemalloc.start()
    try:
        generate(tmp_path / "runs", files=1, count=4 << 20)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert (tmp_path / "runs/0.npy").stat().st_size > 32 << 20


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"files": 0}, "--files"),
        ({"files": -3}, "--files"),
        ({"count": -1}, "--count"),
        ({"seed": -1}, "--seed"),
        ({"seed": 1 << 64}, "--seed"),
        ({"workers": 0}, "--workers"),
        ({"dtype": "f3"}, "--dtype"),
        ({"dtype": "O"}, "--dtype"),
        ({"format": "hdf"}, "--format"),
        ({"distribution": "cauchy"}, "--distribution"),
        ({"distribution": "normal", "dtype": "i4"}, "--distribution"),
        ({"distribution": "normal", "dtype": "b1"}, "--distribution"),
        ({"format": "text", "dtype": "c16"}, "text"),
    ],
)
def test_a_bad_value_names_its_option_and_makes_nothing(tmp_path, options, word):
    with pytest.raises(UsageError, match=word) as raised:
        generate(tmp_path / "runs", **({"files": 1, "count": 1} | options))
    assert raised.value.exit_code == 2
    assert not (tmp_path / "runs").exists()


def test_files_to_be_written_are_not_overwritten_without_force(tmp_path):
    (tmp_path / "2.npy").write_bytes(b"mine")
    (tmp_path / "3.txt").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"1 of the 5 files.*2\.npy.*--force"):
        generate(tmp_path, files=5, count=1)
    assert names(tmp_path) == ["2.npy", "3.txt"]
    assert (tmp_path / "2.npy").read_bytes() == b"mine"


def test_other_inputs_in_the_folder_are_refused_because_they_would_mix(tmp_path):
    (tmp_path / "00.npy").touch()
    (tmp_path / "b.csv").touch()
    (tmp_path / "README").touch()
    with pytest.raises(OutputError, match=r"2 other input files.*00\.npy"):
        generate(tmp_path, files=5, count=1)
    assert names(tmp_path) == ["00.npy", "README", "b.csv"]


def test_what_is_no_input_does_not_matter(tmp_path):
    (tmp_path / "README").touch()
    (tmp_path / ".hidden.npy").touch()
    (tmp_path / "folder.npy").mkdir()
    assert generate(tmp_path, files=5, count=1).others == 0


def test_force_replaces_exactly_the_files_it_writes(tmp_path):
    for name in ["0.npy", "4.npy", "5.npy", "b.txt", "README"]:
        (tmp_path / name).write_bytes(b"mine")
    assert generate(tmp_path, files=5, count=1, force=True).others == 2
    kept = {name for name in names(tmp_path) if (tmp_path / name).read_bytes() == b"mine"}
    assert kept == {"5.npy", "b.txt", "README"}
    assert len(names(tmp_path)) == 8


def test_a_folder_in_the_place_of_a_file_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "3.npy").mkdir()
    with pytest.raises(OutputError, match=r"3\.npy is a folder"):
        generate(tmp_path, files=5, count=1, force=True)
    assert names(tmp_path) == ["3.npy"]


def test_a_destination_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="not a folder"):
        generate(tmp_path / "file", files=1, count=1)
    with pytest.raises(OutputError, match="file/deeper"):
        generate(tmp_path / "file" / "deeper", files=1, count=1)
    with pytest.raises(OutputError, match="empty name"):
        generate("", files=1, count=1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_destination_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(OutputError, match="permission"):
        generate(tmp_path / "locked", files=1, count=1)


# ------------------------------------------------------------------------------------------------------ what goes wrong


def test_a_full_disk_is_named_and_leaves_no_unfinished_file(tmp_path, monkeypatch):
    calls = []
    write = os.writev

    def fill(descriptor, buffers):
        calls.append(descriptor)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, buffers)

    monkeypatch.setattr(os, "writev", fill)
    with pytest.raises(StorageError, match=r"disk mounted at .* is full"):
        generate(tmp_path, files=9, count=300_000, format="raw", workers=1)
    assert names(tmp_path) == ["0.raw"]
    assert (tmp_path / "0.raw").stat().st_size == 2_400_000


def test_short_writes_are_continued(tmp_path, monkeypatch):
    generate(tmp_path / "whole", files=1, count=1000)
    write = os.writev
    monkeypatch.setattr(os, "writev", lambda descriptor, buffers: write(descriptor, [bytes(buffers[0])[:77]]))
    generate(tmp_path / "pieces", files=1, count=1000)
    assert (tmp_path / "pieces/0.npy").read_bytes() == (tmp_path / "whole/0.npy").read_bytes()


@pytest.mark.usefixtures("always_share")
def test_what_a_process_fails_with_is_raised_here(tmp_path, monkeypatch):
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); " + module._CHILD
    monkeypatch.setattr(module, "_CHILD", limited)
    with pytest.raises(StorageError, match=r"\.npy"):
        generate(tmp_path, files=4, count=10_000, workers=2)
    assert names(tmp_path) == []


@pytest.mark.usefixtures("always_share")
def test_a_process_that_is_killed_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHILD", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(JobError, match="SIGKILL"):
        generate(tmp_path, files=4, count=10_000, workers=2)


ENDLESS = """
import sys, distsum.generate as module
from distsum.generate import generate

if __name__ == "__main__":
    generate(sys.argv[1], files=10_000, count=1 << 17, workers=2, format=sys.argv[2],
             progress=lambda *done: print(*done, flush=True))
"""


def children_of(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    if int(file.read().rpartition(")")[2].split()[1]) == pid:
                        found.append(int(entry))
            except OSError:
                continue
    return found


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("form", ["npy", "text"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_it_ends_no_process_and_no_unfinished_file_is_left(tmp_path, how, form):
    script = tmp_path / "script.py"
    script.write_text(ENDLESS)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "runs"), form],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        process.stdout.readline()
        workers = children_of(process.pid)
        assert len(workers) == 2
        process.send_signal(how)
        process.wait(20)
        deadline = time.monotonic() + 20
        while (any(map(alive, workers)) or any(name.startswith(".") for name in names(tmp_path / "runs"))) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.01)
        assert not any(map(alive, workers))
        assert not any(name.startswith(".") for name in names(tmp_path / "runs"))
        assert len({(tmp_path / "runs" / name).stat().st_size for name in names(tmp_path / "runs")}) == 1
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_reaches_only_the_process_that_a_person_started(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(ENDLESS)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "runs"), "npy"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    try:
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate(timeout=20)[1].count(b"KeyboardInterrupt") == 1
    finally:
        process.kill()
        process.communicate()


def test_the_work_of_other_processes_needs_no_guard_in_the_callers_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, distsum.generate as module\n"
        "module._ALONE_BYTES = module._ALONE_FILES = 0\n"
        "print(module.generate(sys.argv[1], files=4, count=10, workers=2).files)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "runs")],
        capture_output=True,
        check=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout == b"4\n"
    assert len(names(tmp_path / "runs")) == 4


def test_importing_it_needs_no_numpy():
    code = "import sys, distsum.generate; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"
