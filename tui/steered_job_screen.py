"""The screen of one job that can be steered from there: over a broker, or in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from .job_screen import JobScreen

if TYPE_CHECKING:
    from distsum.messages import TaskId

    from .job_screen import JobSteering


class SteeredJobScreen(JobScreen):
    """One job; what is asked of it, the application asks."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("c", "cancel", "Cancel")]

    @property
    def steering(self) -> JobSteering:
        """What asks for changes of the job."""
        return self

    def allowed(self) -> bool:
        """Whether something may be asked now."""
        raise NotImplementedError

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide what cannot be asked."""
        return self.allowed() if action == "cancel" else super().check_action(action, parameters)

    def offered(self) -> object:
        """Return what it depends on which keys do something: also whether anything may be asked."""
        return super().offered(), self.allowed()

    def back_up(self, task: TaskId) -> None:
        """Ask for a backup of a task."""
        self._app.steering.back_up(task)

    def switch_speculation(self, job: str, *, on: bool) -> None:
        """Ask that stragglers get no more backups, or that they do again."""
        self._app.steering.switch_speculation(job, on=on)

    def action_cancel(self) -> None:
        """Cancel the job, if somebody says so."""
        raise NotImplementedError
