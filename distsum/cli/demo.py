"""``distsum demo``: the real thing on files made for it, start to end, in under a minute."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from functools import partial
from typing import TYPE_CHECKING

from distsum.cli.options import NoSpeculation, Speculation, settings_of, speculation_flag
from distsum.cli.progress import Progress, summary_lines
from distsum.cli.screen import OnScreen, on_screen
from distsum.cli.streams import say
from distsum.cli.verify import verification_lines
from distsum.errors import StorageError
from distsum.wording import printable, size_words, time_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distsum.request import Summary

_FILES = 625
_COUNT = 100_000
_FEWEST = 1000
_PARTITION = 5


def demo(*, speculation: Speculation = None, no_speculation: NoSpeculation = False, tui: OnScreen = False) -> int:
    """Generate files, take their mean with P = 5, verify it, and show where the time went."""
    from distsum.embedded import run
    from distsum.generate import generate
    from distsum.inputs import expand
    from distsum.request import Options
    from distsum.verification import verify

    settings = settings_of(speculation=speculation_flag(speculation, off=no_speculation))
    show = on_screen() if tui else None
    with _temporary_folder() as folder:
        # Inputs, the partials of P = 5 (a quarter of them) and room to spare.
        room = shutil.disk_usage(folder).free // (2 * _FILES * 8)
        count = min(_COUNT, room)
        if count < _FEWEST:
            raise StorageError(
                f"{printable(folder)}: the disk is too full for a demo; set TMPDIR to a folder with "
                f"{size_words(2 * _FILES * _FEWEST * 8)} of room"
            )
        say(f"making {_FILES} files of {count:,} random numbers, {size_words(_FILES * count * 8)}")
        say(f"in {printable(folder)}")
        began = time.perf_counter()
        generate(os.path.join(folder, "runs"), files=_FILES, count=count, distribution="normal")
        say(f"made in {time_words(time.perf_counter() - began)}")
        say(f"\n$ distsum mean runs -o mean.npy --partition {_PARTITION}")
        paths = expand([os.path.join(folder, "runs")])
        output = os.fsencode(os.path.join(folder, "mean.npy"))
        options = Options(partition=_PARTITION, tiles=1, digest=False)
        with Progress(quiet=False) as progress:
            call = partial(run, "mean", paths, output, options, speculation=settings.speculation)
            if show is not None:
                summary = show(lambda on_view, stop, helm: call(on_view=on_view, stop=stop, helm=helm), progress.show)
            else:
                summary = call(progress.show)
        for line in summary_lines(summary):
            say(line)
        say("\n$ distsum verify mean.npy runs")
        found = verify(output, paths)
        for line in verification_lines(found):
            say(line)
        say("\nwhere the time went")
        for line in account_lines(summary):
            say(line)
        say("\nthe folder is removed again")
    return 0 if found.ok else 1


def account_lines(summary: Summary) -> list[str]:
    """Return the account of a job's time: by phase on the wall, and by what its workers did."""
    lines = [f"  phase {number:<11} {seconds:6.2f} s" for number, seconds in enumerate(summary.phase_seconds, start=1)]
    total = sum(summary.worker_seconds.values()) or 1.0
    for word, seconds in summary.worker_seconds.items():
        lines.append(f"  workers {word:9} {seconds:6.2f} s  {seconds / total:4.0%}")
    return lines


@contextlib.contextmanager
def _temporary_folder() -> Iterator[str]:
    """Give a folder that is removed however the command ends, short of kill -9."""

    def interrupt(number: int, frame: object) -> None:  # noqa: ARG001 - the shape that signal asks for
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="distsum-demo-") as folder:
            yield folder
    finally:
        signal.signal(signal.SIGTERM, before)
