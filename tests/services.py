"""Installs what the tests need and pip cannot: RabbitMQ, OpenSSH's server, Chromium and tmux.

That is done where this runs as root with apt. Elsewhere nothing is done, and the tests that need it say what is missing
(see the fixture ``missing_service``). Run as
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

from tests import browser, hosts, rabbitmq, tmux

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


def missing_packages() -> list[str]:
    """Return the packages of Debian's that hold what is missing."""
    ours = {"rabbitmq-server": rabbitmq.installed(), "chromium": browser.installed(), "tmux": tmux.installed()}
    return [*(name for name, installed in ours.items() if not installed), *hosts.missing_packages()]


def main() -> None:
    """Install what is missing. A failure is told and no more: the tests that miss something say so themselves."""
    wanted = missing_packages()
    if not wanted or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    sys.stderr.write(f"installing {', '.join(wanted)} for the tests; no service is started\n")
    environment = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
    with no_service_starts():
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *wanted]):
            done = subprocess.run(["apt-get", "-qq", *command], env=environment, stdout=subprocess.DEVNULL, check=False)
            if done.returncode:
                sys.stderr.write(f"apt-get {command[0]} failed with exit code {done.returncode}\n")


if __name__ == "__main__":
    main()
