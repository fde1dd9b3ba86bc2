"""Backups of stragglers, folded from events into a ledger: each with its reason, evidence and outcome (no clock).

Its totals are exact, and each backup is in one of six states, so that won + helped + lost + cancelled + moot + racing
are all of them. Entries are bounded in number: of those that are over the last are kept, and how many were cut is told.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, get_args

import msgspec

from distsum.messages import (
    BackupDeclined,
    BackupEnded,
    BackupOutcome,
    BackupReason,
    BackupStarted,
    DeclineReason,
    Evidence,
    HelperAdded,
    HelperDeclined,
    LoserStopped,
    TaskId,
)
from distsum.request import BackupTotals
from distsum.wording import counted, printable, size_words

if TYPE_CHECKING:
    from collections.abc import Iterable

ENTRIES_KEPT: Final = 1000
_TOGETHER_SECONDS: Final = 0.5
"""A silence that is longer than an attempt by less than this began with it, as far as can be told."""


class BackupEntry(msgspec.Struct, frozen=True, kw_only=True, tag="backup", tag_field="kind"):
    """One backup.

    Attributes:
        seconds: When it began, by the clock of whoever folds; below 0 where that was an earlier master's doing.
        task: What it copies.
        attempt: Its number.
        worker: Who makes it.
        of_attempt: The attempt that it copies.
        of_worker: Whose that is.
        reason: Why that was taken for a straggler.
        evidence: The numbers behind that.
        helpers: Workers that make children of the node for either.
        outcome: How it ended; None while it races.
        ended_seconds: When.
        took_seconds: From the decision to make it to its end.
        saved_seconds: How much longer the first attempt was expected to take; None where no end of that was to be seen,
            and 0 where another backup of the task tells it.
        wasted_bytes: What was read by attempts that did not do the task, and for children that it was done without.
        children: Children that helpers had made for it.
    """

    seconds: float
    task: TaskId
    attempt: int
    worker: str
    of_attempt: int
    of_worker: str
    reason: BackupReason
    evidence: Evidence
    helpers: tuple[str, ...] = ()
    outcome: BackupOutcome | None = None
    ended_seconds: float | None = None
    took_seconds: float | None = None
    saved_seconds: float | None = None
    wasted_bytes: int = 0
    children: int = 0


class DeclinedEntry(msgspec.Struct, frozen=True, kw_only=True, tag="declined", tag_field="kind"):
    """An attempt that was taken for a straggler (``suspicion``) and not copied (``reason``)."""

    seconds: float
    task: TaskId
    attempt: int
    worker: str
    suspicion: BackupReason
    reason: DeclineReason
    evidence: Evidence


class HelperEntry(msgspec.Struct, frozen=True, kw_only=True, tag="helper", tag_field="kind"):
    """A worker that came to idle later, and makes a child of a node that a backup shares, or is ``declined``.

    Attributes:
        seconds: When that was decided.
        task: Whose node it is.
        attempt: The number of the backup.
        worker: Who makes it, or would have.
        child: Which child.
        reached_seconds: After which an attempt at the node itself would have come to it; None where none was heard.
        takes_seconds: What it takes.
        gain_times: How many times that the other must be for a worker to help; None where that was not told.
        declined: Whether it does not help, since others come to that child soon.
    """

    seconds: float
    task: TaskId
    attempt: int
    worker: str
    child: int
    reached_seconds: float | None
    takes_seconds: float
    gain_times: float | None = None
    declined: bool = False


Entry = BackupEntry | DeclinedEntry | HelperEntry


class LedgerReport(msgspec.Struct, frozen=True, kw_only=True):
    """A job's ledger at one moment.

    Attributes:
        totals: What it comes to.
        entries: The last ones, in the order in which they began.
        cut: Entries before them, which are not kept.
        bytes_read: What the attempts that did their tasks have read.
        began_seconds: When the clock of the entries began, in seconds of the Unix epoch.
        remark: What is to be known of it, in a sentence.
        earlier_seconds: For how long before that earlier masters had the job, or nobody between them.
    """

    totals: BackupTotals
    entries: tuple[Entry, ...]
    cut: int
    bytes_read: int
    began_seconds: float
    remark: str | None = None
    earlier_seconds: float = 0.0

    def seconds_until(self, began_seconds: float) -> float:
        """Return for how long masters had had the job when the next one's clock began, in seconds of the Unix epoch."""
        return self.earlier_seconds + max(0.0, began_seconds - self.began_seconds)


