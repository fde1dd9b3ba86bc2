"""Installs what the tests need and pip cannot: RabbitMQ, where this runs as root on a system with apt.

Elsewhere nothing is done, and the tests that need it say what is missing (see the fixture ``missing_service``). Run as
``python -m tests.services``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests import rabbitmq

if TYPE_CHECKING:
    from collections.abc import Iterator

POLICY = Path("/usr/sbin/policy-rc.d")


@contextlib.contextmanager
def no_service_starts(policy: Path = POLICY) -> Iterator[None]:
    """Keep packages from starting their services, as Debian provides for; a policy that is there already stands."""
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


def main() -> None:
    """Install what is missing. A failure is told and no more: the tests that miss something say so themselves."""
    if rabbitmq.installed() or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    sys.stderr.write("installing rabbitmq-server for the tests; its service is not started\n")
    environment = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
    with no_service_starts():
        for command in (["update"], ["install", "--yes", "--no-install-recommends", "rabbitmq-server"]):
            done = subprocess.run(["apt-get", "-qq", *command], env=environment, stdout=subprocess.DEVNULL, check=False)
            if done.returncode:
                sys.stderr.write(f"apt-get {command[0]} failed with exit code {done.returncode}\n")


if __name__ == "__main__":
    main()
