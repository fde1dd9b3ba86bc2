"""Real hosts for tests: namespaces with an OpenSSH server each, on a bridge of their own.

A host has its own network, processes, name, home folder, temporary folder and users, and a disk of its own size for the
home folder; the rest of the file system it shares with this machine. All of it ends with one process. Addresses are of
198.18.0.0/15, which RFC 2544 sets aside for tests and nobody else uses.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROGRAMS = {
    "/usr/sbin/sshd": "openssh-server",
    "/usr/bin/ssh-keygen": "openssh-client",
    "/usr/sbin/iptables": "iptables",
    "/usr/sbin/ip": "iproute2",
    "/usr/sbin/tc": "iproute2",
    "/usr/bin/ps": "procps",
}
USER = "worker"
_USER_ID = 61001
_READY_SECONDS = 20.0
_SSHD = "/usr/sbin/sshd"
_TOOLS = ("sh", "env", "head", "cat")
PATH = "/usr/bin:/bin:/mnt/python/bin"
"""Where a host's users find commands. The last is the Python that runs the tests, from where only root may read; the
system's own comes first, since another may need libraries from such a place, too."""

# The namespaces are there; now the host is furnished. What it needs is copied first, since /tmp is covered next.
_BOOT = """
set -e
hostname "$1"
mount -t tmpfs -o mode=755 none /run
mkdir /run/sshd /run/host
cp -r "$2/." /run/host
mount --bind /run/host/passwd /etc/passwd
mount --bind /run/host/group /etc/group
mount -t tmpfs -o mode=755 none /mnt
mkdir /mnt/python /mnt/tools
mount --bind "$4" /mnt/python
for tool in {tools}; do ln -s "$(command -v $tool)" /mnt/tools/$tool; done
mount -t tmpfs -o mode=1777 none /tmp
mount -t tmpfs -o mode=755,size="$5" none /home
mkdir -p /home/{user}/.ssh
cp /run/host/authorized_keys /home/{user}/.ssh/
chown -R {id}:{id} /home/{user}
chmod -R go= /home/{user}
read -r go
ip link set lo up
ip address add "$3/24" dev eth0
ip link set eth0 up
while :; do
  {sshd} -D -e -f /run/host/sshd_config &
  wait
  while [ -e /run/host/no-sshd ]; do sleep 0.02; done
done
""".format(tools=" ".join(_TOOLS), user=USER, id=_USER_ID, sshd=_SSHD)


def missing_packages() -> list[str]:
    """Return the packages of Debian's that hold what is missing."""
    return [package for program, package in _PROGRAMS.items() if not os.path.exists(program)]


def impossible() -> str | None:
    """Return why there can be no such hosts here, whatever is installed, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts of their own need Linux's namespaces, and root to make them"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "true"], capture_output=True, check=False
    )
    return None if tried.returncode == 0 else f"namespaces cannot be made here: {tried.stderr.decode().strip()}"


class Network:
    """A bridge with an address of this machine's, and hosts on it.

    Args:
        folder: Where keys and logs lie.

    Attributes:
        address: This machine's address, as the hosts reach it.
        key: File of the private key that all hosts let in.
        hosts: Its hosts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mark = secrets.token_hex(3)
        self._bridge = f"dsb{self._mark}"
        self._prefix = _free_prefix()
        self.address = f"{self._prefix}.1"
        self.key = folder / "id_ed25519"
        self.hosts: list[SshHost] = []
        _keygen(self.key)
        _run("ip", "link", "add", self._bridge, "type", "bridge")
        _run("ip", "address", "add", f"{self.address}/24", "dev", self._bridge)
        _run("ip", "link", "set", self._bridge, "up")

    def boot(self, count: int, home_size: str = "800m", path: str = PATH) -> list[SshHost]:
        """Start some more hosts at once, and return them.

        Args:
            count: How many.
            home_size: Size of the disk with the home folder, and more options of its tmpfs.
            path: Where its users' commands are looked for.
        """
        numbers = range(len(self.hosts) + 2, len(self.hosts) + 2 + count)
        made = [SshHost(self, number, f"{self._prefix}.{number}", home_size, path) for number in numbers]
        self.hosts += made
        with ThreadPoolExecutor(count) as executor:
            list(executor.map(SshHost.boot, made))
        return made

    @property
    def bridge(self) -> str:
        return self._bridge

    def link(self, number: int) -> str:
        """Return the name of our end of a host's cable."""
        return f"dsv{self._mark}{number}"

    def known_hosts(self) -> str:
        """Return what OpenSSH would know of the hosts."""
        return "".join(f"{host.address} {host.public_key}\n" for host in self.hosts)

    def close(self) -> None:
        for host in self.hosts:
            host.end()
        _run("ip", "link", "delete", self._bridge)


