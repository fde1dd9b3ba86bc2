import msgspec
from distsum.provision.fleetfile import Host
from distsum.provision.planning import (
    Found,
    Install,
    Prune,
    Remove,
    Scale,
    Start,
    Stop,
    Supervisor,
    Switch,
    Upgrade,
    Wanted,
    Worker,
    actions,
    spread,
)
from distsum.provision.rollout import select
from hypothesis import given
from hypothesis import strategies as st

WANTED = Wanted(environment="new", workers=2)


def running(environment: str = "new", wanted: int = 2) -> Supervisor:
    workers = tuple(Worker(name=f"w{n}", state="ready") for n in range(wanted))
    return Supervisor(pid=7, environment=environment, wanted=wanted, detached=True, workers=workers)


def test_a_fresh_host_gets_everything():
    assert actions(WANTED, Found()) == (Install("new"), Switch("new", None), Start(2))


def test_a_host_that_is_as_wanted_gets_nothing():
    assert actions(WANTED, Found(current="new", environments=("new",), supervisor=running(), files=True)) == ()


def test_a_host_whose_workers_have_ended_gets_workers_only():
    assert actions(WANTED, Found(current="new", environments=("new",), files=True)) == (Start(2),)


def test_more_and_fewer_workers_are_a_matter_of_the_supervisor_that_runs():
    found = Found(current="new", environments=("new",), supervisor=running(wanted=5), files=True)
    assert actions(WANTED, found) == (Scale(5, 2),)
    assert actions(Wanted(environment="new", workers=6), found) == (Scale(5, 6),)


def test_no_workers_are_an_end_in_peace_that_installs_and_prunes_nothing():
    found = Found(current="old", environments=("old", "older"), unneeded=("older",), supervisor=running("old"))
    none = Wanted(environment="new", workers=0)
    assert actions(none, found, stop=True) == (Stop(2),)
    assert actions(none, found) == (Scale(2, 0),), "whoever holds the host keeps it"
    assert actions(none, msgspec.structs.replace(found, supervisor=running("old", 0))) == ()
    assert actions(none, Found()) == actions(none, Found(), stop=True) == ()


def test_workers_of_another_environment_are_left_alone_but_by_an_upgrade():
    found = Found(current="old", environments=("old",), supervisor=running("old"), files=True)
    assert actions(WANTED, found) == (Upgrade("new", "old"),)
    assert actions(Wanted(environment="new", workers=5), found) == (Upgrade("new", "old"), Scale(2, 5)), "but scaled"
    steps = (Install("new"), Stop(2), Switch("new", "old"), Start(2), Prune(("old",)))
    assert actions(WANTED, found, upgrade=True) == steps


def test_workers_that_were_started_with_something_else_are_drained_for_others():
    found = Found(current="new", environments=("new",), supervisor=running(), files=True)
    assert found.supervisor is not None
    with_terms = msgspec.structs.replace(found.supervisor, terms="32 MiB each")
    found = msgspec.structs.replace(found, supervisor=with_terms)
    assert actions(msgspec.structs.replace(WANTED, terms="32 MiB each"), found) == ()
    assert actions(WANTED, found) == ()
    steps = actions(msgspec.structs.replace(WANTED, terms="64 MiB each"), found)
    assert steps == (Stop(2, "32 MiB each"), Start(2))
    assert str(steps[0]) == "drain and stop 2 workers that had 32 MiB each"


def test_nothing_is_installed_while_workers_are_stopped():
    found = Found(current="old", environments=("old",), supervisor=running("old"), files=True)
    steps = actions(WANTED, found, upgrade=True)
    assert steps.index(Install("new")) < steps.index(Stop(2)), "a host works on while wheels are uploaded"


def test_an_environment_that_other_fleets_use_is_not_pruned():
    found = Found(current="new", environments=("new", "theirs", "old"), unneeded=("old",), supervisor=running())
    assert actions(WANTED, found) == (Prune(("old",)),)


def test_down_ends_and_removes_and_then_has_nothing_to_do():
    found = Found(current="new", environments=("new",), supervisor=running(), processes=(7, 8, 9), files=True)
    assert actions(None, found) == (Stop(2), Remove())
    assert actions(None, Found(processes=(9,))) == (Stop(0), Remove()), "whatever is left of a supervisor that is gone"
    assert actions(None, Found()) == ()


@given(st.integers(0, 10_000), st.dictionaries(st.text("abc", min_size=1), st.integers(0, 100), min_size=1))
def test_workers_are_spread_to_the_last_one_and_in_proportion(total, shares):
    counts = spread(total, shares)
    assert sum(counts.values()) == total
    whole = sum(shares.values())
    for host, count in counts.items():
        exact = total * shares[host] / whole if whole else total / len(shares)
        assert abs(count - exact) < 1 + 1e-9


def test_a_number_that_the_file_would_give_is_spread_as_in_the_file():
    assert spread(9, {"a": 4, "b": 0, "c": 5}) == {"a": 4, "b": 0, "c": 5}
    assert spread(3, {}) == {}


def test_hosts_are_selected_by_name_and_label():
    hosts = (Host(name="a", labels=("big",)), Host(name="b", labels=("big", "new")), Host(name="c"))
    assert select(hosts, [], []) == hosts
    assert [each.name for each in select(hosts, ["c", "a"], [])] == ["a", "c"]
    assert [each.name for each in select(hosts, [], ["big"])] == ["a", "b"]
    assert [each.name for each in select(hosts, ["b", "c"], ["big"])] == ["b"]
