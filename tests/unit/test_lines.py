"""What the panes of a job say: every line has room, whatever is in a name, and what is filtered is a whole entry."""

from __future__ import annotations

import re

import msgspec
import pytest
from distsum.tui.figures import io_lines
from distsum.tui.lines import clock_words, header_lines, log_lines, straggler_lines, straggler_title, worker_lines
from distsum.tui.service_lines import (
    JOB_COLUMNS,
    WORKER_COLUMNS,
    QueueTraces,
    job_details,
    job_rows,
    overview_line,
    shared_queue_lines,
    worker_rows,
)
from distsum.tui.table_lines import cell_line, places
from rich.cells import cell_len as width_of

from distsum.actors.speculation import SpeculationSettings
from distsum.jobs import backup_rule
from distsum.latency import Latencies, LatencyCounter
from distsum.messages import TaskId
from distsum.observe.history import History
from distsum.observe.player import Player
from distsum.observe.rates import SLICES, Estimate
from distsum.observe.snapshot import JobTerms, PhaseProgress
from distsum.observe.states import QUEUED
from distsum.observe.view import WorkerView
from distsum.request import BackupTotals
from tests.following import NOW, busy_service, running, service, succeeded, worker
from tests.recorded import Stored, recorded
from tests.screens import WIDE


def told_at(share):
    """A view of a history that holds all that one tells by now."""
    return view_at(share, recorded(tree_told=True))


def view_at(share, content=None):
    player = Player(History(Stored(content or recorded())))
    player.seek(share * player.end_seconds)
    while not player.step():
        pass
    return player.view()


def text(line):
    return "".join(span.text for span in line)


@pytest.fixture(scope="module")
def late():
    return view_at(0.96)


@pytest.fixture(scope="module")
def done():
    return view_at(1.0)


@pytest.mark.parametrize("width", [120, 80, 40])
@pytest.mark.parametrize("name", WIDE, ids=range(len(WIDE)))
def test_a_header_tells_state_time_and_eta_whatever_is_in_the_name_of_the_result(name, width, late, done):
    first, _ = header_lines(msgspec.structs.replace(late, output=name), width)
    assert width_of(text(first)) == width
    assert re.search(r"RUNNING phase \d/6  [\d.ms]+  ETA (about |~)?[\d.ms]+( ±[\d.ms]+)?$", text(first))
    first, _ = header_lines(msgspec.structs.replace(done, output=name), width)
    assert width_of(text(first)) == width
    assert re.search(r"DONE  [\d.ms]+$", text(first))


def test_a_header_of_many_phases_tells_state_time_and_eta_in_40_columns(late):
    snapshot = late.snapshot
    phases = (snapshot.phases * 2)[:12]
    phases = tuple(
        msgspec.structs.replace(phase, phase=number, tasks=9, done=9 * (number < 11))
        for number, phase in enumerate(phases, start=1)
    )
    estimate = Estimate(3599.0, 3599.0)
    snapshot = msgspec.structs.replace(snapshot, phases=phases, elapsed_seconds=3599.0)
    first, _ = header_lines(msgspec.structs.replace(late, snapshot=snapshot, estimate=estimate), 40)
    assert text(first).endswith("RUNNING 11/12  59m59s  ETA ~59m59s")
    assert width_of(text(first)) == 40


@pytest.mark.parametrize(("width", "above", "below"), [
    (120, " F=4,000 C=20,000,000 f64 to s3://lab/", "━"),
    (100, " F=4,000 C=20,000,000 f64 to s3", "━"),
    (80, "7f3a mean F=4,000 to s3://lab/", "C=20,000,000 f64 ━"),
    (40, "7f3…  RUNNING", "━"),
])  # fmt: skip
def test_a_header_tells_how_many_numbers_of_which_dtype_inputs_have_where_there_is_room(width, above, below):
    first, second = map(text, header_lines(told_at(0.96), width))
    assert above in first
    assert second.startswith(below)
    assert (width_of(first), width_of(second)) == (width, width)


def test_a_history_from_before_the_shape_of_inputs_was_told_says_nothing_of_it(late):
    assert not any("C=" in text(line) for width in (120, 80) for line in header_lines(late, width))


