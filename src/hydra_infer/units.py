"""Bytes inside, GiB outside: the one place where sizes change their unit."""

from __future__ import annotations

import math

from .errors import ConfigError

__all__ = ["GIB", "KIB", "MIB", "Size", "gib", "parse_tokens"]

KIB, MIB, GIB = 2**10, 2**20, 2**30


class Size(int):
    """A number of bytes that prints itself in the unit a reader wants, "27.3 GiB"; it is an int everywhere else."""

    __slots__ = ()

    def __str__(self) -> str:
        magnitude = abs(int(self))
        for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
            # 1023.96 MiB would print as "1024.0 MiB": let the next larger unit have it.
            if magnitude >= unit * 0.99995:
                return f"{int(self) / unit:.1f} {name}"
        return f"{int(self)} B"

    def __repr__(self) -> str:
        return f"Size({int(self)})"

    def __format__(self, spec: str) -> str:
        # "{size:d}" is still the plain number; "{size:>9}" aligns the printed form.
        return format(int(self), spec) if spec.endswith(("d", "x", "f", "e", "n", "g")) else format(str(self), spec)

    def __add__(self, other: int) -> Size:
        return Size(int(self) + int(other))

    __radd__ = __add__

    def __sub__(self, other: int) -> Size:
        return Size(int(self) - int(other))

    def __rsub__(self, other: int) -> Size:
        return Size(int(other) - int(self))

    def __neg__(self) -> Size:
        return Size(-int(self))

    @property
    def gib(self) -> float:
        """The same size in GiB (2**30 bytes)."""
        return int(self) / GIB


def gib(value: float, name: str = "size") -> Size:
    """Bytes from what people type: GiB (2**30), as TabbyAPI's and ExLlama's gpu_split mean it.

    Raises ConfigError for a negative, infinite or non-numeric value; `name` is the argument to blame.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ConfigError(f"{name}={value!r} is not a size", hint="give GiB as a number, for example 22.5")
    return Size(round(value * GIB))


def parse_tokens(text: str | int, name: str = "context") -> int:
    """A number of tokens from 32768, "32768" or "32k" (k = 1024). Raises ConfigError for anything else, and below 1."""
    word = str(text).strip().lower().replace("_", "").replace(",", "")
    factor = 1
    if word.endswith(("k", "m")):
        factor = 1024 if word[-1] == "k" else 1024 * 1024
        word = word[:-1]
    try:
        tokens = float(word) * factor
    except ValueError:
        tokens = math.nan
    if isinstance(text, bool) or not math.isfinite(tokens) or tokens < 1 or tokens != int(tokens):
        raise ConfigError(f"{name}={text!r} is not a number of tokens", hint="for example 8192 or 32k")
    return int(tokens)
