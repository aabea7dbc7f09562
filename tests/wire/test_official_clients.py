"""What is read here beside what the makers' own clients read, on made-up streams that are cut anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

from hydra_infer.reply import Assembler, Reply
from hydra_infer.wire.ollama import OllamaExchange
from hydra_infer.wire.openai import OpenAIExchange, Target
from hydra_infer.wire.question import Fields, Question
from hydra_infer.wire.sse import SSEParser

few = settings(max_examples=60, derandomize=True, deadline=None, database=None)
# Half surrogate pairs are no UTF-8, and so in no stream.
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
# ollama 0.6.3 splits lines as str.splitlines does, and fails where one of these stands raw in a text.
plain_words = st.text(st.characters(exclude_categories=["Cs", "Zl", "Zp", "Cc"]), max_size=12)
cuts = st.lists(st.integers(1, 40), max_size=60)


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """The data as a network might deliver it."""
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Server-sent events with comments, names, several lines of data and both kinds of line ends."""
    end = draw(st.sampled_from(["\n", "\r\n"]))
    made = []
    for lines in draw(st.lists(st.lists(plain_words, min_size=1, max_size=3), max_size=6)):
        made += draw(st.lists(st.sampled_from([": ping", "event: x", "id: 1", "retry: 5", "unknown: x"]), max_size=2))
        made += [f"data:{draw(st.sampled_from(['', ' ']))}{line}" for line in lines]
        made.append("")
    return "".join(line + end for line in made).encode()


@few
@given(streams(), cuts)
def test_events_as_the_openai_package_decodes_them(stream: bytes, sizes: list[int]) -> None:
    theirs = [event.data for event in SSEDecoder().iter_bytes(cut(stream, sizes)) if event.data]
    parser = SSEParser()
    ours = [event for piece in cut(stream, sizes) for event in parser.feed(piece)] + parser.end()
    assert [event.decode() for event in ours] == theirs


call_pieces = st.lists(st.tuples(st.integers(0, 1), plain_words), max_size=4)


@st.composite
def chats(draw: st.DrawFn) -> bytes:
    """A streamed answer: words, calls in pieces, a finish, perhaps token counts."""
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": word} for word in draw(st.lists(words, min_size=1, max_size=8))]
    names: set[int] = set()
    for index, arguments in draw(call_pieces):
        index = min(index, len(names))  # a call is begun before the next one
        head = {} if index in names else {"id": f"call_{index}", "type": "function"}
        function = {"arguments": arguments} | ({} if index in names else {"name": f"f{index}"})
        names.add(index)
        deltas.append({"tool_calls": [{"index": index, **head, "function": function}]})
    chunks = [{**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if draw(st.booleans()):
        chunks.append({**base, "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}})
    ascii_only = draw(st.booleans())
    texts = [json.dumps(chunk, ensure_ascii=ascii_only) for chunk in chunks]
    return "".join(f"data: {text}\n\n" for text in [*texts, "[DONE]"]).encode()


@few
@given(chats(), cuts)
def test_answers_as_the_openai_package_reads_them(stream: bytes, sizes: list[int]) -> None:
    transport = httpx.MockTransport(
        lambda _: httpx.Response(200, headers={"content-type": "text/event-stream"}, content=cut(stream, sizes))
    )
    text, calls, usage = "", {}, None
    with openai.OpenAI(base_url="http://a/v1", api_key="-", http_client=httpx.Client(transport=transport)) as client:
        for chunk in client.chat.completions.create(model="m", messages=[], stream=True):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                for piece in choice.delta.tool_calls or []:
                    assert piece.function is not None
                    calls[piece.index] = calls.get(piece.index, "") + (piece.function.arguments or "")
    question = Question("/chat/completions", Fields({"model": "m", "messages": []}), "m", stream=True)
    reply = ours(OpenAIExchange(question, Target("http://a", "m", {})), stream, sizes)
    assert reply.text == text
    assert {at: call["function"]["arguments"] for at, call in enumerate(reply.tool_calls)} == calls
    assert reply.usage.completion_tokens == (usage.completion_tokens if usage else None)


@st.composite
def ollama_lines(draw: st.DrawFn) -> bytes:
    """A streamed answer of Ollama's: words, thoughts, whole calls, the end with its counts."""
    base = {"model": "m", "created_at": "2026-11-30T10:00:00.123456789Z", "done": False}
    messages: list[dict[str, Any]] = [{"content": word} for word in draw(st.lists(plain_words, max_size=8))]
    messages += [{"content": "", "thinking": word} for word in draw(st.lists(plain_words, max_size=3))]
    arguments = st.dictionaries(plain_words, st.integers(-5, 5) | plain_words, max_size=3)
    messages += [
        {"content": "", "tool_calls": [{"function": {"name": "f", "arguments": said}}]}
        for said in draw(st.lists(arguments, max_size=2))
    ]
    lines = [{**base, "message": {"role": "assistant", **message}} for message in messages]
    end = {"done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 2}
    lines.append({**base, "message": {"role": "assistant", "content": ""}, **end})
    ascii_only = draw(st.booleans())
    return "".join(json.dumps(line, ensure_ascii=ascii_only) + "\n" for line in lines).encode()


@few
@given(ollama_lines(), cuts)
def test_answers_as_the_ollama_package_reads_them(stream: bytes, sizes: list[int]) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=cut(stream, sizes)))
    parts = list(ollama.Client("http://a", transport=transport).chat(model="m", messages=[], stream=True))
    question = Question("/chat/completions", Fields({"model": "m", "messages": []}), "m", stream=True)
    reply = ours(OllamaExchange(question, Target("http://a", "m", {})), stream, sizes)
    assert reply.text == "".join(part.message.content or "" for part in parts)
    assert reply.reasoning == "".join(part.message.thinking or "" for part in parts)
    theirs = [dict(call.function.arguments) for part in parts for call in part.message.tool_calls or []]
    assert [json.loads(call["function"]["arguments"]) for call in reply.tool_calls] == theirs
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (parts[-1].prompt_eval_count, parts[-1].eval_count)


def test_where_the_ollama_package_fails_these_lines_are_read() -> None:
    stream = ollama_line("a\u2028b\u0085c") + ollama_line("", done=True, done_reason="stop")
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=stream))
    with pytest.raises(json.JSONDecodeError):
        list(ollama.Client("http://a", transport=transport).chat(model="m", messages=[], stream=True))
    question = Question("/chat/completions", Fields({"model": "m", "messages": []}), "m", stream=True)
    assert ours(OllamaExchange(question, Target("http://a", "m", {})), stream, [7]).text == "a\u2028b\u0085c"


def ollama_line(content: str, **more: Any) -> bytes:
    """One line, its text raw."""
    line = {"model": "m", "message": {"role": "assistant", "content": content}, "done": False, **more}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def ours(exchange: OpenAIExchange | OllamaExchange, stream: bytes, sizes: list[int]) -> Reply:
    """The stream as it is read here."""
    exchange.head(200, {})
    assembler = Assembler()
    for event in [event for piece in cut(stream, sizes) for event in exchange.feed(piece)] + exchange.end():
        assembler.add(event.data)
    assert exchange.failure is None
    return assembler.reply()