def test_a_dtype_in_a_history_is_anybodys_text(late):
    view = msgspec.structs.replace(late, terms=JobTerms(count=5, dtype="\x1b[31m" * 40))
    for width in (120, 80):
        lines = [text(line) for line in header_lines(view, width)]
        assert not any("\x1b" in line for line in lines)
        assert [width_of(line) for line in lines] == [width, width]


@pytest.mark.parametrize(("settings", "words"), [
    ({}, "rule 75 % / 1.2x, idle 2x"),
    ({"quantile": 0.905, "multiplier": 2.0, "slow": 2.5}, "rule 90.5 % / 2x, idle 2.5x"),
    ({"policy": "spark", "multiplier": 1.5}, "rule spark 75 % / 1.5x"),
    ({"policy": "late"}, "rule late"),
])  # fmt: skip
def test_the_ledger_s_title_tells_the_rule_in_force(settings, words, late):
    view = msgspec.structs.replace(late, terms=JobTerms(rule=backup_rule(SpeculationSettings(**settings))))
    assert straggler_title(view, 200).endswith(f" ── {words}")
    assert "rule" not in straggler_title(view, 50), "what was done about stragglers goes before it"
    off = msgspec.structs.replace(view, snapshot=msgspec.structs.replace(view.snapshot, speculation=False))
    assert "rule" not in straggler_title(off, 200)


def test_no_rule_is_told_where_there_is_none_or_a_history_does_not_hold_it(late):
    assert backup_rule(SpeculationSettings(policy="none")) is None
    assert "rule" not in straggler_title(late, 200)
    assert straggler_title(told_at(0.96), 200).endswith("rule 75 % / 1.2x, idle 2x")


@pytest.mark.parametrize(("margin", "wide", "narrow"), [
    (0.04, "ETA 42s", "ETA 42s"),
    (0.06, "ETA 42s ±0.1s", "ETA 42s"),
    (9.95, "ETA 42s ±10s", "ETA 42s"),
    (41.0, "ETA 42s ±41s", "ETA 42s"),
    (42.0, "ETA about 42s", "ETA ~42s"),
    (99.0, "ETA about 42s", "ETA ~42s"),
])  # fmt: skip
def test_a_margin_that_is_not_below_the_eta_is_not_told_as_if_it_were_measured(margin, wide, narrow, late):
    view = msgspec.structs.replace(late, estimate=Estimate(42.0, margin))
    assert [text(header_lines(view, width)[0]).split("  ")[-1] for width in (80, 40)] == [wide, narrow]


@pytest.mark.parametrize("width", [30, 42, 80])
@pytest.mark.parametrize("name", WIDE, ids=range(len(WIDE)))
def test_figures_of_workers_stand_where_they_stand_whatever_their_names_are(name, width, late):
    plain = [text(line) for line in worker_lines(late, width)]
    workers = tuple(
        msgspec.structs.replace(each, status=msgspec.structs.replace(each.status, worker=name)) for each in late.workers
    )
    told = [text(line) for line in worker_lines(msgspec.structs.replace(late, workers=workers), width)]
    assert len(told) == len(plain)
    for one, other in zip(told, plain, strict=True):
        assert width_of(one) <= width
        if "x" in other[-7:]:
            assert one[-18:] == other[-18:], "rate, and share of the usual one"


@pytest.mark.parametrize("name", WIDE, ids=range(len(WIDE)))
def test_a_cell_that_is_cut_says_so(name):
    for width in (80, 120, 200):
        (row,) = job_rows([running("7f3a90c1d2e4", output=name * 12)], NOW)
        for place in places(JOB_COLUMNS, width):
            shown = text(cell_line(row.cells[place.column], JOB_COLUMNS[place.column], place.width))
            assert width_of(shown) == place.width
            if JOB_COLUMNS[place.column].title == "result":
                assert shown.rstrip().endswith("…"), "no more of it has room"


