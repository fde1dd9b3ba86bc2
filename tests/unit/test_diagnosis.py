from __future__ import annotations

import msgspec
import pytest

from distsum import __version__
from distsum.brokers.topology import DEAD, REFUSED, TASKS
from distsum.messages import PROTOCOL
from distsum.observe.workers import WorkerStatus
from distsum.service.diagnosis import Check, diagnose, exit_code
from distsum.service.findings import (
    BrokerFound,
    Findings,
    ManagementFound,
    MasterFound,
    NodeFound,
    QueueCount,
    StoreFound,
)
from distsum.service.messages import Diagnosis

NOW = 1_000_000.0


def worker(name, state="idle", reason=None, heard=NOW):
    return WorkerStatus(worker=name, host="h", pid=1, state=state, reason=reason, heard_seconds=heard)


BROKER = BrokerFound(
    address="amqp://u@h:5672/v", user="u", version="3.13.7", queues=(QueueCount(TASKS, 0, 1), QueueCount(DEAD, 0, 1))
)
TOLD = Diagnosis(__version__, PROTOCOL, b"/work", NOW, (worker("a"),), {"a": 0.5})
MASTER = MasterFound(told=TOLD, ahead_seconds=0.0)
STORE = StoreFound(work="/work", guarded=True, ahead_seconds=0.0)
API = ManagementFound(address="http://h", version="3.13.7", nodes=(NodeFound("n", True, False, False, False),))
WELL = Findings(broker=BROKER, management=API, master=MASTER, store=STORE, work=b"/work")


def checks(found):
    return {check.name: check for check in diagnose(found)}


def changed(**parts):
    """Return the checks of a service that is well but for some fields of some parts."""
    found = {}
    for name, changes in parts.items():
        found[name] = msgspec.structs.replace(getattr(WELL, name), **changes) if isinstance(changes, dict) else changes
    return checks(msgspec.structs.replace(WELL, **found))


def with_told(**changes):
    return changed(master={"told": msgspec.structs.replace(TOLD, **changes)})


def test_what_is_well_is_ok_and_needs_nothing_done():
    found = diagnose(WELL)
    assert {check.state for check in found} == {"ok"}
    assert {check.remedy for check in found} == {""}
    assert exit_code(found) == 0


@pytest.mark.parametrize(
    ("found", "name", "state", "words"),
    [
        (changed(broker={"fault": "no answer; does it run?"}), "broker", "failed", "does it run?"),
        (changed(broker={"version": "3.9.1"}), "broker", "failed", "3.10"),
        (changed(broker={"blocked": True}), "publishing", "failed", "memory or disk"),
        (changed(broker={"missing": (TASKS,)}), "permissions", "failed", "another protocol"),
        (changed(broker={"missing": (TASKS, DEAD)}), "permissions", "warning", "broker setup"),
        (changed(broker={"worker_fault": "no; x"}), "permissions", "warning", "what workers do"),
        (
            changed(broker={"worker_fault": "no", "master_fault": "no", "viewer_fault": "no"}),
            "permissions",
            "failed",
            "broker setup",
        ),
        (
            changed(broker={"worker_fault": "no", "master_fault": "no"}),
            "permissions",
            "ok",
            "may look, and change nothing",
        ),
        (changed(broker={"queues": (QueueCount(DEAD, 2, 1),)}), "dead", "warning", "2 tasks"),
        (changed(broker={"queues": (QueueCount(REFUSED, 1, 0),)}), "refused", "warning", "1 message"),
        (changed(broker=None), "broker", "warning", "DISTSUM_BROKER"),
        (changed(management={"fault": "refused; check"}), "management", "warning", "check"),
        (changed(management={"nodes": (NodeFound("n", True, True, False, False),)}), "alarm", "failed", "n is short"),
        (changed(management={"nodes": (NodeFound("n", True, False, False, True),)}), "alarm", "failed", "cut off"),
        (changed(management={"consumer_timeout_seconds": 60.0}), "limits", "warning", "60 s"),
        (changed(management={"max_connections": 5}), "limits", "warning", "raise it"),
        (changed(master=MasterFound(fault="none; start one")), "master", "failed", "start one"),
        (with_told(store_fault="no bucket; mend"), "master", "failed", "no bucket"),
        (with_told(work=b"/other"), "master", "warning", "/work"),
        (with_told(version="9"), "versions", "failed", "install the same"),
        (with_told(protocol=99), "versions", "failed", "protocol 99"),
        (with_told(workers=(worker("a", "refused", "old"),)), "versions", "warning", "a: old"),
        (with_told(workers=()), "workers", "warning", "distsum worker"),
        (with_told(workers=(worker("a", "paused", "x"),)), "workers", "failed", "nobody takes tasks"),
        (with_told(workers=(worker("a"), worker("b", "paused", "x"))), "workers", "ok", "1 idle, 1 paused"),
        (with_told(workers=(worker("a", "quarantined", "bad disk"),)), "quarantined", "warning", "bad disk"),
        (with_told(workers=(worker("a", "lost", "no heartbeat"),)), "lost", "warning", "no heartbeat"),
        (with_told(ahead_seconds={"a": -90.0}), "clocks", "warning", "worker a is 90 s behind"),
        (changed(master={"ahead_seconds": 30.0}), "clocks", "warning", "master's is 30 s ahead"),
        (changed(store={"ahead_seconds": 1e4}), "clocks", "warning", "store's is 10,000 s ahead"),
        (changed(store={"unreachable": "no bucket; make it"}), "store", "failed", "make it"),
        (changed(store={"unusable": "the disk is full"}), "store", "failed", "the disk is full"),
        (changed(store={"guarded": False}), "store", "warning", "conditional writes"),
        (changed(store={"there": False}), "store", "warning", "is not there"),
        (changed(store=None), "store", "warning", "--work-dir"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_do(found, name, state, words):
    check = found[name]
    assert check.state == state
    assert words in check.line()
    assert len(check.line().splitlines()) == 1
    # With the reason or remedy everything else is still judged.
    assert len(found) >= 4


def test_who_left_as_it_should_or_was_lost_long_ago_is_no_worry():
    told = with_told(workers=(worker("a"), worker("b", "left"), worker("c", "lost", "killed", heard=NOW - 1e4)))
    assert "lost" not in told
    assert told["workers"].found == "1 idle"


def test_of_many_the_first_few_are_told():
    told = with_told(workers=tuple(worker(f"w{number}", "paused", "x") for number in range(9)))
    assert told["paused"].found.count("on h") == 3
    assert "and 6 more" in told["paused"].found


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ((), 0),
        (("ok", "warning"), 0),
        (("warning", "failed"), 1),
        (("failed", "unreachable"), 3),
    ],
)
def test_the_exit_code_is_3_where_broker_or_store_cannot_be_reached_and_1_where_something_else_failed(states, code):
    found = [Check("n", "failed" if s == "unreachable" else s, "f", unreachable=s == "unreachable") for s in states]
    assert exit_code(found) == code


def test_names_from_outside_disturb_no_terminal():
    told = with_told(workers=(worker("a", "paused", "x\n\x1b[31mred"),))
    assert "\x1b" not in told["paused"].line()
    assert "\n" not in told["paused"].line()
