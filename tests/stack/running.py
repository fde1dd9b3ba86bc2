"""A stack that goes on in the background: a node and a server, started once, found again, and ended by identity."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tests.stack import rabbitmq
from tests.stack.processes import Identity, ServerError, detached, end, identify, runs
from tests.stack.rabbitmq import Node
from tests.stack.seaweedfs import S3Server

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping, Sequence

    from tests.stack.processes import Starter

BUCKET = "distsum"
VHOST = "distsum"
_STATE = "stack.json"


class State(msgspec.Struct):
    """What is known of a stack: its processes, and how to reach it once it is ready.

    Attributes:
        processes: What was started.
        sockets: Files that it makes elsewhere.
        broker: The virtual host, with the password.
        management: The management API, with the administrator's password.
        s3: Variables that reach the S3 server.
        ready: Whether both have answered.
    """

    processes: list[Identity] = msgspec.field(default_factory=list)
    sockets: list[str] = msgspec.field(default_factory=list)
    broker: str = ""
    management: str = ""
    s3: dict[str, str] = msgspec.field(default_factory=dict)
    ready: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """Variables that let distsum and other tools use it."""
        return {"DISTSUM_BROKER": self.broker, "DISTSUM_MANAGEMENT": self.management, **self.s3}


@dataclass(frozen=True)
class Servers:
    """A node and a server, started or about to be."""

    node: Node
    s3: S3Server

    def describe(self) -> State:
        """Return how to reach them."""
        return State(
            sockets=[str(path) for path in self.s3.sockets],
            broker=self.node.url(VHOST),
            management=self.node.management_url,
            s3=self.s3.environment,
        )


def servers(folder: Path, starter: Starter, host: str = "127.0.0.1") -> Servers:
    """Prepare both in a folder.

    Raises:
        ServerError: RabbitMQ is not installed.
    """
    if not rabbitmq.installed():
        raise ServerError(f"there is no RabbitMQ; install it with `{rabbitmq.INSTALL}`")
    for name in ("rabbitmq", "s3"):
        folder.joinpath(name).mkdir()
    keys = (secrets.token_hex(10).upper(), secrets.token_hex(20))
    return Servers(
        Node(folder / "rabbitmq", starter, vhost=VHOST, host=host),
        S3Server(folder / "s3", starter, bucket=BUCKET, keys=keys, host=host),
    )


def start(made: Servers) -> None:
    """Start both at once, and return when both answer.

    Raises:
        ServerError: One has ended, or does not answer in time.
    """
    made.node.launch()
    made.s3.launch()
    made.s3.await_ready()
    made.node.await_ready()


def up(folder: Path) -> tuple[State, bool]:
    """Start a stack that goes on when this process ends, unless it runs.

    Args:
        folder: Everything of the stack is in it; it is made, and removed by ``down``.

    Returns:
        What it is, and whether it was started just now.

    Raises:
        ServerError: It cannot be started; nothing is left of it.
    """
    with _alone(folder):
        found = read(folder)
        if found is not None and found.ready and all(map(runs, found.processes)):
            return found, False
        _remove(folder, found)
        try:
            folder.mkdir(parents=True, mode=0o700)
            return _started(folder), True
        except BaseException:
            _remove(folder, read(folder))
            raise


def down(folder: Path) -> bool:
    """End a stack, and remove all that is left of it; return whether there was anything.

    Raises:
        ServerError: A process does not end.
    """
    with _alone(folder):
        there = folder.exists()
        _remove(folder, read(folder))
    return there


def running(folder: Path) -> State | None:
    """Return the stack that runs in a folder, or None."""
    found = read(folder)
    return found if found is not None and found.ready and all(map(runs, found.processes)) else None


def read(folder: Path) -> State | None:
    """Return what a folder tells of its stack, whether that runs or not.

    Raises:
        ServerError: It tells nothing that we understand.
    """
    path = folder / _STATE
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise ServerError(f"{path} cannot be read: {error}; end what it was about, and remove {folder}") from None


def _started(folder: Path) -> State:
    state = State()

    def note() -> None:
        _write(folder, state)

    def start_noted(
        command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
    ) -> subprocess.Popen[bytes]:
        with _uninterrupted():
            process = detached(command, environment, folder, log)
            # Noted at once, so that `down` finds it also where we are killed before the rest runs.
            if (identity := identify(process.pid)) is not None:
                state.processes.append(identity)
                note()
        return process

    made = servers(folder, start_noted)
    told = made.describe()
    state.sockets, state.broker, state.management, state.s3 = told.sockets, told.broker, told.management, told.s3
    start(made)
    state.ready = True
    note()
    return state


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let interruptions wait until the end of the block: a process that is started and not noted would stay."""
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, _: caught.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if caught:
        raise KeyboardInterrupt


def _write(folder: Path, state: State) -> None:
    temporary = folder / f"{_STATE}.new"
    temporary.touch(mode=0o600)
    temporary.write_bytes(msgspec.json.encode(state))
    temporary.replace(folder / _STATE)


def _remove(folder: Path, state: State | None) -> None:
    """End what runs, and remove what is there."""
    if state is not None:
        end(state.processes)
        for socket in state.sockets:
            Path(socket).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep others from starting or ending the same stack meanwhile: by the folder around it, where no file is left."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