@pytest.mark.parametrize("width", [30, 42, 80])
def test_the_queue_of_all_jobs_is_told_as_such_and_only_what_is_known_of_it(width, late):
    traces = QueueTraces()
    queues = busy_service().queues
    for second, ready in enumerate((80, 60, 41)):
        first = msgspec.structs.replace(queues.queues[0], ready=ready)
        queues = msgspec.structs.replace(queues, queues=(first, *queues.queues[1:]))
        traces.take(queues, second)
    told = [text(line) for line in shared_queue_lines(queues, traces, width)]
    assert told[0] == "queue   41 ready █▆▄"
    words = " ".join(" ".join(told[1:]).split())
    assert words == f"of all jobs 32 unacked, {queues.redelivered} redelivered, 2 dead"
    assert max(map(width_of, told)) <= width
    unknown = msgspec.structs.replace(queues.queues[0], unacknowledged=None)
    told = [text(line) for line in shared_queue_lines(msgspec.structs.replace(queues, queues=(unknown,)), traces, 80)]
    assert told[1].strip() == f"of all jobs {queues.redelivered} redelivered"
    assert shared_queue_lines(msgspec.structs.replace(queues, queues=()), traces, 80) == []
    lines = [text(line) for line in io_lines(late, width, shared_queue_lines(queues, traces, width))]
    assert max(map(width_of, lines[1 : lines.index(next(line for line in lines if line.startswith("read")))])) <= width
    assert re.search(r"of this job \d+ queued again(, \d+ redelivered)? ", " ".join(" ".join(lines).split()))


def test_tasks_that_are_back_in_the_queue_are_counted_while_the_job_goes_on(late, done):
    assert not any("queue" in text(line) for line in io_lines(done, 80))
    first, *rest = late.states
    first = msgspec.structs.replace(first, states=bytes([QUEUED] * 3) + first.states[3:])
    snapshot = msgspec.structs.replace(late.snapshot, returned=2)
    before = sum(
        phase.states.count(QUEUED) for phase in (*rest, msgspec.structs.replace(first, states=first.states[3:]))
    )
    lines = list(map(text, io_lines(msgspec.structs.replace(late, states=(first, *rest), snapshot=snapshot), 80)))
    assert f"queue {before + 3} queued again, 2 redelivered" in lines
    assert view_at(0.96).snapshot.returned == sum("back in the queue after" in line.words for line in late.log)


# Filters --------------------------------------------------------------------------------------------------------------


def entries_of(lines):
    """The lines of each entry: those that begin with a time, and what they go on with."""
    entries = []
    for line in map(text, lines):
        if re.match(r"\d\d:\d\d:\d\d ", line):
            entries.append([line])
        elif line.startswith(" " * 9) and entries:
            entries[-1].append(line)
    return entries


def joined(entry):
    return " ".join(line.strip() for line in entry)


@pytest.mark.parametrize("lines_of", [straggler_lines, log_lines])
@pytest.mark.parametrize("width", [40, 78])
def test_a_filter_keeps_whole_entries_and_counts_the_others(lines_of, width, late):
    entries = entries_of(lines_of(late, width))
    folded = next(entry for entry in entries if len(entry) > 1)
    spanning = f"{folded[0].split()[-1]} {folded[1].split()[0]}"
    for wanted in (spanning, spanning.upper(), folded[1].split()[-1], folded[0][:8]):
        lines = lines_of(late, width, wanted)
        found = entries_of(lines)
        assert folded in found
        assert found == [entry for entry in entries if wanted.casefold() in joined(entry).casefold()]
        hidden = len(entries) - len(found)
        noun = {straggler_lines: "entries", log_lines: "lines"}[lines_of]
        assert (text(lines[-1]) == f"{hidden} {noun} without “{wanted}”") is (hidden > 0)


def test_a_filter_finds_workers_whose_lines_are_cut(late):
    reason = "disk full " * 30 + "at last"
    first, *others = late.workers
    gone = msgspec.structs.replace(first, status=msgspec.structs.replace(first.status, state="lost", reason=reason))
    lines = worker_lines(msgspec.structs.replace(late, workers=(gone, *others)), 30, "AT LAST")
    assert text(lines[0]).startswith(first.status.worker)
    assert text(lines[1]) == f"{len(others)} workers without “AT LAST”"


