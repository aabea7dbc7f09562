"""The llama.cpp engine with a real small model: short prompts, few tokens, one thread."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from hydra_infer.engines.engine import Engine
from hydra_infer.engines.load import load
from hydra_infer.errors import ConfigError, ContextTooLong, Refused
from hydra_infer.reply import Reply

pytestmark = pytest.mark.model

LONG = "Write a very long story about the sea."


@pytest.fixture(scope="module")
def smollm2() -> Iterator[Engine]:
    """SmolLM2 on one thread, two slots of 512 tokens."""
    with load("smollm2", context=512, slots=2, threads=1, progress=False) as engine:
        yield engine


def eventually(true: Callable[[], bool]) -> None:
    """Wait for what another thread or process is about to bring about."""
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_chat(smollm2: Engine) -> None:
    reply = smollm2.chat("Hi", max_tokens=8, temperature=0)
    assert reply.text
    assert reply.finish_reason == "length"
    assert (reply.model, reply.backend) == ("smollm2", "llamacpp")
    assert reply.usage.completion_tokens == 8
    assert reply.raw["object"] == "chat.completion"
    assert reply.timings.ttft is not None
    assert reply.timings.decode_tps == reply.raw["timings"]["predicted_per_second"]
    assert json.loads(json.dumps(reply.to_dict()))["text"] == reply.text


def test_the_same_question_has_the_same_answer_in_every_way(smollm2: Engine) -> None:
    options: dict[str, Any] = {"max_tokens": 8, "temperature": 0, "seed": 1}
    messages = [{"role": "user", "content": "Name a colour."}]
    with smollm2.stream(messages, **options) as stream:
        pieces = [chunk.text for chunk in stream if chunk.text]

    async def ask() -> tuple[str, str]:
        aio = smollm2.aio
        async with aio.stream(messages, **options) as stream:
            streamed = "".join([chunk.text async for chunk in stream])
        return streamed, (await aio.chat(messages, **options)).text

    assert len(pieces) > 1
    assert {"".join(pieces), stream.reply.text, *asyncio.run(ask())} == {smollm2.chat(messages, **options).text}


def test_generate_takes_the_prompt_verbatim(smollm2: Engine) -> None:
    reply = smollm2.generate("Once upon a", max_tokens=4, temperature=0)
    assert reply.usage.prompt_tokens == len(smollm2.tokenize("Once upon a"))
    assert reply.raw["object"] == "text_completion"
    assert reply.text


def test_submit_ends_with_usage_and_llama_cpps_own_timings(smollm2: Engine) -> None:
    events = list(smollm2.submit({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}))
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert events[-1]["usage"]["completion_tokens"] == 2
    assert events[-1]["timings"]["predicted_n"] == 2


def test_leaving_a_stream_early_frees_the_slot(smollm2: Engine) -> None:
    before = smollm2.stats()["cancelled"]
    with smollm2.stream(LONG, max_tokens=400) as stream:
        for chunk in stream:
            if chunk.text:
                break
        assert smollm2.stats()["busy"] == 1
    eventually(lambda: smollm2.stats()["busy"] == 0)
    assert smollm2.stats()["cancelled"] == before + 1
    assert stream.reply.finish_reason is None
    # llama.cpp itself stopped, long before 400 tokens: its log tells of both.
    log: Callable[[], tuple[str, ...]] = lambda: smollm2._core._driver._server.log  # type: ignore[attr-defined]  # noqa: E731
    eventually(lambda: "stop processing" in next(line for line in reversed(log()) if "launch_slot" in line or "stop pro" in line))
    assert any("cancel task" in line for line in log())


def test_more_requests_than_slots_all_end(smollm2: Engine) -> None:
    answers = smollm2.batch(["Hi", "Hello", "Good day"], max_tokens=4, progress=False)
    assert [isinstance(answer, Reply) for answer in answers] == [True] * 3
    eventually(lambda: (smollm2.stats()["busy"], smollm2.stats()["waiting"]) == (0, 0))


def test_an_error_in_a_batch_stands_in_its_place(smollm2: Engine) -> None:
    first, second, third = smollm2.batch(["Hi", "word " * 600, "Hi"], max_tokens=2, temperature=0)
    assert isinstance(second, ContextTooLong)
    assert isinstance(first, Reply)
    assert isinstance(third, Reply)


def test_embeddings(smollm2: Engine) -> None:
    found = smollm2.embed(["the cat sat", "le chat"])
    assert [len(vector) for vector in found.embeddings] == [576, 576]
    assert math.hypot(*found.embeddings[0]) == pytest.approx(1.0, abs=1e-3)
    assert found.embeddings[0] != found.embeddings[1]
    assert found.usage.prompt_tokens is not None
    assert smollm2.chat("Hi", max_tokens=2).text  # one context serves both
    with pytest.raises(ContextTooLong) as caught:
        smollm2.embed("word " * 700)
    assert caught.value.context == 512


def test_tokens_come_back_as_text(smollm2: Engine) -> None:
    text = "Grüße, 世界! \n\tend"
    ids = smollm2.tokenize(text)
    assert len(ids) > 5
    assert smollm2.detokenize(ids) == text


def test_a_prompt_that_is_too_long(smollm2: Engine) -> None:
    with pytest.raises(ContextTooLong, match="the context is 512") as caught:
        smollm2.chat("word " * 600)
    assert caught.value.context == 512
    assert caught.value.tokens is not None
    assert caught.value.tokens > 600


def test_a_json_schema_binds_the_answer(smollm2: Engine) -> None:
    schema = {"type": "string", "enum": ["perhaps", "surely"]}
    shape = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    reply = smollm2.chat("Is water wet?", response_format=shape, max_tokens=16, temperature=0)
    assert json.loads(reply.text) in ("perhaps", "surely")


def test_what_llama_cpp_refuses_is_told_in_its_words(smollm2: Engine) -> None:
    with pytest.raises(Refused, match="max_tokens") as caught:
        smollm2.chat("Hi", max_tokens="many")
    assert caught.value.status == 400
    with pytest.raises(ConfigError, match="cannot be written as JSON"):
        smollm2.chat("Hi", seed=float("nan"))
    with pytest.raises(ConfigError, match="did you mean 'min_p'"):
        smollm2.chat("Hi", mnp=0.1)


def test_memory_and_stats(smollm2: Engine) -> None:
    held = smollm2.memory().host
    assert held is None or held > 90 * 2**20
    stats = smollm2.stats()
    assert (stats["alive"], stats["threads"]) == (True, 1)
    assert json.dumps(stats)


def test_nobody_gets_in_without_the_key(smollm2: Engine) -> None:
    url = smollm2.stats()["url"]
    with httpx.Client(trust_env=False) as client:
        assert client.get(f"{url}/v1/models").status_code == 401
        assert client.post(f"{url}/v1/chat/completions", json={"messages": []}).status_code == 401
        answer = client.options(f"{url}/v1/models", headers={"Origin": "http://evil.example"})
    assert not answer.headers.get("access-control-allow-origin")
    assert answer.headers.get("access-control-allow-credentials") != "true"
