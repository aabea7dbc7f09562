"""Writing: the grammar, in llguidance's dialect of Lark, that leaves a model nothing to write but a tool call."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from .calls import Tools, kinds_of

__all__ = ["Token", "Writing", "chosen"]

# JSON as templates write it into prompts (json.dumps): without this llguidance lets a model fill lines with white space.
STYLE = {"x-guidance": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}}

# OpenAI: a function without "parameters" takes none.
NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}

TAG = re.compile(r"(<[^<>\s]+>|\[/?[A-Z_]+\])")

Token = Callable[[str], int | None]  # the id of a text that is one token of the vocabulary


@dataclass(frozen=True, slots=True)
class Writing:
    """The texts that a call is made of.

    `before` and `after` stand around the arguments of one call, with NAME for the function's; `between` calls, and
    `begin` and `end` around all of them. With `pair`, what stands before and after the value of each argument (with KEY
    for its name), texts are written without quotes; otherwise the arguments are a JSON object.
    """

    before: str
    after: str = ""
    between: str = ""
    begin: str = ""
    end: str = ""
    pair: tuple[str, str] | None = None

    def grammar(self, tools: Tools, *, several: bool, think: tuple[str, str] | None, thinking: bool, token: Token) -> str:
        """A grammar for calls of these functions: one, or more where `several`.

        Thoughts may come first, between the tags `think`, and do so where the prompt has begun them (`thinking`).
        `token` gives the id of a tag that is one token of the vocabulary.
        """
        rules = _Rules(token)
        calls = " | ".join(self._call(rules, name, schema) for name, schema in tools.items())
        rules.add("call", calls)
        more = rules.text(self.between)
        several_calls = f"call ({f'{more} call'.strip()})*" if several else "call"
        parts = [_thoughts(rules, think, thinking), rules.text(self.begin), several_calls, rules.text(self.end)]
        return "\n".join([f"start: {' '.join(part for part in parts if part)}", *rules.lines]) + "\n"

    def _call(self, rules: _Rules, name: str, schema: Mapping[str, Any]) -> str:
        if not re.fullmatch(r"[\w.:-]+", name):
            raise ConfigError(f"a function cannot be called {name!r:.80}", hint="letters, digits, _ and - make its name")
        before = rules.text(self.before.replace("NAME", name))
        arguments = rules.json(schema or NO_ARGUMENTS) if self.pair is None else self._pairs(rules, schema, *self.pair)
        return " ".join(part for part in (before, arguments, rules.text(self.after)) if part)

    def _pairs(self, rules: _Rules, schema: Mapping[str, Any], before: str, after: str) -> str:
        """The arguments in the schema's order, each in its own tags; those that it does not require may be left out."""
        common = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
        required = schema.get("required") or ()
        written = []
        for key, value in (schema.get("properties") or {}).items():
            head = rules.text(before.replace("KEY", key))
            one = f"({head} {rules.value(value, common, after)})"
            written.append(one if key in required else f"{one}?")
        return " ".join(written)


class _Rules:
    """The rules below start, each with a name of its own."""

    def __init__(self, token: Token) -> None:
        self._token = token
        self.lines: list[str] = []

    def add(self, name: str, body: str) -> None:
        self.lines.append(f"{name}: {body}")

    def text(self, text: str) -> str:
        """The text, with the tags in it that are tokens as tokens: llguidance takes an added token for no text."""
        parts = ((part, self._token(part) if TAG.fullmatch(part) else None) for part in TAG.split(text) if part)
        return " ".join(json.dumps(part, ensure_ascii=False) if token is None else f"<[{token}]>" for part, token in parts)

    def json(self, schema: Mapping[str, Any]) -> str:
        name = f"json_{len(self.lines)}"
        self.add(name, f"%json {json.dumps({**schema, **STYLE}, ensure_ascii=False)}")
        return name

    def until(self, end: str) -> str:
        """Any text, up to and with the first `end`."""
        name = f"text_{len(self.lines)}"
        written = self.text(end)
        if written.startswith("<["):
            self.add(name, f"/(?s:.*)/ {written}")
        else:
            pattern = re.escape(end).replace("\\\n", r"\n").replace("/", r"\/")
            self.add(f"{name}[lazy]", f"/(?s:.*){pattern}/")
        return name

    def value(self, schema: Any, common: Mapping[str, Any], after: str) -> str:
        """A value written without quotes where it is a text, as JSON otherwise, and what stands after it."""
        if isinstance(schema, Mapping) and "string" in kinds_of(schema):
            words = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
            if not words:
                return self.until(after)
            bare = " | ".join(self.text(word if isinstance(word, str) else json.dumps(word)) for word in words)
            return f"({bare}) {self.text(after)}"
        return f"{self.json({**common, **schema} if isinstance(schema, Mapping) else {})} {self.text(after)}"


def chosen(tools: Tools, tool_choice: Any) -> Tools | None:
    """The functions that have to be called, one of them: None where the model may as well answer in words.

    Raises ConfigError for a tool_choice of another shape, and for a function that is not offered.
    """
    if tool_choice in (None, "auto", "none"):
        return None
    if tool_choice == "required":
        if not tools:
            raise ConfigError('tool_choice="required", but no tools are offered')
        return tools
    function = tool_choice.get("function") if isinstance(tool_choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise ConfigError(
            f"tool_choice={tool_choice!r:.80} is not known",
            hint='"auto", "none", "required" or {"type": "function", "function": {"name": …}}',
        )
    if name not in tools:
        raise ConfigError(
            f"tool_choice names {name!r}, which is not among the tools", hint=f"offered: {', '.join(tools) or 'none'}"
        )
    return {name: tools[name]}


def _thoughts(rules: _Rules, think: tuple[str, str] | None, thinking: bool) -> str:
    if think is None:
        return ""
    opening, closing = think
    thoughts = f"{rules.until(closing)} /[ \\n]*/"
    return thoughts if thinking else f"({rules.text(opening)} {thoughts})?"
