"""Whoever has a picture and every difference after it has the view; who has missed one notices."""

from __future__ import annotations

import random
import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distsum.observe.change import Change, Ranges, UnfitError, changed, difference
from distsum.observe.feed import FeedReader, FeedWriter, FrameError
from distsum.observe.fold import JobTally
from distsum.observe.history import History
from distsum.observe.snapshot import PhaseWork
from distsum.observe.states import DONE, RUNNING, PhaseStates
from distsum.observe.view import JobFold, JobView
from tests.property.test_history import Stored, drawn_run, header, written
from tests.recorded import recorded


def drawn_views(seed):
    """Yield the views of a run of the real actors, at moments drawn by chance."""
    run, log = drawn_run(seed)
    described = header(*(work.tasks for work in run.work))
    history = History(Stored(written(log, described)))
    yield from views_of(history, random.Random(seed), 0.3)


def views_of(history, draw, share):
    described = history.header
    fold = JobFold(JobTally(described.work, str), described.work, described.output, described.began_seconds)
    yield fold.view(0.0)
    last = 0.0
    for now, event in history.events():
        fold.take(event, now)
        last = max(last, now)
        if draw.random() < share:
            yield fold.view(last + draw.random())
    yield fold.view(last)


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_the_differences_of_a_run_make_its_views(seed):
    views = drawn_views(seed)
    writer = FeedWriter("m.1", next(views))
    reader = FeedReader(JobView)
    assert reader.take(writer.picture())
    for view in views:
        assert reader.take(writer.step(view))
        assert reader.view == view
        assert not reader.needs_picture


def test_the_differences_of_a_long_run_with_stragglers_and_losses_make_its_views():
    views = list(views_of(History(Stored(recorded())), random.Random(3), 0.1))
    assert len(views) > 100
    writer = FeedWriter("m.1", views[0])
    reader = FeedReader(JobView)
    reader.take(writer.picture())
    sizes = []
    for view in views[1:]:
        frame = writer.step(view)
        sizes.append(len(frame))
        reader.take(frame)
        assert reader.view == view
    assert np.median(sizes) * 4 < len(writer.picture()), "a difference is hardly shorter than the whole"


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
@example(seed=1, lost=0.5, twice=0.5, asks=0.3)
def test_a_gap_is_noticed_and_no_view_is_ever_wrong(seed, lost, twice, asks):
    draw = random.Random(seed)
    views = list(drawn_views(seed))
    stream = 1
    writer = FeedWriter("m.1", views[0])
    told = {("m.1", 0): views[0]}
    reader = FeedReader(JobView)
    asked = None
    for view in views[1:]:
        if draw.random() < 0.02:  # another master
            stream += 1
            writer = FeedWriter(f"m.{stream}", view)
        else:
            frame = writer.step(view)
            missed = draw.random() < lost
            told[writer.stream, writer.number] = view
            for _ in range(0 if missed else 1 + (draw.random() < twice)):
                reader.take(frame)
            if missed:
                continue
        told[writer.stream, writer.number] = view
        if asked is not None and draw.random() < 0.5:
            reader.take(asked)  # The answer took its time.
            asked = None
        if reader.needs_picture and draw.random() < asks:
            asked = writer.picture()
        if reader.view is not None:
            assert reader.view == told[reader.stream, reader.number]
            current = (reader.stream, reader.number) == (writer.stream, writer.number)
            assert current or reader.needs_picture or reader.stream != writer.stream
    reader.take(writer.picture())
    assert reader.view == writer.view
    assert not reader.needs_picture


def small_view():
    work = (PhaseWork(1000, 1000, 1000), PhaseWork(10, 10, 10))
    return JobFold(JobTally(work, str), work, "/o", 0.0).view(0.0)


def with_states(view, array):
    return msgspec.structs.replace(view, states=(PhaseStates(1, array.tobytes()), *view.states[1:]))


def test_what_came_before_its_picture_counts_afterwards():
    view = small_view()
    states = np.zeros(1000, dtype=np.uint8)
    writer = FeedWriter("m.1", view)
    picture, frames = writer.picture(), []
    for place in range(5):
        states[100 * place] = RUNNING
        frames.append(writer.step(with_states(view, states)))
    reader = FeedReader(JobView)
    for frame in frames:
        assert not reader.take(frame)
    reader.take(picture)
    assert reader.view == writer.view
    assert not reader.needs_picture


@given(st.binary(max_size=200), st.data())
def test_what_is_damaged_harms_nothing(noise, data):
    view = small_view()
    states = np.arange(1000, dtype=np.uint8) % 4
    writer = FeedWriter("m.1", with_states(view, states))
    reader = FeedReader(JobView)
    reader.take(writer.picture())
    before = reader.view
    states = states.copy()
    states[data.draw(st.integers(0, 999))] = DONE + 3
    frame = writer.step(with_states(view, states))
    place = data.draw(st.integers(0, len(frame) - 1))
    cut = data.draw(st.integers(0, len(noise)))
    damaged = frame[:place] + noise[:cut] + frame[place + data.draw(st.integers(0, 3)) :]
    for bad in (noise, damaged, b"P" + noise, b"d" + noise, b"z" + zlib.compress(noise), b"Z" + zlib.compress(noise)):
        if bad == frame:
            continue
        try:
            if reader.take(bad):  # By chance it is one: then it is one of a view.
                assert isinstance(reader.view, JobView)
                return
        except FrameError:
            assert reader.view is before
    reader.take(frame)
    assert reader.view == writer.view or reader.needs_picture


