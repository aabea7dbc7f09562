"""Change top-level values of a JSON object's text and leave every other byte as it is."""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # public in CPython and PyPy, not in the stubs
from typing import Any

from ..plain import brief

__all__ = ["NotAnObject", "Text"]

_decoder = json.JSONDecoder()
_space = re.compile(r"[ \t\r\n]*")


class NotAnObject(ValueError):
    """The text is not one JSON object."""


class Text:
    """A JSON object's text, parsed once: `fields` its values, `replace()` the text with some of them changed.

    Re-dumping a 4 MB body costs 12 ms and may change numbers and escapes; splicing changes what was meant and no more.
    Duplicate keys are refused: two readers could take different ones.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self._text = data.decode("utf-8-sig")
            self.fields, self._spans, self._brace = _scan(self._text)
        except (ValueError, RecursionError, IndexError) as error:
            raise NotAnObject(str(error)) from error

    def replace(self, **values: Any) -> bytes:
        """The text with these top-level values set; a key that was not there is added at the end."""
        pieces: list[str] = []
        position = 0
        for start, end, key in sorted((*self._spans[key], key) for key in values if key in self._spans):
            pieces += [self._text[position:start], json.dumps(values[key])]
            position = end
        added = ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in values.items() if key not in self._spans)
        if added:
            pieces += [self._text[position : self._brace], "," if self._spans else "", added]
            position = self._brace
        pieces.append(self._text[position:])
        return "".join(pieces).encode()


def _scan(text: str) -> tuple[dict[str, Any], dict[str, tuple[int, int]], int]:
    """Values, (start, end) of each value's text, and where the closing brace stands. Strings and values go through C."""
    values: dict[str, Any] = {}
    spans: dict[str, tuple[int, int]] = {}
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise NotAnObject("it does not begin with {")
    at = _skip(text, at + 1)
    while text[at] != "}":
        if text[at] != '"':
            raise NotAnObject(f"a key is missing at character {at}")
        key, at = scanstring(text, at + 1, True)
        at = _skip(text, at)
        if text[at] != ":" or key in values:
            raise NotAnObject(f"the key {brief(key)} " + ("stands there twice" if key in values else "has no value"))
        start = _skip(text, at + 1)
        values[key], end = _decoder.raw_decode(text, start)
        spans[key] = (start, end)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
            if text[at] == "}":
                raise NotAnObject(f"a comma before }} at character {at}")
        elif text[at] != "}":
            raise NotAnObject(f"a comma is missing at character {at}")
    if _skip(text, at + 1) != len(text):
        raise NotAnObject(f"something follows the object at character {at + 1}")
    return values, spans, at


def _skip(text: str, at: int) -> int:
    match = _space.match(text, at)
    return match.end() if match else at
