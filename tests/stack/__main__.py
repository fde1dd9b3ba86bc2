"""``just stack``, ``stack-down`` and ``demo-cluster``: what to set goes to stdout, words for people to stderr."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.stack.processes import ServerError
from tests.stack.running import BUCKET, down, up

if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

    from tests.stack.running import State

FOLDER = Path(__file__).parents[2] / ".stack"


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.stack", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the stack is (default: %(default)s)")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("up", help="start it, unless it runs; say how to reach it")
    actions.add_parser("down", help="end it, and remove all of it")
    demonstration = actions.add_parser("demo", help="run a job over it, or over a stack of the demo's own")
    demonstration.add_argument("--files", type=int, default=125)
    demonstration.add_argument("--count", type=int, default=100_000)
    given = parser.parse_args()
    folder = given.folder.absolute()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        match given.action:
            case "up":
                state, new = up(folder)
                _tell(state, new=new)
            case "down":
                say("the stack is gone" if down(folder) else "no stack runs")
            case _:
                from tests.stack.demo import demo

                return demo(folder, given.files, given.count)
    except ServerError as error:
        say(f"stack: {error}")
        return 1
    except KeyboardInterrupt:
        say("stack: interrupted; nothing is left")
        return 130
    return 0


def say(line: str) -> None:
    """Tell a person a line."""
    print(line, file=sys.stderr, flush=True)


def _tell(state: State, *, new: bool) -> None:
    say("the stack runs in the background; `just stack-down` ends it" if new else "the stack runs already")
    say(f"RabbitMQ  {state.broker}  (management: {state.management})")
    say(f"S3        {state.s3['AWS_ENDPOINT_URL']}  (bucket: s3://{BUCKET})")
    say('set this, by hand or by eval "$(just stack)":\n')
    # What a person has set up for AWS itself would be sent here, and refused.
    print("unset AWS_PROFILE AWS_SESSION_TOKEN")
    for name, value in state.environment.items():
        print(f"export {name}={shlex.quote(value)}")


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
