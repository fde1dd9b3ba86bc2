"""Stragglers: which attempts get a backup on another worker, and why (pure).

A policy is a function over what the tracker knows at one moment: phases with their finished tasks, attempts under way,
and idle workers. It says for each attempt that it suspects to be a straggler whether a copy begins, and on the strength
of which numbers; also where it decides against one.

The default is a rule with guards. The rule: more than ``quantile`` of a phase is done, and an attempt runs for longer
than ``multiplier`` times the mean of the finished ones. The guards keep it from copying what will end by itself before
a copy could. The other policies are those of other systems, for comparison (``benchmarks/stragglers.py``):

- ``bare``: the rule without guards;
- ``spark``: more than ``quantile`` done, and longer than ``multiplier`` times the median (Apache Spark's
  ``spark.speculation``, TaskSetManager.checkSpeculatableTasks);
- ``late``: the slowest quarter by progress rate, the longest time to the end first, at most a tenth of the workers
  (Zaharia et al., "Improving MapReduce Performance in Heterogeneous Environments", OSDI 2008);
- ``mapreduce``: when nothing of a phase waits any more, whatever is in progress (Dean and Ghemawat, "MapReduce:
  Simplified Data Processing on Large Clusters", OSDI 2004, section 3.6);
- ``none``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from distsum.actors.sharing import (
    AddHelper,
    DeclineHelper,
    able,
    helper_among,
    helpers_to_add,
    is_worth_sharing,
    open_children,
)
from distsum.messages import BackupReason, DeclineReason, Evidence, TaskId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from collections.abc import Set as AbstractSet

PolicyName = Literal["guarded", "bare", "spark", "late", "mapreduce", "none"]

_LATE_SLOWEST: Final = 0.25
_LATE_CAP: Final = 0.1
_SPARK_MIN_SECONDS: Final = 0.1
_SPARK_MULTIPLIER: Final = 1.5
_SLOWNESS_STEP: Final = 0.25
"""Workers that differ by less are equally fast."""
_PEERS: Final = 3
"""Attempts under way whose progress is known, above which the middle one tells what is usual."""
_TELLING_SHARE: Final = 0.25
"""Share of a copy's time that an attempt must have run for the first that it tells to say how fast it is."""


class SpeculationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How stragglers are told, and what may be done about them.

    Attributes:
        policy: One of this module's; ``none`` never copies anything.
        quantile: Share of a phase's tasks that must be done before a running time is held against an attempt.
        multiplier: How many times the mean duration of the phase's finished tasks an attempt may take.
        min_seconds: No attempt is a straggler before it has run for so long.
        max_share: Backups under way at most, as a share of the workers, and always one. Those of silent workers do
            not count.
        copies: Backups of one task under way at most: the next begins when the last is taken for a straggler, too.
        gain: A copy begins only if the attempt is expected to take so many times as long as the copy, from now on.
        silence_seconds: A worker that says nothing for so long is taken for frozen. In half of it an idle one must have
            been heard to be given a copy, and must answer for one.
        slow: A worker whose last tasks took so many times the mean of their phases is known to be slow, and an attempt
            that by its progress will have taken so many times what its peers take. While other workers idle these are
            copied at once, and no copy is given to a slow worker.
        few: In phases of fewer tasks than this no share of them says much, so none is waited for.
        check_seconds: Time between two looks at all attempts.
    """

    policy: PolicyName = "guarded"
    quantile: float = 0.75
    multiplier: float = 1.2
    min_seconds: float = 0.5
    max_share: float = 0.25
    copies: int = 2
    gain: float = 1.5
    silence_seconds: float = 6.0
    slow: float = 2.0
    few: int = 4
    check_seconds: float = 1.0


def default_settings(policy: PolicyName) -> SpeculationSettings:
    """Return a policy's settings where nothing else is said: Spark's own multiplier with its rule.

    >>> default_settings("spark").multiplier, default_settings("bare").multiplier
    (1.5, 1.2)
    """
    settings = SpeculationSettings(policy=policy)
    return msgspec.structs.replace(settings, multiplier=_SPARK_MULTIPLIER) if policy == "spark" else settings


class Durations:
    """How long finished tasks took, in constant memory: count, mean, and quantiles to within 5 %."""

    _BASE: Final = 1.1

    def __init__(self) -> None:
        self.count = 0
        self.total_seconds = 0.0
        self._bins: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        self.total_seconds += seconds
        place = math.floor(math.log(max(seconds, 1e-9), self._BASE))
        self._bins[place] = self._bins.get(place, 0) + 1

    @property
    def mean_seconds(self) -> float:
        """Mean; 0 of none."""
        return self.total_seconds / self.count if self.count else 0.0

    def quantile_seconds(self, share: float) -> float:
        """Return the duration that this share of the tasks did not exceed, to within 5 %; 0 of none.

        >>> durations = Durations()
        >>> for seconds in range(1, 101):
        ...     durations.add(float(seconds))
        >>> durations.mean_seconds, 47 < durations.quantile_seconds(0.5) < 53
        (50.5, True)
        """
        wanted = share * self.count
        for place in sorted(self._bins):
            wanted -= self._bins[place]
            if wanted <= 0:
                return float(self._BASE ** (place + 0.5))
        return 0.0


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt under way.

    Attributes:
        task: Of which task.
        attempt: Its number.
        worker: Who runs it.
        hosts: Where attempts of its task run.
        elapsed_seconds: Since it began.
        progress: The share of its work that had been read at its last heartbeat; 0 where none has come.
        added: The share that was in its sums; the same if it is None.
        progress_seconds: Since that heartbeat.
        rate: What it does of its work in a second, as it does lately; None where it has told of that less than twice.
        bytes_read: What it had read at its last heartbeat.
        resumed: Whether it may have begun from what others had stored, so that its bytes tell nothing of the task's.
        silent_seconds: Since its worker was last heard.
        slowness: How many times the mean its worker's last tasks took; None of a worker that has finished none.
        copies: Other attempts of its task that are under way.
        splits: Children of its node that several workers could make, or slices.
        meets: Whether it comes to them one after the other, and takes those that are made.
        begun: Those of them that helpers have made, or make.
        given_up: Those of them that helpers have failed to make.
        unhelpful: Workers that have failed to make one, or may not do the task.
        refused: Workers that may not do the task.
        backup: The number of the first backup of its task that is under way; None where there is none.
    """

    task: TaskId
    attempt: int
    worker: str
    hosts: frozenset[str]
    elapsed_seconds: float
    progress: float = 0.0
    added: float | None = None
    progress_seconds: float = 0.0
    rate: float | None = None
    bytes_read: int = 0
    resumed: bool = False
    silent_seconds: float = 0.0
    slowness: float | None = None
    copies: int = 0
    splits: int = 0
    meets: bool = True
    begun: frozenset[int] = frozenset()
    given_up: frozenset[int] = frozenset()
    unhelpful: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    backup: int | None = None

    def left_seconds(self, expected_seconds: float, stale_seconds: float = math.inf) -> float:
        """Return what it is expected to take from now on.

        By its progress, if that is known and not stale. Otherwise by what a task is expected to take in all; where that
        has passed, as long again as it has taken, as is most likely of durations whose logarithm is spread out.
        """
        if 0.0 < self.progress < 1.0 and self.progress_seconds <= stale_seconds:
            rate = self.progress_rate
            if rate <= 0.0:
                return math.inf
            left = (1.0 - self.progress) / rate - self.progress_seconds
            return left if left > 0.0 else self.progress_seconds
        left = expected_seconds - self.elapsed_seconds
        return left if left > 0.0 else self.elapsed_seconds

    @property
    def place(self) -> float:
        """The share of its work that is in its sums."""
        return self.progress if self.added is None else self.added

    @property
    def told_seconds(self) -> float:
        """How long it had run at its last heartbeat."""
        return max(0.0, self.elapsed_seconds - self.progress_seconds)

    def is_measured(self, least_seconds: float) -> bool:
        """Whether its progress tells how fast it is: sooner that is as much the way of the messages."""
        return self.progress > 0.0 and self.told_seconds >= least_seconds

    @property
    def progress_rate(self) -> float:
        """The share of its work that it does in a second; 0 where nothing is known of it."""
        if self.rate is not None:
            return self.rate
        return self.progress / max(self.told_seconds, 1e-9)


