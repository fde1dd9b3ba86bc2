"""``python -m distsum.provision.check``: whether this environment, on this host, can do what a worker does.

It imports what a worker imports, enters the broker, and looks into the store.

Standard input is a supervisor's task in one line (see ``supervisor``), since what is needed to enter the broker and the
store is secret. What was found is one line of JSON; a failure is one line on standard error and exit code 1.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from contextlib import closing
from typing import Final

import msgspec

from distsum import __version__
from distsum.errors import DistsumError

from .supervisor import Task

_STORE_SECONDS: Final = 20.0


def main() -> int:
    """Import what a worker imports, enter the broker, look into the store, and tell the versions."""
    try:
        task = msgspec.json.decode(sys.stdin.buffer.readline(), type=Task)
    except msgspec.ValidationError as error:
        sys.stderr.write(f"another version is installed than runs here ({error}); run `distsum fleet upgrade`\n")
        return 1
    os.environ.update(task.variables)
    import numpy as np

    from distsum.brokers.address import BrokerAddress
    from distsum.brokers.rabbitmq_worker import RabbitWorkerChannel
    from distsum.stores.routing import RoutingStore

    try:
        if task.store is not None:
            with closing(RoutingStore(_STORE_SECONDS)) as store:
                store.preflight(os.fsencode(task.store))
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
