"""A history gives back what was counted while its job ran, and what is left of a damaged one is played and no more."""

from __future__ import annotations

import errno
import io
import math
import random
import tracemalloc
import zlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsum.cli.service import ledger_report_lines
from distsum.errors import HistoryError, StorageError
from distsum.messages import (
    PROTOCOL,
    BackupEnded,
    BackupStarted,
    Effort,
    Evidence,
    Heartbeat,
    HelperAdded,
    HelperDeclined,
    JobStarted,
    JobSucceeded,
    TaskId,
    TaskStarted,
    TaskSucceeded,
)
from distsum.observe.history import (
    MOST_TASKS,
    VERSION,
    History,
    HistoryHeader,
    HistoryWriter,
    Recorder,
    Replay,
    ledger_of,
)
from distsum.observe.snapshot import PhaseWork
from distsum.stores.local import LocalStore
from tests.property.test_fold import DrawnRun

EFFORT = Effort(1000, 10, 7, 1, 0.1, 0.2, 0.3, 0.4, 5)
EVIDENCE = Evidence(
    elapsed_seconds=3.0,
    mean_seconds=1.0,
    left_seconds=9.0,
    copy_seconds=1.0,
    progress=0.2,
    slowness=None,
    silent_seconds=0.0,
    done=3,
    tasks=4,
)


class Stored:
    """A reader of bytes."""

    uri = b"/scratch/h\x1b[31m"

    def __init__(self, content):
        self.content = content
        self.size = len(content)

    def read(self, offset, size):
        return self.content[offset : offset + size]


def header(*tasks, **changes):
    work = tuple(PhaseWork(count, count, 100 * count) for count in tasks or (1,))
    fields = {"job": "job", "reduction": "mean", "files": 9, "output": "/o", "work": work, "began_seconds": 1e9}
    return HistoryHeader(**fields | changes)


def written(log, header, **limits):
    file = io.BytesIO()
    writer = HistoryWriter(file, header, **limits)
    for now, event in log:
        writer.take(event, now)
    writer.finish()
    return file.getvalue()


def played(content):
    """Return the events that a history gives, and its remark; None where it cannot be played."""
    try:
        history = History(Stored(content))
    except HistoryError as error:
        return None, str(error)
    return list(history.events()), history.remark


def drawn_run(seed):
    """Return a run of the real actors with the events of it and their times; a backup is added to what happened."""
    draw = random.Random(seed)
    run = DrawnRun(draw.randint(1, 40), draw.randint(1, 2), draw.randint(1, 2), seed)
    log = []
    take = run.tally.take

    def watched(event, now):
        log.append((now, event))
        take(event, now)
        if isinstance(event, TaskStarted) and len(log) % 3 == 0:
            backup = BackupStarted(event.task, 10**6 + len(log), "w9", event.attempt, "w1", "silent", EVIDENCE)
            watched(backup, now)
            watched(HelperAdded(event.task, backup.attempt, "w8", 4, None, 2.0, 1.5), now)
            watched(HelperDeclined(event.task, backup.attempt, "w8", 3, 1.2, 2.0, 1.5), now)
            if len(log) % 2:
                watched(BackupEnded(event.task, backup.attempt, "w9", "lost", 1.0, 0.0, 77), now + 0.1)

    run.tally.take = watched
    run.run()
    return run, log


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_the_ledger_of_an_earlier_master_goes_on_in_the_next_ones_history(seed, next_seed):
    run, log = drawn_run(seed)
    work = [work.tasks for work in run.work]
    first = Replay(History(Stored(written(log, header(*work))))).ledger_report()
    assert ledger_of(History(Stored(written(log, header(*work))))) == first
    run, log = drawn_run(next_seed)
    work = [work.tasks for work in run.work]
    alone = Replay(History(Stored(written(log, header(*work))))).ledger_report()
    both = header(*work, began_seconds=1e9 + 500, resumed=True, earlier=first)
    content = written(log, both)
    report = Replay(History(Stored(content))).ledger_report()
    assert report.remark is not None
    assert msgspec.structs.replace(report, remark=None) == ledger_of(History(Stored(content)))
    for name in ("started", "won", "helped", "lost", "cancelled", "declined", "saved_seconds", "wasted_bytes"):
        assert getattr(report.totals, name) == getattr(first.totals, name) + getattr(alone.totals, name)
    assert report.totals.moot == first.totals.moot + first.totals.racing + alone.totals.moot
    assert report.totals.racing == alone.totals.racing
    assert report.bytes_read == first.bytes_read + alone.bytes_read
    assert len(report.entries) + report.cut == len(first.entries) + first.cut + len(alone.entries) + alone.cut
    assert (first.earlier_seconds, report.earlier_seconds) == (0.0, 500.0)
    third = header(*work, began_seconds=1e9 + 800, resumed=True, earlier=ledger_of(History(Stored(content))))
    assert ledger_of(History(Stored(written(log, third)))).earlier_seconds == 800.0
    # What was told of the first is told with its own time of day.
    assert [both.began_seconds + each.seconds for each in report.entries] == pytest.approx(
        [1e9 + each.seconds for each in first.entries] + [both.began_seconds + each.seconds for each in alone.entries],
        abs=1e-6,
    )


