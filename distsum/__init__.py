"""Means and other reductions at every index of many arrays, far larger than memory, with the same bits every time.

``distsum.mean(["runs/*.npy"])`` is all that most people need; ``sum``, ``min``, ``max``, ``plan`` and ``verify`` are
its kin, and every error derives from ``DistsumError``. Importing this imports nothing else.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from distsum.api import max, mean, min, plan, sum, verify
    from distsum.errors import (
        BadInputError,
        BrokerBusyError,
        ConfigurationError,
        DistsumError,
        HistoryError,
        InexactError,
        InputChangedError,
        InputListError,
        InterruptedRunError,
        JobCancelledError,
        JobError,
        OutputError,
        PlanError,
        RemoteJobError,
        ServiceError,
        StorageError,
        TaskAbandonedError,
        UnreachableError,
        UsageError,
        VerificationError,
        WorkDirBusyError,
        WorkerStartError,
    )

__all__ = [
    "BadInputError",
    "BrokerBusyError",
    "ConfigurationError",
    "DistsumError",
    "HistoryError",
    "InexactError",
    "InputChangedError",
    "InputListError",
    "InterruptedRunError",
    "JobCancelledError",
    "JobError",
    "OutputError",
    "PlanError",
    "RemoteJobError",
    "ServiceError",
    "StorageError",
    "TaskAbandonedError",
    "UnreachableError",
    "UsageError",
    "VerificationError",
    "WorkDirBusyError",
    "WorkerStartError",
    "__version__",
    "max",
    "mean",
    "min",
    "plan",
    "sum",
    "verify",
]

_FUNCTIONS = frozenset({"max", "mean", "min", "plan", "sum", "verify"})


if not TYPE_CHECKING:  # For type checkers a name that is not imported above is a mistake.

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used."""
        import importlib

        if name not in __all__:
            raise AttributeError(f"module 'distsum' has no attribute {name!r}")
        found = getattr(importlib.import_module("distsum.api" if name in _FUNCTIONS else "distsum.errors"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
