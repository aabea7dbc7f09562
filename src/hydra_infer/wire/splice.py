"""Change top-level values of a JSON object's text and leave every other byte as it is."""

from __future__ import annotations

import codecs
import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # public in CPython and PyPy, not in the stubs
from typing import Any, NoReturn

from ..plain import brief

__all__ = ["NotAnObject", "Text"]

_decoder = json.JSONDecoder()
# What stands around the keys and values of an object: up to the first key's quote or the end, a colon, up to the next key's.
_begin = re.compile(r'[ \t\r\n]*\{[ \t\r\n]*["}]')
_colon = re.compile(r"[ \t\r\n]*:[ \t\r\n]*")
# Nearly every key, with its colon: one without escapes, after the quote that opens it.
_plain_key = re.compile(r'([^"\\\x00-\x1f]*)"[ \t\r\n]*:[ \t\r\n]*')
_next = re.compile(r'[ \t\r\n]*(?:,[ \t\r\n]*"|\})')
_nothing_more = re.compile(r"[ \t\r\n]*\Z")


class NotAnObject(ValueError):
    """The text is not one JSON object."""


class Text:
    """A JSON object's text, parsed once: `fields` its values, `replace()` the text with some of them changed.

    Re-dumping a 4 MB body costs 12 ms and may change numbers and escapes; splicing changes what was meant and no more.
    Duplicate keys are refused: two readers could take different ones.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data.removeprefix(codecs.BOM_UTF8)
        try:
            self._text = self._data.decode()
            self.fields, self._spans, self._brace = _scan(self._text)
        except (ValueError, RecursionError, IndexError) as error:
            raise NotAnObject(str(error)) from error

    def replace(self, **values: Any) -> bytes:
        """The text with these top-level values set; a key that was not there is added at the end."""
        for key, value in values.items():
            if type(value) is not str or self.fields.get(key) != value:
                break
        else:
            return self._data  # it says so already
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
    mark = _begin.match(text) or _missing("an object that begins with a key", 0)
    at = mark.end()
    while text[at - 1] == '"':
        if plain := _plain_key.match(text, at):
            key, start = plain[1], plain.end()
        else:
            key, at = scanstring(text, at, True)
            start = (_colon.match(text, at) or _missing("a colon", at)).end()
        if key in values:
            raise NotAnObject(f"the key {brief(key)} stands there twice")
        values[key], end = _decoder.raw_decode(text, start)
        spans[key] = (start, end)
        at = (_next.match(text, end) or _missing("a comma and a key, or the end of the object,", end)).end()
    if at != len(text) and not _nothing_more.match(text, at):
        _missing("the end", at)
    return values, spans, at - 1


def _missing(what: str, at: int) -> NoReturn:
    raise NotAnObject(f"{what} is missing at character {at}")
