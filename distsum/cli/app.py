"""The commands by name, and how their errors end. A command's module is imported when it is called."""

from __future__ import annotations

from typing import Literal, get_args, get_origin

from cyclopts import App, CycloptsError
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from distsum import __version__
from distsum.cli import streams
from distsum.errors import DistsumError
from distsum.wording import printable

INTERRUPTED = 130
USAGE = 2

_JOB = "INPUT... -o OUT [OPTIONS]"
_GOES_ON = (
    "With --broker a service does it. A run here that was interrupted or killed goes on from what it has stored when "
    "the same command is given again."
)
_COMMANDS = {
    "mean": ("reduce:mean", _JOB, "Write the mean at every index of many files.", _GOES_ON),
    "sum": ("reduce:sum_", _JOB, "Write the sum at every index; exact for integers.", _GOES_ON),
    "min": ("reduce:min_", _JOB, "Write the smallest number at every index.", _GOES_ON),
    "max": ("reduce:max_", _JOB, "Write the largest number at every index.", _GOES_ON),
    "plan": (
        "plan:plan",
        "INPUT... [OPTIONS]",
        "Show how a job could run, and what it costs.",
        "Each row is a partition P with its best number of tiles; the one that would run is marked. Nothing runs.",
    ),
    "verify": (
        "verify:verify",
        "RESULT INPUT... [OPTIONS]",
        "Compare a result with the exact one.",
        "Random indices of all inputs are read again and added exactly. The exit code is 1 where the result is further "
        "from the exact one than the order of additions allows.",
    ),
    "generate": (
        "generate:generate",
        "DEST --files F --count C [OPTIONS]",
        "Write files of random numbers, to try things on.",
        "The numbers depend on the seed, the file's place and the kind of numbers, and on nothing else.",
    ),
    "gc": (
        "gc:gc",
        "PLACE [OPTIONS]",
        "Remove what killed runs have left.",
        "Unfinished outputs, uploads to S3 among them, and work folders of runs that were not gone on with. What a run "
        "holds, and the jobs of a service, stay.",
    ),
    "demo": (
        "demo:demo",
        "",
        "Make files, take their mean, and verify it.",
        "The files lie in a temporary folder (TMPDIR says where) that is removed at the end. It takes under a minute.",
    ),
    "config": (
        "config:config",
        "[OPTIONS]",
        "Show every setting, and where it came from.",
        "Flags come before DISTSUM_* variables, then distsum.toml in this folder or one above, then "
        "~/.config/distsum/config.toml, then defaults.",
    ),
    "master": (
        "processes:master",
        "--broker URI --work-dir URI [OPTIONS]",
        "Serve many jobs on workers of many machines.",
        "Where another master serves the same virtual host, wait until it is gone and go on with its jobs. SIGTERM "
        "ends it; jobs stay.",
    ),
    "worker": (
        "processes:worker",
        "--broker URI [--slots N]",
        "Do tasks for a master.",
        "SIGTERM lets the tasks at hand be finished; a second one ends them, and others do them again.",
    ),
    "submit": (
        "submitting:submit",
        "REDUCTION INPUT... -o OUT [OPTIONS]",
        "Have a job done by the service.",
        "Its id is printed when it is stored: it will run, whatever happens. All of it must lie where the workers "
        "reach it. The work folder and the workers are the service's.",
    ),
    "jobs": ("service:jobs", "[OPTIONS]", "List the service's jobs.", "The last that have ended come first."),
    "status": (
        "service:status",
        "JOB [OPTIONS]",
        "Show how a job is doing.",
        "And what waits at the broker; or what was done about stragglers. With --history it needs neither.",
    ),
    "report": (
        "report:report",
        "JOB|FILE -o FILE [OPTIONS]",
        "Write a report of a job that has ended.",
        "One page of HTML: summary, tree, time line of the workers, stragglers with the reasons, and what went wrong. "
        "It opens without a network.",
    ),
    "wait": (
        "service:wait",
        "JOB [OPTIONS]",
        "Follow a job to its end.",
        "The exit code is the one that the job would have given here.",
    ),
    "cancel": ("service:cancel", "JOB [OPTIONS]", "Stop a job, and remove what it has left.", ""),
    "prioritize": ("service:prioritize", "JOB N [OPTIONS]", "Give a job another priority.", "What runs goes on."),
    "speculate": ("service:speculate", "JOB SWITCH [OPTIONS]", "Give a job's stragglers backups, or no more.", ""),
    "backup": (
        "service:backup",
        "JOB PHASE TASK [OPTIONS]",
        "Give a running task to a second worker now.",
        "Whichever is done first counts. It is refused for a task that has not begun or runs twice already, and where "
        "no other worker is idle.",
    ),
    "workers": (
        "service:workers",
        "[OPTIONS]",
        "List the service's workers, or manage one.",
        "The last that are gone are listed, too, with the reason.",
    ),
    "doctor": (
        "doctor:doctor",
        "[OPTIONS]",
        "Check broker, store and service, and say what to do.",
        "Each line is ok, warning or failed. The exit code is 0 if nothing failed, 3 if the broker or the store cannot "
        "be reached, and else 1. A small object is written into the work folder, and removed.",
    ),
}
"""Where each command is, what it takes, and what it does, in short and in full: known without importing it."""

