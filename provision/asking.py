"""Questions to a host: the agent's program is sent along with each, and one line of JSON comes back."""

from __future__ import annotations

import asyncio
import json
import shlex
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import asyncssh

from distsum.wording import printable

from .agent import MARK
from .faults import HostFault

if TYPE_CHECKING:
    from collections.abc import Sequence

ANSWER_SECONDS: Final = 60.0
LEAST_PYTHON: Final = (3, 11)
# Finds the first Python that is new enough and lets it take over; the program comes over standard input, whose first
# line says how long it is. Otherwise it tells which there are, and reads to the end all the same: a channel that closes
# while it is written to loses what was said. Written for any POSIX shell; what varies are arguments.
_FIND: Final = """
for python in "$@"; do
  command -v "$python" >/dev/null 2>&1 || continue
  if "$python" -I -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then
    exec "$python" -I -c "
import sys
given = sys.stdin.buffer
exec(compile(given.read(int(given.readline())), sys.argv[1], sys.argv[2]))
" agent exec
  fi
  found="$found $python is $("$python" -V 2>&1 | head -n 1),"
done
echo "distsum-nopython $found"
while read -r line; do :; done
"""
NO_PYTHON: Final = "distsum-nopython"


def agent_command(pythons: Sequence[str]) -> str:
    """Return the command line that runs the agent in the first of some Pythons that is new enough (pure)."""
    return shlex.join(["sh", "-c", _FIND, "sh", *pythons])


def agent_input(ask: str, **arguments: Any) -> bytes:
    """Return what the command reads: the program's length, the program, and the question (pure)."""
    program = files(__package__).joinpath("agent.py").read_bytes()
    return b"%d\n%b%b\n" % (len(program), program, json.dumps(arguments | {"ask": ask}).encode())


def agent_answer(output: str, pythons: Sequence[str]) -> Any:
    """Return the answer in what a host has printed (pure).

    Raises:
        HostFault: The host says what is wrong, or what it has printed is no answer.
    """
    for line in reversed(output.splitlines()):
        if line.startswith(MARK):
            said = json.loads(line.removeprefix(MARK))
            if "fault" in said:
                raise HostFault(printable(said["fault"], 400))
            return said["answer"]
        if line.startswith(NO_PYTHON):
            least = ".".join(map(str, LEAST_PYTHON))
            there = line.removeprefix(NO_PYTHON).strip(" ,")
            tried = f"there {'is none of ' + ', '.join(pythons) if not there else 'only ' + printable(there, 200)}"
            raise HostFault(f"needs Python {least} or later; {tried}; install it, or set python to where it is")
    raise HostFault(f"gives no answer that is understood: {printable(output.strip()[-200:] or 'nothing')}")


async def ask(
    connection: asyncssh.SSHClientConnection,
    pythons: Sequence[str],
    question: str,
    seconds: float = ANSWER_SECONDS,
    **arguments: Any,
) -> Any:
    """Ask a host something; see ``agent`` for what there is to ask.

    Args:
        connection: The way to it.
        pythons: Names or paths of interpreters to try, in order.
        question: The function of the agent.
        seconds: How long the answer may take.
        arguments: Its arguments.

    Raises:
        HostFault: The host says what is wrong, does not answer in time, or the connection ends.
    """
    try:
        async with asyncio.timeout(seconds):
            done = await connection.run(
                agent_command(pythons), input=agent_input(question, **arguments), encoding=None, check=False
            )
    except TimeoutError:
        raise HostFault(f"does not answer within {seconds:.0f} s; see what it is busy with") from None
    except (asyncssh.Error, OSError) as error:
        raise HostFault(
            f"the connection ended: {printable(str(error) or type(error).__name__, 200)}; run the command again",
            unreachable=True,
        ) from None
    output, errors = _text(done.stdout), _text(done.stderr)
    return agent_answer(output if MARK in output or NO_PYTHON in output else f"{output}\n{errors}", pythons)


def _text(raw: Any) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else ""
