"""A screen for each browser: a program of its own behind a WebSocket, by textual-serve.

A page of any site may make its visitor's browser connect to this machine. So a WebSocket is opened only for our own
page, and only under names that a stranger's domain cannot have.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import shlex
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web
from textual_serve.app_service import AppService
from textual_serve.server import Server

from distsum.errors import UsageError
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

MOST_BROWSERS: Final = 32
"""Each has a process of its own, of some 100 MB."""
_LARGEST: Final = 500
"""Columns and lines; a browser may claim more."""
_STOP_SECONDS: Final = 5.0
_PAGE: Final = Path(__file__).with_name("page.html")
_HEADERS: Final = {
    # Nothing comes from elsewhere, so the page also works where there is no way out; and no other page may hold it.
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; script-src 'self' "
    "'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def screen_command(job: str | None, *, signs: bool, read_only: bool) -> str:
    """Return the command of a browser's screen, for a shell; the broker's address comes by its environment."""
    words = [sys.executable, "-m", "distsum", "top"]
    words += ["--job", job] if job is not None else []
    words += ["--signs"] if signs else []
    words += ["--read-only"] if read_only else []
    return f"exec {shlex.join(words)}"


def may_be_called(name: str, host: str) -> bool:
    """Whether a request for this name (``Host``, with or without a port) may be meant for a server at ``host``.

    A stranger's page can give its own domain the address of this machine ("DNS rebinding"); it can give it no address
    in place of a name, and no name that is this machine's.

    >>> may_be_called("localhost:3000", "127.0.0.1"), may_be_called("evil.example:3000", "127.0.0.1")
    (True, False)
    """
    plain = name.rpartition(":")[0] if name.rpartition(":")[2].isdigit() else name
    plain = plain.removeprefix("[").removesuffix("]").lower()
    if plain in {"localhost", host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}:
        return True
    try:
        ipaddress.ip_address(plain)
    except ValueError:
        return False
    return True


class BrowserScreen(AppService):
    """The program of one browser."""

    def __init__(
        self, command: str, environment: Mapping[str, str], websocket: web.WebSocketResponse, server: Server
    ) -> None:
        super().__init__(
            command,
            write_bytes=websocket.send_bytes,
            write_str=websocket.send_str,
            close=websocket.close,  # type: ignore[arg-type]  # that it returns whether it was open is of no matter
            download_manager=server.download_manager,
        )
        self._environment = environment

    def _build_environment(self, width: int = 80, height: int = 24) -> dict[str, str]:
        return super()._build_environment(width, height) | dict(self._environment)

    async def set_terminal_size(self, width: int, height: int) -> None:
        """Tell the program of its size, within reason."""
        await super().set_terminal_size(bounded(width), bounded(height))

    async def stop(self) -> None:
        """End the program, also where it does not answer."""
        try:
            await asyncio.wait_for(super().stop(), _STOP_SECONDS)
        except TimeoutError:
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()


def bounded(size: object) -> int:
    """Return a number of columns or lines that a browser has told.

    >>> [bounded(size) for size in (80, -1, 10**9, "x", None)]
    [80, 1, 500, 80, 80]
    """
    return min(max(1, size), _LARGEST) if type(size) is int else 80


class ScreenServer(Server):
    """Serves the page and its screens.

    Args:
        command: What each browser's screen runs, for a shell.
        environment: What that has in its environment besides.
        host: Where to listen.
        port: Likewise; 0 is any.
    """

    def __init__(self, command: str, environment: Mapping[str, str], host: str, port: int) -> None:
        super().__init__(command, host, port, title="distsum")
        self._environment = environment
        self._screens: dict[web.WebSocketResponse, BrowserScreen] = {}
        self._runner: web.AppRunner | None = None

    async def begin(self) -> str:
        """Begin to serve; return where.

        Raises:
            UsageError: That address cannot be listened at.
        """
        app = web.Application(middlewares=[self._check])
        app.add_routes(
            [
                web.get("/", self.page),
                web.get("/ws", self.handle_websocket),
                web.get("/download/{key}", self.handle_download),
                web.static("/static", self.statics_path),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_SECONDS)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.host, self.port).start()
        except OSError as error:
            where = f"--host {printable(self.host)} --port {self.port}"
            raise UsageError(f"{where}: nothing can be served there ({error.strerror}); choose another") from None
        port = self._runner.addresses[0][1]
        shown = "localhost" if is_loopback(self.host) else self.host
        return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"

    async def end(self) -> None:
        """End all screens, and serve no more."""
        for websocket in list(self._screens):
            await websocket.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def page(self, _request: web.Request) -> web.Response:
        """Return the page, which is the same for all."""
        return web.Response(text=_PAGE.read_text("utf-8"), content_type="text/html", headers=_HEADERS)

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Run a screen as long as its browser is there."""
        if len(self._screens) >= MOST_BROWSERS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_BROWSERS} browsers look already\n")
        websocket = web.WebSocketResponse(heartbeat=15)
        await websocket.prepare(request)
        screen = self._screens[websocket] = BrowserScreen(self.command, self._environment, websocket, self)
        try:
            await screen.start(*(bounded(_number(request.query.get(name))) for name in ("width", "height")))
            await self._process_messages(websocket, screen)
        finally:
            try:
                await screen.stop()
            finally:
                del self._screens[websocket]
        return websocket

    @web.middleware
    async def _check(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Refuse what a stranger's page has made a browser ask."""
        if not may_be_called(request.host, self.host):
            raise web.HTTPForbidden(text=f"{printable(request.host, 200)} is no name of this machine\n")
        origin = request.headers.get("Origin")
        if origin is not None and origin.partition("://")[2] != request.host:
            raise web.HTTPForbidden(text="only its own page may use this server\n")
        return await handler(request)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None
