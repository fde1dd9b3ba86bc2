"""Every error distsum raises on purpose, as one tree.

::

    DistsumError                      exit code 1
    ├── UsageError                    2   the command or call cannot be carried out as given
    │   ├── ConfigurationError        2   a setting is unknown or has a bad value
    │   ├── InputListError            2   no such file, empty glob, empty list, a file named twice
    │   ├── OutputError               2   OUT exists, or its folder cannot be written
    │   ├── PlanError                 2   no plan fits: memory, partition, fan-in, tiles
    │   ├── WorkDirBusyError          2   another run holds the work folder
    │   ├── HistoryError              2   a file is no history of a job, or one of another version
    │   ├── BrokerBusyError           2   another process serves the broker's virtual host
    │   │   └── SupersededError       2   it has served while this one was cut off (handled inside)
    │   └── ServiceError              2   the service does not do what it was asked: no such job, another version
    ├── JobError                      1   the job ran and failed
    │   ├── BadInputError             1   an input is damaged or unlike the others
    │   ├── InputChangedError         1   an input changed while the job ran
    │   ├── InexactError              1   an exact result does not fit the output dtype
    │   ├── StorageError              1   a disk or server failed
    │   │   └── DiskFullError         1   there is no room on it
    │   ├── PartialError              1   a stored partial is missing or damaged (handled inside)
    │   ├── TaskAbandonedError        1   a task killed its worker on every delivery
    │   ├── NotServedError            1   no worker serves a place that a job needs (``--serve``)
    │   ├── WorkerStartError          1   worker processes end before they say hello
    │   ├── RemoteJobError            1   a job of the service failed; the code is the one it would end a command with
    │   ├── JobCancelledError         1   a job was cancelled, of the service or on its screen
    │   └── VerificationError         1   a result is further from the exact one than its bound
    ├── UnreachableError              3   a broker or store does not answer
    └── InterruptedRunError           130 the run was interrupted; it can be resumed

Each message names what is at fault, what was found, what was expected and what to do.
"""


class DistsumError(Exception):
    """Base of every error raised on purpose; ``exit_code`` is what the command line ends with."""

    exit_code: int = 1


class UsageError(DistsumError):
    """The command or call cannot be carried out as given."""

    exit_code = 2


class ConfigurationError(UsageError):
    """A setting is unknown, or its value is not acceptable."""


class InputListError(UsageError):
    """The inputs name no file, a missing file, or one file twice."""


class OutputError(UsageError):
    """The output exists already, or cannot be written where it was asked for."""


class PlanError(UsageError):
    """No plan fits what was asked: memory, partition, fan-in or tiles."""


class WorkDirBusyError(UsageError):
    """Another run is using the work folder."""


class ServiceError(UsageError):
    """The service does not do what it was asked, and says why."""


class HistoryError(UsageError):
    """A file is no history of a job, or none that this version can read."""


class BrokerBusyError(UsageError):
    """Another process serves this virtual host of the broker."""


class SupersededError(BrokerBusyError):
    """While this process was cut off from the broker another has served the virtual host, or may have."""


class JobError(DistsumError):
    """The job ran and failed."""


class BadInputError(JobError):
    """An input is damaged, or unlike the others.

    Args:
        uri: The input at fault, as bytes of its path or URI.
        reason: What was found and what was expected, in one sentence without the name.
    """

    def __init__(self, uri: bytes, reason: str) -> None:
        super().__init__(uri, reason)
        self.uri = uri
        self.reason = reason

    def __str__(self) -> str:
        from distsum.wording import printable

        return f"{printable(self.uri)}: {self.reason}"


class InputChangedError(JobError):
    """An input is not what it was when the job was planned."""


class InexactError(JobError):
    """A result that must be exact does not fit the output dtype.

    Args:
        position: Where in the array at hand, so that a caller who knows where that begins can name the index.
        reason: What does not fit, and what to do.
    """

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(position, reason)
        self.position = position
        self.reason = reason

    def __str__(self) -> str:
        return f"index {self.position}: {self.reason}"


class StorageError(JobError):
    """A disk is full, or reading or writing failed for good."""


class DiskFullError(StorageError):
    """There is no room on a disk for what was to be written."""


class PartialError(JobError):
    """A stored partial is missing or damaged; the engine computes it again."""


class TaskAbandonedError(JobError):
    """A task killed its worker on every delivery."""


class NotServedError(JobError):
    """Something lies outside of the places that workers were told to serve, or takes more memory than they have.

    Args:
        reason: What, and what to do.
        place: The folder that is not served, harmless to show; the object where only that is not. ``memory`` where that
            is too little.
    """

    def __init__(self, reason: str, place: str = "") -> None:
        super().__init__(reason)
        self.place = place


class WorkerStartError(JobError):
    """Worker processes end before they say hello."""


class RemoteJobError(JobError):
    """A job of the service failed.

    Args:
        reason: What was told of it where it ran.
        exit_code: What it would have ended a command with.
    """

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


class JobCancelledError(JobError):
    """A job was cancelled: one of the service, or one that was steered on its screen."""


class VerificationError(JobError):
    """A result differs from the exact one by more than its proven bound."""


class UnreachableError(DistsumError):
    """A broker or store does not answer."""

    exit_code = 3


class InterruptedRunError(DistsumError):
    """The run was interrupted; the same command goes on from the stored partials."""

    exit_code = 130
