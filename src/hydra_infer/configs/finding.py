"""Finding: one thing that is wrong with somebody's configuration file, and what to write instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Kind"]

# unknown: nobody reads it. misplaced: read elsewhere. inert: read, and without effect here. dangerous: it does harm.
# wrong: a value of the wrong type or out of range.
Kind = Literal["unknown", "misplaced", "inert", "dangerous", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`line` counts from 1; `key` is dotted ("model.cache_size"); `instead` is YAML to paste, None: leave the key out.

    `stops`: the program does not start with it, or starts without what the file is there for.
    """

    line: int
    key: str
    kind: Kind
    why: str
    instead: str | None = None
    stops: bool = False

    def __str__(self) -> str:
        told = f"line {self.line}: {self.key}: {self.kind}: {self.why}" if self.key else f"line {self.line}: {self.why}"
        if self.instead is None:
            return told
        return f"{told}\n" + "\n".join(f"    {line}" for line in self.instead.splitlines())
