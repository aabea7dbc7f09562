"""The openai package, 2.x and 3.x, through router.client(): plain, streamed and with a tool, sync and async."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import pytest
from frameworks.versions import at_least

from hydra_infer import Router

MESSAGES: Any = [{"role": "user", "content": "one two three"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
]
BASE = {"base_url": "http://hydra.invalid/v1", "api_key": "-"}


def test_it_is_no_ancient_release() -> None:
    at_least("openai", 2, 54)


@pytest.mark.parametrize("own", [False, True], ids=["httpx client", "router.openai()"])
def test_sync(router: Router, own: bool) -> None:
    client = router.openai() if own else openai.OpenAI(http_client=router.client(), **BASE)
    chat = client.chat.completions.create
    assert chat(model="llama", messages=MESSAGES).choices[0].message.content == "one two three"
    pieces = [piece.choices[0].delta.content or "" for piece in chat(model="llama", messages=MESSAGES, stream=True)]
    assert pieces[:3] == ["one", " two", " three"]
    calls = chat(model="llama", messages=MESSAGES, tools=TOOLS).choices[0].message.tool_calls
    assert calls is not None
    assert (calls[0].function.name, calls[0].function.arguments) == ("weather", '{"city": "Basel"}')
    result = {"role": "tool", "tool_call_id": calls[0].id, "content": "sunny"}
    told = [*MESSAGES, {"role": "assistant", "tool_calls": [calls[0].model_dump()]}, result]
    assert chat(model="llama", messages=told, tools=TOOLS).choices[0].message.content == "sunny"
    streamed = chat(model="llama", messages=MESSAGES, tools=TOOLS, stream=True, stream_options={"include_usage": True})
    deltas = list(streamed)
    assert [call.function.name for piece in deltas if piece.choices for call in piece.choices[0].delta.tool_calls or ()] == [
        "weather"
    ]
    with pytest.raises(openai.NotFoundError):
        chat(model="nobody", messages=MESSAGES)


@pytest.mark.parametrize("own", [False, True], ids=["httpx client", "router.aio.openai()"])
def test_async(router: Router, own: bool) -> None:
    async def main() -> None:
        client = router.aio.openai() if own else openai.AsyncOpenAI(http_client=router.aio.client(), **BASE)
        chat = client.chat.completions.create
        assert (await chat(model="llama", messages=MESSAGES)).choices[0].message.content == "one two three"
        stream = await chat(model="llama", messages=MESSAGES, stream=True)
        assert "".join([piece.choices[0].delta.content or "" async for piece in stream]) == "one two three"
        calls = (await chat(model="llama", messages=MESSAGES, tools=TOOLS)).choices[0].message.tool_calls
        assert calls is not None
        assert calls[0].function.name == "weather"
        await router.aio.close()

    asyncio.run(main())


def test_responses(router: Router) -> None:
    client = openai.OpenAI(http_client=router.client(), **BASE)
    assert client.responses.create(model="llama", input="one two three").output_text == "one two three"


def test_a_timeout_of_the_callers_own_is_the_whole_calls(router: Router) -> None:
    client = openai.OpenAI(http_client=router.client(), max_retries=0, **BASE)
    slow: Any = [{"role": "user", "content": "[[slow:5]]late"}]
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="llama", messages=slow, timeout=httpx.Timeout(0.3))
    assert caught.value.status_code == 504
