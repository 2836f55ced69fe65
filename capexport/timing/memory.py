"""The most memory that this process has had."""

from __future__ import annotations

import sys


def peak_bytes() -> int:
    """Bytes that were resident: VmHWM where there is a /proc, since ru_maxrss is, on Linux, no less than the memory of
    the process that started this one. That is in KiB on Linux, in bytes on macOS.
    """
    try:
        with open("/proc/self/status") as file:
            return 1024 * next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
