"""A YAML text as data: its values, the line of each, and values written in one line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError, MissingExtra

__all__ = ["flow", "line_of", "nodes", "parse"]

# Safe without quotes in YAML 1.1 (PyYAML, so LiteLLM) and 1.2 (ruamel, so TabbyAPI): starts like a name or a path.
_PLAIN = re.compile(r"[A-Za-z_/][\w./+-]*(:[\w./+-]+)*", re.ASCII)
_WORDS = frozenset("y n yes no on off true false null".split())
# JSON leaves these as they are, and YAML takes some of them for line breaks and refuses others.
_RAW = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")

_MANY = 100_000


def parse(text: str, where: str) -> Any:
    """The values, as ruamel's dicts and lists that know their lines. `where` names the file in errors.

    Raises ConfigError with the line for what is not YAML, MissingExtra where ruamel.yaml is not installed.
    """
    return _read("load", text, where)


def nodes(text: str, where: str) -> Any:
    """The tree of ruamel's nodes, which know where in the text they begin and end; None for a text without any.

    Raises what parse() does, and ConfigError for aliases that lead back to themselves, or that written out would be very many.
    """
    root = _read("compose", text, where)
    if root is not None and _size(root, {}) > _MANY:
        raise ConfigError(f"{where} is not usable YAML: its aliases lead back to themselves, or to more than {_MANY} values")
    return root


def _size(node: Any, known: dict[int, float]) -> float:
    """How many values there are, aliases written out."""
    if isinstance(node.value, str):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf  # until it is known: a way back to it has no end
        parts = (part for item in node.value for part in (item if isinstance(item, tuple) else (item,)))
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def _read(how: str, text: str, where: str) -> Any:
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError, YAMLError
    except ModuleNotFoundError as error:
        raise MissingExtra("ruamel.yaml is not installed", hint="pip install 'hydra-infer[config]'") from error
    try:
        return getattr(YAML(typ="rt"), how)(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        # ruamel quotes the text around the place, and of a key that stands twice both values: they may be secrets.
        problem = str(error.problem).partition(" with value ")[0]
        raise ConfigError(f"{where}{f':{line}' if line else ''} is not usable YAML: {problem}", line=line) from None
    except (YAMLError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        # ruamel trips over odd dates, over -_, over lists and tables as keys, and over comments where it expects none.
        raise ConfigError(f"{where} is not usable YAML: {type(error).__name__}", line=None) from None


def line_of(table: Any, key: Any) -> int:
    """The line of a key (or of a list's item) as parsed, from 1; of the whole table where the key is not in it."""
    place = table.lc.data or {}
    return int(place[key][0] if key in place else table.lc.line) + 1


def flow(value: Any, *, depth: int = 5) -> str:
    """The value as YAML in one line, the same to readers of YAML 1.1 and 1.2.

    Raises ConfigError for what has no such form, and for lists and tables in each other deeper than `depth`: a few aliases
    within aliases would be gigabytes when written out.
    """
    if isinstance(value, Mapping | list | tuple) and depth == 0:
        raise ConfigError("too many lists and tables in each other for one line")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(key)}: {flow(item, depth=depth - 1)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(item, depth=depth - 1) for item in value) + "]"
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
        return value if plain else _RAW.sub(lambda raw: f"\\u{ord(raw[0]):04x}", json.dumps(value, ensure_ascii=False))
    if isinstance(value, float) and math.isfinite(value):
        # 1e-07 is text to a reader of YAML 1.1: its numbers have a point.
        mantissa, mark, exponent = repr(value).partition("e")
        return mantissa + ("" if "." in mantissa else ".0") + mark + exponent
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int):
        return str(int(value))  # plainly: ruamel keeps 0x10 as it was written
    raise ConfigError(f"a {type(value).__name__} has no form in YAML that every reader takes alike")
