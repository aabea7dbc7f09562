"""The ledger: what every step came to, kept in one file that is replaced whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["Entry", "Ledger", "write_whole"]

Status = Literal["done", "failed", "unfinished"]

# How often a step may be stopped for lack of time before that counts as a failure.
TRIES = 6


@dataclass(frozen=True, slots=True)
class Entry:
    """One step's outcome: `found` is what it measured, `error` the end of what it said when it failed."""

    status: Status
    seconds: float
    found: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    tries: int = 1

    @property
    def missed(self) -> list[Mapping[str, Any]]:
        """The rows that were judged and lie outside their goal."""
        return [row for row in self.found.get("judged", []) if not row["within"]]


class Ledger:
    """Entries by the step's name, in the order in which they came, in `folder`/ledger.json."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.json"
        told = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        self.entries = {name: Entry(**values) for name, values in told.items()}

    @property
    def done(self) -> set[str]:
        return {name for name, entry in self.entries.items() if entry.status == "done"}

    @property
    def failed(self) -> set[str]:
        return {name for name, entry in self.entries.items() if entry.status == "failed"}

    def put(self, name: str, entry: Entry) -> Entry:
        """Take in an outcome; a step that was stopped too often has failed. What it took before is added."""
        before = self.entries.pop(name, None)
        if before is not None and before.status == "unfinished":
            tries, status = before.tries + 1, entry.status
            if status == "unfinished" and tries >= TRIES:
                status = "failed"
            entry = Entry(status, round(before.seconds + entry.seconds, 1), entry.found, entry.error, tries)
        self.entries[name] = entry
        self._write()
        return entry

    def forget(self, prefix: str) -> list[str]:
        """Drop the steps of a name or a stage ("failed": all that failed), so that they run again; their names."""
        chosen = [
            name
            for name, entry in self.entries.items()
            if name == prefix or name.startswith(f"{prefix}/") or (prefix == "failed" and entry.status == "failed")
        ]
        for name in chosen:
            del self.entries[name]
        self._write()
        return chosen

    def text(self) -> str:
        """What the file holds."""
        return json.dumps({name: asdict(entry) for name, entry in self.entries.items()}, indent=1)

    def _write(self) -> None:
        write_whole(self.path, self.text())


def write_whole(path: Path, text: str) -> None:
    """A file that is either as it was or as it should be, whenever the machine is taken away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
