"""``python -m distsum.worker FD NAME HEARTBEAT_SECONDS STARTED``: a worker of a local broker.

FD is the worker's end of its channel, inherited; STARTED is the wall clock when the process was asked for.
"""

import signal
import socket
import sys
import time

from distsum.brokers.base import ChannelClosedError
from distsum.brokers.framing import SocketChannel
from distsum.stores.routing import RoutingStore
from distsum.worker.process import Worker


def main() -> None:
    """Serve until the channel closes."""
    descriptor, name, heartbeat_seconds, started = sys.argv[1:5]
    # Ctrl-C reaches the whole group of the terminal; the deciding process ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = SocketChannel(socket.socket(fileno=int(descriptor)))
    worker = Worker(name, channel, RoutingStore(), float(heartbeat_seconds), max(0.0, time.time() - float(started)))
    try:
        worker.run()
    except ChannelClosedError:
        sys.exit(0)


if __name__ == "__main__":
    main()
