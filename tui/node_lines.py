"""What the screens of one node say, as lines of spans (pure: no Textual)."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Final

from distsum.observe import subtree
from distsum.observe.ledger import LEDGER_MARKS, ledger_lines, task_words
from distsum.observe.states import BACKUP, DONE, FAILED, NAMES, QUEUED, RUNNING, WAITING, aggregate, tasks_per_cell
from distsum.observe.workers import GONE
from distsum.wording import counted, printable, size_words

from .cells import fitted, middle_cut, padded, width_of
from .lines import LEDGER_ROLES, Line, Role, Span, clock_words, timed
from .palette import GLYPHS

if TYPE_CHECKING:
    from distsum.messages import TaskId
    from distsum.observe.attempts import Attempt
    from distsum.observe.subtree import Child, NodeDetail
    from distsum.observe.view import JobView
    from distsum.tree import Tree

STATE_ROLES: Final[dict[int, Role]] = {
    WAITING: "dim", DONE: "good", QUEUED: "plain", RUNNING: "strong", BACKUP: "warn", FAILED: "bad",
}  # fmt: skip
_ENDS: Final = {"running": "▶", "done": "✓", "failed": "!", "lost": "✗", "cancelled": "-"}
_END_ROLES: Final[dict[str, Role]] = {
    "running": "strong", "done": "good", "failed": "bad", "lost": "bad", "cancelled": "dim",
}  # fmt: skip
_WHY: Final = {"first": "", "retry": "again", "again": "anew", "backup": "backup", "share": "part"}
LEGEND: Final = (
    "P2/6 is the node that task 6 of phase 2 makes. A node's row: its state, which files it covers, the worst state of "
    "each part of what it stands on "
    f"({', '.join(f'{sign} {name}' for sign, name in zip(GLYPHS, NAMES, strict=True))}), and who makes it. "
    "Attempts: ✓ done, ! failed, ✗ its worker was lost, - called back since it was not wanted any more, ▶ runs. "
    "again: after one that failed or was lost; anew: what one had stored was missing or damaged; backup: a copy of a "
    "straggler; part: it makes one part for the others. began: after the job's start. "
    "A history holds the names of the first and the last file; others are called input N there."
)


def state_of(view: JobView, task: TaskId) -> int | None:
    """Return a task's state; None of one that the plan does not have."""
    if not 1 <= task.phase <= len(view.states):
        return None
    phase = view.states[task.phase - 1]
    width = len(phase.states) // phase.tiles
    if not (0 <= task.index < width and 0 <= task.tile < phase.tiles):
        return None
    return phase.states[task.tile * width + task.index]


def name_words(task: TaskId) -> str:
    """Return a node's short name: its phase, and its place in that; tiles are told once, elsewhere."""
    return f"P{task.phase}/{task.index}"


def files_words(tree: Tree, phase: int, index: int) -> str:
    """Return which inputs a node covers.

    >>> from distsum.tree import Tree
    >>> tree = Tree(files=26, fan_in=5, exponent=1)
    >>> files_words(tree, 1, 1), files_words(tree, 1, 5)
    ('files 5 to 9', 'file 25')
    """
    start, stop = tree.inputs(phase, index)
    return f"file {start:,}" if stop - start == 1 else f"files {start:,} to {stop - 1:,}"


def place_lines(view: JobView, task: TaskId, tree: Tree | None, width: int, rest: str = "") -> tuple[Line, Line]:
    """Return where a node stands: the way to it from the root, with the state of each node, and what it covers.

    ``rest`` is what is out of sight below, told at the right of the second line where no border tells it.
    """
    path = (task,) if tree is None else subtree.path_of(tree, task)
    parts: list[list[Span]] = []
    for each in path:
        state = state_of(view, each)
        sign = [] if state is None else [Span(f"{GLYPHS[state]} ", STATE_ROLES[state])]
        parts.append([*sign, Span(name_words(each), "strong" if each is task else "plain")])
    if not rest:
        return _way_line(parts, width), (_facts(view, task, tree, width),)
    room = max(0, width - len(rest) - 2)
    facts = _facts(view, task, tree, room)
    return _way_line(parts, width), (facts._replace(text=padded(facts.text, room)), Span(fitted(f"  {rest}", width)))


