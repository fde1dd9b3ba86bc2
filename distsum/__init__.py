"""Means and other reductions at every index of many arrays, far larger than memory, with the same bits every time.

``distsum.mean(["runs/*.npy"])`` is all that most people need; ``sum``, ``min``, ``max``, ``plan`` and ``verify`` are
its kin, ``Client`` has the same done by a service, and every error derives from ``DistsumError``. Importing this
imports nothing else.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from distsum.api import max, mean, min, plan, sum, verify
    from distsum.client import Client
    from distsum.errors import (
        BadInputError,
        BrokerBusyError,
        ConfigurationError,
        DiskFullError,
        DistsumError,
        HistoryError,
        InexactError,
        InputChangedError,
        InputListError,
        InterruptedRunError,
        JobCancelledError,
        JobError,
        NotServedError,
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
    "Client",
    "ConfigurationError",
    "DiskFullError",
    "DistsumError",
    "HistoryError",
    "InexactError",
    "InputChangedError",
    "InputListError",
    "InterruptedRunError",
    "JobCancelledError",
    "JobError",
    "NotServedError",
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

_MODULES = dict.fromkeys(("max", "mean", "min", "plan", "sum", "verify"), "distsum.api") | {"Client": "distsum.client"}
"""Where what is no error is."""


if not TYPE_CHECKING:  # For type checkers a name that is not imported above is a mistake.

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used."""
        import importlib

        if name not in __all__:
            raise AttributeError(f"module 'distsum' has no attribute {name!r}")
        found = getattr(importlib.import_module(_MODULES.get(name, "distsum.errors")), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
