"""A fleet's connections to a real OpenSSH server on this machine: whom they trust, and what they say when they fail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from distsum.provision.connections import SIMULTANEOUS, Connections
from distsum.provision.faults import HostFault
from distsum.provision.fleetfile import Host
from distsum.provision.trust import Trust

from tests import sshd as local_sshd
from tests.command import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.sshd import LocalSshd

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, missing_service: Any) -> Iterator[LocalSshd]:
    if not os.path.exists(local_sshd.PROGRAM):
        missing_service(f"there is no OpenSSH server; install it with `{local_sshd.INSTALL}`")
    with local_sshd.running(tmp_path_factory.mktemp("sshd")) as made:
        yield made


class Client:
    """Connects from a folder with its own lists of keys and configuration."""

    def __init__(self, folder: Path, server: LocalSshd) -> None:
        self.folder = folder
        self.known = folder / "known_hosts"
        self.known.write_text(server.known)
        self.configuration = folder / "config"
        self._server = server

    def host(self, **differences: Any) -> Host:
        settings = {"name": "127.0.0.1", "port": self._server.port, "user": self._server.user}
        return Host(**(settings | {"keys": (str(self._server.key),)} | differences))

    def run(self, host: Host | None = None, command: str = "echo $HOME", *, trust_new: bool = False) -> str:
        """Run a command there, and return what it prints."""

        async def main() -> str:
            trust = Trust(str(self.folder / "pinned" / "known_hosts"), [str(self.known)])
            async with (
                Connections(trust, trust_new=trust_new, configuration=str(self.configuration)) as connections,
                connections.to(host or self.host()) as connection,
            ):
                return str((await connection.run(command)).stdout).strip()

        return asyncio.run(main())

    def cipher(self) -> str:
        """Return what a connection is encrypted with."""

        async def main() -> str:
            trust = Trust(str(self.folder / "pinned" / "known_hosts"), [str(self.known)])
            async with (
                Connections(trust, trust_new=False, configuration=str(self.configuration)) as connections,
                connections.to(self.host()) as connection,
            ):
                return str(connection.get_extra_info("send_cipher"))

        return asyncio.run(main())

    def fault(self, host: Host | None = None, *, trust_new: bool = False) -> HostFault:
        with pytest.raises(HostFault, match=r".") as caught:
            self.run(host, trust_new=trust_new)
        return caught.value


@pytest.fixture
def client(tmp_path: Path, server: LocalSshd, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return Client(tmp_path, server)


def another_key(client: Client) -> str:
    local_sshd.keygen(client.folder / "other")
    return client.folder.joinpath("other.pub").read_text()


def test_a_host_whose_key_is_known_is_connected(client: Client, server: LocalSshd) -> None:
    assert client.run() == str(server.home)


def test_keys_of_an_agent_are_used_also_locked_ones_that_the_file_names(
    client: Client, server: LocalSshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = client.folder / "kept"
    local_sshd.keygen(key, "open sesame")
    server.let_in(key)
    host = client.host(keys=())
    assert "refuses the user" in str(client.fault(host))
    place = str(client.folder / "agent")
    answer = client.folder / "answer"
    answer.write_text("#!/bin/sh\necho open sesame\n")
    answer.chmod(0o755)
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", place], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: os.path.exists(place), "an agent")
        monkeypatch.setenv("SSH_AUTH_SOCK", place)
        asking = {"SSH_ASKPASS": str(answer), "SSH_ASKPASS_REQUIRE": "force"}
        subprocess.run(["ssh-add", "-q", str(key)], env=os.environ | asking, check=True, stdin=subprocess.DEVNULL)
        assert client.run(host) == str(server.home)
        assert client.run(client.host(keys=(str(key),))) == str(server.home), "nobody is asked for a passphrase"
    finally:
        agent.terminate()
        agent.wait()


def test_nothing_of_the_agent_of_keys_is_forwarded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(client.folder / "agent"))
    client.configuration.write_text("Host *\n  ForwardAgent yes\n")
    assert client.run(command="echo agent=$SSH_AUTH_SOCK") == "agent="


def test_a_key_that_is_not_known_is_told_and_pinned_on_consent_only(client: Client, server: LocalSshd) -> None:
    client.known.write_text("")
    said = str(client.fault())
    assert re.search(r"its host key is not known: SHA256:\S{43}; compare .* --trust-new", said)
    assert client.run(trust_new=True) == str(server.home)
    assert client.run() == str(server.home), "it is known from now on"


@pytest.mark.parametrize("trust_new", [False, True])
def test_a_key_that_has_changed_stops_the_host_whatever_was_consented_to(client, trust_new) -> None:
    name = client.known.read_text().split()[0]
    client.known.write_text(f"{name} {another_key(client)}")
    assert "its host key is not the one that is known (SHA256:" in str(client.fault(trust_new=trust_new))


def test_a_configuration_that_believes_everybody_is_not_followed(client: Client) -> None:
    client.known.write_text("")
    client.configuration.write_text("Host *\n  UserKnownHostsFile none\n  StrictHostKeyChecking no\n")
    assert "its host key is not known" in str(client.fault())
    assert "its host key is not known" in str(client.fault(client.host(jump=f"127.0.0.1:{client.host().port}")))


def test_the_passphrase_of_a_key_is_asked_for_once(
    client: Client, server: LocalSshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = client.folder / "locked"
    local_sshd.keygen(key, "open sesame")
    server.let_in(key)
    host = client.host(keys=(str(key), str(key)))
    assert f"its key {key} is locked, and nobody is there to be asked; give it to ssh-agent" in str(client.fault(host))
    asked: list[str] = []
    monkeypatch.setattr(os, "isatty", lambda _: True)
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or "open sesame")
    assert client.run(host) == str(server.home)
    assert asked == [f"Passphrase of {key}: "]
    monkeypatch.setattr("getpass.getpass", lambda _: "open barley")
    assert f"its key {key} is not unlocked by that passphrase" in str(client.fault(host))


def test_openssh_configuration_is_honoured(client: Client, server: LocalSshd) -> None:
    client.configuration.write_text(
        f"Host lab\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.user}\n  IdentityFile {server.key}\n"
        f"Host behind\n  HostName 127.0.0.1\n  Port {server.port}\n  ProxyJump lab\n"
    )
    assert client.run(Host(name="lab")) == str(server.home)
    assert client.run(client.host(name="behind", port=None), "echo $SSH_CLIENT").startswith("127.0.0.1 ")


def test_the_cipher_is_a_quick_one_unless_the_configuration_names_some(client: Client) -> None:
    assert client.cipher() == "aes256-gcm@openssh.com"
    client.configuration.write_text("Host *\n  Ciphers aes128-ctr\n")
    assert client.cipher() == "aes128-ctr"


def test_a_jump_host_is_gone_through_and_verified(client: Client, server: LocalSshd) -> None:
    jump = f"{server.user}@127.0.0.1:{server.port}"
    client.configuration.write_text(f"Host *\n  IdentityFile {server.key}\n")
    assert client.run(client.host(jump=jump)) == str(server.home)
    client.known.write_text(client.known.read_text() + f"[127.0.0.1]:1 {another_key(client)}")
    said = client.fault(client.host(jump=f"{server.user}@127.0.0.1:1"))
    assert str(said).startswith(f"its jump host {server.user}@127.0.0.1:1: has no SSH server at 127.0.0.1:1")
    assert said.unreachable


@pytest.mark.parametrize(
    ("host", "words", "unreachable"),
    [
        (lambda client: client.host(keys=(str(client.folder / "other"),)), "refuses the user", False),
        (
            lambda client: client.host(keys=("/nonexistent",)),
            "its key /nonexistent cannot be read: No such file or directory; set keys",
            False,
        ),
        (lambda client: client.host(port=1), "has no SSH server at 127.0.0.1:1; start sshd, or set port", True),
        (lambda client: client.host(name="no-such-host.invalid"), "cannot be reached at no-such-host.invalid:", True),
    ],
    ids=["key", "no key", "port", "name"],
)
def test_what_fails_is_one_line_with_the_remedy(
    client: Client, host: Callable[[Client], Host], words: str, unreachable
) -> None:
    public = another_key(client)
    client.known.write_text(client.known.read_text() + f"[127.0.0.1]:1 {public}")
    fault = client.fault(host(client))
    assert words in str(fault)
    assert "\n" not in str(fault)
    assert fault.unreachable is unreachable


def test_a_port_where_nobody_speaks_ssh_is_given_up(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distsum.provision.connections.CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        client.known.write_text(f"[127.0.0.1]:{port} {another_key(client)}")
        fault = client.fault(client.host(port=port))
    assert "does not answer within" in str(fault)
    assert fault.unreachable


class Places(asyncio.Semaphore):
    """Tells when each of its places was taken once, though it may be free again by then."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.all_taken = asyncio.Event()
        self._left = count

    async def acquire(self) -> Literal[True]:
        await super().acquire()
        self._left -= 1
        if not self._left:
            self.all_taken.set()
        return True


