"""Striking keys out of a YAML text: their lines become comments, with the reason above them, and nothing is lost."""

from __future__ import annotations

from typing import Any

from ...configs.document import nodes, parse
from ...errors import ConfigError

__all__ = ["strike"]


def strike(text: str, path: str, why: str) -> str:
    """The text without the key at a dotted path ("model.speculative_decoding"): its lines are commented out below `why`.

    Raises ConfigError for a key that shares its lines with others (a table in braces), has dots in its own name, or holds
    what other places take over by an alias.
    """
    parts = path.split(".")
    try:
        struck = _struck(text, parts, why)
        whole = _plain(parse(struck, "")) == _without(_plain(parse(text, "")), parts)
    except (ConfigError, StopIteration):
        whole = False
    if not whole:
        raise ConfigError(f"{path} cannot be commented out by itself", hint="edit it by hand, then run this again")
    return struck


def _struck(text: str, parts: list[str], why: str) -> str:
    node, key = nodes(text, ""), None
    for part in parts:
        key, node = next((one, value) for one, value in node.value if one.value == part)
    assert key is not None, "no path is empty"
    lines = text.splitlines(keepends=True)
    first, last = key.start_mark.line, _last_line(key, node)
    indent = " " * key.start_mark.column
    newline = "\r\n" if lines[first].endswith("\r\n") else "\n"
    struck = [f"{indent}# {line[len(indent) :]}" if line.strip() else line for line in lines[first : last + 1]]
    return "".join([*lines[:first], f"{indent}# {why}{newline}", *struck, *lines[last + 1 :]])


def _without(data: Any, parts: list[str]) -> Any:
    """The plain values without one; a table that has no other is empty, which YAML reads as nothing."""
    first, *rest = parts
    left = {name: value for name, value in data.items() if name != first}
    if rest:
        left = {name: _without(value, rest) if name == first else value for name, value in data.items()}
    return left or None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _last_line(key: Any, node: Any) -> int:
    """The last line that something of the value is written on; a block's own mark lies behind the comments that follow it."""
    if isinstance(node.value, list) and not node.flow_style and node.value:
        last = node.value[-1]
        return _last_line(*last) if isinstance(last, tuple) else _last_line(last, last)
    if node.start_mark.index == node.end_mark.index:
        return int(key.end_mark.line)
    # A block of text (| or >) ends where the next line begins.
    behind = node.end_mark.column == 0 and node.end_mark.line > node.start_mark.line
    return int(node.end_mark.line - behind)
