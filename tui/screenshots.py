"""Pictures of the screen, as files (no Textual)."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from typing import TYPE_CHECKING

from distsum.errors import StorageError
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST = 100
"""Pictures of one second."""


def folders() -> Iterator[str]:
    """Return where pictures may go: the working directory; where that takes none, the home or the temporary one."""
    with contextlib.suppress(OSError):  # It may be gone.
        yield os.getcwd()
    yield os.path.expanduser("~")
    with contextlib.suppress(OSError):
        yield tempfile.gettempdir()


def write_picture(content: str, places: Iterator[str], epoch_seconds: float) -> str:
    """Write a picture into the first folder that takes it, and return its path. What is there is never replaced.

    Args:
        content: An SVG.
        places: Folders.
        epoch_seconds: When it was taken, for its name: no name of a job is in it, which could lead elsewhere.

    Raises:
        StorageError: No folder takes it.
    """
    faults = []
    for folder in places:
        try:
            return _write(content, folder, time.strftime("distsum-%Y%m%d-%H%M%S", time.localtime(epoch_seconds)))
        except OSError as error:
            faults.append(f"{printable(folder, 200)}: {error.strerror}")
    raise StorageError(f"no picture of the screen is written: {'; '.join(faults) or 'no folder is there'}")


def _write(content: str, folder: str, name: str) -> str:
    for number in range(1, _MOST):
        path = os.path.join(os.path.abspath(folder), f"{name}{f'-{number}' if number > 1 else ''}.svg")
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                with open(descriptor, "w", encoding="utf-8") as file:
                    file.write(content)
            except OSError:
                os.unlink(path)
                raise
            return path
    raise FileExistsError(0, "too many pictures are there already")
