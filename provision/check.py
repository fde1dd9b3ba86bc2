"""``python -m distsum.provision.check``: whether this environment, on this host, can do what a worker does.

Standard input is a supervisor's task in one line (see ``supervisor``), since what is needed to enter the broker and the
store is secret. What was found is one line of JSON; a failure is one line on standard error and exit code 1.
"""

from __future__ import annotations

import json
import os
import secrets
import sys

import msgspec

from distsum import __version__
from distsum.errors import DistsumError

from .supervisor import Task


def main() -> int:
    """Import what a worker imports, enter the broker, and tell the versions."""
    task = msgspec.json.decode(sys.stdin.buffer.readline(), type=Task)
    os.environ.update(task.variables)
    import numpy as np

    from distsum.brokers.address import BrokerAddress
    from distsum.brokers.rabbitmq_worker import RabbitWorkerChannel

    try:
        channel = RabbitWorkerChannel(BrokerAddress.parse(task.broker), f"{task.host}-check-{secrets.token_hex(4)}")
        channel.open()
        channel.close()
    except DistsumError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    python = ".".join(map(str, sys.version_info[:3]))
    sys.stdout.write(json.dumps({"distsum": __version__, "numpy": np.__version__, "python": python}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