def test_how_long_s3_takes_to_answer_is_told_where_it_is_asked(late):
    counter = LatencyCounter()
    for seconds in [0.038] * 98 + [1.9] * 2:
        counter.add(seconds)
    counter.add_retry()
    both = counter.take().plus(Latencies({}, 6))
    assert sum(both.counts.values()) == 100
    lines = map(text, io_lines(msgspec.structs.replace(late, latencies=both), 40))
    (line,) = [line for line in lines if line.startswith("S3")]
    _, _, half, _, most, *_ = line.split()
    assert half.endswith("ms")
    assert 34 <= int(half.removesuffix("ms")) <= 42
    assert 1.7 <= float(most.removesuffix("s,")) <= 2.1
    assert line.endswith(", 7 requests again")
    assert len(line) <= 40
    assert not any(text(line).startswith("S3") for line in io_lines(late, 40))


ACCOUNT = {"starting": 9.0, "waiting": 60.0, "reading": 5.0, "adding": 0.1, "storing": 34.0, "discarded": 0.9}


def test_what_was_discarded_is_not_what_a_low_pane_cuts_of_the_time_of_workers(late):
    lines = [text(line) for line in io_lines(msgspec.structs.replace(late, account=ACCOUNT), 40)]
    parts = [line.rstrip(" ▬") for line in lines[lines.index("time of workers") + 1 :]]
    assert parts == [" discarded    1%", " not at job  60%", " storing     34%", " reading      5%"]
    assert max(map(len, lines)) <= 40
    none = io_lines(msgspec.structs.replace(late, account=ACCOUNT | {"discarded": 0.0}), 40)
    assert not any("discarded" in text(line) for line in none)


def test_nobody_is_told_that_workers_do_nothing_while_they_are_at_their_first_tasks(late):
    waited = dict.fromkeys(ACCOUNT, 0.0) | {"waiting": 0.8, "starting": 2.0}
    phase = PhaseProgress(1, 10, running=2, bytes_total=10, started_seconds=1.0)
    at_it = msgspec.structs.replace(late, snapshot=msgspec.structs.replace(late.snapshot, phases=(phase,)))
    told = [text(line) for line in io_lines(msgspec.structs.replace(at_it, account=waited), 40)]
    assert told[-1] == "time of workers: told when a task ends"
    idle = msgspec.structs.replace(at_it.snapshot, phases=(msgspec.structs.replace(phase, running=0),))
    told = [text(line) for line in io_lines(msgspec.structs.replace(at_it, snapshot=idle, account=waited), 40)]
    assert told[-1].startswith(" not at job 100%")


def test_the_fullest_pane_of_figures_has_room_for_all_but_the_least_of_the_time_at_120_x_36(late):
    view = msgspec.structs.replace(resumed(late), account=ACCOUNT, latencies=Latencies({1: 1}, 0))
    assert len(io_lines(view, 40)) <= 12


def test_how_long_a_job_has_taken_counts_from_when_its_first_master_had_it(late):
    took = late.snapshot.elapsed_seconds
    assert f" {clock_words(took)} " in text(header_lines(late, 120)[0])
    resumed_view = msgspec.structs.replace(late, ledger=msgspec.structs.replace(late.ledger, earlier_seconds=3600.0))
    assert f" {clock_words(3600.0 + took)} " in text(header_lines(resumed_view, 120)[0])


def test_bytes_are_those_of_the_plan_however_many_were_read(late):
    phase = PhaseProgress(
        1, 4, 3, bytes_total=80_000_000, bytes_read=84_000_000, bytes_done=60_000_000, started_seconds=1.0
    )
    others = PhaseProgress(2, 1, bytes_total=3_200_000)
    snapshot = msgspec.structs.replace(late.snapshot, phases=(phase, others))
    _, bar = header_lines(msgspec.structs.replace(late, snapshot=snapshot), 80)
    assert "60.0/83.2 MB" in text(bar)
    done = tuple(msgspec.structs.replace(each, bytes_read=10, bytes_done=each.bytes_total) for each in (phase, others))
    ended = msgspec.structs.replace(snapshot, finished=True, phases=done)
    _, bar = header_lines(msgspec.structs.replace(late, snapshot=ended), 80)
    assert "100% 83.2/83.2 MB" in text(bar)


