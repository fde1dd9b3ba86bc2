"""``distsum generate``: files of random numbers, to try things on."""

from __future__ import annotations

import json as json_module
import os
import time
from typing import Annotated, Literal

from cyclopts import Parameter

from distsum.cli import streams
from distsum.cli.options import FileName, Force, Json, Quiet, RunFlags, as_given, settings_of, whole_number
from distsum.cli.progress import Line, on_terminal
from distsum.wording import counted, printable, size_words, time_words


def generate(
    destination: Annotated[
        FileName, Parameter(name="DEST", converter=as_given, help="The folder; made if it does not exist.")
    ],
    /,
    *,
    files: Annotated[str, Parameter(metavar="F", help="How many files.")],
    count: Annotated[str, Parameter(metavar="C", help="How many numbers in each.")],
    dtype: Annotated[str, Parameter(metavar="DTYPE", help="dtype of the numbers, such as f8, >f4 or u2.")] = "f8",
    format: Annotated[Literal["npy", "raw", "text"], Parameter(metavar="FORMAT", help="Format of the files.")] = "npy",
    seed: Annotated[
        str, Parameter(metavar="S", help="Start of the random numbers; the same one gives the same files.")
    ] = "0",
    distribution: Annotated[
        Literal["uniform", "normal"],
        Parameter(metavar="NAME", help="Of the random numbers: uniform in [0, 1), or standard normal."),
    ] = "uniform",
    workers: Annotated[
        str | None, Parameter(name=["--workers", "-w"], metavar="N", help="Processes. [default: one a CPU]")
    ] = None,
    force: Force = False,
    quiet: Quiet = None,
    json: Json = False,
) -> None:
    """Write files of random numbers; number i of file f depends only on the seed, f, i and the kind of numbers."""
    from distsum.generate import generate as written

    settings = settings_of(RunFlags(workers=workers), quiet=quiet)
    began = time.perf_counter()
    wanted = whole_number("--files", files, 1)

    def show(done: int, size: int) -> None:
        now = time.perf_counter()
        rate = size / max(now - began, 1e-3) / 1e9
        line.show(f"{done:,}/{wanted:,} files  {size_words(size)}  {rate:.2f} GB/s", now)

    with Line(shown=on_terminal(quiet=settings.quiet)) as line:
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
            progress=show,
        )
    if not settings.quiet:
        seconds = time.perf_counter() - began
        streams.say(
            f"{counted(wanted, 'file')} written to {printable(os.fsencode(destination))}: "
            f"{size_words(made.bytes_written)} in {time_words(seconds)}"
        )
    if json:
        from distsum.cli.options import plain

        streams.emit(json_module.dumps(plain(made)))
