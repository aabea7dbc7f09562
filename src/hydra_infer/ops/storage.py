"""Where models' files come from: the mounts, what should be mounted, and the network between. Linux; reads only."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Link", "Mount", "absent_mount", "links", "mount_of", "read_speed"]


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/mounts."""

    source: str
    target: str
    type: str
    options: tuple[str, ...]

    @property
    def network(self) -> bool:
        """Whether its files come over a network."""
        return self.type in ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "fuse.sshfs")

    def option(self, name: str) -> str | None:
        """The value of "name=value"."""
        return next((value for key, _, value in (one.partition("=") for one in self.options) if key == name), None)


@dataclass(frozen=True, slots=True)
class Link:
    """A network card that is up; `speed` is Mbit/s as its driver says."""

    name: str
    speed: int


def mount_of(path: Path, root: Path = Path("/")) -> Mount | None:
    """The mount that a path lies on; None where the system does not tell."""
    return _longest(_table(root / "proc/mounts"), path)


def absent_mount(path: Path, root: Path = Path("/")) -> Mount | None:
    """What /etc/fstab says should be mounted at or above this path and is not; systemd's automounts count as mounted."""
    wanted = [one for one in _table(root / "etc/fstab") if one.target != "/" and path.is_relative_to(one.target)]
    there = {one.target for one in _table(root / "proc/mounts")}
    return next((one for one in wanted if one.target not in there), None)


def links(root: Path = Path("/")) -> tuple[Link, ...]:
    """The network cards that are up and say how fast they are."""
    found = []
    for place in sorted((root / "sys/class/net").glob("*")):
        try:
            up, speed = (place / "operstate").read_text().strip() == "up", int((place / "speed").read_text())
        except (OSError, ValueError):
            continue  # bridges, tunnels and the loopback have no speed
        if up and speed > 0:
            found.append(Link(place.name, speed))
    return tuple(found)


def read_speed(path: Path, megabytes: int = 256, seconds: float = 10.0) -> float | None:
    """MB/s of reading the end of a file, which nobody read lately; None for a file too short to tell."""
    size = path.stat().st_size
    if size < megabytes * 10**6:
        return None
    done, began = 0, time.monotonic()
    with path.open("rb", buffering=0) as file:
        file.seek(size - megabytes * 10**6)
        while time.monotonic() - began < seconds and (chunk := file.read(2**20)):
            done += len(chunk)
    return done / 1e6 / max(time.monotonic() - began, 1e-6)


def _longest(table: list[Mount], path: Path) -> Mount | None:
    above = [one for one in table if path.is_relative_to(one.target)]
    return max(above, key=lambda one: len(one.target), default=None)


def _table(path: Path) -> list[Mount]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []  # no such file here: the callers then know of no mount
    rows = [line.split() for line in lines if not line.lstrip().startswith("#")]
    return [Mount(row[0], row[1].replace("\\040", " "), row[2], tuple(row[3].split(","))) for row in rows if len(row) >= 4]
