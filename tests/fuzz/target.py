"""What is fuzzed: a parser with its invariant, the inputs to begin with, and how to change them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Dice", "Target", "pieces", "put"]


@dataclass(frozen=True, slots=True)
class Target:
    """`run` takes any bytes and raises where the parser breaks its word; `starts` are sound inputs.

    `values`: inputs hold JSON, so that its values are changed as well as its bytes. `words` are put in by the fuzzer.
    An input has at most `longest` bytes.
    """

    run: Callable[[bytes], None]
    starts: Callable[[], list[bytes]]
    words: tuple[str, ...] = ()
    values: bool = False
    longest: int = 4096


class Dice:
    """The first bytes of an input decide how the rest is given to the parser: readable seeds, repeatable cases."""

    def __init__(self, data: bytes, count: int) -> None:
        self._thrown = data[:count].ljust(count, b"\0")
        self._at = 0
        self.rest = data[count:]

    def below(self, sides: int) -> int:
        """A number from 0 to `sides` - 1."""
        self._at += 1
        return self._thrown[self._at - 1] % sides


def pieces(data: bytes, size: int) -> list[bytes]:
    """The data as a network might deliver it."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def put(name: str, data: bytes) -> Path:
    """A file of this name that holds the data, in memory where the system has a folder for that."""
    path = _folder() / name
    path.write_bytes(data)
    return path


@cache
def _folder() -> Path:
    # Removed when the object goes, at the process's end.
    _kept.append(tempfile.TemporaryDirectory(prefix="hydra-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    return Path(_kept[0].name)


_kept: list[tempfile.TemporaryDirectory[str]] = []
