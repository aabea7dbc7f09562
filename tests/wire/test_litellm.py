"""LiteLLM's headers: who answered behind it, what it cost, and its own fallbacks."""

from __future__ import annotations

from typing import Any

import pytest
from servers.fault import FaultServer, chunked, head, sse, word
from transport.faces import both, chat

from hydra_infer import Backend, Router

pytestmark = pytest.mark.usefixtures("no_leaks")

USAGE = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}}


def answer(**headers: Any) -> list[Any]:
    _, *body = chunked(word("hi"), word("", "stop"), sse(USAGE), sse(b"[DONE]"))
    return [head(200, "text/event-stream", transfer_encoding="chunked", **headers), *body]


def ask(face: str, *, router: Router) -> Any:
    try:
        return chat(face, router)
    finally:
        router.close()


@both
def test_who_answered_and_what_it_cost(face: str) -> None:
    told = {
        "x_litellm_model_id": "7f3a",
        "x_litellm_model_api_base": "http://gpu-box:5000/v1",
        "x_litellm_model_group": "m",
        "x_litellm_response_cost": "0.00042",
        "x_litellm_attempted_retries": "1",
        "x_litellm_attempted_fallbacks": "0",
    }
    with FaultServer(answer(**told)) as server:
        router = Router([Backend.litellm(server.url, models=["m"], input_cost_per_token=1.0)])
        reply = chat(face, router)
        assert reply.upstream == {
            "deployment": "7f3a",
            "url": "http://gpu-box:5000/v1",
            "group": "m",
            "cost": 0.00042,
            "retries": 1,
            "fallbacks": 0,
        }
        assert reply.warnings == ()
        assert router.usage().total.cost == 0.00042  # its own word, not ours
        router.close()


@both
def test_without_a_cost_the_backends_prices_count(face: str) -> None:
    with FaultServer(answer(x_litellm_response_cost="None", x_litellm_model_id="7f3a")) as server:
        router = Router([Backend.litellm(server.url, models=["m"], input_cost_per_token=0.5, output_cost_per_token=1.0)])
        assert chat(face, router).upstream == {"deployment": "7f3a"}
        assert router.usage().total.cost == 7.0
        router.close()


@both
def test_its_own_fallback_is_a_warning(face: str) -> None:
    with FaultServer(answer(x_litellm_attempted_fallbacks="1", x_litellm_model_group="cheap")) as server:
        reply = ask(face, router=Router([Backend.litellm(server.url, models=["m"])]))
        assert reply.warnings == ("LiteLLM fell back from 'm': 'cheap' answered",)


@both
def test_another_server_tells_nothing_of_the_kind(face: str) -> None:
    with FaultServer(answer(x_litellm_model_id="7f3a")) as server:
        assert ask(face, router=Router([Backend.openai(server.url, models=["m"])])).upstream is None
