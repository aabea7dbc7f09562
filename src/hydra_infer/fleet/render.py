"""Other programs' configuration files, written from a fleet: compared with what is there first, and backed up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from ..configs.disk import read, write
from ..configs.edit import diff
from ..errors import ConfigError
from .report import FleetPlan
from .schema import FleetFile, Server

__all__ = ["Rendered", "Rendering", "render"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Rendered:
    """One file to be: `was` is the text that is there now, None where there is none."""

    path: Path
    text: str
    was: str | None

    @property
    def diff(self) -> str:
        """What would change, as a unified diff, secrets hidden; empty where nothing would."""
        return diff(self.was or "", self.text, name=str(self.path))


@dataclass(frozen=True, slots=True)
class Rendering:
    """All files of a fleet in one folder, not yet written. `notes` say what was left out, and why."""

    files: tuple[Rendered, ...]
    notes: tuple[str, ...] = ()

    @property
    def diff(self) -> str:
        """What would change in all of them."""
        return "".join(file.diff for file in self.files)

    @property
    def replaces(self) -> tuple[Path, ...]:
        """The files that are there and would change."""
        return tuple(file.path for file in self.files if file.was not in (None, file.text))

    def write(self) -> tuple[Path, ...]:
        """Write what is new or differs; gives the backups, which lie beside the files they were made of.

        Raises ConfigError, and leaves the file alone, where one has changed since it was compared.
        """
        backups = []
        for file in self.files:
            file.path.parent.mkdir(parents=True, exist_ok=True)
            backups.append(write(file.path, file.text, was=file.was))
        return tuple(backup for backup in backups if backup is not None)


def render(file: FleetFile, planned: FleetPlan, out: Path) -> Rendering:
    """Every file as it should be; no key is in any of them. Raises DoesNotFit for a model that does not fit its server."""
    texts: dict[str, str] = {}
    notes: list[str] = []
    for name, server in file.servers.items():
        if server.kind == "tabby":
            texts |= {f"{name}/{place}": text for place, text in _tabby(name, server, planned, notes)}
    files = tuple(_rendered(out, place, text) for place, text in texts.items())
    return Rendering(files, tuple(notes))


def _tabby(name: str, server: Server, planned: FleetPlan, notes: list[str]) -> Iterator[tuple[str, str]]:
    """config.yml for the first model, which is loaded at the start, and a tabby_config.yml for the folder of each one: what is
    loaded later takes nothing from config.yml."""
    rows = [row for row in planned.rows if row.server == name]
    notes += [f"{row.model} on {name} has no configuration: {row.error}" for row in rows if row.plan is None]
    for row in rows:
        if row.plan is None:
            continue
        if server.model_dir is None:
            raise ConfigError(f"{name} has no model_dir:, and TabbyAPI's configuration names it")
        text = row.plan.tabby_config()
        if row is rows[0]:
            yield "config.yml", text + _network(server)
        yield f"models/{row.local_name}/tabby_config.yml", _for_folder(text)


def _network(server: Server) -> str:
    """Where it listens. A file without it means 127.0.0.1:5000, which no other machine reaches."""
    address = urlsplit(server.url if "://" in server.url else f"http://{server.url}")
    host = "127.0.0.1" if address.hostname in _LOOPBACK else "0.0.0.0"
    return f"network:\n  host: {host}\n  port: {address.port or 5000}\n"


def _for_folder(text: str) -> str:
    """Without the place of the model, which is where this file lies."""
    lines = [line for line in text.splitlines() if not line.startswith(("  model_dir:", "  model_name:"))]
    return "\n".join(lines) + "\n"


def _rendered(out: Path, place: str, text: str) -> Rendered:
    parts = PurePosixPath(place).parts
    if ".." in parts or place.startswith("/") or "\\" in place:
        raise ConfigError(f"{place!r} would not lie in {out}", hint="the names of servers and models are names of folders here")
    path = out.joinpath(*parts)
    return Rendered(path, text, read(path) if path.exists() else None)
