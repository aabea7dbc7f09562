"""Whether TabbyAPI takes a value for a key, and as what: its configuration models are pydantic's, in its lenient mode."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .tabby_keys import Key

__all__ = ["nearest", "taken"]

# pydantic 2, "Conversion table": what a bool field takes for yes and no.
_YES, _NO = frozenset("1 on t true y yes".split()), frozenset("0 off f false n no".split())


def taken(key: Key, value: Any) -> Any:
    """The value as TabbyAPI has it. Raises ValueError saying what it must be."""
    return _TAKES[key.takes](key, value)


def nearest(key: Key, value: Any) -> Any:
    """A value that is taken, as near to this one as can be said; the default where nothing is near."""
    if isinstance(value, bool) and key.takes != "bool":
        return key.default  # yes and no pass for 1 and 0, and were not meant so
    for candidate in (value, str(value).upper(), str(value).lower(), [value], str(value)):
        try:
            return taken(key, candidate)
        except ValueError:
            continue
    if key.takes == "int" and key.step and _is_number(value) and value > 0:
        return -(-int(value) // key.step) * key.step
    return key.default


def _bool(_key: Key, value: Any) -> bool:
    word = str(value).lower()
    if isinstance(value, bool | int | float | str) and word.removesuffix(".0") in _YES | _NO:
        return word.removesuffix(".0") in _YES
    raise ValueError("must be true or false")


def _int(key: Key, value: Any) -> int:
    number = _number(value)
    if number is None or number != int(number):
        raise ValueError("must be a whole number")
    if key.least is not None and number < key.least:
        raise ValueError(f"must be {key.least} or more")
    if key.step is not None and number % key.step:
        raise ValueError(f"must be a multiple of {key.step}")
    return int(number)


def _float(key: Key, value: Any) -> Any:
    if isinstance(value, str) and value in key.words:
        return value
    if (number := _number(value)) is None:
        raise ValueError(" or ".join(("must be a number", *key.words)))
    return number


def _text(key: Key, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text, in quotes where it looks like something else")
    if not key.words or value in key.words or (key.pattern and re.fullmatch(key.pattern, value)):
        return value
    raise ValueError(f"must be one of {', '.join(key.words)}" + (" or a pair of bits as 8,8" if key.pattern else ""))


def _floats(key: Key, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("must be a list of numbers")
    return [_float(key, item) for item in value]


def _texts(key: Key, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of names")
    # The one list with a choice of words, api_servers, is put in small letters first.
    if key.words and not {item.lower() for item in value} <= set(key.words):
        raise ValueError(f"must be a list out of {', '.join(key.words)}")
    return list(value)


def _table(_key: Key, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("must be a table")
    return value


def _loras(_key: Key, value: Any) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("must be a list of tables with name and scaling")
    return list(value)


def _any(_key: Key, value: Any) -> Any:
    return value


_TAKES: Mapping[str, Callable[[Key, Any], Any]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "text": _text,
    "floats": _floats,
    "texts": _texts,
    "table": _table,
    "loras": _loras,
    "any": _any,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> float | None:
    """A finite number from a number or its digits; None otherwise."""
    if not isinstance(value, bool | int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None
