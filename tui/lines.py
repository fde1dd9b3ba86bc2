"""What the panes say, as lines of spans (pure: no Textual). Whatever comes from outside is made harmless here."""

from __future__ import annotations

import logging
import time
from statistics import median
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from distsum.dtypes import short_name
from distsum.observe.ledger import LEDGER_MARKS, ledger_lines, task_words, totals_parts
from distsum.observe.rates import BACKUP_MARK, FAILED_MARK, SLICE_SECONDS, SLICES
from distsum.observe.workers import GONE
from distsum.wording import counted, digits, printable, size_unit, size_words

from .cells import fitted, middle_cut, padded, width_of, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from distsum.observe.snapshot import PhaseProgress
    from distsum.observe.view import JobView, WorkerView
    from distsum.observe.workers import WorkerStatus

Role = Literal["plain", "dim", "strong", "good", "warn", "bad"]


class Span(NamedTuple):
    """Some text, and what it is for: a theme says how that looks."""

    text: str
    role: Role = "plain"


Line = tuple[Span, ...]
_Entry = tuple[float, str, Role]
"""When something was, in seconds of the job's clock, in what words, and what that is for."""

BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_MARKS: Final = {BACKUP_MARK: "↯", FAILED_MARK: "!"}
LEDGER_ROLES: Final[dict[str, Role]] = {"started": "warn", "won": "good", "helped": "good", "declined": "dim"}
MOST_WORKERS: Final = 200
_WAITS: Final = 0.5
"""Share of its time from which on a slow worker is slow since it waits for bytes."""
SLOW: Final = 0.5
"""A worker below this share of the median rate is marked."""
_GONE_SHOWN: Final = 5
_LATELY: Final = 60.0
"""Seconds for which a lost worker stands above those that work."""
_LEAST_REASON: Final = 12
"""Columns of the reason why a worker is gone that are worth telling; the log tells all of it."""
_SHAPE_ABOVE: Final = 100
"""Columns from which on the first line says how many numbers inputs have, and below which the second does."""
_LEAST_BAR: Final = 20
"""Columns that the bar keeps beside that."""
_TASK_WIDTH: Final = 20
"""Columns from which on a worker's line says what it does."""


def clock_words(seconds: float) -> str:
    """Return a duration in at most 7 characters.

    >>> [clock_words(seconds) for seconds in (0.4, 59.6, 206, 7322, 400_000)]
    ['0.4s', '1m00s', '3m26s', '2h02m', '4d15h']
    """
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    for unit, factor, below, part in (("m", 60, 6000, "s"), ("h", 3600, 172_800, "m"), ("d", 86_400, 1e18, "h")):
        if whole < below:
            return f"{whole // factor}{unit}{whole % factor // (factor // (24 if unit == 'd' else 60)):02}{part}"
    return ">999d"


def rest_words(above: int, below: int) -> str:
    """Return how many lines are out of sight, so that nobody takes what is cut for all there is.

    >>> rest_words(0, 1200), rest_words(3, 0), rest_words(0, 0), rest_words(3, 4)
    ('1,200 more below', '3 more above', '', '4 more below')
    """
    return f"{below:,} more below" if below else f"{above:,} more above" if above else ""


def rests_words(rests: Iterable[tuple[str, str]]) -> str:
    """Return what of several panes is out of sight, each by its name and its ``rest_words``, in few words.

    >>> rests_words([("attempts", rest_words(0, 3)), ("why", rest_words(2, 0)), ("plan", "")])
    'attempts 3 more, why 2 above'
    """
    told = [(name, rest.removesuffix(" below").replace("more above", "above")) for name, rest in rests if rest]
    return ", ".join(f"{name} {rest}" for name, rest in told)


def share_done(view: JobView) -> float:
    """Return what part of a job's bytes is read, from 0 to 1; 1 only of one that has succeeded."""
    snapshot = view.snapshot
    if snapshot.finished and view.failure is None:
        return 1.0
    return share_read(snapshot.phases)