def test_a_slow_worker_is_marked_with_what_it_waits_for(late):
    slow = worker("reads", bytes_per_second=1e6, reading_share=0.9)
    busy = worker("adds", bytes_per_second=2e6, reading_share=0.1)
    usual = [worker(f"w{number}", bytes_per_second=1e8, reading_share=0.9) for number in range(3)]
    workers = tuple(WorkerView(each, "") for each in (slow, busy, *usual))
    lines = [text(line) for line in worker_lines(msgspec.structs.replace(late, workers=workers), 50)]
    assert [line.split()[0] for line in lines] == ["reads", "adds", "w0", "w1", "w2"]
    assert lines[0].endswith("0.01x i/o!")
    assert lines[1].endswith("0.02x cpu!")
    assert not any("!" in line for line in lines[2:])
    assert len(set(map(len, lines))) == 1


def test_a_silent_worker_stands_before_the_slow_ones_and_says_for_how_long(late):
    slow = worker("slow", bytes_per_second=1e6)
    usual = [worker(f"w{number}", bytes_per_second=1e8) for number in range(3)]
    workers = tuple(WorkerView(each, "") for each in (slow, *usual))
    frozen = WorkerView(worker("frozen", bytes_per_second=2e8), "", silent_seconds=130)
    shown = msgspec.structs.replace(late, workers=(*workers, frozen))
    first, second, *_ = worker_lines(shown, 60)
    assert text(first) == "frozen ! silent for 2m10s, at phase 1 task 3013"
    assert text(second).startswith("slow ")
    assert text(worker_lines(shown, 60, "silent")[0]).startswith("frozen ")


def test_workers_without_a_task_of_the_job_stand_below_the_slowest_that_has_one(late):
    views = [
        WorkerView(worker("none", "idle", tasks=0, bytes_per_second=0.0), ""),
        WorkerView(worker("fast", bytes_per_second=1e6), ""),
        WorkerView(worker("slow", bytes_per_second=1e3), ""),
        WorkerView(worker("begins", tasks=0, bytes_per_second=0.0, task=TaskId("j", 1, 0, 0)), ""),
    ]
    lines = worker_lines(msgspec.structs.replace(late, workers=tuple(views)), 60)
    assert [text(line).split()[0] for line in lines] == ["begins", "slow", "fast", "none"]


def test_who_was_lost_of_late_stands_above_all_and_who_left_or_was_lost_long_ago_below(late):
    now = late.snapshot.elapsed_seconds
    views = [
        WorkerView(worker("works", bytes_per_second=1e6), ""),
        WorkerView(worker("long-ago", "lost", reason="gone", heard_seconds=now - 61.0), ""),
        WorkerView(worker("of-late", "lost", reason="gone", heard_seconds=now - 59.0), ""),
        WorkerView(worker("went", "left", heard_seconds=now - 1.0), ""),
    ]
    lines = worker_lines(msgspec.structs.replace(late, workers=tuple(views)), 60)
    assert [text(line).split()[0] for line in lines] == ["of-late", "works", "went", "long-ago"]


def test_a_lost_worker_says_when_it_was_heard_last(late):
    now = late.snapshot.elapsed_seconds
    lost = worker("w9", "lost", reason="no heartbeat for 21 s", heard_seconds=now - 44.0)
    (line,) = worker_lines(msgspec.structs.replace(late, workers=(WorkerView(lost, ""),)), 60)
    assert text(line) == "w9 lost, last heard 44s ago: no heartbeat for 21 s"


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (40, "vm-9d36fd5d lost, last heard 44s ago"),
        (52, "vm-9d36fd5d lost, last heard 44s ago: is gone from …"),
        (61, "vm-9d36fd5d lost, last heard 44s ago: is gone from the broker"),
    ],
)
def test_why_a_worker_is_lost_is_told_where_enough_of_it_has_room(width, words, late):
    now = late.snapshot.elapsed_seconds
    lost = worker("vm-9d36fd5d", "lost", reason="is gone from the broker", heard_seconds=now - 44.0)
    (line,) = worker_lines(msgspec.structs.replace(late, workers=(WorkerView(lost, ""),)), width)
    assert text(line) == words


