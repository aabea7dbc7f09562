"""The example fleet at work: its addresses replaced by those of stand-ins, everything else as it is written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from servers.fault import FaultServer, hello
from servers.ollama import OllamaServer
from servers.tabby import ADMIN_KEY, API_KEY, TabbyServer

from hydra_infer import AsyncRouter, Fleet, Router

HOMELAB = Path(__file__).parents[2] / "examples" / "homelab" / "hydra.yaml"
BIG = "Llama-3.1-70B-EXL3-4.0bpw"

pytestmark = pytest.mark.usefixtures("no_leaks")


@dataclass
class Servers:
    tabby: TabbyServer
    gpu: OllamaServer
    cpu: OllamaServer
    proxy: FaultServer

    @property
    def urls(self) -> dict[str, str]:
        return {"tabby": self.tabby.url, "ollama": self.gpu.url, "ollama-cpu": self.cpu.url, "litellm": self.proxy.url}


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    for name, key in (("TABBY_API_KEY", API_KEY), ("TABBY_ADMIN_KEY", ADMIN_KEY), ("LITELLM_MASTER_KEY", "sk-proxy")):
        monkeypatch.setenv(name, key)
    with ExitStack() as stack:
        yield Servers(
            stack.enter_context(TabbyServer([BIG], BIG)),
            stack.enter_context(OllamaServer(["llama3.1:8b", "qwen2.5:14b", "nomic-embed-text"])),
            stack.enter_context(OllamaServer(["llama3.1:8b", "nomic-embed-text"], gpu=False)),
            stack.enter_context(FaultServer(hello("the proxy"))),
        )


def test_each_model_is_answered_by_the_first_server_that_has_it(servers: Servers) -> None:
    with Router.from_file(HOMELAB, urls=servers.urls) as router:
        answered = {name: router.chat(name, "hello").backend for name in ("llama-70b", "gpt-4", "qwen-14b", "llama-8b")}
        assert answered == {
            "llama-70b": "tabby",
            "gpt-4": "tabby",
            "qwen-14b": "ollama",
            "llama-8b": "ollama",
        }
        assert len(router.embed("embed", ["a", "b"]).embeddings) == 2
        # The contexts are those of the file; nobody got a key that is not its own.
        assert [options["num_ctx"] for name, options in servers.gpu.loads if name == "qwen2.5:14b"] == [16384]
        assert {asked.headers.get("authorization") for asked in servers.tabby.requests} == {f"Bearer {API_KEY}"}
        assert all("authorization" not in asked.headers for asked in (*servers.gpu.requests, *servers.cpu.requests))


def test_when_machines_are_switched_off_the_next_ones_answer(servers: Servers) -> None:
    with Fleet.from_file(HOMELAB, urls=servers.urls).router(retries=0) as router:
        servers.tabby.close()
        assert router.chat("llama-70b", "hello").backend == "litellm"
        assert {headers.get("authorization") for _, _, headers, _ in servers.proxy.requests} == {"Bearer sk-proxy"}
        servers.proxy.close()
        reply = router.chat("llama-70b", "hello")
        assert (reply.backend, reply.model) == ("ollama", "qwen-14b")
        servers.gpu.close()
        assert router.chat("llama-70b", "hello").backend == "ollama-cpu"


def test_a_model_is_loaded_as_the_file_says(servers: Servers) -> None:
    with Fleet.from_file(HOMELAB, urls=servers.urls).router() as router:
        router.unload("llama-70b")
        assert "no model is loaded" in str(router.status()).splitlines()[1]
        done = router.load("llama-70b")
        assert (done.backend, done.context) == ("tabby", 32768)
        assert [(load["max_seq_len"], load["cache_mode"]) for load in servers.tabby.loads] == [(32768, "8,8")]
        assert done.planned.startswith("planned on the cards' whole memory: ")
        assert router.load("qwen-14b").context == 16384


def test_the_same_for_event_loops(servers: Servers) -> None:
    async def main() -> str:
        async with AsyncRouter(**Fleet.from_file(HOMELAB, urls=servers.urls).settings()) as router:
            return str((await router.chat("gpt-4", "hello")).backend)

    assert asyncio.run(main()) == "tabby"


def test_the_plan_of_all_of_it() -> None:
    plan = Fleet.from_file(HOMELAB).plan()
    rows = {(row.server, row.model): row for row in plan.rows}
    assert plan.fits
    assert [name for name, row in rows.items() if row.fits is None] == [("litellm", "llama-70b")]
    big = rows["tabby", "llama-70b"].plan
    assert big is not None
    assert (big.request.engine, big.request.context, big.request.rate.name, big.split) == ("tabby", 32768, "q8", "layers")
    assert big.draft is not None
    assert big.draft.valid
    assert rows["ollama", "llama-8b"].evicts == ("qwen-14b",)
    assert rows["ollama", "qwen-14b"].evicts == ("llama-8b",)
    assert rows["ollama", "embed"].evicts == ()
    assert {host.name: [[model for _, model in group] for group in host.together] for host in plan.hosts} == {
        "big": [["llama-70b"]],
        "small": [["llama-8b", "embed"], ["qwen-14b", "embed"]],
        "quiet": [["llama-8b", "embed"]],
    }


def test_it_is_no_longer_than_a_screen() -> None:
    assert len(HOMELAB.read_text().splitlines()) <= 60
