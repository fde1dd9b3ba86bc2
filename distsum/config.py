"""Settings in layers: flags > DISTSUM_* environment > distsum.toml of the project > the user's file > defaults.

The functions here take mappings and give values with where they came from; ``read_layers`` is the only one that looks
at the environment or a disk, and only the command line calls it.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Final

import msgspec

from distsum.actors.speculation import SpeculationSettings
from distsum.actors.speculation_words import parse_speculation, speculation_text
from distsum.brokers.address import BrokerAddress
from distsum.dtypes import ACCEPTED, parse_dtype
from distsum.errors import ConfigurationError, UsageError
from distsum.request import (
    DEFAULT_FAN_IN,
    DEFAULT_MAX_OPEN_FILES,
    DEFAULT_MEMORY_BYTES,
    DEFAULT_S3_DEADLINE_SECONDS,
    LOG_LEVELS,
    FormatName,
    LogLevel,
    OnBadInput,
)
from distsum.stores.routing import is_remote
from distsum.wording import exact_byte_size, parse_byte_size, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PROJECT_FILE: Final = "distsum.toml"
ENVIRONMENT_PREFIX: Final = "DISTSUM_"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set in any layer; ``Options`` and ``SpeculationSettings`` say what most of them mean.

    ``serve`` is where a worker may go; None is everywhere.
    ``s3_deadline`` is how many seconds masters and workers try again what S3 does not answer.
    """

    workers: int | None = None
    partition: int | None = None
    fan_in: int = DEFAULT_FAN_IN
    tiles: int | None = None
    max_open_files: int = DEFAULT_MAX_OPEN_FILES
    memory: int = DEFAULT_MEMORY_BYTES
    work_dir: str | None = None
    keep_partials: bool = False
    format: FormatName = "auto"
    dtype: str | None = None
    out_dtype: str | None = None
    on_bad_input: OnBadInput = "fail"
    speculation: SpeculationSettings = SpeculationSettings()
    quiet: bool = False
    broker: BrokerAddress | None = None
    management: BrokerAddress | None = None
    s3_deadline: int = DEFAULT_S3_DEADLINE_SECONDS
    serve: tuple[str, ...] | None = None
    log_json: bool = False
    log_level: LogLevel = "info"


class Layer(msgspec.Struct, frozen=True):
    """One source of settings: its name for people, its raw values by field name, and how it names each of them."""

    source: str
    values: dict[str, Any]
    names: dict[str, str]


class Origin(msgspec.Struct, frozen=True):
    """A setting's value, and where it came from: ``flags``, ``environment``, a file's path, or ``default``."""

    key: str
    value: int | str | bool | tuple[str, ...] | None
    source: str

    def words(self) -> str:
        """Return the value as people write it: what a file or variable would hold for it, where there is a word."""
        if self.value is None:
            words = {"work-dir": "OUT.distsum", "out-dtype": "the accumulator's", "serve": "everything"}
            return words.get(self.key, "-" if self.key in {"dtype", "broker", "management"} else "auto")
        if isinstance(self.value, tuple):
            return ",".join(self.value)
        if self.key == "memory":
            return exact_byte_size(int(self.value))
        return str(self.value).lower() if isinstance(self.value, bool) else str(self.value)


def _whole(least: int) -> Callable[[Any], int]:
    def parse(raw: Any) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int | str):
            raise ValueError(f"must be a whole number of at least {least}")
        try:
            number = int(raw)
        except ValueError:
            number = least - 1
        if number < least:
            raise ValueError(f"must be a whole number of at least {least}")
        return number

    return parse


def _whole_or_auto(least: int) -> Callable[[Any], int | None]:
    whole = _whole(least)

    def parse(raw: Any) -> int | None:
        if raw == "auto":
            return None
        try:
            return whole(raw)
        except ValueError:
            raise ValueError(f"must be auto or a whole number of at least {least}") from None

    return parse


def _switch(raw: Any) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.lower() in words:
        return words[raw.lower()]
    raise ValueError("must be true or false")


def _one_of(*choices: str) -> Callable[[Any], str]:
    def parse(raw: Any) -> str:
        if raw not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(raw)

    return parse


