"""What is followed of a service and its jobs, what is asked, and what is told of the way to it."""

from __future__ import annotations

import asyncio
import threading

import pytest
from distsum.tui.remote import FollowedJob, RemoteSource

from distsum.errors import StorageError, UnreachableError
from distsum.observe.history import History
from distsum.observe.player import Player
from distsum.service.messages import Cancel, Done, Refused
from distsum.service.viewer import Connection
from tests.command import wait_until
from tests.following import Asked, Following, Histories, running, service, source_of, succeeded
from tests.recorded import Stored, recorded

JOB = "0a11ce550001"


def test_a_job_is_followed_and_its_view_is_the_newest():
    viewer = Following(service([running(JOB)]))
    viewer.job_views[JOB] = "a view"
    followed = FollowedJob(source_of(viewer), JOB)
    assert viewer.followed == [JOB]
    assert followed.newest() == "a view"
    assert not followed.over()
    assert followed.replay() is None
    assert followed.status().state == "running"
    assert not followed.has_ended
    followed.close()
    assert viewer.followed == [JOB, None]
    assert followed.newest() is None, "another one may be followed by now"


def ended_source(store):
    viewer = Following(service())
    viewer.ended[JOB] = succeeded(JOB, 60.0)
    return viewer, FollowedJob(source_of(viewer, store=store), JOB)


def test_a_job_that_had_ended_is_played_again_from_its_end():
    store = Histories(recorded())
    _, followed = ended_source(store)
    assert followed.has_ended
    assert followed.newest() is None
    assert "reading its history" in followed.notice()
    wait_until(lambda: followed.newest() is not None, "its history")
    assert followed.newest().snapshot.finished
    assert followed.notice() == ""
    replay = followed.replay()
    assert not replay.playing
    replay.seek(0.0)
    assert not followed.newest().snapshot.finished
    assert store.open_now == 1
    followed.close()
    assert store.open_now == 0


def test_a_job_that_ended_while_no_master_told_of_it_does_not_stand_still():
    earlier = Player(History(Stored(recorded()))).view()
    assert not earlier.snapshot.finished
    viewer = Following(service())
    viewer.job_views[JOB] = earlier
    followed = FollowedJob(source_of(viewer, store=Histories(recorded())), JOB)
    assert followed.newest() is earlier
    assert followed.notice() == ""
    # The next master has brought it to its end, and only tells how.
    viewer.job.ended = succeeded(JOB, 60.0)
    assert "reading its history" in followed.notice()
    wait_until(lambda: followed.newest().snapshot.finished, "its end")
    assert followed.notice() == ""
    followed.close()


def test_what_is_left_while_its_history_is_read_is_let_go_of_then():
    store = Histories(recorded())
    store.hold.clear()
    _, followed = ended_source(store)
    followed.newest()
    followed.close()
    store.hold.set()
    wait_until(lambda: store.closed and store.open_now == 0, "that it is let go of")


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "There is no history of job"), (b"nonsense", "cannot be read"), (OSError("gone"), "cannot be read: gone")],
    ids=["none", "nonsense", "away"],
)
def test_why_a_history_cannot_be_read_is_told(content, told):
    store = Histories(StorageError(str(content)) if isinstance(content, OSError) else content)
    _, followed = ended_source(store)
    followed.newest()
    wait_until(lambda: followed.unreadable, "why")
    assert told in followed.unreadable
    assert followed.newest() is None
    assert store.open_now == 0


def test_a_store_that_goes_away_while_a_history_is_played_is_told():
    store = Histories(recorded())
    _, followed = ended_source(store)
    wait_until(lambda: followed.newest() is not None, "its history")
    store.fault = StorageError("s3 is away")
    followed.replay().seek(0.0)
    assert followed.newest() is None
    assert "s3 is away" in followed.unreadable


@pytest.mark.parametrize(
    ("stands", "told"),
    [
        (Connection("connecting", "", None, None), ["connecting"]),
        (Connection("connected", "", 0.2, None), []),
        (Connection("lost", "amqp://h: refused", 12.0, None), ["refused (amqp://h)", "12s old"]),
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
    followed = FollowedJob(source_of(viewer), "a")
    viewer.job.refused = "there is no job a\x1b[31m"
    assert "there is no job a" in followed.notice()
    assert "\x1b" not in followed.notice()


def test_who_only_looks_asks_for_nothing_that_changes_anything():
    asked = Asked()
    answer = asyncio.run(source_of(Following(), asked, read_only=True).ask(Cancel("a")))
    assert isinstance(answer, Refused)
    assert "--read-only" in answer.reason
    assert asked.requests == []


def test_what_hinders_a_question_is_an_answer_whether_it_is_the_way_or_the_master():
    assert asyncio.run(source_of(Following(), asked := Asked()).ask(Cancel("a"))) == Done()
    assert asked.requests == [Cancel("a")]
    away = Asked(UnreachableError("no master answers"))
    assert asyncio.run(source_of(Following(), away).ask(Cancel("a"))) == Refused("no master answers")

    def no_way():
        raise UnreachableError("no broker")

    nowhere = RemoteSource(Following(), no_way, lambda: None, read_only=False)
    assert asyncio.run(nowhere.ask(Cancel("a"))) == Refused("no broker")


def test_a_question_that_nobody_answers_does_not_keep_the_screen_from_being_left():
    hold = threading.Event()

    class Silent(Asked):
        def ask(self, request, seconds):
            hold.wait(60.0)
            return super().ask(request, seconds)

    async def leave():
        asking = asyncio.ensure_future(source_of(Following(), Silent()).ask(Cancel("a")))
        await asyncio.sleep(0)
        asking.cancel()

    asyncio.run(leave())
    assert not hold.is_set()
    hold.set()
