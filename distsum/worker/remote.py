"""``python -m distsum.worker.remote NAME HEARTBEAT_SECONDS STARTED``: a worker of a RabbitMQ broker, for one slot.

The first line of its standard input is the broker's address, which others may not see. The worker says ``ready`` on its
standard output once it is connected, and ends when its standard input does: whoever started it is gone then. On SIGTERM
it finishes its task and leaves.
"""

from __future__ import annotations

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
from distsum.request import DEFAULT_S3_DEADLINE_SECONDS
from distsum.stores.routing import RoutingStore
from distsum.worker.launch import S3_DEADLINE_VARIABLE
from distsum.worker.process import Worker


def main() -> None:
    """Serve until the channel closes."""
    name, heartbeat_seconds, started = sys.argv[1:4]
    # Ctrl-C reaches the whole group of the terminal; whoever started us ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format=f"distsum: worker {name}: %(message)s")
    address = BrokerAddress.parse(sys.stdin.readline().strip())
    channel = RabbitWorkerChannel(address, name)
    try:
        channel.open()
    except DistsumError as error:
        sys.stderr.write(f"distsum: {error}\n")
        sys.exit(error.exit_code)
    signal.signal(signal.SIGTERM, lambda _number, _frame: channel.drain())
    threading.Thread(target=_end_with_input, daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    store = RoutingStore(float(os.environ.get(S3_DEADLINE_VARIABLE, DEFAULT_S3_DEADLINE_SECONDS)))
    worker = Worker(name, channel, store, float(heartbeat_seconds), max(0.0, time.time() - float(started)))
    try:
        worker.run()
    except ChannelClosedError as closed:
        sys.exit(closed.exit_code)


def _end_with_input() -> None:
    while os.read(0, 1 << 10):
        pass
    # What is half done goes to another worker, as soon as the broker sees our connections end.
    os._exit(0)


if __name__ == "__main__":
    main()
