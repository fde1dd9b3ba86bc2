"""Where a screen's views come from: a run in this process, or a history that is played again (no Textual)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.messages import TaskId
    from distsum.observe.player import Player
    from distsum.observe.subtree import NodeDetail
    from distsum.observe.view import DetailOf, JobView

SPEEDS: Final = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 100.0)
_MOST_BEHIND: Final = 4
"""Steps of a history that are gone in one frame at most, so that keys are answered meanwhile."""
_LONGEST_SECONDS: Final = 0.5
"""From one frame to the next, however much they cost."""


class Source(Protocol):
    """Gives the newest view whenever a screen asks."""

    def newest(self) -> JobView | None:
        """Return the newest view; None before there is one."""

    def detail(self, task: TaskId, first: int, count: int) -> NodeDetail | str | None:
        """Return the newest that is known of a node and of some of its children, as ``JobFold.detail`` tells it.

        None before there is anything, which is why it is asked for again and again; why there is nothing, as a
        sentence that is harmless to show.
        """

    def over(self) -> bool:
        """Whether nothing new will come."""

    def notice(self) -> str:
        """Return what is to be known of where views come from, harmless to show; empty where all is well."""

    def replay(self) -> ReplaySource | None:
        """Return what is played again, and may be stopped and sought in; None of what is live."""


class LiveSource:
    """A run in another thread of this process: what that puts here is taken from here."""

    def __init__(self) -> None:
        self._view: JobView | None = None
        self._over = False
        self._wanted: tuple[TaskId, int, int] | None = None
        self._detail: tuple[tuple[TaskId, int, int], NodeDetail] | None = None
        self._detail_of: DetailOf | None = None

    def put(self, view: JobView, detail_of: DetailOf | None = None) -> None:
        """Take a new view in place of the last one, and ask about the node that somebody looks at; from any thread."""
        if detail_of is not None:
            if view.snapshot.finished:
                self._detail_of = detail_of  # All is folded, so that the screen's thread may ask itself.
            elif (wanted := self._wanted) is not None:
                self._detail = wanted, detail_of(*wanted)
        self._view = view  # One reference, so that a reader has the old view or the new one.

    def detail(self, task: TaskId, first: int, count: int) -> NodeDetail | None:
        """Return what the run has told of a node at last."""
        wanted = self._wanted = task, first, count
        if self._detail_of is not None:
            return self._detail_of(*wanted)
        found = self._detail
        return found[1] if found is not None and found[0][0] == task else None

    def end(self) -> None:
        """Say that the last view was put."""
        self._over = True

    def newest(self) -> JobView | None:
        """Return the newest view."""
        return self._view

    def over(self) -> bool:
        """Whether the run has ended."""
        return self._over

    def notice(self) -> str:
        """Return nothing: it is this process."""
        return ""

    def replay(self) -> ReplaySource | None:
        """Return nothing: it is live."""
        return None


class Thrift:
    """Says when the next frame may be drawn, so that drawing takes no more than a share of one processor's time.

    Args:
        share: Of one processor, more than 1 for more than one.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._last_seconds = -math.inf
        self._spent_seconds = 0.0

    def allows(self, now: float, spent_seconds: float) -> bool:
        """Return whether a frame may be drawn now; if so, it counts as drawn.

        Args:
            now: Seconds by a clock that only goes forward.
            spent_seconds: Processor time that the thread which draws has taken in all; what it has taken since the last
                frame is what that has cost.
        """
        wait = min(_LONGEST_SECONDS, (spent_seconds - self._spent_seconds) / self._share)
        if now - self._last_seconds < wait:
            return False
        self._last_seconds, self._spent_seconds = now, spent_seconds
        return True


class ReplaySource:
    """A history that is played at some speed.

    Args:
        player: What plays it.
        clock: Seconds by a clock that only goes forward.
        speed: Seconds of the history in a second.

    Attributes:
        playing: Whether it goes on by itself.
        behind: Whether the player has not come to the chosen moment yet.
    """

    def __init__(self, player: Player, clock: Callable[[], float], speed: float = 1.0) -> None:
        self.player = player
        self.speed = speed
        self.playing = True
        self.behind = False
        self._clock = clock
        self._last = clock()

    def newest(self) -> JobView | None:
        """Go on with the time that has passed, and return the view of then."""
        now = self._clock()
        passed, self._last = now - self._last, now
        if self.playing and not self.behind:
            self.player.seek(self.player.seconds + passed * self.speed)
            if self.player.seconds >= self.player.end_seconds:
                self.playing = False
        self.behind = not any(self.player.step() for _ in range(_MOST_BEHIND))
        return self.player.view()

    def detail(self, task: TaskId, first: int, count: int) -> NodeDetail:
        """Return what is known of a node at the moment that is shown."""
        return self.player.detail(task, first, count)

    def over(self) -> bool:
        """Whether it has come to its end; it may still be played again."""
        return True

    def notice(self) -> str:
        """Return what is to be known of the history, such as that it is damaged: on whichever pane one looks."""
        return self.player.remark or ""

    def replay(self) -> ReplaySource | None:
        """Return this."""
        return self

    def pause(self) -> None:
        """Stop, or go on; at the end, begin again."""
        if not self.playing and self.player.seconds >= self.player.end_seconds:
            self.player.seek(0.0)
        self.playing = not self.playing

    def seek(self, share: float) -> None:
        """Go to a place, as a share of the whole."""
        self.player.seek(share * self.player.end_seconds)

    def share(self) -> float:
        """Return where it is, as a share of the whole."""
        return self.player.seconds / self.player.end_seconds if self.player.end_seconds else 1.0

    def faster(self, step: int) -> None:
        """Choose the next higher of the speeds, or the next lower one; where there is none, stay at this."""
        if step > 0:
            self.speed = min((speed for speed in SPEEDS if speed > self.speed), default=self.speed)
        else:
            self.speed = max((speed for speed in SPEEDS if speed < self.speed), default=self.speed)