app = App(
    name="distsum",
    version=f"distsum {__version__}",
    usage="Usage: distsum COMMAND [ARGUMENTS] [OPTIONS]",
    help="The mean, sum, min or max at every index of many arrays, larger than memory, with the same bits every time.",
    help_epilogue="distsum COMMAND --help explains a command. Options may also be set by DISTSUM_* variables, by "
    "distsum.toml in this folder or one above, and by ~/.config/distsum/config.toml.",
    help_format="plaintext",
    print_error=False,
    exit_on_error=False,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
for _order, (_name, (_target, _usage, _short, _long)) in enumerate(_COMMANDS.items()):
    app.command(
        f"distsum.cli.{_target}",
        name=_name,
        usage=f"Usage: distsum {_name} {_usage}".rstrip(),
        help=f"{_short}\n\n{_long}",
        help_epilogue="",
        sort_key=_order,
    )
app.command(
    "distsum.cli.broker:app", name="broker", help="Prepare a RabbitMQ broker for the service.", sort_key=len(_COMMANDS)
)
EXTENSIONS = "distsum.commands"
"""Entry point group of commands that others bring, each a cyclopts App; distsum's own fleet is one."""
app["--help"].help = "Show what there is, or explain a command."
app["--version"].help = "Show the version."


def run_command(arguments: list[str]) -> int:
    """Run one command line; return its exit code. Errors of the user's own become one line on stderr."""
    if not arguments or arguments[0] not in _COMMANDS:
        _register_extensions(listed=not arguments or arguments[0].startswith("-"))
    if not arguments or arguments[0].startswith("-"):
        # Slow to import, and nothing to a command.
        app.register_install_completion_command(
            help="Let the shell complete commands and options.", help_epilogue="", sort_key=len(_COMMANDS)
        )
    try:
        code = app(arguments)
        streams.flush()
    except CycloptsError as error:
        command = " ".join(error.command_chain or ())
        streams.say(f"distsum: {printable(usage_words(error), 1000)}")
        streams.say(f"distsum: see distsum {command} --help".replace("  ", " "))
        return USAGE
    except DistsumError as error:
        streams.say(f"distsum: {printable(str(error), 4000)}")
        for note in getattr(error, "__notes__", ()):
            streams.say(f"distsum: {printable(note, 4000)}")
        return error.exit_code
    except KeyboardInterrupt:
        streams.say("distsum: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return 0  # Whoever read our output has seen enough.
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):
            return 0  # So rich, which prints the help, takes it.
        raise
    except Exception:
        streams.say("distsum: this is a fault in distsum; please report it with what follows")
        raise
    return code if isinstance(code, int) else 0


def _register_extensions(*, listed: bool) -> None:
    """Take up the commands that others bring; each is imported when it is called, or when all are listed."""
    from importlib.metadata import entry_points

    for found in entry_points(group=EXTENSIONS):
        words = {"help": found.load().help} if listed else {}
        app.command(found.value, name=found.name, sort_key=len(_COMMANDS), **words)


def usage_words(error: CycloptsError) -> str:
    """Return what is wrong with a command line, in one sentence that names the argument at fault."""
    command = " ".join(error.command_chain or ())
    unused = (error.unused_tokens or [""])[0]
    match error:
        case UnknownCommandError():
            known = [name for name in error.app or app if not name.startswith("-")]
            return f"there is no command '{unused}'{_nearest(unused, known)}"
        case UnknownOptionError():
            name = error.token.keyword or error.token.value
            known = [each for argument in error.argument_collection for each in argument.names]
            return f"{command} has no option {name}{_nearest(name, known)}".lstrip()
        case UnusedCliTokensError():
            return f"{command} takes no argument '{unused}'"
        case RepeatArgumentError():
            return f"{error.token.keyword} is given twice"
        case MissingArgumentError() if error.argument is not None:
            given = error.keyword or next((token.keyword for token in error.argument.tokens if token.keyword), None)
            return f"{given} needs a value" if given else f"{command} needs {error.argument.name}"
        case CoercionError() if error.token is not None and get_origin(error.target_type) is Literal:
            choices = ", ".join(get_args(error.target_type))
            name = error.token.keyword or (error.argument.name if error.argument is not None else command)
            return f"{name} {error.token.value}: must be one of {choices}"
    return str(error)


def _nearest(word: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(word, known, n=1)
    listed = known if not word.startswith("-") else []
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(listed)}" if listed else ""
