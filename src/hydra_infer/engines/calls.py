"""Calls: how the families of models write tool calls, each as a reader of text that may not have ended yet.

A reader gets text that begins with one of its syntax's tags, and whether the answer has ended. It says None while more
text could still make it a call, and otherwise, whatever follows, what it is: so it does not matter where the text is cut.
The shapes are those that the models' own chat templates ask for and show (as published in November 2026).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "HEAD",
    "NOTHING",
    "Call",
    "Read",
    "Taken",
    "Tools",
    "deepseek",
    "glm",
    "harmony",
    "hermes",
    "kinds_of",
    "llama",
    "mistral",
    "qwen_xml",
    "schemas",
]

Call = tuple[str, str]  # name, arguments as a JSON object's text
Tools = Mapping[str, Mapping[str, Any]]  # the JSON schema of each function's parameters

# Between a tag and what it opens (a name, a channel) there are at most this many characters: OpenAI's names have up to 64.
HEAD = 256


@dataclass(frozen=True, slots=True)
class Taken:
    """What a text begins with: `length` characters, which are `calls`, or the head of a message on a channel.

    A length of 0 is a text that only looked like it.
    """

    length: int
    calls: tuple[Call, ...] = ()
    channel: Literal["content", "reasoning"] = "content"


Read = Callable[[str, Tools, bool], Taken | None]

NOTHING = Taken(0)


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


_decoder = json.JSONDecoder(parse_constant=_no_number)
_space = re.compile(r"\s*")
_structure = re.compile(r'"(?:[^"\\]|\\.)*"|["{}\[\]]', re.DOTALL)


def schemas(tools: Iterable[Mapping[str, Any]]) -> Tools:
    """The JSON schema of each function's parameters, by its name."""
    functions = [tool["function"] for tool in tools if tool.get("type", "function") == "function"]
    return {function["name"]: function.get("parameters") or {} for function in functions}


def hermes(text: str, _tools: Tools, ended: bool) -> Taken | None:
    """<tool_call>{"name": …, "arguments": {…}}</tool_call>: Hermes, Qwen 2.5 and 3."""
    start = _skip(text, len("<tool_call>"))
    end = _json_end(text, start, "{")
    if end is None:
        return NOTHING if ended else None
    call = _call(text[start:end], ("arguments",))
    close = _follows(text, end, "</tool_call>", ended=ended)
    if call is None or close == 0:
        return NOTHING
    return Taken(close, (call,)) if close else None


def llama(text: str, tools: Tools, ended: bool) -> Taken | None:
    """{"name": …, "parameters": {…}} as the answer, after <|python_tag|> or not, several joined by ";": Llama 3 and 4.

    An answer may be JSON for other reasons: it is a call only if it names a tool.
    """
    tag = next((tag for tag in ("<|python_tag|>", ";") if text.startswith(tag)), "")
    start = _skip(text, len(tag))
    first = _skip(text, start + 1)
    if not any(key.startswith(text[first : first + len(key)]) for key in ('"name"', '"type"')):
        return NOTHING
    end = _json_end(text, start, "{")
    if end is None:
        return NOTHING if ended else None
    call = _call(text[start:end], ("parameters", "arguments"))
    return Taken(end, (call,)) if call and call[0] in tools else NOTHING


_mistral_head = re.compile(r"\[TOOL_CALLS\]\s*([\w.:-]+)\s*(?:\[CALL_ID\]\s*\w+\s*)?(?:\[ARGS\])?\s*")


def mistral(text: str, _tools: Tools, ended: bool) -> Taken | None:
    """[TOOL_CALLS][{"name": …, "arguments": {…}}, …] of Mistral's first tokenizers, or [TOOL_CALLS]name[ARGS]{…}."""
    start = _skip(text, len("[TOOL_CALLS]"))
    if text.startswith("[", start):
        end = _json_end(text, start, "[")
        if end is None:
            return NOTHING if ended else None
        items = _elements(text[start:end])
        calls = [_call(item, ("arguments",)) for item in items]
        found = tuple(call for call in calls if call is not None)
        return Taken(end, found) if found and len(found) == len(calls) else NOTHING
    start = text.find("{", 0, HEAD)
    if start < 0:
        return None if len(text) < HEAD and not ended else NOTHING
    head = _mistral_head.fullmatch(text, 0, start)
    return _named_call(text, head[1], start, ended) if head else NOTHING


_deepseek_one = re.compile(
    r"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>(?P<old>[^\n<]+)\n```json\n|(?P<new>[^\n<]+)<｜tool▁sep｜>)"
)


