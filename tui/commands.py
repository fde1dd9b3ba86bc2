"""``distsum replay``: a finished job on the screen again."""

from __future__ import annotations

import time
from typing import Annotated

from cyclopts import App, Parameter

from distsum.cli.histories import JobOrFile, WorkDir, opened_history
from distsum.cli.options import Broker  # noqa: TC001 - cyclopts reads it when the command is called
from distsum.errors import UsageError

from .terminal import check_terminal, draw, load

app = App(name="replay", help="Play a finished job again on the screen.", help_format="plaintext")

Speed = Annotated[
    float, Parameter(name="--speed", metavar="N", help="Seconds of the job in a second; > and < change it.")
]
Signs = Annotated[
    bool, Parameter(name="--signs", negative=(), show_default=False, help="Draw signs in place of coloured blocks.")
]


@app.default
def replay(
    history: JobOrFile,
    /,
    *,
    work_dir: WorkDir = None,
    broker: Broker = None,
    speed: Speed = 1.0,
    signs: Signs = False,
) -> None:
    """Play a finished job again on the screen."""
    from distsum.observe.player import Player

    if not 0 < speed < 1e6:
        raise UsageError(f"--speed {speed:g}: must be more than 0 and less than a million")
    check_terminal("replay")
    screens = load()
    with opened_history(history, work_dir, broker) as found:
        draw(screens.JobApp(screens.ReplaySource(Player(found), time.monotonic, speed), glyphs=signs))
