"""``distsum report`` as a person calls it, of a run and of a service's job, and what it says where it cannot."""

from __future__ import annotations

import os
import subprocess

import pytest

from distsum.generate import generate
from distsum.request import Options
from tests.command import DEADLINE_SECONDS, distsum, summary
from tests.localservice import serving
from tests.page import Page


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a run's history, and what the run has said of itself."""
    folder = tmp_path_factory.mktemp("run")
    generate(str(folder / "in put"), files=60, count=100)
    told = summary("mean", "in put", "-o", "o.npy", "-p", "5", "-w", "2", "--history", "h", cwd=folder)
    return folder, told


def report(folder, *arguments):
    return distsum("report", *arguments, cwd=folder)


def test_a_run_is_reported_with_the_figures_of_its_summary(run):
    folder, told = run
    done = report(folder, "h", "-o", "h.html")
    assert (done.returncode, done.stdout) == (0, "")
    assert "written to h.html" in done.stderr
    found = Page((folder / "h.html").read_text())
    for figure, name in (("bytes_read", "bytes_read"), ("bytes_written", "bytes_written"), ("tasks", "tasks")):
        assert found.figures[figure] == told[name] > 0
    assert found.figures["attempts"] == told["attempts"]
    assert found.figures["backups"] == told["backups"]["started"]
    accounts = told["worker_accounts"]
    # On a loaded machine one of the two may do all before the other has started; the page counts those that did some.
    assert found.figures["workers"] == sum(account["tasks"] > 0 for account in accounts) > 0
    assert found.figures["seconds"] <= told["seconds"]
    for kind in ("reading", "adding", "storing"):
        assert found.figures[kind] == pytest.approx(sum(account["seconds"][kind] for account in accounts))
    assert found.figures["input_bytes"] == 60 * (100 * 8 + 128)
    assert "mean of 60 files" in found.text
    assert str(folder / "o.npy") in found.text


def test_the_command_that_it_tells_gives_the_same_bytes(run, tmp_path):
    folder, _ = run
    found = Page(report(folder, "h", "-o", "-").stdout)
    command = found.text[found.text.index("distsum mean @inputs.txt") :].split("inputs.txt lists")[0]
    inputs = sorted(str(folder / "in put" / name) for name in os.listdir(folder / "in put"))
    assert f"from {inputs[0]} to {inputs[-1]}" in found.text
    (tmp_path / "inputs.txt").write_text("\n".join(inputs))
    command = command.replace(str(folder / "o.npy"), "o.npy")
    done = subprocess.run(
        f"exec {command}", shell=True, cwd=tmp_path, capture_output=True, timeout=DEADLINE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o.npy").read_bytes() == (folder / "o.npy").read_bytes()


def test_stdout_gets_the_page_and_nothing_else(run):
    done = report(run[0], "h", "-o", "-", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("<!doctype html>")
    assert done.stdout.endswith("</body></html>\n")


def test_what_is_there_is_replaced_only_when_told_to(run):
    folder, _ = run
    (folder / "there.html").write_text("mine")
    done = report(folder, "h", "-o", "there.html")
    assert done.returncode == 2
    assert "there.html exists; use --force to replace it" in done.stderr
    assert (folder / "there.html").read_text() == "mine"
    assert report(folder, "h", "-o", "there.html", "--force").returncode == 0
    assert (folder / "there.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("no/such", "-o", "x.html"), "no/such: there is no such file"),
        (("nosuch", "-o", "x.html"), "set DISTSUM_BROKER, --broker or --work-dir"),
        (("nosuch", "-o", "x.html", "--work-dir", "."), "no history of a job nosuch in"),
        (("o.npy", "-o", "x.html"), "o.npy is no history of a job; --history makes them"),
        (("h", "-o", "no/such/x.html"), "there is no folder"),
        (("h",), "needs --output"),
        (("h", "-o", "--force"), "-o needs a value"),
    ],
)
def test_what_cannot_be_reported_is_named_with_what_to_do(run, arguments, words):
    done = report(run[0], *arguments)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (run[0] / "x.html").exists()


def test_of_a_history_that_is_cut_short_the_rest_is_reported_and_said_on_stderr_too(run):
    folder, _ = run
    content = (folder / "h").read_bytes()
    (folder / "cut").write_bytes(content[: len(content) - 30])
    done = report(folder, "cut", "-o", "cut.html")
    assert done.returncode == 0
    assert "not all is told: the history is incomplete" in done.stderr
    assert "Not all is told:" in (folder / "cut.html").read_text()
    status = distsum("status", "--history", "cut", cwd=folder)
    assert "the history is incomplete" in status.stdout


def test_a_job_of_a_service_is_reported_by_its_id_from_the_work_folder(run, tmp_path):
    folder, _ = run
    work = tmp_path / "work"
    with serving(work) as service:
        inputs = sorted(os.fsencode(folder / "in put" / name) for name in os.listdir(folder / "in put"))
        job = service.client.submit_job("mean", inputs, os.fsencode(tmp_path / "o.npy"), Options(partition=5))
        told = service.client.wait(job, DEADLINE_SECONDS)
    done = report(tmp_path, job, "-o", "job.html", "--work-dir", str(work))
    assert done.returncode == 0, done.stderr
    found = Page((tmp_path / "job.html").read_text())
    assert f"job {job}" in found.text
    assert found.figures["bytes_read"] == told.bytes_read
    assert found.figures["tasks"] == told.tasks
    again = report(tmp_path, "000000000000", "-o", "x.html", "--work-dir", str(work))
    assert again.returncode == 2
    assert "there is no such job" in " ".join(again.stderr.split())
