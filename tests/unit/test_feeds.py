"""Views are made and told while somebody looks, once for all, and a fault in that harms nothing else."""

from __future__ import annotations

import asyncio
import time

import msgspec

from distsum.observe.feed import FeedReader
from distsum.observe.fold import JobTally
from distsum.observe.snapshot import PhaseWork
from distsum.observe.view import JobFold, JobView
from distsum.service.feeds import FRAME_SECONDS, Feeds

WORK = (PhaseWork(200_000, 1, 1),)
EMPTY = JobFold(JobTally(WORK, str), WORK, "/o", 0.0).view(0.0)


class Told:
    """Feeds, and what they do; each look returns another view until ``changes`` is False."""

    def __init__(self, **settings):
        self.frames: list[bytes] = []
        self.looks = 0
        self.changes = True
        self.serves = True
        self.reaches = True
        self.tasks: set[asyncio.Task[None]] = set()
        self.feeds = Feeds(self.tell, self.spawn, lambda: self.serves, **settings)

    async def tell(self, key, frame):
        assert key == "k"
        if self.reaches:
            self.frames.append(frame)
        return self.reaches

    def spawn(self, body):
        self.tasks.add(asyncio.ensure_future(body))

    async def look(self):
        self.looks += self.changes
        return msgspec.structs.replace(EMPTY, log_total=self.looks)

    async def watch(self, stream="", seconds=0.005, tasks=0):
        return await self.feeds.watch("k", stream, self.look, seconds, tasks)

    async def until(self, condition):
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - conditions of many kinds, none of which tells of itself
                await asyncio.sleep(0.001)

    async def end(self):
        for task in self.tasks:
            task.cancel()
        return await asyncio.gather(*self.tasks, return_exceptions=True)


def run(body):
    asyncio.run(asyncio.wait_for(body, 30))


def test_frames_are_sent_until_nobody_asks_any_more_and_then_nothing_is_looked_at():
    async def body():
        told = Told(lease_seconds=0.2)
        assert told.looks == 0
        first = await told.watch()
        await told.until(lambda: len(told.frames) > 3)
        assert "k" in told.feeds
        await told.until(lambda: "k" not in told.feeds)
        looks = told.looks
        await asyncio.sleep(0.05)
        assert told.looks == looks
        again = await told.watch(first.stream)
        assert again.stream != first.stream
        assert again.picture is not None
        await told.end()

    run(body())


def test_five_frames_a_second_are_sent_at_most_however_many_look():
    async def body():
        told = Told()
        began = time.monotonic()
        for _ in range(5):
            await told.watch(seconds=FRAME_SECONDS)
        await told.until(lambda: len(told.frames) >= 4)
        gaps = len(told.frames) - 1
        assert time.monotonic() - began >= 0.2 * gaps
        await told.end()

    run(body())


def test_however_many_look_a_frame_is_sent_once_and_whoever_comes_gets_what_fits():
    async def body():
        told = Told()
        one, two = FeedReader(JobView), FeedReader(JobView)
        answer = await told.watch()
        one.take(answer.picture)
        await told.until(lambda: len(told.frames) > 3)
        later = await told.watch()
        assert later.stream == answer.stream
        assert two.take(later.picture)
        assert (await told.watch(answer.stream)).picture is None
        await told.until(lambda: len(told.frames) > 6)
        for frame in told.frames:
            one.take(frame)
            two.take(frame)
        assert one.view == two.view
        assert not one.needs_picture
        assert not two.needs_picture
        assert len(set(told.frames)) == len(told.frames)
        await told.end()

    run(body())


def test_the_picture_of_many_tasks_is_the_same_for_all_who_ask_at_once():
    async def body():
        told = Told()
        answers = await asyncio.gather(*(told.watch(tasks=200_000) for _ in range(5)))
        reader = FeedReader(JobView)
        assert reader.take(answers[0].picture)
        assert len(reader.view.states[0].states) == 200_000
        assert len({id(answer.picture) for answer in answers}) == 1
        await told.end()

    run(body())


def test_what_does_not_change_is_told_seldom_and_what_another_master_serves_not_at_all():
    async def body():
        told = Told()
        told.changes = False
        await told.watch()
        await asyncio.sleep(0.1)
        assert len(told.frames) <= 1
        await told.until(lambda: told.frames)  # that somebody is there
        told.changes, told.serves = True, False
        await asyncio.sleep(0.05)
        before = len(told.frames)
        await asyncio.sleep(0.05)
        assert len(told.frames) == before
        await told.end()

    run(body())


def test_frames_that_could_not_be_sent_are_noticed_as_a_gap():
    async def body():
        told = Told()
        reader = FeedReader(JobView)
        answer = await told.watch()
        reader.take(answer.picture)
        await told.until(lambda: told.frames)
        told.reaches = False
        looks = told.looks
        await told.until(lambda: told.looks > looks + 3)
        told.frames.clear()
        told.reaches = True
        await told.until(lambda: told.frames)
        reader.take(told.frames[-1])
        assert reader.needs_picture
        reader.take((await told.watch()).picture)
        assert not reader.needs_picture
        await told.end()

    run(body())


def test_a_fault_in_what_is_looked_at_ends_that_and_nothing_else(caplog):
    async def body():
        told = Told()
        await told.watch()

        async def fail(_key, _frame):
            raise ZeroDivisionError

        told.feeds._tell = fail
        await told.until(lambda: "k" not in told.feeds)
        (task,) = told.tasks
        await asyncio.wait({task})
        assert task.exception() is None
        told.feeds._tell = told.tell
        await told.watch()
        await told.until(lambda: told.frames)
        await told.end()

    run(body())
    assert "cannot be told" in caplog.text
