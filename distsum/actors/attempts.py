"""What the task tracker knows: workers, tasks that are out, attempts, and what a look for stragglers sees of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from distsum.actors.speculation import Durations, Idle, PhaseView, Running, View
from distsum.messages import Effort, TaskId, TaskSucceeded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

_SLOWNESS_MEMORY = 0.5
"""How much of a worker's slowness is its earlier tasks'."""
_RATE_SHARE = 0.25
"""Of what an attempt takes: over as long its rate is measured."""
MOST_PLACES = 8
"""Of an attempt that are kept."""
_ROUNDING = 1e-9
"""Of shares of a task."""
SLOWNESS_TASKS = 3
"""Finished tasks of a phase before one more is compared with their mean."""


class KnownWorker(msgspec.Struct):
    """A worker that has joined.

    Attributes:
        host: Where it runs.
        heard_seconds: When it was last heard.
        given_up_seconds: When it was last given up for its silence.
        running: The task and attempt that it works on.
        assigned: The attempt that it was handed past the queue and has not answered for.
        paused: Whether it is handed no tasks.
        reason: Why.
        quarantined: Whether that is for failures in a row.
        resting: The task that others are to try first, which is all that it is paused for.
        dismissed: Why it is sent away when it has finished.
        failures: How many of its attempts failed one after the other.
        failing: At which tasks; of more than two only the first two.
        failing_since: How many tasks all workers together had done when the first of them failed.
        slowness: How many times the mean of their phases its last tasks took; None before the first.
        expected: An attempt by whose expected time it was compared, how slow it was before, and the usual time.
    """

    host: str
    heard_seconds: float
    given_up_seconds: float = -math.inf
    running: tuple[TaskId, int] | None = None
    assigned: tuple[TaskId, int] | None = None
    paused: bool = False
    reason: str = ""
    quarantined: bool = False
    resting: TaskId | None = None
    dismissed: str | None = None
    failures: int = 0
    failing: tuple[TaskId, ...] = ()
    failing_since: int = 0
    slowness: float | None = None
    expected: tuple[int, float | None, float] | None = None

    @property
    def idle(self) -> bool:
        """Whether it could take a task now."""
        return self.running is None and self.assigned is None and not self.paused

    def expect(self, attempt: int, seconds: float, usual_seconds: float) -> None:
        """Hold what an attempt will likely take against what is usual: others make its task, and it may not be told."""
        self._forget(attempt)
        self.expected = attempt, self.slowness, usual_seconds
        self.compare(seconds, usual_seconds)

    def end(self, attempt: int, seconds: float, usual_seconds: float | None) -> None:
        """Hold what an attempt took against what is usual, if that is known, in place of what it was expected to."""
        known = self._forget(attempt)
        if (usual := usual_seconds or known) is not None:
            self.compare(seconds, usual)

    def _forget(self, attempt: int) -> float | None:
        if self.expected is None or self.expected[0] != attempt:
            return None
        _, self.slowness, usual = self.expected
        self.expected = None
        return usual

    def compare(self, seconds: float, usual_seconds: float) -> None:
        """Hold what one of its tasks took against what is usual."""
        ratio = seconds / max(usual_seconds, 1e-9)
        known = ratio if self.slowness is None else self.slowness
        self.slowness = _SLOWNESS_MEMORY * known + (1.0 - _SLOWNESS_MEMORY) * ratio


class Attempt(msgspec.Struct):
    """An attempt that has not ended.

    Attributes:
        child: The one child of the node that it makes, or the one slice, for the others; None where it makes the node.
        backup: The number of the backup that it was to help; None where it makes the node.
        assigned: To whom it was handed past the queue; None where it is anyone's.
        worker: Who runs it; None while it waits.
        started_seconds: When it began; of one that has not, when it was queued or handed to its worker.
        told_seconds: When its progress was last told.
        progress: The share of its work that had been read then.
        added: The share that was in its sums.
        rate: What it does of its work in a second; None before its second heartbeat that tells of some.
        places: What it had told of its progress some moments before, with the seconds.
        whole_seconds: What it takes in all at the rate at which it was fastest since it began.
        bytes_read: What it had read then.
        shared: Whether it was told that others make children of its node.
        resumed: Whether it may have begun from what others had stored.
        sliced: Whether it makes its node slice by slice.
    """

    child: int | None = None
    backup: int | None = None
    sliced: bool = False
    assigned: str | None = None
    worker: str | None = None
    started_seconds: float = 0.0
    told_seconds: float = 0.0
    progress: float = 0.0
    added: float = 0.0
    rate: float | None = None
    places: list[tuple[float, float]] = []
    whole_seconds: float = math.inf
    bytes_read: int = 0
    shared: bool = False
    resumed: bool = False

    @property
    def queued(self) -> bool:
        """Whether it waits for any worker."""
        return self.worker is None and self.assigned is None

    def begin(self, worker: str, now: float, *, resumed: bool) -> None:
        """Note who runs it, and whether it may begin from what others have stored."""
        self.worker, self.started_seconds, self.told_seconds, self.resumed = worker, now, now, resumed
        self.progress, self.added, self.rate, self.bytes_read, self.shared = 0.0, 0.0, None, 0, False
        # One that begins from what others have stored is far at once, which tells nothing of how fast it is.
        self.places, self.whole_seconds = [] if resumed else [(now, 0.0)], math.inf

    def tell(self, progress: float, added: float, bytes_read: int, now: float) -> None:
        """Note how far it is.

        Its rate is measured over a fourth of what it was to take in all when it was fastest: between two heartbeats a
        link may fill buffers that nobody sees, and a file may wait for the one before. Where all has arrived, and is
        being added, it is the rate of that.
        """
        if progress:
            self.whole_seconds = min(self.whole_seconds, (now - self.started_seconds) / progress)
        window = _RATE_SHARE * self.whole_seconds
        if self.progress and now > self.told_seconds:
            older = [each for each in self.places if each[0] <= now - window]
            since, place = older[-1] if older else self.places[0]
            self.rate = (progress - place) / (now - since)
            if progress <= self.progress and added > self.added:
                self.rate = max(self.rate, (added - self.added) / (now - self.told_seconds))
            del self.places[: len(older) - 1 if older else 0]
        if progress and (not self.places or now - self.places[-1][0] >= window / (MOST_PLACES - 2)):
            self.places.append((now, progress))
        self.progress, self.added, self.bytes_read, self.told_seconds = progress, added, bytes_read, now


class Backup(msgspec.Struct):
    """A backup of a task that is under way.

    Attributes:
        worker: Who runs it.
        began_seconds: When it was begun.
        left_seconds: What the attempt that it copies was expected to take still; None where no end was to be seen.
        children: Those that were made for it, each with the bytes that were read for that.
        wasted_bytes: What attempts at others have read for it in vain.
    """

    worker: str
    began_seconds: float
    left_seconds: float | None
    children: dict[int, int] = {}
    wasted_bytes: int = 0


class Loser(msgspec.Struct, frozen=True):
    """An attempt that was called back and has not told what it had read.

    Attributes:
        task: Of which task.
        worker: Who runs it.
        backup: The number of the backup in whose account that is put.
        since_seconds: When it was called back.
        counted_bytes: What was counted then, in vain or not.
    """

    task: TaskId
    worker: str
    backup: int
    since_seconds: float
    counted_bytes: int


class OutTask(msgspec.Struct):
    """A task that is out.

    Attributes:
        work: URI of its job's work folder.
        first: The number of its first attempt.
        resume: Whether child nodes of it may be stored from before.
        splits: Children of its node that several workers could make, or slices.
        sliced: Whether they are slices.
        attempts: Those that have not ended, one or more, by number.
        made: Those of them that helpers have made.
        failed_parts: How many have failed to make each.
        unhelpful: Workers that have failed to make one, or may not do the task.
        refused: Workers that may not do the task.
        left: Those that were made for backups that are over, each with the bytes that were read for that.
        helped: Whether an attempt at it may take what others have made, so that what it takes tells nothing.
        failures: Failed attempts that count against it.
        repeats: Those that do not: others could still try it that are not known to fail.
        failed_on: Workers that have failed it, each with its host.
        deaths: Workers that were lost after they had begun it from the queue.
        dead_letters: How often the broker gave it up, since all that it had handed it to were lost.
        vanished: How many workers had vanished in all when it was last put into the queue.
        backups: The backups that are under way, by their attempts' numbers.
        declined: Attempts for which a backup was declined, each with the reason, and backups for which a helper was,
            each with the child, so that it is told once.
    """

    work: bytes
    first: int
    resume: bool
    splits: int
    sliced: bool
    attempts: dict[int, Attempt]
    made: set[int] = set()
    failed_parts: dict[int, int] = {}
    unhelpful: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    left: dict[int, int] = {}
    helped: bool = False
    failures: int = 0
    repeats: int = 0
    failed_on: dict[str, str] = {}
    deaths: int = 0
    dead_letters: int = 0
    vanished: int = 0
    backups: dict[int, Backup] = {}
    declined: set[tuple[int, str | int]] = set()

    @property
    def whole(self) -> dict[int, Attempt]:
        """Attempts that make the node itself."""
        return {number: attempt for number, attempt in self.attempts.items() if attempt.child is None}

    def is_repeat(self, worker: str, host: str, workers: Mapping[str, KnownWorker]) -> bool:
        """Whether a failure says nothing new of the task, since it has failed there before and not yet elsewhere.

        As long as workers of other hosts could try it that is so of a host: what is wrong there (a password, a mount)
        is wrong for all of its workers.

        Args:
            worker: Who has failed.
            host: Where that runs.
            workers: All there are.
        """
        taking = [(name, each.host) for name, each in workers.items() if not each.paused]
        hosts = set(self.failed_on.values())
        if host in hosts and any(other not in hosts for _, other in taking):
            return True
        return worker in self.failed_on and any(name not in self.failed_on for name, _ in taking)

    def child_bytes(self, child: int) -> int:
        """Return what a helper has told to have read for a child; 0 where none has made it."""
        made = (each.children for each in self.backups.values())
        return max((children.get(child, 0) for children in (self.left, *made)), default=0)

    def spared(self, winner: TaskSucceeded | None) -> dict[int, int]:
        """Return what attempts that lose have read for what the winner has taken, by their numbers.

        Nobody tells whose a sum was that was found stored. Helpers tell of their children, and the rest is put down to
        the attempts that had come furthest; more than they have told to have read to the first, which tells of that
        when it stops.
        """
        others = [number for number in self.attempts if winner is None or number != winner.attempt]
        if winner is None or not winner.taken_share or not others:
            return {}
        others.sort(key=lambda number: (self.attempts[number].child is not None, -self.attempts[number].progress))
        first = self.attempts[others[0]]
        if winner.taken_share < 1.0 - _ROUNDING:
            whole = winner.effort.bytes_read / (1.0 - winner.taken_share)
        else:
            whole = first.bytes_read / first.progress if first.progress else 0.0
        left = round(winner.taken_share * whole) - sum(self.child_bytes(child) for child in winner.taken)
        spared = {}
        # Helpers that have just made theirs, of which we have not heard.
        made = [number for number in others if self.attempts[number].child in winner.taken]
        for number in made:
            spared[number] = max(0, min(left, round(whole / self.splits)))
            left -= spared[number]
        for number in others:
            if number not in spared:
                spared[number] = max(0, min(left, self.attempts[number].bytes_read))
                left -= spared[number]
        spared[(made or others)[0]] += max(0, left)
        return spared

    @property
    def shareable(self) -> int:
        """Parts of its node that helpers may make: all, but for slices where those who make the node make none."""
        meet = not self.sliced or not self.backups or any(self.attempts[each].sliced for each in self.backups)
        return self.splits if meet else 0

    @property
    def given_up(self) -> frozenset[int]:
        """Parts that nobody is asked to make again: two have failed to, and so it may not be they who are at fault."""
        return frozenset(child for child, failures in self.failed_parts.items() if failures > 1)

    def fail_part(self, worker: str, child: int, *, refuses: bool) -> None:
        """Note who has failed to make a part, or may not: that is told of the worker alone."""
        self.unhelpful |= {worker}
        if not refuses:
            self.failed_parts[child] = self.failed_parts.get(child, 0) + 1

    @property
    def begun(self) -> frozenset[int]:
        """Children that helpers have made, or make."""
        making = (attempt.child for attempt in self.attempts.values())
        return frozenset(self.made.union(child for child in making if child is not None))


class PhaseFigures(msgspec.Struct):
    """How far a phase of a job is: its tasks, those that are done, and what finished ones took."""

    tasks: int
    done: int
    durations: Durations


class Rates(msgspec.Struct):
    """What workers read while they work."""

    bytes_read: int = 0
    seconds: float = 0.0

    def count(self, effort: Effort) -> None:
        """Count what an attempt took that has made a node."""
        self.bytes_read += effort.bytes_read
        self.seconds += effort.busy_seconds

    @property
    def bytes_per_second(self) -> float:
        """The mean of all tasks that have finished; 0 before the first."""
        return self.bytes_read / self.seconds if self.seconds else 0.0


class Known(msgspec.Struct):
    """All of it. ``queued`` counts the attempts that wait for any worker, ``backups`` those that are under way."""

    workers: dict[str, KnownWorker]
    tasks: dict[TaskId, OutTask]
    phases: dict[tuple[str, int], PhaseFigures]
    rates: Rates
    queued: int = 0
    backups: int = 0

    def idle(self, now: float, silence_seconds: float) -> list[Idle]:
        """Return the workers with nothing to do that are heard, less as many as the queue will keep busy."""
        found = [
            Idle(name, each.host, each.slowness, now - each.heard_seconds)
            for name, each in self.workers.items()
            if each.idle and now - each.heard_seconds <= silence_seconds / 2
        ]
        return found[max(0, self.queued - len(self._stuck(now, silence_seconds))) :]

    def unanswered(self, now: float, silence_seconds: float) -> list[str]:
        """Return the workers that were handed an attempt past the queue, half a silence ago, and were not heard since.

        Each looked idle, and has perhaps vanished. That it runs something would be heard within milliseconds.
        """
        found = []
        for name, each in self.workers.items():
            if each.assigned is None or now - each.heard_seconds <= silence_seconds / 2:
                continue
            task, number = each.assigned
            attempt = self.tasks[task].attempts.get(number) if task in self.tasks else None
            if attempt is not None and attempt.worker is None and now - attempt.started_seconds > silence_seconds / 2:
                found.append(name)
        return found

    def _holders(self, now: float, silence_seconds: float) -> list[str]:
        """Return the workers that were idle when they fell silent, the longest silent first.

        The broker may have handed each of them a task since, which nobody else gets until it notices the silence, too.
        """
        found = [
            (each.heard_seconds, name)
            for name, each in self.workers.items()
            if each.idle and now - each.heard_seconds > silence_seconds
        ]
        return [name for _, name in sorted(found)]

    def _stuck(self, now: float, silence_seconds: float) -> list[tuple[TaskId, int, str]]:
        """Return the attempts that were queued long ago and may have got to a silent worker, and to which.

        There is no telling which of several has which.
        """
        # With 10,000 workers it takes long to look at each, and most looks are made when nothing is queued any more.
        if not self.queued or not (holders := self._holders(now, silence_seconds)):
            return []
        waiting = [
            (attempt.started_seconds, task_id, number)
            for task_id, task in self.tasks.items()
            for number, attempt in task.attempts.items()
            if attempt.queued and now - attempt.started_seconds > silence_seconds
        ]
        return [
            (task_id, number, holder) for (_, task_id, number), holder in zip(sorted(waiting), holders, strict=False)
        ]

    def view(
        self,
        now: float,
        idle: list[Idle],
        *,
        youngest_seconds: float,
        silence_seconds: float,
        without: AbstractSet[str] = frozenset(),
    ) -> View:
        """Return what a look for stragglers sees.

        Args:
            now: The time.
            idle: As of ``idle``.
            youngest_seconds: Younger attempts are left out, but for those of slow and silent workers, and of tasks that
                have backups.
            silence_seconds: Silence after which a worker without a task is taken to have got one from the queue.
            without: Jobs that are left out.
        """
        running: dict[tuple[str, int], list[Running]] = {}
        backups = self.backups
        for task_id, task in self.tasks.items():
            if task.backups:
                backups -= sum(self._is_silent(task.attempts[each], now, silence_seconds) for each in task.backups)
            if task_id.job in without:
                continue
            whole, begun = (task.whole, task.begun) if len(task.attempts) > 1 else (task.attempts, frozenset(task.made))
            backup = min(task.backups, default=None)
            for number, attempt in whole.items():
                worker = self.workers.get(attempt.worker) if attempt.worker is not None else None
                if worker is None or attempt.worker is None:
                    continue
                elapsed, silent = now - attempt.started_seconds, now - worker.heard_seconds
                young = elapsed < youngest_seconds and worker.slowness is None and silent < youngest_seconds
                if young and backup is None:
                    continue
                running.setdefault((task_id.job, task_id.phase), []).append(
                    Running(
                        task=task_id,
                        attempt=number,
                        worker=attempt.worker,
                        hosts=hosts_of(whole, self.workers),
                        elapsed_seconds=elapsed,
                        progress=attempt.progress,
                        added=attempt.added,
                        progress_seconds=now - attempt.told_seconds,
                        rate=attempt.rate,
                        bytes_read=attempt.bytes_read,
                        resumed=attempt.resumed,
                        silent_seconds=silent,
                        slowness=worker.slowness,
                        copies=len(whole) - 1,
                        splits=task.shareable,
                        meets=attempt.sliced or not task.sliced,
                        begun=begun,
                        given_up=task.given_up,
                        unhelpful=task.unhelpful,
                        refused=task.refused,
                        backup=backup,
                    )
                )
        for task_id, number, holder in self._stuck(now, silence_seconds) if idle else ():
            if task_id.job in without:
                continue
            task, worker = self.tasks[task_id], self.workers[holder]
            running.setdefault((task_id.job, task_id.phase), []).append(
                Running(
                    task=task_id,
                    attempt=number,
                    worker=holder,
                    hosts=hosts_of(task.whole, self.workers) | {worker.host},
                    elapsed_seconds=now - task.attempts[number].started_seconds,
                    silent_seconds=now - worker.heard_seconds,
                    slowness=worker.slowness,
                    copies=len(task.whole) - 1,
                    splits=task.shareable,
                    meets=not task.sliced,
                    begun=task.begun,
                    given_up=task.given_up,
                    unhelpful=task.unhelpful,
                    refused=task.refused,
                )
            )
        phases = []
        for key, attempts in running.items():
            figures = self.phases[key]
            phases.append(
                PhaseView(tasks=figures.tasks, done=figures.done, durations=figures.durations, running=attempts)
            )
        return View(
            phases=phases,
            idle=idle,
            workers=len(self.workers),
            hosts=len({each.host for each in self.workers.values()}),
            backups=backups,
            bytes_per_second=self.rates.bytes_per_second,
        )

    def _is_silent(self, attempt: Attempt, now: float, silence_seconds: float) -> bool:
        """Whether who has an attempt is taken for frozen, so that nothing may come of it."""
        worker = self.workers.get(attempt.worker or attempt.assigned or "")
        return worker is not None and now - worker.heard_seconds > silence_seconds


def hosts_of(attempts: Mapping[int, Attempt], workers: Mapping[str, KnownWorker]) -> frozenset[str]:
    """Return the hosts that attempts run on, or are on their way to."""
    names = (each.worker or each.assigned for each in attempts.values())
    return frozenset(workers[name].host for name in names if name is not None and name in workers)
