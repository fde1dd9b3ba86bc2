"""Does the map of tasks stay smooth with a million of them?

Frames of a job with many leaves (and the phases above them), whose tasks change from one frame to the next: at random
places, so that nearly every row of the map is another one, or one after the other, as in a real job. ``aggregate_ms``
is from all states to codes of cells, ``paint_ms`` from the codes of all rows to what Textual takes. Then the same
frames in a real application: ``frame_ms`` is from a view until it is drawn, with Textual's own work and its wait for
the next of 60 frames a second, ``frame_bytes`` what is sent to the terminal, and the last two are of the first frame.

Wanted: to aggregate within 15 ms, and to paint within 5 ms.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from distsum.tui.palette import DARK
from distsum.tui.themes import with_faint
from distsum.tui.tree_cells import Window, tree_cells
from distsum.tui.tree_map import Painter, TreeMap
from textual.app import App
from textual.drivers.headless_driver import HeadlessDriver

from benchmarks.measure import middle, report
from distsum.observe.fold import JobTally
from distsum.observe.snapshot import PhaseWork
from distsum.observe.states import BACKUP, DONE, FAILED, QUEUED, RUNNING, PhaseStates
from distsum.observe.view import JobFold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual.app import ComposeResult

    from distsum.observe.view import JobView

FRAMES = 30
PARTITION = 25
COLUMNS, LINES = 120, 36
CHANGES = 0.02
"""The share of all tasks that change from one frame to the next where they change one after the other."""


class Counted(HeadlessDriver):
    """A terminal that is not there, which counts what it is sent."""

    sent = 0

    @property
    def is_headless(self) -> bool:
        """Say no, so that it is drawn for."""
        return False

    def write(self, data: str) -> None:
        """Count what is sent."""
        Counted.sent += len(data.encode())

    def flush(self) -> None:
        """Do nothing."""


class Screen(App[None]):
    """The map alone, in the whole terminal."""

    def __init__(self) -> None:
        super().__init__(driver_class=Counted)
        self.shown = asyncio.Event()
        self.failure: Exception | None = None

    def get_css_variables(self) -> dict[str, str]:
        """Return the theme's colours, with the one that the map draws by and Textual has not."""
        return with_faint(super().get_css_variables())

    def compose(self) -> ComposeResult:
        """Make the map."""
        yield TreeMap(id="tree")

    def on_ready(self) -> None:
        """Say that it is there."""
        self.shown.set()

    def _handle_exception(self, error: Exception) -> None:
        # Private: Textual tells a fault on the terminal, and here is none.
        self.failure = self.failure or error
        super()._handle_exception(error)


def arrays(leaves: int, pattern: str, frames: int) -> Iterator[np.ndarray]:
    """Yield the states of the leaves, frame by frame."""
    chance = np.random.default_rng(1)
    for frame in range(frames):
        if pattern == "random":
            # So few of each that the cells which many tasks share differ, too.
            states = chance.integers(0, 2, leaves, dtype=np.uint8)
            for state in (QUEUED, RUNNING, BACKUP, FAILED):
                states[chance.integers(0, leaves, 800)] = state
        else:
            done = round(leaves * (0.2 + CHANGES * frame))
            states = np.zeros(leaves, dtype=np.uint8)
            states[:done] = DONE
            states[done : done + 64] = RUNNING
            states[done // 2] = FAILED
        yield states


def views(leaves: int, pattern: str, frames: int) -> list[JobView]:
    """Return the views of all frames."""
    widths = [leaves]
    while widths[-1] > 1:
        widths.append(-(-widths[-1] // PARTITION))
    work = tuple(PhaseWork(width, width, 1000 * width) for width in widths)
    empty = JobFold(JobTally(work, str), work, "/out.npy", 0.0).view(0.0)
    found = []
    for states in arrays(leaves, pattern, frames):
        phases = [PhaseStates(1, states.tobytes())]
        for number, width in enumerate(widths[1:], start=2):
            below = phases[-1].array()
            kept = np.minimum.reduceat(below, np.arange(0, below.size, PARTITION))
            phases.append(PhaseStates(number, (kept == DONE).astype(np.uint8).tobytes()[:width]))
        found.append(msgspec.structs.replace(empty, states=tuple(phases)))
    return found


async def application(frames: list[JobView]) -> tuple[list[float], list[int]]:
    """Draw the frames in an application; return the seconds and the bytes of each.

    Raises:
        Exception: What the application has failed by.
    """
    app = Screen()
    seconds: list[float] = []
    sizes: list[int] = []

    async def draw() -> None:
        await app.shown.wait()
        await asyncio.sleep(0.3)
        tree = app.query_one(TreeMap)
        for view in frames:
            Counted.sent = 0
            drawn = asyncio.Event()
            began = time.perf_counter()
            tree.show(view)
            app.call_after_refresh(drawn.set)
            await drawn.wait()
            seconds.append(time.perf_counter() - began)
            sizes.append(Counted.sent)
        app.exit()

    drawing = asyncio.create_task(asyncio.wait_for(draw(), 120))
    await app.run_async(size=(COLUMNS, LINES))
    if app.failure is not None:
        drawing.cancel()
        await asyncio.wait([drawing])
        raise app.failure
    await drawing
    return seconds, sizes


def row(leaves: int, pattern: str, frames_drawn: int = FRAMES) -> dict[str, object]:
    """Measure one case."""
    frames = views(leaves, pattern, frames_drawn)
    window = Window(1, 0, leaves)
    painter = Painter(DARK, glyphs=False)
    aggregating, painting, changed = [], [], []
    before: tuple[bytes, ...] = ()
    for view in frames:
        began = time.perf_counter()
        cells = tree_cells(view.states, view.snapshot.phases, window, COLUMNS, LINES, halves=True)
        aggregating.append(time.perf_counter() - began)
        began = time.perf_counter()
        for codes in cells.rows:
            painter.strip(codes)
        painting.append(time.perf_counter() - began)
        changed.append(sum(one != other for one, other in zip(cells.rows, before, strict=False)))
        before = cells.rows
    seconds, sizes = asyncio.run(application(frames))
    return {
        "leaves": f"{leaves:,}",
        "states": pattern,
        "aggregate_ms": 1e3 * middle(aggregating),
        "paint_ms": 1e3 * middle(painting),
        "rows_changed": middle(changed[1:]),
        "frame_ms": 1e3 * middle(seconds[1:]),
        "frame_bytes": f"{middle(sizes[1:]):,.0f}",
        "first_ms": 1e3 * seconds[0],
        "first_bytes": f"{sizes[0]:,}",
    }


def main() -> None:
    """Measure all cases."""
    cases = [(leaves, pattern) for leaves in (100_000, 1_000_000) for pattern in ("contiguous", "random")]
    report("tree_widget", [row(*case) for case in cases])


if __name__ == "__main__":
    main()
