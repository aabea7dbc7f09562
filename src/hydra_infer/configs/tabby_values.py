"""Whether TabbyAPI takes a value for a key, and as what: its configuration models are pydantic's, in its lenient mode."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ConfigError
from .tabby_keys import Key

__all__ = ["nearest", "taken"]

# pydantic 2, "Conversion table": what a bool field takes for yes and no.
_YES, _NO = frozenset("1 on t true y yes".split()), frozenset("0 off f false n no".split())


def taken(key: Key, value: Any) -> Any:
    """The value as TabbyAPI has it. Raises ConfigError saying what it must be."""
    return _TAKES[key.takes](key, value)


def nearest(key: Key, value: Any) -> Any:
    """A value that is taken, as near to this one as can be said; the default where nothing is near."""
    default = list(key.default) if isinstance(key.default, tuple) else key.default
    if isinstance(value, bool) and key.takes != "bool":
        return default  # yes and no pass for 1 and 0, and were not meant so
    for candidate in (value, str(value).upper(), str(value).lower(), [value], str(value)):
        try:
            return taken(key, candidate)
        except ConfigError:
            continue
    number = _number(value)
    if key.takes == "int" and key.step and number and number > 0:
        return math.ceil(number / key.step) * key.step
    return default


def _bool(_key: Key, value: Any) -> bool:
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in _YES | _NO:
        return value.lower() in _YES
    raise ConfigError("must be true or false")


def _int(key: Key, value: Any) -> int:
    number = _number(value)
    # In text there is no exponent.
    if number is None or number != int(number) or (isinstance(value, str) and "e" in value.lower()):
        raise ConfigError("must be a whole number")
    if key.least is not None and number < key.least:
        raise ConfigError(f"must be {key.least} or more")
    if key.step is not None and number % key.step:
        raise ConfigError(f"must be a multiple of {key.step}")
    return int(number)


def _float(key: Key, value: Any) -> Any:
    if isinstance(value, str) and value in key.words:
        return value
    if (number := _number(value)) is None:
        raise ConfigError(" or ".join(("must be a number", *key.words)))
    return number


def _text(key: Key, value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigError("must be text, in quotes where it looks like something else")
    if not key.words or value in key.words or (key.pattern and re.fullmatch(key.pattern, value)):
        return value
    raise ConfigError(f"must be one of {', '.join(key.words)}" + (" or a pair of bits as 8,8" if key.pattern else ""))


def _floats(key: Key, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigError("must be a list of numbers")
    return [_float(key, item) for item in value]


def _texts(key: Key, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError("must be a list of names")
    # The one list with a choice of words, api_servers, is put in small letters first.
    if key.words and not {item.lower() for item in value} <= set(key.words):
        raise ConfigError(f"must be a list out of {', '.join(key.words)}")
    return list(value)


def _table(_key: Key, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError("must be a table")
    return value


def _loras(_key: Key, value: Any) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ConfigError("must be a list of tables with name and scaling")
    return list(value)


_TAKES: Mapping[str, Callable[[Key, Any], Any]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "text": _text,
    "floats": _floats,
    "texts": _texts,
    "table": _table,
    "loras": _loras,
}


def _number(value: Any) -> float | None:
    """A finite number from a number or its digits; None otherwise."""
    if not isinstance(value, bool | int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None
