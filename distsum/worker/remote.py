"""``python -m distsum.worker.remote NAME HEARTBEAT_SECONDS STARTED``: a worker of a broker on the network.

The broker's address, with its password, comes as the first line of standard input: neither the arguments nor the
environment of a process are secret. When standard input ends, whoever started us has gone, and so do we. SIGTERM lets
the task at hand be finished.
"""

import logging
import os
import signal
import sys
import threading
import time

from distsum.brokers.address import BrokerAddress
from distsum.brokers.base import ChannelClosedError
from distsum.brokers.rabbitmq_worker import RabbitWorkerChannel
from distsum.errors import DistsumError
from distsum.stores.routing import RoutingStore
from distsum.worker.process import Worker


def main() -> None:
    """Serve until drained, sent away or left alone."""
    name, heartbeat_seconds, started = sys.argv[1:4]
    logging.basicConfig(format=f"distsum: worker {name}: %(message)s", level=logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us, too; whoever started us decides
    try:
        channel = RabbitWorkerChannel(BrokerAddress.parse(sys.stdin.readline().strip()), name)
        channel.open()
    except DistsumError as error:
        sys.stderr.write(f"distsum: worker {name}: {error}\n")
        sys.exit(error.exit_code)
    signal.signal(signal.SIGTERM, lambda *_: channel.drain())
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    worker = Worker(name, channel, RoutingStore(), float(heartbeat_seconds), max(0.0, time.time() - float(started)))
    try:
        worker.run()
    except ChannelClosedError:
        sys.exit(0)


def _leave_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
