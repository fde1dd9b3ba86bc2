import json
import os

import msgspec
import pytest
from distsum.provision.agent import MARK, install, probe
from distsum.provision.asking import agent_answer, agent_command, agent_input
from distsum.provision.endpoints import (
    Endpoint,
    store_endpoint,
    store_variables,
    through_tunnel,
    tunnelled_broker,
)
from distsum.provision.environment import Platform, fit, here, tags
from distsum.provision.faults import HostFault
from distsum.provision.fleetfile import Host
from distsum.provision.planning import Found
from distsum.provision.preflight import Facts, findings, space_fault

from distsum.brokers.address import BrokerAddress
from distsum.errors import UsageError

HOST = Host(name="a", memory_bytes=1 << 30)
FIT = Facts(
    system="linux",
    machine="x86_64",
    libc="glibc",
    libc_version="2.36",
    python=(3, 11, 2),
    implementation="cpython",
    executable="/usr/bin/python3.11",
    absent_modules=(),
    home="/home/ada",
    cpus=4,
    memory_bytes=8 << 30,
    free_bytes=1 << 30,
    clock_seconds=1000.0,
    open_files=1024,
    unreached=(),
    store=None,
    found=Found(),
)


def said(**differences):
    facts = msgspec.structs.replace(FIT, **differences)
    return findings(facts, HOST, 4, clock_seconds=1000.0, latency_seconds=0.5)


def test_a_host_that_is_fit_is_not_spoken_of():
    assert said() == []
    assert said(clock_seconds=940.0) == [], "a minute more or less is no reason"


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ({"system": "darwin"}, "need Linux"),
        ({"implementation": "pypy"}, "set python to a CPython"),
        ({"absent_modules": ("ssl", "venv")}, "lacks ssl, venv; install"),
        ({"memory_bytes": 3 << 30}, "has 3.0 GiB of memory, and 4 workers with 1.0 GiB each take 4.0 GiB; lower"),
        ({"clock_seconds": 5000.0}, "its clock is 4,000 s ahead of this machine's; set both"),
        ({"clock_seconds": 800.0}, "200 s behind"),
        ({"open_files": 256}, "lets a process open 256 files; raise"),
        ({"unreached": ("broker:5672 (Connection refused)",)}, "does not reach broker:5672 (Connection refused); open"),
        ({"store": "/shared is no folder there"}, "does not have the store: /shared is no folder there; mount"),
    ],
)
def test_what_makes_a_host_unfit_is_told_with_its_remedy(differences, words):
    (finding,) = said(**differences)
    assert words in finding


def test_all_that_is_wrong_is_told_at_once():
    assert len(said(open_files=1, system="darwin", store="x")) == 3


def test_a_disk_must_hold_the_wheels_and_what_they_unpack_to():
    assert space_fault(FIT, 50 << 20, 50 << 20) is None
    assert "has 1.0 GiB free in /home/ada, and the environment takes 1.2 GiB" in space_fault(FIT, 200 << 20, 250 << 20)


def test_what_a_host_says_of_itself_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    facts = msgspec.convert(
        json.loads(json.dumps(probe("lab@here", [["127.0.0.1", 1]], str(tmp_path / "none")))), Facts
    )
    assert facts.platform == here()
    assert facts.found == Found()
    assert len(facts.unreached) == 1
    assert facts.store == f"{tmp_path}/none is no folder there"
    assert list(tmp_path.iterdir()) == [], "looking leaves nothing"


def test_wheels_fit_hosts_like_this_machine_only():
    ours = Platform("x86_64", "glibc", (2, 36), (3, 11))
    assert fit(ours, ours) is None
    assert fit(msgspec.structs.replace(ours, libc_version=(2, 17)), ours) is None
    assert "has Python 3.12, and this command runs in 3.11" in fit(msgspec.structs.replace(ours, python=(3, 12)), ours)
    assert "is aarch64 with glibc" in fit(msgspec.structs.replace(ours, machine="aarch64"), ours)


