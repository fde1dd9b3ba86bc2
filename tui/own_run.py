"""A run in this process, asked as a service is: in the same words, with the same answers (no Textual)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from distsum.service import messages as channel

from .aside import aside

if TYPE_CHECKING:
    from distsum.helm import Helm


class OwnRun:
    """What steers a run in this process.

    Args:
        helm: Takes what is asked to the run's thread.
    """

    def __init__(self, helm: Helm) -> None:
        self._helm = helm

    async def ask(self, request: channel.AnyRequest) -> channel.AnyReply:
        """Ask for what changes something; what hinders that is an answer, too."""
        return await aside(partial(self._ask, request), "steering")

    def _ask(self, request: channel.AnyRequest) -> channel.AnyReply:
        match request:
            case channel.Cancel():
                refusal = self._helm.cancel()
            case channel.SwitchSpeculation():
                refusal = self._helm.switch_speculation(on=request.on)
            case channel.BackUp():
                given = self._helm.back_up(request.task)
                if not isinstance(given, str):
                    return channel.BackedUp(given.worker, given.of_worker, given.helpers)
                refusal = given
            case _:
                refusal = "only a service can be asked for that"
        return channel.Done() if refusal is None else channel.Refused(refusal)
