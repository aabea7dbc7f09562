"""TabbyAPI's dialect against what the real application answered (tests/data/tabby_answers.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hydra_infer.reply import Assembler
from hydra_infer.wire.openai import Target
from hydra_infer.wire.question import Fields, Question
from hydra_infer.wire.tabby import ANY_MODEL, TabbyExchange
from hydra_infer.wire.trouble import Trouble

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "tabby_answers.json").read_text(encoding="utf-8"))
ANSWERS = {answer["name"]: answer for answer in RECORDED["answers"]}
LOADED = "Good-70B-exl3-4.0bpw"


def ask(local_name: str = ANY_MODEL, path: str = "/chat/completions", stream: bool = True, **fields: Any) -> TabbyExchange:
    body = Fields({"model": "m", "messages": [], **({"stream": True} if stream else {}), **fields})
    return TabbyExchange(Question(path, body, "m", stream), Target("http://gpu:5000", local_name, {}))


def play(exchange: TabbyExchange, name: str, change: Any = None) -> Assembler:
    """Feed a recorded answer, in pieces of 100 bytes."""
    answer, assembler = ANSWERS[name], Assembler()
    body = (change(answer["body"]) if change else answer["body"]).encode()
    exchange.head(answer["status"], {"content-type": answer["content_type"]})
    events = [event for start in range(0, len(body), 100) for event in exchange.feed(body[start : start + 100])]
    for event in [*events, *exchange.end()]:
        assembler.whole(event.data) if event.whole else assembler.add(event.data)
    return assembler


@pytest.mark.parametrize(
    ("name", "path", "stream", "text", "tokens"),
    [
        ("chat_stream", "/chat/completions", True, "tok0 tok1 tok2 tok3 ", None),
        ("chat_stream_usage", "/chat/completions", True, "tok0 tok1 tok2 ", 3),
        ("chat_stream_ping", "/chat/completions", True, "tok0 tok1 ", None),
        ("chat_stream_n2", "/chat/completions", True, "tok0 tok1 ", 4),
        ("chat_nonstream_usage", "/chat/completions", False, "".join(f"tok{i} " for i in range(12)), 12),
        ("completion_stream", "/completions", True, "tok0 tok1 tok2 ", 3),
        ("completion_nonstream_usage", "/completions", False, "".join(f"tok{i} " for i in range(12)), 12),
    ],
)
def test_answers_are_read_to_the_last_field(name: str, path: str, stream: bool, text: str, tokens: int | None) -> None:
    exchange = ask(path=path, stream=stream)
    reply = play(exchange, name).reply()
    assert (exchange.failure, exchange.answered, exchange.finished) == (None, True, True)
    assert (reply.text, reply.finish_reason, reply.usage.completion_tokens) == (text, "stop", tokens)


@pytest.mark.parametrize(
    ("name", "trouble", "words"),
    [
        ("ctx_too_long_chat", Trouble.OVERFLOW, "5023"),
        ("ctx_too_long_chat_stream", Trouble.OVERFLOW, "4096"),
        ("chat_after_failed_load_with_model", Trouble.FAILED, "no model is loaded"),
        ("gen_oom_stream", Trouble.FAILED, "aborted"),
        ("gen_oom_nonstream", Trouble.BUSY, "unloaded"),
        ("completion_stream_no_max_tokens", Trouble.FAILED, "aborted"),
        ("chat_tool_no_description", Trouble.CALLER, "tools.0.function.description: Field required"),
        ("models_no_key", Trouble.MISCONFIGURED, "API key"),
    ],
)
def test_troubles_are_told_apart(name: str, trouble: Trouble, words: str) -> None:
    exchange = ask()
    play(exchange, name)
    assert exchange.failure is not None
    assert exchange.failure.trouble is trouble
    assert words in exchange.failure.message
    assert not exchange.answered


def test_out_of_memory_in_the_middle_breaks_the_stream() -> None:
    exchange = ask()
    assert play(exchange, "gen_oom_mid_stream").text == "tok0 tok1 tok2 "
    assert exchange.answered
    assert exchange.failure is not None
    assert "aborted" in exchange.failure.message


@pytest.mark.parametrize(("name", "stream"), [("chat_nonstream_usage", False), ("chat_stream", True)])
def test_a_stop_without_a_reason_is_a_cut(name: str, stream: bool) -> None:
    exchange = ask(stream=stream)
    play(exchange, name, lambda body: body.replace('"stop_token"', "null"))
    assert exchange.failure is not None
    assert "cut" in exchange.failure.message


@pytest.mark.parametrize(
    ("name", "path", "stream"),
    [
        ("chat_stream", "/chat/completions", True),
        ("completion_stream", "/completions", True),
        ("chat_nonstream", "/chat/completions", False),
    ],
)
def test_a_model_served_under_a_wrong_name_is_noticed_before_a_token_passes(name: str, path: str, stream: bool) -> None:
    exchange = ask("Other-8B", path, stream)
    assert play(exchange, name).text == ""
    assert exchange.failure is not None
    assert exchange.failure.trouble is Trouble.NO_MODEL
    assert exchange.failure.message == f"it has {LOADED!r} loaded, not 'Other-8B'"
    right = ask(LOADED, path, stream)
    play(right, name)
    assert right.failure is None


def test_requests_are_made_valid_first() -> None:
    tools = [
        {"type": "function", "function": {"name": "f"}},
        {"type": "function", "function": {"name": "g", "description": "d", "parameters": {}}},
    ]
    exchange = ask(tools=tools, presence_penalty=-0.5, frequency_penalty=0.5)
    sent = json.loads(exchange.request.body)
    assert sent["tools"][0]["function"] == {"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}}
    assert sent["tools"][1] == tools[1]
    assert (sent["presence_penalty"], sent["frequency_penalty"]) == (0, 0.5)
    assert exchange.warnings == ("TabbyAPI takes no negative presence_penalty: -0.5 was sent as 0",)
    assert json.loads(ask(path="/completions", prompt="x").request.body)["max_tokens"] > 100_000
    assert "max_tokens" not in json.loads(ask().request.body)
    assert json.loads(ask(stream=False).request.body)["stream_options"] == {"include_usage": True}


def test_a_body_that_needs_no_change_is_not_touched() -> None:
    exchange = ask(temperature=0.5)
    assert exchange.warnings == ()
    assert json.loads(exchange.request.body)["model"] == ANY_MODEL
