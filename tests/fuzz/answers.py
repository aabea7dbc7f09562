"""What servers answer: streams of events and lines, bodies, lists, refusals; read by each dialect and said again to clients."""

from __future__ import annotations

import gzip
import json
import zlib
from types import SimpleNamespace
from typing import Any

from hydra_infer.errors import HydraError
from hydra_infer.reply import Assembler, usage_of
from hydra_infer.transport.face import embeddings_of
from hydra_infer.transport.rendering import ChatRendering, ResponsesRendering
from hydra_infer.wire.dialect import DIALECTS
from hydra_infer.wire.exchange import Event
from hydra_infer.wire.lifecycle import LIFECYCLES, Wish
from hydra_infer.wire.lines import Lines
from hydra_infer.wire.openai import Target as Address
from hydra_infer.wire.openai import rename
from hydra_infer.wire.question import Fields, Question
from hydra_infer.wire.sse import SSEParser, encode_event
from hydra_infer.wire.trouble import Failure, error_message, failure_of_status, overflow_numbers

from .target import Dice, Target, pieces

__all__ = ["TARGETS"]

ADDRESS = Address("http://box:5000", "local", {}, context=4096)
PATHS = ("/chat/completions", "/chat/completions", "/completions", "/embeddings")
STATUSES = (200, 200, 200, 200, 400, 404, 500, 503, 307)


# ---- bytes to events and lines ---------------------------------------------------------------------------------------


def run_sse(data: bytes) -> None:
    dice = Dice(data, 1)
    expected = _events_by_the_book(dice.rest)
    for size in (1 + dice.below(7), 4096):
        parser = SSEParser()
        found = [event for piece in pieces(dice.rest, size) for event in parser.feed(piece)] + parser.end()
        assert found == expected


def _events_by_the_book(stream: bytes) -> list[bytes]:
    """The HTML standard's reading of an event stream, for its data alone, with the last event that nothing ends."""
    found, held = [], []
    for line in [*(line.removesuffix(b"\r") for line in stream.split(b"\n")), b""]:
        if line.startswith(b"data:"):
            held.append(line[5:].removeprefix(b" "))
        elif not line:
            if any(held) or len(held) > 1:
                found.append(b"\n".join(held))
            held = []
    return found


def run_lines(data: bytes) -> None:
    dice = Dice(data, 1)
    expected = [line.removesuffix(b"\r") for line in dice.rest.split(b"\n")]
    if not dice.rest or dice.rest.endswith(b"\n"):
        expected.pop()
    for size in (1 + dice.below(7), 4096):
        lines = Lines()
        found = [line for piece in pieces(dice.rest, size) for line in lines.feed(piece)] + lines.end()
        assert found == expected


# ---- exchanges -------------------------------------------------------------------------------------------------------


def run_openai(data: bytes) -> None:
    dice = Dice(data, 5)
    _answer(("openai", "tabby", "litellm")[dice.below(3)], dice)


def run_ollama(data: bytes) -> None:
    _answer("ollama", Dice(data, 4))