def test_a_worker_that_has_done_nothing_of_the_job_says_so(late):
    idle = worker("idle", "idle", tasks=0, bytes_per_second=0.0)
    (line,) = worker_lines(msgspec.structs.replace(late, workers=(WorkerView(idle, ""),)), 60)
    assert text(line).split() == ["idle", "no", "task"]


def resumed(view):
    """Return the view of a job of which an earlier run had done 400 of 500 tasks and 80 of 100 MB."""
    phase = PhaseProgress(
        1, 150, 75, reused=50, running=2, bytes_total=20_000_000, bytes_read=5_000_000,
        bytes_done=5_000_000, started_seconds=1.0,
        tasks_planned=500, bytes_planned=100_000_000,
    )  # fmt: skip
    return msgspec.structs.replace(view, snapshot=msgspec.structs.replace(view.snapshot, phases=(phase,)))


def test_what_was_stored_before_counts_as_done_and_is_told(late):
    view = resumed(late)
    _, bar = header_lines(view, 80)
    assert " 85% 85.0/100 MB" in text(bar)
    first, second, *_ = map(text, io_lines(view, 40))
    assert first == "tasks 425/500 done, 2 running"
    assert second.split() == ["of", "them", "400", "before", "this", "run"]
    (row,) = job_rows([msgspec.structs.replace(running("7f3a90c1d2e4"), snapshot=view.snapshot)], NOW)
    assert row.cells[3].text == " 85%"
    assert row.details[0].startswith("425 of 500 tasks done, 2 running on ")
    assert "; of them 400 before this run" in row.details[0]


def test_what_was_stored_by_others_meanwhile_is_not_told_as_done_before(late):
    phase = PhaseProgress(1, 150, 75, reused=53, found=3, bytes_total=20_000_000, started_seconds=1.0)
    view = msgspec.structs.replace(late, snapshot=msgspec.structs.replace(late.snapshot, phases=(phase,)))
    words = "of them 50 before this run, 3 stored when begun"
    assert " ".join(" ".join(map(text, io_lines(view, 40)[1:3])).split()) == words
    assert max(width_of(text(line)) for line in io_lines(view, 40)) <= 40
    (row,) = job_rows([msgspec.structs.replace(running("7f3a90c1d2e4"), snapshot=view.snapshot)], NOW)
    assert f"; {words}" in row.details[0]
    only = msgspec.structs.replace(view.snapshot, phases=(msgspec.structs.replace(phase, reused=3),))
    assert text(io_lines(msgspec.structs.replace(view, snapshot=only), 40)[1]).strip() == "of them 3 stored when begun"


def test_a_job_that_has_ended_tells_its_mean_rates_and_not_that_nothing_is_read_now(late, done):
    snapshot = msgspec.structs.replace(
        done.snapshot, elapsed_seconds=20.0, bytes_read=2_000_000_000, bytes_written=40_000_000
    )
    lines = [text(line) for line in io_lines(msgspec.structs.replace(done, snapshot=snapshot), 42)]
    assert next(line for line in lines if line.startswith("read")).startswith("read    100 MB/s mean ")
    assert next(line for line in lines if line.startswith("write")).startswith("write  2.00 MB/s mean ")
    assert max(map(width_of, lines)) <= 42
    stored = msgspec.structs.replace(snapshot, bytes_read=0, bytes_written=0)
    lines = [text(line) for line in io_lines(msgspec.structs.replace(done, snapshot=stored), 42)]
    assert [line for line in lines if line[:4] in {"read", "writ"}] == ["read     nothing", "write    nothing"]
    assert not any("mean" in text(line) for line in io_lines(late, 42))
    assert done.snapshot.bytes_read > done.snapshot.bytes_written > 0


