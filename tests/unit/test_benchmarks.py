"""A benchmark of the screen can be begun, and tells why where it cannot. What it measures is not tested here."""

import pytest

from benchmarks import tree_widget


@pytest.mark.parametrize("pattern", ["contiguous", "random"])
def test_the_benchmark_of_the_tree_draws_a_small_job(pattern):
    row = tree_widget.row(1000, pattern, 2)
    assert row["leaves"] == "1,000"
    assert row["first_bytes"] != "0", "something has been drawn"


def test_the_benchmark_of_the_tree_tells_what_its_application_has_failed_by(monkeypatch):
    monkeypatch.setattr(tree_widget.TreeMap, "on_mount", lambda self: 1 / 0, raising=False)
    with pytest.raises(ZeroDivisionError):
        tree_widget.row(1000, "contiguous", 1)
