"""langchain-openai through router.client() and router.aio.client(): plain, streamed and with a tool, sync and async."""

from __future__ import annotations

import asyncio

import pytest
from frameworks.versions import at_least
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from hydra_infer import Router


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


@pytest.fixture
def model(router: Router) -> ChatOpenAI:
    clients = {"http_client": router.client(), "http_async_client": router.aio.client()}
    return ChatOpenAI(model="llama", base_url="http://hydra.invalid/v1", api_key="-", **clients)  # type: ignore[arg-type]


def test_it_is_no_ancient_release() -> None:
    at_least("langchain-openai", 1, 7)
    at_least("langchain-core", 1, 7)


def test_sync(model: ChatOpenAI) -> None:
    assert model.invoke("one two three").content == "one two three"
    assert [piece.content for piece in model.stream("one two three") if piece.content] == ["one", " two", " three"]
    helped = model.bind_tools([weather])
    first = helped.invoke("how is it?")
    assert [(call["name"], call["args"]) for call in first.tool_calls] == [("weather", {"city": "Basel"})]
    result = ToolMessage(weather.invoke(first.tool_calls[0]["args"]), tool_call_id=first.tool_calls[0]["id"])
    assert helped.invoke([HumanMessage("how is it?"), first, result]).content == "sunny in Basel"


def test_async(router: Router, model: ChatOpenAI) -> None:
    async def main() -> None:
        assert (await model.ainvoke("one two three")).content == "one two three"
        assert [piece.content async for piece in model.astream("one two three") if piece.content] == ["one", " two", " three"]
        assert (await model.bind_tools([weather]).ainvoke("how is it?")).tool_calls[0]["name"] == "weather"
        await router.aio.close()

    asyncio.run(main())
