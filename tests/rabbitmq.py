"""A RabbitMQ node for tests, with TLS, that ends with them; and virtual hosts on it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aio_pika
import trustme

from tests.stack import rabbitmq
from tests.stack.processes import Tether, free_ports
from tests.stack.rabbitmq import INSTALL, PROGRAMS, START_SECONDS, USER, installed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stack.processes import Starter

__all__ = ["INSTALL", "USER", "Node", "free_ports", "installed", "running_node"]


class Node(rabbitmq.Node):
    """One node that also speaks TLS.

    Attributes:
        tls_port: AMQP with TLS.
        secure_management_port: The management API with TLS.
        authority: Has signed the node's certificate, which is for ``localhost`` and for no address.
    """

    def __init__(self, folder: Path, starter: Starter) -> None:
        self.tls_port, self.secure_management_port = free_ports(2)
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(folder / "authority.pem")
        certificate = self.authority.issue_cert("localhost")
        certificate.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        self._numbers = itertools.count(1)
        settings = (
            f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}\n"
            "ssl_options.verify = verify_peer\n"
            "ssl_options.fail_if_no_peer_cert = false\n"
            "management.ssl.ip = 127.0.0.1\n"
            f"management.ssl.port = {self.secure_management_port}\n"
        ) + "".join(
            f"{section}.cacertfile = {folder}/authority.pem\n"
            f"{section}.certfile = {folder}/certificate.pem\n"
            f"{section}.keyfile = {folder}/key.pem\n"
            for section in ("ssl_options", "management.ssl")
        )
        super().__init__(folder, starter, settings=settings)

    @property
    def running(self) -> bool:
        """Whether there is a node that has not been killed."""
        return len(self._processes) > 1 and self._processes[-1].poll() is None

    def kill(self) -> None:
        """End the node as a power cut would; ``start`` brings it back with what it had confirmed."""
        node = self._processes.pop()
        node.kill()
        node.wait()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Have the node stand still: connections stay, and nobody answers."""
        node = self._processes[-1]
        node.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            node.send_signal(signal.SIGCONT)

    def control(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` on this node."""
        done = subprocess.run(
            [str(PROGRAMS / "rabbitmqctl"), "--node", "distsum@localhost", *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def vhost(self) -> Iterator[str]:
        """Make a virtual host; give its name. It is gone afterwards, with all that is in it."""
        with rabbitmq.temporary_vhost(self.management_url, f"v{next(self._numbers)}") as name:
            yield name

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

    def depth(self, vhost: str, queue: str) -> int:
        """Return how many messages wait in a queue, as the node itself counts them."""
        listed = self.control("list_queues", "-q", "-p", vhost, "name", "messages").split()
        return int(listed[listed.index(queue) + 1])


@contextlib.contextmanager
def running_node() -> Iterator[Node]:
    """Start a node; it and its folder are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="distsum-rabbitmq-") as folder, Tether() as tether:
        node = Node(Path(folder), tether)
        node.start()
        yield node
