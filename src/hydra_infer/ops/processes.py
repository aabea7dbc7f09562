"""Who runs here and who listens where, as Linux tells in /proc. Reads only; what other users' processes hide stays None."""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import HydraError

__all__ = ["Listener", "Process", "holder", "listeners", "process"]

_LISTEN = "0A"  # TCP_LISTEN, include/net/tcp_states.h


@dataclass(frozen=True, slots=True)
class Process:
    """One process. `started` is in clock ticks since the machine's start (proc(5), stat field 22): with the pid it is unique.

    `executable` and `folder` are None where the system does not show them to this user; `group` is its cgroup, which for a
    service ends in its unit.
    """

    pid: int
    started: int
    command: tuple[str, ...]
    executable: str | None
    folder: str | None
    group: str

    @property
    def unit(self) -> str | None:
        """The systemd service whose process it is; None in the session, scope or manager that a user's programs share."""
        last = self.group.rstrip("/").rpartition("/")[2]
        return last if last.endswith(".service") and not last.startswith("user@") else None

    @property
    def name(self) -> str:
        """As people know it. Arguments are left out: they may hold keys."""
        program = Path(self.executable or (self.command[0] if self.command else "?")).name
        script = next((word for word in self.command[1:] if word.endswith(".py")), "")
        return f"{program} {Path(script).name}".strip()

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid}{f', {self.unit}' if self.unit else ''})"


@dataclass(frozen=True, slots=True)
class Listener:
    """A port that somebody listens on; `process` is None where it is another user's and we may not see whose."""

    address: str
    port: int
    process: Process | None

    @property
    def who(self) -> str:
        return str(self.process) if self.process else "a process of another user"

    def covers(self, address: str) -> bool:
        """Whether it is in the way of one that wants to listen at `address`; a host's name may mean any of its addresses."""
        try:
            wanted = ipaddress.ip_address("127.0.0.1" if address == "localhost" else address)
        except ValueError:
            return True
        ours = ipaddress.ip_address(self.address)
        return ours.is_unspecified or wanted.is_unspecified or ours == wanted


def listeners(root: Path = Path("/")) -> tuple[Listener, ...]:
    """Every listening TCP port of this machine. Raises HydraError where the system does not tell."""
    tables = [root / "proc/net" / name for name in ("tcp", "tcp6")]
    if not tables[0].is_file():
        raise HydraError("this system has no /proc/net/tcp", hint="ports are looked at on Linux only")
    rows = [row for table in tables if table.is_file() for row in _listening(table.read_text())]
    owners = _owners(root, {inode for _, _, inode in rows})
    return tuple(Listener(address, port, owners.get(inode)) for address, port, inode in rows)


def holder(rows: Iterable[Listener], address: str, port: int) -> Listener | None:
    """Who is in the way of one that wants to listen there."""
    return next((one for one in rows if one.port == port and one.covers(address)), None)


def process(pid: int, root: Path = Path("/")) -> Process | None:
    """The process with this number, None where there is none (any more). Raises HydraError where the system does not tell."""
    place = root / "proc" / str(pid)
    if not place.parent.is_dir():
        raise HydraError("this system has no /proc", hint="processes are looked at on Linux only")
    try:
        stat = (place / "stat").read_text()
        command = (place / "cmdline").read_bytes()
        group = (place / "cgroup").read_text().strip().splitlines()
    except OSError:
        return None  # it has ended, which is the answer
    return Process(
        pid=pid,
        started=int(stat.rpartition(")")[2].split()[19]),  # the name before may hold spaces and brackets
        command=tuple(word.decode("utf-8", "replace") for word in command.split(b"\0") if word),
        executable=_link(place / "exe"),
        folder=_link(place / "cwd"),
        group=group[-1].split(":", 2)[-1] if group else "",
    )


def _listening(text: str) -> Iterator[tuple[str, int, str]]:
    """(address, port, inode) of the listening sockets in a /proc/net/tcp table."""
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) > 9 and words[3] == _LISTEN:
            address, _, port = words[1].partition(":")
            yield _from_hex(address), int(port, 16), words[9]


def _from_hex(text: str) -> str:
    """An address as the kernel prints it: 32-bit words, each in this machine's byte order."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    found = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def _owners(root: Path, inodes: set[str]) -> dict[str, Process]:
    """The processes that hold these sockets, as far as we may look."""
    found: dict[str, Process] = {}
    for place in (root / "proc").iterdir():
        if not place.name.isdigit():
            continue
        try:
            links = [_link(Path(entry.path)) for entry in os.scandir(place / "fd")]
        except OSError:
            continue  # another user's, or gone meanwhile: its sockets stay without an owner, and the caller says so
        for link in links:
            inode = (link or "").removeprefix("socket:[").removesuffix("]")
            if inode in inodes and (owner := process(int(place.name), root)) is not None:
                found.setdefault(inode, owner)
    return found


def _link(path: Path) -> str | None:
    try:
        return str(path.readlink())
    except OSError:
        return None  # not ours to see, or gone
