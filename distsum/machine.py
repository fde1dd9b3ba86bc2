"""What this process takes of memory, and may take of processors."""

from __future__ import annotations

import os


def resident_bytes(field: str) -> int:
    """Return this process's resident memory now (``VmRSS``) or at its peak (``VmHWM``).

    Linux tells both. Elsewhere there is only the peak that getrusage knows, which is used for both.
    """
    try:
        with open("/proc/self/status", "rb") as status:
            for line in status:
                if line.startswith(field.encode() + b":"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def usable_cpus() -> int:
    """Return the CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