@pytest.mark.parametrize("backlog", [100, 0], ids=["takes connections and says nothing", "takes none"])
def test_hosts_that_do_not_answer_hold_nobody_up(
    client: Client, server: LocalSshd, monkeypatch: pytest.MonkeyPatch, backlog: int
) -> None:
    monkeypatch.setattr("distsum.provision.connections._SILENT_SECONDS", 0.05)
    monkeypatch.setattr("distsum.provision.connections._BUSY_SECONDS", 0.05)
    key = another_key(client)

    async def main() -> None:
        trust = Trust(str(client.folder / "pinned" / "known_hosts"), [str(client.known)])
        async with Connections(trust, trust_new=False, configuration=str(client.configuration)) as connections:
            connections._starting = places = Places(SIMULTANEOUS)

            async def connect(host: Host) -> None:
                async with connections.to(host):
                    pass

            waiting = [asyncio.ensure_future(connect(host)) for host in silent]
            await places.all_taken.wait()
            try:
                await connect(client.host())
                assert not any(each.done() for each in waiting)
            finally:
                for each in waiting:
                    each.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)

    with contextlib.ExitStack() as stack:
        mute = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=backlog))
        for _ in range(2):  # a queue of none is full after that
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(mute.getsockname())
        port = mute.getsockname()[1]
        silent = [client.host(port=port)] * SIMULTANEOUS
        client.known.write_text(client.known.read_text() + f"[127.0.0.1]:{port} {key}")
        asyncio.run(main())


def test_nowhere_is_the_verification_of_host_keys_switched_off() -> None:
    sources = [*ROOT.glob("provision/**/*.py"), *ROOT.glob("distsum/**/*.py")]
    assert any("known_hosts" in path.read_text() for path in sources)
    for path in sources:
        assert not re.search(r"""known_hosts["']?\s*[=:]\s*None""", path.read_text()), path
