"""What is asked of a service as texts: it is the command that is shown, and what is wrong is known by its field."""

from __future__ import annotations

import shlex
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsum.cli.app import app
from distsum.cli.options import RunFlags
from distsum.cli.wanted import OPTIONS, Wanted, _Heeded, command_line, field_at_fault, flaws, input_words, output_name
from distsum.errors import BadInputError, InputListError, OutputError, PlanError, ServiceError, UnreachableError
from distsum.stores.base import StoreInterruptedError

WORDS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12)


@given(
    st.builds(
        Wanted,
        reduction=st.sampled_from(["mean", "max"]),
        inputs=st.lists(WORDS, min_size=1, max_size=3).map(shlex.join),
        output=WORDS.map(shlex.quote),
        priority=st.integers(-9, 9).map(str),
        force=st.booleans(),
        options=st.dictionaries(
            st.sampled_from([name for name in OPTIONS if name not in {"format", "on_bad_input"}]), WORDS, max_size=3
        ),
    )
)
def test_the_command_that_is_shown_asks_for_the_very_same(wanted):
    _, bound, _ = app.parse_args(
        shlex.split(command_line(wanted))[1:], print_error=False, exit_on_error=False, help_on_error=False
    )
    given = bound.arguments
    assert given["reduction"] == wanted.reduction
    assert list(given["inputs"]) == input_words(wanted.inputs)
    assert given["output"] == output_name(wanted.output)
    assert given.get("priority", "0") == wanted.priority
    assert given.get("force", False) == wanted.force
    assert given.get("flags", RunFlags()) == RunFlags(**wanted.options)


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        (Wanted(), "distsum submit mean INPUT... -o OUT"),
        (Wanted(output="o.npy"), "distsum submit mean INPUT... -o o.npy"),
        (Wanted(inputs="a 'b"), "distsum submit mean a 'b -o OUT"),
        (
            Wanted(inputs="s3://b/*.npy", output="'s3://b/o p.npy'"),
            "distsum submit mean 's3://b/*.npy' -o 's3://b/o p.npy'",
        ),
        (Wanted(inputs="a", output="b 'c"), "distsum submit mean a -o b 'c"),
        (Wanted(inputs="-a.npy", output="o.npy", force=True), "distsum submit mean -o o.npy --force -- -a.npy"),
        (Wanted(inputs="a", output="o", options={"fan_in": "4", "tiles": ""}), "distsum submit mean a -o o --fan-in 4"),
    ],
)
def test_the_command_stands_there_as_it_would_be_typed(wanted, line):
    assert command_line(wanted) == line


def test_what_is_wrong_is_seen_of_every_field_at_once():
    found = flaws(Wanted(inputs="'", priority="x", options={"partition": "0", "fan_in": "", "dtype": "f8"}))
    assert set(found) == {"inputs", "priority", "partition"}
    assert flaws(Wanted()) == {}
    assert "2 names; quotes go around one that holds blanks" in flaws(Wanted(output="a b.npy"))["output"]
    assert set(flaws(Wanted(inputs="'", output="'"))) == {"inputs", "output"}
    assert flaws(Wanted(inputs="'a b'", output="'/tmp/a b.npy'")) == {}


@pytest.mark.parametrize(
    ("error", "field"),
    [
        (PlanError("partition 7 is not a power of the fan-in 5"), "partition"),
        (PlanError("--memory 1 B is too little"), "memory"),
        (PlanError("--max-open-files 0 reads nothing"), "max_open_files"),
        (InputListError("there are no inputs"), "inputs"),
        (BadInputError(b"a.npy", "is empty"), "inputs"),
        (OutputError("o.npy exists"), "output"),
        (UnreachableError("s3://in: there is no such bucket"), "inputs"),
        (UnreachableError("s3://out: there is no such bucket"), "output"),
        (UnreachableError("s3://elsewhere: there is no such bucket"), None),
        (UnreachableError("amqp://h/v: no master answers"), None),
        (ServiceError("the service is distsum 0.1"), None),
    ],
)
def test_an_error_is_about_the_field_that_it_names(error, field):
    assert field_at_fault(error, Wanted(inputs="'s3://in/a b/'", output="s3://out/o.npy")) == field


def test_nobody_gets_names_that_nobody_wants_any_more():
    stop = threading.Event()
    names = _Heeded([b"a", b"b", b"c"], stop)
    assert (len(names), names[0], list(names)) == (3, b"a", [b"a", b"b", b"c"])
    left = iter(names)
    next(left)
    stop.set()
    with pytest.raises(StoreInterruptedError):
        next(left)
