"""Backends of every kind through the Router: each is asked in its own words, and looked at before."""

from __future__ import annotations

import json
from typing import Any

import pytest
from servers.fault import FaultServer, plain
from transport.faces import both, chat, stream

from hydra_infer import Backend, Router
from hydra_infer.routing.backend import LocalModel

pytestmark = pytest.mark.usefixtures("no_leaks")


def paths(server: FaultServer) -> list[str]:
    return [path for _, path, *_ in server.requests]


def lines(*rows: dict[str, Any]) -> list[bytes]:
    return plain(b"".join(json.dumps(row).encode() + b"\n" for row in rows), content_type="application/x-ndjson")


@both
def test_ollama_is_looked_at_once_and_asked_with_the_context_it_has_loaded(face: str) -> None:
    tags = plain({"models": [{"name": "llama3.1:8b"}]})
    loaded = plain({"models": [{"name": "llama3.1:8b", "context_length": 16384}]})
    answer = lines({"message": {"content": "hi"}, "done": False}, {"done": True, "done_reason": "stop", "eval_count": 1})
    with FaultServer(tags, loaded, answer) as server:
        router = Router([Backend.ollama(server.url, {"m": "llama3.1:8b"})])
        assert chat(face, router).text == "hi"
        assert chat(face, router).usage.completion_tokens == 1
        assert paths(server) == ["/api/tags", "/api/ps", "/api/chat", "/api/chat"]
        assert json.loads(server.requests[-1][3])["options"] == {"num_ctx": 16384}
        router.close()


@both
def test_an_ollama_that_will_not_say_what_is_loaded_is_asked_all_the_same(face: str) -> None:
    answer = lines({"message": {"content": "hi"}, "done": True, "done_reason": "stop"})
    with FaultServer(plain({"models": []}), plain({}, 500), answer) as server:
        router = Router([Backend.ollama(server.url, ["m"])])
        assert chat(face, router).text == "hi"
        assert json.loads(server.requests[-1][3])["options"] == {"num_ctx": 8192}
        router.close()


@both
def test_tabbyapi_without_a_model_is_passed_over(face: str) -> None:
    nothing = plain({"detail": "No models are currently loaded."}, 503)
    failed = plain(b"Internal Server Error", 500, content_type="text/plain; charset=utf-8")
    body = {"model": "x", "choices": [{"index": 0, "message": {"content": "spare"}, "finish_reason": "stop"}]}
    with FaultServer(plain({"data": []}), nothing, failed) as tabby, FaultServer(plain(body)) as spare:
        router = Router(
            [Backend.tabby(tabby.url, {"m": "Llama-70B"}, name="tabby"), Backend.openai(spare.url, models=["m"], name="spare")]
        )
        pieces: list[str] = []
        reply = stream(face, router, pieces)
        assert (reply.backend, reply.text) == ("spare", "spare")
        assert "no model is loaded" in reply.attempts[0].message
        assert paths(tabby) == ["/v1/models", "/v1/model", "/v1/chat/completions"]
        router.close()


@both
def test_warnings_of_the_dialect_reach_the_reply(face: str) -> None:
    body = {
        "model": "x",
        "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop", "eos_reason": "stop_token"}],
    }
    with FaultServer(plain({"data": []}), plain({"id": "x"}), plain(body)) as server:
        router = Router([Backend.tabby(server.url, {"m": "default"})])
        assert chat(face, router, presence_penalty=-1).warnings == (
            "TabbyAPI takes no negative presence_penalty: -1 was sent as 0",
        )
        router.close()


LOADED = lines({"done": True, "done_reason": "load"})
TAGS, NOTHING_LOADED = plain({"models": [{"name": "m"}]}), plain({"models": []})
ANSWER = lines({"message": {"content": "hi"}, "done": True, "done_reason": "stop"})
SPARE = plain({"choices": [{"index": 0, "message": {"content": "spare"}, "finish_reason": "stop"}]})


@both
def test_a_cold_ollama_is_warmed_first_and_then_known_to_be_warm(face: str) -> None:
    with FaultServer(TAGS, NOTHING_LOADED, [0.3, *LOADED], ANSWER) as server:
        router = Router([Backend.ollama(server.url, ["m"])])
        assert chat(face, router).text == "hi"
        assert chat(face, router).text == "hi"
        assert paths(server) == ["/api/tags", "/api/ps", "/api/generate", "/api/chat", "/api/chat"]
        warm, first = (json.loads(server.requests[index][3]) for index in (2, 3))
        assert warm == {"model": "m", "stream": False, "options": {"num_ctx": 8192}}
        assert first["options"] == warm["options"]  # another num_ctx would load the model again
        router.close()


@both
def test_moving_on_from_a_cold_ollama_leaves_its_load_going(face: str) -> None:
    with FaultServer(TAGS, NOTHING_LOADED, [0.6, *LOADED], ANSWER) as server, FaultServer(SPARE) as spare:
        router = Router(
            [Backend.ollama(server.url, ["m"], name="o"), Backend.openai(spare.url, models=["m"])], first_token_timeout=0.2
        )
        reply = chat(face, router)
        assert (reply.text, reply.attempts[0].result) == ("spare", "loading")
        assert "still being loaded" in reply.attempts[0].message
        assert not server.left.wait(1.0)  # nobody left: the load came to its end
        assert router._board.pool.service(router._board.pool.places[0], LocalModel("m")) == (8192, False)
        router.close()


@both
def test_a_load_that_fails_is_told(face: str) -> None:
    failed = plain({"error": "llama runner process has terminated: out of memory"}, 500)
    with FaultServer(TAGS, NOTHING_LOADED, failed) as server, FaultServer(SPARE) as spare:
        router = Router([Backend.ollama(server.url, ["m"], name="o"), Backend.openai(spare.url, models=["m"])])
        reply = chat(face, router)
        assert (reply.text, reply.attempts[0].message) == (
            "spare",
            "HTTP 500: llama runner process has terminated: out of memory",
        )
        router.close()


def test_closing_the_router_ends_what_goes_on_in_the_background() -> None:
    with FaultServer(TAGS, NOTHING_LOADED, [30.0]) as server, FaultServer(SPARE) as spare:
        router = Router([Backend.ollama(server.url, ["m"]), Backend.openai(spare.url, models=["m"])], first_token_timeout=0.2)
        assert router.chat("m", "hi").text == "spare"
        router.close()
        assert server.left.wait(5)
