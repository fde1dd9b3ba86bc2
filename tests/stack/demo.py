"""``just demo-cluster``: the service over RabbitMQ and S3, from nothing to a verified result, and gone again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from distsum.brokers.address import BrokerAddress
from distsum.cli.demo import account_lines
from distsum.cli.progress import Progress, size_words, summary_lines
from distsum.cli.verify import verification_lines
from distsum.embedded import run
from distsum.generate import generate
from distsum.inputs import expand
from distsum.request import Options
from distsum.service.rabbitmq import connect
from distsum.stores.routing import RoutingStore
from distsum.verification import verify
from distsum.wording import time_words
from tests.stack.processes import ServerError, Tether, tail
from tests.stack.rabbitmq import temporary_vhost
from tests.stack.running import BUCKET, running, servers, start

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping

    from distsum.service.client import ServiceClient
    from distsum.service.messages import JobStatus
    from tests.stack.processes import Starter

_PARTITION = 5
_WORKERS = 2
_READY_SECONDS = 60.0


def demo(folder: Path, files: int, count: int) -> int:
    """Run the demo over the stack in a folder, or over one of its own, which ends with this process.

    Args:
        folder: Where a stack may run.
        files: Inputs.
        count: Numbers in each.

    Returns:
        The exit code: 1 where the result is not what it must be.

    Raises:
        ServerError: A server or process could not be started.
    """
    with contextlib.ExitStack() as exits:
        place = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="distsum-demo-")))
        tether = exits.enter_context(Tether())
        state = running(folder)
        if state is None:
            _say("starting a RabbitMQ node and an S3 server")
            made = servers(place, tether)
            state = made.describe()
            exits.callback(_remove, state.sockets)
            start(made)
        else:
            _say("over the stack that `just stack` has started")
        # A virtual host and a folder of its own: another master may serve that stack.
        name = f"demo-{secrets.token_hex(4)}"
        exits.enter_context(temporary_vhost(state.management, name))
        broker = state.broker.rpartition("/")[0] + f"/{name}"
        exits.enter_context(_set(state.environment | {"DISTSUM_BROKER": broker}))
        prefix = f"s3://{BUCKET}/{name}"
        store = exits.enter_context(contextlib.closing(RoutingStore()))
        exits.callback(store.delete_all, prefix.encode(), set())
        processes = exits.enter_context(Tether())  # which end before what they work with is removed
        return _demo(place, processes, prefix, files, count)


def _demo(place: Path, starter: Starter, prefix: str, files: int, count: int) -> int:
    _say(f"making {files} files of {count:,} random numbers, {size_words(files * count * 8)}, in {prefix}/runs")
    began = time.perf_counter()
    generate(f"{prefix}/runs", files=files, count=count, distribution="normal")
    _say(f"made in {time_words(time.perf_counter() - began)}")

    _say(f"\n$ distsum master --work-dir {prefix}/work &")
    _process(place, starter, "master", "master", "--work-dir", f"{prefix}/work")
    inputs = expand([f"{prefix}/runs"])
    output = f"{prefix}/mean.npy".encode()
    options = Options(partition=_PARTITION, digest=True)
    address = BrokerAddress.parse(os.environ["DISTSUM_BROKER"])
    with connect(address, RoutingStore(), _READY_SECONDS) as client:
        client.describe()  # A worker before its master would be told that nothing is set up there, and leave.
        for number in range(1, _WORKERS + 1):
            _say("$ distsum worker --slots 1 &")
            _process(place, starter, f"worker{number}", "worker", "--slots", "1")
        names = _await_workers(client, place)
        _say(f"workers {' and '.join(names)} have joined")
        _say(f"\n$ distsum submit mean {prefix}/runs -o {prefix}/mean.npy --partition {_PARTITION} --wait")
        job = client.submit_job("mean", inputs, output, options)
        with Progress(quiet=False) as progress:

            def show(status: JobStatus) -> None:
                if status.snapshot is not None:
                    progress.show(status.snapshot)

            summary = client.wait(job, on_status=show)
    for line in summary_lines(summary):
        _say(line)

    _say(f"\n$ distsum verify {prefix}/mean.npy {prefix}/runs")
    found = verify(output, inputs)
    for line in verification_lines(found):
        _say(line)
    _say("\nwhere the time went")
    for line in account_lines(summary):
        _say(line)

    _say("\n$ distsum mean runs -o mean.npy        # the same numbers, on this machine alone")
    generate(str(place / "runs"), files=files, count=count, distribution="normal")
    local = place / "mean.npy"
    run("mean", expand([str(place / "runs")]), os.fsencode(local), Options(digest=False))
    same = hashlib.sha256(local.read_bytes()).hexdigest() == summary.digest
    _say(f"its bytes are {'the same' if same else 'NOT THE SAME'} as those of the cluster's: SHA-256 {summary.digest}")
    _say("\nall of it is removed again")
    return 0 if found.ok and same else 1


def _process(place: Path, starter: Starter, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    return starter([sys.executable, "-m", "distsum", *arguments], dict(os.environ), place, place / f"{name}.log")


def _await_workers(client: ServiceClient, place: Path) -> list[str]:
    """Wait until the workers have joined; return their names."""
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        names = [each.worker for each in client.workers() if each.state == "idle"]
        if len(names) >= _WORKERS:
            return names
        if time.monotonic() > deadline:
            logs = "\n".join(tail(path) for path in sorted(place.glob("*.log")))
            raise ServerError(f"no {_WORKERS} workers within {_READY_SECONDS:.0f} s: {logs}")
        time.sleep(0.1)


@contextlib.contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and nothing else of AWS or distsum, until the end of the block."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(("AWS_", "DISTSUM_")):
            del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _remove(sockets: list[str]) -> None:
    for socket in sockets:
        Path(socket).unlink(missing_ok=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
