"""A report of a job as one HTML page that needs nothing else: no server, no script to be read, no network (pure).

Whatever comes from outside (names, hosts, reasons) goes through ``report_svg.text``, which makes it harmless, and a
policy in the page forbids all but its own style and script.
"""

from __future__ import annotations

import base64
import hashlib
import html
import logging
import shlex
import time
from typing import TYPE_CHECKING, Final

from distsum.observe.accounts import KINDS
from distsum.observe.ledger import LEDGER_MARKS, duration_words, ledger_lines, saved_words, totals_words
from distsum.observe.report import DONE_AGAIN, DONE_WITH_BACKUP, FATES, NEVER_DONE
from distsum.observe.report_style import SCRIPT, STYLE
from distsum.observe.report_svg import WIDTH, natural, phase_map, text, time_line
from distsum.request import BUSY
from distsum.wording import counted, size_words, time_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from distsum.observe.report import JobReport
    from distsum.observe.view import JobView, LogLine

_MOST_WORKERS: Final = 300
_MOST_WORDS: Final = 2000
_MOST_LINES: Final = 2000
"""Of the ledger."""
_FATE_SIGNS: Final = {DONE_AGAIN: " ↻", DONE_WITH_BACKUP: " ↯", NEVER_DONE: " !"}
_KIND_WORDS: Final = {
    "starting": "before they joined",
    "waiting": "not at this job",
    "reading": "waited for data",
    "adding": "added",
    "storing": "stored",
    "discarded": "attempts that gave no result",
}
_BARS: Final = (
    ("usual", "first attempt, odd phase"),
    ("usual even", "first attempt, even phase"),
    ("backup", "backup"),
    ("retry", "another attempt"),
    ("share", "one part, to help others"),
    ("usual ended", "failed, lost or called back"),
)


def page(report: JobReport) -> str:
    """Return the page, in ASCII alone: so it is the same in whatever encoding it is written."""
    title = f"{text(report.header.reduction, 80)} of {counted(report.header.files, 'file')}"
    parts = [
        _head(title),
        "<header>",
        _heading(report, title),
        "</header><main>",
        _summary(report),
        _phases(report),
        _tree(report),
        _workers(report),
        _stragglers(report),
        _trouble(report),
        _again(report),
        f"</main><footer>Made by distsum from the job's history. It loads nothing.</footer><script>{SCRIPT}</script>",
        "</body></html>\n",
    ]
    return "\n".join(parts).encode("ascii", "xmlcharrefreplace").decode()


def _head(title: str) -> str:
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} - distsum report</title><style>{STYLE}</style></head><body>"
    )


# Summary --------------------------------------------------------------------------------------------------------------


def _heading(report: JobReport, title: str) -> str:
    header, view = report.header, report.view
    state, kind = "DONE", "good"
    if view.failure is not None:
        state, kind = ("CANCELLED", "warn") if view.cancelled else ("FAILED", "bad")
    elif not view.snapshot.finished:
        state, kind = "NOT ENDED", "warn"
    began = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(header.began_seconds))
    lines = [
        f'<h1>{title} <span class="state {kind}">{state}</span></h1>',
        f'<p class="dim">job {text(header.job, 80)}, begun {began}, by distsum {text(report.version, 80)}</p>',
        f"<p>to <code>{text(header.output, 1000)}</code></p>",
    ]
    if header.inputs:
        from_to = [f"<code>{text(name, 1000)}</code>" for name in dict.fromkeys(header.inputs)]
        lines.append(f"<p>from {' to '.join(from_to)}</p>")
    if report.remark is not None:
        lines.append(f'<p class="remark"><strong>Not all is told:</strong> {text(report.remark, _MOST_WORDS)}.</p>')
    if view.failure is not None:
        lines.append(f'<p class="failure"><strong>{state.capitalize()}:</strong> {text(view.failure, _MOST_WORDS)}</p>')
    return "\n".join(lines)


def _until_words(view: JobView) -> str:
    """Return what ended the time that a job took; nothing of one that has not ended."""
    if not view.snapshot.finished:
        return ""
    if view.failure is None:
        return "until the last task was done"
    return "until it was cancelled" if view.cancelled else "until it failed"


