"""Names of hosts, also those that stand for many: ``node[01-16].lab`` (pure)."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_HOSTS: Final = 10_000
_BRACKETS: Final = re.compile(r"\[([^\[\]]*)\]")
_PIECE: Final = re.compile(r"(\d+)(?:-(\d+))?")
_JUMP: Final = re.compile(r"(?:\[([^\[\]]*)\]|([^\[\]:]*))(?::(\d{1,5}))?")
_NAME: Final = re.compile(r"[A-Za-z0-9:][A-Za-z0-9._:%-]*")


def expand(pattern: str) -> tuple[str, ...]:
    """Return the hosts that a name stands for, in order.

    Each pair of brackets holds numbers and ranges with commas between; a first number that begins with zeros says how
    many digits all have.

    Raises:
        ValueError: It is no such name, or stands for more than 10,000 hosts.

    >>> expand("node[08-10].lab"), expand("r[1,3]n[1-2]")
    (('node08.lab', 'node09.lab', 'node10.lab'), ('r1n1', 'r1n2', 'r3n1', 'r3n2'))
    """
    texts = _BRACKETS.split(pattern)
    choices = [list(_numbers(text)) if place % 2 else [text] for place, text in enumerate(texts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MOST_HOSTS:
        raise ValueError(f"stands for {count:,} hosts, and {MOST_HOSTS:,} is the most")
    names = tuple("".join(parts) for parts in itertools.product(*choices))
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError("is no name or address of a host; write it like node7.lab, 10.0.0.7 or node[01-16].lab")
    return names


def jump_place(text: str) -> tuple[str, int | None]:
    """Return the host and the port of a jump host, ``HOST[:PORT]``; an address of IPv6 with a port is in brackets.

    Raises:
        ValueError: It is no such place.

    >>> jump_place("gate.lab"), jump_place("gate.lab:2222"), jump_place("[fe80::1]:22"), jump_place("fe80::1")
    (('gate.lab', None), ('gate.lab', 2222), ('fe80::1', 22), ('fe80::1', None))
    """
    found = _JUMP.fullmatch(text)
    name = (found.group(1) or found.group(2)) if found else text
    port = int(found.group(3)) if found and found.group(3) else None
    if not _NAME.fullmatch(name) or name.count(":") == 1 or (port is not None and not 0 < port < 1 << 16):
        raise ValueError("must be [USER@]HOST[:PORT]")
    return name, port


def _numbers(text: str) -> Iterator[str]:
    for piece in text.split(","):
        found = _PIECE.fullmatch(piece.strip())
        if found is None:
            raise ValueError(f"has [{text}], where numbers such as [01-16] or [1,3,5-7] are expected")
        first, last = found.group(1), found.group(2) or found.group(1)
        if int(first) > int(last):
            raise ValueError(f"has the range {first}-{last}, which ends before it begins")
        if int(last) - int(first) >= MOST_HOSTS:
            raise ValueError(f"has the range {first}-{last}, and {MOST_HOSTS:,} hosts is the most")
        width = len(first) if first.startswith("0") else 0
        for number in range(int(first), int(last) + 1):
            yield str(number).zfill(width)
