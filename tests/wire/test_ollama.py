"""Ollama's dialect, fed by hand: what goes out, what comes back, and what counts as trouble."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hydra_infer.reply import Assembler, Reply
from hydra_infer.wire.ollama import OllamaExchange, loaded_in, tags_in
from hydra_infer.wire.openai import Target
from hydra_infer.wire.question import Fields, Question
from hydra_infer.wire.trouble import Trouble

TARGET = Target("http://box:11434", "llama3.1:8b", {}, context=8192)


def ask(path: str = "/chat/completions", stream: bool = True, **fields: Any) -> OllamaExchange:
    body = {"model": "said", **({"stream": True} if stream else {}), **fields}
    if path == "/chat/completions":
        body.setdefault("messages", [{"role": "user", "content": "hi"}])
    return OllamaExchange(Question(path, Fields(body), "said", stream), TARGET)


def sent(exchange: OllamaExchange) -> dict[str, Any]:
    body = json.loads(exchange.request.body)
    assert isinstance(body, dict)
    return body


def play(exchange: OllamaExchange, *lines: Any, status: int = 200, size: int = 10**9) -> Reply:
    data = b"".join(
        (line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode()) + b"\n" for line in lines
    )
    assembler = Assembler()
    exchange.head(status, {})
    events = [event for start in range(0, len(data), size) for event in exchange.feed(data[start : start + size])]
    for event in [*events, *exchange.end()]:
        assert json.loads(event.raw) == event.data
        assembler.whole(event.data) if event.whole else assembler.add(event.data)
    return assembler.reply()


def line(content: str = "", **more: Any) -> dict[str, Any]:
    created = "2026-11-22T10:00:00.123456789Z"
    return {
        "model": "llama3.1:8b",
        "created_at": created,
        "message": {"role": "assistant", "content": content},
        "done": False,
        **more,
    }


DONE = line(
    done=True,
    done_reason="stop",
    prompt_eval_count=26,
    prompt_eval_duration=130_000_000,
    eval_count=3,
    eval_duration=60_000_000,
)


@pytest.mark.parametrize("size", [1, 7, 10**9])
def test_a_stream_becomes_openais(size: int) -> None:
    exchange = ask()
    reply = play(exchange, line("Hel"), line("lo \u2028"), DONE, size=size)
    assert (exchange.failure, exchange.finished) == (None, True)
    assert (reply.text, reply.finish_reason, reply.model) == ("Hello \u2028", "stop", "llama3.1:8b")
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (26, 3, 29)
    assert (reply.timings.decode_tps, reply.timings.prefill_tps) == (50.0, 200.0)
    assert (reply.raw["object"], reply.raw["created"]) == ("chat.completion", 1795341600)


def test_a_plain_answer_becomes_openais() -> None:
    exchange = ask(stream=False)
    assert sent(exchange)["stream"] is False
    reply = play(exchange, {**DONE, "message": {"role": "assistant", "content": "Hello"}})
    assert (reply.text, reply.raw["object"], reply.usage.completion_tokens) == ("Hello", "chat.completion", 3)


def test_the_request_in_its_own_words() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    exchange = ask(
        temperature=0.5,
        max_tokens=9,
        stop="END",
        repetition_penalty=1.1,
        tools=tools,
        seed=1,
        user="me",
        reasoning_effort="none",
        keep_alive="10m",
    )
    assert exchange.request.path == "/api/chat"
    assert sent(exchange) == {
        "model": "llama3.1:8b",
        "truncate": False,
        "stream": True,
        "options": {"temperature": 0.5, "num_predict": 9, "stop": ["END"], "repeat_penalty": 1.1, "seed": 1, "num_ctx": 8192},
        "messages": [{"role": "user", "content": "hi"}],
        "tools": tools,
        "keep_alive": "10m",
        "think": False,
    }
    assert exchange.warnings == ()


def test_keep_alive_and_thinking_are_not_sent_unless_said() -> None:
    assert not {"keep_alive", "think", "format"} & sent(ask()).keys()


def test_schemas_tools_and_pictures_are_translated() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert sent(ask(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}))["format"] == schema
    assert sent(ask(response_format={"type": "json_object"}))["format"] == "json"
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is "},
                {"type": "text", "text": "this?"},
                picture("data:image/png;base64,QUJD"),
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}],
        },
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
    ]
    assert sent(ask(messages=messages))["messages"] == [
        {"role": "user", "content": "what is this?", "images": ["QUJD"]},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {"x": 1}}}]},
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
    ]


def picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def test_what_has_no_counterpart_is_told() -> None:
    exchange = ask(logit_bias={"1": 2}, n=2, tool_choice="required")
    assert exchange.warnings == (
        "Ollama has no field 'logit_bias'; it was left out",
        "Ollama has no field 'n'; it was left out",
        "Ollama cannot be made to call a tool: tool_choice='required' was left out",
    )
    assert "tools" not in sent(ask(tools=[{}], tool_choice="none"))


def test_tool_calls_come_whole_and_end_as_such() -> None:
    call = {"function": {"name": "f", "arguments": {"x": 1}}}
    reply = play(ask(), line(message={"role": "assistant", "content": "", "tool_calls": [call]}), DONE)
    assert reply.finish_reason == "tool_calls"
    assert reply.tool_calls == [{"id": "call_0", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]


def test_thinking_is_reasoning() -> None:
    reply = play(ask(), line(message={"role": "assistant", "content": "", "thinking": "hm"}), line("yes"), DONE)
    assert (reply.reasoning, reply.text) == ("hm", "yes")


def test_completions_are_raw() -> None:
    exchange = ask("/completions", prompt="Once")
    assert (exchange.request.path, sent(exchange)["raw"], sent(exchange)["prompt"]) == ("/api/generate", True, "Once")
    reply = play(exchange, {"response": " upon", "done": False}, {"response": "", "done": True, "done_reason": "length"})
    assert (reply.text, reply.finish_reason, reply.raw["object"]) == (" upon", "length", "text_completion")


def test_embeddings() -> None:
    exchange = ask("/embeddings", stream=False, input=["a", "b"], dimensions=2)
    assert exchange.request.path == "/api/embed"
    options = {"num_ctx": 8192}  # as in chats: an embedding with another context would load the model again
    assert sent(exchange) == {"model": "llama3.1:8b", "truncate": False, "options": options, "input": ["a", "b"], "dimensions": 2}
    exchange.head(200, {})
    exchange.feed(b'{"embeddings": [[1.0, 2.0], [3.0, 4.0]], "prompt_eval_count": 4}')
    (event,) = exchange.end()
    assert [row["embedding"] for row in event.data["data"]] == [[1.0, 2.0], [3.0, 4.0]]
    assert event.data["usage"]["prompt_tokens"] == 4


DOUBLE = json.dumps({"error": {"code": 400, "message": "request (7900 tokens) exceeds the available context size (4096 tokens)"}})


@pytest.mark.parametrize(
    ("status", "body", "trouble", "words"),
    [
        (404, {"error": "model 'x' not found"}, Trouble.NO_MODEL, "not found"),
        (404, {"error": 'model "x" not found, try pulling it first'}, Trouble.NO_MODEL, "pulling"),
        (503, {"error": "server busy, please try again.  maximum pending requests exceeded"}, Trouble.BUSY, "busy"),
        (400, {"error": DOUBLE}, Trouble.OVERFLOW, "7900"),
        (400, {"error": "the input length exceeds the context length"}, Trouble.OVERFLOW, "exceeds"),
        (400, {"error": '"m" does not support tools'}, Trouble.CALLER, "tools"),
        (500, {"error": 'option "num_ctx" must be of type integer'}, Trouble.CALLER, "num_ctx"),
        (500, {"error": "model runner has unexpectedly stopped"}, Trouble.FAILED, "stopped"),
        (403, {}, Trouble.MISCONFIGURED, "403"),
    ],
)
def test_refusals(status: int, body: dict[str, Any], trouble: Trouble, words: str) -> None:
    exchange = ask()
    play(exchange, body, status=status)
    assert exchange.failure is not None
    assert exchange.failure.trouble is trouble
    assert words in exchange.failure.message


@pytest.mark.parametrize(
    ("lines", "words", "answered"),
    [
        ([{"error": "llama-server process has terminated"}], "terminated", False),
        ([line("so"), {"error": "an error was encountered while running the model"}], "encountered", True),
        ([line("so")], "without done", True),
        ([line("so"), b"<html>"], "not a JSON object", True),
        ([b"[1]"], "not a JSON object", False),
        ([], "without done", False),
    ],
)
def test_streams_that_break(lines: list[Any], words: str, answered: bool) -> None:
    exchange = ask()
    play(exchange, *lines)
    assert exchange.failure is not None
    assert words in exchange.failure.message
    assert exchange.answered == answered


def test_done_reason_without_done_and_a_second_done_are_taken() -> None:
    exchange = ask()
    assert play(exchange, line("x"), line(done_reason="stop")).finish_reason == "stop"
    assert exchange.failure is None
    twice = ask()
    assert play(twice, line("x"), DONE, {"done": True, "eval_count": 0}).usage.completion_tokens == 3


def test_model_lists_leave_the_cloud_out() -> None:
    rows = [
        {"name": "llama3.1:latest"},
        {"name": "q:14b"},
        {"name": "big:cloud"},
        {"name": "far", "remote_host": "https://ollama.com"},
        {"x": 1},
    ]
    assert tags_in(json.dumps({"models": rows}).encode()) == ["llama3.1", "q:14b"]
    loaded = {"models": [{"name": "llama3.1:latest", "context_length": 4096}, {"name": "q:14b"}]}
    assert loaded_in(json.dumps(loaded).encode()) == {"llama3.1": 4096, "q:14b": None}
    for read in (tags_in, loaded_in):
        with pytest.raises(ValueError, match="no model list"):
            read(b"{}")


def test_a_prompt_that_was_cut_in_spite_of_truncate_false_is_told() -> None:
    def warnings(characters: int, counted: int) -> tuple[str, ...]:
        exchange = ask(messages=[{"role": "user", "content": "a" * characters}])
        play(exchange, line("hi"), line(done=True, done_reason="stop", prompt_eval_count=counted))
        return exchange.warnings

    cut = warnings(80_000, 4098)  # 8192 tokens of context: half of it and two
    assert cut == ("Ollama read 4098 tokens of a prompt of about 20001: it seems to have cut it to fit its context of 8192",)
    assert warnings(80_000, 8000) == ()  # long words: few tokens, but more than a cut leaves
    assert warnings(20_000, 2000) == ()  # it fits by our estimate
