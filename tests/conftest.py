"""What all tests share: how Hypothesis draws, what happens where a service is missing, and services themselves."""

import os
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest
from hypothesis import settings

from tests import rabbitmq as rabbitmq_node

# Timings are benchmarks, so no example has a deadline. CI draws the same examples every time: a failure there is one
# of the change, and comes back here with CI=true.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


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
