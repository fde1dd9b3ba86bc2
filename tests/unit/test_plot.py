"""The plot that benchmarks draw."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from benchmarks.plot import Mark, Panel, Scale, dots

SVG = "{http://www.w3.org/2000/svg}"
SHARES = Scale("share & more", 0.0, 40.0, {0: "0", 40: "40"})
TIMES = Scale("times", 0.5, 8.0, {1: "1", 8: "8"}, logarithmic=True)


def test_a_value_lies_between_the_ends_of_its_scale_and_one_beyond_at_its_end() -> None:
    assert [SHARES.place(value) for value in (-1, 0, 10, 40, 99)] == [0, 0, 0.25, 1, 1]
    assert [TIMES.place(value) for value in (0.0, 0.5, 2.0, 8.0, 9.0)] == pytest.approx([0, 0, 0.5, 1, 1])


def test_every_value_is_drawn_once_in_its_panel_and_what_is_missing_is_not() -> None:
    marks = [Mark("plain <one>", "dot", "#000"), Mark("other", "square", "#111")]
    values = {("a", "plain <one>"): 1.0, ("b", "plain <one>"): 40.0, ("a", "other"): 20.0}
    plot = ET.fromstring(dots("Title", marks, ["a", "b"], [(SHARES, [Panel("first", values), Panel("2", {})])]))
    assert len(plot.findall(f"{SVG}circle")) == 1 + 2, "one of them in the legend"
    assert len(plot.findall(f"{SVG}rect")) == 1 + 1 + 1, "the ground, the legend, and a value"
    words = [each.text for each in plot.findall(f"{SVG}text")]
    assert {"Title", "plain <one>", "other", "first", "2", "a", "b", "share & more"} <= set(words)
    ends = [float(each.attrib["cx"]) for each in plot.findall(f"{SVG}circle")[1:]]
    assert ends == sorted(ends)