def share_read(phases: Sequence[PhaseProgress]) -> float:
    """Return what part of some phases' bytes is read, or, where there are none, of their tasks done; below 1.

    What an earlier run, or an earlier master, has stored counts as read: what is done stays done.
    """
    read, total = _bytes_done(phases)
    if not total:
        tasks = sum(phase.tasks for phase in phases)
        return min(0.99, sum(phase.done for phase in phases) / tasks) if tasks else 0.0
    return min(0.99, read / total)


def _bytes_done(phases: Sequence[PhaseProgress]) -> tuple[int, int]:
    """Return how many of the plan's bytes are not to be read any more, and how many there are."""
    before = sum(phase.bytes_before for phase in phases)
    return before + sum(phase.bytes_done for phase in phases), before + sum(phase.bytes_total for phase in phases)


def has_begun(phases: Sequence[PhaseProgress]) -> bool:
    """Whether a worker has begun a task of a job, or there is none to do."""
    return any(phase.started_seconds is not None for phase in phases) or all(
        phase.done >= phase.tasks for phase in phases
    )


def state_words(view: JobView) -> Span:
    """Return how a job stands, in a word or two."""
    snapshot = view.snapshot
    if view.cancelled:
        return Span("CANCELLED", "warn")
    if view.failure is not None:
        return Span("FAILED", "bad")
    if snapshot.finished:
        return Span("DONE", "good")
    if not snapshot.phases:
        return Span("STARTING", "dim")
    current = next((phase.phase for phase in snapshot.phases if phase.done < phase.tasks), None)
    if current is None:
        return Span("FINISHING", "strong")  # all tasks are done, and the result is put in its place
    if not has_begun(snapshot.phases):
        return Span("WAITING", "dim")
    return Span(f"RUNNING phase {current}/{len(snapshot.phases)}", "strong")


def header_lines(view: JobView | None, width: int) -> tuple[Line, Line]:
    """Return the two lines above everything: which job, how it stands, how far it is, and when it will be done."""
    if view is None:
        return (Span("distsum ▸ ", "dim"), Span("nothing is known of it yet", "plain")), (Span("━" * width, "dim"),)
    snapshot = view.snapshot
    state = state_words(view)
    end = f"  {clock_words(view.ledger.earlier_seconds + snapshot.elapsed_seconds)}"
    if view.estimate is not None:
        rough = ("about " if width >= 80 else "~") if view.estimate.is_rough else ""
        end += f"  ETA {rough}{clock_words(view.estimate.seconds)}"
        margin = clock_words(view.estimate.margin_seconds)
        if width >= 80 and not rough and margin != clock_words(0.0):
            end += f" ±{margin}"
    elif not snapshot.finished:
        end += "  ETA -"
    if (room := width - len(state.text) - len(end) - 2) < 0:
        state = state._replace(text=state.text.replace(" phase ", " "))
        room = width - len(state.text) - len(end) - 2
    name = f"{printable(snapshot.job, 40)} {printable(snapshot.reduction, 20)}"
    shape = _shape_words(view)
    # Where it stands depends on the width only: it would jump to and fro with the words beside it.
    above = f" {shape}" if shape and width >= _SHAPE_ABOVE else ""
    what = f"{name} F={snapshot.files:,}{above} to {view.output}"
    left = fitted(f"distsum ▸ {what}" if room >= 60 else what, max(0, room))
    first = (Span(padded(left, room)), Span("  "), state, Span(end, "strong"))
    if view.failure is not None and not view.cancelled:
        return first, (Span(fitted(f"! {view.failure}", width), "bad"),)
    return first, _bar_line(view, width, "" if above else shape)


def _shape_words(view: JobView) -> str:
    """Return how many numbers of which dtype each input has; nothing where that is not known."""
    return (
        f"C={view.terms.count:,} {printable(short_name(view.terms.dtype), 20)}".rstrip() if view.terms.count > 0 else ""
    )


