"""A module that workers import first, and that holds up whoever opens a certain input."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Hold:
    """A plant for workers, for their PYTHONPATH: who opens the input waits.

    Args:
        folder: Where it lies; it is made.
        name: How the input's path ends.
        first: Whether only the first one who opens it waits.
        seconds: How long at most.
    """

    def __init__(self, folder: Path, name: str, *, first: bool, seconds: float = 60.0) -> None:
        folder.mkdir()
        self.environment = {"PYTHONPATH": str(folder)}
        self._hold = folder / "hold"
        self._hold.touch()
        self._met = folder / "met"
        (folder / "sitecustomize.py").write_text(
            "import os, sys, time\n"
            "def watch(event, arguments):\n"
            "    if event != 'open' or not isinstance(arguments[0], (str, bytes)):\n"
            "        return\n"
            f"    if not os.fsencode(arguments[0]).endswith({name.encode()!r}):\n"
            "        return\n"
            "    try:\n"
            f"        os.close(os.open({str(self._met)!r}, os.O_CREAT | os.O_EXCL))\n"
            "    except FileExistsError:\n"
            f"        if {first}:\n"
            "            return\n"
            f"    deadline = time.monotonic() + {seconds}\n"
            f"    while os.path.exists({str(self._hold)!r}) and time.monotonic() < deadline:\n"
            "        time.sleep(0.02)\n"
            "if 'distsum.worker' in sys.orig_argv or 'distsum.worker.remote' in sys.orig_argv:\n"
            "    sys.addaudithook(watch)\n"
        )

    @property
    def met(self) -> bool:
        """Whether anybody has come to wait."""
        return self._met.exists()

    def release(self) -> None:
        """Let everybody go on."""
        self._hold.unlink()