def _answer(kind: str, dice: Dice) -> None:
    """One answer, read in two ways of cutting it, then said again in every way that callers may want it."""
    path, stream, status = PATHS[dice.below(4)], bool(dice.below(2)), STATUSES[dice.below(9)]
    flags = dice.below(256)
    stream = stream and path != "/embeddings"
    encoding, body = (
        ("", dice.rest)
        if flags % 8
        else (("gzip", gzip.compress(dice.rest)), ("deflate", zlib.compress(dice.rest)))[flags // 8 % 2]
    )
    headers = {
        "content-encoding": encoding,
        "retry-after": body[:8].decode("latin-1"),
        "location": dice.rest[:40].decode("latin-1"),
    }
    whole, cut = (_read(kind, path, stream, status, headers, pieces(body, size)) for size in (len(body) or 1, 1 + flags // 16))
    (events, exchange), (again, other) = whole, cut
    assert [event.raw for event in events] == [event.raw for event in again]
    assert _told(exchange) == _told(other)
    if exchange.failure is not None:
        overflow_numbers(exchange.failure)
        assert len(exchange.failure.message) < 2000
    elif exchange.moved is None:
        assert exchange.answered, "neither answered nor failed"
    answered = exchange.answered and exchange.failure is None
    _say_again(path, stream, events, exchange, whole=answered)


def _read(
    kind: str, path: str, stream: bool, status: int, headers: dict[str, str], parts: list[bytes]
) -> tuple[list[Event], Any]:
    fields = {"model": "said", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    exchange = DIALECTS[kind].open(Question(path, Fields(fields), "said", stream), ADDRESS)
    exchange.head(status, headers)
    if exchange.moved is not None:
        assert exchange.moved.startswith("/")
        return [], exchange
    events = [event for part in parts for event in exchange.feed(part)]
    return events + exchange.end(), exchange


def _told(exchange: Any) -> tuple[Any, ...]:
    failure = exchange.failure
    return exchange.answered, exchange.finished, failure and (failure.trouble, failure.message, failure.status), exchange.warnings


def _say_again(path: str, stream: bool, events: list[Event], exchange: Any, *, whole: bool) -> None:
    """As a Reply, as embeddings, and to foreign clients by chat completions and by Responses."""
    told: Any = SimpleNamespace(model="said", backend="a", outcomes=(), failure=exchange.failure)
    for event in events:
        assert json.loads(event.raw) == event.data or "NaN" in repr(event.data) or "nan" in repr(event.data)
        if event.data.get("usage"):
            usage = usage_of(event.data)
            assert all(
                count is None or type(count) is int
                for count in (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
            )
        if event.data.get("model") is not None:
            assert json.loads(rename(event, "said"))["model"] == "said"
    if path == "/embeddings":
        if whole:
            json.dumps(embeddings_of(told, events).to_dict())
        return
    assembler = Assembler()
    for event in events:
        assembler.whole(event.data) if event.whole else assembler.add(event.data)
    reply = assembler.reply(model="said", warnings=exchange.warnings)
    json.dumps(reply.to_dict())
    assert isinstance(reply.text, str)
    assert reply.timings.decode_tps is None or isinstance(reply.timings.decode_tps, int | float)
    renderings: list[Any] = [ChatRendering(told, wants_usage=True)]
    if path == "/chat/completions":
        renderings.append(ResponsesRendering({"input": "hi"}, told))
    for rendering in renderings:
        if stream:
            said = b"".join(map(rendering.part, events)) + rendering.last()
            assert said.endswith(b"\n\n")
        elif whole:
            json.loads(rendering.whole(events[0]))


# ---- bodies of other paths -------------------------------------------------------------------------------------------


def run_lists(data: bytes) -> None:
    """What a server has and has loaded; ValueError and RecursionError are what the callers of these take for "no answer"."""
    for kind in ("openai", "ollama", "tabby"):
        dialect = DIALECTS[kind]
        try:
            names = dialect.read_list(data)
            assert all(isinstance(name, str) for name in names)
        except (ValueError, RecursionError) as error:
            assert len(str(error)) < 1000
        if dialect.read_loaded is not None:
            try:
                loaded = dialect.read_loaded(data)
                assert all(isinstance(name, str) for name in loaded)
                assert all(context is None or type(context) is int for context in loaded.values())
            except (ValueError, RecursionError) as error:
                assert len(str(error)) < 1000


def run_lifecycle(data: bytes) -> None:
    """Loading and pulling: progress as it comes, in any pieces the same; and what is remembered of a model's card."""
    dice = Dice(data, 2)
    status, size = STATUSES[dice.below(9)], 1 + dice.below(60)
    for kind, what in (("tabby", "loading"), ("ollama", "pulling"), ("ollama", "loading")):
        told = []
        for step in (size, 4096):
            reading = getattr(LIFECYCLES[kind], what)()
            reading.head(status, {})
            advances = [advance for piece in pieces(dice.rest, step) for advance in reading.feed(piece)]
            reading.end()
            assert all(advance.fraction is None or 0 <= advance.fraction <= 1 for advance in advances)
            told.append(
                (
                    reading.done,
                    reading.failure and (reading.failure.trouble, reading.failure.message),
                    advances if reading.failure is None else None,
                )
            )
        assert told[0] == told[1]
    remember, meets = LIFECYCLES["tabby"].remember, LIFECYCLES["tabby"].meets
    assert remember is not None
    try:
        name, settings = remember(dice.rest)
        assert name
        json.dumps(settings)
        assert meets(Wish(cache="q8"), 1, dice.rest) in (True, False)
    except (ValueError, RecursionError):
        pass


def run_refusals(data: bytes) -> None:
    dice = Dice(data, 2)
    status = 300 + dice.below(256) + 5 * dice.below(9)
    text = dice.rest.decode("latin-1")
    failure = failure_of_status(status, {"retry-after": text, "date": text, "content-type": text}, dice.rest)
    assert isinstance(failure, Failure)
    assert len(failure.message) < 2000
    assert failure.retry_after is None or 0 <= failure.retry_after <= 86_400
    tokens, context = overflow_numbers(failure)
    assert all(number is None or 0 <= number < 10**18 for number in (tokens, context))
    assert isinstance(error_message(dice.rest), str)
    try:
        retrying = failure_of_status(429, {"retry-after": text.partition("\n")[0], "date": text.partition("\n")[2]}, b"")
        assert retrying.retry_after is None or 0 <= retrying.retry_after <= 86_400
    except HydraError:
        raise AssertionError from None


# ---- inputs to begin with --------------------------------------------------------------------------------------------


def _chunk(**delta: Any) -> dict[str, Any]:
    finish = delta.pop("finish_reason", None)
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "local",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 2,
    "total_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
TIMINGS = {"prompt_per_second": 10.5, "predicted_per_second": 20, "draft_n": 10, "draft_n_accepted": 6}
STREAMS: list[list[Any]] = [
    [
        _chunk(role="assistant"),
        _chunk(content="hi"),
        _chunk(finish_reason="stop"),
        {"choices": [], "usage": USAGE, "timings": TIMINGS},
        "[DONE]",
    ],
    [_chunk(reasoning_content="hm"), _chunk(content="a"), _chunk(refusal="no", finish_reason="content_filter"), "[DONE]"],
    [
        _chunk(tool_calls=[CALL]),
        _chunk(tool_calls=[{"index": 0, "function": {"arguments": "1"}}]),
        _chunk(finish_reason="tool_calls"),
    ],
    [
        {
            "object": "text_completion",
            "model": "local",
            "choices": [{"index": 1, "text": "a", "logprobs": {"tokens": ["a"]}, "finish_reason": "stop", "eos_reason": None}],
        }
    ],
    [_chunk(content="a"), {"error": {"message": "CUDA out of memory", "code": 500}}],
]
BODIES: list[Any] = [
    {
        "object": "chat.completion",
        "model": "local",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hi", "tool_calls": [CALL]},
                "finish_reason": "stop",
                "logprobs": {"content": []},
            }
        ],
        "usage": USAGE,
    },
    {"object": "text_completion", "model": "local", "choices": [{"index": 0, "text": "hi", "finish_reason": "length"}]},
    {
        "object": "list",
        "data": [{"index": 1, "embedding": [0.5]}, {"index": 0, "embedding": [0.25]}],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    },
]
ERRORS: list[Any] = [
    {
        "error": {
            "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
            "code": "context_length_exceeded",
        }
    },
    {
        "error": '{"error":{"code":400,"message":"request (9 tokens) exceeds the available context size (8 tokens)",'
        '"n_prompt_tokens":9,"n_ctx":8}}'
    },
    {"detail": [{"loc": ["body", "model"], "msg": "field required"}]},
    {"error": "model 'm' not found"},
]
LINES: list[list[Any]] = [
    [
        {
            "model": "l",
            "created_at": "2026-11-22T10:00:00.123456789Z",
            "message": {"role": "assistant", "content": "hi", "thinking": "hm"},
            "done": False,
        },
        {
            "model": "l",
            "message": {"content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
            "done": False,
        },
        {
            "model": "l",
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 3,
            "eval_count": 2,
            "prompt_eval_duration": 100,
            "eval_duration": 200,
        },
    ],
    [
        {"model": "l", "created_at": "x", "response": "hi", "logprobs": [{"token": "hi", "logprob": -0.5}], "done": False},
        {"done": True, "done_reason": "length"},
    ],
    [{"model": "l", "message": {"content": "a"}, "done": False}, {"error": "an error was encountered"}],
]
EMBEDDED = {"model": "l", "embeddings": [[0.5, 0.25]], "prompt_eval_count": 2}


def _sse(stream: list[Any]) -> bytes:
    return b"".join(encode_event(event.encode() if isinstance(event, str) else json.dumps(event).encode()) for event in stream)


def _ndjson(lines: list[Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def starts_sse() -> list[bytes]:
    return [b"\x02" + _sse(stream) for stream in STREAMS] + [
        b"\x01: ping\r\n\r\ndata:a\r\ndata: b\r\n\r\nevent: x\nid: 1\n\ndata: end"
    ]


def starts_openai() -> list[bytes]:
    # dialect, path, stream, status, flags
    made = [bytes([kind, path, 1, 0, 255]) + _sse(stream) for stream in STREAMS for kind in range(3) for path in (0, 2)]
    made += [
        bytes([kind, path, 0, 0, 255]) + json.dumps(body).encode()
        for body, path in zip(BODIES, (0, 2, 3), strict=True)
        for kind in range(3)
    ]
    made += [bytes([0, 0, 1, 0, 255]) + json.dumps(BODIES[0]).encode(), bytes([0, 0, 1, 0, 8]) + _sse(STREAMS[0])]
    return (
        made
        + [bytes([0, 0, 1, status, 255]) + json.dumps(error).encode() for status, error in enumerate(ERRORS, 4)]
        + [bytes([0, 0, 0, 8, 255]) + b"/v1/elsewhere"]
    )


def starts_ollama() -> list[bytes]:
    made = [bytes([path, 1, 0, 255]) + _ndjson(lines) for lines in LINES for path in (0, 2)]
    made += [
        bytes([path, 0, 0, 255]) + json.dumps(body).encode()
        for path, body in ((0, {**LINES[0][0], **LINES[0][2]}), (2, {**LINES[1][0], "done": True}), (3, EMBEDDED))
    ]
    return made + [bytes([0, 1, status, 255]) + json.dumps(error).encode() for status, error in enumerate(ERRORS, 4)]


def starts_lists() -> list[bytes]:
    bodies: list[Any] = [
        {"object": "list", "data": [{"id": "m", "object": "model"}]},
        {"models": [{"name": "llama3:latest", "size": 1}, {"name": "x:cloud", "remote_host": "https://ollama.com"}]},
        {"models": [{"name": "llama3:latest", "context_length": 4096, "expires_at": "x"}]},
        {
            "id": "Llama",
            "object": "model",
            "parameters": {"max_seq_len": 4096, "cache_size": 4096, "cache_mode": "Q8", "use_vision": True},
        },
    ]
    return [json.dumps(body).encode() for body in bodies]


def starts_lifecycle() -> list[bytes]:
    loading = [
        {"model_type": kind, "module": at, "modules": 3, "status": status}
        for kind, at, status in (("draft", 3, "finished"), ("model", 1, "processing"), ("model", 3, "finished"))
    ]
    pulling = [
        {"status": "pulling manifest"},
        {"status": "pulling", "digest": "sha256:1", "total": 10, "completed": 5},
        {"status": "success"},
    ]
    return [
        b"\0\x20" + _sse(loading),
        b"\0\x20" + _ndjson(pulling),
        *(b"\0\0" + body for body in starts_lists()),
        *(b"\x04\0" + json.dumps(error).encode() for error in ERRORS),
    ]


def starts_refusals() -> list[bytes]:
    made = [bytes([100, 0]) + json.dumps(error).encode() for error in ERRORS] + [b"\x64\0<html><title>Login</title></html>"]
    return [*made, b"\x81\x0010", b"\x81\0Mon, 30 Nov 2026 10:00:10 GMT\nMon, 30 Nov 2026 10:00:00 GMT"]


KEYS = (
    "choices",
    "delta",
    "content",
    "finish_reason",
    "index",
    "tool_calls",
    "function",
    "arguments",
    "usage",
    "error",
    "message",
    "model",
    "data: ",
    "[DONE]",
)
TARGETS = {
    "sse": Target(run_sse, starts_sse, ("data:", "data: ", "\n\n", "\r\n", ": ", "event: ")),
    "lines": Target(run_lines, starts_ollama, ("\r\n", "\n")),
    "openai": Target(run_openai, starts_openai, KEYS, values=True),
    "ollama": Target(
        run_ollama, starts_ollama, (*KEYS, "done", "response", "thinking", "done_reason", "embeddings", "created_at"), values=True
    ),
    "lists": Target(
        run_lists, starts_lists, ("data", "models", "id", "name", "parameters", "max_seq_len", "context_length"), values=True
    ),
    "lifecycle": Target(
        run_lifecycle,
        starts_lifecycle,
        ("status", "digest", "total", "completed", "module", "modules", "model_type", "success"),
        values=True,
    ),
    "refusals": Target(
        run_refusals,
        starts_refusals,
        ("error", "detail", "message", '"n_ctx": ', '"n_prompt_tokens": ', "GMT", "prompt length "),
        values=True,
    ),
}