@settings(max_examples=50)
@given(st.integers(0, 2**32))
def test_a_replay_counts_what_was_counted_live(seed):
    run, log = drawn_run(seed)
    content = written(log, header(*(work.tasks for work in run.work)))
    replay = Replay(History(Stored(content)))
    assert replay.remark is None
    live, again = run.tally, replay.tally
    end = log[-1][0]
    assert replay.seconds <= end, "the last may be a heartbeat that says nothing new"
    shown = [msgspec.structs.replace(tally.snapshot(end), phases=()) for tally in (live, again)]
    assert shown[0] == shown[1]
    done = [
        [(each.tasks, each.done, each.reused, each.running) for each in tally.snapshot(end).phases]
        for tally in (live, again)
    ]
    assert done[0] == done[1]
    assert again.phase_seconds() == live.phase_seconds()
    assert again.ledger.entries == live.ledger.entries
    assert again.accounts.accounts(end) == live.accounts.accounts(end)
    for name in ("attempts", "retries", "computed", "bytes_read", "bytes_written", "succeeded", "peak_worker_bytes"):
        assert getattr(again, name) == getattr(live, name), name


LOG = [
    (0.0, JobStarted("job", "mean", 9, (200,), (0,))),
    *(
        event
        for index in range(200)
        for event in (
            (index + 0.1, TaskStarted("w1", TaskId("job", 1, 0, index), 1, index)),
            (index + 0.9, TaskSucceeded("w1", TaskId("job", 1, 0, index), 1, (), False, b"", EFFORT, index)),
        )
    ),
    (200.0, JobSucceeded("job", 9, (), ())),
]


@pytest.fixture(scope="module")
def whole():
    """A history of several blocks."""
    file = io.BytesIO()
    writer = HistoryWriter(file, header(200))
    for place, (now, event) in enumerate(LOG):
        writer.take(event, now)
        if place % 50 == 0:
            writer._flush()
    writer.finish()
    content = file.getvalue()
    assert played(content) == (LOG, None)
    return content


def test_one_that_is_cut_short_is_played_up_to_there_and_says_so(whole):
    most = 0
    for size in range(len(whole)):
        events, remark = played(whole[:size])
        if events is None:
            assert most == 0
            continue
        assert events == LOG[: len(events)]
        assert len(events) >= most
        most = len(events)
        assert "ends in the middle, at byte" in remark
        assert f"{len(events):,} event" in remark
    assert most == len(LOG)


@settings(max_examples=200)
@given(st.data())
def test_one_that_is_damaged_anywhere_is_played_up_to_there_and_says_so(whole, data):
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    events, remark = played(bytes(damaged))
    if events is None:
        return
    assert events == LOG[: len(events)]
    first_line = whole.index(b"\n")
    assert remark is not None or place < first_line, "only the name of the version that wrote it may change unseen"


