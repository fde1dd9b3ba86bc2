"""What a person sees: the installed command in a pseudo-terminal, its screen, and keys typed into it."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest

from tests.command import Terminal, alive, distsum, summary, workers

FILES, COUNT = 3000, 300
PHASES = 5
"""Of so many files with P = 5."""
MANY_TASKS = ("-p", "5", "--tiles", "3")
"""Some 2,250, so that there is something under way when the screen is looked at, also on a busy machine."""


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m") / "many"
    done = distsum("generate", str(folder), "--files", str(FILES), "--count", str(COUNT))
    assert done.returncode == 0, done.stderr
    summary("mean", str(folder), "-o", str(folder.parent / "expected.npy"))
    return folder, (folder.parent / "expected.npy").read_bytes()


def phase_lines(lines):
    return [line for line in lines if re.match(r"phase \d", line)]


def under_way(terminal):
    """Whether the screen shows a first phase that has begun and not ended."""
    lines = phase_lines(terminal.shown)
    return len(lines) == PHASES and not re.search(r" (0|100)%", lines[0])


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (50, 20), (120, 36)])
def test_progress_changes_in_place_within_the_screen_and_leaves_it_tidy(many, short_path, columns, lines):
    inputs, expected = many
    os.symlink(inputs, short_path / "in")
    arguments = ("mean", "in", "-o", "o.npy", *MANY_TASKS, "-w", "2")
    with Terminal(*arguments, cwd=short_path, columns=columns, lines=lines) as run:
        run.wait_until(lambda: under_way(run) or run.process.poll() is not None, "progress")
        assert run.cursor_hidden
        assert run.finish() == 0
        shown = run.shown
    assert (short_path / "o.npy").read_bytes() == expected
    # While it ran each phase had its line, and below them was what is true of a moment.
    assert max(len(phase_lines(frame)) for frame in run.frames) == PHASES
    frames = [frame for frame in run.frames if len([line for line in phase_lines(frame) if "%" in line]) == PHASES]
    assert len(frames) > 2
    assert max(len(line) for frame in frames for line in phase_lines(frame)) <= columns
    shares = []
    for frame in frames:
        told = phase_lines(frame)
        assert [line.split()[1] for line in told] == [str(phase) for phase in range(1, PHASES + 1)], frame
        shares.append(int(re.search(r" (\d+)%", told[0])[1]))
    assert shares == sorted(shares)
    assert any(0 < share < 100 for share in shares)
    running = [line for frame in frames for line in phase_lines(frame) if "100%" not in line]
    assert any(line.endswith("ETA") for frame in frames for line in frame)
    if columns >= 80:
        assert any(re.search(r"\d +[\d.]+ [kMG]?B/s +[\d.]+ s$", line) for line in running)
    assert any(line == "2 workers" for frame in frames for line in frame)
    # In the end there is a line a phase and the summary, and no trace of what was true of a moment.
    told = phase_lines(shown)
    assert len(told) == PHASES
    assert all(re.search(r"█ +100% ", line) for line in told)
    assert len({line.index("100%") for line in told}) == 1, "the columns are not aligned"
    headings = ["tasks", "read", "files/s", "rate", "ETA"] if columns >= 80 else ["read", "ETA"]
    assert shown[0].split() == headings
    assert shown[PHASES + 1].startswith(f"mean of {FILES:,} files of {COUNT} numbers")
    assert not any(line == "2 workers" for line in shown)
    assert not run.cursor_hidden


@pytest.mark.parametrize("keys", [b"\x03", b"\x03\x03\x03"], ids=["once", "again and again"])
def test_ctrl_c_ends_it_within_two_seconds_and_tells_how_to_go_on(many, short_path, keys):
    inputs, expected = many
    os.symlink(inputs, short_path / "in")
    arguments = ("mean", "in", "-o", "o.npy", *MANY_TASKS, "-w", "2")
    with Terminal(*arguments, cwd=short_path) as run:
        run.wait_until(lambda: under_way(run), "progress")
        theirs = workers(run.process.pid)
        assert len(theirs) == 2
        run.type(keys)
        assert run.finish(seconds=2.0) == 130
        assert not any(map(alive, theirs))
        shown = run.shown
        assert not run.cursor_hidden
    told = phase_lines(shown)
    assert len(told) == PHASES
    assert len(shown) <= PHASES + 4, "more than the phases and the error"
    rest = " ".join(shown[shown.index(told[-1]) + 1 :])
    assert re.search(r"^(\^C)*distsum: interrupted; \d+ of 2,2\d\d tasks are stored in ", rest)
    assert rest.endswith(f" in {short_path}/o.npy.distsum, and the same command goes on from there")
    assert [path.name for path in short_path.iterdir() if path.name != "in"] == ["o.npy.distsum"]
    stored = int(re.search(r"interrupted; (\d+)", rest)[1])
    told = summary(*arguments, cwd=short_path)
    assert told["tasks_reused"] >= stored
    assert (short_path / "o.npy").read_bytes() == expected


def test_a_note_stands_above_the_lines_that_change(many, short_path):
    inputs, _ = many
    os.symlink(inputs, short_path / "in")
    (short_path / "bad\x1b[31m.npy").write_bytes(b"no array")
    skip = ("--on-bad-input", "skip")
    with Terminal("mean", "in", ".", "-o", "o.npy", "-p", "5", *skip, cwd=short_path, columns=200) as run:
        assert run.finish() == 0
        shown = run.shown
    note = next(place for place, line in enumerate(shown) if line.startswith("1 bad input left out so far, such as "))
    assert r"bad\x1b[31m.npy: begins with 'no arr'" in shown[note]
    assert len(phase_lines(shown[note + 1 :])) == PHASES
    assert shown[-2] == f"left out 1 bad input of {FILES + 1:,}:"


def test_a_bad_input_leaves_one_line_of_error_below_the_phases(many, short_path):
    np.save(short_path / "a.npy", np.ones((COUNT, 1)))
    with Terminal("mean", "a.npy", str(many[0] / "0001.npy"), "-o", "o.npy", cwd=short_path, columns=200) as run:
        assert run.finish() == 1
        shown = run.shown
        assert not run.cursor_hidden
    assert shown[-1].startswith(f"distsum: {short_path}/a.npy: shape ({COUNT}, 1), where the first input has")
    assert not any("worker" in line for line in shown)


def test_a_terminal_without_abilities_gets_plain_lines(many, short_path):
    inputs, expected = many
    with Terminal("mean", str(inputs), "-o", "o.npy", "-p", "5", cwd=short_path, env={"TERM": "dumb"}) as run:
        assert run.finish() == 0
        told = phase_lines(run.shown)
    assert [line.split()[1] for line in told] == [str(phase) for phase in range(1, PHASES + 1)]
    assert not any("█" in line for line in told)
    assert (short_path / "o.npy").read_bytes() == expected


def test_quiet_leaves_the_screen_empty(many, short_path):
    with Terminal("mean", str(many[0]), "-o", "o.npy", "--quiet", cwd=short_path) as run:
        assert run.finish() == 0
        assert run.shown == []


def test_a_plan_fits_the_screen(many, short_path):
    with Terminal("plan", str(many[0]), "--tiles", "1", "--memory", "7352032", cwd=short_path) as run:
        assert run.finish() == 0
        shown = run.shown
    widest = max(len(line) for line in run.frames[-1])
    assert 60 < widest <= 80
    header = next(place for place, line in enumerate(shown) if "per worker" in line)
    rows = shown[header + 1 :][:PHASES]
    assert [line.strip("→✗ ").split()[0] for line in rows] == ["5", "25", "125", "625", "3,125"]
    assert [line[0] for line in rows].count("→") == 1
    assert [line[0] for line in rows[1:3]] == ["✗", "✗"]
    assert any(line.startswith("✗: takes more than 7.0 MiB a worker") for line in shown)


def test_generate_and_verify_count_on_a_line_that_is_gone_at_the_end(many, short_path):
    inputs, _ = many
    with Terminal("generate", "g", "--files", "1500", "--count", "500", cwd=short_path) as run:
        assert run.finish() == 0
        assert run.shown[0].startswith("1,500 files written to g: 6.19 MB in ")
        assert len(run.shown) == 1
    assert any(re.match(r"[\d,]+/1,500 files  .* GB/s$", line) for frame in run.frames for line in frame)
    with Terminal("verify", str(inputs.parent / "expected.npy"), str(inputs), cwd=short_path) as run:
        assert run.finish() == 0
        assert run.shown[0] == f"mean of {FILES:,} files: within the bound"
    assert any(re.match(r"read [\d,]+ of 3,000 files$", line) for frame in run.frames for line in frame)
