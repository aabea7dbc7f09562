"""The whole path with the real model: two llama.cpp servers behind a Router, killed, restarted, asked by the openai package."""

from __future__ import annotations

import asyncio
import html
import io
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import hydra_infer as hydra
from hydra_infer import Backend, Router, StreamBroken
from hydra_infer.engines.llama_server import LlamaServer, serve
from hydra_infer.ops.demo import demo

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("no_leaks")]

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
MODEL = "smollm2"
KEY = "test-key"
LONG = {"max_tokens": 400, "temperature": 0}
SHORT = {"max_tokens": 6, "temperature": 0}


def start(name: str, port: int = 0) -> LlamaServer:
    return serve(MODEL, name=name, context=1024, slots=2, threads=1, port=port, api_key=KEY, progress=False)


@pytest.fixture(scope="module")
def smollm2() -> Iterator[hydra.Engine]:
    with hydra.load(MODEL, context=512, slots=2, threads=1, progress=False) as engine:
        yield engine


@pytest.fixture
def servers() -> Iterator[dict[str, LlamaServer]]:
    running = {name: start(name) for name in ("first", "second")}
    yield running
    for server in running.values():
        server.close()


def backends(servers: dict[str, LlamaServer]) -> list[Backend]:
    return [Backend.openai(server.url, models=[MODEL], name=name, api_key=KEY) for name, server in servers.items()]


def test_the_demo_tells_its_story_and_leaves_nothing_behind() -> None:
    told = io.StringIO()

    def say(*words: Any, **options: Any) -> None:
        print(*words, file=told, **options)

    demo(say)
    text = told.getvalue()
    assert "fits in system RAM" in text
    assert text.index("1. dead: ") < text.index("2. first: answered") < text.index("2. second: answered")
    assert "tokens per second" in text
    # The README's picture of it (make terminal-picture) is of this story.
    picture = (PICTURES / "failover.svg").read_text(encoding="utf-8")
    drawn = [html.unescape(line) for line in re.findall(r'class="(?:head|said)"[^>]*>([^<]+)<', picture)]
    assert len(drawn) >= 4
    assert [line for line in drawn if line not in text] == ["$ hydra-infer demo"]


def test_the_openai_package_sync_and_async_plain_and_streamed(servers: dict[str, LlamaServer]) -> None:
    messages: Any = [{"role": "user", "content": "Say hello."}]
    with Router([Backend.openai("127.0.0.1:9", models=[MODEL], name="dead"), *backends(servers)]) as router:
        wired = openai.OpenAI(base_url="http://hydra.invalid/v1", api_key="-", http_client=router.client())
        texts = set()
        for client in (router.openai(), wired):
            texts.add(client.chat.completions.create(model=MODEL, messages=messages, **SHORT).choices[0].message.content)
            pieces = client.chat.completions.create(model=MODEL, messages=messages, stream=True, **SHORT)
            texts.add("".join(piece.choices[0].delta.content or "" for piece in pieces))

        async def main() -> None:
            wired = openai.AsyncOpenAI(base_url="http://hydra.invalid/v1", api_key="-", http_client=router.aio.client())
            for client in (router.aio.openai(), wired):
                reply = await client.chat.completions.create(model=MODEL, messages=messages, **SHORT)
                texts.add(reply.choices[0].message.content)
                pieces = await client.chat.completions.create(model=MODEL, messages=messages, stream=True, **SHORT)
                texts.add("".join([piece.choices[0].delta.content or "" async for piece in pieces]))

        asyncio.run(main())
        assert len(texts) == 1  # the same model at temperature 0, whichever way it was asked
        assert texts.pop()


@pytest.mark.parametrize("face", ["sync", "async"])
def test_killed_in_the_middle_of_a_stream_then_the_other_then_back(servers: dict[str, LlamaServer], face: str) -> None:
    router = Router(backends(servers), cooldown=1.0)
    port = servers["first"].port
    text: list[str] = []

    def kill() -> None:
        os.kill(servers["first"].pid, signal.SIGTERM if os.name == "nt" else signal.SIGKILL)

    def sync() -> None:
        for index, chunk in enumerate(router.stream(MODEL, "Tell me a long story.", **LONG)):
            text.append(chunk.text)
            if index == 3:
                kill()

    async def loop() -> None:
        async for chunk in await router.aio.stream(MODEL, "Tell me a long story.", **LONG):
            text.append(chunk.text)
            if len(text) == 4:
                kill()

    with pytest.raises(StreamBroken) as caught:
        sync() if face == "sync" else asyncio.run(loop())
    assert caught.value.backend == "first"
    assert caught.value.text == "".join(text) != ""
    assert router.chat(MODEL, "Hi", **SHORT).backend == "second"
    servers["first"].close()
    servers["first"] = start("first", port)
    time.sleep(1.1)
    assert router.chat(MODEL, "Hi", **SHORT).backend == "first"
    router.close()


def test_an_engine_in_this_process_is_one_more_backend(smollm2: hydra.Engine) -> None:
    with Router([Backend.openai("127.0.0.1:9", models=[MODEL]), Backend.engine(smollm2)]) as router:
        reply = router.chat(MODEL, "Say hello.", **SHORT)
        assert (reply.backend, reply.usage.completion_tokens) == (f"engine:{MODEL}", 6)
        assert reply.text == smollm2.chat("Say hello.", **SHORT).text
        assert reply.timings.decode_tps
        assert len(router.embed(MODEL, ["a", "b"]).embeddings[1]) == 576
        assert router.complete(MODEL, "Once upon a", **SHORT).text
        too_long = "word " * 3000
        with pytest.raises(hydra.ContextTooLong):
            router.chat(MODEL, too_long)

        async def main() -> str:
            return (await router.aio.chat(MODEL, "Say hello.", **SHORT)).text

        assert asyncio.run(main()) == reply.text


def test_two_streams_at_once_from_one_engine_and_leaving_one_frees_its_slot(smollm2: hydra.Engine) -> None:
    with Router([Backend.engine(smollm2, max_parallel=2)]) as router:
        leaving = router.stream(MODEL, "Count to one hundred.", **LONG)
        next(leaving)
        texts: list[str] = []
        other = threading.Thread(target=lambda: texts.append(router.chat(MODEL, "Say hello.", **SHORT).text))
        other.start()
        other.join(30)
        assert texts
        leaving.close()
        assert router._board.pool.places[0].in_flight == 0
        ends_at = time.monotonic() + 10
        while smollm2.stats()["in_flight"]:
            assert time.monotonic() < ends_at
            time.sleep(0.02)