class Ledger:
    """What became of stragglers, counted from events; events of other kinds are passed over.

    Args:
        entries_kept: Entries that are kept, beside those of backups that race.
    """

    def __init__(self, entries_kept: int = ENTRIES_KEPT) -> None:
        self._kept = entries_kept
        self._entries: dict[int, Entry] = {}
        self._racing: dict[int, int] = {}
        self._number = 0
        self._started = 0
        self._declined = 0
        self._over: dict[int, int] = {}
        self._ended: dict[BackupOutcome, int] = dict.fromkeys(get_args(BackupOutcome), 0)
        self._saved_seconds = 0.0
        self._endless = 0
        self._wasted_bytes = 0

    def carry_on(self, earlier: LedgerReport, ago_seconds: float) -> None:
        """Begin with what an earlier master's ledger had come to, whose clock began so much before this one.

        What raced when that master ended is moot: whoever was done first told nobody.
        """
        totals = earlier.totals
        self._started += totals.started
        self._declined += totals.declined
        self._saved_seconds += totals.saved_seconds
        self._endless += totals.endless
        self._wasted_bytes += totals.wasted_bytes
        for outcome in self._ended:
            self._ended[outcome] += getattr(totals, outcome)
        self._ended["moot"] += totals.racing
        self._number += earlier.cut
        for entry in earlier.entries:
            seconds = entry.seconds - ago_seconds
            changes: dict[str, float | str] = {"seconds": seconds}
            if isinstance(entry, BackupEntry):
                if entry.outcome is None:
                    changes |= {"outcome": "moot", "ended_seconds": 0.0, "took_seconds": max(0.0, -seconds)}
                elif entry.ended_seconds is not None:
                    changes["ended_seconds"] = entry.ended_seconds - ago_seconds
            self._add(msgspec.structs.replace(entry, **changes))

    def take(self, event: msgspec.Struct, now: float) -> Entry | None:
        """Count one event; return the entry that it made, or whose end it told."""
        match event:
            case BackupStarted():
                return self._start(event, now)
            case BackupEnded():
                return self._end(event, now)
            case LoserStopped():
                self._count_more(event)
            case HelperAdded() | HelperDeclined():
                declined = isinstance(event, HelperDeclined)
                return self._add(HelperEntry(seconds=now, declined=declined, **msgspec.structs.asdict(event)))
            case BackupDeclined():
                self._declined += 1
                return self._add(DeclinedEntry(seconds=now, **msgspec.structs.asdict(event)))
        return None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries, in the order in which they began."""
        return tuple(self._entries.values())

    @property
    def cut(self) -> int:
        """Entries that there were and are not kept."""
        return self._number - len(self._entries)

    def totals(self) -> BackupTotals:
        """Return what it comes to."""
        return BackupTotals(
            started=self._started,
            declined=self._declined,
            saved_seconds=self._saved_seconds,
            endless=self._endless,
            wasted_bytes=self._wasted_bytes,
            **self._ended,
        )

    def _start(self, event: BackupStarted, now: float) -> Entry | None:
        if event.attempt in self._racing:
            return None  # told twice
        self._started += 1
        self._racing[event.attempt] = self._number
        return self._add(
            BackupEntry(
                seconds=now,
                task=event.task,
                attempt=event.attempt,
                worker=event.worker,
                of_attempt=event.of_attempt,
                of_worker=event.of_worker,
                reason=event.reason,
                evidence=event.evidence,
                helpers=event.helpers,
            )
        )

    def _end(self, event: BackupEnded, now: float) -> Entry | None:
        number = self._racing.pop(event.attempt, None)
        if number is None:
            return None  # told twice, or its beginning was never told
        self._ended[event.outcome] += 1
        self._saved_seconds += event.saved_seconds or 0.0
        self._endless += event.saved_seconds is None
        self._wasted_bytes += event.wasted_bytes
        ended = msgspec.structs.replace(
            self._entries[number],
            outcome=event.outcome,
            ended_seconds=now,
            took_seconds=event.took_seconds,
            saved_seconds=event.saved_seconds,
            wasted_bytes=event.wasted_bytes,
            children=event.children,
        )
        self._entries[number] = ended
        self._over[event.attempt] = number
        self._cut()
        return ended

    def _count_more(self, event: LoserStopped) -> None:
        """Put right what was counted of an attempt before it had stopped, also where its backup's entry is cut."""
        self._wasted_bytes += event.more_bytes
        if (number := self._over.get(event.backup)) is not None:
            entry = self._entries[number]
            assert isinstance(entry, BackupEntry)
            wasted = entry.wasted_bytes + event.more_bytes
            self._entries[number] = msgspec.structs.replace(entry, wasted_bytes=wasted)

    def _add(self, entry: Entry) -> Entry:
        self._entries[self._number] = entry
        self._number += 1
        self._cut()
        return entry

    def _cut(self) -> None:
        """Let go of the oldest entries that are over: one that races is still to be changed."""
        over = len(self._entries) - len(self._racing) - self._kept
        if over > 0:
            racing = set(self._racing.values())
            doomed = [number for number in self._entries if number not in racing][:over]
            for number in doomed:
                entry = self._entries.pop(number)
                if isinstance(entry, BackupEntry) and self._over.get(entry.attempt) == number:
                    del self._over[entry.attempt]