class PhaseView(msgspec.Struct, frozen=True, kw_only=True):
    """A phase of a job: its tasks, those that are done, what finished ones took, and the attempts under way."""

    tasks: int
    done: int
    durations: Durations
    running: Sequence[Running]

    @property
    def waiting(self) -> int:
        """Tasks that are neither done nor under way."""
        return self.tasks - self.done - len({each.task for each in self.running})


class Idle(msgspec.Struct, frozen=True):
    """A worker with nothing to do: how slow its last tasks were, and since when it was not heard."""

    worker: str
    host: str
    slowness: float | None = None
    silent_seconds: float = 0.0

    @property
    def rank(self) -> tuple[int, float]:
        """What to choose by, the least first: how slow it is, by and large, then who was heard last.

        A worker that has just vanished looks idle until its silence is noticed. Whoever was heard last is least likely
        to be that one.
        """
        return int((self.slowness or 1.0) / _SLOWNESS_STEP), self.silent_seconds


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to decide on.

    Attributes:
        phases: Those with attempts under way.
        idle: Workers with nothing to do, less as many as there are tasks in the queue.
        workers: All workers.
        hosts: On how many hosts they run.
        backups: Backups under way on workers that are heard.
        bytes_per_second: What a worker reads while it works; 0 where none has finished anything.
    """

    phases: Sequence[PhaseView]
    idle: Sequence[Idle]
    workers: int
    hosts: int
    backups: int = 0
    bytes_per_second: float = 0.0


class Suspect(msgspec.Struct, frozen=True):
    """An attempt that may be a straggler: why, and what it and a copy are expected to take; None where unknown."""

    running: Running
    reason: BackupReason
    evidence: Evidence
    left_seconds: float
    copy_seconds: float | None


class StartBackup(msgspec.Struct, frozen=True):
    """Copy an attempt to a worker, and have others make children of its node: (worker, child).

    It is ``shared`` if such may join them later, too.
    """

    running: Running
    worker: str
    reason: BackupReason
    evidence: Evidence
    helpers: tuple[tuple[str, int], ...] = ()
    shared: bool = False


class Decline(msgspec.Struct, frozen=True):
    """Do not copy an attempt, for this reason, though there is a suspicion."""

    running: Running
    suspicion: BackupReason
    reason: DeclineReason
    evidence: Evidence


Decision = StartBackup | Decline | AddHelper | DeclineHelper


def decide(view: View, settings: SpeculationSettings) -> tuple[Decision, ...]:
    """Return what is to be done about stragglers now, the most urgent first; backups take the idle workers in turn.

    A task has one more attempt begun when every attempt at it is taken for a straggler. Workers that idle then share in
    nodes that are copied now, and those that still do in nodes that were copied before.
    """
    by_task: dict[TaskId, list[Suspect]] = {}
    for phase in view.phases:
        for suspect in _POLICIES[settings.policy](phase, view, settings):
            by_task.setdefault(suspect.running.task, []).append(suspect)
    guarded = settings.policy == "guarded"
    copies = settings.copies if guarded else 1
    suspects = [
        min(found, key=lambda each: each.left_seconds)
        for found in by_task.values()
        if len(found) > found[0].running.copies and found[0].running.copies < copies
    ]
    suspects.sort(key=lambda each: (-each.left_seconds, each.running.attempt))
    cap = _cap(view, settings)
    best = _BestFirst(view.idle)
    backups = view.backups
    decisions: list[Decision] = []
    for suspect in suspects:
        running = suspect.running
        evidence = msgspec.structs.replace(
            suspect.evidence, gain_times=settings.gain if guarded else None, most_backups=cap
        )
        chosen = _place(suspect, best, view, settings, full=backups >= cap)
        if not isinstance(chosen, Idle):
            if running.elapsed_seconds > settings.min_seconds:  # what has just begun may yet be given to who idles next
                decisions.append(Decline(running, suspect.reason, chosen, evidence))
            continue
        backups += 1
        decisions.append(StartBackup(running, chosen.worker, suspect.reason, evidence))
    if guarded:
        left = able(best.left(), settings)
        _share_out(decisions, left, settings)
        copied = {each.running.task for each in decisions if isinstance(each, StartBackup)}
        for phase in view.phases if left else ():
            # What is copied now is shared out already.
            earlier = [each for each in phase.running if each.task not in copied]
            decisions.extend(helpers_to_add(earlier, _copy_seconds(phase, view, settings), left, settings))
    return tuple(decisions)


def decide_asked(view: View, task: TaskId, settings: SpeculationSettings) -> StartBackup | str:
    """Return the backup of a task that a person has asked for, or why there can be none, in words.

    What keeps the policy from copying needlessly does not hold here. Of idle workers one on another host is better, and
    one that is not known to be slow.

    Args:
        view: As for ``decide``, with all attempts under way.
        task: Which one; it is out.
        settings: What is known to be slow, and silent.
    """
    found = [(phase, each) for phase in view.phases for each in phase.running if each.task == task]
    if not found:
        return "has not begun: it waits for a worker"
    phase, running = found[0]
    if running.copies:
        return "runs twice already"
    if not view.idle:
        return f"runs on {running.worker} alone, but no other worker is idle"
    chosen = min(view.idle, key=lambda each: (each.worker in running.unhelpful, each.host in running.hosts, each.rank))
    suspect = _suspect(
        running,
        "asked",
        phase,
        _copy_seconds(phase, view, settings),
        ends=running.silent_seconds <= settings.silence_seconds,
    )
    decisions: list[Decision] = [StartBackup(running, chosen.worker, "asked", suspect.evidence)]
    _share_out(decisions, able((each for each in view.idle if each is not chosen), settings), settings)
    (decision,) = decisions
    assert isinstance(decision, StartBackup)
    return decision


def _cap(view: View, settings: SpeculationSettings) -> int:
    if settings.policy == "guarded":
        return max(1, math.ceil(settings.max_share * view.workers))
    return max(1, math.ceil(_LATE_CAP * view.workers)) if settings.policy == "late" else view.workers


class _BestFirst:
    """Idle workers, to be taken one after the other: the fastest first, and of those the one that was heard last.

    They are put in order when the first is taken, once for all: with 10,000 workers there may be thousands of suspects.
    """

    def __init__(self, idle: Sequence[Idle]) -> None:
        self._idle = idle
        self._ranked: list[Idle] | None = None
        self._taken: set[str] = set()

    def take(
        self, unfit: AbstractSet[str], refused: AbstractSet[str], slow: float
    ) -> Idle | Literal["same_host", "no_idle_worker"]:
        """Take the first that is on none of some hosts, none of some workers, and not known to be so slow.

        Where there is none, say why.
        """
        if self._ranked is None:
            self._ranked = sorted(self._idle, key=lambda each: each.rank)
        elsewhere = not self._ranked
        for place, each in enumerate(self._ranked):
            if each.host in unfit:
                continue
            elsewhere = True
            if each.worker in refused:
                continue
            if each.slowness is None or each.slowness < slow:
                self._taken.add(each.worker)
                return self._ranked.pop(place)
        return "no_idle_worker" if elsewhere else "same_host"

    def left(self) -> list[Idle]:
        """Return those that were not taken, in the order in which they were given."""
        return [each for each in self._idle if each.worker not in self._taken]


def _place(
    suspect: Suspect, best: _BestFirst, view: View, settings: SpeculationSettings, *, full: bool
) -> Idle | DeclineReason:
    """Take the worker for a copy, the fastest on a host where the task does not run; or say why there shall be none."""
    guarded = settings.policy == "guarded"
    if guarded and suspect.copy_seconds is not None and suspect.left_seconds <= settings.gain * suspect.copy_seconds:
        return "ends_sooner"
    if full:
        return "cap"
    # Where there is no other host, one of its processes may be stuck alone.
    unfit = suspect.running.hosts if view.hosts > 1 else frozenset[str]()
    return best.take(unfit, suspect.running.refused, settings.slow if guarded else math.inf)


def _share_out(decisions: list[Decision], idle: list[Idle], settings: SpeculationSettings) -> None:
    """Give idle workers children of nodes that are copied now, the last ones first; take them from ``idle``.

    The copy itself begins in front, so that it meets what they have made, and makes the one that the straggler is at.
    """
    for place, decision in enumerate(decisions):
        if not isinstance(decision, StartBackup) or not is_worth_sharing(decision.evidence.copy_seconds, settings):
            continue
        helpers = []
        for child in open_children([decision.running]):
            if (found := helper_among(idle, decision.running)) is None:
                break
            helpers.append((idle.pop(found).worker, child))
        decisions[place] = msgspec.structs.replace(decision, helpers=tuple(helpers), shared=True)


# Policies -------------------------------------------------------------------------------------------------------------


def _none(phase: PhaseView, view: View, settings: SpeculationSettings) -> Iterator[Suspect]:
    return iter(())


def _bare(phase: PhaseView, view: View, settings: SpeculationSettings) -> Iterator[Suspect]:
    mean = phase.durations.mean_seconds
    if phase.done > settings.quantile * phase.tasks and mean:
        for running in phase.running:
            if running.elapsed_seconds > settings.multiplier * mean:
                yield _suspect(running, "slow_attempt", phase, mean, _Limit(settings.multiplier, mean))


def _spark(phase: PhaseView, view: View, settings: SpeculationSettings) -> Iterator[Suspect]:
    median = phase.durations.quantile_seconds(0.5)
    if phase.done >= settings.quantile * phase.tasks and median:
        for running in phase.running:
            if running.elapsed_seconds > max(settings.multiplier * median, _SPARK_MIN_SECONDS):
                limit = _Limit(settings.multiplier, median)
                yield _suspect(running, "slow_attempt", phase, phase.durations.mean_seconds, limit)


def _late(phase: PhaseView, view: View, settings: SpeculationSettings) -> Iterator[Suspect]:
    known = [each for each in phase.running if each.progress > 0.0]
    known.sort(key=lambda each: each.progress / max(each.elapsed_seconds, 1e-9))
    mean = phase.durations.mean_seconds
    for running in known[: math.ceil(_LATE_SLOWEST * len(known))]:
        yield _suspect(running, "slow_rate", phase, mean)


def _mapreduce(phase: PhaseView, view: View, settings: SpeculationSettings) -> Iterator[Suspect]:
    if phase.waiting <= 0:
        for running in phase.running:
            yield _suspect(running, "last_tasks", phase, phase.durations.mean_seconds)


def _guarded(phase: PhaseView, view: View, settings: SpeculationSettings) -> Iterator[Suspect]:
    """The rule; and what helps before it can: a silence, and, while others idle, what is known to be slow."""
    mean = phase.durations.mean_seconds
    copy = _copy_seconds(phase, view, settings)
    few = phase.tasks < settings.few or phase.tasks - phase.done == 1
    enough = few or phase.done > settings.quantile * phase.tasks
    for running in phase.running:
        if running.silent_seconds > settings.silence_seconds:
            yield _suspect(running, "silent", phase, copy, _Limit(None, settings.silence_seconds), ends=False)
        elif view.idle and _is_known_slow(running, copy, settings):
            yield _suspect(running, "slow_worker", phase, copy, _Limit(settings.slow, None))
        elif running.elapsed_seconds <= settings.min_seconds:
            continue
        elif enough and mean and running.elapsed_seconds > settings.multiplier * mean:
            limit = _Limit(settings.multiplier, mean)
            yield _suspect(running, "slow_attempt", phase, copy, limit, stale_seconds=settings.silence_seconds / 2)
        elif view.idle and copy and _expected_seconds(running, copy, settings) > settings.slow * copy:
            yield _suspect(running, "slow_rate", phase, copy, _Limit(settings.slow, copy))


_POLICIES: Final[dict[str, Callable[[PhaseView, View, SpeculationSettings], Iterator[Suspect]]]] = {
    "guarded": _guarded,
    "bare": _bare,
    "spark": _spark,
    "late": _late,
    "mapreduce": _mapreduce,
    "none": _none,
}


def _is_known_slow(running: Running, copy: float, settings: SpeculationSettings) -> bool:
    """Whether its worker is known to be slow, and that costs more than the least time that counts, or has already."""
    slowness = running.slowness or 1.0
    costs = slowness * copy if copy else running.elapsed_seconds
    return slowness >= settings.slow and costs > settings.min_seconds


def _copy_seconds(phase: PhaseView, view: View, settings: SpeculationSettings) -> float:
    """Return what a copy is expected to take; 0 where that cannot be told."""
    mean = phase.durations.mean_seconds
    if phase.durations.count < len(phase.running):
        # The first to finish are the fastest, and not yet what is usual.
        return max(mean, _usual_seconds(phase, view, settings))
    return mean


def _usual_seconds(phase: PhaseView, view: View, settings: SpeculationSettings) -> float:
    """Return what attempts under way will take, the one in the middle; 0 where that cannot be told.

    Where there are few of them, by their bytes, since the last node of a phase may be much smaller than the others: by
    what workers read of others, and where nobody has finished anything yet by the fastest, since of two or three any
    may be the slow one. One that was resumed has come far with few bytes, so that its task would look small.
    """
    measured = [each for each in phase.running if each.is_measured(settings.min_seconds)]
    if len(measured) > _PEERS:
        rates = sorted(each.progress_rate for each in measured)
        return 1.0 / max(rates[len(rates) // 2], 1e-9)
    read = [each for each in measured if each.bytes_read and not each.resumed]
    most_bytes = max((each.bytes_read / each.progress for each in read), default=0.0)
    if view.bytes_per_second:
        return most_bytes / view.bytes_per_second
    return most_bytes * min(each.told_seconds / each.bytes_read for each in read) if len(read) > 1 else 0.0


def _expected_seconds(running: Running, copy: float, settings: SpeculationSettings) -> float:
    """Return what an attempt will have taken in all, by its progress; 0 where that is not known.

    The first time that it tells how far it is, that is as much what beginning has taken as how fast it is: until there
    is a second time, or it has run for a good part of what a copy takes, only what it has taken is held against it.
    """
    if not running.is_measured(settings.min_seconds) or running.progress >= 1.0:
        return 0.0
    if running.rate is None and running.told_seconds < _TELLING_SHARE * copy:
        return running.elapsed_seconds
    return running.elapsed_seconds + running.left_seconds(0.0)


class _Limit(NamedTuple):
    """What an attempt went beyond: so many times what is usual, and how long that is; None where there is no such."""

    times: float | None
    usual_seconds: float | None

    @property
    def seconds(self) -> float | None:
        return None if self.usual_seconds is None else (self.times or 1.0) * self.usual_seconds


def _suspect(
    running: Running,
    reason: BackupReason,
    phase: PhaseView,
    copy: float,
    limit: _Limit | None = None,
    *,
    stale_seconds: float = math.inf,
    ends: bool = True,
) -> Suspect:
    """Return a suspect with its evidence.

    ``copy`` is what a copy takes, 0 where that is not known; ``ends`` whether the attempt may be expected to end.
    """
    mean = phase.durations.mean_seconds
    expected = max(running.slowness or 1.0, 1.0) * copy
    left = running.left_seconds(expected, stale_seconds) if ends else math.inf
    evidence = Evidence(
        elapsed_seconds=running.elapsed_seconds,
        mean_seconds=mean or None,
        left_seconds=None if math.isinf(left) else left,
        copy_seconds=copy or None,
        progress=running.progress,
        slowness=running.slowness,
        silent_seconds=running.silent_seconds,
        done=phase.done,
        tasks=phase.tasks,
        limit_times=limit.times if limit is not None else None,
        limit_seconds=limit.seconds if limit is not None else None,
    )
    return Suspect(running, reason, evidence, left, copy or None)
