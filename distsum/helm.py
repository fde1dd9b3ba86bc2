"""What another thread may ask of an embedded run while that goes on: what a service's clients may, of its one job."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, TypeVar

from distsum.observe.ledger import task_words

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from distsum.actors.steering import Steering
    from distsum.messages import BackupStarted, TaskId

    Given = TypeVar("Given")

_ANSWER_SECONDS: Final = 10.0
_NOT_RUNNING: Final = "the job is not running"


class Helm:
    """Steers a run from another thread, as long as its actors are there. What is asked is done in the run's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bound: tuple[asyncio.AbstractEventLoop, Steering, str] | None = None

    @property
    def bound(self) -> bool:
        """Whether there is something to steer."""
        return self._bound is not None

    def bind(self, loop: asyncio.AbstractEventLoop, steering: Steering, job: str) -> None:
        """Say what is steered, from the thread that runs it."""
        with self._lock:
            self._bound = loop, steering, job

    def release(self) -> None:
        """Say that the actors are about to end."""
        with self._lock:
            self._bound = None

    def cancel(self) -> str | None:
        """Cancel the job; return why not, or None."""

        def act(steering: Steering, job: str, answer: Callable[[str | None], None]) -> None:
            steering.cancel(job)
            answer(None)

        return self._ask(act)

    def switch_speculation(self, *, on: bool) -> str | None:
        """Have stragglers get no more backups, or get them again; return why not, or None."""

        def act(steering: Steering, job: str, answer: Callable[[str | None], None]) -> None:
            answer(steering.switch_speculation(job, on=on))

        return self._ask(act)

    def back_up(self, task: TaskId) -> BackupStarted | str:
        """Give a task to a second worker now; return the backup, or why there is none."""

        def act(steering: Steering, _job: str, answer: Callable[[BackupStarted | str], None]) -> None:
            steering.back_up(task, lambda given: answer(given.started or f"{task_words(task)} {given.refusal}"))

        return self._ask(act)

    def _ask(self, act: Callable[[Steering, str, Callable[[Given | str], None]], None]) -> Given | str:
        """Have something done in the run's thread, and return what comes of it. Waits for that, and not for long."""
        answered: Future[Given | str] = Future()

        def answer(given: Given | str) -> None:
            if not answered.done():
                answered.set_result(given)

        def begin() -> None:
            bound = self._bound
            if bound is None:  # It has ended since.
                answer(_NOT_RUNNING)
            else:
                act(bound[1], bound[2], answer)

        with self._lock:  # The loop cannot be closed meanwhile: it is released before.
            if self._bound is None:
                return _NOT_RUNNING
            self._bound[0].call_soon_threadsafe(begin)
        try:
            return answered.result(_ANSWER_SECONDS)
        except TimeoutError:
            return "the run is too busy to answer; ask again" if self.bound else _NOT_RUNNING
