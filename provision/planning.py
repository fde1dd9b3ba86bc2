"""What is to be done on a host: what is wanted compared with what was found (pure).

``plan``, ``up``, ``up --dry-run``, ``scale``, ``drain``, ``upgrade`` and ``down`` all show or carry out what
``actions`` returns, and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from distsum.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of a host.

    Attributes:
        environment: The identity of the environment that its workers run in (see ``environment``).
        workers: How many.
        terms: What they are to be started with, in words; empty is whatever they have.
    """

    environment: str
    workers: int
    terms: str = ""


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """One of a supervisor's places for a worker process.

    Attributes:
        name: What it is called at the broker.
        state: ``starting``, ``ready`` (connected to the broker), ``draining`` or ``waiting`` (to be started anew).
        crashes: How often it has ended unasked, one soon after the other.
        reason: How it ended last, in words; empty if it never did.
    """

    name: str
    state: str
    crashes: int = 0
    reason: str = ""


class Supervisor(msgspec.Struct, frozen=True, kw_only=True):
    """The process that keeps a host's workers.

    Attributes:
        pid: Its process id.
        environment: What it runs in.
        wanted: How many workers it is to keep.
        detached: Whether it lives on without the command that has started it.
        workers: Its workers.
        terms: What they were started with, in words; empty is not known.
    """

    pid: int
    environment: str
    wanted: int
    detached: bool
    workers: tuple[Worker, ...] = ()
    terms: str = ""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a host has of a fleet.

    Attributes:
        current: The environment that workers are started in; None if there is none.
        environments: All that are installed, also for other fleets.
        unneeded: Those of them that no fleet uses.
        supervisor: What keeps workers now; None if nothing does.
        processes: Ids of all of the fleet's processes.
        files: Whether the fleet has any file there.
    """

    current: str | None = None
    environments: tuple[str, ...] = ()
    unneeded: tuple[str, ...] = ()
    supervisor: Supervisor | None = None
    processes: tuple[int, ...] = ()
    files: bool = False


class Install(msgspec.Struct, frozen=True, tag=True):
    """Bring what an environment is made of, and make it."""

    environment: str

    def __str__(self) -> str:
        return f"install environment {self.environment}"


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Let the workers finish their tasks, and end them and their supervisor; ``terms`` is what others come with."""

    workers: int
    terms: str = ""

    def __str__(self) -> str:
        return f"drain and stop {counted(self.workers, 'worker')}" + (f" that had {self.terms}" if self.terms else "")


class Switch(msgspec.Struct, frozen=True, tag=True):
    """Let an environment be the one that workers are started in."""

    environment: str
    before: str | None

    def __str__(self) -> str:
        return f"switch to environment {self.environment}" + (f" from {self.before}" if self.before else "")


class Start(msgspec.Struct, frozen=True, tag=True):
    """Start a supervisor with so many workers."""

    workers: int

    def __str__(self) -> str:
        return f"start {counted(self.workers, 'worker')}"


class Scale(msgspec.Struct, frozen=True, tag=True):
    """Have a supervisor that runs keep another number of workers; those too many finish their tasks."""

    before: int
    workers: int

    def __str__(self) -> str:
        difference = self.workers - self.before
        if difference > 0:
            return f"add {counted(difference, 'worker')} to {self.before}"
        return f"drain {-difference} of {counted(self.before, 'worker')}"


class Prune(msgspec.Struct, frozen=True, tag=True):
    """Remove environments that nothing uses."""

    environments: tuple[str, ...]

    def __str__(self) -> str:
        return f"remove {counted(len(self.environments), 'old environment')}"


class Remove(msgspec.Struct, frozen=True, tag=True):
    """Remove all that the fleet has on the host, and the environments with it unless other fleets use them."""

    def __str__(self) -> str:
        return "remove the fleet's files"


class Upgrade(msgspec.Struct, frozen=True, tag=True):
    """Not carried out by ``up``: workers run in another environment than the wanted one."""

    environment: str
    before: str

    def __str__(self) -> str:
        return f"leave workers in {self.before}; `distsum fleet upgrade` moves them to {self.environment}"


Action = Install | Stop | Switch | Start | Scale | Prune | Remove | Upgrade


def actions(wanted: Wanted | None, found: Found, *, upgrade: bool = False, stop: bool = False) -> tuple[Action, ...]:
    """Return what leads from what was found to what is wanted, in order; nothing where both agree.

    Args:
        wanted: None is that nothing is left.
        found: What there is.
        upgrade: Whether workers that run in another environment may be ended for it.
        stop: Whether a host that is to have no workers needs no supervisor either. It keeps one otherwise, so that it
            can get workers again from whoever holds it.

    >>> found = Found(current="e1", environments=("e1",), files=True)
    >>> actions(Wanted(environment="e1", workers=2), found)
    (Start(workers=2),)
    """
    running = found.supervisor
    steps: list[Action] = []
    if wanted is None:
        if running is not None or found.processes:
            steps.append(Stop(len(running.workers) if running is not None else 0))
        return (*steps, Remove()) if steps or found.files else ()
    if wanted.workers == 0:
        # A host that is to have none is neither installed on nor pruned: that is asked for when it gets some.
        if running is None:
            return ()
        if stop:
            return (Stop(len(running.workers)),)
        return (Scale(running.wanted, 0),) if running.wanted else ()
    moved = running is not None and running.environment != wanted.environment
    if moved and not upgrade:
        assert running is not None
        steps.append(Upgrade(wanted.environment, running.environment))
        if running.wanted != wanted.workers:
            steps.append(Scale(running.wanted, wanted.workers))
        return tuple(steps)
    if wanted.environment not in found.environments:
        steps.append(Install(wanted.environment))
    changed = running is not None and differ(wanted, running)
    if running is not None and moved:
        steps.append(Stop(len(running.workers)))
    elif running is not None and changed:
        steps.append(Stop(len(running.workers), running.terms))
    if found.current != wanted.environment:
        steps.append(Switch(wanted.environment, found.current))
    if running is None or moved or changed:
        steps.append(Start(wanted.workers))
    elif running.wanted != wanted.workers:
        steps.append(Scale(running.wanted, wanted.workers))
    old = {*found.unneeded, found.current} - {None, wanted.environment}
    pruned = tuple(sorted(each for each in old if each is not None))
    if pruned:
        steps.append(Prune(pruned))
    return tuple(steps)


def differ(wanted: Wanted, running: Supervisor) -> bool:
    """Return whether workers were started with something else than is wanted now (pure)."""
    return bool(wanted.terms and running.terms) and wanted.terms != running.terms


def spread(total: int, shares: Mapping[str, int]) -> dict[str, int]:
    """Return how many of all workers each host gets: in proportion to its share, the rest to the largest remainders.

    Args:
        total: How many in all.
        shares: What each host would have by the file; all zero counts as all equal.

    >>> spread(5, {"a": 2, "b": 2}), spread(3, {"a": 4, "b": 1, "c": 1})
    ({'a': 3, 'b': 2}, {'a': 2, 'b': 1, 'c': 0})
    """
    if not shares:
        return {}
    weights = dict(shares) if sum(shares.values()) else dict.fromkeys(shares, 1)
    whole = sum(weights.values())
    counts = {host: total * weight // whole for host, weight in weights.items()}
    order: Sequence[str] = sorted(weights, key=lambda host: -(total * weights[host] % whole))
    for host in order[: total - sum(counts.values())]:
        counts[host] += 1
    return counts
