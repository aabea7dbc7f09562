"""The OpenAI dialect, fed by hand: what counts as an answer, and what as trouble."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from hydra_infer.wire.exchange import Event
from hydra_infer.wire.openai import OpenAIExchange, Target, as_chunk, models_in, rename
from hydra_infer.wire.question import Fields, Question, read_question
from hydra_infer.wire.trouble import Trouble

TARGET = Target("http://gpu:5000/prefix", "local", {"authorization": "Bearer secret"})


def ask(stream: bool = True, path: str = "/chat/completions", **fields: Any) -> OpenAIExchange:
    body = Fields({"model": "said", "messages": [], "stream": stream, **fields})
    return OpenAIExchange(Question(path, body, "said", stream), TARGET)


def sse(*events: Any) -> bytes:
    return b"".join(b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n" for event in events)


def piece(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"model": "local", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def run(exchange: OpenAIExchange, body: bytes, status: int = 200, size: int = 10**9, **headers: str) -> list[Event]:
    exchange.head(status, {name.replace("_", "-"): value for name, value in headers.items()})
    events: list[Event] = []
    for start in range(0, len(body), size):
        events += exchange.feed(body[start : start + size])
    return events + exchange.end()


HELLO = (piece({"role": "assistant"}), piece({"content": "Hel"}), piece({"content": "lo"}), piece({}, "stop"))
WHOLE = {
    "model": "local",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
}


def test_the_request_goes_to_the_prefix_with_the_servers_own_name_and_key() -> None:
    request = ask(temperature=0.5).request
    assert (request.method, request.path) == ("POST", "/prefix/v1/chat/completions")
    assert request.headers["authorization"] == "Bearer secret"
    assert json.loads(request.body) == {
        "model": "local",
        "messages": [],
        "stream": True,
        "temperature": 0.5,
        "stream_options": {"include_usage": True},
    }


def test_stream_options_of_the_caller_are_kept_and_plain_calls_get_none() -> None:
    body = json.loads(ask(stream_options={"x": 1}).request.body)
    assert body["stream_options"] == {"x": 1, "include_usage": True}
    assert "stream_options" not in json.loads(ask(stream=False).request.body)


@pytest.mark.parametrize("size", [1, 5, 10**9])
def test_a_stream_has_answered_with_its_first_token_not_with_its_role(size: int) -> None:
    exchange = ask()
    exchange.head(200, {"content-type": "text/event-stream"})
    exchange.feed(sse(HELLO[0]))
    assert not exchange.answered
    exchange.feed(sse(HELLO[1]))
    assert exchange.answered
    again = ask()
    events = run(again, sse(*HELLO, b"[DONE]"), size=size)
    assert [event.tokens for event in events] == [False, True, True, True]
    assert (again.finished, again.failure) == (True, None)


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "x"},
        {"reasoning_content": "x"},
        {"reasoning": "x"},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0, "function": {"name": "f"}}]},
    ],
)
def test_everything_a_model_produces_is_a_token(delta: dict[str, Any]) -> None:
    exchange = ask()
    run(exchange, sse(piece(delta)))
    assert exchange.answered


@pytest.mark.parametrize("delta", [{}, {"role": "assistant"}, {"content": ""}, {"content": None}, {"tool_calls": []}])
def test_empty_pieces_are_no_tokens(delta: dict[str, Any]) -> None:
    exchange = ask()
    run(exchange, sse(piece(delta)))
    assert not exchange.answered


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty body"),
        (b"<html><title>Login</title></html>", "HTML"),
        (b"Internal error", "without a finish_reason"),
        (b"{}", "no choices"),
        (b'{"choices": []}', "no choices"),
        (b'{"choices": null}', "no choices"),
        (b'{"choices": [{}]}', "no message"),
        (b"[1]", "not a JSON object"),
        (b'{"choices": [{"message": {"content": "cut', "not JSON"),
        (sse(b"[DONE]"), "without a single token"),
        (sse(HELLO[0]), "without a finish_reason"),
        (sse(HELLO[0], HELLO[1]), "without a finish_reason"),
        (sse(HELLO[1], b"{broken"), "not JSON"),
        (sse(HELLO[1], b"[1]"), "not an object"),
        (b": ping\n\n: ping\n\n", "without a finish_reason"),
    ],
)
def test_status_200_is_no_success_by_itself(body: bytes, words: str) -> None:
    exchange = ask()
    run(exchange, body)
    assert exchange.failure is not None
    assert exchange.failure.trouble is Trouble.BROKEN
    assert words in exchange.failure.message


def test_an_error_event_is_the_servers_failure_wherever_it_stands() -> None:
    for before in ((), HELLO[:2]):
        exchange = ask()
        run(exchange, sse(*before, {"error": {"message": "CUDA out of memory", "code": 500}}))
        assert exchange.failure is not None
        assert (exchange.failure.trouble, exchange.failure.message) == (Trouble.FAILED, "CUDA out of memory")
        assert exchange.answered == bool(before)


def test_a_finish_reason_without_done_is_an_honest_end() -> None:
    exchange = ask()
    run(exchange, sse(*HELLO))
    assert (exchange.finished, exchange.failure) == (True, None)


def test_with_two_choices_both_must_end() -> None:
    exchange = ask()
    second = {"choices": [{"index": 1, "delta": {"content": "x"}, "finish_reason": None}]}
    run(exchange, sse(second, *HELLO))
    assert exchange.failure is not None


def test_a_server_that_does_not_stream_is_taken_at_its_word() -> None:
    exchange = ask()
    events = run(exchange, json.dumps(WHOLE).encode(), size=9)
    assert [(event.whole, event.data) for event in events] == [(True, WHOLE)]
    assert exchange.failure is None
    chunk = as_chunk(WHOLE)
    assert chunk["object"] == "chat.completion.chunk"
    assert chunk["choices"][0]["delta"] == {"role": "assistant", "content": "Hello"}


def test_a_plain_call_answers_with_its_complete_body_and_nothing_less() -> None:
    exchange = ask(stream=False)
    body = json.dumps(WHOLE).encode()
    exchange.head(200, {})
    assert exchange.feed(body[:20]) == []
    assert not exchange.answered
    assert exchange.feed(body[20:]) == []
    assert [event.raw for event in exchange.end()] == [body]
    assert exchange.answered


def test_embeddings_need_data() -> None:
    exchange = ask(stream=False, path="/embeddings")
    run(exchange, b'{"data": [{"embedding": [1.0]}]}')
    assert exchange.answered
    empty = ask(stream=False, path="/embeddings")
    run(empty, b'{"data": []}')
    assert empty.failure is not None


@pytest.mark.parametrize("size", [1, 10**9])
def test_gzip_is_undone_and_damage_noticed(size: int) -> None:
    packed = gzip.compress(sse(*HELLO))
    exchange = ask()
    run(exchange, packed, size=size, content_encoding="gzip")
    assert exchange.failure is None
    damaged = ask()
    run(damaged, b"not gzip at all", content_encoding="gzip")
    assert damaged.failure is not None
    unknown = ask()
    run(unknown, b"x", content_encoding="br")
    assert unknown.failure is not None


def test_a_redirect_stays_within_the_origin() -> None:
    exchange = ask()
    exchange.head(307, {"location": "/other/v1/chat/completions?x=1"})
    assert exchange.moved == "/other/v1/chat/completions?x=1"
    away = ask()
    away.head(307, {"location": "http://elsewhere:5000/v1/chat/completions"})
    assert away.moved is None
    assert away.failure is not None
    assert "elsewhere" in away.failure.message


def test_the_usage_chunk_is_marked() -> None:
    events = run(ask(), sse(*HELLO, {"choices": [], "usage": {"total_tokens": 3}}, b"[DONE]"))
    assert [event.usage_only for event in events] == [False, False, False, False, True]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"local","x": 1.50}',
        b'{"x": 1.50, "model": "local"}',
        b'{"model" : "local", "x": 1.50}',
        b'{"choices":[{"model":"local"}],"model":"local","x": 1.50}',
        b'{"model":"loc\\u0061l","x": 1.50}',
    ],
)
def test_renaming_changes_the_models_name_and_no_other_byte(raw: bytes) -> None:
    renamed = rename(Event(json.loads(raw), raw), "said")
    assert json.loads(renamed) == {**json.loads(raw), "model": "said"}
    assert b"1.50" in renamed


def test_renaming_without_a_model_leaves_the_event_alone() -> None:
    assert rename(Event({"x": 1}, b'{"x": 1}'), "said") == b'{"x": 1}'


def test_model_lists() -> None:
    assert models_in(b'{"data": [{"id": "a"}, {"id": 3}, {"id": "b"}]}') == ["a", "b"]
    for body in (b"[]", b"{}", b"<html>", b'{"data": 1}'):
        with pytest.raises(ValueError, match="model list|Expecting"):
            models_in(body)


def test_a_foreign_body_is_passed_on_byte_for_byte_but_for_the_name() -> None:
    data = b'{"model": "said", "messages": [{"role":"user","content":"\\u00e9"}], "min_p": 0.050, "new_field": {"a": [1, 2.0]}}'
    question = read_question("/chat/completions", data, {})
    assert question.body_for("local") == data.replace(b'"said"', b'"local"')
