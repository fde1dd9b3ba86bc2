"""``just pictures``: the README's pictures, drawn from a real run with a slowed worker that was recorded once.

``--record`` records another one, in place of the one that is kept; without that the same pictures are drawn again.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from distsum.tui.app import JobApp
from distsum.tui.source import LiveSource

from distsum.generate import generate
from distsum.messages import BackupStarted
from distsum.observe.history import History
from distsum.observe.player import Player
from distsum.observe.report import gather
from distsum.observe.report_html import page
from distsum.stores.local import LocalStore

ROOT = Path(__file__).parent.parent
HISTORY = Path(__file__).parent / "data" / "slowed_run"
IMAGES = ROOT / "docs" / "images"
SLOWED = """
import os, sys, time
if "distsum.worker" in sys.orig_argv:
    slowed = {usual}
    for place in range({slow}):
        try:
            os.close(os.open({met!r} + str(place), os.O_CREAT | os.O_EXCL))
            slowed = {seconds}
            break
        except FileExistsError:
            pass
    def watch(event, arguments):
        if event == "open" and isinstance(arguments[0], (str, bytes)) and os.fsencode(arguments[0]).endswith(b".npy"):
            time.sleep(slowed)
    sys.addaudithook(watch)
"""
"""For workers to import first: the first of them take their time to open inputs, as if their disks were failing."""


def record() -> None:
    """Run a job of which some workers are slow, and keep its history."""
    with tempfile.TemporaryDirectory(prefix="lab-") as scratch:
        folder = Path(scratch) / "ensemble"
        generate(str(folder / "run42"), files=5000, count=2000, distribution="normal")
        plant = Path(scratch) / "plant"
        plant.mkdir()
        (plant / "sitecustomize.py").write_text(SLOWED.format(met=str(plant / "met"), slow=4, seconds=0.9, usual=0.05))
        command = [sys.executable, "-m", "distsum", "mean", "run42", "-o", "mean.npy", "-p", "5", "-w", "12"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DISTSUM_")}
        subprocess.run(
            [*command, "--tiles", "1", "--history", str(HISTORY), "--force"],
            cwd=folder,
            env=environment | {"PYTHONPATH": str(plant)},
            check=True,
        )


def history() -> History:
    reader = LocalStore().open(os.fsencode(HISTORY))
    assert reader is not None, f"there is no {HISTORY}; `just pictures --record` makes it"
    return History(reader)


async def drawn_screens() -> dict[Path, str]:
    """Return pictures of the screen of the job in the middle of its run, dark and light, by where they belong."""
    screens = {}
    for theme in ("dark", "light"):
        player = Player(history())
        # Of a run in which nobody has had a backup there is nothing to show.
        player.seek(max(seconds for seconds, event in history().events() if isinstance(event, BackupStarted)) + 0.05)
        while not player.step():
            pass
        source = LiveSource()
        source.put(player.view())
        app = JobApp(source)
        async with app.run_test(size=(120, 36)) as pilot:
            app.theme = theme
            await pilot.pause(0.5)
            drawn = app.export_screenshot(title="distsum")
        # It names a font on the network, without which every browser draws as well.
        screens[IMAGES / f"screen-{theme}.svg"] = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    return screens


def draw_report() -> None:
    """Draw the upper part of the run's report."""
    chromium = shutil.which("chromium")
    assert chromium is not None, "the report is drawn by chromium; apt-get install chromium"
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch) / "report.html"
        written.write_text(page(gather(history())))
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"]
        flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        flags += [f"--user-data-dir={scratch}/browser", "--window-size=1120,2100"]
        drawn = IMAGES / "report.png"
        subprocess.run(
            [chromium, *flags, f"--screenshot={drawn}", written.as_uri()], check=True, capture_output=True, timeout=120
        )


def set_stage() -> None:
    """Have what is drawn not depend on where that is done."""
    os.environ["TZ"] = "UTC"
    time.tzset()
    os.environ["COLORTERM"] = "truecolor"  # with few colours the map is drawn in signs


def main() -> None:
    """Record if asked to, and draw."""
    set_stage()
    if "--record" in sys.argv[1:]:
        record()
    IMAGES.mkdir(exist_ok=True)
    for path, drawn in asyncio.run(drawn_screens()).items():
        path.write_text(drawn)
    draw_report()
    for path in sorted(IMAGES.iterdir()):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
