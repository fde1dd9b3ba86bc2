"""A master's fleet: held while it serves, and scaled for those who ask."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from distsum.errors import UnreachableError
from distsum.service.messages import ScaleWorkers
from distsum.service.scaling import MOST_WORKERS, Scaling
from distsum.service.view import FleetStatus

if TYPE_CHECKING:
    from collections.abc import Callable


class _Recorded:
    """A fleet without hosts, which keeps what it was asked."""

    def __init__(self, fault: UnreachableError | None = None) -> None:
        self._released = asyncio.Event()
        self._fault = fault
        self.asked: list[str] = []
        self.wanted: int | None = None

    async def hold(self, on_ready: Callable[[int], None]) -> None:
        if self._fault is not None:
            raise self._fault
        on_ready(2)
        await self._released.wait()
        self.asked.append("gone")

    def release(self, *, at_once: bool) -> None:
        self.asked.append(f"release {at_once}")
        self._released.set()

    def scale(self, total: int | None) -> None:
        self.asked.append(f"scale {total}")
        self.wanted = total


def _reason(scaling: Scaling, total: int) -> str:
    refused = scaling.refusal(ScaleWorkers(total))
    assert refused is not None
    return refused.reason


def _scale(scaling: Scaling, total: int | None) -> None:
    assert scaling.refusal(ScaleWorkers(total)) is None
    scaling.scale(ScaleWorkers(total))


def test_a_fleet_is_scaled_only_while_its_master_serves_and_each_term_holds_another() -> None:
    made: list[_Recorded] = []

    def make() -> _Recorded:
        made.append(_Recorded())
        return made[-1]

    async def serve() -> None:
        scaling = Scaling(make)
        assert "holds no host" in _reason(scaling, 2)
        for _ in range(2):
            assert scaling.status() == FleetStatus(held=False, wanted=None)
            scaling.begin()
            assert scaling.status() == FleetStatus(held=True, wanted=None), "nobody knows yet how many the file has"
            _scale(scaling, 0)
            _scale(scaling, MOST_WORKERS)
            assert "from 0 to 10,000" in _reason(scaling, MOST_WORKERS + 1)
            assert "from 0 to 10,000" in _reason(scaling, -1)
            assert scaling.status() == FleetStatus(held=True, wanted=MOST_WORKERS)
            _scale(scaling, None)
            await asyncio.sleep(0)
            await scaling.end()
            assert "holds no host" in _reason(scaling, 2)

    asyncio.run(serve())
    assert [each.asked for each in made] == [["scale 0", "scale 10000", "scale None", "release False", "gone"]] * 2


def test_a_fleet_begins_with_the_number_that_an_earlier_master_was_asked_for() -> None:
    made: list[_Recorded] = []

    def make() -> _Recorded:
        made.append(_Recorded())
        return made[-1]

    async def serve() -> None:
        scaling = Scaling(make)
        scaling.begin(7)
        await asyncio.sleep(0)
        await scaling.end()

    asyncio.run(serve())
    assert [each.asked for each in made] == [["scale 7", "release False", "gone"]]


def test_a_fleet_that_cannot_be_held_leaves_the_master_serving_and_is_refused() -> None:
    async def serve() -> None:
        scaling = Scaling(lambda: _Recorded(UnreachableError("no host")))
        scaling.begin()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert "holds no host" in _reason(scaling, 2)
        await scaling.end()

    asyncio.run(serve())


def test_a_master_without_a_fleet_says_so() -> None:
    assert "has no fleet" in _reason(Scaling(), 2)
    assert Scaling().status() is None
