"""Every command, run as a person would: what it prints where, how it ends, and what it leaves behind."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
from functools import partial

import numpy as np
import pytest

from distsum import __version__
from tests.command import (
    COMMAND,
    DEADLINE_SECONDS,
    SCRIPT,
    distsum,
    environment,
    started,
    summary,
    together,
    under_way,
    wait_until,
)
from tests.reference import reference_reduce
from tests.straggling import Hold

COMMANDS = ["mean", "sum", "min", "max", "plan", "verify", "generate", "gc", "demo", "config"]
SERVICE = ["master", "worker", "submit", "jobs", "status", "report"]
COMMANDS += [*SERVICE, "wait", "cancel", "prioritize", "speculate", "backup", "workers", "doctor", "broker"]
OTHERS = ["fleet", "replay", "serve", "top"]
RUN_OPTIONS = [
    "--workers -w",
    "--partition -p",
    "--fan-in",
    "--tiles",
    "--max-open-files",
    "--memory",
    "--work-dir",
    "--keep-partials",
    "--format",
    "--dtype",
    "--out-dtype",
    "--on-bad-input",
    "--force",
    "--json",
]
SPECULATION_OPTIONS = ["--speculation", "--no-speculation"]
OPTIONS = {
    **{
        name: ["INPUT", "--output -o", *RUN_OPTIONS, *SPECULATION_OPTIONS, "--history", "--broker", "--quiet"]
        for name in ("mean", "sum", "min", "max")
    },
    "plan": ["INPUT", "--output -o", "--reduction", *RUN_OPTIONS],
    "verify": ["RESULT", "INPUT", "--reduction", "--sample", "--seed", "--fan-in", "--on-bad-input", "--json"],
    "generate": ["DEST", "--files", "--count", "--dtype", "--format", "--seed", "--distribution", "--workers -w"],
    "gc": ["PLACE", "--older-than", "--partials", "--ended-jobs", "--dry-run", "--quiet", "--json"],
    "demo": SPECULATION_OPTIONS,
    "config": ["--json"],
    "master": [
        *(
            "--broker",
            "--work-dir",
            "--management",
            "--metrics-port",
            "--metrics-host",
            "--fleet",
            "--log-json",
            "--log-level",
        ),
        *SPECULATION_OPTIONS,
    ],
    "worker": ["--broker", "--slots", "--serve", "--log-json", "--log-level"],
    "submit": ["REDUCTION", "INPUT", "--output -o", "--broker", "--priority", "--wait", *RUN_OPTIONS, "--quiet"],
    "jobs": ["--broker", "--json"],
    "status": ["JOB", "--stragglers", "--history", "--broker", "--json"],
    "report": ["JOB", "--output -o", "--force", "--broker", "--work-dir"],
    "wait": ["JOB", "--broker", "--timeout", "--quiet", "--json"],
    "cancel": ["JOB", "--broker", "--json"],
    "prioritize": ["JOB", "N", "--broker", "--json"],
    "speculate": ["JOB", "SWITCH", "--broker", "--json"],
    "backup": ["JOB", "PHASE", "TASK", "--tile", "--broker", "--json"],
    "workers": ["--pause", "--resume", "--drain", "--shutdown", "--scale", "--broker", "--json"],
    "doctor": ["--broker", "--work-dir", "--management", "--json"],
    "broker": ["setup"],
}
JSON_FIELDS = {
    *("output", "reduction", "files", "count", "skipped", "seconds", "bytes_read", "bytes_written", "tasks"),
    *("tasks_reused", "attempts", "retries", "workers", "plan", "peak_worker_bytes", "digest", "backups"),
    "worker_accounts",
}


def save(folder, arrays, pattern="{:03}.npy"):
    """Save arrays as numbered files, and return the folder."""
    folder.mkdir(exist_ok=True)
    for index, array in enumerate(arrays):
        np.save(folder / pattern.format(index), array)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """30 files of 400 numbers."""
    arrays = [np.random.default_rng(index).standard_normal(400) for index in range(30)]
    return save(tmp_path_factory.mktemp("runs"), arrays), arrays


# Help and mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [COMMAND, [SCRIPT]], ids=["python -m distsum", "distsum"])
def test_the_version_is_told_on_stdout(command):
    done = distsum("--version", command=command)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"distsum {__version__}\n", "")


@pytest.fixture(scope="module")
def help_pages():
    """The futures of each command's page, and of the one of them all."""
    wanted = {"": ["--help"], "nothing": [], **{command: [command, "--help"] for command in COMMANDS}}
    calls = {name: partial(distsum, *each, env={"COLUMNS": "80"}) for name, each in wanted.items()}
    with under_way(calls) as futures:
        yield futures


