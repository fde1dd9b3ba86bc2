"""Which job of a service is followed, and what is told of the way to it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from distsum.tui.remote import FollowedJob, RemoteSource

from distsum.service.messages import Cancel, JobStatus, Refused
from distsum.service.viewer import Connection


class Following:
    """A viewer of which a test says what it has."""

    def __init__(self):
        self.service = SimpleNamespace(view=None)
        self.job = None
        self.stands = Connection("connected", "", 0.1, None)
        self.followed = []

    def follow(self, job):
        self.followed.append(job)
        self.job = SimpleNamespace(job=job, view=f"view of {job}", refused=None, ended=None)

    def connection(self):
        return self.stands

    def jobs(self, **states):
        listed = [JobStatus(job=job, state=state, reduction="mean", files=1, output="o", priority=0,
                            submitted_seconds=0.0) for job, state in states.items()]  # fmt: skip
        self.service.view = SimpleNamespace(jobs=tuple(listed))


def source_of(viewer, *, read_only=True):
    return RemoteSource(viewer, lambda: None, lambda: None, read_only=read_only)


def test_the_first_job_under_way_is_followed_and_after_its_end_the_next_one():
    viewer = Following()
    followed = FollowedJob(source_of(viewer), None)
    assert followed.newest() is None
    assert viewer.followed == []
    viewer.jobs(a="succeeded", b="running", c="queued")
    assert followed.newest() == "view of b"
    viewer.jobs(a="succeeded", b="finishing", c="running")
    assert followed.newest() == "view of b"
    viewer.jobs(a="succeeded", b="succeeded", c="running")
    assert followed.newest() == "view of c"
    viewer.jobs(a="succeeded", b="succeeded", c="failed")
    assert followed.newest() == "view of c", "its end stays to be seen"
    assert viewer.followed == ["b", "c"]
    assert not followed.over()


def test_where_none_is_under_way_the_last_one_is_shown_and_where_there_is_none_that_is_told():
    viewer = Following()
    followed = FollowedJob(source_of(viewer), None)
    viewer.jobs()
    assert followed.newest() is None
    assert "distsum submit" in followed.notice()
    viewer.jobs(a="succeeded", b="cancelled")
    assert followed.newest() == "view of b"
    assert followed.notice() == ""


def test_a_job_that_was_named_stays():
    viewer = Following()
    followed = FollowedJob(source_of(viewer), "a")
    viewer.jobs(a="succeeded", b="running")
    assert followed.newest() == "view of a"
    assert viewer.followed == ["a"]


@pytest.mark.parametrize(
    ("stands", "told"),
    [
        (Connection("connecting", "", None, None), ["connecting"]),
        (Connection("connected", "", 0.2, None), []),
        (Connection("lost", "amqp://h: refused; trying again", 12.0, None), ["refused; trying again", "12s old"]),
        (Connection("silent", "no master answers", 4.0, 60.0), ["no master answers", "4.0s old"]),
        (Connection("silent", "no master was ever there", None, None), ["no master was ever there"]),
        (Connection("connected", "", 0.2, 3.0), ["another master serves now"]),
        (Connection("connected", "", 0.2, 300.0), []),
    ],
)
def test_what_is_wrong_on_the_way_is_told_with_the_age_of_what_is_shown(stands, told):
    viewer = Following()
    viewer.stands = stands
    notice = source_of(viewer).notice()
    assert bool(notice) == bool(told)
    for words in told:
        assert words in notice


def test_why_the_master_tells_nothing_of_a_job_is_told():
    viewer = Following()
    source = source_of(viewer)
    source.follow("a")
    viewer.job = SimpleNamespace(job="a", view=None, refused="there is no job a\x1b[31m", ended=None)
    assert "there is no job a" in source.notice()
    assert "\x1b" not in source.notice()


def test_who_only_looks_asks_for_nothing_that_changes_anything():
    answer = asyncio.run(source_of(Following()).ask(Cancel("a")))
    assert isinstance(answer, Refused)
    assert "--read-only" in answer.reason