def _memory(raw: Any) -> int:
    if isinstance(raw, int | str):
        with contextlib.suppress(ValueError):
            return parse_byte_size(str(raw))
    raise ValueError("must be a size of at least a byte, such as 512MiB, 2GB or 65536")


def _text(raw: Any) -> str:
    if not isinstance(raw, str) or not raw:
        raise ValueError("must be a text that is not empty")
    return raw


def _dtype(raw: Any) -> str:
    try:
        return parse_dtype(_text(raw))
    except ValueError:
        raise ValueError(f"must be such as f8, >i4 or float32; accepted are {ACCEPTED}") from None


def _places(raw: Any) -> tuple[str, ...]:
    """Return places from a list, or from a text with commas between them, as a variable holds them."""
    places = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(places, list) or not places or not all(isinstance(each, str) and each for each in places):
        # Never taken for nothing, which would be everything.
        raise ValueError("must be s3://BUCKET/PREFIX or a folder, or some with commas between them")
    return tuple(places)


def _speculation(raw: Any) -> SpeculationSettings:
    return parse_speculation(_text(raw))


class _SecretError(ValueError):
    """A value that may hold a password is not acceptable, so it is not shown."""


def _broker(option: str) -> Callable[[Any], BrokerAddress]:
    def parse(raw: Any) -> BrokerAddress:
        try:
            return BrokerAddress.parse(_text(raw), option)
        except UsageError as error:
            raise _SecretError(str(error).removeprefix(f"{option} ")) from None

    return parse


_PARSERS: Final[dict[str, Callable[[Any], Any]]] = {
    "workers": _whole_or_auto(1),
    "partition": _whole_or_auto(1),
    "fan_in": _whole(2),
    "tiles": _whole_or_auto(1),
    "max_open_files": _whole(1),
    "memory": _memory,
    "work_dir": _text,
    "keep_partials": _switch,
    "format": _one_of("auto", "npy", "raw", "text"),
    "dtype": _dtype,
    "out_dtype": _dtype,
    "on_bad_input": _one_of("fail", "skip"),
    "speculation": _speculation,
    "quiet": _switch,
    "broker": _broker("--broker"),
    "management": _broker("--management"),
    "s3_deadline": _whole(1),
    "serve": _places,
    "log_json": _switch,
    "log_level": _one_of(*LOG_LEVELS),
}
KEYS: Final = tuple(_PARSERS)


def resolve(layers: Sequence[Layer]) -> tuple[Settings, tuple[Origin, ...]]:
    """Return the settings, and each one's origin, from layers of falling precedence.

    Every value in every layer is checked, also one that a higher layer hides.

    Raises:
        ConfigurationError: A value is not acceptable; its source and name are told.

    >>> flags = Layer("flags", {"workers": "3"}, {"workers": "--workers"})
    >>> settings, origins = resolve([flags])
    >>> settings.workers, origins[0]
    (3, Origin(key='workers', value=3, source='flags'))
    """
    parsed: list[dict[str, Any]] = []
    for layer in layers:
        values = {}
        for key, raw in layer.values.items():
            try:
                values[key] = _PARSERS[key](raw)
            except ValueError as error:
                name = layer.names[key]
                where = "" if name.startswith("--") else f" ({printable(layer.source)})"
                shown = "" if isinstance(error, _SecretError) else f" {printable(str(raw), 80)}" if raw != "" else " ''"
                raise ConfigurationError(f"{name}{shown}{where}: {error}") from None
        parsed.append(values)
    chosen: dict[str, Any] = {}
    origins = []
    defaults = Settings()
    for key in KEYS:
        source, value = "default", getattr(defaults, key)
        for layer, values in zip(layers, parsed, strict=True):
            if key in values:
                source, value = layer.source, values[key]
                break
        chosen[key] = value
        origins.append(Origin(_flag(key), _shown(value), source))
    return Settings(**chosen), tuple(origins)


def _shown(value: Any) -> int | str | bool | None:
    """Return a value as ``distsum config`` shows it."""
    if isinstance(value, SpeculationSettings):
        return speculation_text(value)
    return str(value) if isinstance(value, BrokerAddress) else value  # without its password


def flag_layer(values: Mapping[str, Any]) -> Layer:
    """Return the layer of the command line; options that were not given are None."""
    given = {key: value for key, value in values.items() if value is not None}
    return Layer("flags", given, {key: f"--{_flag(key)}" for key in given})


