"""Options that several commands share, and how they become ``Options``."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from distsum.config import Settings, read_layers, resolve
from distsum.errors import UsageError
from distsum.request import Options
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

Inputs = Annotated[
    str, Parameter(name="INPUT", help="Files, folders, patterns in quotes, or @LIST with one path a line.")
]
Output = Annotated[str, Parameter(name=["--output", "-o"], help="The result: .npy, .raw or .txt.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """Options of every command that plans or runs a job; None where they are not given, so that lower layers count."""

    workers: Annotated[
        str | None, Parameter(name=["--workers", "-w"], help="Worker processes. [default: the CPUs]")
    ] = None
    partition: Annotated[
        str | None,
        Parameter(name=["--partition", "-p"], help="Files a task adds, a power of the fan-in. [default: auto]"),
    ] = None
    fan_in: Annotated[str | None, Parameter(help="Children of a node; decides the last bits. [default: 5]")] = None
    tiles: Annotated[str | None, Parameter(help="Index ranges the arrays are cut into. [default: auto]")] = None
    max_open_files: Annotated[str | None, Parameter(help="Inputs a worker holds open at once. [default: 5]")] = None
    memory: Annotated[str | None, Parameter(help="What a worker may take over its imports. [default: 512MiB]")] = None
    work_dir: Annotated[str | None, Parameter(help="Folder of partials. [default: OUT.distsum]")] = None
    keep_partials: Annotated[
        bool | None, Parameter(negative=(), help="Keep partials for a later job over some of the same inputs.")
    ] = None
    format: Annotated[
        Literal["auto", "npy", "raw", "text"] | None, Parameter(help="Format of the inputs. [default: by the suffix]")
    ] = None
    dtype: Annotated[str | None, Parameter(help="dtype of raw inputs, such as f8 or >i4.")] = None
    out_dtype: Annotated[
        str | None, Parameter(help="dtype of the result. [default: float64, or 64-bit integers where exact]")
    ] = None
    on_bad_input: Annotated[
        Literal["fail", "skip"] | None, Parameter(help="Stop at a bad input, or leave it out. [default: fail]")
    ] = None


NO_FLAGS = RunFlags()
Force = Annotated[bool, Parameter(name="--force", negative=(), help="Replace what is there.")]
Quiet = Annotated[bool | None, Parameter(name="--quiet", negative=(), help="Say nothing but errors.")]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object on stdout.")]


def settings_of(flags: RunFlags = NO_FLAGS, *, quiet: bool | None = None, **others: str | None) -> Settings:
    """Return the settings for these flags and this environment.

    Raises:
        ConfigurationError: A value, key or variable is not acceptable.
    """
    return resolve(read_layers(asdict(flags) | {"quiet": quiet} | others, os.environ, os.getcwd()))[0]


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


def paths_of(arguments: Sequence[str], settings: Settings) -> list[bytes]:
    """Return the inputs that the arguments name, in the documented order.

    Raises:
        InputListError: Nothing is named, or what is named is not there.
    """
    from distsum.inputs import expand

    return expand([os.fsencode(argument) for argument in arguments], format=settings.format)


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
