"""What a worker makes of the messages that it gets, without a broker."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from distsum.messages import RunTask, TaskFailed, TaskId, TaskSucceeded
from distsum.request import Options
from distsum.stores.local import LocalStore
from distsum.worker.process import Worker
from tests.inprocess import InProcessRun

if TYPE_CHECKING:
    from pathlib import Path


def test_a_message_with_another_work_folder_does_not_decide_what_a_job_is(tmp_path: Path) -> None:
    for index in range(3):
        np.save(tmp_path / f"{index}.npy", np.full(5, index, np.float64))
    made = InProcessRun(sorted(tmp_path.glob("*.npy")), tmp_path / "out.npy", Options(work_dir=str(tmp_path / "work")))
    made.job.begin()
    channel: Any = None
    worker = Worker("w", channel, LocalStore(), 1.0, 0.0, host="here")
    task = TaskId(made.spec.job, 1, 0, 0)
    true, forged = (RunTask(task, os.fsencode(tmp_path / name)) for name in ("work", "forged"))
    assert isinstance(worker._attempt(true, 0.0), TaskSucceeded)
    refused = worker._attempt(forged, 0.0)
    assert isinstance(refused, TaskFailed)
    assert refused.kind == "storage"
    assert refused.reason.endswith(f"is not described in {tmp_path}/forged (on here)")
    again = worker._attempt(true, 0.0)
    assert isinstance(again, TaskSucceeded)
    assert again.reused
    worker._forget_job()