@pytest.mark.parametrize("name", ["", "nothing"])
def test_the_help_lists_every_command_with_what_it_does(help_pages, name):
    done = help_pages[name].result()
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split()[1]: line.split()[2:-1] for line in done.stdout.splitlines() if line.startswith("│")}
    assert [*COMMANDS, *OTHERS, "--install-completion", "--help", "--version"] == list(rows)
    assert all(len(words) >= 3 for words in rows.values()), "a command without an explanation"
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_explains_each_of_its_options(help_pages, command):
    done = help_pages[command].result()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: distsum {command}")
    rows = [" ".join(line.strip("│* ").split()) for line in done.stdout.splitlines() if line.startswith("│")]
    for option in OPTIONS[command]:
        row = next((row for row in rows if row.startswith(option)), None)
        assert row is not None, option
        assert len(row.removeprefix(option).split()) >= 2, f"{row} explains nothing"
    assert max(map(len, done.stdout.splitlines())) <= 80


MISTAKES = [
    (["average", "a.npy"], "there is no command 'average'"),
    (["bad\x1b[31m\ncommand"], r"'bad\x1b[31m\ncommand'"),
    (["mean", "a.npy", "-o", "o.npy", "--fan_inn", "3"], "mean has no option --fan_inn; did you mean --fan-in?"),
    (["mean", "a.npy", "-o", "o.npy", "--\x1b[31m"], r"mean has no option --\x1b[31m"),
    (["mean", "a.npy"], "mean needs --output"),
    (["mean", "a.npy", "-o"], "-o needs a value"),
    (["mean", "a.npy", "-o", "o.npy", "--output", "p.npy"], "--output is given twice"),
    (["mean", "a.npy", "-o", "o.npy", "--format", "csv"], "--format csv: must be one of auto, npy, raw, text"),
    (["submit", "mode", "a.npy", "-o", "o.npy"], "REDUCTION mode: must be one of mean, sum, min, max"),
    (["mean", "a.npy", "-o", "o.npy", "--workers", "0"], "--workers 0: must be auto or a whole number of at least 1"),
    (["mean", "a.npy", "-o", "o.npy", "--fan-in", "1"], "--fan-in 1: must be a whole number of at least 2"),
    (["mean", "a.npy", "-o", "o.npy", "--memory", "much"], "--memory much: must be a size"),
    (["mean", "a.npy", "-o", "o.npy", "--out-dtype", "i4"], "--out-dtype <i4 cannot hold <f8"),
    (["mean", "a.npy", "-o", "o.npy", "--dtype", "f8"], "a.npy tells its own dtype"),
    (["mean", "a.npy", "-o", "o.dat.gz"], "o.dat.gz: the suffix tells no format; write .npy, .raw or .txt"),
    (["mean", "a.npy", "-o", ""], "the output is an empty name"),
    (["mean", "a.npy", "./a.npy", "-o", "o.npy"], "./a.npy is named twice"),
    (["min", "z.npy", "-o", "o.npy"], "min needs numbers with an order"),
    (["max", "a.npy", "-o", "o.npy", "--broker", ""], "--broker '': must be a text that is not empty"),
    (
        ["sum", "a.npy", "-o", "o.npy", "--broker", "amqp://h", "--work-dir", "w"],
        "--work-dir w: a service keeps jobs in",
    ),
    (["submit", "sum", "a.npy", "-o", "o.npy", "--broker", "amqp://h", "--work-dir", "w"], "--work-dir w: a service"),
    (
        ["mean", "a.npy", "-o", "o.npy", "--speculation", "quantil=1"],
        "--speculation quantil=1: quantil is no key of it",
    ),
    (["mean", "a.npy", "-o", "o.npy", "--speculation", "few=1", "--no-speculation"], "--no-speculation leaves nothing"),
    (["mean", "a.npy", "-o", "o.npy", "--history", "z.npy"], "z.npy exists; use --force to replace it"),
    (["mean", "a.npy", "-o", "o.npy", "--history", "./o.npy"], "./o.npy is the output; choose another name"),
    (["mean", "a.npy", "-o", "o.npy", "--history", "no/h"], "no/h: there is no folder"),
    (["status"], "status needs one of JOB, the id of a job, and --history"),
    (["status", "--history", "none"], "none: there is no such file"),
    (["status", "--history", "a.npy"], "a.npy is no history of a job"),
    (["plan"], "no inputs are named"),
    (["verify"], "verify needs RESULT"),
    (["generate", "g"], "generate needs --files"),
    (["generate", "g", "h", "--files", "1", "--count", "1"], "generate takes no argument 'h'"),
]


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory):
    """The futures of what each mistake in a command leads to, and the folder that they are all run in."""
    folder = tmp_path_factory.mktemp("mistakes")
    np.save(folder / "a.npy", np.ones(3))
    np.save(folder / "z.npy", np.ones(3, "c16"))
    calls = {place: partial(distsum, *arguments, cwd=folder) for place, (arguments, _) in enumerate(MISTAKES)}
    with under_way(calls) as futures:
        yield futures, folder


