"""Drawing takes no more than its share of the processors from a run, and is never put off for long."""

from __future__ import annotations

import pytest
from distsum.tui.source import Thrift


def drawn(share, cost_seconds, seconds=60.0, frame_seconds=0.1):
    """Return how many frames are drawn in a minute where each costs so much, asked ten times a second."""
    thrift = Thrift(share)
    frames, spent = 0, 3.0
    for tick in range(int(seconds / frame_seconds)):
        if thrift.allows(100.0 + tick * frame_seconds, spent):
            frames += 1
            spent += cost_seconds
    return frames


def test_cheap_frames_are_all_drawn():
    assert drawn(share=0.04, cost_seconds=0.003) == 600


@pytest.mark.parametrize("cost_seconds", [0.006, 0.01, 0.015])
def test_dear_frames_take_no_more_than_the_share(cost_seconds):
    frames = drawn(share=0.04, cost_seconds=cost_seconds)
    assert 0.02 * 60 <= frames * cost_seconds <= 0.04 * 60 + cost_seconds


def test_a_frame_is_drawn_every_half_second_whatever_it_costs():
    assert 100 <= drawn(share=0.04, cost_seconds=0.4) <= 121
