"""What was found of broker, store and service, judged: one line for each check, with what to do (pure)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from distsum import __version__
from distsum.brokers.topology import DEAD, REFUSED, REQUESTS, TASKS
from distsum.messages import PROTOCOL
from distsum.observe.workers import GONE
from distsum.wording import counted, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distsum.observe.workers import WorkerStatus
    from distsum.service.findings import BrokerFound, Findings, ManagementFound, MasterFound, StoreFound
    from distsum.service.messages import Diagnosis

State = Literal["ok", "warning", "failed"]
_OLDEST_BROKER: Final = (3, 10)
_CLOCK_SECONDS: Final = 5.0
"""Clocks that differ by more are wrong; less may be the way of the message, and whole seconds."""
_RECENT_SECONDS: Final = 900.0
"""A worker that was lost before that is nobody's worry any more."""
_SHORT_TIMEOUT_SECONDS: Final = 900.0
_CONNECTIONS_A_WORKER: Final = 2
_CONNECTIONS_A_SERVICE: Final = 10
"""Of two masters, and of some clients at a time."""
_TOLD: Final = 3
UNREACHABLE: Final = 3


class Check(msgspec.Struct, frozen=True):
    """One check.

    Attributes:
        name: What was looked at.
        state: ``warning`` is what goes on and should not, ``failed`` what does not go.
        found: What was found.
        remedy: What to do; empty if nothing is.
        unreachable: Whether it is a broker or store that cannot be reached.
    """

    name: str
    state: State
    found: str
    remedy: str = ""
    unreachable: bool = False

    def line(self) -> str:
        """Return it in one line for a person."""
        told = f"{self.state:<8} {self.name:<12} {self.found}"
        return printable(f"{told}; {self.remedy}" if self.remedy else told, 2000)


def diagnose(found: Findings) -> list[Check]:
    """Return the checks, each with what was found and what to do."""
    checks: list[Check] = []
    if found.broker is None:
        checks.append(Check("broker", "warning", "none is named", "set DISTSUM_BROKER to have it checked"))
    else:
        checks += broker_checks(found.broker, found.management)
    if found.management is not None:
        checks += management_checks(found.management, _workers_there(found.master))
    if found.master is not None:
        checks += master_checks(found.master, found.work)
    checks += store_checks(found.store)
    checks += clock_checks(found.store, found.master)
    if found.master is not None and found.master.told is not None:
        checks += version_checks(found.master.told)
        checks += worker_checks(found.master.told)
    if found.broker is not None:
        checks += queue_checks(found.broker)
    return checks


def exit_code(checks: Sequence[Check]) -> int:
    """Return 0 if nothing failed, 3 if a broker or store cannot be reached, and else 1."""
    failed = [check for check in checks if check.state == "failed"]
    if any(check.unreachable for check in failed):
        return UNREACHABLE
    return int(bool(failed))


def broker_checks(found: BrokerFound, management: ManagementFound | None) -> list[Check]:
    """Judge whether the broker can be entered, what it is, and what the user may do there."""
    if found.fault is not None:
        reason, _, remedy = found.fault.partition("; ")
        return [Check("broker", "failed", f"{found.address}: {reason}", remedy, unreachable=True)]
    version = found.version or (management.version if management is not None else "")
    entered = f"{found.address}: entered as {printable(found.user)}, RabbitMQ {version or 'of unknown version'}"
    checks = [Check("broker", "ok", entered)]
    if (numbers := _numbers(version)) and numbers < _OLDEST_BROKER:
        checks = [Check("broker", "failed", entered, "distsum needs RabbitMQ 3.10 or later")]
    if found.blocked:
        remedy = "see its log, free some, and it goes on by itself"
        checks.append(Check("publishing", "failed", "it takes no messages: it is short of memory or disk", remedy))
        return checks
    if found.missing:
        checks.append(_missing_queues(found))
        return checks
    return [*checks, _permissions(found)]


def _missing_queues(found: BrokerFound) -> Check:
    if TASKS in found.missing and len(found.missing) == 1:
        what = f"there is no {TASKS}, so what serves there speaks another protocol than {PROTOCOL}"
        return Check("permissions", "failed", what, f"use distsum {__version__} everywhere, or another virtual host")
    what = f"nothing is set up in this virtual host for distsum {__version__}, so they were not tried"
    return Check("permissions", "warning", what, "start a master, or run `distsum broker setup`")


