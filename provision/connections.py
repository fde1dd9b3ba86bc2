"""SSH connections to hosts: verified, kept alive, bounded in number and time, one a host."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
from typing import TYPE_CHECKING, Any, Final, Self

import asyncssh

from distsum.wording import printable

from .faults import HostFault
from .ranges import jump_place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from types import TracebackType

    from .fleetfile import Host
    from .trust import Trust

CONNECT_SECONDS: Final = 20.0
KEEPALIVE_SECONDS: Final = 10
KEEPALIVE_COUNT: Final = 3
SIMULTANEOUS: Final = 16
"""Connections being made at a time. Hosts behind one jump host share one connection to it, so that its limit on
connections without a login (OpenSSH's MaxStartups, 10 before it drops some) is not reached."""
_SILENT_SECONDS: Final = 1.0
"""A host that has not answered for so long is waited for without a place among those: it may be gone, and many may."""
_BUSY_SECONDS: Final = 5.0
"""Likewise for one that has answered, and then says no more."""
CIPHERS: Final = "^aes256-gcm@openssh.com,aes128-gcm@openssh.com"
"""Asked for before others: one call of a library for each packet, where ChaCha20 takes several, all in this process."""
_SSH_PORT: Final = 22


class Connections:
    """Makes the connections of one command; an async context manager that closes the jump hosts' at its end.

    Args:
        trust: Whose host keys are believed.
        trust_new: Whether to pin the key of a host of which none is known.
        configuration: OpenSSH's configuration file of this user.
    """

    def __init__(self, trust: Trust, *, trust_new: bool, configuration: str) -> None:
        self._trust = trust
        self._trust_new = trust_new
        self._configuration = [configuration] if os.path.exists(configuration) else []
        self._names_ciphers = any(_names_ciphers(path) for path in self._configuration)
        self._starting = asyncio.Semaphore(SIMULTANEOUS)
        self._jumps: dict[str, asyncio.Task[asyncssh.SSHClientConnection]] = {}
        self._keys = _Keys()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._jumps.values():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, HostFault):
                (await task).close()

    @contextlib.asynccontextmanager
    async def to(self, host: Host) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """Give a connection to a host, closed afterwards.

        Raises:
            HostFault: There is none to be had.
        """
        given: dict[str, Any] = {}
        if host.user is not None:
            given["username"] = host.user
        if host.keys:
            given["client_keys"] = await self._keys.read(host.keys)
        connection = await self._open(host.name, host.port, host.jump, given)
        try:
            yield connection
        finally:
            connection.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(connection.wait_closed(), 5.0)

    async def _open(
        self, name: str, port: int | None, jump: str | None, given: dict[str, Any], depth: int = 0
    ) -> asyncssh.SSHClientConnection:
        if depth > 4:
            raise HostFault("goes through more than four jump hosts; look for a loop of ProxyJump")
        settings: dict[str, Any] = given | {
            "host": name,
            "port": port or (),
            "config": self._configuration,
            "known_hosts": self._trust.known,
            "keepalive_interval": KEEPALIVE_SECONDS,
            "keepalive_count_max": KEEPALIVE_COUNT,
            "connect_timeout": CONNECT_SECONDS,
            "login_timeout": CONNECT_SECONDS,
            "agent_forwarding": False,
        }
        if not self._names_ciphers:
            settings["encryption_algs"] = CIPHERS
        try:
            options = await asyncssh.SSHClientConnectionOptions.construct(**settings)
        except (asyncssh.Error, OSError, ValueError) as error:
            raise HostFault(f"cannot be set up: {printable(str(error), 300)}; see its keys and ~/.ssh/config") from None
        through = jump if jump is not None else options.tunnel if isinstance(options.tunnel, str) else None
        tunnel = None
        if through is not None and through.lower() != "none":
            # Opened here and not by asyncssh, which would believe what the user's configuration believes: a
            # UserKnownHostsFile of `none` there switches the verification off.
            tunnel = await self._jump(through, depth)
        address, at = options.host_key_alias or options.host, options.port or _SSH_PORT
        try:
            async with self._place_to_start() as answers, asyncio.timeout(CONNECT_SECONDS):
                if not self._trust.knows(address, at):
                    await self._meet(address, at, options, tunnel)
                return await asyncssh.connect(**settings, tunnel=tunnel, client_factory=lambda: _Answering(answers))
        except (asyncssh.Error, OSError, TimeoutError) as error:
            raise self._fault(error, address, at, options.username) from None

    @contextlib.asynccontextmanager
    async def _place_to_start(self) -> AsyncIterator[Callable[[], None]]:
        """Hold one of the places for connections being made; give what is called when the host has answered.

        Who has heard nothing gives the place to another, so that hosts which are gone don't hold up the rest.
        """
        await self._starting.acquire()
        ended = False

        def leave() -> None:
            nonlocal ended
            if not ended:
                ended = True
                self._starting.release()

        loop = asyncio.get_running_loop()
        timers = [loop.call_later(_SILENT_SECONDS, leave)]

        def answers() -> None:
            timers.pop().cancel()
            timers.append(loop.call_later(_BUSY_SECONDS, leave))

        try:
            yield answers
        finally:
            timers.pop().cancel()
            leave()

    async def _meet(
        self,
        address: str,
        port: int,
        options: asyncssh.SSHClientConnectionOptions,
        tunnel: asyncssh.SSHClientConnection | None,
    ) -> None:
        """Pin the key of a host of which none is known, or tell its fingerprint. Nobody logs in."""
        key = await asyncssh.get_server_host_key(options.host, port, config=self._configuration, tunnel=tunnel)
        if key is None:
            raise HostFault("shows no host key; distsum connects to hosts that do")
        if not self._trust_new:
            raise HostFault(
                f"its host key is not known: {key.get_fingerprint()}; compare that with the host's own, and run again "
                "with --trust-new, or connect once with ssh"
            )
        self._trust.pin(address, port, key)

    async def _jump(self, through: str, depth: int) -> asyncssh.SSHClientConnection:
        """Return the connection to a jump host, which all hosts behind it share."""
        if through not in self._jumps:
            *before, last = through.split(",")
            user, _, place = last.rpartition("@")
            try:
                name, port = jump_place(place)
            except ValueError as error:
                raise HostFault(f"its jump host {printable(through, 80)} {error}") from None
            given: dict[str, Any] = {"username": user} if user else {}
            self._jumps[through] = asyncio.ensure_future(
                self._open(name, port, ",".join(before) or None, given, depth + 1)
            )
        try:
            return await asyncio.shield(self._jumps[through])
        except HostFault as fault:
            raise HostFault(f"its jump host {printable(through, 80)}: {fault}", unreachable=fault.unreachable) from None

    def _fault(self, error: BaseException, address: str, port: int, user: str) -> HostFault:
        where = printable(address) if port == _SSH_PORT else f"{printable(address)}:{port}"
        match error:
            case asyncssh.HostKeyNotVerifiable() | asyncssh.KeyExchangeFailed() if self._trust.knows(address, port):
                known = ", ".join(self._trust.fingerprints(address, port)) or "one of an authority"
                return HostFault(
                    f"its host key is not the one that is known ({known}): it was installed anew, or somebody is in "
                    f"between; if you know why, remove the old key (`ssh-keygen -R` and `distsum fleet down`) and "
                    f"connect again"
                )
            case asyncssh.PermissionDenied():
                return HostFault(
                    f"refuses the user {printable(user)}; add a public key of yours to its ~/.ssh/authorized_keys, or "
                    "set user or keys"
                )
            case TimeoutError():
                return HostFault(
                    f"does not answer within {CONNECT_SECONDS:.0f} s; see that {where} is up and reachable",
                    unreachable=True,
                )
            case ConnectionRefusedError():
                return HostFault(f"has no SSH server at {where}; start sshd, or set port", unreachable=True)
            case asyncssh.ConnectionLost() | asyncssh.DisconnectError():
                return HostFault(
                    f"the connection was closed: {printable(str(error), 200)}; see the log of its sshd",
                    unreachable=True,
                )
            case OSError():
                words = printable(error.strerror or str(error), 200)
                return HostFault(
                    f"cannot be reached at {where}: {words}; see its name and the network", unreachable=True
                )
        return HostFault(f"SSH failed: {printable(str(error) or type(error).__name__, 200)}; try `ssh {where}`")


