"""``fleet.toml``: what a person wants of a fleet, checked whole before any host is asked (pure)."""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

import msgspec

from distsum.brokers.address import BrokerAddress
from distsum.errors import ConfigurationError, UsageError
from distsum.request import DEFAULT_MEMORY_BYTES
from distsum.wording import parse_byte_size, printable

from .ranges import expand, jump_place

_FLEET_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
MOST_ON_HOST: Final = 4096


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """One host, and what is wanted of it.

    Attributes:
        name: Name or address, as SSH is given it; ``~/.ssh/config`` may say more of it.
        user: Who to log in as; None is as SSH's configuration has it, or the user's own name.
        port: Where its SSH server listens; None likewise.
        keys: Files of private keys to use instead of the usual ones and those of an agent.
        jump: The host to go through, ``[USER@]HOST[:PORT]``; None is as SSH's configuration has it.
        workers: How many; None is one a CPU.
        memory_bytes: What each worker may take beside its imports, the ``--memory`` of the jobs that will run. A host
            must have so much for every worker.
        labels: Words that ``--label`` selects hosts by.
        python: The interpreter to use; None looks for one.
        tunnel: Whether the workers reach the broker and the store through the SSH connection only.
    """

    name: str
    user: str | None = None
    port: int | None = None
    keys: tuple[str, ...] = ()
    jump: str | None = None
    workers: int | None = None
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    labels: tuple[str, ...] = ()
    python: str | None = None
    tunnel: bool = False


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet as it is wanted.

    Attributes:
        name: Tells it from other fleets on the same hosts and at the same broker.
        hosts: In the order of the file.
        broker: Where workers find their tasks; None is as in the settings.
        store: URI or absolute folder that every worker must reach, asked for before anything is started.
    """

    name: str
    hosts: tuple[Host, ...]
    broker: BrokerAddress | None = None
    store: str | None = None


class _Defaults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of the file that count for every host, and that a host may set for itself."""

    user: str | None = None
    port: int | None = None
    keys: list[str] | None = None
    jump: str | None = None
    workers: int | str | None = None
    memory: int | str | None = None
    labels: list[str] | None = None
    python: str | None = None
    tunnel: bool | None = None


