"""Options that several commands share, and how they become ``Options``."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from distsum.config import Settings, read_layers, resolve
from distsum.errors import UsageError
from distsum.request import Options
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cyclopts import Token

    from distsum.stores.routing import RoutingStore


def as_given(_: object, tokens: Sequence[Token]) -> str:
    """Return a name of a file as it was typed: a ``Path`` would turn ``./@list`` into ``@list``."""
    return tokens[0].value


# Names of files are texts, taken as they are. That they may be paths tells the shell's completion to offer files.
FileName = str | Path
Inputs = Annotated[
    FileName,
    Parameter(
        name="INPUT",
        converter=as_given,
        help="Files, folders or patterns in quotes, here or as s3://BUCKET/KEY, or @LIST with one path a line.",
    ),
]
Output = Annotated[
    FileName,
    Parameter(
        name=["--output", "-o"],
        metavar="OUT",
        converter=as_given,
        help="The result, here or in S3: .npy, .raw or .txt by its suffix.",
    ),
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """Options of every command that plans or runs a job; None where they are not given, so that lower layers count."""

    workers: Annotated[
        str | None,
        Parameter(
            name=["--workers", "-w"],
            metavar="N",
            help="Worker processes; of a service, how many to plan for. [default: one a CPU; all that a service has]",
        ),
    ] = None
    partition: Annotated[
        str | None,
        Parameter(
            name=["--partition", "-p"],
            metavar="P",
            help="Files that a task adds: a power of the fan-in, or auto. [default: auto]",
        ),
    ] = None
    fan_in: Annotated[
        str | None,
        Parameter(
            metavar="R", help="Files or sums added up at a time: the only option that changes last bits. [default: 5]"
        ),
    ] = None
    tiles: Annotated[
        str | None,
        Parameter(metavar="N", help="Index ranges that the arrays are cut into, or auto. [default: auto]"),
    ] = None
    max_open_files: Annotated[
        str | None, Parameter(metavar="N", help="Files that a worker holds open at once. [default: 5]")
    ] = None
    memory: Annotated[
        str | None,
        Parameter(metavar="SIZE", help="What a worker may take, beside Python and numpy. [default: 512MiB]"),
    ] = None
    work_dir: Annotated[
        FileName | None,
        Parameter(
            metavar="DIR",
            converter=as_given,
            help="Folder of partials (intermediate results), from which a run goes on. [default: OUT.distsum]",
        ),
    ] = None
    keep_partials: Annotated[
        bool | None, Parameter(help="Keep the partials, for a later job over more files. [default: no]")
    ] = None
    format: Annotated[
        Literal["auto", "npy", "raw", "text"] | None,
        Parameter(metavar="FORMAT", help="Format of the inputs. [default: by the suffix]"),
    ] = None
    dtype: Annotated[
        str | None, Parameter(metavar="DTYPE", help="dtype of raw inputs, such as f8, >i4 or float32.")
    ] = None
    out_dtype: Annotated[
        str | None,
        Parameter(
            metavar="DTYPE",
            help="dtype of the result. [default: float64 or complex128; 64-bit integers where exact]",
        ),
    ] = None
    on_bad_input: Annotated[
        Literal["fail", "skip"] | None,
        Parameter(metavar="WHAT", help="Stop at a bad input, or leave it out and say so. [default: fail]"),
    ] = None


NO_FLAGS = RunFlags()
Speculation = Annotated[
    str | None,
    Parameter(
        name="--speculation",
        metavar="KEY=VALUE,...",
        help="When slow tasks get a second worker, or none. [default: quantile=0.75,multiplier=1.2 and more, see "
        "distsum config]",
    ),
]
NoSpeculation = Annotated[
    bool,
    Parameter(name="--no-speculation", negative=(), show_default=False, help="Never give a task to a second worker."),
]
Broker = Annotated[
    str | None,
    Parameter(
        name="--broker",
        metavar="URI",
        help="amqp://USER:PASSWORD@HOST/VHOST. Better set DISTSUM_BROKER: others see a command's arguments.",
    ),
]
Force = Annotated[bool, Parameter(name="--force", negative=(), show_default=False, help="Replace what is there.")]
Quiet = Annotated[bool | None, Parameter(name="--quiet", help="Say nothing but errors. [default: no]")]
Json = Annotated[
    bool,
    Parameter(name="--json", negative=(), show_default=False, help="Print one JSON object as stdout's last line."),
]


def settings_of(
    flags: RunFlags = NO_FLAGS, *, quiet: bool | None = None, **others: str | bool | list[str] | None
) -> Settings:
    """Return the settings for these flags and this environment.

    Raises:
        ConfigurationError: A value, key or variable is not acceptable.
    """
    return resolve(read_layers(asdict(flags) | {"quiet": quiet} | others, os.environ, current_folder()))[0]


def speculation_flag(speculation: str | None, *, off: bool) -> str | None:
    """Return what two flags say together.

    Raises:
        UsageError: They contradict each other.
    """
    if off and speculation is not None:
        raise UsageError("--no-speculation leaves nothing for --speculation to say; give one of them")
    return "none" if off else speculation


def current_folder() -> str:
    """Return the folder that the command runs in.

    Raises:
        UsageError: It has been removed.
    """
    try:
        return os.getcwd()
    except OSError as error:
        raise UsageError(
            f"the current folder cannot be found ({error.strerror}); change to one that is there"
        ) from None


def options_of(settings: Settings, *, force: bool, digest: bool) -> Options:
    """Return what the engine takes."""
    return Options(
        workers=settings.workers,
        partition=settings.partition,
        fan_in=settings.fan_in,
        tiles=settings.tiles,
        max_open_files=settings.max_open_files,
        memory_bytes=settings.memory,
        work_dir=settings.work_dir,
        keep_partials=settings.keep_partials,
        format=settings.format,
        dtype=settings.dtype,
        out_dtype=settings.out_dtype,
        on_bad_input=settings.on_bad_input,
        force=force,
        digest=digest,
    )


def service_options(flags: RunFlags, settings: Settings, *, force: bool) -> Options:
    """Return how a job of the service is to run.

    Its work folder is the service's, and its workers are those that the service has: what lower layers set of both is
    meant for runs on this machine. As an option, the number of workers is that to plan for.

    Raises:
        UsageError: A work folder is given as an option.
    """
    if flags.work_dir is not None:
        raise UsageError(
            f"--work-dir {printable(str(flags.work_dir))}: a service keeps jobs in its own work folder; leave it out"
        )
    import msgspec

    workers = settings.workers if flags.workers is not None else None
    return msgspec.structs.replace(options_of(settings, force=force, digest=True), work_dir=None, workers=workers)


def paths_of(arguments: Sequence[FileName], settings: Settings, store: RoutingStore | None = None) -> Sequence[bytes]:
    """Return the inputs that the arguments name, in the documented order.

    Args:
        arguments: As they were typed.
        settings: Which format is meant.
        store: What lists ``s3://``; None for one of its own.

    Raises:
        InputListError: Nothing is named, or what is named is not there.
    """
    from distsum.inputs import expand

    return expand([os.fsencode(argument) for argument in arguments], format=settings.format, store=store)


def whole_number(name: str, text: str, least: int = 0) -> int:
    """Return an option's whole number.

    Raises:
        UsageError: It is none, or too small.
    """
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise UsageError(f"{name} {printable(text, 80)}: must be a whole number of at least {least}")
    return number


def plain(value: Any) -> Any:
    """Return a Struct as what the json module takes; file names keep bytes that are not UTF-8 as escapes."""
    import msgspec

    return msgspec.to_builtins(value)