@pytest.mark.parametrize(
    "states", [PhaseStates(1, bytes([9])), PhaseStates(1, bytes([1]), 0), PhaseStates(1, bytes([255]) * 70)]
)
def test_a_view_with_states_that_nobody_could_draw_is_refused(states):
    view = small_view()
    bad = msgspec.structs.replace(view, states=(states,))
    with pytest.raises(FrameError, match="state"):
        FeedReader(JobView).take(FeedWriter("m.1", bad).picture())
    reader, writer = FeedReader(JobView), FeedWriter("m.1", view)
    reader.take(writer.picture())
    with pytest.raises(FrameError, match="state"):
        reader.take(writer.step(bad))
    assert reader.view == view


@pytest.mark.parametrize(("kind", "size"), [(b"z", 5 << 20), (b"Z", 80 << 20)])
def test_a_bomb_is_not_unpacked(kind, size):
    with pytest.raises(FrameError, match="more than"):
        FeedReader(JobView).take(kind + zlib.compress(bytes(size)))


def test_a_difference_that_is_too_large_is_not_sent_and_a_picture_is_asked_for():
    view = small_view()
    writer = FeedWriter("m.1", view)
    reader = FeedReader(JobView)
    reader.take(writer.picture())
    chance = np.random.default_rng(1)
    assert writer.step(with_states(view, chance.integers(0, 4, 5_000_000, dtype=np.uint8))) is None
    later = msgspec.structs.replace(writer.view, log_total=1)
    assert not reader.take(writer.step(later))
    assert reader.needs_picture
    reader.take(writer.picture())
    assert reader.view == later


def test_a_million_tasks_cost_what_has_changed():
    chance = np.random.default_rng(1)
    states = chance.integers(0, 2, 1_000_000, dtype=np.uint8)
    view = small_view()
    writer = FeedWriter("m.1", with_states(view, states))
    reader = FeedReader(JobView)
    reader.take(writer.picture())
    for _ in range(5):
        states[chance.integers(0, states.size, 100)] = RUNNING
        frame = writer.step(with_states(view, states))
        assert len(frame) < 10_000
        reader.take(frame)
        assert reader.view == writer.view


# Differences ----------------------------------------------------------------------------------------------------------


class Leaf(msgspec.Struct, frozen=True):
    name: str
    size: int = 0


class Whole(msgspec.Struct, frozen=True):
    leaves: tuple[Leaf, ...] = ()
    rates: tuple[float, ...] = ()
    pair: tuple[int, str] = (0, "")
    one: Leaf | None = None
    maybe: tuple[str, ...] | None = None
    states: bytes = b""
    table: dict[str, float] = {}


LEAVES = st.builds(Leaf, st.text(max_size=3), st.integers(0, 3))
WHOLES = st.builds(
    Whole,
    st.lists(LEAVES, max_size=12).map(tuple),
    st.lists(st.sampled_from([0.0, 1.5, 2.5]), max_size=12).map(tuple),
    st.tuples(st.integers(0, 2), st.text(max_size=2)),
    st.none() | LEAVES,
    st.none() | st.lists(st.text(max_size=1), max_size=4).map(tuple),
    st.binary(max_size=300),
    st.dictionaries(st.text(max_size=2), st.floats(allow_nan=False), max_size=3),
)
CHANGE = msgspec.msgpack.Decoder(Change)


def sent(change):
    return CHANGE.decode(msgspec.msgpack.encode(change))


@given(WHOLES, WHOLES)
def test_a_difference_makes_the_one_from_the_other(old, new):
    change = difference(old, new, Whole)
    assert (change is None) == (old == new)
    if change is not None:
        assert changed(old, sent(change), Whole) == new


@given(st.lists(LEAVES, max_size=30), st.data())
def test_a_tuple_that_is_edited_is_told_by_what_is_new(leaves, data):
    old = tuple(leaves)
    new = list(old)
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(new)))
        if data.draw(st.booleans()):
            new.insert(place, Leaf("fresh", data.draw(st.integers(10, 20))))
        else:
            del new[place : place + data.draw(st.integers(1, 9))]
    change = difference(Whole(old), Whole(tuple(new)), Whole)
    if change is not None:
        assert changed(Whole(old), sent(change), Whole) == Whole(tuple(new))


@given(st.binary(min_size=0, max_size=20_000), st.data())
def test_bytes_are_told_by_ranges(old, data):
    new = bytearray(old)
    for place in data.draw(st.lists(st.integers(0, max(0, len(old) - 1)), max_size=5)) if old else ():
        new[place] ^= 1
    change = difference(old, bytes(new), bytes)
    if change is not None:
        assert changed(old, sent(change), bytes) == bytes(new)


@pytest.mark.parametrize(
    ("old", "change"),
    [
        (b"abc", Ranges([(2, b"xx")])),
        (b"abc", Ranges([(-1, b"x")])),
        ("abc", Ranges([(0, b"x")])),
        (Leaf("a"), difference((Leaf("a"),), (Leaf("b"),), tuple[Leaf, ...])),
        (Leaf("a"), difference(Whole(), Whole(rates=(1.0,)), Whole)),
        ((Leaf("a"),), difference((Leaf("a"), Leaf("b")), (Leaf("a"), Leaf("c")), tuple[Leaf, ...])),
        ((Leaf("a"),), difference((1, 2, 3), (1, 2, 3, 4), tuple[int, ...])),
    ],
)
def test_a_difference_of_something_else_does_not_fit(old, change):
    kind = {bytes: bytes, str: str, Leaf: Leaf, tuple: tuple[Leaf, ...]}[type(old)]
    with pytest.raises(UnfitError):
        changed(old, sent(change), kind)
