"""JSON inside an input, changed as values: a field gone, of another kind, twice, in a thousand lists."""

from __future__ import annotations

import json
import random
from typing import Any

__all__ = ["changed"]

_decoder = json.JSONDecoder()
_ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 10**30, 0.5, 1e308, float("nan"), float("inf"),
    "", "a", "0", "\ud800", "\u2028", "a" * 300, [], {}, [None], [[]], {"a": None}, [0, "a"], {"": {}}, "9" * 40,
)  # fmt: skip


def changed(data: bytes, dice: random.Random, words: tuple[str, ...]) -> bytes | None:
    """The data with one JSON text in it changed, None where there is none: the whole, or one of its lines, behind any word."""
    lines = data.split(b"\n")
    spots = [number for number, line in enumerate(lines) if b"{" in line or b"[" in line]
    for number in dice.sample(spots, min(3, len(spots))):
        line = lines[number].decode("utf-8", "surrogateescape")
        start = min(at for at in (line.find("{"), line.find("[")) if at >= 0)
        try:
            value, end = _decoder.raw_decode(line, start)
        except (ValueError, RecursionError):
            continue
        for _ in range(dice.choice((1, 1, 1, 2, 4))):
            value = _change(value, dice, words)
        try:
            text = json.dumps(value, separators=dice.choice(((",", ":"), (", ", ": "))))
        except RecursionError:
            return None
        lines[number] = (line[:start] + text + line[end:]).encode("utf-8", "surrogateescape")
        if dice.random() < 0.1:  # lines too come twice, go and change places
            lines.insert(dice.randrange(len(lines) + 1), dice.choice(lines))
        return b"\n".join(lines)
    return None


def _change(value: Any, dice: random.Random, words: tuple[str, ...]) -> Any:
    """A copy with one change somewhere in it."""
    if isinstance(value, dict) and value and dice.random() < 0.9:
        key = dice.choice(list(value))
        what = dice.random()
        rest = {name: one for name, one in value.items() if name != key}
        if what < 0.08:
            return rest
        if what < 0.14:
            return {**rest, dice.choice(words or ("a",)): value[key]}
        if what < 0.2:
            return {**value, dice.choice(words or ("a",)): dice.choice(_ODD)}
        if what < 0.24:
            return {**value, key: dice.choice(list(value.values()))}
        return {**value, key: _change(value[key], dice, words)}
    if isinstance(value, list) and value and dice.random() < 0.9:
        at = dice.randrange(len(value))
        what = dice.random()
        if what < 0.1:
            return value[:at] + value[at + 1 :]
        if what < 0.2:
            return [*value, value[at]]
        return [*value[:at], _change(value[at], dice, words), *value[at + 1 :]]
    what = dice.random()
    if what < 0.03:
        return _nested(value, dice.choice((3, 40, 400)), as_table=dice.random() < 0.5)
    if what < 0.2 and isinstance(value, int | float) and not isinstance(value, bool):
        return dice.choice((-value, value + 1, value * 2, value - 1, str(value), float(value) if abs(value) < 1e300 else 0))
    if what < 0.3 and isinstance(value, str):
        return dice.choice((value + value, value[:-1], value.upper(), dice.choice(words or ("a",)), [value]))
    if what < 0.4:
        return dice.choice(([value], {"a": value}, [value, value]))
    return dice.choice(_ODD)


def _nested(value: Any, depth: int, *, as_table: bool) -> Any:
    for _ in range(depth):
        value = {"a": value} if as_table else [value]
    return value
