"""The knowledge base's fleet: a 70B model on TabbyAPI, Ollama on a card and on a CPU, and a LiteLLM proxy in front of more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from servers.fault import FaultServer, hello
from servers.ollama import OllamaServer, Tag
from servers.tabby import ADMIN_KEY, API_KEY, Folder, TabbyServer

from hydra_infer import Backend, Router

pytestmark = pytest.mark.usefixtures("no_leaks")

BIG, SMALL = "Llama-3.1-70B-EXL3-4.0bpw", "Llama-3.1-8B-EXL3-4.0bpw"
ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}


@dataclass
class Fleet:
    tabby: TabbyServer
    gpu: OllamaServer
    cpu: OllamaServer
    proxy: FaultServer
    router: Router
    face: str

    def chat(self, model: str = "llama-70b", **fields: Any) -> Any:
        """One chat, by either face."""
        if self.face == "sync":
            return self.router.chat(model, "hello", **fields)
        return asyncio.run(self.router.aio.chat(model, "hello", **fields))

    def why(self, backend: str, model: str = "llama-70b") -> str:
        """What explain says of one backend now."""
        return next(option.why for option in self.router.explain(model).options if option.backend == backend)

    def order(self, model: str = "llama-70b") -> list[str]:
        return self.router.explain(model).order

    def rest(self) -> None:
        """As if every cooldown were over."""
        pool = self.router._board.pool
        for place in pool.places:
            place.rests_until = None if place.rests_until is None else pool._clock()


@pytest.fixture(params=["sync", "async"])
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    with ExitStack() as stack:
        tabby = stack.enter_context(TabbyServer({BIG: Folder(seconds=1.0), SMALL: Folder()}, BIG))
        gpu = stack.enter_context(OllamaServer({"llama3.1:70b": Tag(), "llama3.1:8b": Tag()}, parallel=2))
        cpu = stack.enter_context(OllamaServer({"llama3.1:8b": Tag(), "nomic-embed-text": Tag()}, gpu=False))
        proxy = stack.enter_context(FaultServer(hello("litellm")))
        backends = [
            Backend.tabby(tabby.url, {"llama-70b": BIG}, api_key=API_KEY, name="tabby"),
            Backend.ollama(gpu.url, {"llama-70b": "llama3.1:70b", "llama-8b": "llama3.1:8b"}, name="ollama-gpu"),
            Backend.ollama(cpu.url, {"llama-8b": "llama3.1:8b", "embed": "nomic-embed-text"}, name="ollama-cpu"),
            Backend.litellm(proxy.url, api_key="sk-proxy", models=["llama-70b", "cloud"], name="litellm"),
        ]
        fallbacks = {"llama-70b": ["llama-8b"]}
        router = stack.enter_context(Router(backends, fallbacks=fallbacks, retries=0))
        yield Fleet(tabby, gpu, cpu, proxy, router, request.param)


def load(server: TabbyServer, model: str) -> None:
    """An operator loads another model."""
    httpx.post(f"{server.url}/v1/model/load", json={"model_name": model}, headers=ADMIN, timeout=20, trust_env=False)


def test_the_big_model_is_answered_by_tabbyapi_while_it_is_there(fleet: Fleet) -> None:
    assert fleet.order() == ["tabby", "ollama-gpu", "litellm", "ollama-gpu", "ollama-cpu"]
    reply = fleet.chat()
    assert (reply.backend, reply.model, reply.text) == ("tabby", "llama-70b", "hello")
    assert [attempt.result for attempt in reply.attempts] == ["answered"]
    assert fleet.why("tabby").startswith("first choice")
    assert fleet.why("ollama-cpu").startswith("fallback for llama-70b")
    assert reply.usage.completion_tokens == 1  # asked for: TabbyAPI tells nothing by itself
    assert {asked.path for asked in fleet.gpu.requests} <= {"/api/tags", "/api/ps"}


def test_while_tabbyapi_loads_ollama_answers_and_afterwards_it_does_not(fleet: Fleet) -> None:
    assert fleet.chat().backend == "tabby"
    load(fleet.tabby, SMALL)
    loading = threading.Thread(target=load, args=(fleet.tabby, BIG))
    loading.start()
    while fleet.tabby.loaded is not None:
        time.sleep(0.01)
    reply = fleet.chat()
    assert (reply.backend, reply.model) == ("ollama-gpu", "llama-70b")
    assert "no model is loaded there (or one is being loaded)" in reply.attempts[0].message
    assert fleet.order()[0] == "ollama-gpu"
    assert "resting" in fleet.why("tabby")
    assert "no model is loaded there" in fleet.why("tabby")
    loading.join()
    fleet.rest()
    assert fleet.chat().backend == "tabby"
    assert fleet.why("tabby").startswith("first choice")


def test_another_model_loaded_there_is_noticed_though_tabbyapi_answers_with_it(fleet: Fleet) -> None:
    load(fleet.tabby, SMALL)
    reply = fleet.chat()
    assert (reply.backend, reply.attempts[0].result) == ("ollama-gpu", "no model")
    assert SMALL in reply.attempts[0].message
    assert "resting" in fleet.why("tabby")


def test_when_tabbyapi_dies_ollama_takes_over_until_it_is_back(fleet: Fleet) -> None:
    assert fleet.chat().backend == "tabby"
    fleet.tabby.close()
    reply = fleet.chat()
    assert (reply.backend, [attempt.result for attempt in reply.attempts]) == ("ollama-gpu", ["unreachable", "answered"])
    assert "resting" in fleet.why("tabby")
    assert [attempt.backend for attempt in fleet.chat().attempts] == ["ollama-gpu"]  # it is known: nobody finds out again
    fleet.tabby.start()
    fleet.rest()
    assert fleet.chat().backend == "tabby"
    assert fleet.why("tabby").startswith("first choice")


def test_down_the_whole_chain_to_a_smaller_model_said_aloud(fleet: Fleet) -> None:
    fleet.tabby.close()
    fleet.proxy.close()
    del fleet.gpu.tags["llama3.1:70b"]
    reply = fleet.chat()
    assert reply.model == "llama-8b"
    assert [attempt.result for attempt in reply.attempts] == ["unreachable", "no model", "unreachable", "answered"]
    assert "answered by 'llama-8b' instead of 'llama-70b'" in reply.warnings
    assert fleet.chat().backend == "ollama-gpu"  # it lacks the large model, not the small one
    fleet.gpu.close()
    assert fleet.chat().backend == "ollama-cpu"
    assert [option.backend for option in fleet.router.explain("llama-70b").options if option.asked] == ["ollama-cpu"]


def test_the_proxy_answers_for_its_own_models_and_keys_stay_where_they_belong(fleet: Fleet) -> None:
    assert fleet.chat("cloud").backend == "litellm"
    assert {headers.get("authorization") for _, _, headers, _ in fleet.proxy.requests} == {"Bearer sk-proxy"}
    fleet.chat()
    fleet.chat("llama-8b")
    assert {asked.headers["authorization"] for asked in fleet.tabby.requests} == {f"Bearer {API_KEY}"}
    assert all("authorization" not in asked.headers for asked in (*fleet.gpu.requests, *fleet.cpu.requests))


def test_a_stream_that_breaks_is_told_and_the_next_call_goes_elsewhere(fleet: Fleet) -> None:
    with pytest.raises(Exception, match="aborted") as caught:
        fleet.router.chat("llama-70b", "[[oom_mid]][[delay:0.02]]a b c d e")
    assert getattr(caught.value, "text", "") == "a b c"
    assert fleet.chat().backend == "ollama-gpu"
    assert "aborted" in fleet.why("tabby")
