"""Inputs, outputs and requests that are no good: what is said of each, how the command ends, and what is left out."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import subprocess
from functools import partial

import numpy as np
import pytest

from tests.command import COMMAND, distsum, environment, summary, together, under_way, with_mounts
from tests.reference import reference_reduce


def npy(array):
    """Return the bytes of an .npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def header(text, version=1):
    """Return an npy header around a dictionary's text."""
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode()


def good(index):
    return np.random.default_rng(index).standard_normal((2, 3))


GIGABYTE = b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 30) + b"{'descr': '<f8', 'fortran_order': False, "
FILES, BAD = 7, 3
"""Every case has so many inputs, of which this one is bad."""

CASES = {
    "longer": ("npy", npy(np.ones((2, 4))), "shape (2, 4), where the first input has (2, 3)"),
    "another shape": ("npy", npy(np.ones((3, 2))), "shape (3, 2), where the first input has (2, 3)"),
    "memory order": (
        "npy",
        npy(np.asfortranarray(good(0))),
        "Fortran memory order, where the first input has C order",
    ),
    "objects": ("npy", npy(np.full((2, 3), None, object)), "holds Python objects, which are never unpickled"),
    "records": ("npy", npy(np.ones((2, 3), "f8,i4")), "holds records of several fields"),
    "cut in its numbers": ("npy", npy(good(3))[:-9], "was cut short: its header declares shape (2, 3) of <f8"),
    "cut in its header": ("npy", npy(good(3))[:70], "was cut short: it has 70 bytes, and its npy header declares 128"),
    "declares too much": (
        "npy",
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 99999999999), }\n") + bytes(48),
        "its header declares shape (2, 99999999999) of <f8, which is 1599999999984 bytes, and 48 follow",
    ),
    "header of a gigabyte": ("npy", GIGABYTE, "its npy header declares 1073741836 bytes, and at most 65536 are read"),
    "odd size": ("raw", bytes(47), "has 47 bytes, which is not a multiple of the 8 bytes of one <f8 number"),
    "another length": ("raw", bytes(56), "shape (7,), where the first input has (6,)"),
    "a word": ("txt", b"1 2\n# fine\n3 4 \x1b[1mfive 6\n", r"line 3: '\x1b[1mfive' is not a number"),
    "too many": ("txt", b"1 2 3\n4 5 6 7\n", "holds at least 7 numbers, where 6 are expected"),
    "missing": ("csv", b"1,2,3\n4,,6\n", "line 2: a comma with no number before it; an empty field is missing data"),
}


