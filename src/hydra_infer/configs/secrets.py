"""Which settings are secrets, and a text without them, for whatever is shown to people: diffs, findings, logs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..errors import ConfigError
from .document import nodes

__all__ = ["HIDDEN", "is_secret", "masked"]

HIDDEN = "••••••"

_SECRET = re.compile(r"(?i)(^|[_-])(api[_-]?keys?|keys?|tokens?|password|passwd|secret)$")
# Counts of tokens and the words a model thinks between end in "token" as well.
_COUNTED = re.compile(r"(?i)(max|min|num|draft|budget|start|end|input|output|completion|prompt|total)[_-](\w+[_-])?tokens?$")
# What only says where a secret is: LiteLLM's, compose's, and hydra.yaml's.
_REFERENCE = re.compile(r"""["']?(os\.environ/\w+|\$\{\w+(:[?-][^}]*)?\}|\{\s*(env|file):[^{}]*\})["']?$""")
# One setting in a line: YAML, also when commented out, and NAME=value of units, environment files and compose's lists.
_LINE = re.compile(r"""(?P<head>[\s#"'-]*(?:Environment=)?["']?(?P<name>[\w.-]+)["']?\s*[:=]\s*)(?P<value>[^\s#].*?)\s*(\s#.*)?$""")
_PASSWORD = re.compile(r"(?<=://)[^/\s@]+(?=@)")


def is_secret(name: str) -> bool:
    """Whether a setting of this name holds a key: api_key, LITELLM_KEY, HF_TOKEN; not max_tokens."""
    return _SECRET.search(name) is not None and _COUNTED.search(name) is None


def masked(text: str) -> str:
    """The text, line for line, with every secret's value hidden. What says where a secret is (os.environ/NAME) stays."""
    try:
        spans = sorted(set(_spans(nodes(text, "the text"), set())), reverse=True)
    except ConfigError:
        spans = []  # no YAML, but a unit or an environment file: its lines are looked at below
    for start, end in spans:
        text = text[:start] + re.sub(r"[^\r\n]+", HIDDEN, text[start:end]) + text[end:]
    return "\n".join(map(_line, text.split("\n")))


def _line(line: str) -> str:
    found = _LINE.match(line)
    if found and is_secret(found["name"]) and not _REFERENCE.match(found["value"]):
        line = f"{found['head']}{HIDDEN}"
    return _PASSWORD.sub(HIDDEN, line)


def _spans(node: Any, seen: set[int], secret: bool = False) -> Iterator[tuple[int, int]]:
    """Where secrets' values stand: what a secret's name heads may be a list, or a text of several lines."""
    if node is None or id(node) in seen and not secret:
        return
    if isinstance(node.value, str):
        if secret and not _REFERENCE.match(node.value) and node.value:
            yield node.start_mark.index, node.end_mark.index
        return
    seen.add(id(node))
    for item in node.value:
        key, value = item if isinstance(item, tuple) else (None, item)
        name = key.value if key is not None and isinstance(key.value, str) else ""
        yield from _spans(value, seen, is_secret(name) or (secret and name not in ("env", "file")))
