"""Which settings are secrets, and a text without them, for whatever is shown to people: diffs, findings, logs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..errors import ConfigError
from .document import nodes

__all__ = ["HIDDEN", "is_secret", "masked"]

HIDDEN = "••••••"

_SECRET = re.compile(r"(?i)(^|[_-])(api[_-]?keys?|keys?|token|password|passwd|secret)$")
# The words a model thinks between, and prices, end in "token" as well.
_HARMLESS = re.compile(r"(?i)(start|end|per)[_-]token$")
# What only says where a secret is: LiteLLM's, compose's, and hydra.yaml's.
_REFERENCE = re.compile(r"""["']?(os\.environ/\w+|\$\{\w+(:[?-][^}]*)?\}|\{\s*(env|file):[^{}]*\})["']?$""")
# One setting in a line: YAML, also when commented out, and NAME=value of units, environment files and compose's lists.
_LINE = re.compile(
    r"""(?P<head>[\s#"'-]*(?:Environment=)?["']?(?P<name>[\w.-]+)["']?\s*[:=]\s*)(?P<value>[^\s#].*?)\s*(\s#.*)?$"""
)
# One of several in a line.
_PAIR = re.compile(
    r"""(?<![\w.-])(?P<head>(?P<name>[\w.-]++)["']?\s*[:=]\s*)(?P<value>"[^"]*"|'[^']*'|\$\{[^{}]*\}|[^\s,{}\[\]]+)"""
)
_HEAD = re.compile(r"""[\s"'-]*(?P<name>[\w.-]+)["']?\s*:\s*([|>][\d+-]*\s*)?(#.*)?$""")
_PASSWORD = re.compile(r"(?<=://)[^/\s@]+(?=@)")


def is_secret(name: str) -> bool:
    """Whether a setting of this name holds a key: api_key, LITELLM_KEY, HF_TOKEN; not max_tokens."""
    return _SECRET.search(name) is not None and _HARMLESS.search(name) is None


def masked(text: str) -> str:
    """The text, line for line, with every secret's value hidden. What says where a secret is (os.environ/NAME) stays."""
    try:
        spans = sorted(set(_spans(nodes(text, "the text"), set())), reverse=True)
    except ConfigError:
        # No YAML, or broken: a unit, an environment file, a file being written. What follows a secret's name goes with it.
        return "\n".join(_lines(text.split("\n")))
    for start, end in spans:
        text = text[:start] + _hidden(text[start:end]) + text[end:]
    return "\n".join(map(_line, text.split("\n")))


def _hidden(text: str) -> str:
    return re.sub(r"[^\s](?:[^\r\n]*[^\s])?", HIDDEN, text)


def _line(line: str) -> str:
    found = _LINE.match(line)
    if found and is_secret(found["name"]) and not _REFERENCE.match(found["value"]):
        line = f"{found['head']}{HIDDEN}"
    return _PASSWORD.sub(HIDDEN, _PAIR.sub(_pair, line))


def _pair(found: re.Match[str], depth: int = 5) -> str:
    """A pair within a pair is one too: ERROR: password=x."""
    if _REFERENCE.match(found["value"]):
        return found[0]
    hidden = is_secret(found["name"]) or depth == 0
    value = HIDDEN if hidden else _PAIR.sub(lambda inner: _pair(inner, depth - 1), found["value"])
    return f"{found['head']}{value}"


def _lines(lines: list[str]) -> Iterator[str]:
    """By indentation alone: lines below a secret's name that are deeper, or items of its list, are its value."""
    below: int | None = None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if below is not None and (not line.strip() or indent > below or line.lstrip().startswith("- ")):
            yield _hidden(line)
            continue
        found = _HEAD.match(line)
        below = indent if found and is_secret(found["name"]) else None
        yield _line(line)


def _spans(node: Any, seen: set[tuple[int, bool]], secret: bool = False) -> Iterator[tuple[int, int]]:
    """Where secrets' values stand: what a secret's name heads may be a list, or a text of several lines."""
    if node is None or (id(node), secret) in seen:
        return
    if isinstance(node.value, str):
        if secret and not _REFERENCE.match(node.value) and node.value:
            yield node.start_mark.index, node.end_mark.index
        return
    seen.add((id(node), secret))  # an alias may lead back to where it stands
    for item in node.value:
        key, value = item if isinstance(item, tuple) else (None, item)
        name = key.value if key is not None and isinstance(key.value, str) else ""
        yield from _spans(value, seen, is_secret(name) or (secret and name not in ("env", "file")))