@given(st.binary(max_size=300))
def test_what_is_no_history_is_named_and_harms_nothing(content):
    for each in (content, b"distsum history 1 protocol %d by distsum 0\n" % PROTOCOL + content):
        events, words = played(each)
        assert events is None
        assert "/scratch/h\\x1b[31m" in words
        assert words.isprintable()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"work": (PhaseWork(10**12, 9, 9), PhaseWork(1, 1, 1))}, r"tells of 1,000,000,000,001 tasks, and at most"),
        ({"work": (PhaseWork(MOST_TASKS, 9, 9), PhaseWork(1, 1, 1))}, r"at most 20,000,000 fit into memory"),
        *(({"began_seconds": moment}, "does not say when") for moment in (math.inf, math.nan, 1e300, -1.0)),
    ],
)
def test_a_header_that_no_run_can_have_written_is_refused_before_memory_is_taken(change, words):
    content = written(LOG[:1], msgspec.structs.replace(header(200), **change))
    with pytest.raises(HistoryError, match=words):
        History(Stored(content))


def test_another_version_or_protocol_is_refused_by_name(whole):
    rest = whole[whole.index(b"\n") :]
    for version, protocol in ((VERSION + 1, PROTOCOL), (VERSION, PROTOCOL + 1), (VERSION, PROTOCOL - 1)):
        with pytest.raises(HistoryError) as caught:
            History(Stored(b"distsum history %d protocol %d by distsum 9.8.7" % (version, protocol) + rest))
        assert f"version {version}, protocol {protocol}, and this is distsum" in str(caught.value)
        assert "read it with distsum 9.8.7" in str(caught.value)


def test_a_block_that_would_take_all_memory_is_damaged():
    first = written([], header())
    start = first[: first.index(b"\n") + 1]
    packed = zlib.compress(bytes(1 << 28))
    head = len(packed).to_bytes(4, "little") + zlib.crc32(packed).to_bytes(4, "little")
    assert len(packed) < 1 << 20
    tracemalloc.start()
    try:
        assert "damaged at byte" in played(start + head + packed)[1]
        assert tracemalloc.get_traced_memory()[1] < 1 << 26, "it was unpacked whole before it was looked at"
    finally:
        tracemalloc.stop()
    assert "damaged at byte" in played(start + b"\xff" * 8)[1]


@pytest.mark.parametrize(
    "event",
    [
        TaskStarted("w", TaskId("job", 7, 0, 0), 1),
        TaskStarted("w", TaskId("job", 0, 0, 0), 1),
        JobStarted("job", "mean", 9, (200, 1), (0, 0)),
    ],
)
def test_an_event_that_is_not_of_the_job_ends_the_replay(event):
    content = written([*LOG[:7], (9.0, event), *LOG[7:]], header(200))
    replay = Replay(History(Stored(content)))
    assert replay.tally.succeeded == 3
    assert "phase" in replay.remark


def test_of_heartbeats_one_a_worker_and_second_is_kept_and_any_that_says_something_new():
    first, second = TaskId("job", 1, 0, 0), TaskId("job", 1, 0, 1)
    beats = [(second_ / 10, Heartbeat(worker, first, second_)) for second_ in range(100) for worker in ("w1", "w2")]
    news = [(10.0, Heartbeat("w1", second, 1)), (10.1, Heartbeat("w1", None, 0)), (10.2, TaskStarted("w1", first, 1))]
    log = [LOG[0], *beats, *news, (10.3, Heartbeat("w1", None, 0)), (10.4, Heartbeat("w1", None, 0))]
    events, remark = played(written(log, header(200)))
    assert remark is None
    kept = [event for _, event in events if isinstance(event, Heartbeat)]
    assert sum(event.task == first for event in kept) == 2 * 10
    assert [event.task for event in kept[20:]] == [second, None, None]


def test_a_history_does_not_outgrow_its_room_and_tells_what_it_lacks():
    draw = random.Random(1)
    names = [draw.randbytes(20).hex() for _ in range(20_000)]
    log = [
        LOG[0],
        *((float(place), TaskStarted(name, TaskId("job", 1, 0, place % 200), 1)) for place, name in enumerate(names)),
        (2e4, BackupStarted(TaskId("job", 1, 0, 3), 9, "w1", 5, "w2", "silent", EVIDENCE)),
        (3e4, LOG[-1][1]),
    ]
    content = written(log, header(200), most_bytes=200_000)
    assert len(content) <= 200_000
    events, remark = played(content)
    assert isinstance(events[-1][1], JobSucceeded)
    assert isinstance(events[-2][1], BackupStarted), "what is rare has room of its own"
    assert f"lacks {len(log) - len(events):,} events of {len(log):,}" in remark
    assert 1000 < len(events) < len(log)


