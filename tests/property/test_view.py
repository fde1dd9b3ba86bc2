"""What a screen draws follows from the events alone: live, played again, and played backwards it is the same."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from distsum.actors.phase import nothing_to_do
from distsum.messages import (
    BackupEnded,
    BackupStarted,
    Effort,
    Heartbeat,
    JobFailed,
    JobStarted,
    TaskFailed,
    TaskId,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
    WorkerLost,
)
from distsum.observe.fold import JobTally
from distsum.observe.history import History
from distsum.observe.player import Player
from distsum.observe.rates import BACKUP_MARK
from distsum.observe.states import BACKUP, DONE, FAILED, WAITING
from distsum.observe.view import LOG_KEPT, JobFold
from tests.property.test_history import EVIDENCE, Stored, drawn_run, header, written

EFFORT = Effort(1000, 10, 7, 1, 0.1, 0.2, 0.3, 0.4, 5)


def player(content, now=None):
    found = Player(History(Stored(content)))
    reach(found, found.end_seconds if now is None else now)
    return found


def reach(found, now, events=7):
    """Go to a moment by small steps."""
    found.seek(now)
    while not found.step(events):
        pass


@settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_a_job_played_again_looks_as_it_did_live(seed):
    run, log = drawn_run(seed)
    described = header(*(work.tasks for work in run.work))
    before = nothing_to_do(run.tree, run.states)
    fold = JobFold(JobTally(described.work, str), described.work, described.output, described.began_seconds, before)
    kept = list(History(Stored(written(log, described))).events())
    for now, event in kept:
        fold.take(event, now)
    live, again = fold.view(max(now for now, _ in kept)), player(written(log, described)).view()
    assert again == live
    # And it is what the actors say: the job has ended, so all that is needed is stored.
    assert live.snapshot.finished
    assert {state for phase in live.states for state in phase.states} == {DONE}
    assert [len(phase.states) for phase in live.states] == [work.tasks for work in run.work]


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 1))
def test_a_moment_looks_the_same_from_wherever_it_is_reached(seed, one, other):
    run, log = drawn_run(seed)
    content = written(log, header(*(work.tasks for work in run.work)))
    found = player(content, log[-1][0] * one)
    reach(found, log[-1][0] * other, events=3)
    assert found.view() == player(content, log[-1][0] * other).view()


def events_of(*more, tasks=(4, 1), reused=(0, 0)):
    began = [(0.0, WorkerJoined("w1", "h", 7, "v", 2, 50, 0.1)), (0.1, JobStarted("job", "mean", 9, tasks, reused))]
    return began + [(float(second), event) for second, event in enumerate(more, start=1)]


def succeeded(index, phase=1):
    task = TaskId("job", phase, 0, index)
    return TaskSucceeded("w1", task, 1, (), reused=False, receipt=b"", effort=EFFORT, attempt=index + 1)


def first_states(log, tasks=(4, 1), now=0.5):
    found = player(written(log, header(*tasks)), now)
    return [list(phase.states) for phase in found.view().states], found.remark


def test_tasks_that_were_stored_before_are_drawn_as_done_from_the_beginning():
    from distsum.messages import JobSucceeded

    log = events_of(succeeded(1), succeeded(3), succeeded(0, 2), JobSucceeded("job", 9, (), ()), reused=(2, 0))
    assert first_states(log) == ([[DONE, WAITING, DONE, WAITING], [WAITING]], None)


def test_which_tasks_were_stored_before_is_not_made_up_where_it_is_not_told():
    states, remark = first_states(events_of(succeeded(1), reused=(2, 0)))
    assert states == [[WAITING] * 4, [WAITING]]
    assert "2 tasks had nothing to do" in remark


def test_a_backup_is_seen_in_the_map_and_the_ledger_while_it_races():
    task = TaskId("job", 1, 0, 2)
    log = events_of(
        TaskStarted("w1", task, 1, attempt=1),
        BackupStarted(task, 2, "w2", 1, "w1", "slow_attempt", EVIDENCE),
        TaskStarted("w2", task, 1, attempt=2),
        BackupEnded(task, 2, "w2", "won", 1.0, 2.0, 0),
    )
    content = written(log, header(4, 1))
    racing = player(content, 3.2).view()
    assert racing.states[0].states[2] == BACKUP
    assert racing.ledger.totals.racing == 1
    over = player(content, 4.0).view()
    assert (over.states[0].states[2] == BACKUP, over.ledger.totals.won) == (False, 1)


def straggling(beats, *, reading=False, **described):
    """Four tasks of which three are soon done, and the last one tells of itself at the moments given."""
    last = TaskId("job", 1, 0, 3)
    log = events_of(*(succeeded(index) for index in range(3)), TaskStarted("w2", last, 1, attempt=4))
    for seconds, progress in beats:
        size = 100 * seconds if reading else 900
        log.append((seconds, Heartbeat("w2", last, size, attempt=4, progress=progress)))
    log.append((29.0, Heartbeat("w1", None, 0)))
    return player(written(log, header(4, 1, **described)), 29.0).view().estimate


def test_a_straggler_that_holds_the_job_puts_off_its_end_and_where_it_tells_none_there_is_none():
    beats = [(second, second / 35) for second in range(6, 29)]
    told = straggling(beats)
    assert 4.0 < told.seconds < 6.0
    assert straggling(beats, reading=True).seconds == EFFORT.busy_seconds, "a copy would take no longer"
    assert straggling(beats, reading=True, speculation=False).seconds == told.seconds, "and none is made"
    assert straggling([(second, 0.0) for second in range(6, 29)]) is None
    assert straggling([(second, second / 35) for second in range(6, 20)]) is None, "it has fallen silent"


def test_a_failed_job_says_why_and_where_and_its_clock_stands_still():
    task = TaskId("job", 1, 0, 2)
    log = events_of(
        TaskFailed("w1", task, "bad_input", "bad \x1b[31m\u202e\nname", attempt=1),
        JobFailed("job", "bad_input", "bad \x1b[31m\u202e\nname", task),
        WorkerLost("w1", "\x9b31m"),
    )
    view = player(written(log, header(4, 1))).view()
    assert view.states[0].states[2] == FAILED
    assert view.failure == "bad \\x1b[31m\\u202e\\nname"
    assert not view.cancelled
    assert view.snapshot.elapsed_seconds == 2.0
    assert not any(character in line.words for line in view.log for character in "\x1b\x9b\u202e\n")


def test_the_log_is_bounded_and_says_how_much_there_was():
    lost = [WorkerLost(f"w{number}", "killed") for number in range(LOG_KEPT + 20)]
    view = player(written(events_of(*lost), header(4, 1))).view()
    assert (len(view.log), view.log_total) == (LOG_KEPT, LOG_KEPT + 22)
    assert "w519" in view.log[-1].words


def test_a_history_that_ends_early_is_played_to_there_and_says_so():
    content = written(events_of(succeeded(1), succeeded(3)), header(4, 1))
    found = player(content[:-4])
    assert found.view().snapshot.phases[0].done == 2
    assert "incomplete" in found.view().ledger.remark


def test_lanes_tell_of_backups():
    task = TaskId("job", 1, 0, 2)
    log = events_of(
        BackupStarted(task, 2, "w1", 1, "w9", "slow_attempt", EVIDENCE), TaskStarted("w1", task, 1, attempt=2)
    )
    (worker,) = player(written([*log, (3.0, succeeded(3))], header(4, 1)), 2.9).view().workers
    assert worker.lane.endswith(BACKUP_MARK)


def test_a_view_is_frozen():
    view = player(written(events_of(succeeded(1)), header(4, 1))).view()
    assert msgspec.structs.replace(view) == view
    assert hash(view.states)
