"""Whatever is told of backups, and in whatever order: the ledger's totals add up, and its words harm nobody."""

from __future__ import annotations

import random
from collections import Counter
from typing import get_args

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

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
    TaskStarted,
)
from distsum.observe.fold import JobTally
from distsum.observe.ledger import (
    BackupEntry,
    DeclinedEntry,
    Entry,
    Ledger,
    LedgerReport,
    entry_words,
    ledger_lines,
    totals_words,
)
from distsum.observe.snapshot import PhaseWork

KEPT = 6
STATES = ("won", "helped", "lost", "cancelled", "moot", "racing")

NAMES = ("w1", "w2", "\x1b[2Jw\n", "\u202e[bold]\u2028", "w" * 300)


def drawn_events(seed, most=60):
    """Return events of a sequence that no tracker would tell, with numbers and names of every kind."""
    draw = random.Random(seed)
    return [_drawn_event(draw) for _ in range(draw.randint(0, most))]


def _drawn_event(draw):
    task = TaskId("job", draw.randint(1, 3), draw.randint(0, 2), draw.randint(0, 5))
    attempt, worker = draw.randint(1, 12), draw.choice(NAMES)
    match draw.choice(["started", "started", "ended", "joined", "stopped", "declined", "other"]):
        case "started":
            reason = draw.choice(get_args(BackupReason))
            helpers = tuple(draw.choices(NAMES, k=draw.choice([0, 0, 1, 3])))
            of = draw.randint(1, 12), draw.choice(NAMES)
            return BackupStarted(task, attempt, worker, *of, reason, _drawn_evidence(draw), helpers)
        case "ended":
            saved = draw.choice([None, 0.0, draw.uniform(0, 1e6)])
            outcome = draw.choice(get_args(BackupOutcome))
            wasted = draw.choice([0, draw.randint(0, 10**15)])
            return BackupEnded(task, attempt, worker, outcome, draw.uniform(0, 1e6), saved, wasted, draw.choice([0, 3]))
        case "joined":
            seconds = draw.choice([None, draw.uniform(0, 1e6)]), draw.uniform(0, 1e6), draw.choice([None, 1.5])
            event = draw.choice([HelperAdded, HelperAdded, HelperDeclined])
            return event(task, attempt, worker, draw.randint(0, 9), *seconds)
        case "stopped":
            more = draw.choice([0, draw.randint(0, 10**15)])
            return LoserStopped(task, draw.randint(1, 12), worker, attempt, draw.uniform(0, 1e6), more)
        case "declined":
            reasons = draw.choice(get_args(BackupReason)), draw.choice(get_args(DeclineReason))
            return BackupDeclined(task, attempt, worker, *reasons, _drawn_evidence(draw))
    return TaskStarted(worker, task, 1, attempt)


def _drawn_evidence(draw):
    def seconds():
        return draw.choice([0.0, 1e-9, draw.uniform(0, 10), 10 ** draw.uniform(0, 7)])

    def perhaps():
        return draw.choice([None, seconds()])

    return Evidence(
        elapsed_seconds=seconds(),
        mean_seconds=perhaps(),
        left_seconds=perhaps(),
        copy_seconds=perhaps(),
        progress=draw.choice([0.0, 1.0, draw.random()]),
        slowness=perhaps(),
        silent_seconds=seconds(),
        done=draw.randint(0, 5),
        tasks=draw.randint(5, 10**6),
        limit_times=perhaps(),
        limit_seconds=perhaps(),
        gain_times=perhaps(),
        most_backups=draw.choice([None, draw.randint(1, 10**6)]),
    )


seeds = st.integers(0, 2**32)


