"""One attempt at a task: what it has done so far, and what others have told it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from distsum.messages import Effort, Heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.latency import Latencies
    from distsum.messages import RunTask
    from distsum.stores.base import Reader


class TaskCancelledError(Exception):
    """The attempt's result is not wanted any more."""


class Attempt:
    """Made when a task arrives, and gone when it has ended.

    One thread works at it and counts; any other may look at the counts, cancel it, or say that others help. Being an
    object of its own, a command or a look that comes late meets the attempt it was meant for, and never the next one.

    Args:
        message: What to do.

    Attributes:
        task: The task.
        number: The attempt's number.
        first_number: The first that its master has given.
        work: URI of the work folder.
        delivery: How often the task was handed out.
        child: The only child of the task's node that is to be made, or the only slice, if not the whole.
        sliced: Whether the node is made slice by slice.
        resume: Whether sums inside the task may be stored, from which to start.
        shared: Whether others help, so that children are stored at once, and theirs are looked for.
        cancelled: Set when the result is not wanted any more.
        taken: Children of the task's node, or slices, that were found stored, also in a sum of several, and not made.
        taken_share: The share of the task's inputs, or partials, that were in those and other stored sums.
        progress: Share of the work that is in the sums, from 0 to 1; it never falls.
        expected_bytes: What is read for all of it; 0 where that is not known.
        bytes_read: Of inputs and partials so far.
        bytes_written: Of partials and the result.
        objects_read: Inputs and partials opened.
        objects_written: Partials and ranges of the result.
        reading_seconds: Spent waiting for bytes, and parsing them.
        adding_seconds: Spent adding.
        storing_seconds: Spent storing, also on the way.
        checkpoint_seconds: Of that, what sums on the way took.
        warn: Told of what goes wrong, and does not keep the task from being done.
    """

    def __init__(self, message: RunTask) -> None:
        self.task = message.task
        self.number = message.attempt
        self.first_number = message.first_attempt
        self.work = message.work
        self.delivery = message.delivery
        self.child = message.child
        self.sliced = message.sliced
        # Who makes one child does so for a task that another is at, and has perhaps stored some of it.
        self.resume = message.resume or message.delivery > 1 or message.child is not None
        self.shared = False
        self.cancelled = threading.Event()
        self.taken: list[int] = []
        self.taken_share = 0.0
        self.progress = 0.0
        self.bytes_read = 0
        self.bytes_written = 0
        self.objects_read = 0
        self.objects_written = 0
        self.reading_seconds = 0.0
        self.adding_seconds = 0.0
        self.storing_seconds = 0.0
        self.checkpoint_seconds = 0.0
        self.warn: Callable[[str], None] = _ignore
        self.expected_bytes = 0
        self._told = 0.0, 0
        self._children = 1
        self._slice, self._slices = 0, 1

    def begin_slice(self, number: int, slices: int) -> None:
        """Say which of how many slices is made now, from 0."""
        self._slice, self._slices = number, slices

    def begin(self, children: int) -> None:
        """Say how many children there are to be folded."""
        self._children = children

    def advance(self, children: float) -> None:
        """Say how many of them are in the sums."""
        self.progress = (self._slice + children / self._children) / self._slices

    def end_slice(self) -> None:
        """Say that the slice is whole, or the node that is none."""
        self.progress = (self._slice + 1) / self._slices

    def take(self, children: float) -> None:
        """Say that so many of them were in a stored sum that was read."""
        self.taken_share += children / self._children / self._slices

    def beat(self, worker: str, resident_bytes: int, arrived_bytes: int) -> Heartbeat:
        """Return what its worker tells now.

        Over a network several inputs arrive at once, of which only the first is being added. So what waits counts: by
        what is in the sums alone, an attempt that is nearly done could seem to have done next to nothing. What is not
        added is not done, however: it counts to 0.99 at the most. What is told never falls, also where what had
        arrived is let go, since others have made it.

        Args:
            worker: Its name.
            resident_bytes: Memory that it has.
            arrived_bytes: What has arrived at it, and was not read yet.
        """
        added, told = self.progress, self._told
        arrived = arrived_bytes if self.expected_bytes else 0  # bytes and progress are held against each other
        share = arrived / self.expected_bytes if arrived else 0.0
        progress = max(added, min(0.99, added + share), told[0])
        read = max(self.bytes_read + arrived, told[1])
        self._told = progress, read
        return Heartbeat(worker, self.task, read, resident_bytes, self.number, progress, added)

    def check(self) -> None:
        """Go on, unless the result is not wanted any more.

        Raises:
            TaskCancelledError: It is not.
        """
        if self.cancelled.is_set():
            raise TaskCancelledError

    def effort(self, waiting_seconds: float, peak_bytes: int, latencies: Latencies) -> Effort:
        """Return what the attempt took, with what only its worker knows."""
        return Effort(
            bytes_read=self.bytes_read,
            bytes_written=self.bytes_written,
            objects_read=self.objects_read,
            objects_written=self.objects_written,
            waiting_seconds=waiting_seconds,
            reading_seconds=self.reading_seconds,
            adding_seconds=self.adding_seconds,
            storing_seconds=self.storing_seconds,
            peak_bytes=peak_bytes,
            checkpoint_seconds=self.checkpoint_seconds,
            latencies=latencies,
        )


def _ignore(warning: str) -> None:
    """Do nothing with a warning: this worker logs nothing."""


class WatchedSource:
    """An opened input for parsers, which read by themselves: counts, and ends when the attempt is cancelled.

    A parser may go through a whole file without giving a number: where all of it is comment, or to count lines.
    """

    def __init__(self, reader: Reader, attempt: Attempt) -> None:
        self.uri = reader.uri
        self.size = reader.size
        self._reader = reader
        self._attempt = attempt

    def read_into(self, buffers: list[memoryview], offset: int) -> int:
        """Fill the buffers; see ``formats.base.Source``.

        Raises:
            TaskCancelledError: The attempt is cancelled.
        """
        self._attempt.check()
        got = self._reader.read_into(buffers, offset)
        self._attempt.bytes_read += got
        return got
