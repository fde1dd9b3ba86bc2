"""A run in this process on the screen: the run has a thread of its own, and the screen takes its newest view."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

from distsum.cli import streams
from distsum.embedded import Stop
from distsum.helm import Helm

from .source import LiveSource
from .terminal import check_terminal, draw, failure_words, handlers_kept, heed_signals, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.cli.screen import ShowRun
    from distsum.observe.snapshot import Snapshot
    from distsum.observe.view import DetailOf, JobView, OnView
    from distsum.request import Summary

    from .app import Leaving


def prepare() -> ShowRun:
    """Return what shows a run.

    Raises:
        UsageError: There is no terminal, or Textual is not installed.
    """
    check_terminal("--tui")
    load()
    return show_run


def show_run(run: Callable[[OnView, Stop, Helm], Summary], on_snapshot: Callable[[Snapshot], None]) -> Summary:
    """Run a job in a thread, show it, and return what it did.

    Args:
        run: Runs the job; it is given whom to tell of views, what may ask it to stop, and what steers it.
        on_snapshot: Told how far the job is once somebody has left the screen.

    Raises:
        InterruptedRunError: It was stopped.
        DistsumError: As the run.
    """
    source = LiveSource()
    stop, helm = Stop(), Helm()
    left = threading.Event()
    ended = threading.Event()
    outcome: list[Summary | BaseException] = []

    def take(view: JobView, detail_of: DetailOf) -> None:
        source.put(view, detail_of)
        if left.is_set():
            on_snapshot(view.snapshot)

    def body() -> None:
        try:
            outcome.append(run(take, stop, helm))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, whatever it is
            outcome.append(error)
        source.end()
        ended.set()

    thread = threading.Thread(target=body, name="distsum-run")
    thread.start()
    try:
        if _draw(source, helm) == "leave":
            left.set()
            _wait(ended, stop)
    finally:
        if not left.is_set():
            stop.request()
        ended.wait()
        thread.join()
    result = outcome[0]
    if isinstance(result, BaseException):
        raise result
    return result


def _draw(source: LiveSource, helm: Helm) -> Leaving | None:
    """Draw the run; return how the screen was left. A screen that fails is left, too: the run has no part in that."""
    try:
        app = load().JobApp(source, helm=helm)
        app.on_mounted = lambda: heed_signals(lambda: app.exit("stop"))
        with handlers_kept():
            return draw(app)
    except Exception as error:  # noqa: BLE001 - whatever it is, the run must not end by it
        then = "the run has ended" if source.over() else "the run goes on here, and Ctrl-C stops it"
        streams.say(f"distsum: the screen has failed ({failure_words(error)}); {then}")
        return "leave"


def _wait(ended: threading.Event, stop: Stop) -> None:
    """Wait until the run has ended; Ctrl-C and SIGTERM stop it."""

    def interrupt(_number: int, _frame: object) -> None:
        stop.request()

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ended.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
