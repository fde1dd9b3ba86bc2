"""Calls that block, made beside a screen, which goes on meanwhile (no Textual)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Given = TypeVar("_Given")


async def aside(call: Callable[[], _Given], name: str) -> _Given:
    """Return what a call returns, or raise what it raises; who is cancelled leaves it to itself.

    Args:
        call: Made in a thread of its own. Not in one of the loop's: that would wait for it when the screen is left.
        name: The thread's, for who looks at the process.
    """
    loop = asyncio.get_running_loop()
    given: asyncio.Future[_Given] = loop.create_future()

    def settle(value: _Given | None, error: Exception | None) -> None:
        if given.done():
            return
        if error is not None:
            given.set_exception(error)
        else:
            given.set_result(value)  # type: ignore[arg-type]  # where there is no error it is what was given

    def run() -> None:
        value, fault = None, None
        try:
            value = call()
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            fault = error
        with contextlib.suppress(RuntimeError):  # Then the screen was left meanwhile.
            loop.call_soon_threadsafe(settle, value, fault)

    threading.Thread(target=run, name=f"distsum {name}", daemon=True).start()
    return await given
