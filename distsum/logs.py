"""Lines of a log: for people, or one JSON object each, with the job, task, attempt and worker that they concern.

A line says what it concerns in ``extra=concerning(...)``. In a worker, where one task runs at a time, a ``Subject``
adds that to lines which do not know of it, such as those of a store or a connection. Addresses are logged without their
passwords; that none is told is made sure of here once more.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from distsum.request import LOG_LEVELS, LogLevel
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import SupportsWrite

    from distsum.messages import TaskId

FIELDS: Final = ("job", "task", "attempt", "worker")
_HIDDEN: Final = "******"
_LONGEST: Final = 4_000
_LEAST_SECRET: Final = 4
"""A shorter word would be found in many lines, and tell by that what it is."""


def concerning(
    *, job: str | None = None, task: TaskId | None = None, attempt: int | None = None, worker: str | None = None
) -> dict[str, str | None]:
    """Return the ``extra`` of a line: what it concerns, each as text, or None.

    An attempt's number is too long for what reads JSON numbers as floats, so it is text as well.

    Args:
        job: Job id; that of the task, if there is one.
        task: The task, told as phase, tile and index.
        attempt: The number of the attempt; 0 is none that is known.
        worker: The worker's name.
    """
    return {
        "job": task.job if task is not None else job,
        "task": f"{task.phase}/{task.tile}/{task.index}" if task is not None else None,
        "attempt": str(attempt) if attempt else None,
        "worker": worker,
    }


def task_words(child: int | None) -> str:
    """Return what an attempt works on: the whole task, or one child of its node."""
    return "the task" if child is None else f"part {child} of the task"


class Subject(logging.Filter):
    """What the lines of a process concern unless they say so themselves; lets every line pass.

    Args:
        worker: The worker that this process is.
    """

    def __init__(self, worker: str | None = None) -> None:
        super().__init__()
        self._worker = worker
        self._usual = concerning(worker=worker)

    def work_on(self, task: TaskId | None, attempt: int = 0) -> None:
        """From now on lines concern this attempt of a task, or none."""
        self._usual = concerning(task=task, attempt=attempt, worker=self._worker)

    def filter(self, record: logging.LogRecord) -> bool:
        """Complete what a line concerns."""
        for name, value in self._usual.items():
            if getattr(record, name, None) is None:
                setattr(record, name, value)
        return True


class _Formatter(logging.Formatter):
    """What both kinds of lines share: the time in UTC, and that no secret is told."""

    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__()
        # Also as a URI would have them.
        kept = [secret for secret in secrets if len(secret) >= _LEAST_SECRET]
        self._secrets = (*kept, *(quote(secret, safe="") for secret in kept))

    def _time(self, record: logging.LogRecord) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _trace(self, record: logging.LogRecord) -> str | None:
        return self._hide(self.formatException(record.exc_info)) if record.exc_info else None

    def _hide(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text


class HumanFormatter(_Formatter):
    """One line for a person, with what it concerns at its end, where the words do not say so already."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback follows it."""
        words = printable(self._hide(record.getMessage()), _LONGEST)
        told = [(name, getattr(record, name, None)) for name in FIELDS if name != "attempt"]
        missing = ", ".join(f"{name} {value}" for name, value in told if value is not None and value not in words)
        line = f"{self._time(record)} {record.levelname:<7} {words}" + (f" ({missing})" if missing else "")
        trace = self._trace(record)
        return line if trace is None else f"{line}\n{trace}"


class JsonFormatter(_Formatter):
    """One JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. What it does not concern is null; ``trace`` is there where there is a traceback."""
        told = {
            "time": self._time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": self._hide(record.getMessage()),
        }
        told |= {name: getattr(record, name, None) for name in FIELDS}
        trace = self._trace(record)
        return json.dumps(told if trace is None else told | {"trace": trace})


class LogStyle(NamedTuple):
    """How a process logs: the least level of its lines (of libraries: warnings), and whether they are JSON."""

    level: LogLevel = "info"
    as_json: bool = False

    def word(self) -> str:
        """Return the option of a worker process that tells it."""
        return f"--log={self.level},{'json' if self.as_json else 'text'}"

    @classmethod
    def of_word(cls, word: str) -> LogStyle:
        """Return what ``word`` told."""
        level, _, form = word.removeprefix("--log=").partition(",")
        return cls(next(each for each in LOG_LEVELS if each == level), form == "json")


def begin_logging(
    stream: SupportsWrite[str], style: LogStyle, *, secrets: Sequence[str] = (), subject: Subject | None = None
) -> None:
    """Have all lines of this process written to a stream, in place of where they went before.

    Args:
        stream: Where to.
        style: How.
        secrets: What must be in no line, such as the broker's password.
        subject: What lines concern unless they say so themselves.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(secrets) if style.as_json else HumanFormatter(secrets))
    handler.addFilter(subject or Subject())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("distsum").setLevel(style.level.upper())
    logging.captureWarnings(capture=True)
