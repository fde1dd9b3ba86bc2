"""What is asked of a service, as texts that somebody writes: the command that would ask for it, and what is wrong.

The Submit screen of ``distsum top`` is a way to write a ``distsum submit``: what it asks for is checked and carried out
as that command is.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, cast, get_args

import msgspec

from distsum.cli.options import RunFlags, current_folder, paths_of, service_options, settings_of
from distsum.config import flag_layer, read_layers, resolve
from distsum.errors import BadInputError, ConfigurationError, DistsumError, InputListError, OutputError, UsageError
from distsum.request import ReductionName, priority_of
from distsum.stores.base import StoreInterruptedError
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event

    from distsum.planning import PlanReport
    from distsum.request import Options
    from distsum.service.client import ServiceClient
    from distsum.stores.routing import RoutingStore

REDUCTIONS: Final[tuple[ReductionName, ...]] = get_args(ReductionName)
OPTIONS: Final = tuple(each.name for each in fields(RunFlags) if each.name not in {"work_dir", "keep_partials"})
"""Options of ``distsum submit`` that are texts and say how a job runs, by their fields."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody asks a service for, as it is written.

    Attributes:
        reduction: For example ``mean``.
        inputs: As on a command line: names and patterns, with quotes around those that hold blanks.
        output: Its name, likewise.
        priority: A whole number.
        force: Whether a result that is there is replaced.
        options: Texts of options by their fields in ``RunFlags``; empty ones are not given.
    """

    reduction: str = "mean"
    inputs: str = ""
    output: str = ""
    priority: str = "0"
    force: bool = False
    options: dict[str, str] = {}


def words_of(wanted: Wanted) -> list[str]:
    """Return the arguments of ``distsum submit`` that ask for it.

    Raises:
        InputListError: A quote in the inputs has no end.
        OutputError: Likewise in the output, or that is more than one name.

    >>> words_of(Wanted(inputs="a 'b c/*.npy'", output="o.npy", priority="5", options={"fan_in": "4"}))
    ['mean', 'a', 'b c/*.npy', '-o', 'o.npy', '--fan-in', '4', '--priority', '5']
    """
    inputs = input_words(wanted.inputs)
    dashed = any(each.startswith("-") for each in inputs)
    words = [wanted.reduction, *([] if dashed else inputs), *_option("-o", output_name(wanted.output))]
    for name, text in wanted.options.items():
        words += _option(f"--{name.replace('_', '-')}", text) if text else []
    words += _option("--priority", wanted.priority) if wanted.priority.strip() != "0" else []
    words += ["--force"] if wanted.force else []
    return [*words, "--", *inputs] if dashed else words


def _option(name: str, text: str) -> list[str]:
    """Return an option with its text, which may look like an option itself."""
    return [f"{'--output' if name == '-o' else name}={text}"] if text.startswith("-") else [name, text]


def input_words(text: str) -> list[str]:
    """Return the names that a text holds, as a shell would have them without looking at any file.

    Raises:
        InputListError: A quote has no end.
    """
    return _split(text, InputListError)


def output_name(text: str) -> str:
    """Return the name that a text holds, without its quotes; empty where there is none.

    Raises:
        OutputError: A quote has no end, or there is more than one name.

    >>> output_name("'a b.npy'"), output_name(" a.npy ")
    ('a b.npy', 'a.npy')
    """
    names = _split(text, OutputError)
    if len(names) > 1:
        raise OutputError(f"{printable(text, 80)}: {len(names)} names; quotes go around one that holds blanks")
    return "".join(names)


def _split(text: str, kind: type[InputListError | OutputError]) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise kind(f"{printable(text, 80)}: {_QUOTING.get(str(error), str(error))}") from None


_QUOTING: Final = {
    "No closing quotation": "a quote is opened and not closed",
    "No escaped character": "a backslash at the end stands for nothing; write two of them",
}


def command_line(wanted: Wanted) -> str:
    """Return the command that asks for it, to be copied; what is missing stands there as in the command's help."""
    try:
        words = [shlex.quote(word) for word in words_of(wanted)]
    except (InputListError, OutputError):
        words = [wanted.reduction, wanted.inputs, "-o", wanted.output]
    if not wanted.inputs.strip():
        words.insert(1, "INPUT...")
    if not wanted.output.strip():
        words[words.index("-o") + 1] = "OUT"
    return " ".join(["distsum", "submit", *words])