@settings(max_examples=300)
@given(seeds)
def test_totals_add_up_after_every_event_of_any_sequence(seed):
    ledger = Ledger(KEPT)
    racing: set[int] = set()
    counts: Counter[str] = Counter()
    saved = wasted = 0.0
    joined = endless = 0
    for now, event in enumerate(drawn_events(seed)):
        match event:
            case BackupStarted() if event.attempt not in racing:
                racing.add(event.attempt)
                counts["started"] += 1
            case BackupEnded() if event.attempt in racing:
                racing.remove(event.attempt)
                counts[event.outcome] += 1
                saved += event.saved_seconds or 0.0
                endless += event.saved_seconds is None
                wasted += event.wasted_bytes
            case LoserStopped():
                wasted += event.more_bytes
            case BackupDeclined():
                counts["declined"] += 1
            case HelperAdded() | HelperDeclined():
                joined += 1
        ledger.take(event, float(now))
        totals = ledger.totals()
        assert totals.started == counts["started"] == sum(getattr(totals, state) for state in STATES)
        assert {name: getattr(totals, name) for name in counts} == counts
        assert (totals.racing, totals.saved_seconds, totals.wasted_bytes) == (len(racing), saved, wasted)
        assert totals.endless == endless
        assert 0.0 <= totals.wasted_share(1000) < 1.0
        # What is kept is bounded, and what is cut is told.
        assert len(ledger.entries) <= KEPT + len(racing)
        assert len(ledger.entries) + ledger.cut == totals.started + totals.declined + joined
        open_entries = {each.attempt for each in ledger.entries if isinstance(each, BackupEntry) and not each.outcome}
        assert open_entries == racing, "one that races is never cut"


@given(seeds)
def test_words_are_one_harmless_line_each_and_in_the_order_of_time(seed):
    ledger = Ledger(KEPT)
    for now, event in enumerate(drawn_events(seed)):
        ledger.take(event, float(now))
    for entry in ledger.entries:
        assert entry_words(entry).isprintable()
        assert entry_words(entry).startswith(f"phase {entry.task.phase} task {entry.task.index}")
    lines = ledger_lines(ledger.entries)
    assert all(line.text.isprintable() and len(line.text) < 1000 for line in lines)
    assert [line.seconds for line in lines] == sorted(line.seconds for line in lines)
    refusals = [entry for entry in ledger.entries if isinstance(entry, DeclinedEntry) or getattr(entry, "declined", 0)]
    assert sum(line.what == "declined" for line in lines) == len(refusals)
    ended = [entry for entry in ledger.entries if isinstance(entry, BackupEntry) and entry.outcome is not None]
    assert len(lines) == len(ledger.entries) + len(ended)
    assert totals_words(ledger.totals(), 10**6).isprintable()


@given(seeds)
def test_entries_survive_the_way_to_a_client(seed):
    ledger = Ledger()
    for now, event in enumerate(drawn_events(seed)):
        ledger.take(event, float(now))
    sent = msgspec.msgpack.encode(ledger.entries)
    assert msgspec.msgpack.decode(sent, type=tuple[Entry, ...]) == ledger.entries


EVIDENCE = Evidence(
    elapsed_seconds=3.2,
    mean_seconds=1.4,
    left_seconds=19.0,
    copy_seconds=1.4,
    progress=0.14,
    slowness=3.0,
    silent_seconds=7.5,
    done=98,
    tasks=100,
)
TASK = TaskId("job", 1, 0, 3013)


def met(times=None, seconds=None):
    """Return the evidence with the limit that was met."""
    return msgspec.structs.replace(EVIDENCE, limit_times=times, limit_seconds=seconds)


def begun(reason="slow_attempt", attempt=9, helpers=(), evidence=EVIDENCE):
    return BackupStarted(TASK, attempt, "w19", 5, "w07", reason, evidence, helpers)


def over(outcome, attempt=9, saved=17.0, wasted=2_000_000, children=0):
    return BackupEnded(TASK, attempt, "w19", outcome, 1.5, saved, wasted, children)


def refused(reason, **numbers):
    fields = {"elapsed_seconds": 2.3, "progress": 0.91, "left_seconds": 0.2}
    evidence = msgspec.structs.replace(EVIDENCE, **(fields | numbers))
    return BackupDeclined(TASK, 5, "w07", "slow_attempt", reason, evidence)


def said(*told):
    ledger = Ledger()
    for event in told:
        ledger.take(event, 0.0)
    return entry_words(ledger.entries[-1]).removeprefix("phase 1 task 3013  ")


