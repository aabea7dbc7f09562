"""The file of a run: its settings, then one line of JSON for each finished measurement, so that a run can be continued."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from ...errors import ConfigError
from .settings import Settings

__all__ = ["Journal"]


S = TypeVar("S", bound=Settings)


class Journal(Generic[S]):
    """What has been measured so far: `results` by their keys, and the `setup` of the run; without a path, in memory only.

    `kind` is the class of the settings. A line that was cut off when its run was killed is dropped, and measured again. Raises
    ConfigError for a file that is something else; such a file is left as it is.
    """

    def __init__(self, path: str | os.PathLike[str] | None, kind: type[S]) -> None:
        self._path, self._kind = None if path is None else Path(path), kind
        self.setup: S | None = None
        self.results: dict[str, dict[str, Any]] = {}
        self._whole = 0  # bytes of the file that are complete lines
        if self._path is not None and self._path.exists() and self._path.stat().st_size:
            self._read(self._path)

    def seed(self, given: int | None) -> int:
        """The one asked for, else that of the run to be continued, else a new one: servers still know an old one's prompts."""
        if given is not None:
            return given
        return random.randrange(2**32) if self.setup is None else self.setup.seed

    def begin(self, setup: S) -> None:
        """Start a run of `setup`, or go on with it. Raises ConfigError when the file has another one."""
        if self.setup is not None and self.setup != setup:
            old, new = self.setup.to_dict(), setup.to_dict()
            told = ", ".join(f"{name} {old[name]!r}, now {new[name]!r}" for name in old if old[name] != new[name])
            raise ConfigError(f"{self._path} is of another run: {told}", hint="give the same settings, or another file")
        if self._path is not None:
            if self.setup is None:
                self._create(self._path, setup)
            else:
                os.truncate(self._path, self._whole)
        self.setup = setup

    def add(self, key: str, result: Mapping[str, Any]) -> None:
        """Keep a result. It is on the disk, whole, when this returns."""
        self.results[key] = dict(result)
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(_line({"step": key, "result": result}))
                file.flush()
                os.fsync(file.fileno())

    def _create(self, path: Path, setup: S) -> None:
        """The first line, written aside and moved into place: a file either begins with it or is not ours."""
        aside = path.with_name(f"{path.name}.new")
        aside.write_bytes(_line({self._kind.MARK: setup.to_dict()}))
        aside.replace(path)

    def _read(self, path: Path) -> None:
        try:
            data = path.read_bytes()
            self._whole = data.rfind(b"\n") + 1
            first, *lines = [json.loads(line) for line in data[: self._whole].splitlines()]
            self.setup = self._kind.from_dict(first[self._kind.MARK])
            self.results = {line["step"]: line["result"] for line in lines}
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise ConfigError(
                f"{path} is not the file of a {self._kind.MARK.removeprefix('hydra_infer ')}: {str(error)[:200]}",
                hint="give the name of a new file",
            ) from error


def _line(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data).encode() + b"\n"
