"""JSON that somebody else wrote: bounded in size, one meaning per key, no NaN, errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..units import Size

__all__ = ["JsonDict", "parse_object", "read_object"]

JsonDict = dict[str, Any]


def read_object(path: Path, limit: int) -> JsonDict:
    """The JSON object in a file of at most `limit` bytes. Raises ConfigError for anything else in it."""
    try:
        with path.open("rb") as file:
            text = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(text) > limit:
        raise ConfigError(f"{path} is larger than {Size(limit)}", hint="this is not the file it is taken for")
    return parse_object(text, str(path))


def parse_object(text: bytes, where: str) -> JsonDict:
    """The JSON object in `text`; `where` is named in errors."""
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant)
    except RecursionError:
        raise ConfigError(f"{where} nests too deeply") from None
    except ValueError as error:  # bad UTF-8, bad JSON, a number of thousands of digits, and the two refusals below
        raise ConfigError(f"{where} is not usable JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{where} holds a {type(value).__name__}, not an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> JsonDict:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()  # counting each key in all of them would take minutes for a hostile mebibyte
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {key!r:.100} appears twice")
            seen.add(key)
    return value


def _constant(word: str) -> float:
    """Infinity is no JSON either, but Nemotron-H's own config.json has it, in a field nobody here reads."""
    if word == "NaN":
        raise ValueError(f"{word} is not a JSON number")
    return float(word)
