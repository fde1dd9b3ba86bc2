"""``distsum top`` and ``distsum serve``: a running service on the screen, and in a browser."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from distsum.cli import streams
from distsum.cli.options import RunFlags, settings_of, whole_number
from distsum.errors import UsageError
from distsum.wording import printable

from .terminal import check_terminal, draw, heed_signals, in_browser, load

if TYPE_CHECKING:
    from distsum.brokers.address import BrokerAddress

    from .web_server import ScreenServer

top_app = App(name="top", help="Watch a running service on the screen.", help_format="plaintext")
_PARENT_SECONDS = 1.0
serve_app = App(name="serve", help="Show a running service in a browser.", help_format="plaintext")

Broker = Annotated[
    str | None,
    Parameter(
        name="--broker",
        metavar="URI",
        help="amqp://USER:PASSWORD@HOST/VHOST. Better set DISTSUM_BROKER: others see a command's arguments.",
    ),
]
ReadOnly = Annotated[
    bool, Parameter(name="--read-only", negative=(), show_default=False, help="Look, and offer no key that steers.")
]
OneJob = Annotated[
    str | None,
    Parameter(name="--job", metavar="JOB", help="The job to begin with. [default: that under way, if it is one]"),
]
Signs = Annotated[
    bool, Parameter(name="--signs", negative=(), show_default=False, help="Draw signs in place of coloured blocks.")
]


@top_app.default
def top(*, broker: Broker = None, job: OneJob = None, read_only: ReadOnly = False, signs: Signs = False) -> None:
    """Watch a running service on the screen. q leaves it; jobs go on."""
    parent = os.getppid()
    address = _address(broker)
    check_terminal("top")
    screens = load()
    from distsum.service.rabbitmq import RabbitTransport
    from distsum.service.view import ServiceView
    from distsum.service.viewer import Viewer
    from distsum.stores.routing import RoutingStore

    from .remote import RemoteSource

    # Whatever happens is told by the screen, and lines of a log would be drawn over it.
    logging.getLogger("distsum").setLevel(logging.CRITICAL)
    viewer = Viewer(address, ServiceView)
    with closing(RemoteSource(viewer, lambda: RabbitTransport(address), RoutingStore, read_only=read_only)) as source:
        viewer.start()
        shown = screens.ServiceApp(source, job, glyphs=signs)

        def end_with_parent() -> None:
            if os.getppid() != parent:
                shown.exit("leave")

        def begin() -> None:
            heed_signals(lambda: shown.exit("leave"))
            if in_browser():
                # What serves it may be killed, and Textual does not end when nobody can type any more.
                shown.set_interval(_PARENT_SECONDS, end_with_parent)

        shown.on_mounted = begin
        draw(shown)


@serve_app.default
def serve(
    *,
    broker: Broker = None,
    job: OneJob = None,
    signs: Signs = False,
    host: Annotated[
        str, Parameter(metavar="ADDRESS", help="Where to listen: whoever reaches it sees the service.")
    ] = "127.0.0.1",
    port: Annotated[str, Parameter(metavar="N", help="0 is any that is free.")] = "3000",
    allow_steering: Annotated[
        bool,
        Parameter(
            negative=(),
            show_default=False,
            help="Leave --read-only out of each `distsum top`: whoever reaches it may steer.",
        ),
    ] = False,
) -> None:
    """Show a running service in a browser, at localhost:3000. Who looks changes nothing, unless that is allowed."""
    address = _address(broker)
    number = whole_number("--port", port)
    load()
    try:
        from .web_server import ScreenServer, is_loopback, screen_command
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in {"textual_serve", "aiohttp", "aiohttp_jinja2", "jinja2"}:
            raise
        raise UsageError("a browser needs textual-serve, which is not installed; pip install 'distsum[tui]'") from None
    from distsum.service.view import ServiceView
    from distsum.service.viewer import Viewer

    viewer = Viewer(address, ServiceView)
    try:
        viewer.start()  # so that a wrong address is told here, and not in each browser
    finally:
        viewer.close()
    command = screen_command(job, signs=signs, read_only=not allow_steering)
    server = ScreenServer(command, {"DISTSUM_BROKER": address.uri()}, host, number)
    if not is_loopback(host):
        what = "and steer it" if allow_steering else "but not change it"
        streams.say(f"distsum: whoever reaches {printable(host)} can see the service, {what}; there is no password")
    asyncio.run(_run(server))


async def _run(server: ScreenServer) -> None:
    """Serve until SIGINT or SIGTERM."""
    ended = asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, ended.set)
    try:
        url = await server.begin()
        streams.say(f"distsum: the screen is at {url}; Ctrl-C ends it")
        await ended.wait()
    finally:
        await server.end()


def _address(broker: str | None) -> BrokerAddress:
    settings = settings_of(RunFlags(), broker=broker)
    if settings.broker is None:
        raise UsageError("no broker is named; set DISTSUM_BROKER, broker in distsum.toml, or --broker")
    return settings.broker
