"""A report tells what the history tells, reaches nothing outside of itself, and is short whatever the job."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

from distsum.messages import (
    BackupEnded,
    BackupStarted,
    Effort,
    JobFailed,
    JobStarted,
    JobSucceeded,
    Skipped,
    TaskFailed,
    TaskId,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
    WorkerLost,
)
from distsum.observe.history import History, Replay
from distsum.observe.ledger import ledger_lines, totals_words
from distsum.observe.report import (
    DONE_AGAIN,
    DONE_ONCE,
    DONE_WITH_BACKUP,
    NEVER_DONE,
    NOT_DONE,
    STORED_BEFORE,
    gather,
)
from distsum.observe.report_html import page
from distsum.observe.report_svg import busy_shares
from tests.page import Page
from tests.property.test_history import EVIDENCE, Stored, header, written
from tests.recorded import recorded

EFFORT = Effort(1000, 10, 7, 1, 0.1, 0.2, 0.3, 0.4, 5)
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[2J\u202e]]>&amp;--><!--\n"


def reported(content):
    report = gather(History(Stored(content)))
    return report, Page(page(report))


def began(job="job", tasks=(4, 1), reused=(0, 0), worker="w1"):
    return [(0.0, WorkerJoined(worker, "h", 7, "v", 2, 50, 0.1)), (0.1, JobStarted(job, "mean", 9, tasks, reused))]


def attempt(index, start, end, worker="w1", number=None, phase=1):
    task, number = TaskId("job", phase, 0, index), index + 1 if number is None else number
    return [
        (start, TaskStarted(worker, task, 1, number)),
        (end, TaskSucceeded(worker, task, 1, (), False, b"", EFFORT, number)),
    ]


@pytest.fixture(scope="module")
def whole():
    return recorded()


def test_figures_are_those_that_are_counted_from_the_history(whole):
    report, found = reported(whole)
    tally = Replay(History(Stored(whole))).tally
    snapshot = tally.snapshot(report.end_seconds)
    assert found.figures["bytes_read"] == tally.bytes_read > 0
    assert found.figures["bytes_written"] == tally.bytes_written
    assert found.figures["attempts"] == tally.attempts
    assert found.figures["tasks"] == sum(phase.tasks for phase in snapshot.phases)
    assert found.figures["backups"] == snapshot.backups.started > 0
    assert found.figures["seconds"] == report.end_seconds
    for kind, seconds in tally.accounts.seconds(report.end_seconds).items():
        assert found.figures[kind] == seconds
    assert totals_words(snapshot.backups, tally.bytes_read) in found.text
    for line in ledger_lines(tally.ledger.entries):
        assert line.text in found.text
    assert "worker w10 is lost: fell silent" in found.text
    assert "DONE" in found.text


def test_it_reaches_nothing_outside_and_needs_no_script_to_be_read(whole):
    _, found = reported(whole)
    assert found.reaching == []
    assert not {"link", "img", "iframe", "object", "embed", "form", "base", "audio", "video"} & found.tags.keys()
    assert "://" not in found.content.replace("s3://lab/run42/mean.npy", "")
    assert "url(" not in "".join(found.styles)
    assert "@import" not in "".join(found.styles)
    (script,) = found.scripts
    assert not re.search(r"fetch|XMLHttp|import|eval|innerHTML", script)
    assert found.content.isascii(), "so that it is the same in whatever encoding it is written"
    assert "default-src 'none'" in found.content


def test_every_drawing_has_a_name_and_every_table_heads(whole):
    _, found = reported(whole)
    drawings = [svg for svg in found.svgs if svg.get("role") == "img"]
    assert len(drawings) == 1 + 6 + 1, "the account, a phase each, the time line"
    assert all(svg.get("aria-label") for svg in drawings)
    assert all(svg.get("aria-hidden") == "true" for svg in found.svgs if svg not in drawings)
    assert found.tags["table"] == found.tags["thead"]


def test_each_attempt_is_drawn_where_it_was(whole):
    report, found = reported(whole)
    line = next(svg for svg in found.svgs if svg.get("class") == "line")
    bars = [each for each in line.iter("rect") if each.find("title") is not None]
    spans = report.attempts.spans()
    assert len(bars) == spans.worker.size
    wide = sum(float(bar.get("width")) + 0.4 for bar in bars)
    busy = float(np.nansum(spans.ended_seconds - spans.began_seconds))
    left = min(float(each.get("x")) for each in line.iter("text") if each.get("class") == "axis")
    assert wide == pytest.approx(busy * (1000 - left) / report.end_seconds, rel=0.01)
    backups = [bar for bar in bars if bar.get("class").startswith("backup")]
    assert len(backups) == report.view.snapshot.backups.started
    assert "backup on w12 from" in backups[0].find("title").text + backups[1].find("title").text


def test_an_attempt_whose_beginning_was_not_told_is_drawn_where_it_ended_and_counted():
    log = began() + attempt(0, 1.0, 2.0) + attempt(1, 1.0, 4.0)[1:]
    _, found = reported(written([*log, (5.0, JobSucceeded("job", 9, (), ()))], header(4, 1)))
    line = next(svg for svg in found.svgs if svg.get("class") == "line")
    bars = {bar.find("title").text: bar for bar in line.iter("rect") if bar.find("title") is not None}
    assert len(bars) == 2
    (untold,) = [words for words in bars if "begun at an unknown time" in words]
    assert untold == "phase 1 task 1: first attempt on w1, begun at an unknown time, done"
    told = next(bar for words, bar in bars.items() if words != untold)
    assert float(bars[untold].get("x")) > float(told.get("x")) + float(told.get("width"))
    assert float(bars[untold].get("width")) < 1.0
    assert "1 attempt whose beginning nobody has told: drawn at the end of each" in found.text


def test_what_became_of_each_task_is_drawn_and_counted():
    task = TaskId("job", 1, 0, 2)
    log = began(tasks=(8, 1), reused=(1, 0))
    log += attempt(1, 1.0, 2.0)
    log += [(2.0, TaskStarted("w1", task, 1, 30)), (2.1, BackupStarted(task, 31, "w2", 30, "w1", "silent", EVIDENCE))]
    log += attempt(2, 2.2, 3.0, "w2", 31)
    log += [(3.0, BackupEnded(task, 31, "w2", "won", 0.8, 1.0, 3))]
    log += [(3.1, TaskStarted("w1", TaskId("job", 1, 0, 3), 1, 40)), (3.2, WorkerLost("w1", "gone"))]
    log += attempt(3, 3.3, 4.0, "w2", 41)
    log += [(4.0, TaskStarted("w2", TaskId("job", 1, 0, 4), 1, 50))]
    failed = TaskId("job", 1, 0, 5)
    log += [(5.0, TaskFailed("w2", failed, "bad_input", "short", attempt=60))]
    log += [(5.1, JobFailed("job", "bad_input", "short", failed, 25))]
    report, found = reported(written(log, header(8, 1)))
    assert report.fates[0].tolist() == [
        NOT_DONE,
        DONE_ONCE,
        DONE_WITH_BACKUP,
        DONE_AGAIN,
        NOT_DONE,
        NEVER_DONE,
        NOT_DONE,
        NOT_DONE,
    ]
    assert "4 not done, 1 failed" in found.text
    assert "FAILED" in found.text
    assert "until it failed" in found.text
    assert "until the last task was done" not in found.text
    assert "input 25: short" in found.text
    first = found.svgs[
        next(place for place, svg in enumerate(found.svgs) if "Phase 1" in (svg.get("aria-label") or ""))
    ]
    titles = [each.text for each in first.iter("title")]
    assert len(titles) == 3
    assert any("backup on w2 from 2.2s, done after 0.8s" in title for title in titles)


def test_tasks_that_were_stored_before_are_told_from_those_that_were_done():
    log = began(reused=(2, 0))
    log += [*attempt(1, 1.0, 2.0), *attempt(3, 2.0, 3.0), *attempt(0, 3.0, 4.0, phase=2)]
    report, found = reported(written([*log, (4.1, JobSucceeded("job", 9, (), ()))], header(4, 1)))
    assert report.fates[0].tolist() == [STORED_BEFORE, DONE_ONCE, STORED_BEFORE, DONE_ONCE]
    assert "2 stored before, or not needed, 2 done at the first attempt" in found.text
    assert "2 stored already" in found.text


def test_how_long_attempts_took_is_told_of_those_that_did_their_tasks():
    log = began(tasks=(4, 1))
    for index, took in enumerate((1.0, 2.0, 3.0, 40.0)):
        log += attempt(index, 10.0 * index, 10.0 * index + took)
    log += [(71.0, TaskStarted("w1", TaskId("job", 2, 0, 0), 1, 9))]
    report, _ = reported(written(log, header(4, 1)))
    assert report.times[0].median == pytest.approx(2.5)
    assert report.times[0].longest == pytest.approx(40.0)
    assert report.times[1] == (None, None, None)


def test_names_from_outside_are_text_wherever_they_come():
    job = header(4, 1, job=HOSTILE, reduction=HOSTILE, output=HOSTILE, inputs=(HOSTILE, HOSTILE), dtype=HOSTILE)
    job = type(job)(**{name: getattr(job, name) for name in job.__struct_fields__} | {"command": ("distsum", HOSTILE)})
    task = TaskId("job", 1, 0, 1)
    log = [
        (0.0, WorkerJoined(HOSTILE, HOSTILE, 7, HOSTILE, 2, 50, 0.1)),
        (0.1, JobStarted("job", "mean", 9, (4, 1), (0, 0))),
    ]
    log += [(1.0, TaskStarted(HOSTILE, task, 1, 1)), (1.1, TaskFailed(HOSTILE, task, "error", HOSTILE, attempt=1))]
    log += [(1.2, BackupStarted(task, 2, HOSTILE, 1, HOSTILE, "silent", EVIDENCE))]
    log += [(1.2, TaskStarted(HOSTILE, task, 1, 2)), (1.3, BackupEnded(task, 2, HOSTILE, "won", 1.0, 1.0, 5))]
    skipped = (Skipped(1, HOSTILE),)
    log += [(1.4, TaskSucceeded(HOSTILE, task, 1, skipped, False, b"", EFFORT, 2)), (1.5, WorkerLost(HOSTILE, HOSTILE))]
    log += [(1.6, JobFailed("job", "error", HOSTILE, task, 3))]
    _, clean = reported(written([*began(), (1.0, JobFailed("job", "error", "x"))], header(4, 1)))
    _, found = reported(written(log, job))
    assert found.reaching == []
    assert found.tags["script"] == 1
    assert "img" not in found.tags
    assert found.scripts == clean.scripts
    assert found.text.count("<script>alert(1)</script>") > 10, "it is shown, as text"
    for character in "\x1b\u202e":
        assert character not in found.text
    for name in ("dt", "h1", "h2"):
        assert found.tags[name] >= clean.tags[name]


@pytest.mark.parametrize("cut", [0.15, 0.6, 0.999])
def test_a_history_without_its_end_is_told_as_far_as_it_goes_and_the_page_says_so(whole, cut):
    _, found = reported(whole[: int(len(whole) * cut)])
    assert "Not all is told: the history is incomplete: it ends in the middle, at byte" in found.text
    assert "NOT ENDED" in found.text
    everything = Page(page(gather(History(Stored(whole)))))
    assert found.figures["bytes_read"] <= everything.figures["bytes_read"]


def test_time_that_workers_may_have_spent_at_other_jobs_is_not_told_as_idle():
    log = [*began(), *attempt(0, 1.0, 2.0), (10.0, JobFailed("job", "error", "x"))]
    _, found = reported(written(log, header(4, 1)))
    assert found.figures["waiting"] == pytest.approx(9.1)
    assert "not at this job" in found.text
    assert "read, added or stored for this job" in found.text


def test_a_job_that_never_began_has_a_page_too():
    _, found = reported(written([], header(4, 1)))
    assert "NOT ENDED" in found.text
    assert "No worker had begun a task." in found.text
    assert found.figures["busy_share"] is None


def big(tasks, workers, unusual):
    log = [(0.0, JobStarted("job", "mean", 5 * tasks, (tasks, 1), (0, 0)))]
    log += [(0.0, WorkerJoined(f"w{number}", f"h{number}", 7, "v", 2, 50, 0.1)) for number in range(workers)]
    for index in range(tasks):
        worker, start = f"w{index % workers}", index // workers
        log += attempt(index, start + (index % 7) / 10, start + 0.9, worker)
        if index < unusual:
            task = TaskId("job", 1, 0, index)
            log += [(start + 0.9, BackupStarted(task, 10**7 + index, "w0", index + 1, worker, "silent", EVIDENCE))]
    return [*log, (tasks / workers + 1.0, JobSucceeded("job", 5 * tasks, (), ()))]


def test_a_large_job_has_a_small_page_that_says_what_was_put_together():
    report, found = reported(written(big(20_000, 700, 5000), header(20_000, 1)))
    assert len(found.content) < 2_000_000
    assert "7 tasks share a cell, which shows the worst of them" in found.text
    assert "a row is 6 workers, put together" in found.text
    assert "of 5,000 of them the first 3,000" in found.text
    assert "400 more workers left out" in found.text
    assert "3,000 earlier lines left out" in found.text
    shares = busy_shares(report, report.attempts.workers, 6)
    assert shares.shape == (117, 290)
    spans = report.attempts.spans()
    slice_seconds = report.end_seconds / 290
    in_row = np.array([6] * 116 + [4])
    assert (shares.sum(axis=1) * slice_seconds * in_row).sum() == pytest.approx(
        float((spans.ended_seconds - spans.began_seconds).sum()), rel=1e-6
    )


def test_the_same_history_gives_the_same_page_wherever_the_clock_stands(whole, monkeypatch):
    first = page(gather(History(Stored(whole))))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert page(gather(History(Stored(whole)))) == first
    finally:
        monkeypatch.undo()
        time.tzset()
