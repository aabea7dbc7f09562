"""Changing values in somebody's YAML file and nothing else: every other byte, comments above all, stays as it was."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import ConfigError
from .document import flow, nodes, parse
from .secrets import masked

__all__ = ["KeyPath", "diff", "edit"]

# "model.cache_size", or its parts where a name has dots itself; a number is a place in a list, from 0.
KeyPath = str | Sequence[str | int]


def edit(text: str, changes: Mapping[KeyPath, Any], *, where: str = "the file") -> str:
    """The text with these values. Keys and sections that are not there are added at the end of what they belong to; None
    empties a value and leaves its line. `where` names the file in errors.

    Raises ConfigError for what cannot be done without touching something else: a comment inside a list that is replaced, a
    value that other places take over by an alias.
    """
    nodes(text, where)  # refuses what would have no end, or none in our time
    data = _plain(parse(text, where))
    for path, value in changes.items():
        parts = tuple(path.split(".")) if isinstance(path, str) else tuple(path)
        data = _put(data, parts, _plain(value), where)
        changed = _set(text, parts, value, where)
        if not _holds(changed, data, _comments(text, where)):
            raise ConfigError(
                f"{where}: {_said(parts)} cannot be changed without touching something else",
                hint="an alias of it, or a comment inside a list that is to be replaced: edit it by hand",
            )
        text = changed
    return text


def _holds(text: str, data: Any, comments: list[str]) -> bool:
    """Whether the text says this and nothing else, with these comments."""
    try:
        return _plain(parse(text, "")) == data and _comments(text, "") == comments
    except ConfigError:
        return False  # an alias of what is gone, for example


def diff(old: str, new: str, *, name: str = "config.yml") -> str:
    """What changes from `old` to `new`, as a unified diff, secrets hidden; empty where nothing does."""
    before, after = _lines(old), _lines(new)
    shown = dict(zip(before, _lines(masked(old)), strict=True)) | dict(zip(after, _lines(masked(new)), strict=True))
    # The lines are compared as they are, and shown without secrets: a changed key shows that it changed.
    lines = difflib.unified_diff(before, after, name, name, lineterm="")
    return "".join(f"{line[0]}{shown.get(line[1:], line[1:])}\n" for line in lines)


def _lines(text: str) -> list[str]:
    *lines, last = text.split("\n")
    return [*lines, last, "\\ No newline at the end"] if last else lines


def _set(text: str, path: tuple[str | int, ...], value: Any, where: str) -> str:
    """The text with one value, put where it stands or where it belongs."""
    key: Any = None
    at, node = 0, nodes(text, where)
    while at < len(path) and (found := _child(node, path[at])) is not None:
        key, node = found
        at += 1
    rest = path[at:]
    if not rest:
        return _replace(text, key, node, value, where, path)
    if value is None:
        return text  # nothing there to empty
    if node is None:
        return _after(text, len(text), "", rest, value)
    if not isinstance(node.value, str) and node.flow_style:
        inner = flow(_nested(rest[1:], value))
        return _splice(text, node.end_mark.index - 1, f"{', ' if node.value else ''}{flow(rest[0])}: {inner}")
    if isinstance(node.value, list) and node.value:
        return _after(text, _end(text, key, node), " " * node.value[0][0].start_mark.column, rest, value)
    if key is None:
        raise ConfigError(
            f"{where}: there is no {_said(rest)} to change", hint="what it would belong to is neither a table nor empty"
        )
    return _after(text, _end(text, key, node), " " * (key.start_mark.column + 2), rest, value)


def _replace(text: str, key: Any, node: Any, value: Any, where: str, path: tuple[str | int, ...]) -> str:
    start, end = node.start_mark.index, _end(text, key, node)
    if isinstance(node.value, list) and not node.flow_style:
        if node.value and isinstance(node.value[0], tuple):
            raise ConfigError(f"{where}: {_said(path)} is a table", hint="change its keys one by one")
        start = _colon(text, key)
    elif _is_unwritten(node) and key is not None:
        start = end = _colon(text, key)
    else:
        # The space before the value is the file's own.
        written = "" if value is None else flow(value)
        return text[:start] + written + text[end:]
    return text[:start] + ("" if value is None else f" {flow(value)}") + text[end:]


def _child(node: Any, part: str | int) -> tuple[Any, Any] | None:
    """A table's (key node, value node), or a list's (None, item)."""
    if node is None or isinstance(node.value, str):
        return None
    if node.value and not isinstance(node.value[0], tuple):
        number = int(part) if str(part).isdecimal() else len(node.value)
        return (None, node.value[number]) if number < len(node.value) else None
    return next(((key, value) for key, value in node.value if key.value == str(part)), None)


def _end(text: str, key: Any, node: Any) -> int:
    """Where what is written of a node ends. A block's own mark lies behind the comments that follow it."""
    if isinstance(node.value, list) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(text, *last) if isinstance(last, tuple) else _end(text, None, last)
    if _is_unwritten(node) and key is not None:
        return _colon(text, key)
    return int(node.end_mark.index)


