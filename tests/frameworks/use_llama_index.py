"""llama-index (OpenAILike) through router.client() and router.aio.client(): plain, streamed and with a tool, sync and async."""

from __future__ import annotations

import asyncio

import pytest
from frameworks.versions import at_least
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

from hydra_infer import Router


def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


HELLO = [ChatMessage(role="user", content="one two three")]
TOOL = FunctionTool.from_defaults(weather)


@pytest.fixture
def model(router: Router) -> OpenAILike:
    return OpenAILike(
        model="llama",
        api_base="http://hydra.invalid/v1",
        api_key="-",
        is_chat_model=True,
        is_function_calling_model=True,
        http_client=router.client(),
        async_http_client=router.aio.client(),
    )


def test_it_is_no_ancient_release() -> None:
    at_least("llama-index-llms-openai-like", 0, 8)
    at_least("llama-index-core", 0, 14)


def test_sync(model: OpenAILike) -> None:
    assert model.chat(HELLO).message.content == "one two three"
    assert "".join(piece.delta or "" for piece in model.stream_chat(HELLO)) == "one two three"
    answer = model.chat_with_tools([TOOL], user_msg="how is it?")
    calls = model.get_tool_calls_from_response(answer)
    assert [(call.tool_name, call.tool_kwargs) for call in calls] == [("weather", {"city": "Basel"})]


def test_async(router: Router, model: OpenAILike) -> None:
    async def main() -> None:
        assert (await model.achat(HELLO)).message.content == "one two three"
        assert "".join([piece.delta or "" async for piece in await model.astream_chat(HELLO)]) == "one two three"
        answer = await model.achat_with_tools([TOOL], user_msg="how is it?")
        assert model.get_tool_calls_from_response(answer)[0].tool_name == "weather"
        await router.aio.close()

    asyncio.run(main())