def _summary(report: JobReport) -> str:
    header, tally, snapshot = report.header, report.tally, report.view.snapshot
    tasks = sum(phase.tasks for phase in snapshot.phases)
    done = sum(phase.done for phase in snapshot.phases)
    totals, seconds = snapshot.backups, report.end_seconds
    hosts = {each.status.host for each in report.view.workers}
    spent = report.view.account
    present = sum(spent[kind] for kind in KINDS if kind != "starting")
    busy = sum(spent[kind] for kind in BUSY) / present if present > 0 else None
    made = len(report.attempts.workers)
    figures: list[tuple[str, str, float | None, str, str]] = [
        (
            "it took",
            "seconds",
            seconds,
            time_words(seconds),
            _until_words(report.view),
        ),
        (
            "read",
            "bytes_read",
            tally.bytes_read,
            size_words(tally.bytes_read),
            f"{size_words(tally.bytes_read / max(seconds, 1e-3))}/s",
        ),
        ("written", "bytes_written", tally.bytes_written, size_words(tally.bytes_written), "partials and result"),
        (
            "workers",
            "workers",
            made,
            f"{made:,}",
            f"did some of it, on {counted(len(hosts), 'host')}; {tally.workers_lost:,} lost",
        ),
        (
            "busy",
            "busy_share",
            busy,
            "not told" if busy is None else f"{busy:.0%}",
            "of the workers' time read, added or stored for this job",
        ),
        (
            "tasks",
            "tasks",
            tasks,
            f"{tasks:,}" if done == tasks else f"{done:,} of {tasks:,}",
            f"{sum(phase.reused for phase in snapshot.phases):,} stored already",
        ),
        ("attempts", "attempts", tally.attempts, f"{tally.attempts:,}", f"{tally.retries:,} repeated"),
        (
            "backups",
            "backups",
            totals.started,
            f"{totals.started:,}",
            "; ".join(filter(None, (f"{totals.won:,} won", saved_words(totals)))),
        ),
    ]
    if header.input_bytes:
        small = f"{counted(header.count, 'number')} of {text(header.dtype, 20)} each"
        figures.insert(1, ("inputs", "input_bytes", header.input_bytes, size_words(header.input_bytes), small))
    cells = "".join(
        f'<div><dt>{name}</dt><dd data-figure="{key}" data-value="{"" if value is None else f"{value!r}"}">{words}'
        f"<small>{small}</small></dd></div>"
        for name, key, value, words, small in figures
    )
    return f'<dl class="figures">{cells}</dl>{_account(report)}'


def _account(report: JobReport) -> str:
    """Return what the workers' time went into."""
    spent = report.view.account
    whole = sum(spent.values())
    if whole <= 0:
        return ""
    x, bars, rows = 0.0, [], []
    for kind in KINDS:
        share = spent[kind] / whole
        words = f"{_KIND_WORDS[kind]}: {duration_words(spent[kind])}, {share:.1%}"
        bars.append(
            f'<rect class="{kind}" x="{x:.1f}" y="0" width="{share * WIDTH:.1f}" height="20">'
            f"<title>{words}</title></rect>"
        )
        rows.append(
            f'<tr><th scope="row">{_swatch(kind)} {_KIND_WORDS[kind]}</th>'
            f'<td class="n" data-account="{kind}" data-value="{spent[kind]!r}">{duration_words(spent[kind])}</td>'
            f'<td class="n">{share:.1%}</td></tr>'
        )
        x += share * WIDTH
    return (
        "<h2>What the workers' time went into</h2>"
        f'<svg class="shares" role="img" aria-label="Shares of it, as in the table below" viewBox="0 0 {WIDTH} 20" '
        f'preserveAspectRatio="none">{"".join(bars)}</svg>'
        f"{_table('', ('', 'n:time', 'n:share'), rows)}"
    )