# Words ----------------------------------------------------------------------------------------------------------------


LEDGER_MARKS: Final = {
    "started": "↯",
    "joined": "+",
    "won": "✓",
    "helped": "✓",
    "lost": "✗",
    "cancelled": "-",
    "moot": "-",
    "declined": "·",
}
"""A sign for what a line of the ledger tells of."""


class LedgerLine(msgspec.Struct, frozen=True):
    """One line of the ledger as people read it: when, what it tells of, and the sentence."""

    seconds: float
    what: Literal["started", "joined", "won", "helped", "lost", "cancelled", "moot", "declined"]
    text: str


def ledger_lines(entries: Iterable[Entry]) -> tuple[LedgerLine, ...]:
    """Return the lines of entries in the order of time: two of a backup that has ended, one of any other."""
    lines: list[LedgerLine] = []
    for entry in entries:
        if isinstance(entry, DeclinedEntry):
            lines.append(LedgerLine(entry.seconds, "declined", entry_words(entry)))
            continue
        if isinstance(entry, HelperEntry):
            lines.append(LedgerLine(entry.seconds, "declined" if entry.declined else "joined", entry_words(entry)))
            continue
        lines.append(LedgerLine(entry.seconds, "started", _started_words(entry)))
        if entry.outcome is not None:
            ended = entry.seconds if entry.ended_seconds is None else entry.ended_seconds
            lines.append(LedgerLine(ended, entry.outcome, entry_words(entry)))
    return tuple(sorted(lines, key=lambda line: line.seconds))


def entry_words(entry: Entry) -> str:
    """Return the last that is to be said of an entry, as one sentence: how it ended, or why it began or did not.

    >>> evidence = Evidence(
    ...     elapsed_seconds=3.2, mean_seconds=1.4, left_seconds=19.0, copy_seconds=1.4, progress=0.14, slowness=None,
    ...     silent_seconds=0.1, done=3044, tasks=4000, limit_times=1.2, limit_seconds=1.68,
    ... )
    >>> backup = BackupEntry(
    ...     seconds=205.0, task=TaskId("7f3a", 1, 0, 3013), attempt=4012, worker="w19", of_attempt=3980,
    ...     of_worker="w07", reason="slow_attempt", evidence=evidence,
    ... )
    >>> print(entry_words(backup))
    phase 1 task 3013  w07 -> w19  3.2s > 1.2 x mean 1.4s; reads at 0.06x its peers; left 19s, a copy takes 1.4s
    >>> print(entry_words(msgspec.structs.replace(backup, outcome="won", took_seconds=1.5, saved_seconds=17.5)))
    phase 1 task 3013  w19 won 1.5s after the decision; w07 cancelled; saved about 18s
    """
    if isinstance(entry, DeclinedEntry):
        return _declined_words(entry)
    if isinstance(entry, HelperEntry):
        return _helper_words(entry)
    return _started_words(entry) if entry.outcome is None else _ended_words(entry)


def totals_words(totals: BackupTotals, bytes_read: int) -> str:
    """Return the ledger's totals in a line; ``bytes_read`` are those of the attempts that did their tasks.

    >>> totals_words(BackupTotals(started=3, won=2, lost=1, saved_seconds=130, wasted_bytes=18 * 10**5), 10**8)
    '3 backups = 2 won + 1 lost; saved about 2m10s; 1.80 MB read in vain (1.8 %)'
    """
    return "; ".join(totals_parts(totals, bytes_read))


