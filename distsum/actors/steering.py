"""What people may ask of jobs that run: one way to the actors, whoever asks, and from wherever."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from distsum.actors.actor import MASTER, TRACKER
from distsum.messages import BackUpTask, CancelJob, SwitchSpeculation

if TYPE_CHECKING:
    from collections.abc import Callable

    import msgspec

    from distsum.actors.speculation import SpeculationSettings
    from distsum.messages import BackupAnswered, TaskId


class Steering:
    """Asks the actors, which decide.

    Args:
        deliver: Brings a message to an actor's address.
        speculation: By what stragglers get backups.
    """

    def __init__(self, deliver: Callable[[str, msgspec.Struct], None], speculation: SpeculationSettings) -> None:
        self._deliver = deliver
        self._speculation = speculation
        self._numbers = count()
        self._asked: dict[int, Callable[[BackupAnswered], None]] = {}

    def cancel(self, job: str) -> None:
        """Stop a job."""
        self._deliver(MASTER, CancelJob(job))

    def switch_speculation(self, job: str, *, on: bool) -> str | None:
        """Begin no more backups of a job's tasks, or do again; return why that makes no difference, or None."""
        if self._speculation.policy == "none":
            return "this master begins no backups at all: its speculation policy is none"
        self._deliver(TRACKER, SwitchSpeculation(job, on))
        return None

    def back_up(self, task: TaskId, answered: Callable[[BackupAnswered], None]) -> int:
        """Give a task that runs to a second worker, too.

        Args:
            task: The task.
            answered: Told of the backup, or why there is none.

        Returns:
            A number by which the question may be forgotten.
        """
        number = next(self._numbers)
        self._asked[number] = answered
        self._deliver(TRACKER, BackUpTask(task, number))
        return number

    def forget(self, number: int) -> None:
        """Wait for an answer no longer."""
        self._asked.pop(number, None)

    def take(self, message: BackupAnswered) -> None:
        """Hand on what the actors have answered."""
        if (answered := self._asked.pop(message.request, None)) is not None:
            answered(message)
