"""What a service tells of a job that it has accepted."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from distsum.tui.lines import header_lines, straggler_title

from distsum.actors.speculation import SpeculationSettings
from distsum.jobs import Job
from distsum.observe.snapshot import BackupRule, JobTerms
from distsum.preparation import prepare
from distsum.request import Options
from distsum.service.records import Ticket
from distsum.service.served_job import ServedJob
from distsum.stores.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path

    from distsum.observe.view import JobView


@pytest.fixture
def job(tmp_path: Path) -> Job:
    paths = []
    for index in range(6):
        np.save(tmp_path / f"{index}.npy", np.full(1200, index, dtype=np.float32))
        paths.append(os.fsencode(tmp_path / f"{index}.npy"))
    options = Options(work_dir=str(tmp_path / "work"), partition=5)
    prepared = prepare("mean", paths, os.fsencode(tmp_path / "out.npy"), options, LocalStore())
    return Job(prepared.record, prepared.manifest, LocalStore())


def watched(job: Job, settings: SpeculationSettings, *, begun: bool = True) -> JobView:
    async def body() -> JobView:
        served = ServedJob(job, Ticket(0.0, 0), resumed=False, cancelled=False, speculation=settings)
        if begun:
            served.begin()
        view = served.view()
        if served.recorder is not None:
            served.recorder.close()
        return view

    return asyncio.run(body())


@pytest.mark.parametrize("begun", [False, True])
def test_who_watches_a_job_is_told_how_many_numbers_of_which_dtype_and_by_what_rule(job: Job, *, begun: bool) -> None:
    view = watched(job, SpeculationSettings(quantile=0.5, multiplier=2.0), begun=begun)
    rule = BackupRule(policy="guarded", quantile=0.5, multiplier=2.0, slow=2.0)
    assert view.terms == JobTerms(count=1200, dtype="<f4", rule=rule)
    first = "".join(span.text for span in header_lines(view, 120)[0])
    assert " C=1,200 f32 to " in first
    assert straggler_title(view, 200).endswith("rule 50 % / 2x, idle 2x")


def test_of_one_whose_stragglers_get_no_backups_no_rule_is_told(job: Job) -> None:
    view = watched(job, SpeculationSettings(policy="none"))
    assert view.terms.rule is None
    assert "rule" not in straggler_title(view, 200)