def _phases(report: JobReport) -> str:
    rows = []
    # There are none before the job has begun.
    for phase, work, times in zip(report.view.snapshot.phases, report.header.work, report.times, strict=False):
        began, ended = phase.started_seconds, phase.finished_seconds
        took = (report.end_seconds if ended is None else ended) - began if began is not None else None
        rate = "" if not took else f"{size_words(phase.bytes_read / max(took, 1e-3))}/s"
        cells = [
            f"{phase.done:,} of {phase.tasks:,}",
            f"{phase.reused + max(0, work.tasks - phase.tasks):,}",
            size_words(phase.bytes_read),
            "" if took is None else duration_words(took),
            rate,
            *("" if each is None else duration_words(each) for each in times),
        ]
        rows.append(
            f'<tr data-phase="{phase.phase}"><th scope="row">{phase.phase}</th>'
            + "".join(f'<td class="n">{cell}</td>' for cell in cells)
            + "</tr>"
        )
    if not rows:
        return "<h2>Phases</h2><p>The job had not begun.</p>"
    heads = ("phase", "n:tasks", "n:stored already or not needed", "n:read", "n:took", "n:rate")
    times_heads = ("n:attempt: median", "n:99 %", "n:longest")
    caption = "Phase 1 adds the inputs, the others the partials of the phase before; they overlap."
    return f"<h2>Phases</h2>{_table(caption, (*heads, *times_heads), rows)}"


# Drawings -------------------------------------------------------------------------------------------------------------


def _tree(report: JobReport) -> str:
    parts = ["<h2>Tree</h2><p>Each cell is a task, in their order, from the last phase down to the inputs.</p>"]
    legend = [(f"f{fate}", f"{name}{_FATE_SIGNS.get(fate, '')}") for fate, name in enumerate(FATES)]
    parts.append(_legend(legend))
    for phase in range(len(report.header.work), 0, -1):
        drawing = phase_map(report, phase)
        tasks = counted(report.header.work[phase - 1].tasks, "task")
        parts.append(
            f'<figure data-map="{phase}"><h3>Phase {phase}: {tasks}</h3><div class="wide">{drawing.svg}</div>'
            f"<figcaption>{drawing.said}</figcaption></figure>"
        )
    return "\n".join(parts)


def _workers(report: JobReport) -> str:
    if not report.attempts.workers:
        return "<h2>Workers</h2><p>No worker had begun a task.</p>"
    drawing = time_line(report)
    return (
        f'<h2>Workers</h2>{_legend(list(_BARS))}<figure data-timeline><div class="wide">{drawing.svg}</div>'
        f"<figcaption>{drawing.said}</figcaption></figure>{_worker_table(report)}"
    )


def _worker_table(report: JobReport) -> str:
    known = {each.status.worker: each.status for each in report.view.workers}
    rows = []
    for account in sorted(report.accounts, key=lambda each: natural(each.worker))[:_MOST_WORKERS]:
        status = known.get(account.worker)
        whole = sum(seconds for kind, seconds in account.seconds.items() if kind != "starting")
        busy = sum(account.seconds[kind] for kind in BUSY)
        told = ["", "", "", "", ""]
        if status is not None:
            lost = status.state in {"lost", "refused", "quarantined", "paused"}
            told = [
                text(status.host, 80),
                f"{status.state}: {text(status.reason or '', 200)}" if lost else "",
                f"{status.failures:,}",
                size_words(status.bytes_read),
                f"{size_words(status.bytes_per_second)}/s",
            ]
        rows.append(
            f'<tr><th scope="row">{text(account.worker, 80)}</th><td>{told[0]}</td><td class="n">{account.tasks:,}</td>'
            f'<td class="n">{told[2]}</td><td class="n">{told[3]}</td><td class="n">{told[4]}</td>'
            f'<td class="n">{f"{busy / whole:.0%}" if whole > 0 else ""}</td><td>{told[1]}</td></tr>'
        )
    more = len(report.accounts) - len(rows)
    caption = f"The first {len(rows):,}; {counted(more, 'more worker')} left out." if more else ""
    heads = ("worker", "host", "n:tasks", "n:failed", "n:read", "n:rate while busy", "n:busy", "at the end")
    table = _table(caption, heads, rows, "find a worker or host")
    opened = " open" if len(rows) <= 40 else ""
    summary = f"{counted(len(report.accounts), 'worker')} as a table"
    return f"<details{opened}><summary>{summary}</summary>{table}</details>"


# Words ----------------------------------------------------------------------------------------------------------------