def _permissions(found: BrokerFound) -> Check:
    user = printable(found.user)
    setup = "`distsum broker setup` gives the permissions"
    if found.master_fault is None and found.worker_fault is None:
        return Check("permissions", "ok", f"{user} may do what masters, clients and workers do")
    if found.worker_fault is None:
        return Check("permissions", "ok", f"{user} may do what workers do, and no more")
    if found.master_fault is None:
        why = found.worker_fault.partition("; ")[0]
        return Check("permissions", "warning", f"{user} may not do what workers do: {why}", setup)
    if found.viewer_fault is None:
        return Check("permissions", "ok", f"{user} may look, and change nothing")
    why = found.master_fault.partition("; ")[0]
    return Check("permissions", "failed", f"{user} may be neither master, client nor worker: {why}", setup)


def management_checks(found: ManagementFound, workers: int) -> list[Check]:
    """Judge what the management API tells: alarms and limits."""
    if found.fault is not None:
        reason, _, remedy = found.fault.partition("; ")
        return [
            Check("management", "warning", f"{found.address}: {reason}", remedy or "figures are missing without it")
        ]
    checks = [Check("management", "ok", f"{found.address}: RabbitMQ {found.version} answers")]
    faults = []
    for node in found.nodes:
        kinds = {
            "is not running": not node.running,
            "is short of memory": node.memory_alarm,
            "is short of disk": node.disk_alarm,
            "is cut off from others": node.partitioned,
        }
        faults += [f"{printable(node.name)} {what}" for what, holds in kinds.items() if holds]
    if faults:
        remedy = "free some, or see RabbitMQ's own pages; while it is short it takes no messages"
        checks.append(Check("alarm", "failed", ", ".join(faults), remedy))
    else:
        checks.append(Check("alarm", "ok", f"none on {counted(len(found.nodes), 'node')}"))
    return [*checks, _limits(found, workers)]


def _limits(found: ManagementFound, workers: int) -> Check:
    timeout = found.consumer_timeout_seconds
    if timeout is None:
        said = "consumer_timeout is not told by RabbitMQ (30 min unless it was changed)"
    else:
        said = f"consumer_timeout is {timeout:,.0f} s"
    connections = found.max_connections
    said += f", at most {connections:,} connections" if connections is not None else ", connections without limit"
    needed = workers * _CONNECTIONS_A_WORKER + _CONNECTIONS_A_SERVICE
    if timeout is not None and timeout < _SHORT_TIMEOUT_SECONDS:
        return Check(
            "limits", "warning", said, "a task that takes longer is taken back; raise it, or make tasks shorter"
        )
    if connections is not None and connections < needed:
        return Check("limits", "warning", said, f"{counted(workers, 'worker')} and a service take {needed}; raise it")
    return Check("limits", "ok", said)


def master_checks(found: MasterFound, work: bytes | None) -> list[Check]:
    """Judge whether a master answers, and works where it is thought to."""
    if found.told is None:
        reason, _, remedy = (found.fault or "no answer").partition("; ")
        return [Check("master", "failed", reason, remedy)]
    theirs = found.told.work
    answers = f"it answers, with work in {printable(theirs)}"
    if found.told.store_fault is not None:
        reason, _, remedy = found.told.store_fault.partition("; ")
        said = f"it answers, and cannot reach its work folder {printable(theirs)}: {reason}"
        return [Check("master", "failed", said, remedy or "mend the store, or its way there", unreachable=True)]
    if work is not None and work != theirs:
        return [Check("master", "warning", answers, f"--work-dir is {printable(work)} here; name the same")]
    return [Check("master", "ok", answers)]


def store_checks(found: StoreFound | None) -> list[Check]:
    """Judge whether the work folder can be reached, written, read, and held by one run at a time."""
    if found is None:
        said = "no work folder is known"
        return [Check("store", "warning", said, "give --work-dir, or have a master tell it")]
    if found.unreachable is not None:
        reason, _, remedy = found.unreachable.partition("; ")
        return [Check("store", "failed", reason, remedy, unreachable=True)]
    if not found.there:
        remedy = "a master makes it; it must be the same folder on every machine"
        return [Check("store", "warning", f"{found.work} is not there", remedy)]
    if found.unusable is not None:
        reason, _, remedy = found.unusable.partition("; ")
        return [Check("store", "failed", reason, remedy or "see to permissions and room")]
    said = f"{found.work}: an object was written, read and removed"
    if found.guarded is False:
        remedy = "the server lacks conditional writes; see that no two runs use one work folder"
        return [Check("store", "warning", f"{said}, but nothing keeps two runs apart", remedy)]
    return [Check("store", "ok", said + (", and a second run is kept out" if found.guarded else ""))]


