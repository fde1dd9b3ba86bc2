"""What a job that begins is told of the workers that are there."""

from __future__ import annotations

from distsum.tui.lines import worker_lines

from distsum.messages import WorkerJoined, WorkerLost, WorkerPaused, WorkerResumed
from distsum.observe.fold import JobTally
from distsum.observe.snapshot import PhaseWork
from distsum.observe.view import JobFold
from distsum.service.present_workers import PresentWorkers

WORK = (PhaseWork(4, 1, 1),)
QUARANTINED = WorkerPaused("w", "3 attempts failed in a row, the last with: no", quarantined=True)
PAUSED = WorkerPaused("w", "asked for", quarantined=False)


def joined(name):
    return WorkerJoined(name, "host", 7, "1", 1, 0, 0.5)


def begun(*events):
    """Return what is known of a job that begins after all this."""
    present = PresentWorkers()
    for event in events:
        present.take(event)
    fold = JobFold(JobTally(WORK, str), WORK, "/o", 0.0)
    for event in present.told():
        assert getattr(event, "start_seconds", 0.0) == 0.0, "a start before the job was no time of it"
        fold.take(event, 0.0)
    return fold


def pane(*events):
    """Return the lines of its workers' pane."""
    return ["".join(span.text for span in line).rstrip() for line in worker_lines(begun(*events).view(1.0), 80)]


def log(fold):
    view = fold.view(1.0)
    assert view.log_total == len(view.log)
    return [(line.seconds, line.words) for line in view.log]


def test_a_job_that_begins_later_says_who_is_quarantined_or_paused_and_why():
    (first, other) = pane(joined("v"), joined("w"), QUARANTINED)
    assert first == "w quarantined: 3 attempts failed in a row, the last with: no"
    assert other.startswith("v ")
    assert other.endswith("no task")
    assert pane(joined("w"), PAUSED) == ["w paused: asked for"]


def test_what_is_over_is_not_told():
    plain = pane(joined("w"))
    assert plain[0].endswith("no task")
    assert pane(joined("w"), QUARANTINED, WorkerResumed("w")) == plain
    assert pane(joined("w"), QUARANTINED, joined("w")) == plain, "it has joined anew"
    assert pane(joined("w"), QUARANTINED, WorkerLost("w", "gone")) == ["none has joined yet"]
    assert pane(joined("w"), QUARANTINED, WorkerLost("w", "gone"), joined("w")) == plain


def test_the_log_of_a_job_tells_workers_that_were_there_in_one_line_and_not_as_joining():
    assert log(begun()) == []
    assert log(begun(joined("v"))) == [(0.0, "1 worker is there already")]
    fold = begun(joined("w"), QUARANTINED, *(joined(f"v{number}") for number in range(7)))
    there = [(0.0, "8 workers are there already"), (0.0, f"worker w is quarantined: {QUARANTINED.reason}")]
    assert log(fold) == there
    fold.take(joined("x"), 0.5)
    assert log(fold) == [*there, (0.5, "worker x joined from host, process 7")]