def _way_line(parts: list[list[Span]], width: int) -> Line:
    """Join nodes; where there are too many, those below the root are left out, and how many is said."""
    left_out = 0
    while True:
        gap = [[Span(f"…{left_out} more…", "dim")]] if left_out else []
        shown = [*parts[:1], *gap, *parts[1 + left_out :]] if left_out < len(parts) - 1 else parts[-1:]
        line: list[Span] = []
        for part in shown:
            line += [*([Span(" ▸ ", "dim")] if line else []), *part]
        if sum(len(span.text) for span in line) <= width or left_out >= len(parts) - 1:
            return tuple(line)
        left_out += 1


def _facts(view: JobView, task: TaskId, tree: Tree | None, width: int) -> Span:
    state = state_of(view, task)
    facts = [] if state is None else [NAMES[state]]
    if tree is not None:
        facts.append(f"{files_words(tree, task.phase, task.index)} of {tree.files:,}")
        if (above := subtree.node_above(tree, task)) is not None:
            place = subtree.place_in(tree, above, task)
            facts.append(
                f"number {place + 1:,} of the {len(subtree.children_of(tree, above)):,} below {name_words(above)}"
            )
        else:
            facts.append("the root: its node is the result")
    tiles = view.states[task.phase - 1].tiles if task.phase <= len(view.states) else 1
    if tiles > 1:
        facts.append(f"tile {task.tile + 1:,} of {tiles:,}")
    words = " · ".join(facts)
    role: Role = "plain" if state is None else STATE_ROLES[state]
    return Span(fitted(words, width), "plain" if role == "dim" else role)


# Children -------------------------------------------------------------------------------------------------------------


def children_title(view: JobView, task: TaskId, tree: Tree | None, cursor: int, *, asking: bool = False) -> str:
    """Return what the list of children is of, and which is chosen; ``asking`` is of what only others know."""
    if tree is None:
        return "1 Children"
    count = len(subtree.children_of(tree, task))
    chosen = f"{cursor + 1:,} of " if count > 1 else ""
    if task.phase == 1:
        told = "asking for their names" if asking else "in the order in which they are added"
        return f"1 Children ── {chosen}{counted(count, 'file')}, {told}"
    counts = children_counts(view, task, tree)
    told = ", ".join(f"{number:,} {name}" for name, number in zip(NAMES, counts, strict=True) if number)
    return f"1 Children ── {chosen}{counted(count, 'node')} ── {told}"


def children_counts(view: JobView, task: TaskId, tree: Tree) -> list[int]:
    """Return how many children of a node above the first phase are in each state, as in ``NAMES``."""
    phase = view.states[task.phase - 2]
    width = len(phase.states) // phase.tiles
    children = subtree.children_of(tree, task)
    own = range(children.start, min(children.stop, width))
    states = phase.states[task.tile * width + own.start : task.tile * width + own.stop]
    counts = [states.count(state) for state in range(len(NAMES))]
    if len(own) < len(children):  # The last one is made by a task of a phase further below.
        last = subtree.child_at(tree, task, len(children) - 1)
        state = None if last is None else state_of(view, last)
        if state is not None:
            counts[state] += 1
    return counts


def child_line(view: JobView, task: TaskId, detail: NodeDetail, tree: Tree, place: int, width: int) -> Line:
    """Return the row of a child by its place; what is only known to the detail is left open where that is not there."""
    at = place - detail.first
    child = detail.children[at] if detail.task == task and 0 <= at < len(detail.children) else None
    if task.phase == 1:
        return _file_line(task, tree, place, "…" if child is None else child.name, width)
    made = subtree.child_at(tree, task, place)
    if made is None:
        return ()
    name_width = 1 + len(name_words(made)) - len(str(made.index)) + len(str(subtree.children_of(tree, task).stop - 1))
    return _node_line(view, made, tree, child, name_width, width)


def _file_line(task: TaskId, tree: Tree, place: int, name: str, width: int) -> Line:
    children = subtree.children_of(tree, task)
    digits = len(f"{children.stop - 1:,}")
    parts: list[Span] = [Span(f"{children[place]:>{digits},} ", "dim")]
    splits = tree.splits(task.phase, task.index)
    if splits:
        number = next(number for number, (_, stop) in enumerate(splits) if children[place] < stop)
        parts.append(Span(f"child {number} ", "dim"))
    room = width - sum(len(part.text) for part in parts)
    return (*parts, Span(middle_cut(name, room)))


