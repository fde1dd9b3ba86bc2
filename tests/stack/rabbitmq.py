"""A private RabbitMQ node on ports, an Erlang port mapper and a folder of its own."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from tests.stack.processes import ServerError, free_ports, listens, tail

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.stack.processes import Starter

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
INSTALL = "apt-get install rabbitmq-server"
START_SECONDS = 90.0
USER = "operator"


def installed() -> bool:
    """Whether a node could be started here; the scripts are called by path, since those on PATH ask for a user."""
    return PROGRAMS.joinpath("rabbitmq-server").exists() and shutil.which("epmd") is not None


class Node:
    """One node; everything it writes is in ``folder``.

    Args:
        folder: Is there, and empty.
        starter: Starts its processes.
        vhost: The virtual host that it has from the beginning.
        host: Address to listen on.
        settings: More lines for its configuration.

    Attributes:
        password: Of the administrator ``USER``.
        amqp_port: AMQP without TLS.
        management_port: The management API.
        environment: Variables that its programs need.
    """

    def __init__(
        self, folder: Path, starter: Starter, *, vhost: str = "/", host: str = "127.0.0.1", settings: str = ""
    ) -> None:
        self.folder = folder
        self.password = secrets.token_hex(8)
        self.host = host
        self.amqp_port, self.management_port, distribution, self._mapper_port = free_ports(4)
        self._starter = starter
        self._processes: list[subprocess.Popen[bytes]] = []
        home = folder / "home"
        home.mkdir()
        folder.joinpath("plugins").write_text("[rabbitmq_management].\n", encoding="utf-8")
        folder.joinpath("rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {host}:{self.amqp_port}\n"
            f"management.tcp.ip = {host}\n"
            f"management.tcp.port = {self.management_port}\n"
            f"default_vhost = {vhost}\n"
            f"default_user = {USER}\n"
            f"default_pass = {self.password}\n"
            "loopback_users = none\n"
            "disk_free_limit.absolute = 10MB\n"
            "collect_statistics_interval = 500\n"  # the management API then sees what is new at once
            "log.file.level = warning\n" + settings,
            encoding="utf-8",
        )
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._mapper_port),
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

    def start(self) -> None:
        """Start the node, and the port mapper if it does not run yet; return when clients are served.

        Raises:
            ServerError: It has ended, or does not answer in time.
        """
        self.launch()
        self.await_ready()

    def launch(self) -> None:
        """Start the processes: the port mapper, which the node looks for, and the node.

        Raises:
            ServerError: The port mapper does not answer.
        """
        if not self._processes:
            self._spawn("epmd", "-port", str(self._mapper_port), "-address", "127.0.0.1")
            deadline = time.monotonic() + 10.0
            while not listens("127.0.0.1", self._mapper_port):
                if time.monotonic() > deadline:
                    raise ServerError(f"no Erlang port mapper: {self.log()}")
                time.sleep(0.01)
        self._spawn(str(PROGRAMS / "rabbitmq-server"))

    def await_ready(self) -> None:
        """Return when clients are served, after a start of the node or of its application.

        Raises:
            ServerError: The node has ended, or does not answer in time.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self._processes[-1].poll() is not None:
                raise ServerError(f"the RabbitMQ node ended: {self.log()}")
            if time.monotonic() > deadline:
                raise ServerError(f"no RabbitMQ node within {START_SECONDS:.0f} s: {self.log()}")
            with contextlib.suppress(OSError):
                self.management("GET", "/api/overview")
                if listens(self.host, self.amqp_port):
                    return
            time.sleep(0.05)

    def management(self, method: str, path: str, body: object = None) -> Any:
        """Call the management API, and return what it answers."""
        return call_management(self.management_url, method, path, body)

    def url(self, vhost: str, user: str = USER, password: str | None = None) -> str:
        """Return the address of a virtual host."""
        password = self.password if password is None else password
        return f"amqp://{user}:{quote(password, safe='')}@{self.host}:{self.amqp_port}/{quote(vhost, safe='')}"

    @property
    def management_url(self) -> str:
        """The address of the management API, for its administrator."""
        return f"http://{USER}:{self.password}@{self.host}:{self.management_port}"

    def log(self) -> str:
        """Return the end of what the node has logged."""
        logs = [*sorted(self.folder.glob("log/*")), self.folder / "output"]
        return "\n".join(tail(path) for path in logs)[-4000:]

    def _spawn(self, *command: str) -> None:
        self._processes.append(self._starter(command, self.environment, self.folder, self.folder / "output"))


def call_management(url: str, method: str, path: str, body: object = None) -> Any:
    """Call a management API, whose URL holds user and password, and return what it answers."""
    parts = urlsplit(url)
    token = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
    request = urllib.request.Request(
        f"http://{parts.hostname}:{parts.port}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Basic {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        content = answer.read()
    return json.loads(content) if content else None


@contextlib.contextmanager
def temporary_vhost(management: str, name: str) -> Iterator[str]:
    """Make a virtual host for the administrator ``USER``; it is gone afterwards, with all that is in it."""
    call_management(management, "PUT", f"/api/vhosts/{name}", {})
    try:
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        call_management(management, "PUT", f"/api/permissions/{name}/{USER}", everything)
        yield name
    finally:
        call_management(management, "DELETE", f"/api/vhosts/{name}")