@pytest.mark.parametrize("place", range(len(MISTAKES)), ids=lambda place: repr(" ".join(MISTAKES[place][0])))
def test_a_mistake_in_the_command_ends_with_2_and_names_what_is_wrong(mistakes, place):
    done = mistakes[0][place].result()
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    first, *rest = done.stderr.splitlines()
    assert first.startswith("distsum: ")
    assert MISTAKES[place][1] in first
    assert not rest or (len(rest) == 1 and rest[0].startswith("distsum: see distsum "))


def test_a_mistake_in_the_command_changes_nothing(mistakes):
    futures, folder = mistakes
    assert all(future.result() for future in futures.values())
    assert sorted(path.name for path in folder.iterdir()) == ["a.npy", "z.npy"]


# mean and its options -------------------------------------------------------------------------------------------------


def test_the_result_goes_to_the_file_and_words_to_stderr_a_line_a_phase(runs, tmp_path):
    inputs, arrays = runs
    done = distsum("mean", str(inputs), "-o", "mean.npy", "-p", "5", cwd=tmp_path, env={"TERM": "xterm"}, text=False)
    assert (done.returncode, done.stdout) == (0, b"")
    lines = done.stderr.decode().splitlines()
    phases = [line for line in lines if line.startswith("phase")]
    assert [line.split()[1] for line in phases] == ["1", "2", "3"]
    assert all(re.search(r" in [\d.]+ s$", line) for line in phases), "each ended"
    assert "mean of 30 files of 400 numbers" in lines
    assert f"written to {tmp_path / 'mean.npy'}" in lines
    assert re.fullmatch(r"workers were busy with this job for \d+% of their time", lines[-1])
    assert not any(byte < 32 and byte != 10 for byte in done.stderr), "an escape, where there is no terminal"
    assert np.load(tmp_path / "mean.npy").tobytes() == reference_reduce(arrays, 5, "mean").tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["mean.npy"]


