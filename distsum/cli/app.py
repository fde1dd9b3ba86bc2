"""The commands by name, and how their errors end. A command's module is imported when it is called."""

from __future__ import annotations

import os
import sys

from cyclopts import App, CycloptsError

from distsum import __version__
from distsum.errors import DistsumError

INTERRUPTED = 130
USAGE = 2

app = App(
    name="distsum",
    version=f"distsum {__version__}",
    help="The mean, sum, min or max at every index of many arrays, larger than memory, with the same bits every time.",
    help_format="plaintext",
    print_error=False,
    exit_on_error=False,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
for _name, _target in (
    ("mean", "distsum.cli.reduce:mean"),
    ("sum", "distsum.cli.reduce:sum_"),
    ("min", "distsum.cli.reduce:min_"),
    ("max", "distsum.cli.reduce:max_"),
    ("plan", "distsum.cli.plan:plan"),
    ("verify", "distsum.cli.verify:verify"),
    ("generate", "distsum.cli.generate:generate"),
    ("gc", "distsum.cli.gc:gc"),
    ("demo", "distsum.cli.demo:demo"),
    ("config", "distsum.cli.config:config"),
):
    app.command(_target, name=_name)
app.register_install_completion_command()


def run_command(arguments: list[str]) -> int:
    """Run one command line; return its exit code. Errors of the user's own become one line on stderr."""
    try:
        code = app(arguments)
        sys.stdout.flush()
    except CycloptsError as error:
        print(f"distsum: {error}", file=sys.stderr)
        print("distsum: --help lists what there is", file=sys.stderr)
        return USAGE
    except DistsumError as error:
        print(f"distsum: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("distsum: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:
        print("distsum: this is a fault in distsum; please report it with what follows", file=sys.stderr)
        raise
    return code if isinstance(code, int) else 0
