"""Texts in columns of a terminal: whatever is in them, nothing is wider than it may be, and nothing gets lost."""

from __future__ import annotations

import pytest
from distsum.tui.cells import cut_lines, fitted, head, middle_cut, padded, rest_after, tail, width_of, wrapped
from hypothesis import given
from hypothesis import strategies as st

TEXTS = st.text(st.sampled_from("ab-/. 日本語ﾊé\u0301🙂❤\ufe0f🇩🇪"), max_size=60)
WIDTHS = st.integers(1, 30)


@given(TEXTS, WIDTHS)
def test_what_is_cut_has_room_and_is_the_beginning_or_the_end(text, width):
    assert text.startswith(head(text, width))
    assert text.endswith(tail(text, width))
    for cut in (head(text, width), tail(text, width), fitted(text, width), middle_cut(text, width)):
        assert width_of(cut) <= width
    for cut in (fitted(text, width), middle_cut(text, width)):
        assert cut == text or "…" in cut


@given(TEXTS, WIDTHS, st.booleans())
def test_what_is_filled_up_is_as_wide_as_it_shall_be(text, width, right):
    assert width_of(padded(text, width, right=right)) == max(width, width_of(text))


@given(TEXTS, WIDTHS, st.sampled_from(["", "  "]))
def test_lines_have_room_and_hold_all_but_blanks(text, width, indent):
    lines = wrapped(text, width, indent)
    assert all(width_of(line) <= max(width, len(indent) + 2) for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@given(TEXTS, WIDTHS, st.integers(1, 4))
def test_the_rest_after_some_lines_is_what_they_do_not_hold(text, width, most):
    lines = wrapped(text, width)
    assert rest_after(text, lines[:most]).replace(" ", "") == "".join(lines[most:]).replace(" ", "")


@pytest.mark.parametrize("name", ["日本" * 40, "e\u0301" * 60, "x" * 200], ids=["wide", "combined", "plain"])
def test_how_much_of_a_command_is_cut_stands_at_its_end(name):
    words = f"$ distsum mean {name} -o out.npy"
    lines = cut_lines(words, 40, 2)
    assert len(lines) == 2
    assert all(width_of(line) <= 40 for line in lines)
    kept, _, count = lines[1].partition("… ")
    assert words.startswith(lines[0])
    assert f"{len(rest_after(words, lines[:1])) - len(kept)} more" == count
