"""A real S3 server for tests, SeaweedFS, on ports and in a folder of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import botocore.session
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACCESS_KEY = "CANARYACCESSKEY00001"
SECRET_KEY = "canarySecretKey/wJalrXUtnFEMI+K7MDENG"  # known to nothing but this server
_PORTS = ("s3", "master", "filer", "volume", "admin")
_START_SECONDS = 30


class S3Server:
    """A running server; ``environment`` is what reaches it."""

    def __init__(self, folder: Path) -> None:
        program = os.path.join(os.path.dirname(sys.executable), "weed")
        self._program = program if os.path.exists(program) else shutil.which("weed") or program
        self._folder = folder
        self.port, *others = free_ports(2 * len(_PORTS))
        self._ports = [self.port, *others]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.environment = environment(self.endpoint, folder)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @staticmethod
    def installed() -> bool:
        return os.path.exists(os.path.join(os.path.dirname(sys.executable), "weed")) or shutil.which("weed") is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        ports = iter(self._ports)
        data = self._folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        arguments = [f"-{name}.port{kind}={next(ports)}" for name in _PORTS for kind in ("", ".grpc")]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    "mini",
                    f"-dir={data}",
                    "-ip=127.0.0.1",
                    "-ip.bind=127.0.0.1",
                    "-admin.ui=false",
                    "-webdav=false",
                    "-s3.port.iceberg=0",
                    "-s3.port.lance=0",
                    "-s3.autoCreateBucket=false",
                    "-s3.allowDeleteBucketNotEmpty=true",
                    "-bucket=tests",
                    *arguments,
                ],
                cwd=self._folder,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - one call of the kernel, and no thread holds a lock it needs
            )
        deadline = time.monotonic() + _START_SECONDS
        while not (self._ready() and self._has_bucket()):
            assert self._process.poll() is None, (self._folder / "log").read_text(errors="replace")[-2000:]
            assert time.monotonic() < deadline, "the S3 server does not answer"
            time.sleep(0.05)

    def _ready(self) -> bool:
        """Whether a request without a signature is refused, as it is once the keys are known."""
        try:
            with urllib.request.urlopen(f"{self.endpoint}/tests"):
                return False
        except urllib.error.HTTPError as error:
            error.close()
            return error.code == 403
        except OSError:
            return False

    def _has_bucket(self) -> bool:
        """Whether the bucket has been made, which happens after the first requests are answered."""
        client = botocore.session.get_session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        try:
            client.head_bucket(Bucket="tests")
        except ClientError:
            return False
        finally:
            client.close()
        return True

    def kill(self) -> None:
        """End the server, as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()


def end_with_parent() -> None:
    """Have the kernel end this process when the tests do, also where those are killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def environment(endpoint: str, folder: Path) -> dict[str, str]:
    """Return variables that reach a server, and keep whatever else this machine is set up for out of it."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(folder / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-credentials"),
    }


@contextlib.contextmanager
def running(folder: Path) -> Iterator[S3Server]:
    """Give a server that is gone afterwards."""
    server = S3Server(folder)
    try:
        yield server
    finally:
        server.kill()


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