def _node_line(view: JobView, made: TaskId, tree: Tree, child: Child | None, name_width: int, width: int) -> Line:
    state = state_of(view, made)
    if state is None:
        return (Span(f"? {name_words(made)}", "dim"),)
    role = STATE_ROLES[state]
    left = [Span(f"{GLYPHS[state]} {NAMES[state]:<8}", role), Span(f"{name_words(made):<{name_width}} ")]
    files = f"{files_words(tree, made.phase, made.index):<22} "
    who = ""
    if child is not None and child.attempts:
        who = f"{middle_cut(printable(child.worker, 40), 16)} {_child_time(view, child)}".rstrip()
        if child.attempts > 1:
            who += f", {counted(child.attempts, 'attempt')}"
    room = width - sum(len(span.text) for span in left)
    if room >= 44:
        left.append(Span(files, "dim"))
        room -= len(files)
    bar_room = min(40, room - 32) if made.phase > 1 else 0
    if bar_room >= 8:
        left += [*leaves_bar(view, made, tree, bar_room), Span(" ")]
        room = width - sum(len(span.text) for span in left)
    return (*left, Span(fitted(who, max(0, room)), "dim" if state == DONE else "plain"))


def _short_words(seconds: float) -> str:
    """Return a duration, of little ones in milliseconds: tasks may take so little.

    >>> [_short_words(seconds) for seconds in (0.0, 0.0042, 0.0994, 0.1, 206)]
    ['0ms', '4ms', '99ms', '0.1s', '3m26s']
    """
    return f"{seconds * 1000:.0f}ms" if seconds < 0.0995 else clock_words(seconds)


def _child_time(view: JobView, child: Child) -> str:
    if child.began_seconds is None:
        return ""
    ended = view.snapshot.elapsed_seconds if child.ended_seconds is None else child.ended_seconds
    return _short_words(max(0.0, ended - child.began_seconds))