def test_attempts_at_tasks_that_were_made_again_are_not_mistaken_for_requests_to_s3_nor_the_other_way_round(late):
    view = msgspec.structs.replace(
        late,
        snapshot=msgspec.structs.replace(late.snapshot, retries=1, workers_lost=0),
        latencies=Latencies({1: 5}, 1234),
    )
    lines = [text(line) for line in io_lines(view, 42)]
    assert "again 1 attempt at tasks" in lines
    (place,) = (place for place, line in enumerate(lines) if line.startswith("S3"))
    assert " ".join(" ".join(lines[place : place + 2]).split()).startswith("S3 p50 ")
    assert "1,234 requests again" in " ".join(" ".join(lines[place : place + 2]).split())
    assert not any("retr" in line for line in lines)
    assert max(map(width_of, lines)) <= 42
    snapshot = msgspec.structs.replace(running("7f3a90c1d2e4").snapshot, retries=2)
    (row,) = job_rows([msgspec.structs.replace(running("7f3a90c1d2e4"), snapshot=snapshot)], NOW)
    assert "; 2 attempts repeated" in row.details[0]


def test_what_ran_when_a_job_ended_is_told_as_that(late):
    ended = msgspec.structs.replace(late, snapshot=msgspec.structs.replace(late.snapshot, finished=True))
    assert text(io_lines(ended, 40)[0]).endswith(" running at its end")
    assert text(io_lines(late, 40)[0]).endswith(" running")


def test_a_job_of_which_no_worker_has_begun_a_task_waits(late):
    (busy, waits) = (running("7f3a90c1d2e4"), running("9c00aa12b3c4", share=0.0))
    phases = tuple(msgspec.structs.replace(each, running=0, started_seconds=None) for each in waits.snapshot.phases)
    waits = msgspec.structs.replace(waits, snapshot=msgspec.structs.replace(waits.snapshot, phases=phases))
    rows = job_rows([waits, busy], NOW)
    assert [row.cells[0].text for row in rows] == ["▶ running", "· waiting"]
    assert rows[1].details[0] == "0 of 208 tasks done, and none has begun: no worker has been free for it yet"
    assert "1 running, 1 waiting" in text(overview_line(service([waits, busy]), NOW, 120))
    shown = msgspec.structs.replace(late, snapshot=msgspec.structs.replace(late.snapshot, phases=phases))
    assert " WAITING " in text(header_lines(shown, 120)[0])


def test_the_title_of_stragglers_is_shortened_by_parts(late):
    totals = BackupTotals(started=3, won=2, lost=1, declined=10, saved_seconds=130, wasted_bytes=801_000)
    view = msgspec.structs.replace(late, ledger=msgspec.structs.replace(late.ledger, totals=totals, bytes_read=10**9))
    view = msgspec.structs.replace(view, snapshot=msgspec.structs.replace(view.snapshot, speculation=True))
    whole = straggler_title(view, 200)
    assert whole.startswith("backups on ── 3 backups = 2 won + 1 lost; 10 declined; saved about 2m10s; 801 kB read in")
    told = [straggler_title(view, width) for width in range(len(whole), 9, -1)]
    assert list(dict.fromkeys(told)) == [
        whole,
        "backups on ── 3 backups = 2 won + 1 lost; 10 declined; saved about 2m10s; …",
        "backups on ── 3 backups = 2 won + 1 lost; 10 declined; …",
        "backups on ── 3 backups = 2 won + 1 lost; …",
        "backups on ── 3 backups; …",
        "backups on",
    ]
    assert all(len(words) <= width for words, width in zip(told, range(len(whole), 9, -1), strict=True))


def test_a_rate_is_told_once_something_has_been_read(late):
    phases = tuple(msgspec.structs.replace(each, bytes_read=0) for each in late.snapshot.phases)
    nothing_read = msgspec.structs.replace(
        late, snapshot=msgspec.structs.replace(late.snapshot, phases=phases), read_rates=()
    )
    assert "/s" not in text(header_lines(nothing_read, 80)[1])
    stalled = msgspec.structs.replace(late, read_rates=(0.0,) * SLICES)
    assert text(header_lines(stalled, 80)[1]).endswith(" 0 B/s")
    # What has been read is told at once, and a slice of time only when it is over.
    early = msgspec.structs.replace(late, read_rates=(0.0,) * 3, write_rates=(0.0,) * 3)
    assert text(header_lines(early, 80)[1]).endswith("B")
    assert "/s" not in text(header_lines(early, 80)[1])
    lines = [text(line).rstrip(" ▁") for line in io_lines(early, 40)]
    assert [line for line in lines if line[:4] in {"read", "writ"}] == ["read           -", "write          -"]
    begun = msgspec.structs.replace(late, read_rates=(0.0, 0.0, 0.0, 8e6))
    assert text(header_lines(begun, 80)[1]).endswith(" 8.00 MB/s")


