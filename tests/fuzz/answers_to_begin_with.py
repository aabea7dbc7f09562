"""Sound answers of servers, from which the fuzzing of those that read them begins."""

from __future__ import annotations

import json
from typing import Any

from hydra_infer.wire.sse import encode_event

__all__ = ["starts_lifecycle", "starts_lists", "starts_ollama", "starts_openai", "starts_refusals", "starts_sse"]


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