def _bar_line(view: JobView, width: int, shape: str) -> Line:
    phases = view.snapshot.phases
    read, total = _bytes_done(phases)
    unit, factor = size_unit(total)
    share = share_done(view)
    figures = f" {int(share * 100):3}% {digits(read / factor)}/{digits(total / factor)} {unit}"
    size = sum(phase.bytes_read for phase in phases)
    if width >= 60 and not view.snapshot.finished and size:
        figures += f" {rate_words(view.read_rates, size)}".removesuffix(" -")
    room = max(0, width - len(figures))
    before = f"{shape} " if shape and room - width_of(shape) > _LEAST_BAR else ""
    room -= width_of(before)
    filled = int(share * room)
    return Span(before), Span("━" * filled, "good"), Span("─" * (room - filled), "dim"), Span(figures, "strong")


def worker_lines(view: JobView, width: int, wanted: str = "") -> list[Line]:
    """Return the workers, whoever needs a look first.

    These are those lost of late, those that are kept from working, silent ones, and the others by rate; then those that
    are gone, the last ones first.

    Args:
        view: Knows them.
        width: Columns.
        wanted: What their name, host, state or reason must hold, whatever its case; how many others there are is said.
    """
    usual = usual_rate(each.status for each in view.workers)
    found = [each for each in view.workers if holds(_worker_words(each), wanted)]
    there = [each for each in found if each.status.state not in GONE]
    gone = [each for each in found if each.status.state in GONE]
    there.sort(key=_urgency)
    name_width = max((width_of(_name(each)) for each in there[:MOST_WORKERS]), default=0)
    gone.sort(key=lambda each: -each.status.heard_seconds)
    now = view.snapshot.elapsed_seconds
    of_late = [each for each in gone if each.status.state != "left" and now - each.status.heard_seconds < _LATELY]
    fresh = of_late[:_GONE_SHOWN]
    gone = [each for each in gone if each not in fresh]
    lines = [_gone_line(each, now, width) for each in fresh]
    lines += [_worker_line(each, usual, name_width, width) for each in there[:MOST_WORKERS]]
    if len(there) > MOST_WORKERS:
        lines.append((Span(f"{len(there) - MOST_WORKERS:,} more, faster or without a task", "dim"),))
    lines += [_gone_line(each, now, width) for each in gone[:_GONE_SHOWN]]
    if len(gone) > _GONE_SHOWN:
        lines.append((Span(f"{len(gone) - _GONE_SHOWN:,} more are gone", "dim"),))
    lines += hidden_lines(len(view.workers) - len(found), "worker", "workers", wanted)
    return lines or [(Span("none has joined yet", "dim"),)]


def _gone_line(each: WorkerView, now: float, width: int) -> Line:
    ago = clock_words(max(0.0, now - each.status.heard_seconds))
    reason = f": {printable(each.status.reason or '', 200)}" if each.status.reason else ""
    words = f"{_name(each)} {each.status.state}, last heard {ago} ago"
    if width_of(words) + min(width_of(reason), _LEAST_REASON) <= width:
        words += reason  # of fewer columns nobody makes sense
    return (Span(fitted(words, width), "dim" if each.status.state == "left" else "bad"),)


def usual_rate(workers: Iterable[WorkerStatus]) -> float:
    """Return the median of workers' rates, in bytes a second; 0 where none is known."""
    rates = [each.bytes_per_second for each in workers if each.bytes_per_second > 0]
    return median(rates) if rates else 0.0


def _urgency(each: WorkerView) -> tuple[int, float]:
    """Return what workers that are there are sorted by: first who is kept from work, last who has none."""
    status = each.status
    if status.state in {"quarantined", "paused"}:
        return 0, 0.0
    if each.silent_seconds:
        return 1, 0.0
    return 2 if status.bytes_per_second or status.task is not None else 3, status.bytes_per_second