class SshHost:
    """One host; see ``Network.boot``.

    Attributes:
        address: Its address.
        folder: Its configuration and keys.
    """

    def __init__(self, network: Network, number: int, address: str, home_size: str, path: str) -> None:
        self.name = f"node{number}"
        self.address = address
        self.folder = network.folder / self.name
        self._network = network
        self._number = number
        self._home_size = home_size
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None
        self._spawner = ThreadPoolExecutor(1)
        self.folder.mkdir()
        self.renew_key()
        passwd = Path("/etc/passwd").read_text() + f"{USER}:*:{_USER_ID}:{_USER_ID}::/home/{USER}:/bin/sh\n"
        self.folder.joinpath("passwd").write_text(passwd)
        self.folder.joinpath("group").write_text(Path("/etc/group").read_text() + f"{USER}:x:{_USER_ID}:\n")
        shutil.copy(f"{network.key}.pub", self.folder / "authorized_keys")
        self.folder.joinpath("sshd_config").write_text(
            f"ListenAddress {address}\nHostKey /run/host/host_key\nPidFile none\nUsePAM no\nUseDNS no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin no\nPrintMotd no\n"
            f"Subsystem sftp internal-sftp\nSetEnv PATH={path}\n"
        )

    @property
    def public_key(self) -> str:
        return self.folder.joinpath("host_key.pub").read_text().strip()

    @property
    def home(self) -> Path:
        """The user's home folder, seen from here."""
        return Path(f"/proc/{self.pid}/root/home/{USER}")

    @property
    def pid(self) -> int:
        """The first process of the host, as this machine counts."""
        assert self._process is not None
        with open(f"/proc/{self._process.pid}/task/{self._process.pid}/children", encoding="ascii") as file:
            return int(file.read().split()[0])

    def renew_key(self) -> None:
        """Give it another host key, as an installation anew would; it counts from the next boot on."""
        for path in self.folder.glob("host_key*"):
            path.unlink()
        _keygen(self.folder / "host_key")

    def boot(self) -> None:
        """Start it; return when its SSH server answers."""
        # Should this process be killed, the kernel ends the host; to the kernel, this thread is its parent.
        self._process = self._spawner.submit(self._spawn).result()
        deadline = time.monotonic() + _READY_SECONDS
        while not self._children():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.005)
        link = self._network.link(self._number)
        _run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid))
        _run("ip", "link", "set", link, "master", self._network.bridge, "up")
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.close()
        while True:
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            with contextlib.suppress(OSError):
                socket.create_connection((self.address, 22), timeout=1.0).close()
                return
            time.sleep(0.02)

    def end(self) -> None:
        """End it with all its processes, as a power cut would; what was in its home folder is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def run(self, *command: str) -> str:
        """Run a command as root in the host's namespaces, and return what it prints."""
        return _run("nsenter", f"--target={self.pid}", "--net", "--mount", "--uts", "--pid", *command)

    def processes(self) -> set[str]:
        """Return the command lines of the user's processes, but for those of its sessions."""
        lines = self.run("ps", "-e", "-ww", "-o", "uid=,args=").splitlines()
        mine = [line.split(maxsplit=1)[1] for line in lines if line.split()[0] == str(_USER_ID)]
        return {line for line in mine if not line.startswith("sshd:")}

    def files(self) -> set[str]:
        """Return all files in the user's home folder, and those in the temporary folder."""
        home, temporary = self.home, Path(f"/proc/{self.pid}/root/tmp")
        return {str(path.relative_to(folder)) for folder in (home, temporary) for path in folder.rglob("*")}

    def cut_off(self) -> None:
        """Drop all that comes and goes, as a broken switch would."""
        for chain in ("INPUT", "OUTPUT"):
            self.run("iptables", "-I", chain, "-j", "DROP")

    def reconnect(self) -> None:
        for chain in ("INPUT", "OUTPUT"):
            self.run("iptables", "-D", chain, "-j", "DROP")

    def end_sshd(self) -> None:
        """End its SSH server with all connections, as a crash of it would; other processes live on."""
        self.run("touch", "/run/host/no-sshd")
        lines = [line.split() for line in self.run("ps", "-e", "-o", "pid=,comm=").splitlines()]
        pids = [pid for pid, command in lines if command.startswith("sshd")]
        self.run("kill", "-9", *pids)

    def start_sshd(self) -> None:
        """Start its SSH server again."""
        self.run("rm", "/run/host/no-sshd")

    def slow_down(self, rate: str) -> None:
        """Let no more than so much reach it; in the words of tc, such as ``1mbit``."""
        link = self._network.link(self._number)
        _run("tc", "qdisc", "add", "dev", link, "root", "tbf", "rate", rate, "burst", "16kb", "limit", "1mb")

    def speed_up(self) -> None:
        _run("tc", "qdisc", "del", "dev", self._network.link(self._number), "root")

    def log(self) -> str:
        return self.folder.joinpath("output").read_text(errors="replace")[-3000:]

    def _children(self) -> str:
        assert self._process is not None
        with open(f"/proc/{self._process.pid}/task/{self._process.pid}/children", encoding="ascii") as file:
            return file.read().strip()

    def _spawn(self) -> subprocess.Popen[bytes]:
        namespaces = ["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        arguments = [self.name, str(self.folder), self.address, sys.base_prefix, self._home_size]
        with open(self.folder / "output", "ab") as output:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, "sh", "-c", _BOOT, "sh", *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


@contextlib.contextmanager
def network(folder: Path) -> Iterator[Network]:
    """Give a network; it and its hosts are gone afterwards."""
    made = Network(folder)
    try:
        yield made
    finally:
        made.close()


def _free_prefix() -> str:
    taken = _run("ip", "-oneline", "address")
    while f"{(prefix := f'198.{secrets.choice((18, 19))}.{secrets.randbelow(256)}')}." in taken:
        pass
    return prefix


def _keygen(path: Path) -> None:
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path))


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout
