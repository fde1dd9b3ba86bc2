"""The history of a running job is stored until that succeeds; one that cannot be stored keeps no other back."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from distsum.messages import TaskId, TaskStarted
from distsum.observe.history import Recorder
from distsum.service import kept_history
from distsum.service.records import Records
from distsum.stores.local import LocalStore
from tests.command import wait_until
from tests.property.test_history import header

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def served(name: str) -> Any:
    """What is kept of a job: as much of it as is looked at here."""
    recorder = Recorder(header(9))
    recorder.take(TaskStarted("w1", TaskId(name, 1, 0, 0), 1, 1), 1.0)
    return SimpleNamespace(job=SimpleNamespace(spec=SimpleNamespace(job=name)), recorder=recorder, over=asyncio.Event())


def history(work: Path, job: str) -> Path:
    return work / "jobs" / job / "history"


def test_what_could_not_be_stored_is_stored_later_though_nothing_has_happened_since(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Where the job's folder should be lies a file.
    blocked = tmp_path / "jobs" / "a"
    blocked.parent.mkdir()
    blocked.touch()
    asked = 0

    async def may_store() -> bool:
        nonlocal asked
        asked += 1
        if asked == 4:
            blocked.unlink()
        return asked != 3

    async def run() -> None:
        job = served("a")
        keeping = asyncio.create_task(
            kept_history.keep(job, Records(LocalStore(), bytes(tmp_path)), may_store, seconds=0.001)
        )
        await asyncio.to_thread(wait_until, history(tmp_path, "a").exists, "the history", 20.0)
        job.over.set()
        await keeping
        job.recorder.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert asked >= 4
    assert len([each for each in caplog.records if "is not stored yet" in each.message]) == 1, "told once"


def test_when_a_master_ends_one_history_that_cannot_be_stored_keeps_no_other_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "a").touch()

    async def run() -> None:
        jobs = [served("a"), served("b")]
        await kept_history.leave(cast("Any", jobs), Records(LocalStore(), bytes(tmp_path)))
        for each in jobs:
            each.recorder.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert history(tmp_path, "b").exists()
    assert "the history of job a is not stored yet" in caplog.text