def leaves_bar(view: JobView, task: TaskId, tree: Tree, width: int) -> list[Span]:
    """Return the tasks of the first phase below a node as cells, always as wide; the worst state wins in each."""
    phase = view.states[0]
    leaves = subtree.leaves_of(tree, task)
    start = task.tile * (len(phase.states) // phase.tiles)
    states = phase.array()[start + leaves.start : start + leaves.stop]
    cells = aggregate(states, tasks_per_cell(states.size, width)).tolist()
    spans = [Span(GLYPHS[state] * len(list(run)), STATE_ROLES[state]) for state, run in itertools.groupby(cells)]
    return [*spans, Span(" " * (width - len(cells)))]


# Attempts -------------------------------------------------------------------------------------------------------------


def attempts_title(detail: NodeDetail | None, pane: int) -> str:
    """Return how many attempts there are, for a pane of that number."""
    count = " ── asking" if detail is None else f" ── {detail.attempts_cut + len(detail.attempts):,}"
    return f"{pane} Attempts{count}"


def _cut_lines(detail: NodeDetail) -> list[Line]:
    if not detail.attempts_cut:
        return []
    return [(Span(f"{counted(detail.attempts_cut, 'earlier attempt')} not shown", "dim"),)]


def _none_words(view: JobView, detail: NodeDetail) -> str:
    if state_of(view, detail.task) == DONE:
        return "none in this run: its node was stored already, or is not needed"
    return "none yet"


def _who(attempt: Attempt) -> str:
    return printable(attempt.worker, 40)


def _outcome(attempt: Attempt) -> str:
    """Return how an attempt ended, and why it was begun unless it was the first."""
    end = (
        "stored already"
        if attempt.reused
        else attempt.failure or attempt.end
        if attempt.end == "failed"
        else (attempt.end)
    )
    why = _WHY[attempt.why]
    if attempt.child is not None:
        why = f"{why} {attempt.child}"
    return f"{end} ({why})" if why else end


def _seconds_of(view: JobView, attempt: Attempt) -> float | None:
    if attempt.began_seconds is None:
        return None
    ended = view.snapshot.elapsed_seconds if attempt.ended_seconds is None else attempt.ended_seconds
    return max(0.0, ended - attempt.began_seconds)


_FIGURES: Final = {"began": 9, "took": 7, "read": 8, "rate": 9}
"""What is told of each attempt beside its bar, and how wide that is."""
_LEAST_FIRST: Final = ("began", "rate", "read")
"""What is left out where there is little room."""
_BAR: Final = 16
"""As wide a bar is to be at least, before figures are left out."""


def _known_lines(view: JobView, task: TaskId, width: int) -> list[Line]:
    """Return what a view tells of the attempts at a node: who is at it now."""
    state = state_of(view, task)
    at_it = [each.status for each in view.workers if each.status.task == task and each.status.state not in GONE]
    lines: list[Line] = [
        (
            Span(f"▶ {printable(each.worker, 40)} ", "strong"),
            Span(fitted(f"is at it now, on {printable(each.host, 40)}", max(0, width - 43))),
        )
        for each in at_it
    ]
    if not lines and state is not None:
        lines = [(Span(fitted(f"{GLYPHS[state]} {NAMES[state]}", width), STATE_ROLES[state]),)]
    return [*lines, (Span(fitted("asking who was at it, when, and what each attempt has read", width), "dim"),)]


def time_lines(view: JobView, detail: NodeDetail | None, task: TaskId, width: int) -> list[Line]:
    """Return a node's attempts on a line of time: each a bar from its beginning to its end, and what became of it."""
    if detail is None:
        return _known_lines(view, task, width)
    if not detail.attempts:
        return [(Span(fitted(_none_words(view, detail), width), "dim"),)]
    now = view.snapshot.elapsed_seconds
    began = min(attempt.when for attempt in detail.attempts)
    ended = max(now if attempt.ended_seconds is None else attempt.ended_seconds for attempt in detail.attempts)
    names = min(20 if width >= 76 else 12, max(6, *(width_of(_who(attempt)) for attempt in detail.attempts)))
    outcomes = min(26 if width >= 76 else 14, max(7, *(width_of(_outcome(attempt)) for attempt in detail.attempts)))
    figures = dict(_FIGURES)
    for name in _LEAST_FIRST:
        if _bar_room(width, names, outcomes, figures) < _BAR:
            del figures[name]
    bar = max(1, _bar_room(width, names, outcomes, figures))
    head = f"{'#':>3} {'worker':<{names}}  {fitted('time', bar):<{bar}} {'outcome':<{outcomes}}"
    head += "".join(f" {name:>{room}}" for name, room in figures.items())
    lines = [*_cut_lines(detail), (Span(fitted(head, width), "dim"),)]
    for number, attempt in enumerate(detail.attempts, start=detail.attempts_cut + 1):
        role = _END_ROLES[attempt.end]
        told = _figures_of(view, attempt)
        lines.append(
            (
                Span(f"{number:>3} {padded(middle_cut(_who(attempt), names), names)}  "),
                Span(_bar(attempt, began, ended, now, bar), role),
                Span(f" {padded(fitted(_outcome(attempt), outcomes), outcomes)}", role),
                Span("".join(f" {told[name]:>{room}}" for name, room in figures.items())),
            )
        )
    stamp = time.strftime("%H:%M:%S", time.localtime(view.ledger.began_seconds + began))
    later = f"{_short_words(ended - began)} later"
    if bar > len(stamp) + len(later):
        lines.append((Span(f"{'':{names + 6}}{stamp}{later:>{bar - len(stamp)}}", "dim"),))
    return lines


def _bar_room(width: int, names: int, outcomes: int, figures: dict[str, int]) -> int:
    return width - names - outcomes - 7 - sum(room + 1 for room in figures.values())


def _figures_of(view: JobView, attempt: Attempt) -> dict[str, str]:
    seconds = _seconds_of(view, attempt)
    read = attempt.bytes_read
    return {
        "began": "?" if attempt.began_seconds is None else f"+{clock_words(attempt.began_seconds)}",
        "took": "?" if seconds is None else _short_words(seconds),
        "read": size_words(read) if read else "-",
        "rate": f"{size_words(read / seconds)}/s" if read and seconds else "-",
    }


def _bar(attempt: Attempt, began: float, ended: float, now: float, width: int) -> str:
    """Return an attempt as a bar, with a sign for its end."""
    span = (ended - began) or 1.0
    stop_seconds = now if attempt.ended_seconds is None else attempt.ended_seconds
    start = min(width - 1, int((attempt.when - began) / span * width))
    stop = min(width - 1, max(start, round((stop_seconds - began) / span * width) - 1))
    return (" " * start + "━" * (stop - start) + _ENDS[attempt.end]).ljust(width)


def stored_lines(view: JobView, detail: NodeDetail | None, task: TaskId, tree: Tree | None, width: int) -> list[Line]:
    """Return what is stored of a node: itself, its children, and what helpers have made of it."""
    state = state_of(view, task)
    stored = state == DONE
    words = "its node is stored, or is not needed any more" if stored else "its node is not stored yet"
    lines: list[Line] = [(Span(fitted(words, width), "good" if stored else "plain"),)]
    if tree is None:
        return lines
    if task.phase > 1:
        counts = children_counts(view, task, tree)
        done, count = counts[DONE], sum(counts)
        told = f"{done:,} of {counted(count, 'node')} that it folds are stored"
        if not stored and done < count:
            told += "; it can begin when all are"
        lines.append((Span(fitted(told, width)),))
    if detail is None:
        return [*lines, (Span(fitted("asking what was opened and stored for it", width), "dim"),)]
    helped = sorted({each.child for each in detail.attempts if each.child is not None and each.end == "done"})
    if helped:
        splits = tree.splits(task.phase, task.index)
        names = ", ".join(f"{each} of {len(splits)}" if splits else str(each) for each in helped)
        lines.append((Span(fitted(f"made by others and stored: part {names}", width)),))
    done_by = next((each for each in reversed(detail.attempts) if each.end == "done" and each.child is None), None)
    if done_by is not None:
        opened = f"{counted(done_by.objects_read, 'input' if task.phase == 1 else 'partial')} opened"
        lines.append((Span(fitted(f"{opened}, {counted(done_by.objects_stored, 'object')} stored", width)),))
    return lines


# Why ------------------------------------------------------------------------------------------------------------------


def why_lines(view: JobView, detail: NodeDetail | None, task: TaskId, width: int) -> list[Line]:
    """Return why a task was copied, or not, and why it was done again, in the order of time."""
    told: list[tuple[float, str, Role]] = []
    begins = f"{task_words(task)}  "
    mine = [entry for entry in view.ledger.entries if entry.task == task]
    for line in ledger_lines(mine):
        role = LEDGER_ROLES.get(line.what, "plain")
        told.append((line.seconds, f"{LEDGER_MARKS[line.what]} {line.text.removeprefix(begins)}", role))
    attempts = () if detail is None else detail.attempts
    first = 1 if detail is None else detail.attempts_cut + 1
    for number, attempt in enumerate(attempts, start=first):
        told += _attempt_reasons(view, number, attempt)
    lines: list[Line] = []
    if view.ledger.cut:
        cut = counted(view.ledger.cut, "earlier decision")
        lines.append((Span(fitted(f"{cut} about this job's stragglers not kept", width), "dim"),))
    for seconds, words, role in sorted(told, key=lambda each: each[0]):
        lines += timed(view.ledger.began_seconds + seconds, words, role, width)
    if told:
        return lines
    words = "nothing unusual: neither copied nor tried again" if detail else "not copied; asking if it was tried again"
    return [*lines, (Span(fitted(words, width), "dim"),)]


def _attempt_reasons(view: JobView, number: int, attempt: Attempt) -> list[tuple[float, str, Role]]:
    who = f"attempt {number} on {_who(attempt)}"
    found: list[tuple[float, str, Role]] = []
    if attempt.why == "retry":
        found.append((attempt.when, f"↻ {who} begins, since one before it failed or its worker was lost", "plain"))
    elif attempt.why == "again":
        found.append((attempt.when, f"↻ {who} begins, since what was stored is missing or damaged", "plain"))
    elif attempt.why == "share":
        found.append((attempt.when, f"· {who} makes part {attempt.child} for the others", "plain"))
    ended = attempt.when if attempt.ended_seconds is None else attempt.ended_seconds
    if attempt.end == "failed":
        reason = f": {attempt.reason}" if attempt.reason else "; its words were not kept"
        found.append((ended, f"! {who} failed ({attempt.failure}){reason}", "bad"))
    elif attempt.end == "lost":
        status = next((each.status for each in view.workers if each.status.worker == attempt.worker), None)
        gone = status is not None and status.state == "lost" and status.reason
        reason = f": {printable(status.reason or '', 500)}" if gone and status is not None else ""
        found.append((ended, f"✗ {_who(attempt)} was lost while it did attempt {number}{reason}", "bad"))
    return found