def test_the_json_object_has_the_documented_fields_and_tells_what_ran(runs, tmp_path):
    inputs, _ = runs
    out = tmp_path / "o.npy"
    done = distsum("mean", str(inputs), "-o", str(out), "-p", "5", "-w", "2", "--no-speculation", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    told = json.loads(done.stdout)
    assert told.keys() == JSON_FIELDS
    assert told["plan"].keys() == {"partition", "fan_in", "tiles", "phases", "worker_bytes"}
    assert told["digest"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert told["output"] == str(out)
    assert (told["reduction"], told["files"], told["count"], told["skipped"]) == ("mean", 30, 400, [])
    assert (told["tasks"], told["tasks_reused"], told["attempts"], told["retries"]) == (8, 0, 8, 0)
    assert (told["workers"], told["plan"]["partition"], told["plan"]["phases"]) == (2, 5, 3)
    # 6 tasks, one over 5 of their partials, and the root over that and the sixth.
    assert told["bytes_read"] == 30 * (128 + 3200) + (5 + 2) * (256 + 3200)
    assert told["bytes_written"] == 8 * (256 + 3200) + (128 + 3200)
    assert 0 < told["peak_worker_bytes"] <= told["plan"]["worker_bytes"]
    assert 0 < told["seconds"] < DEADLINE_SECONDS
    ended = ("won", "helped", "lost", "cancelled", "moot")
    assert told["backups"].keys() == {"started", *ended, "declined", "saved_seconds", "endless", "wasted_bytes"}
    assert told["backups"]["started"] == sum(told["backups"][name] for name in ended)
    assert sum(account["tasks"] for account in told["worker_accounts"]) == 8
    for account in told["worker_accounts"]:
        assert list(account["seconds"]) == ["starting", "waiting", "reading", "adding", "storing", "discarded"]
        assert 0 < sum(account["seconds"].values()) - account["seconds"]["starting"] < told["seconds"]


def test_quiet_says_nothing_but_errors(runs, tmp_path):
    arguments = ("mean", str(runs[0]), "-o", str(tmp_path / "o.npy"), "--quiet")
    (tmp_path / "o.npy").touch()
    done = distsum(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"distsum: {tmp_path / 'o.npy'} exists; use --force to replace it\n"
    done = distsum(*arguments, "--force")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert np.load(tmp_path / "o.npy").tobytes() == reference_reduce(runs[1], 5, "mean").tobytes()


def test_options_change_how_it_runs_and_not_the_bits(runs, tmp_path):
    inputs, arrays = runs
    expected = reference_reduce(arrays, 5, "mean").tobytes()
    np.save(tmp_path / "alone.npy", arrays[0])
    for options, found in [
        (["--workers=2", "--partition=125", "--tiles=4"], {"workers": 2, "partition": 125, "tiles": 4, "phases": 1}),
        (["-w", "1", "-p", "25", "--max-open-files", "1", "--memory", "8MiB"], {"workers": 1, "phases": 2}),
    ]:
        told = summary("mean", str(inputs), "-o", str(tmp_path / "o.npy"), "--force", *options)
        told |= told["plan"]
        assert {name: told[name] for name in found} == found, options
        assert np.load(tmp_path / "o.npy").tobytes() == expected, options
    told = summary("mean", str(inputs), "-o", str(tmp_path / "o.npy"), "--force", "--fan-in", "3", "-p", "9")
    assert (told["plan"]["fan_in"], told["plan"]["partition"]) == (3, 9)
    other = np.load(tmp_path / "o.npy").tobytes()
    assert other == reference_reduce(arrays, 3, "mean").tobytes()
    assert other != expected, "the inputs don't tell one tree from another"


def test_the_result_has_the_format_of_its_suffix_and_the_dtype_asked_for(runs, tmp_path):
    inputs, arrays = runs
    expected = reference_reduce(arrays, 5, "mean")
    for name, options, read in [
        ("o.raw", [], lambda path: np.fromfile(path, "f8")),
        ("o.txt", [], np.loadtxt),
        ("o.npy", ["--out-dtype", "float32"], np.load),
    ]:
        told = summary("mean", str(inputs), "-o", name, *options, cwd=tmp_path)
        found = read(tmp_path / name)
        assert found.tobytes() == expected.astype(found.dtype).tobytes(), name
        assert told["digest"] == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


def test_force_replaces_the_result_only_once_the_new_one_is_complete(runs, tmp_path):
    inputs, arrays = runs
    out = tmp_path / "o.npy"
    out.write_bytes(b"precious")
    np.save(tmp_path / "short.npy", np.ones(3))
    done = distsum("mean", str(inputs / "000.npy"), str(tmp_path / "short.npy"), "-o", str(out), "--force")
    assert done.returncode == 1
    assert out.read_bytes() == b"precious"
    summary("mean", str(inputs), "-o", str(out), "--force")
    assert np.load(out).tobytes() == reference_reduce(arrays, 5, "mean").tobytes()


# Stragglers and histories ---------------------------------------------------------------------------------------------


def test_a_straggler_gets_a_backup_whose_story_is_told_by_the_summary_and_the_history(runs, tmp_path):
    inputs, arrays = runs
    hold = Hold(tmp_path / "plant", "/007.npy", first=True)
    # Of tasks that take milliseconds some take long by chance, and who did them would be given no copy.
    arguments = ["mean", str(inputs), "-o", "o.npy", "-p", "5", "-w", "2", "--speculation", "slow=1000"]
    done = distsum(*arguments, "--history", "h", "--json", cwd=tmp_path, env=hold.environment)
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "o.npy").tobytes() == reference_reduce(arrays, 5, "mean").tobytes()
    told = json.loads(done.stdout)
    backups = told["backups"]
    assert backups["won"] >= 1
    assert (told["retries"], told["attempts"]) == (0, 8 + backups["started"])
    assert sum(account["seconds"]["discarded"] for account in told["worker_accounts"]) > 0.5
    lines = done.stderr.splitlines()
    assert any(" won " in line and "phase 1 task 1" in line for line in lines), "a note as it happens"
    assert any(line.startswith(f"{backups['started']} backup") for line in lines), "and a line in the end"
    shown = together(
        {
            "words": partial(distsum, "status", "--history", "h", cwd=tmp_path),
            "ledger": partial(distsum, "status", "--history", "h", "--stragglers", cwd=tmp_path),
            "json": partial(summary, "status", "--history", "h", "--stragglers", cwd=tmp_path),
        }
    )
    assert "ended" in shown["words"].stdout
    assert "phase 3" in shown["words"].stdout
    first, *_, last = shown["ledger"].stdout.splitlines()
    assert re.match(r"\d\d:\d\d:\d\d ↯ phase 1 task 1  w\d+ -> w\d+  ", first)
    assert last.startswith(f"{backups['started']} backup")
    assert shown["json"]["totals"] == backups
    assert [entry["outcome"] for entry in shown["json"]["entries"] if entry["kind"] == "backup"].count("won") >= 1
    # One that is cut short is told of up to there.
    whole = (tmp_path / "h").read_bytes()
    (tmp_path / "h").write_bytes(whole[:-20])
    done = distsum("status", "--history", "h", cwd=tmp_path)
    assert done.returncode == 0
    assert "the history is incomplete: it ends in the middle" in done.stdout
    (tmp_path / "h").write_bytes(whole.replace(b"distsum history 1 ", b"distsum history 9 ", 1))
    done = distsum("status", "--history", "h", cwd=tmp_path)
    assert (done.returncode, "is a history of version 9" in done.stderr) == (2, True)


def test_without_speculation_no_task_is_given_to_a_second_worker(runs, tmp_path):
    hold = Hold(tmp_path / "plant", "/007.npy", first=True, seconds=2.5)
    arguments = ["mean", str(runs[0]), "-o", "o.npy", "-p", "5", "-w", "2"]
    told = summary(*arguments, cwd=tmp_path, env=hold.environment | {"DISTSUM_SPECULATION": "none"})
    assert hold.met
    assert (told["backups"]["started"], told["backups"]["declined"], told["attempts"]) == (0, 0, 8)


def test_a_history_is_stored_of_a_run_that_fails_or_is_interrupted(runs, tmp_path):
    inputs, arrays = runs
    # As long as the others, so that only who reads it sees that it is unlike them.
    bad = save(tmp_path / "bad", [*arrays[:12], np.ones(200, "c16")])
    done = distsum("mean", str(bad), "-o", "o.npy", "--history", "failed", cwd=tmp_path)
    assert (done.returncode, "012.npy" in done.stderr) == (1, True)
    told = summary("status", "--history", "failed", cwd=tmp_path)
    assert (told["snapshot"]["finished"], told["remark"]) == (True, None)
    hold = Hold(tmp_path / "plant", "/007.npy", first=False)
    arguments = ["mean", str(inputs), "-o", "o.npy", "-p", "5", "-w", "2", "--history", "interrupted"]
    with started(*arguments, cwd=tmp_path, env=hold.environment) as process:
        wait_until(lambda: hold.met, "a worker that waits")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 130
    told = summary("status", "--history", "interrupted", cwd=tmp_path)
    assert (told["snapshot"]["finished"], told["remark"]) == (False, None)
    assert told["workers"][0]["worker"] in {"w1", "w2"}


# Order and manifests --------------------------------------------------------------------------------------------------


@pytest.fixture
def ordered(tmp_path):
    """Files whose sum tells in what order they were added, and what that sum is for an order."""
    values = {"B": 1e16, "_": 1.0, "a10": -1e16, "a2": 0.1, "z": 3.0, "é": 0.3}
    folder = tmp_path / "ordered"
    folder.mkdir()
    for name, value in values.items():
        np.save(folder / f"{name}.npy", np.array([value]))
    return folder, lambda order: float(reference_reduce([np.array([values[n]]) for n in order.split()], 5, "sum")[0])


def test_inputs_are_added_in_plain_byte_order_of_their_paths(ordered):
    folder, sum_of = ordered
    expected = sum_of("B _ a10 a2 z é")
    assert expected not in {sum_of("B _ a2 a10 z é"), sum_of("_ a10 a2 B é z")}, "these tell no order from another"
    wanted = {
        (".",): expected,
        ("z.npy", "a*.npy", "é.npy", "[B_]*"): expected,
        ("./z.npy", "B.npy", "_.npy", "a2.npy", "a10.npy", "é.npy"): sum_of("z B _ a10 a2 é"),
    }
    together({each: partial(summary, "sum", *each, "-o", f"../{len(each)}.npy", cwd=folder) for each in wanted})
    for inputs, value in wanted.items():
        assert np.load(folder.parent / f"{len(inputs)}.npy").tolist() == [value], inputs


def test_the_order_of_a_manifest_stands_and_counts_what_it_lists_twice_twice(ordered):
    folder, sum_of = ordered
    lists = folder / "lists"
    lists.mkdir()
    listed = "a10 é B z _ z"
    text = "".join(f"../{name}.npy\r\n" for name in listed.split())
    (lists / "list.txt").write_text(f"# a comment\n\n{text}", newline="")
    assert sum_of(listed) != sum_of("B _ a10 z z é"), "these tell no order from another"
    told = summary("sum", "@lists/list.txt", "-o", "../listed.npy", cwd=folder)
    assert told["files"] == 6
    assert np.load(folder.parent / "listed.npy").tolist() == [sum_of(listed)]
    summary("sum", "@lists/list.txt", "a2.npy", "-o", "../both.npy", cwd=folder)
    assert np.load(folder.parent / "both.npy").tolist() == [sum_of(f"a2 {listed}")]


# Partials that stay ---------------------------------------------------------------------------------------------------


def test_more_files_over_kept_partials_read_only_them_and_the_right_edge(tmp_path):
    count, file_bytes, partial_bytes = 100, 128 + 800, 256 + 800
    arrays = [np.random.default_rng(index).standard_normal(count) for index in range(56)]
    inputs = save(tmp_path / "inputs", arrays[:50])
    shared = ("-p", "5", "--work-dir", str(tmp_path / "work"), "--keep-partials")
    told = summary("mean", str(inputs), "-o", str(tmp_path / "first.npy"), *shared)
    assert (told["tasks"], told["tasks_reused"]) == (10 + 2 + 1, 0)
    for index in range(50, 56):
        np.save(inputs / f"{index:03}.npy", arrays[index])
    told = summary("mean", str(inputs), "-o", str(tmp_path / "second.npy"), *shared)
    # 56 files: of phase 1 the tasks 10 and 11, of phase 2 the one over both, and the root over three partials.
    assert told["tasks"] - told["tasks_reused"] == 2 + 1 + 1
    assert told["bytes_read"] == 6 * file_bytes + 2 * partial_bytes + 3 * partial_bytes
    assert np.load(tmp_path / "second.npy").tobytes() == reference_reduce(arrays, 5, "mean").tobytes()
    # The same once more: the root alone, whose partial is there.
    told = summary("mean", str(inputs), "-o", str(tmp_path / "third.npy"), *shared)
    assert (told["tasks_reused"], told["bytes_read"]) == (told["tasks"], partial_bytes)
    assert (tmp_path / "third.npy").read_bytes() == (tmp_path / "second.npy").read_bytes()


# The other commands ---------------------------------------------------------------------------------------------------


def test_a_plan_writes_nothing_and_tells_what_then_runs(runs, tmp_path):
    inputs, _ = runs
    done = distsum("plan", str(inputs), "-w", "2", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "30 npy files of 400 numbers, <f8, shape (400,): 99.8 kB"
    header = next(line for line in lines if "phases" in line)
    rows = lines[lines.index(header) + 1 :][:3]
    assert [row.strip("→ ").split()[0] for row in rows] == ["5", "25", "125"]
    assert len({len(row) for row in [header, *rows]}) == 1, "the columns are not aligned"
    assert sum(row.startswith("→") for row in rows) == 1
    assert any(line.startswith("chosen (→): ") for line in lines)
    done = distsum("plan", str(inputs), "-w", "2", "-p", "5", "-o", "o.npy", "--json", cwd=tmp_path)
    planned = json.loads(done.stdout)
    candidate = planned["candidates"][planned["chosen"]]
    assert list(tmp_path.iterdir()) == []
    told = summary("mean", str(inputs), "-w", "2", "-p", "5", "-o", "o.npy", cwd=tmp_path)
    for name in ("tasks", "bytes_read", "bytes_written"):
        assert candidate[name] == told[name], name
    for name in ("partition", "tiles", "phases", "worker_bytes"):
        assert candidate[name] == told["plan"][name], name
    done = distsum("plan", str(inputs), "-o", "o.npy", cwd=tmp_path)
    assert done.returncode == 2
    assert "o.npy exists" in done.stderr


def test_verify_ends_with_1_beyond_the_bound_and_says_where(runs, tmp_path):
    inputs, _ = runs
    out = tmp_path / "o.npy"
    summary("mean", str(inputs), "-o", str(out))
    wrong = np.load(out)
    wrong[123] += 1e-9
    np.save(tmp_path / "wrong.npy", wrong)
    done = together(
        {
            "right": partial(distsum, "verify", str(out), str(inputs)),
            "sample": partial(distsum, "verify", str(out), str(inputs), "--sample", "7", "--seed", "3", "--json"),
            "wrong": partial(distsum, "verify", str(tmp_path / "wrong.npy"), str(inputs)),
            "sum": partial(distsum, "verify", str(out), str(inputs), "--reduction", "sum"),
        }
    )
    assert {name: each.returncode for name, each in done.items()} == {"right": 0, "sample": 0, "wrong": 1, "sum": 1}
    assert {each.stderr for each in done.values()} == {""}
    told = ["mean of 30 files: within the bound", "checked exactly at 400 of 400 indices"]
    assert done["right"].stdout.splitlines()[:2] == told
    found = json.loads(done["sample"].stdout)
    assert (found["ok"], found["indices"], found["files"]) == (True, 7, 30)
    assert "BEYOND THE BOUND" in done["wrong"].stdout
    assert "at index 123:" in done["wrong"].stdout


def test_generate_makes_the_same_files_again_and_replaces_none_unasked(tmp_path):
    arguments = ("--files", "12", "--count", "50", "--dtype", ">f4", "--seed", "9", "--distribution", "normal")
    done = together(
        {
            "one": partial(distsum, "generate", "one", *arguments, cwd=tmp_path),
            "two": partial(distsum, "generate", "two", *arguments, "-w", "2", "--quiet", "--json", cwd=tmp_path),
        }
    )
    assert (done["one"].returncode, done["one"].stdout) == (0, "")
    assert "12 files written to one" in done["one"].stderr
    assert (done["two"].returncode, done["two"].stderr) == (0, "")
    assert json.loads(done["two"].stdout) == {"files": 12, "bytes_written": 12 * (128 + 200), "others": 0}
    made = sorted((tmp_path / "one").iterdir())
    assert [path.name for path in made] == [f"{index:02}.npy" for index in range(12)]
    for path in made:
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert np.load(made[0]).dtype == np.dtype(">f4")
    before = made[3].stat().st_mtime_ns
    done = distsum("generate", "one", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert made[3].stat().st_mtime_ns == before
    assert distsum("generate", "one", *arguments, "--force", cwd=tmp_path).returncode == 0
    assert made[3].stat().st_mtime_ns != before


def test_config_shows_each_value_and_where_it_came_from(tmp_path):
    below = tmp_path / "project" / "below"
    below.mkdir(parents=True)
    (tmp_path / "project" / "distsum.toml").write_text('memory = "64MiB"\nworkers = 3\n')
    home = tmp_path / "home" / "distsum"
    home.mkdir(parents=True)
    (home / "config.toml").write_text("workers = 5\nfan-in = 4\nmax-open-files = 2\n")
    env = {"XDG_CONFIG_HOME": str(tmp_path / "home"), "DISTSUM_FAN_IN": "3"}
    np.save(below / "a.npy", np.ones(3))
    at = {"cwd": below, "env": env}
    runs = together(
        {
            "words": partial(distsum, "config", **at),
            "json": partial(distsum, "config", "--json", **at),
            3: partial(summary, "mean", "a.npy", "-o", "o.npy", **at),
            7: partial(summary, "mean", "a.npy", "-o", "p.npy", "--fan-in", "7", **at),
        }
    )
    done = runs["words"]
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    project = str(tmp_path / "project" / "distsum.toml")
    assert rows["memory"] == ["64MiB", project]
    assert rows["workers"] == ["3", project]
    assert rows["fan-in"] == ["3", "environment"]
    assert rows["max-open-files"] == ["2", str(home / "config.toml")]
    assert rows["tiles"] == ["auto", "default"]
    assert json.loads(runs["json"].stdout)["fan-in"] == {"value": 3, "source": "environment"}
    # They hold, and a flag comes before all of them.
    for fan_in in (3, 7):
        assert runs[fan_in]["plan"]["fan_in"] == fan_in


BAD_SETTINGS = [
    ("wokers = 3\n", {}, "sets wokers, which is no setting; did you mean workers?"),
    ("workers = 0\n", {}, "workers 0 ("),
    ("workers = \n", {}, "distsum.toml is not TOML"),
    ("", {"DISTSUM_FANIN": "3"}, "DISTSUM_FANIN, which is no setting; did you mean DISTSUM_FAN_IN?"),
    ("", {"DISTSUM_QUIET": "perhaps"}, "DISTSUM_QUIET perhaps (environment): must be true or false"),
]


def test_a_setting_that_is_unknown_or_bad_is_an_error_wherever_it_stands(tmp_path):
    calls = {}
    for place, (text, env, words) in enumerate(BAD_SETTINGS):
        folder = save(tmp_path / str(place), [np.ones(3)])
        (folder / "distsum.toml").write_text(text)
        command = ["config"] if place % 2 else ["mean", "000.npy", "-o", "o.npy"]
        calls[words] = partial(distsum, *command, cwd=folder, env=env)
    for words, done in together(calls).items():
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr


# The demo -------------------------------------------------------------------------------------------------------------


def test_the_demo_adds_real_files_verifies_the_result_and_cleans_up(tmp_path):
    done = distsum("demo", env={"TMPDIR": str(tmp_path)})
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    phases = [line for line in done.stderr.splitlines() if line.startswith("phase")]
    assert [line.split()[1] for line in phases] == ["1", "2", "3", "4"]
    assert all(re.search(r" in [\d.]+ s$", line) for line in phases), "each ended"
    assert "P = 5, 1 tile, 4 phases" in done.stderr
    assert "within the bound" in done.stderr
    assert "where the time went" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_cleans_up_too(tmp_path, number):
    with started("demo", env={"TMPDIR": str(tmp_path)}) as process:
        wait_until(lambda: list(tmp_path.rglob("*.npy")), "the first file")
        process.send_signal(number)
        _, err_text = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 130
    assert "Traceback" not in err_text
    assert list(tmp_path.iterdir()) == []


# Streams that lead nowhere --------------------------------------------------------------------------------------------


def shell(script, cwd):
    """Run a line of bash in which "$@" is the command."""
    return subprocess.run(
        ["bash", "-c", script, "bash", *COMMAND],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def test_a_reader_that_has_seen_enough_is_no_error(runs, tmp_path):
    done = shell(f'"$@" plan {runs[0]} | head -1; echo "${{PIPESTATUS[0]}}"', tmp_path)
    assert done.stdout == "30 npy files of 400 numbers, <f8, shape (400,): 99.8 kB\n0\n"
    assert done.stderr == ""
    # Here it is gone before anything is printed.
    done = shell('{ sleep 0.1; "$@" --help; echo "$?" >&2; } | true', tmp_path)
    assert done.stderr == "0\n"


def test_a_job_runs_to_its_end_when_nobody_hears_its_words(runs, tmp_path):
    inputs, arrays = runs
    expected = reference_reduce(arrays, 5, "mean").tobytes()
    streams = {"closed": "2>&-", "full": "2>/dev/full", "gone": "2> >(true)"}
    calls = {
        name: partial(shell, f'"$@" mean {inputs} -o {name}.npy -p 5 {stderr}; echo "$?"', tmp_path)
        for name, stderr in streams.items()
    }
    for name, done in together(calls).items():
        assert (done.stdout, done.stderr) == ("0\n", ""), name
        assert np.load(tmp_path / f"{name}.npy").tobytes() == expected, name
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(streams)


def test_no_other_file_takes_the_place_of_a_closed_stderr(runs, tmp_path):
    # A worker tells where its stderr leads before it opens anything.
    (tmp_path / "plant").mkdir()
    (tmp_path / "plant" / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'distsum.worker' in sys.orig_argv:\n"
        "    found = os.readlink('/proc/self/fd/2') if os.path.lexists('/proc/self/fd/2') else 'closed'\n"
        f"    open({str(tmp_path / 'told')!r}, 'w').write(found)\n"
    )
    done = shell(f'PYTHONPATH={tmp_path}/plant "$@" mean {runs[0]} -o o.npy -w 1 2>&-', tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "told").read_text() == "/dev/null"


def test_data_that_cannot_be_written_is_an_error_in_one_line(tmp_path):
    done = shell('"$@" config >/dev/full; echo "$?"', tmp_path)
    assert done.stdout == "1\n"
    assert (
        done.stderr == "distsum: standard output cannot be written: No space left on device; nothing more is printed\n"
    )


def test_a_closed_stdout_takes_the_data_and_nothing_else_does(runs, tmp_path):
    done = shell(f'"$@" mean {runs[0]} -o o.npy --quiet --json >&-; echo "$?" >&2', tmp_path)
    assert (done.stdout, done.stderr) == ("", "0\n")
    assert np.load(tmp_path / "o.npy").tobytes() == reference_reduce(runs[1], 5, "mean").tobytes()


def test_a_stdout_that_knows_few_characters_gets_escapes(runs, tmp_path):
    done = distsum("plan", str(runs[0]), env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "chosen (\\u2192): " in done.stdout


# Completion -----------------------------------------------------------------------------------------------------------

SCRIPTS = {
    "bash": (".local/share/bash-completion/completions/distsum", "complete -F _distsum distsum"),
    "zsh": (".zsh/completions/_cyclopts_distsum", "#compdef distsum"),
    "fish": (".config/fish/completions/distsum.fish", "complete -c distsum"),
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A home with the scripts of all shells, and how their installation went."""
    home = tmp_path_factory.mktemp("home")
    options = {"env": {"HOME": str(home), "ZDOTDIR": ""}}
    calls = {shell: partial(distsum, "--install-completion", "--shell", shell, **options) for shell in SCRIPTS}
    return home, together(calls)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_completes_is_installed(installed, name):
    home, done = installed
    assert done[name].returncode == 0, done[name].stderr
    path, words = SCRIPTS[name]
    text = (home / path).read_text()
    assert words in text
    for word in ("mean", "verify", "partition", "on-bad-input"):
        assert word in text


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["me"], {"mean"}),
        (["mean", "--max"], {"--max-open-files"}),
        (["mean", "--format", ""], {"auto", "npy", "raw", "text"}),
        (["mean", "inp"], {"inputs"}),
        (["mean", "inputs", "-o", "res"], {"result.npy"}),
        (["verify", "result.npy", "inp"], {"inputs"}),
    ],
)
def test_the_script_for_bash_completes_commands_options_and_file_names(installed, tmp_path, typed, offered):
    (tmp_path / "inputs").mkdir()
    (tmp_path / "result.npy").touch()
    lines = '. "$0"; COMP_WORDS=(distsum "$@"); COMP_CWORD=$#; _distsum; printf "%s\\n" "${COMPREPLY[@]}"'
    script = installed[0] / SCRIPTS["bash"][0]
    done = subprocess.run(
        ["bash", "-c", lines, script, *typed], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30
    )
    assert set(done.stdout.split()) == offered
