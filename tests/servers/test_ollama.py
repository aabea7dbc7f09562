"""The Ollama stand-in, asked by the official client; and the Router, asked for the same things of the same server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import pytest
from servers.ollama import OllamaServer, Tag

from hydra_infer import Backend, ContextTooLong, Router

pytestmark = pytest.mark.usefixtures("no_leaks")

TAGS = {
    "llama3.1:8b": Tag(),
    "qwen3": Tag(capabilities=("completion", "tools", "thinking")),
    "nomic-embed-text": Tag(capabilities=("embedding",)),
    "glm:cloud": Tag(remote_host="https://ollama.com:443"),
}
HELLO = [{"role": "user", "content": "one two three"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}


@pytest.fixture
def server() -> Iterator[OllamaServer]:
    with OllamaServer(TAGS, library={"tiny": Tag(size=1000)}) as server:
        yield server


@pytest.fixture
def client(server: OllamaServer) -> Iterator[ollama.Client]:
    client = ollama.Client(server.url, trust_env=False)
    yield client
    client._client.close()


@pytest.fixture
def router(server: OllamaServer) -> Iterator[Router]:
    models = {"chat": "llama3.1:8b", "thinker": "qwen3", "embed": "nomic-embed-text"}
    with Router([Backend.ollama(server.url, models)], retries=0) as router:
        yield router


# ---- the official client ---------------------------------------------------------------------------------------------


def test_the_client_chats_and_streams(client: ollama.Client) -> None:
    whole = client.chat("llama3.1:8b", HELLO)
    assert (whole.message.content, whole.done_reason, whole.eval_count) == ("one two three", "stop", 3)
    assert whole.total_duration
    pieces = list(client.chat("llama3.1:8b", HELLO, stream=True, options={"num_predict": 2}))
    assert [piece.message.content for piece in pieces] == ["one", " two", ""]
    assert (pieces[-1].done, pieces[-1].done_reason, pieces[-1].prompt_eval_count) == (True, "length", 3)
    assert client.generate("llama3.1:8b", "once upon").response == "once upon"


def test_the_async_client_chats_and_streams(server: OllamaServer) -> None:
    async def main() -> list[str | None]:
        client = ollama.AsyncClient(server.url, trust_env=False)
        pieces = [piece.message.content async for piece in await client.chat("qwen3", HELLO, stream=True)]
        whole = await client.chat("qwen3", HELLO)
        await client._client.aclose()
        return [*pieces, whole.message.content]

    assert asyncio.run(main()) == ["one", " two", " three", "", "one two three"]


def test_the_client_calls_tools_thinks_and_fills_schemas(client: ollama.Client) -> None:
    first = client.chat("llama3.1:8b", HELLO, tools=[WEATHER]).message
    assert first.tool_calls is not None
    assert (first.tool_calls[0].function.name, first.tool_calls[0].function.arguments) == ("weather", {"city": "Basel"})
    told = [*HELLO, first, {"role": "tool", "tool_name": "weather", "content": "sunny"}]
    assert client.chat("llama3.1:8b", told, tools=[WEATHER]).message.content == "sunny"
    thought = client.chat("qwen3", [{"role": "user", "content": "[[think]]yes"}], think=True).message
    assert (thought.thinking, thought.content) == ("pondering this", "yes")
    assert client.chat("llama3.1:8b", HELLO, format=SCHEMA).message.content == '{"city": "Basel", "days": 3}'


def test_the_client_lists_shows_pulls_copies_deletes(client: ollama.Client) -> None:
    assert [row.model for row in client.list().models] == ["llama3.1:8b", "qwen3:latest", "nomic-embed-text:latest", "glm:cloud"]
    assert client.show("qwen3").modelinfo == {
        "general.architecture": "llama",
        "llama.context_length": 131072,
        "llama.block_count": 32,
    }
    told = list(client.pull("tiny", stream=True))
    assert [row.completed for row in told if row.digest] == [None, 500, 1000]
    assert told[-1].status == "success"
    client.copy("tiny", "mine")
    client.delete("tiny")
    assert {row.model for row in client.list().models} >= {"mine:latest"}
    with pytest.raises(ollama.ResponseError, match="pull model manifest: file does not exist"):
        list(client.pull("nobody", stream=True))


def test_what_is_loaded_and_for_how_long(server: OllamaServer, client: ollama.Client) -> None:
    assert client.ps().models == []
    client.generate("qwen3", keep_alive="10m")
    client.chat("llama3.1:8b", HELLO, options={"num_ctx": 8192}, keep_alive=-1)
    loaded = {row.model: row for row in client.ps().models}
    assert (loaded["llama3.1:8b"].context_length, loaded["qwen3:latest"].context_length) == (8192, 4096)
    assert loaded["llama3.1:8b"].expires_at is not None
    assert loaded["llama3.1:8b"].expires_at.year > 2200
    assert client.generate("qwen3", keep_alive=0).done_reason == "unload"
    assert client.chat("llama3.1:8b", HELLO).done_reason == "stop"  # another num_ctx: loaded again
    assert server.loaded == ["llama3.1:8b"]
    assert [options["num_ctx"] for _, options in server.loads] == [4096, 8192, 4096]
    client.chat("llama3.1:8b", HELLO, keep_alive=0.05)
    time.sleep(0.1)
    assert server.loaded == []


def test_the_client_embeds(client: ollama.Client) -> None:
    one, two = client.embed("nomic-embed-text", ["a b", "c"]).embeddings
    assert sum(x * x for x in one) == pytest.approx(1)
    assert (len(two), one == two) == (64, False)
    assert len(client.embed("nomic-embed-text", "a", dimensions=8).embeddings[0]) == 8


@pytest.mark.parametrize(
    ("call", "status", "words"),
    [
        (lambda client: client.chat("nobody", HELLO), 404, "model 'nobody' not found"),
        (lambda client: client.embed("nobody", "a"), 404, "try pulling it first"),
        (lambda client: client.chat("glm:cloud", HELLO), 401, "unauthorized"),
        (lambda client: client.chat("nomic-embed-text", HELLO, tools=[WEATHER]), 400, "does not support tools"),
        (lambda client: client.chat("llama3.1:8b", HELLO, think=True), 400, "does not support thinking"),
        (lambda client: client.chat("llama3.1:8b", HELLO, options={"num_ctx": "x"}), 500, 'option "num_ctx" must be of type'),
        (lambda client: client.chat("llama3.1:8b", HELLO, keep_alive="10"), 400, "missing unit in duration"),
        (lambda client: client.chat("llama3.1:8b", [{"role": "user", "content": "[[oom]]"}]), 500, "out of memory"),
    ],
)
def test_the_client_is_told_what_is_wrong(client: ollama.Client, call: Any, status: int, words: str) -> None:
    with pytest.raises(ollama.ResponseError, match=words) as caught:
        call(client)
    assert caught.value.status_code == status


# ---- what it does that its client cannot see -------------------------------------------------------------------------


def test_a_prompt_too_long_is_cut_in_half_without_a_word_unless_that_is_forbidden(server: OllamaServer) -> None:
    body = {"model": "qwen3", "messages": [{"role": "user", "content": "word " * 5000}], "options": {"num_predict": 1}}
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        cut = client.post("/api/chat", json={**body, "stream": False})
        assert (cut.status_code, cut.json()["prompt_eval_count"]) == (200, 2050)
        refused = client.post("/api/chat", json={**body, "truncate": False})
        assert (refused.status_code, "exceed_context_size_error" in refused.json()["error"]) == (400, True)


def test_the_same_token_over_and_over_ends_a_stream_without_done(server: OllamaServer) -> None:
    body = {"model": "qwen3", "messages": [{"role": "user", "content": " again" * 40}]}
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        assert '"done":true' not in client.post("/api/chat", json=body).text


def test_leaving_aborts_a_cold_load_and_lists_wait_for_one() -> None:
    with OllamaServer({"m": Tag(seconds=0.4)}) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/api/generate", json={"model": "m"}, timeout=0.1)
        assert server.left.wait(5)
        assert server.loaded == []
        loading = threading.Thread(target=client.post, args=("/api/generate",), kwargs={"json": {"model": "m"}})
        loading.start()
        while len(server.loads) < 2:
            time.sleep(0.01)
        assert [row["name"] for row in client.get("/api/ps").json()["models"]] == ["m:latest"]
        loading.join()


def test_requests_for_a_loaded_model_wait_their_turn_without_end() -> None:
    with OllamaServer(["m"], max_queue=1) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        body = {"model": "m", "prompt": "[[delay:0.01]]a b c", "stream": False}
        client.post("/api/generate", json=body)
        statuses: list[int] = []
        callers = [
            threading.Thread(target=lambda: statuses.append(client.post("/api/generate", json=body).status_code))
            for _ in range(8)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert statuses == [200] * 8


# ---- the Router ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("face", ["sync", "async"])
def test_the_router_asks_the_same_server_for_the_same_things(face: str, server: OllamaServer, router: Router) -> None:
    def ask(name: str, *args: Any, **fields: Any) -> Any:
        if face == "sync":
            return getattr(router, name)(*args, **fields)
        return asyncio.run(getattr(router.aio, name)(*args, **fields))

    reply = ask("chat", "chat", HELLO)
    assert (reply.text, reply.usage.completion_tokens, reply.finish_reason) == ("one two three", 3, "stop")
    assert reply.timings.decode_tps
    called = ask("chat", "chat", HELLO, tools=[WEATHER]).tool_calls
    assert called[0]["function"] == {"name": "weather", "arguments": '{"city": "Basel"}'}
    result = {"role": "tool", "tool_call_id": called[0]["id"], "content": "sunny"}
    told = [*HELLO, {"role": "assistant", "content": None, "tool_calls": called}, result]
    assert ask("chat", "chat", told, tools=[WEATHER]).text == "sunny"
    assert ask("chat", "thinker", "[[think]]yes").reasoning == "pondering this"
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    assert ask("chat", "chat", HELLO, response_format=wanted).text == '{"city": "Basel", "days": 3}'
    assert ask("complete", "chat", "once upon").text == "once upon"
    assert len(ask("embed", "embed", ["a", "b"]).embeddings) == 2
    with pytest.raises(ContextTooLong) as caught:
        ask("chat", "chat", "word " * 9000)
    assert (caught.value.tokens, caught.value.context) == (9000, 8192)
    assert [options["num_ctx"] for _, options in server.loads] == [8192] * 3  # pinned: no model was loaded twice
    assert router.models() == {"chat": [f"127.0.0.1:{server.port}"]} | {
        name: [f"127.0.0.1:{server.port}"] for name in ("thinker", "embed")
    }


def test_the_router_tells_a_broken_stream_from_a_whole_one(server: OllamaServer, router: Router) -> None:
    with pytest.raises(Exception, match="without done") as caught:
        router.chat("chat", " again" * 40)
    assert "again again" in str(getattr(caught.value, "text", ""))
    with pytest.raises(Exception, match="out of memory") as caught:
        router.chat("chat", "[[oom_mid]][[delay:0.02]] a b c d e")
    assert getattr(caught.value, "text", "") == " a b c"
