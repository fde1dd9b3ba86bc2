from __future__ import annotations

import io
import json
import logging

import pytest

from distsum.logs import FIELDS, LogStyle, Subject, begin_logging, concerning
from distsum.messages import RunTask, TaskFailed, TaskId
from distsum.worker.attempt import Attempt
from distsum.worker.task_log import TaskLog

TASK = TaskId("job1", 2, 0, 7)
log = logging.getLogger("distsum.tests")


@pytest.fixture(autouse=True)
def as_before():
    """Leave logging as it was."""
    root, ours = logging.getLogger(), logging.getLogger("distsum")
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)
    logging.captureWarnings(capture=False)


def begun(style, **options):
    stream = io.StringIO()
    begin_logging(stream, style, **options)
    return stream


def objects(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_of_json_tells_what_it_concerns_and_null_for_the_rest():
    stream = begun(LogStyle("info", as_json=True))
    log.info("done %d", 3, extra=concerning(task=TASK, attempt=2**60, worker="w"))
    log.warning("alone")
    first, second = objects(stream)
    assert [first[name] for name in FIELDS] == ["job1", "2/0/7", str(2**60), "w"]
    assert (first["level"], first["message"]) == ("info", "done 3")
    assert [second[name] for name in FIELDS] == [None] * 4


def test_lines_that_do_not_know_of_the_attempt_at_hand_concern_it_until_it_ends():
    subject = Subject("w")
    stream = begun(LogStyle("debug", as_json=True), subject=subject)
    tasks = TaskLog(subject)
    logging.getLogger("distsum.stores").info("before")
    attempt = Attempt(RunTask(TASK, b"work", attempt=5))
    tasks.begins(attempt)
    logging.getLogger("library").warning("in the middle")
    tasks.ends(attempt, TaskFailed("w", TASK, "storage", "the disk is full"))
    log.info("after", extra=concerning(worker="other"))
    told = [tuple(line[name] for name in FIELDS) for line in objects(stream)]
    at_hand = ("job1", "2/0/7", "5", "w")
    assert told == [(None, None, None, "w"), at_hand, at_hand, at_hand, (None, None, None, "other")]
    assert objects(stream)[3]["level"] == "warning"


def test_what_goes_wrong_and_does_not_keep_a_task_from_being_done_is_a_warning():
    subject = Subject("w")
    stream = begun(LogStyle(as_json=True), subject=subject)
    attempt = Attempt(RunTask(TASK, b"work", attempt=5))
    attempt.warn("as nobody logs it yet")
    TaskLog(subject).begins(attempt)
    attempt.warn("no more 100% sums are stored")
    (line,) = objects(stream)
    assert [line[name] for name in ("level", "message", *FIELDS)] == [
        "warning",
        "no more 100% sums are stored",
        "job1",
        "2/0/7",
        "5",
        "w",
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_secret_is_in_no_line_and_no_traceback(as_json):
    stream = begun(LogStyle(as_json=as_json), secrets=["s3cret/canary", ""])
    try:
        raise ValueError("amqp://u:s3cret/canary@host")
    except ValueError:
        log.exception("password s3cret/canary at amqp://u:s3cret%2Fcanary@host")
    assert "s3cret" not in stream.getvalue()
    assert "password ******" in stream.getvalue()
    assert "ValueError" in stream.getvalue()


def test_a_line_for_people_is_one_line_that_disturbs_no_terminal_and_says_nothing_twice():
    stream = begun(LogStyle())
    log.info("worker w\nis \x1b[31mhere", extra=concerning(task=TASK, attempt=9, worker="w"))
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("INFO    worker w\\nis \\x1b[31mhere (job job1, task 2/0/7)")


def test_the_level_hides_what_matters_less_and_libraries_are_told_of_from_warnings_on():
    stream = begun(LogStyle("warning"))
    log.info("a")
    log.warning("b")
    begin_logging(stream, LogStyle("debug"))
    log.debug("c")
    logging.getLogger("library").info("d")
    logging.getLogger("library").warning("e")
    assert [line.rpartition(" ")[2] for line in stream.getvalue().splitlines()] == ["b", "c", "e"]


@pytest.mark.parametrize("style", [LogStyle(), LogStyle("error", as_json=True)])
def test_a_style_reaches_another_process_as_a_word(style):
    assert LogStyle.of_word(style.word()) == style
