"""What foreign clients ask: a JSON body changed in place, and said in the words of each server."""

from __future__ import annotations

import json
from typing import Any

from hydra_infer.errors import HydraError
from hydra_infer.wire.dialect import DIALECTS
from hydra_infer.wire.fields import estimated_tokens
from hydra_infer.wire.openai import Target as Address
from hydra_infer.wire.question import PATHS, Fields, read_question
from hydra_infer.wire.responses import Speaker, as_chat
from hydra_infer.wire.splice import NotAnObject, Text

from .target import Dice, Target

__all__ = ["TARGETS"]

ADDRESS = Address("http://box:5000", "local", {}, context=4096)
MARK = "\u2603 a name that stands nowhere else"


def run_splice(data: bytes) -> None:
    """What is an object to json is one here, with the same values; and only what was meant changes."""
    try:
        expected: Any = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        expected = None
    try:
        text = Text(data)
    except NotAnObject as error:
        refused = "stands there twice" in str(error) or isinstance(error.__cause__, RecursionError)
        assert refused or not isinstance(expected, dict), "json reads it"
        return
    assert repr(text.fields) == repr(expected), "json reads it otherwise"
    body = data.decode("utf-8-sig").encode()
    changed = text.replace(model=MARK)
    assert repr(json.loads(changed)) == repr({**expected, "model": MARK}), "something else changed"
    written = json.dumps(MARK).encode()
    if written in body:
        return
    at = changed.index(written)
    assert changed[:at].startswith(body[:at]) or "model" not in expected, "bytes before it changed"
    if "model" in expected:
        kept = len(body) - (len(changed) - at - len(written))
        assert body[kept:] == changed[at + len(written) :], "bytes behind it changed"
        assert repr(json.loads(body[at:kept])) == repr(expected["model"])


def run_question(data: bytes) -> None:
    """A request by each path to each kind of server: refused by name, or put into a body that is JSON."""
    dice = Dice(data, 1)
    path = (*PATHS, "/responses")[dice.below(4)]
    try:
        question = read_question(path, dice.rest, {})
        if path == "/responses":
            asked = question.body.fields
            chat = as_chat(asked)
            assert chat["messages"]
            speaker = Speaker(asked, "m", "1")
            events = [*speaker.feed({"choices": [{"delta": {"content": "a"}}]}), *speaker.end()]
            assert all(json.loads(json.dumps(event)) is not None for event in events)
            question = type(question)("/chat/completions", Fields(chat), question.model, question.stream)
    except HydraError as error:
        assert len(str(error)) < 2000
        return
    assert estimated_tokens(question.body.fields) >= 0
    assert question.has_tools in (True, False)
    for kind in ("openai", "tabby", "ollama", "litellm"):
        try:
            exchange = DIALECTS[kind].open(question, ADDRESS)
        except HydraError as error:
            assert len(str(error)) < 2000
            continue
        sent = json.loads(exchange.request.body)
        assert sent["model"] == "local"
        assert all(isinstance(warning, str) and len(warning) < 1000 for warning in exchange.warnings)
        if kind == "openai" and not question.stream:
            assert repr({**sent, "model": 0}) == repr({**question.body.fields, "model": 0}), "a field was lost"


CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "t"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}],
        },
    ],
    "stream": True,
    "stream_options": {"include_usage": True},
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "tool_choice": "auto",
    "temperature": 0.5,
    "max_tokens": 5,
    "stop": "x",
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    "reasoning_effort": "low",
    "presence_penalty": -1,
    "chat_template_kwargs": {"enable_thinking": False},
    "options": {"num_gpu": 1},
}
CALLED: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "user", "content": "u"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "r", "name": "f"},
    ],
}
RESPONSES: dict[str, Any] = {
    "model": "m",
    "instructions": "i",
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "t"},
                {"type": "input_image", "image_url": "http://a/b.png", "detail": "low"},
            ],
        },
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "o"},
        {"type": "reasoning", "summary": []},
    ],
    "tools": [{"type": "function", "name": "f", "parameters": {}}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}, "verbosity": "low"},
    "reasoning": {"effort": "low"},
    "max_output_tokens": 5,
    "top_logprobs": 2,
}


def starts_question() -> list[bytes]:
    asked = (
        (0, CHAT),
        (0, CALLED),
        (1, {"model": "m", "prompt": "p", "stream": True}),
        (2, {"model": "m", "input": ["a", "b"]}),
        (3, RESPONSES),
        (3, {"model": "m", "input": "i"}),
    )
    return [bytes([path]) + json.dumps(body).encode() for path, body in asked]


def starts_splice() -> list[bytes]:
    texts = [
        '{ "model" : "a\\/b",\n "temperature": 0.10, "x": "\\u00e9", "messages": [ ] }',
        '{"a":{"model":1},"model":"\\"model\\":"}',
        "{}",
        ' { "n" : NaN , "e": 1E5 } ',
    ]
    return [text.encode() for text in texts] + [start[1:] for start in starts_question()]


KEYS = (
    "model",
    "messages",
    "stream",
    "content",
    "role",
    "tools",
    "function",
    "type",
    "input",
    "stream_options",
    "response_format",
    "tool_calls",
    "arguments",
)
TARGETS = {
    "splice": Target(run_splice, starts_splice, ('"model"', '":', "\\u", "NaN", "Infinity", "1e5"), values=True),
    "question": Target(run_question, starts_question, KEYS, values=True),
}
