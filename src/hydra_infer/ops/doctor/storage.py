"""Why a load may be slow: a network file system mounted for small files, a slow link, a slow disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..storage import Link, Mount
from .report import Finding

__all__ = ["check_storage"]

# nfs(5): rsize is at most 1 MiB, which clients take by themselves where the server allows it.
_SMALL_READ = 262_144
# 1 Gbit/s is 0.125 GB/s: 40 GB of weights take more than five minutes.
_SLOW_LINK = 1000
_SLOW_DISK = 200.0


def check_storage(path: Path, mount: Mount | None, links: Sequence[Link], speed: float | None = None) -> Iterator[Finding]:
    """`path` is a folder of models; `speed` MB/s, where reading was tried."""
    where = str(path)
    if mount is not None and mount.network:
        yield from _options(mount, where)
        fastest = max((link.speed for link in links), default=None)
        if fastest is not None and fastest < _SLOW_LINK:
            yield Finding(
                "warning",
                where,
                f"it comes over a network of {fastest} Mbit/s",
                f"40 GB of weights take {40_000 * 8 / fastest / 60:.0f} minutes to load",
                "look at cable and switch (a gigabit link that fell back has a bad pair), or copy the models to a local disk",
            )
    if speed is not None and speed < _SLOW_DISK:
        yield Finding(
            "warning",
            where,
            f"it reads {speed:.0f} MB/s",
            f"40 GB of weights take {40_000 / speed / 60:.0f} minutes to load",
            "copy the models to an NVMe disk",
        )


def _options(mount: Mount, where: str) -> Iterator[Finding]:
    size = mount.option("rsize")
    if mount.type.startswith("nfs") and size is not None and int(size) < _SMALL_READ:
        yield Finding(
            "warning",
            where,
            f"{mount.target} is mounted with rsize={size}",
            "each small read waits for an answer of the server: loads take several times as long",
            "leave rsize out of its mount options, or rsize=1048576",
        )
    for option, why in (
        ("noac", "every look at a file asks the server"),
        ("soft", "a server that is away for a moment ends a load with an error"),
    ):
        if mount.type.startswith("nfs") and option in mount.options:
            yield Finding("warning", where, f"{mount.target} is mounted with {option}", why, f"leave {option} out")
