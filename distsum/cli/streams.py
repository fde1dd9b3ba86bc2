"""The two streams of a command: data goes to stdout, words for people to stderr."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

from distsum.errors import StorageError

if TYPE_CHECKING:
    from typing import TextIO


def prepare() -> None:
    """Make both streams fit to be written to, however the command was started.

    A stream that is closed leads nowhere. Its descriptor is taken all the same: otherwise the next file to be opened
    would get it, and whatever a process prints would end up in that file. A character that the stream's encoding does
    not know is written as an escape.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - likewise
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def emit(text: str) -> None:
    """Print data.

    Raises:
        BrokenPipeError: Whoever read it has seen enough.
        StorageError: It cannot be written, for example because the disk is full.
    """
    try:
        print(text)
    except OSError as error:
        raise _given_up(error) from error
    flush()


def flush() -> None:
    """Write out what was printed.

    Raises:
        BrokenPipeError: As for ``emit``.
        StorageError: Likewise.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        raise _given_up(error) from error


def say(line: str) -> None:
    """Tell a person a line, broken between words where it is longer than those of the terminal."""
    try:
        print("\n".join(wrapped(line, columns(sys.stderr))), file=sys.stderr, flush=True)
    except OSError:
        # Nobody hears us: a closed pipe, a full disk. There is nowhere to say so, and it is no reason to end a job,
        # whose exit code still tells how it went.
        mute(sys.stderr)


def columns(stream: TextIO) -> int | None:
    """Return how wide the terminal is that a stream leads to, or None where it leads elsewhere."""
    return os.get_terminal_size(stream.fileno()).columns if stream.isatty() else None


def wrapped(line: str, width: int | None) -> list[str]:
    """Return a line as lines that fit into some columns, broken between words only, so that names stay whole."""
    if not width or len(line) <= width:
        return [line]
    import textwrap

    return textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)


def mute(stream: TextIO) -> None:
    """Let a stream lead nowhere from now on, with what it still holds: Python writes that out once more at its end."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, stream.fileno())
    os.close(descriptor)


def _given_up(error: OSError) -> OSError | StorageError:
    mute(sys.stdout)
    if isinstance(error, BrokenPipeError):
        return error
    return StorageError(f"standard output cannot be written: {error.strerror}; nothing more is printed")
