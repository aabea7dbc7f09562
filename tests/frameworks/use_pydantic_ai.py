"""pydantic-ai through router.aio.client(): plain, streamed and with a tool, sync and async."""

from __future__ import annotations

import asyncio

import openai
import pytest
from frameworks.versions import at_least
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from hydra_infer import Router

FAMILY = "httpx2" if openai.__version__ >= "3" else "httpx"


def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


@pytest.fixture(params=["router.aio.client()", "router.aio.openai()"])
def model(request: pytest.FixtureRequest, router: Router) -> OpenAIChatModel:
    if request.param == "router.aio.openai()":
        return OpenAIChatModel("llama", provider=OpenAIProvider(openai_client=router.aio.openai()))
    provider = OpenAIProvider(base_url="http://hydra.invalid/v1", api_key="-", http_client=router.aio.client(FAMILY))
    return OpenAIChatModel("llama", provider=provider)


def test_it_is_no_ancient_release() -> None:
    at_least("pydantic-ai-slim", 2, 31)


def test_sync(model: OpenAIChatModel) -> None:
    assert Agent(model).run_sync("one two three").output == "one two three"
    assert Agent(model, tools=[weather]).run_sync("how is it?").output == "sunny in Basel"


def test_async(router: Router, model: OpenAIChatModel) -> None:
    async def main() -> None:
        async with Agent(model).run_stream("one two three") as run:
            assert [piece async for piece in run.stream_text(delta=True, debounce_by=None)] == ["one", " two", " three"]
        assert (await Agent(model, tools=[weather]).run("how is it?")).output == "sunny in Basel"
        await router.aio.close()

    asyncio.run(main())


def test_responses(router: Router) -> None:
    model = OpenAIResponsesModel("llama", provider=OpenAIProvider(openai_client=router.aio.openai()))
    assert Agent(model).run_sync("one two three").output == "one two three"
    assert Agent(model, tools=[weather]).run_sync("how is it?").output == "sunny in Basel"