def _stragglers(report: JobReport) -> str:
    ledger = report.view.ledger
    parts = ["<h2>Stragglers</h2>"]
    if not ledger.entries and not ledger.cut:
        return f"{parts[0]}<p>No task was taken for one.</p>"
    parts.append(f"<p>{html.escape(totals_words(ledger.totals, ledger.bytes_read))}</p>")
    lines = ledger_lines(ledger.entries)
    caption = "Times count from the job's beginning."
    if lines and lines[0].seconds < 0:
        caption = "Times count from the beginning of the last master; those of an earlier one are below 0."
    if ledger.cut:
        caption += f" {counted(ledger.cut, 'earlier entry', 'earlier entries')} left out."
    if len(lines) > _MOST_LINES:
        caption += f" {counted(len(lines) - _MOST_LINES, 'earlier line')} left out."
    rows = [
        f'<tr class="{line.what}"><td class="when">{"-" * (line.seconds < 0)}{duration_words(abs(line.seconds))}</td>'
        f'<td class="mark">{LEDGER_MARKS[line.what]}</td><td>{text(line.text, 1000)}</td></tr>'
        for line in lines[-_MOST_LINES:]
    ]
    parts.append(_table(caption, ("n:when", "", "what, and why"), rows, "find a task, worker or reason"))
    return "\n".join(parts)


def _trouble(report: JobReport) -> str:
    view = report.view
    bad = [line for line in view.log if line.level >= logging.WARNING]
    rest = [line for line in view.log if line.level < logging.WARNING]
    cut = view.log_total - len(view.log)
    parts = ["<h2>What went wrong</h2>"]
    notes = [note for note in view.snapshot.notes if "left out so far" in note]
    parts += [f"<p>{text(note, 1000)}</p>" for note in notes[-1:]]
    if cut:
        parts.append(f"<p>{counted(cut, 'earlier line')} of the log left out.</p>")
    if bad:
        parts.append(_log(bad, "!"))
    elif not cut and not notes:
        parts.append("<p>Nothing that was told.</p>")
    if rest:
        parts.append(
            f"<details><summary>{counted(len(rest), 'line')} about what was usual</summary>{_log(rest, '')}</details>"
        )
    return "\n".join(parts)


def _log(lines: Sequence[LogLine], mark: str) -> str:
    rows = [
        f'<tr class="{"bad" if mark else ""}"><td class="when">{duration_words(line.seconds)}</td>'
        f'<td class="mark">{mark}</td><td>{text(line.words, _MOST_WORDS)}</td></tr>'
        for line in lines
    ]
    return _table("", ("n:when", "", "what"), rows, "find in the log" if len(rows) > 10 else "")


def _again(report: JobReport) -> str:
    header = report.header
    parts = [f"<h2>How to do it again</h2><p>It ran by distsum {text(report.version, 80)}.</p>"]
    if not header.command:
        parts.append("<p>The history does not tell the command; it is of an earlier distsum.</p>")
        return "\n".join(parts)
    command = " ".join(word if word == "@inputs.txt" else shlex.quote(word) for word in header.command)
    names = [f"<code>{text(name, 1000)}</code>" for name in dict.fromkeys(header.inputs)]
    parts.append(
        f"<pre>{text(command, 4000)}</pre><p><code>inputs.txt</code> lists the {counted(header.files, 'input')}, one a "
        f"line, in their order: {' to '.join(names)}. The result has the same bits, whatever the workers, partition "
        "and tiles.</p>"
    )
    return "\n".join(parts)


def _table(caption: str, heads: Sequence[str], rows: Iterable[str], filter_words: str = "") -> str:
    """Return a table; a head that begins with ``n:`` is of numbers."""
    cells = "".join(
        f'<th scope="col" class="n">{head[2:]}</th>' if head.startswith("n:") else f'<th scope="col">{head}</th>'
        for head in heads
    )
    told = f"<caption>{caption}</caption>" if caption else ""
    filtered = f' data-filter="{filter_words}"' if filter_words else ""
    return (
        f'<div class="wide"><table{filtered}>{told}<thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _swatch(kind: str) -> str:
    return (
        '<svg viewBox="0 0 12 12" width="12" height="12" aria-hidden="true" style="display:inline-block;width:12px">'
        f'<rect class="{kind}" width="11" height="11" x=".5" y=".5"/></svg>'
    )


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    items = "".join(f"<li>{_swatch(kind)}{words}</li>" for kind, words in entries)
    return f'<ul class="legend">{items}</ul>'