def environment_layer(environment: Mapping[str, str]) -> Layer:
    """Return the layer of DISTSUM_* variables.

    Raises:
        ConfigurationError: A variable of that prefix is no setting.
    """
    known = {ENVIRONMENT_PREFIX + key.upper(): key for key in KEYS}
    values, names = {}, {}
    for variable in sorted(environment):
        if variable.startswith(ENVIRONMENT_PREFIX):
            if variable not in known:
                word = variable.removeprefix(ENVIRONMENT_PREFIX).upper()
                unknown = _unknown(word, [key.upper() for key in KEYS], ENVIRONMENT_PREFIX)
                raise ConfigurationError(f"the environment sets {printable(variable)}, {unknown}")
            values[known[variable]] = environment[variable]
            names[known[variable]] = variable
    return Layer("environment", values, names)


def toml_layer(text: str, path: str) -> Layer:
    """Return the layer of a TOML file, whose keys are the options' names without dashes in front.

    A ``work-dir`` or a folder to ``serve`` that is relative starts from the file's folder, so that it is one folder
    wherever one stands.

    Raises:
        ConfigurationError: The file is no TOML, or has a key that is no setting.
    """
    import tomllib  # takes 2 ms, and most people have no file

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{printable(path)} is not TOML: {error}") from None
    known = {_flag(key): key for key in KEYS}
    values, names = {}, {}
    for name, raw in table.items():
        if name not in known:
            raise ConfigurationError(
                f"{printable(path)} sets {printable(name)}, {_unknown(name.lower().replace('_', '-'), list(known))}"
            )
        values[known[name]] = raw
        names[known[name]] = name
    if isinstance(work_dir := values.get("work_dir"), str):
        values["work_dir"] = _from_folder_of(path, work_dir)
    serve = values.get("serve")
    if isinstance(serve, str):
        values["serve"] = ",".join(_from_folder_of(path, each) for each in serve.split(","))
    elif isinstance(serve, list):
        values["serve"] = [_from_folder_of(path, each) if isinstance(each, str) else each for each in serve]
    return Layer(path, values, names)


def _from_folder_of(path: str, name: str) -> str:
    """Return a name that a file gives, as it is meant there; an empty one is refused later."""
    return name if not name or is_remote(os.fsencode(name)) else os.path.join(os.path.dirname(path), name)


def read_layers(flags: Mapping[str, Any], environment: Mapping[str, str], folder: str) -> list[Layer]:
    """Return all layers, highest first.

    Args:
        flags: Options of the command line by field name; None where not given.
        environment: The process's environment.
        folder: Where the search for the project's file begins; it goes upwards.

    Raises:
        ConfigurationError: A source has an unknown key, or cannot be read.
    """
    layers = [flag_layer(flags), environment_layer(environment)]
    for path in (_project_file(folder), _user_file(environment)):
        if path is not None and os.path.exists(path):
            try:
                with open(path, encoding="utf-8") as file:
                    layers.append(toml_layer(file.read(), path))
            except UnicodeDecodeError:
                raise ConfigurationError(f"{printable(path)} is not TOML: it is not UTF-8 text") from None
            except OSError as error:
                raise ConfigurationError(f"{printable(path)} cannot be read: {error.strerror}") from None
    return layers


def _project_file(folder: str) -> str | None:
    while True:
        path = os.path.join(folder, PROJECT_FILE)
        if os.path.exists(path):
            return path
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


def _user_file(environment: Mapping[str, str]) -> str | None:
    """Return where the user's file would be, by the XDG Base Directory Specification: relative folders do not count."""
    home = environment.get("HOME", "")
    for folder in (environment.get("XDG_CONFIG_HOME", ""), os.path.join(home, ".config")):
        if os.path.isabs(folder):
            return os.path.join(folder, "distsum", "config.toml")
    return None


def _flag(key: str) -> str:
    return key.replace("_", "-")


def _unknown(word: str, known: list[str], prefix: str = "") -> str:
    """Return what to say of a name, given without the prefix that all known names have."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {prefix}{near[0]}?" if near else f"there are {', '.join(prefix + each for each in known)}"
    return f"which is no setting; {hint}"
