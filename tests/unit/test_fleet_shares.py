"""How many workers each host gets of a number that all of them share."""

from __future__ import annotations

import asyncio

from distsum.provision.fleetfile import Host
from distsum.provision.shares import Shares
from distsum.provision.state import Scaled, State

A, B, C = hosts = [Host(name=name) for name in "abc"]


def test_a_number_is_shared_by_the_hosts_that_are_there_once_every_one_has_said_what_it_is() -> None:
    async def main() -> None:
        shares = Shares(hosts, Scaled(6))
        waiting = asyncio.ensure_future(shares.of(A, 1))
        shares.note(A, 1)
        shares.note(B, 2)
        await asyncio.sleep(0)
        assert not waiting.done(), "whether the third is there is not known"
        shares.note(C, None)
        assert await waiting == 2
        assert await shares.of(B, 2) == 4

    asyncio.run(main())


def test_a_host_that_comes_late_gets_its_part_and_the_others_are_told() -> None:
    async def main() -> None:
        shares = Shares(hosts, Scaled(6))
        for host, workers in ((A, 1), (B, 1), (C, None)):
            shares.note(host, workers)
        assert [await shares.of(host, 1) for host in (A, B)] == [3, 3]
        changed = shares.changed
        shares.note(C, 1)
        assert changed.is_set()
        assert not shares.changed.is_set(), "there may be another change"
        assert [await shares.of(host, 1) for host in hosts] == [2, 2, 2]
        shares.note(C, None)
        shares.note(C, 1)
        assert not shares.changed.is_set(), "one that was there before has its part already"

    asyncio.run(main())


def test_a_host_with_a_number_of_its_own_has_that_and_waits_for_nobody() -> None:
    async def main() -> None:
        shares = Shares(hosts, Scaled(6, {"b": 9}))
        assert await shares.of(B, 1) == 9
        for host in hosts:
            shares.note(host, 1)
        assert [await shares.of(host, 1) for host in hosts] == [2, 9, 2]
        shares.resize(3)
        assert [await shares.of(host, 1) for host in hosts] == [1, 1, 1], "a number for all counts for it, too"
        shares.resize(None)
        assert [await shares.of(host, 7) for host in hosts] == [7, 7, 7]

    asyncio.run(main())


def test_only_where_hosts_share_are_those_asked_that_are_not_meant() -> None:
    assert Shares(hosts, Scaled(6)).unasked([A]) == [B, C]
    assert Shares(hosts, Scaled(None, {"a": 2})).unasked([A]) == []


def test_what_is_kept_here_is_what_was_said_last(tmp_path) -> None:
    state = State(str(tmp_path / "lab"))
    assert state.scaled == Scaled()
    for scaled in (Scaled(12), Scaled(None, {"a": 3}), Scaled(4, {"a": 0}), Scaled()):
        state.scale(scaled)
        assert State(str(tmp_path / "lab")).scaled == scaled
