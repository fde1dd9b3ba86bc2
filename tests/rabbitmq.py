"""A private RabbitMQ node on ports, an Erlang port mapper and a folder of its own, and virtual hosts on it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aio_pika
import trustme

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
INSTALL = "apt-get install rabbitmq-server"
START_SECONDS = 90.0
USER = "operator"


def installed() -> bool:
    """Whether a node could be started here; the scripts are called by path, since those on PATH ask for a user."""
    return PROGRAMS.joinpath("rabbitmq-server").exists() and shutil.which("epmd") is not None


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Node:
    """One node; everything it writes is in ``folder``.

    Attributes:
        password: Of the administrator ``USER``.
        amqp_port: AMQP without TLS.
        tls_port: AMQP with TLS.
        management_port: The management API.
        secure_management_port: The same with TLS.
        authority: Has signed the node's certificate, which is for ``localhost`` and for no address.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.password = secrets.token_hex(8)
        self.amqp_port, self.tls_port, self.management_port, self.secure_management_port, distribution, mapper = (
            free_ports(6)
        )
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(folder / "authority.pem")
        certificate = self.authority.issue_cert("localhost")
        certificate.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        self._numbers = itertools.count(1)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._spawner = ThreadPoolExecutor(1)
        home = folder / "home"
        home.mkdir()
        folder.joinpath("plugins").write_text("[rabbitmq_management].\n")
        folder.joinpath("rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.amqp_port}\n"
            "management.tcp.ip = 127.0.0.1\n"
            f"management.tcp.port = {self.management_port}\n"
            f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}\n"
            "ssl_options.verify = verify_peer\n"
            "ssl_options.fail_if_no_peer_cert = false\n"
            "management.ssl.ip = 127.0.0.1\n"
            f"management.ssl.port = {self.secure_management_port}\n"
            + "".join(
                f"{section}.cacertfile = {folder}/authority.pem\n"
                f"{section}.certfile = {folder}/certificate.pem\n"
                f"{section}.keyfile = {folder}/key.pem\n"
                for section in ("ssl_options", "management.ssl")
            )
            + f"default_user = {USER}\n"
            f"default_pass = {self.password}\n"
            "disk_free_limit.absolute = 10MB\n"
            "collect_statistics_interval = 500\n"  # the management API then sees what is new at once
            "log.file.level = warning\n"
        )
        self._mapper_port = mapper
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP": str(folder / "crash"),
            "RABBITMQ_NODENAME": "distsum@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "environment"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}",
            # The script then becomes the node instead of its parent, so that its process id is the node's.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    @property
    def running(self) -> bool:
        """Whether there is a node that has not been killed."""
        return len(self._processes) > 1 and self._processes[-1].poll() is None

    def start(self) -> None:
        """Start the node, and the port mapper if it does not run yet; return when clients are served."""
        if not self._processes:
            self._spawn("epmd", "-port", str(self._mapper_port), "-address", "127.0.0.1")
            _wait_for_port(self._mapper_port)
        self._spawn(str(PROGRAMS / "rabbitmq-server"))
        self.await_ready()

    def await_ready(self) -> None:
        """Return when clients are served, after a start of the node or of its application."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self._processes[-1].poll() is None, f"the node ended: {self.log()}"
            assert time.monotonic() < deadline, f"no node within {START_SECONDS} s: {self.log()}"
            with contextlib.suppress(OSError):
                self.management("GET", "/api/overview")
                _wait_for_port(self.amqp_port, 1.0)
                return
            time.sleep(0.05)

    def kill(self) -> None:
        """End the node as a power cut would; ``start`` brings it back with what it had confirmed."""
        node = self._processes.pop()
        node.kill()
        node.wait()

    def stop(self) -> None:
        """End everything that was started."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        self._processes.clear()
        self._spawner.shutdown()

    def control(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` on this node."""
        done = subprocess.run(
            [str(PROGRAMS / "rabbitmqctl"), "--node", "distsum@localhost", *arguments],
            env=self._environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def management(self, method: str, path: str, body: object = None) -> Any:
        """Call the management API, and return what it answers."""
        token = base64.b64encode(f"{USER}:{self.password}".encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.management_port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Basic {token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = answer.read()
        return json.loads(content) if content else None

    @contextlib.contextmanager
    def vhost(self) -> Iterator[str]:
        """Make a virtual host; give its name. It is gone afterwards, with all that is in it."""
        name = f"v{next(self._numbers)}"
        self.management("PUT", f"/api/vhosts/{name}", {})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self.management("PUT", f"/api/permissions/{name}/{USER}", everything)
        try:
            yield name
        finally:
            self.management("DELETE", f"/api/vhosts/{name}")

    def publish(self, vhost: str, queue: str, body: bytes, **properties: Any) -> None:
        """Put a message into a queue as any other program might, with these AMQP properties."""

        async def put() -> None:
            async with await aio_pika.connect(self.url(vhost), timeout=10) as connection:
                channel = await connection.channel(on_return_raises=True)
                await channel.default_exchange.publish(aio_pika.Message(body, **properties), queue, timeout=10)

        asyncio.run(put())

    def take(self, vhost: str, queue: str, count: int) -> list[Any]:
        """Wait until there are so many messages in a queue, and take them out."""
        question = {"count": count, "ackmode": "ack_requeue_false", "encoding": "base64"}
        found: list[Any] = []
        deadline = time.monotonic() + START_SECONDS
        while len(found) < count:
            found += self.management(
                "POST", f"/api/queues/{vhost}/{queue}/get", question | {"count": count - len(found)}
            )
            assert time.monotonic() < deadline, f"{len(found)} and not {count} messages in {queue}"
        return found

    def url(self, vhost: str, user: str = USER, password: str | None = None) -> str:
        """Return the address of a virtual host."""
        password = self.password if password is None else password
        return f"amqp://{user}:{quote(password, safe='')}@127.0.0.1:{self.amqp_port}/{quote(vhost, safe='')}"

    def log(self) -> str:
        """Return the end of what the node has logged."""
        texts = [path.read_text(errors="replace") for path in sorted(self.folder.glob("log/*"))]
        texts.append(self.folder.joinpath("output").read_text(errors="replace"))
        return "\n".join(texts)[-4000:]

    def _spawn(self, *command: str) -> None:
        # Should this process be killed, the kernel ends what it has started. To the kernel the thread is the parent, so
        # it must be one that lives as long as the node.
        self._processes.append(self._spawner.submit(self._start_process, command).result())

    def _start_process(self, command: tuple[str, ...]) -> subprocess.Popen[bytes]:
        with open(self.folder / "output", "ab") as output:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                env=self._environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@contextlib.contextmanager
def running_node() -> Iterator[Node]:
    """Start a node; it and its folder are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="distsum-rabbitmq-") as folder:
        node = Node(Path(folder))
        try:
            node.start()
            yield node
        finally:
            node.stop()


def _wait_for_port(port: int, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=seconds).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
