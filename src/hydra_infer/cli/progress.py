"""How far a long job is, told on stderr: on one line that changes, or line after line."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..engines.progress import Progress

__all__ = ["Telling", "progress"]


@contextmanager
def progress() -> Iterator[Progress]:
    """How far a long job is, on one line of the terminal; nothing where nobody looks, as in a log."""
    if not sys.stderr.isatty():
        yield False
        return
    shown = ""

    def show(fraction: float, message: str) -> None:
        nonlocal shown
        line = f"{fraction:4.0%} {message}"[: shutil.get_terminal_size().columns - 1]
        if line != shown:
            print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)
            shown = line

    try:
        yield show
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class Telling:
    """Progress as lines on stderr, for what takes minutes or hours: each new message, but none within `seconds` of the last."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds, self._message, self._at = seconds, "", -float("inf")

    def __call__(self, fraction: float, message: str) -> None:
        now = time.monotonic()
        if message != self._message and now - self._at >= self._seconds:
            self._message, self._at = message, now
            print(f"{fraction:4.0%}  {message}", file=sys.stderr, flush=True)
