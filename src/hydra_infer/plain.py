"""Values in somebody else's JSON, each taken for what it should be, or for nothing where it is something else."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

__all__ = ["brief", "count_of", "grow", "number_of", "table_of", "text_of"]

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxlong = _brief.maxother = 80


def brief(value: Any) -> str:
    """The value for an error's text: of a long or deep one the beginning."""
    return _brief.repr(value)


def text_of(value: Any) -> str:
    """The value where it is text, else an empty one."""
    return value if isinstance(value, str) else ""


def table_of(value: Any) -> Mapping[str, Any]:
    """The value where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def count_of(value: Any) -> int | None:
    """The value where it is a whole number from 0 up, as counts of tokens, bytes and nanoseconds are."""
    return value if type(value) is int and 0 <= value < 2**63 else None


def number_of(value: Any) -> float | None:
    """The value where it is a finite number."""
    return value if type(value) in (int, float) and -1e300 < value < 1e300 else None


def grow(table: dict[str, Any], key: str, piece: str) -> None:
    """Append to a text in a table.

    Out of the table, for nobody but us to hold it, CPython lengthens it where it is. `table[key] += piece` copies it for each
    piece, which for an answer of 100,000 tokens takes seconds.
    """
    text = table.get(key)
    table[key] = None
    if isinstance(text, str):
        text += piece
        table[key] = text
    else:
        table[key] = piece
