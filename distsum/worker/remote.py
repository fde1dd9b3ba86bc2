"""``python -m distsum.worker.remote NAME HEARTBEAT_SECONDS STARTED [--log=…] [PLACE...]``: a worker of RabbitMQ.

One process for one slot. It reads and writes nothing outside of the places, if any are given; ``logs.LogStyle`` says
how it logs. The first line of its standard input is the broker's address, which others may not see. The worker says
``ready`` on its standard output once it is connected, and ends when its standard input does: whoever started it is gone
then. On SIGTERM it finishes its task and leaves.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time

from distsum import __version__
from distsum.brokers.address import BrokerAddress
from distsum.brokers.base import ChannelClosedError
from distsum.brokers.rabbitmq_worker import RabbitWorkerChannel
from distsum.errors import DistsumError
from distsum.logs import LogStyle, Subject, begin_logging
from distsum.request import DEFAULT_S3_DEADLINE_SECONDS
from distsum.stores.routing import RoutingStore
from distsum.stores.served import Places, ServedStore
from distsum.worker.launch import MEMORY_VARIABLE, S3_DEADLINE_VARIABLE, SENT_AWAY
from distsum.worker.process import Worker
from distsum.worker.task_log import TaskLog

log = logging.getLogger("distsum.worker.remote")  # not `__main__`, which is what this is called here


def main() -> None:
    """Serve until the channel closes."""
    name, heartbeat_seconds, started, *served = sys.argv[1:]
    style = LogStyle.of_word(served.pop(0)) if served and served[0].startswith("--log=") else LogStyle()
    # Ctrl-C reaches the whole group of the terminal; whoever started us ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    address = BrokerAddress.parse(sys.stdin.readline().strip())
    subject = Subject(name)
    begin_logging(sys.stderr, style, secrets=address.secrets, subject=subject)
    log.info("worker %s starts, process %d, distsum %s", name, os.getpid(), __version__)
    channel = RabbitWorkerChannel(address, name)
    try:
        channel.open()
    except DistsumError as error:
        log.error("%s", error)  # noqa: TRY400 - it is no fault of ours, and says all
        sys.exit(error.exit_code)
    log.info("worker %s joins %s", name, address)
    signal.signal(signal.SIGTERM, lambda _number, _frame: channel.drain())
    threading.Thread(target=_end_with_input, daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    places = Places(map(os.fsencode, served)) if served else None
    deadline = float(os.environ.get(S3_DEADLINE_VARIABLE, DEFAULT_S3_DEADLINE_SECONDS))
    store = RoutingStore(deadline) if places is None else ServedStore(places, deadline)
    start_seconds = max(0.0, time.time() - float(started))
    worker = Worker(
        name,
        channel,
        store,
        float(heartbeat_seconds),
        start_seconds,
        socket.gethostname(),
        places,
        TaskLog(subject),
        int(os.environ[MEMORY_VARIABLE]) if MEMORY_VARIABLE in os.environ else None,
        SENT_AWAY,
    )
    try:
        worker.run()
    except ChannelClosedError as closed:
        log.info("worker %s leaves", name)
        sys.exit(closed.exit_code)


def _end_with_input() -> None:
    while os.read(0, 1 << 10):
        pass
    log.info("whoever started this worker is gone; leaving at once")
    # What is half done goes to another worker, as soon as the broker sees our connections end.
    os._exit(0)


if __name__ == "__main__":
    main()
