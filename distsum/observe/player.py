"""A finished job's history played again: a view of any moment of it, reached a slice of work at a time (no clock)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from distsum.messages import JobStarted, JobSucceeded, TaskId
from distsum.observe.history import tally_of
from distsum.observe.snapshot import JobTerms
from distsum.observe.states import DONE, TaskStates
from distsum.observe.view import JobFold
from distsum.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    import msgspec

    from distsum.observe.history import History
    from distsum.observe.snapshot import PhaseWork
    from distsum.observe.subtree import NodeDetail
    from distsum.observe.view import JobView

STEP_EVENTS: Final = 2000
"""Events folded by a step: some 20 milliseconds."""


class Player:
    """Plays a history. It reads it once to its end to know how long it is, and again for every step backwards.

    Args:
        history: What to play.

    Attributes:
        header: What it is of.
        end_seconds: The time of its last event.
        done: The states to begin with, as ``TaskStates`` takes them.
        remark: What is to be known of it, in a sentence; None of a whole one.
        seconds: The moment that is shown.

    Raises:
        StorageError: It cannot be read.
    """

    def __init__(self, history: History) -> None:
        self.header = history.header
        self._history = history
        self.end_seconds = 0.0
        seen = _Seen(self.header.work)
        for seconds, event in history.events():
            self.end_seconds = max(self.end_seconds, seconds)
            seen.take(event)
        self.done, unplaced = seen.done()
        self._gaps = history.remark is not None
        remarks = [history.remark] if history.remark is not None else []
        if self.header.remark is not None:
            remarks.append(self.header.remark)
        if unplaced:
            remarks.append(
                f"{counted(unplaced, 'task')} had nothing to do in this run; it is not told which, "
                "so they are drawn as waiting"
            )
        self.remark = "; ".join(remarks) or None
        self.seconds = 0.0
        self._fold, self._events = self._begin()
        self._begun = False
        self._next: tuple[float, msgspec.Struct] | None = None

    def seek(self, seconds: float) -> None:
        """Choose the moment to show; ``step`` goes there. Nothing is read for that."""
        seconds = min(max(0.0, seconds), self.end_seconds)
        if seconds < self.seconds:
            self._fold, self._events = self._begin()
            self._begun = False
        self.seconds = seconds

    def step(self, events: int = STEP_EVENTS) -> bool:
        """Go on with some events towards the chosen moment; return whether it is reached.

        Raises:
            StorageError: The history cannot be read.
        """
        if not self._begun:
            self._next = next(self._events, None)
            self._begun = True
        for _ in range(events):
            if self._next is None:
                return True
            seconds, event = self._next
            if seconds > self.seconds:
                return True
            self._fold.take(event, seconds)
            self._next = next(self._events, None)
        return False

    def view(self) -> JobView:
        """Return the view of the moment, or of how far ``step`` has come towards it."""
        return self._fold.view(self.seconds)

    def detail(self, task: TaskId, first: int, count: int) -> NodeDetail:
        """Return what is known of a node at that moment, as ``JobFold.detail``."""
        return self._fold.detail(task, first, count)

    def _begin(self) -> tuple[JobFold, Iterator[tuple[float, msgspec.Struct]]]:
        header = self.header
        fold = JobFold(
            tally_of(header, self._name_of),
            header.work,
            header.output,
            header.began_seconds,
            self.done,
            self.remark,
            header.tree,
            gaps=self._gaps,
            terms=JobTerms(count=header.count, dtype=header.dtype, rule=header.rule),
        )
        return fold, self._history.events()

    def _name_of(self, index: int) -> bytes:
        """Return what is known of an input's name: a history holds that of the first and the last."""
        known = dict(zip((0, self.header.files - 1), self.header.inputs, strict=False))
        return known[index].encode() if index in known else b"input %d" % index


class _Seen:
    """Which tasks a history tells of: those that it does not were stored already, or were not needed."""

    def __init__(self, work: tuple[PhaseWork, ...]) -> None:
        self._work = work
        self._seen = TaskStates(work)
        self._nothing_to_do = 0
        self._succeeded = False

    def take(self, event: msgspec.Struct) -> None:
        if isinstance(event, JobStarted):
            planned = sum(each.tasks for each in self._work)
            self._nothing_to_do = max(0, planned - sum(event.tasks)) + sum(event.reused)
        elif isinstance(event, JobSucceeded):
            self._succeeded = True
        if isinstance(task := getattr(event, "task", None), TaskId):
            self._seen.mark(task)

    def done(self) -> tuple[tuple[bytes, ...], int]:
        """Return the states to begin with, and how many tasks had nothing to do that cannot be told from others."""
        if not self._nothing_to_do:
            return (), 0
        seen = [phase.states for phase in self._seen.phases()]
        untold = sum(states.count(0) for states in seen)
        if untold != self._nothing_to_do and not self._succeeded:
            return (), self._nothing_to_do
        return tuple(states.translate(_UNTOLD_IS_DONE) for states in seen), 0


_UNTOLD_IS_DONE: Final = bytes([DONE, *([0] * 255)])
