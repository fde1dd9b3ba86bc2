"""The list of jobs: those that wait, run, and have ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from distsum.service.messages import ENDED, JOBS_SHOWN

from .list_screen import ListScreen
from .service_lines import JOB_COLUMNS, job_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distsum.service.messages import JobStatus
    from distsum.service.view import ServiceView

    from .table_lines import Column, Row

_EMPTY = (
    "No job is queued or running, and none has ended.\n\n"
    "This brings one:\n\n"
    "  distsum submit mean s3://BUCKET/FOLDER/ -o s3://BUCKET/mean.npy\n\n"
    "DISTSUM_BROKER names the same broker there as here, and inputs and result must lie where the workers reach them."
)
_FORM = "\n\nn shows a form that does the same, and first what would run."
_NOBODY = "\n\nNo worker is there yet; `distsum worker` starts some."


class JobsScreen(ListScreen):
    """All jobs of a service; one of them can be opened, cancelled, and given another priority."""

    NAME = "jobs"
    OPENS = True
    COLUMNS: ClassVar[Sequence[Column]] = JOB_COLUMNS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "submit", "New job"),
        Binding("c", "cancel", "Cancel"),
        Binding("p", "prioritize", "Priority"),
    ]

    def rows(self, view: ServiceView, now: float) -> list[Row]:
        """Return one row a job."""
        return job_rows(view.jobs, now)

    def remark(self, view: ServiceView) -> str:
        """Return that there may be more jobs than the list has."""
        ended = sum(each.state in ENDED for each in view.jobs)
        return f"of ended ones at most {ended}; distsum jobs --limit N lists more" if ended >= JOBS_SHOWN else ""

    def empty(self, view: ServiceView) -> str:
        """Return how there can be a job."""
        form = "" if self._app.service.read_only else _FORM
        return _EMPTY + form + ("" if view.workers else _NOBODY)

    @property
    def _chosen(self) -> JobStatus | None:
        row = self.table.chosen
        jobs = self._view.jobs if self._view is not None else ()
        return next((each for each in jobs if row is not None and each.job == row.key), None)

    def offered(self) -> object:
        """Return what it depends on which keys do something: also how the chosen job stands."""
        return super().offered(), self._chosen and self._chosen.state

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide, beside what does nothing in any list, what cannot be done any more with the chosen job."""
        if action in {"cancel", "prioritize"}:
            chosen = self._chosen
            late = ENDED if action == "prioritize" else {*ENDED, "finishing"}
            if chosen is None or chosen.state in late:
                return False
        return super().check_action(action, parameters)

    def action_open(self) -> None:
        """Show the chosen job."""
        if (status := self._chosen) is not None:
            self._app.open_job(status.job)

    def action_submit(self) -> None:
        """Show the form for a new job."""
        self._app.write_job()

    def action_cancel(self) -> None:
        """Cancel the chosen job."""
        if (status := self._chosen) is not None:
            self._app.steering.cancel(status)

    def action_prioritize(self) -> None:
        """Give the chosen job another priority."""
        if (status := self._chosen) is not None:
            self._app.steering.prioritize(status)
