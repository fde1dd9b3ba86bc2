"""Simulated hosts of a fleet: SSH servers in one process, on addresses of the loopback network, answering as hosts do.

``python -m benchmarks.fleet_hosts COUNT PORT FOLDER DELAY`` serves until its standard input ends. The handshakes are
real; what a host would do takes no more than the delay: nothing is installed, and no worker runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import time
from typing import Any

import asyncssh
from distsum.provision.agent import MARK
from distsum.provision.supervisor import HELD

PREFIX = "127.0.101."


class SimulatedHost:
    """What one host has, and what it answers."""

    def __init__(self, delay_seconds: float) -> None:
        self._delay_seconds = delay_seconds
        self._environment: str | None = None
        self._workers = 0

    async def serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """Answer one question, or be a supervisor that detaches."""
        supervises = "distsum.provision.supervisor" in (process.command or "")
        if supervises:
            process.stdout.write(f"{HELD}\n".encode())
        first = (await process.stdin.readline()).strip()
        await asyncio.sleep(self._delay_seconds)
        if supervises:
            self._workers = json.loads(first)["workers"]
        else:
            await process.stdin.readexactly(int(first))
            answer = self._answer(json.loads(await process.stdin.readline()))
            process.stdout.write(f"{MARK}{json.dumps({'answer': answer})}\n".encode())
        process.exit(0)

    def _answer(self, question: dict[str, Any]) -> Any:
        match question["ask"]:
            case "probe":
                return self._facts()
            case "found":
                return self._found()
            case "missing":
                return []
            case "switch":
                self._environment = question["environment"]
            case "await":
                return {"in_time": True, "found": self._found(), "log": ""}
        return True

    def _facts(self) -> dict[str, Any]:
        libc, version = platform.libc_ver()
        return {
            "system": sys.platform,
            "machine": platform.machine(),
            "libc": libc,
            "libc_version": version,
            "python": list(sys.version_info[:3]),
            "implementation": "cpython",
            "executable": sys.executable,
            "absent_modules": [],
            "home": "/home/simulated",
            "cpus": 2,
            "memory_bytes": 1 << 36,
            "free_bytes": 1 << 36,
            "clock_seconds": time.time(),
            "open_files": 1 << 16,
            "unreached": [],
            "store": None,
            "found": self._found(),
        }

    def _found(self) -> dict[str, Any]:
        supervisor = None
        if self._workers:
            workers = [{"name": f"w{number}", "state": "ready"} for number in range(self._workers)]
            state = {"pid": 1, "environment": self._environment, "wanted": self._workers, "detached": True}
            supervisor = state | {"workers": workers}
        environments = [self._environment] if self._environment else []
        return {"current": self._environment, "environments": environments, "supervisor": supervisor, "files": True}


async def main(count: int, port: int, folder: str, delay_seconds: float) -> None:
    """Serve until standard input ends."""
    for number in range(1, count + 1):
        await asyncssh.listen(
            f"{PREFIX}{number}",
            port,
            server_host_keys=[os.path.join(folder, "host_key")],
            authorized_client_keys=os.path.join(folder, "key.pub"),
            process_factory=SimulatedHost(delay_seconds).serve,
            encoding=None,
        )
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4])))
