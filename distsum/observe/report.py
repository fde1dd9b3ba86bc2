"""All that a report tells of a job, gathered from its history; ``report_html`` makes a page of it (no clock)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from distsum.observe.attempts import AGAIN, BACKED_UP, NEVER, AttemptTable
from distsum.observe.history import tally_of
from distsum.observe.player import Player
from distsum.observe.states import DONE, FAILED
from distsum.observe.view import JobFold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from distsum.observe.fold import JobTally
    from distsum.observe.history import History, HistoryHeader
    from distsum.observe.view import JobView
    from distsum.request import WorkerAccount

STORED_BEFORE: Final = 0
DONE_ONCE: Final = 1
DONE_AGAIN: Final = 2
DONE_WITH_BACKUP: Final = 3
NOT_DONE: Final = 4
NEVER_DONE: Final = 5
FATES: Final = (
    "stored before, or not needed",
    "done at the first attempt",
    "done at another attempt, or with help",
    "done after a backup was begun",
    "not done",
    "failed",
)
"""What became of a task; the later one wins where several share a cell."""


class PhaseTimes(NamedTuple):
    """How long the attempts of a phase took that did their tasks, in seconds; None where there were none."""

    median: float | None
    most_of_them: float | None
    """99 % took no longer."""
    longest: float | None


class JobReport(NamedTuple):
    """All that a report tells of a job.

    Attributes:
        header: What the history is of.
        version: Of the distsum that ran it.
        view: The job at its end.
        tally: What was counted.
        accounts: The time of each worker.
        attempts: All of them.
        fates: For each phase one byte a task, see ``FATES``.
        times: For each phase.
        end_seconds: When the job ended, or the history does.
        remark: What is to be known of the history, in a sentence; None of a whole one.
    """

    header: HistoryHeader
    version: str
    view: JobView
    tally: JobTally
    accounts: tuple[WorkerAccount, ...]
    attempts: AttemptTable
    fates: tuple[NDArray[np.uint8], ...]
    times: tuple[PhaseTimes, ...]
    end_seconds: float
    remark: str | None


def gather(history: History) -> JobReport:
    """Play a history to its end, and return what there is to tell.

    Raises:
        StorageError: It cannot be read.
    """
    header = history.header
    player = Player(history)
    tally = tally_of(header)
    fold = JobFold(tally, header.work, header.output, header.began_seconds, player.done, player.remark)
    for seconds, event in history.events():
        fold.take(event, seconds)
    attempts = fold.attempts
    view = fold.view(player.end_seconds)
    end_seconds = view.snapshot.elapsed_seconds
    phases = range(1, len(header.work) + 1)
    return JobReport(
        header=header,
        version=history.version,
        view=view,
        tally=tally,
        accounts=tally.accounts.accounts(end_seconds),
        attempts=attempts,
        fates=tuple(_fates(view.states[phase - 1].array(), attempts.kinds(phase)) for phase in phases),
        times=_times(attempts, len(header.work)),
        end_seconds=end_seconds,
        remark=player.remark,
    )


def _fates(states: NDArray[np.uint8], kinds: NDArray[np.uint8]) -> NDArray[np.uint8]:
    fates = np.full(states.size, NOT_DONE, dtype=np.uint8)
    done = states == DONE
    fates[done] = DONE_ONCE
    for kind, fate in ((NEVER, STORED_BEFORE), (AGAIN, DONE_AGAIN), (BACKED_UP, DONE_WITH_BACKUP)):
        fates[done & (kinds == kind)] = fate
    fates[states == FAILED] = NEVER_DONE
    return fates


def _times(attempts: AttemptTable, phases: int) -> tuple[PhaseTimes, ...]:
    spans = attempts.spans()
    took = spans.ended_seconds - spans.began_seconds
    told = spans.done & ~np.isnan(took)
    found = []
    for phase in range(1, phases + 1):
        mine = took[told & (spans.phase == phase)]
        if mine.size:
            found.append(PhaseTimes(*(float(each) for each in np.quantile(mine, (0.5, 0.99, 1.0)))))
        else:
            found.append(PhaseTimes(None, None, None))
    return tuple(found)
