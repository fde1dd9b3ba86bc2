"""A real browser without a window: Debian's Chromium, driven by the Chrome DevTools Protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pyte

from tests.command import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

INSTALL = "apt-get install --no-install-recommends chromium"
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Nothing outside this machine is found: what a page needs must come from its server.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
    "--window-size=1200,800",
)


def installed() -> bool:
    return shutil.which("chromium") is not None


class Page:
    """A page in the browser, with a terminal that is carried by a WebSocket.

    Attributes:
        requested: Every address that it has asked for.
        faults: What it has complained of.
        screen: What the terminal has been told to show.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.ensure_future(self._read())
        self.requested: list[str] = []
        self.faults: list[str] = []
        self.screen = pyte.Screen(80, 24)
        self._stream = pyte.ByteStream(self.screen)

    @property
    def shown(self) -> list[str]:
        """The lines of the terminal that are not empty."""
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def shows(self, text: str) -> bool:
        return any(text in line for line in self.shown)

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
            elif told["method"] == "Network.requestWillBeSent":
                self.requested.append(told["params"]["request"]["url"])
            elif told["method"] == "Network.webSocketCreated":
                self.requested.append(told["params"]["url"])
            elif told["method"] == "Network.webSocketFrameSent":
                sent = json.loads(told["params"]["response"]["payloadData"])
                if sent[0] == "resize":
                    self.screen.resize(sent[1]["height"], sent[1]["width"])
            elif told["method"] == "Network.webSocketFrameReceived":
                frame = told["params"]["response"]
                if frame["opcode"] == 2:
                    self._stream.feed(base64.b64decode(frame["payloadData"]))
            elif told["method"] == "Runtime.exceptionThrown":
                self.faults.append(json.dumps(told["params"]))

    async def call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        told = await asyncio.wait_for(answer, 30)
        assert "error" not in told, told
        return told["result"]

    async def open(self, url: str) -> None:
        for domain in ("Page", "Network", "Runtime"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        """Return what JavaScript makes of an expression."""
        told = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def wait_for(self, condition: str | Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        """Wait until JavaScript says that something is true, or a function."""
        try:
            async with asyncio.timeout(seconds):
                while not await self._holds(condition):  # noqa: ASYNC110 - conditions of many kinds
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{what} not within {seconds} s") from None

    async def _holds(self, condition: str | Callable[[], bool]) -> bool:
        return bool(await self.evaluate(condition)) if isinstance(condition, str) else condition()

    async def press(self, key: str) -> None:
        """Type one character."""
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=key, key=key)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def picture(self) -> bytes:
        """Return what is seen as a PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


@contextlib.contextmanager
def running() -> Iterator[int]:
    """Start a browser with a profile of its own; give the port of its protocol. Both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="distsum-browser-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            ["chromium", *_FLAGS, f"--user-data-dir={folder}", "about:blank"],
            env=dict(os.environ) | {"HOME": folder, "TMPDIR": folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            told = Path(folder, "DevToolsActivePort")
            wait_until(lambda: told.exists() and "\n" in told.read_text(), "a browser")
            yield int(told.read_text().splitlines()[0])
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.asynccontextmanager
async def page_of(port: int) -> AsyncIterator[Page]:
    """Give the page of a browser."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            (target,) = [each for each in await answer.json() if each["type"] == "page"]
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=1 << 26) as socket:
            page = Page(socket)
            try:
                yield page
            finally:
                await page.close()


def visit(look: Callable[[Page], Awaitable[None]]) -> None:
    """Have a look with a browser."""

    async def body(port: int) -> None:
        async with page_of(port) as page:
            await look(page)

    with running() as port:
        asyncio.run(body(port))
