"""How much memory this machine has, and how much of it a new process may still take."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import HydraError
from ..units import KIB, Size

__all__ = ["HostMemory", "host_memory", "shared_memory"]


@dataclass(frozen=True, slots=True)
class HostMemory:
    """`total` and `available` bytes of system RAM, within the limits of the container this process runs in."""

    total: Size
    available: Size


def host_memory(root: Path = Path("/")) -> HostMemory:
    """The RAM of this machine. `root` is where /proc and /sys are looked for (Linux)."""
    if sys.platform == "win32":
        return _windows()
    if sys.platform == "darwin":
        return _macos()
    return _linux(root)


def shared_memory(path: Path = Path("/dev/shm")) -> Size | None:
    """Bytes free in POSIX shared memory (ExLlamaV3's tensor parallel mode lives there); None where there is none."""
    if not path.is_dir():
        return None
    import shutil

    return Size(shutil.disk_usage(path).free)


def _linux(root: Path) -> HostMemory:
    lines = (line.split() for line in (root / "proc/meminfo").read_text().splitlines())
    kib = {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1}
    total, available = kib["MemTotal"] * KIB, kib["MemAvailable"] * KIB
    for limit, used in _cgroup_limits(root):
        total = min(total, limit)
        available = min(available, max(0, limit - used))
    return HostMemory(Size(total), Size(available))


def _cgroup_limits(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, bytes in use that cannot be dropped) of this process's cgroup and of those above it, v2 then v1."""
    memberships = [line.split(":", 2) for line in _read(root / "proc/self/cgroup").splitlines() if line.count(":") >= 2]
    for _, controllers, group in memberships:
        if controllers == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            base = root / "sys/fs/cgroup/memory"
        else:
            continue
        folder = base / group.strip("/")
        # In a container the group's path is often the host's, and only the top of the tree is mounted.
        for place in (folder, *folder.parents):
            limit, used = _read(place / names[0]).strip(), _read(place / names[1]).strip()
            if limit.isdigit() and used.isdigit():
                yield int(limit), int(used) - _stat(place / "memory.stat", names[2])
            if place == base:
                break


def _stat(path: Path, key: str) -> int:
    values = dict(line.split(" ", 1) for line in _read(path).splitlines() if " " in line)
    return int(values.get(key, 0))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # this kernel, or this container, has no such file: then it sets no limit


def _macos() -> HostMemory:
    import ctypes

    libc = ctypes.CDLL(None)

    def ask(name: str) -> int:
        value, size = ctypes.c_uint64(0), ctypes.c_size_t(8)
        if libc.sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0) != 0:
            raise HydraError(f"macOS does not answer sysctl {name}")
        return value.value

    # Free pages, and file pages that can be dropped at once: what Activity Monitor leaves out of "memory used".
    pages = sum(ask(name) for name in ("vm.page_free_count", "vm.page_pageable_external_count"))
    return HostMemory(Size(ask("hw.memsize")), Size(pages * ask("hw.pagesize")))


def _windows() -> HostMemory:
    import ctypes

    class MemoryStatus(ctypes.Structure):
        # MEMORYSTATUSEX: two 32-bit words, then seven 64-bit counts, of which the first two are physical memory.
        _fields_ = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32), ("counts", ctypes.c_uint64 * 7)]

    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    if not ctypes.WinDLL("kernel32").GlobalMemoryStatusEx(ctypes.byref(status)):  # type: ignore[attr-defined,unused-ignore]
        raise HydraError("Windows does not answer GlobalMemoryStatusEx")
    return HostMemory(Size(status.counts[0]), Size(status.counts[1]))
