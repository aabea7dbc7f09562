"""What this process holds."""

from __future__ import annotations

import gc
import os
import threading
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Holdings", "holdings", "resident"]


@dataclass(frozen=True)
class Holdings:
    """Memory in MiB, and counts of what could be left behind."""

    memory: float
    objects: int
    threads: int
    files: int

    def __str__(self) -> str:
        return f"{self.memory:.1f} MiB, {self.objects:,} objects, {self.threads} threads, {self.files} open files"


def resident() -> float:
    """MiB of memory that this process holds now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def holdings() -> Holdings:
    """All of it, after the garbage has been collected."""
    gc.collect()
    return Holdings(resident(), len(gc.get_objects()), threading.active_count(), len(os.listdir("/proc/self/fd")))
