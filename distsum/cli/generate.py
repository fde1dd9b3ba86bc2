"""``distsum generate``: files of random numbers, to try things on."""

from __future__ import annotations

import json as json_module
import os
import sys
import time
from typing import Annotated, Literal

from cyclopts import Parameter

from distsum.cli.options import Force, Json, Quiet, RunFlags, settings_of, whole_number
from distsum.cli.progress import size_words, time_words
from distsum.wording import printable


def generate(
    destination: Annotated[str, Parameter(name="DEST", help="The folder; made if it does not exist.")],
    *,
    files: Annotated[str, Parameter(help="How many files.")],
    count: Annotated[str, Parameter(help="Numbers in each.")],
    dtype: Annotated[str, Parameter(help="dtype of the numbers, such as f8, >f4 or u2.")] = "f8",
    format: Annotated[Literal["npy", "raw", "text"], Parameter(help="Format of the files.")] = "npy",
    seed: Annotated[str, Parameter(help="Of the random numbers.")] = "0",
    distribution: Annotated[Literal["uniform", "normal"], Parameter(help="Of the random numbers.")] = "uniform",
    workers: Annotated[str | None, Parameter(name=["--workers", "-w"], help="Processes. [default: the CPUs]")] = None,
    force: Force = False,
    quiet: Quiet = None,
    json: Json = False,
) -> None:
    """Write files of random numbers; number i of file f depends only on the seed, f, i and the kind of numbers."""
    from distsum.generate import generate as written

    settings = settings_of(RunFlags(workers=workers), quiet=quiet)
    began = time.perf_counter()
    wanted = whole_number("--files", files, 1)
    line = _Line(wanted, began, shown=not settings.quiet and sys.stderr.isatty())
    made = written(
        os.fsencode(destination),
        files=wanted,
        count=whole_number("--count", count),
        dtype=dtype,
        format=format,
        seed=whole_number("--seed", seed),
        distribution=distribution,
        workers=settings.workers,
        force=force,
        progress=line.show,
    )
    line.end()
    if not settings.quiet:
        seconds = time.perf_counter() - began
        print(
            f"{wanted:,} files written to {printable(destination)}: {size_words(made.bytes_written)} in "
            f"{time_words(seconds)}",
            file=sys.stderr,
        )
    if json:
        from distsum.cli.options import plain

        print(json_module.dumps(plain(made)))


class _Line:
    """One line on a terminal that changes in place."""

    def __init__(self, files: int, began: float, *, shown: bool) -> None:
        self._files = files
        self._began = began
        self._shown = shown
        self._next = 0.0

    def show(self, files: int, size: int) -> None:
        now = time.perf_counter()
        if self._shown and now >= self._next:
            self._next = now + 0.1
            rate = size / max(now - self._began, 1e-3) / 1e9
            print(
                f"\r\x1b[K{files:,}/{self._files:,} files  {size_words(size)}  {rate:.2f} GB/s", end="", file=sys.stderr
            )

    def end(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr)
