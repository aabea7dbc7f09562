"""Swap: one file or link that has an old and a new form, and is put into either in one step."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from ...configs.disk import read, write
from ...errors import ConfigError
from ..journal import settle

__all__ = ["Side", "Swap"]

Side = Literal["old", "new"]


@dataclass(frozen=True, slots=True)
class Swap:
    """`old` and `new` are a file's whole text, which may hold secrets, or where a link leads."""

    name: str
    path: str
    kind: Literal["file", "link"]
    old: str = field(repr=False)
    new: str = field(repr=False)

    @classmethod
    def file(cls, name: str, path: str | os.PathLike[str], new: str, old: str | None = None) -> Self:
        """A file that is to read `new`. What it reads now is the old form, unless that is given: then it is another machine's.

        Raises ConfigError where it cannot be read.
        """
        if old is not None:
            return cls(name, os.fspath(path), "file", old, new)
        place = Path(path).absolute()
        return cls(name, str(place), "file", read(place), new)

    @classmethod
    def link(
        cls, name: str, path: str | os.PathLike[str], new: str | os.PathLike[str], old: str | os.PathLike[str] | None = None
    ) -> Self:
        """A symbolic link that is to lead to `new`; `old` as in file(). Raises ConfigError where there is none, or no folder."""
        if old is not None:
            return cls(name, os.fspath(path), "link", os.fspath(old), os.fspath(new))
        place = Path(path).absolute()
        if not place.is_symlink():
            raise ConfigError(
                f"{place} is no link", hint="only a link can be led elsewhere in one step; name the folder in the config"
            )
        if not (place.parent / new).is_dir():
            raise ConfigError(f"{place} would lead to {os.fspath(new)}, where there is no folder")
        return cls(name, str(place), "link", os.readlink(place), os.fspath(new))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """What to_dict() gave."""
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, whole texts included."""
        return asdict(self)

    @property
    def side(self) -> Side | None:
        """Which form is there now; None for neither. One that has the same in both is "new"."""
        now = self._now()
        return "new" if now == self.new else "old" if now == self.old else None

    def check(self) -> None:
        """Raises ConfigError where it has neither form: somebody changed it, and that must not be lost."""
        if self.side is None:
            raise ConfigError(
                f"{self.path} is neither as it was nor as it is to be: somebody has changed it",
                hint="put it back into one of the two, then run this again",
            )

    def put(self, side: Side) -> None:
        """Give it that form, in one step; nothing happens where it has it. A file that is replaced leaves a backup beside it.

        Raises ConfigError as check() does, and where it cannot be changed.
        """
        self.check()
        wanted, now = (self.new, self.old) if side == "new" else (self.old, self.new)
        if self._now() == wanted:
            return
        try:
            self._put(wanted, now)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be changed: {error.strerror or error}") from error

    def _now(self) -> str | None:
        if self.kind == "link":
            return os.readlink(self.path) if os.path.islink(self.path) else None
        return read(self.path) if os.path.exists(self.path) else None

    def _put(self, wanted: str, now: str) -> None:
        if self.kind == "file":
            write(self.path, wanted, was=now)
        else:
            # A link cannot be changed, but another can take its place; one that a killed run left behind is made anew.
            beside = f"{self.path}.hydra-new"
            if os.path.islink(beside):
                os.unlink(beside)
            os.symlink(wanted, beside, target_is_directory=True)
            os.replace(beside, self.path)
        settle(Path(os.path.realpath(self.path) if self.kind == "file" else self.path).parent)
