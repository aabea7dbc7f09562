"""The file of a run: its Setup, then one line of JSON for each finished measurement, so that a run can be continued."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from .steps import Setup, Step

__all__ = ["Journal"]

_MARK = "hydra_infer bench"


class Journal:
    """What has been measured so far: `results` by Step.key, and the `setup` of the run; without a path, in memory only.

    A line that was cut off when its run was killed is dropped, and measured again. Raises ConfigError for a file that is
    something else; such a file is left as it is.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._path = None if path is None else Path(path)
        self.setup: Setup | None = None
        self.results: dict[str, dict[str, Any]] = {}
        self._whole = 0  # bytes of the file that are complete lines
        if self._path is not None and self._path.exists() and self._path.stat().st_size:
            self._read(self._path)

    def begin(self, setup: Setup) -> None:
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

    def add(self, step: Step, result: Mapping[str, Any]) -> None:
        """Keep a result. It is on the disk, whole, when this returns."""
        self.results[step.key] = dict(result)
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(_line({"step": step.key, "result": result}))
                file.flush()
                os.fsync(file.fileno())

    def _create(self, path: Path, setup: Setup) -> None:
        """The first line, written aside and moved into place: a file either begins with it or is not ours."""
        aside = path.with_name(f"{path.name}.new")
        aside.write_bytes(_line({_MARK: setup.to_dict()}))
        aside.replace(path)

    def _read(self, path: Path) -> None:
        try:
            data = path.read_bytes()
            self._whole = data.rfind(b"\n") + 1
            first, *lines = [json.loads(line) for line in data[: self._whole].splitlines()]
            self.setup = Setup.from_dict(first[_MARK])
            self.results = {line["step"]: line["result"] for line in lines}
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ConfigError(f"{path} is not the file of a bench: {error}", hint="give the name of a new file") from error


def _line(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data).encode() + b"\n"