class _HostTable(_Defaults, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str


class _File(_Defaults, frozen=True, kw_only=True, forbid_unknown_fields=True):
    hosts: list[_HostTable]
    name: str = "fleet"
    broker: str | None = None
    store: str | None = None


def parse_fleet(text: str, path: str) -> Fleet:
    """Return the fleet that a file describes.

    Args:
        text: The file's content.
        path: Its name, for messages.

    Raises:
        ConfigurationError: It is no TOML, or a key or value is not acceptable; the line is told.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{printable(path)} is not TOML: {error}") from None
    try:
        file = msgspec.convert(table, _File)
    except msgspec.ValidationError as error:
        raise _fault(text, path, *_place(str(error), table)) from None
    broker = None
    if file.broker is not None:
        try:
            broker = BrokerAddress.parse(file.broker, "broker")
        except UsageError as error:
            # The value may hold a password; the error has left it out.
            raise _fault(text, path, "broker", None, str(error).removeprefix("broker ")) from None
    if not _FLEET_NAME.fullmatch(file.name):
        words = "must be 1 to 31 of a-z, 0-9 and -, and begin with a letter or digit"
        raise _fault(text, path, "name", None, f"{printable(file.name, 80)} {words}")
    if file.store is not None and not re.match(r"/|s3://[^/]", file.store):
        # From a relative path each machine would make another folder.
        words = "must be a URI like s3://bucket/distsum, or a folder from / on that is the same on every host"
        raise _fault(text, path, "store", None, f"{printable(file.store, 80)} {words}")
    if not file.hosts:
        raise _fault(text, path, "hosts", None, "must hold a [[hosts]] table with a name at least")
    hosts: dict[str, Host] = {}
    for place, entry in enumerate(file.hosts):
        for host in _hosts(entry, file, place, text, path):
            if host.name in hosts:
                raise _fault(text, path, "name", place, f"{printable(host.name, 80)} is named twice")
            hosts[host.name] = host
    return Fleet(name=file.name, hosts=tuple(hosts.values()), broker=broker, store=file.store)


def _hosts(entry: _HostTable, file: _File, place: int, text: str, path: str) -> list[Host]:
    def of(key: str) -> Any:
        own = getattr(entry, key)
        return getattr(file, key) if own is None else own

    def fault(key: str, words: str) -> ConfigurationError:
        return _fault(text, path, key, place if getattr(entry, key) is not None else None, words)

    try:
        names = expand(entry.name)
    except ValueError as error:
        raise fault("name", f"{printable(entry.name, 80)} {error}") from None
    workers = of("workers")
    if workers not in {None, "cpus"} and not (isinstance(workers, int) and 0 <= workers <= MOST_ON_HOST):
        shown = printable(str(workers), 80)
        raise fault("workers", f'{shown} must be "cpus" or a number from 0 to {MOST_ON_HOST:,}')
    port = of("port")
    if port is not None and not 0 < port < 1 << 16:
        raise fault("port", f"{port} must be from 1 to 65535")
    memory = DEFAULT_MEMORY_BYTES
    if of("memory") is not None:
        try:
            memory = parse_byte_size(str(of("memory")))
        except ValueError as error:
            raise fault("memory", str(error)) from None
    for key in ("user", "jump", "python"):
        if of(key) == "":
            raise fault(key, "must not be empty; leave it out")
    for each in (of("jump") or "none").split(","):
        try:
            jump_place(each.rpartition("@")[2])
        except ValueError as error:
            raise fault("jump", f"{printable(of('jump'), 80)} {error}, or some of those with commas between") from None
    return [
        Host(
            name=name,
            user=of("user"),
            port=port,
            keys=tuple(of("keys") or ()),
            jump=of("jump"),
            workers=workers if isinstance(workers, int) else None,
            memory_bytes=memory,
            labels=tuple(of("labels") or ()),
            python=of("python"),
            tunnel=bool(of("tunnel")),
        )
        for name in names
    ]


# Where a fault is -----------------------------------------------------------------------------------------------------


def _place(error: str, table: dict[str, Any]) -> tuple[str, int | None, str]:
    """Return the key, the place of its host (None for a key of the file itself) and the words of msgspec's error."""
    words, _, where = error.partition(" - at `")
    found = re.match(r"\$(?:\.hosts\[(?:(\d+)|\.\.\.)\])?(?:\.(\w+))?", where)
    host = int(found.group(1)) if found and found.group(1) else None
    if host is None and found and found.group(0).startswith("$.hosts["):
        host = next((n for n, each in enumerate(table["hosts"]) if _is_faulty(each)), 0)
    unknown = re.search(r"unknown field `(.+)`", words)
    if unknown:
        structure = _File if host is None else _HostTable
        return unknown.group(1), host, f"is no key of a fleet; there are {', '.join(structure.__struct_fields__)}"
    missing = re.search(r"missing required field `(.+)`", words)
    if missing:
        return missing.group(1), host, "is missing"
    key = found.group(2) if found and found.group(2) else "hosts"
    return key, host, words[:1].lower() + words[1:]


def _is_faulty(host: Any) -> bool:
    try:
        msgspec.convert(host, _HostTable)
    except msgspec.ValidationError:
        return True
    return False


def _fault(text: str, path: str, key: str, host: int | None, words: str) -> ConfigurationError:
    line = _line(text, key, host)
    return ConfigurationError(f"{printable(path)}, line {line}: {printable(key, 80)} {words}")


def _line(text: str, key: str, host: int | None) -> int:
    """Return the line (from 1) of a key: of the file itself, or of one of its hosts, counted from 0.

    TOML's parser of the standard library keeps no lines. Where the key is written in a way that is not found, such as
    within an inline table, the line of its table is told.
    """
    written = rf"""["']?{re.escape(key)}["']?"""
    begin = re.compile(r"\s*\[\[\s*hosts\s*\]\]")
    table = re.compile(rf"\s*\[\[?\s*{written}\s*\]")
    assigned = re.compile(rf"\s*{written}\s*[=.]")
    within = re.compile(rf"[{{,]\s*{written}\s*=")
    at, best = -1, 0
    for number, line in enumerate(text.splitlines(), start=1):
        if begin.match(line):
            at += 1
            if at == host or (key == "hosts" and not best):
                best = number
        elif (
            (assigned.match(line) and at == (-1 if host is None else host))
            or (host is None and table.match(line))
            or (host is not None and at == -1 and within.search(line))
        ):
            return number
        elif host is not None and at == -1 and re.match(r"\s*hosts\s*=", line):
            best = number
    return best or 1
