"""The docs are true: links lead somewhere, and what a reader is told to run works.

Blocks marked ``console`` (lines after ``$``) and ``python`` run in order, each page in a folder of its own. Blocks
marked ``sh`` are for the reader's machine and don't run.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
INDEX = ROOT / "docs" / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(page: Path) -> list[Token]:
    return MarkdownIt().enable("table").parse(page.read_text())


def links(page: Path) -> Iterator[str]:
    """Yield where the links and images of a page point."""
    for block in blocks(page):
        for token in block.children or ():
            if target := token.attrGet("href") or token.attrGet("src"):
                yield str(target)


def anchors(page: Path) -> set[str]:
    """Return the names that links give the headings of a page, made the way that code hosts make them."""
    parsed = blocks(page)
    headings = [after.content for block, after in pairwise(parsed) if block.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def commands(page: Path) -> Iterator[list[str]]:
    """Yield what runs the examples of a page."""
    for block in blocks(page):
        if block.type == "fence" and block.info == "python":
            yield [sys.executable, "-c", block.content]
        if block.type == "fence" and block.info == "console":
            yield from (["bash", "-c", line[2:]] for line in block.content.splitlines() if line.startswith("$ "))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page):
    for link in links(page):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{link} leads to no file"
        assert not anchor or anchor in anchors(target), f"{link} leads to no heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_run(page, tmp_path):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in commands(page):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"


def test_every_page_of_the_docs_is_listed_in_their_index():
    listed = {(INDEX.parent / link.partition("#")[0]).resolve() for link in links(INDEX)}
    assert set(ROOT.glob("docs/**/*.md")) - {INDEX} <= listed


def test_ci_runs_the_command_that_the_readme_gives():
    command = "pip install uv && uv run just test\n"
    assert command in ROOT.joinpath("README.md").read_text()
    assert ROOT.joinpath(".ci", "run").read_text().endswith(command)
