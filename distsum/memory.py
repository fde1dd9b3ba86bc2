"""What this process takes of memory."""

from __future__ import annotations


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
