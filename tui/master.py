"""A master in this process on the screen: it has a thread of its own, and the screen looks at it as from elsewhere.

So what is seen is what everybody sees, over the broker, and also while this master waits for another's end.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

from distsum.cli import streams
from distsum.embedded import Stop
from distsum.service.rabbitmq import RabbitTransport
from distsum.service.view import ServiceView
from distsum.service.viewer import Viewer
from distsum.stores.routing import RoutingStore

from .remote import RemoteSource
from .terminal import check_terminal, draw, failure_words, handlers_kept, heed_signals, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.brokers.address import BrokerAddress
    from distsum.cli.kept_log import KeptLog
    from distsum.cli.screen import ShowMaster

    from .app import Leaving


def prepare() -> ShowMaster:
    """Return what shows a master's service.

    Raises:
        UsageError: There is no terminal, or Textual is not installed.
    """
    check_terminal("--tui")
    load()
    return show_master


def show_master(run: Callable[[Stop], None], address: BrokerAddress, log: KeptLog) -> None:
    """Run a master in a thread, and show its service, until both have ended; see ``ShowMaster``.

    Raises:
        KeyboardInterrupt: Ctrl-C has ended the master after the screen was left.
        DistsumError: As the master; or the broker is not reached.
    """
    try:
        viewer = Viewer(address, ServiceView)
        source = RemoteSource(viewer, lambda: RabbitTransport(address), RoutingStore, read_only=False)
        with contextlib.closing(source):
            viewer.start()  # so that a wrong address is told before anything is drawn
            _show(run, source, log)
    finally:
        log.release()


def _show(run: Callable[[Stop], None], source: RemoteSource, log: KeptLog) -> None:
    stop = Stop()
    ended = threading.Event()
    outcome: list[BaseException] = []

    def body() -> None:
        try:
            run(stop)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, whatever it is
            outcome.append(error)
        ended.set()

    thread = threading.Thread(target=body, name="distsum-master")
    thread.start()
    interrupted = False
    try:
        leaving, failed = _draw(source, log, ended)
        source.close()  # Nobody looks any more.
        log.release()
        why = f"the screen has failed ({failed}); " if failed else ""
        if leaving == "leave" and not ended.is_set():
            streams.say(f"distsum: {why}the master goes on here; Ctrl-C ends it, and jobs stay")
            interrupted = _wait(ended, stop)
    finally:
        stop.request()
        interrupted |= _wait(ended, stop)
        thread.join()
    if outcome:
        raise outcome[0]
    if interrupted:
        raise KeyboardInterrupt


def _draw(source: RemoteSource, log: KeptLog, ended: threading.Event) -> tuple[Leaving | None, str]:
    """Draw the service; return how the screen was left, and what it has failed by: who serves has no part in that."""
    try:
        app = load().ServiceApp(source, log=log, master_ended=ended.is_set)
        app.on_mounted = lambda: heed_signals(lambda: app.exit("stop"))
        with handlers_kept():
            return draw(app), ""
    except Exception as error:  # noqa: BLE001 - whatever it is, the master must not end by it
        return "leave", failure_words(error)


def _wait(ended: threading.Event, stop: Stop) -> bool:
    """Wait until the master has ended; Ctrl-C and SIGTERM stop it, and what it waits for when they come again.

    Returns:
        Whether Ctrl-C did.
    """
    interrupted = False

    def end(number: int, _frame: object) -> None:
        nonlocal interrupted
        interrupted |= number == signal.SIGINT
        stop.request()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ended.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return interrupted
