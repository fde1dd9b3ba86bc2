"""How soon could two processes be done that only read with aiobotocore and add? A bound for workers that use it.

There is no queue, no master, no attempt that could be made again, and nothing is stored but the sum of the second
process and the result. ``python -m benchmarks.cluster_bare BUCKET PREFIX RANK`` is one of the two: it connects, says
that it is up, and goes on when it is told to by a line on its standard input.
"""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import time
from collections import deque
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from aiobotocore.session import get_session

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

PROCESSES = 2
AT_ONCE = 5
_SUM = "bare-sum.npy"


def seconds(bucket: str, prefix: str, environment: Mapping[str, str]) -> float:
    """Return how long two processes that are up take for the mean of all objects under a prefix."""
    command = [sys.executable, "-m", "benchmarks.cluster_bare", bucket, prefix]
    first, second = (
        subprocess.Popen(
            [*command, str(rank)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for rank in range(PROCESSES)
    )
    with first, second:
        assert _heard(first) == _heard(second) == "up"
        began = time.perf_counter()
        _tell(first)
        _tell(second)
        assert _heard(second) == "stored"
        _tell(first)  # which takes what the other has stored
        assert _heard(first) == "stored"
        return time.perf_counter() - began


def _heard(process: subprocess.Popen[str]) -> str:
    return _stream(process.stdout).readline().strip()


def _tell(process: subprocess.Popen[str]) -> None:
    stream = _stream(process.stdin)
    stream.write("go on\n")
    stream.flush()


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


async def _main(bucket: str, prefix: str, rank: int) -> None:
    async with get_session().create_client("s3") as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        names = sorted([each["Key"] async for page in pages for each in page["Contents"]])
        print("up", flush=True)
        sys.stdin.readline()
        total = await _sum(client, bucket, names[rank::PROCESSES])
        if rank == 0:
            sys.stdin.readline()
            total += await _numbers(client, bucket, _SUM)
            total /= len(names)
        np.save(result := io.BytesIO(), total)
        await client.put_object(Bucket=bucket, Key=_SUM if rank else "bare.npy", Body=result.getvalue())
        print("stored", flush=True)


async def _sum(client: Any, bucket: str, names: list[str]) -> npt.NDArray[np.float64]:
    """Return the sum of some objects in order, a few of which are read at once."""
    left = deque(names)
    waiting: deque[asyncio.Task[npt.NDArray[np.float64]]] = deque()
    total = None
    while left or waiting:
        while left and len(waiting) < AT_ONCE:
            waiting.append(asyncio.ensure_future(_numbers(client, bucket, left.popleft())))
        values = await waiting.popleft()
        total = np.array(values) if total is None else np.add(total, values, out=total)
    assert total is not None
    return total


async def _numbers(client: Any, bucket: str, name: str) -> npt.NDArray[np.float64]:
    answer = await client.get_object(Bucket=bucket, Key=name)
    content = memoryview(await answer["Body"].read())
    np.lib.format.read_magic(head := io.BytesIO(content[:4096]))
    np.lib.format.read_array_header_1_0(head)
    return np.frombuffer(content, np.float64, offset=head.tell())


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