class _Answering(asyncssh.SSHClient):
    """Tells when a host has taken the connection; what follows takes this process some work."""

    def __init__(self, on_answer: Callable[[], None]) -> None:
        self._on_answer = on_answer

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._on_answer()


class _Keys:
    """Private keys that a fleet's file names, each read once; a person is asked for the passphrase of a locked one."""

    def __init__(self) -> None:
        self._has_agent = bool(os.environ.get("SSH_AUTH_SOCK"))
        self._read: dict[str, asyncssh.SSHKey] = {}
        self._asking = asyncio.Lock()

    async def read(self, paths: Sequence[str]) -> list[asyncssh.SSHKey]:
        """Return the keys; those that are locked are left to the agent, if there is one.

        Raises:
            HostFault: One cannot be read, or nobody is there to be asked.
        """
        keys = []
        for path in map(os.path.expanduser, paths):
            async with self._asking:
                if path not in self._read:
                    key = await asyncio.to_thread(self._unlock, path)
                    if key is None:
                        continue
                    self._read[path] = key
            keys.append(self._read[path])
        return keys

    def _unlock(self, path: str) -> asyncssh.SSHKey | None:
        name = printable(path)
        try:
            return asyncssh.read_private_key(path)
        except OSError as error:
            raise HostFault(f"its key {name} cannot be read: {error.strerror}; set keys to where it is") from None
        except asyncssh.KeyImportError as error:
            if not str(error).startswith("Passphrase"):
                raise HostFault(f"its key {name} is none: {error}; set keys to private keys") from None
        if self._has_agent:
            return None
        if not os.isatty(0):
            raise HostFault(f"its key {name} is locked, and nobody is there to be asked; give it to ssh-agent")
        try:
            return asyncssh.read_private_key(path, getpass.getpass(f"Passphrase of {name}: "))
        except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
            raise HostFault(f"its key {name} is not unlocked by that passphrase; run the command again") from None


def _names_ciphers(path: str) -> bool:
    """Whether OpenSSH's configuration says which ciphers are used, which then is for the user to say."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return any(line.replace("=", " ").lower().split()[:1] == ["ciphers"] for line in file)
    return False
