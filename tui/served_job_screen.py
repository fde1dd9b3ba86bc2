"""The screen of one job of a service, which can be steered from there, and left for the lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from .list_screen import STEERING
from .service_lines import shared_queue_lines
from .steered_job_screen import SteeredJobScreen

if TYPE_CHECKING:
    from collections.abc import Callable

    from distsum.service.messages import JobStatus

    from .lines import Line
    from .remote import FollowedJob


class ServedJobScreen(SteeredJobScreen):
    """One job of a service.

    Args:
        followed: The job.
        glyphs: As for ``JobScreen``.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Jobs"),
        Binding("p", "prioritize", "Priority"),
        Binding("w", "go('workers')", "Workers"),
        Binding("u", "go('queues')", "Queues"),
        Binding("j", "go('jobs')", "To jobs", show=False),
    ]

    def __init__(self, followed: FollowedJob, *, glyphs: bool = False) -> None:
        super().__init__(followed, glyphs=glyphs)
        self.followed = followed

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide what those may not do who only look, and what cannot be done with a job that has ended."""
        if action in STEERING:
            return self.allowed() and self.followed.status() is not None
        return super().check_action(action, parameters)

    def shared_queue(self, width: int) -> list[Line]:
        """Return what is known of the queue of all jobs, while the job has not ended."""
        queues = self.followed.queues()
        return shared_queue_lines(queues, self._app.traces, width) if queues is not None else []

    def offered(self) -> object:
        """Return what it depends on which keys do something: also what is known of the job."""
        return super().offered(), self.check_action("cancel", ())

    def allowed(self) -> bool:
        """Whether something may be asked now."""
        return not self._app.service.read_only and not self.followed.has_ended

    def action_back(self) -> None:
        """Show all lines again, or go back to the jobs."""
        if self._filter or self._box.display:
            self.action_clear_filter()
        else:
            self._app.back()

    def action_leave(self) -> None:
        """Leave; jobs go on."""
        self._app.leave()

    def action_go(self, name: str) -> None:
        """Go to a list."""
        self._app.go(name)

    def action_cancel(self) -> None:
        """Cancel the job."""
        self._steer(self._app.steering.cancel)

    def action_prioritize(self) -> None:
        """Give the job another priority."""
        self._steer(self._app.steering.prioritize)

    def _steer(self, steer: Callable[[JobStatus], None]) -> None:
        if (status := self.followed.status()) is not None:
            steer(status)