def deepseek(text: str, _tools: Tools, ended: bool) -> Taken | None:
    """DeepSeek V3, R1 (function, name, a fenced block) and V3.1 (name, arguments), within one pair of outer tags."""
    begin, close = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
    if not _may_follow(text, _skip(text, len(begin)), "<｜tool▁call▁begin｜>"):
        return NOTHING
    end = text.find(close)
    while end >= 0:
        calls = _deepseek_calls(text[len(begin) : end])
        if calls:
            return Taken(end + len(close), calls)
        end = text.find(close, end + 1)  # the tag may stand in an argument
    return NOTHING if ended else None


def _deepseek_calls(body: str) -> tuple[Call, ...]:
    """The calls between the outer tags; none unless the whole of it is calls."""
    calls: list[Call] = []
    at = _skip(body, 0)
    while at < len(body):
        head = _deepseek_one.match(body, at)
        end = _json_end(body, head.end(), "{") if head else None
        if head is None or end is None:
            return ()
        arguments = _object(body[head.end() : end])
        close = ("\n```" if head["old"] else "") + "<｜tool▁call▁end｜>"
        end = _follows(body, end, close, ended=True)
        if arguments is None or not end:
            return ()
        calls.append(((head["old"] or head["new"]).strip(), arguments))
        at = _skip(body, end)
    return tuple(calls)


_qwen_xml = re.compile(r"<tool_call>\s*<function=([^>\n]+)>(.*)</function>\s*</tool_call>", re.DOTALL)
_qwen_xml_end = re.compile(r"</function>\s*</tool_call>")
_qwen_xml_pair = re.compile(r"\s*<parameter=([^>\n]+)>(.*?)</parameter>(?=\s*<parameter=|\s*\Z)", re.DOTALL)


def qwen_xml(text: str, tools: Tools, ended: bool) -> Taken | None:
    """<tool_call><function=name><parameter=key>value</parameter></function></tool_call>: Qwen3-Coder, Qwen3.5."""
    if not _may_follow(text, _skip(text, len("<tool_call>")), "<function="):
        return NOTHING
    return _tagged(text, _qwen_xml, _qwen_xml_end, _qwen_xml_pair, tools, ended)


_glm = re.compile(r"<tool_call>\s*([\w.:-]+)\s*((?:<arg_key>.*)?)</tool_call>", re.DOTALL)
_glm_end = re.compile(r"</tool_call>")
_glm_pair = re.compile(r"\s*<arg_key>([^<]+)</arg_key>\s*<arg_value>(.*?)</arg_value>(?=\s*<arg_key>|\s*\Z)", re.DOTALL)


def glm(text: str, tools: Tools, ended: bool) -> Taken | None:
    """<tool_call>name<arg_key>key</arg_key><arg_value>value</arg_value></tool_call>: GLM 4.5 and later."""
    return _tagged(text, _glm, _glm_end, _glm_pair, tools, ended)


def _tagged(
    text: str, whole: re.Pattern[str], closing: re.Pattern[str], pair: re.Pattern[str], tools: Tools, ended: bool
) -> Taken | None:
    """A call whose arguments stand each in tags of its own; a closing tag that leaves it unreadable is part of a value."""
    for close in closing.finditer(text):
        match = whole.fullmatch(text, 0, close.end())
        if match is None:
            continue
        pairs = list(pair.finditer(match[2]))
        if "".join(one[0] for one in pairs).strip() == match[2].strip():
            schema = tools.get(match[1], {}).get("properties") or {}
            values = {one[1]: _value(_unwrap(one[2]), schema.get(one[1])) for one in pairs}
            return Taken(close.end(), ((match[1], json.dumps(values, ensure_ascii=False)),))
    return NOTHING if ended else None


_harmony_head = re.compile(
    r"(?:<\|start\|>assistant)?\s*(?:to=(?P<first>[\w.-]+))?<\|channel\|>(?P<channel>analysis|commentary|final)"
    r"(?:\s+to=(?P<second>[\w.-]+))?\s*(?:<\|constrain\|>)?\s*\w*\s*<\|message\|>"
)


def harmony(text: str, tools: Tools, ended: bool) -> Taken | None:
    """<|channel|>analysis<|message|>… of gpt-oss: thoughts, words, and calls to functions.name."""
    message = text.find("<|message|>", 0, HEAD)
    if message < 0:
        return None if len(text) < HEAD and not ended else NOTHING
    head = _harmony_head.fullmatch(text, 0, message + len("<|message|>"))
    if head is None:
        return NOTHING
    name = (head["first"] or head["second"] or "").removeprefix("functions.")
    if name not in tools:
        return Taken(head.end(), channel="reasoning" if head["channel"] == "analysis" else "content")
    # <|call|> is a stop token, which engines do not pass on: the call ends where its JSON does.
    return _named_call(text, name, _skip(text, head.end()), ended)


