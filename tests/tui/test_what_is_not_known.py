"""What a list tells of what it does not know."""

from __future__ import annotations

from distsum.service.viewer import Connection
from tests.following import NOW, service, succeeded
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


def test_a_list_of_jobs_says_when_it_has_only_the_last():
    def title(ended):
        return Stage(service([succeeded(f"{number:012x}", 60.0) for number in range(ended)])).show().text

    assert "of ended ones at most 50; distsum jobs --limit N lists more" in title(50)
    assert "at most" not in title(49)