class FullDisk(io.BytesIO):
    def write(self, data):
        if self.tell() > 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_full_disk_ends_the_history_and_nothing_else(tmp_path):
    file = FullDisk()
    writer = HistoryWriter(file, header(200))
    for now, event in LOG * 20:
        writer.take(event, now)
    writer.finish()
    assert writer.failure == "No space left on device"
    assert played(file.getvalue())[0] is not None
    recorder = Recorder(header(200))
    recorder._writer = HistoryWriter(FullDisk(bytes(2000)), header(200))
    recorder._writer._file.seek(2000)
    recorder.take(*reversed(LOG[0]))
    recorder._writer._flush()
    with pytest.raises(StorageError, match="No space left on device"):
        recorder.store(LocalStore(), bytes(tmp_path / "h"))
    recorder.close()
    assert not (tmp_path / "h").exists()


def test_what_a_recorder_has_stored_so_far_can_be_played_up_to_there_while_it_goes_on(tmp_path):
    recorder = Recorder(header(200))
    for taken in (0, 10, 50):
        while recorder.events < taken:
            recorder.take(*reversed(LOG[recorder.events]))
        reached = recorder.reach()
        recorder.take(*reversed(LOG[taken]))
        assert recorder.reach() > reached, "which is written, and not stored yet"
        recorder.store_so_far(LocalStore(), bytes(tmp_path / "h"), reached)
        with LocalStore().open(bytes(tmp_path / "h")) as reader:
            history = History(reader)
            assert list(history.events()) == LOG[:taken]
            assert "ends in the middle" in (history.remark or "")
    recorder.store(LocalStore(), bytes(tmp_path / "h"))
    recorder.close()
    with LocalStore().open(bytes(tmp_path / "h")) as reader:
        history = History(reader)
        assert (list(history.events()), history.remark) == (LOG[:51], None)


def test_what_an_earlier_master_could_not_tell_is_said_by_the_next_ones(whole, tmp_path):
    begun = "an earlier master had begun the job, and what it did is told of stragglers only"

    def next_header(content):
        earlier = ledger_of(History(Stored(content)))
        return header(200, resumed=True, earlier=earlier)

    def so_far(of):
        recorder = Recorder(of)
        recorder.take(*reversed(LOG[0]))
        recorder.store_so_far(LocalStore(), bytes(tmp_path / "h"), recorder.reach())
        recorder.close()
        return (tmp_path / "h").read_bytes()

    assert next_header(whole).remark == begun
    unfinished = next_header(so_far(header(200)))
    assert unfinished.remark == f"{begun}, but for its last seconds"
    again = next_header(so_far(unfinished))
    assert again.remark == unfinished.remark, "of two it is said once"
    damaged = bytearray(so_far(unfinished))
    damaged[-1] ^= 1
    told = next_header(bytes(damaged)).remark
    assert told.startswith(f"{begun}, but for its last seconds, and not all of that: the history is incomplete: it is")
    assert told.endswith("; 0 events before that were played")
    cut = next_header(so_far(header(200))[:-1]).remark
    assert "not all of that: the history is incomplete: it ends in the middle" in cut
    report = Replay(History(Stored(written(LOG, again)))).ledger_report()
    assert report.remark == again.remark
    (line,) = [line for line in ledger_report_lines(report) if "last seconds" in line]
    assert line == again.remark


def test_a_recorder_leaves_one_whole_file(tmp_path):
    recorder = Recorder(header(200))
    for now, event in LOG:
        recorder.take(event, now)
    assert list(tmp_path.iterdir()) == []
    recorder.store(LocalStore(), bytes(tmp_path / "h"))
    recorder.close()
    assert [path.name for path in tmp_path.iterdir()] == ["h"]
    with LocalStore().open(bytes(tmp_path / "h")) as reader:
        history = History(reader)
        assert (list(history.events()), history.remark) == (LOG, None)
    assert (tmp_path / "h").stat().st_size < 60 * 200