def _worker_line(each: WorkerView, usual: float, name_width: int, width: int) -> Line:
    status = each.status
    if status.state in {"paused", "quarantined"}:
        words = f"{_name(each)} {status.state}: {printable(status.reason or '', 200)}"
        return (Span(fitted(words, width), "warn"),)
    if each.silent_seconds:
        words = f"{_name(each)} ! silent for {clock_words(each.silent_seconds)}"
        if status.task is not None:
            words += f", at {task_words(status.task)}"
        return (Span(fitted(words, width), "bad"),)
    lane = "".join(_MARKS.get(mark) or BLOCKS[int(mark)] for mark in each.lane)
    rate = status.bytes_per_second
    told = f"{size_words(rate)}/s" if rate else "" if status.tasks or status.task is not None else "no task"
    ratio = rate / usual if usual and rate else None
    slow = ratio is not None and ratio < SLOW
    end = f"{told:>10}" + (f" {ratio:.2f}x" if ratio is not None else " " * 6)
    end += (" i/o!" if status.reading_share >= _WAITS else " cpu!") if slow else "     "
    room = width - len(end) - 1
    if room < 8:
        return (Span(fitted(f"{_name(each)} {end.strip()}", width), "warn" if slow else "plain"),)
    name = _name(each)
    lane_room = max(0, min(len(lane), room - width_of(name) - 1))
    shown = lane[len(lane) - lane_room :]
    left = room - lane_room
    role: Role = "warn" if slow else "plain"
    task = ""
    if status.task is not None and (task_room := left - name_width - 3) >= _TASK_WIDTH:
        name = padded(name, name_width + 2)
        task = fitted(task_words(status.task), task_room)
    name = middle_cut(name, left - 1)
    lane_role: Role = "warn" if slow else "good"
    doing = Span(padded(task, left - width_of(name)), "dim")
    return Span(name, role), doing, Span(shown, lane_role), Span(f" {end}", role)


def rate_words(rates: Sequence[float], size: int) -> str:
    """Return how fast something went in the last two seconds, since it began to; ``-`` as long as nobody can tell.

    Args:
        rates: Bytes a second in slices of time, the last one last, of which the newest is over.
        size: Bytes in all. Where there are some and no slice has any, they came after the newest.

    >>> rate_words((0.0, 0.0, 8e6, 4e6), 6_000_000), rate_words((0.0,) * 9, 6_000_000), rate_words((), 0)
    ('6.00 MB/s', '-', '0 B/s')
    """
    if size and not any(rates) and len(rates) < SLICES:
        return "-"
    begun = next((place for place, rate in enumerate(rates) if rate), 0)
    last = rates[begun:][-int(2 / SLICE_SECONDS) :]
    return f"{size_words(sum(last) / len(last) if last else 0.0)}/s"


def straggler_title(view: JobView, width: int) -> str:
    """Return whether stragglers get backups now, and what they have come to, as much of it as there is room for."""
    report = view.ledger
    some = report.totals.started or report.totals.declined
    parts = totals_parts(report.totals, report.bytes_read) if some else ["none so far"]
    switch = ""
    if view.snapshot.speculation is not None and not view.snapshot.finished:
        switch = f"backups {'on' if view.snapshot.speculation else 'OFF'}"
    rule = _rule_words(view)
    shorter = [[*parts[:count], "…"] for count in range(len(parts) - 1, 0, -1)]
    told = [(parts, rule), *((each, rule) for each in shorter[:1])] if rule else []
    for some_parts, end in (*told, *((each, "") for each in (parts, *shorter, [parts[0].partition(" = ")[0], "…"]))):
        words = " ── ".join(filter(None, (switch, "; ".join(some_parts), end)))
        if width_of(words) <= width:
            return words
    return switch or "…"


