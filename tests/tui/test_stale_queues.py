"""A queue's last minute while nobody tells of it."""

from __future__ import annotations

from distsum.service.viewer import Connection
from tests.following import NOW
from tests.stage import Stage


def test_what_is_ready_is_not_noted_again_while_nothing_is_heard():
    stage = Stage()
    stage.viewer.stands = Connection("lost", "no route to host", 30.0, None)
    before = stage.app.traces.of("distsum.tasks.v2") or stage.app.traces.of("distsum.tasks")

    async def later(pilot):
        for second in range(1, 40):
            stage.app.clock = lambda second=second: NOW + second
            stage.app.draw_newest()

    stage.show("u", steps=later)
    after = stage.app.traces.of("distsum.tasks.v2") or stage.app.traces.of("distsum.tasks")
    assert after == before