def flaws(wanted: Wanted) -> dict[str, str]:
    """Return what is wrong with it, by the field at fault, as far as that is seen without looking at any file."""
    found = {}
    for name, text in wanted.options.items():
        if text:
            try:
                resolve([flag_layer({name: text})])
            except ConfigurationError as error:
                found[name] = str(error)
    for name, check in (
        ("priority", lambda: priority_of("--priority", wanted.priority)),
        ("inputs", lambda: input_words(wanted.inputs)),
        ("output", lambda: output_name(wanted.output)),
    ):
        try:
            check()
        except UsageError as error:
            found[name] = str(error)
    return found


def field_at_fault(error: DistsumError, wanted: Wanted) -> str | None:
    """Return the field that an error is about; None of what no field is to be blamed for, such as the broker."""
    words = str(error)
    for name in ("priority", *OPTIONS):
        option = name.replace("_", "-")
        if words.startswith((f"--{option} ", f"--{option}:", f"{option} ")):
            return name
    if isinstance(error, OutputError):
        return "output"
    if isinstance(error, InputListError | BadInputError):
        return "inputs"
    if words.startswith(f"{wanted.reduction} "):
        return "reduction"
    # A bucket, perhaps: whose? Inputs are listed before the output is looked for.
    texts = (("inputs", wanted.inputs), ("output", wanted.output))
    places = [(name, each.strip("'\"")) for name, text in texts for each in text.split()]
    buckets = [(name, place.split("/")[2]) for name, place in places if place.startswith("s3://")]
    return next((name for name, bucket in buckets if bucket and f"s3://{bucket}" in words), None)


def placeholders() -> dict[str, str]:
    """Return what counts of each option that is not given, in words.

    Raises:
        ConfigurationError: A variable or file is not acceptable.
    """
    _, origins = resolve(read_layers({}, os.environ, current_folder()))
    return {each.key.replace("-", "_"): each.words() for each in origins if each.key.replace("-", "_") in OPTIONS}


def plan_wanted(client: ServiceClient, store: RoutingStore, wanted: Wanted, stop: Event) -> PlanReport:
    """Return the plan of what is wanted, as the service would have it now; nothing is stored.

    Args:
        client: The way to the service.
        store: What it looks into; heeds the event.
        wanted: What it is.
        stop: Set by another thread when nobody wants it any more.

    Raises:
        StoreInterruptedError: Nobody does.
        DistsumError: What ``submit_wanted`` would raise before it stores anything.
    """
    paths, options, _ = _checked(store, wanted, stop)
    return client.prepare_job(cast("ReductionName", wanted.reduction), paths, _name(wanted), options).report


def submit_wanted(client: ServiceClient, store: RoutingStore, wanted: Wanted, stop: Event) -> str:
    """Have a service do what is wanted; return the job's id. Once it is handed over, nothing stops that.

    Args:
        client: As for ``plan_wanted``, as the others.
        store: Likewise.
        wanted: Likewise.
        stop: Likewise.

    Raises:
        StoreInterruptedError: It was stopped before.
        DistsumError: As ``ServiceClient.submit_job``; or a text is not acceptable.
    """
    paths, options, priority = _checked(store, wanted, stop)
    reduction = cast("ReductionName", wanted.reduction)
    return client.submit_job(reduction, paths, _name(wanted), options, priority=priority)


def _checked(store: RoutingStore, wanted: Wanted, stop: Event) -> tuple[Sequence[bytes], Options, int]:
    names = input_words(wanted.inputs)
    if names and not output_name(wanted.output):
        raise OutputError("it is not said where the result is to be written; name a file, here or in S3")
    priority = priority_of("--priority", wanted.priority)
    flags = RunFlags(**{name: text for name, text in wanted.options.items() if text})  # type: ignore[arg-type]  # by names
    settings = settings_of(flags)
    options = service_options(flags, settings, force=wanted.force)
    return _Heeded(paths_of(names, settings, store), stop), options, priority


class _Heeded(Sequence[bytes]):
    """Names that nobody gets any more once an event is set: files on a disk may be many, too."""

    def __init__(self, names: Sequence[bytes], stop: Event) -> None:
        self._names = names
        self._stop = stop

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, place: Any) -> Any:
        return self._names[place]

    def __iter__(self) -> Iterator[bytes]:
        for name in self._names:
            if self._stop.is_set():
                raise StoreInterruptedError
            yield name


def _name(wanted: Wanted) -> bytes:
    return os.fsencode(output_name(wanted.output))
