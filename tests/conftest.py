"""What all tests share: how Hypothesis draws, and what happens where a service is missing."""

import os
import signal
from collections.abc import Callable
from typing import NoReturn

import pytest
from hypothesis import settings

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