def totals_parts(totals: BackupTotals, bytes_read: int) -> list[str]:
    """Return the parts of ``totals_words``, for who has no room for all of them."""
    states = {name: getattr(totals, name) for name in (*get_args(BackupOutcome), "racing")}
    sum_words = " + ".join(f"{count:,} {name}" for name, count in states.items() if count)
    parts = [f"{counted(totals.started, 'backup')}{' = ' if sum_words else ''}{sum_words}"]
    if totals.declined:
        parts.append(f"{totals.declined:,} declined")
    if saved := saved_words(totals):
        parts.append(saved)
    if totals.wasted_bytes:
        share = totals.wasted_share(bytes_read)
        parts.append(f"{size_words(totals.wasted_bytes)} read in vain ({100 * share:.1f} %)")
    return parts


def saved_words(totals: BackupTotals) -> str:
    """Return what backups have saved; nothing where none has.

    >>> saved_words(BackupTotals(won=3, saved_seconds=130, endless=1))
    'saved about 2m10s, and 1 straggler had no end in sight'
    >>> saved_words(BackupTotals(won=1, endless=1)), saved_words(BackupTotals())
    ('1 straggler had no end in sight', '')
    """
    endless = f"{counted(totals.endless, 'straggler')} had no end in sight" if totals.endless else ""
    saved = f"saved about {duration_words(totals.saved_seconds)}" if totals.saved_seconds else ""
    return ", and ".join(filter(None, (saved, endless)))


def task_words(task: TaskId) -> str:
    """Return how a task is called.

    >>> task_words(TaskId("7f3a", 1, 0, 3013)), task_words(TaskId("7f3a", 2, 4, 0))
    ('phase 1 task 3013', 'phase 2 task 0 tile 4')
    """
    tile = f" tile {task.tile}" if task.tile else ""
    return f"phase {task.phase} task {task.index}{tile}"


def _started_words(entry: BackupEntry) -> str:
    evidence = entry.evidence
    parts = [_suspicion_words(entry.reason, evidence)]
    if entry.reason != "silent" and (rate := _relative_rate(evidence)) is not None:
        parts.append(f"reads at {rate:.2f}x its peers")
    left = "no end in sight" if evidence.left_seconds is None else f"left {duration_words(evidence.left_seconds)}"
    copy = "" if evidence.copy_seconds is None else f", a copy takes {duration_words(evidence.copy_seconds)}"
    parts.append(left + copy)
    if entry.helpers:
        parts.append(f"{counted(len(entry.helpers), 'more worker shares', 'more workers share')} it")
    way = f"{_name(entry.of_worker)} -> {_name(entry.worker)}"
    return f"{task_words(entry.task)}  {way}  {'; '.join(parts)}"


def _ended_words(entry: BackupEntry) -> str:
    backup, first = _name(entry.worker), _name(entry.of_worker)
    later = f"{duration_words(entry.took_seconds or 0.0)} after the decision"
    children = counted(entry.children, "part")
    match entry.outcome:
        case "won":
            parts = [f"{backup} won {later}", f"{first} cancelled", _saved_words(entry.saved_seconds)]
        case "helped":
            parts = [f"{backup} helped until {later}", "another attempt was sooner, with its help"]
            if entry.saved_seconds != 0.0:
                parts.append(_saved_words(entry.saved_seconds))
        case "lost":
            parts = [f"{backup} lost {later}", "another attempt was sooner"]
        case "cancelled":
            parts = [f"{backup} cancelled with the job {later}"]
        case _:
            parts = [
                f"{backup} is of no use any more, {later}",
                "an attempt failed, its worker was lost or got another task, or the master ended",
            ]
    if entry.children:
        parts.append(f"{children} made by others")
    if entry.wasted_bytes:
        parts.append(f"{size_words(entry.wasted_bytes)} read in vain")
    return f"{task_words(entry.task)}  {'; '.join(parts)}"


def _saved_words(seconds: float | None) -> str:
    return "no end of that was in sight" if seconds is None else f"saved about {duration_words(seconds)}"


def _declined_words(entry: DeclinedEntry) -> str:
    evidence = entry.evidence
    match entry.reason:
        case "ends_sooner":
            why = _gain_words(evidence)
        case "cap":
            many = "" if evidence.most_backups is None else f" ({evidence.most_backups:,})"
            why = f"as many backups as may be{many} are under way"
        case "same_host":
            why = "only workers on its own host are idle"
        case _:
            why = "no worker is idle that might be faster"
    done = f" but {100 * evidence.progress:.0f} % done" if evidence.progress else ""
    what = f"{duration_words(evidence.elapsed_seconds)}{done}"
    if entry.suspicion == "silent":
        what += f", {_suspicion_words('silent', evidence)}"
    return f"{task_words(entry.task)}  {_name(entry.worker)} not copied: {what}; {why}"


