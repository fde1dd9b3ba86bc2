"""Whether a host is fit to work: what it said of itself, judged (pure). Each finding is one line with its remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from distsum.wording import byte_size, counted, printable

from .environment import Platform
from .planning import Found

if TYPE_CHECKING:
    from .fleetfile import Host

CLOCK_SECONDS: Final = 60.0
"""How far a host's clock may be off. S3 refuses requests that are off by 15 minutes; people compare times of logs."""
OPEN_FILES: Final = 1024
"""What a worker may need open: five inputs with their connections, the broker, and libraries; a usual limit."""
_UNPACKED: Final = 4
"""Wheels take about so many times their size when they are installed."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a host says of itself; the function ``probe`` of the agent.

    Attributes:
        system: For example ``linux``.
        machine: The processor.
        libc: ``glibc``, or empty for others.
        libc_version: Its version.
        python: The interpreter's version.
        implementation: For example ``cpython``.
        executable: Its path.
        absent_modules: Modules of the standard library that are needed and not there.
        home: The user's home folder.
        cpus: Processors that may be used.
        memory_bytes: Memory of the host.
        free_bytes: Free space where the home folder is.
        clock_seconds: Its clock.
        open_files: Most files that a process may open.
        unreached: Addresses that it does not reach, each with the reason.
        store: What is wrong with the store's folder; None if nothing is, or if it is not a folder.
        found: What it has of the fleet.
    """

    system: str
    machine: str
    libc: str
    libc_version: str
    python: tuple[int, int, int]
    implementation: str
    executable: str
    absent_modules: tuple[str, ...]
    home: str
    cpus: int
    memory_bytes: int
    free_bytes: int
    clock_seconds: float
    open_files: int
    unreached: tuple[str, ...]
    store: str | None
    found: Found

    @property
    def platform(self) -> Platform:
        """What wheels must fit."""
        major, minor, *_ = [*(int(part) for part in self.libc_version.split(".") if part.isdecimal()), 0, 0]
        return Platform(self.machine, self.libc or "other", (major, minor), self.python[:2])


def findings(facts: Facts, host: Host, workers: int, clock_seconds: float, latency_seconds: float) -> list[str]:
    """Return what keeps a host from working, each with the remedy.

    Args:
        facts: What it says.
        host: What is wanted of it.
        workers: How many workers it is to have.
        clock_seconds: Our clock when it answered.
        latency_seconds: How long the answer took, which is what the clocks' difference cannot be known better than.
    """
    said = []
    if facts.system != "linux":
        said.append(f"runs {printable(facts.system, 80)}, and workers of a fleet need Linux; leave it out")
    if facts.implementation != "cpython":
        said.append(f"has {printable(facts.implementation, 80)} as {facts.executable}; set python to a CPython")
    if facts.absent_modules:
        said.append(
            f"its Python {facts.executable} lacks {', '.join(facts.absent_modules)}; install the rest of it, or set "
            "python to another"
        )
    needed = workers * host.memory_bytes
    if needed > facts.memory_bytes:
        said.append(
            f"has {byte_size(facts.memory_bytes)} of memory, and {counted(workers, 'worker')} with "
            f"{byte_size(host.memory_bytes)} each take {byte_size(needed)}; lower workers or memory"
        )
    difference = facts.clock_seconds - clock_seconds
    if abs(difference) > CLOCK_SECONDS + latency_seconds:
        way = "ahead" if difference > 0 else "behind"
        said.append(f"its clock is {abs(difference):,.0f} s {way} of this machine's; set both (NTP)")
    if facts.open_files < OPEN_FILES:
        said.append(f"lets a process open {facts.open_files} files; raise the limit to {OPEN_FILES} (ulimit -n)")
    said += [
        f"does not reach {printable(each, 200)}; open the way, or set tunnel = true for this host"
        for each in facts.unreached
    ]
    if facts.store is not None:
        said.append(f"does not have the store: {printable(facts.store, 300)}; mount it under the same name")
    return said


def space_fault(facts: Facts, upload_bytes: int, wheels_bytes: int) -> str | None:
    """Return why an environment does not fit on a host's disk, with the remedy, or None if it does.

    Args:
        facts: What the host says.
        upload_bytes: What is to be uploaded.
        wheels_bytes: What the environment's wheels have in all.
    """
    needed = upload_bytes + _UNPACKED * wheels_bytes
    if facts.free_bytes >= needed:
        return None
    return (
        f"has {byte_size(facts.free_bytes)} free in {printable(facts.home)}, and the environment takes "
        f"{byte_size(needed)}; make room there"
    )
