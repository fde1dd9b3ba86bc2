"""What may be asked to change of a service, or of a run in this process.

It asks first where something is lost, and tells what came of it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from distsum.observe.ledger import task_words
from distsum.observe.workers import GONE
from distsum.service import messages as channel
from distsum.wording import counted, printable

from .dialogs import Ask, AskNumber, Choice, Question, Told
from .lines import clock_words
from .service_lines import job_words, workers_there

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.messages import TaskId
    from distsum.observe.workers import WorkerStatus
    from distsum.service.messages import JobStatus, WorkerAction
    from distsum.service.view import ServiceView

    from .app import ScreenApp

_WORKER_QUESTIONS: Final[dict[WorkerAction, tuple[str, str]]] = {
    "drain": ("Drain worker {}? It leaves as soon as its task is done.", "Drain it"),
    "shutdown": ("Shut down worker {} now? Its task goes back to the queue.", "Shut it down"),
}
_WORKER_DONE: Final[dict[WorkerAction, str]] = {
    "pause": "worker {} gets no more tasks",
    "resume": "worker {} gets tasks again",
    "drain": "worker {} leaves when its task is done",
    "shutdown": "worker {} leaves now",
}


_LEAVE: Final = ("One is drained: it leaves", "The others are drained: they leave")
_NO_FLEET: Final = (
    "This master holds no workers of its own, so it can neither add nor remove any.\n\n"
    "One that is started with a file of hosts can:\n\n"
    "  distsum master --work-dir URI --fleet fleet.toml\n\n"
    "`distsum fleet up` and `distsum fleet scale` have workers on many hosts without that, and on a machine that "
    "reaches the broker and the data `distsum worker` starts some. d drains the one that is chosen here."
)


class Asked(Protocol):
    """What may be asked: a service over its broker, or a run in this process."""

    async def ask(self, request: channel.AnyRequest) -> channel.AnyReply:
        """Ask for what changes something; what hinders that is an answer, too."""


class Steering:
    """Asks for what changes something.

    Args:
        app: Shows questions and answers.
        service: What is asked.
        newest: Returns what is known of the service; questions about what has ended meanwhile are asked no more.
        stale_seconds: Returns how old that is while the master is not heard, which questions tell; 0 while it is.
    """

    def __init__(
        self,
        app: ScreenApp,
        service: Asked,
        newest: Callable[[], ServiceView | None] = lambda: None,
        stale_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._app = app
        self._service = service
        self._newest = newest
        self._stale_seconds = stale_seconds

    def cancel(self, status: JobStatus) -> None:
        """Cancel a job, if somebody says so."""
        question = f"Cancel {job_words(status)}? What it has stored so far is removed."
        done = f"job {printable(status.job, 80)} is cancelled"
        self._confirm(question, "Cancel the job", channel.Cancel(status.job), done, partial(self._ended_words, status))

    def cancel_own(self, job: str, over: Callable[[], str]) -> None:
        """Cancel the job that runs in this process, if somebody says so; ``over`` tells why it cannot be any more."""
        question = (
            "Cancel the job? What it has stored so far is removed. (q offers to stop it instead: then that stays, and "
            "the same command goes on from there.)"
        )
        self._confirm(question, "Cancel the job", channel.Cancel(job), f"job {printable(job, 80)} is cancelled", over)

    def prioritize(self, status: JobStatus) -> None:
        """Give a job the priority that somebody says."""

        def give(question: Question[Any], number: int | None) -> None:
            if number is not None:
                done = f"job {printable(status.job, 80)} has priority {number}"
                self._ask(channel.SetPriority(status.job, number), done, question)

        question = f"Which priority shall {job_words(status)} have? Jobs of a higher one go first; what runs goes on."
        over = partial(self._ended_words, status)
        self._app.push_screen(AskNumber(question + self._age_words(), status.priority, give, over))

    def back_up(self, task: TaskId) -> None:
        """Have a task that runs done by a second worker, too."""
        self._ask(channel.BackUp(task), f"{task_words(task)} gets a backup")

    def switch_speculation(self, job: str, *, on: bool) -> None:
        """Have a job's stragglers get no more backups, or get them again."""
        what = "get backups again" if on else "get no more backups; those under way go on"
        self._ask(channel.SwitchSpeculation(job, on), f"stragglers of job {printable(job, 80)} {what}")

    def command(self, worker: WorkerStatus, action: WorkerAction) -> None:
        """Do something with a worker; where it goes away by that, if somebody says so."""
        name = printable(worker.worker, 80)
        request = channel.CommandWorker(worker.worker, action)
        done = _WORKER_DONE[action].format(name)
        if action not in _WORKER_QUESTIONS:
            self._ask(request, done)
            return
        question, yes = _WORKER_QUESTIONS[action]
        self._confirm(question.format(name), yes, request, done, partial(self._gone_words, worker))

    def scale(self, view: ServiceView) -> None:
        """Have another number of workers; where some go away by that, if somebody says so."""
        there = workers_there(view.workers)
        if view.fleet is None:
            self._app.push_screen(Told(_NO_FLEET))
            return
        asked = there if view.fleet.wanted is None else view.fleet.wanted

        def give(dialog: Question[Any], number: int | None) -> None:
            if number is None:
                return
            request = channel.ScaleWorkers(number)
            done = f"the fleet is to have {counted(number, 'worker')}; they come and go as their hosts can"
            if number >= asked:
                self._ask(request, done, dialog)
                return
            dialog.close()
            question = (
                f"Have {counted(number, 'worker')} in place of {asked:,}? {_LEAVE[asked - number > 1]} as soon as "
                "what is at hand is done."
            )
            self._confirm(question, "Remove them" if asked - number > 1 else "Remove it", request, done)

        question = (
            f"How many workers shall the hosts of the fleet have in all? {asked:,} "
            f"{'are' if view.fleet.wanted is None else 'were asked for'}; the master knows {counted(there, 'worker')} "
            "that are there, by whatever way they came."
        )
        self._app.push_screen(AskNumber(question + self._age_words(), asked, give))

    def _ended_words(self, status: JobStatus) -> str:
        """Return how a job has ended, as far as known; empty of one that has not."""
        view = self._newest()
        state = next((each.state for each in view.jobs if each.job == status.job), "") if view is not None else ""
        if state not in channel.ENDED:
            return ""
        return f"nothing is asked of job {printable(status.job, 80)} any more: it has ended ({state})"

    def _gone_words(self, worker: WorkerStatus) -> str:
        """Return that a worker is gone, as far as known; empty of one that is there."""
        view = self._newest()
        known = () if view is None else view.workers
        if any(each.worker == worker.worker and each.state in GONE for each in known):
            return f"nothing is asked of worker {printable(worker.worker, 80)} any more: it is gone"
        return ""

    def _age_words(self) -> str:
        """Return what is to be known of what a question goes by."""
        seconds = self._stale_seconds()
        if seconds <= 0.0:
            return ""
        # Words that stay true for as long as it waits for an answer.
        return f"\n\nNothing had been heard of the master for {clock_words(seconds)} when this was asked."

    def _confirm(
        self,
        question: str,
        yes: str,
        request: channel.AnyRequest,
        done: str,
        over: Callable[[], str] = lambda: "",
    ) -> None:
        choices = Choice("no", "Change nothing"), Choice("yes", yes)
        question += self._age_words()
        self._app.push_screen(Ask(question, choices, lambda dialog, _: self._ask(request, done, dialog), over))

    def _ask(self, request: channel.AnyRequest, done: str, question: Question[Any] | None = None) -> None:
        self._app.run_worker(self._asked(request, done, question))

    async def _asked(self, request: channel.AnyRequest, done: str, question: Question[Any] | None) -> None:
        answer = await self._service.ask(request)
        if isinstance(answer, channel.Refused):
            reason = printable(answer.reason, 1000)
            if question is None or not question.refuse(reason):
                self._app.say(reason, refused=True)
            return
        if question is not None:
            question.close()
        if isinstance(answer, channel.BackedUp):
            shares = counted(len(answer.helpers), "more worker shares", "more workers share")
            helpers = f", and {shares} it" if answer.helpers else ""
            done += f" on {printable(answer.worker, 80)}, beside {printable(answer.of_worker, 80)}{helpers}"
        self._app.say(done)