def _helper_words(entry: HelperEntry) -> str:
    takes = f"part {entry.child}, which takes {duration_words(entry.takes_seconds)}"
    worker = f"{task_words(entry.task)}  {_name(entry.worker)} idles"
    reached = entry.reached_seconds
    if entry.declined:
        soon = reached or 0.0
        gain = entry.gain_times if soon >= entry.takes_seconds else None
        limit = "" if gain is None else f", not over {_times(gain)} x that"
        return f"{worker} and does not help with {takes}: others come to it in {duration_words(soon)}{limit}"
    why = "nobody was at it" if reached is None else f"others would have come to it in {duration_words(reached)}"
    return f"{worker} and helps with {takes}; {why}"


def _gain_words(evidence: Evidence) -> str:
    left, copy, gain = evidence.left_seconds or 0.0, evidence.copy_seconds or 0.0, evidence.gain_times
    if left < copy:
        return f"left {duration_words(left)} < copy {duration_words(copy)}"
    if gain is not None:
        return f"left {duration_words(left)} is not over {_times(gain)} x copy {duration_words(copy)}"
    return f"left {duration_words(left)} is not much more than copy {duration_words(copy)}"


def _suspicion_words(reason: BackupReason, evidence: Evidence) -> str:
    """Return the rule that an attempt met, with its limit where that is known."""
    elapsed, times, limit = duration_words(evidence.elapsed_seconds), evidence.limit_times, evidence.limit_seconds
    match reason:
        case "slow_attempt" if times is not None and limit is not None and evidence.mean_seconds:
            usual = limit / times if times else evidence.mean_seconds
            name = "mean" if math.isclose(usual, evidence.mean_seconds) else "median"
            return f"{elapsed} > {_times(times)} x {name} {duration_words(usual)}"
        case "slow_attempt" if evidence.mean_seconds:
            ratio = evidence.elapsed_seconds / evidence.mean_seconds
            return f"{elapsed} = {ratio:.1f} x mean {duration_words(evidence.mean_seconds)}"
        case "slow_worker" if evidence.slowness is not None:
            least = "" if times is None else f" (slow from {_times(times)} x)"
            return f"{elapsed} on a worker whose last tasks took {evidence.slowness:.1f} x the mean{least}"
        case "silent":
            longest = "" if limit is None else f" > {duration_words(limit)}"
            since = f", since before the task was given out {elapsed} ago" if _silent_before(evidence) else ""
            return f"silent for {duration_words(evidence.silent_seconds)}{longest}{since}"
        case "asked":
            return f"asked for by a person, {elapsed} after it began"
        case "last_tasks":
            return f"{elapsed}, of the last {counted(evidence.tasks - evidence.done, 'task')}"
    done = f"{elapsed} for {100 * evidence.progress:.0f} % of it"
    if not times or not limit:
        return done
    # Where no end is in sight it takes more than any limit, and the rest of the sentence says so.
    total = (
        ""
        if evidence.left_seconds is None
        else f", {duration_words(evidence.elapsed_seconds + evidence.left_seconds)} in all"
    )
    return f"{done}{total} > {_times(times)} x usual {duration_words(limit / times)}"


def _silent_before(evidence: Evidence) -> bool:
    """Whether a worker was silent before it had the task, so that its silence tells nothing of that."""
    return evidence.silent_seconds > evidence.elapsed_seconds + _TOGETHER_SECONDS


def _relative_rate(evidence: Evidence) -> float | None:
    """Return how fast an attempt gets on in comparison with the finished ones; None where that is not known."""
    if not evidence.progress or not evidence.mean_seconds or evidence.elapsed_seconds <= 0.0:
        return None
    return evidence.progress * evidence.mean_seconds / evidence.elapsed_seconds


def _times(limit: float) -> str:
    """Return a multiple as it was asked for, without an exponent."""
    return f"{limit:,.10g}"


def duration_words(seconds: float) -> str:
    """Return a time as sentences of the ledger tell it.

    >>> duration_words(0.42), duration_words(42), duration_words(130), duration_words(7322), duration_words(0.012)
    ('0.4s', '42s', '2m10s', '2h02m', '12ms')
    """
    if 0.0005 <= seconds < 0.05:
        return f"{1000 * seconds:.0f}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    if round(seconds) < 100:
        return f"{seconds:.0f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02}s" if minutes < 100 else f"{minutes // 60}h{minutes % 60:02}m"


def _name(worker: str) -> str:
    return printable(worker, 60)