def test_of_a_worker_is_told_for_how_long_this_master_has_known_it():
    # It may have been there before this master was.
    (row,) = worker_rows([worker("w", joined_seconds=NOW - 65.0)], NOW)
    assert ", the only worker there; known for 1m05s" in "\n".join(row.details)


def test_of_how_many_workers_a_host_has_those_are_counted_that_are_there():
    known = [
        worker("a", host="h1"),
        worker("b", "idle", host="h1"),
        worker("c", "lost", host="h1"),
        worker("d", host="h2"),
    ]
    rows = {row.key: row for row in worker_rows(known, NOW)}
    assert "on h1, one of " in rows["a"].details[0]
    assert ", one of 2 workers there; known for " in rows["a"].details[0]
    assert ", the only worker there; known for " in rows["d"].details[0]
    assert "there" not in rows["c"].details[0]
    assert not any("slot" in line for row in rows.values() for line in row.details)
    place = next(place for place, column in enumerate(WORKER_COLUMNS) if column.title == "there")
    assert [rows[name].cells[place].text for name in "abd"] == ["2", "2", "1"]


def test_names_of_workers_that_differ_in_their_ends_are_not_alike_where_they_are_cut(late):
    names = [f"fleet-node-with-a-long-name-{end}" for end in ("1044b0a4", "77aa01ff")]
    rows = worker_rows([worker(name) for name in names], NOW)
    cells = {text(cell_line(row.cells[1], WORKER_COLUMNS[1], 12)) for row in rows}
    assert cells == {"fleet…44b0a4", "fleet…aa01ff"}
    workers = tuple(WorkerView(worker(name), "88888888") for name in names)
    lines = [text(line) for line in worker_lines(msgspec.structs.replace(late, workers=workers), 42)]
    assert len({line.split()[0] for line in lines}) == 2
    assert [line.split()[0][-4:] for line in lines] == ["b0a4", "01ff"]


def test_of_a_worker_that_has_done_nothing_no_figures_are_told():
    (row,) = worker_rows([worker("w", "idle", tasks=0, bytes_read=0, peak_bytes=0)], NOW)
    assert row.details[1] == "no task done yet"


def test_the_list_of_workers_marks_who_is_silent_and_who_is_slow():
    usual = [worker(f"a{number}") for number in range(3)]
    slow, frozen = worker("b", bytes_per_second=1e6), worker("c", "idle", heard_seconds=NOW - 9.0)
    gone = worker("d", "left", heard_seconds=NOW - 60.0, bytes_per_second=1e6)
    rows = {row.key: row for row in worker_rows([*usual, slow, frozen, gone], NOW)}
    assert list(rows) == ["c", "a0", "a1", "a2", "b", "d"]
    assert rows["c"].cells[0].text == "! idle"
    assert rows["c"].details[0] == "! nothing was heard of it for 9.0s, as if it was frozen"
    assert rows["b"].cells[7].text == "!1.00 MB/s"
    assert rows["b"].details[1].endswith("; 0.01x the median rate")
    assert [key for key, row in rows.items() if row.cells[7].text.startswith("!")] == ["b"]


@pytest.mark.parametrize(
    ("lost", "words"), [(0, "by 4 workers; "), (1, "by 4 workers and 1 that was lost; "), (2, "and 2 that were lost; ")]
)
def test_what_is_said_of_a_job_that_is_done_leaves_out_no_worker_that_was_lost(lost, words):
    status = succeeded("j", 10.0)
    summary = msgspec.structs.replace(status.summary, workers_lost=lost)
    first, _ = job_details(msgspec.structs.replace(status, summary=summary), NOW)
    assert words in first
