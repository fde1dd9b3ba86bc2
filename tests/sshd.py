"""An OpenSSH server on this machine for tests, on a port and with keys and a home folder of its own; needs no root."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from tests.stack.processes import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = "/usr/sbin/sshd"
INSTALL = "apt-get install openssh-server"
_READY_SECONDS = 20.0


class LocalSshd:
    """A server that lets the user of the tests in.

    Attributes:
        port: Where it listens on the loopback address.
        user: Who it lets in.
        key: File of the private key that it lets in.
        home: What it gives its users as their home folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (self.port,) = free_ports(1)
        self.user = getpass.getuser()
        self.key = folder / "id_ed25519"
        self.home = folder / "home"
        self.home.mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        for path in (self.key, folder / "host_key"):
            keygen(path)
        self.let_in(self.key)
        path = os.environ.get("PATH", os.defpath)
        folder.joinpath("sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {folder}/host_key\nPidFile none\nUsePAM no\nUseDNS no\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\nSetEnv HOME={self.home} PATH={path}\n"
        )

    @property
    def public_key(self) -> str:
        return self._folder.joinpath("host_key.pub").read_text().strip()

    @property
    def known(self) -> str:
        """What OpenSSH's list of known hosts would have of it."""
        return f"[127.0.0.1]:{self.port} {self.public_key}\n"

    def let_in(self, key: Path) -> None:
        """Let another key in."""
        with open(self._folder / "authorized", "a", encoding="ascii") as file:
            file.write(key.with_name(f"{key.name}.pub").read_text())

    def start(self) -> None:
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # asked for by the server where it runs as root
        with open(self._folder / "output", "ab") as output:
            self._process = subprocess.Popen(
                [PROGRAM, "-D", "-e", "-f", str(self._folder / "sshd_config")], stdin=subprocess.DEVNULL, stderr=output
            )
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            log = self._folder.joinpath("output").read_text(errors="replace")
            assert self._process.poll() is None, log
            assert time.monotonic() < deadline, log
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
                return
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[LocalSshd]:
    """Give a server; it is gone afterwards."""
    server = LocalSshd(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def keygen(path: Path, passphrase: str = "") -> None:
    """Make a pair of keys."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "test", "-f", str(path)], check=True, timeout=30
    )
