"""``distsum replay``: a finished job on the screen again."""

from __future__ import annotations

import os
import time
from contextlib import closing
from typing import Annotated

from cyclopts import App, Parameter

from distsum.cli.options import FileName, as_given
from distsum.errors import UsageError
from distsum.wording import printable

from .terminal import check_terminal, load

app = App(name="replay", help="Play a finished job again on the screen.", help_format="plaintext")

Speed = Annotated[
    float, Parameter(name="--speed", metavar="N", help="Seconds of the job in a second; > and < change it.")
]
Signs = Annotated[
    bool, Parameter(name="--signs", negative=(), show_default=False, help="Draw signs in place of coloured blocks.")
]


@app.default
def replay(
    history: Annotated[
        FileName,
        Parameter(name="FILE", converter=as_given, help="What a run has stored by --history, here or in S3."),
    ],
    /,
    *,
    speed: Speed = 1.0,
    signs: Signs = False,
) -> None:
    """Play a finished job again on the screen."""
    from distsum.observe.history import History
    from distsum.observe.player import Player
    from distsum.stores.routing import RoutingStore

    if not 0 < speed < 1e6:
        raise UsageError(f"--speed {speed:g}: must be more than 0 and less than a million")
    check_terminal("replay")
    screens = load()
    uri = os.fsencode(history)
    with closing(RoutingStore()) as store:
        reader = store.open(uri)
        if reader is None:
            raise UsageError(f"{printable(uri)}: there is no such file")
        with reader:
            player = Player(History(reader))
            screens.JobApp(screens.ReplaySource(player, time.monotonic, speed), glyphs=signs).run()