def test_wheels_for_an_older_libc_than_the_hosts_are_asked_for_and_none_for_a_newer():
    asked = tags(Platform("x86_64", "glibc", (2, 28), (3, 11)))
    assert asked[0] == "manylinux_2_28_x86_64"
    assert {"manylinux_2_17_x86_64", "manylinux2014_x86_64", "linux_x86_64"} <= set(asked)
    assert "manylinux_2_31_x86_64" not in asked


def test_an_answer_is_found_behind_whatever_a_login_shell_prints():
    assert agent_answer(f"Welcome!\n{MARK}{{}}\n{MARK}{json.dumps({'answer': 3})}\nbye\n", ["python3"]) == 3


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (f'{MARK}{{"fault": "the disk is full"}}', "the disk is full"),
        ("distsum-nopython ", "needs Python 3.11 or later; there is none of python3.11, python3; install it, or set"),
        ("distsum-nopython  python3 is Python 3.9.2,", "there only python3 is Python 3.9.2; install"),
        ("This account is not available.", "no answer that is understood: This account is not available."),
        ("", "nothing"),
    ],
)
def test_whatever_else_a_host_prints_is_a_fault(output, words):
    with pytest.raises(HostFault, match=r".") as caught:
        agent_answer(output, ["python3.11", "python3"])
    assert words in str(caught.value)


def test_an_installation_removes_what_uploads_have_left_that_were_given_up(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    wheels = tmp_path / ".distsum" / "wheels"
    whole, going_on, given_up = (wheels / name for name in ("0a", "0b.11112222", "0c.33334444"))
    for each in (whole, going_on, given_up):
        each.mkdir(parents=True)
    for each in (whole, given_up):
        os.utime(each, (0, 0))
    (tmp_path / ".distsum" / "environments" / "e").mkdir(parents=True)
    (tmp_path / ".distsum" / "environments" / "e" / "complete").write_text("[]")
    assert not install("e", {}, "", "", 1.0), "it is there"
    assert sorted(wheels.iterdir()) == [whole, going_on]


def test_a_command_line_holds_no_more_than_what_finds_a_python():
    assert b"secret" in agent_input("found", fleet="secret")
    assert "secret" not in agent_command(["python3"])
    assert agent_command(["py thon; rm -rf /"]).endswith("'py thon; rm -rf /'")


def test_only_what_workers_need_for_their_store_is_sent_to_them():
    environment = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_PROFILE": "p", "HOME": "/home/ada"}
    sent = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    assert store_variables("s3://bucket/work", environment) == sent
    assert store_variables("/shared/work", environment) == {}
    assert store_variables(None, environment) == {}


def test_the_store_is_looked_for_where_its_client_would():
    assert store_endpoint("/shared", {}) is None
    assert store_endpoint("s3://b/w", {"AWS_ENDPOINT_URL": "http://s3.lab:9000"}) == Endpoint("s3.lab", 9000)
    assert store_endpoint("s3://b/w", {"AWS_REGION": "eu-west-1"}) == Endpoint("s3.eu-west-1.amazonaws.com", 443)


def test_a_tunnel_leads_to_a_port_of_the_host_and_carries_no_tls():
    assert through_tunnel({"AWS_ENDPOINT_URL": "http://s3.lab:9000"}, 7)["AWS_ENDPOINT_URL"] == "http://127.0.0.1:7"
    broker = BrokerAddress.parse("amqp://ada:secret@broker/x")
    assert tunnelled_broker(broker, 8).uri() == "amqp://ada:secret@127.0.0.1:8/x"
    for refused in (
        lambda: through_tunnel({"AWS_ENDPOINT_URL": "https://s3.lab"}, 7),
        lambda: through_tunnel({}, 7),
        lambda: tunnelled_broker(BrokerAddress.parse("amqps://ada:secret@broker/x"), 8),
    ):
        with pytest.raises(UsageError, match="SSH encrypts it"):
            refused()
