"""openai-agents with chat completions, and with responses, through router.aio.openai(): plain, streamed and with a tool."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from frameworks.versions import at_least

from hydra_infer import Router

set_tracing_disabled(True)


@function_tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def test_it_is_no_ancient_release() -> None:
    at_least("openai-agents", 0, 20)


@pytest.mark.parametrize("kind", [OpenAIChatCompletionsModel, OpenAIResponsesModel])
def test_sync(router: Router, kind: Any) -> None:
    model = kind(model="llama", openai_client=router.aio.openai())
    assert Runner.run_sync(Agent("a", model=model), "one two three").final_output == "one two three"


@pytest.mark.parametrize("kind", [OpenAIChatCompletionsModel, OpenAIResponsesModel])
def test_async(router: Router, kind: Any) -> None:
    async def main() -> None:
        model = kind(model="llama", openai_client=router.aio.openai())
        assert (await Runner.run(Agent("a", model=model, tools=[weather]), "how is it?")).final_output == "sunny in Basel"
        run = Runner.run_streamed(Agent("a", model=model), "one two three")
        said = [event.data.delta async for event in run.stream_events() if getattr(event, "data", None) and is_text(event.data)]
        assert "".join(said) == run.final_output == "one two three"
        await router.aio.close()

    asyncio.run(main())


def is_text(event: Any) -> bool:
    return bool(event.type == "response.output_text.delta")
