"""What a worker logs of its tasks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from distsum.logs import task_words
from distsum.messages import TaskFailed

if TYPE_CHECKING:
    from distsum.logs import Subject
    from distsum.messages import TaskSucceeded
    from distsum.worker.attempt import Attempt

log = logging.getLogger(__name__)


class TaskLog:
    """Tells of a worker's tasks, and has all other lines of its process concern the one at hand.

    A worker without one imports no logging, which those of a run on one machine need not wait for.

    Args:
        subject: What lines of this process concern.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def begins(self, attempt: Attempt) -> None:
        """An attempt begins."""
        self._subject.work_on(attempt.task, attempt.number)
        attempt.warn = log.warning
        log.debug("%s begins; it is delivery %d", task_words(attempt.child), attempt.delivery)

    def ends(self, attempt: Attempt, result: TaskSucceeded | TaskFailed) -> None:
        """An attempt has ended, and its result is delivered."""
        what = task_words(attempt.child)
        if isinstance(result, TaskFailed):
            level = logging.INFO if result.kind in {"blocked", "cancelled", "not_served"} else logging.WARNING
            log.log(level, "%s failed: %s: %s", what, result.kind, result.reason)
        else:
            effort = result.effort
            seconds = effort.reading_seconds + effort.adding_seconds + effort.storing_seconds
            how = "was stored already" if result.reused else "is stored"
            log.debug("%s %s; %.3f s, %d bytes read", what, how, seconds, effort.bytes_read)
        self._subject.work_on(None)

    def leaves(self, reason: str) -> None:
        """The worker leaves at once, because it was told to."""
        log.warning("leaving: %s", reason)