def _named_call(text: str, name: str, start: int, ended: bool) -> Taken | None:
    """A call whose arguments are all that is JSON of it."""
    end = _json_end(text, start, "{")
    if end is None:
        return NOTHING if ended else None
    arguments = _object(text[start:end])
    return Taken(end, ((name, arguments),)) if arguments is not None else NOTHING


def _call(text: str, keys: tuple[str, ...]) -> Call | None:
    """The call that a JSON object is, or None; `keys` are the names that its arguments may go by."""
    members = _members(text)
    name = _loaded(members.get("name", ""))
    key = next((key for key in keys if key in members), None)
    arguments = _object(members[key] if key else "{}")
    return (name, arguments) if isinstance(name, str) and name and arguments is not None else None


def _object(text: str) -> str | None:
    """The JSON object that a text is, as it is written; out of the string where it is wrapped in one. None for others."""
    value = _loaded(text)
    if isinstance(value, str):
        text, value = value, _loaded(value)
    return text.strip() if isinstance(value, dict) else "{}" if value is None and text.strip() == "null" else None


def _loaded(text: str) -> Any:
    """The value of a JSON text, or None for a text that is none."""
    try:
        return _decoder.decode(text)
    except (ValueError, RecursionError):
        return None


def _members(text: str) -> dict[str, str]:
    """The members of a JSON object, each value as it is written; nothing for a text that is no object."""
    members: dict[str, str] = {}
    if not isinstance(_loaded(text), dict):
        return members
    at = _skip(text, 1)
    while text[at] == '"':
        key, at = _decoder.raw_decode(text, at)
        start = _skip(text, _skip(text, at) + 1)
        _, at = _decoder.raw_decode(text, start)
        members[key] = text[start:at]
        at = _skip(text, at)
        at = _skip(text, at + 1) if text[at] == "," else at
    return members


def _elements(text: str) -> list[str]:
    """The elements of a JSON list, each as it is written; nothing for a text that is no list."""
    elements: list[str] = []
    if not isinstance(_loaded(text), list):
        return elements
    at = _skip(text, 1)
    while text[at] != "]":
        start = at
        _, at = _decoder.raw_decode(text, start)
        elements.append(text[start:at])
        at = _skip(text, at)
        at = _skip(text, at + 1) if text[at] == "," else at
    return elements


def _json_end(text: str, start: int, opening: str) -> int | None:
    """Where the brackets that open at `start` are closed; `start` where another character stands, None where none does."""
    if not text.startswith(opening, start):
        return None if start >= len(text) else start
    depth = 0
    for match in _structure.finditer(text, start):
        mark = match[0]
        if mark == '"':
            return None  # a string that has not ended
        if len(mark) == 1:
            depth += 1 if mark in "{[" else -1
            if depth == 0:
                return match.end()
    return None


def _follows(text: str, at: int, tag: str, *, ended: bool) -> int | None:
    """Where `tag`, which may have space before it, ends; 0 where something else stands, None where it may yet come."""
    at = _skip(text, at) if not tag[0].isspace() else at
    if text.startswith(tag, at):
        return at + len(tag)
    return None if _may_follow(text, at, tag) and not ended else 0


def _may_follow(text: str, at: int, tag: str) -> bool:
    return tag.startswith(text[at : at + len(tag)])


def _skip(text: str, at: int) -> int:
    match = _space.match(text, at)
    return match.end() if match else at


def _unwrap(value: str) -> str:
    """A value without the line breaks that set it off from its tags."""
    return value.removeprefix("\n").removesuffix("\n")


def _value(text: str, schema: Any) -> Any:
    """What a value written without quotes means: a text where the tool wants one, else JSON, else a text after all."""
    kinds = kinds_of(schema)
    if "string" in kinds and not (text == "null" and "null" in kinds):
        return text
    value = _loaded(text)
    return text if value is None and text.strip() != "null" else value


def kinds_of(schema: Any) -> set[str]:
    """The JSON types that a schema names, itself or among its alternatives."""
    if not isinstance(schema, Mapping):
        return set()
    told = schema.get("type")
    kinds = {told} if isinstance(told, str) else set(told or ())
    kinds |= {"string" for word in schema.get("enum") or () if isinstance(word, str)}
    return kinds.union(*(kinds_of(one) for key in ("anyOf", "oneOf") for one in schema.get(key) or ()))
