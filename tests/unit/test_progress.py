"""What a run shows of itself: within 80 columns, harmless, and the same in a log as on a terminal."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import threading

import msgspec
import pytest
from distsum.tui.figures import task_counts
from hypothesis import example, given
from hypothesis import strategies as st

from distsum.cli.progress import (
    _WIDTHS,
    Progress,
    count_words,
    phase_line,
    short_time_words,
    snapshot_lines,
    summary_lines,
)
from distsum.observe.snapshot import PhaseProgress, Snapshot
from distsum.request import BackupTotals, PlanSummary, SkippedInput, Summary
from distsum.wording import size_words, time_words

COLUMNS = 80
HOSTILE = "a\x1b[2Jb\nc\u202e\x9b31m[bold red]\udcff"
SHOWN = "a\\x1b[2Jb\\nc\\u202e\\x9b31m[bold red]\\xff"
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
WAITING = PhaseProgress(2, tasks=30, files_total=150, bytes_total=1000)
SIZES = {"B": 0, "kB": 3, "MB": 6, "GB": 9, "TB": 12, "PB": 15, "EB": 18}


def phase(number=1, **changes):
    under_way = PhaseProgress(
        number,
        tasks=750,
        done=623,
        running=2,
        files_total=3000,
        bytes_total=1_600_000_000,
        bytes_read=1_230_000_000,
        bytes_done=1_230_000_000,
        started_seconds=1.0,
    )
    return msgspec.structs.replace(under_way, **changes)


def snapshot(*phases, **changes):
    fields = {
        "job": "j",
        "reduction": "mean",
        "files": 3000,
        "elapsed_seconds": 2.0,
        "phases": phases,
        "workers": 2,
        "workers_lost": 0,
        "retries": 0,
        "notes": (),
        "notes_total": 0,
        "finished": False,
    }
    return Snapshot(**fields | changes)


def summary(**changes):
    plain = Summary(
        output="/data/mean.npy",
        reduction="mean",
        files=100,
        count=2_000_000,
        shape=(2_000_000,),
        dtype="<f8",
        order="C",
        skipped=(),
        seconds=0.8,
        bytes_read=1_600_128_000,
        bytes_written=16_000_128,
        tasks=4,
        tasks_reused=0,
        attempts=4,
        retries=0,
        workers=2,
        workers_lost=0,
        plan=PlanSummary(partition=3125, fan_in=5, tiles=4, phases=1, worker_bytes=1),
        peak_worker_bytes=1,
        digest=None,
        phase_seconds=(0.5,),
        worker_seconds={},
    )
    return msgspec.structs.replace(plain, **changes)


@given(st.floats(0, 9.99e20))
def test_a_size_is_short_and_within_half_a_percent(size):
    number, unit = size_words(size).split(" ")
    assert len(size_words(size)) <= 7
    assert abs(float(number) * 10 ** SIZES[unit] - size) <= max(0.5, size * 0.00501)
    assert float(number) < 1000


@given(st.floats(0, 9.99e11))
def test_a_count_is_short_and_within_half_a_percent(count):
    words = count_words(count)
    factor = {"k": 1e3, "M": 1e6, "G": 1e9}.get(words[-1], 1)
    assert len(words) <= 5
    assert abs(float(words.rstrip("kMG").replace(",", "")) * factor - count) <= max(0.5, count * 0.00501)


@given(st.floats(0, 1e9))
@example(59.96)
@example(3599.6)
@example(48 * 3600 - 0.4)
def test_times_are_short_true_and_never_have_sixty_seconds_or_minutes(seconds):
    units = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
    words = time_words(seconds)
    told = sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+) (\w+)", words))
    # The smaller of two units is cut off or rounded, so it is off by less than one of it.
    assert abs(told - seconds) <= (0.0501 if words.count(" ") == 1 else units[words.split(" ")[-1]])
    assert all(float(number) < 60 for number in re.findall(r"([\d.]+) (?:s|min)\b", words))
    short = short_time_words(seconds)
    assert len(short) <= 6
    if not short.startswith(">"):
        number, unit = short.split(" ")
        assert abs(float(number) * units[unit] - seconds) <= units[unit] / 2


counts = st.one_of(st.integers(0, 10), st.integers(0, 10**6), st.integers(0, 10**7))
sizes = st.one_of(st.integers(0, 1000), st.integers(0, 10**13), st.integers(0, 10**18))


@st.composite
def phases(draw, number=1):
    tasks = draw(counts)
    done = draw(st.integers(0, tasks))
    started = draw(st.none() | st.floats(0, 1e6))
    total = draw(sizes)
    finished = None
    if started is not None and done == tasks:
        finished = draw(st.none() | st.floats(started, 2e7))
    return PhaseProgress(
        phase=number,
        tasks=tasks,
        done=done,
        reused=draw(st.integers(0, done)),
        running=draw(st.integers(0, 1000)),
        files_total=draw(counts),
        bytes_total=total,
        bytes_read=draw(sizes),
        bytes_done=draw(st.integers(0, total)),
        started_seconds=started,
        finished_seconds=finished,
    )


@given(phases(number=12), st.floats(0, 2e7))
def test_a_line_of_any_phase_fits_a_terminal(drawn, later):
    elapsed = (drawn.started_seconds or 0.0) + later
    assert len(phase_line(drawn, elapsed)) <= COLUMNS
    header, row, workers = snapshot_lines(snapshot(drawn, elapsed_seconds=elapsed))
    assert max(map(len, (header, row, workers))) <= COLUMNS
    # No number runs into its neighbour: between the columns there are two spaces, wherever a row ends.
    stop = 0
    for width in _WIDTHS[:-1]:
        stop += abs(width) + 2
        assert row[stop - 2 : stop] == "  ", row


def test_what_an_earlier_master_has_done_counts_as_done_as_on_the_screen():
    after_it = phase(
        tasks=100,
        done=20,
        bytes_total=1_000,
        bytes_read=200,
        bytes_done=200,
        tasks_planned=150,
        bytes_planned=1_500,
        files_total=500,
    )
    (_, row, _) = snapshot_lines(snapshot(after_it, elapsed_seconds=2.0))
    done, tasks, *_ = task_counts([after_it])
    assert (done, tasks) == (70, 150), "on the screen"
    assert " 46% " in row
    assert f"{done}/{tasks}" in row.split()
    assert "0.70/1.50 kB" in row
    assert "200 B/s" in row, "of this master"
    assert "70/150 tasks  0.70/1.50 kB" in phase_line(after_it, 2.0)
    assert "150 tasks" in phase_line(msgspec.structs.replace(after_it, done=100, finished_seconds=2.0), 2.0)


def test_the_largest_numbers_fit_and_the_columns_stand_under_their_headings():
    large = phase(
        11,
        tasks=1_000_000,
        done=999_999,
        files_total=10**9,
        bytes_total=99_900_000_000_000,
        bytes_read=98_700_000_000_000,
        bytes_done=98_700_000_000_000,
    )
    lines = snapshot_lines(
        snapshot(large, phase(1), elapsed_seconds=50_000.0, workers=10_000, workers_lost=1_234, retries=1_000_000)
    )
    assert max(map(len, lines)) <= COLUMNS
    assert lines[-1] == "10,000 workers, 1,234 lost, 1,000,000 attempts repeated"
    header, *rows = lines[:-1]
    for heading in ("tasks", "read", "files/s", "rate", "ETA"):
        stop = header.index(heading) + len(heading)
        assert all(row[stop - 1] != " " and row[stop : stop + 2] in {"", "  "} for row in rows), heading
    assert "1.00M/1.00M" in rows[0]
    assert "98.7/99.9 TB" in rows[0]
    assert len(phase_line(large, 50_000.0)) <= COLUMNS


def test_a_phase_under_way_tells_tasks_bytes_rates_and_the_time_left():
    assert phase_line(phase(), 3.0) == "phase 1  623/750 tasks  1.23/1.60 GB  1,153 files/s  615 MB/s  ETA 0.6 s"
    assert snapshot_lines(snapshot(phase(), elapsed_seconds=3.0))[1] == (
        "phase 1   ████░░  83%      623/750  1.23/1.60 GB    1,153   615 MB/s      0.6 s"
    )


def test_a_phase_that_has_ended_tells_what_it_took_and_not_what_is_left():
    ended = phase(done=750, running=0, bytes_read=1_600_000_000, bytes_done=1_600_000_000, finished_seconds=5.0)
    assert phase_line(ended, 99.0) == "phase 1  750 tasks  1.60 GB  750 files/s  400 MB/s  in 4.0 s"
    assert snapshot_lines(snapshot(ended))[1].endswith("in 4.0 s")
    assert "100%" in snapshot_lines(snapshot(ended))[1]
    assert "1 task " in phase_line(msgspec.structs.replace(ended, tasks=1, done=1), 99.0)


def test_a_phase_that_has_not_begun_claims_no_rate():
    assert phase_line(WAITING, 9.0) == "phase 2  0/30 tasks  0/1.00 kB  - files/s  -  ETA -"


def test_hundred_percent_is_said_only_of_what_is_done():
    nearly = phase(tasks=10**6, done=10**6 - 1, bytes_read=1_700_000_000, bytes_done=1_599_000_000)
    assert " 99%" in snapshot_lines(snapshot(nearly))[1]
    long_task = phase(tasks=1, done=0, bytes_done=800_000_000)
    assert " 50%" in snapshot_lines(snapshot(long_task))[1]
    resumed = phase(tasks=100, done=90, reused=90, bytes_total=100, bytes_done=50)
    assert " 95%" in snapshot_lines(snapshot(resumed))[1]


def test_a_summary_says_everything_in_short_lines():
    lines = summary_lines(
        summary(
            files=10_000_000,
            count=1_000_000_000,
            seconds=200_000.0,
            bytes_read=80 * 10**15,
            tasks=1_000_000,
            tasks_reused=999_999,
            retries=1_000_000,
            workers=10_000,
            workers_lost=1_000,
            plan=PlanSummary(partition=9_765_625, fan_in=5, tiles=1_000_000, phases=11, worker_bytes=1),
        )
    )
    assert lines[:2] == ["mean of 10,000,000 files of 1,000,000,000 numbers", "written to /data/mean.npy"]
    assert max(map(len, lines)) <= COLUMNS
    told = "\n".join(lines)
    for words in ("80.0 PB", "2 d 07 h", "400 GB/s", "10,000 workers", "P = 9,765,625", "1,000,000 tiles", "11 phases"):
        assert words in told
    assert "stored already: 999,999 tasks" in told
    assert "repeated: 1,000,000 attempts" in told
    assert "lost: 1,000 workers" in told


def test_backups_are_told_of_where_there_were_any():
    backups = BackupTotals(started=3, won=1, lost=1, declined=7, saved_seconds=17.2, wasted_bytes=20_000_000)
    last = snapshot_lines(snapshot(phase(), backups=backups))[-1]
    assert last == "2 workers, 3 backups"
    lines = summary_lines(summary(backups=backups, worker_seconds={"starting": 9.0, "waiting": 1.0, "reading": 3.0}))
    assert lines[4:] == [
        "3 backups = 1 won + 1 lost + 1 racing",
        "7 declined; saved about 17s; 20.0 MB read in vain (1.2 %)",
        "workers were busy with this job for 75% of their time",
    ]
    assert summary_lines(summary(backups=BackupTotals(declined=7))) == summary_lines(summary())
    most = BackupTotals(started=10**6, won=10**6, declined=10**7, saved_seconds=1e7, wasted_bytes=10**18)
    assert max(map(len, summary_lines(summary(backups=most)))) <= COLUMNS


def test_an_ordinary_summary_mentions_nothing_unusual_and_counts_in_the_singular():
    plan = PlanSummary(partition=5, fan_in=5, tiles=1, phases=1, worker_bytes=1)
    lines = summary_lines(summary(files=1, count=1, tasks=1, workers=1, plan=plan))
    assert lines == [
        "mean of 1 file of 1 number",
        "written to /data/mean.npy",
        "1.60 GB read in 0.8 s (2.00 GB/s) by 1 worker",
        "P = 5, 1 tile, 1 phase, 1 task",
    ]


def test_inputs_that_were_left_out_are_listed_harmlessly_and_not_without_end():
    skipped = tuple(SkippedInput(f"{number}{HOSTILE}", f"why {HOSTILE}") for number in range(5000))
    lines = summary_lines(summary(files=6000, skipped=skipped))
    assert lines[0].startswith("mean of 1,000 files of")
    assert "left out 5,000 bad inputs of 6,000:" in lines
    assert len(lines) < 30
    assert "4,980 more" in lines[-1]
    assert all(line.isprintable() for line in lines)
    assert any("0a\\x1b[2Jb\\nc\\u202e" in line for line in lines)


def test_an_output_with_a_hostile_name_is_shown_harmlessly():
    assert summary_lines(summary(output=HOSTILE))[0].isprintable()


# In a log, and on a terminal ------------------------------------------------------------------------------------------


class Log:
    """stderr that is no terminal, while the context is open; ``lines`` is what it holds."""

    def __init__(self) -> None:
        self._written = io.StringIO()
        self._redirected = contextlib.redirect_stderr(self._written)

    @property
    def lines(self) -> list[str]:
        return self._written.getvalue().splitlines()

    def __enter__(self):
        self._redirected.__enter__()
        return self

    def __exit__(self, *error):
        self._redirected.__exit__(*error)


class Terminal:
    """A real terminal as stderr, while the context is open; ``written`` is all that it was sent."""

    def __init__(self) -> None:
        self.written = ""

    def __enter__(self):
        self._master, slave = pty.openpty()
        self._chunks: list[bytes] = []
        self._reader = threading.Thread(target=self._drain)
        self._reader.start()
        self._file = os.fdopen(slave, "w", buffering=1)
        self._redirected = contextlib.redirect_stderr(self._file)
        self._redirected.__enter__()
        return self

    def __exit__(self, *error):
        self._redirected.__exit__(*error)
        self._file.close()
        self._reader.join()
        os.close(self._master)
        self.written = b"".join(self._chunks).decode()

    def _drain(self) -> None:
        # Linux says EIO once the other side is closed.
        with contextlib.suppress(OSError):
            while chunk := os.read(self._master, 65536):
                self._chunks.append(chunk)


@pytest.fixture(autouse=True)
def usual_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setenv("LINES", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)


def finished(number):
    return phase(number, done=750, running=0, bytes_read=1_600_000_000, bytes_done=1_600_000_000, finished_seconds=5.0)


def test_a_log_has_a_line_for_each_phase_when_it_ends():
    with Log() as log, Progress(quiet=False) as progress:
        progress.show(snapshot(phase(1), WAITING))
        assert log.lines == []
        for _ in range(3):
            progress.show(snapshot(finished(1), phase(2), elapsed_seconds=6.0))
        assert log.lines == [phase_line(finished(1), 6.0)]
        progress.show(snapshot(finished(1), finished(2), elapsed_seconds=7.0, finished=True))
    assert log.lines == [phase_line(finished(1), 6.0), phase_line(finished(2), 7.0)]


def test_a_log_has_a_line_every_ten_seconds():
    with Log() as log, Progress(quiet=False) as progress:
        for tenths in range(356):
            progress.show(snapshot(phase(1), phase(2, running=0), elapsed_seconds=tenths / 10))
        assert len(log.lines) == 3
        assert all("ETA" in line for line in log.lines)
        progress.show(snapshot(phase(1), elapsed_seconds=99.0, finished=True))
    assert len(log.lines) == 3, "of a job that has ended there is nothing left to come"


def test_a_log_says_so_when_nothing_is_under_way():
    with Log() as log, Progress(quiet=False) as progress:
        progress.show(snapshot(phase(1, running=0), elapsed_seconds=11.0, workers=0, workers_lost=2))
    assert log.lines == ["no task is under way; 0 workers, 2 lost"]


def test_notes_are_told_once_and_harmlessly():
    with Log() as log, Progress(quiet=False) as progress:
        for _ in range(2):
            progress.show(snapshot(phase(1), notes=("one", HOSTILE), notes_total=2))
        progress.show(snapshot(phase(1), notes=("one", HOSTILE, "three"), notes_total=3))
    assert log.lines == ["one", SHOWN, "three"]


def test_notes_that_came_too_fast_are_counted_and_the_last_ones_told():
    with Log() as log, Progress(quiet=False) as progress:
        progress.show(snapshot(phase(1), notes=tuple(map(str, range(50))), notes_total=50))
        progress.show(snapshot(phase(1), notes=tuple(map(str, range(100, 300))), notes_total=300))
    assert log.lines == [*map(str, range(50)), "50 earlier notes left out", *map(str, range(100, 300))]


@pytest.mark.parametrize("where", [Log, Terminal])
def test_quiet_shows_nothing(where):
    with where() as place, Progress(quiet=True) as progress:
        progress.show(snapshot(finished(1), notes=("note",), notes_total=1, elapsed_seconds=60.0))
    assert not (place.lines if where is Log else place.written)


def test_a_terminal_shows_a_table_that_changes_in_place_and_gets_its_cursor_back():
    with Terminal() as terminal, Progress(quiet=False) as progress:
        progress.show(snapshot(phase(1), WAITING))
        progress.show(snapshot(finished(1), finished(2), workers_lost=1))
    assert terminal.written.count("\x1b[1A") >= 3, "the lines of the first table were gone over"
    assert terminal.written.rstrip().endswith("\x1b[?25h"), "the cursor is shown again"
    rows = [line for line in CONTROL.sub("", terminal.written).splitlines() if line.startswith("phase")]
    assert rows[-2:] == snapshot_lines(snapshot(finished(1), finished(2)))[1:3]
    assert "2 workers, 1 lost" in terminal.written


def test_a_terminal_is_left_in_order_when_the_run_is_interrupted():
    def interrupted():
        with Progress(quiet=False) as progress:
            progress.show(snapshot(phase(1)))
            raise KeyboardInterrupt

    with Terminal() as terminal, pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "\x1b[?25l" in terminal.written
    assert terminal.written.rstrip().endswith("\x1b[?25h")


def test_notes_stand_above_the_table_on_a_terminal_harmlessly():
    with Terminal() as terminal, Progress(quiet=False) as progress:
        progress.show(snapshot(phase(1), notes=(HOSTILE,), notes_total=1))
        progress.show(snapshot(phase(1), notes=(HOSTILE, "worker w1 was lost"), notes_total=2))
    plain = CONTROL.sub("", terminal.written)
    assert SHOWN in plain, "brackets are no markup, and escapes are shown"
    assert "\x1b[2J" not in terminal.written
    assert not set(plain) & set("\x1b\x9b\u202e")
    assert plain.count("worker w1 was lost") == 1


def test_a_terminal_that_cannot_move_its_cursor_gets_a_log(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with Terminal() as terminal, Progress(quiet=False) as progress:
        progress.show(snapshot(finished(1)))
    assert terminal.written.splitlines() == [phase_line(finished(1), 2.0)]


def test_bytes_of_a_phase_are_those_of_the_plan_however_many_were_read():
    again = phase(bytes_total=83_200_000, bytes_read=84_000_000, bytes_done=80_000_000)
    assert "80.0/83.2 MB" in phase_line(again, 2.0)
    before = phase(bytes_total=3_200_000, bytes_read=4_000_000, bytes_done=1_200_000, bytes_planned=83_200_000)
    assert "81.2/83.2 MB" in phase_line(before, 2.0)


def test_what_is_found_stored_is_as_fast_a_way_to_the_end_as_what_is_read():
    found = phase(
        tasks=100, done=91, reused=90, found=90, bytes_total=10_000_000, bytes_read=1_000_000, bytes_done=1_000_000,
        tasks_planned=100, bytes_planned=100_000_000,
    )  # fmt: skip
    assert phase_line(found, 11.0).endswith("ETA 1.0 s"), "91 MB in ten seconds, and 9 MB are left"
