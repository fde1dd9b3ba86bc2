"""The screen of the job that runs in this process, and is steered there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .steered_job_screen import SteeredJobScreen

if TYPE_CHECKING:
    from distsum.helm import Helm

    from .source import Source


class OwnJobScreen(SteeredJobScreen):
    """The job of this process.

    Args:
        source: As for ``JobScreen``.
        helm: Steers it.
        glyphs: As for ``JobScreen``.
    """

    def __init__(self, source: Source, helm: Helm, *, glyphs: bool = False) -> None:
        super().__init__(source, glyphs=glyphs, owns_run=True)
        self._helm = helm

    def allowed(self) -> bool:
        """Whether something may be asked now: while its tasks are being done, and as soon as the job is shown."""
        return self._view is not None and self._helm.bound

    def action_cancel(self) -> None:
        """Cancel the job, if somebody says so."""
        assert self._view is not None
        self._app.steering.cancel_own(self._view.snapshot.job, self._not_any_more)

    def _not_any_more(self) -> str:
        """Return why the job cannot be cancelled any more; empty as long as it can."""
        if self.allowed():
            return ""
        return self._over_words() or "the job is not cancelled any more: its tasks are done, and the result is stored"