TAIL = "reads at 0.06x its peers; left 19s, a copy takes 1.4s"


def test_each_rule_is_told_with_the_limit_that_was_met():
    def why(reason, times=None, seconds=None, **more):
        evidence = msgspec.structs.replace(met(times, seconds), **more)
        return said(begun(reason, evidence=evidence)).removeprefix("w07 -> w19  ").removesuffix(f"; {TAIL}")

    assert why("slow_attempt", 1.2, 1.2 * 1.4) == "3.2s > 1.2 x mean 1.4s"
    assert why("slow_attempt", 1.5, 1.5 * 1.1) == "3.2s > 1.5 x median 1.1s"
    assert why("slow_rate", 2.0, 2.8) == "3.2s for 14 % of it, 22s in all > 2 x usual 1.4s"
    assert why("slow_worker", 2.0) == "3.2s on a worker whose last tasks took 3.0 x the mean (slow from 2 x)"
    before = ", since before the task was given out 3.2s ago"
    assert why("slow_attempt", 0.0, 0.0) == "3.2s > 0 x mean 1.4s"
    assert why("slow_rate", 1e9, 1e7) == "3.2s for 14 % of it, 22s in all > 1,000,000,000 x usual 10ms"
    # Nothing is told of what it reads: it was heard last before it fell silent.
    assert why("silent", None, 6.0) == f"silent for 7.5s > 6.0s{before}; left 19s, a copy takes 1.4s"
    assert why("silent", None, 6.0, silent_seconds=3.3) == "silent for 3.3s > 6.0s; left 19s, a copy takes 1.4s"
    nearly = said(refused("ends_sooner", left_seconds=1.9, gain_times=1.5))
    assert nearly == "w07 not copied: 2.3s but 91 % done; left 1.9s is not over 1.5 x copy 1.4s"
    assert said(refused("cap", most_backups=25)).endswith("as many backups as may be (25) are under way")


def test_a_silence_that_counts_is_told_also_where_nobody_makes_a_copy():
    alone = BackupDeclined(TASK, 5, "w07", "silent", "no_idle_worker", met(None, 6.0))
    assert said(alone) == (
        "w07 not copied: 3.2s but 14 % done, silent for 7.5s > 6.0s, since before the task was given out 3.2s ago; "
        "no worker is idle that might be faster"
    )


def test_what_was_stored_before_limits_were_told_can_be_read_and_told():
    stored = msgspec.json.decode(msgspec.json.encode(begun()))
    for name in ("limit_times", "limit_seconds", "gain_times", "most_backups"):
        del stored["evidence"][name]
    assert said(msgspec.convert(stored, BackupStarted)) == f"w07 -> w19  3.2s = 2.3 x mean 1.4s; {TAIL}"
    helps = HelperAdded(TASK, 9, "w22", 3, 12.0, 2.0, 1.5)
    stored = msgspec.json.decode(msgspec.json.encode(helps))
    del stored["gain_times"]
    assert said(msgspec.convert(stored, HelperAdded)) == said(helps)


