"""The README's pictures show what the screen shows now."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

DRAWN = """
import asyncio, html, re
from tests.pictures import drawn_screens, set_stage

def words(svg):
    return html.unescape(re.sub(r"<[^>]*>", "", re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)))

set_stage()
for path, drawn in asyncio.run(drawn_screens()).items():
    kept = path.read_text()
    assert "RUNNING" in words(kept)
    assert words(drawn) == words(kept), f"{path.name} is stale: `just pictures` draws it again"
"""
"""In a process of its own, since the time zone is one of a process."""


def test_the_pictures_of_the_screen_tell_what_it_tells():
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    done = subprocess.run(
        [sys.executable, "-c", DRAWN],
        cwd=Path(__file__).parents[2],
        env=environment | {"TERM": "xterm-256color"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
