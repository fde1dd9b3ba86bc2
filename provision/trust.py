"""Whose host keys are believed: those of OpenSSH's own files, and those pinned for a fleet on first consent."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import asyncssh

from distsum.errors import ConfigurationError
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

_SSH_PORT = 22


class Trust:
    """The host keys that are believed.

    Args:
        pinned: File of the keys pinned for this fleet, in OpenSSH's format; it is made when the first key is pinned.
        files: OpenSSH's files of known hosts, for this user and for the system; those that are missing count as empty.

    Raises:
        ConfigurationError: A file is there and cannot be read.
    """

    def __init__(self, pinned: str, files: Sequence[str]) -> None:
        self._pinned = pinned
        texts = [text for path in (pinned, *files) if (text := _text(path)) is not None]
        try:
            self._known = asyncssh.import_known_hosts("\n".join(texts))
        except ValueError as error:
            names = ", ".join(map(printable, (pinned, *files)))
            raise ConfigurationError(f"{error}, in one of {names}; mend or remove that line") from None

    @property
    def known(self) -> asyncssh.SSHKnownHosts:
        """What connections verify host keys by. It is never None, which would switch that off."""
        return self._known

    def knows(self, host: str, port: int) -> bool:
        """Return whether anything is known of a host: then its key must be as it is known."""
        keys, authorities, _, certificates, _, subjects, _ = self._known.match(host, "", _named(port))
        return bool(keys or authorities or certificates or subjects)

    def fingerprints(self, host: str, port: int) -> list[str]:
        """Return the fingerprints of the keys that are known of a host."""
        return [key.get_fingerprint() for key in self._known.match(host, "", _named(port))[0]]

    def pin(self, host: str, port: int, key: asyncssh.SSHKey) -> None:
        """Believe a key from now on, in this process and in others."""
        public = key.export_public_key("openssh").decode().split()
        name = host if port == _SSH_PORT else f"[{host}]:{port}"
        line = f"{name} {public[0]} {public[1]}\n"
        os.makedirs(os.path.dirname(self._pinned), mode=0o700, exist_ok=True)
        descriptor = os.open(self._pinned, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())  # one write, so that lines of two processes don't mix
        finally:
            os.close(descriptor)
        self._known.load(line)


def openssh_files(home: str) -> tuple[str, ...]:
    """Return OpenSSH's own files of known hosts."""
    folder = os.path.join(home, ".ssh")
    system = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
    return (os.path.join(folder, "known_hosts"), os.path.join(folder, "known_hosts2"), *system)


def _named(port: int) -> int | None:
    return None if port == _SSH_PORT else port


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{printable(path)} cannot be read: {error.strerror}") from None
