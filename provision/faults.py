"""What is wrong with one host: one line with the remedy. The other hosts go on."""

from __future__ import annotations


class HostFault(Exception):  # noqa: N818 - it is no error of the command, which goes on with the other hosts
    """A host cannot be used as it is.

    Args:
        reason: What was found, what was expected and what to do, in one line without the host's name.
        unreachable: Whether the host could not be reached at all.
    """

    def __init__(self, reason: str, *, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.unreachable = unreachable