def _is_unwritten(node: Any) -> bool:
    # Its marks may have the comments that follow between them.
    return node.value == "" and not node.style


def _colon(text: str, key: Any) -> int:
    found = text.find(":", key.end_mark.index)
    if found < 0:
        raise ConfigError(f"the key {key.value!r:.80} has no colon behind it", hint="edit it by hand")
    return found + 1


def _after(text: str, place: int, indent: str, rest: tuple[str | int, ...], value: Any) -> str:
    """Lines of their own behind the line that `place` is in."""
    newline = "\r\n" if "\r\n" in text else "\n"
    if place and text[place - 1] != "\n":
        place = text.find("\n", place) + 1 or len(text)
    lines = [f"{indent}{'  ' * depth}{flow(name)}:" for depth, name in enumerate(rest)]
    lines[-1] += f" {flow(value)}"
    opening = newline if place and text[place - 1] != "\n" else ""
    return _splice(text, place, opening + newline.join(lines) + newline)


def _splice(text: str, place: int, more: str) -> str:
    return text[:place] + more + text[place:]


def _nested(rest: Sequence[str | int], value: Any) -> Any:
    for name in reversed(rest):
        value = {name: value}
    return value


def _put(data: Any, path: tuple[str | int, ...], value: Any, where: str) -> Any:
    """The plain values with one changed."""
    if not path:
        return value
    if data is None:
        return None if value is None else _nested(path, value)
    if isinstance(data, list) and str(path[0]).isdecimal() and int(path[0]) < len(data):
        return [_put(item, path[1:], value, where) if at == int(path[0]) else item for at, item in enumerate(data)]
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: there is no {path[0]} to change", hint="the way to it leads through a plain value or list")
    name = next((key for key in data if str(key) == str(path[0])), path[0])
    if name not in data and value is None:
        return data
    return {**data, name: _put(data.get(name), path[1:], value, where)}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _comments(text: str, where: str) -> list[str]:
    """Every comment, in order: what a # begins that stands in no value."""
    inside = [span for span in _scalars(nodes(text, where)) if "#" in text[slice(*span)]]
    found = re.finditer(r"(?:^|(?<=\s))#[^\r\n]*", text, re.MULTILINE)
    return [one[0] for one in found if not any(start <= one.start() < end for start, end in inside)]


def _scalars(node: Any) -> Iterator[tuple[int, int]]:
    if node is None:
        return
    if isinstance(node.value, str):
        if not _is_unwritten(node):
            yield node.start_mark.index, node.end_mark.index
        return
    for item in node.value:
        for part in item if isinstance(item, tuple) else (item,):
            yield from _scalars(part)


def _said(path: Sequence[str | int]) -> str:
    return ".".join(map(str, path))
