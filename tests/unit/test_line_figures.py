"""What the panes say of figures that a recorded run has not."""

from __future__ import annotations

import msgspec
from distsum.tui.lines import io_lines, worker_lines

from distsum.latency import Latencies, LatencyCounter
from distsum.observe.fold import JobTally
from distsum.observe.snapshot import PhaseWork
from distsum.observe.view import JobFold, JobView, WorkerView
from tests.following import worker

WORK = (PhaseWork(10, 10, 1000),)


def view(**more: object) -> JobView:
    empty = JobFold(JobTally(WORK, lambda index: b"%d" % index), WORK, "/out.npy", 0.0).view(0.0)
    return msgspec.structs.replace(empty, **more)


def said(lines: list) -> list[str]:
    return ["".join(span.text for span in line) for line in lines]


def test_how_long_s3_takes_to_answer_is_told_where_it_is_asked() -> None:
    counter = LatencyCounter()
    for seconds in [0.038] * 98 + [1.9] * 2:
        counter.add(seconds)
    counter.add_retry()
    both = counter.take().plus(Latencies({}, 6))
    assert sum(both.counts.values()) == 100
    (line,) = [line for line in said(io_lines(view(latencies=both), 40)) if line.startswith("S3")]
    told = line.split()
    assert told[1] == "p50"
    assert told[2].endswith("ms")
    assert 34 <= int(told[2].removesuffix("ms")) <= 42
    assert 1.7 <= float(told[4].removesuffix("s,")) <= 2.1
    assert line.endswith(" 7 retries")
    assert len(line) <= 40
    assert not any(line.startswith("S3") for line in said(io_lines(view(), 40)))


def test_a_slow_worker_is_marked_with_what_it_waits_for() -> None:
    slow = worker("reads", bytes_per_second=1e6, reading_share=0.9)
    busy = worker("adds", bytes_per_second=2e6, reading_share=0.1)
    usual = [worker(f"w{number}", bytes_per_second=1e8, reading_share=0.9) for number in range(3)]
    lines = said(worker_lines(view(workers=tuple(WorkerView(each, "") for each in (slow, busy, *usual))), 50))
    assert [line.split()[0] for line in lines] == ["reads", "adds", "w0", "w1", "w2"]
    assert lines[0].endswith("0.01x i/o!")
    assert lines[1].endswith("0.02x cpu!")
    assert not any("!" in line for line in lines[2:])
    assert len(set(map(len, lines))) == 1
