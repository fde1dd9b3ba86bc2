"""constraints.txt agrees with pyproject.toml; the test of the wheel shows that it holds what they need in turn."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LINES = ROOT.joinpath("constraints.txt").read_text().splitlines()
PROJECT = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text())
DECLARED = [
    *PROJECT["project"]["dependencies"],
    *(line for extra in PROJECT["project"].get("optional-dependencies", {}).values() for line in extra),
    *(line for group in PROJECT["dependency-groups"].values() for line in group),
]


@pytest.mark.parametrize("line", LINES)
def test_a_line_pins_one_version_and_nothing_says_where_it_is_downloaded(line):
    assert re.fullmatch(r"[a-z0-9.-]+==[\w.+!-]+( ; [^/@]+)?", line)


@pytest.mark.parametrize("line", DECLARED)
def test_every_declared_dependency_is_pinned_to_a_version_it_allows(line):
    wanted = Requirement(line)
    pins = [pin for pin in map(Requirement, LINES) if canonicalize_name(pin.name) == canonicalize_name(wanted.name)]
    assert pins, f"run `just constraints`: {wanted.name} is not pinned"
    versions = [specifier.version for pin in pins for specifier in pin.specifier]
    assert all(version in wanted.specifier for version in versions), (
        f"run `just constraints`: {wanted} is not {versions}"
    )
