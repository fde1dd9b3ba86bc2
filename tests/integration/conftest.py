"""Hosts of their own with OpenSSH, RabbitMQ and S3 between them, and a machine that a fleet there is run from.

All tests of fleets share the hosts and what is installed there: the first that brings them up uploads.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests import hosts as test_hosts
from tests.command import wait_until
from tests.fleetcontrol import COUNT, INPUTS, OUTPUT, WORK, Control
from tests.relay import Relay
from tests.stack.rabbitmq import USER as OPERATOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distsum.stores.s3 import S3Store
    from tests.hosts import Network
    from tests.rabbitmq import Node
    from tests.s3server import S3Server

LOOPBACK = "127.0.0.1"


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory, missing_service: Any) -> Iterator[Network]:
    if reason := test_hosts.impossible():
        pytest.skip(reason)
    if packages := test_hosts.missing_packages():
        missing_service(f"there are no hosts to test on; `apt-get install {' '.join(packages)}` makes that possible")
    with test_hosts.network(tmp_path_factory.mktemp("hosts")) as made:
        made.boot(COUNT)
        yield made


@pytest.fixture(scope="session")
def ground(
    network: Network, rabbitmq: Node, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Control]:
    """Give the control machine of a service that serves all tests; it and the fleet are gone afterwards."""
    folder = tmp_path_factory.mktemp("control")
    with contextlib.ExitStack() as stack:
        vhost = stack.enter_context(rabbitmq.vhost())
        broker = stack.enter_context(contextlib.closing(Relay(network.address, (LOOPBACK, rabbitmq.amqp_port))))
        store = stack.enter_context(contextlib.closing(Relay(network.address, (LOOPBACK, s3_server.port))))
        environment = s3_server.environment | {
            "AWS_ENDPOINT_URL": f"http://{network.address}:{store.port}",
            "DISTSUM_BROKER": f"amqp://{OPERATOR}:{rabbitmq.password}@{network.address}:{broker.port}/{vhost}?heartbeat=4",
            "DISTSUM_MANAGEMENT": f"http://{OPERATOR}:{rabbitmq.password}@127.0.0.1:{rabbitmq.management_port}",
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "PIP_CACHE_DIR": os.path.expanduser("~/.cache/pip"),
            # Many commands run here, and compile nothing twice.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
        }
        home = folder / "home"
        home.mkdir()
        made = Control(home, network, environment)
        made.write()
        stack.enter_context(made.started("master.log", "master", "--work-dir", WORK))
        wait_until(lambda: "ready" in made.said("master.log").split(), "a master")
        yield made
        made.know_all()
        made.write()
        made.run("fleet", "down", "--drain-seconds", "0")


@pytest.fixture
def control(ground: Control) -> Iterator[Control]:
    """Give the control machine with a fleet of one worker a host, none of which runs."""
    ground.know_all()
    ground.write()
    yield ground
    ground.know_all()
    ground.write()
    ground.run("fleet", "drain", "--drain-seconds", "0")
    shutil.rmtree(ground.home.parent / "state", ignore_errors=True)


@pytest.fixture(scope="session")
def expected(ground: Control) -> bytes:
    """Give the mean of the inputs as a file, and have them lie where all hosts reach them."""
    for arguments in (
        ("generate", INPUTS, "--files", "300", "--count", "2000", "--force"),
        ("mean", INPUTS, "-o", "expected.npy", "--quiet", "--force"),
    ):
        done = ground.run(*arguments)
        assert done.returncode == 0, done.stderr
    return ground.home.joinpath("expected.npy").read_bytes()


@pytest.fixture
def result(s3_store: S3Store) -> Callable[[], bytes]:
    """Give what reads the output of the fleet's jobs."""

    def read() -> bytes:
        reader = s3_store.open(OUTPUT.encode())
        assert reader is not None
        with reader:
            return bytes(reader.read(0, reader.size))

    return read
