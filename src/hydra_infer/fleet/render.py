"""Files to be, compared with what is there first and backed up when they are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..configs.disk import read, write
from ..configs.edit import diff
from ..errors import ConfigError

__all__ = ["Rendered", "Rendering", "compared"]


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
            try:
                file.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"{file.path.parent} cannot be made: {error.strerror}") from error
            backups.append(write(file.path, file.text, was=file.was))
        return tuple(backup for backup in backups if backup is not None)


def compared(texts: Mapping[str, str], notes: Iterable[str], out: Path) -> Rendering:
    """The texts, by place in the folder `out`, beside what is there now."""
    return Rendering(tuple(_rendered(out, place, text) for place, text in texts.items()), tuple(notes))


def _rendered(out: Path, place: str, text: str) -> Rendered:
    parts = PurePosixPath(place).parts
    if ".." in parts or place.startswith("/") or "\\" in place:
        raise ConfigError(f"{place!r} would not lie in {out}", hint="the names of servers and models are names of folders here")
    path = out.joinpath(*parts)
    return Rendered(path, text, read(path) if path.exists() else None)
