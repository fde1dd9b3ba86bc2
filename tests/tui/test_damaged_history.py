"""Histories that were cut short, or that tell of what cannot be, on the screen: nothing of them may end it."""

from __future__ import annotations

import random

import msgspec
import pytest

from distsum.messages import TaskId
from distsum.observe.history import History
from tests.property.test_history import written
from tests.recorded import Stored, recorded
from tests.screens import settled, text_of
from tests.tui.test_screen import replay, shown

KEYS = ("enter", "a", "escape", "escape", "2", "3", "4", "5", "left_curly_bracket", "right_curly_bracket")
NONSENSE = {
    int: [-1, 0, 2**63 - 1, -(2**63)],
    float: [-1.0, 1e300, float("inf"), float("nan")],
    str: ["", "\x1b[2J[red]", "x" * 3000],
}


def bent(event, chance):
    """Return an event with one thing in it that no run tells of, where there is anything to bend."""
    changes = []
    for name in event.__struct_fields__:
        value = getattr(event, name)
        changes += [(name, each) for each in NONSENSE.get(type(value), ())]
        if isinstance(value, TaskId):
            changes += [(name, TaskId(value.job, value.phase, place, place)) for place in (-1, 2**62)]
    return msgspec.structs.replace(event, **dict([chance.choice(changes)])) if changes else event


def play(content):
    """Go through a history, and return all that was shown."""

    async def steps(app, pilot):
        for key in KEYS:
            await pilot.press(key)
            await settled(app, pilot)
            seen.extend(text_of(app))

    seen = []
    shown(replay(content=content), steps=steps)
    return "\n".join(seen)


def test_one_that_was_cut_short_is_played_to_there_and_says_so():
    whole = recorded()
    told = play(whole[: len(whole) // 2])
    assert "the history is incomplete" in told
    assert "\x1b" not in told


@pytest.mark.parametrize("seed", range(3))
def test_one_that_tells_of_what_cannot_be_is_played_all_the_same(seed):
    chance = random.Random(seed)
    history = History(Stored(recorded()))
    log = [(seconds, bent(event, chance) if chance.random() < 0.1 else event) for seconds, event in history.events()]
    told = play(written(log, history.header))
    assert "1 Tree" in told
    assert "\x1b" not in told
