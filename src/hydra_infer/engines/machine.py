"""Machine: what the system tells of its processor and of a process: physical cores, bytes in memory."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from ..units import KIB, Size

__all__ = ["physical_cores", "resident_memory"]


def physical_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use, not counting hyper-threads, at least 1.

    Linux: the cores of /sys/devices/system/cpu/*/topology among the allowed ones, bounded by the cgroup's cpu.max.
    Elsewhere the system's count, halved on x86, where two threads a core are the rule.
    """
    if sys.platform == "linux":
        allowed = os.sched_getaffinity(0)
        topology = [root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list" for cpu in allowed]
        cores = {file.read_text() for file in topology if file.exists()}
        return max(1, min(len(cores) or len(allowed), _cgroup_cores(root)))
    count = os.cpu_count() or 1
    return max(1, count // 2 if platform.machine().lower() in ("x86_64", "amd64") else count)


def resident_memory(pid: int) -> Size | None:
    """Bytes of system memory that a process holds; None where the system has no simple answer (Windows), or it is gone."""
    if sys.platform == "linux":
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            return None
        return Size(pages * os.sysconf("SC_PAGE_SIZE"))
    if sys.platform == "darwin":
        import subprocess

        told = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return Size(int(told.stdout) * KIB) if told.stdout.strip() else None
    return None


def _cgroup_cores(root: Path) -> int:
    """The whole cores that a container's quota allows (cgroup v2 cpu.max: "quota period" in microseconds)."""
    try:
        quota, period = (root / "sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return sys.maxsize  # no such file, or "max": no limit
