"""The address of a broker, and that its password is in nothing that is shown."""

from __future__ import annotations

import pickle
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsum.brokers.address import BrokerAddress
from distsum.errors import UsageError

CANARY = "c4n4ry"
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


def test_the_parts_of_an_address():
    address = BrokerAddress.parse("amqps://ada:s%40%2Fb@broker.example:1234/a%2Fb")
    assert address == BrokerAddress(
        host="broker.example", port=1234, vhost="a/b", user="ada", password="s@/b", scheme="amqps"
    )


@pytest.mark.parametrize(
    ("uri", "port", "vhost"),
    [("amqp://h", 5672, "/"), ("amqps://h/", 5671, "/"), ("amqp://h/%2F", 5672, "/"), ("amqp://h/x", 5672, "x")],
)
def test_what_is_left_out_is_as_everywhere(uri, port, vhost):
    address = BrokerAddress.parse(uri)
    assert (address.port, address.vhost, address.user, address.password) == (port, vhost, "guest", "guest")


def test_how_soon_a_silent_side_is_given_up_is_a_part_of_the_address():
    address = BrokerAddress.parse("amqp://h/v?heartbeat=3")
    assert address.heartbeat_seconds == 3
    assert BrokerAddress.parse(address.uri()) == address
    assert BrokerAddress.parse("amqp://h/v").heartbeat_seconds == 10
    with pytest.raises(UsageError, match="there are"):
        BrokerAddress.parse("http://h?heartbeat=3", "--management")


@given(user=TEXTS, password=TEXTS, vhost=TEXTS)
def test_any_user_password_and_virtual_host_can_be_written(user, password, vhost):
    parts = (quote(part, safe="") for part in (user, password, vhost))
    address = BrokerAddress.parse("amqp://{}:{}@h:1/{}".format(*parts))
    assert (address.user, address.password, address.vhost) == (user, password, vhost)
    assert BrokerAddress.parse(address.uri()) == address


@pytest.mark.parametrize(
    "uri",
    [
        f"http://ada:{CANARY}@h/",
        f"amqp://ada:{CANARY}@",
        f"amqp://ada:{CANARY}@h:port/",
        f"amqp://ada:{CANARY}@h:99999/",
        f"amqp://ada:{CANARY}@[h/",
        f"amqp://ada:{CANARY}@h/v?verify=none",
        f"amqp://ada:{CANARY}@h/v?heartbeat=0",
        f"amqp://ada:{CANARY}@h/v?heartbeat=soon",
        f"amqp://ada:{CANARY}/x@h/",
        f"amqp://ada:123/{CANARY}@h/v",
        f"amqp://ada:1#{CANARY}@h/v",
        f"ada:{CANARY}@h",
        "",
    ],
)
def test_a_bad_address_is_told_without_its_password(uri):
    with pytest.raises(UsageError, match="--broker") as caught:
        BrokerAddress.parse(uri)
    error = caught.value
    while error is not None:
        assert CANARY not in repr(error) + str(error)
        error = error.__context__


def test_the_password_is_in_nothing_that_is_shown():
    address = BrokerAddress.parse(f"amqp://ada:{CANARY}@h/v")
    assert CANARY in pickle.dumps(address).decode("latin-1"), "it is there"
    assert CANARY not in f"{address} {address!r} {address.censored(f'refused ada:{CANARY}')}"
    assert str(address) == "amqp://ada@h:5672/v"
