"""Asking about the one node that somebody looks at: only that, only what is in sight, and seldom (no Textual)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from distsum.errors import DistsumError
from distsum.observe.subtree import is_whole
from distsum.service import messages as channel
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from distsum.messages import TaskId
    from distsum.observe.subtree import NodeDetail

AGAIN_SECONDS: Final = 1.0
"""Between two questions about the same."""
OTHER_SECONDS: Final = 0.1
"""Between two questions at all, however quickly somebody goes through the tree."""


class Inquiry:
    """Asks about a node again and again while somebody looks at it; there is one question at a time.

    Args:
        ask: Asks the master; what it returns is done once there is an answer.
        clock: Seconds by a clock that only goes forward.
    """

    def __init__(self, ask: Callable[[channel.GetNode], Future[channel.AnyReply]], clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._asked: tuple[TaskId, int, int] | None = None
        self._asked_seconds = 0.0
        self._answering: Future[channel.AnyReply] | None = None
        self._found: tuple[TaskId, NodeDetail | str] | None = None

    def detail(self, task: TaskId, first: int, count: int) -> NodeDetail | str | None:
        """Return what was answered at last about a node, or why nothing was; None before that."""
        self._take()
        wanted, now = (task, first, count), self._clock()
        pause = AGAIN_SECONDS if wanted == self._asked else OTHER_SECONDS
        if self._answering is None and (self._asked is None or now - self._asked_seconds >= pause):
            self._asked, self._asked_seconds = wanted, now
            self._answering = self._ask(channel.GetNode(*wanted))
        return self._found[1] if self._found is not None and self._found[0] == task else None

    def _take(self) -> None:
        """Take the answer, if it is there. What was known before stays where the master cannot be reached."""
        if self._answering is None or not self._answering.done():
            return
        assert self._asked is not None
        answering, self._answering, task = self._answering, None, self._asked[0]
        if answering.cancelled():
            return
        try:
            answer = answering.result()
        except DistsumError as error:
            answer = channel.Refused(str(error))
        known = self._found is not None and self._found[0] == task and not isinstance(self._found[1], str)
        if isinstance(answer, channel.Node):
            tree = answer.detail.tree
            if answer.detail.task != task or (tree is not None and not is_whole(tree)):
                return  # None of ours: others may write to a broker, too.
            self._found = answer.detail.task, answer.detail
        elif isinstance(answer, channel.Refused) and not known:
            self._found = task, printable(answer.reason, 500)
