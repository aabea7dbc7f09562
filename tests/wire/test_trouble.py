"""How servers' own words are sorted."""

from __future__ import annotations

import json

import pytest

from hydra_infer.wire.trouble import Failure, Trouble, error_message, failure_of_error, failure_of_status, overflow_numbers


@pytest.mark.parametrize(
    ("status", "body", "trouble"),
    [
        (400, {"error": {"message": "bad temperature"}}, Trouble.CALLER),
        (413, {}, Trouble.CALLER),
        (422, {"detail": [{"loc": ["body", "messages"], "msg": "field required"}]}, Trouble.CALLER),
        (400, {"error": {"message": "too long", "code": "context_length_exceeded"}}, Trouble.OVERFLOW),
        (400, {"error": {"message": "request (7900 tokens) exceeds the available context size (4096 tokens)"}}, Trouble.OVERFLOW),
        (400, {"error": {"message": "This model's maximum context length is 4096 tokens"}}, Trouble.OVERFLOW),
        (400, {"error": "the prompt is longer than the context length currently available to the model"}, Trouble.OVERFLOW),
        (401, {"error": {"message": "Invalid API Key"}}, Trouble.MISCONFIGURED),
        (403, {}, Trouble.MISCONFIGURED),
        (404, {"error": "model 'x' not found"}, Trouble.NO_MODEL),
        (404, {"error": {"message": "The model `x` does not exist", "code": "model_not_found"}}, Trouble.NO_MODEL),
        (404, {"detail": "Not Found"}, Trouble.NO_PATH),
        (405, {}, Trouble.NO_PATH),
        (501, {"error": {"message": "not supported"}}, Trouble.NO_PATH),
        (429, {}, Trouble.BUSY),
        (503, {"error": {"message": "Loading model", "type": "unavailable_error"}}, Trouble.LOADING),
        (503, {"error": "server busy, please try again.  maximum pending requests exceeded"}, Trouble.BUSY),
        (500, {"error": {"message": "CUDA out of memory"}}, Trouble.FAILED),
        (502, {}, Trouble.FAILED),
        (504, {}, Trouble.SILENT),
    ],
)
def test_statuses(status: int, body: dict[str, object], trouble: Trouble) -> None:
    assert failure_of_status(status, {}, json.dumps(body).encode()).trouble is trouble


def test_the_callers_mistake_keeps_status_and_body() -> None:
    failure = failure_of_status(422, {"content-type": "application/json"}, b'{"detail": "no"}')
    assert (failure.status, failure.body, failure.content_type) == (422, b'{"detail": "no"}', "application/json")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "60"}, 60.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "999999999"}, 86400.0),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT", "date": "Sun, 22 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-5"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert failure_of_status(503, headers, b"").retry_after == seconds


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "a"}}', "a"),
        (b'{"error": "a"}', "a"),
        (b'{"detail": "a"}', "a"),
        (b'{"message": "a"}', "a"),
        (b'{"detail": [{"loc": ["body", "n"], "msg": "bad"}]}', "body.n: bad"),
        (json.dumps({"error": '{"error": {"message": "inner"}}'}).encode(), "inner"),
        (b"<html><title>502 Bad Gateway</title>", "an HTML page titled '502 Bad Gateway'"),
        (b"plain text", "plain text"),
        (b"", ""),
        (b"\xff\xfe", "��"),
        (b"[" * 100000, "[" * 500),
    ],
)
def test_error_messages(body: bytes, message: str) -> None:
    assert error_message(body) == message


def test_an_error_under_status_200_is_the_servers() -> None:
    assert failure_of_error({"message": "aborted"}).trouble is Trouble.FAILED
    assert failure_of_error("text").message == "text"
    assert failure_of_error({"message": "x", "code": "context_length_exceeded"}).trouble is Trouble.OVERFLOW
    assert failure_of_error({"message": "Loading model", "code": 503}).trouble is Trouble.LOADING
    assert failure_of_error({"message": "no such thing", "code": 400}).trouble is Trouble.CALLER


@pytest.mark.parametrize(
    ("message", "body", "numbers"),
    [
        ("request (7900 tokens) exceeds the available context size (4096 tokens), try increasing it", b"", (7900, 4096)),
        ("too long", b'{"error": {"n_prompt_tokens": 7900, "n_ctx": 4096}}', (7900, 4096)),
        ("Prompt length 5023 exceeds the available context size of 4096 tokens", b"", (5023, 4096)),
        (
            "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens.",
            b"",
            (5000, 4096),
        ),
        ("the input length exceeds the context length", b"", (None, None)),
    ],
)
def test_an_overflow_tells_its_numbers_where_it_can(message: str, body: bytes, numbers: tuple[int | None, int | None]) -> None:
    assert overflow_numbers(Failure(Trouble.OVERFLOW, message, body=body)) == numbers