def test_each_reason_and_outcome_has_a_sentence_with_its_numbers():
    silent = "silent for 7.5s, since before the task was given out 3.2s ago; left 19s, a copy takes 1.4s"
    assert said(begun("silent")) == f"w07 -> w19  {silent}"
    assert said(begun("last_tasks")) == f"w07 -> w19  3.2s, of the last 2 tasks; {TAIL}"
    assert said(begun("slow_rate")) == f"w07 -> w19  3.2s for 14 % of it; {TAIL}"
    assert said(begun("slow_worker")).startswith("w07 -> w19  3.2s on a worker whose last tasks took 3.0 x the mean; ")
    assert said(begun(helpers=("w1", "w2"))).endswith("; 2 more workers share it")
    assert said(begun(helpers=("w1",))).endswith("; 1 more worker shares it")
    assert said(begun(), over("won")) == (
        "w19 won 1.5s after the decision; w07 cancelled; saved about 17s; 2.00 MB read in vain"
    )
    assert "no end of that was in sight" in said(begun(), over("won", saved=None))
    assert said(begun(), over("lost", wasted=0)) == "w19 lost 1.5s after the decision; another attempt was sooner"
    assert said(begun(), over("cancelled", wasted=0)) == "w19 cancelled with the job 1.5s after the decision"
    assert "of no use any more" in said(begun(), over("moot"))
    helped = "w19 helped until 1.5s after the decision; another attempt was sooner, with its help"
    assert said(begun(), over("helped", wasted=0, children=2)) == f"{helped}; saved about 17s; 2 parts made by others"
    assert said(begun(), over("helped", saved=0.0, wasted=0)) == helped, "another backup tells what was saved"
    assert said(begun(), over("won", wasted=0, children=2)).endswith("; saved about 17s; 2 parts made by others")
    assert said(begun(), over("lost", wasted=0, children=1)).endswith("; 1 part made by others")
    joins = "w22 idles and helps with part 3, which takes 2.0s; "
    assert said(HelperAdded(TASK, 9, "w22", 3, 12.0, 2.0)) == f"{joins}others would have come to it in 12s"
    assert said(HelperAdded(TASK, 9, "w22", 3, None, 2.0)) == f"{joins}nobody was at it"
    stays = "w22 idles and does not help with part 3, which takes 2.0s: others come to it in "
    assert said(HelperDeclined(TASK, 9, "w22", 3, 1.2, 2.0, 1.5)) == f"{stays}1.2s"
    assert said(HelperDeclined(TASK, 9, "w22", 3, 2.5, 2.0, 1.5)) == f"{stays}2.5s, not over 1.5 x that"
    assert said(refused("ends_sooner")) == "w07 not copied: 2.3s but 91 % done; left 0.2s < copy 1.4s"
    for reason, words in (("cap", "as many"), ("same_host", "own host"), ("no_idle_worker", "no worker")):
        assert words in said(refused(reason))


def test_what_raced_when_a_master_ended_is_over_when_the_next_one_begins():
    earlier, ledger = Ledger(), Ledger()
    earlier.take(begun(), 10.0)
    told = LedgerReport(totals=earlier.totals(), entries=earlier.entries, cut=0, bytes_read=0, began_seconds=0.0)
    ledger.carry_on(told, 30.0)
    lines = ledger_lines(ledger.entries)
    assert [(each.what, each.seconds) for each in lines] == [("started", -20.0), ("moot", 0.0)]
    assert "of no use any more, 20s after the decision" in lines[1].text


def test_a_tally_notes_each_backup_that_begins_or_ends_and_no_decline():
    tally = JobTally((PhaseWork(100, 100, 100),), lambda index: b"")
    for event in (begun(), refused("cap"), over("won"), begun(attempt=10), begun(attempt=10), over("moot", attempt=7)):
        tally.take(event, 1.0)
    snapshot = tally.snapshot(2.0)
    assert len(snapshot.notes) == snapshot.notes_total == 3
    assert [(" won " in note, "->" in note) for note in snapshot.notes] == [
        (False, True),
        (True, False),
        (False, True),
    ]
    assert (snapshot.backups.started, snapshot.backups.racing, snapshot.backups.declined) == (2, 1, 1)


def test_helpers_that_are_declined_are_told_and_not_counted_with_the_stragglers_that_are():
    ledger = Ledger()
    for event in (begun(), refused("cap"), HelperDeclined(TASK, 9, "w22", 3, 1.2, 2.0, 1.5)):
        ledger.take(event, 0.0)
    assert [line.what for line in ledger_lines(ledger.entries)] == ["started", "declined", "declined"]
    assert ledger.totals().declined == 1


def test_what_a_loser_had_read_when_it_stopped_is_added_to_its_backup_also_when_that_is_over():
    ledger = Ledger()
    for event in (begun(), over("won", wasted=1000), LoserStopped(TASK, 5, "w07", 9, 0.3, 250)):
        ledger.take(event, 0.0)
    (entry,) = ledger.entries
    assert isinstance(entry, BackupEntry)
    assert (entry.wasted_bytes, ledger.totals().wasted_bytes, entry.outcome) == (1250, 1250, "won")