def clock_checks(store: StoreFound | None, master: MasterFound | None) -> list[Check]:
    """Judge whether the clocks that can be seen agree with this machine's."""
    clocks: dict[str, float] = {}
    if store is not None and store.ahead_seconds is not None:
        clocks["the store's"] = store.ahead_seconds
    if master is not None and master.told is not None:
        clocks["the master's"] = master.ahead_seconds
        for worker, ahead in sorted(master.told.ahead_seconds.items()):
            clocks[f"that of worker {worker}"] = master.ahead_seconds + ahead
    if not clocks:
        return [Check("clocks", "warning", "no other clock can be seen from here", "name a broker or a work folder")]
    wrong = {name: ahead for name, ahead in clocks.items() if abs(ahead) > _CLOCK_SECONDS}
    if wrong:
        told = [f"{name} is {abs(ahead):,.0f} s {'ahead' if ahead > 0 else 'behind'}" for name, ahead in wrong.items()]
        return [Check("clocks", "warning", f"of this machine's, {_some(told)}", "have NTP set the clocks")]
    return [Check("clocks", "ok", f"{counted(len(clocks), 'clock')} compared with this one, all within 5 s")]


def version_checks(told: Diagnosis) -> list[Check]:
    """Judge whether one version is used everywhere."""
    here = f"distsum {__version__}, protocol {PROTOCOL}"
    there = f"distsum {told.version}, protocol {told.protocol}"
    if here != there:
        return [Check("versions", "failed", f"the master is {there}, and this {here}", "install the same everywhere")]
    refused = [f"{each.worker}: {each.reason}" for each in _recent(told, "refused")]
    if refused:
        remedy = "install the same everywhere"
        return [Check("versions", "warning", f"{counted(len(refused), 'worker')} refused, {_some(refused)}", remedy)]
    return [Check("versions", "ok", f"{here}, and the same at the master and its workers")]


def worker_checks(told: Diagnosis) -> list[Check]:
    """Judge whether workers are there, and why some do not work."""
    there = [each for each in told.workers if each.state not in GONE]
    states = Counter(each.state for each in there)
    said = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none"
    taking = states["idle"] + states["busy"]
    checks = []
    if not there:
        checks.append(Check("workers", "warning", "none is there", "start some with `distsum worker`"))
    elif not taking:
        remedy = "nobody takes tasks; mend what is told of them, then `distsum workers --resume WORKER`"
        checks.append(Check("workers", "failed", said, remedy))
    else:
        checks.append(Check("workers", "ok", said))
    remedies = {
        "quarantined": "look at that machine; then `distsum workers --resume WORKER`",
        "paused": "`distsum workers --resume WORKER` lets it go on",
    }
    for state, remedy in remedies.items():
        names = [f"{each.worker} on {printable(each.host)}: {each.reason}" for each in there if each.state == state]
        if names:
            checks.append(Check(state, "warning", _some(names), remedy))
    lost = [f"{each.worker} on {printable(each.host)}: {each.reason}" for each in _recent(told, "lost")]
    if lost:
        remedy = "see the log of that machine's `distsum worker`, and its memory"
        checks.append(Check("lost", "warning", f"in the last 15 min {_some(lost)}", remedy))
    return checks


def queue_checks(found: BrokerFound) -> list[Check]:
    """Judge what lies in queues where it should not."""
    counts = {each.name: each for each in found.queues}
    if not counts:
        return []
    checks = []
    if REFUSED in counts and (number := counts[REFUSED].ready):
        remedy = "their headers say why; purge the queue when you have read them"
        checks.append(Check("refused", "warning", f"{counted(number, 'message')} in {REFUSED}", remedy))
    if DEAD in counts and (number := counts[DEAD].ready):
        remedy = "these tasks took their workers down; a master fails their jobs by name when it serves"
        checks.append(Check("dead", "warning", f"{counted(number, 'task')} in {DEAD}", remedy))
    if not checks:
        waiting = ", ".join(f"{each.ready} in {each.name}" for each in found.queues if each.ready) or "all are empty"
        checks.append(Check("queues", "ok", f"nothing dead or refused; {waiting}"))
    return checks


def serves(found: BrokerFound) -> bool:
    """Whether somebody answers requests in a virtual host."""
    return any(each.name == REQUESTS and each.consumers for each in found.queues)


def _recent(told: Diagnosis, state: str) -> list[WorkerStatus]:
    return [
        each for each in told.workers if each.state == state and told.now_seconds - each.heard_seconds < _RECENT_SECONDS
    ]


def _workers_there(master: MasterFound | None) -> int:
    if master is None or master.told is None:
        return 0
    return sum(each.state not in GONE for each in master.told.workers)


def _some(names: Sequence[str]) -> str:
    """Return the first few of some names or reasons, and how many more there are."""
    more = f", and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return ", ".join(printable(name, 300) for name in names[:_TOLD]) + more


def _numbers(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version; nothing if it has none.

    >>> _numbers("3.10.8"), _numbers("4.1.0-beta"), _numbers("")
    ((3, 10), (4, 1), ())
    """
    parts = version.split(".")[:2]
    return tuple(map(int, parts)) if len(parts) == 2 and all(part.isdigit() for part in parts) else ()