class Case:
    """One kind of bad input among good ones, and the commands that are run over them.

    Attributes:
        uri: The bad input.
        fail: What ``mean`` gave.
        skip: What ``mean --on-bad-input skip`` gave.
        verify: What ``verify --on-bad-input skip`` gave of that result.
    """

    def __init__(self, folder, suffix, content):
        self.inputs = folder / "inputs"
        self.inputs.mkdir(parents=True)
        self.out = folder / "out.npy"
        for index in range(FILES):
            path = self.inputs / f"{index}.{suffix}"
            numbers = good(index)
            if index == BAD:
                path.write_bytes(content)
                self.uri = str(path)
            elif suffix == "npy":
                np.save(path, numbers)
            elif suffix == "raw":
                numbers.tofile(path)
            else:
                path.write_text("\n".join(map(repr, numbers.ravel().tolist())))
        if content == GIGABYTE:  # and as large as it says; a sparse file takes no room
            os.truncate(self.uri, len(content) + (1 << 30))
        options = ["--dtype", "f8"] if suffix == "raw" else []
        self.command = [str(self.inputs), *options]
        arrays = [None if index == BAD else good(index) for index in range(FILES)]
        expected = reference_reduce(arrays, 5, "mean")
        self.expected = expected if suffix == "npy" else expected.ravel()

    def run(self):
        options = ("-o", str(self.out), "-p", "5", "-w", "1")
        self.fail = distsum("mean", *self.command, *options)
        self.left = sorted(path.name for path in self.out.parent.iterdir())
        skip = ("--on-bad-input", "skip")
        self.skip = distsum("mean", *self.command, *options, *skip, "--json")
        self.verify = distsum("verify", str(self.out), *self.command, *skip)
        return self


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Every case, as the future of its run."""
    made = {
        name: Case(tmp_path_factory.mktemp("case"), suffix, content) for name, (suffix, content, _) in CASES.items()
    }
    with under_way({name: case.run for name, case in made.items()}) as futures:
        yield futures


@pytest.mark.parametrize("name", CASES)
def test_a_bad_input_fails_the_job_and_is_named_with_what_is_wrong(cases, name):
    case = cases[name].result()
    assert (case.fail.returncode, case.fail.stdout) == (1, "")
    *_, last = case.fail.stderr.splitlines()
    assert last.startswith(f"distsum: {case.uri}: ")
    assert CASES[name][2] in last
    assert last.count(case.uri) == 1
    assert "Traceback" not in case.fail.stderr
    assert case.left in (["inputs"], ["inputs", "out.npy.distsum"])


@pytest.mark.parametrize("name", CASES)
def test_a_bad_input_is_left_out_on_request_and_told_of(cases, name):
    case = cases[name].result()
    assert case.skip.returncode == 0, case.skip.stderr
    told = json.loads(case.skip.stdout)
    assert told["files"] == FILES
    assert [each["uri"] for each in told["skipped"]] == [case.uri]
    assert CASES[name][2] in told["skipped"][0]["reason"]
    *_, before, last = case.skip.stderr.splitlines()
    assert before == f"left out 1 bad input of {FILES}:"
    assert last == f"  {case.uri}: {told['skipped'][0]['reason']}"
    assert told["peak_worker_bytes"] <= told["plan"]["worker_bytes"]
    assert np.load(case.out).tobytes() == case.expected.tobytes()


@pytest.mark.parametrize("name", CASES)
def test_verify_agrees_about_what_is_left(cases, name):
    case = cases[name].result()
    done = case.verify
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"mean of {FILES - 1} files: within the bound\nchecked exactly at 6 of 6 indices\n")
    assert f"left out 1 bad input of {FILES}:\n  {case.uri}: " in done.stdout


def test_a_header_of_a_gigabyte_is_not_held_in_memory_by_anyone(cases):
    case = cases["header of a gigabyte"].result()
    # By the process that plans, which looks at the first input, and by a worker.
    for inputs in ([case.uri], [str(case.inputs / "0.npy"), case.uri]):
        command = [*COMMAND, "mean", *inputs, "-o", f"{case.out}.2.npy", "--quiet"]
        process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
        with process:
            words = process.stderr.read()
            _, status, used = os.wait4(process.pid, 0)  # of itself and of the workers it has waited for
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 1
        assert "declares 1073741836 bytes" in words
        assert used.ru_maxrss < 300 << 10


def test_the_first_bad_input_is_named_whoever_comes_across_one_first(tmp_path):
    inputs, plant = tmp_path / "inputs", tmp_path / "plant"
    inputs.mkdir()
    plant.mkdir()
    for index in range(40):
        # The same size as the others, so that only workers see what they are.
        array = np.asfortranarray(good(index)) if index in {6, 33, 38} else good(index)
        np.save(inputs / f"{index:02}.npy", array)
    # The worker that should come across the first stands still before it.
    (plant / "sitecustomize.py").write_text(
        "import signal, sys\n"
        "if 'distsum.worker' in sys.orig_argv:\n"
        "    def watch(event, given):\n"
        "        if event == 'open' and isinstance(given[0], bytes) and b'06.npy' in given[0]:\n"
        "            signal.pause()\n"
        "    sys.addaudithook(watch)\n"
    )
    out = str(tmp_path / "o.npy")
    done = distsum("mean", str(inputs), "-o", out, "-p", "5", "-w", "2", env={"PYTHONPATH": str(plant)})
    assert done.returncode == 1
    assert f"{inputs}/06.npy: Fortran memory order" in done.stderr


def test_the_first_good_input_decides_and_where_there_is_none_the_job_fails(tmp_path):
    for name, content in [("0", b"junk"), ("1", b""), ("2", npy(good(2))), ("3", npy(np.ones(7))), ("4", npy(good(4)))]:
        (tmp_path / f"{name}.npy").write_bytes(content)
    skip = ("--on-bad-input", "skip")
    told = summary("mean", "0.npy", "1.npy", "2.npy", "3.npy", "4.npy", "-o", "o.npy", *skip, cwd=tmp_path)
    assert [os.path.basename(each["uri"]) for each in told["skipped"]] == ["0.npy", "1.npy", "3.npy"]
    expected = reference_reduce([None, None, good(2), None, good(4)], 5, "mean")
    assert np.load(tmp_path / "o.npy").tobytes() == expected.tobytes()
    done = distsum("mean", "0.npy", "1.npy", "-o", "p.npy", *skip, cwd=tmp_path)
    assert done.returncode == 1
    assert f"every input is bad; the first: {tmp_path}/0.npy: begins with 'junk'" in done.stderr
    # A text file is only known to be bad when it has been read to its end.
    (tmp_path / "0.txt").write_text("1 2\n")
    (tmp_path / "1.txt").write_text("1 2 3\n")
    os.truncate(tmp_path / "0.txt", 2)
    told = summary("mean", "0.txt", "1.txt", "-o", "q.npy", *skip, cwd=tmp_path)
    assert np.load(tmp_path / "q.npy").tolist() == [1.0]


def test_of_many_bad_inputs_some_are_listed_and_all_are_in_the_json(tmp_path):
    for index in range(60):
        (tmp_path / f"{index:02}.npy").write_bytes(npy(good(index)) if index % 2 else b"bad")
    done = distsum("mean", ".", "-o", "../many.npy", "-p", "5", "--on-bad-input", "skip", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [each["uri"][-6:] for each in told["skipped"]] == [f"{index:02}.npy" for index in range(0, 60, 2)]
    lines = done.stderr.splitlines()
    place = lines.index("left out 30 bad inputs of 60:")
    assert [line.split(":")[0][-6:] for line in lines[place + 1 : -1]] == [
        f"{index:02}.npy" for index in range(0, 40, 2)
    ]
    assert lines[-1] == "  and 10 more, all in the output of --json"
    arrays = [good(index) if index % 2 else None for index in range(60)]
    assert np.load(tmp_path.parent / "many.npy").tobytes() == reference_reduce(arrays, 5, "mean").tobytes()


def test_partials_without_a_bad_input_do_not_hide_it_from_a_job_that_must_fail(tmp_path):
    for index in range(6):
        (tmp_path / f"{index}.npy").write_bytes(npy(np.asfortranarray(good(index)) if index == 4 else good(index)))
    shared = ("--work-dir", "work", "--keep-partials", "-p", "5")
    summary("mean", "[0-9].npy", "-o", "o.npy", *shared, "--on-bad-input", "skip", cwd=tmp_path)
    done = distsum("mean", "[0-9].npy", "-o", "p.npy", *shared, cwd=tmp_path)
    assert done.returncode == 1
    assert "4.npy: Fortran memory order" in done.stderr
    assert not (tmp_path / "p.npy").exists()


# What names no input, or no output ------------------------------------------------------------------------------------


def test_inputs_that_are_not_there_end_with_2_and_the_pattern_is_named(tmp_path):
    np.save(tmp_path / "a.npy", good(0))
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.md").touch()
    (tmp_path / "nothing.txt").write_text("# nothing\n\n")
    (tmp_path / "list.txt").write_text("a.npy\nb.npy\n")
    wanted = {
        "no.npy": "no.npy: no such file or folder",
        "no*.npy": "no*.npy: this pattern matches no file",
        "a.npy/b.npy": "a.npy/b.npy: no such file or folder",
        "empty": "empty: this folder holds no file",
        "folder": "folder: none of the files in this folder has a known suffix",
        "@nothing.txt": "nothing.txt: this manifest lists no file",
        "@no.txt": "manifest no.txt: no such file",
        "@list.txt": f"{tmp_path}/b.npy: no such file",
        "": "an input is an empty name",
    }
    before = sorted(tmp_path.rglob("*"))
    calls = {name: partial(distsum, "mean", "a.npy", name, "-o", "o.npy", cwd=tmp_path) for name in wanted}
    calls["none"] = partial(distsum, "mean", "-o", "o.npy", cwd=tmp_path)
    # It is no bad input that could be left out.
    skip = ("--on-bad-input", "skip")
    calls["skip"] = partial(distsum, "mean", "a.npy", "no.npy", "-o", "o.npy", *skip, cwd=tmp_path)
    wanted |= {"none": "no inputs are named", "skip": wanted["no.npy"]}
    for name, done in together(calls).items():
        assert (done.returncode, done.stdout) == (2, ""), name
        assert done.stderr.startswith(f"distsum: {wanted[name]}")
        assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_that_cannot_be_ends_with_2_before_any_work(tmp_path):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for index in range(3):
        np.save(inputs / f"{index}.npy", good(index))
    (tmp_path / "there.npy").write_bytes(b"precious")
    (tmp_path / "link.npy").symlink_to("gone.npy")
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "other.npy").symlink_to("inputs/1.npy")
    long = "x" * 245 + ".npy"
    wanted = {
        "there.npy": "there.npy exists; use --force to replace it",
        "link.npy": "link.npy exists; use --force to replace it",
        "no/out.npy": f"no/out.npy: there is no folder {tmp_path}/no; make it first",
        "there.npy/out.npy": f"there.npy/out.npy: there is no folder {tmp_path}/there.npy; make it first",
        "folder.npy": "folder.npy is a folder; name a file in it",
        "inputs/1.npy": "inputs/1.npy is one of the inputs; choose another output",
        "other.npy": "other.npy is one of the inputs; choose another output",
        "/proc/out.npy": "/proc/out.npy: no file of this name can be written into /proc",
        long: f"{long}: no file of this name can be written into {tmp_path} (File name too long)",
    }
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    calls = {name: partial(distsum, "mean", "inputs", "-o", name, "--work-dir", "w", cwd=tmp_path) for name in wanted}
    for name in ("inputs/1.npy", "other.npy", "folder.npy"):
        calls[name] = partial(distsum, "mean", "inputs", "-o", name, "--work-dir", "w", "--force", cwd=tmp_path)
    for name, done in together(calls).items():
        assert (done.returncode, done.stdout) == (2, ""), name
        assert done.stderr.startswith(f"distsum: {wanted[name]}"), name
        assert done.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (
            ["generate", "file:///data", "--files", "2", "--count", "3"],
            "'file://' is not known: name it by its path, /data",
        ),
        (["mean", "good.npy", "-o", "file:///r.npy"], "'file://' is not known: name it by its path, /r.npy"),
        (["mean", "good.npy", "-o", "r.npy", "--work-dir", "gs://b/w"], "'gs://' is not known, only s3:// and paths"),
        (["mean", "https://host/a.npy", "-o", "r.npy"], "'https://' is not known, only s3:// and paths"),
        (["mean", "S3://bucket/*.npy", "-o", "r.npy"], "'S3://' is not known, only s3:// and paths"),
        (["gc", "file:///w"], "'file://' is not known: name it by its path, /w"),
    ],
)
def test_an_uri_of_another_kind_is_refused_and_makes_no_folder_of_that_name(tmp_path, command, name):
    (tmp_path / "good.npy").write_bytes(npy(good(0)))
    done = distsum(*command, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert name in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["good.npy"]


def test_a_file_whose_name_looks_like_an_uri_is_named_from_its_folder(tmp_path):
    (tmp_path / "gs:").mkdir()
    (tmp_path / "gs:" / "good.npy").write_bytes(npy(good(0)))
    done = distsum("mean", "./gs://good.npy", "-o", "./gs://result.npy", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "gs:" / "result.npy"), good(0))


@pytest.mark.parametrize("where", ["output", "work folder"])
def test_a_disk_that_is_mounted_for_reading_only_ends_with_2(tmp_path, where, missing_service):
    disk = tmp_path / "disk"
    disk.mkdir()
    np.save(tmp_path / "a.npy", good(0))
    out, work = (disk / "o.npy", tmp_path / "w") if where == "output" else (tmp_path / "o.npy", disk / "w")
    script = 'mount -t tmpfs -o ro tmpfs "$1"; shift; exec "$@"'
    command = [*COMMAND, "mean", str(tmp_path / "a.npy"), "-o", str(out), "--work-dir", str(work)]
    done = with_mounts(missing_service, script, str(disk), *command)
    assert done.returncode == 2, done.stderr
    assert "Read-only file system" in done.stderr
    assert str(disk) in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "disk"]


# Plans that cannot be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--memory", "1MiB"], "because 1 accumulator takes 3.8 MiB; buffers and reserve take 7.0 MiB; raise --memory"),
        (["--memory", "12MiB", "-p", "25"], "because 2 accumulators take 7.6 MiB; buffers"),
    ],
)
def test_too_little_memory_ends_with_2_and_what_is_asked_for_is_enough(tmp_path, options, words):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for index in range(6):
        np.save(inputs / f"{index}.npy", np.full(500_000, index, "f8"))
    arguments = ["mean", "inputs", "-o", "o.npy", "--tiles", "1"]
    done = distsum(*arguments, *options, cwd=tmp_path)
    assert done.returncode == 2
    assert f"--memory {float(options[1][:-3])} MiB is too little: a worker needs at least" in done.stderr
    assert words in done.stderr
    assert "or ask for more than 1 tile" in done.stderr
    needed = re.search(r"raise --memory to (\d+MiB)", done.stderr)[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inputs"]
    told = summary(*arguments, *options[2:], "--memory", needed, cwd=tmp_path)
    assert told["peak_worker_bytes"] <= told["plan"]["worker_bytes"] <= int(needed[:-3]) << 20


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            ["mean", "a.npy", "-o", "o.npy", "-p", "30"],
            "partition 30 is not a power of the fan-in 5; the nearest are 25 and 125",
        ),
        (["plan", "a.npy", "-p", "4"], "partition 4 is less than the fan-in 5; the nearest is 5"),
        (
            ["max", "a.npy", "-o", "o.npy", "-p", "9", "--fan-in", "4"],
            "partition 9 is not a power of the fan-in 4; the nearest are 4 and 16",
        ),
    ],
)
def test_a_partition_that_is_no_power_of_the_fan_in_ends_with_2_and_the_nearest_are_named(tmp_path, command, words):
    np.save(tmp_path / "a.npy", good(0))
    done = distsum(*command, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"distsum: {words}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


# Names ----------------------------------------------------------------------------------------------------------------

HOSTILE = [
    b"with space.npy",
    b" .npy",
    b"a[1]*?.npy",
    b"new\nline.npy",
    b"return\r.npy",
    b"\x1b[31mred\x1b]0;title\x07.npy",
    b"\xff\xfe.npy",
    b"\xc2\x9bcsi.npy",
    "\u202egnp.npy".encode(),
    b"-o.npy",
    b"--help.npy",
    b"@list.npy",
    b"'\"$HOME`.npy",
    b"{0}%s\\n.npy",
    "mäßig ☃.npy".encode(),
]
MEAN = [np.mean(np.arange(len(HOSTILE)) ** 2)] * 4
"""Of all of them, where each holds the square of its place."""


def harmless(done):
    """Whether a terminal could be shown what a command printed: text of one line after the other and nothing else."""
    for output in (done.stdout, done.stderr):
        text = output.decode()
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text), output
    return True


def test_names_of_any_bytes_work_and_are_shown_harmlessly(tmp_path):
    folder = os.fsencode(tmp_path / "inputs")
    os.mkdir(folder)
    for number, name in enumerate(HOSTILE):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(npy(np.full(4, number**2, "f8")))
    result = os.fsdecode(b"../r\xff\x1b[2J\n.npy")
    named = [os.fsdecode(b"./" + name) for name in HOSTILE]
    at = {"cwd": folder, "text": False}
    done = together(
        {
            "mean": partial(distsum, "mean", *named, "-o", result, "--json", **at),
            "pattern": partial(distsum, "mean", "*", "-o", "../p.npy", **at),
            "plan": partial(distsum, "plan", *named, **at),
        }
    )
    for name, each in done.items():
        assert each.returncode == 0, (name, each.stderr)
        assert harmless(each)
    told = json.loads(done["mean"].stdout)
    assert os.fsencode(told["output"]) == os.path.join(os.fsencode(tmp_path), b"r\xff\x1b[2J\n.npy")
    with open(told["output"], "rb") as file:
        assert np.load(file).tolist() == MEAN
    assert np.load(tmp_path / "p.npy").tolist() == MEAN
    # All are bad now but two: every name is told.
    for name in HOSTILE[1:-1]:
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"\x1b[31mno array")
    skip = ("--on-bad-input", "skip")
    done = together(
        {
            "skip": partial(distsum, "mean", ".", "-o", "../s.npy", *skip, "--json", **at),
            "fail": partial(distsum, "mean", ".", "-o", "../f.npy", **at),
            "exists": partial(distsum, "mean", ".", "-o", result, **at),
            "missing": partial(distsum, "mean", os.fsdecode(b"\x1b[31m\xff"), "-o", "../m.npy", **at),
            "verify": partial(distsum, "verify", "../p.npy", ".", *skip, **at),
        }
    )
    assert {name: each.returncode for name, each in done.items()} == {
        "skip": 0,
        "fail": 1,
        "exists": 2,
        "missing": 2,
        "verify": 1,
    }
    assert all(map(harmless, done.values()))
    assert rb"\x1b[31mred\x1b]0;title\x07.npy: begins with '\x1b[31mn'" in done["skip"].stderr
    assert rb"new\nline.npy" in done["skip"].stderr
    assert rb"\xff\xfe.npy" in done["verify"].stdout
    assert rb"r\xff\x1b[2J\n.npy exists" in done["exists"].stderr
    assert len(json.loads(done["skip"].stdout)["skipped"]) == len(HOSTILE) - 2


def test_a_manifest_lists_names_of_any_bytes(tmp_path):
    names = [name for name in HOSTILE if b"\n" not in name]
    for number, name in enumerate(names):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(npy(np.full(4, number**2, "f8")))
    (tmp_path / "list.txt").write_bytes(b"\n".join(names[::-1]))
    done = distsum("mean", f"@{tmp_path}/list.txt", "-o", str(tmp_path / "o.npy"), text=False)
    assert done.returncode == 0, done.stderr
    assert harmless(done)
    assert np.load(tmp_path / "o.npy").tolist() == [np.mean(np.arange(len(names)) ** 2)] * 4