def _rule_words(view: JobView) -> str:
    """Return by what rule stragglers are told; nothing where they get no backups, or it is not known."""
    rule = view.terms.rule
    if rule is None or view.snapshot.speculation is False:
        return ""
    words = [] if rule.policy == "guarded" else [printable(rule.policy, 20)]
    if rule.quantile is not None and rule.multiplier is not None:
        words.append(f"{100 * rule.quantile:.4g} % / {rule.multiplier:.4g}x")
        if rule.slow is not None:
            words[-1] += f", idle {rule.slow:.4g}x"
    return " ".join(["rule", *words])


def straggler_lines(view: JobView, width: int, wanted: str = "") -> list[Line]:
    """Return the ledger in the order of time, the last at the end: each decision with the numbers behind it.

    Args:
        view: Has it.
        width: Columns.
        wanted: What an entry must hold, whatever its case; how many others there are is said.
    """
    report = view.ledger
    lines: list[Line] = []
    if report.cut:
        lines.append((Span(f"{counted(report.cut, 'earlier entry', 'earlier entries')} not kept", "dim"),))
    entries: list[_Entry] = [
        (line.seconds, f"{LEDGER_MARKS[line.what]} {line.text}", LEDGER_ROLES.get(line.what, "plain"))
        for line in ledger_lines(report.entries)
    ]
    lines += _entry_lines(view, entries, width, ("entry", "entries"), wanted)
    return lines or [(Span("no task has been taken for a straggler", "dim"),)]


def log_lines(view: JobView, width: int, wanted: str = "") -> list[Line]:
    """Return the log, the last at the end; ``wanted`` is what its lines must hold, as for stragglers."""
    lines: list[Line] = []
    if view.log_total > len(view.log):
        lines.append((Span(f"{view.log_total - len(view.log):,} earlier lines not kept", "dim"),))
    entries: list[_Entry] = [
        (line.seconds, line.words, "warn" if line.level >= logging.WARNING else "plain") for line in view.log
    ]
    lines += _entry_lines(view, entries, width, ("line", "lines"), wanted)
    return lines or [(Span("nothing unusual has happened", "dim"),)]


def _entry_lines(view: JobView, entries: list[_Entry], width: int, nouns: tuple[str, str], wanted: str) -> list[Line]:
    """Return the entries that hold a text, each as a whole, and how many do not."""
    lines: list[Line] = []
    hidden = 0
    for seconds, words, role in entries:
        epoch_seconds = view.ledger.began_seconds + seconds
        if holds(_stamp(epoch_seconds) + words, wanted):
            lines += timed(epoch_seconds, words, role, width)
        else:
            hidden += 1
    return lines + hidden_lines(hidden, *nouns, wanted)


def _stamp(epoch_seconds: float) -> str:
    return time.strftime("%H:%M:%S ", time.localtime(epoch_seconds))


def timed(epoch_seconds: float, words: str, role: Role, width: int) -> list[Line]:
    """Return words with the time of day before them, folded where they are too long."""
    stamp = _stamp(epoch_seconds)
    room = max(10, width - len(stamp))
    first, *rest = wrapped(words, room)
    return [(Span(stamp, "dim"), Span(first, role)), *((Span(" " * len(stamp)), Span(each, role)) for each in rest)]


def _name(each: WorkerView) -> str:
    return printable(each.status.worker, 40)


def _worker_words(each: WorkerView) -> str:
    status = each.status
    state = f"{status.state} silent" if each.silent_seconds else status.state
    return f"{_name(each)} {printable(status.host, 200)} {state} {printable(status.reason or '', 2000)}"


def holds(words: str, wanted: str) -> bool:
    """Return whether words hold a text, whatever its case."""
    return wanted.casefold() in words.casefold()


def hidden_lines(hidden: int, noun: str, plural: str, wanted: str) -> list[Line]:
    """Return how many things a filter hides; nothing where it hides none."""
    words = f"{counted(hidden, noun, plural)} without “{printable(wanted, 40)}”"
    return [(Span(words, "dim"),)] if hidden else []
